//! What was done with one lock, and with all sessions, as operations that must fit into one order
//! (simulation.md §8.1, checker B).
//!
//! A session begins before its client knows of it, so only its end is of interest. It is destroyed
//! by its client, or it ends by itself: at some moment that nobody is told of, but not before its
//! TTL is over since the last renewal that was answered, and never if it has no TTL and nothing
//! else that it depends on goes away. With its end it lets go of the key, or deletes it. What is
//! gone stays gone: whoever was told so is never told again that it lives.

use super::history::{Call, History, OpId, Outcome, Record, seen_in};
use crate::checker::linear::Operation;
use std::collections::BTreeSet;
use terraform_core::catalog::kv::KvWrite;
use terraform_core::catalog::lock::Behavior;
use terraform_core::catalog::query::{Consistency, Query, Rows};
use terraform_core::catalog::session::Session;
use terraform_core::id::{NodeName, SessionId};
use terraform_core::node::request::Response;
use terraform_core::time::Instant;

/// What clocks may be slow by: part of a span that may be missing.
const DRIFT: u32 = 1000;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// The operation wrote the key, held by the session from then on.
    Acquire(OpId),
    /// The operation wrote the key, held by the session until then.
    Release(OpId),
    /// The session ended.
    End {
        /// Whether it deletes what it holds.
        deletes: bool,
        /// Whether nobody may hold that for a while.
        delays: bool,
    },
    /// It was asked for.
    Renew,
    /// The key was read.
    Get,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is done; of a renewal, that the session lives.
    Done,
    /// It cannot be done now.
    Unmet,
    /// There is no such session.
    Gone,
    /// Who wrote the key and who holds it.
    Saw(Option<OpId>, Option<SessionId>),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockOp {
    deed: Deed,
    /// Whose; of a read nobody's.
    session: Option<SessionId>,
    invoked: u64,
    /// When it was answered, and how; `None` if it never was.
    returned: Option<(u64, Told)>,
}

/// The key, and the sessions that are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lock {
    writer: Option<OpId>,
    holder: Option<SessionId>,
    /// Whether it may be that nobody may hold it now.
    delayed: bool,
    ended: BTreeSet<SessionId>,
}

impl Operation for LockOp {
    type State = Lock;

    fn after(&self, lock: &Lock) -> Option<Lock> {
        let told = self.returned.map_or(Told::Done, |(_, told)| told);
        let lives = self.session.is_none_or(|session| !lock.ended.contains(&session));
        let holds = self.session.is_some() && lock.holder == self.session;
        let unchanged = |fits: bool| fits.then(|| lock.clone());
        match (self.deed, told) {
            (Deed::Acquire(id), Told::Done) if lives && (holds || lock.holder.is_none()) => {
                let (writer, holder) = (Some(id), self.session);
                Some(Lock { writer, holder, delayed: false, ended: lock.ended.clone() })
            }
            (Deed::Acquire(_), Told::Unmet) => {
                unchanged(lives && !holds && (lock.holder.is_some() || lock.delayed))
            }
            (Deed::Acquire(_) | Deed::Renew, Told::Gone) => unchanged(!lives),
            (Deed::Release(id), Told::Done) if holds => {
                Some(Lock { writer: Some(id), holder: None, ..lock.clone() })
            }
            (Deed::Release(_), Told::Unmet) => unchanged(!holds),
            (Deed::End { .. }, Told::Done) if !lives => unchanged(self.returned.is_some()),
            (Deed::End { deletes, delays }, Told::Done) => {
                let mut next = lock.clone();
                next.ended.extend(self.session);
                if holds {
                    next.holder = None;
                    next.writer = next.writer.filter(|_| !deletes);
                    next.delayed |= delays;
                }
                Some(next)
            }
            (Deed::Renew, Told::Done) => unchanged(lives),
            (Deed::Get, Told::Saw(writer, holder)) => {
                unchanged((writer, holder) == (lock.writer, lock.holder))
            }
            _ => None,
        }
    }

    /// A session that does not hold the key can as well end later.
    fn covers(lock: &Lock, other: &Lock) -> bool {
        let kept = |lock: &Lock| (lock.writer, lock.holder, lock.delayed);
        kept(lock) == kept(other) && lock.ended.is_subset(&other.ended)
    }

    fn size(lock: &Lock) -> usize {
        size_of::<Lock>() + lock.ended.len() * size_of::<SessionId>()
    }

    fn only_looked(&self) -> bool {
        let looks = matches!(self.deed, Deed::Renew | Deed::Get);
        looks || matches!(self.returned, Some((_, Told::Unmet | Told::Gone)))
    }

    fn span(&self) -> (u64, Option<u64>) {
        (self.invoked, self.returned.map(|(at, _)| at))
    }
}

/// All operations on `key` and on sessions. Whatever is bound to a node that is not among the
/// `steady` ones may end at any time.
pub(super) fn operations(key: &str, history: &History, steady: &BTreeSet<NodeName>) -> Vec<LockOp> {
    let records = history.records();
    let told = (0..).zip(records).filter_map(|(id, record)| on_lock(key, id, record, records));
    let ends = records.iter().filter_map(|record| by_itself(record, records, steady));
    told.chain(ends).collect()
}

fn session_made(session: SessionId, records: &[Record]) -> Option<&Session> {
    records.iter().find_map(|record| {
        let Call::Open(made) = &record.call else { return None };
        (made.id == session).then_some(&**made)
    })
}

const fn end_of(session: &Session) -> Deed {
    let deletes = matches!(session.behavior, Behavior::Delete);
    Deed::End { deletes, delays: !session.lock_delay.is_zero() }
}

/// The operation as one on `key` or on a session; `None` if it is none, or says nothing.
fn on_lock(key: &str, id: OpId, record: &Record, records: &[Record]) -> Option<LockOp> {
    let (deed, session) = match &record.call {
        Call::Write(KvWrite::Acquire(lock)) if lock.key == key => {
            (Deed::Acquire(id), Some(lock.session))
        }
        Call::Write(KvWrite::Release(lock)) if lock.key == key => {
            (Deed::Release(id), Some(lock.session))
        }
        Call::Close(session) => (end_of(session_made(*session, records)?), Some(*session)),
        Call::Renew(session) => (Deed::Renew, Some(*session)),
        Call::Read(Query::Key(of), Consistency::Leader | Consistency::Consistent) if of == key => {
            (Deed::Get, None)
        }
        Call::Write(_)
        | Call::Read(..)
        | Call::Transaction(_)
        | Call::Restore(_)
        | Call::Save
        | Call::Open(_) => return None,
    };
    let told = match (&record.outcome, deed) {
        (Outcome::NoSession, _) => Some(Told::Gone),
        (Outcome::NotDone | Outcome::Refused, _) => return None,
        (Outcome::Open, _) => None,
        (Outcome::Answered(Response::Unmet), _) => Some(Told::Unmet),
        (Outcome::Answered(Response::Answer(answer)), Deed::Renew) => {
            let gone = matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty());
            Some(if gone { Told::Gone } else { Told::Done })
        }
        (Outcome::Answered(Response::Answer(answer)), _) => {
            let writer = seen_in(&answer.rows)?.and_then(|(_, writer)| writer);
            let Rows::Entries(entries) = &answer.rows else { return None };
            Some(Told::Saw(writer, entries.first().and_then(|entry| entry.lock().1)))
        }
        (Outcome::Answered(_), _) => Some(Told::Done),
    };
    let returned = record.returned.zip(told);
    Some(LockOp { deed, session, invoked: record.invoked, returned })
}

/// The end of a session that nobody asked for, if it may have one.
fn by_itself(record: &Record, records: &[Record], steady: &BTreeSet<NodeName>) -> Option<LockOp> {
    let Call::Open(session) = &record.call else { return None };
    let end = |invoked| {
        let session_id = Some(session.id);
        Some(LockOp { deed: end_of(session), session: session_id, invoked, returned: None })
    };
    let depends = !session.node_checks.is_empty() || !session.service_checks.is_empty();
    if depends || !session.checks.is_empty() || !steady.contains(&session.node) {
        return end(record.invoked);
    }
    if session.ttl.is_zero() {
        return None;
    }
    let lived = |other: &&Record| match (&other.call, &other.outcome) {
        (Call::Renew(renewed), Outcome::Answered(Response::Answer(answer))) => {
            let gone = matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty());
            *renewed == session.id && !gone
        }
        _ => false,
    };
    let renewed = records.iter().filter(lived).map(|other| other.asked).max();
    let last: Instant = renewed.map_or(record.asked, |at| at.max(record.asked));
    let over = last + (session.ttl - session.ttl / DRIFT);
    let before = records.iter().filter(|other| other.asked < over).map(|other| other.invoked);
    end(before.max().unwrap_or(record.invoked))
}

#[cfg(test)]
mod tests;
