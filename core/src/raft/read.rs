//! Reads that a quorum confirms, without an entry in the log (Raft thesis §6.4; raft.md §7.1).
//!
//! Every broadcast of heartbeats is a round with a number, and whoever answers one was in this
//! leader's term then. A read waits for a round that begins after the read came, so nobody was
//! elected before that; one round serves all reads that wait for it. Invariant: a read is answered
//! from a state that holds everything committed before it came (raft.md I12): everything up to the
//! commit index of that moment, and to the first entry of the term, below which a new leader does
//! not know what is committed.
//!
//! Not here: reads by a follower (raft.md §7.3), and reads under a lease (`lease`).

use super::leader::Leader;
use super::shared::Shared;
use super::{Raft, RaftOutput, ReadError, ReadId, Role, quorum};
use crate::id::{LogIndex, NodeId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::{mark, mutant};
use std::collections::VecDeque;

/// A leader's rounds, and the reads that wait for one.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// The newest round; 0 before the first.
    pub(super) round: u64,
    /// As they came, so rounds and positions do not decrease.
    waiting: VecDeque<WaitingRead>,
}

#[derive(Clone, Copy, Debug)]
struct WaitingRead {
    id: ReadId,
    /// The round that confirms it.
    round: u64,
    /// What must be applied before.
    index: LogIndex,
    since: Instant,
}

impl Raft {
    /// Lets a read wait for its round, or says why not.
    pub(super) fn on_read(&mut self, now: Instant, id: ReadId, out: &mut Outbox<RaftOutput>) {
        let shared = &mut self.shared;
        let error = match &mut self.role {
            Role::Leader(leader) if leader.reads.is_full(shared) => ReadError::Overloaded,
            Role::Leader(leader) => {
                leader.await_round(shared, now, id);
                return leader.serve_reads(shared, now, out);
            }
            Role::Follower(_) | Role::Candidate(_) => ReadError::NotLeader,
        };
        out.push(RaftOutput::ReadFailed { id, error });
    }

    /// Answers the reads that may be answered; called when a round was answered, when something
    /// was applied, and when the quorum changed.
    pub(super) fn serve_reads(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.serve_reads(&mut self.shared, now, out);
        }
    }
}

impl Reads {
    fn is_full(&self, shared: &Shared) -> bool {
        self.waiting.len() >= shared.settings.limits.reads_max
    }

    /// The term is over: none of them is answered here.
    pub(super) fn end(self, out: &mut Outbox<RaftOutput>) {
        for read in self.waiting {
            let error = ReadError::NotLeader;
            out.push(RaftOutput::ReadFailed { id: read.id, error });
        }
    }
}

impl Leader {
    fn await_round(&mut self, shared: &Shared, now: Instant, id: ReadId) {
        if shared.commit < self.noop {
            mark!("raft.read.before_the_noop");
        }
        let index = if mutant!(M17) { shared.commit } else { shared.commit.max(self.noop) };
        let round = if mutant!(M18) { self.reads.round } else { self.reads.round + 1 };
        self.reads.waiting.push_back(WaitingRead { id, round, index, since: now });
    }

    /// Answers what is confirmed and applied, and begins the next round if a read waits for it and
    /// none is under way.
    fn serve_reads(&mut self, shared: &mut Shared, now: Instant, out: &mut Outbox<RaftOutput>) {
        loop {
            let confirmed = self.confirmed_round(shared);
            let waiting = &mut self.reads.waiting;
            let may = |read: &&WaitingRead| read.round <= confirmed && read.index <= shared.applied;
            while let Some(read) = waiting.front().filter(may).copied() {
                waiting.pop_front();
                shared.leading.confirmations.record_since(read.since, now);
                out.push(RaftOutput::ReadReady { id: read.id });
            }
            let unconfirmed = waiting.partition_point(|read| read.round <= confirmed);
            match waiting.get(unconfirmed) {
                Some(read) if read.round > self.reads.round => {
                    self.broadcast_heartbeat(shared, now, out);
                }
                Some(_) | None => return,
            }
        }
    }

    /// The newest round that a quorum has answered.
    fn confirmed_round(&self, shared: &Shared) -> u64 {
        let id = shared.id();
        let acked = |voter: &NodeId| match self.peers.get(voter) {
            Some(peer) => peer.progress.acked_round,
            None if *voter == id => self.reads.round,
            None => 0,
        };
        quorum::reached_by_quorum(&shared.configs.latest().voters, acked).unwrap_or(0)
    }
}
