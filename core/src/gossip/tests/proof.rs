//! What a state exchange tells is believed at once and spread once it is proven: one machine alone.

use super::cluster::Cluster;
use super::streams::World;
use super::{name, peer};
use crate::gossip::{GossipInput, GossipOutput, Peer};
use crate::id::{Incarnation, SeqNo, StreamId};
use crate::serf::MemberStatus;
use crate::wire::gossip::{
    Ack, Message, PeerState, PeerStates, PushPull, PushPullState, StreamMessage, Suspect,
};
use crate::wire::packet::{Opener, decode_packet};
use bytes::Bytes;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn record(text: &str, port: u16, incarnation: u32) -> PushPullState {
    super::record(Peer { incarnation: Incarnation::new(incarnation), ..peer(text, port) })
}

impl World {
    /// Somebody exchanges state and tells of `members`.
    fn exchange(&mut self, number: u64, members: &[PushPullState]) -> Vec<GossipOutput> {
        self.accept(number);
        let states = PeerStates::encode(members.iter().cloned());
        let request = PushPull { join: false, states, user_state: Bytes::new() };
        let wanted = self.data(number, StreamMessage::PushPull(request).encode());
        let [GossipOutput::WantUserState { exchange, .. }] = wanted[..] else {
            panic!("{wanted:?}")
        };
        assert_eq!(StreamId::new(exchange.0), StreamId::new(number));
        self.tell(GossipInput::UserState { exchange, payload: Bytes::new() })
    }

    /// A member of that name tells of itself.
    fn hears_of(&mut self, text: &str, port: u16) {
        self.message(&super::alive(peer(text, port)));
    }
}

/// The messages sent to the member at `port`.
fn sent(outputs: &[GossipOutput], port: u16) -> Vec<Message> {
    let packets = outputs.iter().filter_map(|output| {
        let GossipOutput::SendDatagram { to, payload } = output else { return None };
        (to.port() == port).then_some(payload)
    });
    let messages = packets.flat_map(|packet| {
        decode_packet(&Opener::PLAIN.open(packet).unwrap().packet).into_iter().map(Result::unwrap)
    });
    messages.collect()
}

fn spreads(outputs: &[GossipOutput], text: &str) -> bool {
    let about = |message: &Message| matches!(message, Message::Alive(it) if it.node == name(text));
    sent(outputs, 7).iter().any(about)
}

fn pings(outputs: &[GossipOutput], port: u16) -> Vec<SeqNo> {
    let messages = sent(outputs, port).into_iter();
    let seq_no = |message| if let Message::Ping(it) = message { Some(it.seq_no) } else { None };
    messages.filter_map(seq_no).collect()
}

#[test]
fn a_member_known_from_an_exchange_is_spread_when_it_has_answered() {
    let mut world = World::new();
    world.hears_of("friend", 7);
    let outputs = world.exchange(2, &[record("old", 8, 3)]);
    assert!(
        outputs.iter().any(|it| matches!(it, GossipOutput::Joined(it) if it.name == name("old")))
    );
    let outputs = world.pass(SECOND / 10);
    let asked = pings(&outputs, 8);
    assert_eq!(asked.len(), 1, "it is asked at once");
    let quiet = world.pass(SECOND / 10 * 4);
    assert!(!spreads(&outputs, "old") && !spreads(&quiet, "old"));
    world.message(&Message::Ack(Ack { seq_no: asked[0], payload: None }));
    assert!(spreads(&world.pass(SECOND), "old"));
}

#[test]
fn what_asks_for_a_proof_tells_nothing() {
    let mut world = World::new();
    world.hears_of("friend", 7);
    world.exchange(2, &[record("old", 8, 3)]);
    let outputs = world.pass(SECOND / 100);
    assert!(matches!(sent(&outputs, 8)[..], [Message::Ping(_)]), "the news of the friend wait");
    assert!(spreads(&world.pass(SECOND), "friend"), "there are some");
}

#[test]
fn a_member_that_never_answers_is_asked_three_times_and_never_spread() {
    let mut world = World::new();
    world.hears_of("friend", 7);
    world.exchange(2, &[record("old", 8, 3)]);
    let outputs = world.pass(SECOND * 120);
    assert!(!spreads(&outputs, "old"));
    assert!((4..=8).contains(&pings(&outputs, 8).len()), "thrice, and by the probes");
    assert_ne!(world.gossip.peer(&name("old")).map(|(_, state)| state), Some(PeerState::Alive));
}

#[test]
fn a_ping_or_a_message_of_others_proves_it_as_well() {
    for by_ping in [true, false] {
        let mut world = World::new();
        world.hears_of("friend", 7);
        world.exchange(2, &[record("old", 8, 1)]);
        if by_ping {
            let ping = Message::Ping(crate::wire::gossip::Ping {
                seq_no: SeqNo::new(5),
                node: Some(name("me")),
                source_address: Some(peer("old", 8).address.ip()),
                source_port: 8,
                source_node: Some(name("old")),
            });
            world.message(&ping);
        } else {
            world.hears_of("old", 8);
        }
        assert!(spreads(&world.pass(SECOND), "old"));
    }
}

#[test]
fn a_refutation_of_an_exchange_is_spread_at_once() {
    let mut world = World::new();
    world.hears_of("friend", 7);
    world.hears_of("old", 8);
    world.pass(SECOND * 5);
    let (node, incarnation) = (name("old"), Incarnation::new(1));
    world.message(&Message::Suspect(Suspect { incarnation, node, from: name("friend") }));
    world.exchange(2, &[record("old", 8, 2)]);
    assert!(spreads(&world.pass(SECOND / 2), "old"));
}

#[test]
fn an_exchange_tells_a_member_once_that_it_was_thought_dead() {
    let mut world = World::new();
    let cases = [
        (PeerState::Dead, 1, true),
        (PeerState::Dead, 1, false),
        (PeerState::Suspect, 2, false),
        (PeerState::Dead, 3, true),
    ];
    for (number, (state, incarnation, told)) in (2..).step_by(2).zip(cases) {
        let outputs =
            world.exchange(number, &[PushPullState { state, ..record("me", 1, incarnation) }]);
        assert_eq!(outputs.contains(&GossipOutput::ThoughtDead), told, "{state:?} {incarnation}");
    }
}

#[test]
fn pools_that_meet_in_one_exchange_come_to_know_each_other() {
    let mut cluster = Cluster::new(20, 7);
    for index in 1..10 {
        cluster.join(index, &[0]);
        cluster.join(10 + index, &[10]);
    }
    cluster.run(20);
    cluster.join(15, &[5]);
    cluster.run(5);
    // Half of what a member sends goes to those who know it, so that gossip misses some.
    let strangers = |cluster: &Cluster| {
        let pairs = (0..10).flat_map(|a| (10..20).map(move |b| (a, b)));
        pairs.filter(|(a, b)| cluster.status(*a, *b).is_none()).count()
    };
    assert!(strangers(&cluster) < 10, "{}", strangers(&cluster));
    cluster.run(40);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}
