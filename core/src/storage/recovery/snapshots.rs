//! Which snapshot a recovery begins with, and what that means for the log.
//!
//! Source: raft.md §9, §11.5 step 2. The newest snapshot that is whole is chosen. Then:
//!
//! | snapshot | log | what is done |
//! |---|---|---|
//! | none | whole | goes on with the log |
//! | one | begins right behind it, or holds the entry it ends with | goes on with both |
//! | one | ends before it, or holds another entry in that place | the log is reset to it |
//! | one or none | begins behind it | the log is reset to it, and something is lost |
//!
//! The third row is the crash between a snapshot and the `Reset` record that follows it, or that of
//! a leader whose entries others made durable first: nothing of that log was acknowledged that the
//! snapshot does not cover (raft.md §11.4).
//!
//! Older snapshots are not read as long as a newer one serves: a start costs one reading. Kept are
//! the chosen one and the next older, as while running, and the newest damaged one as `….bad`.

use super::lost::Loss;
use super::{RecoveryError, RecoveryNote};
use crate::catalog::Tables;
use crate::catalog::image::ImageDecoder;
use crate::id::{LogIndex, StoreId};
use crate::mark;
use crate::raft::SnapshotMeta;
use crate::storage::StorageDamage;
use crate::storage::op::{FileOp, FilePath};
use crate::storage::recovery::Step;
use crate::storage::scan::Scanned;
use crate::storage::snapshot::{
    Purpose, Snapshot, SnapshotFault, SnapshotFiles, SnapshotId, SnapshotReader, snap_dir,
};
use bytes::Bytes;

/// A search for the newest usable snapshot.
#[derive(Clone, Debug)]
pub(super) struct Search {
    store: StoreId,
    /// The position behind which the log begins.
    base: LogIndex,
    /// Snapshots that are not read, oldest first.
    unread: Vec<SnapshotId>,
    reader: Option<SnapshotReader<ImageDecoder>>,
    /// What is wrong with those that were read, newest first.
    damaged: Vec<(SnapshotId, StorageDamage)>,
    /// What they stood for, as far as that could be read.
    metas: Vec<SnapshotMeta>,
    /// Those that an earlier recovery found damaged.
    bad: Vec<SnapshotId>,
    /// Files of writers that did not finish.
    unfinished: Option<FilePath>,
}

/// Where a search is.
#[derive(Debug)]
pub(super) enum Progress {
    /// This is to be read.
    Wanted(Step),
    /// It has ended.
    Ended(Option<Box<Snapshot<Tables>>>),
}

/// What a server begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) files: SnapshotFiles,
    /// The log is to be forgotten, and goes on behind this position.
    pub(super) reset: Option<LogIndex>,
    /// Set if the log's beginning is gone and nothing stands for it.
    pub(super) loss: Option<Loss>,
    /// Makes the names durable and cleans up; before anything that relies on the snapshot.
    pub(super) ops: Vec<FileOp>,
    pub(super) notes: Vec<RecoveryNote>,
}

/// The snapshots among the names of a folder, oldest first.
pub(super) fn snapshots(names: &[String], ending: &str) -> Vec<SnapshotId> {
    let ids = names.iter().filter_map(|name| SnapshotId::from_name(name, ending));
    let mut ids: Vec<SnapshotId> = ids.collect();
    ids.sort_unstable();
    ids
}

impl Search {
    /// A search among the files of these names, for a log that begins behind `base`.
    pub(super) fn new(store: StoreId, base: LogIndex, names: &[String]) -> Self {
        let is_there = |file: &FilePath| {
            names.iter().any(|name| file.as_str().strip_prefix("raft/snap/") == Some(name))
        };
        Self {
            store,
            base,
            unread: snapshots(names, "snap"),
            reader: None,
            damaged: Vec::new(),
            metas: Vec::new(),
            bad: snapshots(names, "bad"),
            unfinished: Some(Purpose::Received.file()).filter(is_there),
        }
    }

    /// The first step.
    pub(super) fn begin(&mut self) -> Progress {
        let Some(id) = self.unread.pop() else { return Progress::Ended(None) };
        let reader = SnapshotReader::new(self.store, id);
        let step = reader.wanted();
        self.reader = Some(reader);
        Progress::Wanted(step)
    }

    /// Takes the part that was wanted.
    pub(super) fn part(&mut self, part: Option<Bytes>) -> Result<Progress, RecoveryError> {
        let reader = self.reader.as_mut().expect("a part of this file was asked for");
        match reader.part(&part.unwrap_or_default()) {
            Ok(None) => Ok(Progress::Wanted(reader.wanted())),
            Ok(Some(snapshot)) => Ok(Progress::Ended(Some(Box::new(snapshot)))),
            Err(SnapshotFault::Version(version)) => {
                Err(RecoveryError::Version { file: reader.id().file(), version: version.into() })
            }
            Err(SnapshotFault::Damage(damage)) => {
                mark!("storage.snapshot_damaged");
                self.damaged.push((reader.id(), damage));
                self.metas.extend(reader.meta().cloned());
                Ok(self.begin())
            }
        }
    }

    /// What damaged snapshots stood for, newest first.
    pub(super) fn damaged_metas(&self) -> impl Iterator<Item = &SnapshotMeta> {
        self.metas.iter()
    }

    /// What follows for the server from the log that was scanned and the snapshot that was chosen.
    ///
    /// If the log is to be reset, `scanned` has no entries any more; it goes on behind the chosen
    /// snapshot, or at its very beginning without one.
    pub(super) fn end(self, chosen: Option<&Snapshot<Tables>>, scanned: &mut Scanned) -> Beginning {
        let damages: Vec<StorageDamage> =
            self.damaged.iter().map(|(_, damage)| damage.clone()).collect();
        let start = chosen.map_or(LogIndex::ZERO, |snapshot| snapshot.meta.index);
        let gap = self.base > start;
        let connected = !gap && scanned.anchored;
        let goes_on = connected && chosen.is_none_or(|snapshot| continues(snapshot, scanned));
        let reset = (!goes_on).then_some(start);
        let last = scanned.tail.last;
        if reset.is_some() {
            scanned.entries.clear();
        }
        let mut notes = Vec::new();
        let loss = gap.then(|| {
            let id = chosen.map(|snapshot| SnapshotId::of(&snapshot.meta));
            let rule = "it ends before the log begins";
            let too_old = id.map(|id| StorageDamage { file: id.file(), offset: 0, rule });
            let unusable = damages.iter().cloned().chain(too_old).collect();
            Loss::Snapshots { base: self.base, unusable }
        });
        notes.extend(damages.into_iter().map(RecoveryNote::UnusableSnapshot));
        if reset.is_some() && loss.is_none() {
            mark!("storage.log_reset_by_recovery");
            notes.push(RecoveryNote::LogReset { last, position: start });
        }
        let (files, ops) = self.keep(chosen);
        Beginning { files, reset, loss, ops, notes }
    }

    /// The files that stay, and the operations that make it so.
    fn keep(mut self, chosen: Option<&Snapshot<Tables>>) -> (SnapshotFiles, Vec<FileOp>) {
        let mut files = SnapshotFiles::default();
        // A name may be in the page cache only, and the log is about to rely on it.
        let mut ops = vec![
            FileOp::CreateDir(snap_dir()),
            FileOp::SyncDir(snap_dir().parent()),
            FileOp::SyncDir(Some(snap_dir())),
        ];
        let chosen = chosen.map(|snapshot| SnapshotId::of(&snapshot.meta));
        for id in std::mem::take(&mut self.unread).into_iter().chain(chosen) {
            ops.extend(files.add(id).remove);
        }
        let mut surplus: Vec<FilePath> = self.unfinished.into_iter().collect();
        let mut damaged = self.damaged.into_iter().map(|(id, _)| id);
        let newest = damaged.next();
        surplus.extend(damaged.map(SnapshotId::file));
        if newest.is_none() {
            self.bad.pop();
        }
        surplus.extend(self.bad.into_iter().map(SnapshotId::bad_file));
        let unclean = newest.is_some() || !surplus.is_empty();
        ops.extend(surplus.into_iter().map(FileOp::Remove));
        ops.extend(newest.map(|id| FileOp::Rename { from: id.file(), to: id.bad_file() }));
        ops.extend(unclean.then(|| FileOp::SyncDir(Some(snap_dir()))));
        (files, ops)
    }
}

/// Whether the log goes on where the snapshot ends.
fn continues(snapshot: &Snapshot<Tables>, scanned: &Scanned) -> bool {
    let meta = &snapshot.meta;
    assert!(scanned.base <= meta.index, "a snapshot that the log begins behind is not chosen");
    let place = meta.index.above(scanned.base).checked_sub(1);
    let Some(place) = place else { return true };
    let entry = usize::try_from(place).ok().and_then(|place| scanned.entries.get(place));
    entry.is_some_and(|entry| entry.term == meta.term && entry.chain == meta.chain)
}

#[cfg(test)]
mod tests;
