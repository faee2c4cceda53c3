//! An interval as JSON (http-api.md §4.3).

use super::config::TelemetryConfig;
use super::interval::{INTERVAL, Interval, Key, Summary};
use crate::civil;
use crate::http::json::Json;

/// `interval` as `/v1/agent/metrics` shows it.
pub fn display(interval: &Interval, config: &TelemetryConfig) -> Vec<u8> {
    let mut json = Json::with_capacity(16 * 1024);
    json.object(|json| {
        json.field("Timestamp", &civil::spaced_timestamp(interval.began));
        let gauges = interval.gauges.iter();
        let gauges = gauges.filter_map(|(key, value)| Some((config.gauge_name(key)?, key, value)));
        json.key("Gauges");
        json.array(sorted(gauges), |json, (name, key, value)| {
            json.object(|json| {
                json.field("Name", &name);
                json.field("Value", *value);
                labels(json, key);
            });
        });
        json.key("Points");
        json.raw("[]");
        let counters = interval
            .counters
            .iter()
            .filter_map(|(key, count)| Some((config.name(key)?, key, Summary::of_count(*count))));
        json.key("Counters");
        json.array(sorted(counters), summary);
        let samples = interval
            .samples
            .iter()
            .filter_map(|(key, durations)| Some((config.name(key)?, key, Summary::of(durations))));
        json.key("Samples");
        json.array(sorted(samples), summary);
    });
    json.into_bytes()
}

/// By name, then by labels.
fn sorted<'a, T>(items: impl Iterator<Item = (String, &'a Key, T)>) -> Vec<(String, &'a Key, T)> {
    let mut items: Vec<_> = items.collect();
    items.sort_by(|(a, x, _), (b, y, _)| (a, x).cmp(&(b, y)));
    items
}

fn summary(json: &mut Json, (name, key, summary): (String, &Key, Summary)) {
    json.object(|json| {
        json.field("Name", &name);
        json.field("Count", summary.count);
        json.field("Rate", summary.sum / INTERVAL.as_secs_f64());
        json.field("Sum", summary.sum);
        json.field("Min", summary.min);
        json.field("Max", summary.max);
        json.field("Mean", summary.mean);
        json.field("Stddev", summary.deviation);
        labels(json, key);
    });
}

fn labels(json: &mut Json, key: &Key) {
    json.key("Labels");
    json.object(|json| {
        for (label, value) in &key.labels {
            json.field(label, value);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use terraform_core::durations::Durations;
    use terraform_core::time::WallClock;

    #[test]
    fn an_interval_reads_as_consul_shows_it() {
        let mut interval = Interval::beginning(WallClock::from_millis(1_795_356_593_374));
        interval.set(Key::plain("raft.applied_index"), 52.0);
        interval.count(Key::plain("client.rpc"), 14);
        let mut durations = Durations::default();
        durations.record(Duration::from_millis(1));
        interval.sample(Key::plain("http.GET.v1.agent.self").with("a", "b"), &durations);
        let json = String::from_utf8(display(&interval, &TelemetryConfig::default())).unwrap();
        assert_eq!(
            json,
            r#"{"Timestamp":"2026-11-22 14:09:50 +0000 UTC","#.to_owned()
                + r#""Gauges":[{"Name":"consul.raft.applied_index","Value":52,"Labels":{}}],"#
                + r#""Points":[],"Counters":[{"Name":"consul.client.rpc","Count":14,"Rate":1.4,"#
                + r#""Sum":14,"Min":1,"Max":1,"Mean":1,"Stddev":0,"Labels":{}}],"#
                + r#""Samples":[{"Name":"consul.http.GET.v1.agent.self","Count":1,"Rate":0.1,"#
                + r#""Sum":1,"Min":1,"Max":1,"Mean":1,"Stddev":0,"Labels":{"a":"b"}}]}"#
        );
    }

    #[test]
    fn what_the_filter_refuses_is_left_out() {
        let (filter, _) = super::super::Filter::new(true, &["-consul.raft".to_owned()]);
        let config = TelemetryConfig { filter, ..TelemetryConfig::default() };
        let mut interval = Interval::beginning(WallClock::from_millis(0));
        interval.set(Key::plain("raft.applied_index"), 52.0);
        interval.set(Key::plain("state.nodes"), 1.0);
        let json = String::from_utf8(display(&interval, &config)).unwrap();
        assert!(!json.contains("raft") && json.contains("consul.state.nodes"), "{json}");
    }
}
