//! What an agent starts with: definitions of files over registrations of earlier runs.
//!
//! A definition of a file wins over a persisted one of the same id, which is then forgotten; a
//! TTL state counts until its expiry; every other persisted check starts critical, so that nothing
//! unhealthy is offered unseen (agent-config.md §6, cluster-behaviour.md §14).

use super::registry::Registry;
use super::*;
use std::collections::BTreeSet;

/// Fills an empty registry; what has to be forgotten on disk is then queued.
pub(super) fn restore(
    registry: &mut Registry,
    config: LocalConfig,
    out: &mut Outbox<LocalOutput>,
) -> Result<(), ConfigError> {
    let Registrations { services, mut checks, ttl } = config.restored;
    for mut service in services.into_values() {
        // Checks are persisted by themselves; a service that carries some means the same.
        for check in std::mem::take(&mut service.checks) {
            checks.insert(check.id.clone(), check);
        }
        registry.put_service(service, out);
    }
    // What was just put in is on disk already.
    registry.take_unstored();
    registry.reload(config.services, config.checks, out).map_err(|error| {
        let setting = "service and check definitions";
        ConfigError::Range { setting, rule: error.to_string() }
    })?;
    let mut forget = registry.take_unstored();
    let mut inherited = BTreeSet::new();
    for (id, check) in checks {
        let service = check.service_id.as_ref();
        if registry.check(&id).is_some() {
            forget.push(Stored::RemoveCheck(id.clone()));
            inherited.insert(id);
        } else if service.is_some_and(|service| !registry.has_service(service)) {
            let (what, why) = (format!("Check '{id}'"), "its service is not registered");
            crate::trace!(out, Level::Warn, AgentTrace::NotRestored { what, why });
            forget.push(Stored::RemoveCheck(id));
        } else {
            let remaining = check.kind.ttl().unwrap_or_default();
            let (status, output) = (CheckStatus::Critical, String::new());
            registry.put_check_in_state(check, status, output, remaining, out);
        }
    }
    registry.take_unstored();
    for (id, state) in ttl {
        let kept = restore_state(registry, &id, state, config.wall, out);
        // Forgetting the persisted check drops its state, which the file's check goes on with.
        forget.extend(kept.filter(|_| inherited.contains(&id)));
    }
    for change in forget {
        registry.store(change);
    }
    Ok(())
}

/// Gives a TTL check the state that was reported for it, unless that has expired; returns what
/// stores it if it counts.
fn restore_state(
    registry: &mut Registry,
    check: &CheckId,
    state: TtlState,
    wall: WallClock,
    out: &mut Outbox<LocalOutput>,
) -> Option<Stored> {
    let TtlState { status, output, expires, .. } = state;
    let left = expires.since(wall);
    let definition = registry.check(check)?.clone();
    let ttl = definition.kind.ttl().filter(|_| !left.is_zero())?;
    // A civil clock that was set back must not keep a check passing for longer than its TTL.
    let remaining = left.min(ttl);
    registry.put_check_in_state(definition, status.clone(), output.clone(), remaining, out);
    Some(Stored::PutTtl(TtlState { check: check.clone(), status, output, expires }))
}
