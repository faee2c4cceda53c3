//! Alias checks of this agent: what they watch here, and what follows from it.
//!
//! - Source: http-api.md §5.2. An alias is as bad as the worst check of the service it watches and
//!   of the node.
//! - Differs: an alias of this node counts no other one, but the checks behind that. So an alias
//!   never sees itself, aliases in a circle cannot keep each other critical, and the text names the
//!   check that really fails. What an alias shows follows from the other checks alone: the order of
//!   decisions does not matter, and to decide once more changes nothing.

use super::registry::Registry;
use super::*;
use definition::AliasCheck;
use std::collections::{BTreeMap, BTreeSet};

/// Services one alias may watch through others; who has more of them in a row made a mistake.
const PLACES_MAX: usize = 64;

/// What checks belong to: a service, or the node.
pub(super) type Place = Option<ServiceId>;

/// Which aliases watch what, and which are to be decided again.
#[derive(Clone, Debug, Default)]
pub(super) struct Aliases {
    /// By the service they watch; all of them watch the node as well.
    watchers: BTreeMap<Place, BTreeSet<CheckId>>,
    stale: BTreeSet<CheckId>,
}

impl Aliases {
    pub(super) fn add(&mut self, id: &CheckId, alias: &AliasCheck) {
        self.watchers.entry(alias.service.clone()).or_default().insert(id.clone());
        self.stale.insert(id.clone());
    }

    pub(super) fn remove(&mut self, id: &CheckId, alias: &AliasCheck) {
        if let Some(watchers) = self.watchers.get_mut(&alias.service) {
            watchers.remove(id);
            if watchers.is_empty() {
                self.watchers.remove(&alias.service);
            }
        }
        self.stale.remove(id);
    }

    /// Something about the checks of `place` changed: whoever watches it, also through others, is
    /// to be decided again. `place_of` says what an alias itself belongs to.
    pub(super) fn touch(&mut self, place: &Place, place_of: impl Fn(&CheckId) -> Place) {
        let mut touched = BTreeSet::new();
        let mut next = vec![place.clone()];
        while let Some(place) = next.pop() {
            if !touched.insert(place.clone()) {
                continue;
            }
            let watchers: Vec<&CheckId> = match &place {
                None => self.watchers.values().flatten().collect(),
                Some(_) => self.watchers.get(&place).into_iter().flatten().collect(),
            };
            next.extend(watchers.iter().map(|alias| place_of(alias)));
            self.stale.extend(watchers.into_iter().cloned());
        }
    }

    pub(super) fn take_stale(&mut self) -> BTreeSet<CheckId> {
        std::mem::take(&mut self.stale)
    }
}

/// What the checks of one place say, aliases of this node left out.
#[derive(Clone, Debug, Default)]
struct Summary {
    checks: bool,
    critical: Option<CheckId>,
    warning: Option<CheckId>,
    /// What those aliases watch.
    watched: BTreeSet<ServiceId>,
}

/// Decides every alias whose watched checks have changed.
pub(super) fn settle(registry: &mut Registry, out: &mut Outbox<LocalOutput>) {
    let mut summaries = BTreeMap::new();
    for id in registry.aliases().take_stale() {
        let Some((status, output)) = decide(registry, &id, &mut summaries) else { continue };
        if registry.set_state(&id, status.clone(), output, out) {
            out.push(LocalOutput::Told { check: id, status });
        }
    }
}

fn decide(
    registry: &Registry,
    id: &CheckId,
    summaries: &mut BTreeMap<Place, Summary>,
) -> Option<(CheckStatus, String)> {
    let definition = registry.check(id)?;
    let alias = registry.alias_here(definition)?;
    let mut places: Vec<Place> = alias.service.iter().cloned().map(Some).collect();
    places.push(None);
    let (mut checks, mut critical, mut warning) = (false, None, None);
    let mut at = 0;
    while let Some(place) = places.get(at).cloned() {
        at += 1;
        if let Some(service) = place.as_ref().filter(|service| !registry.has_service(service)) {
            let node = registry.node();
            let output = format!("Service {service} could not be found on node {node}");
            return Some((CheckStatus::Critical, output));
        }
        let summary = summaries.entry(place).or_insert_with_key(|place| sum(registry, place));
        checks |= summary.checks;
        critical = critical.or_else(|| summary.critical.clone());
        warning = warning.or_else(|| summary.warning.clone());
        for service in summary.watched.iter().cloned().map(Some) {
            if !places.contains(&service) {
                places.push(service);
            }
        }
        if places.len() > PLACES_MAX {
            let output = format!("More than {PLACES_MAX} services are watched through aliases");
            return Some((CheckStatus::Critical, output));
        }
    }
    let status = match (&critical, &warning) {
        (Some(_), _) => CheckStatus::Critical,
        (None, Some(_)) => CheckStatus::Warning,
        (None, None) => CheckStatus::Passing,
    };
    let failing = critical.or(warning).and_then(|id| registry.view().checks.get(&id));
    let output = match failing {
        Some(check) => {
            failing_text(&check.name, &check.output, registry.output_rules().limit(definition))
        }
        None if checks => ALL_PASSING.to_owned(),
        None => "No checks found.".to_owned(),
    };
    Some((status, output))
}

fn sum(registry: &Registry, place: &Place) -> Summary {
    let mut summary = Summary::default();
    for id in registry.checks_of(place) {
        let Some(definition) = registry.check(id) else { continue };
        if let Some(alias) = registry.alias_here(definition) {
            summary.watched.extend(alias.service.clone());
            continue;
        }
        summary.checks = true;
        let first = match registry.view().checks.get(id).map(|check| &check.status) {
            Some(CheckStatus::Critical) => &mut summary.critical,
            Some(CheckStatus::Warning) => &mut summary.warning,
            Some(CheckStatus::Passing | CheckStatus::Other(_)) | None => continue,
        };
        first.get_or_insert_with(|| id.clone());
    }
    summary
}
