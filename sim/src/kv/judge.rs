//! The histories of single keys, judged without the log (simulation.md §8.1, checker B).

use super::REGISTERS;
use super::history::{Call, History, OpId, Outcome, Record, seen_in};
use crate::checker::linear::{Deed, KeyOp, Told, Verdict, linearizable};
use crate::checker::{Violation, broken};
use std::collections::BTreeMap;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::query::{Consistency, Query};
use terraform_core::id::ModifyIndex;
use terraform_core::node::request::Response;

/// I12: the operations on each register fit into one order. Returns for how many registers that
/// was too much to find out.
///
/// Conditions name indexes, of which this judge knows nothing: it takes them for the values that
/// clients saw with them, once it has made sure that no index stood for two.
pub fn judge(history: &History) -> Result<usize, Violation> {
    one_writer_each(history)?;
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
