//! The histories of single keys and of locks, judged without the log (simulation.md §8.1, checker
//! B).

use super::REGISTERS;
use super::history::{Call, History, OpId, Outcome, Record, seen_in};
use crate::checker::linear::{Deed, KeyOp, Told, Verdict, linearizable};
use crate::checker::{Violation, broken};
use std::collections::BTreeMap;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::query::{Consistency, Query, Rows};
use terraform_core::id::ModifyIndex;
use terraform_core::node::request::Response;

/// I12: the operations on each register fit into one order. Returns for how many registers that
/// was too much to find out.
///
/// Conditions name indexes, of which this judge knows nothing: it takes them for the values that
/// clients saw with them, once it has made sure that no index stood for two.
pub fn judge(history: &History) -> Result<usize, Violation> {
    one_writer_each(history)?;
    one_holder_each(history)?;
    let mut undecided = 0;
    for key in REGISTERS {
        let operations: Vec<KeyOp> = (0..)
            .zip(history.records())
            .filter_map(|(id, record)| on_key(key, id, record))
            .collect();
        match linearizable(&operations) {
            Verdict::Legal => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Illegal(stuck) => {
                let facts = format!("no order explains all operations on {key}: {stuck}");
                return broken("I12", facts);
            }
        }
    }
    Ok(undecided)
}

/// C7: an index that clients saw an entry with stands for one write.
fn one_writer_each(history: &History) -> Result<(), Violation> {
    let mut writers: BTreeMap<ModifyIndex, OpId> = BTreeMap::new();
    for record in history.records() {
        let (Call::Read(Query::Key(key), _), Outcome::Answered(Response::Answer(answer))) =
            (&record.call, &record.outcome)
        else {
            continue;
        };
        let Some(Some((index, Some(writer)))) = seen_in(&answer.rows) else { continue };
        let known = *writers.entry(index).or_insert(writer);
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
    // A backup takes sessions and locks away without a word.
    let restores = |record: &Record| matches!(record.call, Call::Restore(_));
    if records.iter().any(restores) {
        return Ok(());
    }
    for (id, record) in (0..).zip(records) {
        let Some((lock, start)) = acquired(record) else { continue };
        let Some(end) = holds_until(records, (record, lock), start) else { continue };
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

/// What an operation acquired, and when it was told so.
fn acquired(record: &Record) -> Option<(&KvLock, u64)> {
    let Call::Write(KvWrite::Acquire(lock)) = &record.call else { return None };
    let done = record.outcome == Outcome::Answered(Response::Done);
    record.returned.filter(|_| done).map(|returned| (lock, returned))
}

/// Until when what was acquired is surely held; `None` if that is not sure at all.
fn holds_until(records: &[Record], (by, lock): (&Record, &KvLock), start: u64) -> Option<u64> {
    let lets_go = |record: &&Record| match &record.call {
        Call::Write(KvWrite::Release(of)) => of.key == lock.key && of.session == lock.session,
        Call::Close(session) => *session == lock.session,
        Call::Write(_)
        | Call::Transaction(_)
        | Call::Restore(_)
        | Call::Read(..)
        | Call::Open(_)
        | Call::Renew(_) => false,
    };
    let mut limit = u64::MAX;
    for ending in records.iter().filter(lets_go) {
        let is_over = match ending.outcome {
            Outcome::NotDone | Outcome::Refused => true,
            Outcome::Open => false,
            Outcome::Answered(_) => ending.returned.is_some_and(|at| at < by.invoked),
        };
        if !is_over && ending.invoked < start {
            return None;
        }
        if !is_over {
            limit = limit.min(ending.invoked);
        }
    }
    let lived = |record: &&Record| match (&record.call, &record.outcome) {
        (Call::Renew(session), Outcome::Answered(Response::Answer(answer))) => {
            let gone = matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty());
            *session == lock.session && !gone
        }
        _ => acquired(record).is_some_and(|(taken, _)| taken.session == lock.session),
    };
    let proofs = records.iter().filter(lived).map(|record| record.invoked);
    proofs.filter(|at| *at > start).max().map(|lived| lived.min(limit))
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
        Call::Restore(backup) if backup.holds(key) => Deed::Put(id),
        Call::Restore(_) => Deed::Delete,
        Call::Write(_)
        | Call::Read(..)
        | Call::Transaction(_)
        | Call::Open(_)
        | Call::Renew(_)
        | Call::Close(_) => return None,
    };
    let told = match &record.outcome {
        Outcome::NotDone | Outcome::Refused => return None,
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
        let mut history = History::default();
        for (id, (call, outcome)) in (0..).zip(calls) {
            history.invoke(0, (call.clone(), Instant::ZERO), None, 0);
            if *outcome != Outcome::Open {
                history.finish(id, outcome.clone());
            }
        }
        one_holder_each(&history)
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
