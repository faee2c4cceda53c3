//! Sessions and lock delays, judged by the committed log and the true time.
//!
//! When a session ends with its node or its checks is taken from the tables that ship, replayed
//! here; what follows from its end for keys is the model's ([`crate::kv::model`]).
//!
//! - C8: a session that nobody destroyed is not ended for its TTL before that is over since it was
//!   acknowledged, at its creation or at a renewal. Who is told that it is gone is told the truth.
//!   One that nobody renews has ended once its TTL is over twice, under one leader: a new one
//!   begins to count anew.
//! - C9: a lock delay is not ended before it is over since the session ended.

use super::{Violation, broken};
use crate::kv::model::Model;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Applied, ApplyError, Command};
use terraform_core::catalog::lock::LOCK_DELAY_MAX;
use terraform_core::catalog::session::Session;
use terraform_core::id::{LogIndex, SessionId};
use terraform_core::time::Instant;

/// What clocks may be slow by: part of a span that may be missing.
const DRIFT: u32 = 1000;

/// How long after that a session may be there: its end has to be committed, perhaps at a second
/// try, and a leader looks at sessions only once it has committed something.
const SLACK: Duration = Duration::from_secs(5);
/// How long after it was asked for a renewal may still happen of which nobody hears: it waits for a
/// leader (7 s), and for the answer (10 s).
const LATE: Duration = Duration::from_secs(17);

/// What is known of sessions.
#[derive(Debug, Default)]
pub(super) struct SessionChecker {
    /// Everything that is committed, done by the code that ships.
    tables: Tables,
    /// Until when at least each session lives unless something else ends it, by what its client
    /// was told.
    promised: BTreeMap<SessionId, Instant>,
    /// Until when each session may have been renewed last, or when it was made.
    touched: BTreeMap<SessionId, Instant>,
    /// Since when there is the leader there is.
    leader_since: Option<Instant>,
    /// Sessions that somebody asked to end.
    closing: BTreeSet<SessionId>,
    /// Where each session ended.
    ended: BTreeMap<SessionId, u64>,
    /// When each lock delay that is under way began, and for how long it is.
    delays: BTreeMap<Arc<str>, (Instant, Duration)>,
}

/// What a command did to sessions.
pub(super) struct Effects {
    /// What became of it.
    pub(super) result: Result<Applied, ApplyError>,
    /// Sessions that it began.
    pub(super) begun: Vec<SessionId>,
    /// Sessions that it ended.
    pub(super) ended: Vec<Arc<Session>>,
}

impl SessionChecker {
    /// Does what is committed at this position.
    pub(super) fn commit(&mut self, at: u64, command: &Command) -> Effects {
        let before = self.tables.session_map().clone();
        let result = self.tables.apply(LogIndex::new(at), command.clone());
        let after = self.tables.session_map();
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        if !before.ptr_eq(after) {
            let fresh = after.iter().filter(|(key, _)| !before.contains_key(*key));
            begun.extend(fresh.map(|(_, session)| session.id));
            let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
            ended.extend(gone.map(|(_, session)| Arc::clone(session)));
        }
        self.ended.extend(ended.iter().map(|session| (session.id, at)));
        Effects { result, begun, ended }
    }

    /// Judges what a command ended that was seen committed at `now`, with the model before it.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        command: &Command,
        (effects, before): (&Effects, &Model),
    ) -> Result<(), Violation> {
        self.touched.extend(effects.begun.iter().map(|id| (*id, now)));
        if matches!(command, Command::RestoreCommit(_)) {
            self.delays.clear();
            return Ok(());
        }
        for session in &effects.ended {
            self.touched.remove(&session.id);
            if let Command::EndSessions(_) = command
                && !self.closing.contains(&session.id)
                && let Some(until) = self.promised.get(&session.id).filter(|until| **until > now)
            {
                let id = session.id;
                return broken("C8", format!("{id} ends at {now:?}, promised until {until:?}"));
            }
            if !session.lock_delay.is_zero() {
                let delay = session.lock_delay.min(LOCK_DELAY_MAX);
                for key in before.held_by(session.id) {
                    self.delays.insert(key, (now, delay));
                }
            }
        }
        let Command::EndLockDelays(over) = command else { return Ok(()) };
        for end in over {
            let Some((began, delay)) = self.delays.remove(&end.key) else { continue };
            if now.since(began) + delay / DRIFT < delay {
                let facts = format!("the lock delay of {} ends at {now:?}", end.key);
                return broken("C9", format!("{facts}, it began at {began:?} for {delay:?}"));
            }
        }
        Ok(())
    }

    /// Somebody asks to end a session.
    pub(super) fn closing(&mut self, session: SessionId) {
        self.closing.insert(session);
    }

    /// A server begins to lead.
    pub(super) const fn new_leader(&mut self, now: Instant) {
        self.leader_since = Some(now);
    }

    /// A session is to be renewed.
    pub(super) fn renewing(&mut self, session: SessionId, now: Instant) {
        self.touched.insert(session, now + LATE);
    }

    /// Whoever wanted to renew a session has an answer.
    pub(super) fn renewed(&mut self, session: SessionId, now: Instant) {
        self.touched.insert(session, now);
    }

    /// Looks for sessions that are there although their time is over twice. The leader must have
    /// been well since it began to lead.
    pub(super) fn none_outlives_its_time(&self, now: Instant) -> Result<(), Violation> {
        let Some(leader_since) = self.leader_since else { return Ok(()) };
        for session in self.tables.session_map().values().filter(|it| !it.ttl.is_zero()) {
            // One that came with a backup is new to its leader.
            let Some(touched) = self.touched.get(&session.id) else { continue };
            let from = leader_since.max(*touched);
            let until = from + session.ttl * 2 + session.ttl * 2 / DRIFT + SLACK;
            if now > until {
                let id = session.id;
                let facts = format!("{id} is there at {now:?}, it had to end by {until:?}");
                return broken("C8", facts);
            }
        }
        Ok(())
    }

    /// A client was told that its session, of which it asked at `asked`, lives for its TTL.
    pub(super) fn promise(&mut self, session: SessionId, asked: Instant, ttl: Duration) {
        let until = asked + (ttl - ttl / DRIFT);
        let known = self.promised.entry(session).or_insert(until);
        *known = until.max(*known);
    }

    /// A client was told that its session is gone, when everything up to `top` was committed.
    pub(super) fn told_gone(&self, session: SessionId, top: u64) -> Result<(), Violation> {
        match self.ended.get(&session) {
            Some(at) if *at <= top => Ok(()),
            at => broken("C8", format!("{session} is told gone at {top}, it ended at {at:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::catalog::command::Registration;
    use terraform_core::catalog::lock::Behavior;
    use terraform_core::catalog::model::Node;
    use terraform_core::id::{ModifyIndex, NodeName};

    const fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// A checker that saw a session of ten seconds made, after five seconds.
    fn checker(id: SessionId) -> SessionChecker {
        let name = NodeName::parse("n1").expect("it is a name");
        let zero = ModifyIndex::ZERO;
        let node = Node {
            id: None,
            name: name.clone(),
            address: "192.0.2.1".to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: zero,
            modify_index: zero,
        };
        let session = Session {
            id,
            name: String::new(),
            node: name,
            lock_delay: Duration::ZERO,
            behavior: Behavior::Release,
            ttl: Duration::from_secs(10),
            ttl_text: String::new(),
            node_checks: Vec::new(),
            service_checks: Vec::new(),
            checks: Vec::new(),
            create_index: zero,
        };
        let (service, checks) = (None, Vec::new());
        let registration = Registration { node, skip_node_update: false, service, checks };
        let mut checker = SessionChecker::default();
        let made = Command::CreateSession(Box::new(session));
        for (number, command) in [(1, Command::Register(Box::new(registration))), (2, made)] {
            let effects = checker.commit(number, &command);
            let judged = checker.judge(at(5), &command, (&effects, &Model::default()));
            assert_eq!((judged, effects.result), (Ok(()), Ok(Applied::Done)));
        }
        checker
    }

    #[test]
    fn a_session_that_nobody_renews_is_gone_once_its_time_is_over_twice() {
        let id = SessionId::from_bytes([7; 16]);
        let mut checker = checker(id);
        assert_eq!(checker.none_outlives_its_time(at(90)), Ok(()), "nobody leads");
        checker.new_leader(at(1));
        let rule = |checker: &SessionChecker, seconds| {
            checker.none_outlives_its_time(at(seconds)).err().map(|broken| broken.rule)
        };
        assert_eq!(rule(&checker, 30), None);
        assert_eq!(rule(&checker, 31), Some("C8"));
        checker.renewed(id, at(10));
        assert_eq!((rule(&checker, 35), rule(&checker, 36)), (None, Some("C8")));
        checker.renewing(id, at(10));
        assert_eq!((rule(&checker, 52), rule(&checker, 53)), (None, Some("C8")));
        checker.new_leader(at(40));
        assert_eq!((rule(&checker, 65), rule(&checker, 66)), (None, Some("C8")));
        let command = Command::EndSessions(vec![id]);
        let effects = checker.commit(3, &command);
        assert_eq!(checker.judge(at(60), &command, (&effects, &Model::default())), Ok(()));
        assert_eq!(rule(&checker, 90), None);
    }
}
