//! Full disks: nothing is lost, nothing stops, and whoever has room goes on (raft.md §11.3 rule 6).

use super::server::{Server1, is_ok_at, log_of, well};
use super::*;
use crate::raft::cluster::Cluster;

const SECOND: Duration = Duration::from_secs(1);

fn full(cluster: &mut Cluster, n: u8, full: bool) {
    cluster.input(n, RaftInput::LogFull(full));
}

fn followers(cluster: &Cluster, leader: u8) -> Vec<u8> {
    cluster.hosts.keys().copied().filter(|n| *n != leader).collect()
}

fn unfit(answers: &[Body]) -> Option<Unfit> {
    match answers {
        [Body::AppendOk { condition, .. } | Body::HeartbeatAnswer { condition, .. }] => {
            condition.unfit
        }
        other => panic!("{other:?}"),
    }
}

/// Messages with entries among these, to `to`.
fn entries_to(server: &Server1, to: u8) -> usize {
    let brings = |message: &&Message| {
        let Body::Append(append) = &message.body else { return false };
        message.header.to == node(to) && !append.entries.is_empty()
    };
    server.sent.iter().filter(brings).count()
}

#[test]
fn a_full_leader_hands_over_to_one_that_is_not_and_catches_up_later() {
    let mut cluster = Cluster::formed(1, &[1, 2, 3]);
    let old = cluster.leader().unwrap();
    let others = followers(&cluster, old);
    full(&mut cluster, others[0], true);
    cluster.run(SECOND);
    full(&mut cluster, old, true);
    let refused = cluster.propose(old);
    assert_eq!(cluster.failed.get(&refused), Some(&ProposalError::HandingOver));
    cluster.run(SECOND * 3);
    assert_eq!(cluster.leader(), Some(others[1]), "the other one's disk is full too");
    let last = cluster.raft(old).last_index();
    let refused = cluster.propose(others[1]);
    assert_eq!(cluster.failed.get(&refused), Some(&ProposalError::DiskFull), "two of three");
    full(&mut cluster, others[0], false);
    cluster.run(SECOND);
    let done = cluster.propose(others[1]);
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&done), "two of three have room");
    assert_eq!(cluster.raft(old).last_index(), last, "the full one takes nothing");
    full(&mut cluster, old, false);
    cluster.run(SECOND);
    assert_eq!(cluster.raft(old).last_index(), cluster.raft(others[1]).last_index());
    assert!(cluster.raft(old).applied() >= cluster.done[&done]);
}

#[test]
fn a_full_server_alone_serves_reads_and_refuses_writes_until_there_is_room() {
    let mut cluster = Cluster::formed(1, &[1]);
    full(&mut cluster, 1, true);
    let (refused, read) = (cluster.propose(1), cluster.read(1));
    let change = cluster.next_id();
    let add = Change::Add { server: node(2), address: address(2) };
    cluster.input(1, RaftInput::Change { id: change, change: add });
    cluster.run(SECOND);
    assert_eq!(cluster.failed.get(&refused), Some(&ProposalError::DiskFull));
    assert!(matches!(cluster.failed.get(&change), Some(ProposalError::Refused(_))));
    assert!(cluster.reads_done.contains(&read) && cluster.leader() == Some(1));
    full(&mut cluster, 1, false);
    let done = cluster.propose(1);
    cluster.run(SECOND);
    assert!(cluster.done.contains_key(&done));
}

#[test]
fn a_full_follower_acknowledges_what_it_holds_and_takes_nothing() {
    let mut server = Server1::new(2, &[1, 1]);
    server.input(RaftInput::LogFull(true));
    let log = log_of(&[1, 1, 2, 2]);
    let answers = server.append(2, &log, (2, 5), 1);
    assert!(is_ok_at(&answers, 3), "{answers:?}");
    assert_eq!(unfit(&answers), Some(Unfit::DiskFull));
    assert_eq!(server.raft.last_index().get(), 3);
    // A conflict is left as it is, too: its truncation would be written.
    let other = log_of(&[2, 2]);
    assert!(is_ok_at(&server.append(2, &other, (1, 3), 1), 1));
    server.append(2, &log, (2, 5), 5);
    let (last, commit) = (server.raft.last_index().get(), server.raft.commit().get());
    assert_eq!((last, commit), (3, 3), "no more than it holds");
}

#[test]
fn a_full_follower_votes() {
    let mut server = Server1::new(2, &[1, 1]);
    server.input(RaftInput::LogFull(true));
    assert_eq!(server.ask_vote(2, 3, (9, 2)), None);
}

#[test]
fn a_full_follower_is_sent_nothing_until_it_has_room() {
    let mut server = Server1::new(1, &[1]);
    let term = server.elect();
    let noop = server.raft.last_index().get();
    (2..=5).for_each(|from| server.acknowledge(from, term, noop));
    let round = server.time_out().iter().find_map(|body| {
        let Body::Heartbeat { round, .. } = body else { return None };
        Some(*round)
    });
    let answer = |unfit| {
        let condition = Condition { unfit, ..well() };
        Body::HeartbeatAnswer { round: round.unwrap(), condition }
    };
    server.receive(2, term, answer(Some(Unfit::DiskFull)));
    let payload = Bytes::from_static(b"x");
    server.input(RaftInput::Propose { id: ProposalId(1), payload });
    assert_eq!((entries_to(&server, 2), entries_to(&server, 3)), (0, 1));
    server.receive(2, term, answer(Some(Unfit::DiskFull)));
    assert_eq!(entries_to(&server, 2), 0);
    server.receive(2, term, answer(None));
    assert_eq!(entries_to(&server, 2), 1);
}

#[test]
fn a_transfer_to_a_full_server_is_refused() {
    let mut cluster = Cluster::formed(1, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let target = followers(&cluster, leader)[0];
    full(&mut cluster, target, true);
    let id = cluster.transfer(leader, Some(target));
    cluster.run(SECOND);
    let refused = TransferError::Rejected(Unfit::DiskFull);
    assert_eq!(cluster.transfers.get(&id), Some(&Err(refused)));
}

#[test]
fn a_snapshot_that_finds_no_room_is_taken_again_later() {
    let limits = RaftLimits { snapshot_entries: 4, ..RaftLimits::default() };
    let mut server = Server1::with(RaftSettings { limits, ..settings(1) }, 2, &[1, 1]);
    let log = log_of(&[1, 1, 2, 2, 2, 2]);
    let taken = |server: &mut Server1, range, commit| {
        server.snapshots.clear();
        server.append(2, &log, range, commit);
        server.snapshots.len()
    };
    assert_eq!(taken(&mut server, (2, 5), 5), 1);
    server.input(RaftInput::Snapshot(SnapshotInput::NoRoom { receipt: None }));
    assert_eq!(taken(&mut server, (5, 6), 6), 0, "not at once");
    server.now = server.now + limits.snapshot_interval;
    assert_eq!(taken(&mut server, (6, 7), 7), 1);
}

#[test]
fn a_follower_without_room_for_a_snapshot_gets_it_once_it_has() {
    let mut cluster = Cluster::new(1, &[]);
    let limits = RaftLimits { snapshot_entries: 4, trailing_entries: 2, ..cluster.limits };
    cluster.limits = RaftLimits { snapshot_interval: SECOND, ..limits };
    [1, 2, 3].into_iter().for_each(|n| cluster.add_host(n));
    cluster.form(&[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let lacking = followers(&cluster, leader)[0];
    cluster.crash(lacking);
    for _ in 0..40 {
        cluster.propose(leader);
        cluster.run(Duration::from_millis(150));
    }
    cluster.full = Some(lacking);
    cluster.start(lacking);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.raft(lacking).stats().snapshots_installed, 0);
    let sent = cluster.raft(leader).stats().snapshots_sent;
    assert!((1..5).contains(&sent), "it is not sent again and again: {sent} times");
    cluster.full = None;
    cluster.run(SECOND * 10);
    assert_eq!(cluster.raft(lacking).applied(), cluster.raft(leader).applied());
}
