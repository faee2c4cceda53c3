//! Rules of the Raft paper and thesis on one server, each with its source.

use super::server::{Server1, is_ok_at, log_of};
use super::*;
use crate::machine::{Machine, Outbox};
use crate::time::Instant;
use crate::trace::Level;

/// Raft paper §5.2: "Each server will vote for at most one candidate in a given term, on a
/// first-come-first-served basis".
#[test]
fn a_server_votes_once_in_a_term_for_whoever_comes_first() {
    let mut server = Server1::new(2, &[2]);
    assert_eq!(server.ask_vote(2, 3, (2, 2)), None);
    assert_eq!(server.ask_vote(3, 3, (2, 2)), Some(Refusal::Term));
    assert_eq!(server.ask_vote(2, 3, (2, 2)), None);
    assert_eq!(server.ask_vote(3, 4, (2, 2)), None);
}

/// Raft paper §5.4.1: "If the logs have last entries with different terms, then the log with the
/// later term is more up-to-date. If the logs end with the same term, then whichever log is longer
/// is more up-to-date."
#[test]
fn a_vote_goes_only_to_a_log_at_least_as_complete() {
    let cases = [((3, 2), true), ((4, 2), true), ((2, 3), true), ((2, 2), false), ((9, 1), false)];
    for (last, granted) in cases {
        let mut server = Server1::new(3, &[2, 2]);
        assert_eq!(server.ask_vote(2, 4, last).is_none(), granted, "last={last:?}");
    }
}

/// Raft paper §5.3: "If a follower's log is inconsistent with the leader's, the AppendEntries
/// consistency check will fail", and the follower may "include the term of the conflicting entry
/// and the first index it stores for that term".
#[test]
fn a_gap_or_conflict_is_refused_with_a_hint_that_skips_a_term() {
    let leader = log_of(&[1, 4, 4, 5, 5, 6, 6, 6]);
    let mut short = Server1::new(6, &[1, 4]);
    let answer = short.append(8, &leader, (9, 9), 0);
    let hint = AppendReject {
        prev_index: LogIndex::new(9),
        hint_index: LogIndex::new(3),
        hint_term: Term::new(4),
    };
    assert_eq!(answer, [Body::AppendReject(hint)]);
    let mut other = Server1::new(7, &[1, 4, 7, 7, 7, 7, 7, 7]);
    let answer = other.append(8, &leader, (9, 9), 0);
    assert_eq!(answer, [Body::AppendReject(hint)]);
}

/// Raft paper figure 7: whatever a follower lacks or has too much, after one agreeing append its
/// log is the leader's.
#[test]
fn every_follower_of_figure_7_becomes_like_its_leader() {
    let leader = log_of(&[1, 1, 4, 4, 5, 5, 6, 6, 6]);
    let followers: [&[u64]; 6] = [
        &[1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 4],
        &[1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 4, 4, 4, 4],
        &[1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for terms in followers {
        let mut server = Server1::new(7, terms);
        let mut prev = 10;
        let answer = loop {
            match server.append(8, &leader, (prev, 10), 0).as_slice() {
                [Body::AppendReject(reject)] => {
                    let agree = leader.newest_at_most(reject.hint_index, reject.hint_term);
                    prev = agree.unwrap().get().min(prev - 1);
                }
                answer => break answer.to_vec(),
            }
        };
        assert!(is_ok_at(&answer, 10), "{terms:?}: {answer:?}");
        let held: Vec<&Entry> = server.raft.entries().take(10).collect();
        assert_eq!(held, leader.iter().collect::<Vec<_>>());
    }
}

/// Raft thesis §3.5: "If an existing entry conflicts with a new one (same index but different
/// terms), delete the existing entry and all that follow it" - and only then: a late, shorter
/// message must not shorten the log.
#[test]
fn a_late_short_append_shortens_nothing() {
    let leader = log_of(&[1, 2, 2, 2]);
    let mut server = Server1::new(2, &[1, 2, 2, 2]);
    assert!(is_ok_at(&server.append(2, &leader, (1, 2), 0), 2));
    assert_eq!(server.raft.last_index(), LogIndex::new(5));
}

/// Raft paper figure 2: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index
/// of last new entry)".
#[test]
fn a_follower_commits_no_further_than_the_message_vouches_for() {
    let leader = log_of(&[1, 2, 2, 3]);
    let mut server = Server1::new(3, &[1, 2, 2]);
    server.append(3, &leader, (2, 3), 5);
    assert_eq!(server.raft.commit(), LogIndex::new(3));
    assert_eq!(server.applied.len(), 3);
}

/// Raft paper §5.4.2 and figure 8: "Raft never commits log entries from previous terms by counting
/// replicas."
#[test]
fn an_entry_of_an_older_term_is_committed_only_through_one_of_the_own_term() {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    for from in [2, 3] {
        server.acknowledge(from, term, 2);
    }
    assert_eq!(server.raft.commit(), LogIndex::ZERO);
    for from in [2, 3] {
        server.acknowledge(from, term, 3);
    }
    assert_eq!(server.raft.commit(), LogIndex::new(3));
}

/// Raft thesis §6.4: a leader "has the latest committed entries" but does not know which they are
/// until it "commits an entry from its term"; until then it changes no configuration either.
#[test]
fn a_new_leader_has_no_lease_and_changes_nothing_before_its_noop() {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    assert_eq!(server.raft.lease_until(server.now), None);
    let mut out = Outbox::new(Level::Error);
    let (id, server_5) = (ProposalId(1), node(5));
    let remove = RaftInput::Change { id, change: Change::Remove { server: server_5, force: true } };
    server.raft.handle(server.now, remove, &mut out);
    let Some(RaftOutput::ProposalFailed { error: ProposalError::Refused(rule), .. }) = out.pop()
    else {
        panic!("the change is refused")
    };
    assert!(rule.starts_with("P1"));
    for from in [2, 3] {
        server.acknowledge(from, term, 3);
    }
    assert!(server.raft.lease_until(server.now).is_some_and(|until| until > server.now));
}

/// Raft thesis §4.2.3: "if a server receives a RequestVote request within the minimum election
/// timeout of hearing from a current leader, it does not update its term or grant its vote".
#[test]
fn a_server_that_hears_its_leader_neither_votes_nor_adopts_the_term() {
    let mut server = Server1::new(2, &[2]);
    server.receive(2, 3, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.ask_vote(3, 9, (9, 9)), Some(Refusal::LeaderAlive));
    assert_eq!(server.raft.term(), Term::new(3));
    server.now = server.now + Duration::from_secs(1);
    assert_eq!(server.ask_vote(3, 9, (9, 9)), None);
}

/// Raft thesis §9.6: a pre-vote "has no effect" on the one who is asked; a refusal carries the
/// voter's term, or two groups could block each other (raft.md K4).
#[test]
fn a_pre_vote_changes_nothing_and_its_refusal_teaches_the_term() {
    let mut server = Server1::new(5, &[2]);
    let campaign = |term| Campaign {
        term: Term::new(term),
        last_index: LogIndex::new(9),
        last_term: Term::new(4),
        transfer_from: None,
    };
    let answers = server.receive(2, 8, Body::PreVote(campaign(9)));
    assert!(matches!(answers.as_slice(), [Body::PreVoteAnswer { refusal: None, .. }]));
    assert_eq!(server.raft.term(), Term::new(5));
    let answers = server.receive(2, 3, Body::PreVote(campaign(4)));
    let refused = Some(Refusal::Term);
    assert!(
        matches!(answers.as_slice(), [Body::PreVoteAnswer { refusal, .. }] if *refusal == refused)
    );
    let campaign_term = Term::new(6);
    server.receive(3, 7, Body::PreVoteAnswer { campaign_term, refusal: refused });
    assert_eq!(server.raft.term(), Term::new(7));
}

/// raft.md §4.6: a restarted server has forgotten which leader it heard, so that for one heartbeat
/// timeout it votes for nobody, and says how long.
#[test]
fn a_restarted_server_votes_for_nobody_for_a_while() {
    let mut server = Server1::new(2, &[2]);
    server.now = Instant::ZERO + Duration::from_millis(400);
    let remaining = Duration::from_millis(600);
    assert_eq!(server.ask_vote(2, 3, (9, 9)), Some(Refusal::Embargo(remaining)));
    server.now = Instant::ZERO + Duration::from_secs(1);
    assert_eq!(server.ask_vote(2, 3, (9, 9)), None);
}

/// raft.md §4.2: a vote counts only from the store that the configuration names.
#[test]
fn a_wiped_voter_does_not_vote_twice() {
    let mut server = Server1::new(2, &[2]);
    server.now = server.raft.next_timeout().unwrap();
    let mut out = Outbox::new(Level::Error);
    server.raft.handle_timeout(server.now, &mut out);
    server.perform(out);
    let header = |from: u8, store_of: u8| Header {
        cluster: cluster_id(),
        from: node(from),
        address: address(from),
        from_store: store(store_of),
        to: node(1),
        term: Term::new(2),
        sent_at: 0,
    };
    let body = Body::PreVoteAnswer { campaign_term: Term::new(3), refusal: None };
    for header in [header(2, 77), header(3, 3), header(3, 3)] {
        let mut out = Outbox::new(Level::Error);
        let message = Message { header, body: body.clone() };
        server.raft.handle(server.now, RaftInput::Receive(message), &mut out);
        server.perform(out);
    }
    assert_eq!(
        server.raft.term(),
        Term::new(2),
        "one true grant and its own are no quorum of five"
    );
}

/// Raft thesis §4.1 and raft.md P2: a change waits until the one before it is committed.
/// What does not fit into one message would be sent for ever.
#[test]
fn a_proposal_too_large_for_an_entry_is_refused_and_appends_nothing() {
    let mut server = Server1::new(2, &[2]);
    server.elect();
    let last = server.raft.last_index();
    let propose = |server: &mut Server1, id, bytes| {
        let (id, payload) = (ProposalId(id), Bytes::from(vec![0; bytes]));
        server.input(RaftInput::Propose { id, payload });
    };
    propose(&mut server, 1, ENTRY_BYTES_MAX + 1);
    let bytes = ENTRY_BYTES_MAX + 1;
    assert_eq!(server.failed, [(ProposalId(1), ProposalError::TooLarge { bytes })]);
    assert_eq!(server.raft.last_index(), last);
    propose(&mut server, 2, ENTRY_BYTES_MAX);
    assert_eq!(server.raft.last_index(), last.next());
}

#[test]
fn a_second_change_waits_for_the_first() {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    for from in [2, 3] {
        server.acknowledge(from, term, 3);
    }
    let mut remove = |n: u8| {
        let mut out = Outbox::new(Level::Error);
        let (id, server_n) = (ProposalId(u64::from(n)), node(n));
        let remove =
            RaftInput::Change { id, change: Change::Remove { server: server_n, force: true } };
        server.raft.handle(server.now, remove, &mut out);
        let refused = |output| matches!(output, RaftOutput::ProposalFailed { .. });
        out.drain().any(refused)
    };
    assert!(!remove(5));
    assert!(remove(4), "P2");
}

/// simulation.md §12.1: the tests notice each bug planted in this machine.
#[cfg(feature = "sim")]
#[test]
fn every_planted_bug_is_noticed() {
    let form: fn() = || drop(cluster::Cluster::formed(2, &[1, 2, 3]));
    let planted: [(&'static str, fn()); 11] = [
        ("M01", form),
        ("M03", form),
        ("M05", an_entry_of_an_older_term_is_committed_only_through_one_of_the_own_term),
        ("M06", a_follower_commits_no_further_than_the_message_vouches_for),
        ("M07", a_late_short_append_shortens_nothing),
        ("M13", a_server_that_hears_its_leader_neither_votes_nor_adopts_the_term),
        ("M16", transfer::after_a_transfer_that_failed_proposals_go_on_and_the_lease_stays_void),
        ("M17", reads::a_new_leader_answers_no_read_before_its_noop_is_committed_and_applied),
        ("M18", reads::a_round_that_began_before_the_read_does_not_confirm_it),
        ("M21", a_second_change_waits_for_the_first),
        ("M37", transfer::a_late_permission_of_an_older_term_starts_nothing),
    ];
    for (id, test) in planted {
        crate::marks::set_mutant(Some(id));
        let noticed = std::panic::catch_unwind(test).is_err();
        crate::marks::set_mutant(None);
        assert!(noticed, "{id} goes unnoticed");
        test();
    }
}

/// raft.md §3: a server of another cluster is refused before any rule is looked at.
#[test]
fn another_clusters_leader_is_refused() {
    let mut server = Server1::new(2, &[2]);
    let header = Header {
        cluster: ClusterId::from_bytes([0xdd; 16]),
        from: node(2),
        address: address(2),
        from_store: store(2),
        to: node(1),
        term: Term::new(99),
        sent_at: 0,
    };
    let mut out = Outbox::new(Level::Warn);
    for _ in 0..3 {
        let body = Body::Heartbeat { commit: LogIndex::ZERO, round: 1 };
        server.raft.handle(server.now, RaftInput::Receive(Message { header, body }), &mut out);
    }
    assert_eq!(server.raft.term(), Term::new(2));
    assert_eq!(out.drain().count(), 1, "told once");
}
