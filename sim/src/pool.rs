//! A pool of agents that only gossip: client nodes in one quiet network, without any server.
//!
//! Experiments begin with members that all know each other. They join host 0 twice while every
//! datagram is lost: a table that arrives at once costs a member far less than one that arrives
//! name by name. Packets are not compressed: that costs the simulator most of a packet's time and
//! no experiment depends on it.

use crate::host::address_of;
use crate::net::{HostId, NetOptions};
use crate::plan::node_config;
use crate::queue::TieOrder;
use crate::world::{Belief, World, WorldOptions};
use std::net::SocketAddr;
use std::time::Duration;
use terraform_core::config::GossipConfig;
use terraform_core::id::NodeName;
use terraform_core::id::PoolName;
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::trace::Level;

/// Members that join at a time.
const WAVE: usize = 32;
/// Time between waves; enough for an exchange, so short that no probe is decided before all
/// have joined.
const WAVE_TIME: Duration = Duration::from_millis(5);
/// Between two looks at whether they did.
const SETTLE_STEP: Duration = Duration::from_secs(1);
/// How long the last facts may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(900);

/// Members that all know each other.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Their world; hosts are members.
    pub world: World,
}

impl Pool {
    /// A pool of `members`, joined and idle.
    ///
    /// Panics if they do not come to know each other within minutes.
    pub fn joined(seed: u64, members: usize, gossip: &GossipConfig) -> Self {
        let options = WorldOptions {
            net: NetOptions { loss_ppm: 1_000_000, ..NetOptions::quiet() },
            order: TieOrder::Fifo,
            disk_latency: Duration::from_millis(1),
            drift_ppm_max: 200,
        };
        let mut pool = Self { world: World::new(seed, options) };
        for id in 0..members {
            let mut config = node_config(&name_of(id), None);
            config.gossip = GossipConfig { compression: false, ..gossip.clone() };
            config.level = Level::Debug;
            pool.world.add_host(config);
        }
        for id in 0..members {
            pool.world.start(id).expect("an empty disk is accepted");
        }
        // In the first round host 0 comes to know all, in the second all come to know them.
        for _ in 0..2 {
            for first in (1..members).step_by(WAVE) {
                for id in first..members.min(first + WAVE) {
                    let addresses = vec![SocketAddr::new(address_of(0), 8301)];
                    let join = RequestBody::Join { pool: PoolName::Lan, addresses, replay: false };
                    pool.world.request(id, Request::new(join));
                }
                pool.run_for(WAVE_TIME);
            }
        }
        pool.world.net.set_options(NetOptions::quiet());
        let limit = pool.world.now + SETTLE_LIMIT;
        while !pool.is_settled() {
            assert!(pool.world.now < limit, "{members} members do not come to know each other");
            pool.run_for(SETTLE_STEP);
        }
        pool.world.beliefs = Some(Vec::new());
        pool
    }

    /// Whether every member knows all of them and has nothing more to tell.
    fn is_settled(&self) -> bool {
        self.world.hosts.iter().all(|host| {
            host.running.as_ref().is_some_and(|running| {
                let gossip = running.node.gossip();
                gossip.queued() == [0; 4] && gossip.peers().count() == self.world.hosts.len()
            })
        })
    }

    /// Runs for `span` of world time.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.world.now + span;
        while self.world.step(until) {
            // No checker looks at these.
            self.world.touched.clear();
            self.world.replies.clear();
        }
    }

    /// What members began to believe since this was last asked.
    pub fn take_beliefs(&mut self) -> Vec<Belief> {
        self.world.beliefs.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// The name of a member.
pub fn name_of(id: HostId) -> String {
    format!("member-{id}")
}

/// The member with this name.
pub fn id_of(name: &NodeName) -> Option<HostId> {
    name.as_str().strip_prefix("member-")?.parse().ok()
}
