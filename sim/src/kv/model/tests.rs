//! The model against the table that ships, with commands no world has time for.

use super::*;
use crate::kv::backup::Backup;
use proptest::prelude::*;
use std::time::Duration;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::Registration;
use terraform_core::catalog::lock::LockDelayEnd;
use terraform_core::catalog::model::Node;
use terraform_core::catalog::query::Consistency;
use terraform_core::catalog::transaction::IndexCheck;
use terraform_core::id::{LogIndex, NodeName, Term};
use terraform_core::time::Instant;
use terraform_core::view::{ConsensusView, ServerState, answer_now};

fn any_index() -> impl Strategy<Value = ModifyIndex> {
    (0..24_u64).prop_map(ModifyIndex::new)
}

fn any_key() -> impl Strategy<Value = String> {
    "[ab](/[ab]){0,2}"
}

fn any_write() -> impl Strategy<Value = KvWrite> {
    let only_at = || proptest::option::of(any_index());
    prop_oneof![
        4 => (any_key(), "[xy]", 0..2_u64, only_at()).prop_map(|(key, value, flags, only_at)| {
            KvWrite::Put(KvPut { key, value: value.into(), flags, only_at })
        }),
        2 => (any_key(), only_at())
            .prop_map(|(key, only_at)| KvWrite::Delete(KvDelete { key, only_at })),
        1 => "[ab]/?".prop_map(KvWrite::DeleteTree),
        3 => any_lock().prop_map(KvWrite::Acquire),
        1 => any_lock().prop_map(KvWrite::Release),
    ]
}

fn session_id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn any_lock() -> impl Strategy<Value = KvLock> {
    ("[ab]", "[xy]", 1..4_u8).prop_map(|(key, value, number)| KvLock {
        key,
        value: value.into(),
        flags: 0,
        session: session_id(number),
    })
}

/// A session of `n1`, with a delay or with deletions.
fn session(number: u8) -> Session {
    Session {
        id: session_id(number),
        name: String::new(),
        node: NodeName::parse("n1").expect("it is a name"),
        lock_delay: Duration::from_secs(u64::from(number % 2)),
        behavior: if number > 1 { Behavior::Delete } else { Behavior::Release },
        ttl: Duration::ZERO,
        ttl_text: String::new(),
        node_checks: Vec::new(),
        service_checks: Vec::new(),
        checks: Vec::new(),
        create_index: ModifyIndex::ZERO,
    }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => any_write().prop_map(Operation::Write),
        1 => any_key().prop_map(Operation::Get),
        1 => "[ab]?/?".prop_map(Operation::GetTree),
        1 => (any_key(), any_index())
            .prop_map(|(key, index)| Operation::CheckIndex(IndexCheck { key, index })),
        1 => any_key().prop_map(Operation::CheckNotExists),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_write().prop_map(Command::Kv),
        3 => proptest::collection::vec(any_operation(), 1..4).prop_map(Command::Transaction),
        1 => any_index().prop_map(Command::ReapTombstones),
        1 => (1..4_u8).prop_map(|number| Command::EndSessions(vec![session_id(number)])),
        1 => (1..4_u8).prop_map(|number| Command::CreateSession(Box::new(session(number)))),
        1 => ("[ab]", any_index()).prop_map(|(key, since)| {
            Command::EndLockDelays(vec![LockDelayEnd { key: key.into(), since }])
        }),
    ]
}

fn node() -> Command {
    let node = Node {
        id: None,
        name: NodeName::parse("n1").expect("it is a name"),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let (service, checks) = (None, Vec::new());
    let registration = Registration { node, skip_node_update: false, service, checks };
    Command::Register(Box::new(registration))
}

fn questions() -> Vec<Query> {
    let list = |prefix: &str, separator: &str| {
        Query::Keys(KeyList { prefix: prefix.to_owned(), separator: separator.to_owned() })
    };
    let all = ["a", "b", "a/a", "b/a/b"].map(str::to_owned);
    let trees = ["", "a", "a/", "b/a", "c"];
    let gets = all.clone().map(Operation::Get).to_vec();
    let keys = all.into_iter().map(Query::Key);
    let trees = trees.iter().flat_map(|prefix| {
        [Query::KeyTree((*prefix).to_owned()), list(prefix, ""), list(prefix, "/")]
    });
    keys.chain(trees).chain([Query::Transaction(gets)]).collect()
}

fn consensus() -> ConsensusView {
    ConsensusView::of_new_leader(Term::ZERO)
}

proptest! {
    #[test]
    fn the_model_and_the_table_are_one(
        commands in proptest::collection::vec(any_command(), 1..24),
    ) {
        let (mut model, mut tables, consensus) = (Model::default(), Tables::default(), consensus());
        let mut at = 0;
        for (number, command) in (0..).zip(commands) {
            if number % 5 == 0 {
                at += 1;
                // A backup takes the node away.
                tables.apply(LogIndex::new(at), node()).expect("a node is registered");
            }
            at += 1;
            let before = tables.session_map().clone();
            let expected = model.apply(at, &command);
            let done = tables.apply(LogIndex::new(at), command.clone()).ok();
            let after = tables.session_map();
            let begun = after.iter().filter(|(key, _)| !before.contains_key(*key));
            begun.for_each(|(_, session)| model.begin(session.id));
            let ended = before.iter().filter(|(key, _)| !after.contains_key(*key));
            ended.for_each(|(_, session)| model.end(at, session));
            let expected = expected.unwrap_or_else(|| done.clone());
            match (&done, &expected) {
                (Some(Applied::Transaction(done)), Some(Applied::Transaction(model))) => {
                    prop_assert!(same_result(done, model), "{:?}: {:?} {:?}", command, done, model);
                }
                _ => prop_assert_eq!(&done, &expected, "{:?}", command),
            }
            if number % 5 == 4 {
                let foreign = Foreign::new(number, vec!["a".to_owned(), "a/b".to_owned()]);
                let backup = Backup::Foreign(foreign.clone());
                for command in [backup.step(0), backup.commit()] {
                    at += 1;
                    let done = tables.apply(LogIndex::new(at), command);
                    prop_assert_eq!(done, Ok(Applied::Done));
                }
                model = model.restored(at, &foreign);
            }
            let state = ServerState { tables: &tables, consensus: &consensus, datacenters: &[] };
            for query in questions() {
                let told = answer_now(state, &query, Consistency::Leader, Instant::ZERO);
                let (rows, index) = model.answer(&query).expect("it is about keys");
                prop_assert!(same_rows(&told.rows, &rows), "{:?}: {:?} {:?}", query, told, rows);
                prop_assert_eq!(told.index, index, "{:?} after {:?}", query, command);
            }
        }
    }
}
