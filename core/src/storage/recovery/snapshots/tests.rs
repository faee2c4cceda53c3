//! Recoveries that begin with a snapshot, and those that cannot.

mod life;

use super::*;
use crate::catalog::command::{Applied, Command};
use crate::catalog::image::ImageEncoder;
use crate::catalog::kv::{KvPut, KvWrite};
use crate::id::Term;
use crate::raft::{Entry, PersistBatch, SnapshotMeta};
use crate::storage::recovery::{Restored, RestoredServer};
use crate::storage::testing::{MemDisk, entry, server, snapshot_meta, snapshot_of_version};
use crate::storage::wal::Wal;

/// The state at a position, for these tests.
fn state(meta: &SnapshotMeta) -> Tables {
    let mut tables = Tables::default();
    for index in (1..=meta.index.get() % 4).map(LogIndex::new) {
        let key = format!("{index} of {}", meta.index);
        let put = KvPut { key, value: Bytes::new(), flags: 0, only_at: None };
        assert_eq!(tables.apply(index, Command::Kv(KvWrite::Put(put))), Ok(Applied::Done));
    }
    tables
}

/// That state in blocks.
fn blocks(meta: &SnapshotMeta) -> Vec<Bytes> {
    let mut encoder = ImageEncoder::new(state(meta));
    std::iter::from_fn(|| encoder.next_block(100)).collect()
}

/// A server on a perfect disk.
struct Server {
    disk: MemDisk,
    wal: Wal,
}

impl Server {
    /// One that holds these entries, of these terms.
    fn with(terms: impl IntoIterator<Item = u64>) -> Self {
        let mut disk = MemDisk::default();
        let wal = disk.recover(server()).unwrap().server.unwrap().wal;
        let mut server = Self { disk, wal };
        (1..).zip(terms).for_each(|(index, term)| server.append(&[entry(index, term, 300)]));
        server
    }

    fn persist(&mut self, batch: &PersistBatch) {
        let ops = self.wal.append(batch);
        self.disk.perform(ops);
        while let Some(step) = self.wal.prepare() {
            self.disk.perform(step.ops);
            self.wal.prepared(step.lane);
        }
    }

    fn append(&mut self, entries: &[Entry]) {
        self.persist(&PersistBatch { entries: entries.to_vec(), ..Default::default() });
    }

    fn reset(&mut self, position: u64) {
        let reset = Some(LogIndex::new(position));
        self.persist(&PersistBatch { reset, ..Default::default() });
    }

    fn snapshot(&mut self, index: u64, term: u64) -> SnapshotMeta {
        let meta = snapshot_meta(index, term);
        self.disk.write_snapshot(self.wal.store(), Purpose::Own, &meta, &blocks(&meta));
        meta
    }

    fn compact(&mut self, to: u64) {
        let ops = self.wal.compact(LogIndex::new(to));
        self.disk.perform(ops);
    }

    fn file(&mut self, index: u64, term: u64) -> &mut Vec<u8> {
        let file = SnapshotId::of(&snapshot_meta(index, term)).file();
        self.disk.files.get_mut(file.as_str()).unwrap()
    }

    fn rot(&mut self, index: u64, term: u64) {
        *self.file(index, term).last_mut().unwrap() ^= 1;
    }

    /// Starts again; what was unusual is returned beside.
    fn recover(&mut self) -> Result<(RestoredServer, Vec<RecoveryNote>), RecoveryError> {
        let Restored { server, notes, .. } = self.disk.recover(server())?;
        let server = server.unwrap();
        self.wal = server.wal.clone();
        Ok((server, notes))
    }

    fn names(&self) -> Vec<&str> {
        self.disk.files.keys().filter_map(|path| path.strip_prefix("raft/snap/")).collect()
    }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index.get()).collect()
}

fn name(index: u64, term: u64, ending: &str) -> String {
    format!("{index:020}-{term:020}.{ending}")
}

#[test]
fn a_snapshot_is_handed_over_with_the_log_that_holds_its_entry() {
    let mut ran = Server::with([1, 1, 1, 2, 2]);
    let older = ran.snapshot(2, 1);
    let meta = ran.snapshot(3, 1);
    for _ in 0..2 {
        let (server, notes) = ran.recover().unwrap();
        assert_eq!(server.raft.snapshot.as_ref(), Some(&meta));
        assert_eq!(server.tables, state(&meta));
        assert_eq!(indexes(&server.raft.entries), [1, 2, 3, 4, 5]);
        let mut files = SnapshotFiles::default();
        files.add(SnapshotId::of(&older));
        files.add(SnapshotId::of(&meta));
        assert_eq!(server.snapshots, files);
        assert_eq!(notes, []);
    }
}

#[test]
fn a_log_that_begins_right_behind_the_snapshot_is_kept() {
    let mut ran = Server::with([1, 1]);
    let meta = ran.snapshot(50, 4);
    ran.reset(50);
    ran.append(&[entry(51, 4, 10), entry(52, 5, 10)]);
    let (server, notes) = ran.recover().unwrap();
    assert_eq!(server.raft.snapshot, Some(meta));
    assert_eq!(indexes(&server.raft.entries), [51, 52]);
    assert_eq!(notes, []);
}

#[test]
fn the_reset_after_a_received_snapshot_is_done_if_it_is_missing() {
    // The log ends before the snapshot, holds its position in another term, or nothing at all.
    for terms in [vec![1, 1, 1], vec![1, 1, 1, 1, 1, 1, 1, 1], vec![]] {
        let mut ran = Server::with(terms.clone());
        let meta = ran.snapshot(7, 3);
        let (server, notes) = ran.recover().unwrap();
        assert_eq!(server.raft.snapshot.as_ref(), Some(&meta), "{terms:?}");
        assert_eq!(server.raft.entries, []);
        let (last, position) = (LogIndex::new(terms.len() as u64), LogIndex::new(7));
        assert_eq!(notes, [RecoveryNote::LogReset { last, position }]);
        ran.append(&[entry(8, 3, 10)]);
        let (server, notes) = ran.recover().unwrap();
        assert_eq!(server.raft.snapshot, Some(meta));
        assert_eq!(server.raft.entries, [entry(8, 3, 10)]);
        assert_eq!(notes, []);
    }
}

#[test]
fn an_entry_of_the_same_term_but_another_history_does_not_connect() {
    let mut ran = Server::with([1, 1, 1]);
    let meta = SnapshotMeta { chain: 99, ..snapshot_meta(2, 1) };
    ran.disk.write_snapshot(ran.wal.store(), Purpose::Received, &meta, &blocks(&meta));
    let (server, _) = ran.recover().unwrap();
    assert_eq!((server.raft.snapshot, server.raft.entries), (Some(meta), Vec::new()));
}

#[test]
fn a_rotten_newest_snapshot_is_survived_whichever_byte_it_is() {
    let mut ran = Server::with([1; 12]);
    let older = ran.snapshot(6, 1);
    ran.snapshot(11, 1);
    ran.compact(6);
    assert!(!ran.disk.files.contains_key("raft/wal/0000000000000001.seg"));
    let bytes = ran.file(11, 1).len();
    for at in 0..bytes {
        let mut ran = Server { disk: ran.disk.clone(), wal: ran.wal.clone() };
        ran.file(11, 1)[at] ^= 1 << (at % 8);
        let (server, notes) = ran.recover().unwrap();
        assert_eq!(server.raft.snapshot.as_ref(), Some(&older));
        assert_eq!(server.tables, state(&older));
        assert_eq!(server.raft.entries.last(), Some(&entry(12, 1, 300)));
        assert!(server.raft.entries[0].index <= LogIndex::new(7));
        assert!(matches!(&notes[..], [RecoveryNote::UnusableSnapshot(_)]), "{notes:?}");
        assert_eq!(ran.names(), [name(6, 1, "snap"), name(11, 1, "bad")]);
        assert_eq!(ran.recover().unwrap().1, []);
    }
}

#[test]
fn a_compacted_log_without_a_snapshot_that_reaches_it_is_refused_and_nothing_changes() {
    let mut ran = Server::with([1; 12]);
    ran.snapshot(6, 1);
    ran.snapshot(11, 1);
    ran.compact(6);
    let whole = ran.disk.clone();
    let lost = |ran: &mut Server| {
        let before = ran.disk.clone();
        let error = ran.recover().expect_err("entries are lost");
        assert_eq!(ran.disk, before);
        error.to_string()
    };
    ran.rot(6, 1);
    ran.rot(11, 1);
    let line = "the log begins behind entry 6, and no usable snapshot reaches to it; \
                raft/snap/00000000000000000011-00000000000000000001.snap at byte 400: ";
    let message = lost(&mut ran);
    assert!(message.starts_with(&line[..80]), "{message}");
    assert_eq!(message.matches(".snap at byte").count(), 2, "{message}");
    ran.disk = whole.clone();
    ran.disk.files.retain(|path, _| !path.starts_with("raft/snap/"));
    assert!(lost(&mut ran).starts_with(&line[..67]));
    ran.disk = whole;
    ran.disk.files.retain(|path, _| !path.starts_with("raft/snap/"));
    ran.snapshot(5, 1);
    assert!(lost(&mut ran).contains("at byte 0: it ends before the log begins; no other"));
}

#[test]
fn a_whole_log_stands_for_all_snapshots() {
    let mut ran = Server::with([1; 6]);
    ran.snapshot(2, 1);
    ran.snapshot(4, 1);
    ran.rot(2, 1);
    ran.rot(4, 1);
    let (server, notes) = ran.recover().unwrap();
    assert_eq!((server.raft.snapshot, server.tables), (None, Tables::default()));
    assert_eq!(indexes(&server.raft.entries), [1, 2, 3, 4, 5, 6]);
    assert_eq!(notes.len(), 2);
    assert_eq!(server.snapshots, SnapshotFiles::default());
    assert_eq!(ran.names(), [name(4, 1, "bad")]);
}

#[test]
fn what_is_not_kept_is_removed() {
    let mut ran = Server::with([1; 9]);
    for index in [2, 4, 6, 8] {
        ran.snapshot(index, 1);
    }
    ran.rot(8, 1);
    ran.disk.put("raft/snap/own.tmp", b"x");
    ran.disk.put("raft/snap/received.tmp", b"x");
    ran.disk.put("raft/snap/the operator's", b"x");
    ran.disk.put(&format!("raft/snap/{}", name(1, 1, "bad")), b"x");
    let (server, _) = ran.recover().unwrap();
    assert_eq!(server.raft.snapshot, Some(snapshot_meta(6, 1)));
    let kept = [name(4, 1, "snap"), name(6, 1, "snap"), name(8, 1, "bad")];
    assert_eq!(ran.names(), [&kept[..], &["the operator's".to_owned()]].concat());
    // A later one that is whole leaves the damaged one for the operator.
    ran.recover().unwrap();
    assert_eq!(ran.names()[..3], kept);
}

#[test]
fn a_snapshot_of_a_later_release_is_refused() {
    let mut ran = Server::with([1; 3]);
    ran.snapshot(1, 1);
    let id = SnapshotId { index: LogIndex::new(2), term: Term::new(1) };
    let meta = snapshot_meta(2, 1);
    let file = snapshot_of_version(ran.wal.store(), &meta, 9);
    ran.disk.put(id.file().as_str(), &file);
    let error = ran.recover().err();
    assert_eq!(error, Some(RecoveryError::Version { file: id.file(), version: 9 }));
}

#[test]
fn a_snapshot_without_the_identity_of_its_store_is_refused() {
    let mut ran = Server::with([]);
    ran.snapshot(2, 1);
    ran.disk.files.retain(|path, _| path.starts_with("raft/snap/"));
    let file = SnapshotId::of(&snapshot_meta(2, 1)).file();
    assert_eq!(ran.recover().err(), Some(RecoveryError::IdentityLost { file }));
}
