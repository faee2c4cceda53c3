//! The WAN pool as this server sees it: which datacenters there are, who serves them, and which
//! servers of its own datacenter the pool lacks.
//!
//! Members of the WAN pool are never registered and their events go to no subscriber; they only
//! say who serves which datacenter (cluster-behaviour.md §11). Of its own datacenter each server
//! joins those that the LAN pool shows and the WAN pool does not, at once when one appears and
//! every minute after that, so that one join connects two datacenters.

use super::{Node, NodeTrace};
use crate::catalog::model::NodeCoordinate;
use crate::catalog::query::DatacenterCoordinates;
use crate::coordinate::Coordinate;
use crate::gossip::{GossipInput, JoinId};
use crate::id::{Datacenter, PoolName};
use crate::machine::Machine as _;
use crate::rpc::{RemoteServer, RpcInput};
use crate::serf::{Member, MemberEventKind, MemberStatus, SerfEvent, SerfInput, ServerInfo};
use crate::time::Instant;
use crate::trace::Level;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time between looks for servers of this datacenter that the WAN pool lacks.
const FLOOD_INTERVAL: Duration = Duration::from_secs(60);
/// Servers that one look joins; the others wait for the next.
const FLOOD_MAX: usize = 32;

/// What the WAN pool shows.
#[derive(Clone, Debug)]
pub(super) struct WanState {
    /// All datacenters, this one first, then the nearest ones, and where their servers are.
    pub(super) datacenters: Arc<[DatacenterCoordinates]>,
    /// How many servers' places they were made of.
    placed: usize,
    /// Servers of other datacenters that are alive.
    servers: Vec<ServerInfo>,
    /// When to look for missing servers again.
    pub(super) flood_at: Instant,
    /// The join of missing servers that is running.
    flooding: Option<JoinId>,
    /// Whether a server appeared while it ran.
    flood_again: bool,
}

impl WanState {
    /// Only `own` is known.
    pub(super) fn new(own: &Datacenter, now: Instant) -> Self {
        Self {
            datacenters: Arc::new([DatacenterCoordinates::unknown(own.clone())]),
            placed: 0,
            servers: Vec::new(),
            flood_at: now + FLOOD_INTERVAL,
            flooding: None,
            flood_again: false,
        }
    }
}

impl Node {
    /// Takes note of what the Serf layer of the WAN pool tells. Its user events and queries are
    /// nobody's business but Serf's own.
    pub(super) fn wan_event(&mut self, now: Instant, event: &SerfEvent) {
        if let SerfEvent::Members { .. } = event {
            self.wan_changed(now);
        }
    }

    /// Takes note of who serves which datacenter, after a change of the WAN pool.
    pub(super) fn wan_changed(&mut self, now: Instant) {
        if !self.started || self.wan.is_none() {
            return;
        }
        let own = &self.config.datacenter;
        let (mut servers, mut remote) = (Vec::new(), Vec::new());
        for member in self.wan_members() {
            let alive = member.status == MemberStatus::Alive;
            let server = member.server().filter(|server| server.datacenter != *own);
            let Some(server) = server.filter(|_| alive || member.status == MemberStatus::Failed)
            else {
                continue;
            };
            let (datacenter, address) = (server.datacenter.clone(), server.address);
            remote.push(RemoteServer { datacenter, address, alive });
            if alive {
                servers.push(server);
            }
        }
        self.rpc.handle(now, RpcInput::RemoteServers(remote), &mut self.boxes.rpc);
        let known = std::mem::take(&mut self.wan_state.servers);
        self.trace_remote_servers(&known, &servers);
        self.wan_state.servers = servers;
        self.wan_state.datacenters = self.datacenters_by_distance();
    }

    /// A server of the WAN pool answered a probe: if its place is new, there is more to tell.
    pub(super) fn wan_probed(&mut self) {
        let known = self.wan.as_ref().map_or(0, |wan| wan.serf.coordinates().count());
        if known != self.wan_state.placed {
            self.wan_state.placed = known;
            self.wan_state.datacenters = self.datacenters_by_distance();
        }
    }

    fn trace_remote_servers(&mut self, known: &[ServerInfo], servers: &[ServerInfo]) {
        let is_in = |list: &[ServerInfo], server: &ServerInfo| {
            list.iter().any(|other| other.id == server.id && other.address == server.address)
        };
        for server in servers.iter().filter(|server| !is_in(known, server)) {
            let (datacenter, address) = (server.datacenter.clone(), server.address);
            self.trace(Level::Info, NodeTrace::AddingServer { datacenter, address });
        }
        for server in known.iter().filter(|server| !is_in(servers, server)) {
            let (datacenter, address) = (server.datacenter.clone(), server.address);
            self.trace(Level::Info, NodeTrace::RemovingServer { datacenter, address });
        }
    }

    /// All datacenters that have members in the WAN pool, alive or failed: this one first, then by
    /// the median of the round trips that the coordinates of their servers foretell. Those without
    /// a coordinate are last.
    fn datacenters_by_distance(&self) -> Arc<[DatacenterCoordinates]> {
        let own = &self.config.datacenter;
        let mut known: BTreeMap<Datacenter, Vec<Arc<NodeCoordinate>>> = BTreeMap::new();
        let mut here = &Coordinate::ORIGIN;
        if let Some(wan) = self.wan.as_deref() {
            let places = wan.serf.coordinates();
            let name = self.config.name.in_wan(own).ok();
            here = name.and_then(|name| places.get(&name)).unwrap_or(here);
            for member in wan.serf.members().filter(|m| m.status != MemberStatus::Left) {
                let Some(server) = member.server() else { continue };
                let Some(node) = server.name.out_of_wan(&server.datacenter) else { continue };
                let place = places.get(&member.name).cloned();
                let segment = String::new();
                let row = place.map(|coordinate| NodeCoordinate { node, segment, coordinate });
                known.entry(server.datacenter).or_default().extend(row.map(Arc::new));
            }
        }
        let servers = known.remove(own).unwrap_or_default();
        let first = DatacenterCoordinates { datacenter: own.clone(), servers };
        let mut others: Vec<(Duration, DatacenterCoordinates)> = known
            .into_iter()
            .map(|(datacenter, servers)| {
                let trips = servers.iter().map(|server| here.distance(&server.coordinate));
                let trip = median(trips.collect()).unwrap_or(Duration::MAX);
                (trip, DatacenterCoordinates { datacenter, servers })
            })
            .collect();
        // The order of their names stays among those equally far away.
        others.sort_by_key(|(trip, _)| *trip);
        std::iter::once(first).chain(others.into_iter().map(|(_, other)| other)).collect()
    }

    /// A member of the LAN pool changed: a server that appeared may be missing from the WAN pool.
    pub(super) fn lan_server_event(&mut self, now: Instant, kind: MemberEventKind, of: &Member) {
        if kind == MemberEventKind::Join && of.server().is_some() {
            self.flood(now);
        }
    }

    /// Looks for missing servers and weighs the distances anew, if that is due.
    pub(super) fn flood_timeout(&mut self, now: Instant) {
        if self.wan.is_none() || now < self.wan_state.flood_at {
            return;
        }
        self.wan_state.flood_at = now + FLOOD_INTERVAL;
        self.wan_state.datacenters = self.datacenters_by_distance();
        self.flood(now);
    }

    /// Joins the servers of this datacenter that the WAN pool lacks.
    fn flood(&mut self, now: Instant) {
        if self.wan_state.flooding.is_some() {
            self.wan_state.flood_again = true;
            return;
        }
        if !self.started || self.lifecycle.is_leaving() {
            return;
        }
        let addresses = self.missing_servers();
        if addresses.is_empty() {
            return;
        }
        crate::mark!("node.flooded");
        let count = addresses.len();
        self.trace(Level::Debug, NodeTrace::Flooding { count });
        let join = self.waiting.issue_join();
        self.wan_state.flooding = Some(join);
        self.tell_serf(now, PoolName::Wan, SerfInput::JoinBegan(join));
        self.tell_gossip(now, PoolName::Wan, GossipInput::Join { join, addresses });
    }

    /// The WAN addresses of servers that are alive in the LAN pool, but not in the WAN pool.
    fn missing_servers(&self) -> Vec<SocketAddr> {
        let Some(wan) = self.wan.as_deref() else { return Vec::new() };
        let own = &self.config.datacenter;
        let is_there = |server: &ServerInfo| {
            let name = server.name.in_wan(own).ok();
            let member = name.and_then(|name| wan.serf.member(&name));
            member.is_some_and(|member| member.status == MemberStatus::Alive)
        };
        let missing = self.lan.serf.members().filter_map(|member| {
            let server = member.server()?;
            let port = member.tags.get("wan_join_port")?.parse().ok()?;
            let wanted = member.status == MemberStatus::Alive
                && server.datacenter == *own
                && server.id != self.id
                && !is_there(&server);
            wanted.then(|| SocketAddr::new(member.address.ip(), port))
        });
        missing.take(FLOOD_MAX).collect()
    }

    /// A join in the WAN pool is over; it may be that of missing servers.
    pub(super) fn flood_finished(&mut self, now: Instant, join: JoinId) {
        if self.wan_state.flooding != Some(join) {
            return;
        }
        self.wan_state.flooding = None;
        if std::mem::take(&mut self.wan_state.flood_again) {
            self.flood(now);
        }
    }
}

fn median(mut trips: Vec<Duration>) -> Option<Duration> {
    trips.sort_unstable();
    trips.get(trips.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bootstrap, GossipConfig, NodeConfig, SerfConfig, ServerConfig, WanConfig};
    use crate::gossip::{Peer, Versions};
    use crate::id::{Incarnation, NodeId, NodeName};
    use crate::node::input::Input;
    use crate::node::server::own_tags;
    use crate::node::tests::node_of;
    use crate::storage::testing::restored_server;
    use crate::wire::serf::encode_tags;

    fn known(node: &Node) -> Vec<String> {
        let all = node.wan_state.datacenters.iter();
        all.map(|known| known.datacenter.to_string()).collect()
    }

    /// A server that knows one server of another datacenter, which then leaves or fails.
    fn without(left: bool) -> Node {
        let wan = WanConfig { port: 8302, gossip: GossipConfig::lan(), serf: SerfConfig::wan() };
        let server = ServerConfig { wan: Some(wan), ..ServerConfig::new(Bootstrap::Join) };
        let mut node = node_of(Some(server), restored_server());
        let datacenter = Datacenter::parse("dc2").unwrap();
        let other = NodeConfig { datacenter, ..node.config.clone() };
        let tags = own_tags(&other, NodeId::from_bytes([2; 16]), PoolName::Wan);
        let name = NodeName::parse("other.dc2").unwrap();
        let peer = Peer {
            name: name.clone(),
            address: SocketAddr::from(([10, 0, 0, 2], 8302)),
            meta: encode_tags(&tags).unwrap(),
            versions: Versions::OURS,
            incarnation: Incarnation::new(1),
        };
        let now = Instant::ZERO;
        node.tell_serf(now, PoolName::Wan, SerfInput::Joined(peer));
        node.settle(now);
        assert_eq!(known(&node), ["dc1", "dc2"]);
        node.tell_serf(now, PoolName::Wan, SerfInput::Gone { name, left });
        node.settle(now);
        node
    }

    #[test]
    fn a_datacenter_whose_servers_left_is_forgotten_at_once_and_a_dead_one_in_time() {
        assert_eq!(known(&without(true)), ["dc1"]);
        let mut node = without(false);
        let timeout = SerfConfig::wan().reconnect_timeout;
        let mut now = Instant::ZERO;
        while now < Instant::ZERO + timeout {
            assert_eq!(known(&node), ["dc1", "dc2"], "it may come back");
            now = now + timeout / 8;
            node.handle(now, Input::Timeout);
            while node.poll_output().is_some() {}
        }
        node.handle(now + Duration::from_secs(60), Input::Timeout);
        assert_eq!(known(&node), ["dc1"]);
    }
}
