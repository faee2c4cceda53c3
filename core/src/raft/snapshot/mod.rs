//! Snapshots: when the log is replaced by the state it leads to (Raft thesis §5; raft.md §9).
//!
//! This machine never sees a state. It says at which position one is wanted; whoever applies
//! entries holds states and turns them into blocks of bytes. An *image* is a state set aside to be
//! sent; a *receipt* is one that arrives.
//!
//! Invariants: a snapshot covers only what is committed, applied and durable here (INV-RAFT-8); an
//! entry is forgotten only once a durable snapshot covers it; one that arrives replaces the log
//! only where the log lacks what it covers, and never takes back what is committed (INV-RAFT-6).
//!
//! Differs from raft.md §9: a leader sends the state it has applied instead of its newest stored
//! snapshot, so nothing is read back from the disk, and a server that lags receives as little as
//! possible of the log afterwards.

mod receive;
mod send;

pub(super) use receive::Receipt;
pub(super) use send::Sending;

use super::{Raft, RaftOutput, RaftTrace, Role, SnapshotMeta, SnapshotOutput};
use crate::id::LogIndex;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{mutant, trace};

/// One state set aside to be sent; numbers are not used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageId(pub u64);

/// One state that arrives; numbers are not used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptId(pub u64);

/// What a server knows of its snapshots.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    /// The newest position that one covers, or will cover once it is stored.
    newest: LogIndex,
    /// While one is being stored, what `newest` was before.
    taking: Option<LogIndex>,
    /// Payload bytes of entries handed out since.
    pub(super) bytes: usize,
    /// Bytes of the newest one that was stored in this run.
    size: usize,
    /// Until then entries alone make none due.
    not_before: Instant,
    /// Until then none is taken: the disk had no space for the last one.
    full_until: Option<Instant>,
    /// Until then none is taken from a leader, for the same reason.
    no_room_until: Option<Instant>,
    pub(super) images: u64,
    pub(super) receipts: u64,
    pub(super) receipt: Option<Receipt>,
}

impl Snapshots {
    /// A server whose newest snapshot covers everything up to `newest`.
    pub(super) const fn new(newest: LogIndex, now: Instant) -> Self {
        Self {
            newest,
            taking: None,
            bytes: 0,
            size: 0,
            not_before: now,
            full_until: None,
            no_room_until: None,
            images: 0,
            receipts: 0,
            receipt: None,
        }
    }

    /// The one that was to be taken is not stored; the next one is due at `again`.
    fn not_taken(&mut self, again: Instant) {
        self.newest = self.taking.take().unwrap_or(self.newest);
        self.full_until = Some(again);
    }

    /// Whether the disk is taken to have no space for one that arrives.
    pub(super) fn has_no_room(&self, now: Instant) -> bool {
        self.no_room_until.is_some_and(|until| until > now)
    }

    /// A snapshot that arrived took the log's place.
    const fn installed(&mut self, position: LogIndex) {
        self.newest = position;
        self.bytes = 0;
    }
}

impl Raft {
    /// Asks for a snapshot of what was handed out, if one is due (raft.md §9, Raft thesis §5.1.2).
    ///
    /// What is handed out is applied before the request is looked at, since outputs come in order.
    pub(super) fn take_snapshot_if_due(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let shared = &mut self.shared;
        let (limits, snapshots) = (&shared.settings.limits, &mut shared.snapshots);
        let entries = shared.handed.above(snapshots.newest);
        let many = entries >= limits.snapshot_entries && now >= snapshots.not_before;
        let large = entries > 0 && snapshots.bytes >= limits.snapshot_bytes.max(snapshots.size);
        let again = snapshots.full_until.is_some_and(|until| now >= until) && entries > 0;
        let paused = snapshots.full_until.is_some() && !again;
        if snapshots.taking.is_some() || paused || !(many || large || again) {
            return;
        }
        let Some(position) = shared.log.position(shared.handed) else { return };
        snapshots.taking = Some(std::mem::replace(&mut snapshots.newest, position.index));
        snapshots.full_until = None;
        snapshots.bytes = 0;
        let interval = limits.snapshot_interval;
        snapshots.not_before = now + interval + shared.rng.jitter(interval);
        let meta = shared.snapshot_meta(position);
        trace!(out, Level::Debug, RaftTrace::TakingSnapshot { index: position.index });
        out.push(RaftOutput::Snapshot(SnapshotOutput::Take { meta }));
    }

    /// The snapshot is durable: forgets the entries it covers, but for those that others are
    /// likely to need.
    pub(super) fn on_snapshot_taken(
        &mut self,
        now: Instant,
        (index, bytes): (LogIndex, u64),
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        shared.snapshots.taking = None;
        shared.snapshots.size = usize::try_from(bytes).unwrap_or(usize::MAX);
        trace!(out, Level::Info, RaftTrace::SnapshotTaken { index, bytes });
        let kept = shared.settings.limits.trailing_entries;
        let trailing = shared.log.last_index().get().saturating_sub(kept);
        let mut to = index.min(LogIndex::new(trailing));
        if let Role::Leader(leader) = &self.role
            && shared.log.bytes() <= shared.settings.limits.pinned_bytes_max
            && let Some(pin) = leader.pin(shared, now)
            && !mutant!(M35)
        {
            to = to.min(pin);
        }
        if to > shared.log.base().index {
            shared.log.compact(to);
            shared.configs.compact(to);
        }
    }
}

impl super::shared::Shared {
    /// What a snapshot at `position` stands for.
    fn snapshot_meta(&self, position: crate::log::Position) -> SnapshotMeta {
        let (configuration_index, configuration) = self.configs.at(position.index);
        SnapshotMeta {
            index: position.index,
            term: position.term,
            chain: position.chain,
            configuration: configuration.clone(),
            configuration_index,
        }
    }
}
