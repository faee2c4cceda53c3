//! Lays one source of settings over another (agent-config.md §2).
//!
//! A scalar of the later source wins, lists are appended, maps are merged key by key.

use super::Settings;

/// Lays `above` over `below`.
pub fn overlay(below: &mut Settings, above: Settings) {
    let Settings {
        server,
        bootstrap,
        bootstrap_expect,
        data_dir,
        node_name,
        node_id,
        bind_addr,
        advertise_addr,
        client_addr,
        addresses,
        ports,
        datacenter,
        domain,
        log_level,
        start_join,
        retry_join,
        retry_interval,
        retry_max,
        rejoin_after_leave,
        skip_leave_on_interrupt,
        leave_on_terminate,
        enable_script_checks,
        enable_local_script_checks,
        check_update_interval,
        reconnect_timeout,
        node_meta,
        raft_multiplier,
        rpc_hold_timeout,
        gossip_durations,
        gossip_numbers,
        dns_switches,
        dns_numbers,
        dns_node_ttl,
        dns_service_ttl,
        services,
        checks,
        unbuilt,
    } = above;
    macro_rules! later_wins {
        ($($field:ident),* $(,)?) => {
            $(if $field.is_some() { below.$field = $field; })*
        };
    }
    macro_rules! append {
        ($($field:ident),* $(,)?) => {
            $(below.$field.extend($field);)*
        };
    }
    later_wins!(
        server,
        bootstrap,
        bootstrap_expect,
        data_dir,
        node_name,
        node_id,
        bind_addr,
        advertise_addr,
        client_addr,
        datacenter,
        domain,
        log_level,
        retry_interval,
        retry_max,
        rejoin_after_leave,
        skip_leave_on_interrupt,
        leave_on_terminate,
        enable_script_checks,
        enable_local_script_checks,
        check_update_interval,
        reconnect_timeout,
        raft_multiplier,
        rpc_hold_timeout,
        dns_node_ttl,
    );
    append!(
        addresses,
        ports,
        start_join,
        retry_join,
        node_meta,
        gossip_durations,
        gossip_numbers,
        dns_switches,
        dns_numbers,
        dns_service_ttl,
        services,
        checks,
        unbuilt,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

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
