//! Logs whose beginning is gone: resets, removed segments, and what a scan makes of the rest.

use super::*;
use crate::storage::StorageDamage;
use crate::storage::scan::{ScanError, Scanned, scan};
use crate::storage::testing::{MemDisk, TINY, entry, identity};
use proptest::prelude::*;

const STORE: StoreId = StoreId::from_bytes([6; 16]);

/// What the log must hold.
#[derive(Clone, Debug, Default)]
struct Model {
    /// The position of the newest reset.
    first: u64,
    entries: Vec<Entry>,
    /// Up to here nothing is truncated.
    committed: u64,
    /// A snapshot that is durable reaches to here.
    covered: u64,
    term: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Whether the scan found this log, as far as no snapshot covers it.
    fn is(&self, scanned: &Scanned) -> bool {
        let base = scanned.base.get();
        let above = |entry: &&Entry| entry.index > scanned.base;
        (self.first..=self.covered.max(self.first)).contains(&base)
            && scanned.tail.last.get() == self.last()
            && self.entries.iter().filter(above).eq(&scanned.entries)
    }
}

/// One group commit as raft makes them.
#[derive(Clone, Debug)]
struct Commit {
    /// How far the reset is above what is committed.
    reset: Option<u64>,
    /// How many entries that are not committed a truncation keeps.
    kept: Option<usize>,
    lengths: Vec<usize>,
    /// Of the entries that are not committed, how many are then.
    committed: usize,
    /// The log is compacted to so far below what is committed.
    compact: Option<u64>,
}

fn commits() -> impl Strategy<Value = Vec<Commit>> {
    let commit = (
        prop::option::weighted(0.1, 1u64..20),
        prop::option::weighted(0.3, 0usize..8),
        prop::collection::vec(0usize..300, 0..5),
        0usize..8,
        prop::option::weighted(0.4, 0u64..6),
    );
    let commit = commit.prop_map(|(reset, kept, lengths, committed, compact)| Commit {
        reset,
        kept,
        lengths,
        committed,
        compact,
    });
    prop::collection::vec(commit, 1..30)
}

/// A log on a perfect disk.
struct Log {
    wal: Wal,
    disk: MemDisk,
    model: Model,
}

impl Log {
    fn new() -> Self {
        let (slots, _) = HardSlots::create(STORE);
        let (wal, ops) = Wal::resume(TINY, identity(STORE), slots, Tail::empty(STORE), None);
        let mut disk = MemDisk::default();
        disk.perform(ops);
        Self { wal, disk, model: Model { term: 1, ..Model::default() } }
    }

    fn scan(&self) -> Result<Scanned, ScanError> {
        scan(STORE, self.disk.segments())
    }

    fn append(&mut self, commit: &Commit) -> Vec<FileOp> {
        let model = &mut self.model;
        let mut batch = PersistBatch::default();
        if let Some(above) = commit.reset {
            model.first = model.committed + above;
            (model.committed, model.covered) = (model.first, model.first);
            model.entries.clear();
            batch.reset = Some(LogIndex::new(model.first));
        }
        if let Some(kept) = commit.kept {
            let kept = model.last().min(model.committed + kept as u64);
            model.entries.truncate(usize::try_from(kept - model.first).unwrap());
            model.term += 1;
            batch.truncate_from = Some(LogIndex::new(kept + 1));
        }
        for len in &commit.lengths {
            let next = entry(model.last() + 1, model.term, *len);
            model.entries.push(next.clone());
            batch.entries.push(next);
        }
        self.wal.append(&batch)
    }

    /// A snapshot is durable now; the operations of the compaction it allows.
    fn compact(&mut self, commit: &Commit) -> Vec<FileOp> {
        let model = &mut self.model;
        model.committed = model.last().min(model.committed + commit.committed as u64);
        let Some(below) = commit.compact else { return Vec::new() };
        model.covered = model.covered.max(model.committed.saturating_sub(below));
        self.wal.compact(LogIndex::new(model.covered))
    }

    fn prepare(&mut self) {
        while let Some(step) = self.wal.prepare() {
            self.disk.perform(step.ops);
            self.wal.prepared(step.lane);
        }
    }

    fn commit(&mut self, commit: &Commit) {
        let ops = self.append(commit);
        self.disk.perform(ops);
        let ops = self.compact(commit);
        self.disk.perform(ops);
        self.prepare();
    }

    /// Commits entries one by one, each of which fills a good part of a segment.
    fn fill(&mut self, count: u64) {
        let (reset, kept, compact) = (None, None, None);
        let commit = Commit { reset, kept, lengths: vec![300], committed: 1, compact };
        (0..count).for_each(|_| self.commit(&commit));
    }

    fn compact_to(&mut self, to: u64) {
        self.model.covered = to;
        let ops = self.wal.compact(LogIndex::new(to));
        self.disk.perform(ops);
    }

    fn restart(&mut self) {
        let scanned = self.scan().expect("nothing is damaged");
        let (slots, _) = HardSlots::create(STORE);
        let (wal, ops) = Wal::resume(TINY, identity(STORE), slots, scanned.tail, None);
        self.disk.perform(scanned.unused.into_iter().map(FileOp::Remove).collect());
        self.disk.perform(ops);
        self.wal = wal;
    }
}

#[test]
fn a_reset_forgets_the_log_and_goes_on_behind_its_position() {
    let mut log = Log::new();
    log.fill(7);
    let entries = vec![entry(101, 9, 20)];
    let reset = Some(LogIndex::new(100));
    let ops = log.wal.append(&PersistBatch { reset, entries, ..Default::default() });
    log.disk.perform(ops);
    let scanned = log.scan().unwrap();
    assert_eq!((scanned.base.get(), scanned.entries), (100, vec![entry(101, 9, 20)]));
}

#[test]
fn a_torn_reset_leaves_the_log_as_it_was() {
    let mut log = Log::new();
    log.fill(2);
    let before = log.scan().unwrap();
    let reset = Some(LogIndex::new(100));
    let ops = log.wal.append(&PersistBatch { reset, ..Default::default() });
    log.disk.perform(ops);
    let torn = usize::try_from(log.wal.offset).unwrap() - 1;
    let file = segment_file(log.wal.segment);
    log.disk.files.get_mut(file.as_str()).unwrap()[torn] ^= 1;
    let scanned = log.scan().unwrap();
    assert!(scanned.torn.is_some());
    assert_eq!((scanned.base, scanned.entries), (before.base, before.entries));
}

#[test]
fn compaction_removes_covered_segments_oldest_first_and_keeps_two() {
    let mut log = Log::new();
    log.fill(12);
    assert_eq!(log.wal.segment, 6, "two entries fill a segment");
    let remove = |number| [FileOp::Remove(segment_file(number)), FileOp::SyncDir(Some(wal_dir()))];
    assert_eq!(log.wal.clone().compact(LogIndex::new(1)), Vec::new());
    assert_eq!(log.wal.clone().compact(LogIndex::new(5)), [remove(1), remove(2)].concat());
    let all = log.wal.compact(LogIndex::new(12));
    assert_eq!(all, (1..=4).flat_map(remove).collect::<Vec<FileOp>>());
    assert_eq!(log.wal.compact(LogIndex::new(12)), Vec::new());
}

#[test]
fn a_forgotten_entry_keeps_its_segment_until_a_snapshot_passes_it() {
    let mut log = Log::new();
    log.fill(6);
    let truncate_from = Some(LogIndex::new(2));
    let ops = log.wal.append(&PersistBatch { truncate_from, ..Default::default() });
    log.disk.perform(ops);
    (log.model.committed, log.model.term) = (1, 2);
    log.model.entries.truncate(1);
    log.fill(6);
    let removed = |to| log.wal.clone().compact(LogIndex::new(to)).len() / 2;
    // Segment 4 ends with entry 3 again, but 3 holds the 6 that was forgotten, and goes first.
    assert_eq!([2, 4, 5, 6].map(removed), [1, 2, 2, 4]);
    log.compact_to(6);
    let scanned = log.scan().unwrap();
    assert!(log.model.is(&scanned), "{:?}", scanned.base);
}

#[test]
fn a_truncation_below_a_base_that_was_guessed_lowers_it() {
    let mut log = Log::new();
    log.fill(6);
    let truncate_from = Some(LogIndex::new(3));
    let entries = vec![entry(3, 2, 10), entry(4, 2, 10)];
    let ops = log.wal.append(&PersistBatch { truncate_from, entries, ..Default::default() });
    log.disk.perform(ops);
    let mut segments = log.disk.segments();
    segments.drain(..2);
    let scanned = scan(STORE, segments).unwrap();
    assert_eq!((scanned.base.get(), scanned.entries.len()), (2, 2));
    assert_eq!(scanned.entries, [entry(3, 2, 10), entry(4, 2, 10)]);
}

#[test]
fn a_truncation_below_a_reset_is_damage() {
    let mut log = Log::new();
    let truncate =
        |from| PersistBatch { truncate_from: Some(LogIndex::new(from)), ..PersistBatch::default() };
    let reset = PersistBatch { reset: Some(LogIndex::new(100)), ..PersistBatch::default() };
    for batch in [reset, truncate(101), truncate(50)] {
        let ops = log.wal.append(&batch);
        log.disk.perform(ops);
    }
    let Err(ScanError::Damage(StorageDamage { rule, .. })) = log.scan() else {
        panic!("a reset is final")
    };
    assert_eq!(rule, "a truncation lies before the beginning of the log");
}

#[test]
fn a_segment_that_is_missing_behind_the_first_is_damage() {
    let mut log = Log::new();
    log.fill(12);
    log.compact_to(3);
    log.disk.files.remove(segment_file(3).as_str());
    let rule = "the segment is missing";
    let error = StorageDamage { file: segment_file(3), offset: 0, rule };
    assert_eq!(log.scan().unwrap_err(), ScanError::Damage(error));
}

#[test]
fn an_oldest_segment_that_tells_no_position_is_damage() {
    let mut log = Log::new();
    log.fill(2);
    let mut head = Vec::new();
    let binding = Binding { store: STORE, file: 7 };
    SegmentHead { binding, previous_end: 900, previous_epoch: 20 }.put(&mut head);
    let error = scan(STORE, [(7, head.into())]).unwrap_err();
    assert!(error.to_string().contains("does not tell where the log begins"), "{error}");
}

proptest! {
    #[test]
    fn a_log_is_read_back_above_what_snapshots_cover(commits in commits()) {
        let mut log = Log::new();
        for commit in &commits {
            log.commit(commit);
            let scanned = log.scan().unwrap();
            prop_assert!(log.model.is(&scanned), "{scanned:?} is not {:?}", log.model);
        }
    }

    /// The process ends within any operation's list, every few commits, and goes on from there.
    #[test]
    fn a_crash_at_any_operation_leaves_the_old_log_or_the_new_one(
        commits in commits(),
        cuts in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 30),
    ) {
        let mut log = Log::new();
        for (commit, (crash, cut)) in commits.iter().zip(cuts) {
            let before = log.model.clone();
            let mut ops = log.append(commit);
            if crash {
                ops.truncate(cut.index(ops.len() + 1));
                log.disk.perform(ops);
                // The snapshot that a reset needs is durable before.
                let before = Model { covered: before.covered.max(log.model.covered), ..before };
                let scanned = log.scan().unwrap();
                prop_assert!(before.is(&scanned) || log.model.is(&scanned));
                if !log.model.is(&scanned) {
                    log.model = Model { term: log.model.term, ..before };
                }
                log.restart();
            } else {
                log.disk.perform(ops);
            }
            let mut ops = log.compact(commit);
            if crash {
                ops.truncate(cut.index(ops.len() + 1));
            }
            log.disk.perform(ops);
            if crash {
                log.restart();
            }
            log.prepare();
            let scanned = log.scan().unwrap();
            prop_assert!(log.model.is(&scanned), "{scanned:?} is not {:?}", log.model);
        }
    }

    /// What removed segments covered stays removed over restarts: the writer knows the rest.
    #[test]
    fn a_restarted_writer_removes_what_the_first_one_would(commits in commits(), to in 0u64..60) {
        let mut log = Log::new();
        commits.iter().for_each(|commit| log.commit(commit));
        let mut first = log.wal.clone();
        log.restart();
        let to = LogIndex::new(to);
        prop_assert_eq!(log.wal.compact(to), first.compact(to));
    }
}
