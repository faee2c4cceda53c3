//! Registration, re-registration, persistence and reload, driven by hand.

use super::definition::TcpCheck;
use super::*;
use crate::catalog::model::{CheckRecipe, Weights};
use crate::id::{ModifyIndex, ServiceName};
use crate::storage::registrations::{Change as Stored, Registrations, TtlState};
use std::collections::BTreeMap;

mod alias;
mod output;

const TTL: Duration = Duration::from_secs(10);
const NOW: Instant = Instant::ZERO;
const WALL: WallClock = WallClock::from_millis(1_000_000);

#[test]
fn a_registration_is_answered_only_when_it_is_durable() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![]), &mut out);
    let outputs = drain(&mut out);
    assert!(matches!(&outputs[..], [
        LocalOutput::Changed(Change::Service(_)),
        LocalOutput::Persist { ticket: PersistTicket(1), changes },
    ] if matches!(&changes[..], [Stored::PutService(_)])));
    local.handle(NOW, LocalInput::Persisted(PersistTicket(1)), &mut out);
    assert_eq!(drain(&mut out), [LocalOutput::Done(RequestId::new(1))]);
}

#[test]
fn an_identical_registration_waits_for_the_first_one_and_stores_nothing() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![]), &mut out);
    drain(&mut out);
    request(&mut local, 2, register(service("web", 80), vec![]), &mut out);
    assert_eq!(drain(&mut out), []);
    local.handle(NOW, LocalInput::Persisted(PersistTicket(1)), &mut out);
    assert_eq!(drain(&mut out), [1, 2].map(|id| LocalOutput::Done(RequestId::new(id))));
}

#[test]
fn what_changes_while_a_batch_is_written_goes_with_the_next_one() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![]), &mut out);
    drain(&mut out);
    request(&mut local, 2, register(service("db", 81), vec![]), &mut out);
    request(&mut local, 3, register(service("mq", 82), vec![]), &mut out);
    let written = |outputs: &[LocalOutput]| {
        outputs.iter().filter(|output| matches!(output, LocalOutput::Persist { .. })).count()
    };
    assert_eq!(written(&drain(&mut out)), 0);
    let error = StorageFault::Full;
    local.handle(NOW, LocalInput::PersistFailed { ticket: PersistTicket(1), error }, &mut out);
    let outputs = drain(&mut out);
    assert!(
        matches!(&outputs[..], [
            LocalOutput::Trace(..),
            LocalOutput::Reply { .. },
            LocalOutput::Persist { ticket: PersistTicket(2), changes },
        ] if changes.len() == 2),
        "{outputs:?}"
    );
    local.handle(NOW, LocalInput::Persisted(PersistTicket(2)), &mut out);
    assert_eq!(drain(&mut out), [2, 3].map(|id| LocalOutput::Done(RequestId::new(id))));
}

#[test]
fn a_failed_write_is_told_to_the_one_who_waits() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![]), &mut out);
    drain(&mut out);
    let error = StorageFault::Full;
    local.handle(NOW, LocalInput::PersistFailed { ticket: PersistTicket(1), error }, &mut out);
    let text = "failed to store the change: no space left on the device".to_owned();
    let error = RequestError::Unknown(text);
    assert!(drain(&mut out).contains(&LocalOutput::Reply { id: RequestId::new(1), error }));
}

#[test]
fn a_registration_again_replaces_the_service_and_keeps_state_and_unnamed_checks() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![ttl("a"), ttl("b")]), &mut out);
    report(&mut local, "a", CheckStatus::Passing, "fine", &mut out);
    let mut again = ttl("a");
    again.name = "renamed".to_owned();
    again.status = CheckStatus::Warning;
    request(&mut local, 2, register(service("web", 81), vec![again]), &mut out);
    let a = &local.view().checks[&check_id("a")];
    assert_eq!(
        (&a.status, a.output.as_str(), a.name.as_str()),
        (&CheckStatus::Passing, "fine", "renamed",)
    );
    assert!(local.view().checks.contains_key(&check_id("b")));
    assert_eq!(local.view().services[&service_id("web")].port, 81);

    let definition = Box::new(service_definition(service("web", 81), vec![ttl("a")]));
    let replace = LocalRequest::RegisterService { definition, replace_existing_checks: true };
    drain(&mut out);
    request(&mut local, 3, replace, &mut out);
    assert!(!local.view().checks.contains_key(&check_id("b")));
    assert!(drain(&mut out).contains(&LocalOutput::StopCheck(check_id("b"))));
}

#[test]
fn the_catalog_is_told_how_long_a_service_stays_and_nothing_else_of_its_checks() {
    let (mut local, mut out) = empty();
    let after = Some(Duration::from_secs(90));
    let limited = |id| CheckDefinition { deregister_critical_service_after: after, ..tcp(id) };
    request(&mut local, 1, register(service("web", 80), vec![limited("a"), tcp("b")]), &mut out);
    let of_node = LocalRequest::RegisterCheck(Box::new(limited("node")));
    request(&mut local, 2, of_node, &mut out);
    let recipe = |local: &Local, id| local.view().checks[&check_id(id)].recipe.clone();
    let told = CheckRecipe {
        deregister_critical_service_after: Duration::from_secs(90),
        ..CheckRecipe::default()
    };
    assert_eq!(recipe(&local, "a"), told);
    assert_eq!(recipe(&local, "b"), CheckRecipe::default());
    assert_eq!(recipe(&local, "node"), CheckRecipe::default(), "it has no service to lose");
    drain(&mut out);
    request(&mut local, 3, register(service("web", 80), vec![tcp("a")]), &mut out);
    assert_eq!(recipe(&local, "a"), CheckRecipe::default());
    assert!(drain(&mut out).contains(&LocalOutput::Changed(Change::Check(check_id("a")))));
}

#[test]
fn requests_are_refused_with_the_texts_clients_know() {
    let (mut local, mut out) = empty();
    let mut check = ttl("c");
    check.service_id = Some(service_id("nope"));
    let cases = [
        (LocalRequest::RegisterCheck(Box::new(check)), "ServiceID \"nope\" does not exist"),
        (update("nope"), "CheckID \"nope\" does not have associated TTL"),
        (update("tcp"), "CheckID \"tcp\" does not have associated TTL"),
        (
            register(service("terraform", 1), vec![]),
            "ServiceID \"terraform\" is reserved for servers",
        ),
        (
            LocalRequest::RegisterCheck(Box::new(ttl("serfHealth"))),
            "CheckID \"serfHealth\" is reserved for the leader",
        ),
    ];
    request(&mut local, 9, LocalRequest::RegisterCheck(Box::new(tcp("tcp"))), &mut out);
    drain(&mut out);
    for (body, text) in cases {
        request(&mut local, 1, body, &mut out);
        let error = RequestError::Refused(text.to_owned());
        assert_eq!(drain(&mut out), [LocalOutput::Reply { id: RequestId::new(1), error }]);
    }
}

#[test]
fn removing_what_is_unknown_is_done_at_once() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, LocalRequest::DeregisterService(service_id("nope")), &mut out);
    request(&mut local, 2, LocalRequest::DeregisterCheck(check_id("nope")), &mut out);
    assert_eq!(drain(&mut out), [1, 2].map(|id| LocalOutput::Done(RequestId::new(id))));
}

#[test]
fn removing_a_service_removes_its_checks() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![ttl("a")]), &mut out);
    local.handle(NOW, LocalInput::Persisted(PersistTicket(1)), &mut out);
    request(&mut local, 2, LocalRequest::RegisterCheck(Box::new(ttl("node"))), &mut out);
    local.handle(NOW, LocalInput::Persisted(PersistTicket(2)), &mut out);
    drain(&mut out);
    request(&mut local, 3, LocalRequest::DeregisterService(service_id("web")), &mut out);
    let outputs = drain(&mut out);
    assert!(outputs.contains(&LocalOutput::StopCheck(check_id("a"))));
    let stored = [Stored::RemoveCheck(check_id("a")), Stored::RemoveService(service_id("web"))];
    assert!(matches!(outputs.last(), Some(LocalOutput::Persist { changes, .. })
        if changes[..] == stored));
    assert_eq!(local.view().checks.keys().collect::<Vec<_>>(), [&check_id("node")]);
}

#[test]
fn a_report_is_cut_to_the_limit_and_says_so() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, LocalRequest::RegisterCheck(Box::new(ttl("a"))), &mut out);
    report(&mut local, "a", CheckStatus::Passing, &"x".repeat(5000), &mut out);
    let expected = format!("{} ... (captured 4096 of 5000 bytes)", "x".repeat(4096));
    assert_eq!(local.view().checks[&check_id("a")].output, expected);
}

#[test]
fn an_expired_check_shows_its_last_note_once() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, LocalRequest::RegisterCheck(Box::new(ttl("a"))), &mut out);
    local.handle(NOW, LocalInput::TtlExpired(check_id("a")), &mut out);
    assert_eq!(local.view().checks[&check_id("a")].output, "TTL expired");
    report(&mut local, "a", CheckStatus::Passing, "fine", &mut out);
    for _ in 0..2 {
        local.handle(NOW, LocalInput::TtlExpired(check_id("a")), &mut out);
        let check = &local.view().checks[&check_id("a")];
        assert_eq!(check.status, CheckStatus::Critical);
        let expected = "TTL expired (last output before timeout follows): fine";
        assert_eq!(check.output, expected);
    }
}

#[test]
fn a_new_output_alone_is_told_apart_from_a_new_state() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, LocalRequest::RegisterCheck(Box::new(tcp("a"))), &mut out);
    drain(&mut out);
    let mut changes = |status: CheckStatus, output: &str| {
        let (check, output) = (check_id("a"), output.to_owned());
        local.handle(NOW, LocalInput::CheckResult { check, status, output }, &mut out);
        let changes = drain(&mut out).into_iter();
        changes.filter(|it| matches!(it, LocalOutput::Changed(_))).collect::<Vec<_>>()
    };
    let whole = LocalOutput::Changed(Change::Check(check_id("a")));
    let output = LocalOutput::Changed(Change::Output(check_id("a")));
    assert_eq!(changes(CheckStatus::Passing, "1"), [whole]);
    assert_eq!(changes(CheckStatus::Passing, "2"), [output]);
    assert_eq!(changes(CheckStatus::Passing, "2"), []);
}

#[test]
fn a_reload_touches_only_what_changed() {
    let web = service_definition(service("web", 80), vec![ttl("a")]);
    let db = service_definition(service("db", 1), vec![ttl("b")]);
    let (mut local, mut out) = started(vec![web.clone(), db], vec![ttl("n")], none());
    report(&mut local, "a", CheckStatus::Passing, "fine", &mut out);
    local.handle(NOW, LocalInput::Persisted(PersistTicket(1)), &mut out);
    drain(&mut out);
    let cache = service_definition(service("cache", 2), vec![]);
    let mut moved = ttl("b");
    moved.service_id = Some(service_id("cache"));
    let services = vec![web, cache];
    let body =
        LocalRequest::Reload { services, checks: vec![ttl("n"), moved], discard_output: false };
    request(&mut local, 1, body, &mut out);
    let outputs = drain(&mut out);
    let touches_a = |it: &LocalOutput| {
        matches!(it, LocalOutput::StartCheck(start) if start.definition.id == check_id("a"))
            || *it == LocalOutput::StopCheck(check_id("a"))
    };
    assert!(!outputs.iter().any(touches_a));
    assert_eq!(local.view().checks[&check_id("a")].status, CheckStatus::Passing);
    assert_eq!(local.view().checks[&check_id("b")].service_name, "cache");
    assert!(!local.view().services.contains_key(&service_id("db")));
    assert_eq!(outputs.last(), Some(&LocalOutput::Done(RequestId::new(1))));
}

#[test]
fn maintenance_is_a_critical_check_that_stays_until_it_is_ended() {
    let (mut local, mut out) = empty();
    request(&mut local, 1, register(service("web", 80), vec![]), &mut out);
    local.handle(NOW, LocalInput::Persisted(PersistTicket(1)), &mut out);
    drain(&mut out);
    request(&mut local, 2, maintenance(None, true, "new disk"), &mut out);
    let outputs = drain(&mut out);
    let Some(LocalOutput::Persist { changes, .. }) = outputs.last() else { panic!("{outputs:?}") };
    assert!(matches!(&changes[..], [Stored::PutCheck(it)] if it.kind == CheckKind::Maintenance));
    request(&mut local, 3, maintenance(None, true, "other"), &mut out);
    request(&mut local, 4, maintenance(Some("web"), true, ""), &mut out);
    let shown = |local: &Local, id: &str| {
        let check = &local.view().checks[&check_id(id)];
        (check.name.clone(), check.notes.clone(), check.kind.clone(), check.status.clone())
    };
    let expected = |name: &str, notes: &str| {
        let kind = "maintenance".to_owned();
        (name.to_owned(), notes.to_owned(), kind, CheckStatus::Critical)
    };
    let node = expected("Node Maintenance Mode", "new disk");
    assert_eq!(shown(&local, "_node_maintenance"), node);
    let notes = "Maintenance mode is enabled for this service, but no reason was provided. \
                 This is a default message.";
    let web = expected("Service Maintenance Mode", notes);
    assert_eq!(shown(&local, "_service_maintenance:web"), web);
    assert_eq!(local.view().checks[&check_id("_service_maintenance:web")].service_name, "web");
    for target in [None, Some("web"), Some("web")] {
        request(&mut local, 5, maintenance(target, false, ""), &mut out);
    }
    assert!(local.view().checks.is_empty());
    drain(&mut out);
    request(&mut local, 6, maintenance(Some("nope"), false, ""), &mut out);
    let error = RequestError::NotFound("No service registered with ID \"nope\"".to_owned());
    assert_eq!(drain(&mut out), [LocalOutput::Reply { id: RequestId::new(6), error }]);
}

#[test]
fn maintenance_of_a_service_survives_a_restart_and_a_reload() {
    let (mut first, mut out) = empty();
    request(&mut first, 1, register(service("web", 80), vec![]), &mut out);
    request(&mut first, 2, maintenance(Some("web"), true, "why"), &mut out);
    let mut restored = none();
    let id = check_id("_service_maintenance:web");
    let check = first.registry.check(&id).unwrap().clone();
    restored.checks.insert(id.clone(), check);
    let web = service_definition(service("web", 81), vec![]);
    let (mut local, mut out) = started(vec![web.clone()], vec![], restored);
    assert_eq!(local.view().checks[&id].notes, "why");
    let body =
        LocalRequest::Reload { services: vec![web], checks: vec![ttl("n")], discard_output: false };
    request(&mut local, 3, body, &mut out);
    assert_eq!(local.view().checks[&id].status, CheckStatus::Critical);
}

#[test]
fn a_refused_reload_changes_nothing() {
    let web = service_definition(service("web", 80), vec![]);
    let (mut local, mut out) = started(vec![web], vec![], none());
    let before = local.view().clone();
    drain(&mut out);
    let mut check = ttl("c");
    check.service_id = Some(service_id("web"));
    let body =
        LocalRequest::Reload { services: vec![], checks: vec![check], discard_output: false };
    request(&mut local, 1, body, &mut out);
    assert!(matches!(&drain(&mut out)[..], [LocalOutput::Reply { .. }]));
    assert_eq!(*local.view(), before);
}

#[test]
fn a_file_wins_over_a_persisted_registration_which_is_forgotten() {
    let persisted = service_definition(service("web", 1), vec![]);
    let mut restored = none();
    restored.services.insert(service_id("web"), persisted);
    restored.checks.insert(check_id("a"), ttl("a"));
    restored.ttl.insert(check_id("a"), reported("a", 1_005_000));
    let file = service_definition(service("web", 2), vec![ttl("a")]);
    let (local, mut out) = started(vec![file], vec![], restored);
    assert_eq!(local.view().services[&service_id("web")].port, 2);
    let check = &local.view().checks[&check_id("a")];
    assert_eq!((&check.status, check.service_name.as_str()), (&CheckStatus::Passing, "web"));
    let outputs = drain(&mut out);
    let Some(LocalOutput::Persist { changes, .. }) = outputs.last() else { panic!("{outputs:?}") };
    assert!(changes.contains(&Stored::RemoveService(service_id("web"))));
    let at = |wanted: &Stored| changes.iter().position(|it| it == wanted);
    let forgotten = at(&Stored::RemoveCheck(check_id("a")));
    let kept = at(&Stored::PutTtl(reported("a", 1_005_000)));
    assert!(forgotten.is_some() && forgotten < kept);
}

#[test]
fn a_ttl_state_counts_until_it_expires_and_other_checks_start_critical() {
    let mut restored = none();
    for id in ["live", "late", "future"] {
        restored.checks.insert(check_id(id), ttl(id));
    }
    let mut optimistic = tcp("tcp");
    optimistic.status = CheckStatus::Passing;
    restored.checks.insert(check_id("tcp"), optimistic);
    restored.ttl.insert(check_id("live"), reported("live", 1_004_000));
    restored.ttl.insert(check_id("late"), reported("late", 1_000_000));
    restored.ttl.insert(check_id("future"), reported("future", 9_000_000));
    let (local, mut out) = started(vec![], vec![], restored);
    let status = |id: &str| local.view().checks[&check_id(id)].status.clone();
    assert_eq!(status("live"), CheckStatus::Passing);
    assert_eq!(status("late"), CheckStatus::Critical);
    assert_eq!(status("tcp"), CheckStatus::Critical);
    let mut remaining = BTreeMap::new();
    for output in drain(&mut out) {
        if let LocalOutput::StartCheck(start) = output {
            remaining.insert(start.definition.id.clone(), start.remaining);
        }
    }
    assert_eq!(remaining[&check_id("live")], Duration::from_secs(4));
    assert_eq!(remaining[&check_id("future")], TTL);
}

#[test]
fn a_restored_check_without_its_service_is_forgotten() {
    let mut orphan = ttl("a");
    orphan.service_id = Some(service_id("gone"));
    let mut restored = none();
    restored.checks.insert(check_id("a"), orphan);
    let (local, mut out) = started(vec![], vec![], restored);
    assert!(local.view().checks.is_empty());
    let changes = vec![Stored::RemoveCheck(check_id("a"))];
    let ticket = PersistTicket(1);
    assert_eq!(drain(&mut out).last(), Some(&LocalOutput::Persist { ticket, changes }));
}

#[test]
fn adopted_tags_show_on_the_service_and_its_checks_without_a_write() {
    let (mut local, mut out) = empty();
    let mut web = service("web", 80);
    web.enable_tag_override = true;
    request(&mut local, 1, register(web, vec![ttl("a")]), &mut out);
    drain(&mut out);
    let tags = vec!["blue".to_owned()];
    let input = LocalInput::AdoptTags { service: service_id("web"), tags: tags.clone() };
    local.handle(NOW, input, &mut out);
    assert_eq!(local.view().services[&service_id("web")].tags, tags);
    assert_eq!(local.view().checks[&check_id("a")].service_tags, tags);
    assert_eq!(drain(&mut out), [LocalOutput::Changed(Change::Adopted)]);
}

fn empty() -> (Local, Outbox<LocalOutput>) {
    started(vec![], vec![], none())
}

fn started(
    services: Vec<ServiceDefinition>,
    checks: Vec<CheckDefinition>,
    restored: Registrations,
) -> (Local, Outbox<LocalOutput>) {
    let mut out = Outbox::new(Level::Error);
    let node = NodeName::parse("n1").unwrap();
    let config = LocalConfig {
        node,
        services,
        checks,
        restored,
        output: OutputRules::default(),
        wall: WALL,
    };
    let local = Local::new(config, &mut out).unwrap();
    (local, out)
}

fn none() -> Registrations {
    Registrations::default()
}

fn drain(out: &mut Outbox<LocalOutput>) -> Vec<LocalOutput> {
    out.drain().collect()
}

fn request(local: &mut Local, id: u64, body: LocalRequest, out: &mut Outbox<LocalOutput>) {
    let id = RequestId::new(id);
    local.handle(NOW, LocalInput::Request { id, wall: WALL, body }, out);
}

fn report(
    local: &mut Local,
    check: &str,
    status: CheckStatus,
    output: &str,
    out: &mut Outbox<LocalOutput>,
) {
    let (check, output) = (check_id(check), output.to_owned());
    request(local, 100, LocalRequest::UpdateTtl { check, status, output }, out);
}

fn update(check: &str) -> LocalRequest {
    let (check, status) = (check_id(check), CheckStatus::Passing);
    LocalRequest::UpdateTtl { check, status, output: String::new() }
}

fn maintenance(service: Option<&str>, enable: bool, reason: &str) -> LocalRequest {
    let (service, reason) = (service.map(service_id), reason.to_owned());
    LocalRequest::Maintenance(Box::new(Maintenance { service, enable, reason }))
}

fn register(service: Service, checks: Vec<CheckDefinition>) -> LocalRequest {
    let definition = Box::new(service_definition(service, checks));
    LocalRequest::RegisterService { definition, replace_existing_checks: false }
}

fn service_definition(service: Service, checks: Vec<CheckDefinition>) -> ServiceDefinition {
    ServiceDefinition { service, checks, token: String::new(), origin: Origin::Api }
}

fn reported(check: &str, expires_millis: i64) -> TtlState {
    let expires = WallClock::from_millis(expires_millis);
    let (check, output) = (check_id(check), "fine".to_owned());
    TtlState { check, status: CheckStatus::Passing, output, expires }
}

fn check_id(id: &str) -> CheckId {
    CheckId::parse(id).unwrap()
}

fn service_id(id: &str) -> ServiceId {
    ServiceId::parse(id).unwrap()
}

fn service(name: &str, port: i64) -> Service {
    Service {
        id: service_id(name),
        name: ServiceName::parse(name).unwrap(),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn ttl(id: &str) -> CheckDefinition {
    CheckDefinition {
        id: check_id(id),
        name: id.to_owned(),
        notes: String::new(),
        service_id: None,
        status: CheckStatus::Critical,
        kind: CheckKind::Ttl(TTL),
        output_max_size: 4096,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: None,
        token: String::new(),
        origin: Origin::Api,
    }
}

fn tcp(id: &str) -> CheckDefinition {
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
    let target = "127.0.0.1:1".to_owned();
    CheckDefinition { kind: CheckKind::Tcp(TcpCheck { target, interval, timeout }), ..ttl(id) }
}
