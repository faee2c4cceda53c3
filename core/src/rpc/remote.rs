//! The servers of other datacenters, as the WAN pool shows them (cluster-behaviour.md §5, §11).
//!
//! Requests go round them, so that every server of the other datacenter gets its share; one that
//! fails goes to the end. What the pool believes failed is tried last: its word travels slowly.

use crate::id::Datacenter;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A server of another datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteServer {
    /// Where it is.
    pub datacenter: Datacenter,
    /// Its server port.
    pub address: SocketAddr,
    /// Whether the WAN pool believes it alive.
    pub alive: bool,
}

/// The known servers by datacenter, each in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Remote(BTreeMap<Datacenter, Vec<RemoteServer>>);

impl Remote {
    /// Takes the servers that are known. Those known before keep their places; the others get
    /// random ones.
    pub(super) fn update(&mut self, servers: Vec<RemoteServer>, rng: &mut Rng) {
        for known in self.0.values_mut() {
            known.retain_mut(|known| {
                let now = servers.iter().find(|server| {
                    server.address == known.address && server.datacenter == known.datacenter
                });
                known.alive = now.is_some_and(|now| now.alive);
                now.is_some()
            });
        }
        for server in servers {
            let known = self.0.entry(server.datacenter.clone()).or_default();
            if known.iter().all(|other| other.address != server.address) {
                known.insert(rng.index(known.len() + 1), server);
            }
        }
        self.0.retain(|_, known| !known.is_empty());
    }

    /// The servers of a datacenter: those believed alive first; none if it is not known.
    pub(super) fn servers(&self, of: &Datacenter) -> impl Iterator<Item = SocketAddr> + '_ {
        let known = self.0.get(of).map(Vec::as_slice).unwrap_or_default();
        let with = |alive| known.iter().filter(move |server| server.alive == alive);
        with(true).chain(with(false)).map(|server| server.address)
    }

    /// Whether a server of the datacenter is believed alive; `None` if it is not known.
    pub(super) fn reachable(&self, datacenter: &Datacenter) -> Option<bool> {
        Some(self.0.get(datacenter)?.iter().any(|server| server.alive))
    }

    /// Moves a server that was asked, or that failed, to the end.
    pub(super) fn passed(&mut self, address: SocketAddr) {
        for known in self.0.values_mut() {
            if let Some(at) = known.iter().position(|server| server.address == address) {
                let server = known.remove(at);
                known.push(server);
            }
        }
    }
}
