//! What is on its way to the disk: one request at a time, the rest merges into the next
//! (raft.md K8, §6.5, §11.3; DESIGN.md §8).
//!
//! Invariants: requests complete in order (INV-RAFT-8); the durable position never counts an entry
//! that a later request truncates, so a rewritten position is not mistaken for the old one (K8).

use super::{Entry, HardState, IdentityChange, PersistBatch, PersistSeq, RaftOutput};
use crate::id::LogIndex;
use crate::machine::Outbox;
use crate::time::Instant;

/// The queue of persist requests.
#[derive(Clone, Debug)]
pub(super) struct Persister {
    next: PersistSeq,
    in_flight: Option<InFlight>,
    queued: PersistBatch,
    queued_bytes: usize,
    /// The last entry on the disk once the newest completed request is counted.
    disk_last: LogIndex,
    durable: LogIndex,
}

/// The request the disk works on.
#[derive(Clone, Debug)]
struct InFlight {
    seq: PersistSeq,
    /// The last entry on the disk after it.
    last: LogIndex,
    bytes: usize,
    /// Whether there are entries in it.
    entries: bool,
    since: Instant,
}

impl Persister {
    /// Nothing is on its way; everything up to `durable` is on the disk.
    pub(super) const fn new(durable: LogIndex) -> Self {
        Self {
            next: PersistSeq(1),
            in_flight: None,
            queued: PersistBatch {
                identity: IdentityChange {
                    cluster: None,
                    promise: None,
                    heartbeat_timeout: None,
                    recovered: false,
                },
                hard: None,
                reset: None,
                truncate_from: None,
                entries: Vec::new(),
            },
            queued_bytes: 0,
            disk_last: durable,
            durable,
        }
    }

    /// The newest position that survives a crash.
    pub(super) const fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Payload bytes that the disk has not confirmed.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight.as_ref().map_or(0, |flight| flight.bytes)
    }

    /// Since when the disk has worked on its request.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|flight| flight.since)
    }

    /// The request after which everything asked for so far is durable.
    pub(super) fn newest(&self) -> Option<PersistSeq> {
        if self.queued == PersistBatch::default() {
            self.in_flight.as_ref().map(|flight| flight.seq)
        } else {
            Some(self.next)
        }
    }

    /// Asks for a new hard state; durable with the returned request.
    pub(super) const fn hard(&mut self, hard: HardState) -> PersistSeq {
        self.queued.hard = Some(hard);
        self.next
    }

    /// Asks for a change of identity; durable with the returned request.
    pub(super) fn identity(&mut self, change: IdentityChange) -> PersistSeq {
        let queued = &mut self.queued.identity;
        queued.cluster = change.cluster.or(queued.cluster);
        queued.promise = change.promise.or_else(|| queued.promise.take());
        queued.heartbeat_timeout = change.heartbeat_timeout.or(queued.heartbeat_timeout);
        queued.recovered |= change.recovered;
        self.next
    }

    /// Asks to forget everything from `from` on.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        let waiting = self.queued.entries.first().map(|entry| entry.index);
        let keep = |entry: &Entry| entry.index < from;
        self.queued.entries.retain(keep);
        self.queued_bytes = self.queued.entries.iter().map(|entry| entry.payload.len()).sum();
        if waiting.is_none_or(|first| from <= first) {
            let earliest = self.queued.truncate_from.map_or(from, |earlier| earlier.min(from));
            self.queued.truncate_from = Some(earliest);
        }
        if self.in_flight.is_some() {
            crate::mark!("raft.persist.truncate_while_pending");
        }
        if !crate::mutant!(M33) {
            self.durable = self.durable.min(from.previous());
        }
    }

    /// Asks to forget the whole log, which a durable snapshot covers up to `position`.
    pub(super) fn reset(&mut self, position: LogIndex) {
        self.queued.entries.clear();
        self.queued_bytes = 0;
        self.queued.truncate_from = None;
        self.queued.reset = Some(position);
        self.durable = position;
    }

    /// Asks for one more entry; durable with the returned request.
    pub(super) fn entry(&mut self, entry: Entry) -> PersistSeq {
        self.queued_bytes += entry.payload.len();
        self.queued.entries.push(entry);
        self.next
    }

    /// Hands the next request to the disk, if it is free and something waits.
    pub(super) fn flush(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        if self.in_flight.is_some() || self.queued == PersistBatch::default() {
            return;
        }
        let batch = std::mem::take(&mut self.queued);
        let bytes = std::mem::take(&mut self.queued_bytes);
        let before = batch.reset.unwrap_or(self.disk_last);
        let truncated = batch.truncate_from.map_or(before, LogIndex::previous);
        let last = batch.entries.last().map_or(truncated, |entry| entry.index);
        let seq = self.next;
        self.next = PersistSeq(seq.0 + 1);
        let entries = !batch.entries.is_empty();
        self.in_flight = Some(InFlight { seq, last, bytes, entries, since: now });
        out.push(RaftOutput::Persist { seq, batch });
    }

    /// The disk confirms a request; since when it has worked on that, if there were entries in it.
    ///
    /// Panics if it is not the one in flight: the host completes requests in order.
    pub(super) fn done(&mut self, seq: PersistSeq) -> Option<Instant> {
        let flight = self.in_flight.take().filter(|flight| flight.seq == seq);
        let flight = flight.expect("INV-RAFT-8: persist requests complete in order");
        self.disk_last = flight.last;
        // What a waiting reset goes on after is durable by the snapshot.
        let held = self.queued.reset.unwrap_or(self.disk_last);
        let cut = self.queued.truncate_from.map(LogIndex::previous);
        let cut = cut.filter(|_| !crate::mutant!(M33));
        self.durable = cut.map_or(held, |cut| cut.min(held));
        flight.entries.then_some(flight.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;
    use crate::raft::EntryKind;
    use crate::trace::Level;
    use bytes::Bytes;

    fn entry(index: u64, term: u64) -> Entry {
        let (index, term) = (LogIndex::new(index), Term::new(term));
        Entry { index, term, kind: EntryKind::Noop, payload: Bytes::new(), chain: 0 }
    }

    fn flush(persister: &mut Persister) -> Option<(PersistSeq, PersistBatch)> {
        let mut out = Outbox::new(Level::Error);
        persister.flush(Instant::ZERO, &mut out);
        out.pop().map(|output| {
            let RaftOutput::Persist { seq, batch } = output else { panic!("{output:?}") };
            (seq, batch)
        })
    }

    #[test]
    fn requests_made_while_the_disk_works_become_one() {
        let mut persister = Persister::new(LogIndex::ZERO);
        persister.entry(entry(1, 1));
        let (first, _) = flush(&mut persister).unwrap();
        let second = persister.entry(entry(2, 1));
        assert_eq!(persister.entry(entry(3, 1)), second);
        assert!(flush(&mut persister).is_none());
        assert_eq!(persister.done(first), Some(Instant::ZERO));
        assert_eq!(persister.durable(), LogIndex::new(1));
        let (seq, batch) = flush(&mut persister).unwrap();
        assert_eq!((seq, batch.entries.len()), (second, 2));
    }

    #[test]
    fn a_request_without_entries_has_no_time_to_tell() {
        let mut persister = Persister::new(LogIndex::ZERO);
        persister.hard(HardState { term: Term::new(2), voted_for: None });
        let (seq, _) = flush(&mut persister).unwrap();
        assert_eq!(persister.done(seq), None);
    }

    #[test]
    fn a_position_rewritten_while_its_old_entry_is_written_is_not_durable() {
        let mut persister = Persister::new(LogIndex::ZERO);
        persister.entry(entry(1, 1));
        persister.entry(entry(2, 1));
        let (first, _) = flush(&mut persister).unwrap();
        persister.truncate(LogIndex::new(2));
        persister.entry(entry(2, 2));
        persister.done(first);
        assert_eq!(persister.durable(), LogIndex::new(1));
        let (second, batch) = flush(&mut persister).unwrap();
        assert_eq!(batch.truncate_from, Some(LogIndex::new(2)));
        persister.done(second);
        assert_eq!(persister.durable(), LogIndex::new(2));
    }

    #[test]
    fn a_reset_forgets_what_waits_and_counts_the_snapshot_as_durable() {
        let mut persister = Persister::new(LogIndex::ZERO);
        persister.entry(entry(1, 1));
        let (first, _) = flush(&mut persister).unwrap();
        persister.entry(entry(2, 1));
        persister.reset(LogIndex::new(9));
        assert_eq!(persister.durable(), LogIndex::new(9));
        persister.done(first);
        assert_eq!(persister.durable(), LogIndex::new(9));
        persister.entry(entry(10, 3));
        let (second, batch) = flush(&mut persister).unwrap();
        assert_eq!((batch.reset, batch.entries.len()), (Some(LogIndex::new(9)), 1));
        persister.done(second);
        assert_eq!(persister.durable(), LogIndex::new(10));
    }

    #[test]
    fn truncating_what_still_waits_needs_no_truncation_on_disk() {
        let mut persister = Persister::new(LogIndex::new(4));
        persister.entry(entry(5, 1));
        persister.entry(entry(6, 1));
        persister.truncate(LogIndex::new(6));
        let (_, batch) = flush(&mut persister).unwrap();
        assert_eq!((batch.truncate_from, batch.entries.len()), (None, 1));
    }
}
