//! Servers whose disks lost something that they had acknowledged.

use super::*;
use crate::catalog::image::ImageEncoder;
use crate::id::{ClusterId, NodeId, StoreId, Term};
use crate::raft::{Entry, IdentityChange, PersistBatch, Server, SnapshotMeta};
use crate::storage::op::{FileOp, FilePath};
use crate::storage::recovery::{RecoveryNote, Restored, RestoredServer};
use crate::storage::snapshot::{Purpose, SnapshotId};
use crate::storage::testing::{MemDisk, entry, server, snapshot_meta};
use crate::storage::wal::Wal;

const SEGMENT: &str = "raft/wal/0000000000000001.seg";

/// A configuration of this server and so many others.
fn configuration(of: NodeId, others: u8) -> Configuration {
    let address = "127.0.0.1:8300".parse().unwrap();
    let server = Server { address, store: StoreId::from_bytes([2; 16]) };
    let others = (0..others).map(|n| NodeId::from_bytes([0x70 + n; 16]));
    let voters = others.chain([of]).map(|id| (id, server.clone())).collect();
    Configuration { voters, ..Configuration::default() }
}

fn config_entry(index: u64, term: u64, configuration: &Configuration) -> Entry {
    let payload = pack::to_bytes(configuration);
    Entry { kind: EntryKind::Config, payload, ..entry(index, term, 0) }
}

/// A server in a cluster, on a perfect disk.
#[derive(Clone)]
struct Member {
    disk: MemDisk,
    id: NodeId,
    wal: Wal,
}

impl Member {
    /// One that knows its cluster, is in term 4, and has an empty log.
    fn blank() -> Self {
        let mut disk = MemDisk::default();
        let Restored { node_id: id, server, .. } = disk.recover(server()).unwrap();
        let mut member = Self { disk, id, wal: server.unwrap().wal };
        let cluster = Some(ClusterId::from_bytes([4; 16]));
        let identity = IdentityChange { cluster, ..Default::default() };
        let hard = Some(HardState { term: Term::new(4), voted_for: Some(id) });
        member.persist(&PersistBatch { identity, hard, ..Default::default() });
        member
    }

    /// One of three voters, with so many entries, one in each batch.
    fn with(entries: u64) -> Self {
        let mut member = Self::blank();
        let first = config_entry(1, 1, &configuration(member.id, 2));
        member.append(first);
        (2..=entries).for_each(|index| member.append(entry(index, 1, 300)));
        member
    }

    fn persist(&mut self, batch: &PersistBatch) {
        let ops = self.wal.append(batch);
        self.disk.perform(ops);
        while let Some(step) = self.wal.prepare() {
            self.disk.perform(step.ops);
            self.wal.prepared(step.lane);
        }
    }

    fn append(&mut self, entry: Entry) {
        self.persist(&PersistBatch { entries: vec![entry], ..Default::default() });
    }

    fn snapshot(&mut self, index: u64, others: u8) -> SnapshotMeta {
        let meta = SnapshotMeta {
            configuration: configuration(self.id, others),
            ..snapshot_meta(index, 1)
        };
        let mut encoder = ImageEncoder::new(Tables::default());
        let blocks: Vec<_> = std::iter::from_fn(|| encoder.next_block(100)).collect();
        self.disk.write_snapshot(self.wal.store(), Purpose::Own, &meta, &blocks);
        meta
    }

    fn file(&mut self, path: &str) -> &mut Vec<u8> {
        self.disk.files.get_mut(path).unwrap()
    }

    fn rot_snapshot(&mut self, meta: &SnapshotMeta) {
        let file = SnapshotId::of(meta).file();
        *self.file(file.as_str()).last_mut().unwrap() ^= 1;
    }

    fn recover(&mut self) -> Result<(RestoredServer, Vec<RecoveryNote>), RecoveryError> {
        let Restored { server, notes, .. } = self.disk.recover(server())?;
        let server = server.unwrap();
        self.wal = server.wal.clone();
        Ok((server, notes))
    }

    /// Checks that it begins to recover, and does not begin again at the next start; returns what
    /// it holds.
    fn recovers(&mut self) -> RestoredServer {
        let (first, notes) = self.recover().unwrap();
        let lost = |note: &RecoveryNote| matches!(note, RecoveryNote::Lost { .. });
        assert_eq!(notes.iter().filter(|note| lost(note)).count(), 1, "{notes:?}");
        let raft = &first.raft;
        assert_eq!(raft.recovering.map(Term::next), Some(raft.hard.term));
        assert_eq!(raft.hard.voted_for, None);
        let (again, notes) = self.recover().unwrap();
        assert_eq!((&again.raft, notes), (raft, Vec::new()));
        first
    }

    /// Checks that it is refused and that nothing changes; returns why.
    fn is_refused(&mut self) -> String {
        let before = self.disk.clone();
        let error = self.recover().expect_err("nobody else holds what is lost");
        assert!(matches!(error, RecoveryError::Alone(_)), "{error}");
        assert_eq!(self.disk, before);
        error.to_string()
    }
}

fn indexes(server: &RestoredServer) -> Vec<u64> {
    server.raft.entries.iter().map(|entry| entry.index.get()).collect()
}

/// The first byte of the payload of this entry, in the first segment.
fn place_of(member: &Member, index: u64) -> usize {
    let content = &member.disk.files[SEGMENT];
    let payload = entry(index, 1, 300).payload;
    content.windows(300).position(|bytes| bytes == payload).unwrap()
}

#[test]
fn a_log_damaged_in_its_middle_is_cut_there_and_recovered() {
    let mut member = Member::with(12);
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    let (server, notes) = member.clone().recover().unwrap();
    assert_eq!(indexes(&server), [1]);
    assert_eq!((server.raft.recovering, server.raft.hard.term), (Some(Term::new(4)), Term::new(5)));
    let [RecoveryNote::Lost { loss: Loss::Log(damage), .. }] = &notes[..] else {
        panic!("{notes:?}")
    };
    assert_eq!(damage.file.as_str(), SEGMENT);
    let line = "the checksum of the record's payload does not match; lost here and wanted from the \
                other servers: entries after 1, up to 12 at least";
    assert!(notes[0].to_string().ends_with(line), "{}", notes[0]);
    member.recovers();
    let mut segments = member.disk.segments().into_iter().map(|(number, _)| number);
    assert_eq!((segments.next(), segments.next()), (Some(1), None), "nothing is left behind it");
    // What it is sent again it holds again.
    (2..=20).for_each(|index| member.append(entry(index, 5, 300)));
    assert_eq!(indexes(&member.recover().unwrap().0), (1..=20).collect::<Vec<_>>());
}

#[test]
fn whichever_byte_of_a_synced_log_rots_something_is_told_and_no_entry_is_wrong() {
    let whole = Member::with(8);
    let held = whole.clone().recover().unwrap().0.raft.entries;
    let segments: Vec<String> =
        whole.disk.files.keys().filter(|path| path.ends_with(".seg")).cloned().collect();
    assert!(segments.len() > 2);
    // The last segment ends with a batch that nothing proves.
    for path in &segments[..segments.len() - 2] {
        let bytes = whole.disk.files[path].len();
        for at in (0..bytes).step_by(7) {
            let mut member = whole.clone();
            member.file(path)[at] ^= 1 << (at % 8);
            let (server, notes) = member.recover().unwrap();
            let entries = &server.raft.entries;
            assert_eq!(entries[..], held[..entries.len()], "byte {at} of {path}");
            assert_eq!(entries.len() < held.len(), server.raft.recovering.is_some());
            assert_eq!(notes.len(), usize::from(entries.len() < held.len()));
        }
    }
}

#[test]
fn segments_that_are_gone_are_lost_with_all_that_follows() {
    let whole = Member::with(12);
    let second = "raft/wal/0000000000000002.seg";
    let mut member = whole.clone();
    member.disk.files.remove(second);
    let first = member.recovers();
    assert_eq!(indexes(&first), [1, 2]);
    // All of them: what others hold is all that is left.
    let mut member = whole.clone();
    member.disk.files.retain(|path, _| !path.ends_with(".seg"));
    assert_eq!(indexes(&member.recovers()), [0; 0]);
    // Only the first header: there is nothing to begin with.
    let mut member = whole;
    member.file(SEGMENT)[9] ^= 1;
    assert_eq!(indexes(&member.recovers()), [0; 0]);
    member.append(entry(1, 5, 10));
    assert_eq!(indexes(&member.recover().unwrap().0), [1]);
}

#[test]
fn a_snapshot_stands_for_a_log_that_is_lost() {
    let mut member = Member::with(12);
    let meta = member.snapshot(5, 2);
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    let server = member.recovers();
    assert_eq!((server.raft.snapshot, server.raft.entries), (Some(meta), Vec::new()));
    member.append(entry(6, 5, 10));
    assert_eq!(indexes(&member.recover().unwrap().0), [6]);
}

/// One whose log begins behind entry 6, with two snapshots.
fn compacted() -> (Member, SnapshotMeta, SnapshotMeta) {
    let mut member = Member::with(12);
    let (older, newer) = (member.snapshot(6, 2), member.snapshot(11, 2));
    let ops = member.wal.compact(LogIndex::new(6));
    member.disk.perform(ops);
    assert!(!member.disk.files.contains_key(SEGMENT));
    (member, older, newer)
}

#[test]
fn a_log_whose_snapshots_are_lost_is_forgotten() {
    let (mut member, older, newer) = compacted();
    member.rot_snapshot(&older);
    member.rot_snapshot(&newer);
    let (server, notes) = member.clone().recover().unwrap();
    assert_eq!((server.raft.snapshot, server.raft.entries), (None, Vec::new()));
    assert_eq!(notes.len(), 3, "both snapshots are told of, and that something is lost: {notes:?}");
    member.recovers();
    member.append(entry(1, 5, 10));
    assert_eq!(indexes(&member.recover().unwrap().0), [1]);
}

#[test]
fn an_older_snapshot_than_the_log_begins_with_is_better_than_none() {
    let (mut member, older, newer) = compacted();
    let oldest = member.snapshot(3, 2);
    member.rot_snapshot(&older);
    member.rot_snapshot(&newer);
    let server = member.recovers();
    assert_eq!((server.raft.snapshot, server.raft.entries), (Some(oldest), Vec::new()));
    member.append(entry(4, 5, 10));
    assert_eq!(indexes(&member.recover().unwrap().0), [4]);
}

#[test]
fn an_only_voter_is_refused_and_nothing_changes() {
    let mut member = Member::blank();
    let first = config_entry(1, 1, &configuration(member.id, 0));
    member.append(first);
    (2..=12).for_each(|index| member.append(entry(index, 1, 300)));
    let mut rotten = member.clone();
    let place = place_of(&rotten, 2);
    rotten.file(SEGMENT)[place] ^= 1;
    let message = rotten.is_refused();
    assert!(message.starts_with("raft/wal/0000000000000001.seg is damaged at byte "), "{message}");
    assert!(message.contains("no other server is known that holds what is lost"), "{message}");
    // Only a damaged snapshot tells of the configuration.
    let meta = member.snapshot(6, 0);
    let ops = member.wal.compact(LogIndex::new(6));
    member.disk.perform(ops);
    member.rot_snapshot(&meta);
    let message = member.is_refused();
    let line = "the log begins behind entry 6, and no usable snapshot reaches to it; raft/snap/";
    assert!(message.starts_with(line), "{message}");
}

#[test]
fn a_configuration_behind_the_damage_tells_of_other_voters() {
    let mut member = Member::blank();
    let first = config_entry(1, 1, &configuration(member.id, 0));
    member.append(first);
    (2..=6).for_each(|index| member.append(entry(index, 1, 300)));
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    member.clone().is_refused();
    let (before, joined) = (member.clone(), config_entry(7, 1, &configuration(member.id, 2)));
    member.append(joined);
    assert_eq!(indexes(&member.recovers()), [1]);
    // And that it is alone again.
    let mut member = before;
    for (index, others) in [(7, 2), (8, 0)] {
        let changed = config_entry(index, 1, &configuration(member.id, others));
        member.append(changed);
    }
    member.is_refused();
}

#[test]
fn a_loss_that_is_found_while_recovering_begins_anew() {
    let mut member = Member::with(12);
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    member.recovers();
    let hard = Some(HardState { term: Term::new(9), voted_for: None });
    member.persist(&PersistBatch { hard, ..Default::default() });
    (2..=6).for_each(|index| member.append(entry(index, 9, 300)));
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    let raft = member.recovers().raft;
    assert_eq!((raft.recovering, raft.hard.term), (Some(Term::new(9)), Term::new(10)));
}

#[test]
fn a_crash_at_any_step_leaves_a_server_that_recovers_or_begins_to() {
    let mut rotten = Member::with(12);
    let place = place_of(&rotten, 2);
    rotten.file(SEGMENT)[place] ^= 1;
    let ops = rotten.disk.operations(server());
    let marked = ops.iter().position(
        |op| matches!(op, FileOp::Rename { to, .. } if *to == FilePath::new("raft/identity")),
    );
    let marked = marked.expect("the identity says that it recovers");
    let touched = |op: &FileOp| matches!(op, FileOp::Remove(file) if *file != Purpose::Own.file());
    assert!(ops.iter().position(touched).is_some_and(|first| first > marked));
    for done in 0..=ops.len() {
        let mut member = rotten.clone();
        member.disk.perform(ops[..done].to_vec());
        let (server, _) = member.recover().unwrap();
        assert_eq!(indexes(&server), [1], "after {done} operations");
        let lost_in = server.raft.recovering.expect("it recovers");
        assert!(lost_in >= Term::new(4) && server.raft.hard.term > lost_in);
    }
}

#[test]
fn what_is_recovered_is_forgotten_only_on_purpose() {
    let mut member = Member::with(12);
    let place = place_of(&member, 2);
    member.file(SEGMENT)[place] ^= 1;
    member.recovers();
    let identity = IdentityChange { recovered: true, ..Default::default() };
    member.persist(&PersistBatch { identity, ..Default::default() });
    assert_eq!(member.recover().unwrap().0.raft.recovering, None);
}
