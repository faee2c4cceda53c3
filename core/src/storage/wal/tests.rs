//! What is written is read back; what is damaged is cut or reported, by the rules of the scan.

use super::*;
use crate::id::Term;
use crate::raft::HardState;
use crate::storage::scan::{ScanError, Scanned, scan};
use crate::storage::testing::{MemDisk, TINY, entry, identity};
use proptest::prelude::*;

const STORE: StoreId = StoreId::from_bytes([6; 16]);

/// A log on a perfect disk, with what it must hold.
struct Log {
    wal: Wal,
    disk: MemDisk,
    entries: Vec<Entry>,
    term: u64,
}

impl Log {
    fn new() -> Self {
        let (slots, _) = HardSlots::create(STORE);
        let (wal, ops) = Wal::resume(TINY, identity(STORE), slots, Tail::empty(STORE), None);
        let mut disk = MemDisk::default();
        disk.perform(ops);
        Self { wal, disk, entries: Vec::new(), term: 1 }
    }

    /// One group commit: keep `kept` entries, add entries of these lengths; then prepare.
    fn commit(&mut self, kept: Option<usize>, lengths: &[usize]) {
        let mut batch = PersistBatch::default();
        if let Some(kept) = kept.filter(|kept| *kept < self.entries.len()) {
            self.entries.truncate(kept);
            self.term += 1;
            batch.truncate_from = Some(LogIndex::new(kept as u64 + 1));
        }
        for len in lengths {
            let next = entry(self.entries.len() as u64 + 1, self.term, *len);
            self.entries.push(next.clone());
            batch.entries.push(next);
        }
        let ops = self.wal.append(&batch);
        self.disk.perform(ops);
        while let Some(step) = self.wal.prepare() {
            self.disk.perform(step.ops);
            self.wal.prepared(step.lane);
        }
    }

    fn scan(&self) -> Result<Scanned, ScanError> {
        scan(STORE, self.disk.segments())
    }

    fn current(&mut self) -> &mut Vec<u8> {
        let path = segment_file(self.wal.segment);
        self.disk.files.get_mut(path.as_str()).unwrap()
    }
}

type Commit = (Option<usize>, Vec<usize>);

fn commits() -> impl Strategy<Value = Vec<Commit>> {
    let lengths = prop::collection::vec(0usize..300, 1..4);
    let commit = (prop::option::weighted(0.2, 0usize..20), lengths);
    prop::collection::vec(commit, 1..14)
}

fn log_of(commits: &[Commit]) -> Log {
    let mut log = Log::new();
    commits.iter().for_each(|(kept, lengths)| log.commit(*kept, lengths));
    log
}

#[test]
fn a_commit_is_one_write_and_one_sync() {
    let mut log = Log::new();
    let batch =
        PersistBatch { entries: vec![entry(1, 1, 3), entry(2, 1, 3)], ..Default::default() };
    let ops = log.wal.append(&batch);
    assert!(matches!(&ops[..], [FileOp::Write { .. }, FileOp::Sync(_)]));
    assert_eq!(log.wal.append(&PersistBatch::default()), Vec::new());
}

#[test]
fn hard_state_is_written_before_entries() {
    let mut log = Log::new();
    let hard = HardState { term: Term::new(2), voted_for: None };
    let entries = vec![entry(1, 2, 3)];
    let batch = PersistBatch { hard: Some(hard), entries, ..Default::default() };
    let synced = |op: &FileOp| {
        if let FileOp::Sync(file) = op { Some(file.to_string()) } else { None }
    };
    let synced: Vec<String> = log.wal.append(&batch).iter().filter_map(synced).collect();
    assert_eq!(synced, ["raft/hard.a", "raft/hard.b", segment_file(1).as_str()]);
}

#[test]
fn a_full_segment_is_succeeded_only_once_the_next_is_ready() {
    let mut log = Log::new();
    let mut unprepared = log.wal.clone();
    for index in 1..=20 {
        let entries = vec![entry(index, 1, 100)];
        unprepared.append(&PersistBatch { entries, ..Default::default() });
        log.commit(None, &[100]);
    }
    assert_eq!(unprepared.segment, 1);
    assert!(unprepared.offset > TINY.segment_bytes);
    assert!(log.wal.segment > 2);
    let zeroed = log.disk.files[segment_file(log.wal.segment).as_str()].len() as u64;
    assert_eq!(zeroed, TINY.segment_bytes);
}

#[test]
fn its_bytes_are_those_of_its_files() {
    let mut log = Log::new();
    let agree = |log: &Log| {
        let files = log.disk.segments();
        let bytes = files.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
        assert_eq!(log.wal.bytes(), bytes);
        bytes
    };
    agree(&log);
    for number in 1..=60 {
        // Some are larger than a segment.
        let len = if number % 20 == 0 { 3000 } else { 100 };
        log.commit(None, &[len]);
        agree(&log);
    }
    let scanned = log.scan().unwrap();
    let (slots, _) = HardSlots::create(STORE);
    let (wal, ops) = Wal::resume(TINY, identity(STORE), slots, scanned.tail, None);
    log.disk.perform(scanned.unused.into_iter().map(FileOp::Remove).collect());
    log.disk.perform(ops);
    log.wal = wal;
    let before = agree(&log);
    let ops = log.wal.compact(LogIndex::new(50));
    log.disk.perform(ops);
    let after = agree(&log);
    assert!(after < before, "space comes back: {before}, {after}");
}

#[test]
fn one_step_of_preparation_is_on_its_way_in_each_lane() {
    let mut log = Log::new();
    log.commit(None, &[600]);
    log.wal.offset = TINY.segment_bytes - 10;
    log.wal.zeroed = TINY.segment_bytes;
    log.wal.spare = Spare::Filling(0);
    let step = log.wal.prepare().unwrap();
    assert_eq!(step.lane, Lane::State);
    assert_eq!(log.wal.prepare(), None);
    // What is under way for the next segment does not keep an append from its room.
    let entries = vec![entry(2, 1, 300)];
    assert!(!log.wal.has_room(&PersistBatch { entries, ..Default::default() }));
    let step = log.wal.prepare().unwrap();
    assert_eq!((step.lane, log.wal.prepare()), (Lane::Log, None));
    log.wal.prepared(Lane::State);
    assert_eq!(log.wal.spare, Spare::Filling(256));
}

#[test]
fn a_batch_waits_until_its_room_is_prepared_whatever_fails_meanwhile() {
    let mut log = Log::new();
    log.commit(None, &[100]);
    let entries = vec![entry(2, 1, 900)];
    let batch = PersistBatch { entries, ..Default::default() };
    assert!(!log.wal.has_room(&batch));
    let before = log.wal.clone();
    for _ in 0..3 {
        let step = log.wal.prepare().expect("room is wanted");
        assert!(step.deferrable && step.lane == Lane::Log);
        log.wal.unprepared(Lane::Log);
        assert!(!log.wal.is_prepared() && !log.wal.has_room(&batch));
    }
    // A batch that needs no room does not end the wait of the other one.
    assert!(
        log.wal.has_room(&PersistBatch { hard: Some(HardState::default()), ..Default::default() })
    );
    let step = log.wal.prepare().unwrap();
    log.disk.perform(step.ops);
    log.wal.prepared(Lane::Log);
    assert!(log.wal.has_room(&batch));
    assert_eq!(log.wal.offset, before.offset, "nothing was written");
    let zeroed = log.wal.zeroed;
    let ops = log.wal.append(&batch);
    assert!(log.wal.offset <= zeroed, "a batch lies within what is prepared");
    log.disk.perform(ops);
    assert_eq!(log.scan().unwrap().entries.len(), 2);
}

#[test]
fn a_step_that_ends_after_the_segment_did_changes_nothing() {
    let mut log = Log::new();
    log.commit(None, &[600]);
    let segment = log.wal.segment;
    log.wal.preparing = Some(Step::Zeros { segment, zeroed: 5000 });
    log.wal.segment += 1;
    let zeroed = log.wal.zeroed;
    log.wal.prepared(Lane::Log);
    assert_eq!((log.wal.zeroed, log.wal.preparing), (zeroed, None));
}

/// Disk seed 300275: a server that went on in the next segment believed for ever that its disk was
/// full, since the room that it had lacked was not wanted any more.
#[test]
fn room_that_is_wanted_no_longer_is_not_missing() {
    let mut log = Log::new();
    log.commit(None, &[600]);
    log.wal.offset = TINY.segment_bytes - 10;
    log.wal.zeroed = TINY.segment_bytes - 10;
    log.wal.spare = Spare::Ready;
    let step = log.wal.prepare().expect("the end of the segment is not prepared");
    assert_eq!(step.lane, Lane::Log);
    log.wal.unprepared(Lane::Log);
    assert!(!log.wal.is_prepared());
    let segment = log.wal.segment;
    let entries = vec![entry(2, 1, 300)];
    let batch = PersistBatch { entries, ..Default::default() };
    assert!(log.wal.has_room(&batch), "the next segment is ready");
    log.wal.append(&batch);
    assert_eq!(log.wal.segment, segment + 1);
    while let Some(step) = log.wal.prepare() {
        log.wal.prepared(step.lane);
    }
    assert!(log.wal.is_prepared());
}

#[test]
fn a_batch_larger_than_a_segment_is_kept_whole() {
    let mut log = Log::new();
    log.commit(None, &[5000, 10]);
    log.commit(None, &[10]);
    assert_eq!(log.scan().unwrap().entries, log.entries);
}

#[test]
fn a_missing_segment_is_damage() {
    let log = log_of(&vec![(None, vec![200]); 12]);
    let mut segments = log.disk.segments();
    assert!(segments.len() > 3);
    segments.remove(1);
    let error = scan(STORE, segments).unwrap_err();
    let rule = "the segment is missing";
    let file = segment_file(2);
    assert_eq!(error, ScanError::Damage(super::super::StorageDamage { file, offset: 0, rule }));
    assert!(scan(STORE, Vec::new()).is_err());
}

#[test]
fn a_seal_turns_a_flip_in_the_last_batch_into_damage() {
    let mut log = Log::new();
    log.commit(None, &[40]);
    log.commit(None, &[40]);
    let at = usize::try_from(log.wal.offset).unwrap() - 8;
    let mut cut = log.current().clone();
    cut[at] ^= 1;
    let scanned = scan(STORE, [(1, cut.into())]).unwrap();
    assert_eq!((scanned.entries.len(), scanned.torn.is_some()), (1, true));
    let ops = log.wal.seal();
    log.disk.perform(ops);
    log.current()[at] ^= 1;
    assert!(matches!(log.scan(), Err(ScanError::Damage(_))));
}

#[test]
fn a_later_format_version_is_named() {
    let mut log = Log::new();
    let bytes = log.current();
    bytes[11] = 9;
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_be_bytes());
    let file = segment_file(1);
    assert_eq!(log.scan().unwrap_err(), ScanError::Version { file, version: 9 });
}

proptest! {
    #[test]
    fn a_scan_returns_what_was_appended(commits in commits()) {
        let log = log_of(&commits);
        let scanned = log.scan().unwrap();
        prop_assert_eq!(&scanned.entries, &log.entries);
        prop_assert_eq!(scanned.torn, None);
        prop_assert_eq!(scanned.tail.last.get(), log.entries.len() as u64);
    }

    #[test]
    fn a_log_goes_on_after_a_restart(before in commits(), after in commits()) {
        let mut log = log_of(&before);
        let scanned = log.scan().unwrap();
        let (slots, _) = HardSlots::create(STORE);
        let (wal, ops) = Wal::resume(TINY, identity(STORE), slots, scanned.tail, None);
        log.disk.perform(scanned.unused.into_iter().map(FileOp::Remove).collect());
        log.disk.perform(ops);
        log.wal = wal;
        after.iter().for_each(|(kept, lengths)| log.commit(*kept, lengths));
        prop_assert_eq!(log.scan().unwrap().entries, log.entries);
    }

    /// The newest batch is lost in any way: cut, partly old, or garbage.
    #[test]
    fn a_torn_newest_batch_costs_no_earlier_one(
        commits in commits(), lengths in prop::collection::vec(0usize..300, 1..4),
        garbage in prop::collection::vec(any::<u8>(), 1..400), at in any::<prop::sample::Index>(),
        zeros: bool,
    ) {
        let mut log = log_of(&commits);
        let (kept, disk) = (log.entries.clone(), log.disk.clone());
        log.commit(None, &lengths);
        let last = segment_file(log.wal.segment);
        let end = usize::try_from(log.wal.offset).unwrap();
        let old = disk.files.get(last.as_str()).cloned().unwrap_or_default();
        let file = log.current();
        let same = old.iter().zip(file.iter()).take_while(|(old, new)| old == new).count();
        let from = same + at.index(end - same);
        for (place, byte) in (from..end).zip(garbage.iter().cycle()) {
            file[place] = if zeros { 0 } else { *byte };
        }
        let entries = log.scan().unwrap().entries;
        prop_assert!(entries == kept || entries == log.entries, "neither before nor after");
    }

    /// Every byte of every batch but the newest, and of the headers before it, is provably durable.
    #[test]
    fn a_flip_in_synced_bytes_is_reported(
        commits in commits(),
        segment in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut log = log_of(&commits);
        let ops = log.wal.seal();
        log.disk.perform(ops);
        let mut segments = log.disk.segments();
        let used = usize::try_from(log.wal.segment).unwrap();
        let number = segment.index(used);
        let mut bytes = segments[number].1.to_vec();
        let place = at.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        segments[number].1 = bytes.into();
        if let Ok(scanned) = scan(STORE, segments) {
            prop_assert_eq!(scanned.entries, log.entries, "a changed log was accepted");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        commits in commits(),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = scan(STORE, [(1, bytes.clone().into())]);
        let log = log_of(&commits);
        let mut segments = log.disk.segments();
        let number = at.index(segments.len());
        let mut mixed = segments[number].1.to_vec();
        let place = at.index(mixed.len());
        mixed.truncate(place);
        mixed.append(&mut bytes);
        segments[number].1 = mixed.into();
        let _ = scan(STORE, segments);
    }
}
