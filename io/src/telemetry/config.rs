//! What an operator wants of metrics.

use super::filter::Filter;
use super::interval::Key;
use std::time::Duration;

/// The section `telemetry` of the configuration (agent-config.md §7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// What all names begin with (`metrics_prefix`).
    pub prefix: String,
    /// The host name, which gauges carry behind the prefix; `None` with `disable_hostname`.
    pub host_name: Option<String>,
    /// How long Prometheus is shown what does not change any more; zero switches its text off.
    pub prometheus_retention: Duration,
    /// Which names are collected.
    pub filter: Filter,
    /// Where statsd listens, `host:port` (UDP).
    pub statsd: Option<String>,
    /// Where statsite listens, `host:port` (TCP).
    pub statsite: Option<String>,
    /// Where dogstatsd listens, `host:port` (UDP).
    pub dogstatsd: Option<String>,
    /// Tags of everything sent to dogstatsd.
    pub dogstatsd_tags: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            prefix: "consul".to_owned(),
            host_name: None,
            prometheus_retention: Duration::ZERO,
            filter: Filter::default(),
            statsd: None,
            statsite: None,
            dogstatsd: None,
            dogstatsd_tags: Vec::new(),
        }
    }
}

impl TelemetryConfig {
    /// Whether Prometheus' text is served.
    pub fn serves_prometheus(&self) -> bool {
        !self.prometheus_retention.is_zero()
    }

    /// Whether somebody beside the agent collects: only then gauges carry the host name, as it
    /// tells agents apart (observed with Consul 1.8.7, where Prometheus counts too).
    fn is_collected(&self) -> bool {
        let sinks = [&self.statsd, &self.statsite, &self.dogstatsd];
        self.serves_prometheus() || sinks.into_iter().any(Option::is_some)
    }

    /// The full name of a gauge; `None` if the filter leaves it out.
    pub fn gauge_name(&self, key: &Key) -> Option<String> {
        match &self.host_name {
            Some(host) if self.is_collected() => {
                self.allowed(format!("{}.{host}.{}", self.prefix, key.name))
            }
            Some(_) | None => self.name(key),
        }
    }

    /// The full name of a counter or sample; `None` if the filter leaves it out.
    pub fn name(&self, key: &Key) -> Option<String> {
        self.allowed(format!("{}.{}", self.prefix, key.name))
    }

    fn allowed(&self, name: String) -> Option<String> {
        let name = name.strip_prefix('.').map(str::to_owned).unwrap_or(name);
        self.filter.allows(&name).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_carry_the_host_name_once_somebody_collects() {
        let key = Key::plain("raft.applied_index");
        let alone = TelemetryConfig { host_name: Some("h".to_owned()), ..Default::default() };
        assert_eq!(alone.gauge_name(&key).as_deref(), Some("consul.raft.applied_index"));
        let collected = TelemetryConfig { statsd: Some("a:1".to_owned()), ..alone };
        assert_eq!(collected.gauge_name(&key).as_deref(), Some("consul.h.raft.applied_index"));
        assert_eq!(collected.name(&key).as_deref(), Some("consul.raft.applied_index"));
        let nameless = TelemetryConfig { host_name: None, prefix: String::new(), ..collected };
        assert_eq!(nameless.gauge_name(&key).as_deref(), Some("raft.applied_index"));
    }
}
