//! What one member makes of single packets, and puts into its own.

use super::{name, peer};
use crate::config::GossipConfig;
use crate::gossip::{BroadcastClass, Gossip, GossipInput, GossipOutput, Peer};
use crate::id::Incarnation;
use crate::machine::{Machine as _, Outbox};
use crate::rng::Seed;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::{Alive, Dead, Message};
use crate::wire::packet::{Opener, decode_packet};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

struct Rig {
    gossip: Gossip,
    now: Instant,
    out: Outbox<GossipOutput>,
}

impl Rig {
    fn new() -> Self {
        let (config, now) = (GossipConfig::lan(), Instant::ZERO);
        let mut out = Outbox::new(Level::Error);
        let Peer { name, address, meta, .. } = peer("me", 1);
        let seed = Seed::from_number(5);
        let gossip = Gossip::new(name, address, meta, &config, seed, now, &mut out);
        out.drain().for_each(drop);
        Self { gossip, now, out }
    }

    /// A packet with one message arrives from somebody.
    fn hear(&mut self, message: &Message) -> Vec<GossipOutput> {
        let from = SocketAddr::from(([10, 0, 0, 1], 999));
        let input = GossipInput::Datagram { from, payload: message.encode() };
        self.gossip.handle(self.now, input, &mut self.out);
        self.out.drain().collect()
    }

    /// Time passes; returns what the member wanted meanwhile.
    fn pass(&mut self, span: Duration) -> Vec<GossipOutput> {
        let end = self.now + span;
        while let Some(at) = self.gossip.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.gossip.handle_timeout(at, &mut self.out);
        }
        self.now = end;
        self.out.drain().collect()
    }
}

fn alive(text: &str, incarnation: u32) -> Message {
    let Peer { name, address, meta, versions, .. } = peer(text, 7);
    let (address, port, versions) = (address.ip(), address.port(), Some(versions));
    let incarnation = Incarnation::new(incarnation);
    Message::Alive(Alive { incarnation, node: name, address, port, meta, versions })
}

fn dead(text: &str, incarnation: u32) -> Message {
    let incarnation = Incarnation::new(incarnation);
    Message::Dead(Dead { incarnation, node: name(text), from: name("other") })
}

fn joins(outputs: &[GossipOutput]) -> usize {
    outputs.iter().filter(|output| matches!(output, GossipOutput::Joined(_))).count()
}

#[test]
fn who_missed_the_end_of_a_forgotten_member_does_not_bring_it_back() {
    let mut rig = Rig::new();
    assert_eq!(joins(&rig.hear(&alive("b", 3))), 1);
    rig.hear(&dead("b", 3));
    rig.pass(Duration::from_secs(40));
    assert!(rig.gossip.peer(&name("b")).is_none(), "it is forgotten");
    let outputs = rig.hear(&alive("b", 3));
    assert_eq!(joins(&outputs), 0);
    let told = outputs.iter().any(|output| {
        matches!(output, GossipOutput::SendDatagram { to, .. } if *to == peer("b", 7).address)
    });
    assert!(told, "if it is there after all, it learns above which incarnation it must rise");
    assert_eq!(joins(&rig.hear(&alive("b", 4))), 1);
}

#[test]
fn newer_news_of_an_end_outlast_what_was_alive_in_between() {
    let mut rig = Rig::new();
    rig.hear(&alive("b", 3));
    rig.hear(&dead("b", 3));
    rig.hear(&dead("b", 5));
    assert_eq!(joins(&rig.hear(&alive("b", 4))), 0);
    assert_eq!(joins(&rig.hear(&alive("b", 6))), 1);
}

#[test]
fn another_record_of_itself_at_its_own_incarnation_is_refuted() {
    for (meta, incarnation) in [(&b"\xff\x80"[..], 1), (b"\xff\x81\xa1a\xa1b", 2)] {
        let mut rig = Rig::new();
        let Message::Alive(claim) = alive("me", 1) else { unreachable!("it is one") };
        let port = peer("me", 1).address.port();
        let meta = Bytes::from_static(meta);
        rig.hear(&Message::Alive(Alive { port, meta, ..claim }));
        let own = rig.gossip.peer(&name("me")).map(|(peer, _)| peer.incarnation.get());
        assert_eq!(own, Some(incarnation));
    }
}

#[test]
fn facts_do_not_keep_events_off_the_wire() {
    let mut rig = Rig::new();
    for number in 0..600 {
        rig.hear(&alive(&format!("member-{number}"), 1));
    }
    let event = Bytes::from_static(b"\x03something to tell");
    rig.gossip.handle(
        rig.now,
        GossipInput::Broadcast {
            class: BroadcastClass::Event,
            key: None,
            payload: event.clone(),
            notify: None,
        },
        &mut rig.out,
    );
    let outputs = rig.pass(Duration::from_secs(3));
    let packets = outputs.iter().filter_map(|output| {
        let GossipOutput::SendDatagram { payload, .. } = output else { return None };
        Some(payload)
    });
    let carries = |packet: &Bytes| {
        let opened = Opener::PLAIN.open(packet).unwrap();
        decode_packet(&opened.packet).contains(&Ok(Message::User(event.clone())))
    };
    let first = packets.clone().position(carries);
    assert!(first.is_some_and(|first| first < 12), "{first:?} of {}", packets.count());
}
