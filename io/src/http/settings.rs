//! What the HTTP interface is told once: facts it shows, switches, and limits.

use super::connection::ConnectionLimits;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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

/// What connections may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of a request.
    pub bytes: ConnectionLimits,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one address at once (`limits.http_max_conns_per_client`).
    pub connections_per_client_max: usize,
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
    /// 512 KiB of body, 8192 connections, 200 of one client, 5 min idle, 10 s of head, 60 s of
    /// body, 60 s of answer.
    fn default() -> Self {
        Self {
            bytes: ConnectionLimits::default(),
            connections_max: 8192,
            connections_per_client_max: 200,
            idle_time: Duration::from_secs(300),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(60),
        }
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
    /// How the configuration is read again; `None` answers 501.
    pub reload: Option<Reload>,
    /// What connections may cost.
    pub limits: ServerLimits,
    /// The folder of bodies that are too large for memory; made when one comes.
    pub scratch: PathBuf,
}
