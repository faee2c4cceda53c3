//! The tables behind [`super::Local`]: what is registered, and the view made of it.
//!
//! Every change of a table queues what makes it durable and tells the other machines
//! through the outbox. Rules of re-registration: http-api.md §5.1 (a known check keeps its state
//! and output) and §6.1 (checks not named stay unless `replace_existing_checks`).

use super::alias::{Aliases, Place};
use super::definition::{AliasCheck, cut_note};
use super::*;
use crate::anti_entropy::SERVER_SERVICE;
use crate::catalog::command::SERF_HEALTH;
use crate::catalog::model::CheckRecipe;
use crate::id::ModifyIndex;
use std::collections::{BTreeMap, BTreeSet};

/// What is registered.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    node: NodeName,
    /// Service definitions; their checks are in `checks`.
    services: BTreeMap<ServiceId, ServiceDefinition>,
    checks: BTreeMap<CheckId, CheckDefinition>,
    /// The checks of each service, and of the node.
    places: BTreeMap<Place, BTreeSet<CheckId>>,
    aliases: Aliases,
    view: LocalView,
    /// What the files said last, for the difference to what they say next.
    files: Files,
    unstored: Vec<Stored>,
    output: OutputRules,
}

/// The definitions of the configuration files; of equal ids the last wins (agent-config.md §3).
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    services: BTreeMap<ServiceId, ServiceDefinition>,
    checks: BTreeMap<CheckId, CheckDefinition>,
}

impl Files {
    fn new(services: Vec<ServiceDefinition>, checks: Vec<CheckDefinition>) -> Self {
        let mut files = Self::default();
        for mut service in services {
            service.origin = Origin::File;
            for check in std::mem::take(&mut service.checks) {
                let service_id = Some(service.service.id.clone());
                let check = CheckDefinition { service_id, origin: Origin::File, ..check };
                files.checks.insert(check.id.clone(), check);
            }
            files.services.insert(service.service.id.clone(), service);
        }
        for check in checks {
            let check = CheckDefinition { origin: Origin::File, ..check };
            files.checks.insert(check.id.clone(), check);
        }
        files
    }
}

impl Registry {
    pub(super) fn new(node: NodeName, output: OutputRules) -> Self {
        Self {
            node,
            output,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            places: BTreeMap::new(),
            aliases: Aliases::default(),
            view: LocalView::default(),
            files: Files::default(),
            unstored: Vec::new(),
        }
    }

    pub(super) const fn view(&self) -> &LocalView {
        &self.view
    }

    pub(super) const fn node(&self) -> &NodeName {
        &self.node
    }

    pub(super) const fn aliases(&mut self) -> &mut Aliases {
        &mut self.aliases
    }

    /// What an alias watches on this node; `None` for any other check.
    pub(super) fn alias_here<'a>(&self, check: &'a CheckDefinition) -> Option<&'a AliasCheck> {
        match &check.kind {
            CheckKind::Alias(alias) if alias.node.is_none() => Some(alias),
            CheckKind::Alias(_)
            | CheckKind::Ttl(_)
            | CheckKind::Http(_)
            | CheckKind::Tcp(_)
            | CheckKind::Udp(_)
            | CheckKind::Grpc(_)
            | CheckKind::Script(_)
            | CheckKind::Docker(_)
            | CheckKind::Maintenance => None,
        }
    }

    /// The checks of a service, or of the node.
    pub(super) fn checks_of(&self, place: &Place) -> impl Iterator<Item = &CheckId> {
        self.places.get(place).into_iter().flatten()
    }

    pub(super) fn has_service(&self, id: &ServiceId) -> bool {
        self.services.contains_key(id)
    }

    pub(super) fn check(&self, id: &CheckId) -> Option<&CheckDefinition> {
        self.checks.get(id)
    }

    /// What is kept of what checks say.
    pub(super) const fn output_rules(&self) -> OutputRules {
        self.output
    }

    /// Says whether what checks say from now on is kept.
    pub(super) const fn set_discard(&mut self, discard: bool) {
        self.output.discard = discard;
    }

    /// What is kept of what a check says.
    fn kept(&self, output: String) -> String {
        if self.output.discard { String::new() } else { output }
    }

    /// Whether something has to be made durable.
    pub(super) const fn has_unstored(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// Takes what has to be made durable since the last call.
    pub(super) fn take_unstored(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.unstored)
    }

    /// Queues what no change of the tables implies.
    pub(super) fn store(&mut self, change: Stored) {
        self.unstored.push(change);
    }

    pub(super) fn register_service(
        &mut self,
        mut definition: ServiceDefinition,
        replace_existing_checks: bool,
        out: &mut Outbox<LocalOutput>,
    ) -> Result<(), RequestError> {
        let id = definition.service.id.clone();
        let checks = std::mem::take(&mut definition.checks);
        allow_service(&id)?;
        for check in &checks {
            allow_check(&check.id)?;
        }
        let fresh = checks.iter().filter(|check| !self.checks.contains_key(&check.id));
        self.allow_count(usize::from(!self.services.contains_key(&id)), fresh.count())?;
        let named: Vec<CheckId> = checks.iter().map(|check| check.id.clone()).collect();
        self.put_service(definition, out);
        for check in checks {
            self.put_check(CheckDefinition { service_id: Some(id.clone()), ..check }, out);
        }
        if replace_existing_checks {
            for check in self.service_checks(&id) {
                if !named.contains(&check) {
                    self.remove_check(&check, out);
                }
            }
        }
        Ok(())
    }

    pub(super) fn register_check(
        &mut self,
        definition: CheckDefinition,
        out: &mut Outbox<LocalOutput>,
    ) -> Result<(), RequestError> {
        allow_check(&definition.id)?;
        if let Some(service) = &definition.service_id
            && !self.services.contains_key(service)
        {
            return Err(unknown_service(service));
        }
        self.allow_count(0, usize::from(!self.checks.contains_key(&definition.id)))?;
        self.put_check(definition, out);
        Ok(())
    }

    /// Takes over what the files say; all or nothing, touching only what differs.
    pub(super) fn reload(
        &mut self,
        services: Vec<ServiceDefinition>,
        checks: Vec<CheckDefinition>,
        out: &mut Outbox<LocalOutput>,
    ) -> Result<(), RequestError> {
        let next = Files::new(services, checks);
        self.allow_files(&next)?;
        let last = std::mem::replace(&mut self.files, next.clone());
        for (id, service) in &next.services {
            if self.services.get(id) != Some(service) {
                self.put_service(service.clone(), out);
            }
        }
        for (id, check) in &next.checks {
            if self.checks.get(id) != Some(check) {
                self.put_check(check.clone(), out);
            }
        }
        // Leftovers go last, so that a check that moved to another service keeps its state.
        for id in last.checks.keys().filter(|id| !next.checks.contains_key(*id)) {
            if self.checks.get(id).is_some_and(|check| check.origin == Origin::File) {
                self.remove_check(id, out);
            }
        }
        for id in last.services.keys().filter(|id| !next.services.contains_key(*id)) {
            if self.services.get(id).is_some_and(|service| service.origin == Origin::File) {
                self.remove_service(id, out);
            }
        }
        Ok(())
    }

    fn allow_files(&self, next: &Files) -> Result<(), RequestError> {
        for id in next.services.keys() {
            allow_service(id)?;
        }
        let stays = |id: &ServiceId| {
            self.services.get(id).is_some_and(|service| service.origin == Origin::Api)
        };
        for check in next.checks.values() {
            allow_check(&check.id)?;
            if let Some(service) = &check.service_id
                && !next.services.contains_key(service)
                && !stays(service)
            {
                return Err(unknown_service(service));
            }
        }
        let services = next.services.keys().filter(|id| !self.services.contains_key(*id));
        let checks = next.checks.keys().filter(|id| !self.checks.contains_key(*id));
        self.allow_count(services.count(), checks.count())
    }

    fn allow_count(&self, services: usize, checks: usize) -> Result<(), RequestError> {
        if services > 0 && self.services.len().saturating_add(services) > SERVICES_MAX {
            let rule = format!("this agent keeps at most {SERVICES_MAX} services");
            return Err(RequestError::Overloaded(rule));
        }
        if checks > 0 && self.checks.len().saturating_add(checks) > CHECKS_MAX {
            let rule = format!("this agent keeps at most {CHECKS_MAX} checks");
            return Err(RequestError::Overloaded(rule));
        }
        Ok(())
    }

    /// Stores a definition without its checks; nothing happens if it is already there.
    pub(super) fn put_service(
        &mut self,
        definition: ServiceDefinition,
        out: &mut Outbox<LocalOutput>,
    ) {
        let id = definition.service.id.clone();
        let old = self.services.get(&id);
        let persisted = old.is_some_and(|old| old.origin == Origin::Api);
        let shown = self.view.services.get(&id).map(Arc::as_ref);
        if old == Some(&definition) && shown == Some(&definition.service) {
            return;
        }
        match definition.origin {
            Origin::Api => self.unstored.push(Stored::PutService(Box::new(definition.clone()))),
            Origin::File if persisted => self.unstored.push(Stored::RemoveService(id.clone())),
            Origin::File => {}
        }
        if shown != Some(&definition.service) {
            self.view.services.insert(id.clone(), Arc::new(definition.service.clone()));
            self.relabel_checks(&id);
            out.push(LocalOutput::Changed(Change::Service(id.clone())));
        }
        if self.services.insert(id.clone(), definition).is_none() {
            self.touch(&Some(id));
        }
    }

    /// Stores a definition; a known check keeps its state and output.
    pub(super) fn put_check(&mut self, definition: CheckDefinition, out: &mut Outbox<LocalOutput>) {
        let state = self.view.checks.get(&definition.id);
        let (status, output) = state.map_or_else(
            || (definition.status.clone(), String::new()),
            |check| (check.status.clone(), check.output.clone()),
        );
        let remaining = definition.kind.ttl().unwrap_or_default();
        self.put_check_in_state(definition, status, output, remaining, out);
    }

    /// Stores a definition in a given state; a TTL check expires after `remaining`.
    pub(super) fn put_check_in_state(
        &mut self,
        mut definition: CheckDefinition,
        status: CheckStatus,
        output: String,
        remaining: Duration,
        out: &mut Outbox<LocalOutput>,
    ) {
        if let CheckKind::Alias(alias) = &mut definition.kind {
            alias.node.take_if(|node| node.folded() == self.node.folded());
        }
        let id = definition.id.clone();
        let service = definition.service_id.as_ref();
        let known = service.is_none_or(|service| self.services.contains_key(service));
        assert!(known, "INV-LOCAL-1: a check names a service that is not registered");
        let old = self.checks.get(&id);
        if old != Some(&definition) {
            let persisted = old.is_some_and(|old| old.origin == Origin::Api);
            match definition.origin {
                Origin::Api => self.unstored.push(Stored::PutCheck(Box::new(definition.clone()))),
                Origin::File if persisted => self.unstored.push(Stored::RemoveCheck(id.clone())),
                Origin::File => {}
            }
        }
        let shown = Arc::new(self.show(&definition, status.clone(), output));
        let changed = self.view.checks.get(&id) != Some(&shown);
        if changed {
            self.view.checks.insert(id.clone(), shown);
            out.push(LocalOutput::Changed(Change::Check(id.clone())));
        }
        let output_max_size = self.output.limit(&definition);
        let scheduled = CheckDefinition { output_max_size, ..definition.clone() };
        let start = CheckStart { definition: scheduled, status, remaining };
        out.push(LocalOutput::StartCheck(Box::new(start)));
        self.index(definition, changed);
    }

    /// Puts a definition into the tables, in the place of its predecessor.
    fn index(&mut self, definition: CheckDefinition, changed: bool) {
        let (id, place) = (definition.id.clone(), definition.service_id.clone());
        let old = self.unindex(&id);
        // What an alias watches is not part of what is seen of it.
        let before = old.as_ref().and_then(|old| self.alias_here(old));
        let changed = changed || before != self.alias_here(&definition);
        self.places.entry(place.clone()).or_default().insert(id.clone());
        if let Some(alias) = self.alias_here(&definition) {
            self.aliases.add(&id, alias);
        }
        self.checks.insert(id, definition);
        if changed {
            self.touch(&place);
            if let Some(old) = old.filter(|old| old.service_id != place) {
                self.touch(&old.service_id);
            }
        }
    }

    fn unindex(&mut self, id: &CheckId) -> Option<CheckDefinition> {
        let definition = self.checks.remove(id)?;
        if let Some(checks) = self.places.get_mut(&definition.service_id) {
            checks.remove(id);
            if checks.is_empty() {
                self.places.remove(&definition.service_id);
            }
        }
        if let Some(alias) = self.alias_here(&definition) {
            self.aliases.remove(id, alias);
        }
        Some(definition)
    }

    /// Removes a service with its checks; an unknown one is no error.
    pub(super) fn remove_service(&mut self, id: &ServiceId, out: &mut Outbox<LocalOutput>) {
        let Some(definition) = self.services.remove(id) else { return };
        for check in self.service_checks(id) {
            // The catalog drops them with their service.
            self.drop_check(&check, out);
        }
        self.view.services.remove(id);
        self.touch(&Some(id.clone()));
        if definition.origin == Origin::Api {
            self.unstored.push(Stored::RemoveService(id.clone()));
        }
        out.push(LocalOutput::Changed(Change::Service(id.clone())));
    }

    /// Removes a check; an unknown one is no error.
    pub(super) fn remove_check(&mut self, id: &CheckId, out: &mut Outbox<LocalOutput>) {
        if self.drop_check(id, out) {
            out.push(LocalOutput::Changed(Change::Check(id.clone())));
        }
    }

    fn drop_check(&mut self, id: &CheckId, out: &mut Outbox<LocalOutput>) -> bool {
        let Some(definition) = self.unindex(id) else { return false };
        self.view.checks.remove(id);
        self.touch(&definition.service_id);
        // The state of a TTL check is stored even if its definition is a file's.
        if definition.origin == Origin::Api || definition.kind.ttl().is_some() {
            self.unstored.push(Stored::RemoveCheck(id.clone()));
        }
        out.push(LocalOutput::StopCheck(id.clone()));
        true
    }

    pub(super) fn report_ttl(
        &mut self,
        id: &CheckId,
        status: CheckStatus,
        output: &str,
        wall: WallClock,
        out: &mut Outbox<LocalOutput>,
    ) -> Result<(), RequestError> {
        let Some((definition, ttl)) = self.checks.get(id).and_then(|it| Some((it, it.kind.ttl()?)))
        else {
            let rule = format!("CheckID {id:?} does not have associated TTL");
            return Err(RequestError::Refused(rule));
        };
        if let CheckStatus::Other(text) = &status {
            return Err(RequestError::Refused(format!("Invalid check status: '{text}'")));
        }
        let output = self.kept(cut_note(output, self.output.limit(definition)));
        let expires = wall.after(ttl);
        let (check, state, text) = (id.clone(), status.clone(), output.clone());
        self.unstored.push(Stored::PutTtl(TtlState {
            check,
            status: state,
            output: text,
            expires,
        }));
        out.push(LocalOutput::Told { check: id.clone(), status: status.clone() });
        self.set_state(id, status, output, out);
        Ok(())
    }

    /// Turns a TTL check critical (http-api.md §5.2).
    pub(super) fn expire_ttl(&mut self, id: &CheckId, out: &mut Outbox<LocalOutput>) {
        let Some(check) = self.view.checks.get(id) else { return };
        let output = if check.output.is_empty() {
            "TTL expired".to_owned()
        } else if check.output.starts_with("TTL expired") {
            check.output.clone()
        } else {
            format!("TTL expired (last output before timeout follows): {}", check.output)
        };
        self.set_state(id, CheckStatus::Critical, output, out);
    }

    /// Gives a check a new state, and says whether it is one; a result for a check that is gone
    /// changes nothing.
    pub(super) fn set_state(
        &mut self,
        id: &CheckId,
        status: CheckStatus,
        output: String,
        out: &mut Outbox<LocalOutput>,
    ) -> bool {
        let output = self.kept(output);
        let Some(check) = self.view.checks.get_mut(id) else { return false };
        let turned = check.status != status;
        if !turned && check.output == output {
            return false;
        }
        let check = Arc::make_mut(check);
        check.status = status.clone();
        check.output = output;
        let place = check.service_id.clone();
        let passing = status == CheckStatus::Passing;
        if turned {
            let level = if passing { Level::Info } else { Level::Warn };
            crate::trace!(out, level, AgentTrace::CheckTurned { check: id.clone(), status });
            out.push(LocalOutput::Changed(Change::Check(id.clone())));
        } else {
            out.push(LocalOutput::Changed(Change::Output(id.clone())));
        }
        // Aliases show what failing checks say. They count no aliases of this node, so one that
        // turned is nobody's news.
        let counts = self.checks.get(id).is_some_and(|check| self.alias_here(check).is_none());
        if counts && (turned || !passing) {
            self.touch(&place);
        }
        true
    }

    /// Takes over the catalog's tags of a service that allows it.
    pub(super) fn adopt_tags(
        &mut self,
        id: &ServiceId,
        tags: Vec<String>,
        out: &mut Outbox<LocalOutput>,
    ) {
        let Some(service) = self.view.services.get_mut(id) else { return };
        if !service.enable_tag_override || service.tags == tags {
            return;
        }
        Arc::make_mut(service).tags = tags;
        self.relabel_checks(id);
        out.push(LocalOutput::Changed(Change::Adopted));
    }

    fn service_checks(&self, service: &ServiceId) -> Vec<CheckId> {
        self.checks_of(&Some(service.clone())).cloned().collect()
    }

    /// Has the aliases decided again that watch this place.
    fn touch(&mut self, place: &Place) {
        let place_of = |id: &CheckId| self.checks.get(id).and_then(|it| it.service_id.clone());
        self.aliases.touch(place, place_of);
    }

    /// Shows the service's present name and tags on its checks.
    fn relabel_checks(&mut self, id: &ServiceId) {
        let Some(service) = self.view.services.get(id).cloned() else { return };
        for check in self.service_checks(id) {
            if let Some(check) = self.view.checks.get_mut(&check) {
                let check = Arc::make_mut(check);
                check.service_name = service.name.to_string();
                check.service_tags.clone_from(&service.tags);
            }
        }
    }

    fn show(&self, definition: &CheckDefinition, status: CheckStatus, output: String) -> Check {
        let service = definition.service_id.as_ref().and_then(|id| self.view.services.get(id));
        Check {
            node: self.node.clone(),
            id: definition.id.clone(),
            name: definition.name.clone(),
            status,
            notes: definition.notes.clone(),
            output,
            service_id: definition.service_id.clone(),
            service_name: service.map(|it| it.name.to_string()).unwrap_or_default(),
            service_tags: service.map(|it| it.tags.clone()).unwrap_or_default(),
            kind: definition.kind.name().to_owned(),
            recipe: recipe(definition),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        }
    }
}

/// What the catalog is told of how a check is defined: only what servers act upon, which is how
/// long its service may stay without this agent (`reconcile`).
fn recipe(definition: &CheckDefinition) -> CheckRecipe {
    let limit = definition.service_id.as_ref().and(definition.deregister_critical_service_after);
    let deregister_critical_service_after = limit.unwrap_or_default();
    CheckRecipe { deregister_critical_service_after, ..CheckRecipe::default() }
}

fn unknown_service(id: &ServiceId) -> RequestError {
    RequestError::Refused(format!("ServiceID {id:?} does not exist"))
}

/// The servers' own service belongs to the leader; two owners would overwrite each other for ever.
fn allow_service(id: &ServiceId) -> Result<(), RequestError> {
    if id.as_str() == SERVER_SERVICE {
        return Err(RequestError::Refused(format!("ServiceID {id:?} is reserved for servers")));
    }
    Ok(())
}

/// The member's health belongs to the leader.
fn allow_check(id: &CheckId) -> Result<(), RequestError> {
    if id.as_str() == SERF_HEALTH {
        return Err(RequestError::Refused(format!("CheckID {id:?} is reserved for the leader")));
    }
    Ok(())
}
