//! One round of writes: what was dirty at its start, written in batches.
//!
//! A refused write is left to the next full sync, so that it cannot hold up the others; any other
//! failure ends the round after its batch, and what it did not write stays dirty.

use super::diff::Dirty;
use super::{BATCH_MAX, SyncOutbox, SyncTicket};
use crate::catalog::command::{Command, Deregistration, Registration};
use crate::catalog::model::Node;
use crate::id::{CheckId, RequestId, ServiceId};
use crate::local::{AgentTrace, LocalView};
use crate::node::request::{RequestError, Response};
use crate::trace;
use crate::trace::Level;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Checks registered together with their service at most; further ones follow in a later batch.
const CHECKS_WITH_SERVICE_MAX: usize = 64;

/// What one write concerns. Whether it registers or deregisters follows from the registrations at
/// the moment it is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// The node's own record.
    Node,
    /// A service with these of its checks.
    Service(ServiceId, Vec<CheckId>),
    /// A check.
    Check(CheckId),
}

impl Write {
    /// The checks whose newest output goes along.
    pub(super) fn checks(&self) -> &[CheckId] {
        match self {
            Self::Node => &[],
            Self::Service(_, checks) => checks,
            Self::Check(check) => std::slice::from_ref(check),
        }
    }

    /// What to ask of the catalog, and what to say once it is done.
    pub(super) fn command(&self, node: &Node, local: &LocalView) -> (Command, AgentTrace) {
        let mut registration = Registration {
            node: node.clone(),
            skip_node_update: true,
            service: None,
            checks: Vec::new(),
        };
        let mut removal = Deregistration { node: node.name.clone(), service: None, check: None };
        let done = match self {
            Self::Node => {
                registration.skip_node_update = false;
                AgentTrace::SyncedNode
            }
            Self::Service(id, checks) => {
                let Some(service) = local.services.get(id) else {
                    removal.service = Some(id.clone());
                    return (
                        Command::Deregister(removal),
                        AgentTrace::DeregisteredService(id.clone()),
                    );
                };
                registration.service = Some((**service).clone());
                let checks = checks.iter().filter_map(|check| local.checks.get(check));
                let own = checks.filter(|check| check.service_id.as_ref() == Some(id));
                registration.checks = own.map(|check| (**check).clone()).collect();
                AgentTrace::SyncedService(id.clone())
            }
            Self::Check(id) => {
                let Some(check) = local.checks.get(id) else {
                    removal.check = Some(id.clone());
                    return (
                        Command::Deregister(removal),
                        AgentTrace::DeregisteredCheck(id.clone()),
                    );
                };
                registration.checks.push((**check).clone());
                AgentTrace::SyncedCheck(id.clone())
            }
        };
        (Command::Register(Box::new(registration)), done)
    }
}

/// The writes in flight and those to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Whether this is the second half of a full sync.
    pub(super) full: bool,
    /// What is not yet submitted, or failed.
    queue: VecDeque<Write>,
    /// What is submitted, with the line for its success.
    pub(super) in_flight: BTreeMap<SyncTicket, (Write, AgentTrace)>,
    /// Requests to answer at the end.
    pub(super) answer: Vec<RequestId>,
    /// Whether a write was refused.
    pub(super) refused: bool,
    /// The first failure other than a refusal.
    pub(super) failure: Option<RequestError>,
}

impl Round {
    /// Orders the writes: the node, services each with their checks, other checks.
    pub(super) fn new(dirty: Dirty, full: bool, local: &LocalView) -> Self {
        let mut own: BTreeMap<ServiceId, Vec<CheckId>> = BTreeMap::new();
        let mut others = Vec::new();
        for id in dirty.checks {
            let service = local.checks.get(&id).and_then(|check| check.service_id.clone());
            let service = service.filter(|service| dirty.services.contains(service));
            match service.map(|service| own.entry(service).or_default()) {
                Some(own) if own.len() < CHECKS_WITH_SERVICE_MAX => own.push(id),
                Some(_) | None => others.push(Write::Check(id)),
            }
        }
        let mut queue = VecDeque::new();
        queue.extend(dirty.node.then_some(Write::Node));
        queue.extend(dirty.services.into_iter().map(|id| {
            let checks = own.remove(&id).unwrap_or_default();
            Write::Service(id, checks)
        }));
        queue.extend(others);
        Self { full, queue, ..Self::default() }
    }

    /// Takes the next writes, no two of which concern the same service.
    pub(super) fn take_batch(&mut self, local: &LocalView) -> Vec<Write> {
        let mut batch = Vec::new();
        let mut services = BTreeSet::new();
        while batch.len() < BATCH_MAX {
            match self.queue.front() {
                Some(Write::Service(id, _)) => {
                    services.insert(id.clone());
                }
                // Its service must be there first, so it waits for the next batch.
                Some(Write::Check(id))
                    if local.checks.get(id).is_some_and(|check| {
                        check.service_id.as_ref().is_some_and(|id| services.contains(id))
                    }) =>
                {
                    break;
                }
                Some(Write::Node | Write::Check(_)) => {}
                None => break,
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    /// Takes the outcome of a write; one that is not of this round changes nothing.
    pub(super) fn took(
        &mut self,
        ticket: SyncTicket,
        result: Result<Response, RequestError>,
        out: &mut SyncOutbox,
    ) {
        let Some((write, done)) = self.in_flight.remove(&ticket) else { return };
        match result {
            Ok(_) => {
                let level = if write == Write::Node { Level::Debug } else { Level::Info };
                trace!(out, level, done);
            }
            Err(
                error @ (RequestError::Refused(_)
                | RequestError::NotFound(_)
                | RequestError::NotBuilt(_)),
            ) => {
                self.refused = true;
                trace!(out, Level::Error, AgentTrace::SyncFailed(error));
            }
            Err(
                error @ (RequestError::NoLeader
                | RequestError::NoServers
                | RequestError::NoPath
                | RequestError::NoServerReachable
                | RequestError::Overloaded(_)
                | RequestError::RateExceeded
                | RequestError::Unknown(_)
                | RequestError::Stopping),
            ) => {
                self.failure.get_or_insert(error);
                self.queue.push_back(write);
            }
        }
    }

    /// What is left when a round is given up.
    pub(super) fn into_dirty(self) -> Dirty {
        let mut dirty = Dirty::default();
        for write in self.queue {
            dirty.checks.extend(write.checks().iter().cloned());
            match write {
                Write::Node => dirty.node = true,
                Write::Service(id, _) => {
                    dirty.services.insert(id);
                }
                Write::Check(_) => {}
            }
        }
        dirty
    }
}
