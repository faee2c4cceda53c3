//! The simulated disk does to its files what the executor does to real ones.
//!
//! The same random operations go to both; after each list, files and folders must read the same,
//! and both must have refused or accepted it.

use super::SimDisk;
use bytes::Bytes;
use std::fs;
use std::path::Path;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Applied, Command};
use terraform_core::catalog::image::ImageEncoder;
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::id::{LogIndex, WriteId};
use terraform_core::raft::SnapshotMeta;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::op::{FileOp, FilePath, Lane, StorageOp};
use terraform_core::storage::recovery::{Recovery, RecoveryConfig, Restored, Step};
use terraform_core::storage::snapshot::{Purpose, SnapshotWriter};
use terraform_core::storage::wal::WalConfig;
use terraform_io::storage::{DataDir, Disk, recover};

fn file(rng: &mut Rng) -> FilePath {
    let names = ["a", "b", "d/a", "d/b", "d/e/a"];
    FilePath::new(names[rng.index(names.len())])
}

fn operation(rng: &mut Rng) -> FileOp {
    let (offset, len) = (rng.below(3000), rng.below(2000));
    match rng.below(8) {
        0 => FileOp::CreateDir(FilePath::new(["d", "d/e"][rng.index(2)])),
        1 | 2 => {
            let data: Bytes = (0..len).map(|_| rng.bits().to_be_bytes()[0]).collect();
            FileOp::Write { file: file(rng), offset, data }
        }
        3 => FileOp::WriteZeros { file: file(rng), offset, len },
        4 => FileOp::SetLen { file: file(rng), len },
        5 => FileOp::Sync(file(rng)),
        6 => FileOp::Rename { from: file(rng), to: file(rng) },
        _ => FileOp::Remove(file(rng)),
    }
}

/// Compares everything below `folder`, except the lock that only the real disk has.
fn assert_same(disk: &SimDisk, root: &Path, folder: Option<&FilePath>) {
    let real = root.join(folder.map_or("", FilePath::as_str));
    let entries = fs::read_dir(&real).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    assert_eq!(disk.list(folder), names, "in {folder:?}");
    for name in names {
        let path = folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
        let path = FilePath::new(&path);
        if real.join(&name).is_dir() {
            assert_same(disk, root, Some(&path));
        } else {
            assert_eq!(disk.read(&path), Some(&*fs::read(real.join(&name)).unwrap()), "{path}");
        }
    }
}

fn temporary(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("terraform-sim-{}-{name}", std::process::id()));
    drop(fs::remove_dir_all(&path));
    path
}

#[test]
fn both_disks_read_alike_after_the_same_operations() {
    for seed in 0..20 {
        let mut rng = Rng::for_stream(Seed::from_number(seed), Stream::Node);
        let root = temporary(&format!("ops{seed}"));
        let mut simulated = SimDisk::new();
        for _ in 0..15 {
            let ops: Vec<FileOp> = (0..1 + rng.below(6)).map(|_| operation(&mut rng)).collect();
            let (sender, reports) = std::sync::mpsc::channel();
            let report = move |completion| drop(sender.send(completion));
            // A disk of its own for each list: a lane that failed once performs nothing more.
            let real = Disk::start(DataDir::open(&root).unwrap(), report).unwrap();
            real.submit(
                WriteId::new(1),
                StorageOp { lane: Lane::State, ops: ops.clone(), deferrable: false },
            );
            real.stop();
            let accepted = reports.recv().unwrap().result.is_ok();
            assert_eq!(simulated.perform(&ops).is_ok(), accepted, "{ops:?}");
            assert_same(&simulated, &root, None);
        }
        fs::remove_dir_all(&root).unwrap();
    }
}

fn recovered(disk: &mut SimDisk, mut machine: Recovery) -> Restored {
    let mut step = machine.step(None);
    while let Some(answer) = disk.answer(&step) {
        step = machine.step(Some(answer));
    }
    let Step::Done(restored) = step else { panic!("the disk is usable: {step:?}") };
    *restored
}

/// A catalog whose image is longer than what is read at a time.
fn large() -> Tables {
    let mut tables = Tables::default();
    for index in (1..=10).map(LogIndex::new) {
        let value = vec![7; 500_000].into();
        let put = KvPut { key: index.to_string(), value, flags: 0, only_at: None };
        assert_eq!(tables.apply(index, Command::Kv(KvWrite::Put(put))), Ok(Applied::Done));
    }
    tables
}

#[test]
fn a_recovery_writes_the_same_files_on_both_disks() {
    let root = temporary("recovery");
    let recovery = || {
        let wal = WalConfig { segment_bytes: 8192, step_bytes: 2048 };
        let config =
            RecoveryConfig { server: true, node_id: None, wal, peers: None, host: Vec::new() };
        Recovery::new(config, Rng::for_stream(Seed::from_number(1), Stream::Identity))
    };
    let mut simulated = SimDisk::new();
    for round in 0..2 {
        // The second time there is a snapshot to be read, longer than a part.
        if round == 1 {
            let meta = SnapshotMeta { index: LogIndex::new(3), ..SnapshotMeta::default() };
            let store = recovered(&mut simulated.clone(), recovery()).server.unwrap().raft.store;
            let (mut writer, mut ops) = SnapshotWriter::begin(store, Purpose::Received, &meta);
            let mut encoder = ImageEncoder::new(large());
            while let Some(block) = encoder.next_block(1 << 20) {
                ops.extend(writer.block(&block));
            }
            ops.extend(writer.finish());
            simulated.perform(&ops).unwrap();
            let (sender, reports) = std::sync::mpsc::channel();
            let report = move |completion| drop(sender.send(completion));
            let real = Disk::start(DataDir::open(&root).unwrap(), report).unwrap();
            real.submit(WriteId::new(1), StorageOp { lane: Lane::State, ops, deferrable: false });
            real.stop();
            assert!(reports.recv().unwrap().result.is_ok());
        }
        let real = recover(&DataDir::open(&root).unwrap(), recovery(), |_, answer| answer).unwrap();
        let same = recovered(&mut simulated, recovery());
        assert!(real == same, "what was restored is not the same");
        let expected = if round == 1 { large() } else { Tables::default() };
        assert!(same.server.unwrap().tables == expected, "the catalog is another one");
        assert_same(&simulated, &root, None);
    }
    fs::remove_dir_all(&root).unwrap();
}
