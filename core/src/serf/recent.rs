//! What was heard lately, so that a message told many times counts once.
//!
//! Implements the rings of gossip-protocol.md §20 and §21 as a map of the last 512 Lamport times:
//! whatever is older than that, or than the least time wanted, counts as heard. Bounded in bytes
//! too; when they are used up the oldest times are forgotten and the least time rises, so that
//! nothing counts twice.

use crate::id::LamportTime;
use std::collections::{BTreeMap, BTreeSet};

/// Lamport times remembered.
const TIMES: u64 = crate::wire::serf::EVENT_SLOTS as u64;

#[derive(Clone, Debug)]
struct Slot<T> {
    items: BTreeSet<T>,
    bytes: usize,
}

/// The items of the last Lamport times.
#[derive(Clone, Debug)]
pub(super) struct Recent<T> {
    slots: BTreeMap<LamportTime, Slot<T>>,
    bytes: usize,
    bytes_max: usize,
    least: LamportTime,
    changes: u64,
}

impl<T: Ord> Recent<T> {
    /// Nothing was heard; times below `least` count as heard.
    pub(super) const fn new(least: LamportTime, bytes_max: usize) -> Self {
        Self { slots: BTreeMap::new(), bytes: 0, bytes_max, least, changes: 0 }
    }

    /// Lets times below `least` count as heard from now on.
    pub(super) fn skip_below(&mut self, least: LamportTime) {
        self.least = self.least.max(least);
    }

    /// Remembers an item of `bytes` bytes; `false` if it counts as heard. `clock` is above `time`.
    pub(super) fn admit(
        &mut self,
        clock: LamportTime,
        time: LamportTime,
        item: T,
        bytes: usize,
    ) -> bool {
        let oldest = LamportTime::new(clock.get().saturating_sub(TIMES));
        while self.slots.first_key_value().is_some_and(|(time, _)| *time < oldest) {
            self.forget_oldest();
        }
        let heard = self.slots.get(&time).is_some_and(|slot| slot.items.contains(&item));
        if heard || time < oldest || time < self.least || bytes > self.bytes_max {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            crate::mark!("serf.recent_full");
            let Some(forgotten) = self.forget_oldest() else { break };
            self.skip_below(forgotten.next());
        }
        if time < self.least {
            return false;
        }
        let slot = self.slots.entry(time);
        let slot = slot.or_insert_with(|| Slot { items: BTreeSet::new(), bytes: 0 });
        slot.items.insert(item);
        slot.bytes += bytes;
        self.bytes += bytes;
        self.changes += 1;
        true
    }

    fn forget_oldest(&mut self) -> Option<LamportTime> {
        let (time, slot) = self.slots.pop_first()?;
        self.bytes -= slot.bytes;
        self.changes += 1;
        Some(time)
    }

    /// Counts the changes of what is remembered.
    pub(super) const fn version(&self) -> u64 {
        self.changes
    }

    /// What is remembered, by time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LamportTime, &BTreeSet<T>)> {
        self.slots.iter().map(|(time, slot)| (*time, &slot.items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn time(n: u64) -> LamportTime {
        LamportTime::new(n)
    }

    #[test]
    fn an_item_counts_once_for_each_time() {
        let mut recent = Recent::new(time(1), 1000);
        assert!(recent.admit(time(6), time(5), "a", 1));
        assert!(!recent.admit(time(6), time(5), "a", 1));
        assert!(recent.admit(time(6), time(5), "b", 1));
        assert!(recent.admit(time(7), time(6), "a", 1));
        assert!(!recent.admit(time(7), time(0), "c", 1));
    }

    #[test]
    fn times_more_than_512_behind_the_clock_count_as_heard() {
        let mut recent = Recent::new(time(0), 1000);
        assert!(recent.admit(time(1000), time(488), "a", 1));
        assert!(!recent.admit(time(1000), time(487), "a", 1));
        assert!(recent.admit(time(1001), time(1000), "a", 1));
        assert_eq!(recent.iter().count(), 1);
    }

    #[test]
    fn what_had_no_room_does_not_count_twice() {
        let mut recent = Recent::new(time(0), 10);
        for n in 1..=5 {
            assert!(recent.admit(time(n + 1), time(n), n, 4));
        }
        assert_eq!(recent.iter().map(|(at, _)| at.get()).collect::<Vec<_>>(), [4, 5]);
        assert!(!recent.admit(time(6), time(3), 3, 4));
        assert!(!recent.admit(time(6), time(5), 9, 11), "larger than all the room there is");
    }

    proptest! {
        #[test]
        fn nothing_is_admitted_twice(
            told in prop::collection::vec((0_u64..1500, 0_u8..3, 1_usize..8), 0..200),
        ) {
            let (mut recent, mut clock) = (Recent::new(time(1), 40), 1);
            let mut admitted = BTreeSet::new();
            for (at, item, bytes) in told {
                clock = clock.max(at + 1);
                if recent.admit(time(clock), time(at), item, bytes) {
                    prop_assert!(admitted.insert((at, item)));
                }
                prop_assert!(recent.bytes <= 40);
            }
        }
    }
}
