//! Services that no agent looks after any more.

use super::*;
use crate::catalog::command::{Deregistration, Registration};
use crate::catalog::tests::{check, node, service};
use crate::id::{CheckId, ServiceId};
use crate::local::definition::DEREGISTER_AFTER_MIN;

const AFTER: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);

/// A service with a check of it that lets it go after `after`.
fn registration(on: &str, id: &str, status: CheckStatus, after: Duration) -> Registration {
    let mut check = check(on, &format!("{id}-check"), Some(id), status);
    check.recipe.deregister_critical_service_after = after;
    Registration {
        node: node(on, None),
        skip_node_update: true,
        service: Some(service(id, id)),
        checks: vec![check],
    }
}

impl Rig {
    /// Applies a command, and lets the duties look as the node does.
    fn write(&mut self, command: Command) {
        let index = self.index + 1;
        self.apply(index, command);
        self.look();
    }

    fn look(&mut self) {
        if self.duties.misses_checks(&self.tables) {
            self.with_world(|duties, now, world, _| duties.look_at_checks(now, &world));
        }
        assert!(!self.duties.misses_checks(&self.tables));
    }

    fn serve(&mut self, on: &str, id: &str, status: CheckStatus, after: Duration) {
        let registration = registration(on, id, status, after);
        self.write(Command::Register(Box::new(registration)));
    }

    fn turn(&mut self, place: usize, kind: MemberEventKind, status: MemberStatus) {
        self.members[place].status = status;
        let outputs = self.event(kind, self.members[place].clone());
        self.settle(outputs);
        self.look();
    }

    fn fail(&mut self, place: usize) {
        self.turn(place, MemberEventKind::Failed, MemberStatus::Failed);
    }

    fn services(&self, on: &str) -> Vec<String> {
        let (Rows::Node(Some(found)), _) = self.tables.node_with_services(on) else {
            panic!("{on} is in the catalog")
        };
        found.services.iter().map(|service| service.id.to_string()).collect()
    }

    /// Asserts that the services of a node are these until just before `time` is over, and those
    /// then.
    fn loses(&mut self, on: &str, time: Duration, before: &[&str], after: &[&str]) {
        let end = self.now + time;
        self.wait(time - SECOND);
        assert_eq!(self.services(on), before, "a second before its time");
        let rest = end.since(self.now);
        self.wait(rest);
        assert_eq!(self.services(on), after, "at its time");
    }
}

/// Leading, with a client `c2` and a critical service that goes, one that stays, and one that is
/// well.
fn rig() -> Rig {
    let mut rig = Rig::ready(&[client("c2", 2), server("n1", 1)]);
    rig.serve("c2", "ill", CheckStatus::Critical, AFTER);
    rig.serve("c2", "kept", CheckStatus::Critical, Duration::ZERO);
    rig.serve("c2", "well", CheckStatus::Passing, AFTER * 2);
    rig
}

#[test]
fn services_of_a_failed_member_go_after_the_time_of_their_checks() {
    let mut rig = rig();
    rig.fail(0);
    rig.loses("c2", AFTER, &["ill", "kept", "well"], &["kept", "well"]);
    rig.loses("c2", AFTER, &["kept", "well"], &["kept"]);
    rig.wait(AFTER * 10);
    assert_eq!(rig.services("c2"), ["kept"]);
    assert_eq!(rig.health("c2"), Some(CheckStatus::Critical));
}

#[test]
fn the_log_names_the_service_and_the_command_the_state_it_is_decided_by() {
    let mut rig = rig();
    rig.fail(0);
    let end = rig.now + AFTER;
    let outputs = loop {
        let at = rig.duties.next_timeout().filter(|at| *at <= end).expect("it is due by then");
        let outputs = rig.at(at);
        if !outputs.is_empty() {
            break outputs;
        }
    };
    let [ReconcileOutput::Trace(Level::Info, line), ReconcileOutput::Propose { command, .. }] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let expected = "deregistering service without a live agent: \
                    node=c2 service=ill check=ill-check after=120s";
    assert_eq!(line.to_string(), expected);
    let Command::Transaction(operations) = &**command else { panic!("{command:?}") };
    assert_eq!(operations.len(), 2);
    // The node came back, and the log has it before the command.
    rig.members[0].status = MemberStatus::Alive;
    let back = rig.event(MemberEventKind::Join, rig.members[0].clone());
    rig.settle(back);
    rig.settle(outputs);
    assert_eq!(rig.services("c2"), ["ill", "kept", "well"]);
    rig.wait(AFTER * 10);
    assert_eq!(rig.services("c2"), ["ill", "kept", "well"]);
}

#[test]
fn services_of_a_live_member_are_its_agents_alone() {
    let mut rig = rig();
    rig.wait(AFTER * 10);
    assert_eq!(rig.services("c2"), ["ill", "kept", "well"]);
}

#[test]
fn a_member_that_comes_back_has_its_whole_time_again() {
    let mut rig = rig();
    rig.fail(0);
    rig.wait(AFTER - SECOND);
    rig.turn(0, MemberEventKind::Join, MemberStatus::Alive);
    rig.wait(AFTER);
    rig.fail(0);
    rig.loses("c2", AFTER, &["ill", "kept", "well"], &["kept", "well"]);
}

#[test]
fn a_member_that_was_back_for_a_moment_has_its_whole_time_again() {
    let mut rig = rig();
    rig.fail(0);
    rig.wait(AFTER - SECOND);
    // It has failed again when the duties hear that it had joined.
    let joined = client("c2", 2);
    let outputs = rig.event(MemberEventKind::Join, joined);
    rig.settle(outputs);
    rig.loses("c2", AFTER, &["ill", "kept", "well"], &["kept", "well"]);
}

#[test]
fn a_new_leader_begins_anew() {
    let mut rig = rig();
    rig.fail(0);
    rig.wait(AFTER - SECOND);
    rig.input(ReconcileInput::LeadershipLost);
    assert_eq!(rig.duties.next_timeout(), None);
    assert!(!rig.duties.misses_checks(&rig.tables), "who does not lead looks at nothing");
    let outputs = rig.input(ReconcileInput::LeaderReady);
    rig.settle(outputs);
    rig.loses("c2", AFTER, &["ill", "kept", "well"], &["kept", "well"]);
}

#[test]
fn on_a_node_without_an_agent_the_check_itself_decides() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    rig.serve("ext", "db", CheckStatus::Passing, AFTER);
    rig.wait(AFTER * 2);
    assert_eq!(rig.services("ext"), ["db"]);
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    rig.wait(AFTER - SECOND);
    // One moment of health is enough for another whole time; another output is not.
    rig.serve("ext", "db", CheckStatus::Passing, AFTER);
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    rig.wait(AFTER / 2);
    let mut again = registration("ext", "db", CheckStatus::Critical, AFTER);
    again.checks[0].output = "still refused".to_owned();
    rig.write(Command::Register(Box::new(again)));
    rig.loses("ext", AFTER / 2, &["db"], &[]);
    assert!(rig.tables.named(&NodeName::parse("ext").unwrap()).is_some(), "the node stays");
}

#[test]
fn less_than_a_minute_is_raised_to_a_minute() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    rig.serve("ext", "db", CheckStatus::Critical, SECOND);
    rig.loses("ext", DEREGISTER_AFTER_MIN, &["db"], &[]);
}

#[test]
fn a_service_that_was_registered_anew_has_its_whole_time() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    rig.wait(AFTER - SECOND);
    let removal = Deregistration {
        node: NodeName::parse("ext").unwrap(),
        service: Some(ServiceId::parse("db").unwrap()),
        check: None,
    };
    // Both are applied before the duties look.
    let index = rig.index + 1;
    rig.apply(index, Command::Deregister(removal));
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    rig.loses("ext", AFTER, &["db"], &[]);
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    rig.wait(AFTER - SECOND);
    // So does one that is to stay for another time.
    rig.serve("ext", "db", CheckStatus::Critical, AFTER * 2);
    rig.loses("ext", AFTER * 2, &["db"], &[]);
}

#[test]
fn a_node_that_an_agent_may_live_on_is_left_alone() {
    // After a restart of all servers Serf does not know the members yet.
    let mut rig = rig();
    rig.members.remove(0);
    rig.wait(UNKNOWN_GRACE / 2);
    assert_eq!(rig.services("c2"), ["ill", "kept", "well"]);
    // Somebody's serfHealth of a node of another kind counts as one, too.
    let health = check("ext", SERF_HEALTH, None, CheckStatus::Critical);
    let mut external = registration("ext", "db", CheckStatus::Passing, AFTER);
    external.checks.push(health);
    rig.write(Command::Register(Box::new(external)));
    rig.wait(AFTER - SECOND);
    assert_eq!(rig.services("ext"), ["db"]);
    let removal = Deregistration {
        node: NodeName::parse("ext").unwrap(),
        service: None,
        check: Some(CheckId::parse(SERF_HEALTH).unwrap()),
    };
    rig.write(Command::Deregister(removal));
    rig.wait(AFTER * 2);
    assert_eq!(rig.services("ext"), ["db"], "its own check passes");
}

#[test]
fn what_could_not_be_committed_is_tried_again_and_a_changed_check_first() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    rig.serve("ext", "db", CheckStatus::Critical, AFTER);
    let proposal = |rig: &mut Rig| loop {
        let at = rig.duties.next_timeout().unwrap();
        let outputs = rig.at(at);
        let found = outputs.into_iter().find_map(|output| match output {
            ReconcileOutput::Propose { ticket, command } => Some((ticket, *command)),
            ReconcileOutput::Change { .. } | ReconcileOutput::Trace(..) => None,
        });
        if let Some(found) = found {
            break found;
        }
    };
    let (ticket, _) = proposal(&mut rig);
    let asked_at = rig.now;
    let result = Err(StepError::Failed(ProposalError::Overloaded));
    rig.input(ReconcileInput::Done { ticket, result });
    let (ticket, command) = proposal(&mut rig);
    let waited = rig.now.since(asked_at);
    assert!(waited >= RETRY_MIN && waited <= RETRY_MIN * 2, "{waited:?}");
    // Its output changes while the command is on its way, which then does nothing.
    let mut again = registration("ext", "db", CheckStatus::Critical, AFTER);
    again.checks[0].output = "still refused".to_owned();
    rig.write(Command::Register(Box::new(again)));
    let index = rig.index + 1;
    rig.apply(index, command);
    assert_eq!(rig.services("ext"), ["db"]);
    rig.input(ReconcileInput::Done { ticket, result: Ok(()) });
    // It is well while the next one is on its way: then nothing is tried any more.
    let (ticket, command) = proposal(&mut rig);
    assert!(rig.now.since(asked_at) <= RETRY_MIN * 4);
    rig.serve("ext", "db", CheckStatus::Passing, AFTER);
    let index = rig.index + 1;
    rig.apply(index, command);
    rig.input(ReconcileInput::Done { ticket, result: Ok(()) });
    rig.wait(AFTER * 10);
    assert_eq!(rig.services("ext"), ["db"]);
}

#[test]
fn many_services_go_one_by_one() {
    let mut rig = Rig::ready(&[client("c2", 2), server("n1", 1)]);
    for number in 0..100 {
        rig.serve("c2", &format!("s{number:02}"), CheckStatus::Passing, AFTER);
    }
    rig.fail(0);
    rig.wait(AFTER);
    assert_eq!(rig.services("c2"), [""; 0]);
}
