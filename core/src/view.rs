//! The published snapshot of a node: everything that readers on other threads may use.
//!
//! A view is a plain value. Readers take the view first and the clock after it, so a lease that
//! they find valid was valid when the state was read (DESIGN.md §8).

use crate::catalog::Tables;
use crate::catalog::query::{
    Consistency, DatacenterCoordinates, Query, QueryAnswer, RaftConfiguration, RaftServer, Rows,
};
use crate::event::KeptEvents;
use crate::id::{Datacenter, LogIndex, ModifyIndex, NodeId, NodeName, PoolName, Term};
use crate::local::LocalView;
use crate::node::request::RequestContext;
use crate::raft::{Configuration, Server};
use crate::serf::{Member, MemberStatus, Members};
use crate::time::Instant;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its identity.
    pub id: NodeId,
    /// Its server port.
    pub address: SocketAddr,
}

/// What a server knows of consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusView {
    /// `Leader`, `Follower` or `Candidate`.
    pub role: &'static str,
    /// The current term.
    pub term: Term,
    /// The leader, if known.
    pub leader: Option<Leader>,
    /// When it was last heard of.
    pub leader_contact_at: Option<Instant>,
    /// Until when this server may answer reads as the leader.
    pub lease_until: Option<Instant>,
    /// The newest committed entry.
    pub commit: LogIndex,
    /// The newest applied entry.
    pub applied: LogIndex,
    /// The newest entry.
    pub last: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// The newest configuration.
    pub configuration: Arc<Configuration>,
    /// Its position.
    pub configuration_index: LogIndex,
}

impl ConsensusView {
    /// A leader of `term` whose log is empty: for tables that stand by themselves, as a backup's.
    pub fn of_new_leader(term: Term) -> Self {
        Self {
            role: "Leader",
            term,
            leader: None,
            leader_contact_at: None,
            lease_until: None,
            commit: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            last: LogIndex::ZERO,
            last_term: Term::ZERO,
            configuration: Arc::default(),
            configuration_index: LogIndex::ZERO,
        }
    }
}

/// One node's published state.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The node's name.
    pub name: NodeName,
    /// Its identity.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// All known members of the LAN pool, by name.
    pub members: Members,
    /// All known members of the WAN pool, by name; `None` on an agent that is not in it.
    pub wan_members: Option<Members>,
    /// All datacenters that are known, this one first, then the nearest ones, and where their
    /// servers were a minute ago at most.
    pub datacenters: Arc<[DatacenterCoordinates]>,
    /// Its own registrations.
    pub local: LocalView,
    /// The events of the HTTP interface received last, oldest first.
    pub events: KeptEvents,
    /// On servers, consensus.
    pub consensus: Option<ConsensusView>,
    /// On servers, the catalog.
    pub catalog: Option<Tables>,
    /// Counts the publications of this run.
    pub version: u64,
}

impl ConsensusView {
    /// Whether this server leads.
    pub fn is_leader(&self) -> bool {
        self.role == "Leader"
    }
}

impl View {
    /// The state that answers a read, if this snapshot may: a stale read on any server that has
    /// heard of a leader, a default read on a leader whose lease holds at `now`, and what every
    /// server knows by itself. `None` sends the reader to the node.
    ///
    /// `now` must have been read after the view was taken.
    ///
    /// - Source: http-api.md §1.5 and §3; raft.md §8 for the lease.
    pub fn readable(
        &self,
        context: &RequestContext,
        query: &Query,
        now: Instant,
    ) -> Option<ServerState<'_>> {
        if context.datacenter.as_ref().is_some_and(|asked| *asked != self.datacenter) {
            return None;
        }
        let (consensus, tables) = (self.consensus.as_ref()?, self.catalog.as_ref()?);
        let known_everywhere = matches!(
            query,
            Query::Datacenters | Query::DatacenterCoordinates | Query::Leader | Query::Peers
        );
        let allowed = known_everywhere
            || match context.consistency {
                Consistency::Stale => {
                    consensus.is_leader() || consensus.leader_contact_at.is_some()
                }
                Consistency::Leader => {
                    consensus.is_leader() && consensus.lease_until.is_some_and(|end| end > now)
                }
                Consistency::Consistent => false,
            };
        let state = ServerState { tables, consensus, datacenters: &self.datacenters };
        allowed.then_some(state)
    }

    /// Whether this agent has lost its pool, or a part of it that it cannot do without, and is to
    /// look for it where it was told to (cluster-behaviour.md §16, row 5):
    ///
    /// - LAN: no other member is alive; or, on a client, no server is; or, on a server, none is
    ///   known to lead, be it because two halves of the pool have not met.
    /// - WAN: no server of another datacenter is alive.
    pub fn has_lost(&self, pool: PoolName) -> bool {
        let is_alive = |member: &&Member| member.status == MemberStatus::Alive;
        match (pool, &self.wan_members) {
            (PoolName::Lan, _) => {
                let mut others =
                    self.members.iter().filter(is_alive).filter(|other| other.name != self.name);
                match &self.consensus {
                    Some(consensus) => {
                        let follows = consensus.is_leader() || consensus.leader.is_some();
                        !follows || others.next().is_none()
                    }
                    None => !others.any(|other| other.server().is_some()),
                }
            }
            (PoolName::Wan, None) => false,
            (PoolName::Wan, Some(members)) => {
                let elsewhere = |member: &Member| {
                    member.datacenter().is_some_and(|datacenter| datacenter != self.datacenter)
                };
                !members.iter().filter(is_alive).any(elsewhere)
            }
        }
    }

    /// Answers a read from this snapshot, if it is [`readable`](Self::readable) for it and the read
    /// need not wait.
    pub fn answer(
        &self,
        context: &RequestContext,
        query: &Query,
        now: Instant,
    ) -> Option<QueryAnswer> {
        let state = self.readable(context, query, now)?;
        let answer = answer_now(state, query, context.consistency, now);
        (context.waits().is_none() || answer.index > context.min_index).then_some(answer)
    }
}

/// What a server answers reads from.
#[derive(Clone, Copy, Debug)]
pub struct ServerState<'a> {
    /// The catalog.
    pub tables: &'a Tables,
    /// Consensus.
    pub consensus: &'a ConsensusView,
    /// All datacenters that are known, its own first, and where their servers are.
    pub datacenters: &'a [DatacenterCoordinates],
}

impl ServerState<'_> {
    /// How long ago this server heard from the leader; zero on the leader.
    pub fn last_contact(&self, now: Instant) -> Duration {
        match self.consensus.leader_contact_at {
            Some(at) if !self.consensus.is_leader() => now.since(at),
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// Answers a read from exactly this state. Whoever calls has made sure that the state is fresh
/// enough for `consistency`: by a lease, by a quorum, or because staleness is allowed.
///
/// - Source: http-api.md §1.3 for the meta data.
/// - Cost: that of the rows; O(catalog) for the queries over everything and for `AddressOwner`.
pub fn answer_now(
    state: ServerState<'_>,
    query: &Query,
    consistency: Consistency,
    now: Instant,
) -> QueryAnswer {
    let ServerState { tables, consensus, datacenters } = state;
    let (rows, index) = match query {
        Query::Nodes(wanted) => tables.all_nodes(&wanted.meta),
        Query::NodeNamed(name) => tables.node_named(name),
        Query::Services(meta) => tables.all_services(meta),
        Query::ServiceNodes(wanted) => tables.service_nodes(wanted),
        Query::Node(wanted) => tables.node_with_services(&wanted.node),
        Query::NodeChecks(wanted) => tables.node_checks(&wanted.node),
        Query::ServiceChecks(wanted) => tables.service_checks(wanted),
        Query::ChecksInState(wanted) => tables.checks_in_state(wanted),
        Query::ServiceHealth(wanted) => tables.service_health(wanted),
        Query::AddressOwner(address) => tables.address_owner(address),
        Query::Coordinates(wanted) => tables.coordinates(wanted),
        Query::Overview(wanted) => tables.overview(wanted),
        Query::Session(id) => tables.session_row(*id),
        Query::Sessions(node) => tables.sessions(node.as_ref()),
        Query::PreparedQueries => tables.all_prepared(),
        Query::PreparedQuery(id) => tables.prepared_row(*id),
        Query::ExplainPrepared(asked) => tables.explain_prepared(asked),
        Query::Chosen(wanted) => (Rows::Instances(tables.chosen(wanted)), ModifyIndex::ZERO),
        Query::Key(key) => tables.key(key),
        Query::KeyTree(prefix) => tables.key_tree(prefix),
        Query::Keys(wanted) => tables.keys(wanted),
        Query::Transaction(operations) => {
            (Rows::Transaction(tables.read_together(operations)), ModifyIndex::ZERO)
        }
        Query::RaftConfiguration => {
            (Rows::RaftConfiguration(configuration(tables, consensus)), ModifyIndex::ZERO)
        }
        Query::Autopilot => (Rows::Autopilot(tables.autopilot().cloned()), ModifyIndex::ZERO),
        Query::DatacenterCoordinates => {
            let mut rows = datacenters.to_vec();
            // A server outside of the WAN pool knows its peers from the LAN pool alone.
            if let Some(own) = rows.first_mut().filter(|own| own.servers.is_empty()) {
                let servers = consensus.configuration.servers().map(|(id, _)| *id);
                own.servers = tables.coordinates_of(servers);
            }
            (Rows::DatacenterCoordinates(rows), ModifyIndex::ZERO)
        }
        Query::Datacenters => {
            let names = datacenters.iter().map(|known| known.datacenter.to_string());
            (Rows::Names(names.collect()), ModifyIndex::ZERO)
        }
        Query::Leader => {
            let leader = consensus.leader.as_ref();
            let address = leader.map_or_else(String::new, |leader| leader.address.to_string());
            (Rows::Text(address), ModifyIndex::ZERO)
        }
        Query::Peers => {
            let servers = consensus.configuration.servers();
            let peers = servers.map(|(_, server)| server.address.to_string());
            (Rows::Names(peers.collect()), ModifyIndex::ZERO)
        }
    };
    let own = datacenters.first().map_or("", |own| own.datacenter.as_str());
    QueryAnswer {
        rows: tables.refined(query, rows, own),
        index: index.max(tables.restored_at()).max(ModifyIndex::new(1)),
        known_leader: consensus.leader.is_some(),
        last_contact: state.last_contact(now),
        consistency,
    }
}

fn configuration(tables: &Tables, consensus: &ConsensusView) -> RaftConfiguration {
    let leader = consensus.leader.as_ref().map(|leader| leader.id);
    let server = |(id, server): (&NodeId, &Server)| RaftServer {
        id: *id,
        name: tables.name_of(*id).cloned(),
        address: server.address,
        leader: leader == Some(*id),
        voter: consensus.configuration.is_voter(*id),
    };
    let servers = consensus.configuration.servers().map(server).collect();
    RaftConfiguration { index: consensus.configuration_index, servers }
}

#[cfg(test)]
mod tests;
