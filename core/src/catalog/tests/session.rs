//! Sessions and the keys they hold, one rule each, and what always holds of them.

use super::super::kv::{KvDelete, KvEntry, KvPut, KvWrite};
use super::super::lock::{Behavior, KeyRefusal, KvLock, LOCK_DELAY_MAX, LockDelayEnd};
use super::super::query::Rows;
use super::super::session::{Session, SessionError};
use super::super::{Tables, keys};
use super::image::any_command;
use super::*;
use crate::catalog::command::Applied;
use crate::id::SessionId;
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn id(byte: u8) -> SessionId {
    SessionId::from_bytes([byte; 16])
}

/// A session of `node` that depends on these checks.
pub(super) fn session(byte: u8, node: &str, checks: &[&str]) -> Session {
    Session {
        id: id(byte),
        name: "s".to_owned(),
        node: NodeName::parse(node).unwrap(),
        lock_delay: Duration::from_secs(15),
        behavior: Behavior::Release,
        ttl: Duration::from_secs(10),
        ttl_text: "10s".to_owned(),
        node_checks: checks.iter().map(|id| CheckId::parse(id).unwrap()).collect(),
        service_checks: Vec::new(),
        checks: Vec::new(),
        create_index: ModifyIndex::ZERO,
    }
}

pub(super) fn lock(key: &str, value: &str, byte: u8) -> KvLock {
    KvLock { key: key.to_owned(), value: value.to_owned().into(), flags: 0, session: id(byte) }
}

fn acquire(key: &str, value: &str, byte: u8) -> Command {
    Command::Kv(KvWrite::Acquire(lock(key, value, byte)))
}

fn release(key: &str, value: &str, byte: u8) -> Command {
    Command::Kv(KvWrite::Release(lock(key, value, byte)))
}

fn put(key: &str, value: &str) -> Command {
    let (key, value) = (key.to_owned(), Bytes::from(value.to_owned()));
    Command::Kv(KvWrite::Put(KvPut { key, value, flags: 0, only_at: None }))
}

fn create(session: Session) -> Command {
    Command::CreateSession(Box::new(session))
}

fn apply(tables: &mut Tables, index: u64, command: Command) -> Result<Applied, ApplyError> {
    tables.apply(LogIndex::new(index), command)
}

fn entry(tables: &Tables, key: &str) -> Arc<KvEntry> {
    let (Rows::Entries(rows), _) = tables.key(key) else { panic!() };
    Arc::clone(&rows[0])
}

/// Two nodes with a node check and a service check each, and a session on the first.
fn tables() -> Tables {
    let mut tables = Tables::default();
    for (index, name) in [(1, "n1"), (2, "n2")] {
        let mut wanted = registration(node(name, None));
        wanted.service = Some(service("s1", "web"));
        wanted.checks = vec![
            check(name, "serfHealth", None, CheckStatus::Passing),
            check(name, "c1", Some("s1"), CheckStatus::Warning),
        ];
        register(&mut tables, index, wanted).unwrap();
    }
    apply(&mut tables, 3, create(session(1, "N1", &["serfHealth", "c1"]))).unwrap();
    tables
}

#[test]
fn a_session_needs_its_node_and_its_checks() {
    let mut tables = tables();
    let row = tables.session(id(1)).unwrap();
    assert_eq!((row.node.as_str(), row.create_index), ("n1", ModifyIndex::new(3)));
    let mut refused = |session| {
        let before = tables.clone();
        let error = apply(&mut tables, 4, create(session)).unwrap_err().to_string();
        assert_eq!(tables, before);
        error
    };
    assert_eq!(refused(session(2, "n9", &[])), "Missing node registration");
    assert_eq!(refused(session(2, "n1", &["nope"])), "Missing check 'nope' registration");
    let other = Session { name: "other".to_owned(), ..session(1, "n1", &[]) };
    assert_eq!(refused(other), SessionError::Exists(id(1)).to_string());
    // Whoever heard no answer asks for the same one again.
    let before = tables.clone();
    apply(&mut tables, 5, create(session(1, "n1", &["serfHealth", "c1"]))).unwrap();
    assert_eq!(tables, before);
    let mut critical = registration(node("n2", None));
    critical.checks = vec![check("n2", "bad", None, CheckStatus::Critical)];
    register(&mut tables, 6, critical).unwrap();
    let error = apply(&mut tables, 7, create(session(2, "n2", &["bad"]))).unwrap_err();
    assert_eq!(error.to_string(), "Check 'bad' is in critical state");
}

#[test]
fn whatever_it_depends_on_ends_it() {
    let critical = |tables: &mut Tables, id: &str, of: Option<&str>| {
        let mut wanted = registration(node("n1", None));
        wanted.checks = vec![check("n1", id, of, CheckStatus::Critical)];
        register(tables, 9, wanted).unwrap();
    };
    let ends: [&dyn Fn(&mut Tables); 7] = [
        &|tables| drop(apply(tables, 9, Command::EndSessions(vec![id(7), id(1)]))),
        &|tables| critical(tables, "serfHealth", None),
        &|tables| critical(tables, "c1", Some("s1")),
        &|tables| deregister(tables, 9, "n1", None, Some("c1")),
        &|tables| deregister(tables, 9, "n1", Some("s1"), None),
        &|tables| deregister(tables, 9, "n1", None, None),
        &|tables| {
            // Another name of the same identity takes everything of the old one away.
            register(tables, 8, registration(node("n1", Some(1)))).unwrap();
            register(tables, 9, registration(node("n3", Some(1)))).unwrap();
        },
    ];
    for (which, end) in ends.iter().enumerate() {
        let mut tables = tables();
        apply(&mut tables, 4, acquire("a", "v", 1)).unwrap();
        end(&mut tables);
        assert!(tables.session(id(1)).is_none(), "{which}");
        assert_eq!(tables.sessions(None).1, ModifyIndex::new(9), "{which}");
        let entry = entry(&tables, "a");
        let shown = (entry.lock(), &*entry.value, entry.modify_index.get());
        assert_eq!(shown, ((1, None), &b"v"[..], 9), "{which}");
        check_invariants(&tables);
    }
    let mut tables = tables();
    critical(&mut tables, "other", None);
    deregister(&mut tables, 9, "n2", None, None);
    assert!(tables.session(id(1)).is_some(), "what it does not depend on does not end it");
}

#[test]
fn a_key_has_one_holder_and_counts_acquisitions() {
    let mut tables = tables();
    apply(&mut tables, 4, create(session(2, "n2", &[]))).unwrap();
    assert_eq!(apply(&mut tables, 5, acquire("a", "1", 1)), Ok(Applied::Done));
    assert_eq!(apply(&mut tables, 6, acquire("a", "2", 2)), Ok(Applied::Unmet), "it is held");
    assert_eq!(entry(&tables, "a").lock(), (1, Some(id(1))));
    assert_eq!(apply(&mut tables, 7, acquire("a", "3", 1)), Ok(Applied::Done), "by itself");
    assert_eq!((entry(&tables, "a").lock().0, &*entry(&tables, "a").value), (1, &b"3"[..]));
    assert_eq!(apply(&mut tables, 8, release("a", "4", 2)), Ok(Applied::Unmet));
    assert_eq!(apply(&mut tables, 8, release("b", "4", 2)), Ok(Applied::Unmet), "not there");
    assert_eq!(apply(&mut tables, 9, release("a", "5", 1)), Ok(Applied::Done));
    assert_eq!((entry(&tables, "a").lock(), &*entry(&tables, "a").value), ((1, None), &b"5"[..]));
    assert_eq!(apply(&mut tables, 10, acquire("a", "6", 2)), Ok(Applied::Done), "no delay");
    assert_eq!(entry(&tables, "a").lock(), (2, Some(id(2))));
    let error = apply(&mut tables, 11, acquire("a", "7", 9)).unwrap_err();
    assert_eq!(error, ApplyError::Key(KeyRefusal::NoSession(id(9))));
    assert_eq!(error.to_string(), "invalid session \"09090909-0909-0909-0909-090909090909\"");
    check_invariants(&tables);
}

#[test]
fn a_plain_write_keeps_the_holder_and_forgets_the_count() {
    let mut tables = tables();
    apply(&mut tables, 4, acquire("a", "1", 1)).unwrap();
    apply(&mut tables, 5, put("a", "1")).unwrap();
    let shown =
        |tables: &Tables| (entry(tables, "a").lock(), entry(tables, "a").modify_index.get());
    assert_eq!(shown(&tables), ((0, Some(id(1))), 5));
    apply(&mut tables, 6, put("a", "1")).unwrap();
    assert_eq!(shown(&tables), ((0, Some(id(1))), 5), "the same once more");
    let delete = KvDelete { key: "a".to_owned(), only_at: None };
    apply(&mut tables, 7, Command::Kv(KvWrite::Delete(delete))).unwrap();
    check_invariants(&tables);
    assert_eq!(apply(&mut tables, 8, acquire("a", "2", 1)), Ok(Applied::Done));
    apply(&mut tables, 9, Command::Kv(KvWrite::DeleteTree(String::new()))).unwrap();
    check_invariants(&tables);
}

#[test]
fn what_a_session_held_is_deleted_if_it_says_so_and_waits_either_way() {
    for behavior in [Behavior::Release, Behavior::Delete] {
        let mut tables = tables();
        let lock_delay = Duration::from_secs(90);
        let wanted = Session { behavior, lock_delay, ..session(2, "n2", &[]) };
        apply(&mut tables, 4, create(wanted)).unwrap();
        apply(&mut tables, 5, acquire("a", "1", 2)).unwrap();
        apply(&mut tables, 6, Command::EndSessions(vec![id(2)])).unwrap();
        let (Rows::Entries(rows), index) = tables.key("a") else { panic!() };
        assert_eq!((rows.len(), index.get()), (usize::from(behavior == Behavior::Release), 6));
        let delay = tables.lock_delays()["a"];
        assert_eq!((delay.since.get(), delay.delay), (6, LOCK_DELAY_MAX));
        assert_eq!(apply(&mut tables, 7, acquire("a", "1", 1)), Ok(Applied::Unmet));
        let ended = |since: u64| {
            let since = ModifyIndex::new(since);
            Command::EndLockDelays(vec![LockDelayEnd { key: "a".into(), since }])
        };
        apply(&mut tables, 8, ended(5)).unwrap();
        assert_eq!(apply(&mut tables, 9, acquire("a", "1", 1)), Ok(Applied::Unmet), "another's");
        apply(&mut tables, 10, ended(6)).unwrap();
        assert_eq!(apply(&mut tables, 11, acquire("a", "1", 1)), Ok(Applied::Done));
        check_invariants(&tables);
    }
}

/// What always holds of sessions and locks (INV-SESSION-1, INV-LOCK-1).
fn check_invariants(tables: &Tables) {
    assert_eq!(tables.sessions.len(), tables.session_ids.len());
    for (id, key) in &tables.session_ids {
        let session = &tables.sessions[key];
        assert_eq!(session.id, *id);
        let node = keys::node(&session.node);
        assert_eq!(*key, keys::on_node(&node, &id.to_string()));
        assert_eq!(tables.nodes[&node].node.name, session.node);
        for check in session.depends_on() {
            let check = &tables.checks[&keys::on_node(&node, check.as_str())];
            assert_ne!(check.status, CheckStatus::Critical);
        }
    }
    let kv = &tables.kv;
    let locked: Vec<_> = kv.entries.values().filter(|it| it.lock.is_some()).cloned().collect();
    assert_eq!(kv.locked.values().cloned().collect::<Vec<_>>(), locked);
    let mut held: Vec<_> =
        locked.iter().filter_map(|it| Some((it.lock().1?, it.key.clone()))).collect();
    held.sort();
    assert!(held.iter().all(|(id, _)| tables.session_ids.contains_key(id)));
    assert_eq!(kv.held.iter().cloned().collect::<Vec<_>>(), held);
}

/// Commands about few sessions of the nodes and checks that other commands are about.
pub(super) fn any_session_command() -> impl Strategy<Value = Command> {
    let creating = (
        1..4_u8,
        prop::sample::select(&["a", "A", "b", "c"][..]),
        prop::collection::vec(prop::sample::select(&["c1", "serfHealth"][..]), 0..2),
        any::<bool>(),
        0..2_u64,
    );
    let creating = creating.prop_map(|(byte, node, checks, deletes, delay)| {
        let behavior = if deletes { Behavior::Delete } else { Behavior::Release };
        let lock_delay = Duration::from_secs(delay);
        create(Session { behavior, lock_delay, ..session(byte, node, &checks) })
    });
    let locking = ("[ab]{1,2}(/[ab])?", "[xy]", 1..4_u8, any::<bool>());
    let locking = locking.prop_map(|(key, value, byte, acquires)| match acquires {
        true => acquire(&key, &value, byte),
        false => release(&key, &value, byte),
    });
    let ending = (1..4_u8).prop_map(|byte| Command::EndSessions(vec![id(byte)]));
    let over = ("[ab]{1,2}", 10..40_u64).prop_map(|(key, since)| {
        let since = ModifyIndex::new(since);
        Command::EndLockDelays(vec![LockDelayEnd { key: key.into(), since }])
    });
    prop_oneof![3 => creating, 5 => locking, 1 => ending, 1 => over]
}

proptest! {
    #[test]
    fn no_key_is_held_by_nobody_and_no_session_outlives_what_it_depends_on(
        commands in prop::collection::vec(any_command(), 0..60),
    ) {
        let mut tables = Tables::default();
        for (index, command) in (10..).zip(commands) {
            let before = tables.clone();
            if apply(&mut tables, index, command).is_err() {
                prop_assert_eq!(&tables, &before);
            }
            check_invariants(&tables);
        }
    }
}
