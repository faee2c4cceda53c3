//! Handing leadership over (Raft thesis §3.10; raft.md §8).

use super::server::{Server1, log_of, well};
use super::*;
use crate::raft::cluster::Cluster;

const SECOND: Duration = Duration::from_secs(1);

/// Leads with its noop, entry 3, committed and applied; returns its term.
fn settled() -> (Server1, u64) {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    for from in [2, 3] {
        server.acknowledge(from, term, 3);
    }
    assert_eq!(server.raft.commit(), LogIndex::new(3));
    (server, term)
}

fn transfer(server: &mut Server1, id: u64, to: Option<u8>) -> usize {
    let sent = server.input(RaftInput::Transfer { id: TransferId(id), to: to.map(node) });
    permissions(&sent)
}

fn propose(server: &mut Server1, id: u64) {
    let payload = Bytes::from_static(b"command");
    server.input(RaftInput::Propose { id: ProposalId(id), payload });
}

fn permissions(sent: &[Body]) -> usize {
    sent.iter().filter(|body| matches!(body, Body::TimeoutNow { .. })).count()
}

fn lease(server: &Server1) -> bool {
    server.raft.lease_until(server.now).is_some_and(|until| until > server.now)
}

/// Raft thesis §3.10: "This will cause the target server to have its election timeout expire
/// first", and §4.2.3: the election is allowed although the others hear their leader.
#[test]
fn the_target_wins_at_once_although_all_hear_their_leader() {
    for seed in 0..20 {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3, 4, 5]);
        let old = cluster.leader().unwrap();
        let term = cluster.raft(old).term();
        let target = (1..=5).find(|n| *n != old).unwrap();
        let id = cluster.transfer(old, Some(target));
        cluster.run(SECOND / 20);
        assert_eq!(cluster.leader(), Some(target), "seed {seed}");
        assert_eq!(cluster.raft(target).term(), term.next());
        assert_eq!(cluster.transfers.get(&id), Some(&Ok(())));
        let proposal = cluster.propose(target);
        cluster.run(SECOND / 20);
        assert!(cluster.done.contains_key(&proposal));
    }
}

#[test]
fn without_a_wish_the_voter_with_the_longest_log_takes_over() {
    let (mut server, term) = settled();
    propose(&mut server, 1);
    server.acknowledge(4, term, 4);
    assert_eq!(transfer(&mut server, 1, None), 1);
    assert_eq!(server.raft.hands_over_to(), Some(node(4)));
}

/// Raft thesis §3.10: the prior leader "fully updates the target server's log".
#[test]
fn a_target_that_lags_gets_what_it_lacks_first() {
    let (mut server, term) = settled();
    propose(&mut server, 1);
    propose(&mut server, 2);
    assert_eq!(transfer(&mut server, 1, Some(2)), 0);
    assert!(lease(&server), "nobody was permitted to campaign");
    server.acknowledge(2, term, 4);
    assert_eq!(permissions(&server.sent_bodies()), 0, "entry 5 is missing");
    server.acknowledge(2, term, 5);
    assert_eq!(permissions(&server.sent_bodies()), 1);
    assert!(!lease(&server));
    assert_eq!(permissions(&server.time_out()), 1, "the permission may have been lost");
}

/// Raft thesis §3.10: "The prior leader stops accepting new client requests"; only at the end, or
/// a target far behind would stop all writes (openraft#2088).
#[test]
fn proposals_are_refused_only_while_the_target_comes_to_the_end() {
    let (mut server, term) = settled();
    for id in 1..=100 {
        propose(&mut server, id);
    }
    transfer(&mut server, 1, Some(2));
    propose(&mut server, 101);
    assert_eq!(server.failed, [], "the target lacks more than a few entries");
    let last = server.raft.last_index();
    server.acknowledge(2, term, 60);
    propose(&mut server, 102);
    assert_eq!(server.failed, [(ProposalId(102), ProposalError::HandingOver)]);
    assert_eq!(server.raft.last_index(), last, "nothing was appended");
}

#[test]
fn a_target_that_never_comes_to_the_end_stops_proposals_for_half_the_time_at_most() {
    let (mut server, term) = settled();
    for id in 1..=100 {
        propose(&mut server, id);
    }
    transfer(&mut server, 1, Some(2));
    let began = server.now;
    while server.transfers.is_empty() {
        keep_in_office(&mut server, term);
        propose(&mut server, 200);
        let refused = !server.failed.is_empty();
        assert_eq!(refused, server.now.since(began) >= SECOND / 2, "after {:?}", server.now);
    }
    assert_eq!(server.transfers, [(TransferId(1), Err(TransferError::TimedOut))]);
    assert!(server.now.since(began) < SECOND * 12 / 10);
}

/// Its next heartbeat, answered by two others.
fn keep_in_office(server: &mut Server1, term: u64) {
    let sent = server.time_out();
    let round = sent.iter().find_map(|body| match body {
        Body::Heartbeat { round, .. } => Some(*round),
        Body::PreVote(_)
        | Body::PreVoteAnswer { .. }
        | Body::RequestVote(_)
        | Body::VoteAnswer { .. }
        | Body::Append(_)
        | Body::AppendOk { .. }
        | Body::AppendReject(_)
        | Body::SnapshotBlock(_)
        | Body::SnapshotAnswer { .. }
        | Body::HeartbeatAnswer { .. }
        | Body::TimeoutNow { .. }
        | Body::TransferReject { .. } => None,
    });
    let (round, condition) = (round.unwrap(), well());
    for from in [4, 5] {
        server.receive(from, term, Body::HeartbeatAnswer { round, condition });
    }
}

/// raft.md §8 step 5: a vote that rests on the permission may be given at any later time, so no
/// lease is safe again in this term.
#[test]
pub(super) fn after_a_transfer_that_failed_proposals_go_on_and_the_lease_stays_void() {
    let reason = Unfit::DiskStalled;
    for rejected in [true, false] {
        let (mut server, term) = settled();
        assert!(lease(&server));
        assert_eq!(transfer(&mut server, 1, Some(2)), 1);
        propose(&mut server, 1);
        assert_eq!(server.failed.len(), 1);
        if rejected {
            server.receive(2, term, Body::TransferReject { transfer: 1, reason });
            assert_eq!(server.transfers[0].1, Err(TransferError::Rejected(reason)));
        }
        while server.transfers.is_empty() {
            keep_in_office(&mut server, term);
        }
        propose(&mut server, 2);
        assert_eq!(server.failed.len(), 1, "proposals are taken again");
        for _ in 0..20 {
            keep_in_office(&mut server, term);
            assert!(!lease(&server));
        }
        assert_eq!(server.raft.role(), RoleKind::Leader);
    }
}

#[test]
fn a_refusal_of_an_earlier_transfer_ends_no_later_one() {
    let (mut server, term) = settled();
    let reason = Unfit::DiskStalled;
    transfer(&mut server, 1, Some(2));
    server.receive(2, term, Body::TransferReject { transfer: 1, reason });
    transfer(&mut server, 2, Some(2));
    server.receive(2, term, Body::TransferReject { transfer: 1, reason });
    assert_eq!(server.raft.hands_over_to(), Some(node(2)));
    server.receive(2, term, Body::TransferReject { transfer: 2, reason });
    assert_eq!(server.raft.hands_over_to(), None);
}

#[test]
fn a_second_request_joins_the_first_or_ends_it() {
    let (mut server, term) = settled();
    transfer(&mut server, 1, Some(2));
    assert_eq!(transfer(&mut server, 2, Some(2)), 0);
    assert_eq!(transfer(&mut server, 3, None), 0);
    assert_eq!(transfer(&mut server, 4, Some(3)), 1);
    let aborted = |id| (TransferId(id), Err(TransferError::Aborted));
    assert_eq!(server.transfers, [aborted(1), aborted(2), aborted(3)]);
    server.receive(3, term + 1, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.transfers.last(), Some(&(TransferId(4), Ok(()))));
}

/// raft.md P7, §8 step 7.
#[test]
fn a_transfer_forbids_every_change_but_the_removal_of_a_server_it_concerns() {
    let refused = |server: &mut Server1, n: u8| {
        let (id, before) = (ProposalId(u64::from(n)), server.failed.len());
        server.input(RaftInput::Change {
            id,
            change: Change::Remove { server: node(n), force: true },
        });
        server.failed.len() > before
    };
    for concerned in [1, 2] {
        let (mut server, _) = settled();
        transfer(&mut server, 1, Some(2));
        assert!(refused(&mut server, 5), "P7");
        assert!(!refused(&mut server, concerned));
        assert_eq!(server.transfers, [(TransferId(1), Err(TransferError::Aborted))]);
    }
}

#[test]
fn there_is_no_target_but_another_voter_that_answers() {
    let mut alone = Cluster::formed(1, &[1]);
    let id = alone.transfer(1, None);
    assert_eq!(alone.transfers.get(&id), Some(&Err(TransferError::NoTarget)));
    let (mut server, term) = settled();
    for n in [1, 9] {
        transfer(&mut server, u64::from(n), Some(n));
    }
    for _ in 0..12 {
        keep_in_office(&mut server, term);
    }
    transfer(&mut server, 3, Some(3));
    let error = |id| (TransferId(id), Err(TransferError::NoTarget));
    assert_eq!(server.transfers, [error(1), error(9), error(3)], "3 is silent");
    let mut follower = Server1::new(2, &[2]);
    transfer(&mut follower, 1, None);
    assert_eq!(follower.transfers, [(TransferId(1), Err(TransferError::NotLeader))]);
}

/// raft.md §8: "TimeoutNow without term lets an old message start an election".
#[test]
pub(super) fn a_late_permission_of_an_older_term_starts_nothing() {
    let mut server = Server1::new(3, &[2]);
    server.receive(2, 3, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.receive(3, 2, Body::TimeoutNow { transfer: 1 }), []);
    assert_eq!((server.raft.term(), server.raft.role()), (Term::new(3), RoleKind::Follower));
    // One of its term does; the same once more does not.
    let asked = server.receive(2, 3, Body::TimeoutNow { transfer: 1 });
    assert_eq!(asked.len(), 4);
    let permitted = |body: &Body| {
        let Body::RequestVote(campaign) = body else { return false };
        campaign.transfer_from == Some(Term::new(3)) && campaign.term == Term::new(4)
    };
    assert!(asked.iter().all(permitted));
    assert_eq!(server.receive(2, 3, Body::TimeoutNow { transfer: 1 }), []);
    assert_eq!(server.raft.term(), Term::new(4));
}

/// hraft#398: a server that does not vote is no candidate, whoever asks it to be one.
#[test]
fn a_removed_server_never_campaigns() {
    let mut log = log_of(&[2]);
    let without = crate::wire::pack::to_bytes(&configuration(&[2, 3, 4, 5]));
    log.append_new(Term::new(2), EntryKind::Config, without);
    let mut server = Server1::new(2, &[2]);
    server.append(2, &log, (2, 3), 3);
    assert!(!server.raft.configuration().is_voter(node(1)));
    let answer = server.receive(2, 2, Body::TimeoutNow { transfer: 7 });
    let reason = Unfit::NotVoter;
    assert_eq!(answer, [Body::TransferReject { transfer: 7, reason }]);
    assert_eq!(server.raft.role(), RoleKind::Follower);
}

/// raft.md §4.4, §4.6: who has the permission of the leader's term is voted for in spite of that
/// leader and of the embargo, in the next term and in no other.
#[test]
fn a_permission_holds_for_one_election_only() {
    let campaign = |term, from: u64| Campaign {
        term: Term::new(term),
        last_index: LogIndex::new(9),
        last_term: Term::new(4),
        transfer_from: Some(Term::new(from)),
    };
    let mut server = Server1::new(5, &[2]);
    server.receive(2, 5, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.ask_vote_for(3, campaign(5, 4)), Some(Refusal::LeaderAlive));
    assert_eq!(server.receive(3, 9, Body::RequestVote(campaign(9, 5))), [], "malformed");
    assert_eq!(server.raft.term(), Term::new(5));
    assert_eq!(server.ask_vote_for(3, campaign(6, 5)), None);
    let mut restarted = Server1::new(5, &[2]);
    restarted.now = crate::time::Instant::ZERO + SECOND / 2;
    assert!(matches!(restarted.ask_vote(3, 6, (9, 4)), Some(Refusal::Embargo(_))));
    assert_eq!(restarted.ask_vote_for(3, campaign(6, 5)), None);
}

/// raft.md §5.2, K5: with a disk that does not answer, a leader is of no use; its log is elsewhere.
#[test]
fn a_leader_whose_disk_does_not_answer_hands_over_before_it_steps_down() {
    for seed in 0..10 {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3]);
        let old = cluster.leader().unwrap();
        cluster.stuck = Some(old);
        let id = cluster.propose(old);
        let (began, mut without) = (cluster.now, Duration::ZERO);
        while cluster.now.since(began) < 3 * SECOND {
            cluster.run(Duration::from_millis(5));
            if cluster.leader().is_none() {
                without += Duration::from_millis(5);
            }
        }
        let new = cluster.leader().unwrap();
        assert_ne!(new, old);
        assert!(without < SECOND / 10, "seed {seed}: nobody led for {without:?}");
        assert_eq!(cluster.failed.get(&id), Some(&ProposalError::LeadershipLost));
        assert_eq!(cluster.raft(new).term(), cluster.raft(old).term());
    }
}

#[test]
fn a_leader_whose_disk_does_not_answer_steps_down_if_nobody_takes_over() {
    let mut cluster = Cluster::formed(3, &[1, 2, 3]);
    let old = cluster.leader().unwrap();
    let others: Vec<u8> = (1..=3).filter(|n| *n != old).collect();
    cluster.stuck = Some(old);
    cluster.propose(old);
    cluster.run(Duration::from_millis(950));
    cluster.no_votes = true;
    cluster.run(3 * SECOND);
    assert_ne!(cluster.raft(old).role(), RoleKind::Leader);
    assert!(others.iter().all(|n| cluster.raft(*n).role() != RoleKind::Leader));
}

/// raft.md §7.2: no lease while the own disk does not answer, also before the next heartbeat hands
/// over.
#[test]
fn a_leader_whose_disk_does_not_answer_has_no_lease() {
    for seed in 0..10 {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3]);
        let old = cluster.leader().unwrap();
        cluster.stuck = Some(old);
        cluster.propose(old);
        let lease = |cluster: &Cluster| cluster.raft(old).lease_until(cluster.now);
        cluster.run(SECOND - Duration::from_millis(1));
        assert!(lease(&cluster).is_some_and(|until| until > cluster.now), "seed {seed}");
        cluster.run(Duration::from_millis(2));
        assert_eq!(lease(&cluster), None, "seed {seed}");
    }
}
