//! A perfect disk in memory and small values, for the tests of this module.

use super::identity::Identity;
use super::op::{FileOp, FilePath};
use super::record::{self, Head};
use super::recovery::{Answer, Recovery, RecoveryConfig, RecoveryError, Restored, Step};
use super::snapshot::{Purpose, SnapshotId, SnapshotWriter};
use super::wal::{WalConfig, segment_number};
use crate::id::{LogIndex, NodeId, StoreId, Term};
use crate::raft::{Configuration, Entry, EntryKind, Server, SnapshotMeta};
use crate::rng::{Rng, Seed, Stream};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Files by path; every operation is durable at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MemDisk {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl MemDisk {
    pub(super) fn perform(&mut self, ops: Vec<FileOp>) {
        for op in ops {
            match op {
                FileOp::Write { file, offset, data } => self.write(&file, offset, &data),
                FileOp::WriteZeros { file, offset, len } => {
                    self.write(&file, offset, &vec![0; usize::try_from(len).unwrap()]);
                }
                FileOp::SetLen { file, len } => {
                    self.file(&file).resize(usize::try_from(len).unwrap(), 0);
                }
                FileOp::Allocate { file, .. } => {
                    self.file(&file);
                }
                FileOp::Rename { from, to } => {
                    let content = self.files.remove(from.as_str()).expect("the file exists");
                    self.files.insert(to.as_str().to_owned(), content);
                }
                FileOp::Remove(file) => {
                    self.files.remove(file.as_str());
                }
                FileOp::CreateDir(_) | FileOp::Sync(_) | FileOp::SyncDir(_) => {}
            }
        }
    }

    fn file(&mut self, file: &FilePath) -> &mut Vec<u8> {
        self.files.entry(file.as_str().to_owned()).or_default()
    }

    fn write(&mut self, file: &FilePath, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let content = self.file(file);
        content.resize(content.len().max(end), 0);
        content[start..end].copy_from_slice(data);
    }

    /// The numbers and contents of the log's segments.
    pub(super) fn segments(&self) -> Vec<(u64, Bytes)> {
        let number = |path: &str| segment_number(path.strip_prefix("raft/wal/")?);
        let files = self.files.iter();
        let segments = files.filter_map(|(path, bytes)| Some((number(path)?, bytes)));
        segments.map(|(number, bytes)| (number, Bytes::copy_from_slice(bytes))).collect()
    }

    pub(super) fn put(&mut self, file: &str, content: &[u8]) {
        self.files.insert(file.to_owned(), content.to_vec());
    }

    /// `limit` bytes of a file from `offset` on, or fewer if it ends before.
    pub(super) fn part(&self, file: &FilePath, offset: u64, limit: u64) -> Option<Bytes> {
        let content = self.files.get(file.as_str())?;
        let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let limit = usize::try_from(limit).unwrap();
        Some(Bytes::copy_from_slice(rest.get(..limit).unwrap_or(rest)))
    }

    /// Writes a whole snapshot.
    pub(super) fn write_snapshot(
        &mut self,
        store: StoreId,
        purpose: Purpose,
        meta: &SnapshotMeta,
        blocks: &[Bytes],
    ) {
        let (mut writer, ops) = SnapshotWriter::begin(store, purpose, meta);
        self.perform(ops);
        blocks.iter().for_each(|block| self.perform(writer.block(block)));
        self.perform(writer.finish());
    }

    fn names(&self, folder: Option<&FilePath>) -> Vec<String> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let below = self.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        let mut names: Vec<String> =
            below.map(|rest| rest.split('/').next().unwrap().to_owned()).collect();
        names.dedup();
        names
    }

    fn answer(&mut self, step: Step) -> Answer {
        match step {
            Step::List(folder) => Answer::Names(self.names(folder.as_ref())),
            Step::Read { file, limit } => match self.files.get(file.as_str()) {
                Some(content) if content.len() as u64 > limit => {
                    Answer::TooLarge(content.len() as u64)
                }
                content => Answer::Content(content.map(|content| Bytes::copy_from_slice(content))),
            },
            Step::ReadPart { file, offset, limit } => {
                Answer::Content(self.part(&file, offset, limit))
            }
            Step::Perform(ops) => {
                self.perform(ops);
                Answer::Performed
            }
            Step::Done(_) | Step::Refused(_) => panic!("the recovery has ended"),
        }
    }

    /// The operations that a recovery would perform.
    pub(super) fn operations(&self, config: RecoveryConfig) -> Vec<FileOp> {
        let mut disk = self.clone();
        let rng = Rng::for_stream(Seed::from_number(1), Stream::Identity);
        let mut recovery = Recovery::new(config, rng);
        let mut step = recovery.step(None);
        loop {
            if let Step::Perform(ops) = step {
                return ops;
            }
            step = recovery.step(Some(disk.answer(step)));
        }
    }

    /// Runs a whole recovery.
    pub(super) fn recover(&mut self, config: RecoveryConfig) -> Result<Restored, RecoveryError> {
        let rng = Rng::for_stream(Seed::from_number(1), Stream::Identity);
        let mut recovery = Recovery::new(config, rng);
        let mut answer = None;
        loop {
            match recovery.step(answer.take()) {
                Step::Done(restored) => return Ok(*restored),
                Step::Refused(error) => return Err(error),
                step @ (Step::List(_)
                | Step::Read { .. }
                | Step::ReadPart { .. }
                | Step::Perform(_)) => {
                    answer = Some(self.answer(step));
                }
            }
        }
    }
}

/// The identity of the tests' store.
pub(super) const fn identity(store: StoreId) -> Identity {
    Identity {
        node: NodeId::from_bytes([1; 16]),
        store,
        cluster: None,
        promise: None,
        heartbeat_timeout: Duration::ZERO,
        recovering: None,
    }
}

/// Tiny segments, so that tests see many.
pub(super) const TINY: WalConfig = WalConfig { segment_bytes: 1024, step_bytes: 256 };

pub(super) const fn server() -> RecoveryConfig {
    RecoveryConfig { server: true, node_id: None, wal: TINY, peers: None, host: Vec::new() }
}

pub(super) const fn client() -> RecoveryConfig {
    RecoveryConfig { server: false, node_id: None, wal: TINY, peers: None, host: Vec::new() }
}

/// What a client agent begins with on an empty disk.
pub(crate) fn restored_client() -> Restored {
    MemDisk::default().recover(client()).expect("an empty disk is usable")
}

/// The description of a snapshot of a log that holds `entry(index, term, ..)`.
pub(super) fn snapshot_meta(index: u64, term: u64) -> SnapshotMeta {
    let address = "127.0.0.1:8300".parse().unwrap();
    let server = Server { address, store: StoreId::from_bytes([2; 16]) };
    SnapshotMeta {
        index: LogIndex::new(index),
        term: Term::new(term),
        chain: entry(index, term, 0).chain,
        configuration: Configuration {
            voters: [(NodeId::from_bytes([1; 16]), server)].into(),
            ..Configuration::default()
        },
        configuration_index: LogIndex::new(1),
    }
}

/// A snapshot of the format `version`, which is not known.
pub(super) fn snapshot_of_version(store: StoreId, meta: &SnapshotMeta, version: u32) -> Vec<u8> {
    let head = Head { kind: 1, index: 0, term: meta.term.get(), epoch: 1 };
    let mut bytes = Vec::new();
    let binding = SnapshotId::of(meta).binding(store);
    record::put(&mut bytes, binding, 0, head, &[&version.to_be_bytes(), b"what is to come"]);
    bytes
}

/// What a server begins with on an empty disk.
pub(crate) fn restored_server() -> Restored {
    MemDisk::default().recover(server()).expect("an empty disk is usable")
}

/// An entry of `len` bytes at `index`.
pub(super) fn entry(index: u64, term: u64, len: usize) -> Entry {
    Entry {
        index: LogIndex::new(index),
        term: Term::new(term),
        kind: if index == 1 { EntryKind::Config } else { EntryKind::Command },
        payload: vec![u8::try_from(index % 251).unwrap(); len].into(),
        chain: index * 1_000 + term,
    }
}
