//! Schedules, thresholds, expiry and reaping, driven by hand.

use super::*;
use crate::local::definition::{AliasCheck, Origin, TcpCheck};

mod look;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn the_first_run_comes_within_an_interval_and_the_next_one_after_the_last_ended() {
    let mut rig = Rig::new();
    rig.start(tcp("a"));
    let first = rig.checks.next_timeout().unwrap();
    assert!(first < Instant::ZERO + INTERVAL);
    let run = rig.run_at(first);
    let ended = first + Duration::from_secs(1);
    rig.finish(ended, run, CheckStatus::Passing);
    assert_eq!(rig.checks.next_timeout(), Some(ended + INTERVAL));
}

#[test]
fn only_the_current_run_counts() {
    let mut rig = Rig::new();
    rig.start(tcp("a"));
    let at = rig.checks.next_timeout().unwrap();
    let run = rig.run_at(at);
    assert_eq!(rig.finish(at, run + 1, CheckStatus::Passing), []);
    assert_eq!(rig.finish(at, run, CheckStatus::Passing).len(), 1);
    assert_eq!(rig.finish(at, run, CheckStatus::Critical), []);
}

#[test]
fn a_run_that_never_reports_is_a_failure() {
    let mut rig = Rig::new();
    rig.start(tcp("a"));
    let at = rig.checks.next_timeout().unwrap();
    let run = rig.run_at(at);
    let end = at + TIMEOUT + RUN_GRACE;
    assert_eq!(rig.checks.next_timeout(), Some(end));
    let outputs = rig.at(end);
    assert!(matches!(&outputs[..], [ChecksOutput::Result { status: CheckStatus::Critical, .. }]));
    assert_eq!(rig.finish(end, run, CheckStatus::Passing), []);
    assert_eq!(rig.checks.next_timeout(), Some(end + INTERVAL));
}

#[test]
fn the_first_result_counts_and_later_ones_need_the_threshold() {
    let mut rig = Rig::new();
    rig.start(CheckDefinition {
        success_before_passing: 2,
        failures_before_critical: 3,
        ..tcp("a")
    });
    let mut counted = Vec::new();
    use CheckStatus::{Critical, Passing, Warning};
    for status in [Passing, Critical, Critical, Critical, Warning, Critical, Passing, Warning] {
        let at = rig.checks.next_timeout().unwrap();
        let run = rig.run_at(at);
        counted.push(!rig.finish(at, run, status).is_empty());
    }
    assert_eq!(counted, [true, false, false, true, false, false, false, true]);
}

#[test]
fn registering_the_same_check_again_keeps_its_schedule() {
    let mut rig = Rig::new();
    rig.start(tcp("a"));
    let planned = rig.checks.next_timeout();
    rig.start(CheckDefinition { name: "renamed".to_owned(), ..tcp("a") });
    assert_eq!(rig.checks.next_timeout(), planned);
    let at = planned.unwrap();
    let run = rig.run_at(at);
    rig.start(tcp("a"));
    assert_eq!(rig.finish(at, run, CheckStatus::Passing).len(), 1);
}

#[test]
fn a_stopped_check_neither_runs_nor_reports() {
    let mut rig = Rig::new();
    rig.start(tcp("a"));
    let at = rig.checks.next_timeout().unwrap();
    let run = rig.run_at(at);
    rig.handle(at, ChecksInput::Stop(id("a")));
    assert_eq!(rig.finish(at, run, CheckStatus::Passing), []);
    assert_eq!(rig.checks.next_timeout(), None);
}

#[test]
fn a_ttl_expires_unless_it_is_reported() {
    let mut rig = Rig::new();
    rig.start(CheckDefinition { kind: CheckKind::Ttl(INTERVAL), ..tcp("a") });
    let half = Instant::ZERO + INTERVAL / 2;
    rig.handle(half, ChecksInput::Told { check: id("a"), status: CheckStatus::Passing });
    assert_eq!(rig.at(Instant::ZERO + INTERVAL), []);
    assert_eq!(rig.at(half + INTERVAL), [ChecksOutput::Expired(id("a"))]);
    assert_eq!(rig.checks.next_timeout(), None);
}

#[test]
fn a_check_that_is_only_there_never_runs_and_never_expires() {
    let mut rig = Rig::new();
    rig.start(CheckDefinition { kind: CheckKind::Ttl(INTERVAL), ..tcp("a") });
    rig.start(CheckDefinition { kind: CheckKind::Maintenance, ..tcp("a") });
    assert_eq!(rig.checks.next_timeout(), None);
}

#[test]
fn a_service_whose_alias_is_critical_for_too_long_is_reaped() {
    let minute = Duration::from_secs(60);
    let service = ServiceId::parse("web").unwrap();
    let mut rig = Rig::new();
    rig.start(CheckDefinition {
        kind: CheckKind::Alias(AliasCheck { node: None, service: None }),
        deregister_critical_service_after: Some(minute),
        service_id: Some(service.clone()),
        ..tcp("a")
    });
    let told = |status| ChecksInput::Told { check: id("a"), status };
    rig.handle(Instant::ZERO, told(CheckStatus::Passing));
    let later = Instant::ZERO + minute;
    rig.handle(later, told(CheckStatus::Critical));
    assert_eq!(rig.at(later + minute), []);
    let outputs = rig.at(later + minute + REAP_INTERVAL);
    assert_eq!(outputs, [ChecksOutput::Reap { service, check: id("a") }]);
}

#[test]
fn a_service_critical_for_too_long_is_reaped_and_one_that_recovers_is_not() {
    let minute = Duration::from_secs(60);
    let service = ServiceId::parse("web").unwrap();
    let mut rig = Rig::new();
    for name in ["bad", "good"] {
        rig.start(CheckDefinition {
            kind: CheckKind::Ttl(Duration::from_secs(3600)),
            deregister_critical_service_after: Some(minute),
            service_id: Some(service.clone()),
            ..tcp(name)
        });
    }
    let status = CheckStatus::Passing;
    rig.handle(Instant::ZERO, ChecksInput::Told { check: id("good"), status });
    // The TTL of `bad` expires meanwhile, which does not start its time again.
    assert_eq!(rig.at(Instant::ZERO + REAP_INTERVAL), [ChecksOutput::Expired(id("bad"))]);
    assert_eq!(rig.at(Instant::ZERO + minute), []);
    let outputs = rig.at(Instant::ZERO + minute + REAP_INTERVAL);
    assert_eq!(outputs, [ChecksOutput::Reap { service, check: id("bad") }]);
}

struct Rig {
    checks: Checks,
    out: Outbox<ChecksOutput>,
}

impl Rig {
    fn new() -> Self {
        Self { checks: Checks::new(Seed::from_number(1)), out: Outbox::new(Level::Error) }
    }

    fn handle(&mut self, now: Instant, input: ChecksInput) -> Vec<ChecksOutput> {
        self.checks.handle(now, input, &mut self.out);
        self.out.drain().collect()
    }

    fn start(&mut self, definition: CheckDefinition) {
        let (status, remaining) = (CheckStatus::Critical, INTERVAL);
        let start = Box::new(CheckStart { definition, status, remaining });
        assert_eq!(self.handle(Instant::ZERO, ChecksInput::Start(start)), []);
    }

    fn at(&mut self, now: Instant) -> Vec<ChecksOutput> {
        self.checks.handle_timeout(now, &mut self.out);
        self.out.drain().collect()
    }

    fn run_at(&mut self, now: Instant) -> u64 {
        match &self.at(now)[..] {
            [ChecksOutput::Run { run, .. }] => *run,
            other => panic!("one run is due, not {other:?}"),
        }
    }

    fn finish(&mut self, now: Instant, run: u64, status: CheckStatus) -> Vec<ChecksOutput> {
        let result = CheckResult { status, output: "text".to_owned() };
        self.handle(now, ChecksInput::Finished { check: id("a"), run, result })
    }
}

fn id(text: &str) -> CheckId {
    CheckId::parse(text).unwrap()
}

fn tcp(name: &str) -> CheckDefinition {
    let target = "127.0.0.1:1".to_owned();
    CheckDefinition {
        id: id(name),
        name: name.to_owned(),
        notes: String::new(),
        service_id: None,
        status: CheckStatus::Critical,
        kind: CheckKind::Tcp(TcpCheck { target, interval: INTERVAL, timeout: TIMEOUT }),
        output_max_size: 4096,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: None,
        token: String::new(),
        origin: Origin::Api,
    }
}
