//! The validated settings of a node; the file format is the agent's.

use crate::catalog::autopilot::AutopilotConfig;
use crate::gossip::{Admission, Network};
use crate::id::{Datacenter, NodeName, PoolName};
use crate::local::definition::{CheckDefinition, OutputRules, ServiceDefinition};
use crate::raft::RaftLimits;
use crate::rpc::RequestRate;
use crate::trace::Level;
use crate::wire::label::Label;
use crate::wire::seal::Key;
use crate::{pack_enum, pack_struct};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use thiserror::Error;

/// How a server gets its first configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Wait to be added.
    Join,
    /// Become the only voter at once.
    Alone,
    /// Wait until this many servers agree.
    Expect(u32),
}
pack_enum!(Bootstrap { 1 => Join, 2 => Alone, 3 => Expect(u32) });

/// How long nobody hears a voter, by default, before it is taken out although nobody replaces it
/// (`autopilot.dead_server_grace`, DESIGN.md §8).
pub const DEAD_SERVER_GRACE: Duration = Duration::from_secs(600);

/// How long a stream to the server port may take, by default, to say whose it is
/// (`limits.rpc_handshake_timeout`, agent-config.md §5).
pub const RPC_HANDSHAKE: Duration = Duration::from_secs(5);

/// How long, by default, a server that left the pools still answers what is on its way
/// (`performance.leave_drain_time`, agent-config.md §5).
pub const LEAVE_DRAIN: Duration = Duration::from_secs(5);

/// How long a deleted key is remembered at least by default (http-api.md §1.6).
pub const TOMBSTONE_TIME: Duration = Duration::from_secs(15 * 60);

/// What only servers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// How the first configuration comes about.
    pub bootstrap: Bootstrap,
    /// Whether it is to vote.
    pub votes: bool,
    /// How servers are cared for until that is stored.
    pub autopilot: AutopilotConfig,
    /// How long nobody hears a voter before it is taken out although nobody replaces it.
    pub dead_server_grace: Duration,
    /// How long a deleted key is remembered at least.
    pub tombstone_time: Duration,
    /// Multiplies every Raft timeout; 1 to 10.
    pub raft_multiplier: u32,
    /// Sizes of consensus; the simulator tries small ones too.
    pub limits: RaftLimits,
    /// How long an accepted stream may take to say whose it is; `None` for as long as it may idle.
    pub handshake: Option<Duration>,
    /// How long a leave goes on behind the farewells, for requests that are on their way.
    pub leave_drain: Duration,
    /// The pool of all datacenters' servers; `None` keeps this server out of it.
    pub wan: Option<WanConfig>,
}
impl ServerConfig {
    /// A voter of this datacenter only, with everything else at its default.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            votes: true,
            autopilot: AutopilotConfig::default(),
            dead_server_grace: DEAD_SERVER_GRACE,
            tombstone_time: TOMBSTONE_TIME,
            raft_multiplier: 1,
            limits: RaftLimits::default(),
            handshake: Some(RPC_HANDSHAKE),
            leave_drain: LEAVE_DRAIN,
            wan: None,
        }
    }
}
pack_struct!(ServerConfig {
    bootstrap,
    votes,
    autopilot,
    dead_server_grace,
    tombstone_time,
    raft_multiplier,
    limits,
    handshake,
    leave_drain,
    wan,
});

/// How a server takes part in the WAN pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanConfig {
    /// The Serf WAN port.
    pub port: u16,
    /// Gossip timers.
    pub gossip: GossipConfig,
    /// Serf timers.
    pub serf: SerfConfig,
}
pack_struct!(WanConfig { port, gossip, serf });

/// The timers, limits and layers of gossip (gossip-protocol.md §1, gossip-wire.md §1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipConfig {
    /// The pool: it decides the file of the keys, the numbers of streams and what is drawn.
    pub pool: PoolName,
    /// Who may be in it.
    pub admission: Admission,
    /// Where its members are (`serf_lan_allowed_cidrs`); none for anywhere.
    pub networks: Vec<Network>,
    /// Time between probes.
    pub probe_interval: Duration,
    /// Time allowed for a direct answer.
    pub probe_timeout: Duration,
    /// Helpers asked when there is none.
    pub indirect_checks: usize,
    /// Multiplies the suspicion timeout.
    pub suspicion_mult: u32,
    /// The longest suspicion, in multiples of the shortest.
    pub suspicion_max_timeout_mult: u32,
    /// Local health scores stay below this.
    pub awareness_max_multiplier: u32,
    /// Whether a suspect is told so in the very probe.
    pub buddy: bool,
    /// Multiplies the number of times a fact is sent.
    pub retransmit_mult: u32,
    /// Time between gossip rounds.
    pub gossip_interval: Duration,
    /// Members gossiped to in a round.
    pub gossip_nodes: usize,
    /// How long the dead are gossiped to.
    pub gossip_to_the_dead_time: Duration,
    /// Time between full state exchanges, scaled above 32 members.
    pub push_pull_interval: Duration,
    /// Time allowed for a stream exchange.
    pub stream_timeout: Duration,
    /// After this, a dead member's name may be taken by another address.
    pub dead_node_reclaim_time: Duration,
    /// Whether packets that get shorter, and all streams, are compressed.
    pub compression: bool,
    /// What this cluster's gossip begins with, so that others keep away.
    pub label: Label,
    /// The key that encrypts gossip, unless `serf/local.keyring` holds others; `None` for none.
    pub encrypt: Option<Key>,
    /// Whether messages in clear are refused although there is a key.
    pub verify_incoming: bool,
    /// Whether messages are sealed if there is a key.
    pub verify_outgoing: bool,
    /// Whether keys are kept in `serf/local.keyring`.
    pub keyring_file: bool,
}
pack_struct!(GossipConfig {
    pool,
    admission,
    networks,
    probe_interval,
    probe_timeout,
    indirect_checks,
    suspicion_mult,
    suspicion_max_timeout_mult,
    awareness_max_multiplier,
    buddy,
    retransmit_mult,
    gossip_interval,
    gossip_nodes,
    gossip_to_the_dead_time,
    push_pull_interval,
    stream_timeout,
    dead_node_reclaim_time,
    compression,
    label,
    encrypt,
    verify_incoming,
    verify_outgoing,
    keyring_file
});

impl GossipConfig {
    /// The LAN profile with Consul's reclaim time.
    pub const fn lan() -> Self {
        Self {
            pool: PoolName::Lan,
            admission: Admission::Anyone,
            networks: Vec::new(),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_checks: 3,
            suspicion_mult: 4,
            suspicion_max_timeout_mult: 6,
            awareness_max_multiplier: 8,
            buddy: true,
            retransmit_mult: 4,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            gossip_to_the_dead_time: Duration::from_secs(30),
            push_pull_interval: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(10),
            dead_node_reclaim_time: Duration::from_secs(30),
            compression: true,
            label: Label::NONE,
            encrypt: None,
            verify_incoming: true,
            verify_outgoing: true,
            keyring_file: true,
        }
    }

    /// The WAN profile with Consul's reclaim time (gossip-protocol.md §1).
    pub fn wan() -> Self {
        Self {
            pool: PoolName::Wan,
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            suspicion_mult: 6,
            gossip_interval: Duration::from_millis(500),
            gossip_nodes: 4,
            gossip_to_the_dead_time: Duration::from_secs(60),
            push_pull_interval: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(30),
            ..Self::lan()
        }
    }
}

/// The timers of the Serf layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerfConfig {
    /// The pool: it decides the file of known members and what is drawn.
    pub pool: PoolName,
    /// How long failed members are remembered and retried.
    pub reconnect_timeout: Duration,
    /// Time between attempts to reach a failed member.
    pub reconnect_interval: Duration,
    /// How long left members are remembered.
    pub tombstone_timeout: Duration,
    /// Time between looks for members to forget.
    pub reap_interval: Duration,
    /// How long the leave is given to spread.
    pub leave_propagate_delay: Duration,
    /// How long a broadcast is waited for.
    pub broadcast_timeout: Duration,
    /// Whether to join remembered members although the last run left.
    pub rejoin_after_leave: bool,
    /// Whether this member tells where it is and learns where others are.
    pub coordinates: bool,
    /// Gossip's interval: how long a query runs by default is counted in rounds.
    pub gossip_interval: Duration,
}
pack_struct!(SerfConfig {
    pool,
    reconnect_timeout,
    reconnect_interval,
    tombstone_timeout,
    reap_interval,
    leave_propagate_delay,
    broadcast_timeout,
    rejoin_after_leave,
    coordinates,
    gossip_interval
});

impl SerfConfig {
    /// Consul's numbers in the WAN pool. A server leaves the WAN pool first and the LAN pool after
    /// it, whose silence is long enough for both, so the WAN pool adds none of its own.
    pub fn wan() -> Self {
        Self {
            pool: PoolName::Wan,
            leave_propagate_delay: Duration::ZERO,
            gossip_interval: GossipConfig::wan().gossip_interval,
            ..Self::default()
        }
    }
}

impl Default for SerfConfig {
    /// Consul's numbers in the LAN pool (DESIGN.md §8).
    fn default() -> Self {
        Self {
            pool: PoolName::Lan,
            reconnect_timeout: Duration::from_secs(72 * 3600),
            reconnect_interval: Duration::from_secs(30),
            tombstone_timeout: Duration::from_secs(24 * 3600),
            reap_interval: Duration::from_secs(15),
            leave_propagate_delay: Duration::from_secs(3),
            broadcast_timeout: Duration::from_secs(5),
            rejoin_after_leave: false,
            coordinates: true,
            gossip_interval: GossipConfig::lan().gossip_interval,
        }
    }
}

/// Everything a node is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name.
    pub name: NodeName,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// The address agents of its datacenter reach it at.
    pub advertise: IpAddr,
    /// The address other datacenters reach it at.
    pub advertise_wan: IpAddr,
    /// Its tagged addresses besides those that `advertise` and `advertise_wan` make, which these
    /// replace.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Its Serf LAN port.
    pub serf_lan_port: u16,
    /// Its server port.
    pub server_port: u16,
    /// Set on servers.
    pub server: Option<ServerConfig>,
    /// Gossip timers.
    pub gossip: GossipConfig,
    /// Serf timers.
    pub serf: SerfConfig,
    /// Services of the configuration files.
    pub services: Vec<ServiceDefinition>,
    /// Checks of the configuration files.
    pub checks: Vec<CheckDefinition>,
    /// The node's metadata.
    pub node_meta: BTreeMap<String, String>,
    /// How long a request may wait for a leader.
    pub rpc_hold: Duration,
    /// How many requests a client agent may send to servers; `None` for no limit.
    pub rpc_rate: Option<RequestRate>,
    /// Output-only changes of checks reach the catalog after about this long.
    pub check_update_interval: Duration,
    /// What is kept of what checks say.
    pub check_output: OutputRules,
    /// The level of traces wanted at the start.
    pub level: Level,
}
pack_struct!(NodeConfig {
    name,
    datacenter,
    advertise,
    advertise_wan,
    tagged_addresses,
    serf_lan_port,
    server_port,
    server,
    gossip,
    serf,
    services,
    checks,
    node_meta,
    rpc_hold,
    rpc_rate,
    check_update_interval,
    check_output,
    level
});

impl NodeConfig {
    /// The address of the Serf LAN port.
    pub const fn gossip_address(&self) -> SocketAddr {
        SocketAddr::new(self.advertise, self.serf_lan_port)
    }

    /// Its tagged addresses: `lan` and `wan`, each also by its family, and what else is set
    /// (http-api.md §2).
    pub fn tagged_addresses(&self) -> BTreeMap<String, String> {
        let mut tagged = BTreeMap::new();
        for (tag, ip) in [("lan", self.advertise), ("wan", self.advertise_wan)] {
            let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            tagged.insert(tag.to_owned(), ip.to_string());
            tagged.insert(format!("{tag}_{family}"), ip.to_string());
        }
        tagged.extend(self.tagged_addresses.clone());
        tagged
    }

    /// How this agent takes part in the WAN pool, if it does.
    pub fn wan(&self) -> Option<&WanConfig> {
        self.server.as_ref()?.wan.as_ref()
    }

    /// The address of the server port.
    pub const fn server_address(&self) -> SocketAddr {
        SocketAddr::new(self.advertise, self.server_port)
    }
}

/// Why a node could not be made of its settings. The operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A setting is outside its range.
    #[error("{setting}: {rule}")]
    Range {
        /// The setting's key.
        setting: &'static str,
        /// The rule it breaks.
        rule: String,
    },
}
