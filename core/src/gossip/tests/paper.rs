//! What the papers promise, sentence by sentence (SWIM 2002, Lifeguard 2017).

use super::cluster::{Cluster, address, host_name};
use super::name;
use crate::config::GossipConfig;
use crate::gossip::{GossipInput, GossipTrace, Way};
use crate::id::{Incarnation, NodeName};
use crate::serf::MemberStatus;
use crate::wire::checksum::with_crc;
use crate::wire::gossip::{Dead, Message, PeerState, Suspect};
use std::time::Duration;

fn no_acks(cluster: &Cluster) -> usize {
    let missed = |trace: &GossipTrace| matches!(trace, GossipTrace::NoAck { .. });
    cluster.running().map(|index| cluster.traced(index, missed)).sum()
}

fn suspect(about: usize, incarnation: u32, from: usize) -> GossipInput {
    let message = Message::Suspect(Suspect {
        incarnation: Incarnation::new(incarnation),
        node: name(&host_name(about)),
        from: name(&host_name(from)),
    });
    GossipInput::Datagram { from: address(from), payload: message.encode() }
}

/// SWIM §3.1: "If no acknowledgement is received within a prespecified time-out […], Mi indirectly
/// probes Mj."
#[test]
fn helpers_save_a_member_behind_one_broken_link() {
    let mut cluster = Cluster::joined(4, 1);
    cluster.cut(0, 1);
    cluster.run(60);
    assert_eq!(no_acks(&cluster), 0);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

/// Beyond SWIM (memberlist): a stream stands in where datagrams are blocked.
#[test]
fn a_stream_saves_a_member_that_no_datagram_reaches() {
    let mut cluster = Cluster::joined(3, 1);
    cluster.cut_datagrams(0, 1);
    cluster.cut_datagrams(2, 1);
    cluster.run(60);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    assert!(cluster.traced(0, |trace| matches!(trace, GossipTrace::OnlyStream { .. })) > 0);
}

/// Who tells what of member 1 after `cuts` (sender, receiver) of datagrams.
fn directions(cuts: &[(usize, usize)], seconds: u64) -> Vec<(usize, Way, bool)> {
    let mut cluster = Cluster::joined(4, 2);
    for (from, to) in cuts {
        cluster.cut_datagrams_to(*from, *to);
    }
    cluster.run(seconds);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    let mut told = Vec::new();
    for index in 0..4 {
        for trace in &cluster.seats[index].traces {
            if let GossipTrace::OneWay { name: about, way, silent, .. } = trace {
                assert!(*about == name(&host_name(1)) || index == 1);
                if index != 1 {
                    told.push((index, *way, silent.is_some()));
                }
            }
        }
    }
    told
}

/// gossip-protocol.md §28: one line names the direction in which datagrams get lost.
#[test]
fn the_direction_in_which_datagrams_get_lost_is_told_once() {
    assert_eq!(directions(&[(0, 1)], 120), [(0, Way::Helper, false)]);
    assert_eq!(directions(&[(1, 0)], 120), [(0, Way::Helper, true)]);
    let to_it = [(0, 1), (2, 1), (3, 1)];
    let all = |silent| [0, 2, 3].map(|index| (index, Way::Stream, silent));
    assert_eq!(directions(&to_it, 240), all(false));
    let from_it = to_it.map(|(from, to)| (to, from));
    assert_eq!(directions(&from_it, 240), all(true));
}

#[test]
fn the_loss_of_one_answer_tells_nothing() {
    let mut cluster = Cluster::joined(4, 2);
    cluster.cut_datagrams_to(0, 1);
    cluster.run(2);
    cluster.heal();
    cluster.run(120);
    for index in 0..4 {
        assert_eq!(cluster.traced(index, |it| matches!(it, GossipTrace::OneWay { .. })), 0);
    }
}

/// SWIM §4.2: "If Ml is alive and receives a Suspect message about itself, it can send out an Alive
/// message with an incremented incarnation number."
#[test]
fn a_suspected_member_refutes_with_a_higher_incarnation() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.gossip(0, suspect(1, 1, 2));
    assert_eq!(cluster.sees(0, 1).0, Some(PeerState::Suspect));
    cluster.run(3);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    assert_eq!(cluster.incarnation(1), 2);
}

/// SWIM §4.2: "A member's incarnation number can be incremented only by that member itself."
#[test]
fn nobody_else_raises_an_incarnation() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.kill(1);
    cluster.run(20);
    for index in cluster.running() {
        let host = cluster.seats[index].host.as_ref().unwrap();
        assert!(host.gossip.peers().all(|(peer, _)| peer.incarnation.get() == 1));
    }
}

#[test]
fn news_of_members_are_counted_once_and_probes_with_their_time() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.kill(1);
    cluster.run(60);
    cluster.assert_seen(1, MemberStatus::Failed);
    let stats = cluster.seats[0].host.as_ref().unwrap().gossip.stats();
    assert_eq!((stats.alive, stats.suspect, stats.dead), (2, 1, 1));
    assert!(stats.probes.count() > 0 && stats.probes.sum() > Duration::ZERO);
    assert!(stats.exchanges.count() > 0 && stats.exchanges.sum() > Duration::ZERO);
}

/// Lifeguard §IV-A, §IV-B: what tells an operator that a member's verdicts are worth little.
#[test]
fn a_cut_off_member_counts_its_stretched_probes_and_unconfirmed_suspicions() {
    let mut cluster = Cluster::joined(5, 5);
    let counts = |cluster: &Cluster, index: usize| {
        let stats = cluster.seats[index].host.as_ref().unwrap().gossip.stats();
        (stats.probes_stretched, stats.suspicions_unconfirmed)
    };
    assert_eq!(counts(&cluster, 0), (0, 0));
    for other in 1..5 {
        cluster.cut(0, other);
    }
    cluster.run(60);
    let (stretched, unconfirmed) = counts(&cluster, 0);
    assert!(stretched > 0 && unconfirmed > 0, "{stretched}, {unconfirmed}");
    for other in 1..5 {
        assert_eq!(counts(&cluster, other).1, 0, "the others confirm what they suspect");
    }
}

/// SWIM §4.2: a confirmed failure is final for its incarnation; §4.1: it spreads by piggyback.
#[test]
fn a_member_declared_dead_by_mistake_comes_back() {
    let mut cluster = Cluster::joined(3, 3);
    let message = Message::Dead(Dead {
        incarnation: Incarnation::new(1),
        node: name(&host_name(1)),
        from: name(&host_name(2)),
    });
    let payload = message.encode();
    cluster.gossip(0, GossipInput::Datagram { from: address(2), payload });
    assert_eq!(cluster.sees(0, 1).0, Some(PeerState::Dead));
    cluster.run(5);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    assert_eq!(cluster.incarnation(1), 2);
}

/// SWIM §4.3: "The worst case delay between successive selections of the same target is 2n-1
/// protocol periods apart."
#[test]
fn every_member_detects_a_crash_within_two_rounds() {
    for seed in 0..4 {
        let mut cluster = Cluster::joined(6, seed);
        cluster.kill(5);
        cluster.run(2 * 6 - 1 + 1);
        cluster.assert_seen_suspect_or_worse(5);
    }
}

/// Lifeguard §IV-B: independent suspicions drive the timeout down from its maximum to its minimum.
#[test]
fn confirmations_shorten_the_suspicion_of_a_dead_member() {
    let mut cluster = Cluster::joined(5, 4);
    cluster.kill(4);
    let killed = cluster.now;
    while cluster.status(0, 4) != Some(MemberStatus::Failed) {
        cluster.run_for(Duration::from_millis(100));
        assert!(cluster.now.since(killed) < Duration::from_secs(24));
    }
    let confirmed = |trace: &GossipTrace| {
        matches!(trace, GossipTrace::SuspicionExpired { confirmations: 2, .. })
    };
    let total: usize = cluster.running().map(|index| cluster.traced(index, confirmed)).sum();
    assert!(total > 0, "two peers confirmed");
    assert!(cluster.now.since(killed) < Duration::from_secs(15));
}

/// Lifeguard §IV-A: a member whose probes fail while nobody tells it so doubts itself.
#[test]
fn a_cut_off_member_loses_its_health_and_regains_it() {
    let mut cluster = Cluster::joined(5, 5);
    for other in 1..5 {
        cluster.cut(0, other);
    }
    cluster.run(6);
    let score = |cluster: &Cluster| cluster.seats[0].host.as_ref().unwrap().gossip.health_score();
    assert!(score(&cluster) >= 2, "score {}", score(&cluster));
    cluster.heal();
    cluster.run(60);
    assert_eq!(score(&cluster), 0);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

/// Lifeguard §IV-C, buddy system: the suspect hears of the suspicion in the next probe.
#[test]
fn a_suspect_is_told_in_the_probe() {
    let mut cluster = Cluster::joined(2, 6);
    cluster.cut_datagrams(0, 1);
    cluster.gossip(0, suspect(1, 1, 0));
    cluster.run_for(Duration::from_millis(200));
    assert_eq!(cluster.incarnation(1), 1);
    cluster.heal();
    cluster.run_for(Duration::from_millis(1500));
    assert_eq!(cluster.incarnation(1), 2);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

/// gossip-protocol.md §28, flapping: who accused whom is in everybody's log.
#[test]
fn every_log_names_the_accuser() {
    let mut cluster = Cluster::joined(4, 4);
    cluster.gossip(0, suspect(1, 1, 2));
    cluster.run(3);
    for index in [0, 2, 3] {
        let by = |accuser: &NodeName| *accuser == name(&host_name(2));
        let told = |trace: &GossipTrace| {
            let GossipTrace::State { state, accuser, .. } = trace else { return false };
            *state == PeerState::Suspect && accuser.as_ref().is_some_and(by)
        };
        assert_eq!(cluster.traced(index, told), 1);
    }
    let accuser = name(&host_name(2));
    let own = |trace: &GossipTrace| {
        let GossipTrace::Refuting { from, .. } = trace else { return false };
        *from == accuser
    };
    assert_eq!(cluster.traced(1, own), 1);
}

/// Lifeguard §IV-C by contrast: plain SWIM tells a suspect only while the fact is being spread.
#[test]
fn without_the_buddy_system_a_probe_does_not_tell_a_suspect() {
    for buddy in [true, false] {
        let mut cluster = Cluster::empty(6);
        for _ in 0..2 {
            cluster.add(Some(GossipConfig { buddy, ..GossipConfig::lan() }));
        }
        cluster.join(1, &[0]);
        cluster.run(10);
        cluster.cut_datagrams(0, 1);
        cluster.gossip(0, suspect(1, 1, 0));
        // The fact is sent four times, each in vain.
        cluster.run_for(Duration::from_millis(2500));
        cluster.heal();
        cluster.run_for(Duration::from_millis(1200));
        assert_eq!(cluster.incarnation(1), if buddy { 2 } else { 1 });
    }
}

#[test]
fn hostile_datagrams_are_counted_and_change_nothing() {
    let mut cluster = Cluster::joined(2, 7);
    let from = address(7);
    let wrong_sum = [12, 0, 0, 0, 0, 1, 2, 3];
    let forged = Message::Suspect(Suspect {
        incarnation: Incarnation::new(u32::MAX),
        node: name(&host_name(1)),
        from: name("evil"),
    });
    let packets: [&[u8]; 5] = [&[], &[99], &[4, 0x80], &wrong_sum, &with_crc(&forged.encode())];
    for packet in packets {
        let payload = packet.to_vec().into();
        cluster.gossip(0, GossipInput::Datagram { from, payload });
    }
    let host = cluster.seats[0].host.as_ref().unwrap();
    assert_eq!(host.gossip.dropped(), 5);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}
