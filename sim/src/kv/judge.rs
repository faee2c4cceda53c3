//! The histories of single keys, of locks and of the semaphore, judged without the log
//! (simulation.md §8.1, checker B).

use super::history::{Call, History, OpId, Outcome, Record, seen_in};
use super::semaphore::{self, Change, FOLDER, LIMIT, Look};
use super::session::LOCKS;
use super::{REGISTERS, locks};
use crate::checker::linear::{Deed, KeyOp, Operation, Told, Verdict, linearizable};
use crate::checker::{Violation, broken};
use std::collections::{BTreeMap, BTreeSet};
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::query::{Consistency, Query, Rows};
use terraform_core::id::{ModifyIndex, NodeName, SessionId};
use terraform_core::node::request::Response;

/// I12: the operations on each register fit into one order; C9: so do those on each lock. Returns
/// for how many of them that was too much to find out. The `steady` nodes never left the catalog.
///
/// Conditions name indexes, of which this judge knows nothing: it takes them for the values that
/// clients saw with them, once it has made sure that no index stood for two.
pub fn judge(history: &History, steady: &BTreeSet<NodeName>) -> Result<usize, Violation> {
    one_writer_each(history)?;
    let mut undecided = 0;
    for key in REGISTERS {
        let operations: Vec<KeyOp> = (0..)
            .zip(history.records())
            .filter_map(|(id, record)| on_key(key, id, record))
            .collect();
        undecided += usize::from(!fits("I12", key, &operations)?);
    }
    // A backup takes sessions and locks away without a word.
    let restores = |record: &Record| matches!(record.call, Call::Restore(_));
    if history.records().iter().any(restores) {
        return Ok(undecided);
    }
    one_holder_each(history)?;
    few_have_places(history)?;
    for key in LOCKS {
        undecided += usize::from(!fits("C9", key, &locks::operations(key, history, steady))?);
    }
    Ok(undecided)
}

/// Whether some order explains all operations on a key; `false` if that is too much to find out.
fn fits<O: Operation>(rule: &'static str, key: &str, all: &[O]) -> Result<bool, Violation> {
    match linearizable(all) {
        Verdict::Legal => Ok(true),
        Verdict::Undecided => Ok(false),
        Verdict::Illegal(stuck) => {
            broken(rule, format!("no order explains all operations on {key}: {stuck}"))
        }
    }
}

/// C7: an index that clients saw a key's entry with stands for one write. Several keys may share
/// one: the end of a session releases all that it holds.
fn one_writer_each(history: &History) -> Result<(), Violation> {
    let mut writers: BTreeMap<(&str, ModifyIndex), OpId> = BTreeMap::new();
    for record in history.records() {
        let (Call::Read(Query::Key(key), _), Outcome::Answered(Response::Answer(answer))) =
            (&record.call, &record.outcome)
        else {
            continue;
        };
        let Some(Some((index, Some(writer)))) = seen_in(&answer.rows) else { continue };
        let known = *writers.entry((key, index)).or_insert(writer);
        if known != writer {
            let facts = format!("{key} had the values {known} and {writer} at index {index}");
            return broken("C7", facts);
        }
    }
    Ok(())
}

/// C9: while a session surely holds a key, no other one acquires it.
///
/// It surely does from the answer to its acquisition until it begins to let go of the key or to
/// end, as far as something it did later shows that it still lived: sessions do not come back.
fn one_holder_each(history: &History) -> Result<(), Violation> {
    let records = history.records();
    for (id, record) in (0..).zip(records) {
        let Some((lock, start)) = acquired(record) else { continue };
        let same = |of: &KvLock| of.key == lock.key && of.session == lock.session;
        let lets_go =
            |record: &Record| matches!(&record.call, Call::Write(KvWrite::Release(of)) if same(of));
        let Some(end) = holds_until(records, (record, start), lock.session, lets_go) else {
            continue;
        };
        let others = (0..).zip(records).find(|(_, other)| {
            acquired(other).is_some_and(|(taken, returned)| {
                let same_key = taken.key == lock.key && taken.session != lock.session;
                same_key && other.invoked > start && returned < end
            })
        });
        if let Some((other, _)) = others {
            let key = &lock.key;
            return broken("C9", format!("operation {other} acquired {key}, which {id} held"));
        }
    }
    Ok(())
}

/// C9: no more sessions surely have a place in the semaphore at one time than there are places.
///
/// One surely has it from when somebody was told so until it begins to give it back or to end, as
/// far as something shows that it still lived: nobody else gives away the place of one that lives.
fn few_have_places(history: &History) -> Result<(), Violation> {
    let records = history.records();
    let mut spans: Vec<(u64, u64, SessionId)> = Vec::new();
    for record in records {
        for session in placed(record) {
            let gives = |record: &Record| {
                change(record).is_some_and(|it| it.session == session && !it.takes)
            };
            let Some(start) = record.returned else { continue };
            let end = holds_until(records, (record, start), session, gives);
            spans.extend(end.map(|end| (start, end, session)));
        }
    }
    for (at, ..) in &spans {
        let has = |(start, end, _): &&(u64, u64, SessionId)| start <= at && at < end;
        let holders: BTreeSet<SessionId> = spans.iter().filter(has).map(|span| span.2).collect();
        if holders.len() > LIMIT {
            return broken("C9", format!("at {at} more than {LIMIT} have a place: {holders:?}"));
        }
    }
    Ok(())
}

/// What an operation acquired, and when it was told so.
fn acquired(record: &Record) -> Option<(&KvLock, u64)> {
    let Call::Write(KvWrite::Acquire(lock)) = &record.call else { return None };
    let done = record.outcome == Outcome::Answered(Response::Done);
    record.returned.filter(|_| done).map(|returned| (lock, returned))
}

/// What an operation does to the list of those that have a place.
fn change(record: &Record) -> Option<Change> {
    let Call::Write(KvWrite::Put(put)) = &record.call else { return None };
    Change::of_value(&put.value).filter(|_| put.key == semaphore::LIST)
}

/// What a look at the semaphore showed that is not stale.
fn look(record: &Record) -> Option<Look> {
    let (Call::Read(query, consistency), Outcome::Answered(Response::Answer(answer))) =
        (&record.call, &record.outcome)
    else {
        return None;
    };
    let fresh = *consistency != Consistency::Stale && semaphore::looks(query);
    Look::of_rows(&answer.rows).filter(|_| fresh)
}

/// Those of whom an operation tells that they have a place.
fn placed(record: &Record) -> Vec<SessionId> {
    let done = record.outcome == Outcome::Answered(Response::Done);
    let taken = change(record).filter(|change| done && change.takes).map(|change| change.session);
    let seen = look(record).map(Look::into_holders).unwrap_or_default();
    taken.into_iter().chain(seen).collect()
}

/// Until when a session surely keeps what it has since `start`, as its record `by` tells; `None` if
/// that is not sure at all.
fn holds_until(
    records: &[Record],
    (by, start): (&Record, u64),
    session: SessionId,
    lets_go: impl Fn(&Record) -> bool,
) -> Option<u64> {
    let ends = |record: &&Record| {
        lets_go(record) || matches!(record.call, Call::Close(ended) if ended == session)
    };
    let mut limit = u64::MAX;
    for ending in records.iter().filter(ends) {
        let is_over = match ending.outcome {
            Outcome::NotDone | Outcome::Refused | Outcome::NoSession => true,
            Outcome::Open => false,
            Outcome::Answered(Response::Unmet) => true,
            Outcome::Answered(_) => ending.returned.is_some_and(|at| at < by.invoked),
        };
        if !is_over && ending.invoked < start {
            return None;
        }
        if !is_over {
            limit = limit.min(ending.invoked);
        }
    }
    let proofs = records.iter().filter(|it| shows_alive(it, session)).map(|it| it.invoked);
    proofs.filter(|at| *at > start).max().map(|lived| lived.min(limit))
}

/// Whether an operation shows that a session lived when it was answered, if not longer.
fn shows_alive(record: &Record, session: SessionId) -> bool {
    match (&record.call, &record.outcome) {
        (Call::Renew(renewed), Outcome::Answered(Response::Answer(answer))) => {
            let gone = matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty());
            *renewed == session && !gone
        }
        (Call::Read(Query::KeyTree(prefix), _), _) if prefix == FOLDER => {
            look(record).is_some_and(|look| look.contends(session))
        }
        _ => acquired(record).is_some_and(|(taken, _)| taken.session == session),
    }
}

/// The operation as one on `key`; `None` if it is none, or says nothing.
fn on_key(key: &str, id: OpId, record: &Record) -> Option<KeyOp> {
    let believed = record.believed;
    let deed = match &record.call {
        Call::Write(KvWrite::Put(KvPut { key: of, only_at, .. })) if of == key => match only_at {
            None => Deed::Put(id),
            Some(_) => Deed::Cas(believed, id),
        },
        Call::Write(KvWrite::Delete(KvDelete { key: of, only_at })) if of == key => match only_at {
            None => Deed::Delete,
            Some(_) => Deed::DeleteCas(believed),
        },
        Call::Read(Query::Key(of), Consistency::Leader | Consistency::Consistent) if of == key => {
            Deed::Get
        }
        Call::Restore(backup) => backup.writer_at(key).map_or(Deed::Delete, Deed::Put),
        Call::Write(_)
        | Call::Read(..)
        | Call::Transaction(_)
        | Call::Save
        | Call::Open(_)
        | Call::Renew(_)
        | Call::Close(_) => return None,
    };
    let told = match &record.outcome {
        Outcome::NotDone | Outcome::Refused | Outcome::NoSession => return None,
        Outcome::Open => None,
        Outcome::Answered(Response::Unmet) => Some(Told::Unmet),
        Outcome::Answered(Response::Answer(answer)) => {
            Some(Told::Saw(seen_in(&answer.rows)?.and_then(|(_, writer)| writer)))
        }
        Outcome::Answered(_) => Some(Told::Done),
    };
    Some(KeyOp { deed, invoked: record.invoked, returned: record.returned.zip(told) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::history::value_of;
    use crate::kv::session::session_of;
    use std::sync::Arc;
    use std::time::Duration;
    use terraform_core::catalog::lock::Behavior;
    use terraform_core::catalog::query::QueryAnswer;
    use terraform_core::catalog::session::Session;
    use terraform_core::time::Instant;

    fn lock(session: u64) -> KvLock {
        let (key, value) = ("lock/a".to_owned(), value_of(0));
        KvLock { key, value, flags: 0, session: session_of(session) }
    }

    fn acquire(session: u64) -> Call {
        Call::Write(KvWrite::Acquire(lock(session)))
    }

    fn release(session: u64) -> Call {
        Call::Write(KvWrite::Release(lock(session)))
    }

    /// One operation after the other, answered so.
    fn judged(calls: &[(Call, Outcome)]) -> Result<(), Violation> {
        one_holder_each(&history_of(calls))
    }

    fn history_of(calls: &[(Call, Outcome)]) -> History {
        let mut history = History::default();
        for (id, (call, outcome)) in (0..).zip(calls) {
            history.invoke(0, (call.clone(), Instant::ZERO), None, 0);
            if *outcome != Outcome::Open {
                history.finish(id, outcome.clone());
            }
        }
        history
    }

    #[test]
    fn the_semaphore_has_no_more_holders_than_places() {
        let done = || Outcome::Answered(Response::Done);
        let renewed = |of: u64| {
            let row = Arc::new(made(of));
            let answer = QueryAnswer {
                rows: Rows::Sessions(vec![row]),
                index: ModifyIndex::new(1),
                known_leader: true,
                last_contact: Duration::ZERO,
                consistency: Consistency::Leader,
            };
            let answer = Outcome::Answered(Response::Answer(Arc::new(answer)));
            (Call::Renew(session_of(of)), answer)
        };
        let change = |of: u64, takes| {
            let (session, holders) = (session_of(of), BTreeSet::new());
            let value = Change { session, takes, holders }.value(of);
            let (key, only_at) = (semaphore::LIST.to_owned(), Some(ModifyIndex::ZERO));
            Call::Write(KvWrite::Put(KvPut { key, value, flags: 0, only_at }))
        };
        let taken = |of| (change(of, true), done());
        let judged = |calls: &[(Call, Outcome)]| few_have_places(&history_of(calls)).is_ok();
        let all = [taken(1), taken(2), taken(3)];
        assert!(judged(&all), "nothing shows that they lived");
        let live = [renewed(1), renewed(2), renewed(3)];
        assert!(!judged(&[&all[..], &live].concat()));
        assert!(judged(&[&all[..], &live[1..]].concat()), "the first one may be gone");
        let given = (change(1, false), Outcome::Open);
        let calls = [&all[..2], &[given], &all[2..], &live].concat();
        assert!(judged(&calls), "it may have been given back");
        let given = (change(1, false), Outcome::Answered(Response::Unmet));
        let calls = [&all[..2], &[given], &all[2..], &live].concat();
        assert!(!judged(&calls), "it was not");
    }

    fn made(of: u64) -> Session {
        Session {
            id: session_of(of),
            name: String::new(),
            node: NodeName::parse("n1").unwrap(),
            lock_delay: Duration::ZERO,
            behavior: Behavior::Release,
            ttl: Duration::ZERO,
            ttl_text: String::new(),
            node_checks: Vec::new(),
            service_checks: Vec::new(),
            checks: Vec::new(),
            create_index: ModifyIndex::ZERO,
        }
    }

    #[test]
    fn a_key_has_one_holder_as_long_as_that_one_lives() {
        let done = || Outcome::Answered(Response::Done);
        let first = (acquire(1), done());
        let second = (acquire(2), done());
        // Nothing shows that the first one still lived.
        assert_eq!(judged(&[first.clone(), second.clone()]), Ok(()));
        let both = [first.clone(), second.clone(), first.clone()];
        assert!(judged(&both).is_err_and(|broken| broken.rule == "C9"));
        for outcome in [done(), Outcome::Open] {
            let released = (release(1), outcome.clone());
            let calls = [first.clone(), released.clone(), second.clone(), first.clone()];
            assert_eq!(judged(&calls), Ok(()));
            // It may take effect whenever nobody was told of it.
            let calls = [released, first.clone(), second.clone(), first.clone()];
            assert_eq!(judged(&calls).is_ok(), outcome == Outcome::Open);
        }
        let refused = (release(1), Outcome::NotDone);
        assert!(judged(&[first.clone(), refused, second, first]).is_err());
    }
}
