//! Lays one source of settings over another (agent-config.md §2).
//!
//! A scalar of the later source wins, lists are appended, maps are merged key by key.

use super::Settings;

/// Lays `above` over `below`. A setting that stands in neither list does not compile.
pub fn overlay(below: &mut Settings, above: Settings) {
    macro_rules! lay {
        (later wins: $($scalar:ident),+; both stay: $($list:ident),+ $(;)?) => {
            let Settings { $($scalar,)+ $($list,)+ } = above;
            $(if $scalar.is_some() { below.$scalar = $scalar; })+
            $(below.$list.extend($list);)+
        };
    }
    lay!(
        later wins:
        server, bootstrap, bootstrap_expect, non_voting_server, autopilot_cleanup_dead_servers,
        autopilot_last_contact_threshold, autopilot_max_trailing_logs, autopilot_min_quorum,
        autopilot_server_stabilization_time, autopilot_dead_server_grace, data_dir, node_name,
        node_id, bind_addr, advertise_addr, advertise_addr_wan, serf_wan, client_addr, datacenter,
        domain, alt_domain, translate_wan_addrs, log_level, retry_interval, retry_max,
        retry_interval_wan, retry_max_wan, encrypt, encrypt_verify_incoming,
        encrypt_verify_outgoing, disable_keyring_file, disable_coordinates, disable_remote_exec,
        rejoin_after_leave, skip_leave_on_interrupt, leave_on_terminate, enable_script_checks,
        enable_local_script_checks, check_update_interval, reconnect_timeout, reconnect_timeout_wan,
        raft_multiplier, rpc_hold_timeout, session_ttl_min, default_query_time, max_query_time,
        discovery_max_stale, disable_http_unprintable_char_filter, http_max_conns_per_client,
        use_cache;
        both stay:
        addresses, ports, start_join, retry_join, start_join_wan, retry_join_wan, recursors,
        node_meta, gossip_durations, gossip_numbers, dns_switches, dns_numbers, dns_durations,
        dns_soa, dns_service_ttl, http_block_endpoints, http_allow_write_from,
        http_response_headers, host, network, telemetry, services, checks, watches, tuning, unbuilt;
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn every_setting_of_the_later_source_arrives() {
        let text = r#"{
            "server": true, "bootstrap": true, "bootstrap_expect": 3, "data_dir": "d",
            "node_name": "n", "node_id": "i", "bind_addr": "b", "advertise_addr": "a",
            "client_addr": "c", "addresses": {"http": "h"}, "ports": {"http": 1},
            "datacenter": "dc", "domain": "x", "log_level": "WARN", "start_join": ["s"],
            "retry_join": ["r"], "retry_interval": "1s", "retry_max": 2,
            "encrypt": "k", "encrypt_verify_incoming": false, "encrypt_verify_outgoing": false,
            "disable_keyring_file": true, "rejoin_after_leave": true, "disable_coordinates": true, "disable_remote_exec": false, "skip_leave_on_interrupt": true,
            "leave_on_terminate": true, "enable_script_checks": true,
            "enable_local_script_checks": true, "check_update_interval": "2s",
            "session_ttl_min": "20s", "default_query_time": "21s", "max_query_time": "22s",
            "discovery_max_stale": "23s", "disable_http_unprintable_char_filter": true,
            "http_config": {"block_endpoints": ["/v1/agent"], "response_headers": {"A": "b"},
                            "allow_write_http_from": ["127.0.0.0/8"]},
            "limits": {"http_max_conns_per_client": 5, "kv_max_value_size": 6,
                       "txn_max_req_len": 7, "rpc_max_conns_per_client": 8,
                       "rpc_rate": 9.5, "rpc_max_burst": 10,
                       "rpc_handshake_timeout": "11s"},
            "reconnect_timeout": "3s", "reconnect_timeout_wan": "9s", "advertise_addr_wan": "w",
            "serf_wan": "l", "start_join_wan": ["t"], "retry_join_wan": ["u"],
            "retry_interval_wan": "8s", "retry_max_wan": 3, "node_meta": {"k": "v"},
            "performance": {"raft_multiplier": 2, "rpc_hold_timeout": "4s",
                            "leave_drain_time": "12s"},
            "gossip_lan": {"gossip_interval": "5s", "gossip_nodes": 4},
            "dns_config": {"only_passing": true, "a_record_limit": 1, "node_ttl": "6s",
                           "service_ttl": {"*": "7s"}, "soa": {"retry": 7}},
            "alt_domain": "y", "recursors": ["z"], "translate_wan_addrs": true,
            "non_voting_server": true,
            "autopilot": {"cleanup_dead_servers": false, "last_contact_threshold": "1s",
                          "max_trailing_logs": 1, "min_quorum": 2, "dead_server_grace": "3s",
                          "server_stabilization_time": "2s"},
            "http_config": {"use_cache": false}, "log_file": "f", "log_json": true,
            "log_rotate_bytes": 1, "log_rotate_duration": "2h", "log_rotate_max_files": 3, "pid_file": "g",
            "unix_sockets": {"user": "i", "group": "j", "mode": "k"}, "enable_syslog": true, "syslog_facility": "h",
            "telemetry": {"metrics_prefix": "p", "disable_hostname": true,
                          "prometheus_retention_time": "1m", "prefix_filter": ["+p"],
                          "dogstatsd_tags": ["t"]},
            "services": [{"name": "s"}], "checks": [{"name": "c", "ttl": "8s"}],
            "tagged_addresses": {"a": "b"}, "serf_lan": "l",
            "serf_lan_allowed_cidrs": ["x"], "serf_wan_allowed_cidrs": ["y"],
            "check_output_max_size": 9, "raft_snapshot_interval": "9s",
            "discard_check_output": true, "disable_host_node_id": false,
            "watches": [{"type": "nodes", "handler": "h"}], "ui": true
        }"#;
        let above = parse(text).unwrap();
        let mut below = Settings::default();
        overlay(&mut below, above.clone());
        assert_eq!(below, above);
    }

    #[test]
    fn scalars_are_replaced_lists_appended_and_maps_merged() {
        let mut settings =
            parse(r#"{"datacenter": "a", "retry_join": ["x"], "ports": {"http": 1, "dns": 2}}"#)
                .unwrap();
        let above =
            parse(r#"{"datacenter": "b", "retry_join": ["y"], "ports": {"dns": 3}}"#).unwrap();
        overlay(&mut settings, above);
        assert_eq!(settings.datacenter.as_deref(), Some("b"));
        assert_eq!(settings.retry_join, ["x", "y"]);
        assert_eq!(settings.ports.get("http"), Some(&1));
        assert_eq!(settings.ports.get("dns"), Some(&3));
    }
}
