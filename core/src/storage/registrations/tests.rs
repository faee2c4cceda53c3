//! Registrations survive their file; a torn end is cut, damage is reported.

use super::*;
use crate::catalog::model::{Service, Weights};
use crate::id::ServiceName;
use crate::local::definition::{
    AliasCheck, CheckKind, DockerCheck, GrpcCheck, HttpCheck, Origin, ScriptCheck, TcpCheck,
    UdpCheck,
};
use crate::storage::testing::MemDisk;
use proptest::prelude::*;
use std::time::Duration;

fn check(id: &str) -> CheckDefinition {
    CheckDefinition {
        id: CheckId::parse(id).unwrap(),
        name: "alive".to_owned(),
        notes: String::new(),
        service_id: None,
        status: CheckStatus::Critical,
        kind: CheckKind::Ttl(Duration::from_secs(30)),
        output_max_size: 4096,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: None,
        token: String::new(),
        origin: Origin::Api,
    }
}

fn service(id: &str, checks: &[&str]) -> Change {
    Change::PutService(Box::new(ServiceDefinition {
        service: Service {
            id: ServiceId::parse(id).unwrap(),
            name: ServiceName::parse("web").unwrap(),
            tags: vec!["v1".to_owned()],
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: 80,
            weights: Weights::default(),
            enable_tag_override: false,
            create_index: crate::id::ModifyIndex::ZERO,
            modify_index: crate::id::ModifyIndex::ZERO,
        },
        checks: checks.iter().map(|id| check(id)).collect(),
        token: String::new(),
        origin: Origin::Api,
    }))
}

fn ttl(check: &str, millis: i64) -> Change {
    Change::PutTtl(TtlState {
        check: CheckId::parse(check).unwrap(),
        status: CheckStatus::Passing,
        output: "fine".to_owned(),
        expires: WallClock::from_millis(millis),
    })
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let change = (0..5, name, any::<i64>()).prop_map(|(kind, name, millis)| match kind {
        0 => service(name, &[name]),
        1 => Change::RemoveService(ServiceId::parse(name).unwrap()),
        2 => Change::PutCheck(Box::new(check(name))),
        3 => Change::RemoveCheck(CheckId::parse(name).unwrap()),
        _ => ttl(name, millis),
    });
    prop::collection::vec(prop::collection::vec(change, 1..4), 1..12)
}

fn new_log() -> (RegistrationLog, MemDisk) {
    let (mut log, _) = RegistrationLog::read(None).unwrap();
    let mut disk = MemDisk::default();
    disk.perform(log.compact());
    (log, disk)
}

fn content(disk: &MemDisk) -> Vec<u8> {
    disk.files[registrations_file().as_str()].clone()
}

#[test]
fn a_removed_service_takes_the_reports_of_its_checks_along() {
    let mut state = Registrations::default();
    state.apply(service("a", &["x", "y"]));
    state.apply(ttl("x", 1));
    state.apply(ttl("y", 1));
    state.apply(service("a", &["y"]));
    assert_eq!(state.ttl.len(), 1);
    state.apply(Change::RemoveService(ServiceId::parse("a").unwrap()));
    assert_eq!(state, Registrations::default());
}

#[test]
fn the_file_stays_short_under_endless_reports() {
    let (mut log, mut disk) = new_log();
    for round in 0..5_000 {
        disk.perform(log.append(vec![ttl("a", round)]));
        assert!(content(&disk).len() as u64 <= COMPACT_BYTES_MIN);
    }
    assert_eq!(RegistrationLog::read(Some(&content(&disk))).unwrap().0.state, log.state);
}

#[test]
fn an_append_after_one_that_failed_replaces_the_file() {
    let (mut log, mut disk) = new_log();
    let before = content(&disk);
    // A part of it reached the disk.
    let mut failed = log.append(vec![service("a", &[])]);
    failed.truncate(1);
    disk.perform(failed);
    log.failed();
    disk.perform(log.append(vec![service("b", &[])]));
    assert!(before.len() < content(&disk).len());
    let (read, torn) = RegistrationLog::read(Some(&content(&disk))).unwrap();
    assert!(!torn);
    assert_eq!(read.registrations().services.len(), 2);
    disk.perform(log.append(vec![service("c", &[])]));
    let (read, _) = RegistrationLog::read(Some(&content(&disk))).unwrap();
    assert_eq!(read.registrations(), log.registrations());
}

#[test]
fn an_empty_file_is_damage_and_a_later_version_is_named() {
    let error = RegistrationLog::read(Some(&[])).unwrap_err();
    assert!(matches!(error, RegistrationsError::Damage(_)));
    let mut bytes = Vec::new();
    let head = Head { kind: KIND_HEAD, index: 0, term: 0, epoch: 1 };
    record::put(&mut bytes, BINDING, 0, head, &[&7u64.to_be_bytes()]);
    assert_eq!(RegistrationLog::read(Some(&bytes)), Err(RegistrationsError::Version(7)));
}

proptest! {
    #[test]
    fn registrations_survive_their_file(appends in changes()) {
        let (mut log, mut disk) = new_log();
        appends.into_iter().for_each(|changes| disk.perform(log.append(changes)));
        let (read, torn) = RegistrationLog::read(Some(&content(&disk))).unwrap();
        prop_assert_eq!(read.state, log.state);
        prop_assert!(!torn);
    }

    #[test]
    fn a_torn_append_is_cut_as_a_whole(
        appends in changes(), last in changes(), cut in any::<prop::sample::Index>(), zeros: bool,
    ) {
        let (mut log, mut disk) = new_log();
        appends.into_iter().for_each(|changes| disk.perform(log.append(changes)));
        let (before, length) = (log.state.clone(), content(&disk).len());
        disk.perform(log.append(last.into_iter().flatten().collect()));
        let mut bytes = content(&disk);
        let at = length + cut.index(bytes.len() - length);
        if zeros { bytes[at..].fill(0) } else { bytes.truncate(at) }
        let (read, _) = RegistrationLog::read(Some(&bytes)).unwrap();
        prop_assert!(read.state == before || read.state == log.state);
    }

    #[test]
    fn a_flip_before_the_newest_append_is_reported(
        appends in changes(), at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let (mut log, mut disk) = new_log();
        appends.into_iter().for_each(|changes| disk.perform(log.append(changes)));
        let mut bytes = content(&disk);
        let durable = bytes.len();
        disk.perform(log.append(vec![ttl("z", 1)]));
        bytes = content(&disk);
        bytes[at.index(durable)] ^= 1u8 << bit;
        prop_assert!(RegistrationLog::read(Some(&bytes)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = RegistrationLog::read(Some(&bytes));
    }
}

/// An HTTP check as builds before TLS stored it.
struct EarlierHttp {
    url: String,
    method: String,
    header: BTreeMap<String, Vec<String>>,
    body: String,
    interval: Duration,
    timeout: Duration,
}
pack_struct!(EarlierHttp { url, method, header, body, interval, timeout });

#[test]
fn an_http_check_of_an_earlier_build_loads_and_checks_certificates() {
    let (url, method) = ("http://127.0.0.1/".to_owned(), "GET".to_owned());
    let (header, body) = (BTreeMap::new(), String::new());
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(10));
    let earlier = EarlierHttp {
        url: url.clone(),
        method: method.clone(),
        header: BTreeMap::new(),
        body: String::new(),
        interval,
        timeout,
    };
    let tls_skip_verify = false;
    let now = HttpCheck { url, method, header, body, tls_skip_verify, interval, timeout };
    assert_eq!(pack::from_bytes(&pack::to_bytes(&earlier)), Ok(now));
}

#[test]
fn every_kind_of_check_keeps_its_tag() {
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(10));
    let (target, args) = ("h:1".to_owned(), vec!["true".to_owned()]);
    let alias = AliasCheck { node: None, service: Some(ServiceId::parse("web").unwrap()) };
    let container = "c".to_owned();
    let (service, tls, tls_skip_verify) = ("s".to_owned(), true, false);
    let grpc =
        GrpcCheck { target: target.clone(), service, tls, tls_skip_verify, interval, timeout };
    for (tag, kind) in [
        (1, CheckKind::Ttl(interval)),
        (3, CheckKind::Tcp(TcpCheck { target: target.clone(), interval, timeout })),
        (4, CheckKind::Script(ScriptCheck { args: args.clone(), interval, timeout })),
        (5, CheckKind::Maintenance),
        (6, CheckKind::Alias(alias)),
        (7, CheckKind::Udp(UdpCheck { target, interval, timeout })),
        (8, CheckKind::Docker(DockerCheck { container, args, interval, timeout })),
        (9, CheckKind::Grpc(grpc)),
    ] {
        let bytes = pack::to_bytes(&kind);
        assert_eq!(bytes[..2], [0x92, tag]);
        assert_eq!(pack::from_bytes(&bytes), Ok(kind));
    }
}
