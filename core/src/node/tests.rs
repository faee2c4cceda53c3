//! The border of one agent: what is asked of it through requests, and what it delivers.

use super::input::Input;
use super::output::{Output, StopReason};
use super::request::{Request, RequestBody, RequestError, Response};
use super::*;
use crate::config::{Bootstrap, GossipConfig, SerfConfig, ServerConfig};
use crate::event::{Filters, FireEvent};
use crate::id::{Datacenter, Incarnation, LamportTime};
use crate::serf::{KeyOperation, SerfEvent, SerfReply, SerfRequest};
use crate::storage::testing::{restored_client, restored_server};
use crate::wire::gossip::{Alive, Message};
use crate::wire::serf::{MemberRecord, QueryResponse, SerfMessage, encode_tags};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;

const WALL: WallClock = WallClock::from_millis(1_700_000_000_000);

struct Agent {
    node: Node,
    now: Instant,
    requests: u64,
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// An agent that knows nobody and does not warn.
pub(super) fn node_of(server: Option<ServerConfig>, restored: Restored) -> Node {
    let config = NodeConfig {
        name: NodeName::parse("me").unwrap(),
        datacenter: Datacenter::parse("dc1").unwrap(),
        advertise: ip(9),
        advertise_wan: ip(9),
        tagged_addresses: BTreeMap::new(),
        serf_lan_port: 8301,
        server_port: 8300,
        server,
        gossip: GossipConfig::lan(),
        serf: SerfConfig::default(),
        services: Vec::new(),
        checks: Vec::new(),
        node_meta: BTreeMap::new(),
        rpc_hold: Duration::from_secs(7),
        rpc_rate: None,
        check_update_interval: Duration::from_secs(300),
        check_output: crate::local::definition::OutputRules::default(),
        level: Level::Error,
    };
    Node::new(config, restored, Seed::from_number(1), WALL, Instant::ZERO).unwrap()
}

impl Agent {
    /// A client agent that knows nobody.
    fn new() -> Self {
        let node = node_of(None, restored_client());
        let mut agent = Self { node, now: Instant::ZERO, requests: 0 };
        agent.drain();
        agent
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input);
        self.drain()
    }

    fn ask(&mut self, body: RequestBody) -> Vec<Output> {
        self.requests += 1;
        let id = RequestId::new(self.requests);
        self.input(Input::Request { id, wall: WALL, request: Arc::new(Request::new(body)) })
    }

    fn ask_serf(&mut self, request: SerfRequest) -> Vec<Output> {
        self.ask(RequestBody::Serf(request))
    }

    fn message(&mut self, message: &Message) -> Vec<Output> {
        let from = SocketAddr::new(ip(1), 8301);
        self.input(Input::Datagram { pool: PoolName::Lan, from, payload: message.encode() })
    }

    fn run(&mut self, seconds: u64) -> Vec<Output> {
        let end = self.now + Duration::from_secs(seconds);
        let mut outputs = Vec::new();
        while let Some((at, _)) = self.node.next_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            outputs.extend(self.input(Input::Timeout));
        }
        self.now = end;
        outputs
    }
}

fn reply(outputs: Vec<Output>) -> Result<Response, RequestError> {
    let replies = outputs.into_iter().filter_map(|output| {
        let Output::Reply { result, .. } = output else { return None };
        Some(result)
    });
    let mut replies: Vec<_> = replies.collect();
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

fn alive(name: &str, last: u8) -> Message {
    Message::Alive(Alive {
        incarnation: Incarnation::new(1),
        node: NodeName::parse(name).unwrap(),
        address: ip(last),
        port: 8301,
        meta: encode_tags(&BTreeMap::new()).unwrap(),
        versions: Some(crate::gossip::Versions::OURS),
    })
}

#[test]
fn a_fired_event_is_answered_and_delivered_to_subscribers() {
    let mut agent = Agent::new();
    let (name, payload) = ("deploy".to_owned(), Bytes::from_static(b"v7"));
    let outputs = agent.ask_serf(SerfRequest::FireEvent { name, payload, coalesce: false });
    let delivered = outputs.iter().any(
        |output| matches!(output, Output::Event(SerfEvent::User(event)) if event.name == "deploy"),
    );
    assert!(delivered, "{outputs:?}");
    assert_eq!(reply(outputs), Ok(Response::Serf(SerfReply::Fired(LamportTime::new(1)))));
}

#[test]
fn a_member_change_is_delivered_to_subscribers() {
    let mut agent = Agent::new();
    agent.message(&alive("other", 1));
    let outputs = agent.run(2);
    let joined = outputs.iter().any(|output| {
        let Output::Event(SerfEvent::Members { members, .. }) = output else { return false };
        members.iter().any(|member| member.name.as_str() == "other")
    });
    assert!(joined, "{outputs:?}");
}

#[test]
fn tags_that_other_agents_rely_on_cannot_be_changed() {
    let mut agent = Agent::new();
    let tags = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
    for tag in ["dc", "role", "id"] {
        let delete = vec![tag.to_owned()];
        let delete = SerfRequest::EditTags { delete, set: BTreeMap::new() };
        let set = SerfRequest::EditTags { delete: Vec::new(), set: tags(tag) };
        for request in [delete, set] {
            let refused = reply(agent.ask_serf(request)).unwrap_err().to_string();
            assert!(refused.contains(&format!("{tag:?} is the agent's own")), "{refused}");
        }
    }
    let set = SerfRequest::EditTags { delete: Vec::new(), set: tags("zone") };
    assert_eq!(reply(agent.ask_serf(set)), Ok(Response::Serf(SerfReply::Done)));
    assert_eq!(agent.node.members().next().unwrap().tags.get("zone"), Some("x"));
}

#[test]
fn an_agent_without_encryption_says_so_of_its_keyring() {
    let mut agent = Agent::new();
    let operation = KeyOperation::List;
    let outputs = agent.ask_serf(SerfRequest::Keys { operation, relay_factor: 0 });
    let Ok(Response::Serf(SerfReply::Keys(report))) = reply(outputs) else { panic!() };
    assert_eq!(report.failure().as_deref(), Some("1/1 nodes reported failure"));
    let said = report.messages.into_values().collect::<Vec<_>>();
    assert_eq!(said, ["Keyring is empty (encryption not enabled)"]);
}

#[test]
fn an_agent_names_its_own_coordinate() {
    let mut agent = Agent::new();
    let Ok(Response::Coordinates(known)) = reply(agent.ask(RequestBody::Coordinates)) else {
        panic!()
    };
    assert_eq!(known.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["me"]);
}

#[test]
fn an_agent_outvoted_about_its_name_stops_with_the_reason() {
    let mut agent = Agent::new();
    agent.message(&alive("other", 1));
    agent.message(&alive("me", 2));
    let query = agent.run(1).into_iter().find_map(|output| {
        let Output::SendDatagram { payload, .. } = output else { return None };
        let parts = crate::wire::packet::decode_packet(&payload);
        parts.into_iter().find_map(|part| {
            let Ok(Message::User(bytes)) = part else { return None };
            let Ok(SerfMessage::Query(query)) = SerfMessage::decode(&bytes) else { return None };
            (query.name == "_serf_conflict").then_some(query)
        })
    });
    let query = query.expect("the others are asked");
    let record = MemberRecord {
        address: ip(2),
        delegate: 4,
        delegate_max: 5,
        delegate_min: 2,
        name: agent.node.name().clone(),
        port: 8301,
        protocol: 2,
        protocol_max: 5,
        protocol_min: 1,
        status: 1,
        tags: BTreeMap::new(),
    };
    let answer = SerfMessage::ConflictResponse(Some(record)).encode();
    let response = SerfMessage::QueryResponse(QueryResponse {
        flags: 0,
        from: NodeName::parse("other").unwrap(),
        id: query.id,
        time: query.time,
        payload: Some(answer),
    });
    agent.message(&Message::User(response.encode()));
    let outputs = agent.run(4);
    let Some(Output::Stopped(StopReason::Fatal(why))) = outputs.last() else {
        panic!("{outputs:?}")
    };
    let both = "another agent is called me (at 10.0.0.2:8301, its ID is none): 0 of 1 members know \
                this one (at 10.0.0.9:8301, its ID is ";
    assert!(why.starts_with(both), "{why}");
}

#[test]
fn an_event_with_filters_is_answered_with_its_identity_and_published_where_it_is_meant() {
    let mut agent = Agent::new();
    let fire = |node: &str| {
        let filters = Filters { node: node.to_owned(), ..Filters::default() };
        let (name, payload) = ("deploy".to_owned(), Bytes::from_static(b"v7"));
        RequestBody::FireEvent(Box::new(FireEvent { name, payload, filters }))
    };
    let mut outputs = agent.ask(fire("^me$"));
    let published = outputs.iter().position(|output| {
        let Output::Publish(view) = output else { return false };
        view.events.last().is_some_and(|event| event.time == LamportTime::new(1))
    });
    let announced = outputs.iter().position(|output| {
        matches!(output, Output::Event(SerfEvent::User(event)) if crate::event::is_event(event))
    });
    assert!(published < announced && published.is_some(), "readers see it before they are told");
    outputs.retain(|output| matches!(output, Output::Reply { .. }));
    let Ok(Response::Event(event)) = reply(outputs) else { panic!() };
    assert_eq!((event.name.as_str(), event.time), ("deploy", LamportTime::ZERO));

    let outputs = agent.ask(fire("^other$"));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Publish(_))));
    let Ok(Response::Event(_)) = reply(outputs) else { panic!() };

    let payload = Bytes::from(vec![0; 600]);
    let large = FireEvent { name: "deploy".to_owned(), payload, filters: Filters::default() };
    let refused = reply(agent.ask(RequestBody::FireEvent(Box::new(large)))).unwrap_err();
    assert!(refused.to_string().starts_with("1 error occurred:\n\t* error broadcasting event"));
}

/// The moment at which a server that leaves has stopped, in a pool with another member or alone.
fn stopped_at(leave_drain: Duration, company: bool) -> Instant {
    let server = ServerConfig { leave_drain, ..ServerConfig::new(Bootstrap::Join) };
    let node = node_of(Some(server), restored_server());
    let mut agent = Agent { node, now: Instant::ZERO, requests: 0 };
    if company {
        agent.message(&alive("other", 1));
    }
    let mut outputs = agent.input(Input::Leave);
    while !matches!(outputs.last(), Some(Output::Stopped(StopReason::Left))) {
        let (at, _) = agent.node.next_timeout().expect("a leave ends");
        agent.now = agent.now.max(at);
        outputs = agent.input(Input::Timeout);
    }
    agent.now
}

#[test]
fn a_server_that_leaves_company_behind_stays_for_what_is_on_its_way() {
    let (zero, drain) = (Duration::ZERO, Duration::from_secs(40));
    assert_eq!(stopped_at(drain, true), stopped_at(zero, true) + drain);
    assert_eq!(stopped_at(drain, false), stopped_at(zero, false), "alone nobody asks it");
}
