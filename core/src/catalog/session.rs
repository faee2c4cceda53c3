//! Sessions: what a program holds keys with, for as long as it and its node are well
//! (http-api.md §10).
//!
//! A session ends with its node, with one of its checks, when one of them turns critical, when it
//! is destroyed, and when nobody renewed it for too long, which the leader alone knows
//! ([`crate::reconcile`]). Whatever ends it, what it held is let go of by the same command.
//!
//! - INV-SESSION-1: a session belongs to a node that exists, and all its checks exist on it and
//!   none of them is critical.

use super::lock::{Behavior, LockDelay};
use super::model::{Check, CheckStatus};
use super::query::Rows;
use super::{Tables, keys};
use crate::id::{CheckId, ModifyIndex, NodeName, SessionId};
use crate::pack_struct;
use imbl::OrdMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Lock delay of a session that names none.
pub const LOCK_DELAY_DEFAULT: Duration = Duration::from_secs(15);

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Drawn by whoever creates it.
    pub id: SessionId,
    /// For people.
    pub name: String,
    /// Whose it is.
    pub node: NodeName,
    /// How long what it held cannot be acquired once it has ended, at most
    /// [`LOCK_DELAY_MAX`](super::lock::LOCK_DELAY_MAX).
    pub lock_delay: Duration,
    /// What becomes of what it holds.
    pub behavior: Behavior,
    /// How long it lives at least without being renewed; zero for ever.
    pub ttl: Duration,
    /// The same as it was given.
    pub ttl_text: String,
    /// Checks of its node that it depends on.
    pub node_checks: Vec<CheckId>,
    /// Checks of services that it depends on.
    pub service_checks: Vec<CheckId>,
    /// Checks of either kind, named in the old way.
    pub checks: Vec<CheckId>,
    /// When it was stored; it does not change.
    pub create_index: ModifyIndex,
}
pack_struct!(Session {
    id,
    name,
    node,
    lock_delay,
    behavior,
    ttl,
    ttl_text,
    node_checks,
    service_checks,
    checks,
    create_index,
});

impl Session {
    /// All checks it depends on.
    pub fn depends_on(&self) -> impl Iterator<Item = &CheckId> {
        self.node_checks.iter().chain(&self.service_checks).chain(&self.checks)
    }
}

/// Why a session was not stored. Texts are what clients see.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// There is no such node.
    #[error("Missing node registration")]
    NoNode,
    /// The node has no such check.
    #[error("Missing check '{0}' registration")]
    NoCheck(CheckId),
    /// The check is critical.
    #[error("Check '{0}' is in critical state")]
    Critical(CheckId),
    /// Another session has this identity.
    #[error("session {0} exists already")]
    Exists(SessionId),
}

impl Tables {
    /// Stores a session. The same one once more is no failure: whoever heard no answer asks again.
    pub(super) fn create_session(
        &mut self,
        index: ModifyIndex,
        mut session: Session,
    ) -> Result<(), SessionError> {
        let node = keys::node(&session.node);
        let row = self.nodes.get(&*node).ok_or(SessionError::NoNode)?;
        session.node = row.node.name.clone();
        if let Some(old) = self.session(session.id) {
            session.create_index = old.create_index;
            return if **old == session { Ok(()) } else { Err(SessionError::Exists(session.id)) };
        }
        for id in session.depends_on() {
            let check = self.checks.get(&*keys::on_node(&node, id.as_str()));
            let check = check.ok_or_else(|| SessionError::NoCheck(id.clone()))?;
            if check.status == CheckStatus::Critical {
                return Err(SessionError::Critical(id.clone()));
            }
        }
        session.create_index = index;
        self.changed.sessions = index;
        self.put_session(&node, Arc::new(session));
        Ok(())
    }

    /// Stores a complete session of a node that exists.
    pub(super) fn put_session(&mut self, node: &str, session: Arc<Session>) {
        let key = keys::on_node(node, &session.id.to_string());
        self.session_ids.insert(session.id, Arc::clone(&key));
        self.sessions.insert(key, session);
    }

    /// Sessions show their node's name as it is spelled there.
    pub(super) fn respell_sessions(&mut self, index: ModifyIndex, node: &str) {
        let Some(name) = self.nodes.get(node).map(|row| row.node.name.clone()) else { return };
        let sessions: Vec<_> = keys::under(&self.sessions, node).cloned().collect();
        for session in sessions {
            self.changed.sessions = index;
            let session = Session { node: name.clone(), ..(*session).clone() };
            self.put_session(node, Arc::new(session));
        }
    }

    /// Ends a session, whatever the reason; one that does not exist is no failure.
    pub(super) fn end_session(&mut self, index: ModifyIndex, id: SessionId) {
        let Some(key) = self.session_ids.remove(&id) else { return };
        let Some(session) = self.sessions.remove(&key) else { return };
        self.changed.sessions = index;
        self.kv.let_go(index, id, (session.behavior, session.lock_delay));
        self.end_prepared_of(index, id);
    }

    /// Ends the sessions of a node that is no longer there.
    pub(super) fn end_sessions_of(&mut self, index: ModifyIndex, node: &str) {
        let ended: Vec<_> = keys::under(&self.sessions, node).map(|session| session.id).collect();
        ended.into_iter().for_each(|id| self.end_session(index, id));
    }

    /// Ends the sessions that depend on a check, since it is critical or gone.
    pub(super) fn end_dependent_sessions(&mut self, index: ModifyIndex, node: &str, check: &Check) {
        let depends = |session: &&Arc<Session>| session.depends_on().any(|id| *id == check.id);
        let all = keys::under(&self.sessions, node);
        let ended: Vec<_> = all.filter(depends).map(|session| session.id).collect();
        ended.into_iter().for_each(|id| self.end_session(index, id));
    }

    /// All sessions, by node.
    pub const fn session_map(&self) -> &OrdMap<Arc<str>, Arc<Session>> {
        &self.sessions
    }

    /// Keys that cannot be acquired for a while.
    pub(crate) const fn lock_delays(&self) -> &OrdMap<Arc<str>, LockDelay> {
        &self.kv.delays
    }

    /// The session of this identity.
    pub(crate) fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.sessions.get(self.session_ids.get(&id)?)
    }

    /// The same as one row or none.
    pub(crate) fn session_row(&self, id: SessionId) -> (Rows, ModifyIndex) {
        let rows = self.session(id).cloned().into_iter().collect();
        (Rows::Sessions(rows), self.changed.sessions)
    }

    /// All sessions by id, or those of one node.
    pub(crate) fn sessions(&self, node: Option<&NodeName>) -> (Rows, ModifyIndex) {
        let rows = match node {
            Some(node) => keys::under(&self.sessions, &node.folded()).cloned().collect(),
            None => self
                .session_ids
                .values()
                .filter_map(|key| self.sessions.get(key))
                .cloned()
                .collect(),
        };
        (Rows::Sessions(rows), self.changed.sessions)
    }
}
