//! Which instances a prepared query wants, and in which order (http-api.md §14).

use super::super::model::{CheckStatus, Service};
use super::super::query::Instance;
use super::super::{Tables, keys};
use super::{Execution, Selection};
use crate::id::{Datacenter, NodeName};
use crate::rng::Rng;
use std::net::IpAddr;
use std::sync::Arc;

/// How near to the front the node that the nearest are wanted of must be to come first.
const FRONT: usize = 10;

impl Tables {
    /// The instances that are wanted, by node and id.
    pub(crate) fn chosen(&self, wanted: &Selection) -> Vec<Arc<Instance>> {
        let all = keys::under(&self.instances, &wanted.service.to_lowercase());
        all.filter(|instance| wanted.accepts(instance)).cloned().collect()
    }

    /// The node from which the nearest come first, on a server of the datacenter `own`: what the
    /// execution says, else what the query does.
    pub(crate) fn near_of(
        &self,
        execution: &Execution,
        wanted: &Selection,
        own: &Datacenter,
    ) -> Option<NodeName> {
        match execution.near.as_ref().unwrap_or(&wanted.near).as_str() {
            "_agent" => (execution.agent_datacenter == *own).then(|| execution.agent.clone()),
            "_ip" => self.node_at(execution.address?),
            name => NodeName::parse(name).ok(),
        }
    }

    /// Puts instances in the order they are wanted in: that of luck, and the nearest first where
    /// they are wanted so and it is known where that is.
    pub(crate) fn arrange(
        &self,
        rows: &mut [Arc<Instance>],
        near: Option<&NodeName>,
        rng: &mut Rng,
    ) {
        rng.shuffle(rows);
        let Some(near) = near else { return };
        self.sort_by_distance(rows, Some(near), |instance| &instance.node.name);
        // Nothing is nearer to a node than itself, though the heights of coordinates say so.
        let mut front = rows.iter().take(FRONT);
        let own = front.position(|row| keys::same(row.node.name.as_str(), near.as_str()));
        if let Some(own) = own {
            rows.swap(0, own);
        }
    }

    /// The first node by name that has this address.
    fn node_at(&self, address: IpAddr) -> Option<NodeName> {
        let is_there = |text: &str| text.parse::<IpAddr>() == Ok(address);
        let row = self.nodes.values().find(|row| is_there(&row.node.address))?;
        Some(row.node.name.clone())
    }
}

impl Selection {
    fn accepts(&self, instance: &Instance) -> bool {
        self.accepts_health(instance)
            && self.accepts_tags(&instance.service)
            && self.node_meta.iter().all(|(key, value)| instance.node.meta.get(key) == Some(value))
            && self
                .service_meta
                .iter()
                .all(|(key, value)| instance.service.meta.get(key) == Some(value))
    }

    fn accepts_health(&self, instance: &Instance) -> bool {
        let matters = |id: &str| !self.ignored_checks.iter().any(|ignored| keys::same(ignored, id));
        instance.checks.iter().filter(|check| matters(check.id.as_str())).all(|check| {
            match check.status {
                CheckStatus::Passing => true,
                CheckStatus::Critical => false,
                CheckStatus::Warning | CheckStatus::Other(_) => !self.only_passing,
            }
        })
    }

    fn accepts_tags(&self, service: &Service) -> bool {
        let has = |tag: &str| service.tags.iter().any(|other| keys::same(other, tag));
        self.tags.iter().all(|tag| match tag.strip_prefix('!') {
            Some(unwanted) => !has(unwanted),
            None => has(tag),
        })
    }
}
