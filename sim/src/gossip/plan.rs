//! What a seed makes of a pool: its size, its faults, its timers (simulation.md §6).

use crate::net::NetOptions;
use crate::plan::{lossy_net, node_config};
use crate::queue::TieOrder;
use crate::world::{WorldOptions, world_rng};
use std::time::Duration;
use terraform_core::config::{NodeConfig, SerfConfig};
use terraform_core::rng::{Rng, Stream};
use terraform_core::wire::seal::Key;

/// Kinds of faults; a seed switches each on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GossipFault {
    /// A process is killed and started again.
    Kill,
    /// A machine loses power and comes back.
    PowerLoss,
    /// A machine loses power for good.
    Vanish,
    /// A member goes on at another address, with an empty disk.
    Move,
    /// A process gets no time for a while.
    Pause,
    /// A machine neither sends nor receives for a while, and its timers run.
    Block,
    /// A member leaves and comes back.
    Leave,
    /// Somebody makes a member leave, dead or alive.
    ForceLeave,
    /// Somebody makes a member that does not run leave, and be forgotten.
    Prune,
    /// Some hosts are cut off from the others.
    Partition,
    /// One host is not heard.
    OneWay,
}

/// The kinds that a seed switches on and off, in order.
const FAULTS: [GossipFault; 11] = [
    GossipFault::Kill,
    GossipFault::PowerLoss,
    GossipFault::Vanish,
    GossipFault::Move,
    GossipFault::Pause,
    GossipFault::Block,
    GossipFault::Leave,
    GossipFault::ForceLeave,
    GossipFault::Prune,
    GossipFault::Partition,
    GossipFault::OneWay,
];

/// Something done to a pool in which all is well, with a result that is demanded at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// A member crashes for good: how fast is it declared dead?
    Crash,
    /// A member that runs is made to leave: it says no.
    ForceLeave,
    /// A member sleeps while another one dies and is forgotten: it does not bring it back.
    Sleeper,
    /// The machine of a member dies: the member comes back at another address.
    Move,
    /// The key of a pool that has one is changed.
    Rotate,
}

const DRILLS: [Drill; 5] =
    [Drill::Crash, Drill::ForceLeave, Drill::Sleeper, Drill::Move, Drill::Rotate];

/// Everything that is decided before a world starts.
#[derive(Clone, Debug)]
pub struct GossipPlan {
    /// The seed it came from.
    pub seed: u64,
    /// Members at the start.
    pub members: usize,
    /// Machines that members can move to.
    pub spares: usize,
    /// What is done while all is well.
    pub drill: Option<Drill>,
    /// Which faults there are.
    pub faults: Vec<GossipFault>,
    /// Mean time between faults.
    pub fault_every: Duration,
    /// Time between events.
    pub act_every: Duration,
    /// How long faults go on.
    pub length: Duration,
    /// How links behave while they do.
    pub faulty_net: NetOptions,
    /// Network, disk, clocks.
    pub world: WorldOptions,
    /// Whether packets are compressed.
    pub compress: bool,
    /// The key of the pool, if it has one.
    pub key: Option<Key>,
    /// Whether an operator changes the key while things go wrong. Nobody moves then: whoever begins
    /// with an empty disk has but the key of its settings.
    pub rotates: bool,
}

impl GossipPlan {
    /// The plan of a seed: 2 to 24 members, mostly few.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = world_rng(seed, Stream::Gossip);
        let members = 2 + rng.index(7) + if rng.chance(1, 4) { rng.index(17) } else { 0 };
        let luck = rng.below(16);
        let faults = FAULTS.into_iter().filter(|_| {
            let on = rng.chance(1, 2);
            luck == 15 || (luck != 0 && on)
        });
        let rotates = seed % 8 == 1;
        let faults = faults.filter(|fault| !rotates || *fault != GossipFault::Move).collect();
        let drill = rng.chance(1, 2).then(|| DRILLS[rng.index(DRILLS.len())]);
        let faulty_net = if rng.chance(1, 3) { lossy_net(&mut rng) } else { NetOptions::quiet() };
        let order = if rng.chance(1, 4) { TieOrder::Reverse } else { TieOrder::Fifo };
        Self {
            seed,
            members,
            spares: 4,
            drill,
            faults,
            fault_every: Duration::from_millis(500 << rng.below(6)),
            act_every: Duration::from_millis(250 << rng.below(5)),
            length: Duration::from_secs(60 + rng.below(120)),
            faulty_net,
            world: Self::world(&mut rng, order),
            compress: seed.is_multiple_of(8),
            key: (seed % 4 == 1).then(|| Key::new(&[7; 16]).expect("16 bytes are a key")),
            rotates,
        }
    }

    /// A large pool in which a few members crash, sleep and leave.
    pub fn large(seed: u64, members: usize) -> Self {
        let mut rng = world_rng(seed, Stream::Gossip);
        let faults = [GossipFault::Kill, GossipFault::Vanish, GossipFault::Pause];
        Self {
            seed,
            members,
            spares: 0,
            drill: None,
            faults: [&faults[..], &[GossipFault::Leave]].concat(),
            fault_every: Duration::from_secs(2),
            act_every: Duration::from_secs(1),
            length: Duration::from_secs(60),
            faulty_net: NetOptions::quiet(),
            world: Self::world(&mut rng, TieOrder::Fifo),
            compress: false,
            key: None,
            rotates: false,
        }
    }

    fn world(rng: &mut Rng, order: TieOrder) -> WorldOptions {
        WorldOptions {
            net: NetOptions::quiet(),
            order,
            disk_latency: Duration::from_micros(100 << rng.below(6)),
            drift_ppm_max: 200,
        }
    }

    /// The settings of host number `id`. Members that are gone are remembered for minutes instead
    /// of days, so that a world lives to see them forgotten.
    pub fn config(&self, id: usize) -> NodeConfig {
        let kind = if id < self.members { "member" } else { "spare" };
        let mut config = node_config(&format!("{kind}-{id}"), None);
        config.gossip.compression = self.compress;
        config.gossip.encrypt = self.key.clone();
        config.serf = SerfConfig {
            reconnect_timeout: Duration::from_secs(900),
            tombstone_timeout: Duration::from_secs(600),
            ..config.serf
        };
        config
    }

    /// How long a member must have been dead before another address may take its name, and how
    /// long that takes to be known in a pool of this size.
    pub fn reclaim_after(&self) -> Duration {
        let config = self.config(0).gossip;
        let members = u32::try_from(self.members).unwrap_or(u32::MAX);
        config.dead_node_reclaim_time + config.probe_interval * (40 + 2 * members)
    }
}
