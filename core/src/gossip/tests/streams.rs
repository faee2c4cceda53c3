//! Streams that peers open, and what a gone member is told: one machine alone.

use super::{alive, name, peer, record};
use crate::config::GossipConfig;
use crate::gossip::push_pull::{ACCEPTED_MAX, ACCEPTED_PER_PEER_MAX, STATES_BYTES_MAX};
use crate::gossip::{
    Admission, ExchangeId, Gossip, GossipInput, GossipOutput, GossipTrace, JoinId, Peer, Versions,
};
use crate::id::{Datacenter, Incarnation, SeqNo, StreamId};
use crate::machine::{Machine, Outbox};
use crate::rng::Seed;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::{
    Ack, Dead, META_BYTES_MAX, Message, PeerStates, Ping, PushPull, PushPullState, StreamMessage,
    Suspect,
};
use crate::wire::packet::Opener;
use crate::wire::serf::encode_tags;
use crate::wire::stream::StreamDecoder;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) struct World {
    pub(super) gossip: Gossip,
    out: Outbox<GossipOutput>,
    now: Instant,
}

fn remote() -> SocketAddr {
    peer("x", 2).address
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Admission::Anyone)
    }

    fn with(admission: Admission) -> Self {
        Self::of(peer("me", 1), admission)
    }

    fn of(own: Peer, admission: Admission) -> Self {
        Self::configured(own, GossipConfig { admission, ..GossipConfig::lan() })
    }

    fn configured(own: Peer, config: GossipConfig) -> Self {
        let (mut out, now) = (Outbox::new(Level::Error), Instant::ZERO);
        let config = GossipConfig { compression: false, ..config };
        let seed = Seed::from_number(1);
        let gossip = Gossip::new(own.name, own.address, own.meta, &config, seed, now, &mut out);
        out.drain().for_each(drop);
        Self { gossip, out, now }
    }

    pub(super) fn tell(&mut self, input: GossipInput) -> Vec<GossipOutput> {
        self.gossip.handle(self.now, input, &mut self.out);
        self.out.drain().collect()
    }

    pub(super) fn message(&mut self, message: &Message) -> Vec<GossipOutput> {
        self.tell(GossipInput::Datagram { from: remote(), payload: message.encode() })
    }

    pub(super) fn accept(&mut self, number: u64) -> Vec<GossipOutput> {
        self.tell(GossipInput::StreamOpened { stream: StreamId::new(number), peer: remote() })
    }

    pub(super) fn data(&mut self, number: u64, data: Bytes) -> Vec<GossipOutput> {
        self.tell(GossipInput::StreamData { stream: StreamId::new(number), data })
    }

    /// Time passes; returns what the member wanted meanwhile.
    pub(super) fn pass(&mut self, span: Duration) -> Vec<GossipOutput> {
        let end = self.now + span;
        while let Some(at) = self.gossip.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.gossip.handle_timeout(at, &mut self.out);
        }
        self.now = end;
        self.out.drain().collect()
    }

    fn alive(incarnation: u32) -> Message {
        alive(Peer { incarnation: Incarnation::new(incarnation), ..peer("x", 2) })
    }
}

fn ping(node: &str) -> Bytes {
    let ping = Ping {
        seq_no: SeqNo::new(9),
        node: Some(name(node)),
        source_address: None,
        source_port: 0,
        source_node: None,
    };
    StreamMessage::Ping(ping).encode()
}

const STREAM: StreamId = StreamId::new(2);
const CLOSED: GossipOutput = GossipOutput::CloseStream { stream: STREAM };

#[test]
fn a_stream_ping_is_answered_only_by_the_member_it_means() {
    let mut world = World::new();
    world.accept(2);
    let data = StreamMessage::Ack(Ack { seq_no: SeqNo::new(9), payload: None }).encode();
    let answer = GossipOutput::SendStream { stream: STREAM, data };
    assert_eq!(world.data(2, ping("me")), [answer, CLOSED]);
    let mut world = World::new();
    world.accept(2);
    assert_eq!(world.data(2, ping("other")), [CLOSED]);
}

#[test]
fn an_unreadable_layer_is_answered_with_the_reason() {
    let mut world = World::new();
    world.accept(2);
    let outputs = world.data(2, Bytes::from_static(&[10, 0, 0]));
    let [GossipOutput::SendStream { data, .. }, CLOSED] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(data.ends_with(b"the message is encrypted, but gossip is not here"));
    assert_eq!(data[0], 13);
    let mut world = World::new();
    world.accept(2);
    assert_eq!(world.data(2, Bytes::from_static(&[77])), [CLOSED], "nonsense gets silence");
}

#[test]
fn accepted_streams_are_bounded_and_have_a_deadline() {
    let mut world = World::new();
    let last = 2 * ACCEPTED_MAX as u64;
    let accept = |world: &mut World, number: u64, host| {
        let (stream, peer) = (StreamId::new(number), SocketAddr::from(([10, 0, 1, host], 9)));
        let refused = world.tell(GossipInput::StreamOpened { stream, peer });
        refused == [GossipOutput::CloseStream { stream }]
    };
    for (number, host) in (2..=last).step_by(2).zip((0..ACCEPTED_MAX).map(|it| it / 31)) {
        assert!(!accept(&mut world, number, u8::try_from(host).unwrap()));
    }
    assert!(accept(&mut world, last + 2, 99));
    assert_eq!(world.gossip.dropped(), 1);
    world.now = world.now + Duration::from_secs(10);
    world.gossip.handle_timeout(world.now, &mut world.out);
    let closed = |output: &GossipOutput| matches!(output, GossipOutput::CloseStream { .. });
    assert_eq!(world.out.drain().filter(closed).count(), ACCEPTED_MAX);
    assert_eq!(world.accept(last + 4), []);
}

#[test]
fn one_address_cannot_take_all_accepted_streams() {
    let mut world = World::new();
    let last = 2 * ACCEPTED_PER_PEER_MAX as u64;
    for number in (2..=last).step_by(2) {
        assert_eq!(world.accept(number), []);
    }
    let stream = StreamId::new(last + 2);
    assert_eq!(world.accept(last + 2), [GossipOutput::CloseStream { stream }]);
    let (stream, peer) = (StreamId::new(last + 4), SocketAddr::from(([10, 0, 1, 1], 9)));
    assert_eq!(world.tell(GossipInput::StreamOpened { stream, peer }), []);
    assert_eq!(world.gossip.dropped(), 1);
}

#[test]
fn a_state_beyond_the_limit_is_told_in_pages_and_its_size_once() {
    let mut world = World::new();
    let meta = Bytes::from(vec![0xff; META_BYTES_MAX]);
    let count = 18_000;
    for number in 0..count {
        let (name, meta) = (name(&format!("member-{number}")), meta.clone());
        world.message(&alive(Peer { name, meta, ..peer("x", 2) }));
    }
    world.out.set_level(Level::Warn);
    let (mut told, mut warnings) = (BTreeMap::new(), 0);
    for number in [2, 4, 6] {
        world.accept(number);
        let states = PeerStates::encode([]);
        let request = PushPull { join: false, states, user_state: Bytes::new() };
        world.data(number, StreamMessage::PushPull(request).encode());
        // A change between two pages must not skip one.
        world.message(&World::alive(u32::try_from(number).unwrap()));
        let exchange = ExchangeId(number);
        for output in world.tell(GossipInput::UserState { exchange, payload: Bytes::new() }) {
            if let GossipOutput::SendStream { data, .. } = output {
                assert!(data.len() < STATES_BYTES_MAX + 1024);
                let answer = StreamDecoder::dialled().feed(&data, &Opener::PLAIN).unwrap();
                let Some(StreamMessage::PushPull(answer)) = answer else { panic!("no state") };
                for state in answer.states.decode().unwrap() {
                    *told.entry(state.name).or_insert(0) += 1;
                }
            } else if let GossipOutput::Trace(_, GossipTrace::LargeState { .. }) = output {
                warnings += 1;
            }
        }
    }
    assert_eq!(told.len(), count + 2, "all, x and me");
    assert_eq!(told[&name("me")], 3, "itself in every page");
    assert_eq!(warnings, 1);
}

#[test]
fn the_responder_sends_its_state_before_it_merges() {
    let mut world = World::new();
    world.accept(2);
    let other = peer("x", 2);
    let request = |versions| {
        let states = PeerStates::encode([PushPullState { versions, ..record(other.clone()) }]);
        let user_state = Bytes::from_static(b"theirs");
        StreamMessage::PushPull(PushPull { join: true, states, user_state }).encode()
    };
    let wanted = world.data(2, request(Some(Versions::OURS)));
    let [GossipOutput::WantUserState { exchange, join: true }] = wanted[..] else {
        panic!("{wanted:?}")
    };
    let payload = Bytes::from_static(b"ours");
    let outputs = world.tell(GossipInput::UserState { exchange, payload: payload.clone() });
    let merged =
        GossipOutput::RemoteUserState { payload: Bytes::from_static(b"theirs"), join: true };
    assert!(matches!(outputs[0], GossipOutput::SendStream { .. }));
    assert_eq!(outputs[1..], [CLOSED, GossipOutput::Joined(other.clone()), merged]);

    // One member without versions spoils the whole exchange, but the answer is sent.
    let mut world = World::new();
    world.accept(2);
    world.data(2, request(None));
    let outputs = world.tell(GossipInput::UserState { exchange, payload });
    assert!(matches!(outputs[0], GossipOutput::SendStream { .. }));
    assert_eq!(outputs[1], CLOSED);
    assert!(!outputs.iter().any(|output| matches!(output, GossipOutput::Joined(_))));
}

#[test]
fn whoever_spreads_an_outdated_record_of_a_gone_member_is_told() {
    let mut world = World::new();
    world.message(&World::alive(5));
    let (node, incarnation) = (name("x"), Incarnation::new(5));
    world.message(&Message::Dead(Dead { incarnation, node: node.clone(), from: name("y") }));
    let told = |outputs: &[GossipOutput]| {
        outputs.iter().any(|output| {
            matches!(output, GossipOutput::SendDatagram { to, payload }
            if *to == remote() && payload.ends_with(
                &Message::Suspect(Suspect { incarnation, node: node.clone(), from: name("me") })
                    .encode()))
        })
    };
    assert!(told(&world.message(&World::alive(1))));
    assert!(!told(&world.message(&World::alive(1))), "at most once a second");
    let back = world.message(&World::alive(6));
    assert!(back.iter().any(|output| matches!(output, GossipOutput::Joined(_))));
}

#[test]
fn a_leaving_member_joins_nobody_but_answers_probes() {
    let mut world = World::new();
    assert!(world.tell(GossipInput::Leave).contains(&GossipOutput::LeaveSpread));
    let (join, addresses) = (JoinId(7), vec![remote()]);
    let errors = vec!["the agent is leaving".to_owned()];
    let refused = GossipOutput::JoinFinished { join, contacted: 0, errors };
    assert_eq!(world.tell(GossipInput::Join { join, addresses }), [refused]);
    world.accept(2);
    assert_eq!(world.data(2, ping("me")).len(), 2);
}

#[test]
fn a_join_of_a_stranger_is_answered_with_the_rule_and_tells_nobodys_address() {
    let mut world = World::with(Admission::Servers);
    world.accept(2);
    let states = PeerStates::encode([record(peer("x", 2))]);
    let join = PushPull { join: true, states, user_state: Bytes::new() };
    let outputs = world.data(2, StreamMessage::PushPull(join).encode());
    let data = StreamMessage::Err("Member 'x' is not a server".to_owned()).encode();
    assert_eq!(outputs, [GossipOutput::SendStream { stream: STREAM, data }, CLOSED]);
    assert_eq!(world.message(&World::alive(1)), [], "a single record has no effect either");
    assert_eq!(world.gossip.peers().count(), 1);
    assert_eq!(world.gossip.dropped(), 2);
}

#[test]
fn a_member_outside_the_networks_of_a_pool_is_not_accepted_wherever_it_comes_from() {
    let networks = vec!["10.0.0.0/31".parse().unwrap(), "10.0.0.9/32".parse().unwrap()];
    let config = GossipConfig { networks, ..GossipConfig::lan() };
    let mut world = World::configured(peer("me", 1), config);
    let at = |name: &str, host, incarnation| Peer {
        address: SocketAddr::from(([10, 0, 0, host], 2)),
        incarnation: Incarnation::new(incarnation),
        ..peer(name, 2)
    };
    world.message(&alive(at("far", 2, 1)));
    assert_eq!(world.gossip.peers().count(), 1, "a fact of somebody elsewhere has no effect");
    world.message(&alive(at("near", 9, 1)));
    assert_eq!(world.gossip.peers().count(), 2);
    world.message(&alive(at("near", 2, 2)));
    let addresses: Vec<SocketAddr> = world.gossip.peers().map(|(peer, _)| peer.address).collect();
    assert!(!addresses.contains(&at("near", 2, 2).address), "nobody moves out: {addresses:?}");
    world.accept(2);
    let states = PeerStates::encode([record(at("far", 2, 1))]);
    let join = PushPull { join: true, states, user_state: Bytes::new() };
    let outputs = world.data(2, StreamMessage::PushPull(join).encode());
    let rule = "Member 'far' at 10.0.0.2 is in no allowed network".to_owned();
    let data = StreamMessage::Err(rule).encode();
    assert_eq!(outputs, [GossipOutput::SendStream { stream: STREAM, data }, CLOSED]);
    assert_eq!(world.gossip.peers().count(), 2);
}

/// A server of dc1 with this identity.
fn server(name: &str, port: u16, id: &str) -> Peer {
    let tags = [("dc", "dc1"), ("id", id), ("role", "terraform")];
    let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Peer { meta: encode_tags(&tags).unwrap(), ..peer(name, port) }
}

/// What a member `me` with the identity `1`, which knows `x` with the identity `2`, answers when
/// `joiner` joins; `None` if it takes it.
fn refusal(joiner: Peer) -> Option<String> {
    let lan = Admission::Datacenter(Datacenter::parse("dc1").unwrap());
    let mut world = World::of(server("me", 1, "1"), lan);
    world.message(&alive(server("x", 2, "2")));
    world.accept(2);
    let states = PeerStates::encode([record(joiner)]);
    let join = PushPull { join: true, states, user_state: Bytes::new() };
    let outputs = world.data(2, StreamMessage::PushPull(join).encode());
    let GossipOutput::SendStream { data, .. } = &outputs[0] else { return None };
    let text = String::from_utf8_lossy(data).into_owned();
    Some(text[text.find("Member").unwrap()..].to_owned())
}

#[test]
fn a_copied_identity_joins_nowhere() {
    let [me, x, y] = [1, 2, 3].map(|number| peer("x", number).address);
    let rule = "Member 'y' has conflicting node ID '1' with this agent's ID";
    let rule = format!("{rule}: it is at {y}, this agent at {me}");
    assert_eq!(refusal(server("y", 3, "1")), Some(rule));
    let rule = "Member 'y' has conflicting node ID '2' with member 'x'";
    let rule = format!("{rule}: it is at {y}, 'x' at {x}");
    assert_eq!(refusal(server("y", 3, "2")), Some(rule));
    for fine in [server("y", 3, "3"), server("y", 3, ""), server("y", 2, "2"), server("x", 3, "2")]
    {
        assert_eq!(refusal(fine.clone()), None, "{fine:?}");
    }
}

#[test]
fn a_failed_agent_is_taken_at_a_new_address_at_once_and_another_of_its_name_later() {
    for (id, waits) in [("2", false), ("3", true), ("", true)] {
        let lan = Admission::Datacenter(Datacenter::parse("dc1").unwrap());
        let mut world = World::of(server("me", 1, "1"), lan);
        world.message(&alive(server("x", 2, "2")));
        let moved = alive(server("x", 3, id));
        let is_at = |world: &World, number| {
            world.gossip.peer(&name("x")).map(|(peer, _)| peer.address)
                == Some(peer("x", number).address)
        };
        world.message(&moved);
        assert!(is_at(&world, 2), "{id}: a living member keeps its name");
        let (incarnation, node) = (Incarnation::new(1), name("x"));
        world.message(&Message::Dead(Dead { incarnation, node, from: name("other") }));
        world.message(&moved);
        assert_eq!(is_at(&world, 2), waits, "{id}");
    }
}

#[test]
fn a_single_record_with_the_own_identity_has_no_effect() {
    let lan = Admission::Datacenter(Datacenter::parse("dc1").unwrap());
    let mut world = World::of(server("me", 1, "1"), lan);
    assert_eq!(world.message(&alive(server("y", 3, "1"))), []);
    assert_eq!((world.gossip.peers().count(), world.gossip.dropped()), (1, 1));
}

#[test]
fn a_server_that_takes_a_lan_port_for_a_wan_port_is_told_so() {
    let rule = |name| format!("Member '{name}' is a server of the WAN pool: join a Serf WAN port");
    assert_eq!(refusal(server("me.dc1", 3, "1")), Some(rule("me.dc1")));
    assert_eq!(refusal(server("x.dc1", 3, "2")), Some(rule("x.dc1")));
}
