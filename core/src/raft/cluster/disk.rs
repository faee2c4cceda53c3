//! Disks of such a cluster: what is durable, and what a start makes of it.

use super::super::{Entry, HardState, PersistBatch, RestoredRaft};
use super::store;
use crate::id::LogIndex;
use std::time::Duration;

/// A disk that holds nothing.
pub(in super::super) fn blank(n: u8) -> RestoredRaft {
    RestoredRaft {
        store: store(n),
        cluster: None,
        promise: None,
        hard: HardState::default(),
        snapshot: None,
        entries: Vec::new(),
        heartbeat_timeout: Duration::ZERO,
        recovering: None,
    }
}

/// The newest position on a disk: of the log, or of the snapshot that it will give way to.
pub(super) fn disk_last(disk: &RestoredRaft) -> LogIndex {
    let snapshot = disk.snapshot.as_ref().map_or(LogIndex::ZERO, |snapshot| snapshot.index);
    disk.entries.last().map_or(snapshot, |entry| entry.index.max(snapshot))
}

/// What recovery makes of a disk: a log that does not hold what the snapshot ends with is dropped,
/// a crash came between the snapshot and the reset of the log.
pub(super) fn recover(disk: &mut RestoredRaft) {
    let Some(snapshot) = &disk.snapshot else { return };
    let held = disk.entries.iter().find(|entry| entry.index == snapshot.index);
    let follows = disk.entries.first().is_some_and(|e| e.index == snapshot.index.next());
    if !follows && held.map(Entry::position) != Some(snapshot.position()) {
        disk.entries.clear();
    }
}

/// Performs one batch on a disk: identity, hard state, reset, truncation, entries.
pub(super) fn write(disk: &mut RestoredRaft, batch: PersistBatch) {
    let identity = batch.identity;
    disk.cluster = identity.cluster.or(disk.cluster);
    disk.promise = identity.promise.or_else(|| disk.promise.take());
    disk.heartbeat_timeout = identity.heartbeat_timeout.unwrap_or(disk.heartbeat_timeout);
    disk.recovering = disk.recovering.filter(|_| !identity.recovered);
    disk.hard = batch.hard.unwrap_or(disk.hard);
    if let Some(position) = batch.reset {
        // By then it may hold an even newer one.
        let stored = disk.snapshot.as_ref().map(|snapshot| snapshot.index);
        assert!(stored >= Some(position), "a log is given up for a snapshot that is stored");
        disk.entries.clear();
    }
    if let Some(from) = batch.truncate_from {
        disk.entries.retain(|entry| entry.index < from);
    }
    for entry in batch.entries {
        let last = disk.entries.last().map(|entry| entry.index);
        let follows = match last {
            Some(last) => entry.index == last.next(),
            None => entry.index <= disk_last(disk).next(),
        };
        assert!(follows, "the disk's log has no gap");
        disk.entries.push(entry);
    }
}
