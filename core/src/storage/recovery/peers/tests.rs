//! Servers that begin a new cluster with what they hold.

use super::*;
use crate::id::{LogIndex, Term};
use crate::raft::HardState;
use crate::storage::recovery::{RecoveryConfig, RecoveryNote, Restored, RestoredServer};
use crate::storage::testing::{MemDisk, entry, server};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8300))
}

/// A server of a cluster of three, with entries up to 5, in term 4; and the identities of all.
fn member() -> (MemDisk, [NodeId; 3]) {
    let mut disk = MemDisk::default();
    let Restored { node_id, server: restored, .. } = disk.recover(server()).unwrap();
    let RestoredServer { mut wal, raft, .. } = restored.unwrap();
    let ids = [node_id, NodeId::from_bytes([2; 16]), NodeId::from_bytes([3; 16])];
    let stores = [raft.store, StoreId::from_bytes([2; 16]), StoreId::from_bytes([3; 16])];
    let servers = ids.into_iter().zip(stores).zip(1..);
    let voters = servers.map(|((id, store), n)| (id, Server { address: address(n), store }));
    let configuration = Configuration { voters: voters.collect(), ..Configuration::default() };
    let cluster = Some(ClusterId::from_bytes([4; 16]));
    let identity = IdentityChange { cluster, ..Default::default() };
    let payload = pack::to_bytes(&configuration);
    let first = Entry { kind: EntryKind::Config, payload, ..entry(1, 1, 0) };
    let entries = [first].into_iter().chain((2..=5).map(|index| entry(index, 2, 10))).collect();
    let hard = Some(HardState { term: Term::new(4), voted_for: None });
    disk.perform(wal.append(&PersistBatch { identity, hard, entries, ..Default::default() }));
    (disk, ids)
}

fn with(peers: Vec<Peer>) -> RecoveryConfig {
    RecoveryConfig { peers: Some(peers), ..server() }
}

fn peer(id: NodeId, n: u8) -> Peer {
    Peer { id: Some(id), address: address(n), votes: true }
}

#[test]
fn a_server_begins_a_new_cluster_with_all_that_it_holds() {
    let (mut disk, ids) = member();
    let Restored { server: found, notes, .. } = disk.recover(with(vec![peer(ids[0], 9)])).unwrap();
    let raft = found.unwrap().raft;
    let last = raft.entries.last().unwrap();
    assert_eq!((last.index, last.term), (LogIndex::new(6), Term::new(2)));
    let configuration: Configuration = pack::from_bytes(&last.payload).unwrap();
    assert!(configuration.is_sole_voter(ids[0]));
    assert_eq!(configuration.voters[&ids[0]].address, address(9));
    assert_ne!(raft.cluster, Some(ClusterId::from_bytes([4; 16])));
    assert_eq!(raft.hard.term, Term::new(4));
    let expected =
        RecoveryNote::Peers { servers: vec![ids[0]], last: LogIndex::new(6), lost: None };
    assert!(notes.contains(&expected), "{notes:?}");
    // The next start finds the same without the file.
    let again = disk.recover(server()).unwrap().server.unwrap().raft;
    assert_eq!((again.cluster, again.entries), (raft.cluster, raft.entries));
}

#[test]
fn a_start_that_is_cut_short_anywhere_is_gone_on_with() {
    let (disk, ids) = member();
    let file = || vec![peer(ids[0], 1), peer(ids[1], 2)];
    let mut whole = disk.clone();
    let expected = whole.recover(with(file())).unwrap().server.unwrap().raft;
    let ops = disk.operations(with(file()));
    for count in 0..ops.len() {
        let mut disk = disk.clone();
        disk.perform(ops[..count].to_vec());
        let raft = disk.recover(with(file())).unwrap().server.unwrap().raft;
        assert_eq!((raft.cluster, &raft.entries), (expected.cluster, &expected.entries));
    }
}

#[test]
fn only_servers_with_the_same_log_are_one_cluster() {
    let (disk, ids) = member();
    let file = || vec![peer(ids[0], 1)];
    let cluster =
        |mut disk: MemDisk, peers| disk.recover(with(peers)).unwrap().server.unwrap().raft.cluster;
    let one = cluster(disk.clone(), file());
    assert_eq!(one, cluster(disk.clone(), file()));
    assert_ne!(one, cluster(disk.clone(), vec![peer(ids[0], 1), peer(ids[1], 2)]));
    let mut longer = disk;
    let mut wal = longer.recover(server()).unwrap().server.unwrap().wal;
    let entries = vec![entry(6, 2, 10)];
    longer.perform(wal.append(&PersistBatch { entries, ..Default::default() }));
    assert_ne!(one, cluster(longer, file()));
}

#[test]
fn a_file_that_cannot_be_followed_changes_nothing() {
    let (disk, ids) = member();
    let stranger = NodeId::from_bytes([9; 16]);
    let old = |n| Peer { id: None, address: address(n), votes: true };
    let quiet = Peer { votes: false, ..peer(ids[0], 1) };
    for (peers, expected) in [
        (vec![peer(ids[1], 2)], PeersError::SelfMissing(ids[0])),
        (vec![peer(ids[0], 1), peer(stranger, 9)], PeersError::Stranger(stranger.to_string())),
        (vec![old(1), old(8)], PeersError::Stranger(address(8).to_string())),
        (vec![quiet], PeersError::Unsound),
        (vec![peer(ids[0], 1), peer(ids[0], 1)], PeersError::Unsound),
        (vec![peer(ids[0], 1), peer(ids[1], 1)], PeersError::Unsound),
    ] {
        let mut disk = disk.clone();
        let before = disk.clone();
        let error = disk.recover(with(peers)).unwrap_err();
        assert_eq!(error, RecoveryError::Peers(expected));
        assert_eq!(disk, before);
    }
    let error = MemDisk::default().recover(with(vec![old(1)])).unwrap_err();
    assert_eq!(error, RecoveryError::Peers(PeersError::NoState));
}

#[test]
fn what_was_lost_is_given_up() {
    let (mut disk, ids) = member();
    let mut wal = disk.recover(server()).unwrap().server.unwrap().wal;
    let entries = vec![entry(6, 2, 300)];
    disk.perform(wal.append(&PersistBatch { entries, ..Default::default() }));
    disk.perform(wal.seal());
    let segment = disk.files.get_mut("raft/wal/0000000000000001.seg").unwrap();
    let middle = segment.len() - segment.iter().rev().take_while(|byte| **byte == 0).count() - 100;
    segment[middle] ^= 1;
    let mut recovering = disk.clone();
    let raft = recovering.recover(server()).unwrap().server.unwrap().raft;
    assert!(raft.recovering.is_some());
    for mut disk in [disk, recovering] {
        let found = disk.recover(with(vec![peer(ids[0], 1)])).unwrap();
        let raft = found.server.unwrap().raft;
        assert_eq!(raft.recovering, None);
        assert_eq!(disk.recover(server()).unwrap().server.unwrap().raft.recovering, None);
    }
}
