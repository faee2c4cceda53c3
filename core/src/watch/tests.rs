//! Who is woken by what, against the rule itself: whoever has less than the index of the answer.

use super::*;
use crate::catalog::command::Command;
use crate::catalog::kv::{KeyList, KvDelete, KvPut, KvWrite};
use crate::catalog::model::CheckStatus;
use crate::catalog::overview::Overview;
use crate::catalog::query::{
    Consistency, DatacenterCoordinates, NodeChecksQuery, NodeQuery, NodesQuery, QueryAnswer,
    ServiceQuery, StateQuery,
};
use crate::catalog::tests::restore::restore;
use crate::catalog::tests::{check, deregister, node, register, registration, service};
use crate::filter::Filter;
use crate::id::{Datacenter, LogIndex, NodeName, ServiceName, Term};
use crate::node::request::{RequestBody, RequestContext};
use crate::view::{ConsensusView, ServerState, answer_now};
use bytes::Bytes;
use proptest::prelude::*;

/// The index that `query` is answered with.
fn index_of(tables: &Tables, query: &Query) -> ModifyIndex {
    answer_to(tables, query).index
}

fn answer_to(tables: &Tables, query: &Query) -> QueryAnswer {
    let consensus = ConsensusView::of_new_leader(Term::ZERO);
    let datacenters = [DatacenterCoordinates::unknown(Datacenter::parse("dc1").unwrap())];
    let state = ServerState { tables, consensus: &consensus, datacenters: &datacenters };
    answer_now(state, query, Consistency::Stale, Instant::ZERO)
}

fn park(watches: &mut Watches, tables: &Tables, number: u64, query: &Query, has: ModifyIndex) {
    let context = RequestContext { min_index: has, ..RequestContext::default() };
    let request = Arc::new(Request { context, body: RequestBody::Query(query.clone()) });
    let until = Instant::from_nanos(1_000 + number);
    watches.park(Parked { ticket: Ticket(number), request, until }, query, tables);
}

/// Takes those that a look at `tables` wakes.
fn woken(watches: &mut Watches, tables: &Tables) -> Vec<u64> {
    let mut tickets = Vec::new();
    for query in watches.look(tables) {
        let taken = watches.take_older(&query, index_of(tables, &query), tables);
        tickets.extend(taken.iter().map(|parked| parked.ticket.0));
    }
    tickets.sort_unstable();
    tickets
}

fn put(tables: &mut Tables, index: u64, key: &str) {
    let (key, value) = (key.to_owned(), Bytes::copy_from_slice(&index.to_be_bytes()));
    let put = KvPut { key, value, flags: 0, only_at: None };
    tables.apply(LogIndex::new(index), Command::Kv(KvWrite::Put(put))).unwrap();
}

fn key(key: &str) -> Query {
    Query::Key(key.to_owned())
}

fn tree(prefix: &str) -> Query {
    Query::KeyTree(prefix.to_owned())
}

#[test]
fn a_change_wakes_those_it_concerns_and_no_others() {
    let mut tables = Tables::default();
    for (index, name) in (1..).zip(["a/b", "a/c", "x"]) {
        put(&mut tables, index, name);
    }
    let mut watches = Watches::default();
    let queries = [key("a/b"), key("a/c"), tree("a/"), tree("a"), tree("x"), tree(""), key("no")];
    for (number, query) in (1..).zip(&queries) {
        park(&mut watches, &tables, number, query, index_of(&tables, query));
    }
    assert_eq!(woken(&mut watches, &tables), [0_u64; 0]);
    put(&mut tables, 4, "a/b");
    // A key that is missing has the index of the whole table.
    assert_eq!(woken(&mut watches, &tables), [1, 3, 4, 6, 7]);
    put(&mut tables, 5, "xx");
    assert_eq!(woken(&mut watches, &tables), [5]);
    assert_eq!((watches.len(), watches.concerned.len()), (1, 1));
    watches.remove(Ticket(2));
    assert!(watches.is_empty() && watches.groups.is_empty() && watches.concerned.is_empty());
    assert!(watches.prefix_lengths.is_empty() && watches.next_timeout().is_none());
}

#[test]
fn what_was_stored_and_deleted_between_two_looks_wakes() {
    let mut tables = Tables::default();
    put(&mut tables, 1, "a/b");
    let mut watches = Watches::default();
    park(&mut watches, &tables, 1, &tree("a/"), ModifyIndex::new(1));
    put(&mut tables, 2, "a/c");
    let delete = KvDelete { key: "a/c".to_owned(), only_at: None };
    tables.apply(LogIndex::new(3), Command::Kv(KvWrite::Delete(delete))).unwrap();
    assert_eq!(woken(&mut watches, &tables), [1]);
}

#[test]
fn a_prefix_whose_last_tombstone_is_forgotten_wakes_with_the_index_of_the_table() {
    let mut tables = Tables::default();
    put(&mut tables, 1, "a/b");
    let delete = KvDelete { key: "a/b".to_owned(), only_at: None };
    tables.apply(LogIndex::new(2), Command::Kv(KvWrite::Delete(delete))).unwrap();
    put(&mut tables, 3, "x");
    let mut watches = Watches::default();
    park(&mut watches, &tables, 1, &tree("a/"), ModifyIndex::new(2));
    let reap = Command::ReapTombstones(ModifyIndex::new(2));
    tables.apply(LogIndex::new(4), reap).unwrap();
    assert_eq!(index_of(&tables, &tree("a/")).get(), 3);
    assert_eq!(woken(&mut watches, &tables), [1]);
}

#[test]
fn those_that_ask_the_same_are_woken_by_what_each_has() {
    let mut tables = Tables::default();
    put(&mut tables, 1, "a");
    let mut watches = Watches::default();
    for (number, has) in [(1, 1), (2, 7), (3, 1)] {
        park(&mut watches, &tables, number, &key("a"), ModifyIndex::new(has));
    }
    assert_eq!(watches.groups.len(), 1);
    put(&mut tables, 5, "a");
    assert_eq!(woken(&mut watches, &tables), [1, 3]);
    put(&mut tables, 8, "a");
    assert_eq!(woken(&mut watches, &tables), [2]);
}

#[test]
fn a_read_waits_until_its_deadline() {
    let (mut watches, tables) = (Watches::default(), Tables::default());
    for number in [1, 2] {
        park(&mut watches, &tables, number, &key("a"), ModifyIndex::new(9));
    }
    assert_eq!(watches.next_timeout(), Some(Instant::from_nanos(1_001)));
    let due = watches.take_due(Instant::from_nanos(1_001));
    assert_eq!(due.iter().map(|parked| parked.ticket).collect::<Vec<_>>(), [Ticket(1)]);
    assert_eq!(watches.len(), 1);
    assert_eq!(watches.take_if(|_| true).len(), 1);
    assert!(watches.is_empty());
}

/// All nodes but one.
fn nodes_but(name: &str, near: Option<NodeName>) -> Query {
    let filter = Some(Filter::parse(&format!("Node != {name}")).unwrap());
    Query::Nodes(NodesQuery { filter, near, ..NodesQuery::default() })
}

#[test]
fn reads_of_the_same_filter_and_order_wait_together_for_what_all_rows_need() {
    let (tables, mut watches) = (Tables::default(), Watches::default());
    let near = NodeName::parse("n2").ok();
    for number in 1..=2 {
        park(&mut watches, &tables, number, &nodes_but("n1", near.clone()), ModifyIndex::new(1));
    }
    assert_eq!((watches.groups.len(), watches.len()), (1, 2));
    park(&mut watches, &tables, 3, &nodes_but("n1", None), ModifyIndex::new(1));
    assert_eq!((watches.groups.len(), watches.len()), (2, 3));
    let all = tables.topics(&Query::Nodes(NodesQuery::default()));
    assert!(watches.groups.values().all(|group| group.topics == all));
}

/// Everything that may be waited for, over few names.
fn queries() -> Vec<Query> {
    let name = |name: &str| NodeName::parse(name).unwrap();
    let service = |name: &str| ServiceName::parse(name).unwrap();
    let keys = KeyList { prefix: "a".to_owned(), separator: "/".to_owned() };
    vec![
        key("a"),
        key("a/b"),
        tree("a/"),
        tree("b"),
        tree(""),
        Query::Keys(keys),
        Query::Nodes(NodesQuery::default()),
        nodes_but("n1", None),
        Query::Node(NodeQuery::all("n1")),
        Query::Services(Vec::new()),
        Query::Services(vec![("k".to_owned(), "v".to_owned())]),
        Query::ServiceNodes(ServiceQuery::all(service("web"))),
        Query::ServiceHealth(ServiceQuery::all(service("WEB"))),
        Query::ServiceHealth(ServiceQuery::all(service("db"))),
        Query::ServiceChecks(ServiceQuery::all(service("web"))),
        Query::NodeChecks(NodeChecksQuery::all(name("n1"))),
        Query::ChecksInState(StateQuery::all("any")),
        Query::Overview(Overview::Nodes(None)),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Put(String),
    Delete(String),
    DeleteTree(String),
    Register(u8, Option<&'static str>, Option<bool>),
    Deregister(u8, Option<&'static str>),
}

fn any_change() -> impl Strategy<Value = Change> {
    let key = "[ab](/[ab])?";
    let services = proptest::option::of(prop_oneof![Just("web"), Just("db")]);
    prop_oneof![
        3 => key.prop_map(Change::Put),
        2 => key.prop_map(Change::Delete),
        1 => "[ab]?/?".prop_map(Change::DeleteTree),
        3 => (1..4_u8, services.clone(), proptest::option::of(any::<bool>()))
            .prop_map(|(on, of, status)| Change::Register(on, of, status)),
        2 => (1..4_u8, services).prop_map(|(on, of)| Change::Deregister(on, of)),
    ]
}

fn apply(tables: &mut Tables, index: u64, change: &Change) {
    let at = LogIndex::new(index);
    match change {
        Change::Put(key) => put(tables, index, key),
        Change::Delete(key) => {
            let delete = KvDelete { key: key.clone(), only_at: None };
            tables.apply(at, Command::Kv(KvWrite::Delete(delete))).unwrap();
        }
        Change::DeleteTree(prefix) => {
            tables.apply(at, Command::Kv(KvWrite::DeleteTree(prefix.clone()))).unwrap();
        }
        Change::Register(on, of, status) => {
            let name = format!("n{on}");
            let mut wanted = registration(node(&name, None));
            wanted.node.address = format!("10.0.0.{}", index % 3);
            wanted.service = of.map(|of| service(of, of));
            if let Some(passes) = status {
                let status = if *passes { CheckStatus::Passing } else { CheckStatus::Critical };
                wanted.checks = vec![check(&name, "c", *of, status)];
            }
            register(tables, index, wanted).unwrap();
        }
        Change::Deregister(on, of) => deregister(tables, index, &format!("n{on}"), *of, None),
    }
}

proptest! {
    #[test]
    fn after_each_look_those_wait_whose_index_has_not_grown(
        batches in proptest::collection::vec(proptest::collection::vec(any_change(), 1..4), 1..12),
    ) {
        let (mut tables, mut watches) = (Tables::default(), Watches::default());
        let (mut index, mut number) = (0, 0);
        for batch in batches {
            // All that are not waiting wait again for something newer than they see now.
            let groups = watches.groups.keys();
            let waiting: Vec<Query> = groups.map(|query| (**query).clone()).collect();
            for query in queries().iter().filter(|query| !waiting.contains(query)) {
                number += 1;
                let has = index_of(&tables, query);
                park(&mut watches, &tables, number, query, has);
            }
            for change in &batch {
                index += 1;
                apply(&mut tables, index, change);
            }
            woken(&mut watches, &tables);
            for group in watches.groups.values() {
                for parked in group.parked.values() {
                    let RequestBody::Query(query) = &parked.request.body else { panic!() };
                    let has = parked.request.context.min_index;
                    prop_assert!(index_of(&tables, query) <= has, "{:?} sleeps", query);
                }
            }
        }
    }

    /// INV-RESTORE-1.
    #[test]
    fn a_restore_wakes_everybody_and_takes_no_index_back(
        here in proptest::collection::vec(any_change(), 0..20),
        there in proptest::collection::vec(any_change(), 0..20),
        first in prop_oneof![Just(1_u64), 1..60_u64, Just(1_000)],
        after in proptest::collection::vec(any_change(), 1..8),
        twice: bool,
    ) {
        let (mut tables, mut backup) = (Tables::default(), Tables::default());
        for (index, change) in (1..).zip(&here) {
            apply(&mut tables, index, change);
        }
        for (index, change) in (first..).zip(&there) {
            apply(&mut backup, index, change);
        }
        let mut index = here.len() as u64 + 1;
        for _ in 0..=u8::from(twice) {
            let mut watches = Watches::default();
            for (number, query) in (1..).zip(&queries()) {
                park(&mut watches, &tables, number, query, index_of(&tables, query));
            }
            index = 1 + restore(&mut tables, index, &backup);
            let all: Vec<u64> = (1..).zip(&queries()).map(|(number, _)| number).collect();
            prop_assert_eq!(woken(&mut watches, &tables), all);
            prop_assert!(watches.is_empty());
        }
        // What is written from then on is seen by whoever has the index of the restore.
        for change in &after {
            let before = tables.clone();
            apply(&mut tables, index, change);
            index += 1;
            // A node that is missing has no index of its own.
            for query in queries().iter().filter(|query| !matches!(query, Query::Node(_))) {
                let (was, is) = (answer_to(&before, query), answer_to(&tables, query));
                prop_assert!(is.index > was.index || is.rows == was.rows, "{:?}", query);
            }
        }
    }
}
