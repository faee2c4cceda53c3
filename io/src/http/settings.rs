//! What the HTTP interface is told once: facts it shows, switches, and limits.

use super::connection::ConnectionLimits;
use crate::log::LogRing;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use terraform_core::node::request::{WAIT_DEFAULT, WAIT_MAX};

/// Re-reads the configuration; the error is shown to whoever asked.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> ReloadFuture + Send + Sync>);

type ReloadFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Reload {
    /// A reload that runs `start` each time.
    pub fn new<F>(start: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(start())))
    }

    /// Re-reads the configuration once.
    pub fn run(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// The ports of the agent; `None` for what is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTP.
    pub http: Option<u16>,
    /// DNS.
    pub dns: Option<u16>,
    /// The local control protocol.
    pub rpc: Option<u16>,
    /// Serf LAN; also the default port of a join.
    pub serf_lan: u16,
    /// Serf WAN; also the default port of a join there.
    pub serf_wan: Option<u16>,
    /// The servers' own.
    pub server: u16,
}

/// Facts about the agent that do not change while it runs, but for the metadata.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether it is a server.
    pub server: bool,
    /// Whether it bootstraps alone.
    pub bootstrap: bool,
    /// Servers expected; 0 if it was not said.
    pub bootstrap_expect: u32,
    /// The API's level, `1.8.7`.
    pub version: &'static str,
    /// The address it binds to.
    pub bind: IpAddr,
    /// The address that gossip of its datacenter listens on.
    pub bind_lan: IpAddr,
    /// The node's tagged addresses.
    pub tagged_addresses: BTreeMap<String, String>,
    /// The address agents of its datacenter reach it at.
    pub advertise: IpAddr,
    /// The address other datacenters reach it at.
    pub advertise_wan: IpAddr,
    /// The addresses it serves programs at.
    pub client_addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Ports,
    /// The DNS zone, with its final dot.
    pub domain: String,
    /// The data directory; empty without one.
    pub data_dir: String,
    /// Whether members tell where they are (`disable_coordinates`).
    pub coordinates: bool,
    /// The node's metadata; whoever reloads stores the new one.
    pub node_meta: Arc<ArcSwap<BTreeMap<String, String>>>,
}

/// Connections of one address at once unless another number is set.
pub const CONNECTIONS_PER_CLIENT: usize = 200;

/// What connections may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of a request.
    pub bytes: ConnectionLimits,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a connection may wait for its next request.
    pub idle_time: Duration,
    /// How long a request's head may take from its first byte.
    pub head_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// How long a client may take to accept an answer.
    pub write_time: Duration,
}

impl Default for ServerLimits {
    /// 512 KiB of body, 16,384 connections, 5 min idle, 10 s of head, 60 s of body, 60 s of answer.
    fn default() -> Self {
        Self {
            bytes: ConnectionLimits::default(),
            connections_max: 16_384,
            idle_time: Duration::from_secs(300),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(60),
        }
    }
}

/// Who may ask for what, and what every answer carries (agent-config.md §5, http-api.md §1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRules {
    /// Paths that begin like one of these are blocked (`http_config.block_endpoints`).
    pub blocked: Vec<String>,
    /// From where changes are taken; empty for everywhere (`http_config.allow_write_http_from`).
    pub writers: Vec<IpNet>,
    /// Header fields of every answer, each with its line end (`http_config.response_headers`).
    pub headers: String,
    /// How long a read waits for a change if it does not say (`default_query_time`).
    pub wait_default: Duration,
    /// How long it waits at most (`max_query_time`), not above [`WAIT_MAX`].
    pub wait_max: Duration,
    /// How old answers of the catalog and of health may be that do not ask for more, from any
    /// server; `None` for the leader's (`discovery_max_stale`).
    pub discovery_max_stale: Option<Duration>,
    /// Whether rows of other datacenters are shown with their `wan` addresses
    /// (`translate_wan_addrs`).
    pub translates_wan_addresses: bool,
    /// Whether paths with unprintable characters are taken
    /// (`disable_http_unprintable_char_filter`).
    pub takes_unprintable: bool,
}

impl Default for HttpRules {
    /// Everything is allowed to everybody.
    fn default() -> Self {
        Self {
            blocked: Vec::new(),
            writers: Vec::new(),
            headers: String::new(),
            wait_default: WAIT_DEFAULT,
            wait_max: WAIT_MAX,
            discovery_max_stale: None,
            translates_wan_addresses: false,
            takes_unprintable: false,
        }
    }
}

impl HttpRules {
    /// Whether a path is blocked.
    pub fn blocks(&self, path: &str) -> bool {
        self.blocked.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Whether a change is taken from this address. A peer without one, on a unix socket, is in
    /// no network: where networks are listed, its changes are refused.
    pub fn takes_writes_of(&self, address: Option<IpAddr>) -> bool {
        let listed = |address: IpAddr| {
            self.writers.iter().any(|network| network.contains(&address.to_canonical()))
        };
        self.writers.is_empty() || address.is_some_and(listed)
    }
}

/// Everything the HTTP interface is told.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// What it shows.
    pub facts: Facts,
    /// Whether programs may register script checks (`enable_script_checks`).
    pub remote_script_checks: bool,
    /// The shortest TTL that a session may have (`session_ttl_min`).
    pub session_ttl_min: Duration,
    /// Whether `cached` is acted on (`http_config.use_cache`).
    pub use_cache: bool,
    /// How the configuration is read again; `None` answers 501.
    pub reload: Option<Reload>,
    /// Who may ask for what.
    pub rules: HttpRules,
    /// What connections may cost.
    pub limits: ServerLimits,
    /// Connections of one address at once (`limits.http_max_conns_per_client`); whoever reloads
    /// stores the new number.
    pub connections_per_client_max: Arc<AtomicUsize>,
    /// The log, for those who watch it.
    pub logs: Arc<LogRing>,
    /// The folder of bodies that are too large for memory; made when one comes.
    pub scratch: PathBuf,
}
