//! Which snapshots are kept, and how much of the log they make superfluous.
//!
//! Source: raft.md §9, §11.4. The two newest are kept, and the log behind the *older* of them: if
//! the newest is rotten at the next start, the older one and the log still give everything. Only
//! right after a snapshot was received in place of the log, no older one connects to it.

use super::{SnapshotId, snap_dir};
use crate::id::LogIndex;
use crate::storage::op::FileOp;

/// Snapshots that are kept.
const KEPT: usize = 2;

/// The snapshots that are stored durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// At most [`KEPT`], the oldest first.
    stored: Vec<SnapshotId>,
}

/// What may go once a snapshot is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Removes the snapshots that are not kept.
    pub remove: Vec<FileOp>,
    /// The position up to which [`Wal::compact`](crate::storage::wal::Wal::compact) may go.
    pub compact: Option<LogIndex>,
}

impl SnapshotFiles {
    /// The newest one.
    pub fn newest(&self) -> Option<SnapshotId> {
        self.stored.last().copied()
    }

    /// A snapshot is durable, under its name; it may take the place of an equal one.
    ///
    /// With only one snapshot the log is kept whole.
    pub fn add(&mut self, id: SnapshotId) -> Retention {
        let place = self.stored.partition_point(|stored| *stored < id);
        if self.stored.get(place) != Some(&id) {
            self.stored.insert(place, id);
        }
        let surplus = self.stored.len().saturating_sub(KEPT);
        let removed: Vec<SnapshotId> = self.stored.drain(..surplus).collect();
        let mut remove: Vec<FileOp> =
            removed.into_iter().map(|id| FileOp::Remove(id.file())).collect();
        if !remove.is_empty() {
            remove.push(FileOp::SyncDir(Some(snap_dir())));
        }
        let oldest = self.stored.first().filter(|_| self.stored.len() == KEPT);
        Retention { remove, compact: oldest.map(|id| id.index) }
    }
}
