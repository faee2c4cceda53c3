//! All kept intervals as lines for people, on SIGUSR1 (agent-config.md §7, §8).

use super::interval::{Key, Summary};
use super::metrics::Metrics;
use crate::civil;
use std::fmt::Write as _;

/// The finished intervals, oldest first, in the lines that Consul's users know.
pub fn dump(metrics: &Metrics) -> String {
    let config = metrics.config();
    let mut out = String::new();
    for interval in metrics.finished() {
        let at = civil::spaced_timestamp(interval.began);
        for (key, value) in &interval.gauges {
            if let Some(name) = config.gauge_name(key) {
                let _ = writeln!(out, "[{at}][G] '{}': {value:.3}", flat(&name, key));
            }
        }
        for (key, count) in &interval.counters {
            if let Some(name) = config.name(key) {
                let summary = Summary::of_count(*count);
                let _ = writeln!(out, "[{at}][C] '{}': {}", flat(&name, key), text(&summary));
            }
        }
        for (key, durations) in &interval.samples {
            if let Some(name) = config.name(key) {
                let summary = Summary::of(durations);
                let _ = writeln!(out, "[{at}][S] '{}': {}", flat(&name, key), text(&summary));
            }
        }
    }
    out
}

/// The name with the values of the labels behind it.
pub(super) fn flat(name: &str, key: &Key) -> String {
    let values = key.labels.iter().map(|(_, value)| format!(".{value}"));
    format!("{name}{}", values.collect::<String>())
}

fn text(summary: &Summary) -> String {
    let Summary { count, sum, min, max, mean, deviation } = summary;
    if *deviation == 0.0 {
        return format!("Count: {count} Sum: {sum:.3}");
    }
    format!(
        "Count: {count} Min: {min:.3} Mean: {mean:.3} Max: {max:.3} Stddev: {deviation:.3} \
         Sum: {sum:.3}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{Counted, Timed};
    use super::*;
    use std::time::Duration;
    use terraform_core::time::{Instant, WallClock};

    #[test]
    fn finished_intervals_are_told_line_by_line() {
        let metrics = Metrics::new("n1", WallClock::from_millis(0));
        metrics.add(|interval| interval.set(Key::plain("state.nodes"), 3.0));
        metrics.count(Counted::DnsStale);
        metrics.time(Timed::DnsDomain, Duration::from_millis(2));
        assert_eq!(dump(&metrics), "");
        metrics.turn(Instant::ZERO, WallClock::from_millis(10_000));
        let at = "1970-01-01 00:00:00 +0000 UTC";
        assert_eq!(
            dump(&metrics),
            format!(
                "[{at}][G] 'consul.state.nodes': 3.000\n\
                 [{at}][C] 'consul.dns.stale_queries': Count: 1 Sum: 1.000\n\
                 [{at}][S] 'consul.dns.domain_query.n1': Count: 1 Sum: 2.000\n"
            )
        );
    }
}
