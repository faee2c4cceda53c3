//! Events, queries, tags, keys and coordinates, and the records of subscriptions.

use super::*;
use crate::fanout::{EVENTS_MAX, tests::user};
use terraform_core::coordinate;
use terraform_core::serf::{
    KeyOperation, KeyReport, MemberEventKind, QueryHeard, QueryId, QueryOutcome, QueryParameters,
    SerfEvent, SerfRefusal,
};
use terraform_core::wire::base64;
use terraform_core::wire::ipc::{
    Coordinate, CoordinateReply, Event, EventRecord, KeysReply, Query, QueryRecord, Respond, Tags,
};

fn stream(filter: &str) -> Command {
    Command::Stream { filter: filter.to_owned() }
}

fn query() -> Query {
    Query {
        filter_nodes: None,
        filter_tags: None,
        name: "load".to_owned(),
        payload: None,
        relay_factor: 1,
        request_ack: true,
        timeout: Duration::from_secs(2),
    }
}

fn asked() -> RequestBody {
    RequestBody::Serf(SerfRequest::Query(Box::new(QueryParameters {
        name: "load".to_owned(),
        acknowledge: true,
        relay_factor: 1,
        timeout: Some(Duration::from_secs(2)),
        ..QueryParameters::default()
    })))
}

fn coordinates() -> request::Response {
    let here = NodeName::parse("ab").unwrap();
    request::Response::Coordinates(BTreeMap::from([(here, coordinate::Coordinate::ORIGIN)]))
}

#[test]
fn events_tags_and_answers_reach_the_node_and_refusals_have_serfs_words() {
    let mut client = greeted();
    let payload = Bytes::from_static(b"v2");
    let fire = Event { coalesce: true, name: "deploy".to_owned(), payload: payload.clone() };
    client.send(1, Command::Event(fire.clone()));
    let asked = client.play_serf(Ok(SerfReply::Fired(LamportTime::ZERO)));
    let name = "deploy".to_owned();
    let expected = SerfRequest::FireEvent { name, payload: payload.clone(), coalesce: true };
    assert_eq!((asked, client.next()), (expected, header(1, "")));
    client.send(2, Command::Event(fire));
    client.play_serf(Err(SerfRefusal::EventTooLarge { over: 9 }.into()));
    let text = "user event exceeds configured limit of 512 bytes before encoding";
    assert_eq!(client.next(), header(2, text));

    let set = BTreeMap::from([("zone".to_owned(), "z1".to_owned())]);
    client.send(3, Command::Tags(Tags { delete: None, set: Some(set.clone()) }));
    let asked = client.play_serf(Err(SerfRefusal::TagsTooLong { over: 9 }.into()));
    assert_eq!(asked, SerfRequest::EditTags { delete: Vec::new(), set });
    let text = "Encoded length of tags exceeds limit of 512 bytes";
    assert_eq!(client.next(), header(3, text));

    client.send(4, Command::Respond(Respond { id: 7, payload: payload.clone() }));
    let asked = client.play_serf(Err(SerfRefusal::UnknownQuery.into()));
    assert_eq!(asked, SerfRequest::AnswerQuery { query: QueryId(7), payload });
    assert_eq!(client.next(), header(4, "No pending queries matching ID"));
}

#[test]
fn key_operations_carry_their_counts_beside_errors() {
    let mut client = greeted();
    let key = base64::encode(&[7; 32]);
    let report = KeyReport {
        nodes: 2,
        responses: 2,
        errors: 1,
        messages: BTreeMap::from([(NodeName::parse("b").unwrap(), "no".to_owned())]),
        keys: BTreeMap::from([(key.clone(), 2)]),
        ..KeyReport::default()
    };
    let mut expected = KeysReply {
        keys: None,
        messages: BTreeMap::from([("b".to_owned(), "no".to_owned())]),
        errors: 1,
        nodes: 2,
        responses: 2,
    };
    client.send(1, Command::RemoveKey { key: key.clone() });
    let asked = client.play_serf(Ok(SerfReply::Keys(report.clone())));
    let operation = KeyOperation::Remove(Bytes::from_static(&[7; 32]));
    assert_eq!(asked, SerfRequest::Keys { operation, relay_factor: 0 });
    let answer = client.next().unwrap();
    assert_eq!(answer.error, "1/2 nodes reported failure");
    assert_eq!(answer.body, Some(Body::Keys(expected.clone())));

    client.send(2, Command::ListKeys);
    client.play_serf(Ok(SerfReply::Keys(KeyReport { errors: 0, ..report })));
    (expected.errors, expected.keys) = (0, Some(BTreeMap::from([(key, 2)])));
    let answer = client.next().unwrap();
    assert_eq!((answer.error.as_str(), answer.body), ("", Some(Body::Keys(expected))));

    let refused = client.ask(3, Command::InstallKey { key: "a?==".to_owned() }).unwrap();
    assert_eq!(refused.error, "illegal base64 data at input byte 1");
    assert!(matches!(refused.body, Some(Body::Keys(_))), "its client reads it");
}

#[test]
fn a_coordinate_is_told_and_an_unknown_member_has_none() {
    let mut client = greeted();
    let reply = |response: Option<Response>| match response {
        Some(Response { body: Some(Body::Coordinate(reply)), .. }) => reply,
        other => panic!("{other:?}"),
    };
    client.send(1, Command::GetCoordinate { node: "ab".to_owned() });
    client.play(Ok(coordinates()));
    let known = reply(client.next());
    assert!(known.ok);
    assert_eq!(known.coordinate.error.0, 1.5_f64.to_bits());
    assert_eq!(known.coordinate.position.map(|position| position.len()), Some(8));
    client.send(2, Command::GetCoordinate { node: "nobody".to_owned() });
    client.play(Ok(coordinates()));
    let none = CoordinateReply { coordinate: Coordinate::default(), ok: false };
    assert_eq!(reply(client.next()), none);
}

#[test]
fn a_stream_brings_the_events_of_its_filter_until_it_is_stopped() {
    let mut client = greeted();
    for filter in ["bogus", "user,,query", &"user,".repeat(65)] {
        assert_eq!(client.ask(1, stream(filter)), header(1, "Invalid event filter"));
    }
    assert_eq!(client.ask(2, stream("member-failed,user:b,query")), header(2, ""));
    let gone = Arc::new(member("b", MemberStatus::Failed));
    let change = |kind| SerfEvent::Members { kind, members: vec![gone.clone()] };
    let asked = SerfEvent::Query {
        query: QueryId(5),
        time: LamportTime::ZERO,
        name: "load".to_owned(),
        payload: Bytes::new(),
    };
    let events = [
        change(MemberEventKind::Join),
        user("a"),
        change(MemberEventKind::Failed),
        user("b"),
        asked,
    ];
    for event in events {
        client.fan.push(event);
    }
    let mut record = || match client.next() {
        Some(Response { seq: 2, body: Some(Body::Event(record)), .. }) => record,
        other => panic!("{other:?}"),
    };
    let members = vec![(&*gone).into()];
    assert_eq!(record(), EventRecord::Members { event: "member-failed".to_owned(), members });
    assert!(matches!(record(), EventRecord::User { name, .. } if name == "b"));
    assert!(matches!(record(), EventRecord::Query { id: 5, payload: None, .. }));
    assert_eq!(client.ask(2, stream("*")), header(2, "Stream with given sequence exists"));
    assert_eq!(client.ask(3, Command::Stop { seq: 2 }), header(3, ""));
    assert_eq!(client.ask(2, stream("")), header(2, ""), "the number is free again");
}

#[test]
fn a_client_that_missed_events_is_closed_after_those_it_has() {
    let mut client = greeted();
    assert_eq!(client.ask(1, stream("*")), header(1, ""));
    // In one step, so that no record is sent in between.
    let ended = (0..EVENTS_MAX * 1000).map(|_| client.fan.push(user("a"))).find(|ended| *ended > 0);
    assert_eq!(ended, Some(1));
    let mut records = 0;
    while client.next().is_some() {
        records += 1;
    }
    assert!(records >= EVENTS_MAX, "{records}");
}

#[test]
fn a_query_that_is_refused_has_no_records() {
    let mut client = greeted();
    client.send(1, Command::Query(query()));
    assert_eq!(client.play(Err(SerfRefusal::ReservedQuery.into())), asked());
    client.play(Ok(coordinates()));
    assert_eq!(client.next(), header(1, "Queries cannot contain the '_serf_' prefix"));
    let bad = Query { filter_nodes: Some(vec![String::new()]), ..query() };
    let refused = client.ask(2, Command::Query(bad)).unwrap();
    assert!(!refused.error.is_empty());
}

#[test]
fn a_query_does_not_keep_its_connection_and_ends_with_done() {
    let mut client = greeted();
    client.send(1, Command::Query(query()));
    let call = smol::block_on(client.calls.recv()).unwrap();
    assert_eq!(call.request.body, asked());
    client.play(Ok(coordinates()));
    assert_eq!(client.next(), header(1, ""), "it went out");
    assert_eq!(client.ask(2, Command::Stop { seq: 9 }), header(2, ""));
    let (a, b) = (NodeName::parse("ab").unwrap(), NodeName::parse("b").unwrap());
    let payload = Bytes::from_static(b"0.5");
    let mut expect = |from: &str, payload: Option<&Bytes>, kind: &str| {
        let (from, kind) = (from.to_owned(), kind.to_owned());
        let record = Response {
            seq: 1,
            error: String::new(),
            body: Some(Body::Query(QueryRecord { from, payload: payload.cloned(), kind })),
        };
        assert_eq!(client.next(), Some(record));
    };
    let told = call.heard.unwrap();
    told.try_send(QueryHeard { from: b.clone(), answer: None }).unwrap();
    expect("b", None, "ack");
    told.try_send(QueryHeard { from: a.clone(), answer: Some(payload.clone()) }).unwrap();
    expect("ab", Some(&payload), "response");
    // What there was no room for comes at the end, and nothing twice.
    let answers = BTreeMap::from([(a.clone(), payload.clone()), (b.clone(), payload.clone())]);
    let outcome = QueryOutcome { acks: [a, b].into(), answers };
    drop(told);
    call.reply.send(Ok(request::Response::Serf(SerfReply::Query(outcome))));
    expect("ab", None, "ack");
    expect("b", Some(&payload), "response");
    expect("", None, "done");
}
