//! Servers that lost a part of what they acknowledged (raft.md K12, §11.5).

use super::server::{Server1, is_ok_at, log_of};
use super::*;
use crate::raft::cluster::Cluster;

/// Server 1 of five, which was in term 4 and holds entries of `terms` after the first
/// configuration; the rest is lost.
fn damaged(terms: &[u64]) -> Server1 {
    let entries = log_of(terms).iter().cloned().collect();
    let hard = HardState { term: Term::new(5), voted_for: None };
    let recovering = Some(Term::new(4));
    let cluster = Some(cluster_id());
    let restored = RestoredRaft { cluster, hard, entries, recovering, ..blank(1) };
    Server1::started(settings(1), restored)
}

/// Stops a follower, whose disk loses the log but for its first `kept` entries.
fn lose(cluster: &mut Cluster, kept: usize) -> u8 {
    let leader = cluster.leader();
    let follower = *cluster.hosts.keys().find(|n| Some(**n) != leader).unwrap();
    cluster.crash(follower);
    let disk = &mut cluster.hosts.get_mut(&follower).unwrap().disk;
    disk.snapshot = None;
    disk.entries.truncate(kept);
    disk.recovering = Some(disk.hard.term);
    disk.hard = HardState { term: disk.hard.term.next(), voted_for: None };
    follower
}

/// Has so many proposals committed.
fn propose(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        let leader = cluster.leader().unwrap();
        let id = cluster.propose(leader);
        cluster.run(Duration::from_millis(500));
        assert!(cluster.done.contains_key(&id));
    }
}

fn campaign(term: u64, transfer_from: Option<u64>) -> Campaign {
    let (last_index, last_term) = (LogIndex::new(99), Term::new(term - 1));
    let transfer_from = transfer_from.map(Term::new);
    Campaign { term: Term::new(term), last_index, last_term, transfer_from }
}

fn heartbeat(server: &mut Server1, term: u64, commit: u64) -> Vec<Body> {
    server.receive(2, term, Body::Heartbeat { commit: LogIndex::new(commit), round: 1 })
}

#[test]
fn no_vote_is_granted_while_recovering_whoever_asks() {
    let mut server = damaged(&[1]);
    assert_eq!(server.ask_vote(2, 6, (99, 5)), Some(Refusal::Recovering));
    let permitted = campaign(7, Some(6));
    assert_eq!(server.ask_vote_for(2, permitted), Some(Refusal::Recovering));
    assert_eq!(server.raft.term(), Term::new(5), "a refused candidate raises no term");
    let answer = server.receive(2, 5, Body::PreVote(campaign(6, None)));
    let refusal = Some(Refusal::Recovering);
    assert_eq!(answer, [Body::PreVoteAnswer { campaign_term: Term::new(6), refusal }]);
}

#[test]
fn no_campaign_begins_while_recovering_also_if_the_leader_permits_it() {
    let mut server = damaged(&[1]);
    for _ in 0..5 {
        assert_eq!(server.time_out(), []);
        assert_eq!(server.raft.role(), RoleKind::Follower);
    }
    heartbeat(&mut server, 6, 0);
    let reason = Unfit::Recovering;
    let answer = server.receive(2, 6, Body::TimeoutNow { transfer: 1 });
    assert_eq!(answer, [Body::TransferReject { transfer: 1, reason }]);
    assert_eq!(server.raft.term(), Term::new(6));
}

#[test]
fn entries_are_taken_and_heartbeats_answered_while_recovering() {
    let mut server = damaged(&[1]);
    let log = log_of(&[1, 2, 4, 6]);
    let answer = heartbeat(&mut server, 6, 0);
    assert!(matches!(answer[..], [Body::HeartbeatAnswer { .. }]), "{answer:?}");
    assert!(is_ok_at(&server.append(6, &log, (2, 5), 0), 5));
    assert!(server.raft.is_recovering());
}

#[test]
fn a_leader_of_the_term_in_which_it_was_damaged_is_told_that_it_is_over() {
    let mut server = damaged(&[1]);
    let answer = heartbeat(&mut server, 4, 0);
    assert!(matches!(answer[..], [Body::AppendReject(_)]), "{answer:?}");
    assert_eq!(server.sent[0].header.term, Term::new(5));
}

#[test]
fn it_ends_once_an_entry_of_a_later_leader_is_committed_and_not_before() {
    // Terms 1 to 4 are those before the damage; 6 is the first entry of the new leader.
    let log = log_of(&[1, 2, 4, 6, 6]);
    let mut server = damaged(&[1]);
    server.append(6, &log, (2, 4), 4);
    assert!(server.raft.is_recovering(), "all that is committed may be, but not all that was said");
    server.append(6, &log, (4, 6), 4);
    assert!(server.raft.is_recovering(), "what it holds of the leader may be taken back");
    assert!(!server.identity.recovered);
    heartbeat(&mut server, 6, 5);
    assert!(!server.raft.is_recovering());
    assert!(server.identity.recovered, "and the disk knows");
    assert_eq!(server.ask_vote(3, 7, (99, 6)), Some(Refusal::LeaderAlive));
    server.now = server.now + Duration::from_secs(3);
    assert_eq!(server.ask_vote(3, 7, (99, 6)), None);
}

#[test]
fn what_is_committed_is_not_enough_before_it_is_durable() {
    let mut cluster = Cluster::formed(1, &[1, 2, 3]);
    let follower = lose(&mut cluster, 0);
    cluster.stuck = Some(follower);
    cluster.start(follower);
    cluster.run(Duration::from_secs(8));
    assert!(cluster.leader().is_some());
    assert!(cluster.raft(follower).is_recovering(), "its disk does not answer");
    cluster.stuck = None;
    cluster.crash(follower);
    cluster.start(follower);
    cluster.run(Duration::from_secs(8));
    assert!(!cluster.raft(follower).is_recovering());
}

#[test]
fn a_follower_that_lost_its_log_holds_everything_again_and_can_lead() {
    for (seed, kept) in (1..=20).zip((0..4).cycle()) {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3]);
        propose(&mut cluster, 10);
        let follower = lose(&mut cluster, kept);
        cluster.start(follower);
        // It is started again before it can have got anything back.
        cluster.crash(follower);
        cluster.start(follower);
        assert!(cluster.raft(follower).is_recovering(), "a restart does not end it");
        cluster.run(Duration::from_secs(10));
        assert!(!cluster.raft(follower).is_recovering(), "seed {seed}");
        assert_eq!(cluster.hosts[&follower].disk.recovering, None);
        propose(&mut cluster, 1);
        let leader = cluster.leader().unwrap();
        if leader != follower {
            cluster.transfer(leader, Some(follower));
            cluster.run(Duration::from_secs(2));
        }
        assert_eq!(cluster.leader(), Some(follower), "seed {seed}");
        propose(&mut cluster, 3);
    }
}

#[test]
fn a_follower_that_lost_its_log_gets_a_snapshot_of_what_is_not_kept() {
    let mut cluster = Cluster::new(3, &[1, 2, 3]);
    let limits = RaftLimits { snapshot_entries: 8, trailing_entries: 2, ..RaftLimits::default() };
    let limits = RaftLimits { snapshot_interval: Duration::from_millis(100), ..limits };
    cluster.limits = limits;
    for n in [1, 2, 3] {
        cluster.crash(n);
        cluster.start(n);
    }
    cluster.form(&[1, 2, 3]);
    propose(&mut cluster, 40);
    let follower = lose(&mut cluster, 0);
    cluster.start(follower);
    cluster.run(Duration::from_secs(10));
    assert!(!cluster.raft(follower).is_recovering());
    assert!(cluster.raft(follower).stats().snapshots_installed > 0);
}

#[test]
fn nobody_is_elected_while_only_one_that_recovers_could_make_the_quorum() {
    let mut cluster = Cluster::formed(5, &[1, 2, 3]);
    propose(&mut cluster, 5);
    let leader = cluster.leader().unwrap();
    let damaged = lose(&mut cluster, 1);
    cluster.crash(leader);
    cluster.start(damaged);
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.leader(), None, "what both acknowledged may be held by the third alone");
    cluster.start(leader);
    cluster.run(Duration::from_secs(10));
    assert!(cluster.leader().is_some());
    assert!(!cluster.raft(damaged).is_recovering());
}
