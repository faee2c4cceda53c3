//! Which machine waits for which storage operation.

use super::output::Output;
use super::snapshots::SnapshotWrite;
use crate::id::{PoolName, WriteId};
use crate::local::PersistTicket;
use crate::raft::PersistSeq;
use crate::storage::op::{FileOp, Lane, StorageOp};
use std::collections::{BTreeMap, VecDeque};

/// What an operation on its way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Consensus.
    Raft(PersistSeq),
    /// The first configuration.
    Bootstrap(PersistSeq),
    /// Room ahead of the log's writer, by the lane that prepares it.
    Prepare(Lane),
    /// Space for the next snapshot.
    Reserve,
    /// Registrations.
    Local(PersistTicket),
    /// Serf's snapshot of a pool.
    Serf(PoolName),
    /// The keys of a pool's gossip.
    Keyring(PoolName),
    /// A snapshot of the catalog.
    Snapshot(SnapshotWrite),
    /// The log's seal at a clean stop.
    Seal,
}

impl Purpose {
    /// Whether the operation writes the log.
    pub(super) const fn is_of_log(self) -> bool {
        matches!(self, Self::Raft(_))
    }

    /// Whether the operation may fail on a full disk, and nothing behind it in its lane relies on
    /// it. The log is a sequence, and so are the removals of its oldest segments; everything else
    /// is written whole again, or at a place that is known.
    const fn is_deferrable(self) -> bool {
        match self {
            Self::Raft(_)
            | Self::Bootstrap(_)
            | Self::Seal
            | Self::Snapshot(SnapshotWrite::Removal) => false,
            Self::Prepare(_)
            | Self::Reserve
            | Self::Local(_)
            | Self::Serf(_)
            | Self::Keyring(_)
            | Self::Snapshot(_) => true,
        }
    }
}

/// All operations on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    issued: u64,
    waiting: BTreeMap<WriteId, Purpose>,
}

impl Writes {
    /// Hands out an operation for `purpose`.
    pub(super) fn issue(
        &mut self,
        purpose: Purpose,
        lane: Lane,
        ops: Vec<FileOp>,
        out: &mut VecDeque<Output>,
    ) {
        self.issued += 1;
        let deferrable = purpose.is_deferrable();
        let write = WriteId::new(self.issued);
        self.waiting.insert(write, purpose);
        out.push_back(Output::Persist { write, op: StorageOp { lane, ops, deferrable } });
    }

    /// Whether nothing that `matches` is on its way.
    pub(super) fn is_idle(&self, matches: fn(Purpose) -> bool) -> bool {
        !self.waiting.values().any(|purpose| matches(*purpose))
    }

    /// What the completed operation was for; `None` for one that was never issued.
    pub(super) fn complete(&mut self, write: WriteId) -> Option<Purpose> {
        self.waiting.remove(&write)
    }
}
