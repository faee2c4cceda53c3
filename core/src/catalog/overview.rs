//! Reads over everything, for people who look at it (http-api.md §18).

use super::model::{Check, Node, Service};
use super::query::{Instance, Rows};
use super::{TableIndexes, Tables, keys};
use crate::filter::Filter;
use crate::id::ModifyIndex;
use crate::{pack_enum, pack_struct};
use std::sync::Arc;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overview {
    /// All nodes with everything on them.
    Nodes(Option<Filter<NodeOverview>>),
    /// The node of this name, in any case.
    Node(String),
    /// The instances of all services.
    Instances(Option<Filter<Instance>>),
}
pack_enum!(Overview {
    1 => Nodes(Option<Filter<NodeOverview>>), 2 => Node(String),
    3 => Instances(Option<Filter<Instance>>),
});

/// One node with everything on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeOverview {
    /// The node.
    pub node: Arc<Node>,
    /// Its services, by id.
    pub services: Vec<Arc<Service>>,
    /// All its checks, by id.
    pub checks: Vec<Arc<Check>>,
}
pack_struct!(NodeOverview { node, services, checks });

impl Tables {
    /// What is looked at, and the index of everything.
    ///
    /// - Cost: that of the rows.
    pub(crate) fn overview(&self, wanted: &Overview) -> (Rows, ModifyIndex) {
        let all = |node: &Arc<Node>| {
            let key = node.name.folded();
            NodeOverview {
                node: Arc::clone(node),
                services: keys::under(&self.services, &key).cloned().collect(),
                checks: keys::under(&self.checks, &key).cloned().collect(),
            }
        };
        let rows = match wanted {
            Overview::Nodes(_) => {
                Rows::NodeOverviews(self.nodes.values().map(|row| all(&row.node)).collect())
            }
            Overview::Node(name) => {
                let found = self.nodes.get(&*name.to_lowercase());
                Rows::NodeOverviews(found.map(|row| all(&row.node)).into_iter().collect())
            }
            Overview::Instances(_) => Rows::Instances(self.instances.values().cloned().collect()),
        };
        let TableIndexes { nodes, services, checks, .. } = self.changed;
        (rows, nodes.max(services).max(checks))
    }
}
