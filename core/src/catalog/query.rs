//! Typed reads of the catalog: the question, and the rows that answer it.
//!
//! A server answers from its [`View`](crate::view::View); a client agent sends the question to a
//! server, so both have a wire form.

use super::autopilot::Autopilot;
use super::kv::{KeyList, KvEntry};
use super::model::{Check, CheckStatus, Node, NodeCoordinate, Service};
use super::overview::{NodeOverview, Overview};
use super::prepared::{PreparedQuery, Selection};
use super::session::Session;
use super::transaction::{Operation, TransactionResult};
use crate::filter::{Filter, Row};
use crate::id::{
    Datacenter, LogIndex, ModifyIndex, NodeId, NodeName, PreparedQueryId, ServiceName, SessionId,
};
use crate::{pack_enum, pack_struct};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Metadata pairs that a node must have, all of them (`?node-meta=`).
pub type MetaFilter = Vec<(String, String)>;

/// A question about the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Query {
    /// All nodes.
    Nodes(NodesQuery),
    /// Service names with the union of their tags.
    Services(MetaFilter),
    /// The instances of a service.
    ServiceNodes(ServiceQuery<ServiceNode>),
    /// One node with its services.
    Node(NodeQuery),
    /// All checks of one node.
    NodeChecks(NodeChecksQuery),
    /// The checks attached to a service's instances.
    ServiceChecks(ServiceQuery<Check>),
    /// Checks in one state; `any` for all.
    ChecksInState(StateQuery),
    /// The instances of a service with everything that decides their health.
    ServiceHealth(ServiceQuery<Instance>),
    /// Known datacenters.
    Datacenters,
    /// The address of the leader.
    Leader,
    /// The addresses of all servers of consensus.
    Peers,
    /// Who has this IP address: a node, else a service instance (dns.md §12, PTR).
    AddressOwner(String),
    /// The node of exactly this name, as one row of `Nodes` or none.
    NodeNamed(NodeName),
    /// Where nodes are.
    Coordinates(CoordinateQuery),
    /// Where the servers of each known datacenter are.
    DatacenterCoordinates,
    /// The entry of a key.
    Key(String),
    /// All entries under a prefix.
    KeyTree(String),
    /// The keys under a prefix.
    Keys(KeyList),
    /// A transaction that only reads.
    Transaction(Vec<Operation>),
    /// Who takes part in consensus.
    RaftConfiguration,
    /// How the leader cares for the servers.
    Autopilot,
    /// The session of this identity.
    Session(SessionId),
    /// All sessions, or those of a node.
    Sessions(Option<NodeName>),
    /// All prepared queries.
    PreparedQueries,
    /// The prepared query of this identity.
    PreparedQuery(PreparedQueryId),
    /// The prepared query that an identity or a name asks for, as it is executed.
    ExplainPrepared(String),
    /// The instances that a prepared query of another datacenter wants.
    Chosen(Box<Selection>),
    /// Everything, for people who look at it.
    Overview(Overview),
}
// 1, 4 and 5 were `Nodes`, `Node` and `NodeChecks` without filters.
pack_enum!(Query {
    2 => Services(MetaFilter), 3 => ServiceNodes(ServiceQuery<ServiceNode>),
    6 => ServiceChecks(ServiceQuery<Check>), 7 => ChecksInState(StateQuery),
    8 => ServiceHealth(ServiceQuery<Instance>), 9 => Datacenters,
    10 => Leader, 11 => Peers, 12 => AddressOwner(String), 13 => NodeNamed(NodeName),
    14 => Coordinates(CoordinateQuery), 15 => DatacenterCoordinates, 16 => Key(String),
    17 => KeyTree(String), 18 => Keys(KeyList), 19 => Transaction(Vec<Operation>),
    20 => RaftConfiguration, 21 => Autopilot, 22 => Session(SessionId),
    23 => Sessions(Option<NodeName>), 24 => PreparedQueries,
    25 => PreparedQuery(PreparedQueryId), 26 => ExplainPrepared(String),
    27 => Chosen(Box<Selection>), 30 => Nodes(NodesQuery), 31 => Node(NodeQuery),
    32 => NodeChecks(NodeChecksQuery), 40 => Overview(Overview),
});

/// Which nodes are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodesQuery {
    /// Metadata they must have.
    pub meta: MetaFilter,
    /// What else they must have.
    pub filter: Option<Filter<Node>>,
    /// The node from which the nearest come first.
    pub near: Option<NodeName>,
}
pack_struct!(NodesQuery { meta, filter, near });

/// Which node is wanted, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeQuery {
    /// Its name, its identity, or a prefix of its identity that no other has.
    pub node: String,
    /// Which of its services.
    pub filter: Option<Filter<Service>>,
}
pack_struct!(NodeQuery { node, filter });

impl NodeQuery {
    /// All of `node`.
    pub fn all(node: impl Into<String>) -> Self {
        Self { node: node.into(), filter: None }
    }
}

/// Which checks of a node are wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeChecksQuery {
    /// The node, in any case.
    pub node: NodeName,
    /// Which of its checks.
    pub filter: Option<Filter<Check>>,
}
pack_struct!(NodeChecksQuery { node, filter });

impl NodeChecksQuery {
    /// All checks of `node`.
    pub const fn all(node: NodeName) -> Self {
        Self { node, filter: None }
    }
}

/// Which coordinates are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoordinateQuery {
    /// Only those of the node of this name, in any case.
    pub node: Option<NodeName>,
    /// Only those of exactly this segment.
    pub segment: Option<String>,
}
pack_struct!(CoordinateQuery { node, segment });

/// Where the servers of one datacenter are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatacenterCoordinates {
    /// The datacenter.
    pub datacenter: Datacenter,
    /// Those of its servers whose place is known, by name.
    pub servers: Vec<Arc<NodeCoordinate>>,
}

impl DatacenterCoordinates {
    /// A datacenter of which nothing more is known.
    pub const fn unknown(datacenter: Datacenter) -> Self {
        Self { datacenter, servers: Vec::new() }
    }
}
pack_struct!(DatacenterCoordinates { datacenter, servers });

/// Who takes part in consensus, as the answering server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfiguration {
    /// The position of the configuration in the log.
    pub index: LogIndex,
    /// The voters, then the learners, each by identity.
    pub servers: Vec<RaftServer>,
}
pack_struct!(RaftConfiguration { index, servers });

/// One server of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftServer {
    /// Its identity.
    pub id: NodeId,
    /// Its name, if the catalog has a node of this identity.
    pub name: Option<NodeName>,
    /// Its server port.
    pub address: SocketAddr,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
}
pack_struct!(RaftServer { id, name, address, leader, voter });

/// Which instances of a service are wanted, of which rows are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceQuery<R> {
    /// The service, in any case.
    pub name: ServiceName,
    /// Tags an instance must have, all of them, in any case.
    pub tags: Vec<String>,
    /// Metadata its node must have.
    pub meta: MetaFilter,
    /// Only instances all of whose checks pass (`?passing`).
    pub passing: bool,
    /// What the rows must have.
    pub filter: Option<Filter<R>>,
    /// The node from which the nearest come first.
    pub near: Option<NodeName>,
}
pack_struct!(ServiceQuery<R: Row> { name, tags, meta, passing, filter, near });

impl<R> ServiceQuery<R> {
    /// All instances of `name`.
    pub const fn all(name: ServiceName) -> Self {
        Self { name, tags: Vec::new(), meta: Vec::new(), passing: false, filter: None, near: None }
    }
}

/// Which checks are wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateQuery {
    /// The exact status, or `any`.
    pub state: String,
    /// Metadata the check's node must have.
    pub meta: MetaFilter,
    /// What else a check must have.
    pub filter: Option<Filter<Check>>,
    /// The node from which the nearest come first.
    pub near: Option<NodeName>,
}
pack_struct!(StateQuery { state, meta, filter, near });

impl StateQuery {
    /// All checks in `state`.
    pub fn all(state: impl Into<String>) -> Self {
        Self { state: state.into(), meta: Vec::new(), filter: None, near: None }
    }
}

/// One instance with its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceNode {
    /// The node.
    pub node: Arc<Node>,
    /// The instance.
    pub service: Arc<Service>,
}
pack_struct!(ServiceNode { node, service });

/// One node with all its services, ordered by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeServices {
    /// The node.
    pub node: Arc<Node>,
    /// Its services.
    pub services: Vec<Arc<Service>>,
}
pack_struct!(NodeServices { node, services });

/// One instance with its node, the node's own checks and the instance's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The node.
    pub node: Arc<Node>,
    /// The instance.
    pub service: Arc<Service>,
    /// Node checks first, then the instance's, each by id.
    pub checks: Vec<Arc<Check>>,
}
pack_struct!(Instance { node, service, checks });

impl Instance {
    /// Whether every check of the node and of the instance is exactly `passing`.
    pub fn is_passing(&self) -> bool {
        self.checks.iter().all(|check| check.status == CheckStatus::Passing)
    }

    /// Whether some check of the node or of the instance is `critical`.
    pub fn is_critical(&self) -> bool {
        self.checks.iter().any(|check| check.status == CheckStatus::Critical)
    }
}

/// Who has an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// A node of this name.
    Node(NodeName),
    /// An instance of this service.
    Service(ServiceName),
    /// Nobody.
    Nobody,
}
pack_enum!(AddressOwner { 0 => Nobody, 1 => Node(NodeName), 2 => Service(ServiceName) });

/// The rows that answer a [`Query`]; the variant follows from the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// To `Nodes` and `NodeNamed`, by name.
    Nodes(Vec<Arc<Node>>),
    /// To `Services`.
    Services(BTreeMap<String, Vec<String>>),
    /// To `ServiceNodes`, by node and id.
    ServiceNodes(Vec<ServiceNode>),
    /// To `Node`; `None` if unknown.
    Node(Option<NodeServices>),
    /// To `NodeChecks`, `ServiceChecks`, `ChecksInState`.
    Checks(Vec<Arc<Check>>),
    /// To `ServiceHealth` and `Chosen`, by node and id, and to `Overview` of instances, by service
    /// before that.
    Instances(Vec<Arc<Instance>>),
    /// To `Datacenters` and `Peers`, and to `Keys` in their order.
    Names(Vec<String>),
    /// To `Leader`: `ip:port`, or empty without a leader.
    Text(String),
    /// To `AddressOwner`.
    Owner(AddressOwner),
    /// To `Coordinates`, by node and segment.
    Coordinates(Vec<Arc<NodeCoordinate>>),
    /// To `DatacenterCoordinates`, the own one first.
    DatacenterCoordinates(Vec<DatacenterCoordinates>),
    /// To `Key` and `KeyTree`, by key.
    Entries(Vec<Arc<KvEntry>>),
    /// To `Transaction`.
    Transaction(TransactionResult),
    /// To `RaftConfiguration`.
    RaftConfiguration(RaftConfiguration),
    /// To `Autopilot`; `None` while there never was a leader.
    Autopilot(Option<Arc<Autopilot>>),
    /// To `Session` and `Sessions`, by identity, those of one node by that node and identity.
    Sessions(Vec<Arc<Session>>),
    /// To `PreparedQueries`, `PreparedQuery` and `ExplainPrepared`, by identity.
    PreparedQueries(Vec<Arc<PreparedQuery>>),
    /// To `Overview` of nodes, by name.
    NodeOverviews(Vec<NodeOverview>),
}
pack_enum!(Rows {
    1 => Nodes(Vec<Arc<Node>>), 2 => Services(BTreeMap<String, Vec<String>>),
    3 => ServiceNodes(Vec<ServiceNode>), 4 => Node(Option<NodeServices>),
    5 => Checks(Vec<Arc<Check>>), 6 => Instances(Vec<Arc<Instance>>), 7 => Names(Vec<String>),
    8 => Text(String), 9 => Owner(AddressOwner), 10 => Coordinates(Vec<Arc<NodeCoordinate>>),
    11 => DatacenterCoordinates(Vec<DatacenterCoordinates>), 12 => Entries(Vec<Arc<KvEntry>>),
    13 => Transaction(TransactionResult), 14 => RaftConfiguration(RaftConfiguration),
    15 => Autopilot(Option<Arc<Autopilot>>), 16 => Sessions(Vec<Arc<Session>>),
    17 => PreparedQueries(Vec<Arc<PreparedQuery>>),
    40 => NodeOverviews(Vec<NodeOverview>),
});

/// How fresh a read must be (http-api.md §1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader answers while its lease holds.
    #[default]
    Leader,
    /// Any server answers.
    Stale,
    /// The leader confirms its leadership with a quorum first.
    Consistent,
}
pack_enum!(Consistency { 0 => Leader, 1 => Stale, 2 => Consistent });

/// An answer with what the meta headers need (http-api.md §1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryAnswer {
    /// The rows.
    pub rows: Rows,
    /// The index of the state that was read; at least 1.
    pub index: ModifyIndex,
    /// Whether the answering server knows a leader.
    pub known_leader: bool,
    /// How long ago it heard from the leader; zero on the leader.
    pub last_contact: Duration,
    /// How it was read.
    pub consistency: Consistency,
}
pack_struct!(QueryAnswer { rows, index, known_leader, last_contact, consistency });
