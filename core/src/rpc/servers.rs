//! The servers a client agent may ask, in its own random order (cluster-behaviour.md §5).
//!
//! Requests stick to the first one; one that fails goes to the end. From time to time the order is
//! drawn again, so that load spreads over servers that came later.

use crate::id::NodeId;
use crate::rng::Rng;
use crate::serf::ServerInfo;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two draws of the order: at least this, at most half as much again.
const REBALANCE_MIN: Duration = Duration::from_secs(120);

/// When the order is drawn next: 120 to 180 s.
pub(super) fn rebalance_after(rng: &mut Rng) -> Duration {
    rng.between(REBALANCE_MIN, REBALANCE_MIN + REBALANCE_MIN / 2)
}

/// The known servers.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// The first one gets the requests.
    order: Vec<SocketAddr>,
    by_id: BTreeMap<NodeId, SocketAddr>,
}

impl Servers {
    /// Takes the servers that are alive. Those known keep their places; the others get random
    /// places behind the first.
    pub(super) fn update(&mut self, servers: Vec<ServerInfo>, rng: &mut Rng) {
        self.by_id = servers.iter().map(|server| (server.id, server.address)).collect();
        let alive: Vec<SocketAddr> = servers.into_iter().map(|server| server.address).collect();
        self.order.retain(|address| alive.contains(address));
        if self.order.is_empty() {
            self.order = alive;
            self.order.sort_unstable();
            self.order.dedup();
            rng.shuffle(&mut self.order);
            return;
        }
        for address in alive {
            if !self.order.contains(&address) {
                self.order.insert(1 + rng.index(self.order.len()), address);
            }
        }
    }

    /// The address of a server.
    pub(super) fn address(&self, server: NodeId) -> Option<SocketAddr> {
        self.by_id.get(&server).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The servers in the order in which they are asked.
    pub(super) fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.order.iter().copied()
    }

    /// Moves a server that failed to the end.
    pub(super) fn failed(&mut self, address: SocketAddr) {
        if let Some(at) = self.order.iter().position(|known| *known == address) {
            let failed = self.order.remove(at);
            self.order.push(failed);
        }
    }

    /// Draws the order again; the first server, if there is a choice.
    pub(super) fn shuffle(&mut self, rng: &mut Rng) -> Option<SocketAddr> {
        if self.order.len() < 2 {
            return None;
        }
        rng.shuffle(&mut self.order);
        self.order.first().copied()
    }
}

/// When a held request is tried again: a fraction of what it may wait, drawn for each.
pub(super) fn retry_at(now: Instant, hold: Duration, rng: &mut Rng) -> Instant {
    now + rng.between(hold / 64, hold / 16)
}
