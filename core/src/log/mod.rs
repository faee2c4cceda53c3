//! The replicated log in memory: terms, chain values, and what may be sent (raft.md §2).
//!
//! Positions begin at 1. Invariants: indexes are consecutive, terms never decrease, and each
//! entry's chain value follows from the one before it, so that equal chain values mean equal
//! histories (raft.md §2, K10; I3). What is durable is known to `raft::persist`, not here.

use crate::id::{LogIndex, Term};
use crate::raft::{Entry, EntryKind};
use bytes::Bytes;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The chain value of an entry: 64-bit FNV-1a over the value before it and its whole content.
///
/// Hashed are the big-endian bytes of `before`, `index`, `term`, one byte for the kind (1 command,
/// 2 noop, 3 configuration), then the payload. The value before the first entry is 0.
pub fn chain(before: u64, index: LogIndex, term: Term, kind: &EntryKind, payload: &[u8]) -> u64 {
    let tag = match kind {
        EntryKind::Command => 1,
        EntryKind::Noop => 2,
        EntryKind::Config => 3,
    };
    let head = [before, index.get(), term.get()].map(u64::to_be_bytes);
    let bytes = head.iter().flatten().chain(std::iter::once(&tag)).chain(payload);
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
}

impl Log {
    /// The log that storage recovered.
    ///
    /// Panics if an entry does not continue the one before it: storage verified each on reading.
    pub fn restore(entries: Vec<Entry>) -> Self {
        let mut log = Self { entries: Vec::with_capacity(entries.len()) };
        for entry in entries {
            log.append(entry);
        }
        log
    }

    /// The newest position; zero if the log is empty.
    pub fn last_index(&self) -> LogIndex {
        self.entries.last().map_or(LogIndex::ZERO, |entry| entry.index)
    }

    /// The newest entry's term; zero if the log is empty.
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(Term::ZERO, |entry| entry.term)
    }

    /// The entry at `index`, if there is one.
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.get().checked_sub(1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// The term at `index`; position zero has term zero, positions beyond the end have none.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO { Some(Term::ZERO) } else { self.get(index).map(|e| e.term) }
    }

    /// The chain value at `index`, like [`Log::term`].
    pub fn chain(&self, index: LogIndex) -> Option<u64> {
        if index == LogIndex::ZERO { Some(0) } else { self.get(index).map(|e| e.chain) }
    }

    /// Appends an entry made elsewhere.
    ///
    /// Panics if it does not continue the log: callers compare positions and terms first.
    pub fn append(&mut self, entry: Entry) {
        assert!(entry.index == self.last_index().next(), "INV-RAFT-3: positions are consecutive");
        assert!(entry.term >= self.last_term(), "INV-RAFT-3: terms never decrease in a log");
        self.entries.push(entry);
    }

    /// Appends a new entry of `term` and returns it.
    pub fn append_new(&mut self, term: Term, kind: EntryKind, payload: Bytes) -> Entry {
        let index = self.last_index().next();
        let before = self.entries.last().map_or(0, |entry| entry.chain);
        let chain = chain(before, index, term, &kind, &payload);
        let entry = Entry { index, term, kind, payload, chain };
        self.append(entry.clone());
        entry
    }

    /// Forgets the entries from `index` on.
    pub fn truncate_from(&mut self, index: LogIndex) {
        let keep = usize::try_from(index.previous().get()).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
    }

    /// Entries from `first` on: at most `entries_max`, and `bytes_max` of payload but for the
    /// first one, which always fits.
    pub fn slice(&self, first: LogIndex, entries_max: usize, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let start = usize::try_from(first.previous().get()).unwrap_or(usize::MAX);
        let fits = |(position, entry): &(usize, &Entry)| {
            bytes += entry.payload.len();
            *position == 0 || bytes <= bytes_max
        };
        let tail = self.entries.get(start..).unwrap_or_default();
        let taken = tail.iter().take(entries_max).enumerate().take_while(fits);
        taken.map(|(_, entry)| entry.clone()).collect()
    }

    /// The entries in `(after, up_to]`.
    pub fn range(&self, after: LogIndex, up_to: LogIndex) -> Vec<Entry> {
        let count = usize::try_from(up_to.above(after)).unwrap_or(usize::MAX);
        let start = usize::try_from(after.get()).unwrap_or(usize::MAX);
        self.entries.iter().skip(start).take(count).cloned().collect()
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The newest position not after `limit` whose term is at most `term` (raft.md §6.2).
    pub fn newest_at_most(&self, limit: LogIndex, term: Term) -> LogIndex {
        let end = usize::try_from(limit.get()).unwrap_or(usize::MAX).min(self.entries.len());
        // Terms never decrease, so the entries of at most `term` come first.
        let older = self.entries.partition_point(|entry| entry.term <= term);
        LogIndex::new(end.min(older) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::default();
        for term in terms {
            log.append_new(Term::new(*term), EntryKind::Command, Bytes::from_static(b"four"));
        }
        log
    }

    #[test]
    fn equal_histories_have_equal_chains_and_others_do_not() {
        let end = LogIndex::new(3);
        assert_eq!(log(&[1, 1, 2]).chain(end), log(&[1, 1, 2]).chain(end));
        assert_ne!(log(&[1, 1, 2]).chain(end), log(&[1, 2, 2]).chain(end));
        assert_eq!(log(&[]).chain(LogIndex::ZERO), Some(0));
    }

    #[test]
    fn a_slice_respects_both_limits_and_always_makes_progress() {
        let log = log(&[1, 1, 1, 1]);
        assert_eq!(log.slice(LogIndex::new(2), 2, 1000).len(), 2);
        assert_eq!(log.slice(LogIndex::new(1), 9, 8).len(), 2);
        assert_eq!(log.slice(LogIndex::new(1), 9, 1).len(), 1);
        assert!(log.slice(LogIndex::new(5), 9, 1000).is_empty());
        assert_eq!(log.range(LogIndex::new(1), LogIndex::new(3)).len(), 2);
    }

    #[test]
    fn the_hint_is_the_newest_entry_of_an_older_term() {
        let log = log(&[1, 1, 4, 4, 6]);
        assert_eq!(log.newest_at_most(LogIndex::new(5), Term::new(5)), LogIndex::new(4));
        assert_eq!(log.newest_at_most(LogIndex::new(3), Term::new(5)), LogIndex::new(3));
        assert_eq!(log.newest_at_most(LogIndex::new(5), Term::new(3)), LogIndex::new(2));
        assert_eq!(log.newest_at_most(LogIndex::new(9), Term::ZERO), LogIndex::ZERO);
    }

    #[test]
    fn truncation_forgets_the_tail_only() {
        let mut log = log(&[1, 2, 3]);
        log.truncate_from(LogIndex::new(2));
        assert_eq!((log.last_index(), log.last_term()), (LogIndex::new(1), Term::new(1)));
    }
}
