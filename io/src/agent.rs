//! From settings to a running agent, and back to a stopped one.
//!
//! The order of a start is: lock the data directory, bind every port, recover what the disk holds,
//! make the node, run it. Whatever can be refused is thus refused before anything is changed, with
//! the address and the key of the setting.

use crate::clock::Clock;
use crate::dns::{self, DnsError, DnsServer};
use crate::driver::{Core, Driver, Host, RunCheck, report_to};
use crate::entropy;
use crate::event::{Arrivals, Counters, Event, Inbox, queues};
use crate::handle::NodeHandle;
use crate::http;
use crate::http::listen::HttpAddress;
use crate::http::server::{BindError, HttpServer};
use crate::http::settings::HttpSettings;
use crate::ipc::{self, Control, Reload};
use crate::log::{LogRing, Sink};
use crate::record::{RecordError, Recording};
use crate::remote_exec;
use crate::runtime::{executor, spawn};
use crate::storage::{
    DataDir, Disk, OpenError, PeersFileError, RecoverError, machine_identities, read_peers, recover,
};
use crate::stream::accept;
use crate::telemetry::{self, TelemetryConfig};
use crate::udp::Datagrams;
use arc_swap::ArcSwap;
use smol::Task;
use smol::net::TcpListener;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::config::{ConfigError, NodeConfig};
use terraform_core::dns::DnsConfig;
use terraform_core::id::{NodeId, NodeName, PoolName};
use terraform_core::node::Node;
use terraform_core::node::input::{Input, StreamKind};
use terraform_core::node::output::{Output, StopReason};
use terraform_core::recording::{self, Origin};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::recovery::{Recovery, RecoveryConfig, Restored};
use terraform_core::storage::wal::WalConfig;
use thiserror::Error;

/// Why an agent did not start. The operator is at fault, or the machine.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory could not be taken.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The servers to begin a new cluster with could not be read.
    #[error(transparent)]
    Peers(#[from] PeersFileError),
    /// What it holds could not be read or used.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A port could not be bound; nothing was changed.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The setting that names the port.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Entropy(#[source] io::Error),
    /// The run cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The threads of the disk or of the recording could not be started.
    #[error("cannot start a thread that writes to the disk: {0}")]
    Threads(#[source] io::Error),
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HTTP API could not be served.
    #[error(transparent)]
    Http(#[from] BindError),
    /// DNS could not be served.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

/// Where an agent listens for other agents and for its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Serf LAN, datagrams and streams.
    pub gossip: SocketAddr,
    /// Serf WAN, likewise; servers that are in that pool only.
    pub wan: Option<SocketAddr>,
    /// The server port; servers only.
    pub server: Option<SocketAddr>,
    /// The control port, at each of these.
    pub control: Vec<SocketAddr>,
}

/// What programs are served, and where.
#[derive(Clone)]
pub struct Services {
    /// The addresses of the HTTP API; none switches it off.
    pub http: Vec<HttpAddress>,
    /// What the HTTP API is told.
    pub http_settings: HttpSettings,
    /// The addresses of DNS; none switches it off.
    pub dns: Vec<SocketAddr>,
    /// How DNS answers; may be replaced while it runs.
    pub dns_config: Arc<ArcSwap<DnsConfig>>,
}

/// What a start needs besides the node's own settings.
#[derive(Clone)]
pub struct Settings {
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// The configured identity, if any.
    pub node_id: Option<NodeId>,
    /// Whether a new data directory gets an identity of the machine instead of a drawn one
    /// (`disable_host_node_id`).
    pub host_node_id: bool,
    /// Where to listen.
    pub ports: Ports,
    /// The file that everything the node is told is recorded in, which must not exist yet.
    pub record: Option<PathBuf>,
    /// Where everything said goes.
    pub sink: Sink,
    /// The lines that monitors see; the sink fills it.
    pub logs: Arc<LogRing>,
    /// Reads the configuration files again.
    pub reload: Reload,
    /// The ports of joins that name none, LAN and WAN.
    pub join_ports: [u16; 2],
    /// What programs are served.
    pub services: Services,
    /// What is wanted of metrics.
    pub telemetry: TelemetryConfig,
    /// Whether operators may have jobs run, and then the name of the node.
    pub remote_exec: Option<NodeName>,
    /// Connections of one address to the server port at once
    /// (`limits.rpc_max_conns_per_client`).
    pub server_connections_per_client: usize,
}

/// Starts an agent with the node settings `config`, whose checks `run_check` runs.
pub async fn start(
    config: NodeConfig,
    settings: Settings,
    run_check: RunCheck,
) -> Result<Running, StartError> {
    let (mut prepared, restored) = Prepared::new(&config, settings).await?;
    let (wall, now) = (prepared.clock.wall(), prepared.clock.now());
    let mut recording = prepared.recording.take();
    if let Some(recording) = &mut recording {
        recording.start(wall, now);
    }
    let node = Node::new(config, restored, prepared.seed, wall, now)?;
    match recording {
        None => prepared.run(node, run_check),
        Some(recording) => {
            let recorded = recording.of(node).map_err(StartError::Threads)?;
            prepared.run(recorded, run_check)
        }
    }
}

/// An agent whose data directory is its own, whose ports are bound and whose disk is read.
struct Prepared {
    settings: Settings,
    dir: DataDir,
    clock: Clock,
    seed: Seed,
    recording: Option<Recording>,
    counters: Arc<Counters>,
    datagrams: Datagrams,
    gossip: TcpListener,
    wan: Option<(Datagrams, TcpListener)>,
    server: Option<TcpListener>,
    control: Vec<TcpListener>,
    inbox: Inbox,
    arrivals: Arrivals,
}

impl Prepared {
    /// Locks the data directory, binds the ports and recovers the disk.
    async fn new(config: &NodeConfig, settings: Settings) -> Result<(Self, Restored), StartError> {
        let dir = DataDir::open(&settings.data_dir)?;
        let counters = Arc::new(Counters::default());
        let Ports { gossip, wan, server, control } = settings.ports.clone();
        let (datagrams, gossip) = serf_port(PoolName::Lan, gossip, &counters).await?;
        let wan = match wan {
            Some(address) => Some(serf_port(PoolName::Wan, address, &counters).await?),
            None => None,
        };
        let server = match server {
            Some(address) => Some(listen(address, "ports.server").await?),
            None => None,
        };
        let mut controls = Vec::new();
        for address in control {
            controls.push(listen(address, "ports.rpc").await?);
        }
        let seed = entropy::seed().map_err(StartError::Entropy)?;
        let peers = if server.is_some() { read_peers(&dir)? } else { None };
        let recovery = RecoveryConfig {
            server: server.is_some(),
            node_id: settings.node_id,
            wal: WalConfig::default(),
            peers,
            host: if settings.host_node_id { machine_identities() } else { Vec::new() },
        };
        let mut recording = recording(config, &recovery, seed, &settings)?;
        let recovery = Recovery::new(recovery, Rng::for_stream(seed, Stream::Identity));
        let (dir, recording, restored) = smol::unblock(move || {
            let restored = recover(&dir, recovery, |step, answer| match &mut recording {
                Some(recording) => recording.answer(step, answer),
                None => answer,
            });
            (dir, recording, restored)
        })
        .await;
        let restored = restored?;
        let (inbox, arrivals) = queues();
        let clock = Clock::start();
        let prepared = Self {
            settings,
            dir,
            clock,
            seed,
            recording,
            counters,
            datagrams,
            gossip,
            wan,
            server,
            control: controls,
            inbox,
            arrivals,
        };
        Ok((prepared, restored))
    }

    /// Runs the node `core` that was made of the restored state.
    ///
    /// Panics if its first output is not the view that readers start with.
    fn run<C: Core>(self, mut core: C, run_check: RunCheck) -> Result<Running, StartError> {
        let Some(Output::Publish(first)) = core.poll_output() else {
            panic!("a node's first output is its view");
        };
        let Self { settings, dir, clock, seed, counters, datagrams, inbox, arrivals, .. } = self;
        let view = Arc::new(ArcSwap::new(first));
        let handle = NodeHandle::new(Arc::clone(&view), inbox.calls.clone(), clock);
        handle.metrics().configure(settings.telemetry);
        let Services { http, http_settings, dns, dns_config } = settings.services;
        let http = http::server::serve(&http, handle.clone(), http_settings)?;
        let serve_dns = |address| dns::serve(address, &handle, &dns_config, seed, executor());
        let dns = dns.into_iter().map(serve_dns).collect::<Result<Vec<_>, _>>()?;
        let report = report_to(inbox.events.clone(), Arc::clone(&settings.sink));
        let disk = Disk::start(dir, report).map_err(StartError::Threads)?;
        let events = inbox.events.clone();
        let mut tasks = vec![
            spawn(datagrams.clone().receive(inbox.clone())),
            spawn(accept(self.gossip, StreamKind::Gossip(PoolName::Lan), events.clone())),
        ];
        let mut wan_datagrams = None;
        if let Some((datagrams, listener)) = self.wan {
            tasks.push(spawn(datagrams.clone().receive(inbox.clone())));
            tasks.push(spawn(accept(listener, StreamKind::Gossip(PoolName::Wan), events.clone())));
            wan_datagrams = Some(datagrams);
        }
        if let Some(listener) = self.server {
            tasks.push(spawn(accept(listener, StreamKind::Server, events.clone())));
        }
        let control = Control {
            node: handle.clone(),
            logs: settings.logs,
            reload: settings.reload,
            join_ports: settings.join_ports,
        };
        for listener in self.control {
            tasks.push(spawn(ipc::serve(listener, control.clone())));
        }
        if let Some(name) = settings.remote_exec {
            let (node, sink) = (handle.clone(), Arc::clone(&settings.sink));
            tasks.push(spawn(remote_exec::serve(node, name, sink)));
        }
        let (sink, fan) = (settings.sink, Arc::clone(handle.fan()));
        let sources = telemetry::Sources {
            node: handle.clone(),
            counters: Arc::clone(&counters),
            log: Arc::clone(&sink),
        };
        tasks.push(spawn(telemetry::run(sources)));
        let registered = Arc::clone(handle.registered());
        let host = Host {
            clock,
            view,
            datagrams,
            wan_datagrams,
            disk,
            run_check,
            sink,
            fan,
            registered,
            counters,
            metrics: Arc::clone(handle.metrics()),
            server_streams_of_source_max: settings.server_connections_per_client,
        };
        let driver = spawn(Driver::new(core, host, inbox, arrivals).run());
        Ok(Running { handle, events, driver, http, dns, _tasks: tasks })
    }
}

/// The beginning of a recording, if one is wanted.
fn recording(
    config: &NodeConfig,
    recovery: &RecoveryConfig,
    seed: Seed,
    settings: &Settings,
) -> Result<Option<Recording>, RecordError> {
    let Some(path) = &settings.record else { return Ok(None) };
    let release = recording::RELEASE.to_owned();
    let (config, recovery) = (config.clone(), recovery.clone());
    let origin = Origin { release, seed, config, recovery };
    Recording::create(path, origin, Arc::clone(&settings.sink)).map(Some)
}

/// What the answers of the node's last turn, such as that of `leave`, get to reach their clients
/// through other tasks before the process may end.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// The two sockets of a Serf port.
async fn serf_port(
    pool: PoolName,
    address: SocketAddr,
    counters: &Arc<Counters>,
) -> Result<(Datagrams, TcpListener), StartError> {
    let key = match pool {
        PoolName::Lan => "ports.serf_lan",
        PoolName::Wan => "ports.serf_wan",
    };
    let datagrams = Datagrams::bind(pool, address, Arc::clone(counters));
    let datagrams = datagrams.map_err(|source| refused(address, key, source))?;
    Ok((datagrams, listen(address, key).await?))
}

fn refused(address: SocketAddr, key: &'static str, source: io::Error) -> StartError {
    StartError::Bind { address, key, source }
}

async fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| refused(address, key, source))
}

/// A running agent.
pub struct Running {
    handle: NodeHandle,
    events: smol::channel::Sender<Event>,
    driver: Task<StopReason>,
    http: HttpServer,
    dns: Vec<DnsServer>,
    _tasks: Vec<Task<()>>,
}

impl Running {
    /// The door to the node.
    pub const fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The addresses of the HTTP API.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// The addresses of DNS.
    pub fn dns_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.dns.iter().map(DnsServer::address)
    }

    /// A sender of the operator's wishes that outlives `wait`.
    pub fn steering(&self) -> Steering {
        Steering(self.events.clone())
    }

    /// Waits until the node has stopped, its disk is at rest and its last answers are on their way,
    /// then closes every port.
    pub async fn wait(self) -> StopReason {
        let reason = self.driver.await;
        smol::Timer::after(LAST_ANSWERS).await;
        reason
    }
}

/// Tells a running agent to go.
#[derive(Clone, Debug)]
pub struct Steering(smol::channel::Sender<Event>);

impl Steering {
    /// Leave the cluster and stop.
    pub async fn leave(&self) {
        // A node that has stopped needs no telling.
        let _ = self.0.send(Event::Input(Input::Leave)).await;
    }

    /// Stop without leaving.
    pub async fn shutdown(&self) {
        let _ = self.0.send(Event::Input(Input::Shutdown)).await;
    }
}

#[cfg(test)]
mod tests;
