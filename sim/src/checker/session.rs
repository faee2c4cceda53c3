//! Sessions and lock delays, judged by the committed log and the true time.
//!
//! When a session ends with its node or its checks is taken from the tables that ship, replayed
//! here; what follows from its end for keys is the model's ([`crate::kv::model`]).
//!
//! - C8: a session that nobody destroyed is not ended for its TTL before that is over since it was
//!   acknowledged, at its creation or at a renewal. Who is told that it is gone is told the truth.
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

/// What is known of sessions.
#[derive(Debug, Default)]
pub(super) struct SessionChecker {
    /// Everything that is committed, done by the code that ships.
    tables: Tables,
    /// Until when at least each session lives unless something else ends it, by what its client
    /// was told.
    promised: BTreeMap<SessionId, Instant>,
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
        if matches!(command, Command::RestoreCommit(_)) {
            self.delays.clear();
            return Ok(());
        }
        for session in &effects.ended {
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
