//! What was measured in one interval.

use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::durations::Durations;
use terraform_core::time::WallClock;

/// The length of an interval.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Intervals that are kept, the running one beside them.
pub const INTERVALS_KEPT: usize = 6;

/// A metric: its name without the prefix, and its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The name, in parts separated by dots.
    pub name: String,
    /// What tells apart those of the same name.
    pub labels: Vec<(&'static str, String)>,
}

impl Key {
    /// One without labels.
    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), labels: Vec::new() }
    }

    /// The same with a label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }
}

/// One interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// When it began.
    pub began: WallClock,
    /// The newest values.
    pub gauges: BTreeMap<Key, f64>,
    /// What happened how often.
    pub counters: BTreeMap<Key, u64>,
    /// How long things took.
    pub samples: BTreeMap<Key, Durations>,
}

impl Interval {
    /// An empty interval that began at `wall`, or at the full ten seconds before it.
    pub fn beginning(wall: WallClock) -> Self {
        let length = i64::try_from(INTERVAL.as_millis()).unwrap_or(i64::MAX);
        let millis = wall.as_millis();
        Self {
            began: WallClock::from_millis(millis - millis.rem_euclid(length)),
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
            samples: BTreeMap::new(),
        }
    }

    /// Sets a gauge.
    pub fn set(&mut self, key: Key, value: f64) {
        self.gauges.insert(key, value);
    }

    /// Counts something that happened `count` times more.
    pub fn count(&mut self, key: Key, count: u64) {
        if count > 0 {
            *self.counters.entry(key).or_insert(0) += count;
        }
    }

    /// Adds durations.
    pub fn sample(&mut self, key: Key, durations: &Durations) {
        if !durations.is_empty() {
            self.samples.entry(key).or_default().add(durations);
        }
    }
}

/// Numbers of a metric over an interval, in milliseconds where it is about time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Summary {
    /// Of something that happened so often.
    #[expect(clippy::cast_precision_loss, reason = "counts are shown, not calculated with")]
    pub(super) fn of_count(count: u64) -> Self {
        Self { count, sum: count as f64, min: 1.0, max: 1.0, mean: 1.0, deviation: 0.0 }
    }

    /// Of durations. The sum is exact; the others are as exact as [`Durations`] are.
    #[expect(clippy::cast_precision_loss, reason = "counts are shown, not calculated with")]
    pub(super) fn of(durations: &Durations) -> Self {
        let count = durations.count();
        let sum = millis(durations.sum());
        let mean = sum / (count.max(1) as f64);
        if count <= 1 {
            return Self { count, sum, min: mean, max: mean, mean, deviation: 0.0 };
        }
        let squares = durations.ranges().map(|(middle, count)| {
            let off = millis(middle) - mean;
            off * off * count as f64
        });
        let deviation = (squares.sum::<f64>() / ((count - 1) as f64)).sqrt();
        let min = durations.ranges().next().map_or(0.0, |(middle, _)| millis(middle));
        let max = durations.ranges().next_back().map_or(0.0, |(middle, _)| millis(middle));
        Self { count, sum, min: min.min(mean), max: max.max(mean), mean, deviation }
    }
}

/// A duration as metrics have it.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_begins_at_full_ten_seconds() {
        let at = |millis| Interval::beginning(WallClock::from_millis(millis)).began.as_millis();
        assert_eq!((at(19_999), at(20_000), at(-1)), (10_000, 20_000, -10_000));
    }

    #[test]
    fn a_summary_holds_together() {
        let mut durations = Durations::default();
        durations.record(Duration::from_micros(1500));
        let one = Summary::of(&durations);
        assert_eq!((one.count, one.sum, one.min, one.max), (1, 1.5, 1.5, 1.5));
        assert_eq!(one.deviation, 0.0);
        durations.record(Duration::from_millis(100));
        let two = Summary::of(&durations);
        assert_eq!((two.count, two.sum, two.mean), (2, 101.5, 50.75));
        assert!(two.min < 2.0 && two.max > 90.0, "{two:?}");
        assert!((two.deviation - 69.65).abs() < 5.0, "{two:?}");
    }
}
