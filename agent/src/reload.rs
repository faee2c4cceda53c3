//! Reading the configuration again while the agent runs.
//!
//! Services, checks, watches, whether outputs of checks are kept, node metadata, the log level, how
//! DNS answers, which metrics are collected, how many connections to HTTP one client may have and
//! how many requests a client agent sends to servers may change; whatever else changed in the files
//! is named and waits for a restart. What the new configuration is warned of is told as at the
//! start. A configuration that is refused changes nothing (agent-config.md §5).

use crate::cli::Sources;
use crate::config::{Resolved, with_recursors};
use crate::logger::Console;
use crate::watch::Watches;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use terraform_core::dns::DnsConfig;
use terraform_core::dns::name::Name;
use terraform_core::node::request::{Reloadable, Request, RequestBody};
use terraform_core::trace::Level;
use terraform_io::handle::NodeHandle;
use terraform_io::http::settings::HttpRules;
use terraform_io::log::Record;
use terraform_io::telemetry::{Filter, TelemetryConfig};

/// What a reload works on; clones share it.
#[derive(Clone)]
pub(crate) struct Reloading {
    shared: Arc<Shared>,
}

struct Shared {
    sources: Sources,
    /// What the agent was started with.
    started: Resolved,
    console: Arc<Console>,
    /// The node and the watches of the agent, once it runs.
    agent: OnceLock<(NodeHandle, Watches)>,
    dns: Arc<ArcSwap<DnsConfig>>,
    node_meta: Arc<ArcSwap<BTreeMap<String, String>>>,
    http_connections: Arc<AtomicUsize>,
}

impl Reloading {
    /// A reload of `sources` for an agent started as `resolved` says, whose DNS answers as `dns`
    /// says.
    pub(crate) fn new(
        sources: Sources,
        (resolved, dns): (&Resolved, DnsConfig),
        console: Arc<Console>,
    ) -> Self {
        let dns = Arc::new(ArcSwap::from_pointee(dns));
        let node_meta = Arc::new(ArcSwap::from_pointee(resolved.node.node_meta.clone()));
        let http_connections = Arc::new(AtomicUsize::new(resolved.http_connections_per_client));
        let started = resolved.clone();
        let agent = OnceLock::new();
        let shared = Shared { sources, started, console, agent, dns, node_meta, http_connections };
        Self { shared: Arc::new(shared) }
    }

    /// Tells which node and which watches to reload.
    pub(crate) fn attach(&self, handle: NodeHandle, watches: Watches) {
        // A reload belongs to one agent; it is attached once.
        let _ = self.shared.agent.set((handle, watches));
    }

    /// Ends the watches and what they run.
    pub(crate) async fn end_watches(&self) {
        if let Some((_, watches)) = self.shared.agent.get() {
            watches.end().await;
        }
    }

    /// How DNS answers, replaced at each reload.
    pub(crate) fn dns(&self) -> &Arc<ArcSwap<DnsConfig>> {
        &self.shared.dns
    }

    /// The node's metadata, replaced at each reload.
    pub(crate) fn node_meta(&self) -> Arc<ArcSwap<BTreeMap<String, String>>> {
        Arc::clone(&self.shared.node_meta)
    }

    /// Connections to HTTP from one address, replaced at each reload.
    pub(crate) fn http_connections(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.shared.http_connections)
    }

    /// Reads the configuration again and applies what may change.
    ///
    /// - Errors: the text for the operator; the old configuration stays in force.
    pub(crate) async fn reload(&self) -> Result<(), String> {
        let shared = &self.shared;
        let started = shared.agent.get().ok_or("cannot reload before agent started")?;
        let (handle, watches) = started;
        let resolved = shared.sources.resolve()?;
        let dns = with_recursors(resolved.dns_config.clone(), &resolved.recursors).await;
        let dns = dns.map_err(|error| error.to_string())?;
        let reloadable = Reloadable {
            services: resolved.node.services.clone(),
            checks: resolved.node.checks.clone(),
            node_meta: resolved.node.node_meta.clone(),
            discard_check_output: resolved.node.check_output.discard,
            rpc_rate: resolved.node.rpc_rate,
            level: resolved.node.level,
        };
        let request = Request::new(RequestBody::Reload(Box::new(reloadable)));
        handle.request(request).await.map_err(|error| error.to_string())?;
        for warning in &resolved.warnings {
            shared.console.say(&Record { level: Level::Warn, subsystem: "agent", text: warning });
        }
        for key in needs_restart(&shared.started, &resolved) {
            let text = format!("{key} changed and takes effect after a restart");
            shared.console.say(&Record { level: Level::Warn, subsystem: "agent", text: &text });
        }
        shared.console.set_level(resolved.node.level);
        shared.http_connections.store(resolved.http_connections_per_client, Ordering::Relaxed);
        shared.node_meta.store(Arc::new(resolved.node.node_meta));
        // Names that were given out stay valid until a restart (dns.md §8).
        let DnsConfig { domain, alt_domain, translate_wan_addrs, .. } =
            shared.started.dns_config.clone();
        shared.dns.store(Arc::new(DnsConfig { domain, alt_domain, translate_wan_addrs, ..dns }));
        watches.set(resolved.watches).await;
        let filter = resolved.telemetry.filter;
        handle.metrics().configure(TelemetryConfig { filter, ..shared.started.telemetry.clone() });
        Ok(())
    }
}

/// What makes up the settings that only servers have.
const SERVER_KEYS: &str = "autopilot, bootstrap, bootstrap_expect, non_voting_server, gossip_wan, \
    serf_wan_allowed_cidrs, limits.rpc_handshake_timeout, raft_snapshot_interval, \
    raft_snapshot_threshold, raft_trailing_logs, performance.leave_drain_time, \
    performance.raft_multiplier or reconnect_timeout_wan";

/// The keys whose value differs from what the agent was started with and cannot change.
fn needs_restart(started: &Resolved, now: &Resolved) -> Vec<&'static str> {
    let (a, b) = (&started.node, &now.node);
    let (old, new) = (&started.listeners, &now.listeners);
    let differs = [
        ("advertise_addr", a.advertise != b.advertise),
        ("advertise_addr_wan", a.advertise_wan != b.advertise_wan),
        ("bind_addr", started.bind != now.bind),
        (SERVER_KEYS, a.server != b.server),
        ("check_output_max_size", a.check_output.bytes_max != b.check_output.bytes_max),
        ("check_update_interval", a.check_update_interval != b.check_update_interval),
        ("data_dir", !now.temporary && started.data_dir != now.data_dir),
        ("datacenter", a.datacenter != b.datacenter),
        ("disable_remote_exec", started.remote_exec != now.remote_exec),
        (
            "domain, alt_domain or translate_wan_addrs",
            zones(&started.dns_config) != zones(&now.dns_config),
        ),
        (
            "gossip_lan, encrypt, encrypt_verify_incoming, encrypt_verify_outgoing or \
             disable_keyring_file, or serf_lan_allowed_cidrs",
            a.gossip != b.gossip,
        ),
        (
            "http_config, default_query_time, max_query_time, discovery_max_stale or \
             disable_http_unprintable_char_filter",
            rules(started) != rules(now),
        ),
        (
            "limits.kv_max_value_size or limits.txn_max_req_len",
            started.http_bytes != now.http_bytes,
        ),
        (
            "limits.rpc_max_conns_per_client",
            started.server_connections_per_client != now.server_connections_per_client,
        ),
        (
            "log_file, log_json, log_rotate_bytes, log_rotate_duration, log_rotate_max_files, \
             enable_syslog or syslog_facility",
            started.host.log != now.host.log,
        ),
        ("node_name", a.name != b.name),
        (
            "node_id or disable_host_node_id",
            (started.node_id, started.host_node_id) != (now.node_id, now.host_node_id),
        ),
        ("pid_file", started.host.pid_file != now.host.pid_file),
        ("performance.rpc_hold_timeout", a.rpc_hold != b.rpc_hold),
        ("session_ttl_min", started.session_ttl_min != now.session_ttl_min),
        ("client_addr, addresses.dns or ports.dns", old.dns != new.dns),
        ("client_addr, addresses.http, unix_sockets or ports.http", old.http != new.http),
        ("client_addr, addresses.rpc or ports.rpc", old.rpc != new.rpc),
        ("ports.serf_lan", a.serf_lan_port != b.serf_lan_port),
        ("ports.serf_wan", started.serf_wan_port != now.serf_wan_port),
        ("ports.server", a.server_port != b.server_port),
        ("reconnect_timeout, disable_coordinates or rejoin_after_leave", a.serf != b.serf),
        ("retry_join", started.joins.again != now.joins.again),
        ("retry_join_wan", started.joins_wan.again != now.joins_wan.again),
        ("http_config.use_cache", started.use_cache != now.use_cache),
        ("serf_lan", started.bind_lan != now.bind_lan),
        (
            "tagged_addresses, advertise_addr_ipv4, advertise_addr_ipv6, advertise_addr_wan_ipv4 or \
             advertise_addr_wan_ipv6",
            a.tagged_addresses != b.tagged_addresses,
        ),
        ("serf_wan", started.bind_wan != now.bind_wan),
        ("telemetry", without_filter(started) != without_filter(now)),
    ];
    differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// What of DNS cannot change.
const fn zones(dns: &DnsConfig) -> (&Name, Option<&Name>, bool) {
    (&dns.domain, dns.alt_domain.as_ref(), dns.translate_wan_addrs)
}

/// What is wanted of the HTTP interface, without the setting that is told of with DNS.
fn rules(resolved: &Resolved) -> HttpRules {
    HttpRules { translates_wan_addresses: false, ..resolved.http_rules.clone() }
}

/// What is wanted of metrics, as far as it cannot change.
fn without_filter(resolved: &Resolved) -> TelemetryConfig {
    TelemetryConfig { filter: Filter::default(), ..resolved.telemetry.clone() }
}
