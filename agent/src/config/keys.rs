//! The settings that Consul knows and this release does not build, and what leaving them out means.

use serde_json::Value;

/// What leaving a setting out means for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// The cluster would be less safe than its owner thinks: refuse to start.
    LessSafe,
    /// Something is missing, nothing is exposed: warn and go on.
    Harmless,
}

/// Settings without which a cluster is less safe; a name ending in `.` stands for a whole section.
const LESS_SAFE: &[&str] = &[
    "acl.",
    "acl_agent_master_token",
    "acl_agent_token",
    "acl_datacenter",
    "acl_default_policy",
    "acl_down_policy",
    "acl_enforce_version_8",
    "acl_master_token",
    "acl_replication_token",
    "acl_token",
    "acl_ttl",
    "auto_encrypt.",
    "ca_file",
    "ca_path",
    "cert_file",
    "key_file",
    "ports.https",
    "addresses.https",
    "server_name",
    "tls_cipher_suites",
    "tls_min_version",
    "tls_prefer_server_cipher_suites",
    "verify_incoming",
    "verify_incoming_https",
    "verify_incoming_rpc",
    "verify_outgoing",
    "verify_server_hostname",
    "enable_agent_tls_for_checks",
];

/// Settings whose absence exposes nothing; a name ending in `.` stands for a whole section.
const HARMLESS: &[&str] = &[
    "addresses.grpc",
    "autopilot.disable_upgrade_migration",
    "autopilot.redundancy_zone_tag",
    "autopilot.upgrade_version_tag",
    "cache.",
    "config_entries.",
    "connect.",
    "disable_anonymous_signature",
    "disable_update_check",
    "enable_central_service_config",
    "enable_debug",
    "limits.https_handshake_timeout",
    "ports.grpc",
    "ports.sidecar_max_port",
    "ports.sidecar_min_port",
    "primary_datacenter",
    "primary_gateways",
    "primary_gateways_interval",
    "protocol",
    "raft_protocol",
    "segment",
    "segments",
    "telemetry.circonus_api_app",
    "telemetry.circonus_api_token",
    "telemetry.circonus_api_url",
    "telemetry.circonus_broker_id",
    "telemetry.circonus_broker_select_tag",
    "telemetry.circonus_check_display_name",
    "telemetry.circonus_check_force_metric_activation",
    "telemetry.circonus_check_id",
    "telemetry.circonus_check_instance_id",
    "telemetry.circonus_check_search_tag",
    "telemetry.circonus_check_tags",
    "telemetry.circonus_submission_interval",
    "telemetry.circonus_submission_url",
    "telemetry.disable_compat_1.9",
    "ui",
    "ui_content_path",
    "ui_dir",
];

/// What leaving `path` out means; `None` if it is no known setting of an unbuilt feature.
pub(super) fn safety(path: &str) -> Option<Safety> {
    let listed = |list: &[&str]| {
        list.iter().any(|known| match known.strip_suffix('.') {
            Some(section) => path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')),
            None => *known == path,
        })
    };
    if listed(LESS_SAFE) {
        return Some(Safety::LessSafe);
    }
    listed(HARMLESS).then_some(Safety::Harmless)
}

/// Whether `path` names a section that holds known settings.
pub(super) fn is_section(path: &str) -> bool {
    let below = |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    LESS_SAFE.iter().chain(HARMLESS).any(|known| below(known))
}

/// Whether a value switches its setting off, so that leaving it out changes nothing.
pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(object) => object.values().all(is_off),
    }
}

/// A JSON value's type in messages.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// What is said of a value of the wrong type, behind its key (agent-config.md §3). A list in the
/// place of a map is a block that was repeated.
pub(super) fn mismatch(expected: &str, value: &Value) -> String {
    if expected == "map" && value.is_array() {
        return "expected a map, got 'slice'".to_owned();
    }
    format!("expected type '{expected}', got unconvertible type '{}'", type_name(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_plain_keys_are_told_apart() {
        assert_eq!(safety("acl.tokens.default"), Some(Safety::LessSafe));
        assert_eq!(safety("acl"), None);
        assert!(is_section("acl"));
        assert!(is_section("limits"));
        assert!(!is_section("ui"));
        assert_eq!(safety("telemetry.circonus_api_url"), Some(Safety::Harmless));
        assert_eq!(safety("limits.https_handshake_timeout"), Some(Safety::Harmless));
        assert_eq!(safety("limits.nope"), None);
        assert_eq!(safety("nope"), None);
    }
}
