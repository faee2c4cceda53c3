//! Snapshots in small clusters: compaction, servers that lag, and crashes at every step.

use super::*;
use crate::raft::cluster::Cluster;

fn small() -> RaftLimits {
    RaftLimits {
        snapshot_entries: 10,
        snapshot_interval: Duration::from_millis(100),
        trailing_entries: 4,
        ..RaftLimits::default()
    }
}

fn formed(seed: u64, servers: &[u8]) -> Cluster {
    let mut cluster = Cluster::new(seed, &[]);
    cluster.limits = small();
    servers.iter().for_each(|n| cluster.add_host(*n));
    cluster.form(servers);
    cluster
}

fn write(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        if let Some(leader) = cluster.leader() {
            cluster.propose(leader);
        }
        cluster.run(Duration::from_millis(20));
    }
}

#[test]
fn a_log_is_cut_and_still_serves_who_is_a_little_behind() {
    let mut cluster = formed(1, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let late = [1, 2, 3].into_iter().find(|n| *n != leader).unwrap();
    write(&mut cluster, 40);
    let base = cluster.raft(leader).log_base().index;
    assert!(base > LogIndex::new(20), "the log begins after {base}");
    cluster.part(&[late], &[1, 2, 3]);
    write(&mut cluster, 3);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(3));
    cluster.check_agreement();
    assert_eq!(cluster.raft(late).stats().snapshots_installed, 0);
}

#[test]
fn a_server_that_missed_what_is_cut_gets_a_snapshot() {
    let mut cluster = formed(2, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let late = [1, 2, 3].into_iter().find(|n| *n != leader).unwrap();
    cluster.part(&[late], &[1, 2, 3]);
    write(&mut cluster, 60);
    assert!(cluster.raft(leader).log_base().index > cluster.raft(late).last_index());
    cluster.cut.clear();
    cluster.run(Duration::from_secs(3));
    cluster.check_agreement();
    assert_eq!(cluster.raft(late).stats().snapshots_installed, 1);
    assert_eq!(cluster.raft(late).commit(), cluster.raft(leader).commit());
    // It goes on from there over a restart.
    cluster.crash(late);
    cluster.start(late);
    write(&mut cluster, 5);
    cluster.run(Duration::from_secs(3));
    cluster.check_agreement();
}

#[test]
fn a_slow_receiver_is_not_sent_snapshots_for_ever() {
    let mut cluster = formed(3, &[1, 2, 3]);
    let leader = cluster.leader().unwrap();
    let late = [1, 2, 3].into_iter().find(|n| *n != leader).unwrap();
    cluster.part(&[late], &[1, 2, 3]);
    write(&mut cluster, 60);
    cluster.cut.clear();
    // Storing one takes longer than it takes the others to cut the log again (consul#9609).
    cluster.store_time = Duration::from_millis(900);
    write(&mut cluster, 400);
    cluster.run(Duration::from_secs(3));
    cluster.check_agreement();
    assert_eq!(cluster.raft(late).stats().snapshots_installed, 1);
}

#[test]
fn lost_blocks_are_sent_again_and_a_receiver_that_restarts_begins_anew() {
    for seed in 0..40 {
        let mut cluster = formed(seed, &[1, 2, 3]);
        let leader = cluster.leader().unwrap();
        let late = [1, 2, 3].into_iter().find(|n| *n != leader).unwrap();
        cluster.part(&[late], &[1, 2, 3]);
        write(&mut cluster, 40);
        cluster.cut.clear();
        cluster.store_time = Duration::from_millis(30);
        cluster.loss_percent = 25;
        let time = cluster.rng.jitter(Duration::from_millis(400));
        cluster.run(time);
        cluster.crash(late);
        cluster.run(Duration::from_millis(100));
        cluster.start(late);
        cluster.run(Duration::from_secs(2));
        cluster.loss_percent = 0;
        cluster.run(Duration::from_secs(5));
        cluster.check_agreement();
        assert!(cluster.raft(late).last_index() >= LogIndex::new(40), "seed {seed}");
    }
}

/// A block of a snapshot of one block, as leader 2 of term 3 sends it.
fn only_block(index: u64) -> SnapshotBlock {
    let meta = SnapshotMeta {
        index: LogIndex::new(index),
        term: Term::new(3),
        chain: 7,
        configuration: configuration(&[1, 2, 3]),
        configuration_index: LogIndex::new(1),
    };
    SnapshotBlock { snapshot: 1, meta, number: 0, data: Bytes::from_static(b"1"), last: false }
}

fn from_leader(block: SnapshotBlock) -> RaftInput {
    let header = Header {
        cluster: cluster_id(),
        from: node(2),
        address: address(2),
        from_store: store(2),
        to: node(1),
        term: Term::new(3),
        sent_at: 0,
    };
    RaftInput::Receive(Message { header, body: Body::SnapshotBlock(block) })
}

/// The crash after which a snapshot is on the disk and its term is not would leave a log that is
/// newer than its server (raft.md §3 D1).
#[test]
fn a_snapshot_is_not_taken_before_its_term_is_durable() {
    let mut cluster = Cluster::new(7, &[1]);
    let sync = cluster.sync_max;
    cluster.input(1, from_leader(only_block(50)));
    assert_eq!(cluster.hosts[&1].receiving(), None);
    cluster.run(sync * 2);
    cluster.input(1, from_leader(only_block(50)));
    assert_eq!(cluster.hosts[&1].receiving(), Some(LogIndex::new(50)));
}

#[test]
fn blocks_that_no_leader_sends_are_not_taken() {
    let mut cluster = Cluster::new(8, &[1]);
    cluster.input(1, from_leader(only_block(50)));
    cluster.run(Duration::from_millis(10));
    cluster.input(1, from_leader(only_block(1 << 63)));
    assert_eq!(cluster.hosts[&1].receiving(), None);
    cluster.input(1, from_leader(only_block(50)));
    let second = SnapshotBlock { number: 1, data: Bytes::from_static(b"2"), ..only_block(60) };
    cluster.input(1, from_leader(second));
    assert_eq!(cluster.raft(1).stats().malformed, 2);
    assert_eq!(cluster.hosts[&1].receiving(), Some(LogIndex::new(50)));
}

/// The network may keep a block while its leader gives the snapshot up and sends a newer one (lite
/// seed 160991057): taking the old one would throw away what has arrived of the new one.
#[test]
fn a_late_block_of_an_older_snapshot_does_not_displace_a_newer_one() {
    let mut cluster = Cluster::new(9, &[1]);
    cluster.input(1, from_leader(only_block(50)));
    cluster.run(Duration::from_millis(10));
    let counted = |snapshot, index| SnapshotBlock { snapshot, ..only_block(index) };
    cluster.input(1, from_leader(counted(2, 60)));
    assert_eq!(cluster.hosts[&1].receiving(), Some(LogIndex::new(60)));
    cluster.input(1, from_leader(counted(1, 50)));
    assert_eq!(cluster.hosts[&1].receiving(), Some(LogIndex::new(60)));
    cluster.input(1, from_leader(counted(3, 70)));
    assert_eq!(cluster.hosts[&1].receiving(), Some(LogIndex::new(70)), "the leader began again");
}

#[test]
fn clusters_that_cut_their_logs_stay_safe_under_faults() {
    for seed in 100..160 {
        let mut cluster = formed(seed, &[1, 2, 3, 4, 5]);
        for _ in 0..30 {
            cluster.loss_percent = cluster.rng.below(20);
            let victim = u8::try_from(cluster.rng.below(5)).unwrap() + 1;
            match cluster.rng.below(4) {
                0 => {
                    cluster.crash(victim);
                    write(&mut cluster, 12);
                    cluster.start(victim);
                }
                1 => {
                    cluster.part(&[victim], &[1, 2, 3, 4, 5]);
                    write(&mut cluster, 15);
                    cluster.cut.clear();
                }
                2 => {
                    cluster.part(&[1, 2], &[3, 4, 5]);
                    write(&mut cluster, 10);
                    cluster.cut.clear();
                }
                _ => write(&mut cluster, 8),
            }
        }
        cluster.loss_percent = 0;
        cluster.run(Duration::from_secs(20));
        cluster.check_agreement();
    }
}
