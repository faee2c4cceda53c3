//! Recorded histories with their logs, good and bad.

use super::*;
use crate::kv::history::{marker_of, value_of};
use std::sync::Arc;
use terraform_core::catalog::kv::KvPut;
use terraform_core::catalog::query::Rows;
use terraform_core::catalog::transaction::{Operation, TransactionResult, TransactionRow};
use terraform_core::id::{LogIndex, Term};

fn put(id: OpId, only_at: Option<u64>) -> KvWrite {
    let (key, value, only_at) = ("k".to_owned(), value_of(id), only_at.map(ModifyIndex::new));
    KvWrite::Put(KvPut { key, value, flags: 0, only_at })
}

fn delete() -> KvWrite {
    KvWrite::Delete(KvDelete { key: "k".to_owned(), only_at: None })
}

/// What comes with the event of this number, from 1 on.
fn entry(at: u64, command: &Command) -> Entry {
    let (index, term, kind) = (LogIndex::new(at), Term::new(1), EntryKind::Command);
    Entry { index, term, kind, payload: command.encode(), chain: 0 }
}

/// A checker that saw these commands committed, one with each event from 1 on.
fn after(commands: &[Command]) -> Result<KvChecker, Violation> {
    let mut checker = KvChecker::default();
    for (at, command) in (1..).zip(commands) {
        checker.commit(&entry(at, command), at, Instant::ZERO)?;
    }
    Ok(checker)
}

fn record(call: Call, floor: u64, outcome: Outcome) -> Record {
    let (believed, asked) = (None, Instant::ZERO);
    Record { client: 0, call, believed, floor, invoked: 1, asked, returned: Some(2), outcome }
}

fn wrote(write: KvWrite, response: Response) -> Record {
    record(Call::Write(write), 0, Outcome::Answered(response))
}

/// A read that gave what the model has after `at` commands.
fn read(checker: &KvChecker, consistency: Consistency, floor: u64, at: usize) -> Record {
    let query = Query::Key("k".to_owned());
    let (rows, index) = checker.states[at].1.answer(&query).unwrap();
    let (known_leader, last_contact) = (true, Duration::ZERO);
    let answer = QueryAnswer { rows, index, known_leader, last_contact, consistency };
    let outcome = Outcome::Answered(Response::Answer(Arc::new(answer)));
    record(Call::Read(query, consistency), floor, outcome)
}

fn rule(result: Result<(), Violation>) -> Option<&'static str> {
    result.err().map(|violation| violation.rule)
}

#[test]
fn an_acknowledged_write_is_committed_with_the_outcome_it_was_told() {
    let puts = [Command::Kv(put(0, None)), Command::Kv(put(1, Some(0)))];
    let mut checker = after(&puts).unwrap();
    assert_eq!(rule(checker.answered(0, &wrote(put(0, None), Response::Done), 1)), None);
    assert_eq!(rule(checker.answered(1, &wrote(put(1, Some(0)), Response::Unmet), 2)), None);
    let done = wrote(put(1, Some(0)), Response::Done);
    assert_eq!(rule(checker.answered(1, &done, 2)), Some("I11"), "its condition was not met");
    let lost = wrote(put(2, None), Response::Done);
    assert_eq!(rule(checker.answered(2, &lost, 2)), Some("I11"), "it is not in the log");
    let early = wrote(put(0, None), Response::Done);
    assert_eq!(rule(checker.answered(0, &early, 0)), Some("I11"), "told before it was committed");
}

#[test]
fn two_writes_on_one_condition_are_not_both_done() {
    let all = [put(0, None), put(1, Some(1)), put(2, Some(1))].map(Command::Kv);
    let mut checker = after(&all).unwrap();
    assert_eq!(rule(checker.answered(1, &wrote(put(1, Some(1)), Response::Done), 3)), None);
    let second = wrote(put(2, Some(1)), Response::Done);
    assert_eq!(rule(checker.answered(2, &second, 3)), Some("I11"));
}

#[test]
fn a_write_is_committed_at_most_once() {
    let twice = [put(0, None), put(0, None)].map(Command::Kv);
    assert_eq!(after(&twice).err().map(|violation| violation.rule), Some("I11"));
}

#[test]
fn what_was_told_not_done_is_never_committed() {
    let undone = record(Call::Write(put(0, None)), 0, Outcome::NotDone);
    let mut checker = after(&[]).unwrap();
    assert_eq!(rule(checker.answered(0, &undone, 0)), None);
    let entry = entry(1, &Command::Kv(put(0, None)));
    assert_eq!(rule(checker.commit(&entry, 1, Instant::ZERO)), Some("C11"));
    let mut checker = after(&[Command::Kv(put(0, None))]).unwrap();
    assert_eq!(rule(checker.answered(0, &undone, 1)), Some("C11"));
}

#[test]
fn a_read_shows_what_was_acknowledged_before_it_began() {
    let mut checker = after(&[put(0, None), put(1, None)].map(Command::Kv)).unwrap();
    let done = wrote(put(1, None), Response::Done);
    assert_eq!(rule(checker.answered(1, &done, 2)), None);
    let floor = checker.floor();
    assert_eq!(floor, 2);
    let fresh = read(&checker, Consistency::Leader, floor, 2);
    assert_eq!(rule(checker.answered(2, &fresh, 3)), None);
    let stale = read(&checker, Consistency::Leader, floor, 1);
    assert_eq!(rule(checker.answered(3, &stale, 3)), Some("I12"));
    let may_be_stale = read(&checker, Consistency::Stale, 1, 1);
    assert_eq!(rule(checker.answered(4, &may_be_stale, 3)), None);
    let below_its_server = read(&checker, Consistency::Stale, 2, 1);
    assert_eq!(rule(checker.answered(5, &below_its_server, 3)), Some("C6"));
    let of_the_future = read(&checker, Consistency::Stale, 0, 2);
    assert_eq!(rule(checker.answered(6, &of_the_future, 1)), Some("C6"), "not committed yet");
}

#[test]
fn what_one_read_showed_no_later_read_misses() {
    let mut checker = after(&[put(0, None), put(1, None)].map(Command::Kv)).unwrap();
    let new = read(&checker, Consistency::Consistent, 0, 2);
    assert_eq!(rule(checker.answered(2, &new, 2)), None);
    let old = read(&checker, Consistency::Leader, checker.floor(), 1);
    assert_eq!(rule(checker.answered(3, &old, 2)), Some("I12"));
}

#[test]
fn an_answer_has_the_models_index() {
    let mut checker = after(&[Command::Kv(put(0, None))]).unwrap();
    let mut wrong = read(&checker, Consistency::Leader, 0, 1);
    let Outcome::Answered(Response::Answer(answer)) = &mut wrong.outcome else { panic!() };
    Arc::make_mut(answer).index = ModifyIndex::new(7);
    assert_eq!(rule(checker.answered(1, &wrong, 1)), Some("C7"));
}

#[test]
fn a_transaction_is_told_what_the_model_gives() {
    let check = Operation::Get("k".to_owned());
    let all = vec![marker_of(1), check, Operation::Write(put(1, None))];
    let commands = [Command::Kv(put(0, None)), Command::Transaction(all.clone())];
    let mut checker = after(&commands).unwrap();
    let told = |result| {
        let outcome = Outcome::Answered(Response::Transaction(result));
        record(Call::Transaction(all.clone()), 0, outcome)
    };
    let query = Query::Key("k".to_owned());
    let Some((Rows::Entries(before), _)) = checker.states[1].1.answer(&query) else { panic!() };
    let Some((Rows::Entries(after), _)) = checker.states[2].1.answer(&query) else { panic!() };
    let mut written = (*after[0]).clone();
    written.value = bytes::Bytes::new();
    let both = vec![before[0].clone(), Arc::new(written)];
    let done = |entries: Vec<_>| {
        TransactionResult::Done(entries.into_iter().map(TransactionRow::Entry).collect())
    };
    let right = told(done(both));
    assert_eq!(rule(checker.answered(1, &right, 2)), None);
    let wrong = told(done(after));
    assert_eq!(rule(checker.answered(1, &wrong, 2)), Some("I11"));
    let wrong = told(TransactionResult::Failed(Vec::new()));
    assert_eq!(rule(checker.answered(1, &wrong, 2)), Some("I11"));
}

#[test]
fn deletions_are_counted() {
    let commands = [Command::Kv(put(0, None)), Command::Kv(delete())];
    let call = Call::Write(delete());
    let history = |outcomes: &[Outcome]| {
        let mut history = History::default();
        for (id, outcome) in (0..).zip(outcomes) {
            history.invoke(0, (call.clone(), Instant::ZERO), None, 0);
            history.finish(id, outcome.clone());
        }
        history
    };
    let done = || Outcome::Answered(Response::Done);
    let mut checker = after(&commands).unwrap();
    assert_eq!(rule(checker.answered(1, &wrote(delete(), Response::Done), 2)), None);
    let early = wrote(delete(), Response::Done);
    assert_eq!(rule(checker.answered(1, &early, 1)), Some("I11"), "not committed yet");
    assert_eq!(rule(checker.at_end(&history(&[done()]))), None);
    assert_eq!(rule(checker.at_end(&history(&[Outcome::Open, Outcome::Open]))), None);
    assert_eq!(rule(checker.at_end(&history(&[done(), done()]))), Some("I11"), "one is missing");
    assert_eq!(rule(checker.at_end(&history(&[Outcome::NotDone]))), Some("C11"));
}

/// A checker that saw a key stored, and deleted at index 2, where that is remembered for 10 s.
fn after_a_deletion() -> KvChecker {
    let mut checker = after(&[put(0, None), delete()].map(Command::Kv)).unwrap();
    checker.deletions_last(Duration::from_secs(10));
    checker
}

#[test]
fn no_deletion_is_forgotten_before_its_time() {
    let forgotten = |up_to, seconds| {
        let reap = Command::ReapTombstones(ModifyIndex::new(up_to));
        let now = Instant::ZERO + Duration::from_secs_f64(seconds);
        rule(after_a_deletion().commit(&entry(3, &reap), 3, now))
    };
    assert_eq!(forgotten(2, 9.9), Some("C7"));
    assert_eq!(forgotten(7, 9.9), Some("C7"), "it is below the index");
    assert_eq!(forgotten(1, 9.9), None, "it is remembered");
    assert_eq!(forgotten(2, 9.995), None, "the clock of the leader is fast");
    assert_eq!(forgotten(2, 10.0), None);
}

#[test]
fn an_index_goes_back_only_where_a_deletion_that_gave_it_is_forgotten() {
    let tree = |prefix: &str| Query::KeyTree(prefix.to_owned());
    let mut checker = after_a_deletion();
    let back = |checker: &KvChecker, query: &Query, index, event| {
        checker.may_go_back(query, ModifyIndex::new(index), event)
    };
    assert!(!back(&checker, &tree("k"), 2, 9), "it is remembered");
    let now = Instant::ZERO + Duration::from_secs(10);
    let reap = Command::ReapTombstones(ModifyIndex::new(2));
    assert_eq!(rule(checker.commit(&entry(3, &reap), 3, now)), None);
    assert!(back(&checker, &tree("k"), 2, 3));
    assert!(back(&checker, &tree("k"), 1, 3), "the deletion was newer than what is asked from");
    assert!(!back(&checker, &tree("k"), 2, 2), "not forgotten yet");
    assert!(!back(&checker, &tree("k"), 3, 3), "something else gave that index");
    assert!(!back(&checker, &tree("l"), 2, 3), "it was under another prefix");
    assert!(!back(&checker, &tree(""), 2, 3), "the index of everything never goes back");
    assert!(!back(&checker, &Query::Key("k".to_owned()), 2, 3));
}
