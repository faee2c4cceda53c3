//! Reads that a quorum confirms (Raft thesis §6.4; raft.md §7.1).

use super::server::{Server1, well};
use super::*;
use crate::durations::Durations;
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

fn read(server: &mut Server1, id: u64) -> Vec<u64> {
    rounds(&server.input(RaftInput::Read { id: ReadId(id) }))
}

/// The rounds of the heartbeats among what was sent, each once.
fn rounds(sent: &[Body]) -> Vec<u64> {
    let round = |body: &Body| {
        let Body::Heartbeat { round, .. } = *body else { return None };
        Some(round)
    };
    let mut rounds: Vec<u64> = sent.iter().filter_map(round).collect();
    rounds.dedup();
    rounds
}

fn answer(server: &mut Server1, from: u8, term: u64, round: u64) -> Vec<Body> {
    server.receive(from, term, Body::HeartbeatAnswer { round, condition: well() })
}

fn ready(server: &Server1) -> Vec<u64> {
    server.ready.iter().map(|id| id.0).collect()
}

/// Raft thesis §6.4: "the leader issues a new round of heartbeats and waits for their
/// acknowledgments from a majority of the cluster".
#[test]
fn a_read_is_answered_once_a_majority_answered_a_round_that_began_after_it() {
    let (mut server, term) = settled();
    let [round] = read(&mut server, 7)[..] else { panic!("a round begins at once") };
    answer(&mut server, 2, term, round);
    assert_eq!(ready(&server), [0; 0], "two of five are no majority");
    answer(&mut server, 2, term, round);
    assert_eq!(ready(&server), [0; 0], "a doubled answer counts once");
    answer(&mut server, 3, term, round);
    assert_eq!(ready(&server), [7]);
}

#[test]
fn a_leader_measures_its_barrier_its_confirmations_and_every_other_server() {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    let elected = server.now;
    server.now = elected + Duration::from_millis(5);
    for from in [2, 3] {
        server.acknowledge(from, term, 3);
    }
    let asked = server.now;
    let [round] = read(&mut server, 7)[..] else { panic!("a round begins at once") };
    server.now = asked + Duration::from_millis(7);
    for from in [2, 3] {
        let body = Body::HeartbeatAnswer { round, condition: well() };
        server.receive_sent_at(asked, from, term, body);
    }
    let leading = server.raft.leading();
    let told = |durations: &Durations| (durations.count(), durations.sum().as_millis());
    assert_eq!(told(&leading.barriers), (1, 5));
    assert_eq!(told(&leading.confirmations), (1, 7));
    let peers = [2, 3, 4, 5].map(|peer| &leading.peers[&node(peer)]);
    assert_eq!(peers.map(|peer| peer.entries), [1; 4], "each was sent the noop");
    assert_eq!(peers.map(|peer| told(&peer.heartbeats)), [(1, 7), (1, 7), (0, 0), (0, 0)]);
    assert_eq!(peers.map(|peer| peer.appends.count()), [1, 1, 0, 0]);
    // What was measured outlives the term.
    server.receive(2, term + 1, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.raft.role(), RoleKind::Follower);
    assert_eq!(server.raft.leading().peers.len(), 4);
}

/// raft.md R3: the round under way asked its questions before the read came, so that their answers
/// say nothing about the time after it.
#[test]
pub(super) fn a_round_that_began_before_the_read_does_not_confirm_it() {
    let (mut server, term) = settled();
    let [first] = read(&mut server, 1)[..] else { panic!("a round begins at once") };
    answer(&mut server, 2, term, first);
    for id in 2..100 {
        assert_eq!(read(&mut server, id), [0; 0], "a round is under way");
    }
    let sent = answer(&mut server, 3, term, first);
    assert_eq!(ready(&server), [1]);
    assert_eq!(rounds(&sent), [first + 1], "one round for all that wait");
    for from in [2, 3] {
        answer(&mut server, from, term, first + 1);
    }
    assert_eq!(ready(&server), (1..100).collect::<Vec<_>>());
}

/// raft.md R7 (etcd#20418): answers that were late or doubled on their way are matched by round and
/// term.
#[test]
fn a_delayed_answer_of_an_older_round_or_term_confirms_nothing() {
    let (mut server, term) = settled();
    let [old] = read(&mut server, 1)[..] else { panic!("a round begins at once") };
    for from in [2, 3] {
        answer(&mut server, from, term, old);
    }
    let [new] = read(&mut server, 2)[..] else { panic!("a round begins at once") };
    assert!(new > old);
    for from in [2, 3, 4, 5] {
        answer(&mut server, from, term, old);
        answer(&mut server, from, term - 1, new);
    }
    assert_eq!(ready(&server), [1]);
    for from in [2, 3] {
        answer(&mut server, from, term, new);
    }
    assert_eq!(ready(&server), [1, 2]);
}

#[test]
fn an_answer_to_a_round_that_never_was_is_malformed() {
    let (mut server, term) = settled();
    for from in [2, 3] {
        answer(&mut server, from, term, u64::MAX);
    }
    assert_eq!(server.raft.stats().malformed, 2);
    read(&mut server, 1);
    assert_eq!(ready(&server), [0; 0]);
}

/// Raft thesis §6.4: "If the leader has not yet marked an entry from its current term committed, it
/// waits until it has done so" (etcd#7331, trap 26 of raft.md).
#[test]
pub(super) fn a_new_leader_answers_no_read_before_its_noop_is_committed_and_applied() {
    let mut server = Server1::new(2, &[2]);
    let term = server.elect();
    let [round] = read(&mut server, 1)[..] else { panic!("a round begins at once") };
    for from in [2, 3, 4, 5] {
        answer(&mut server, from, term, round);
    }
    assert_eq!(ready(&server), [0; 0]);
    server.acknowledge(2, term, 3);
    assert_eq!(ready(&server), [0; 0]);
    server.acknowledge(3, term, 3);
    assert_eq!(ready(&server), [1]);
}

/// raft.md R2, R5: a read waits for what was committed when it came, not for what came after.
#[test]
fn a_read_waits_for_what_was_committed_when_it_came_to_be_applied() {
    let (mut server, term) = settled();
    let payload = Bytes::from_static(b"later");
    server.input(RaftInput::Propose { id: ProposalId(1), payload });
    let [round] = read(&mut server, 1)[..] else { panic!("a round begins at once") };
    for from in [2, 3] {
        answer(&mut server, from, term, round);
    }
    assert_eq!(ready(&server), [1], "the proposal is not committed");
}

#[test]
fn a_read_appends_nothing_to_the_log() {
    let mut cluster = Cluster::formed(11, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    cluster.propose(leader);
    cluster.run(SECOND);
    let before = cluster.raft(leader).last_index();
    let reads: Vec<ReadId> = (0..50).map(|_| cluster.read(leader)).collect();
    cluster.run(SECOND / 10);
    assert!(reads.iter().all(|id| cluster.reads_done.contains(id)));
    assert_eq!(cluster.raft(leader).last_index(), before);
}

/// Raft thesis §6.4: a leader that was deposed without knowing it "would return stale data".
#[test]
fn a_deposed_leader_in_a_partition_answers_no_read() {
    for seed in 0..20 {
        let mut cluster = Cluster::formed(seed, &[1, 2, 3]);
        let old = cluster.leader().unwrap();
        let others: Vec<u8> = (1..=3).filter(|n| *n != old).collect();
        cluster.part(&[old], &others);
        let mut reads = Vec::new();
        while cluster.raft(old).role() == RoleKind::Leader {
            reads.push(cluster.read(old));
            cluster.run(Duration::from_millis(20));
        }
        cluster.run(3 * SECOND);
        assert!(cluster.leader().is_some_and(|new| new != old));
        for id in reads {
            assert!(!cluster.reads_done.contains(&id), "seed {seed}");
            assert_eq!(cluster.reads_failed.get(&id), Some(&ReadError::NotLeader));
        }
    }
}

#[test]
fn a_follower_confirms_no_read() {
    let mut server = Server1::new(2, &[2]);
    read(&mut server, 1);
    assert_eq!(server.refused, [(ReadId(1), ReadError::NotLeader)]);
}

#[test]
fn reads_that_wait_are_told_when_the_term_ends() {
    let (mut server, term) = settled();
    read(&mut server, 1);
    server.receive(2, term + 1, Body::Heartbeat { commit: LogIndex::ZERO, round: 1 });
    assert_eq!(server.refused, [(ReadId(1), ReadError::NotLeader)]);
}

/// raft.md R8.
#[test]
fn a_sole_voter_answers_a_read_at_once() {
    let mut cluster = Cluster::formed(1, &[1]);
    let id = cluster.read(1);
    assert!(cluster.reads_done.contains(&id));
}

/// The other voter, whose answer a read waited for, is taken out of the quorum.
#[test]
fn a_read_that_waits_is_answered_when_its_leader_becomes_the_sole_voter() {
    let mut cluster = Cluster::formed(7, &[1, 2]);
    let leader = cluster.leader().unwrap();
    let other = 3 - leader;
    cluster.crash(other);
    let read = cluster.read(leader);
    let id = cluster.next_id();
    cluster.input(
        leader,
        RaftInput::Change { id, change: Change::Remove { server: node(other), force: true } },
    );
    cluster.run(SECOND / 10);
    assert!(cluster.reads_done.contains(&read));
}

#[test]
fn more_reads_than_may_wait_are_refused() {
    let limits = RaftLimits { reads_max: 2, ..RaftLimits::default() };
    let mut server = Server1::with(RaftSettings { limits, ..settings(1) }, 2, &[2]);
    server.elect();
    for id in 1..=3 {
        read(&mut server, id);
    }
    assert_eq!(server.refused, [(ReadId(3), ReadError::Overloaded)]);
}

/// raft.md §6.1: "at most one Append per heartbeat round-trip" to a server that is probed; rounds
/// for reads come far more often than heartbeats that are due.
#[test]
fn rounds_for_reads_do_not_multiply_what_is_sent_again() {
    let (mut server, term) = settled();
    let appends = |sent: &[Body]| sent.iter().filter(|b| matches!(b, Body::Append(_))).count();
    let mut again = 0;
    for id in 1..=10 {
        let [round] = read(&mut server, id)[..] else { panic!("a round begins at once") };
        for from in [2, 3, 4] {
            again += appends(&answer(&mut server, from, term, round));
        }
    }
    assert_eq!(again, 1, "server 4 is probed, and was asked in the first round of the term");
    let [round, ..] = rounds(&server.time_out())[..] else { panic!("a heartbeat is due") };
    assert_eq!(appends(&answer(&mut server, 4, term, round)), 1);
    assert_eq!(appends(&answer(&mut server, 4, term, round)), 0);
}
