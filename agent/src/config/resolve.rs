//! Settled configuration: defaults filled in, every rule checked, addresses decided.
//!
//! Texts of refusals follow agent-config.md §3. What is only worth a warning is returned as one.

mod addresses;
mod dns;
mod gossip;
mod http;
mod listeners;
mod network;
mod tuning;

pub use dns::with_recursors;
pub use listeners::Listeners;

use self::network::Addresses;
use super::host::{HostConfig, host};
use super::telemetry::telemetry;
use super::{Safety, Settings};
use crate::watch::WatchDefinition;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;
use terraform_core::catalog::autopilot::AutopilotConfig;
use terraform_core::config::{
    Bootstrap, DEAD_SERVER_GRACE, NodeConfig, SerfConfig, ServerConfig, TOMBSTONE_TIME, WanConfig,
};
use terraform_core::dns::DnsConfig;
use terraform_core::id::{Datacenter, NodeId, NodeName, PoolName};
use terraform_core::local::definition::{CheckDefinition, ServiceDefinition};
use terraform_core::trace::Level;
use terraform_io::http::connection::ConnectionLimits;
use terraform_io::http::settings::HttpRules;
use terraform_io::interfaces::InterfaceAddress;
use terraform_io::resolve::parse as parse_address;
use terraform_io::telemetry::TelemetryConfig;
use thiserror::Error;

/// Everything the agent starts with.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the core is told.
    pub node: NodeConfig,
    /// The identity to use, if the operator gave one.
    pub node_id: Option<NodeId>,
    /// Whether a new data directory gets an identity of the machine.
    pub host_node_id: bool,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Whether the data directory goes away with the agent (`-dev`).
    pub temporary: bool,
    /// The address that gossip and the server port listen on.
    pub bind: IpAddr,
    /// The address that gossip of the LAN pool listens on.
    pub bind_lan: IpAddr,
    /// The address that gossip of the WAN pool listens on.
    pub bind_wan: IpAddr,
    /// The Serf WAN port; `None` if it is switched off. Only servers listen on it.
    pub serf_wan_port: Option<u16>,
    /// Where programs are served.
    pub listeners: Listeners,
    /// How DNS answers, but for the recursors, whose names are still to be looked up.
    pub dns_config: DnsConfig,
    /// Whom DNS asks about what is not its own.
    pub recursors: Vec<String>,
    /// Its log and the like.
    pub host: HostConfig,
    /// What is wanted of metrics.
    pub telemetry: TelemetryConfig,
    /// Whether reads may be answered from what is kept.
    pub use_cache: bool,
    /// The shortest TTL that a session may have.
    pub session_ttl_min: Duration,
    /// Who may ask for what over HTTP.
    pub http_rules: HttpRules,
    /// Connections to HTTP from one address.
    pub http_connections_per_client: usize,
    /// What a request over HTTP may cost.
    pub http_bytes: ConnectionLimits,
    /// Connections to the server port from one address.
    pub server_connections_per_client: usize,
    /// Whether programs may register script checks over HTTP.
    pub scripts_from_api: bool,
    /// Whether operators may have jobs run on this machine.
    pub remote_exec: bool,
    /// What to join in the LAN pool.
    pub joins: Joins,
    /// What to join in the WAN pool.
    pub joins_wan: Joins,
    /// Whether SIGINT leaves the cluster.
    pub leave_on_interrupt: bool,
    /// Whether SIGTERM leaves the cluster.
    pub leave_on_terminate: bool,
    /// What the agent watches.
    pub watches: Vec<WatchDefinition>,
    /// What is worth a warning, one line each.
    pub warnings: Vec<String>,
}

/// The shortest TTL of a session unless another is set (agent-config.md).
const SESSION_TTL_MIN: Duration = Duration::from_secs(10);

/// What to join in one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joins {
    /// Addresses to join once; none reached ends the agent.
    pub once: Vec<String>,
    /// Addresses to join until one is reached.
    pub again: Vec<String>,
    /// Time between such attempts.
    pub interval: Duration,
    /// How many attempts; 0 for no limit.
    pub max: u64,
}

/// Why a configuration was refused; nothing was started. The text names the key and the rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ResolveError(String);

type Checked<T> = Result<T, ResolveError>;

fn refuse<T>(text: impl Into<String>) -> Checked<T> {
    Err(ResolveError(text.into()))
}

/// What the machine says, handed in so that the rules can be tested without it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its host name.
    pub host_name: String,
    /// The source address it uses towards the outside.
    pub route_source: Option<IpAddr>,
    /// The addresses of its interfaces, or why they are not known.
    pub interfaces: Result<Vec<InterfaceAddress>, String>,
    /// Processors.
    pub processors: usize,
    /// The folder for temporary data.
    pub temporary: PathBuf,
}

/// Settles `settings`; `dev` is the development mode.
pub fn resolve(settings: Settings, dev: bool, machine: &Machine) -> Checked<Resolved> {
    let mut warnings = Vec::new();
    unbuilt(&settings, &mut warnings)?;
    let is_server = settings.server.unwrap_or(false) || dev;
    let bootstrap = bootstrap(&settings, is_server, dev)?;
    let (data_dir, temporary) = data_dir(&settings, dev, machine)?;
    let at = network::decide(&settings, dev, machine, &mut warnings)?;
    let ports = Ports::of(&settings)?;
    let level = level(&settings, dev)?;
    let listeners = listeners::listeners(&settings, machine)?;
    let (scripts_from_api, node_id) = (scripts(&settings, &mut warnings)?, node_id(&settings)?);
    let datacenter = datacenter(&settings)?;
    let dns_config = dns::config(&settings, &mut warnings)?;
    let telemetry = telemetry(&settings.telemetry, &machine.host_name, &mut warnings);
    let telemetry = telemetry.map_err(|(key, e)| ResolveError(format!("telemetry.{key}: {e}")))?;
    let gossip_config = gossip::gossip(&settings, (PoolName::Lan, at.advertise), dev)?;
    let wan = wan(&settings, is_server, (&ports, &at), dev)?;
    let (joins, joins_wan) = (joins_lan(&settings)?, joins_wan(&settings)?);
    let (http_rules, http_connections_per_client, http_bytes) = http::settle(&settings)?;
    let node = NodeConfig {
        name: node_name(&settings, machine, &mut warnings)?,
        datacenter,
        advertise: at.advertise,
        advertise_wan: at.advertise_wan,
        tagged_addresses: at.tagged,
        serf_lan_port: ports.serf_lan,
        server_port: ports.server,
        server: server(&settings, is_server, bootstrap, wan)?,
        serf: gossip::serf(&settings, &gossip_config),
        gossip: gossip_config,
        node_meta: node_meta(&settings.node_meta)?,
        rpc_hold: settings.rpc_hold_timeout.unwrap_or(Duration::from_secs(7)),
        rpc_rate: tuning::request_rate(&settings.tuning, is_server, &mut warnings)?,
        check_update_interval: settings.check_update_interval.unwrap_or(Duration::from_secs(300)),
        check_output: tuning::check_output(&settings.tuning)?,
        level,
        services: settings.services,
        checks: settings.checks,
    };
    bootstrap_warnings(bootstrap, is_server, &mut warnings);
    machine_warnings(machine, &mut warnings);
    Ok(Resolved {
        session_ttl_min: settings.session_ttl_min.unwrap_or(SESSION_TTL_MIN),
        node,
        node_id,
        host_node_id: tuning::host_node_id(&settings.tuning),
        data_dir,
        temporary,
        bind: at.bind,
        bind_lan: at.bind_lan,
        bind_wan: at.bind_wan,
        serf_wan_port: ports.serf_wan,
        listeners,
        dns_config,
        http_rules,
        http_connections_per_client,
        http_bytes,
        server_connections_per_client: tuning::server_connections(&settings.tuning)?,
        recursors: settings.recursors,
        host: host(&settings.host).map_err(ResolveError)?,
        watches: settings.watches,
        telemetry,
        use_cache: settings.use_cache.unwrap_or(true),
        scripts_from_api,
        remote_exec: !settings.disable_remote_exec.unwrap_or(true),
        joins,
        joins_wan,
        leave_on_interrupt: !settings.skip_leave_on_interrupt.unwrap_or(false),
        leave_on_terminate: settings.leave_on_terminate.unwrap_or(!is_server),
        warnings,
    })
}

/// Refuses settings whose absence would be unsafe, warns of the others (DESIGN.md §8).
fn unbuilt(settings: &Settings, warnings: &mut Vec<String>) -> Checked<()> {
    for unbuilt in &settings.unbuilt {
        let key = &unbuilt.key;
        match unbuilt.safety {
            Safety::LessSafe => {
                return refuse(format!(
                    "{key} is not built yet: the agent would be less safe than this setting says"
                ));
            }
            Safety::Harmless => warnings.push(format!("{key} is not built yet and has no effect")),
        }
    }
    Ok(())
}

fn bootstrap(settings: &Settings, is_server: bool, dev: bool) -> Checked<Bootstrap> {
    let alone = settings.bootstrap.unwrap_or(false);
    let expect = settings.bootstrap_expect.unwrap_or(0);
    if expect < 0 {
        return refuse(format!(
            "bootstrap_expect cannot be {expect}. Must be greater than or equal to zero"
        ));
    }
    if alone && !is_server {
        return refuse("'bootstrap = true' requires 'server = true'");
    }
    if expect > 0 && !is_server {
        return refuse("'bootstrap_expect > 0' requires 'server = true'");
    }
    if alone && expect > 0 {
        return refuse("'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive");
    }
    match u32::try_from(expect) {
        Ok(0) if alone || dev => Ok(Bootstrap::Alone),
        Ok(0) => Ok(Bootstrap::Join),
        Ok(1) => Ok(Bootstrap::Alone),
        Ok(expect) if expect <= 64 => Ok(Bootstrap::Expect(expect)),
        _ => refuse(format!("bootstrap_expect cannot be {expect}. Must be at most 64")),
    }
}

/// What only servers have; checked on every agent.
fn server(
    settings: &Settings,
    is_server: bool,
    bootstrap: Bootstrap,
    wan: Option<WanConfig>,
) -> Checked<Option<ServerConfig>> {
    let config = ServerConfig {
        bootstrap,
        votes: votes(settings, is_server, bootstrap)?,
        autopilot: autopilot(settings)?,
        dead_server_grace: settings.autopilot_dead_server_grace.unwrap_or(DEAD_SERVER_GRACE),
        tombstone_time: TOMBSTONE_TIME,
        raft_multiplier: multiplier(settings)?,
        limits: tuning::raft(&settings.tuning)?,
        handshake: tuning::handshake(&settings.tuning),
        leave_drain: tuning::leave_drain(&settings.tuning)?,
        wan,
    };
    Ok(is_server.then_some(config))
}

/// Whether a server is to vote.
fn votes(settings: &Settings, is_server: bool, bootstrap: Bootstrap) -> Checked<bool> {
    let spare = settings.non_voting_server.unwrap_or(false);
    if spare && !is_server {
        return refuse("'non_voting_server = true' requires 'server = true'");
    }
    if spare && bootstrap == Bootstrap::Alone {
        return refuse(
            "'non_voting_server = true' and a bootstrap alone are mutually exclusive: somebody \
             must vote",
        );
    }
    Ok(!spare)
}

/// How servers are cared for until that is stored.
fn autopilot(settings: &Settings) -> Checked<AutopilotConfig> {
    let default = AutopilotConfig::default();
    let number = |key: &str, given: Option<i64>, default: u64| match given.map(u64::try_from) {
        None => Ok(default),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => refuse(format!(
            "autopilot.{key} cannot be {}. Must be greater than or equal to zero",
            given.unwrap_or_default()
        )),
    };
    let trailing = settings.autopilot_max_trailing_logs;
    let (cleanup, contact) =
        (settings.autopilot_cleanup_dead_servers, settings.autopilot_last_contact_threshold);
    let stabilization = settings.autopilot_server_stabilization_time;
    Ok(AutopilotConfig {
        cleanup_dead_servers: cleanup.unwrap_or(default.cleanup_dead_servers),
        last_contact_threshold: contact.unwrap_or(default.last_contact_threshold),
        max_trailing_logs: number("max_trailing_logs", trailing, default.max_trailing_logs)?,
        min_quorum: number("min_quorum", settings.autopilot_min_quorum, default.min_quorum)?,
        server_stabilization_time: stabilization.unwrap_or(default.server_stabilization_time),
    })
}

fn machine_warnings(machine: &Machine, warnings: &mut Vec<String>) {
    if machine.processors <= 1 {
        warnings.push("It is highly recommended to run on more than 1 CPU".to_owned());
    }
}

fn bootstrap_warnings(bootstrap: Bootstrap, is_server: bool, warnings: &mut Vec<String>) {
    match bootstrap {
        Bootstrap::Alone if is_server => {
            warnings.insert(0, "Bootstrap mode enabled! Do not enable unless necessary".to_owned());
        }
        Bootstrap::Expect(expect) => {
            warnings.insert(0, format!("Expect Mode enabled, expecting {expect} servers"));
            if expect % 2 == 0 {
                let text = "A cluster with an even number of servers tolerates no more failures \
                            than one with a server less";
                warnings.push(text.to_owned());
            }
        }
        Bootstrap::Alone | Bootstrap::Join => {}
    }
}

/// The identity that the operator gave.
fn node_id(settings: &Settings) -> Checked<Option<NodeId>> {
    let Some(text) = settings.node_id.as_deref().filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    NodeId::parse(text).map(Some).or_else(|_| {
        let rule = match text.len() {
            36 => "uuid is improperly formatted",
            _ => "uuid string is wrong length",
        };
        refuse(format!("failed to setup node ID: specified NodeID is invalid: {rule}"))
    })
}

fn data_dir(settings: &Settings, dev: bool, machine: &Machine) -> Checked<(PathBuf, bool)> {
    match settings.data_dir.as_deref().unwrap_or_default() {
        "" if dev => Ok((machine.temporary.clone(), true)),
        "" => refuse("data_dir cannot be empty"),
        path => {
            let path = PathBuf::from(path);
            if path.exists() && !path.is_dir() {
                return refuse(format!("data_dir {:?} is not a directory", path.display()));
            }
            Ok((path, false))
        }
    }
}

fn bind(settings: &Settings, dev: bool, machine: &Machine) -> Checked<IpAddr> {
    let default = if dev { "127.0.0.1" } else { "0.0.0.0" };
    let text = settings.bind_addr.as_deref().unwrap_or(default);
    addresses::single("bind_addr", text, machine)
}

/// Decides the address other agents reach this one at (DESIGN.md §8).
fn advertise(
    settings: &Settings,
    bind: IpAddr,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Checked<IpAddr> {
    if let Some(text) = settings.advertise_addr.as_deref().filter(|text| !text.is_empty()) {
        let address = addresses::single("advertise_addr", text, machine)?;
        if address.is_unspecified() {
            return refuse("Advertise address cannot be 0.0.0.0, :: or [::]");
        }
        return Ok(address);
    }
    if !bind.is_unspecified() {
        return Ok(bind);
    }
    match machine.route_source {
        Some(address) if is_private(address) => Ok(address),
        Some(address) => refuse(format!(
            "No private IP address found: this machine reaches others from {address}, which is \
             public. Choose an address with -bind or -advertise. {}",
            addresses::candidates(machine)
        )),
        None => {
            warnings.push(format!(
                "No route to other machines: advertising 127.0.0.1, which only agents on this \
                 machine can reach; choose another address with -bind or -advertise. {}",
                addresses::candidates(machine)
            ));
            Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
    }
}

/// Addresses that the public network does not route: private, shared, link-local, loopback, and
/// those set aside for documentation and benchmarks (RFC 1918, 6598, 3927, 4193, 5737, 2544).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let benchmark = first == 198 && (second == 18 || second == 19);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local();
            local || shared || benchmark || v4.is_documentation()
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What is to be joined in the LAN pool.
fn joins_lan(settings: &Settings) -> Checked<Joins> {
    let keys = ["start_join", "retry_join", "retry_interval", "retry_max"];
    let lists = (settings.start_join.as_slice(), settings.retry_join.as_slice());
    joins(keys, lists, (settings.retry_interval, settings.retry_max))
}

/// What is to be joined in the WAN pool.
fn joins_wan(settings: &Settings) -> Checked<Joins> {
    let keys = ["start_join_wan", "retry_join_wan", "retry_interval_wan", "retry_max_wan"];
    let lists = (settings.start_join_wan.as_slice(), settings.retry_join_wan.as_slice());
    joins(keys, lists, (settings.retry_interval_wan, settings.retry_max_wan))
}

fn joins(
    [once_key, again_key, interval_key, max_key]: [&str; 4],
    (once, again): (&[String], &[String]),
    (interval, max): (Option<Duration>, Option<i64>),
) -> Checked<Joins> {
    for (key, texts) in [(once_key, once), (again_key, again)] {
        for text in texts {
            // The port does not matter here.
            parse_address(text, 0).map_err(|error| ResolveError(format!("{key}: {error}")))?;
        }
    }
    let interval = interval.unwrap_or(Duration::from_secs(30));
    if interval.is_zero() {
        return refuse(format!("{interval_key} cannot be 0s. Must be greater than zero"));
    }
    let max = max.unwrap_or(0);
    let Ok(max) = u64::try_from(max) else {
        return refuse(format!("{max_key} cannot be {max}. Must be greater than or equal to zero"));
    };
    Ok(Joins { once: once.to_vec(), again: again.to_vec(), interval, max })
}

/// Where gossip of the WAN pool listens, and where other datacenters reach this agent.
fn wan_addresses(
    settings: &Settings,
    (bind, advertise): (IpAddr, IpAddr),
    machine: &Machine,
) -> Checked<(IpAddr, IpAddr)> {
    let given = |key, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| addresses::single(key, text, machine)).transpose()
    };
    let listen = given("serf_wan", &settings.serf_wan)?.unwrap_or(bind);
    match given("advertise_addr_wan", &settings.advertise_addr_wan)? {
        Some(address) if address.is_unspecified() => {
            refuse("Advertise WAN address cannot be 0.0.0.0, :: or [::]")
        }
        Some(address) => Ok((listen, address)),
        None => Ok((listen, advertise)),
    }
}

/// How a server takes part in the WAN pool; refuses joins of agents that cannot.
fn wan(
    settings: &Settings,
    is_server: bool,
    (ports, at): (&Ports, &Addresses),
    dev: bool,
) -> Checked<Option<WanConfig>> {
    let lists = [
        ("start_join_wan", &settings.start_join_wan),
        ("retry_join_wan", &settings.retry_join_wan),
    ];
    if let Some((key, _)) = lists.iter().find(|(_, list)| !list.is_empty()) {
        if !is_server {
            return refuse(format!("'{key}' requires 'server = true'"));
        }
        if ports.serf_wan.is_none() {
            return refuse(format!("'{key}' requires ports.serf_wan, which is switched off"));
        }
    }
    let Some(port) = ports.serf_wan.filter(|_| is_server) else { return Ok(None) };
    let taken = [("serf_lan", at.bind_lan, ports.serf_lan), ("server", at.bind, ports.server)];
    if let Some((other, ..)) = taken.iter().find(|taken| (taken.1, taken.2) == (at.bind_wan, port))
    {
        return refuse(format!("ports.serf_wan: {port} is already ports.{other}"));
    }
    let gossip = gossip::gossip(settings, (PoolName::Wan, at.advertise_wan), dev)?;
    let mut serf = SerfConfig { gossip_interval: gossip.gossip_interval, ..SerfConfig::wan() };
    serf.rejoin_after_leave = settings.rejoin_after_leave.unwrap_or(false);
    serf.coordinates = !settings.disable_coordinates.unwrap_or(false);
    if let Some(timeout) = settings.reconnect_timeout_wan {
        serf.reconnect_timeout = timeout;
    }
    Ok(Some(WanConfig { port, gossip, serf }))
}

fn datacenter(settings: &Settings) -> Checked<Datacenter> {
    let text = settings.datacenter.as_deref().unwrap_or("dc1");
    Datacenter::parse(text).or_else(|_| {
        let given = text.to_ascii_lowercase();
        refuse(format!("datacenter cannot be {given:?}. Please use only [a-z0-9-_]"))
    })
}

/// Whether programs may register script checks; refuses those of files that may not run.
fn scripts(settings: &Settings, warnings: &mut Vec<String>) -> Checked<bool> {
    let from_api = settings.enable_script_checks == Some(true);
    let allowed = from_api || settings.enable_local_script_checks == Some(true);
    scripts_allowed(&settings.services, &settings.checks, allowed)?;
    if from_api {
        warnings.push(
            "enable_script_checks: every program that reaches the HTTP interface can run commands"
                .to_owned(),
        );
    }
    Ok(from_api)
}

/// A port setting; `None` if it switches the listener off.
fn port(settings: &Settings, name: &str, default: u16) -> Checked<Option<u16>> {
    match settings.ports.get(name) {
        None => Ok(Some(default)),
        Some(port) if *port <= 0 => Ok(None),
        Some(port) => match u16::try_from(*port) {
            Ok(port) => Ok(Some(port)),
            Err(_) => refuse(format!("ports.{name}: invalid port: {port}")),
        },
    }
}

/// The ports between agents; only that of the WAN pool can be switched off.
struct Ports {
    serf_lan: u16,
    serf_wan: Option<u16>,
    server: u16,
}

impl Ports {
    fn of(settings: &Settings) -> Checked<Self> {
        let needed = |name: &str, default| match port(settings, name, default)? {
            Some(port) => Ok(port),
            None => refuse(format!("ports.{name}: invalid port: it cannot be switched off")),
        };
        let serf_wan = port(settings, "serf_wan", 8302)?;
        let ports =
            Self { serf_lan: needed("serf_lan", 8301)?, serf_wan, server: needed("server", 8300)? };
        if ports.serf_lan == ports.server {
            return refuse(format!("ports.server: {} is already ports.serf_lan", ports.server));
        }
        Ok(ports)
    }
}

fn level(settings: &Settings, dev: bool) -> Checked<Level> {
    let text = settings.log_level.as_deref().unwrap_or(if dev { "DEBUG" } else { "INFO" });
    Level::parse(text).map_or_else(
        || {
            let known = "[TRACE DEBUG INFO WARN ERR ERROR]";
            refuse(format!("Invalid log level: {text}. Valid log levels are: {known}"))
        },
        Ok,
    )
}

fn node_name(
    settings: &Settings,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Checked<NodeName> {
    let text = settings.node_name.as_deref().unwrap_or(&machine.host_name);
    let name = NodeName::parse(text.trim())
        .map_err(|error| ResolveError(format!("node_name: {error}")))?;
    if name.as_str().contains('.') {
        warnings.push(format!(
            "Node name {text:?} holds dots, which not every resolver passes on; set another with \
             -node"
        ));
    } else if !name.is_dns_label() {
        warnings.push(format!(
            "Node name {text:?} will not be discoverable via DNS: use up to 63 alpha-numerics and \
             dashes, set with -node"
        ));
    }
    Ok(name)
}

fn multiplier(settings: &Settings) -> Checked<u32> {
    let given = settings.raft_multiplier.unwrap_or(1);
    match u32::try_from(given) {
        Ok(multiplier @ 1..=10) => Ok(multiplier),
        _ => refuse(format!(
            "performance.raft_multiplier cannot be {given}. Must be between 1 and 10"
        )),
    }
}

fn node_meta(meta: &BTreeMap<String, String>) -> Checked<BTreeMap<String, String>> {
    if meta.len() > 64 {
        return refuse(
            "node_meta invalid: Node metadata cannot contain more than 64 key/value pairs",
        );
    }
    for (key, value) in meta {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let rule = if key.is_empty() {
            "Key cannot be blank"
        } else if !key.chars().all(legal) {
            "Key contains invalid characters"
        } else if key.len() > 128 {
            "Key is too long (limit: 128 characters)"
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use"
        } else if value.len() > 512 {
            "Value is too long (limit: 512 characters)"
        } else {
            continue;
        };
        return refuse(format!(
            "node_meta invalid: Couldn't load metadata pair ('{key}', '{value}'): {rule}"
        ));
    }
    Ok(meta.clone())
}

fn scripts_allowed(
    services: &[ServiceDefinition],
    checks: &[CheckDefinition],
    allowed: bool,
) -> Checked<()> {
    let of_services = services.iter().flat_map(|service| &service.checks);
    let script = |check: &&CheckDefinition| check.kind.starts_programs();
    match of_services.chain(checks).find(script) {
        Some(check) if !allowed => refuse(format!(
            "check {:?}: Scripts are disabled on this agent; to enable, configure \
             'enable_script_checks' or 'enable_local_script_checks' to true",
            check.id
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
