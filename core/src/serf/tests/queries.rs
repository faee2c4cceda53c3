//! Queries in small clusters.

use crate::gossip::tests::cluster::{Cluster, address, host_name};
use crate::gossip::tests::{name, timers};
use crate::gossip::{GossipInput, JoinId};
use crate::id::{LamportTime, NodeName};
use crate::serf::{QueryOutcome, QueryParameters, SerfInput, SerfRefusal, SerfReply, SerfRequest};
use crate::wire::serf::{Query, QueryFilter, SerfMessage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

fn parameters(text: &str) -> QueryParameters {
    QueryParameters { name: text.to_owned(), ..QueryParameters::default() }
}

fn ask(cluster: &mut Cluster, index: usize, parameters: QueryParameters) {
    cluster.ask(index, SerfRequest::Query(Box::new(parameters)));
}

/// Members that answer with their number.
fn answering(count: usize, seed: u64) -> Cluster {
    let mut cluster = Cluster::joined(count, seed);
    for (index, seat) in cluster.seats.iter_mut().enumerate() {
        seat.says = Some(Bytes::from(index.to_string()));
    }
    cluster
}

/// The outcome of the query that `index` asked last.
fn outcome(cluster: &mut Cluster, index: usize) -> QueryOutcome {
    let reply = cluster.seats[index].replies.pop().unwrap();
    let Ok(SerfReply::Query(outcome)) = reply else { panic!("{reply:?}") };
    outcome
}

fn names(indices: &[usize]) -> Vec<NodeName> {
    indices.iter().map(|index| name(&host_name(*index))).collect()
}

#[test]
fn a_query_gathers_one_answer_and_one_acknowledgement_of_every_member() {
    for seed in 0..5 {
        let mut cluster = answering(6, seed);
        ask(&mut cluster, 2, QueryParameters { acknowledge: true, ..parameters("load") });
        cluster.run_for(Duration::from_millis(3100));
        assert_eq!(cluster.seats[2].replies.len(), 0, "its time is not over");
        // Whoever asked is told of each as it comes, once.
        let told = std::mem::take(&mut cluster.seats[2].told);
        let (acks, answers): (Vec<_>, Vec<_>) = told.iter().partition(|one| one.answer.is_none());
        assert_eq!((acks.len(), answers.len()), (6, 6));
        cluster.run(1);
        let outcome = outcome(&mut cluster, 2);
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(outcome.acks.into_iter().collect::<Vec<_>>(), names(&all));
        assert_eq!(outcome.answers.len(), 6);
        for index in all {
            let answer = &outcome.answers[&name(&host_name(index))];
            assert_eq!(**answer, *index.to_string().as_bytes());
            assert_eq!(cluster.seats[index].asked, [("load".to_owned(), Bytes::new())]);
        }
    }
}

#[test]
fn only_members_that_every_filter_matches_are_asked() {
    let mut cluster = answering(4, 1);
    let set = BTreeMap::from([("zone".to_owned(), "east-1".to_owned())]);
    for index in [1, 2] {
        cluster.ask(index, SerfRequest::EditTags { delete: Vec::new(), set: set.clone() });
    }
    cluster.run(5);
    let tags = BTreeMap::from([("zone".to_owned(), "^east".to_owned())]);
    let nodes = names(&[0, 2]);
    ask(&mut cluster, 0, QueryParameters { tags, nodes, ..parameters("where") });
    cluster.run(5);
    let outcome = outcome(&mut cluster, 0);
    assert!(outcome.acks.is_empty(), "nobody asked for them");
    assert_eq!(outcome.answers.into_keys().collect::<Vec<_>>(), names(&[2]));
    assert!(cluster.seats[1].asked.is_empty());
}

#[test]
fn an_answer_comes_through_relays_where_the_direct_way_is_cut() {
    let mut cluster = answering(5, 3);
    cluster.cut_datagrams(0, 4);
    for relay_factor in [0, 3] {
        cluster.seats.iter_mut().for_each(|seat| seat.asked.clear());
        let timeout = Some(Duration::from_secs(2));
        ask(&mut cluster, 0, QueryParameters { relay_factor, timeout, ..parameters("load") });
        cluster.run(3);
        // Gossip reaches every member with a high probability only.
        let asked = |index: &usize| !cluster.seats[*index].asked.is_empty();
        let mut expected: Vec<usize> = (0..5).filter(asked).collect();
        assert!(expected.contains(&4));
        if relay_factor == 0 {
            expected.retain(|index| *index != 4);
        }
        let answers = outcome(&mut cluster, 0).answers;
        assert_eq!(answers.into_keys().collect::<Vec<_>>(), names(&expected));
    }
}

#[test]
fn an_answer_too_large_for_a_datagram_arrives_over_a_stream() {
    let mut cluster = answering(3, 3);
    let large = Bytes::from(vec![7; 60_000]);
    cluster.seats[1].says = Some(large.clone());
    cluster.seats[2].says = Some(Bytes::from(vec![7; 66_000]));
    ask(&mut cluster, 0, parameters("dump"));
    cluster.run(5);
    let outcome = outcome(&mut cluster, 0);
    assert_eq!(outcome.answers.get(&name(&host_name(1))), Some(&large));
    assert_eq!(outcome.answers.get(&name(&host_name(2))), None);
    let refused = cluster.seats[2].said.pop().unwrap().unwrap_err();
    assert!(matches!(refused, SerfRefusal::AnswerTooLarge { over } if over > 464), "{refused}");
    assert!(cluster.seats[1].sent.1 <= 1400, "no datagram is too large");
}

#[test]
fn a_query_is_answered_once_and_only_before_its_deadline() {
    let mut cluster = Cluster::joined(2, 1);
    ask(&mut cluster, 0, parameters("first"));
    cluster.run(1);
    let answer = |number| SerfRequest::AnswerQuery {
        query: crate::serf::QueryId(number),
        payload: Bytes::from_static(b"x"),
    };
    let try_answer = |cluster: &mut Cluster, number| {
        cluster.ask(1, answer(number));
        cluster.seats[1].replies.pop().unwrap()
    };
    assert_eq!(try_answer(&mut cluster, 1), Ok(SerfReply::Done));
    assert_eq!(try_answer(&mut cluster, 1), Err(SerfRefusal::AlreadyAnswered));
    assert_eq!(try_answer(&mut cluster, 2), Err(SerfRefusal::UnknownQuery));
    cluster.run(5);
    assert_eq!(outcome(&mut cluster, 0).answers.len(), 1);
    ask(&mut cluster, 0, parameters("second"));
    cluster.run(5);
    assert_eq!(try_answer(&mut cluster, 2), Err(SerfRefusal::TooLate));
}

#[test]
fn a_query_that_breaks_a_rule_is_refused_with_it() {
    let mut cluster = Cluster::new(1, 1);
    let mut refused = |parameters| {
        ask(&mut cluster, 0, parameters);
        cluster.seats[0].replies.pop().map(Result::unwrap_err)
    };
    assert_eq!(refused(parameters("_serf_conflict")), Some(SerfRefusal::ReservedQuery));
    let long = QueryParameters { payload: vec![0; 1024].into(), ..parameters("n") };
    assert!(matches!(refused(long), Some(SerfRefusal::QueryTooLarge { over: 1.. })));
    let tags = BTreeMap::from([("role".to_owned(), "(".to_owned())]);
    let bad = refused(QueryParameters { tags, ..parameters("n") }).unwrap().to_string();
    assert!(bad.starts_with("the expression for tag \"role\" cannot be used"), "{bad}");
    let relays = QueryParameters { relay_factor: 6, ..parameters("n") };
    assert_eq!(refused(relays), Some(SerfRefusal::RelayFactor));
    let timeout = Some(Duration::from_secs(3601));
    let slow = QueryParameters { timeout, ..parameters("n") };
    assert_eq!(refused(slow), Some(SerfRefusal::TimeoutTooLong));
    assert_eq!(refused(parameters("_serf_ping")), None, "a ping may be asked by anybody");
}

#[test]
fn a_ping_is_acknowledged_and_delivered_to_nobody() {
    let mut cluster = answering(3, 1);
    ask(&mut cluster, 0, QueryParameters { acknowledge: true, ..parameters("_serf_ping") });
    cluster.run(5);
    let outcome = outcome(&mut cluster, 0);
    assert_eq!((outcome.acks.len(), outcome.answers.len()), (3, 0));
    assert!(cluster.seats.iter().all(|seat| seat.asked.is_empty()));
}

fn foreign(id: u32, flags: u32, filters: &[&'static [u8]]) -> SerfMessage {
    SerfMessage::Query(Query {
        address: address(0).ip(),
        filters: Some(filters.iter().map(|filter| Bytes::from_static(filter)).collect()),
        flags,
        id,
        time: LamportTime::new(9),
        name: "load".to_owned(),
        payload: None,
        port: address(0).port(),
        relay_factor: 0,
        source_node: None,
        timeout: Duration::from_secs(1),
    })
}

#[test]
fn a_query_for_others_is_spread_and_one_not_to_be_spread_is_not() {
    let mut cluster = answering(3, 1);
    let unknown = foreign(1, 0, &[b"\x07\x90"]);
    cluster.serf(1, SerfInput::UserMessage(unknown.encode()));
    let nodes = QueryFilter::Nodes(vec![host_name(2)]).encode();
    let mut elsewhere = foreign(2, 0, &[]);
    if let SerfMessage::Query(query) = &mut elsewhere {
        query.filters = Some(vec![nodes]);
    }
    cluster.serf(1, SerfInput::UserMessage(elsewhere.encode()));
    cluster.serf(1, SerfInput::UserMessage(foreign(3, 2, &[]).encode()));
    cluster.run(5);
    let asked: Vec<usize> = cluster.seats.iter().map(|seat| seat.asked.len()).collect();
    // The first is for nobody, the second for the last member, the third only for whoever got it.
    assert_eq!(asked, [0, 1, 1]);
}

#[test]
fn queries_of_an_earlier_run_are_not_delivered_again() {
    let mut cluster = answering(2, 1);
    ask(&mut cluster, 0, parameters("load"));
    cluster.run(5);
    assert_eq!(cluster.seats[1].asked.len(), 1);
    cluster.kill(1);
    cluster.start(1);
    let SerfMessage::Query(mut query) = foreign(1, 0, &[]) else { unreachable!() };
    query.time = LamportTime::new(1);
    cluster.serf(1, SerfInput::UserMessage(SerfMessage::Query(query).encode()));
    cluster.gossip(1, GossipInput::Join { join: JoinId(2), addresses: vec![address(0)] });
    cluster.run(30);
    assert_eq!(cluster.seats[1].asked.len(), 1);
}

#[test]
fn the_default_timeout_grows_as_recorded() {
    for row in timers()["query_timeout_ms"].as_array().unwrap() {
        let n = usize::try_from(row["n"].as_u64().unwrap()).unwrap();
        for (key, interval) in [("lan", 200), ("wan", 500)] {
            let timeout = crate::serf::query::default_timeout(Duration::from_millis(interval), n);
            assert_eq!(u64::try_from(timeout.as_millis()).ok(), row[key].as_u64(), "{row}");
        }
    }
}
