//! Events over HTTP.

use super::*;
use bytes::Bytes;
use std::sync::Arc;
use terraform_core::event::{Event, Filters, FireEvent};
use terraform_core::id::EventId;
use terraform_core::serf::SerfEvent;
use terraform_core::wire::serf::UserEvent;

fn event(last: u8, name: &str) -> Event {
    let mut id = [0; 16];
    id[15] = last;
    Event {
        id: EventId::from_bytes(id),
        name: name.to_owned(),
        payload: (last == 7).then(|| Bytes::from_static(b"v7")),
        filters: Filters { node: "^db".to_owned(), ..Filters::default() },
        version: 1,
        time: LamportTime::new(u64::from(last)),
    }
}

const SEVEN: &str = r#"{"ID":"00000000-0000-0000-0000-000000000007","Name":"deploy","Payload":"djc=","NodeFilter":"^db","ServiceFilter":"","TagFilter":"","Version":1,"LTime":7}"#;

#[test]
fn firing_hands_filters_and_payload_to_the_node_and_shows_the_event() {
    let text = "PUT /v1/event/fire/deploy?node=%5Edb&service=web&tag=v1\n\nv7";
    let answer = Ok(Response::Event(Box::new(event(7, "deploy"))));
    let (reply, mut asked) = server().exchange(text, vec![answer]);
    assert_eq!((reply.status, body(&reply).as_str()), (200, SEVEN));
    let filters =
        Filters { node: "^db".to_owned(), service: "web".to_owned(), tag: "v1".to_owned() };
    let (name, payload) = ("deploy".to_owned(), Bytes::from_static(b"v7"));
    let fire = FireEvent { name, payload, filters };
    let asked = asked.pop().unwrap();
    assert_eq!(asked.body, RequestBody::FireEvent(Box::new(fire)));
    assert_eq!(asked.context.datacenter, None);
    let text = "PUT /v1/event/fire/deploy?dc=dc2\n\nv7";
    let (reply, asked) = server().exchange(text, vec![Err(RequestError::NoPath)]);
    assert_eq!((reply.status, body(&reply).as_str()), (500, "No path to datacenter"));
    assert_eq!(asked[0].context.datacenter, Datacenter::parse("dc2").ok());
    assert_eq!(server().say("PUT /v1/event/fire/").1, "Missing name");
}

/// A world whose view has these events.
fn world(events: &[Event]) -> (World, Arc<ArcSwap<View>>) {
    let mut with = view(LocalView::default());
    with.events = events.iter().cloned().map(Arc::new).collect();
    let (sender, calls) = smol::channel::bounded(4);
    let cell = Arc::new(ArcSwap::from_pointee(with));
    let node = NodeHandle::new(Arc::clone(&cell), sender, Clock::start());
    (World { api: Api::new(node, settings()), calls }, cell)
}

#[test]
fn the_list_is_filtered_by_the_whole_name_and_its_index_is_that_of_the_newest() {
    let (world, _) = world(&[event(7, "deploy"), event(8, "restart")]);
    let list = |text: &str| {
        let (reply, _) = world.exchange(text, vec![]);
        let index = header(&reply, "X-Consul-Index").unwrap().to_owned();
        (body(&reply), index, reply.meta)
    };
    let (all, index, meta) = list("GET /v1/event/list");
    assert!(all.starts_with(&format!("[{SEVEN},")) && all.contains(r#""Payload":null"#), "{all}");
    assert_eq!((index.as_str(), meta), ("8", None), "the index alone");
    assert_eq!(list("GET /v1/event/list?name=deploy").0, format!("[{SEVEN}]"));
    let (none, index, _) = list("GET /v1/event/list?name=depl");
    assert_eq!((none.as_str(), index.as_str()), ("[]", "1"));
    let (_, index, _) = list("GET /v1/event/list?index=5");
    assert_eq!(index, "8", "any other index is answered at once");
    assert_eq!(world.say("GET /v1/event/list?index=x").1, "Invalid index");
    assert_eq!(world.say("GET /v1/event/list?index=8&wait=5").1, "Invalid wait time");
}

#[test]
fn a_list_waits_while_its_newest_event_stays() {
    let (world, cell) = world(&[event(8, "deploy")]);
    let fan = Arc::clone(world.api.node().fan());
    let push = |newest: Event| {
        let mut with = View::clone(&cell.load());
        with.events.push_back(Arc::new(newest.clone()));
        cell.store(Arc::new(with));
        let (coalesce, time, name) = (false, newest.time, newest.serf_name());
        fan.push(SerfEvent::User(UserEvent { coalesce, time, name, payload: None }));
    };
    let node = async {
        // The waiting request runs first; its subscription is there once it waits.
        smol::future::yield_now().await;
        push(event(9, "restart"));
        smol::future::yield_now().await;
        push(event(7, "deploy"));
        smol::future::pending::<Reply>().await
    };
    let request = request("GET /v1/event/list?name=deploy&index=8");
    let reply = smol::block_on(smol::future::or(world.api.answer(&request, None), node));
    assert_eq!(header(&reply, "X-Consul-Index"), Some("7"));
    assert!(!body(&reply).contains("restart"));
    let late = world.say("GET /v1/event/list?name=deploy&index=7&wait=1ms");
    assert_eq!(late.0, 200, "as it was once the time is over");
}
