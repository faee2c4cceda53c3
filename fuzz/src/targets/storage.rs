//! Recovery: the input says what is written to a data directory and how its files are damaged.

use crate::choices::Choices;
use crate::disk::{Disk, SERVER};
use bytes::Bytes;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Applied, Command};
use terraform_core::catalog::image::ImageEncoder;
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::id::{LogIndex, Term};
use terraform_core::log::chain;
use terraform_core::raft::{
    Entry, EntryKind, HardState, IdentityChange, PersistBatch, SnapshotMeta,
};
use terraform_core::storage::snapshot::{Purpose, SnapshotFiles, SnapshotId, SnapshotWriter};
use terraform_core::storage::wal::Wal;

#[derive(Debug, Default)]
struct Written {
    /// The position of the newest reset.
    first: u64,
    /// The log behind it at the end.
    log: Vec<Entry>,
    /// Every entry that was ever in it.
    ever: Vec<Entry>,
    /// Every snapshot that was ever stored.
    snapshots: Vec<SnapshotMeta>,
}

impl Written {
    fn last(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// The position that the newest snapshot covers.
    fn covered(&self) -> u64 {
        self.snapshots.last().map_or(0, |meta| meta.index.get())
    }

    /// What a truncation may keep at least.
    fn kept_min(&self) -> usize {
        usize::try_from(self.covered() - self.first).expect("logs of one input are short")
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

/// Stores a snapshot of what is in the log or, if the input wants it, of more than that; in that
/// case the log is to be reset. Removes what is superfluous then.
fn snapshot(
    choices: &mut Choices<'_>,
    wal: &mut Wal,
    files: &mut SnapshotFiles,
    disk: &mut Disk,
    written: &mut Written,
) -> Option<LogIndex> {
    let received = choices.byte().is_multiple_of(4);
    let (index, term, chain) = if received {
        (written.last() + 1 + u64::from(choices.byte() % 8), Term::new(99), 7)
    } else {
        let kept = written.kept_min();
        let entry = written.log.get(kept..)?.get(choices.below(written.log.len() - kept + 1))?;
        (entry.index.get(), entry.term, entry.chain)
    };
    let index = LogIndex::new(index);
    let meta = SnapshotMeta { index, term, chain, ..SnapshotMeta::default() };
    let purpose = if received { Purpose::Received } else { Purpose::Own };
    let (mut writer, ops) = SnapshotWriter::begin(wal.store(), purpose, &meta);
    disk.perform(ops);
    for block in blocks(&meta) {
        disk.perform(writer.block(&block));
    }
    disk.perform(writer.finish());
    let retention = files.add(SnapshotId::of(&meta));
    disk.perform(retention.remove);
    if let Some(to) = retention.compact {
        disk.perform(wal.compact(to));
    }
    written.snapshots.push(meta);
    received.then_some(index)
}

/// Writes what the input says: terms that grow, entries of any size, truncations, snapshots.
fn write_log(choices: &mut Choices<'_>, wal: &mut Wal, disk: &mut Disk) -> Written {
    let mut written = Written::default();
    let mut files = SnapshotFiles::default();
    let mut term = 1;
    for _ in 0..choices.byte() % 16 {
        term += u64::from(choices.byte() % 2);
        let wants_snapshot = choices.byte().is_multiple_of(4);
        let reset = wants_snapshot
            .then(|| snapshot(choices, wal, &mut files, disk, &mut written))
            .flatten();
        if let Some(position) = reset {
            written.first = position.get();
            written.log.clear();
        }
        let hard = HardState { term: Term::new(term), voted_for: None };
        let mut batch = PersistBatch {
            identity: IdentityChange::default(),
            hard: choices.byte().is_multiple_of(4).then_some(hard),
            reset,
            truncate_from: None,
            entries: Vec::new(),
        };
        if choices.byte().is_multiple_of(4) {
            let kept = written.kept_min();
            written.log.truncate(kept + choices.below(written.log.len() - kept + 1));
            batch.truncate_from = Some(LogIndex::new(written.last() + 1));
        }
        for _ in 0..choices.byte() % 4 {
            let index = LogIndex::new(written.last() + 1);
            let (term, kind) = (Term::new(term), EntryKind::Command);
            let payload = Bytes::from(vec![choices.byte(); choices.below(600)]);
            let before = written.log.last().map_or(0, |entry| entry.chain);
            let chain = chain(before, index, term, &kind, &payload);
            let entry = Entry { index, term, kind, payload, chain };
            written.log.push(entry.clone());
            written.ever.push(entry.clone());
            batch.entries.push(entry);
        }
        disk.perform(wal.append(&batch));
        while let Some(op) = wal.prepare() {
            disk.perform(op.ops);
            wal.prepared(op.lane);
        }
    }
    written
}

/// Changes a few bytes or the length of any file.
fn damage(choices: &mut Choices<'_>, disk: &mut Disk) -> bool {
    let mut changed = false;
    while !choices.is_empty() {
        let file = choices.below(disk.files.len());
        let Some(content) = disk.files.values_mut().nth(file) else {
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
    let restored = disk.recover(SERVER).expect("an empty data directory is usable");
    let mut wal = restored.server.expect("it is a server's").wal;
    let written = write_log(&mut choices, &mut wal, &mut disk);
    let damaged = damage(&mut choices, &mut disk);
    let Ok(restored) = disk.recover(SERVER) else {
        assert!(damaged, "what was written is readable");
        return;
    };
    let found = restored.server.expect("it is a server's");
    let entries = &found.raft.entries;
    let covered = found.raft.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.index);
    if !damaged {
        assert_eq!(covered.get(), written.covered(), "the newest snapshot is chosen");
        let above = |entry: &&Entry| entry.index > covered;
        let (read, wrote) = (entries.iter().filter(above), written.log.iter().filter(above));
        assert!(read.eq(wrote), "every batch is read back");
    }
    for entry in entries {
        assert!(written.ever.contains(entry), "recovery makes no entry up");
    }
    if let Some(meta) = &found.raft.snapshot {
        assert!(written.snapshots.contains(meta), "recovery makes no snapshot up");
        assert_eq!(found.tables, state(meta), "the state is that of the snapshot");
    }
    let again = disk.recover(SERVER).expect("what recovery wrote is readable");
    let again = again.server.expect("it is a server's");
    assert_eq!(again.raft, found.raft, "a second recovery finds what the first found");
    assert_eq!(again.tables, found.tables, "a second recovery finds what the first found");
}
