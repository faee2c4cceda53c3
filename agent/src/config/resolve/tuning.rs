//! The rules of sizes, paces and times that few need to change (agent-config.md §3, §5).

use super::super::TuningSettings;
use super::{Checked, refuse};
use std::time::Duration;
use terraform_core::config::{LEAVE_DRAIN, RPC_HANDSHAKE};
use terraform_core::local::definition::OutputRules;
use terraform_core::raft::RaftLimits;
use terraform_core::rpc::RequestRate;

/// Bytes of output kept of a check at most, whatever is set: outputs travel through consensus.
const CHECK_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Connections to the server port from one address, unless it is said (agent-config.md §5).
const SERVER_CONNECTIONS_PER_CLIENT: usize = 100;

/// The longest time for requests on their way: who left is to be gone at some time.
const LEAVE_DRAIN_MAX: Duration = Duration::from_secs(3600);

/// Requests that a client may send at once, unless it is said (agent-config.md §5).
const RPC_BURST: u32 = 1000;

/// Connections to the server port from one address; 0 is no limit of its own.
pub(super) fn server_connections(tuning: &TuningSettings) -> Checked<usize> {
    let key = "limits.rpc_max_conns_per_client";
    match tuning.numbers.get(key).map(|given| usize::try_from(*given)) {
        None => Ok(SERVER_CONNECTIONS_PER_CLIENT),
        Some(Ok(0)) => Ok(usize::MAX),
        Some(Ok(count)) => Ok(count),
        Some(Err(_)) => refuse(format!("{key} must be greater than or equal to zero")),
    }
}

/// How many requests a client may send to servers; a rate of 0 or less is no limit, and a burst of
/// 0 or less the default, as Consul 1.8.7 was seen to have it.
pub(super) fn request_rate(
    tuning: &TuningSettings,
    is_server: bool,
    warnings: &mut Vec<String>,
) -> Checked<Option<RequestRate>> {
    let (key, burst_key) = ("limits.rpc_rate", "limits.rpc_max_burst");
    let burst = match tuning.numbers.get(burst_key) {
        None | Some(..=0) => RPC_BURST,
        Some(given) => match u32::try_from(*given) {
            Ok(burst) => burst,
            Err(_) => {
                return refuse(format!(
                    "{burst_key} cannot be {given}. Must be at most {}",
                    u32::MAX
                ));
            }
        },
    };
    let Some(rate) = tuning.fractions.get(key).filter(|rate| **rate > 0.0) else { return Ok(None) };
    if is_server {
        warnings
            .push(format!("{key} has no effect on servers: it limits what clients send to them"));
    }
    // Where the quotient is out of range, a request would take centuries to be due.
    let interval = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    Ok(Some(RequestRate { interval, burst }))
}

/// How long a stream to the server port may take to say whose it is; 0 is no limit of its own, as
/// in Consul.
pub(super) fn handshake(tuning: &TuningSettings) -> Option<Duration> {
    let given = tuning.durations.get("limits.rpc_handshake_timeout").copied();
    Some(given.unwrap_or(RPC_HANDSHAKE)).filter(|within| !within.is_zero())
}

/// How long a server that leaves goes on with requests on their way.
pub(super) fn leave_drain(tuning: &TuningSettings) -> Checked<Duration> {
    let key = "performance.leave_drain_time";
    match tuning.durations.get(key).copied().unwrap_or(LEAVE_DRAIN) {
        time if time > LEAVE_DRAIN_MAX => refuse(format!("{key} must be at most 1h")),
        time => Ok(time),
    }
}

/// What is kept of what checks say.
pub(super) fn check_output(tuning: &TuningSettings) -> Checked<OutputRules> {
    let default = OutputRules::default();
    let key = "check_output_max_size";
    let bytes_max = match tuning.numbers.get(key) {
        None => default.bytes_max,
        Some(given) => match usize::try_from(*given) {
            Ok(0) | Err(_) => {
                return refuse(format!(
                    "{key} must be positive, to discard check output use discard_check_output"
                ));
            }
            Ok(bytes) if bytes > CHECK_OUTPUT_BYTES_MAX => {
                return refuse(format!(
                    "{key} cannot be {given}. Must be at most {CHECK_OUTPUT_BYTES_MAX}"
                ));
            }
            Ok(bytes) => bytes,
        },
    };
    let discard = tuning.switches.get("discard_check_output").copied().unwrap_or(default.discard);
    Ok(OutputRules { bytes_max, discard })
}

/// Whether a new data directory gets an identity of the machine instead of a drawn one.
pub(super) fn host_node_id(tuning: &TuningSettings) -> bool {
    tuning.switches.get("disable_host_node_id") == Some(&false)
}

/// When servers write snapshots, and how much of the log they keep behind one.
///
/// - `raft_snapshot_threshold`: entries since the last snapshot that make one due.
/// - `raft_snapshot_interval`: the shortest time between two such snapshots, before jitter of as
///   much again.
/// - `raft_trailing_logs`: entries that stay behind a snapshot for servers that are a little late.
///
/// What the log takes in memory has limits in bytes besides, which make a snapshot due earlier.
pub(super) fn raft(tuning: &TuningSettings) -> Checked<RaftLimits> {
    let default = RaftLimits::default();
    let number = |key: &str, default: u64, (least, most): (u64, u64)| {
        let Some(given) = tuning.numbers.get(key) else { return Ok(default) };
        match u64::try_from(*given).ok().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(number),
            None => refuse(format!("{key} cannot be {given}. Must be between {least} and {most}")),
        }
    };
    let key = "raft_snapshot_interval";
    let interval = tuning.durations.get(key).copied().unwrap_or(default.snapshot_interval);
    if interval < Duration::from_secs(1) || interval > Duration::from_secs(24 * 3600) {
        return refuse(format!("{key} must be between 1s and 24h"));
    }
    let (entries, trailing) = (default.snapshot_entries, default.trailing_entries);
    Ok(RaftLimits {
        snapshot_entries: number("raft_snapshot_threshold", entries, (1, 100_000_000))?,
        snapshot_interval: interval,
        trailing_entries: number("raft_trailing_logs", trailing, (0, 1_000_000))?,
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn snapshots_of_servers_are_as_they_are_set() {
        let of = |text: &str| raft(&parse(text).unwrap().tuning).map_err(|error| error.to_string());
        assert_eq!(of("{}"), Ok(RaftLimits::default()));
        let given = r#"{"raft_snapshot_threshold": 100, "raft_snapshot_interval": "5s",
                        "raft_trailing_logs": 0}"#;
        let limits = RaftLimits {
            snapshot_entries: 100,
            snapshot_interval: Duration::from_secs(5),
            trailing_entries: 0,
            ..RaftLimits::default()
        };
        assert_eq!(of(given), Ok(limits));
        for (text, rule) in [
            (
                r#"{"raft_snapshot_threshold": 0}"#,
                "raft_snapshot_threshold cannot be 0. Must be between 1 and 100000000",
            ),
            (
                r#"{"raft_trailing_logs": -1}"#,
                "raft_trailing_logs cannot be -1. Must be between 0 and 1000000",
            ),
            (
                r#"{"raft_snapshot_interval": "0s"}"#,
                "raft_snapshot_interval must be between 1s and 24h",
            ),
        ] {
            assert_eq!(of(text), Err(rule.to_owned()));
        }
    }

    #[test]
    fn the_server_port_takes_a_hundred_connections_of_one_address_unless_it_is_said() {
        let of = |text: &str| {
            server_connections(&parse(text).unwrap().tuning).map_err(|error| error.to_string())
        };
        let given =
            |number: i64| of(&format!(r#"{{"limits": {{"rpc_max_conns_per_client": {number}}}}}"#));
        assert_eq!((of("{}"), given(7), given(0)), (Ok(100), Ok(7), Ok(usize::MAX)));
        let rule = "limits.rpc_max_conns_per_client must be greater than or equal to zero";
        assert_eq!(given(-1), Err(rule.to_owned()));
    }

    #[test]
    fn streams_have_five_seconds_for_their_handshake_unless_it_is_said() {
        let of = |limits: &str| {
            handshake(&parse(&format!("{{\"limits\": {{{limits}}}}}")).unwrap().tuning)
        };
        assert_eq!(of(""), Some(Duration::from_secs(5)));
        assert_eq!(of(r#""rpc_handshake_timeout": "300ms""#), Some(Duration::from_millis(300)));
        assert_eq!(of(r#""rpc_handshake_timeout": "0s""#), None);
    }

    #[test]
    fn a_leave_waits_five_seconds_for_requests_unless_it_is_said() {
        let of = |performance: &str| {
            let text = format!("{{\"performance\": {{{performance}}}}}");
            leave_drain(&parse(&text).unwrap().tuning).map_err(|error| error.to_string())
        };
        assert_eq!(of(""), Ok(Duration::from_secs(5)));
        assert_eq!(of(r#""leave_drain_time": "0s""#), Ok(Duration::ZERO));
        assert_eq!(of(r#""leave_drain_time": "1h""#), Ok(Duration::from_secs(3600)));
        let rule = "performance.leave_drain_time must be at most 1h";
        assert_eq!(of(r#""leave_drain_time": "3601s""#), Err(rule.to_owned()));
    }

    #[test]
    fn requests_to_servers_have_no_limit_unless_a_rate_is_set() {
        let of = |limits: &str| {
            let tuning = parse(&format!("{{\"limits\": {{{limits}}}}}")).unwrap().tuning;
            let mut warnings = Vec::new();
            let rate = request_rate(&tuning, false, &mut warnings).map_err(|e| e.to_string());
            assert_eq!(warnings, [""; 0]);
            rate
        };
        for unlimited in ["", r#""rpc_max_burst": 3"#, r#""rpc_rate": 0"#, r#""rpc_rate": -1"#] {
            assert_eq!(of(unlimited), Ok(None), "{unlimited}");
        }
        let rate = |millis, burst| {
            Ok(Some(RequestRate { interval: Duration::from_millis(millis), burst }))
        };
        assert_eq!(of(r#""rpc_rate": 4"#), rate(250, 1000));
        assert_eq!(of(r#""rpc_rate": 0.5, "rpc_max_burst": 7"#), rate(2000, 7));
        for burst in [0, -1] {
            assert_eq!(of(&format!(r#""rpc_rate": 4, "rpc_max_burst": {burst}"#)), rate(250, 1000));
        }
        assert_eq!(of(r#""rpc_rate": 1e300"#), rate(0, 1000), "as good as no limit");
        let slowest = of(r#""rpc_rate": 1e-300"#).unwrap().unwrap();
        assert_eq!(slowest.interval, Duration::MAX);
        let rule = "limits.rpc_max_burst cannot be 4294967296. Must be at most 4294967295";
        assert_eq!(of(r#""rpc_max_burst": 4294967296"#), Err(rule.to_owned()));
        let typed = parse(r#"{"limits": {"rpc_rate": "4"}}"#).unwrap_err().to_string();
        let rule = "'limits.rpc_rate' expected type 'float64', got unconvertible type 'string'";
        assert!(typed.contains(rule), "{typed}");
    }

    #[test]
    fn a_server_is_told_that_only_clients_have_a_request_rate() {
        for (text, count) in [("{}", 0), (r#"{"limits": {"rpc_rate": 4}}"#, 1)] {
            let mut warnings = Vec::new();
            request_rate(&parse(text).unwrap().tuning, true, &mut warnings).unwrap();
            assert_eq!(warnings.len(), count, "{warnings:?}");
        }
    }

    #[test]
    fn an_identity_is_drawn_unless_the_hosts_is_wanted() {
        let of = |text: &str| host_node_id(&parse(text).unwrap().tuning);
        assert!(!of("{}") && !of(r#"{"disable_host_node_id": true}"#));
        assert!(of(r#"{"disable_host_node_id": false}"#));
    }

    #[test]
    fn what_is_kept_of_checks_is_limited() {
        let of = |text: &str| {
            check_output(&parse(text).unwrap().tuning).map_err(|error| error.to_string())
        };
        assert_eq!(of("{}"), Ok(OutputRules { bytes_max: 4096, discard: false }));
        let given = r#"{"check_output_max_size": 8192, "discard_check_output": true}"#;
        assert_eq!(of(given), Ok(OutputRules { bytes_max: 8192, discard: true }));
        for (number, rule) in [
            ("0", "must be positive, to discard check output use discard_check_output"),
            ("-1", "must be positive, to discard check output use discard_check_output"),
            ("65537", "cannot be 65537. Must be at most 65536"),
        ] {
            let error = of(&format!("{{\"check_output_max_size\": {number}}}")).unwrap_err();
            assert_eq!(error, format!("check_output_max_size {rule}"));
        }
    }
}
