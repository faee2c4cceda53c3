//! How long things took: how many fell into which range of time, and their sum.
//!
//! The ranges are those of a log-linear histogram over microseconds: each power of two is divided
//! into eight, so a duration that is told by its range is off by a sixteenth at most. Two
//! values of one run differ by what happened in between, which is how rates and quantiles of
//! intervals are made without telling the core when an interval ends.

use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// Ranges in each power of two, as a power of two.
const DIVISIONS_LOG2: u32 = 3;
/// Ranges in each power of two.
const DIVISIONS: u64 = 1 << DIVISIONS_LOG2;

/// Durations, counted by range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: BTreeMap<u8, u64>,
    sum: Duration,
}

/// The range of a duration; the last one holds everything above two hours.
fn range_of(duration: Duration) -> u8 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let range = if micros < DIVISIONS {
        micros
    } else {
        let power = micros.ilog2();
        let within = (micros >> (power - DIVISIONS_LOG2)) % DIVISIONS;
        u64::from(power - DIVISIONS_LOG2 + 1) * DIVISIONS + within
    };
    u8::try_from(range).unwrap_or(u8::MAX)
}

/// The shortest duration of a range.
fn start_of(range: u64) -> Duration {
    let (power, within) = (range / DIVISIONS, range % DIVISIONS);
    match power.checked_sub(1) {
        None => Duration::from_micros(range),
        Some(power) => Duration::from_micros((DIVISIONS + within) << power),
    }
}

impl Durations {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Counts one that began at `since`.
    pub fn record_since(&mut self, since: Instant, now: Instant) {
        self.record(now.since(since));
    }

    /// Counts as many of the same duration.
    pub fn record_many(&mut self, duration: Duration, count: u64) {
        if count == 0 {
            return;
        }
        *self.counts.entry(range_of(duration)).or_insert(0) += count;
        self.sum += duration.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Counts all of `others` too.
    pub fn add(&mut self, others: &Self) {
        for (range, count) in &others.counts {
            *self.counts.entry(*range).or_insert(0) += count;
        }
        self.sum += others.sum;
    }

    /// What was counted since `earlier`, an earlier value of the same run.
    pub fn since(&self, earlier: &Self) -> Self {
        let newer = self.counts.iter().map(|(range, count)| {
            let before = earlier.counts.get(range).copied().unwrap_or_default();
            (*range, count.saturating_sub(before))
        });
        Self {
            counts: newer.filter(|(_, count)| *count > 0).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.sum = Duration::ZERO;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// All of them together, exactly.
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// The ranges that were hit, shortest first: the middle of each, and how many fell into it.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (Duration, u64)> {
        self.counts.iter().map(|(range, count)| {
            let range = u64::from(*range);
            let (start, end) = (start_of(range), start_of(range + 1));
            (start + (end - start) / 2, *count)
        })
    }

    /// The duration that this share of them, from 0 to 100 in percent, does not exceed; `None` if
    /// there is none.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count() * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        let mut ranges = self.ranges();
        let found = ranges.find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        found.map(|(middle, _)| middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_range_is_close_to_what_fell_into_it() {
        for exponent in 0..32 {
            for offset in [0, 1, 3] {
                let micros = (1_u64 << exponent) + (offset << exponent) / 5;
                let mut durations = Durations::default();
                durations.record(Duration::from_micros(micros));
                let (middle, count) = durations.ranges().next().unwrap();
                let off = middle.as_nanos().abs_diff(u128::from(micros) * 1000);
                assert_eq!(count, 1);
                assert!(off <= u128::from(micros) * 1000 / 16 + 500, "{micros}: {middle:?}");
            }
        }
    }

    #[test]
    fn ranges_are_in_order_and_the_last_one_takes_the_rest() {
        let ranges = (0..u64::from(u8::MAX)).map(start_of);
        assert!(ranges.clone().zip(ranges.skip(1)).all(|(a, b)| a < b));
        assert_eq!(range_of(Duration::MAX), u8::MAX);
        assert!((0..255).all(|range| u64::from(range_of(start_of(range))) == range));
    }

    #[test]
    fn quantiles_are_those_of_the_counts() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(50), None);
        durations.record_many(Duration::from_micros(3), 98);
        durations.record_many(Duration::from_secs(1), 2);
        assert!(durations.quantile(50).unwrap() < Duration::from_micros(5));
        assert!(durations.quantile(98).unwrap() < Duration::from_micros(5));
        assert!(durations.quantile(99).unwrap() > Duration::from_millis(900));
        assert_eq!(durations.sum(), Duration::from_micros(3 * 98) + Duration::from_secs(2));
    }

    #[test]
    fn what_happened_since_an_earlier_value_is_the_rest() {
        let mut all = Durations::default();
        all.record(Duration::from_millis(1));
        let earlier = all.clone();
        all.record(Duration::from_millis(1));
        all.record(Duration::from_millis(70));
        let mut rest = Durations::default();
        rest.record(Duration::from_millis(1));
        rest.record(Duration::from_millis(70));
        assert_eq!(all.since(&earlier), rest);
        let mut again = earlier;
        again.add(&rest);
        assert_eq!(again, all);
        assert!(all.since(&all).is_empty());
    }
}
