//! How the tables answer questions (http-api.md §1.6 for the indexes, §1.9, §7, §8), but for their
//! filters and for the order they want, which `refine` is for.

use super::addresses::Holder;
use super::command::SERF_HEALTH;
use super::kv::KeyList;
use super::model::{Check, Node, NodeCoordinate, Service};
use super::query::{
    AddressOwner, CoordinateQuery, Instance, MetaFilter, NodeServices, Rows, ServiceNode,
    ServiceQuery, StateQuery,
};
use super::{TableIndexes, Tables, keys};
use crate::coordinate::Coordinate;
use crate::id::{ModifyIndex, NodeId, NodeName};
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Characters of an identity that are enough to name a node by.
const ID_PREFIX_MIN: usize = 2;

impl Tables {
    /// All nodes by name.
    pub(crate) fn all_nodes(&self, meta: &MetaFilter) -> (Rows, ModifyIndex) {
        let nodes = self.nodes.values().map(|row| &row.node);
        let nodes = nodes.filter(|node| has_meta(node, meta)).cloned().collect();
        (Rows::Nodes(nodes), self.changed.nodes)
    }

    /// The node of exactly this name, as one row or none.
    pub(crate) fn node_named(&self, name: &NodeName) -> (Rows, ModifyIndex) {
        let row = self.nodes.get(&*name.folded());
        (
            Rows::Nodes(row.map(|row| Arc::clone(&row.node)).into_iter().collect()),
            self.changed.nodes,
        )
    }

    /// Service names with the union of their tags, sorted.
    pub(crate) fn all_services(&self, meta: &MetaFilter) -> (Rows, ModifyIndex) {
        let mut union: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for instance in self.instances.values().filter(|i| has_meta(&i.node, meta)) {
            let tags = union.entry(instance.service.name.as_str()).or_default();
            tags.extend(instance.service.tags.iter().map(String::as_str));
        }
        let owned = |tags: BTreeSet<&str>| tags.into_iter().map(str::to_owned).collect();
        let rows = union.into_iter().map(|(name, tags)| (name.to_owned(), owned(tags))).collect();
        let TableIndexes { nodes, services, .. } = self.changed;
        let index = if meta.is_empty() { services } else { nodes.max(services) };
        (Rows::Services(rows), index)
    }

    /// The instances of a service, by node and id.
    pub(crate) fn service_nodes(&self, query: &ServiceQuery<ServiceNode>) -> (Rows, ModifyIndex) {
        let row = |instance: &Arc<Instance>| ServiceNode {
            node: Arc::clone(&instance.node),
            service: Arc::clone(&instance.service),
        };
        let rows = self.matching(query).map(row).collect();
        let TableIndexes { nodes, services, .. } = self.changed;
        (Rows::ServiceNodes(rows), self.service_index(query, nodes.max(services)))
    }

    /// The instances of a service with their checks, by node and id.
    pub(crate) fn service_health(&self, query: &ServiceQuery<Instance>) -> (Rows, ModifyIndex) {
        let rows = self.matching(query).cloned().collect();
        let TableIndexes { nodes, services, checks, .. } = self.changed;
        (Rows::Instances(rows), self.service_index(query, nodes.max(services).max(checks)))
    }

    /// The checks attached to a service's instances, without their nodes' checks.
    pub(crate) fn service_checks(&self, query: &ServiceQuery<Check>) -> (Rows, ModifyIndex) {
        let checks = self.matching(query).flat_map(|instance| instance.checks.iter());
        let rows = checks.filter(|check| check.service_id.is_some()).cloned().collect();
        (Rows::Checks(rows), self.changed.checks)
    }

    /// A node with its services; by name, else by identity or an identity's unique prefix.
    pub(crate) fn node_with_services(&self, wanted: &str) -> (Rows, ModifyIndex) {
        let named = self.nodes.get(&*wanted.to_lowercase()).map(|row| &row.node);
        let Some(node) = named.or_else(|| self.node_by_id(wanted)) else {
            return (Rows::Node(None), ModifyIndex::ZERO);
        };
        let services = keys::under(&self.services, &node.name.folded()).cloned().collect();
        let rows = Rows::Node(Some(NodeServices { node: Arc::clone(node), services }));
        (rows, self.changed.nodes.max(self.changed.services))
    }

    /// All checks of one node, by id.
    pub(crate) fn node_checks(&self, name: &NodeName) -> (Rows, ModifyIndex) {
        let rows = keys::under(&self.checks, &name.folded()).cloned().collect();
        (Rows::Checks(rows), self.changed.checks)
    }

    /// All checks, by node and id.
    pub(crate) const fn check_map(&self) -> &OrdMap<Arc<str>, Arc<Check>> {
        &self.checks
    }

    /// The checks of one node with their keys in the map of all, by id.
    pub(crate) fn checks_on(
        &self,
        name: &NodeName,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Check>)> {
        keys::under_after(&self.checks, &name.folded(), None)
    }

    /// What the leader, or somebody else, says of a whole node.
    pub(crate) fn member_health(&self, name: &NodeName) -> Option<&Arc<Check>> {
        self.checks.get(&*keys::on_node(&name.folded(), SERF_HEALTH))
    }

    /// The checks in exactly this state, or all for `any`; by node and id.
    pub(crate) fn checks_in_state(&self, query: &StateQuery) -> (Rows, ModifyIndex) {
        let wanted = |check: &&Arc<Check>| {
            (query.state == "any" || check.status.as_str() == query.state)
                && (query.meta.is_empty() || self.node_has_meta(&check.node, &query.meta))
        };
        let rows = self.checks.values().filter(wanted).cloned().collect();
        (Rows::Checks(rows), self.changed.checks)
    }

    /// Who has this IP address: the first node by name, else the first service by name.
    pub(crate) fn address_owner(&self, address: &str) -> (Rows, ModifyIndex) {
        let index = self.changed.nodes.max(self.changed.services);
        let Ok(wanted) = address.parse::<IpAddr>() else {
            return (Rows::Owner(AddressOwner::Nobody), index);
        };
        let owner = match self.addresses.first(wanted) {
            Some(Holder::Node(key)) => {
                self.nodes.get(key).map(|row| AddressOwner::Node(row.node.name.clone()))
            }
            Some(Holder::Service(key)) => {
                let instance = self.instances.get(key);
                instance.map(|found| AddressOwner::Service(found.service.name.clone()))
            }
            None => Some(AddressOwner::Nobody),
        };
        let owner = owner.expect("INV-CATALOG-5: who has an address is in the catalog");
        (Rows::Owner(owner), index)
    }

    /// Where nodes are, by node and segment.
    pub(crate) fn coordinates(&self, query: &CoordinateQuery) -> (Rows, ModifyIndex) {
        let wanted = |row: &&Arc<NodeCoordinate>| {
            query.segment.as_ref().is_none_or(|segment| row.segment == *segment)
        };
        let rows = match &query.node {
            Some(node) => {
                keys::under(&self.coordinates, &node.folded()).filter(wanted).cloned().collect()
            }
            None => self.coordinates.values().filter(wanted).cloned().collect(),
        };
        (Rows::Coordinates(rows), self.changed.coordinates)
    }

    /// Where the node of this name is in the pool of all agents; `None` if there is no such node,
    /// and within it if nothing is stored.
    #[expect(clippy::option_option, reason = "no node and no coordinate are different outcomes")]
    pub(crate) fn coordinate_of(&self, name: &NodeName) -> Option<Option<&Coordinate>> {
        let node = name.folded();
        self.nodes.get(&*node)?;
        let row = self.coordinates.get(&*keys::on_node(&node, ""));
        Some(row.map(|row| &row.coordinate))
    }

    /// Where the nodes of these identities are; one that has told nothing is at the origin.
    pub(crate) fn coordinates_of(
        &self,
        ids: impl Iterator<Item = NodeId>,
    ) -> Vec<Arc<NodeCoordinate>> {
        let row = |id: NodeId| {
            let key = self.node_ids.get(&id)?;
            let stored = self.coordinates.get(&*keys::on_node(key, ""));
            stored.cloned().or_else(|| {
                let (node, coordinate) = (self.nodes.get(&**key)?, Coordinate::ORIGIN);
                let (node, segment) = (node.node.name.clone(), String::new());
                Some(Arc::new(NodeCoordinate { node, segment, coordinate }))
            })
        };
        ids.filter_map(row).collect()
    }

    /// The name of the node of this identity.
    pub(crate) fn name_of(&self, id: NodeId) -> Option<&NodeName> {
        let row = self.nodes.get(&**self.node_ids.get(&id)?)?;
        Some(&row.node.name)
    }

    /// The entry of a key, as one row or none.
    pub(crate) fn key(&self, key: &str) -> (Rows, ModifyIndex) {
        let (entry, index) = self.kv.one(key);
        (Rows::Entries(entry.cloned().into_iter().collect()), index)
    }

    /// All entries under a prefix, by key.
    pub(crate) fn key_tree(&self, prefix: &str) -> (Rows, ModifyIndex) {
        let (entries, index) = self.kv.tree(prefix);
        (Rows::Entries(entries), index)
    }

    /// The keys under a prefix, in order.
    pub(crate) fn keys(&self, wanted: &KeyList) -> (Rows, ModifyIndex) {
        let (keys, index) = self.kv.keys(wanted);
        (Rows::Names(keys), index)
    }

    /// When the newest deletion of a key that is still remembered was.
    pub(crate) fn newest_deletion(&self) -> Option<ModifyIndex> {
        self.kv.newest_deletion()
    }

    /// The node of exactly this name.
    pub(crate) fn named(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(&*name.folded()).map(|row| &*row.node)
    }

    /// The instances that a query wants, by node and id.
    pub(crate) fn matching<'a, R>(
        &'a self,
        query: &'a ServiceQuery<R>,
    ) -> impl Iterator<Item = &'a Arc<Instance>> {
        let all = keys::under(&self.instances, &query.name.folded());
        // Who wants all of them need not look at any.
        let wants_all = query.tags.is_empty() && query.meta.is_empty() && !query.passing;
        all.filter(move |instance| {
            wants_all
                || has_tags(&instance.service, &query.tags)
                    && has_meta(&instance.node, &query.meta)
                    && (!query.passing || instance.is_passing())
        })
    }

    /// The index of a service; of a missing one, when a service last vanished, else `tables`.
    fn service_index<R>(&self, query: &ServiceQuery<R>, tables: ModifyIndex) -> ModifyIndex {
        let lost = self.changed.service_lost;
        let missing = if lost == ModifyIndex::ZERO { tables } else { lost };
        self.service_indexes.get(&*query.name.folded()).copied().unwrap_or(missing)
    }

    fn node_by_id(&self, prefix: &str) -> Option<&Arc<Node>> {
        let low = first_id_with(prefix)?;
        let prefix = prefix.to_lowercase();
        let from = self.node_ids.range(low..);
        let mut found = from.take_while(|(id, _)| id.to_string().starts_with(&prefix));
        let (_, key) = found.next()?;
        if found.next().is_some() {
            return None;
        }
        self.nodes.get(&**key).map(|row| &row.node)
    }

    fn node_has_meta(&self, name: &NodeName, meta: &MetaFilter) -> bool {
        self.nodes.get(&*name.folded()).is_some_and(|row| has_meta(&row.node, meta))
    }
}

/// The smallest identity whose text begins with `prefix`, if any does.
fn first_id_with(prefix: &str) -> Option<NodeId> {
    let form = "00000000-0000-0000-0000-000000000000";
    if prefix.len() < ID_PREFIX_MIN {
        return None;
    }
    let rest = form.get(prefix.len()..)?;
    NodeId::parse(&format!("{prefix}{rest}")).ok()
}

fn has_meta(node: &Node, wanted: &MetaFilter) -> bool {
    wanted.iter().all(|(key, value)| node.meta.get(key) == Some(value))
}

fn has_tags(service: &Service, wanted: &[String]) -> bool {
    wanted.iter().all(|tag| service.tags.iter().any(|has| keys::same(has, tag)))
}
