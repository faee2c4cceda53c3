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

/// A place in the log and the history up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The index.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
    /// Its chain value.
    pub chain: u64,
}

/// The log above its base. Entries up to the base are committed, and covered by a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The newest entry that is not kept any more; index zero if all are.
    base: Position,
    entries: Vec<Entry>,
    /// Payload bytes of the entries.
    bytes: usize,
}

impl Log {
    /// The log that storage recovered: `entries` begin at index 1, or reach back at least to the
    /// position after `snapshot`.
    ///
    /// Panics if an entry does not continue the one before it: storage verified each on reading.
    pub fn restore(snapshot: Option<Position>, entries: Vec<Entry>) -> Self {
        let mut entries = entries.into_iter();
        let mut log = Self { base: snapshot.unwrap_or_default(), ..Self::default() };
        // What lies before the oldest entry is not known, so that one becomes the base.
        let older = entries.as_slice().first().is_some_and(|first| first.index <= log.base.index);
        if older && let Some(first) = entries.next() {
            log.base = first.position();
        }
        entries.for_each(|entry| log.append(entry));
        log
    }

    /// The position before the first entry that is kept.
    pub const fn base(&self) -> Position {
        self.base
    }

    /// The newest position; zero if there was never an entry.
    pub fn last(&self) -> Position {
        self.entries.last().map_or(self.base, Entry::position)
    }

    /// The newest index; zero if there was never an entry.
    pub fn last_index(&self) -> LogIndex {
        self.last().index
    }

    /// The newest entry's term; zero if there was never an entry.
    pub fn last_term(&self) -> Term {
        self.last().term
    }

    /// Payload bytes of the entries that are kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries are kept up to `index`.
    fn count_to(&self, index: LogIndex) -> usize {
        usize::try_from(index.above(self.base.index)).unwrap_or(usize::MAX).min(self.entries.len())
    }

    /// The entry at `index`, if it is kept.
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.get().checked_sub(self.base.index.get())?.checked_sub(1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// What is known of `index`: of the base and of all entries kept, something.
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        let base = (index == self.base.index).then_some(self.base);
        base.or_else(|| self.get(index).map(Entry::position))
    }

    /// The term at `index`, if it is known.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        self.position(index).map(|position| position.term)
    }

    /// Appends an entry made elsewhere.
    ///
    /// Panics if it does not continue the log: callers compare positions and terms first.
    pub fn append(&mut self, entry: Entry) {
        assert!(entry.index == self.last_index().next(), "INV-RAFT-3: positions are consecutive");
        assert!(entry.term >= self.last_term(), "INV-RAFT-3: terms never decrease in a log");
        self.bytes += entry.payload.len();
        self.entries.push(entry);
    }

    /// Appends a new entry of `term` and returns it.
    pub fn append_new(&mut self, term: Term, kind: EntryKind, payload: Bytes) -> Entry {
        let last = self.last();
        let index = last.index.next();
        let chain = chain(last.chain, index, term, &kind, &payload);
        let entry = Entry { index, term, kind, payload, chain };
        self.append(entry.clone());
        entry
    }

    /// Forgets the entries from `index` on.
    ///
    /// Panics if `index` is not above the base: what a snapshot covers is committed.
    pub fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.base.index, "INV-RAFT-4: a committed entry is never truncated");
        let keep = self.count_to(index.previous());
        let gone = self.entries.drain(keep..).map(|entry| entry.payload.len());
        self.bytes -= gone.sum::<usize>();
    }

    /// Forgets the entries up to `index`, which a snapshot covers.
    pub fn compact(&mut self, index: LogIndex) {
        let Some(base) = self.position(index) else { return };
        let count = self.count_to(index);
        let gone = self.entries.drain(..count).map(|entry| entry.payload.len());
        self.bytes -= gone.sum::<usize>();
        self.base = base;
    }

    /// Entries from `first` on, which is above the base: at most `entries_max`, and `bytes_max` of
    /// payload but for the first one, which always fits.
    pub fn slice(&self, first: LogIndex, entries_max: usize, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let start = self.count_to(first.previous());
        let fits = |(position, entry): &(usize, &Entry)| {
            bytes += entry.payload.len();
            *position == 0 || bytes <= bytes_max
        };
        let tail = self.entries.get(start..).unwrap_or_default();
        let taken = tail.iter().take(entries_max).enumerate().take_while(fits);
        taken.map(|(_, entry)| entry.clone()).collect()
    }

    /// The entries in `(after, up_to]`; `after` is not below the base.
    pub fn range(&self, after: LogIndex, up_to: LogIndex) -> &[Entry] {
        let (start, end) = (self.count_to(after), self.count_to(up_to));
        self.entries.get(start..end).unwrap_or_default()
    }

    /// All entries kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The newest index not after `limit` whose term is at most `term` (raft.md §6.2); `None` if
    /// it lies below the base.
    pub fn newest_at_most(&self, limit: LogIndex, term: Term) -> Option<LogIndex> {
        if limit < self.base.index || term < self.base.term {
            return None;
        }
        // Terms never decrease, so the entries of at most `term` come first.
        let older = self.entries.partition_point(|entry| entry.term <= term);
        let count = self.count_to(limit).min(older);
        Some(LogIndex::new(self.base.index.get() + count as u64))
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
        let chain = |terms: &[u64]| log(terms).position(end).map(|position| position.chain);
        assert_eq!(chain(&[1, 1, 2]), chain(&[1, 1, 2]));
        assert_ne!(chain(&[1, 1, 2]), chain(&[1, 2, 2]));
        assert_eq!(log(&[]).position(LogIndex::ZERO), Some(Position::default()));
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
        let newest = |limit, term| {
            let newest = log.newest_at_most(LogIndex::new(limit), Term::new(term));
            newest.map(LogIndex::get)
        };
        assert_eq!(newest(5, 5), Some(4));
        assert_eq!(newest(3, 5), Some(3));
        assert_eq!(newest(5, 3), Some(2));
        assert_eq!(newest(9, 0), Some(0));
    }

    #[test]
    fn truncation_forgets_the_tail_only() {
        let mut log = log(&[1, 2, 3]);
        log.truncate_from(LogIndex::new(2));
        assert_eq!((log.last_index(), log.last_term()), (LogIndex::new(1), Term::new(1)));
    }

    #[test]
    fn a_compacted_log_knows_its_base_and_what_is_above() {
        let whole = log(&[1, 1, 4, 4, 6]);
        let mut log = whole.clone();
        log.compact(LogIndex::new(3));
        assert_eq!((log.base().index, log.bytes()), (LogIndex::new(3), 8));
        assert_eq!(log.get(LogIndex::new(3)), None);
        for index in (3..=6).map(LogIndex::new) {
            assert_eq!(log.position(index), whole.position(index));
        }
        assert_eq!(log.position(LogIndex::new(2)), None);
        assert_eq!(log.range(LogIndex::new(4), LogIndex::new(9)).len(), 1);
        assert_eq!(log.newest_at_most(LogIndex::new(5), Term::new(5)), Some(LogIndex::new(4)));
        assert_eq!(log.newest_at_most(LogIndex::new(3), Term::new(5)), Some(LogIndex::new(3)));
        assert_eq!(log.newest_at_most(LogIndex::new(2), Term::new(5)), None);
        assert_eq!(log.newest_at_most(LogIndex::new(5), Term::new(3)), None);
    }

    #[test]
    fn a_log_is_restored_from_before_its_snapshot_or_right_behind_it() {
        let whole = log(&[1, 1, 4, 4, 6]);
        let entries: Vec<Entry> = whole.iter().cloned().collect();
        let snapshot = whole.position(LogIndex::new(3));
        let from = |first: usize| Log::restore(snapshot, entries[first..].to_vec());
        assert_eq!(from(1).base().index, LogIndex::new(2));
        assert_eq!(from(3).base().index, LogIndex::new(3));
        assert_eq!(from(1).last(), whole.last());
        assert_eq!(from(5).last().index, LogIndex::new(3));
        assert_eq!(Log::restore(None, entries.clone()).base(), Position::default());
    }
}
