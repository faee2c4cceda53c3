//! The section `telemetry` (agent-config.md §7).

use std::collections::BTreeMap;
use std::time::Duration;
use terraform_io::resolve::{ResolveError as AddressError, parse as parse_address};
use terraform_io::telemetry::{Filter, TelemetryConfig};

/// What one source of configuration says of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Texts, by key.
    pub texts: BTreeMap<String, String>,
    /// Switches, by key.
    pub switches: BTreeMap<String, bool>,
    /// `prometheus_retention_time`
    pub prometheus_retention: Option<Duration>,
    /// `prefix_filter`
    pub prefix_filter: Vec<String>,
    /// `dogstatsd_tags`
    pub dogstatsd_tags: Vec<String>,
}

impl TelemetrySettings {
    /// Lays those of a later source over these.
    pub(super) fn extend(&mut self, above: Self) {
        let Self { texts, switches, prometheus_retention, prefix_filter, dogstatsd_tags } = above;
        self.texts.extend(texts);
        self.switches.extend(switches);
        self.prometheus_retention = prometheus_retention.or(self.prometheus_retention);
        self.prefix_filter.extend(prefix_filter);
        self.dogstatsd_tags.extend(dogstatsd_tags);
    }
}

/// What the agent starts with; `host_name` is the machine's. Rules for names that are none are
/// warned of and left out, as Consul does (agent-config.md §3).
///
/// - Errors: the key whose address is none, and why.
pub(super) fn telemetry(
    settings: &TelemetrySettings,
    host_name: &str,
    warnings: &mut Vec<String>,
) -> Result<TelemetryConfig, (&'static str, AddressError)> {
    let default = TelemetryConfig::default();
    let switch = |key: &str, default| settings.switches.get(key).copied().unwrap_or(default);
    let (filter, errors) = Filter::new(switch("filter_default", true), &settings.prefix_filter);
    warnings.extend(errors.iter().map(ToString::to_string));
    let address = |key: &'static str| {
        let text = settings.texts.get(key).filter(|text| !text.is_empty());
        // The port does not matter here.
        let checked = text.map(|text| parse_address(text, 0).map(|_| text.clone()));
        checked.transpose().map_err(|error| (key, error))
    };
    let prefix = settings.texts.get("metrics_prefix").cloned();
    Ok(TelemetryConfig {
        prefix: prefix.unwrap_or(default.prefix),
        host_name: (!switch("disable_hostname", false)).then(|| host_name.to_owned()),
        prometheus_retention: settings.prometheus_retention.unwrap_or_default(),
        filter,
        statsd: address("statsd_address")?,
        statsite: address("statsite_address")?,
        dogstatsd: address("dogstatsd_addr")?,
        dogstatsd_tags: settings.dogstatsd_tags.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn every_key_has_its_place() {
        let text = r#"{"telemetry": {"metrics_prefix": "p", "disable_hostname": false,
            "statsd_address": "127.0.0.1:8125", "statsite_address": "h:1",
            "dogstatsd_addr": "d:2", "dogstatsd_tags": ["a:b"], "filter_default": false,
            "prometheus_retention_time": "60s", "prefix_filter": ["+p.raft", "p.http"]}}"#;
        let mut warnings = Vec::new();
        let config = telemetry(&parse(text).unwrap().telemetry, "host", &mut warnings).unwrap();
        assert_eq!((&*config.prefix, config.host_name.as_deref()), ("p", Some("host")));
        assert_eq!(config.prometheus_retention, Duration::from_secs(60));
        assert_eq!(config.statsd.as_deref(), Some("127.0.0.1:8125"));
        assert_eq!(config.statsite.as_deref(), Some("h:1"));
        assert_eq!(config.dogstatsd.as_deref(), Some("d:2"));
        assert_eq!(config.dogstatsd_tags, ["a:b"]);
        assert!(config.filter.allows("p.raft.apply") && !config.filter.allows("p.http.x"));
        assert_eq!(warnings, ["Filter rule must begin with either '+' or '-': \"p.http\""]);
        let nothing = telemetry(&TelemetrySettings::default(), "h", &mut warnings).unwrap();
        let default = TelemetryConfig { host_name: Some("h".to_owned()), ..Default::default() };
        assert_eq!(nothing, default);
        let nameless = parse(r#"{"telemetry": {"disable_hostname": true}}"#).unwrap();
        assert_eq!(telemetry(&nameless.telemetry, "h", &mut warnings).unwrap().host_name, None);
    }

    #[test]
    fn an_address_that_is_none_is_refused_by_its_key() {
        let text = r#"{"telemetry": {"statsd_address": "a b"}}"#;
        let (key, _) =
            telemetry(&parse(text).unwrap().telemetry, "h", &mut Vec::new()).unwrap_err();
        assert_eq!(key, "statsd_address");
    }
}
