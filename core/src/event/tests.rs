//! Firing, filters, and what is kept.

use super::*;
use crate::catalog::model::Weights;
use crate::gossip::tests::name;
use crate::id::{ModifyIndex, ServiceId, ServiceName};
use crate::rng::{Seed, Stream};
use std::collections::BTreeMap;

fn events() -> Events {
    Events::new(Rng::for_stream(Seed::from_number(1), Stream::Event))
}

fn fire(name: &str, node: &str, service: &str, tag: &str) -> FireEvent {
    let [node, service, tag] = [node, service, tag].map(str::to_owned);
    let filters = Filters { node, service, tag };
    FireEvent { name: name.to_owned(), payload: Bytes::from_static(b"v7"), filters }
}

fn user(event: &Event, time: u64) -> UserEvent {
    UserEvent {
        coalesce: false,
        time: LamportTime::new(time),
        name: event.serf_name(),
        payload: Some(event.encode()),
    }
}

fn web() -> Service {
    Service {
        id: ServiceId::parse("web-7").unwrap(),
        name: ServiceName::parse("web").unwrap(),
        tags: vec!["v1".to_owned(), "blue".to_owned()],
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

/// Whether a node called `db-1` with one service keeps an event with these filters.
fn keeps(filters: (&str, &str, &str)) -> bool {
    let mut events = events();
    let (node, service, tag) = filters;
    let event = events.fire(fire("deploy", node, service, tag)).unwrap();
    let service = web();
    events.receive(&user(&event, 5), &name("db-1"), [&service].into_iter()).unwrap();
    !events.kept().is_empty()
}

#[test]
fn an_event_is_kept_by_the_nodes_that_its_filters_match() {
    assert!(keeps(("", "", "")));
    assert!(keeps(("^db", "", "")));
    assert!(!keeps(("^web", "", "")));
    assert!(keeps(("", "^web$", "")), "by the service's name");
    assert!(keeps(("", "-7$", "")), "or by its id");
    assert!(!keeps(("", "^api", "")));
    assert!(keeps(("db", "web", "bl.e")));
    assert!(!keeps(("db", "web", "green")));
    assert!(!keeps(("web", "web", "blue")), "all of them must match");
}

#[test]
fn a_fired_event_comes_back_as_it_was_with_its_time() {
    let mut events = events();
    let fired = events.fire(fire("deploy", "db", "", "")).unwrap();
    events.receive(&user(&fired, 5), &name("db-1"), std::iter::empty()).unwrap();
    let received = Event { time: LamportTime::new(5), ..fired };
    assert_eq!(events.kept().iter().map(|event| &**event).collect::<Vec<_>>(), [&received]);
    let other = events.fire(fire("deploy", "db", "", "")).unwrap();
    assert_ne!(other.id, received.id);
    assert_ne!(other.index(), received.index());
}

#[test]
fn filters_that_cannot_be_used_are_refused_by_both_ends() {
    let mut events = events();
    let refused = events.fire(fire("x", "", "", "blue")).unwrap_err();
    assert_eq!(refused.to_string(), "Cannot provide tag filter without service filter");
    let refused = events.fire(fire("x", "(", "", "")).unwrap_err();
    let text = "Invalid node filter: error parsing regexp: unclosed group: \"(\"";
    assert_eq!(refused.to_string(), text);

    let mut event = events.fire(fire("x", "", "", "")).unwrap();
    event.filters.service = "(".to_owned();
    let refused = events.receive(&user(&event, 1), &name("a"), std::iter::empty()).unwrap_err();
    assert!(refused.to_string().contains("Invalid service filter"), "{refused}");
    assert_eq!((events.kept().len(), events.version()), (0, 0));
}

#[test]
fn user_events_that_are_none_of_these_are_passed_over_and_broken_ones_named() {
    let mut events = events();
    let mut receive = |name_: &str, payload: &[u8]| {
        let payload = Some(Bytes::copy_from_slice(payload));
        let time = LamportTime::new(1);
        let user = UserEvent { coalesce: false, time, name: name_.to_owned(), payload };
        events.receive(&user, &name("a"), std::iter::empty())
    };
    assert_eq!(receive("deploy", b"x"), Ok(()));
    let broken = receive("consul:event:deploy", b"x").unwrap_err();
    assert!(broken.to_string().starts_with("event \"consul:event:deploy\": "), "{broken}");
    let broken = receive("consul:event:deploy", b"\x81\xa2ID\xa1x").unwrap_err();
    assert_eq!(broken.to_string(), "event \"consul:event:deploy\": \"x\" is not a UUID");
    assert!(events.kept().is_empty());
}

#[test]
fn the_last_256_are_kept_oldest_first() {
    let mut events = events();
    for time in 1..=300 {
        let event = events.fire(fire("tick", "", "", "")).unwrap();
        events.receive(&user(&event, time), &name("a"), std::iter::empty()).unwrap();
    }
    let times: Vec<u64> = events.kept().iter().map(|event| event.time.get()).collect();
    assert_eq!(times, (45..=300).collect::<Vec<_>>());
    assert_eq!(events.version(), 300);
}
