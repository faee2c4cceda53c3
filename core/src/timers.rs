//! Timers of one machine: named by a key, ordered by deadline, exactly cancellable.
//!
//! Ties fire in key order, so a run is a function of its inputs. A long pause fires each timer
//! once; periodic timers rearm from `now`.

use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A set of pending timers, at most one for each key.
#[derive(Clone, Debug)]
pub struct Timers<K: Ord> {
    by_deadline: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
    /// The first of `by_deadline`: every input to a node asks all its machines for theirs.
    next: Option<Instant>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { by_deadline: BTreeSet::new(), by_key: BTreeMap::new(), next: None }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Arms the timer `key` for `at`, replacing an earlier setting.
    pub fn set(&mut self, key: K, at: Instant) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.by_deadline.remove(&(old, key.clone()));
        }
        self.by_deadline.insert((at, key));
        self.look();
    }

    /// Disarms the timer `key`; returns when it would have fired.
    pub fn cancel(&mut self, key: &K) -> Option<Instant> {
        let at = self.by_key.remove(key)?;
        self.by_deadline.remove(&(at, key.clone()));
        self.look();
        Some(at)
    }

    /// When `key` fires, if it is armed.
    pub fn deadline(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    fn look(&mut self) {
        self.next = self.by_deadline.first().map(|(at, _)| *at);
    }

    /// Takes the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        self.look();
        Some(key)
    }

    /// Disarms everything.
    pub fn clear(&mut self) {
        self.by_deadline.clear();
        self.by_key.clear();
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn timers_agree_with_a_naive_list(
            ops in prop::collection::vec((0u8..3, 0u8..6, 0u64..50), 0..80),
        ) {
            let mut timers = Timers::default();
            let mut naive: Vec<(Instant, u8)> = Vec::new();
            for (op, key, at) in ops {
                let at = Instant::from_nanos(at);
                match op {
                    0 => {
                        timers.set(key, at);
                        naive.retain(|(_, k)| *k != key);
                        naive.push((at, key));
                    }
                    1 => {
                        timers.cancel(&key);
                        naive.retain(|(_, k)| *k != key);
                    }
                    _ => {
                        naive.sort();
                        let due = naive.first().filter(|(t, _)| *t <= at).map(|(_, k)| *k);
                        if due.is_some() {
                            naive.remove(0);
                        }
                        prop_assert_eq!(timers.pop_due(at), due);
                    }
                }
                prop_assert_eq!(timers.next(), naive.iter().map(|(t, _)| *t).min());
            }
        }
    }
}
