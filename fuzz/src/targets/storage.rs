//! Recovery: the input says what is written to a data directory and how its files are damaged.

use crate::choices::Choices;
use bytes::Bytes;
use std::collections::BTreeMap;
use terraform_core::id::{LogIndex, Term};
use terraform_core::log::chain;
use terraform_core::raft::{Entry, EntryKind, HardState, IdentityChange, PersistBatch};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::op::{FileOp, FilePath};
use terraform_core::storage::recovery::{
    Answer, Recovery, RecoveryConfig, RecoveryError, Restored, Step,
};
use terraform_core::storage::wal::{Wal, WalConfig};

/// Tiny segments, so that short inputs reach their ends.
const CONFIG: RecoveryConfig = RecoveryConfig {
    server: true,
    node_id: None,
    wal: WalConfig { segment_bytes: 1024, step_bytes: 256 },
};

/// Bytes a file may grow to; far above what a few batches need.
const FILE_BYTES_MAX: usize = 1 << 16;

/// A disk that keeps everything at once.
#[derive(Debug, Default)]
struct Disk(BTreeMap<String, Vec<u8>>);

impl Disk {
    fn file(&mut self, file: &FilePath) -> &mut Vec<u8> {
        self.0.entry(file.as_str().to_owned()).or_default()
    }

    fn write(&mut self, file: &FilePath, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).expect("tiny segments have small offsets");
        let end = start + data.len();
        assert!(end <= FILE_BYTES_MAX, "a data directory of a few batches stays small");
        let content = self.file(file);
        content.resize(content.len().max(end), 0);
        content.splice(start..end, data.iter().copied());
    }

    fn perform(&mut self, ops: Vec<FileOp>) {
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
                    let content = self.0.remove(from.as_str()).expect("a renamed file exists");
                    self.0.insert(to.as_str().to_owned(), content);
                }
                FileOp::Remove(file) => {
                    self.0.remove(file.as_str());
                }
                FileOp::CreateDir(_) | FileOp::Sync(_) | FileOp::SyncDir(_) => {}
            }
        }
    }

    fn names(&self, folder: Option<&FilePath>) -> Vec<String> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let below = self.0.keys().filter_map(|path| path.strip_prefix(&prefix));
        let mut names: Vec<String> =
            below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        names
    }

    fn recover(&mut self) -> Result<Restored, RecoveryError> {
        let rng = Rng::for_stream(Seed::from_number(1), Stream::Identity);
        let mut recovery = Recovery::new(CONFIG, rng);
        let mut step = recovery.step(None);
        loop {
            let answer = match step {
                Step::List(folder) => Answer::Names(self.names(folder.as_ref())),
                Step::Read { file, limit } => match self.0.get(file.as_str()) {
                    Some(content) if content.len() as u64 > limit => {
                        Answer::TooLarge(content.len() as u64)
                    }
                    content => Answer::Content(content.map(|bytes| Bytes::copy_from_slice(bytes))),
                },
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

#[derive(Debug, Default)]
struct Written {
    /// The log at the end.
    log: Vec<Entry>,
    /// Every entry that was ever in it.
    ever: Vec<Entry>,
}

/// Writes what the input says: terms that grow, entries of any size, truncations.
fn write_log(choices: &mut Choices<'_>, wal: &mut Wal, disk: &mut Disk) -> Written {
    let Written { mut log, mut ever } = Written::default();
    let mut term = 1;
    for _ in 0..choices.byte() % 16 {
        term += u64::from(choices.byte() % 2);
        let hard = HardState { term: Term::new(term), voted_for: None };
        let mut batch = PersistBatch {
            identity: IdentityChange::default(),
            hard: (choices.byte() % 4 == 0).then_some(hard),
            truncate_from: None,
            entries: Vec::new(),
        };
        if choices.byte() % 4 == 0 {
            log.truncate(choices.below(log.len() + 1));
            batch.truncate_from = Some(LogIndex::new(log.len() as u64 + 1));
        }
        for _ in 0..choices.byte() % 4 {
            let index = LogIndex::new(log.len() as u64 + 1);
            let (term, kind) = (Term::new(term), EntryKind::Command);
            let payload = Bytes::from(vec![choices.byte(); choices.below(600)]);
            let before = log.last().map_or(0, |entry| entry.chain);
            let chain = chain(before, index, term, &kind, &payload);
            let entry = Entry { index, term, kind, payload, chain };
            log.push(entry.clone());
            ever.push(entry.clone());
            batch.entries.push(entry);
        }
        disk.perform(wal.append(&batch));
        while let Some(op) = wal.prepare() {
            disk.perform(op.ops);
            wal.prepared();
        }
    }
    Written { log, ever }
}

/// Changes a few bytes or the length of any file.
fn damage(choices: &mut Choices<'_>, disk: &mut Disk) -> bool {
    let mut changed = false;
    while !choices.is_empty() {
        let file = choices.below(disk.0.len());
        let Some(content) = disk.0.values_mut().nth(file) else {
            break;
        };
        let position = choices.below(content.len() + 1);
        match (choices.byte(), content.get_mut(position)) {
            (0, _) => content.truncate(position),
            (mask, Some(byte)) => *byte ^= mask,
            (byte, None) => content.push(byte),
        }
        changed = true;
    }
    changed
}

/// An undamaged directory gives back what was written; a damaged one is refused or gives nothing
/// that was never written, and what recovery wrote itself is read again.
pub fn storage(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut disk = Disk::default();
    let restored = disk.recover().expect("an empty data directory is usable");
    let mut wal = restored.server.expect("it is a server's").wal;
    let written = write_log(&mut choices, &mut wal, &mut disk);
    let damaged = damage(&mut choices, &mut disk);
    let Ok(restored) = disk.recover() else {
        assert!(damaged, "what was written is readable");
        return;
    };
    let entries = restored.server.expect("it is a server's").raft.entries;
    if !damaged {
        assert_eq!(entries, written.log, "every batch is read back");
    }
    for entry in &entries {
        assert!(written.ever.contains(entry), "recovery makes no entry up");
    }
    let again = disk.recover().expect("what recovery wrote is readable");
    let again = again.server.expect("it is a server's").raft.entries;
    assert_eq!(again, entries, "a second recovery finds what the first found");
}
