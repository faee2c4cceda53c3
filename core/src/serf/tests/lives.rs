//! Lives of small clusters: join, kill, leave, restart, force-leave, partitions.

use crate::gossip::GossipTrace;
use crate::gossip::tests::cluster::{Cluster, host_name};
use crate::gossip::tests::name;
use crate::id::LamportTime;
use crate::machine::{Machine as _, Outbox};
use crate::serf::{MemberEventKind, MemberStatus, SerfInput, SerfRequest};
use crate::trace::Level;
use crate::wire::gossip::PeerState;
use crate::wire::serf::{Join, Leave, SerfMessage};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn members_that_join_one_see_all() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(5, seed);
        for index in 1..5 {
            cluster.join(index, &[0]);
        }
        cluster.run_for(Duration::from_secs(3));
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        for index in 1..5 {
            assert_eq!(cluster.seats[index].joins, [(1, Vec::new())]);
            assert_eq!(cluster.events(0, MemberEventKind::Join, index), 1);
        }
    }
}

#[test]
fn nobody_is_suspected_without_faults() {
    let mut cluster = Cluster::joined(5, 1);
    cluster.run(300);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    for index in 0..5 {
        let accusations = cluster.traced(index, |trace| {
            matches!(trace, GossipTrace::NoAck { .. } | GossipTrace::Refuting { .. })
        });
        assert_eq!(accusations, 0);
        assert_eq!(cluster.incarnation(index), 1);
        assert!(cluster.seats[index].sent.1 <= 1400, "packets stay in their budget");
    }
}

#[test]
fn a_join_to_nobody_reports_why() {
    let mut cluster = Cluster::new(2, 1);
    cluster.kill(1);
    cluster.join(0, &[1]);
    cluster.run(1);
    let expected = vec!["10.0.0.2:8301: could not connect".to_owned()];
    assert_eq!(cluster.seats[0].joins, [(0, expected)]);
}

#[test]
fn a_killed_member_is_failed_everywhere_within_the_bound() {
    for seed in 0..5 {
        for count in [2, 3, 5] {
            let mut cluster = Cluster::joined(count, seed);
            cluster.kill(count - 1);
            // Probe cycle of the others, verdict, longest suspicion, spread.
            cluster.run(count as u64 + 2 + 24 + 2);
            cluster.assert_seen(count - 1, MemberStatus::Failed);
            assert_eq!(cluster.events(0, MemberEventKind::Failed, count - 1), 1);
            assert_eq!(cluster.events(0, MemberEventKind::Leave, count - 1), 0);
        }
    }
}

#[test]
fn a_killed_member_that_restarts_is_alive_everywhere_above_its_old_incarnation() {
    for seed in 0..5 {
        let mut cluster = Cluster::joined(3, seed);
        cluster.kill(2);
        cluster.run(15);
        cluster.assert_seen(2, MemberStatus::Failed);
        cluster.start(2);
        cluster.run(5);
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        assert!(cluster.incarnation(2) > 1);
        assert_eq!(cluster.events(0, MemberEventKind::Join, 2), 2);
    }
}

/// gossip-protocol.md §15.
#[test]
fn a_member_that_is_back_within_a_minute_of_its_failure_flaps() {
    for (seconds, flaps) in [(15, 1), (120, 0)] {
        let mut cluster = Cluster::joined(3, 1);
        cluster.kill(2);
        cluster.run(seconds);
        cluster.assert_seen(2, MemberStatus::Failed);
        cluster.start(2);
        cluster.run(5);
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        for index in 0..2 {
            let serf = &cluster.seats[index].host.as_ref().unwrap().serf;
            assert_eq!(serf.flaps(), flaps, "after {seconds} s");
        }
    }
}

/// gossip-protocol.md §28, mass restart: their files tell under which incarnations they were known.
#[test]
fn members_that_restart_together_are_believed_without_a_refutation() {
    let mut cluster = Cluster::joined(6, 2);
    cluster.run(5);
    for index in 1..6 {
        cluster.kill(index);
    }
    cluster.run(60);
    for index in 1..6 {
        assert_eq!(cluster.status(0, index), Some(MemberStatus::Failed));
        cluster.start(index);
    }
    cluster.run(45);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    let refutes = |trace: &GossipTrace| {
        matches!(trace, GossipTrace::Refuting { .. } | GossipTrace::RefutingAlive { .. })
    };
    for index in 1..6 {
        assert_eq!(cluster.incarnation(index), 2);
        assert_eq!(cluster.traced(index, refutes), 0);
    }
}

#[test]
fn a_member_that_leaves_is_left_everywhere_and_never_failed() {
    for seed in 0..10 {
        let mut cluster = Cluster::joined(4, seed);
        let started = cluster.now;
        cluster.serf(3, SerfInput::Leave);
        cluster.run(12);
        let took = cluster.seats[3].left_at.unwrap().since(started);
        assert!(took < Duration::from_secs(8), "the leave took {took:?}");
        assert_eq!(cluster.status(3, 3), Some(MemberStatus::Left));
        cluster.kill(3);
        cluster.run(60);
        cluster.assert_seen(3, MemberStatus::Left);
        for index in 0..3 {
            assert_eq!(cluster.events(index, MemberEventKind::Leave, 3), 1);
            assert_eq!(cluster.events(index, MemberEventKind::Failed, 3), 0);
        }
    }
}

#[test]
fn a_lonely_member_leaves_at_once() {
    let mut cluster = Cluster::new(1, 1);
    let started = cluster.now;
    cluster.serf(0, SerfInput::Leave);
    assert_eq!(cluster.seats[0].left_at, Some(started));
    assert!(cluster.seats[0].file.ends_with("leave\n"));
}

#[test]
fn a_leave_ends_even_if_nobody_answers() {
    let mut cluster = Cluster::joined(2, 1);
    cluster.cut(0, 1);
    let started = cluster.now;
    cluster.serf(1, SerfInput::Leave);
    cluster.run(14);
    let took = cluster.seats[1].left_at.unwrap().since(started);
    assert!(took <= Duration::from_secs(13), "the leave took {took:?}");
}

#[test]
fn a_member_that_left_stays_away_until_it_joins_again() {
    let mut cluster = Cluster::joined(3, 4);
    cluster.serf(2, SerfInput::Leave);
    cluster.run(12);
    cluster.kill(2);
    cluster.start(2);
    cluster.run(60);
    cluster.assert_seen(2, MemberStatus::Left);
    assert_eq!(cluster.status(2, 0), None, "it was told to leave, so it joins nobody by itself");
    cluster.join(2, &[1]);
    cluster.run(5);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn a_member_that_joins_right_after_leaving_is_alive_everywhere() {
    let mut cluster = Cluster::joined(3, 9);
    cluster.serf(2, SerfInput::Leave);
    cluster.run(12);
    cluster.kill(2);
    cluster.start(2);
    cluster.join(2, &[0]);
    cluster.run(5);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    cluster.run(120);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn force_leave_makes_a_failed_member_left_everywhere() {
    let mut cluster = Cluster::joined(4, 2);
    cluster.kill(3);
    cluster.run(20);
    cluster.assert_seen(3, MemberStatus::Failed);
    cluster.serf(1, SerfInput::ForceLeave { name: name(&host_name(3)), prune: false });
    cluster.run(3);
    cluster.assert_seen(3, MemberStatus::Left);
    assert_eq!(cluster.events(0, MemberEventKind::Leave, 3), 1);
}

#[test]
fn force_leave_with_prune_forgets_the_member_everywhere() {
    let mut cluster = Cluster::joined(4, 2);
    cluster.kill(3);
    cluster.run(20);
    cluster.serf(1, SerfInput::ForceLeave { name: name(&host_name(3)), prune: true });
    cluster.run(3);
    for index in 0..3 {
        assert_eq!(cluster.status(index, 3), None);
        assert_eq!(cluster.events(index, MemberEventKind::Leave, 3), 1);
        assert_eq!(cluster.events(index, MemberEventKind::Reap, 3), 1);
    }
    cluster.run(120);
    assert_eq!(cluster.status(0, 3), None);
}

#[test]
fn a_pruned_member_does_not_come_back_through_a_member_that_missed_it() {
    let mut cluster = Cluster::joined(4, 2);
    cluster.kill(3);
    cluster.run(20);
    cluster.assert_seen(3, MemberStatus::Failed);
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    cluster.serf(1, SerfInput::ForceLeave { name: name(&host_name(3)), prune: true });
    cluster.run(15);
    assert_eq!(cluster.status(0, 3), None);
    cluster.heal();
    cluster.run(120);
    assert_eq!(cluster.status(0, 3), None);
    assert_eq!(cluster.status(1, 3), None);
    assert_eq!(cluster.status(2, 3), Some(MemberStatus::Left));
}

#[test]
fn a_pruned_member_that_restarts_is_alive_everywhere() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.kill(2);
    cluster.run(20);
    cluster.serf(1, SerfInput::ForceLeave { name: name(&host_name(2)), prune: true });
    cluster.run(3);
    cluster.start(2);
    cluster.run(10);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn a_living_member_made_to_leave_does_not_stick_in_leaving() {
    let mut cluster = Cluster::joined(3, 2);
    // The first member alone hears of the leave, which is so never refuted.
    let leave = Leave { time: LamportTime::new(90), node: name(&host_name(2)), prune: true };
    let host = cluster.seats[0].host.as_mut().unwrap();
    let mut out = Outbox::new(Level::Error);
    let intent = SerfInput::UserMessage(SerfMessage::Leave(leave).encode());
    host.serf.handle(cluster.now, intent, &mut out);
    assert_eq!(cluster.status(0, 2), Some(MemberStatus::Leaving));
    cluster.run(80);
    assert_eq!(cluster.status(0, 2), Some(MemberStatus::Alive));
    cluster.kill(2);
    cluster.run(30);
    assert_eq!(cluster.status(0, 2), Some(MemberStatus::Failed), "the wish to prune it is over");
}

#[test]
fn a_flood_of_intents_about_one_member_does_not_fill_the_queue() {
    let mut cluster = Cluster::joined(3, 2);
    for time in 50..5050 {
        let join = Join { time: LamportTime::new(time), node: name(&host_name(2)) };
        cluster.serf(0, SerfInput::UserMessage(SerfMessage::Join(join).encode()));
    }
    let queued = |cluster: &Cluster| cluster.seats[0].host.as_ref().unwrap().gossip.queued()[1];
    assert_eq!(queued(&cluster), 1);
    // With nobody left to hear it, it is dropped.
    cluster.kill(1);
    cluster.kill(2);
    cluster.run(120);
    assert_eq!(queued(&cluster), 0);
}

#[test]
fn force_leave_of_a_living_member_is_refuted() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.serf(1, SerfInput::ForceLeave { name: name(&host_name(2)), prune: true });
    cluster.run(3);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn a_partition_longer_than_the_memory_of_gossip_heals() {
    let mut cluster = Cluster::joined(4, 3);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        cluster.cut(a, b);
    }
    cluster.run(120);
    assert_eq!(cluster.status(0, 3), Some(MemberStatus::Failed));
    assert_eq!(cluster.status(2, 1), Some(MemberStatus::Failed));
    assert_eq!(cluster.status(2, 3), Some(MemberStatus::Alive));
    cluster.heal();
    cluster.run(90);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn members_killed_one_after_the_other_find_together_again() {
    let mut cluster = Cluster::joined(3, 5);
    for index in [2, 1, 0] {
        cluster.kill(index);
        cluster.run(30);
    }
    for index in [1, 2, 0] {
        cluster.start(index);
        cluster.run(20);
    }
    cluster.run(60);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn changed_tags_reach_everybody() {
    let mut cluster = Cluster::joined(3, 5);
    let set = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    cluster.ask(1, SerfRequest::EditTags { delete: vec!["role".to_owned()], set: set.clone() });
    cluster.run(3);
    for index in 0..3 {
        let host = cluster.seats[index].host.as_ref().unwrap();
        assert_eq!(host.serf.member(&name(&host_name(1))).unwrap().tags.to_map(), set);
        assert_eq!(cluster.events(index, MemberEventKind::Update, 1), 1);
    }
}

#[test]
fn failed_and_left_members_are_reaped_in_their_time() {
    let mut cluster = Cluster::joined(3, 6);
    cluster.serf(2, SerfInput::Leave);
    cluster.run(12);
    cluster.kill(2);
    cluster.kill(1);
    cluster.run(24 * 3600 - 60);
    assert_eq!(cluster.status(0, 1), Some(MemberStatus::Failed));
    assert_eq!(cluster.status(0, 2), Some(MemberStatus::Left));
    cluster.run(120);
    assert_eq!(cluster.status(0, 2), None);
    cluster.run(48 * 3600 - 300);
    assert_eq!(cluster.status(0, 1), Some(MemberStatus::Failed));
    cluster.run(600);
    assert_eq!(cluster.status(0, 1), None);
    assert_eq!(cluster.events(0, MemberEventKind::Reap, 1), 1);
}

#[test]
fn the_same_seed_gives_the_same_life() {
    let life = || {
        let mut cluster = Cluster::joined(4, 7);
        cluster.kill(1);
        cluster.run(60);
        cluster.start(1);
        cluster.run(60);
        let seat = &cluster.seats[0];
        (format!("{:?}", seat.traces), seat.events.clone(), seat.sent, seat.file.clone())
    };
    assert_eq!(life(), life());
}
