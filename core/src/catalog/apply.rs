//! How commands change the tables (http-api.md §7.1, §7.2; cluster-behaviour.md §2).
//!
//! A refused command changes nothing that is read: every rule is checked before the first write.
//!
//! Differs: where Consul 1.8.7 leaves a check with the old name and tags of a re-registered
//! service, they follow the service here. A name that differs only in case is no other name, so
//! taking it keeps the node's services and checks.

use super::addresses::Holder;
use super::command::{
    Applied, ApplyError, Command, Deregistration, Registration, SERF_HEALTH, is_passing,
};
use super::kv::KvWrite;
use super::lock::KeyRefusal;
use super::model::{Check, CheckStatus, Node, NodeCoordinate, Service, Weights};
use super::query::Instance;
use super::{NodeRow, Tables, keys};
use crate::id::{CheckId, LogIndex, ModifyIndex, ServiceId};
use std::sync::Arc;

impl Tables {
    /// Applies one committed command. Its position in the log, above the base that a restore may
    /// have lifted, becomes the index of everything it changes.
    ///
    /// - Source: http-api.md §7.1, §7.2, §9 and §12; raft.md §9.
    /// - Errors: nothing that is read changed; the command breaks the named rule.
    /// - Cost: O(log n), and O(services of the node) if the node or one of its own checks changed;
    ///   O(n log n) for the n entries that a deletion or transaction is about, or that are in the
    ///   block of a backup.
    pub fn apply(&mut self, position: LogIndex, command: Command) -> Result<Applied, ApplyError> {
        let index = self.index_at(position);
        match command {
            Command::Register(registration) => self.register(index, *registration)?,
            Command::Deregister(target) => self.deregister(index, &target),
            Command::Coordinates(coordinates) => {
                for coordinate in coordinates {
                    self.put_coordinate(index, coordinate);
                }
            }
            Command::Kv(write) => match self.write_key(index, &write) {
                Ok(()) => {}
                Err(refusal @ KeyRefusal::NoSession(_)) => return Err(refusal.into()),
                Err(_) => return Ok(Applied::Unmet),
            },
            Command::Transaction(operations) => {
                return Ok(Applied::Transaction(self.transact(index, &operations)));
            }
            Command::Autopilot(write) if !self.put_autopilot(index, write) => {
                return Ok(Applied::Unmet);
            }
            Command::Autopilot(_) => {}
            Command::ReapTombstones(up_to) => self.kv.reap(up_to),
            Command::CreateSession(session) => self.create_session(index, *session)?,
            Command::EndSessions(ended) => {
                ended.into_iter().for_each(|id| self.end_session(index, id));
            }
            Command::EndLockDelays(ended) => self.kv.end_delays(&ended),
            Command::Prepared(write) => self.write_prepared(index, write)?,
            Command::RestoreBlock(block) => self.restore_block(&block)?,
            Command::RestoreCommit(commit) => self.restore_commit(position, &commit)?,
            Command::RestoreAbort(restore) => self.restore_abort(restore),
        }
        Ok(Applied::Done)
    }

    /// Does a write of a key.
    pub(super) fn write_key(
        &mut self,
        index: ModifyIndex,
        write: &KvWrite,
    ) -> Result<(), KeyRefusal> {
        if let KvWrite::Acquire(lock) = write
            && self.session(lock.session).is_none()
        {
            return Err(KeyRefusal::NoSession(lock.session));
        }
        self.kv.write(index, write)
    }

    fn register(&mut self, index: ModifyIndex, wanted: Registration) -> Result<(), ApplyError> {
        let Registration { node, skip_node_update, service, checks } = wanted;
        let key = keys::node(&node.name);
        let keep_node = skip_node_update && self.nodes.contains_key(&*key);
        if !keep_node {
            self.check_name_is_free(&key, &node)?;
        }
        for check in &checks {
            self.check_fits(&key, &node, service.as_ref(), check)?;
        }
        if !keep_node {
            self.put_node(index, &key, node);
        }
        if let Some(service) = service {
            self.put_service(index, &key, service);
        }
        for check in checks {
            self.put_check(index, &key, check);
        }
        Ok(())
    }

    /// A name is reserved while another identity has it and that node's `serfHealth` passes.
    pub(super) fn check_name_is_free(&self, key: &str, node: &Node) -> Result<(), ApplyError> {
        let Some(id) = node.id else { return Ok(()) };
        let Some(row) = self.nodes.get(key) else { return Ok(()) };
        let Some(owner) = row.node.id.filter(|owner| *owner != id) else { return Ok(()) };
        let health = self.checks.get(&*keys::on_node(key, SERF_HEALTH));
        if !health.is_some_and(|check| is_passing(&check.status)) {
            return Ok(());
        }
        Err(ApplyError::NameReserved {
            id: id.to_string(),
            address: node.address.clone(),
            name: node.name.clone(),
            owner: owner.to_string(),
            owner_address: row.node.address.clone(),
        })
    }

    /// A check belongs to the registration's node, and its service exists or comes along.
    fn check_fits(
        &self,
        key: &str,
        node: &Node,
        service: Option<&Service>,
        check: &Check,
    ) -> Result<(), ApplyError> {
        if !keys::same(check.node.as_str(), node.name.as_str()) {
            let (check, node) = (check.node.clone(), node.name.clone());
            return Err(ApplyError::CheckOfOtherNode { check, node });
        }
        let Some(id) = &check.service_id else { return Ok(()) };
        let comes_along = service.is_some_and(|service| service.id == *id);
        if comes_along || self.services.contains_key(&*keys::on_node(key, id.as_str())) {
            return Ok(());
        }
        Err(ApplyError::MissingService { node: node.name.clone() })
    }

    pub(super) fn put_node(&mut self, index: ModifyIndex, key: &Arc<str>, mut node: Node) {
        let renamed = self.drop_former_name(index, key, &node);
        let old = self.nodes.get(&**key).cloned();
        let known = renamed.or_else(|| old.as_ref().map(|row| row.node.create_index));
        node.create_index = known.unwrap_or(index);
        if let Some(row) = &old {
            node.modify_index = row.node.modify_index;
            if node == *row.node {
                return;
            }
            if let Some(id) = row.node.id {
                self.node_ids.remove(&id);
            }
        }
        node.modify_index = index;
        if let Some(id) = node.id {
            self.node_ids.insert(id, Arc::clone(key));
        }
        let holder = || Holder::Node(Arc::clone(key));
        if let Some(row) = &old {
            self.addresses.remove(&row.node.address, holder);
        }
        self.addresses.insert(&node.address, holder);
        let respelled = old.as_ref().is_some_and(|row| row.node.name != node.name);
        let checks = old.map_or_else(|| Arc::from([]), |row| row.checks);
        self.nodes.insert(Arc::clone(key), NodeRow { node: Arc::new(node), checks });
        self.changed.nodes = index;
        if respelled {
            self.respell_checks(index, key);
            self.respell_coordinates(index, key);
            self.respell_sessions(index, key);
        }
        self.refresh_instances(index, key);
    }

    /// Removes the node that has this identity under another name, with everything on it; gives
    /// its creation index.
    fn drop_former_name(
        &mut self,
        index: ModifyIndex,
        key: &Arc<str>,
        node: &Node,
    ) -> Option<ModifyIndex> {
        let former = self.node_ids.get(&node.id?).filter(|former| *former != key)?.clone();
        let created = self.nodes.get(&*former).map(|row| row.node.create_index);
        self.remove_node(index, &former);
        created
    }

    /// Checks show their node's name as it is spelled there.
    fn respell_checks(&mut self, index: ModifyIndex, key: &str) {
        let Some(name) = self.nodes.get(key).map(|row| row.node.name.clone()) else { return };
        let checks: Vec<_> = keys::under(&self.checks, key).cloned().collect();
        for check in checks {
            let check = Check { node: name.clone(), ..(*check).clone() };
            self.store_check(index, key, check);
        }
    }

    /// So do coordinates.
    fn respell_coordinates(&mut self, index: ModifyIndex, key: &str) {
        let rows: Vec<_> = keys::under(&self.coordinates, key).cloned().collect();
        for row in rows {
            self.put_coordinate(index, (*row).clone());
        }
    }

    /// Stores where a node is, under its name as it is spelled there.
    fn put_coordinate(&mut self, index: ModifyIndex, mut row: NodeCoordinate) {
        let node = keys::node(&row.node);
        let Some(known) = self.nodes.get(&*node) else { return };
        row.node = known.node.name.clone();
        let key = keys::on_node(&node, &row.segment);
        if self.coordinates.get(&*key).is_some_and(|old| **old == row) {
            return;
        }
        self.coordinates.insert(key, Arc::new(row));
        self.changed.coordinates = index;
    }

    pub(super) fn put_service(&mut self, index: ModifyIndex, node: &str, mut service: Service) {
        if !service.weights.is_legal() {
            service.weights = Weights::default();
        }
        let key = keys::on_node(node, service.id.as_str());
        let old = self.services.get(&*key).cloned();
        service.create_index = old.as_ref().map_or(index, |old| old.create_index);
        service.modify_index = old.as_ref().map_or(index, |old| old.modify_index);
        if old.as_ref().is_some_and(|old| **old == service) {
            return;
        }
        service.modify_index = index;
        let service = Arc::new(service);
        self.services.insert(key, Arc::clone(&service));
        self.changed.services = index;
        let own = old.map_or_else(Vec::new, |old| {
            let own = self.own_checks(node, &old);
            self.addresses.remove(&old.address, || holder(node, &old));
            if old.name.folded() != service.name.folded() {
                self.remove_instance(index, node, &old);
            }
            own
        });
        let follow = |check: Arc<Check>| self.follow_service(index, node, &service, check);
        let own = own.into_iter().map(follow).collect();
        self.addresses.insert(&service.address, || holder(node, &service));
        self.put_instance(index, node, &service, own);
    }

    /// A check carries the name and tags of its service; stores it again if they moved.
    fn follow_service(
        &mut self,
        index: ModifyIndex,
        node: &str,
        service: &Service,
        check: Arc<Check>,
    ) -> Arc<Check> {
        if check.service_name == service.name.as_str() && check.service_tags == service.tags {
            return check;
        }
        let check = Arc::new(Check {
            service_name: service.name.as_str().to_owned(),
            service_tags: service.tags.clone(),
            modify_index: index,
            ..(*check).clone()
        });
        self.checks.insert(keys::on_node(node, check.id.as_str()), Arc::clone(&check));
        self.changed.checks = index;
        check
    }

    pub(super) fn put_check(&mut self, index: ModifyIndex, node: &str, mut check: Check) {
        if let Some(row) = self.nodes.get(node) {
            check.node = row.node.name.clone();
        }
        if check.status == CheckStatus::Other(String::new()) {
            check.status = CheckStatus::Critical;
        }
        if check.kind.is_empty() {
            check.recipe.kind().clone_into(&mut check.kind);
        }
        let owner = check.service_id.as_ref();
        let service = owner.and_then(|id| self.services.get(&*keys::on_node(node, id.as_str())));
        check.service_name = service.map_or_else(String::new, |s| s.name.as_str().to_owned());
        check.service_tags = service.map_or_else(Vec::new, |service| service.tags.clone());
        self.store_check(index, node, check);
    }

    /// Stores a complete check and shows it to the instances it decides about.
    fn store_check(&mut self, index: ModifyIndex, node: &str, mut check: Check) {
        let key = keys::on_node(node, check.id.as_str());
        let old = self.checks.get(&*key).cloned();
        check.create_index = old.as_ref().map_or(index, |old| old.create_index);
        check.modify_index = old.as_ref().map_or(index, |old| old.modify_index);
        if old.as_ref().is_some_and(|old| **old == check) {
            return;
        }
        check.modify_index = index;
        let check = Arc::new(check);
        self.checks.insert(key, Arc::clone(&check));
        self.changed.checks = index;
        if let Some(old) = old.filter(|old| old.service_id != check.service_id) {
            self.show_check(index, node, &old, None);
        }
        if check.status == CheckStatus::Critical {
            self.end_dependent_sessions(index, node, &check);
        }
        self.show_check(index, node, &check, Some(&check));
    }

    /// Puts `shown` in the place of `check` wherever `check` decides about health.
    fn show_check(
        &mut self,
        index: ModifyIndex,
        node: &str,
        check: &Check,
        shown: Option<&Arc<Check>>,
    ) {
        let Some(id) = &check.service_id else {
            if let Some(row) = self.nodes.get_mut(node) {
                row.checks = with(row.checks.to_vec(), &check.id, shown).into();
            }
            return self.refresh_instances(index, node);
        };
        let service = self.services.get(&*keys::on_node(node, id.as_str())).cloned();
        if let Some(service) = service {
            let own = with(self.own_checks(node, &service), &check.id, shown);
            self.put_instance(index, node, &service, own);
        }
    }

    fn deregister(&mut self, index: ModifyIndex, target: &Deregistration) {
        let node = keys::node(&target.node);
        match (&target.service, &target.check) {
            (Some(service), _) => self.remove_service(index, &node, service),
            (None, Some(check)) => self.remove_check(index, &node, check),
            (None, None) => self.remove_node(index, &node),
        }
    }

    pub(super) fn remove_check(&mut self, index: ModifyIndex, node: &str, id: &CheckId) {
        if let Some(check) = self.checks.remove(&*keys::on_node(node, id.as_str())) {
            self.changed.checks = index;
            self.show_check(index, node, &check, None);
            self.end_dependent_sessions(index, node, &check);
        }
    }

    pub(super) fn remove_service(&mut self, index: ModifyIndex, node: &str, id: &ServiceId) {
        let Some(service) = self.services.remove(&*keys::on_node(node, id.as_str())) else {
            return;
        };
        self.changed.services = index;
        self.addresses.remove(&service.address, || holder(node, &service));
        for check in self.own_checks(node, &service) {
            self.checks.remove(&*keys::on_node(node, check.id.as_str()));
            self.changed.checks = index;
            self.end_dependent_sessions(index, node, &check);
        }
        self.remove_instance(index, node, &service);
    }

    pub(super) fn remove_node(&mut self, index: ModifyIndex, key: &str) {
        let Some(row) = self.nodes.remove(key) else { return };
        self.changed.nodes = index;
        self.addresses.remove(&row.node.address, || Holder::Node(Arc::from(key)));
        if let Some(id) = row.node.id {
            self.node_ids.remove(&id);
        }
        self.end_sessions_of(index, key);
        let services: Vec<_> = keys::under(&self.services, key).map(|s| s.id.clone()).collect();
        for service in services {
            self.remove_service(index, key, &service);
        }
        for check in row.checks.iter() {
            self.checks.remove(&*keys::on_node(key, check.id.as_str()));
            self.changed.checks = index;
        }
        let segments: Vec<_> = keys::under(&self.coordinates, key).cloned().collect();
        for coordinate in segments {
            self.coordinates.remove(&*keys::on_node(key, &coordinate.segment));
            self.changed.coordinates = index;
        }
    }

    /// The checks of one instance, without those of its node.
    fn own_checks(&self, node: &str, service: &Service) -> Vec<Arc<Check>> {
        let key = keys::instance(&service.name.folded(), node, service.id.as_str());
        let checks = self.instances.get(&*key).map(|instance| instance.checks.iter());
        let own = checks.into_iter().flatten().filter(|check| check.service_id.is_some());
        own.cloned().collect()
    }

    /// Shows all services of a node its newest record and checks.
    fn refresh_instances(&mut self, index: ModifyIndex, node: &str) {
        let services: Vec<_> = keys::under(&self.services, node).cloned().collect();
        for service in services {
            let own = self.own_checks(node, &service);
            self.put_instance(index, node, &service, own);
        }
    }

    fn put_instance(
        &mut self,
        index: ModifyIndex,
        node: &str,
        service: &Arc<Service>,
        own: Vec<Arc<Check>>,
    ) {
        let row = self.nodes.get(node);
        assert!(row.is_some(), "INV-CATALOG-1: a service belongs to a node that exists");
        let Some(row) = row else { return };
        let checks = row.checks.iter().cloned().chain(own).collect();
        let (of_node, service) = (Arc::clone(&row.node), Arc::clone(service));
        let name = keys::service(&service.name);
        let key = keys::instance(&name, node, service.id.as_str());
        self.instances.insert(key, Arc::new(Instance { node: of_node, service, checks }));
        self.service_indexes.insert(name, index);
    }

    fn remove_instance(&mut self, index: ModifyIndex, node: &str, service: &Service) {
        let name = keys::service(&service.name);
        self.instances.remove(&*keys::instance(&name, node, service.id.as_str()));
        let has_more = keys::under(&self.instances, &name).next().is_some();
        if has_more {
            self.service_indexes.insert(name, index);
        } else {
            self.service_indexes.remove(&*name);
            self.changed.service_lost = index;
        }
    }
}

/// A service as the index of addresses knows it.
pub(super) fn holder(node: &str, service: &Service) -> Holder {
    Holder::Service(keys::instance(&service.name.folded(), node, service.id.as_str()))
}

/// `checks`, ordered by id, with the one called `id` replaced by `shown`, added or taken out.
fn with(mut checks: Vec<Arc<Check>>, id: &CheckId, shown: Option<&Arc<Check>>) -> Vec<Arc<Check>> {
    let place = checks.binary_search_by(|check| check.id.cmp(id));
    match (place, shown) {
        (Ok(at), Some(check)) => {
            if let Some(slot) = checks.get_mut(at) {
                *slot = Arc::clone(check);
            }
        }
        (Ok(at), None) => {
            checks.remove(at);
        }
        (Err(at), Some(check)) => checks.insert(at, Arc::clone(check)),
        (Err(_), None) => {}
    }
    checks
}
