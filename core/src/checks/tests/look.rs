//! Aliases of other nodes, driven by hand.

use super::*;
use crate::catalog::model::Check;
use crate::catalog::query::{
    Consistency, NodeChecksQuery, NodeQuery, NodeServices, Query, QueryAnswer, Rows,
};
use crate::catalog::tests;
use crate::id::NodeName;
use crate::local::definition::AliasCheck;
use crate::node::request::RequestBody;
use std::sync::Arc;

#[test]
fn an_alias_of_another_node_reads_its_checks_and_then_waits_for_a_change() {
    let mut rig = Rig::new();
    rig.start(alias(Some("web")));
    let (run, request) = look(&rig.due());
    assert_eq!(request.body, RequestBody::Query(Query::NodeChecks(NodeChecksQuery::all(other()))));
    assert_eq!((request.context.min_index, request.context.wait), (ModifyIndex::ZERO, None));
    let rows = vec![
        row("serfHealth", CheckStatus::Passing, None),
        row("bad", CheckStatus::Critical, Some("db")),
        row("slow", CheckStatus::Warning, Some("web")),
    ];
    let said = "Aliased check \"slow\" failing: said";
    assert_eq!(rig.answer(run, checks(rows, 7)), [state(CheckStatus::Warning, said)]);
    let (run, request) = look(&rig.due());
    assert_eq!(request.context.min_index, ModifyIndex::new(7));
    assert_eq!(request.context.wait, Some(Duration::from_secs(60)));
    let rows = vec![row("ok", CheckStatus::Passing, Some("web"))];
    let passing = state(CheckStatus::Passing, "All checks passing.");
    assert_eq!(rig.answer(run, checks(rows, 8)), [passing]);
}

#[test]
fn a_service_without_checks_is_looked_for_by_itself() {
    for (service, expected) in [
        ("web", state(CheckStatus::Passing, "All checks passing.")),
        ("db", state(CheckStatus::Critical, "Service db could not be found on node n2")),
    ] {
        let mut rig = Rig::new();
        rig.start(alias(Some(service)));
        let (run, _) = look(&rig.due());
        let rows = vec![row("serfHealth", CheckStatus::Passing, None)];
        let (run, request) = look(&rig.answer(run, checks(rows, 7)));
        assert_eq!(request.body, RequestBody::Query(Query::Node(NodeQuery::all("n2"))));
        assert_eq!(rig.answer(run, answer(Rows::Node(Some(node_with("web"))), 7)), [expected]);
    }
}

#[test]
fn a_node_that_nobody_knows_is_critical() {
    let mut rig = Rig::new();
    rig.start(alias(None));
    let (run, _) = look(&rig.due());
    let expected = state(CheckStatus::Critical, "Node n2 has no checks");
    assert_eq!(rig.answer(run, checks(vec![], 7)), [expected]);
    rig.start(alias(Some("web")));
    let (run, _) = look(&rig.due());
    let (run, _) = look(&rig.answer(run, checks(vec![], 7)));
    let expected = state(CheckStatus::Critical, "Service web could not be found on node n2");
    assert_eq!(rig.answer(run, answer(Rows::Node(None), 7)), [expected]);
}

#[test]
fn a_failed_look_is_critical_and_tried_again_ever_later() {
    let mut rig = Rig::new();
    rig.start(alias(None));
    let said = "Failed checking aliased node or service: No cluster leader";
    for seconds in [2, 4, 8, 16, 32, 60, 60] {
        let (run, _) = look(&rig.due());
        let outputs = rig.answer(run, Err(RequestError::NoLeader));
        assert_eq!(outputs, [state(CheckStatus::Critical, said)]);
        let next = rig.checks.next_timeout().unwrap();
        assert_eq!(next, rig.now + Duration::from_secs(seconds));
    }
}

#[test]
fn an_answer_to_an_alias_that_changed_counts_no_more() {
    let mut rig = Rig::new();
    rig.start(alias(Some("web")));
    let (old, _) = look(&rig.due());
    rig.start(alias(None));
    let rows = vec![row("serfHealth", CheckStatus::Passing, None)];
    assert_eq!(rig.answer(old, checks(rows.clone(), 7)), []);
    let (run, _) = look(&rig.due());
    let passing = state(CheckStatus::Passing, "All checks passing.");
    assert_eq!(rig.answer(run, checks(rows, 7)), [passing]);
    rig.stop();
    assert_eq!(rig.checks.next_timeout(), None);
}

struct Rig {
    checks: Checks,
    out: Outbox<ChecksOutput>,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let (checks, out) = (Checks::new(Seed::from_number(1)), Outbox::new(Level::Error));
        Self { checks, out, now: Instant::ZERO }
    }

    fn handle(&mut self, input: ChecksInput) -> Vec<ChecksOutput> {
        self.checks.handle(self.now, input, &mut self.out);
        self.out.drain().collect()
    }

    fn start(&mut self, definition: CheckDefinition) {
        let (status, remaining) = (CheckStatus::Critical, Duration::ZERO);
        let start = Box::new(CheckStart { definition, status, remaining });
        assert_eq!(self.handle(ChecksInput::Start(start)), []);
    }

    fn stop(&mut self) {
        assert_eq!(self.handle(ChecksInput::Stop(id("a"))), []);
    }

    /// What the next timeout brings.
    fn due(&mut self) -> Vec<ChecksOutput> {
        self.now = self.checks.next_timeout().unwrap();
        self.checks.handle_timeout(self.now, &mut self.out);
        self.out.drain().collect()
    }

    fn answer(&mut self, run: u64, result: Result<Response, RequestError>) -> Vec<ChecksOutput> {
        self.handle(ChecksInput::Looked { run, result })
    }
}

fn look(outputs: &[ChecksOutput]) -> (u64, Request) {
    let [ChecksOutput::Look { run, request }] = outputs else { panic!("{outputs:?}") };
    (*run, (**request).clone())
}

fn state(status: CheckStatus, output: &str) -> ChecksOutput {
    ChecksOutput::Result { check: id("a"), status, output: output.to_owned() }
}

fn other() -> NodeName {
    NodeName::parse("n2").unwrap()
}

fn alias(service: Option<&str>) -> CheckDefinition {
    let service = service.map(|id| ServiceId::parse(id).unwrap());
    CheckDefinition {
        kind: CheckKind::Alias(AliasCheck { node: Some(other()), service }),
        ..tcp("a")
    }
}

fn answer(rows: Rows, index: u64) -> Result<Response, RequestError> {
    Ok(Response::Answer(Arc::new(QueryAnswer {
        rows,
        index: ModifyIndex::new(index),
        known_leader: true,
        last_contact: Duration::ZERO,
        consistency: Consistency::Leader,
    })))
}

fn checks(rows: Vec<Arc<Check>>, index: u64) -> Result<Response, RequestError> {
    answer(Rows::Checks(rows), index)
}

fn row(name: &str, status: CheckStatus, service: Option<&str>) -> Arc<Check> {
    let output = "said".to_owned();
    Arc::new(Check { output, ..tests::check(other().as_str(), name, service, status) })
}

fn node_with(service: &str) -> NodeServices {
    let node = Arc::new(tests::node(other().as_str(), None));
    NodeServices { node, services: vec![Arc::new(tests::service(service, service))] }
}
