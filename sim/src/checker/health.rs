//! What can be found through the catalog, judged by the committed log (simulation.md §8, workload
//! health/DNS).
//!
//! What is committed is replayed in a [`Health`]: which nodes there are, what runs on them, which
//! checks decide about it, and which prepared queries ask for it. It is written apart from the
//! tables that ship; whether a command is refused is theirs to say. Every answer must be that of
//! one position: not below what was known before the question was asked, not above what was
//! committed when it was answered (C6, I12).

use super::forsaken::services_deleted;
use super::{Violation, broken};
use crate::finder::{SERVICES, over_http};
use crate::kv::backup::{Backup, Saved};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use terraform_core::catalog::command::{Command, Deregistration, Registration};
use terraform_core::catalog::model::CheckStatus;
use terraform_core::catalog::prepared::{PreparedQuery, PreparedWrite};
use terraform_core::catalog::query::{Consistency, Query, ServiceQuery};
use terraform_core::id::{CheckId, NodeId, NodeName, PreparedQueryId, ServiceId, ServiceName};

/// Where a service can be reached: its node and its port.
pub type Place = (String, i64);

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The instances of a service.
    Service {
        /// Which.
        name: String,
        /// Which of them.
        health: Fitness,
    },
    /// What this prepared query wants.
    Prepared(PreparedQueryId),
}

/// How healthy an instance must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// No check of it or of its node is critical.
    NotCritical,
    /// All of them pass.
    Passing,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spot {
    id: Option<NodeId>,
    /// The name and port of each service.
    services: BTreeMap<ServiceId, (String, i64)>,
    /// Whose each check is, and how it goes.
    checks: BTreeMap<CheckId, (Option<ServiceId>, CheckStatus)>,
}

/// What the log makes of nodes, services, checks and prepared queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    nodes: BTreeMap<NodeName, Arc<Spot>>,
    /// The service that each prepared query wants, and how healthy it must be.
    queries: BTreeMap<PreparedQueryId, (String, Fitness)>,
}

impl Health {
    /// Does what a command says that was not refused.
    fn apply(&mut self, command: &Command) {
        match command {
            Command::Register(registration) => self.register(registration),
            Command::Deregister(target) => self.deregister(target),
            Command::Prepared(PreparedWrite::Create(query) | PreparedWrite::Update(query)) => {
                self.queries.insert(query.id, asks_for(query));
            }
            Command::Prepared(PreparedWrite::Delete(id)) => {
                self.queries.remove(id);
            }
            Command::Transaction(operations) => {
                services_deleted(operations).for_each(|target| self.deregister(&target));
            }
            // Backups of other clusters hold keys and nothing else.
            Command::RestoreCommit(_) => *self = Self::default(),
            Command::Coordinates(_)
            | Command::Kv(_)
            // No client of the simulator binds a query to a session.
            | Command::EndSessions(_)
            | Command::CreateSession(_)
            | Command::ReapTombstones(_)
            | Command::RestoreBlock(_)
            | Command::RestoreAbort(_)
            | Command::Autopilot(_)
            | Command::EndLockDelays(_) => {}
        }
    }

    fn register(&mut self, registration: &Registration) {
        let Registration { node, skip_node_update, service, checks } = registration;
        let known = self.nodes.contains_key(&node.name);
        if let Some(id) = node.id.filter(|_| !(known && *skip_node_update)) {
            // A node that has another name now.
            self.nodes.retain(|name, spot| *name == node.name || spot.id != Some(id));
        }
        let spot = Arc::make_mut(self.nodes.entry(node.name.clone()).or_default());
        if !(known && *skip_node_update) {
            spot.id = node.id;
        }
        if let Some(service) = service {
            let place = (service.name.as_str().to_lowercase(), service.port);
            spot.services.insert(service.id.clone(), place);
        }
        for check in checks {
            let unsaid = check.status == CheckStatus::Other(String::new());
            let status = if unsaid { CheckStatus::Critical } else { check.status.clone() };
            spot.checks.insert(check.id.clone(), (check.service_id.clone(), status));
        }
    }

    fn deregister(&mut self, target: &Deregistration) {
        let Deregistration { node, service, check } = target;
        let Some(spot) = self.nodes.get_mut(node) else { return };
        match (service, check) {
            (Some(service), _) => {
                let spot = Arc::make_mut(spot);
                spot.services.remove(service);
                spot.checks.retain(|_, (of, _)| of.as_ref() != Some(service));
            }
            (None, Some(check)) => {
                Arc::make_mut(spot).checks.remove(check);
            }
            (None, None) => {
                self.nodes.remove(node);
            }
        }
    }

    /// Where what is wanted can be reached; `None` if nobody knows what is wanted.
    fn find(&self, wanted: &Wanted) -> Option<BTreeSet<Place>> {
        match wanted {
            Wanted::Service { name, health } => Some(self.places(name, *health)),
            Wanted::Prepared(id) => {
                let (name, health) = self.queries.get(id)?;
                Some(self.places(name, *health))
            }
        }
    }

    fn places(&self, name: &str, health: Fitness) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        for (node, spot) in &self.nodes {
            let instances = spot.services.iter().filter(|(_, (of, _))| of == name);
            let fit = instances.filter(|(id, _)| spot.is_fit(id, health));
            places.extend(fit.map(|(_, (_, port))| (node.to_string(), *port)));
        }
        places
    }
}

impl Spot {
    fn is_fit(&self, service: &ServiceId, health: Fitness) -> bool {
        let own = self.checks.values().filter(|(of, _)| of.as_ref().is_none_or(|of| of == service));
        own.map(|(_, status)| status).all(|status| match health {
            Fitness::NotCritical => *status != CheckStatus::Critical,
            Fitness::Passing => *status == CheckStatus::Passing,
        })
    }
}

fn asks_for(query: &PreparedQuery) -> (String, Fitness) {
    let strict = query.service.only_passing;
    let health = if strict { Fitness::Passing } else { Fitness::NotCritical };
    (query.service.service.to_lowercase(), health)
}

/// What was committed about what can be found.
#[derive(Debug)]
pub(super) struct HealthChecker {
    /// After each position that changed it, oldest first; the first is before all.
    states: Vec<(u64, Health)>,
    /// Where each prepared query was written, by the words of its writer.
    written: BTreeMap<String, u64>,
}

impl Default for HealthChecker {
    fn default() -> Self {
        Self { states: vec![(0, Health::default())], written: BTreeMap::new() }
    }
}

impl HealthChecker {
    /// Does what is committed at this position, unless it was refused.
    pub(super) fn commit(
        &mut self,
        at: u64,
        command: &Command,
        refused: bool,
        restored: Option<&Backup>,
    ) {
        let changes = matches!(
            command,
            Command::Register(_)
                | Command::Deregister(_)
                | Command::Prepared(_)
                | Command::Transaction(_)
                | Command::RestoreCommit(_)
        );
        if refused || !changes {
            return;
        }
        if let Command::Prepared(PreparedWrite::Create(query) | PreparedWrite::Update(query)) =
            command
        {
            self.written.insert(query.token.clone(), at);
        }
        let newest = &self.states[self.states.len() - 1].1;
        let mut next = newest.clone();
        next.apply(command);
        if let Some(Backup::Own(_, saved)) = restored {
            next = self.at(saved.position).clone();
        }
        if next != *newest {
            self.states.push((at, next));
        }
    }

    /// What there was after everything that was committed up to a position.
    fn at(&self, position: u64) -> &Health {
        let known = self.states.partition_point(|(at, _)| *at <= position);
        &self.states[known.saturating_sub(1)].1
    }

    /// C10: what can be found in a backup is what was to be found at its position.
    pub(super) fn is_saved(&self, saved: &Saved) -> Result<(), Violation> {
        for name in SERVICES {
            let service = ServiceName::parse(name).expect("services have legal names");
            let passing = ServiceQuery { passing: true, ..ServiceQuery::all(service) };
            let told = over_http(&saved.ask(&Query::ServiceHealth(passing)));
            let wanted = Wanted::Service { name: name.to_owned(), health: Fitness::Passing };
            let known = self.at(saved.position).find(&wanted);
            if known.as_ref() != Some(&told) {
                let at = saved.position;
                let facts =
                    format!("the backup of index {at} has {name} at {told:?}, not {known:?}");
                return broken("C10", facts);
            }
        }
        Ok(())
    }

    /// I11: where a prepared query is that its writer was told of, when `top` was committed.
    pub(super) fn is_written(&self, by: &str, top: u64) -> Result<u64, Violation> {
        match self.written.get(by) {
            Some(at) if *at <= top => Ok(*at),
            at => broken("I11", format!("the query of {by} is at {at:?}, {top} is committed")),
        }
    }

    /// The lowest position from `floor` to `top` at which this was to be found.
    pub(super) fn explain(
        &self,
        (wanted, consistency): (&Wanted, Consistency),
        found: Option<&BTreeSet<Place>>,
        (floor, top): (u64, u64),
    ) -> Result<u64, Violation> {
        let from = self.states.partition_point(|(at, _)| *at <= floor).saturating_sub(1);
        let window = self.states.iter().skip(from).take_while(|(at, _)| *at <= top);
        let mut fits = window.filter(|(_, health)| health.find(wanted).as_ref() == found);
        if let Some((at, _)) = fits.next() {
            return Ok(floor.max(*at));
        }
        let rule = if consistency == Consistency::Stale { "C6" } else { "I12" };
        let now = self.states[self.states.len() - 1].1.find(wanted);
        let facts = format!(
            "nothing from index {floor} to {top} makes {wanted:?} {found:?}; at the end it is {now:?}"
        );
        broken(rule, facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::catalog::model::{Check, Node, Service};
    use terraform_core::id::ModifyIndex;

    fn register(node: &str, service: Option<Service>, checks: Vec<Check>) -> Command {
        let node = Node {
            id: None,
            name: NodeName::parse(node).unwrap(),
            address: "192.0.2.1".to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let skip_node_update = false;
        Command::Register(Box::new(Registration { node, skip_node_update, service, checks }))
    }

    fn web(port: i64) -> Option<Service> {
        Some(Service { port, ..crate::workload::definition("web", 0).service })
    }

    #[test]
    fn an_answer_is_explained_by_a_position_in_its_window_or_by_none() {
        let mut checker = HealthChecker::default();
        for (at, port) in [(3, 80), (5, 81)] {
            checker.commit(at, &register("n1", web(port), Vec::new()), false, None);
        }
        checker.commit(7, &register("n1", web(82), Vec::new()), true, None);
        let wanted = Wanted::Service { name: "web".to_owned(), health: Fitness::Passing };
        let explain = |port: Option<i64>, window| {
            let found: BTreeSet<Place> =
                port.map(|port| ("n1".to_owned(), port)).into_iter().collect();
            let told = checker.explain((&wanted, Consistency::Leader), Some(&found), window);
            told.map_err(|violation| violation.rule)
        };
        assert_eq!(explain(None, (0, 9)), Ok(0));
        assert_eq!(explain(Some(80), (0, 9)), Ok(3));
        assert_eq!(explain(Some(80), (4, 9)), Ok(4));
        assert_eq!(explain(Some(80), (5, 9)), Err("I12"), "it had changed before");
        assert_eq!(explain(Some(81), (0, 4)), Err("I12"), "it was not committed");
        assert_eq!(explain(Some(82), (0, 9)), Err("I12"), "it was refused");
    }
}
