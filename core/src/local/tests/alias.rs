//! Aliases of this agent: what they count, and when they are decided again.

use super::*;
use crate::local::definition::AliasCheck;

#[test]
fn an_alias_follows_its_service_and_the_node_and_nothing_else() {
    let mut rig = Rig::new(&["web", "db", "app"]);
    rig.add(ttl_of("mem", None));
    rig.report("mem", CheckStatus::Passing, "");
    rig.add(ttl_of("web", Some("web")));
    rig.add(ttl_of("db", Some("db")));
    rig.add(alias("al", Some("app"), Some("web")));
    assert_eq!(rig.shown("al"), critical("Aliased check \"web\" failing: "));
    rig.report("web", CheckStatus::Passing, "fine");
    assert_eq!(rig.shown("al"), (CheckStatus::Passing, "All checks passing.".to_owned()));
    rig.report("mem", CheckStatus::Warning, "90 %");
    let warning = "Aliased check \"mem\" failing: 90 %".to_owned();
    assert_eq!(rig.shown("al"), (CheckStatus::Warning, warning));
    rig.report("web", CheckStatus::Critical, "down");
    assert_eq!(rig.shown("al"), critical("Aliased check \"web\" failing: down"));
    rig.ask(LocalRequest::DeregisterCheck(check_id("web")));
    rig.ask(LocalRequest::DeregisterCheck(check_id("mem")));
    assert_eq!(rig.shown("al"), (CheckStatus::Passing, "No checks found.".to_owned()));
    rig.ask(LocalRequest::DeregisterService(service_id("web")));
    assert_eq!(rig.shown("al"), critical("Service web could not be found on node n1"));
    rig.ask(register(service("web", 80), vec![]));
    assert_eq!(rig.shown("al").0, CheckStatus::Passing);
}

#[test]
fn an_alias_is_decided_again_only_when_a_check_that_it_watches_changes() {
    let mut rig = Rig::new(&["web", "db", "app"]);
    rig.add(ttl_of("web", Some("web")));
    rig.add(ttl_of("db", Some("db")));
    rig.add(alias("al", Some("app"), Some("web")));
    let told = |rig: &mut Rig, check: &str, status: CheckStatus, text: &str| {
        rig.report(check, status, text);
        rig.outputs.iter().any(
            |output| matches!(output, LocalOutput::Told { check, .. } if *check == check_id("al")),
        )
    };
    assert!(!told(&mut rig, "db", CheckStatus::Warning, ""), "another service");
    assert!(told(&mut rig, "web", CheckStatus::Warning, "1"));
    assert!(told(&mut rig, "web", CheckStatus::Warning, "2"), "why it fails");
    assert_eq!(rig.shown("al").1, "Aliased check \"web\" failing: 2");
    assert!(told(&mut rig, "web", CheckStatus::Passing, "3"));
    assert!(!told(&mut rig, "web", CheckStatus::Passing, "4"), "words of no matter");
}

#[test]
fn an_alias_of_the_node_does_not_see_itself_or_other_aliases() {
    let mut rig = Rig::new(&["web"]);
    rig.add(ttl_of("web", Some("web")));
    rig.add(alias("one", None, Some("web")));
    rig.add(alias("two", None, Some("web")));
    rig.report("web", CheckStatus::Passing, "");
    for id in ["one", "two"] {
        assert_eq!(rig.shown(id), (CheckStatus::Passing, "All checks passing.".to_owned()));
    }
    let node = AliasCheck { node: Some(NodeName::parse("N1").unwrap()), service: None };
    rig.add(CheckDefinition { kind: CheckKind::Alias(node), ..ttl("three") });
    assert_eq!(rig.shown("three"), (CheckStatus::Passing, "All checks passing.".to_owned()));
    rig.report("web", CheckStatus::Warning, "slow");
    let warning = "Aliased check \"web\" failing: slow".to_owned();
    for id in ["one", "two", "three"] {
        assert_eq!(rig.shown(id), (CheckStatus::Warning, warning.clone()), "{id}");
    }
}

#[test]
fn aliases_in_a_circle_follow_the_checks_behind_them() {
    let mut rig = Rig::new(&["a", "b", "c"]);
    for (own, watched) in [("a", "b"), ("b", "c"), ("c", "a")] {
        rig.add(alias(&format!("al-{own}"), Some(own), Some(watched)));
    }
    rig.add(ttl_of("real", Some("c")));
    for (status, text) in [
        (CheckStatus::Passing, "All checks passing."),
        (CheckStatus::Critical, "Aliased check \"real\" failing: said"),
        (CheckStatus::Passing, "All checks passing."),
    ] {
        rig.report("real", status.clone(), "said");
        for own in ["a", "b", "c"] {
            assert_eq!(rig.shown(&format!("al-{own}")), (status.clone(), text.to_owned()));
        }
    }
}

#[test]
fn aliases_are_decided_again_when_what_they_watch_is_rearranged() {
    let mut rig = Rig::new(&["a", "b", "good", "bad"]);
    rig.add(ttl_of("good", Some("good")));
    rig.add(ttl_of("bad", Some("bad")));
    rig.report("good", CheckStatus::Passing, "");
    rig.add(alias("first", Some("a"), Some("b")));
    rig.add(alias("second", Some("b"), Some("good")));
    assert_eq!(rig.shown("first").0, CheckStatus::Passing);
    rig.add(alias("second", Some("b"), Some("bad")));
    assert_eq!(rig.shown("first"), critical("Aliased check \"bad\" failing: "));
    rig.add(ttl_of("bad", Some("good")));
    assert_eq!(rig.shown("first"), (CheckStatus::Passing, "No checks found.".to_owned()));
    rig.add(ttl_of("second", Some("b")));
    // As a check of its own it keeps the state that it had, and counts.
    assert_eq!(rig.shown("first"), (CheckStatus::Passing, "All checks passing.".to_owned()));
    rig.report("second", CheckStatus::Warning, "");
    assert_eq!(rig.shown("first").0, CheckStatus::Warning);
}

#[test]
fn aliases_in_a_very_long_row_are_critical() {
    let names: Vec<String> = (0..80).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rig = Rig::new(&names);
    for pair in names.windows(2) {
        rig.add(alias(&format!("al-{}", pair[0]), Some(pair[0]), Some(pair[1])));
    }
    assert_eq!(rig.shown("al-s40").0, CheckStatus::Passing);
    assert_eq!(rig.shown("al-s0"), critical("More than 64 services are watched through aliases"));
}

#[test]
fn an_alias_is_decided_at_the_start_and_after_a_reload() {
    let mut restored = none();
    restored.services.insert(service_id("web"), service_definition(service("web", 80), vec![]));
    restored.checks.insert(check_id("al"), alias("al", None, Some("web")));
    let (mut local, mut out) = started(vec![], vec![], restored);
    let shown = |local: &Local| local.view().checks[&check_id("al")].status.clone();
    assert_eq!(shown(&local), CheckStatus::Passing);
    let body =
        LocalRequest::Reload { services: vec![], checks: vec![ttl("node")], discard_output: false };
    request(&mut local, 1, body, &mut out);
    assert_eq!(shown(&local), CheckStatus::Critical);
}

struct Rig {
    local: Local,
    out: Outbox<LocalOutput>,
    /// What the last request brought.
    outputs: Vec<LocalOutput>,
}

impl Rig {
    fn new(services: &[&str]) -> Self {
        let (local, out) = empty();
        let mut rig = Self { local, out, outputs: Vec::new() };
        for name in services {
            rig.ask(register(service(name, 80), vec![]));
        }
        rig
    }

    fn ask(&mut self, body: LocalRequest) {
        request(&mut self.local, 1, body, &mut self.out);
        self.outputs = drain(&mut self.out);
        let refused = self.outputs.iter().any(|it| matches!(it, LocalOutput::Reply { .. }));
        assert!(!refused, "{:?}", self.outputs);
    }

    fn add(&mut self, check: CheckDefinition) {
        self.ask(LocalRequest::RegisterCheck(Box::new(check)));
    }

    fn report(&mut self, check: &str, status: CheckStatus, output: &str) {
        let (check, output) = (check_id(check), output.to_owned());
        self.ask(LocalRequest::UpdateTtl { check, status, output });
    }

    fn shown(&self, id: &str) -> (CheckStatus, String) {
        let check = &self.local.view().checks[&check_id(id)];
        (check.status.clone(), check.output.clone())
    }
}

fn critical(text: &str) -> (CheckStatus, String) {
    (CheckStatus::Critical, text.to_owned())
}

fn ttl_of(id: &str, service: Option<&str>) -> CheckDefinition {
    CheckDefinition { service_id: service.map(service_id), ..ttl(id) }
}

fn alias(id: &str, of: Option<&str>, watched: Option<&str>) -> CheckDefinition {
    let alias = AliasCheck { node: None, service: watched.map(service_id) };
    CheckDefinition { kind: CheckKind::Alias(alias), ..ttl_of(id, of) }
}
