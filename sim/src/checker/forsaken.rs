//! Services that a leader takes away since no agent looks after them, judged by the committed log
//! and the true time.
//!
//! C5: such a service goes only once the check that the command names, which is one of the service
//! or the `serfHealth` of its node, has been critical without a break for as long as a check of the
//! service says. That the command does nothing if the check has changed is for the tables that
//! ship; a command that was refused is not judged.

use super::{Violation, broken};
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::catalog::command::{Command, Deregistration, SERF_HEALTH};
use terraform_core::catalog::model::{Check, CheckStatus};
use terraform_core::catalog::transaction::{Operation, RowOperation};
use terraform_core::id::{CheckId, NodeName, ServiceId};
use terraform_core::local::definition::DEREGISTER_AFTER_MIN;
use terraform_core::time::Instant;

/// What clocks may be slow by: part of a span that may be missing.
const DRIFT: u32 = 1000;

/// One check.
#[derive(Debug)]
struct Seen {
    service: Option<ServiceId>,
    /// How long its service stays; zero for ever.
    limit: Duration,
    critical_since: Option<Instant>,
}

/// What is known of checks; of those that a backup brought back, nothing.
#[derive(Debug, Default)]
pub(super) struct ForsakenChecker {
    checks: BTreeMap<(NodeName, CheckId), Seen>,
}

/// The services that a transaction removes.
pub(super) fn services_deleted(
    operations: &[Operation],
) -> impl Iterator<Item = Deregistration> + '_ {
    operations.iter().filter_map(|operation| {
        let Operation::Row(RowOperation::DeleteService(delete)) = operation else { return None };
        let node = NodeName::parse(&delete.key.node).ok()?;
        let service = Some(ServiceId::parse(&delete.key.id).ok()?);
        Some(Deregistration { node, service, check: None })
    })
}

impl ForsakenChecker {
    /// Does, and judges, what is seen committed at `now`, unless it was refused.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        command: &Command,
        refused: bool,
    ) -> Result<(), Violation> {
        match command {
            _ if refused => {}
            Command::Register(registration) => {
                registration.checks.iter().for_each(|check| self.see(now, check));
            }
            Command::Deregister(target) => self.remove(target),
            Command::RestoreCommit(_) => self.checks.clear(),
            Command::Transaction(operations) => {
                for target in services_deleted(operations) {
                    self.judge(now, &target, operations)?;
                    self.remove(&target);
                }
            }
            Command::Coordinates(_)
            | Command::Kv(_)
            | Command::Prepared(_)
            | Command::EndSessions(_)
            | Command::CreateSession(_)
            | Command::ReapTombstones(_)
            | Command::RestoreBlock(_)
            | Command::RestoreAbort(_)
            | Command::Autopilot(_)
            | Command::EndLockDelays(_) => {}
        }
        Ok(())
    }

    fn see(&mut self, now: Instant, check: &Check) {
        let key = (check.node.clone(), check.id.clone());
        let before = self.checks.get(&key).and_then(|seen| seen.critical_since);
        let critical = check.status == CheckStatus::Critical;
        let seen = Seen {
            service: check.service_id.clone(),
            limit: check.recipe.deregister_critical_service_after,
            critical_since: critical.then(|| before.unwrap_or(now)),
        };
        self.checks.insert(key, seen);
    }

    fn remove(&mut self, target: &Deregistration) {
        let Deregistration { node, service, check } = target;
        self.checks.retain(|(on, id), seen| {
            let goes = match (service, check) {
                (Some(service), _) => seen.service.as_ref() == Some(service),
                (None, Some(check)) => id == check,
                (None, None) => true,
            };
            on != node || !goes
        });
    }

    fn judge(
        &self,
        now: Instant,
        target: &Deregistration,
        operations: &[Operation],
    ) -> Result<(), Violation> {
        let Deregistration { node, service, .. } = target;
        let own = |((on, _), seen): &(&(NodeName, CheckId), &Seen)| {
            on == node && seen.service == *service
        };
        let mut own = self.checks.iter().filter(own).peekable();
        if own.peek().is_none() {
            return Ok(());
        }
        let limits = own.map(|(_, seen)| seen.limit).filter(|limit| !limit.is_zero());
        let Some(limit) = limits.min().map(|limit| limit.max(DEREGISTER_AFTER_MIN)) else {
            return broken("C5", format!("{target:?} was not to go"));
        };
        let ground = operations.iter().find_map(|operation| {
            let Operation::Row(RowOperation::SetCheck(write)) = operation else { return None };
            Some(&write.check)
        });
        let fits =
            |check: &&Check| check.id.as_str() == SERF_HEALTH || check.service_id == *service;
        let key = ground.filter(fits).map(|check| (node.clone(), check.id.clone()));
        let since = key.and_then(|key| self.checks.get(&key)?.critical_since);
        match since {
            Some(since) if now.since(since) + limit / DRIFT >= limit => Ok(()),
            since => broken("C5", format!("{target:?} goes at {now:?}, critical since {since:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use terraform_core::catalog::command::Registration;
    use terraform_core::catalog::model::{CheckRecipe, Node};
    use terraform_core::catalog::transaction::{CheckWrite, RowDelete, RowKey};
    use terraform_core::id::ModifyIndex;

    const LIMIT: Duration = Duration::from_secs(90);

    fn check(id: &str, service: Option<&str>, status: CheckStatus, limit: Duration) -> Check {
        Check {
            node: NodeName::parse("n").unwrap(),
            id: CheckId::parse(id).unwrap(),
            name: String::new(),
            status,
            notes: String::new(),
            output: String::new(),
            service_id: service.map(|id| ServiceId::parse(id).unwrap()),
            service_name: String::new(),
            service_tags: Vec::new(),
            kind: String::new(),
            recipe: CheckRecipe {
                deregister_critical_service_after: limit,
                ..CheckRecipe::default()
            },
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        }
    }

    fn register(checks: Vec<Check>) -> Command {
        let node = Node {
            id: None,
            name: NodeName::parse("n").unwrap(),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let registration = Registration { node, skip_node_update: true, service: None, checks };
        Command::Register(Box::new(registration))
    }

    fn health(status: CheckStatus) -> Check {
        check(SERF_HEALTH, None, status, Duration::ZERO)
    }

    fn take(service: &str, ground: Check) -> Command {
        let key = RowKey { node: "n".to_owned(), id: service.to_owned() };
        let rows = [
            RowOperation::SetCheck(Box::new(CheckWrite { check: ground, only_at: None })),
            RowOperation::DeleteService(RowDelete { key, only_at: None }),
        ];
        Command::Transaction(rows.map(Operation::Row).into())
    }

    /// A node whose member failed at 10 s, with a service that goes and one that does not.
    fn checker() -> ForsakenChecker {
        let mut checker = ForsakenChecker::default();
        let passing = CheckStatus::Passing;
        let all = vec![
            health(passing.clone()),
            check("a", Some("goes"), passing.clone(), LIMIT),
            check("b", Some("stays"), passing, Duration::ZERO),
        ];
        checker.commit(Instant::ZERO, &register(all), false).unwrap();
        commit(&mut checker, 10, &register(vec![health(CheckStatus::Critical)])).unwrap();
        checker
    }

    fn commit(
        checker: &mut ForsakenChecker,
        second: u64,
        command: &Command,
    ) -> Result<(), &'static str> {
        let now = Instant::ZERO + Duration::from_secs(second);
        checker.commit(now, command, false).map_err(|violation| violation.rule)
    }

    #[test]
    fn a_service_goes_once_its_time_is_over_and_no_other_does() {
        let mut checker = checker();
        let ground = health(CheckStatus::Critical);
        assert_eq!(commit(&mut checker, 99, &take("goes", ground.clone())), Err("C5"));
        assert_eq!(commit(&mut checker, 100, &take("stays", ground.clone())), Err("C5"));
        assert_eq!(commit(&mut checker, 100, &take("goes", ground)), Ok(()));
    }

    #[test]
    fn the_time_begins_anew_and_what_is_named_is_what_counts() {
        let mut checker = checker();
        for (second, status) in [(50, CheckStatus::Passing), (51, CheckStatus::Critical)] {
            commit(&mut checker, second, &register(vec![health(status)])).unwrap();
        }
        let ground = health(CheckStatus::Critical);
        assert_eq!(commit(&mut checker, 140, &take("goes", ground.clone())), Err("C5"));
        let own = check("a", Some("goes"), CheckStatus::Critical, LIMIT);
        assert_eq!(commit(&mut checker, 141, &take("goes", own)), Err("C5"), "it passes");
        assert_eq!(commit(&mut checker, 141, &take("goes", ground)), Ok(()));
    }
}
