//! Nodes, services, checks and the key-value table with their indexes: the replicated state.
//!
//! [`Tables`] is a value: [`Tables::apply`] is a function of (tables, index, command) alone, it
//! reads no clock and draws no random number, so equal logs give equal tables on every server.
//! Maps are persistent, so a clone costs O(1) and readers on other threads keep theirs.
//!
//! - INV-CATALOG-1: every service and every check belongs to a node that exists; every check that
//!   names a service belongs to one that exists on its node and carries its name and tags; every
//!   coordinate belongs to a node that exists.
//! - INV-CATALOG-2: the instances of the service index hold the newest record of their node, their
//!   service and all checks that decide their health.
//! - INV-CATALOG-3: an identical write raises no index (http-api.md §1.6).
//! - INV-CATALOG-4: no index of a node, a service or a check is above that of its table, and none
//!   of a service's health above those of all three.
//! - INV-CATALOG-5: the index of addresses knows exactly the nodes and services that have one.

pub mod address;
mod addresses;
mod apply;
pub mod autopilot;
pub mod command;
mod counts;
pub mod image;
mod keys;
pub mod kv;
pub mod lock;
pub mod model;
pub mod overview;
pub mod prepared;
pub mod query;
mod read;
mod refine;
pub mod restore;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod topic;
pub mod transaction;

pub use counts::Counts;

use crate::id::{ModifyIndex, NodeId, SessionId};
use addresses::Addresses;
use autopilot::Autopilot;
use imbl::OrdMap;
use kv::KvTable;
use model::{Check, Node, NodeCoordinate, Service};
use prepared::PreparedTable;
use query::Instance;
use restore::Restoring;
use session::Session;
use std::sync::Arc;

/// The tables of the catalog as persistent maps.
///
/// Keys are made by `keys`: names folded to lower case, parts separated by a byte that no name
/// may contain, so that one range holds everything of one node or of one service in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// By folded name.
    nodes: OrdMap<Arc<str>, NodeRow>,
    /// The folded name of the node with this identity.
    node_ids: OrdMap<NodeId, Arc<str>>,
    /// By (folded node, id).
    services: OrdMap<Arc<str>, Arc<Service>>,
    /// By (folded node, id).
    checks: OrdMap<Arc<str>, Arc<Check>>,
    /// By (folded service name, folded node, id): what health queries and DNS read.
    instances: OrdMap<Arc<str>, Arc<Instance>>,
    /// By folded service name: when an instance, its node or a check of it last changed. Holds
    /// exactly the services that have an instance.
    service_indexes: OrdMap<Arc<str>, ModifyIndex>,
    /// Who has which IP address.
    addresses: Addresses,
    /// By (folded node, segment).
    coordinates: OrdMap<Arc<str>, Arc<NodeCoordinate>>,
    /// By (folded node, id as text).
    sessions: OrdMap<Arc<str>, Arc<Session>>,
    /// The key of the session with this identity.
    session_ids: OrdMap<SessionId, Arc<str>>,
    /// Prepared queries.
    prepared: PreparedTable,
    /// Keys and values.
    kv: KvTable,
    /// How the leader cares for the servers.
    autopilot: Option<Arc<Autopilot>>,
    /// When each table of the catalog last changed.
    changed: TableIndexes,
    /// What lies between a position in the log and the catalog index of its command; only grows.
    index_base: u64,
    /// When a backup was restored last; zero if never.
    restored_at: ModifyIndex,
    /// The restore that is under way.
    restoring: Option<Box<Restoring>>,
}

/// A node with the checks that apply to all its services.
#[derive(Clone, Debug, PartialEq)]
struct NodeRow {
    node: Arc<Node>,
    /// Checks without a service, by id.
    checks: Arc<[Arc<Check>]>,
}

/// When something in a table last changed, deletions included; zero if never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TableIndexes {
    nodes: ModifyIndex,
    services: ModifyIndex,
    checks: ModifyIndex,
    coordinates: ModifyIndex,
    sessions: ModifyIndex,
    /// When a service last lost its last instance.
    service_lost: ModifyIndex,
}
