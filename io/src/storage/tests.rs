//! The executor on directories below the system's temporary one.

use super::*;
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use terraform_core::id::WriteId;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::op::{FileOp, FilePath, Lane, StorageFault, StorageOp};
use terraform_core::storage::recovery::RecoveryConfig;
use terraform_core::storage::wal::WalConfig;

/// A folder of its own for one test, removed at its end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("terraform-io-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn dir(&self) -> DataDir {
        DataDir::open(&self.0.join("data")).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("data").join(name)
    }
}

/// Makes a file for which there is never space.
fn fill(temporary: &Temporary, name: &str) {
    fs::create_dir_all(temporary.file("")).unwrap();
    symlink("/dev/full", temporary.file(name)).unwrap();
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn path(text: &str) -> FilePath {
    FilePath::new(text)
}

fn write(file: &str, data: &'static [u8]) -> FileOp {
    FileOp::Write { file: path(file), offset: 0, data: Bytes::from_static(data) }
}

fn recovery(server: bool) -> Recovery {
    let config = RecoveryConfig {
        server,
        node_id: None,
        wal: WalConfig::default(),
        peers: None,
        host: Vec::new(),
    };
    Recovery::new(config, Rng::for_stream(Seed::from_number(3), Stream::Identity))
}

#[test]
fn a_new_data_directory_is_for_its_owner_only() {
    let temporary = Temporary::new();
    let deep = temporary.0.join("a/b");
    let dir = DataDir::open(&deep).unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(deep.join("lock")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_second_agent_on_a_directory_is_refused_by_name() {
    let temporary = Temporary::new();
    let first = temporary.dir();
    let error = DataDir::open(first.path()).unwrap_err();
    let path = first.path();
    let owner = std::process::id();
    let line = format!("the data directory {path:?} is in use by another agent (process {owner})");
    assert_eq!(error.to_string(), line);
    drop(first);
    assert!(DataDir::open(&temporary.0.join("data")).is_ok());
}

#[test]
fn a_file_in_place_of_the_directory_is_refused_by_name() {
    let temporary = Temporary::new();
    let file = temporary.0.join("file");
    fs::write(&file, b"x").unwrap();
    let error = DataDir::open(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the data directory {file:?} is not usable: ")), "{error}");
}

#[test]
fn operations_change_the_files_as_they_say() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    let mut files = Files::new(dir.path());
    let at = |offset, data| FileOp::Write { file: path("a/f"), offset, data };
    let ops = [
        FileOp::CreateDir(path("a")),
        at(2, Bytes::from_static(b"xyz")),
        FileOp::WriteZeros { file: path("a/f"), offset: 4, len: 300_000 },
        FileOp::SetLen { file: path("a/f"), len: 6 },
        FileOp::Sync(path("a/f")),
        FileOp::Rename { from: path("a/f"), to: path("a/g") },
        FileOp::SyncDir(Some(path("a"))),
        FileOp::Remove(path("a/none")),
        // The name is free again: this must not reach the renamed file.
        at(0, Bytes::from_static(b"new")),
        FileOp::SyncDir(None),
    ];
    files.perform(&ops).unwrap();
    assert_eq!(fs::read(temporary.file("a/g")).unwrap(), b"\0\0xy\0\0");
    assert_eq!(fs::read(temporary.file("a/f")).unwrap(), b"new");
    assert_eq!(fs::metadata(temporary.file("a/f")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_failure_names_file_and_reason_and_stops_the_rest() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    let mut files = Files::new(dir.path());
    let ops = [FileOp::Sync(path("none")), write("after", b"x")];
    let failure = files.perform(&ops).unwrap_err();
    assert_eq!(failure.fault, StorageFault::Io);
    assert!(failure.text.starts_with("opening ") && failure.text.contains("/none: "));
    assert!(!temporary.file("after").exists());
}

#[test]
fn a_full_disk_and_a_denied_one_are_told_apart() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    fill(&temporary, "full");
    let mut files = Files::new(dir.path());
    assert_eq!(files.perform(&[write("full", b"x")]).unwrap_err().fault, StorageFault::Full);
    // The superuser, who may run the tests, is never denied anything.
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let failure = file::failure("writing", Path::new("f"), &denied);
    assert_eq!(failure.fault, StorageFault::Denied);
    assert_eq!(failure.to_string(), "writing f: permission denied");
}

#[test]
fn a_server_finds_itself_again_on_a_real_disk() {
    let temporary = Temporary::new();
    let first = recover(&temporary.dir(), recovery(true), |_, answer| answer).unwrap();
    let again = recover(&temporary.dir(), recovery(true), |_, answer| answer).unwrap();
    assert_eq!(first.node_id, again.node_id);
    assert_eq!(first.server.unwrap().raft, again.server.unwrap().raft);
    let text = fs::read_to_string(temporary.file("node-id")).unwrap();
    assert_eq!(text, first.node_id.to_string());
}

#[test]
fn a_part_of_a_file_ends_with_the_file() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    fs::write(temporary.file("f"), b"0123456789").unwrap();
    let files = Files::new(dir.path());
    let wanted = [(0, "0123"), (4, "4567"), (8, "89"), (10, ""), (50, "")];
    for (offset, part) in wanted {
        let answer = files.read_part(&path("f"), offset, 4).unwrap();
        assert_eq!(answer, Answer::Content(Some(Bytes::from(part))));
    }
    assert_eq!(files.read_part(&path("none"), 0, 4).unwrap(), Answer::Content(None));
    fs::create_dir(temporary.file("raft")).unwrap();
    let failure = files.read_part(&path("raft"), 0, 4).unwrap_err();
    assert!(failure.text.ends_with("it is not a regular file"), "{}", failure.text);
}

#[test]
fn consuls_directory_and_odd_files_are_refused() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    fs::create_dir(temporary.file("node-id")).unwrap();
    let error = recover(&dir, recovery(false), |_, answer| answer).unwrap_err().to_string();
    assert!(error.ends_with("node-id: it is not a regular file"), "{error}");
    fs::create_dir(temporary.file("raft")).unwrap();
    fs::write(temporary.file("raft/raft.db"), b"x").unwrap();
    let error = recover(&dir, recovery(false), |_, answer| answer).unwrap_err().to_string();
    assert!(error.ends_with("it holds raft/raft.db"), "{error}");
}

#[test]
fn lanes_report_in_order_and_a_failed_lane_stays_failed() {
    let temporary = Temporary::new();
    let (sender, reports) = mpsc::channel();
    let report = move |completion| drop(sender.send(completion));
    let disk = Disk::start(temporary.dir(), report).unwrap();
    let log = |ops| StorageOp { lane: Lane::Log, ops, deferrable: false };
    disk.submit(WriteId::new(1), log(vec![write("a", b"1"), FileOp::Sync(path("a"))]));
    disk.submit(WriteId::new(2), log(vec![FileOp::Sync(path("none"))]));
    disk.submit(WriteId::new(3), log(vec![write("b", b"1")]));
    let state = StorageOp { lane: Lane::State, ops: vec![write("c", b"1")], deferrable: false };
    disk.submit(WriteId::new(4), state);
    disk.stop();
    let all: Vec<Completion> = reports.iter().collect();
    let of = |done: bool| -> Vec<u64> {
        let same = all.iter().filter(|completion| completion.result.is_ok() == done);
        let mut numbers: Vec<u64> = same.map(|completion| completion.write.get()).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!((of(true), of(false)), (vec![1, 4], vec![2, 3]));
    assert!(Path::exists(&temporary.file("c")) && !temporary.file("b").exists());
}

#[test]
fn a_lane_goes_on_after_what_found_no_space_only_if_it_may() {
    let temporary = Temporary::new();
    fill(&temporary, "full");
    let (sender, reports) = mpsc::channel();
    let report = move |completion| drop(sender.send(completion));
    let disk = Disk::start(temporary.dir(), report).unwrap();
    let op =
        |file, deferrable| StorageOp { lane: Lane::Log, ops: vec![write(file, b"1")], deferrable };
    let ops = [("full", true), ("a", true), ("none/b", true), ("c", true)];
    for (number, (file, deferrable)) in (1..).zip(ops) {
        disk.submit(WriteId::new(number), op(file, deferrable));
    }
    disk.stop();
    let faults: Vec<Option<StorageFault>> =
        reports.iter().map(|done| done.result.err().map(|failure| failure.fault)).collect();
    let (full, other) = (Some(StorageFault::Full), Some(StorageFault::Io));
    assert_eq!(faults, [full, None, other, other], "what is no lack of space ends the lane");
}

#[test]
fn space_that_is_set_aside_changes_no_file_and_more_than_there_is_takes_none() {
    let temporary = Temporary::new();
    let mut files = Files::new(temporary.dir().path());
    files.perform(&[write("f", b"abc"), FileOp::Sync(path("f"))]).unwrap();
    let allocate = |len| FileOp::Allocate { file: path("f"), len };
    let blocks = || fs::metadata(temporary.file("f")).unwrap().blocks();
    let before = blocks();
    let failure = files.perform(&[allocate(1 << 62)]).unwrap_err();
    assert_eq!((failure.fault, blocks()), (StorageFault::Full, before));
    files.perform(&[allocate(1 << 20)]).unwrap();
    assert_eq!(fs::read(temporary.file("f")).unwrap(), b"abc");
    files.perform(&[FileOp::SetLen { file: path("f"), len: 3 }]).unwrap();
    assert_eq!((fs::read(temporary.file("f")).unwrap(), blocks()), (b"abc".to_vec(), before));
}

#[test]
fn a_peers_file_is_read_only_if_it_is_a_file_of_some_length() {
    let temporary = Temporary::new();
    let dir = temporary.dir();
    fs::create_dir_all(temporary.file("raft")).unwrap();
    let place = temporary.file("raft/peers.json");
    assert_eq!(read_peers(&dir).unwrap(), None);
    // A pipe would be waited for; what is no file is not opened.
    assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
    let error = read_peers(&dir).unwrap_err().to_string();
    assert!(error.ends_with("raft/peers.json: it is not a regular file"), "{error}");
    fs::remove_file(&place).unwrap();
    fs::write(&place, vec![b' '; 70_000]).unwrap();
    let error = read_peers(&dir).unwrap_err().to_string();
    assert_eq!(error, "raft/peers.json: it has 70000 bytes, at most 65536 are read");
}
