//! Prometheus' text format (version 0.0.4): everything over the whole run.
//!
//! - Source: http-api.md §4.3; what Consul 1.8.7 writes: counters, gauges, and summaries with the
//!   quantiles 0.5, 0.9 and 0.99, which are those of the last minute.
//! - The process is described as Prometheus' own libraries do it, without a prefix.

use super::config::TelemetryConfig;
use super::interval::{Key, millis};
use super::metrics::{Metrics, Total, Totals};
use super::process::Process;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use terraform_core::durations::Durations;
use terraform_core::time::{Instant, WallClock};

/// The text. What did not change for longer than the retention time is left out.
///
/// It reads what the kernel knows of the process, so it blocks for a moment.
pub fn exposition(metrics: &Metrics, now: Instant, wall: WallClock) -> String {
    let config = metrics.config();
    let (totals, recent) = metrics.totals(now);
    let mut text = Text { config: &config, now, families: BTreeMap::new() };
    text.gauges(&totals);
    text.counters(&totals);
    text.summaries(&totals, &recent);
    let mut out = String::new();
    for (name, Family { kind, lines }) in text.families {
        let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} {kind}\n{}", lines.trim_end());
    }
    if let Some(process) = Process::read() {
        write_process(&mut out, &process, wall.as_millis() - age_millis(now));
    }
    out
}

/// Milliseconds since the agent's start.
fn age_millis(now: Instant) -> i64 {
    i64::try_from(now.since(Instant::ZERO).as_millis()).unwrap_or(i64::MAX)
}

/// All metrics of one name.
struct Family {
    kind: &'static str,
    lines: String,
}

struct Text<'a> {
    config: &'a TelemetryConfig,
    now: Instant,
    families: BTreeMap<String, Family>,
}

impl Text<'_> {
    fn is_kept<T>(&self, total: &Total<T>) -> bool {
        self.now.since(total.at) <= self.config.prometheus_retention
    }

    fn family(&mut self, name: &str, kind: &'static str) -> (String, &mut String) {
        let name = sanitised(name);
        let family = Family { kind, lines: String::new() };
        let family = self.families.entry(name.clone()).or_insert(family);
        (name, &mut family.lines)
    }

    fn gauges(&mut self, totals: &Totals) {
        for (key, total) in &totals.gauges {
            if let Some(name) = self.config.gauge_name(key).filter(|_| self.is_kept(total)) {
                let (name, lines) = self.family(&name, "gauge");
                let _ = writeln!(lines, "{name}{} {}", labels(key, None), total.value);
            }
        }
    }

    fn counters(&mut self, totals: &Totals) {
        for (key, total) in &totals.counters {
            if let Some(name) = self.config.name(key).filter(|_| self.is_kept(total)) {
                let (name, lines) = self.family(&name, "counter");
                let _ = writeln!(lines, "{name}{} {}", labels(key, None), total.value);
            }
        }
    }

    fn summaries(&mut self, totals: &Totals, recent: &BTreeMap<Key, Durations>) {
        for (key, total) in &totals.samples {
            let Some(name) = self.config.name(key).filter(|_| self.is_kept(total)) else {
                continue;
            };
            let (name, lines) = self.family(&name, "summary");
            for (quantile, percent) in [("0.5", 50), ("0.9", 90), ("0.99", 99)] {
                let value = recent.get(key).and_then(|recent| recent.quantile(percent));
                let value = value.map_or(f64::NAN, millis);
                let _ = writeln!(lines, "{name}{} {value}", labels(key, Some(quantile)));
            }
            let (count, sum) = total.value;
            let labels = labels(key, None);
            let _ = writeln!(lines, "{name}_sum{labels} {}", millis(sum));
            let _ = writeln!(lines, "{name}_count{labels} {count}");
        }
    }
}

/// A name of letters, digits and underscores.
fn sanitised(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' };
    let name: String = name.chars().map(allowed).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn labels(key: &Key, quantile: Option<&str>) -> String {
    let own = key.labels.iter().map(|(label, value)| (*label, value.as_str()));
    let all = own.chain(quantile.map(|quantile| ("quantile", quantile)));
    let texts: Vec<String> = all
        .map(|(label, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        })
        .collect();
    if texts.is_empty() { String::new() } else { format!("{{{}}}", texts.join(",")) }
}

fn write_process(out: &mut String, process: &Process, began_millis: i64) {
    let (began, millis) = (began_millis.div_euclid(1000), began_millis.rem_euclid(1000));
    let mut put = |name: &str, kind: &str, help: &str, value: String| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    put(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu.as_secs_f64().to_string(),
    );
    if let Some(max) = process.max_fds {
        let help = "Maximum number of open file descriptors.";
        put("process_max_fds", "gauge", help, max.to_string());
    }
    let help = "Number of open file descriptors.";
    put("process_open_fds", "gauge", help, process.open_fds.to_string());
    let help = "Resident memory size in bytes.";
    put("process_resident_memory_bytes", "gauge", help, process.resident_bytes.to_string());
    let help = "Start time of the process since unix epoch in seconds.";
    put("process_start_time_seconds", "gauge", help, format!("{began}.{millis:03}"));
    let help = "Virtual memory size in bytes.";
    put("process_virtual_memory_bytes", "gauge", help, process.virtual_bytes.to_string());
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{Counted, Timed};
    use super::*;
    use std::time::Duration;

    fn metrics(retention: Duration) -> Metrics {
        let metrics = Metrics::new("n \"1\"", WallClock::from_millis(0));
        let config = TelemetryConfig { prometheus_retention: retention, ..Default::default() };
        metrics.configure(config);
        metrics.add(|interval| interval.set(Key::plain("rpc.cross-dc"), 1.5));
        metrics.count(Counted::DnsStale);
        for millis in [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 40] {
            metrics.time(Timed::DnsDomain, Duration::from_millis(millis));
        }
        metrics
    }

    #[test]
    fn counters_gauges_and_summaries_have_their_form() {
        let metrics = metrics(Duration::from_secs(60));
        let text = exposition(&metrics, Instant::ZERO, WallClock::from_millis(1_000));
        let name = "consul_dns_domain_query";
        let label = r#"node="n \"1\"""#;
        assert!(text.starts_with(&format!("# HELP {name} {name}\n# TYPE {name} summary\n")));
        let lines: Vec<&str> = text.lines().collect();
        let value = |start: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(start));
            line.unwrap_or_else(|| panic!("{start} is not in {text}")).trim().parse::<f64>()
        };
        let quantile = |q: &str| value(&format!("{name}{{{label},quantile=\"{q}\"}}")).unwrap();
        assert!((quantile("0.5") - 1.0).abs() < 0.1);
        assert!((quantile("0.99") - 40.0).abs() < 3.0);
        assert_eq!(value(&format!("{name}_sum{{{label}}}")), Ok(50.0));
        assert_eq!(value(&format!("{name}_count{{{label}}}")), Ok(11.0));
        assert!(
            text.contains("# TYPE consul_dns_stale_queries counter\nconsul_dns_stale_queries 1")
        );
        assert!(text.contains("# TYPE consul_rpc_cross_dc gauge\nconsul_rpc_cross_dc 1.5\n"));
    }

    #[test]
    fn totals_outlive_intervals_until_the_retention_time_is_over() {
        let metrics = metrics(Duration::from_secs(60));
        for second in 0..9 {
            let now = Instant::from_nanos(second * 1_000_000_000);
            metrics.turn(now, WallClock::from_millis(0));
        }
        let at = |seconds: u64| {
            let now = Instant::from_nanos(seconds * 1_000_000_000);
            exposition(&metrics, now, WallClock::from_millis(0))
        };
        let text = at(60);
        assert!(text.contains("consul_dns_stale_queries 1\n"), "{text}");
        assert!(text.contains("quantile=\"0.5\"} NaN\n"), "{text}");
        assert!(!at(61).contains("consul_"), "{}", at(61));
    }

    #[test]
    fn names_are_what_prometheus_allows() {
        assert_eq!(sanitised("consul.a-b c.1"), "consul_a_b_c_1");
        assert_eq!(sanitised("1a"), "_1a");
    }
}
