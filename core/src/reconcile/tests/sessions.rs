//! The time of sessions and of lock delays.

use super::*;
use crate::catalog::lock::{Behavior, KvLock, LockDelayEnd};
use crate::catalog::session::Session;
use crate::id::SessionId;

const TTL: Duration = Duration::from_secs(10);
const LOCK_DELAY: Duration = Duration::from_secs(15);

fn session_id(byte: u8) -> SessionId {
    SessionId::from_bytes([byte; 16])
}

fn session(byte: u8, ttl: Duration) -> Command {
    Command::CreateSession(Box::new(Session {
        id: session_id(byte),
        name: String::new(),
        node: NodeName::parse("n1").unwrap(),
        lock_delay: LOCK_DELAY,
        behavior: Behavior::Release,
        ttl,
        ttl_text: String::new(),
        node_checks: Vec::new(),
        service_checks: Vec::new(),
        checks: Vec::new(),
        create_index: ModifyIndex::ZERO,
    }))
}

fn acquire(key: &str, byte: u8) -> Command {
    let (key, value, flags) = (key.to_owned(), Bytes::new(), 0);
    Command::Kv(KvWrite::Acquire(KvLock { key, value, flags, session: session_id(byte) }))
}

/// Leading, with sessions 1 and 2 of [`TTL`] and 3 without, seen just now.
fn rig() -> Rig {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    for (index, command) in
        [session(1, TTL), session(2, TTL), session(3, Duration::ZERO)].into_iter().enumerate()
    {
        rig.apply(50 + index as u64, command);
    }
    assert!(rig.duties.misses_sessions(&rig.tables));
    assert_eq!(rig.input(ReconcileInput::SessionsChanged), []);
    assert!(!rig.duties.misses_sessions(&rig.tables));
    rig
}

fn at_rest(rig: &mut Rig, until: Instant) -> Vec<ReconcileOutput> {
    while let Some(at) = rig.duties.next_timeout().filter(|at| *at <= until) {
        let outputs = rig.at(at);
        if !outputs.is_empty() {
            return outputs;
        }
    }
    Vec::new()
}

fn proposal(outputs: &[ReconcileOutput]) -> (ReconcileTicket, Command) {
    let proposed = outputs.iter().find_map(|output| match output {
        ReconcileOutput::Propose { ticket, command } => Some((*ticket, (**command).clone())),
        ReconcileOutput::Change { .. } | ReconcileOutput::Trace(..) => None,
    });
    proposed.expect("something is proposed")
}

#[test]
fn a_session_ends_after_its_time_unless_it_is_renewed() {
    let mut rig = rig();
    let start = rig.now;
    assert_eq!(at_rest(&mut rig, start + TTL), [], "never before its time");
    rig.now = start + TTL;
    assert!(rig.duties.renew(rig.now, session_id(2), &rig.tables));
    assert!(rig.duties.renew(rig.now, session_id(3), &rig.tables), "it needs no renewal");
    assert!(!rig.duties.renew(rig.now, session_id(9), &rig.tables), "there is none");
    let outputs = at_rest(&mut rig, start + TTL * 2);
    assert_eq!(proposal(&outputs).1, Command::EndSessions(vec![session_id(1)]));
    assert!(rig.now < start + TTL * 2);
    let line = format!("session TTL expired: session={}", session_id(1));
    assert!(matches!(&outputs[0], ReconcileOutput::Trace(_, it) if it.to_string() == line));
    assert!(!rig.duties.renew(rig.now, session_id(1), &rig.tables), "it is too late");
    rig.settle(outputs);
    let outputs = at_rest(&mut rig, start + TTL * 3);
    assert_eq!(proposal(&outputs).1, Command::EndSessions(vec![session_id(2)]));
    assert!(rig.now >= start + TTL * 2, "a whole time after the renewal");
    rig.settle(outputs);
    let end = rig.now + TTL * 10;
    assert_eq!(at_rest(&mut rig, end), [], "what has no TTL lives on");
}

#[test]
fn an_end_that_was_not_committed_is_tried_again() {
    let mut rig = rig();
    let until = rig.now + TTL * 2;
    let (ticket, command) = proposal(&at_rest(&mut rig, until));
    assert_eq!(command, Command::EndSessions(vec![session_id(1), session_id(2)]));
    let failed = Err(StepError::Failed(ProposalError::Overloaded));
    assert_eq!(rig.input(ReconcileInput::Done { ticket, result: failed }), []);
    // Whoever renews in between saves the session.
    assert!(rig.duties.renew(rig.now, session_id(2), &rig.tables));
    let until = rig.now + Duration::from_secs(2);
    let outputs = at_rest(&mut rig, until);
    assert_eq!(proposal(&outputs).1, Command::EndSessions(vec![session_id(1)]));
}

#[test]
fn a_new_leader_gives_the_whole_time_again() {
    let mut rig = rig();
    let lost = rig.now + TTL;
    assert_eq!(at_rest(&mut rig, lost), []);
    rig.now = lost;
    rig.input(ReconcileInput::LeadershipLost);
    assert!(!rig.duties.renew(rig.now, session_id(1), &rig.tables), "it leads no longer");
    rig.input(ReconcileInput::LeaderReady);
    assert_eq!(at_rest(&mut rig, lost + TTL), []);
    assert!(!at_rest(&mut rig, lost + TTL * 2).is_empty());
}

#[test]
fn a_lock_delay_is_over_after_its_time() {
    let mut rig = rig();
    rig.apply(60, acquire("a", 3));
    rig.apply(61, Command::EndSessions(vec![session_id(1), session_id(2), session_id(3)]));
    assert!(rig.duties.misses_sessions(&rig.tables));
    rig.input(ReconcileInput::SessionsChanged);
    let start = rig.now;
    let outputs = at_rest(&mut rig, start + LOCK_DELAY * 2);
    assert_eq!(rig.now, start + LOCK_DELAY);
    let since = ModifyIndex::new(61);
    let ended = vec![LockDelayEnd { key: "a".into(), since }];
    assert_eq!(proposal(&outputs).1, Command::EndLockDelays(ended));
    rig.settle(outputs);
    assert!(rig.tables.lock_delays().is_empty());
    let end = rig.now + LOCK_DELAY * 2;
    assert_eq!(at_rest(&mut rig, end), []);
}
