//! Messages on their way to everybody, each sent a limited number of times (SWIM §4.1).
//!
//! Implements gossip-protocol.md §9. Entries sent least often go first, among those the largest,
//! among those the newest; a later entry with the same key replaces an earlier one. Finding the
//! best entry that fits is a range lookup, so filling a packet costs O(parts · log entries).
//!
//! Differs: an entry may carry a key in every queue, so that one member has one queued intent
//! (gossip-protocol.md §28).

use super::BroadcastId;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Who is told when an entry was sent often enough, or was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notify {
    /// Nobody.
    None,
    /// Whoever asked for this member's leave.
    Leave,
    /// The Serf layer.
    Serf(BroadcastId),
}

/// Transmits so far, then the largest, then the newest.
type Rank = (u32, Reverse<usize>, Reverse<u64>);

#[derive(Clone, Debug)]
struct Entry {
    message: Bytes,
    key: Option<String>,
    notify: Notify,
    transmits: u32,
}

impl Entry {
    fn rank(&self, number: u64) -> Rank {
        (self.transmits, Reverse(self.message.len()), Reverse(number))
    }
}

/// One queue of broadcasts.
#[derive(Clone, Debug)]
pub(super) struct BroadcastQueue {
    /// By number, which is the order of their arrival.
    entries: BTreeMap<u64, Entry>,
    /// The numbers in the order of sending; sending an entry moves it here and nowhere else.
    ranked: BTreeSet<Rank>,
    by_key: BTreeMap<String, u64>,
    next: u64,
    entries_max: usize,
}

impl BroadcastQueue {
    /// An empty queue that holds at most `entries_max` messages.
    pub(super) const fn new(entries_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            ranked: BTreeSet::new(),
            by_key: BTreeMap::new(),
            next: 0,
            entries_max,
        }
    }

    /// Changes how many messages it holds at most; what is queued stays.
    pub(super) const fn set_entries_max(&mut self, entries_max: usize) {
        self.entries_max = entries_max;
    }

    /// Messages queued.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes an entry out, with its key.
    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.ranked.remove(&entry.rank(number));
        if let Some(key) = &entry.key {
            self.by_key.remove(key);
        }
        Some(entry)
    }

    /// Queues `message`, whole with its type byte. Returns who is to be told about an entry that
    /// this one replaced or pushed out.
    pub(super) fn push(&mut self, key: Option<String>, message: Bytes, notify: Notify) -> Notify {
        let mut gone = Notify::None;
        let replaced = key.as_ref().and_then(|key| self.by_key.get(key)).copied();
        if let Some(old) = replaced.and_then(|number| self.remove(number)) {
            gone = old.notify;
        }
        if self.entries.len() >= self.entries_max
            && let Some((_, _, Reverse(last))) = self.ranked.last().copied()
            && let Some(pushed_out) = self.remove(last)
        {
            crate::mark!("gossip.broadcast_pushed_out");
            gone = pushed_out.notify;
        }
        let (number, entry) = (self.next, Entry { message, key, notify, transmits: 0 });
        self.next += 1;
        if let Some(key) = &entry.key {
            self.by_key.insert(key.clone(), number);
        }
        self.ranked.insert(entry.rank(number));
        self.entries.insert(number, entry);
        gone
    }

    /// Empties the queue; returns who is to be told.
    pub(super) fn drain(&mut self) -> Vec<Notify> {
        self.by_key.clear();
        self.ranked.clear();
        let entries = std::mem::take(&mut self.entries).into_values();
        entries.map(|entry| entry.notify).filter(|notify| *notify != Notify::None).collect()
    }

    /// Takes messages that fit into `room` bytes, each costing `overhead` bytes more than its own
    /// length, and counts one transmission for each. What was sent `limit` times is removed; those
    /// to be told about it are appended to `spread`.
    ///
    /// Returns the room left.
    pub(super) fn fill(
        &mut self,
        mut room: usize,
        overhead: usize,
        limit: u32,
        parts: &mut Vec<Bytes>,
        spread: &mut Vec<Notify>,
    ) -> usize {
        let mut again = Vec::new();
        let mut tier = 0;
        while let Some(fits) = room.checked_sub(overhead) {
            let from = (tier, Reverse(fits), Reverse(u64::MAX));
            let Some(&rank) = self.ranked.range(from..).next() else { break };
            let (transmits, Reverse(length), Reverse(number)) = rank;
            if length > fits {
                // The range ran into a later tier, whose first entries may be too large.
                tier = transmits;
                continue;
            }
            tier = transmits;
            let Some(entry) = self.entries.get_mut(&number) else { break };
            room -= length + overhead;
            parts.push(entry.message.clone());
            if transmits + 1 < limit {
                entry.transmits += 1;
                // Not before the packet is full: nothing is in it twice.
                again.push(entry.rank(number));
                self.ranked.remove(&rank);
            } else if let Some(entry) = self.remove(number)
                && entry.notify != Notify::None
            {
                spread.push(entry.notify);
            }
        }
        self.ranked.extend(again);
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize, fill: u8) -> Bytes {
        vec![fill; len].into()
    }

    fn take(queue: &mut BroadcastQueue, room: usize, limit: u32) -> Vec<(usize, u8)> {
        let (mut parts, mut spread) = (Vec::new(), Vec::new());
        queue.fill(room, 2, limit, &mut parts, &mut spread);
        parts.iter().map(|part| (part.len(), part[0])).collect()
    }

    #[test]
    fn the_least_sent_goes_first_then_the_largest_then_the_newest() {
        let mut queue = BroadcastQueue::new(16);
        queue.push(None, message(10, 1), Notify::None);
        assert_eq!(take(&mut queue, 12, 9), [(10, 1)]);
        queue.push(None, message(10, 2), Notify::None);
        queue.push(None, message(20, 3), Notify::None);
        queue.push(None, message(10, 4), Notify::None);
        assert_eq!(take(&mut queue, 100, 9), [(20, 3), (10, 4), (10, 2), (10, 1)]);
    }

    #[test]
    fn a_message_that_does_not_fit_is_passed_over() {
        let mut queue = BroadcastQueue::new(16);
        queue.push(None, message(50, 1), Notify::None);
        queue.push(None, message(5, 2), Notify::None);
        assert_eq!(take(&mut queue, 20, 9), [(5, 2)]);
        assert_eq!(take(&mut queue, 6, 9), []);
        assert_eq!(take(&mut queue, 60, 9), [(50, 1), (5, 2)]);
    }

    #[test]
    fn every_message_is_sent_exactly_limit_times() {
        let mut queue = BroadcastQueue::new(16);
        queue.push(None, message(5, 1), Notify::Leave);
        let (mut parts, mut spread) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            queue.fill(1400, 2, 4, &mut parts, &mut spread);
        }
        assert_eq!(parts.len(), 4);
        assert_eq!(spread, [Notify::Leave]);
    }

    #[test]
    fn a_later_message_with_the_same_key_replaces_an_earlier_one() {
        let mut queue = BroadcastQueue::new(16);
        queue.push(Some("a".into()), message(5, 1), Notify::Leave);
        assert_eq!(take(&mut queue, 100, 9), [(5, 1)]);
        assert_eq!(queue.push(Some("a".into()), message(5, 2), Notify::None), Notify::Leave);
        assert_eq!(take(&mut queue, 100, 9), [(5, 2)]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_full_queue_drops_what_was_sent_most_often() {
        let mut queue = BroadcastQueue::new(2);
        queue.push(Some("a".into()), message(5, 1), Notify::None);
        take(&mut queue, 100, 9);
        queue.push(Some("b".into()), message(5, 2), Notify::None);
        queue.push(Some("c".into()), message(5, 3), Notify::None);
        assert_eq!(take(&mut queue, 100, 9), [(5, 3), (5, 2)]);
    }
}
