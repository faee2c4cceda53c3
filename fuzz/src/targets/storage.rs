//! Recovery: the input says what is written to a data directory and how its files are damaged.

use crate::choices::Choices;
use crate::disk::{Disk, SERVER};
use bytes::Bytes;
use terraform_core::id::{LogIndex, Term};
use terraform_core::log::chain;
use terraform_core::raft::{Entry, EntryKind, HardState, IdentityChange, PersistBatch};
use terraform_core::storage::wal::Wal;

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
            hard: choices.byte().is_multiple_of(4).then_some(hard),
            reset: None,
            truncate_from: None,
            entries: Vec::new(),
        };
        if choices.byte().is_multiple_of(4) {
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
    let entries = restored.server.expect("it is a server's").raft.entries;
    if !damaged {
        assert_eq!(entries, written.log, "every batch is read back");
    }
    for entry in &entries {
        assert!(written.ever.contains(entry), "recovery makes no entry up");
    }
    let again = disk.recover(SERVER).expect("what recovery wrote is readable");
    let again = again.server.expect("it is a server's").raft.entries;
    assert_eq!(again, entries, "a second recovery finds what the first found");
}
