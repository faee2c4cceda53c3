//! A disk in memory that keeps everything at once, and recovery from it.

use bytes::Bytes;
use std::collections::BTreeMap;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::op::{FileOp, FilePath};
use terraform_core::storage::recovery::{
    Answer, Recovery, RecoveryConfig, RecoveryError, Restored, Step,
};
use terraform_core::storage::wal::WalConfig;

/// A server with tiny segments, so that short inputs reach their ends.
pub(crate) const SERVER: RecoveryConfig = RecoveryConfig {
    server: true,
    node_id: None,
    wal: WalConfig { segment_bytes: 1024, step_bytes: 256 },
    peers: None,
    host: Vec::new(),
};

/// Bytes a file may grow to; far above what one input makes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A disk that keeps everything at once.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Disk {
    fn file(&mut self, file: &FilePath) -> &mut Vec<u8> {
        self.files.entry(file.as_str().to_owned()).or_default()
    }

    fn write(&mut self, file: &FilePath, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).expect("tiny segments have small offsets");
        let end = start + data.len();
        assert!(end <= FILE_BYTES_MAX, "the files of one input stay small");
        let content = self.file(file);
        content.resize(content.len().max(end), 0);
        content.splice(start..end, data.iter().copied());
    }

    /// Executes operations in order.
    pub(crate) fn perform(&mut self, ops: Vec<FileOp>) {
        for op in ops {
            match op {
                FileOp::Write { file, offset, data } => self.write(&file, offset, &data),
                FileOp::WriteZeros { file, offset, len } => {
                    let len = usize::try_from(len).expect("tiny segments have few zeros");
                    self.write(&file, offset, &vec![0; len]);
                }
                FileOp::SetLen { file, len } => {
                    let len = usize::try_from(len).expect("tiny files have small lengths");
                    self.file(&file).resize(len, 0);
                }
                FileOp::Rename { from, to } => {
                    let content = self.files.remove(from.as_str()).expect("a renamed file exists");
                    self.files.insert(to.as_str().to_owned(), content);
                }
                FileOp::Remove(file) => {
                    self.files.remove(file.as_str());
                }
                FileOp::Allocate { file, .. } => {
                    self.file(&file);
                }
                FileOp::CreateDir(_) | FileOp::Sync(_) | FileOp::SyncDir(_) => {}
            }
        }
    }

    fn names(&self, folder: Option<&FilePath>) -> Vec<String> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let below = self.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        let mut names: Vec<String> =
            below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        names
    }

    /// Runs a whole recovery; new identities are always the same.
    pub(crate) fn recover(&mut self, config: RecoveryConfig) -> Result<Restored, RecoveryError> {
        let rng = Rng::for_stream(Seed::from_number(1), Stream::Identity);
        let mut recovery = Recovery::new(config, rng);
        let mut step = recovery.step(None);
        loop {
            let answer = match step {
                Step::List(folder) => Answer::Names(self.names(folder.as_ref())),
                Step::Read { file, limit } => match self.files.get(file.as_str()) {
                    Some(content) if content.len() as u64 > limit => {
                        Answer::TooLarge(content.len() as u64)
                    }
                    content => Answer::Content(content.map(|bytes| Bytes::copy_from_slice(bytes))),
                },
                Step::ReadPart { file, offset, limit } => {
                    let part = |content: &Vec<u8>| {
                        let from = usize::try_from(offset).expect("files of one input are small");
                        let limit = usize::try_from(limit).expect("a part fits into memory");
                        let rest = content.get(from..).unwrap_or_default();
                        Bytes::copy_from_slice(rest.get(..limit).unwrap_or(rest))
                    };
                    Answer::Content(self.files.get(file.as_str()).map(part))
                }
                Step::Perform(ops) => {
                    self.perform(ops);
                    Answer::Performed
                }
                Step::Done(restored) => return Ok(*restored),
                Step::Refused(error) => return Err(error),
            };
            step = recovery.step(Some(answer));
        }
    }
}
