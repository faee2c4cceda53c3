//! What a seed makes: the shape of the cluster, the mix of faults, their rates (simulation.md §6).

use crate::ambush::Ambush;
use crate::luck::{Luck, Purpose};
use crate::net::NetOptions;
use crate::queue::TieOrder;
use crate::world::{WorldOptions, world_rng};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use terraform_core::catalog::autopilot::AutopilotConfig;
use terraform_core::config::{
    Bootstrap, DEAD_SERVER_GRACE, GossipConfig, NodeConfig, SerfConfig, ServerConfig,
    TOMBSTONE_TIME, WanConfig,
};
use terraform_core::id::{Datacenter, NodeName};
use terraform_core::raft::RaftLimits;
use terraform_core::rng::{Rng, Stream};
use terraform_core::time::Instant;
use terraform_core::trace::Level;
use terraform_core::wire::seal::Key;

/// Kinds of faults; a seed switches each on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed; its machine keeps what it wrote.
    Kill,
    /// A machine loses power; its disk keeps what was synced, and some of the rest.
    PowerLoss,
    /// Some hosts are cut off from the others.
    Partition,
    /// One host is cut off from all others; only an ambush does it.
    Isolate,
    /// One direction of some links is cut.
    OneWay,
    /// Single links are cut.
    Partial,
    /// A process gets no time for a while.
    Pause,
    /// An agent leaves, and may come back.
    Leave,
    /// Datagrams are lost, doubled and late.
    Lossy,
    /// A server goes down, and what is durable on its disk rots.
    Rot,
    /// A disk does nothing for a while.
    Stall,
    /// The disk of a server is full for a while.
    Fill,
    /// A sync of a server's log fails.
    SyncError,
    /// A server goes down, and comes back with an empty store.
    Wipe,
}

/// The kinds that a seed switches on and off, in order.
pub const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Partition,
    Fault::OneWay,
    Fault::Partial,
    Fault::Pause,
    Fault::Leave,
    Fault::Lossy,
];

/// The `raft_multiplier` of a server that is more patient than others.
const UNEVEN_MULTIPLIER: u32 = 3;

/// Everything that is decided before a world starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it came from.
    pub seed: u64,
    /// Servers.
    pub servers: usize,
    /// Client agents.
    pub clients: usize,
    /// Which faults there are.
    pub faults: Vec<Fault>,
    /// The fault that waits for its moment, if there is one.
    pub ambush: Option<Ambush>,
    /// Sizes of consensus.
    pub limits: RaftLimits,
    /// Mean time between faults.
    pub fault_every: Duration,
    /// Time between operations of the clients.
    pub act_every: Duration,
    /// How long faults go on.
    pub length: Duration,
    /// Network, disk, clocks.
    pub world: WorldOptions,
    /// Whether gossip is compressed. That costs most of a packet's time, so only a part of the
    /// worlds has it.
    pub compressed: bool,
    /// Whether gossip is encrypted.
    pub encrypted: bool,
    /// Whether the first server is more patient than the others: its `raft_multiplier` is larger.
    pub uneven: bool,
    /// Whether clients restore backups now and then.
    pub restores: bool,
    /// Whether hosts start one by one while things go wrong already, and servers form a cluster as
    /// soon as more than half of them are there.
    pub newborn: bool,
    /// Whether most servers are lost for good in the end, and the others begin anew.
    pub disaster: bool,
    /// How the leader cares for the servers.
    pub care: Care,
}

/// How the leader cares for the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// How long a server is healthy before it votes.
    pub stabilization: Duration,
    /// How long nobody hears a voter before it is taken out although nobody replaces it.
    pub grace: Duration,
    /// Whether the last server does not vote.
    pub spare: bool,
    /// How long a deleted key is remembered at least.
    pub tombstones: Duration,
}

impl Default for Care {
    fn default() -> Self {
        let stabilization = AutopilotConfig::default().server_stabilization_time;
        Self { stabilization, grace: DEAD_SERVER_GRACE, spare: false, tombstones: TOMBSTONE_TIME }
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = world_rng(seed, Stream::Node);
        let servers = match rng.below(20) {
            0 => 1,
            1..=2 => 2,
            3..=13 => 3,
            14 => 4,
            _ => 5,
        };
        let clients = rng.index(6);
        // One world in 16 has no fault, one has all.
        let luck = rng.below(16);
        let faults = FAULTS
            .into_iter()
            .filter(|_| {
                let on = rng.chance(1, 2);
                luck == 15 || (luck != 0 && on)
            })
            .collect::<Vec<_>>();
        let fault_every = Duration::from_millis(500 << rng.below(5));
        let lossy = faults.contains(&Fault::Lossy);
        let net = if lossy { lossy_net(&mut rng) } else { NetOptions::quiet() };
        let order = if rng.chance(1, 4) { TieOrder::Reverse } else { TieOrder::Fifo };
        // A stream of their own: what is drawn here shifts nothing above.
        let mut rng = world_rng(seed, Stream::Bootstrap);
        let limits = if rng.chance(1, 2) { small_limits(&mut rng) } else { RaftLimits::default() };
        let ambush = Ambush::draw(&mut rng);
        let limits = if rng.chance(3, 4) { short_logs(limits, &mut rng) } else { limits };
        let ambush = (luck != 0 && rng.chance(1, 2)).then_some(ambush);
        let mut faults = faults;
        if ambush.is_some_and(Ambush::awaits_changes) && !faults.contains(&Fault::Leave) {
            faults.push(Fault::Leave);
        }
        Self {
            seed,
            servers,
            clients,
            faults,
            ambush,
            limits,
            fault_every,
            act_every: Duration::from_millis(50),
            length: Duration::from_secs(60 + rng.below(60)),
            world: WorldOptions {
                net,
                order,
                disk_latency: Duration::from_micros(100 << rng.below(6)),
                drift_ppm_max: 200,
            },
            compressed: seed.is_multiple_of(4),
            encrypted: seed % 4 == 1,
            uneven: seed % 8 == 3,
            // In some of those worlds clients hold sessions and locks.
            restores: seed % 8 == 5 || seed % 32 == 20,
            newborn: seed % 8 == 7,
            disaster: false,
            care: Care { tombstones: tombstone_time(seed), ..Care::default() },
        }
    }

    /// The plan of a seed whose world is as large as those that the simulator's speed is measured
    /// by: three servers and ten clients, with the faults of the seed (simulation.md §14).
    pub fn of_default_mix(seed: u64) -> Self {
        Self { servers: 3, clients: 10, ..Self::of_seed(seed) }
    }

    /// The plan of a seed in which it is disks that go wrong: they rot, stall, fill up, fail to
    /// sync and are slow, beside crashes and cuts. Nobody leaves, so that those which rot are fewer
    /// than half of the voters.
    pub fn of_disks(seed: u64) -> Self {
        let mut plan = Self::of_seed(seed);
        let mut rng = world_rng(seed, Stream::Raft);
        plan.servers = if rng.chance(1, 3) { 5 } else { 3 };
        plan.faults.retain(|fault| *fault != Fault::Leave);
        // Twice: half of the faults are of disks.
        let disks = [Fault::Rot, Fault::Stall, Fault::Fill, Fault::SyncError];
        let disks = disks.repeat(plan.faults.len().div_ceil(3).max(1));
        plan.faults.extend(disks);
        let leaves = |ambush: &Ambush| ambush.awaits_changes() || ambush.blow == Fault::Leave;
        plan.ambush = plan.ambush.filter(|ambush| !leaves(ambush));
        plan.world.disk_latency = Duration::from_micros(100 << rng.below(11));
        plan
    }

    /// The plan of a seed in which servers come and go: they leave, they die for longer than they
    /// are waited for, they come back with empty stores, and one may be a spare.
    pub fn of_members(seed: u64) -> Self {
        let mut plan = Self::of_seed(seed);
        let mut rng = world_rng(seed, Stream::Reconcile);
        plan.servers = [3, 4, 5, 5][rng.index(4)];
        let members = [Fault::Leave, Fault::Wipe].repeat(plan.faults.len().div_ceil(3).max(1));
        plan.faults.extend(members);
        // A change takes some seconds; what is to happen in the middle of one needs time for it.
        plan.fault_every = plan.fault_every.max(Duration::from_secs(2));
        plan.length += Duration::from_secs(60);
        // A backup brings its own care along, or none.
        plan.restores = false;
        plan.disaster = seed % 8 == 2;
        plan.care = Care {
            stabilization: Duration::from_millis(250 << rng.below(6)),
            grace: Duration::from_secs(5 << rng.below(4)),
            spare: plan.servers > 3 && rng.chance(1, 2),
            ..plan.care
        };
        plan
    }

    /// A plan without faults, for scripts.
    pub fn quiet(seed: u64, servers: usize, clients: usize) -> Self {
        Self {
            seed,
            servers,
            clients,
            faults: Vec::new(),
            ambush: None,
            limits: RaftLimits::default(),
            fault_every: Duration::from_secs(1),
            act_every: Duration::from_millis(50),
            length: Duration::ZERO,
            world: WorldOptions {
                net: NetOptions::quiet(),
                order: TieOrder::Fifo,
                disk_latency: Duration::from_millis(1),
                drift_ppm_max: 200,
            },
            compressed: seed.is_multiple_of(4),
            encrypted: seed % 4 == 1,
            uneven: false,
            restores: false,
            newborn: false,
            disaster: false,
            care: Care::default(),
        }
    }

    /// The `raft_multiplier` of the most patient server.
    pub const fn patience(&self) -> u32 {
        if self.uneven { UNEVEN_MULTIPLIER } else { 1 }
    }

    /// The settings of host number `id`; servers come first.
    pub fn config(&self, id: usize) -> NodeConfig {
        let is_server = id < self.servers;
        let spares = usize::from(self.care.spare);
        let voters = self.servers - spares;
        let expected = if self.newborn { voters / 2 + 1 } else { voters };
        let bootstrap = match u32::try_from(expected) {
            Ok(0 | 1) | Err(_) => Bootstrap::Alone,
            Ok(servers) => Bootstrap::Expect(servers),
        };
        let kind = if is_server { "server" } else { "client" };
        let server = is_server.then_some(ServerConfig {
            votes: id < voters,
            autopilot: AutopilotConfig {
                server_stabilization_time: self.care.stabilization,
                ..AutopilotConfig::default()
            },
            dead_server_grace: self.care.grace,
            tombstone_time: self.care.tombstones,
            raft_multiplier: if id == 0 { self.patience() } else { 1 },
            limits: self.limits,
            wan: Some(wan_config()),
            ..ServerConfig::new(bootstrap)
        });
        let mut config = node_config(&format!("{kind}-{id}"), server);
        let key = self.encrypted.then(|| Key::new(&[7; 16]).expect("16 bytes are a key"));
        let wan = config.server.as_mut().and_then(|server| server.wan.as_mut());
        let pools = [Some(&mut config.gossip), wan.map(|wan| &mut wan.gossip)];
        for gossip in pools.into_iter().flatten() {
            gossip.compression = self.compressed;
            gossip.encrypt.clone_from(&key);
        }
        config
    }
}

/// How long the world of a seed remembers deletions: in one of four it lives to forget them, in
/// some of those with backups, sessions and newborn clusters. None is a seed that found a bug.
fn tombstone_time(seed: u64) -> Duration {
    if !matches!(seed % 16, 1 | 5 | 14 | 15) {
        return TOMBSTONE_TIME;
    }
    let mut luck = Luck::of(seed, Purpose::Tombstones, 0, Instant::ZERO);
    Duration::from_secs(2 << luck.below(4))
}

/// How a server takes part in the WAN pool, with everything at its default.
pub fn wan_config() -> WanConfig {
    let serf = SerfConfig { rejoin_after_leave: true, ..SerfConfig::wan() };
    WanConfig { port: 8302, gossip: GossipConfig::wan(), serf }
}

/// Settings of one agent, with everything that does not matter to a world at its default.
pub fn node_config(name: &str, server: Option<ServerConfig>) -> NodeConfig {
    NodeConfig {
        name: NodeName::parse(name).expect("scenarios give legal names"),
        datacenter: Datacenter::parse("dc1").expect("letters and a digit are a datacenter"),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        advertise_wan: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tagged_addresses: std::collections::BTreeMap::new(),
        serf_lan_port: 8301,
        server_port: 8300,
        server,
        gossip: GossipConfig::lan(),
        serf: SerfConfig { rejoin_after_leave: true, ..SerfConfig::default() },
        services: Vec::new(),
        checks: Vec::new(),
        node_meta: std::collections::BTreeMap::new(),
        rpc_hold: Duration::from_secs(7),
        rpc_rate: None,
        check_update_interval: Duration::from_secs(300),
        check_output: terraform_core::local::definition::OutputRules::default(),
        level: Level::Info,
    }
}

/// Sizes so small that every message is cut short and every window fills (simulation.md §5.2).
fn small_limits(rng: &mut Rng) -> RaftLimits {
    RaftLimits {
        append_entries_max: 1 << rng.below(3),
        append_bytes_max: 64 << rng.below(6),
        inflight_messages_max: 1 << rng.below(4),
        inflight_bytes_max: 256 << rng.below(8),
        ..RaftLimits::default()
    }
}

/// Logs that are cut so often that snapshots are taken, sent and recovered from in every world.
fn short_logs(limits: RaftLimits, rng: &mut Rng) -> RaftLimits {
    RaftLimits {
        snapshot_entries: 8 << rng.below(6),
        snapshot_interval: Duration::from_millis(250 << rng.below(6)),
        trailing_entries: rng.below(64),
        block_bytes: 64 << rng.below(11),
        blocks_max: 1 << rng.below(3),
        ..limits
    }
}

pub(crate) fn lossy_net(rng: &mut Rng) -> NetOptions {
    NetOptions {
        delay_min: Duration::from_micros(100 << rng.below(5)),
        delay_jitter: Duration::from_micros(400 << rng.below(7)),
        loss_ppm: rng.below(150_000),
        duplicate_ppm: rng.below(50_000),
        late_ppm: rng.below(5_000),
    }
}
