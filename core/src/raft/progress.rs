//! What a leader knows of one other server's log (raft.md §6.1).
//!
//! Invariants: `next` is above `matched`; the window of unanswered messages stays within its
//! limits (INV-RAFT-14).

use super::{Condition, RaftLimits, Unfit};
use crate::id::LogIndex;
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// How entries are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// One message at a time, until the logs are known to agree.
    Probe {
        /// Whether that message is on its way.
        sent: bool,
    },
    /// As the window allows.
    Replicate,
    /// Nothing: what the server lacks is not kept any more, and a snapshot is on its way to it.
    Snapshot,
}

/// One server's progress.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) matched: LogIndex,
    pub(super) next: LogIndex,
    pub(super) flow: Flow,
    /// Messages with entries on their way: the last position and the bytes of each.
    inflight: VecDeque<(LogIndex, usize)>,
    inflight_bytes: usize,
    /// The commit index last told.
    pub(super) sent_commit: LogIndex,
    /// The newest entry it has applied.
    pub(super) applied: LogIndex,
    /// When it was last heard of.
    pub(super) active_at: Instant,
    /// The newest round of heartbeats it answered.
    pub(super) acked_round: u64,
    /// Whether the next answer to a heartbeat lets it be asked again for what it has not answered:
    /// once for each interval, however many rounds reads need in between.
    suspicious: bool,
    /// When the newest request it answered was sent.
    pub(super) acked_send: Option<Instant>,
    /// How long it sticks to its leader, as it said last.
    pub(super) patience: Duration,
    /// Why it should not lead, as it said last.
    pub(super) unfit: Option<Unfit>,
}

/// Messages on their way beyond which only full ones are sent: what is proposed meanwhile travels
/// together (raft.md K6, hraft#541).
const PARTIAL_MESSAGES_MAX: usize = 2;

impl Progress {
    /// Nothing is known; the search begins at `next`.
    pub(super) const fn new(next: LogIndex, now: Instant, patience: Duration) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next,
            flow: Flow::Probe { sent: false },
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            sent_commit: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            active_at: now,
            acked_round: 0,
            suspicious: false,
            acked_send: None,
            patience,
            unfit: None,
        }
    }

    /// Whether its disk is full, so that nothing is to be sent to it.
    pub(super) fn is_full(&self) -> bool {
        self.unfit == Some(Unfit::DiskFull)
    }

    /// Whether nothing with entries is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.inflight.is_empty()
    }

    /// Whether entries may be sent; `full` if they fill a whole message.
    pub(super) fn may_send(&self, limits: &RaftLimits, full: bool) -> bool {
        match self.flow {
            Flow::Probe { sent } => !sent,
            Flow::Replicate => {
                let messages =
                    if full { limits.inflight_messages_max } else { PARTIAL_MESSAGES_MAX };
                self.inflight.len() < messages.min(limits.inflight_messages_max)
                    && self.inflight_bytes < limits.inflight_bytes_max
            }
            Flow::Snapshot => false,
        }
    }

    /// Entries up to `last` were sent.
    pub(super) fn sent(&mut self, last: LogIndex, bytes: usize) {
        match &mut self.flow {
            Flow::Probe { sent } => *sent = true,
            Flow::Replicate => {
                if last >= self.next {
                    self.next = last.next();
                    self.inflight.push_back((last, bytes));
                    self.inflight_bytes += bytes;
                }
            }
            Flow::Snapshot => {}
        }
    }

    /// The server has everything up to `matched`, durably.
    pub(super) fn acknowledged(&mut self, matched: LogIndex) {
        if matched.next() >= self.next {
            self.flow = Flow::Replicate;
        }
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        while let Some((last, bytes)) = self.inflight.front().copied() {
            if last > self.matched {
                break;
            }
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
        assert!(self.next > self.matched, "INV-RAFT-14: next is above match");
    }

    /// The server answered a request of `sent_at`; how long that took.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        sent_at: u64,
        condition: Condition,
    ) -> Duration {
        self.active_at = now;
        self.applied = self.applied.max(condition.applied);
        self.patience = condition.patience;
        self.unfit = condition.unfit;
        let sent_at = Instant::from_nanos(sent_at).min(now);
        let sent_at = if crate::mutant!(M15) { now } else { sent_at };
        self.acked_send = self.acked_send.max(Some(sent_at));
        now.since(sent_at)
    }

    /// What is on its way may be lost, if the server turns out to be there.
    pub(super) const fn suspect_loss(&mut self) {
        self.suspicious = true;
    }

    /// Whether it may; once.
    pub(super) fn take_suspicion(&mut self) -> bool {
        std::mem::replace(&mut self.suspicious, false) && !crate::mutant!(M34)
    }

    /// A snapshot of everything up to `index` will be sent.
    pub(super) fn snapshot(&mut self, index: LogIndex) {
        self.probe(index.next());
        self.flow = Flow::Snapshot;
    }

    /// The search goes on at `next`, not at or below what is known.
    pub(super) fn probe(&mut self, next: LogIndex) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { sent: false };
        self.inflight.clear();
        self.inflight_bytes = 0;
        assert!(self.next > self.matched, "INV-RAFT-14: next is above match");
    }
}
