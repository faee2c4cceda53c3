//! What the disk loses and keeps, and that the core's storage survives all of it.

use super::*;
use crate::rot::{Part, rot};
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Applied, Command};
use terraform_core::catalog::image::ImageEncoder;
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::catalog::model::CheckStatus;
use terraform_core::id::{CheckId, LogIndex, NodeId, Term};
use terraform_core::raft::{
    Entry as LogEntry, EntryKind, HardState, PersistBatch, RestoredRaft, SnapshotMeta,
};
use terraform_core::rng::{Seed, Stream};
use terraform_core::storage::recovery::{
    Loss as Lost, Recovery, RecoveryConfig, RecoveryError, Restored,
};
use terraform_core::storage::registrations::{Change, RegistrationLog, Registrations, TtlState};
use terraform_core::storage::snapshot::{Purpose, SnapshotFiles, SnapshotId, SnapshotWriter};
use terraform_core::storage::wal::{Wal, WalConfig};
use terraform_core::time::WallClock;

fn rng(seed: u64) -> Rng {
    Rng::for_stream(Seed::from_number(seed), Stream::Node)
}

fn path(text: &str) -> FilePath {
    FilePath::new(text)
}

fn write(file: &str, data: &'static [u8]) -> FileOp {
    FileOp::Write { file: path(file), offset: 0, data: Bytes::from_static(data) }
}

#[test]
fn what_was_not_synced_survives_the_process_but_not_the_power() {
    let mut disk = SimDisk::new();
    disk.perform(&[write("a", b"old"), FileOp::Sync(path("a")), FileOp::SyncDir(None)]).unwrap();
    disk.perform(&[write("a", b"new"), write("b", b"x")]).unwrap();
    disk.crash(Crash::Process, &mut rng(1));
    assert_eq!(disk.read(&path("a")), Some(&b"new"[..]));
    disk.crash(Crash::Power(Loss::All), &mut rng(1));
    assert_eq!(disk.read(&path("a")), Some(&b"old"[..]));
    assert_eq!(disk.list(None), ["a"]);
}

#[test]
fn a_synced_file_is_lost_with_the_entry_of_its_folder() {
    let mut disk = SimDisk::new();
    let ops = [FileOp::CreateDir(path("d")), write("d/a", b"x"), FileOp::Sync(path("d/a"))];
    disk.perform(&ops).unwrap();
    let mut lost = disk.clone();
    lost.perform(&[FileOp::SyncDir(Some(path("d")))]).unwrap();
    lost.crash(Crash::Power(Loss::All), &mut rng(1));
    assert_eq!(lost.read(&path("d/a")), None);
    disk.perform(&[FileOp::SyncDir(Some(path("d"))), FileOp::SyncDir(None)]).unwrap();
    disk.crash(Crash::Power(Loss::All), &mut rng(1));
    assert_eq!(disk.read(&path("d/a")), Some(&b"x"[..]));
}

#[test]
fn sectors_are_lost_one_by_one_and_torn() {
    let mut disk = SimDisk::new();
    let zeros = FileOp::WriteZeros { file: path("a"), offset: 0, len: 5120 };
    disk.perform(&[zeros, FileOp::Sync(path("a")), FileOp::SyncDir(None)]).unwrap();
    disk.perform(&[write("a", &[1; 5120])]).unwrap();
    let sectors = |seed| {
        let mut disk = disk.clone();
        disk.crash(Crash::Power(Loss::Subset), &mut rng(seed));
        disk.read(&path("a")).unwrap().chunks(SECTOR_BYTES).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (old, new) = (vec![0; SECTOR_BYTES], vec![1; SECTOR_BYTES]);
    let all: Vec<Vec<u8>> = (0..40).flat_map(sectors).collect();
    let torn = all.iter().filter(|sector| **sector != old && **sector != new).count();
    assert!(all.contains(&old) && all.contains(&new) && torn > 0);
    assert_eq!(sectors(7), sectors(7));
}

#[test]
fn a_failed_sync_forgets_or_reverts_and_fails_the_lane() {
    let synced = |fault| {
        let mut disk = SimDisk::new();
        disk.perform(&[write("a", b"old"), FileOp::Sync(path("a")), FileOp::SyncDir(None)])
            .unwrap();
        disk.fail_sync(fault);
        for number in 1..=2 {
            let ops = vec![write("a", b"new"), FileOp::Sync(path("a"))];
            disk.start(WriteId::new(number), StorageOp { lane: Lane::Log, ops, deferrable: false });
            let done = disk.complete(Lane::Log);
            assert_eq!(done, Some((WriteId::new(number), Err(StorageFault::Io))));
        }
        let read = disk.read(&path("a")).unwrap().to_vec();
        disk.perform(&[FileOp::Sync(path("a"))]).unwrap();
        disk.crash(Crash::Power(Loss::Nothing), &mut rng(1));
        assert_eq!(disk.read(&path("a")), Some(&b"old"[..]));
        read
    };
    assert_eq!(synced(SyncFault::Forget), b"new");
    assert_eq!(synced(SyncFault::Revert), b"old");
}

#[test]
fn a_quota_refuses_growth_and_nothing_else() {
    let mut disk = SimDisk::new();
    disk.set_quota(Some(4));
    disk.perform(&[write("a", b"1234"), write("a", b"43")]).unwrap();
    assert_eq!(disk.perform(&[write("b", b"1")]), Err(StorageFault::Full));
    disk.set_quota(None);
    assert_eq!(disk.perform(&[write("b", b"1")]), Ok(()));
}

const TINY: WalConfig = WalConfig { segment_bytes: 4096, step_bytes: 1024 };

const SERVER: RecoveryConfig =
    RecoveryConfig { server: true, node_id: None, wal: TINY, peers: None, host: Vec::new() };

/// What a server has on disk.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    hard: HardState,
    /// The position of the newest reset; the log is known from there on.
    first: u64,
    entries: Vec<LogEntry>,
    /// Up to here nothing is truncated.
    committed: u64,
    registrations: Registrations,
}

impl State {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Keeps positions up to `kept`.
    fn truncate(&mut self, kept: u64) {
        self.entries.truncate(size(kept - self.first));
    }

    /// The log once a snapshot has taken its place.
    fn reset(&mut self, position: u64) {
        (self.first, self.committed) = (position, position);
        self.entries.clear();
    }

    /// Whether this is the log that was found, as far as no snapshot covers it.
    fn has_log_of(&self, raft: &RestoredRaft) -> bool {
        let position = raft.snapshot.as_ref().map_or(0, |meta| meta.index.get());
        let base = raft.entries.first().map_or(position, |entry| entry.index.previous().get());
        let skipped = base.checked_sub(self.first).map(size);
        base <= position
            && position <= self.committed
            && skipped.is_some_and(|skipped| self.entries.iter().skip(skipped).eq(&raft.entries))
    }
}

/// A server's storage, and what it was told of it.
struct Host {
    disk: SimDisk,
    wal: Wal,
    registrations: RegistrationLog,
    /// The state acknowledged last.
    durable: State,
    /// The state once what is on its way is done.
    wanted: State,
    preparing: Vec<Lane>,
    writes: u64,
    snapshots: SnapshotFiles,
    /// A snapshot on its way, and whether a leader sent it.
    storing: Option<(SnapshotMeta, bool)>,
    /// One that is durable; what follows from it is not, or on its way.
    stored: Option<(SnapshotMeta, bool)>,
}

/// Recovers, with crashes on the way, until it ends.
fn recover(disk: &mut SimDisk, rng: &mut Rng) -> Restored {
    'attempts: loop {
        let mut recovery = Recovery::new(SERVER, rng.clone());
        let mut step = recovery.step(None);
        while let Some(answer) = {
            if let Step::Perform(ops) = &step
                && rng.chance(1, 3)
            {
                disk.start(
                    WriteId::ZERO,
                    StorageOp { lane: Lane::Log, ops: ops.clone(), deferrable: false },
                );
                disk.crash(Crash::Power(Loss::Mixed), rng);
                continue 'attempts;
            }
            disk.answer(&step)
        } {
            step = recovery.step(Some(answer));
        }
        match step {
            Step::Done(restored) => return *restored,
            Step::Refused(RecoveryError::Disk { .. }) => disk.crash(Crash::Process, rng),
            Step::Refused(error) => panic!("a crash was taken for damage: {error}"),
            Step::List(_) | Step::Read { .. } | Step::ReadPart { .. } | Step::Perform(_) => {
                panic!("an unanswered step")
            }
        }
    }
}

impl Host {
    fn new(rng: &mut Rng) -> Self {
        let mut disk = SimDisk::new();
        let restored = recover(&mut disk, rng);
        Self {
            disk,
            wal: restored.server.unwrap().wal,
            registrations: restored.registrations,
            durable: State::default(),
            wanted: State::default(),
            preparing: Vec::new(),
            writes: 0,
            snapshots: SnapshotFiles::default(),
            storing: None,
            stored: None,
        }
    }

    fn start(&mut self, lane: Lane, ops: Vec<FileOp>) {
        self.writes += 1;
        self.disk.start(WriteId::new(self.writes), StorageOp { lane, ops, deferrable: false });
    }

    /// Now and then a snapshot: an own one of what is committed, or one that replaces the log.
    fn snapshot(&mut self, rng: &mut Rng) {
        if rng.chance(3, 4) {
            return;
        }
        let state = &self.wanted;
        let received = rng.chance(1, 5);
        let index = if received { state.committed + 1 + rng.below(5) } else { state.committed };
        if self.snapshots.newest().is_some_and(|id| id.index.get() >= index) || index == 0 {
            return;
        }
        let own = state.entries.get(size((index - state.first).saturating_sub(1)));
        let chain = if received { rng.bits() } else { own.map_or(0, |entry| entry.chain) };
        if !received && index == state.first {
            return;
        }
        let (index, term) = (LogIndex::new(index), Term::new(1));
        let meta = SnapshotMeta { index, term, chain, ..SnapshotMeta::default() };
        let purpose = if received { Purpose::Received } else { Purpose::Own };
        let (mut writer, mut ops) = SnapshotWriter::begin(self.wal.store(), purpose, &meta);
        for block in blocks(&meta) {
            ops.extend(writer.block(&block));
        }
        if rng.chance(1, 10) {
            ops.extend(writer.discard());
        } else {
            ops.extend(writer.finish());
            self.storing = Some((meta, received));
        }
        self.start(Lane::State, ops);
    }

    /// What a stored snapshot makes superfluous, and the reset if it takes the log's place.
    fn follow(&mut self) -> Option<LogIndex> {
        let (meta, received) = self.stored.clone()?;
        let retention = self.snapshots.add(SnapshotId::of(&meta));
        self.start(Lane::State, retention.remove);
        if let Some(to) = retention.compact {
            let ops = self.wal.compact(to);
            self.start(Lane::State, ops);
        }
        received.then_some(meta.index)
    }

    /// One group commit as raft makes them, and what goes with it.
    fn commit(&mut self, rng: &mut Rng) {
        let mut batch = PersistBatch { reset: self.follow(), ..PersistBatch::default() };
        self.snapshot(rng);
        let state = &mut self.wanted;
        if let Some(position) = batch.reset {
            state.reset(position.get());
        }
        if rng.chance(1, 4) {
            let voted_for = rng.chance(1, 2).then(|| NodeId::from_random(rng.bytes16()));
            state.hard = HardState { term: state.hard.term.next(), voted_for };
            batch.hard = Some(state.hard);
        }
        if rng.chance(1, 5) && state.last() > state.committed {
            let kept = state.committed + rng.below(state.last() - state.committed);
            state.truncate(kept);
            batch.truncate_from = Some(LogIndex::new(kept + 1));
        }
        for _ in 0..rng.below(4) {
            let index = LogIndex::new(state.last() + 1);
            let length = rng.index(1200);
            let payload = (0..length).map(|_| rng.bits().to_be_bytes()[0]).collect();
            let (term, chain) = (Term::new(1), rng.bits());
            let entry = LogEntry { index, term, kind: EntryKind::Command, payload, chain };
            state.entries.push(entry.clone());
            batch.entries.push(entry);
        }
        let ops = self.wal.append(&batch);
        self.start(Lane::Log, ops);
        while let Some(step) = self.wal.prepare() {
            self.preparing.push(step.lane);
            self.start(step.lane, step.ops);
        }
        if rng.chance(1, 3) {
            let check = CheckId::parse(&format!("c{}", rng.below(5))).unwrap();
            let (status, expires) =
                (CheckStatus::Passing, WallClock::from_millis(rng.index(9) as i64));
            let output = "x".repeat(rng.index(2000));
            let change = Change::PutTtl(TtlState { check, status, output, expires });
            self.wanted.registrations.apply(change.clone());
            let ops = self.registrations.append(vec![change]);
            self.start(Lane::State, ops);
        }
    }

    /// Commits some of what is durable, unless a snapshot is coming that takes its place.
    fn advance(&mut self, rng: &mut Rng) {
        let last = self.durable.last().min(self.wanted.last());
        let replaced = self.storing.as_ref().is_some_and(|(_, received)| *received);
        if last > self.wanted.committed && !replaced {
            self.wanted.committed += rng.below(last - self.wanted.committed + 1);
        }
    }

    /// Completes everything; false if the disk failed, which ends the run.
    fn finish(&mut self) -> bool {
        for lane in [Lane::Log, Lane::State] {
            while let Some((_, result)) = self.disk.complete(lane) {
                if result.is_err() {
                    return false;
                }
            }
        }
        self.durable = self.wanted.clone();
        self.stored = self.storing.take();
        for lane in std::mem::take(&mut self.preparing) {
            self.wal.prepared(lane);
        }
        true
    }

    /// Restarts, and checks that what is found is what was acknowledged or was on its way.
    fn restart(&mut self, crash: Crash, rng: &mut Rng) {
        self.disk.crash(crash, rng);
        let restored = recover(&mut self.disk, rng);
        let server = restored.server.unwrap();
        let (durable, wanted) = (&self.durable, &self.wanted);
        // A received snapshot that got its name takes the log's place, with its reset or without.
        let mut replaced = durable.clone();
        let received = [&self.stored, &self.storing].into_iter().flatten().find(|(_, sent)| *sent);
        if let Some((meta, _)) = received {
            replaced.reset(meta.index.get());
        }
        let log = [wanted, &replaced, durable].into_iter().find(|s| s.has_log_of(&server.raft));
        let mut found = log.expect("the log is lost").clone();
        found.hard = server.raft.hard;
        found.registrations = restored.registrations.registrations().clone();
        assert!(found.hard == durable.hard || found.hard == wanted.hard, "the vote is lost");
        let kept = [&durable.registrations, &wanted.registrations];
        assert!(kept.contains(&&found.registrations), "registrations are lost");
        if let Some(meta) = &server.raft.snapshot {
            assert_eq!(server.tables, state(meta), "the state is another one");
        }
        self.snapshots = server.snapshots;
        (self.storing, self.stored) = (None, None);
        (self.wal, self.registrations) = (server.wal, restored.registrations);
        (self.durable, self.wanted, self.preparing) = (found.clone(), found, Vec::new());
    }
}

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

/// One server's life of commits, faults, crashes and recoveries.
fn survive(seed: u64) -> u64 {
    let mut rng = rng(seed);
    let mut host = Host::new(&mut rng);
    for _ in 0..60 {
        if rng.chance(1, 20) {
            let faults = [SyncFault::Forget, SyncFault::Revert];
            host.disk.fail_sync(faults[rng.index(2)]);
        }
        host.commit(&mut rng);
        host.advance(&mut rng);
        let interrupted = rng.chance(1, 6);
        if interrupted || !host.finish() || rng.chance(1, 10) {
            let losses = [Loss::All, Loss::Nothing, Loss::Suffix, Loss::Subset, Loss::Mixed];
            let power = Crash::Power(losses[rng.index(losses.len())]);
            let crash = if rng.chance(1, 3) { Crash::Process } else { power };
            host.restart(crash, &mut rng);
        }
    }
    let entries = host.durable.entries.iter().fold(0, |sum, entry| sum ^ entry.chain);
    entries ^ rng.bits()
}

#[test]
fn nothing_acknowledged_is_lost_in_any_crash() {
    for seed in 0..300 {
        survive(seed);
    }
    let marks = marks::take_hits();
    for mark in [
        "storage.torn_tail_cut",
        "storage.segment_switch",
        "storage.hard_slot_a_unreadable",
        "storage.hard_slot_b_unreadable",
        "storage.registrations_torn",
        "storage.segment_removed",
        "storage.base_lowered",
        "storage.log_reset_by_recovery",
    ] {
        assert!(marks.contains_key(mark), "no run reached {mark}");
    }
}

#[test]
fn a_life_is_a_function_of_its_seed() {
    assert_eq!(survive(5), survive(5));
    assert_ne!(survive(5), survive(6));
}

/// The process ends between the name of a received snapshot and its durability; the recovery that
/// resets the log in its favour must not rely on the cache.
#[test]
fn a_log_is_not_reset_to_a_snapshot_that_is_in_the_cache_only() {
    let mut rng = rng(1);
    let mut host = Host::new(&mut rng);
    let (index, term) = (LogIndex::new(7), Term::new(1));
    let meta = SnapshotMeta { index, term, ..SnapshotMeta::default() };
    let (mut writer, mut ops) = SnapshotWriter::begin(host.wal.store(), Purpose::Received, &meta);
    for block in blocks(&meta) {
        ops.extend(writer.block(&block));
    }
    ops.extend(writer.finish());
    assert_eq!(ops.pop(), Some(FileOp::SyncDir(Some(path("raft/snap")))));
    host.disk.perform(&ops).unwrap();
    host.disk.crash(Crash::Process, &mut rng);
    for crash in [Crash::Power(Loss::All), Crash::Process] {
        let mut recovery = Recovery::new(SERVER, rng.clone());
        let mut step = recovery.step(None);
        while let Some(answer) = host.disk.answer(&step) {
            step = recovery.step(Some(answer));
        }
        let Step::Done(restored) = step else { panic!("the snapshot is lost: {step:?}") };
        assert_eq!(restored.server.unwrap().raft.snapshot.as_ref(), Some(&meta));
        host.disk.crash(crash, &mut rng);
    }
}

/// What only a torn write could be is left alone, however the power went; what rots is noticed.
#[test]
fn a_log_rots_where_it_is_provably_durable() {
    let mut rotten = 0;
    for seed in 0..200 {
        let mut rng = rng(seed);
        let mut host = Host::new(&mut rng);
        for _ in 0..12 {
            host.commit(&mut rng);
            host.advance(&mut rng);
            assert!(host.finish());
        }
        host.commit(&mut rng);
        host.disk.crash(Crash::Power(Loss::Mixed), &mut rng);
        let part = if rng.chance(1, 2) { Part::Bit } else { Part::Sector };
        if !rot(&mut host.disk, part, rng.bits()) {
            continue;
        }
        rotten += 1;
        let mut recovery = Recovery::new(SERVER, rng.clone());
        let mut step = recovery.step(None);
        while let Some(answer) = host.disk.answer(&step) {
            step = recovery.step(Some(answer));
        }
        let noticed = matches!(step, Step::Refused(RecoveryError::Alone(Lost::Log(_))));
        assert!(noticed, "seed {seed}: {step:?}");
    }
    assert!(rotten > 150, "{rotten}");
}

#[test]
fn rot_of_durable_bytes_never_changes_the_log_unnoticed() {
    for seed in 0..200 {
        let mut rng = rng(seed);
        let mut host = Host::new(&mut rng);
        let mut commits = 0;
        while commits < 12 || host.stored.is_some() {
            host.commit(&mut rng);
            host.advance(&mut rng);
            assert!(host.finish());
            commits += 1;
        }
        host.disk.perform(&host.wal.seal()).unwrap();
        let segments = host.disk.list(Some(&path("raft/wal")));
        let segment = &segments[rng.index(segments.len())];
        assert!(host.disk.rot(&path(&format!("raft/wal/{segment}")), rng.bits()));
        let mut recovery = Recovery::new(SERVER, rng.clone());
        let mut step = recovery.step(None);
        while let Some(answer) = host.disk.answer(&step) {
            step = recovery.step(Some(answer));
        }
        if let Step::Done(restored) = step {
            assert!(host.durable.has_log_of(&restored.server.unwrap().raft));
        } else {
            assert!(matches!(step, Step::Refused(RecoveryError::Alone(_))));
        }
    }
}
