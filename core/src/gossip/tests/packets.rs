//! What one member makes of single packets, and puts into its own.

use super::streams::World;
use super::{name, peer};
use crate::gossip::{BroadcastClass, GossipInput, GossipOutput, Peer};
use crate::id::Incarnation;
use crate::wire::gossip::{Dead, Message, Suspect};
use crate::wire::packet::{Opener, decode_packet};
use bytes::Bytes;
use std::time::Duration;

fn alive(text: &str, incarnation: u32) -> Message {
    super::alive(Peer { incarnation: Incarnation::new(incarnation), ..peer(text, 7) })
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
    let mut world = World::new();
    assert_eq!(joins(&world.message(&alive("b", 3))), 1);
    world.message(&dead("b", 3));
    world.pass(Duration::from_secs(40));
    assert!(world.gossip.peer(&name("b")).is_none(), "it is forgotten");
    let outputs = world.message(&alive("b", 3));
    assert_eq!(joins(&outputs), 0);
    let told = outputs.iter().any(|output| {
        matches!(output, GossipOutput::SendDatagram { to, .. } if *to == peer("b", 7).address)
    });
    assert!(told, "if it is there after all, it learns above which incarnation it must rise");
    assert_eq!(joins(&world.message(&alive("b", 4))), 1);
}

#[test]
fn newer_news_of_an_end_outlast_what_was_alive_in_between() {
    let mut world = World::new();
    world.message(&alive("b", 3));
    world.message(&dead("b", 3));
    world.message(&dead("b", 5));
    assert_eq!(joins(&world.message(&alive("b", 4))), 0);
    assert_eq!(joins(&world.message(&alive("b", 6))), 1);
}

#[test]
fn another_record_of_itself_at_its_own_incarnation_is_refuted() {
    for (meta, incarnation) in [(&b"\xff\x80"[..], 1), (b"\xff\x81\xa1a\xa1b", 2)] {
        let mut world = World::new();
        let meta = Bytes::from_static(meta);
        world.message(&super::alive(Peer { meta, ..peer("me", 1) }));
        let own = world.gossip.peer(&name("me")).map(|(peer, _)| peer.incarnation.get());
        assert_eq!(own, Some(incarnation));
    }
}

#[test]
fn a_member_hears_that_it_was_thought_dead_and_not_of_a_mere_suspicion() {
    let suspect = |incarnation| {
        let (node, from) = (name("me"), name("other"));
        Message::Suspect(Suspect { incarnation: Incarnation::new(incarnation), node, from })
    };
    let mut world = World::new();
    let mut thought_dead = |message| {
        let outputs = world.message(&message);
        outputs.iter().filter(|output| matches!(output, GossipOutput::ThoughtDead)).count()
    };
    assert_eq!(thought_dead(suspect(1)), 0);
    assert_eq!(thought_dead(dead("me", 1)), 0, "it has a higher incarnation by now");
    assert_eq!(thought_dead(dead("me", 2)), 1);
    assert_eq!(thought_dead(dead("b", 3)), 0, "another one");
}

#[test]
fn facts_do_not_keep_events_off_the_wire() {
    let mut world = World::new();
    for number in 0..600 {
        world.message(&alive(&format!("member-{number}"), 1));
    }
    let event = Bytes::from_static(b"\x03something to tell");
    world.tell(GossipInput::Broadcast {
        class: BroadcastClass::Event,
        key: None,
        payload: event.clone(),
        notify: None,
    });
    let outputs = world.pass(Duration::from_secs(3));
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
