//! What the catalog lacks, has wrong, or has too much of, for this node (cluster-behaviour.md §4).
//!
//! Pure functions over the agent's own view and the catalog's rows. Indexes, and what the catalog
//! fills in by itself, are not compared.

use super::SERVER_SERVICE;
use crate::catalog::command::SERF_HEALTH;
use crate::catalog::model::{Check, Node, Service};
use crate::catalog::query::NodeServices;
use crate::id::{CheckId, ServiceId};
use crate::local::LocalView;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What has to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// The node's own record.
    pub(super) node: bool,
    /// Services to register, or to deregister if they are not registered here.
    pub(super) services: BTreeSet<ServiceId>,
    /// Checks, likewise.
    pub(super) checks: BTreeSet<CheckId>,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        !self.node && self.services.is_empty() && self.checks.is_empty()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.node |= other.node;
        self.services.extend(other.services);
        self.checks.extend(other.checks);
    }
}

/// The whole difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) dirty: Dirty,
    /// Services whose tags the catalog decides, with these tags.
    pub(super) adopt: Vec<(ServiceId, Vec<String>)>,
}

/// Compares this node's record, services and checks with the catalog's.
///
/// `deferred` says of a check that its output goes to the catalog later; it is not compared then.
/// Cost: O(n log n) in the services and checks of this node.
pub(super) fn difference(
    node: &Node,
    local: &LocalView,
    remote: Option<&NodeServices>,
    remote_checks: &[Arc<Check>],
    deferred: impl Fn(&CheckId) -> bool,
) -> Difference {
    let mut difference = Difference::default();
    let dirty = &mut difference.dirty;
    dirty.node = remote.is_none_or(|remote| !same_node(node, &remote.node));
    dirty.services.extend(local.services.keys().cloned());
    dirty.checks.extend(local.checks.keys().cloned());
    for theirs in remote.map(|remote| remote.services.as_slice()).unwrap_or_default() {
        let Some(ours) = local.services.get(&theirs.id) else {
            if theirs.id.as_str() != SERVER_SERVICE || crate::mutant!(M42) {
                dirty.services.insert(theirs.id.clone());
            }
            continue;
        };
        if ours.enable_tag_override && ours.tags != theirs.tags {
            difference.adopt.push((theirs.id.clone(), theirs.tags.clone()));
        }
        if same_service(ours, theirs) {
            dirty.services.remove(&theirs.id);
        }
    }
    for theirs in remote_checks {
        let Some(ours) = local.checks.get(&theirs.id) else {
            // What belongs to a service that goes, goes with it.
            let goes =
                |id: &ServiceId| id.as_str() == SERVER_SERVICE || !local.services.contains_key(id);
            let left_alone = theirs.service_id.as_ref().is_some_and(goes);
            let foreign = theirs.id.as_str() == SERF_HEALTH && !crate::mutant!(M42);
            if !foreign && !left_alone {
                dirty.checks.insert(theirs.id.clone());
            }
            continue;
        };
        if same_check(ours, theirs, !deferred(&theirs.id)) {
            dirty.checks.remove(&theirs.id);
        }
    }
    difference
}

fn same_node(ours: &Node, theirs: &Node) -> bool {
    let (create_index, modify_index) = (theirs.create_index, theirs.modify_index);
    Node { create_index, modify_index, ..ours.clone() } == *theirs
}

/// Where tags edited in the catalog win, they are no difference.
fn same_service(ours: &Service, theirs: &Service) -> bool {
    let (create_index, modify_index) = (theirs.create_index, theirs.modify_index);
    let mut ours = Service { create_index, modify_index, ..ours.clone() };
    if ours.enable_tag_override {
        ours.tags.clone_from(&theirs.tags);
    }
    ours == *theirs
}

fn same_check(ours: &Check, theirs: &Check, compare_output: bool) -> bool {
    ours.name == theirs.name
        && ours.status == theirs.status
        && ours.notes == theirs.notes
        && ours.service_id == theirs.service_id
        && ours.kind == theirs.kind
        && ours.recipe == theirs.recipe
        && (!compare_output || ours.output == theirs.output)
}
