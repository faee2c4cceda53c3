//! Services that no agent looks after any more (cluster-behaviour.md §16 row 20).
//!
//! An agent itself removes a service whose check is critical for longer than the check's
//! `deregister_critical_service_after`. Where no agent lives on a node, the leader does it: on the
//! node of a failed member once its `serfHealth` has been critical for so long, and on a node that
//! never had an agent once the check itself has. Services of live members are their agents' alone,
//! since two would undo each other's work.
//!
//! The leader keeps the time, as for sessions, and a new leader begins anew: a service may stay
//! longer than was asked for, and never goes sooner. A command names the state it is decided by, so
//! a service stays whose node came back, or whose check passed, while the command was on its way.
//!
//! Differs: Consul 1.8.7 leaves such services alone.

use super::*;
use crate::catalog::model::{Check, CheckStatus};
use crate::catalog::transaction::{CheckWrite, Operation, RowDelete, RowKey, RowOperation};
use crate::id::ServiceId;
use crate::local::definition::DEREGISTER_AFTER_MIN;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// What the leader knows of their time; checks by their keys in the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Forsaken {
    /// Checks as they were looked at last.
    seen: OrdMap<Arc<str>, Arc<Check>>,
    /// When the service of a check goes.
    timers: Timers<Arc<str>>,
    /// The command on its way, and the check it is about unless that is no longer so.
    in_flight: Option<(ReconcileTicket, Option<Arc<str>>)>,
}

/// The service that a check lets go, and after how long.
fn limit(check: &Check) -> Option<(&ServiceId, Duration)> {
    let after = check.recipe.deregister_critical_service_after;
    let service = check.service_id.as_ref().filter(|_| !after.is_zero())?;
    Some((service, after.max(DEREGISTER_AFTER_MIN)))
}

/// The critical check that says that nobody looks after the service of `check`, if there is one: of
/// a node that has a `serfHealth`, that; of others, the check itself.
fn ground<'a>(world: &World<'a>, check: &'a Arc<Check>) -> Option<&'a Arc<Check>> {
    let member = world.member(&check.node).filter(|member| world.is_here(member));
    if member.is_some_and(|member| member.status != MemberStatus::Failed) {
        return None;
    }
    let decides = world.tables.member_health(&check.node).unwrap_or(check);
    (decides.status == CheckStatus::Critical).then_some(decides)
}

/// Removes the service of `check`, if what it is decided by is still as it is now.
fn command(check: &Check, service: &ServiceId, ground: &Check) -> Command {
    let only_at = Some(ground.modify_index);
    let unchanged = CheckWrite { check: ground.clone(), only_at };
    let key = RowKey { node: check.node.to_string(), id: service.to_string() };
    let removal = RowDelete { key, only_at: None };
    let rows = [RowOperation::SetCheck(Box::new(unchanged)), RowOperation::DeleteService(removal)];
    Command::Transaction(rows.map(Operation::Row).into())
}

impl Forsaken {
    /// Starts the clocks of what nobody looks after any more, and stops those of the others.
    fn look(&mut self, now: Instant, world: &World<'_>) {
        let checks = world.tables.check_map();
        let old = std::mem::replace(&mut self.seen, checks.clone());
        for item in old.diff(checks) {
            let (key, was, is) = match item {
                DiffItem::Add(key, is) => (key, None, Some(is)),
                DiffItem::Update { old: (key, was), new: (_, is) } => (key, Some(was), Some(is)),
                DiffItem::Remove(key, was) => (key, Some(was), None),
            };
            let same = |was: &Arc<Check>, is: &Arc<Check>| {
                was.create_index == is.create_index && limit(was) == limit(is)
            };
            if !was.zip(is).is_some_and(|(was, is)| same(was, is)) {
                self.forget(key);
            }
            let Some(check) = is.or(was) else { continue };
            if check.id.as_str() == SERF_HEALTH {
                self.judge_node(now, &check.node, world);
            } else if let Some(check) = is {
                self.judge(now, (key, check), world);
            }
        }
    }

    /// A member changed; the world already shows it.
    pub(super) fn member_changed(&mut self, now: Instant, member: &Member, world: &World<'_>) {
        if member.status == MemberStatus::Alive {
            // It may have failed again by now.
            for (key, _) in world.tables.checks_on(&member.name) {
                self.forget(key);
            }
        }
        self.judge_node(now, &member.name, world);
    }

    fn judge_node(&mut self, now: Instant, node: &NodeName, world: &World<'_>) {
        for found in world.tables.checks_on(node) {
            self.judge(now, found, world);
        }
    }

    fn judge(&mut self, now: Instant, (key, check): (&Arc<str>, &Arc<Check>), world: &World<'_>) {
        let Some((_, after)) = limit(check) else { return };
        if ground(world, check).is_none() {
            self.forget(key);
        } else if self.timers.deadline(key).is_none() && self.flies() != Some(key) {
            self.timers.set(Arc::clone(key), now + after);
        }
    }

    fn forget(&mut self, key: &Arc<str>) {
        self.timers.cancel(key);
        if let Some((_, flies)) = &mut self.in_flight {
            flies.take_if(|flies| flies == key);
        }
    }

    fn flies(&self) -> Option<&Arc<str>> {
        self.in_flight.as_ref().and_then(|(_, key)| key.as_ref())
    }

    /// When the next service goes; while one is on its way, its answer is waited for.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next().filter(|_| self.in_flight.is_none())
    }
}

impl Reconcile {
    /// Whether checks changed that the duties have not looked at.
    pub fn misses_checks(&self, tables: &Tables) -> bool {
        self.leads && !self.forsaken.seen.ptr_eq(tables.check_map())
    }

    /// Looks at the checks that changed, for what becomes of their services.
    pub fn look_at_checks(&mut self, now: Instant, world: &World<'_>) {
        if self.leads {
            self.forsaken.look(now, world);
        }
    }

    /// Deregisters the next service whose time is over.
    pub(super) fn deregister_forsaken(
        &mut self,
        now: Instant,
        world: &World<'_>,
        out: &mut ReconcileOutbox,
    ) {
        if self.forsaken.in_flight.is_some() {
            return;
        }
        while let Some(key) = self.forsaken.timers.pop_due(now) {
            let Some(check) = world.tables.check_map().get(&key) else { continue };
            let decided = limit(check).zip(ground(world, check));
            let Some(((service, after), ground)) = decided else { continue };
            crate::mark!("reconcile.forsaken");
            let (node, service_id, id) = (check.node.clone(), service.clone(), check.id.clone());
            let trace = ReconcileTrace::Forsaken { node, service: service_id, check: id, after };
            crate::trace!(out, Level::Info, trace);
            let command = Box::new(command(check, service, ground));
            let ticket = self.ticket();
            self.forsaken.in_flight = Some((ticket, Some(key)));
            out.push(ReconcileOutput::Propose { ticket, command });
            return;
        }
    }

    /// Whether the step was such a deregistration. A service that is still there, since the step
    /// failed or what it was decided by changed, is tried again after a pause.
    pub(super) fn forsaken_deregistered(
        &mut self,
        now: Instant,
        (ticket, result): (ReconcileTicket, &Result<(), StepError>),
        (world, out): (&World<'_>, &mut ReconcileOutbox),
    ) -> bool {
        if self.forsaken.in_flight.as_ref().is_none_or(|(wanted, _)| *wanted != ticket) {
            return false;
        }
        self.look_at_checks(now, world);
        let key = self.forsaken.in_flight.take().and_then(|(_, key)| key);
        if let Some(key) = key
            && let Some(check) = world.tables.check_map().get(&key)
        {
            if let Err(error) = result.clone() {
                let failed = ReconcileTrace::StepFailed { of: check.node.to_string(), error };
                crate::trace!(out, Level::Warn, failed);
            }
            let pause = RETRY_MIN + self.rng.jitter(RETRY_MIN);
            self.forsaken.timers.set(key, now + pause);
        }
        self.deregister_forsaken(now, world, out);
        true
    }
}
