//! Small clusters under faults: what must never happen, and what must happen once faults end.

use super::*;
use crate::raft::cluster::Cluster;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_server_tells_its_way_to_leadership_in_the_page_order() {
    let cluster = Cluster::formed(1, &[1]);
    let expected = [
        "[INFO] raft: Node at 10.0.0.1:8300 [Follower] entering Follower state",
        "[WARN] raft: Heartbeat timeout reached, starting election",
        "[INFO] raft: Node at 10.0.0.1:8300 [Candidate] entering Candidate state",
        "[INFO] raft: Election won. Tally: 1",
        "[INFO] raft: Node at 10.0.0.1:8300 [Leader] entering Leader state",
    ];
    let told = cluster.story.iter().filter_map(|line| line.split_once(" 1 ").map(|(_, told)| told));
    let told: Vec<&str> = told.filter(|line| expected.contains(line)).collect();
    assert_eq!(told, expected);
    assert_eq!(cluster.raft(1).term(), Term::new(2));
}

#[test]
fn a_sole_voter_leads_without_waiting_for_anybody() {
    let mut cluster = Cluster::new(1, &[1]);
    let first =
        RaftInput::Bootstrapped { cluster: cluster_id(), configuration: configuration(&[1]) };
    cluster.input(1, first);
    cluster.run(Duration::from_millis(20));
    assert_eq!(cluster.leader(), Some(1));
    let id = cluster.propose(1);
    cluster.run(Duration::from_millis(20));
    cluster.crash(1);
    cluster.start(1);
    cluster.run(Duration::from_millis(20));
    assert!(cluster.done.contains_key(&id));
    assert_eq!(cluster.leader(), Some(1));
    cluster.check_agreement();
}

#[test]
fn three_servers_form_replicate_and_agree() {
    let mut cluster = Cluster::formed(2, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let ids: Vec<_> = (0..50).map(|_| cluster.propose(leader)).collect();
    cluster.run(SECOND);
    assert!(ids.iter().all(|id| cluster.done.contains_key(id)));
    for n in 1..=3 {
        assert_eq!(cluster.raft(n).applied(), cluster.raft(leader).last_index());
    }
    cluster.check_agreement();
}

#[test]
fn a_server_without_a_quorum_tells_who_is_silent_and_how_to_begin_anew() {
    let mut cluster = Cluster::formed(5, &[1, 2, 3]);
    for n in [2, 3] {
        cluster.crash(n);
    }
    let told = |cluster: &Cluster| {
        let lines = cluster.story.iter().filter(|line| line.contains("No quorum"));
        lines.cloned().collect::<Vec<_>>()
    };
    cluster.run(8 * SECOND);
    assert_eq!(told(&cluster), [""; 0], "an outage that is soon over needs no advice");
    cluster.run(60 * SECOND);
    let [line] = &told(&cluster)[..] else { panic!("{:?}", told(&cluster)) };
    for part in [
        "1 of 3 voters answer; 10.0.0.2:8300 (",
        "), 10.0.0.3:8300 (",
        &format!(
            "'[{{\"id\": \"{}\", \"address\": \"10.0.0.1:8300\"}}]' > raft/peers.json",
            node(1)
        ),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // Once a quorum answers, the next loss is told anew.
    cluster.start(2);
    cluster.run(10 * SECOND);
    assert!(cluster.leader().is_some());
    cluster.crash(2);
    cluster.run(60 * SECOND);
    assert_eq!(told(&cluster).len(), 2);
}

#[test]
fn a_crashed_leader_is_replaced_within_two_patiences() {
    let mut cluster = Cluster::formed(3, &[1, 2, 3]);
    let old = cluster.leader().unwrap();
    cluster.crash(old);
    cluster.run(3 * SECOND + Duration::from_millis(50));
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    let id = cluster.propose(new);
    cluster.start(old);
    cluster.run(2 * SECOND);
    assert!(cluster.done.contains_key(&id));
    assert_eq!(cluster.raft(old).applied(), cluster.raft(new).applied());
    cluster.check_agreement();
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_its_writes_have_an_unknown_outcome() {
    let mut cluster = Cluster::formed(4, &[1, 2, 3]);
    let old = cluster.leader().unwrap();
    let others: Vec<u8> = (1..=3).filter(|n| *n != old).collect();
    cluster.part(&[old], &others);
    let id = cluster.propose(old);
    assert!(cluster.raft(old).lease_until(cluster.now).is_some());
    cluster.run(3 * SECOND);
    assert_eq!(cluster.failed.get(&id), Some(&ProposalError::LeadershipLost));
    assert_ne!(cluster.raft(old).role(), RoleKind::Leader);
    let term = cluster.raft(cluster.leader().unwrap()).term();
    cluster.cut.clear();
    cluster.run(3 * SECOND);
    // A server that was cut off never raised its term, so its return deposes nobody (I16).
    assert_eq!(cluster.raft(cluster.leader().unwrap()).term(), term);
    cluster.check_agreement();
}

#[test]
fn a_lease_has_run_out_before_another_leader_is_elected() {
    for seed in 0..20 {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3]);
        let old = cluster.leader().unwrap();
        let others: Vec<u8> = (1..=3).filter(|n| *n != old).collect();
        cluster.part(&[old], &others);
        let lease = cluster.raft(old).lease_until(cluster.now).unwrap();
        while cluster.leader() == Some(old) {
            cluster.run(Duration::from_millis(5));
        }
        assert!(cluster.now > lease, "seed {seed}");
    }
}

fn change(cluster: &mut Cluster, leader: u8, change: Change) -> ProposalId {
    let id = cluster.next_id();
    cluster.input(leader, RaftInput::Change { id, change });
    id
}

#[test]
fn a_server_is_added_once_it_answers_and_votes_once_it_has_caught_up() {
    let mut cluster = Cluster::formed(5, &[1]);
    for _ in 0..200 {
        cluster.propose(1);
    }
    let id = cluster.next_id();
    cluster.input(
        1,
        RaftInput::Change { id, change: Change::Add { server: node(2), address: address(2) } },
    );
    cluster.run(3 * SECOND);
    assert_eq!(cluster.failed.get(&id), Some(&ProposalError::Unreachable));
    cluster.add_host(2);
    let id = cluster.next_id();
    cluster.input(
        1,
        RaftInput::Change { id, change: Change::Add { server: node(2), address: address(2) } },
    );
    cluster.run(2 * SECOND);
    assert!(cluster.done.contains_key(&id));
    assert_eq!(cluster.raft(2).applied(), cluster.raft(1).applied());
    assert!(cluster.raft(1).configuration().learners.contains_key(&node(2)));
    let id = change(&mut cluster, 1, Change::Promote(node(2)));
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&id));
    assert_eq!(*cluster.raft(2).configuration(), configuration(&[1, 2]));
    cluster.check_agreement();
}

#[test]
fn a_removed_follower_learns_it_and_campaigns_no_more() {
    let mut cluster = Cluster::formed(6, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let gone = (1..=3).find(|n| *n != leader).unwrap();
    let id = cluster.next_id();
    cluster.input(
        leader,
        RaftInput::Change { id, change: Change::Remove { server: node(gone), force: false } },
    );
    cluster.run(5 * SECOND);
    assert!(cluster.done.contains_key(&id));
    assert!(!cluster.raft(gone).configuration().is_voter(node(gone)));
    assert!(cluster.raft(gone).configuration_is_committed());
    cluster.run(20 * SECOND);
    assert_eq!(cluster.raft(gone).role(), RoleKind::Follower);
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_leader_that_removes_itself_hands_the_cluster_to_the_others() {
    let mut cluster = Cluster::formed(7, &[1, 2, 3]);
    let old = cluster.leader().unwrap();
    let id = cluster.next_id();
    cluster.input(
        old,
        RaftInput::Change { id, change: Change::Remove { server: node(old), force: false } },
    );
    cluster.run(5 * SECOND);
    assert!(cluster.done.contains_key(&id) || cluster.failed.contains_key(&id));
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    assert!(!cluster.raft(new).configuration().is_voter(node(old)));
    let id = cluster.propose(new);
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&id));
}

#[test]
fn a_removal_that_is_not_committed_answers_no_second_one() {
    let mut cluster = Cluster::formed(9, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let others: Vec<u8> = [1, 2, 3].into_iter().filter(|n| *n != leader).collect();
    cluster.part(&[leader], &others);
    let remove = |cluster: &mut Cluster| {
        let id = cluster.next_id();
        let server = node(others[0]);
        cluster.input(
            leader,
            RaftInput::Change { id, change: Change::Remove { server, force: true } },
        );
        id
    };
    let first = remove(&mut cluster);
    let second = remove(&mut cluster);
    assert!(!cluster.done.contains_key(&first));
    assert!(matches!(cluster.failed.get(&second), Some(ProposalError::Refused(_))));
}

/// Raft thesis §4.2.2: only the leader that removed itself has the log to lead again, although its
/// newest configuration does not name it; after a restart as before it.
#[test]
fn a_leader_whose_own_removal_reached_nobody_leads_again_after_a_restart() {
    let mut cluster = Cluster::formed(7, &[1, 2]);
    let old = cluster.leader().unwrap();
    let other = if old == 1 { 2 } else { 1 };
    cluster.part(&[1], &[2]);
    let id = cluster.next_id();
    cluster.input(
        old,
        RaftInput::Change { id, change: Change::Remove { server: node(old), force: true } },
    );
    cluster.run(SECOND / 10);
    assert!(!cluster.hosts[&old].disk.entries.last().unwrap().payload.is_empty(), "it is durable");
    for n in [1, 2] {
        cluster.crash(n);
    }
    cluster.cut.clear();
    for n in [1, 2] {
        cluster.start(n);
    }
    cluster.run(10 * SECOND);
    assert_eq!(cluster.leader(), Some(other), "the removal is committed by the old leader");
    assert!(cluster.raft(other).configuration().is_sole_voter(node(other)));
}

#[test]
fn the_last_voter_stays_and_a_dead_quorum_needs_force() {
    let mut cluster = Cluster::formed(8, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|n| *n != leader);
    let (dead, live) = (others.next().unwrap(), others.next().unwrap());
    cluster.crash(dead);
    cluster.run(2 * SECOND);
    let mut remove = |force| {
        let id = cluster.next_id();
        cluster.input(
            leader,
            RaftInput::Change { id, change: Change::Remove { server: node(live), force } },
        );
        cluster.failed.get(&id).cloned()
    };
    let refused = |error: Option<ProposalError>, rule: &str| match error {
        Some(ProposalError::Refused(text)) => text.starts_with(rule),
        Some(_) | None => false,
    };
    assert!(refused(remove(false), "P8"));
    assert_eq!(remove(true), None);
    let mut alone = Cluster::formed(9, &[1]);
    let id = alone.next_id();
    alone.input(
        1,
        RaftInput::Change { id, change: Change::Remove { server: node(1), force: true } },
    );
    assert!(
        matches!(alone.failed.get(&id), Some(ProposalError::Refused(rule)) if rule.starts_with("P5"))
    );
}

#[test]
fn a_wiped_server_does_not_count_until_it_is_added_again() {
    let mut cluster = Cluster::formed(10, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let wiped = (1..=3).find(|n| *n != leader).unwrap();
    cluster.crash(wiped);
    cluster.hosts.get_mut(&wiped).unwrap().disk = RestoredRaft { store: store(77), ..blank(wiped) };
    cluster.start(wiped);
    cluster.run(SECOND);
    assert!(cluster.raft(leader).wiped_voters().contains(&node(wiped)));
    for _ in 0..2 {
        let id = cluster.next_id();
        let (server, address) = (node(wiped), address(wiped));
        cluster.input(leader, RaftInput::Change { id, change: Change::Add { server, address } });
        cluster.run(SECOND);
        assert!(cluster.done.contains_key(&id));
    }
    change(&mut cluster, leader, Change::Promote(node(wiped)));
    cluster.run(SECOND);
    let voters = &cluster.raft(leader).configuration().voters;
    assert_eq!(voters[&node(wiped)].store, store(77));
    assert_eq!(cluster.raft(wiped).applied(), cluster.raft(leader).applied());
}

#[test]
fn a_learner_is_sent_everything_and_decides_nothing() {
    let mut cluster = Cluster::formed(11, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    cluster.add_host(4);
    change(&mut cluster, leader, Change::Add { server: node(4), address: address(4) });
    cluster.run(SECOND);
    let others: Vec<u8> = (1..=3).filter(|n| *n != leader).collect();
    // With the learner alone this leader is no quorum: nothing is committed, and it steps down.
    cluster.part(&[leader, 4], &others);
    let id = cluster.propose(leader);
    cluster.run(SECOND / 2);
    assert_eq!(cluster.raft(4).last_index(), cluster.raft(leader).last_index());
    assert!(!cluster.done.contains_key(&id));
    cluster.run(5 * SECOND);
    assert_ne!(cluster.raft(leader).role(), RoleKind::Leader);
    assert_eq!(cluster.raft(4).role(), RoleKind::Follower, "a learner does not campaign");
    assert!(cluster.leader().is_some_and(|n| others.contains(&n)));
    cluster.cut.clear();
    cluster.run(3 * SECOND);
    assert_eq!(cluster.raft(4).applied(), cluster.raft(cluster.leader().unwrap()).applied());
    cluster.check_agreement();
}

#[test]
fn a_learner_that_lacks_much_or_is_silent_is_not_promoted() {
    let mut cluster = Cluster::formed(12, &[1]);
    cluster.add_host(2);
    change(&mut cluster, 1, Change::Add { server: node(2), address: address(2) });
    cluster.run(SECOND);
    let refused = |cluster: &Cluster, id| match cluster.failed.get(id) {
        Some(ProposalError::Refused(rule)) => rule.starts_with("P6"),
        Some(_) | None => false,
    };
    cluster.part(&[1], &[2]);
    for _ in 0..300 {
        cluster.propose(1);
    }
    cluster.run(SECOND / 2);
    let early = change(&mut cluster, 1, Change::Promote(node(2)));
    assert!(refused(&cluster, &early), "it lacks 300 entries");
    cluster.cut.clear();
    cluster.run(SECOND);
    cluster.crash(2);
    cluster.run(2 * SECOND);
    let silent = change(&mut cluster, 1, Change::Promote(node(2)));
    assert!(refused(&cluster, &silent), "it does not answer");
    cluster.start(2);
    cluster.run(SECOND);
    change(&mut cluster, 1, Change::Promote(node(2)));
    cluster.run(SECOND);
    assert!(cluster.raft(2).configuration().is_voter(node(2)));
}

#[test]
fn a_demoted_voter_goes_on_as_a_learner_unless_the_others_are_too_few() {
    let mut cluster = Cluster::formed(13, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let mut others = (1..=3).filter(|n| *n != leader);
    let (first, second) = (others.next().unwrap(), others.next().unwrap());
    change(&mut cluster, leader, Change::Demote(node(first)));
    cluster.run(SECOND);
    assert!(cluster.raft(first).configuration().learners.contains_key(&node(first)));
    let id = cluster.propose(leader);
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&id));
    assert_eq!(cluster.raft(first).applied(), cluster.raft(leader).applied());
    let own = change(&mut cluster, leader, Change::Demote(node(leader)));
    assert!(matches!(cluster.failed.get(&own), Some(ProposalError::Refused(_))));
    let last = change(&mut cluster, leader, Change::Demote(node(second)));
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&last), "the leader alone is a quorum of itself");
    assert!(cluster.raft(leader).configuration().is_sole_voter(node(leader)));
}
