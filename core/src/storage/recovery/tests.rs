//! Whole recoveries on a disk in memory.

use super::*;
use crate::id::{ClusterId, Term};
use crate::raft::{HardState, IdentityChange, PersistBatch};
use crate::storage::registrations::{Change, TtlState};
use crate::storage::testing::{MemDisk, TINY, client, entry, server};
use crate::time::WallClock;
use crate::wire::seal::Key;

fn vote(term: u64) -> HardState {
    HardState { term: Term::new(term), voted_for: Some(NodeId::from_bytes([8; 16])) }
}

/// A server that ran: voted in term 3, holds two entries, was not stopped in order.
fn ran() -> (MemDisk, Restored) {
    let mut disk = MemDisk::default();
    let mut restored = disk.recover(server()).unwrap();
    let wal = &mut restored.server.as_mut().unwrap().wal;
    let entries = vec![entry(1, 1, 50)];
    disk.perform(wal.append(&PersistBatch { entries, ..Default::default() }));
    let entries = vec![entry(2, 3, 50)];
    disk.perform(wal.append(&PersistBatch { hard: Some(vote(3)), entries, ..Default::default() }));
    (disk, restored)
}

#[test]
fn a_new_server_begins_with_nothing_and_finds_itself_again() {
    let mut disk = MemDisk::default();
    let first = disk.recover(server()).unwrap();
    let again = disk.recover(server()).unwrap();
    assert_eq!(first.node_id, again.node_id);
    let (first, again) = (first.server.unwrap(), again.server.unwrap());
    assert_eq!(first.raft, again.raft);
    assert_eq!(again.raft.hard, HardState::default());
    assert!(again.raft.entries.is_empty());
}

#[test]
fn a_founding_that_is_cut_short_is_done_or_not_begun() {
    let mut disk = MemDisk::default();
    let blank = disk.recover(server()).unwrap().server.unwrap();
    let (mut wal, store) = (blank.wal, blank.raft.store);
    let first = Entry { kind: EntryKind::Config, ..entry(1, 1, 0) };
    let founding = PersistBatch {
        identity: IdentityChange { cluster: Some(store.own_cluster()), ..Default::default() },
        hard: Some(HardState { term: Term::new(1), voted_for: None }),
        entries: vec![first.clone()],
        ..Default::default()
    };
    let ops = wal.append(&founding);
    let mut met = Vec::new();
    for count in 0..=ops.len() {
        let mut disk = disk.clone();
        disk.perform(ops[..count].to_vec());
        // Twice: what was found is on the disk, too.
        for _ in 0..2 {
            let raft = disk.recover(server()).unwrap().server.unwrap().raft;
            let done = raft.cluster == Some(store.own_cluster());
            let entries = if done { vec![first.clone()] } else { Vec::new() };
            assert_eq!((raft.store, &raft.entries), (store, &entries), "{count} operations");
            assert!(done || raft.cluster.is_none());
            met.push(done);
        }
    }
    assert!(met.is_sorted() && met.contains(&false), "{met:?}");
    assert_eq!(met.last(), Some(&true));
}

#[test]
fn term_vote_and_log_survive_a_restart() {
    let (mut disk, before) = ran();
    for _ in 0..3 {
        let after = disk.recover(server()).unwrap();
        let raft = after.server.unwrap().raft;
        assert_eq!(raft.hard, vote(3));
        assert_eq!(raft.entries, vec![entry(1, 1, 50), entry(2, 3, 50)]);
        assert_eq!(raft.store, before.server.as_ref().unwrap().raft.store);
        assert_eq!(after.notes, Vec::new());
    }
}

#[test]
fn restarts_without_writes_do_not_grow_the_log() {
    let (mut disk, _) = ran();
    disk.recover(server()).unwrap();
    let once = disk.clone();
    disk.recover(server()).unwrap();
    assert_eq!(
        disk.files["raft/wal/0000000000000001.seg"],
        once.files["raft/wal/0000000000000001.seg"]
    );
}

#[test]
fn a_changed_identity_is_found_again() {
    let (mut disk, before) = ran();
    let mut wal = before.server.unwrap().wal;
    let change = IdentityChange {
        cluster: Some(ClusterId::from_bytes([4; 16])),
        promise: Some(Bytes::from_static(b"promise")),
        heartbeat_timeout: None,
        recovered: false,
    };
    let later = IdentityChange {
        heartbeat_timeout: Some(Duration::from_millis(700)),
        ..IdentityChange::default()
    };
    for identity in [change.clone(), later] {
        disk.perform(wal.append(&PersistBatch { identity, ..Default::default() }));
    }
    let unchanged = PersistBatch { identity: change.clone(), ..Default::default() };
    assert_eq!(wal.append(&unchanged), Vec::new());
    let raft = disk.recover(server()).unwrap().server.unwrap().raft;
    assert_eq!((raft.cluster, raft.promise), (change.cluster, change.promise));
    assert_eq!(raft.heartbeat_timeout, Duration::from_millis(700));
}

#[test]
fn a_torn_batch_is_cut_and_noted() {
    let (mut disk, _) = ran();
    let path = "raft/wal/0000000000000001.seg";
    let end = disk.files[path].iter().rposition(|byte| *byte != 0).unwrap();
    disk.files.get_mut(path).unwrap()[end] ^= 1;
    let restored = disk.recover(server()).unwrap();
    assert_eq!(restored.server.unwrap().raft.entries.len(), 1);
    assert!(matches!(&restored.notes[..], [RecoveryNote::TornTail(_)]));
    assert_eq!(disk.recover(server()).unwrap().notes, Vec::new());
}

#[test]
fn damage_of_a_log_that_no_cluster_knows_is_refused_and_changes_nothing() {
    let (mut disk, _) = ran();
    disk.recover(server()).unwrap();
    disk.files.get_mut("raft/wal/0000000000000001.seg").unwrap()[300] ^= 1;
    let before = disk.clone();
    let error = disk.recover(server()).unwrap_err();
    let found = matches!(&error, RecoveryError::Alone(Loss::Log(damage)) if damage.offset > 0);
    assert!(found, "{error}");
    assert_eq!(disk, before);
}

#[test]
fn a_log_whose_beginning_is_missing_is_refused_without_a_snapshot() {
    let (mut disk, before) = ran();
    let mut wal = before.server.unwrap().wal;
    for index in 3..12 {
        let entries = vec![entry(index, 3, 300)];
        disk.perform(wal.append(&PersistBatch { entries, ..Default::default() }));
        while let Some(step) = wal.prepare() {
            disk.perform(step.ops);
            wal.prepared(step.lane);
        }
    }
    disk.files.remove("raft/wal/0000000000000001.seg");
    let before = disk.clone();
    let error = disk.recover(server()).unwrap_err();
    let line = "the log begins behind entry 3, and no usable snapshot reaches to it; no other";
    assert!(error.to_string().starts_with(line), "{error}");
    assert_eq!(disk, before);
}

#[test]
fn a_lost_vote_is_refused_and_one_lost_slot_is_repaired() {
    let (mut disk, _) = ran();
    disk.files.remove("raft/hard.a");
    assert_eq!(disk.recover(server()).unwrap().server.unwrap().raft.hard, vote(3));
    assert_eq!(disk.files["raft/hard.a"], disk.files["raft/hard.b"]);
    disk.files.remove("raft/hard.a");
    disk.files.get_mut("raft/hard.b").unwrap()[40] ^= 1;
    assert_eq!(disk.recover(server()), Err(RecoveryError::HardStateLost));
}

#[test]
fn a_lost_identity_is_not_replaced_by_a_new_one() {
    let (mut disk, _) = ran();
    disk.files.remove("raft/identity");
    let error = disk.recover(server()).unwrap_err();
    assert!(matches!(error, RecoveryError::IdentityLost { .. }));
}

#[test]
fn an_interrupted_creation_is_done_again() {
    let mut whole = MemDisk::default();
    whole.recover(server()).unwrap();
    for missing in ["raft/hard.b", "raft/hard.a", "raft/wal/0000000000000001.seg", "node-id"] {
        whole.files.remove("raft/identity");
        whole.files.remove(missing);
        assert!(whole.clone().recover(server()).is_ok(), "without {missing}");
    }
}

#[test]
fn another_servers_state_is_refused() {
    let (mut disk, before) = ran();
    let other = NodeId::from_bytes([9; 16]);
    let config = RecoveryConfig { node_id: Some(other), ..server() };
    let stored = before.node_id;
    let error = RecoveryError::OtherNode { stored, configured: other };
    assert_eq!(disk.recover(config), Err(error));
}

#[test]
fn a_client_leaves_a_servers_state_alone() {
    let (mut disk, _) = ran();
    let before = disk.clone();
    let restored = disk.recover(client()).unwrap();
    assert!(restored.server.is_none());
    let raft = |disk: &MemDisk| -> Vec<(String, Vec<u8>)> {
        let files = disk.files.clone().into_iter();
        files.filter(|(path, _)| path.starts_with("raft/")).collect()
    };
    assert_eq!(raft(&disk), raft(&before));
    assert_eq!(disk.recover(server()).unwrap().server.unwrap().raft.hard, vote(3));
}

#[test]
fn consuls_directory_is_refused_by_the_file_that_shows_it() {
    let shown = [
        "raft/raft.db",
        "raft/peers.info",
        "raft/snapshots",
        "services/0cc175b9c0f1b6a831c399e269772661",
        "checks/0cc175b9c0f1b6a831c399e269772661",
        "state.bin",
        "checkpoint-signature",
    ];
    for file in shown {
        let mut disk = MemDisk::default();
        disk.put(file, b"x");
        let before = disk.clone();
        let error = disk.recover(client()).unwrap_err();
        assert_eq!(error, RecoveryError::Consul { file: file.to_owned() });
        assert_eq!(disk, before);
    }
}

#[test]
fn a_node_id_is_kept_configured_or_refused() {
    let mut disk = MemDisk::default();
    let text = "5d7c1d1a-8a9c-4b62-9d3b-0a4b7c1de0ff";
    disk.put("node-id", text.as_bytes());
    assert_eq!(disk.recover(client()).unwrap().node_id.to_string(), text);
    let other = NodeId::from_bytes([9; 16]);
    let config = RecoveryConfig { node_id: Some(other), ..client() };
    assert_eq!(disk.recover(config).unwrap().node_id, other);
    disk.put("node-id", b"armon");
    let error = disk.recover(client()).unwrap_err();
    let line = "the file node-id is not usable: node id \"armon\" is not a UUID";
    assert_eq!(error.to_string(), line);
}

#[test]
fn an_identity_of_the_host_is_kept_and_yields_to_the_file() {
    let host = |text: &str| RecoveryConfig { host: vec![text.to_owned()], ..client() };
    let mut disk = MemDisk::default();
    let first = disk.recover(host("00112233445566778899aabbccddeeff")).unwrap().node_id;
    assert_eq!(first.to_string(), "debe8aa2-12d5-7479-8e0d-9964e3cbdec0");
    let other = host("deadbeef-1111-2222-3333-444455556666");
    assert_eq!(disk.recover(other).unwrap().node_id, first);
}

#[test]
fn an_oversized_file_is_refused_by_name() {
    let mut disk = MemDisk::default();
    disk.put("node-id", &vec![b'a'; 1 << 20]);
    let error = disk.recover(client()).unwrap_err();
    let line = "node-id has 1048576 bytes, at most 65536 are read";
    assert_eq!(error.to_string(), line);
}

#[test]
fn registrations_and_the_serf_snapshot_are_handed_over() {
    let mut disk = MemDisk::default();
    let mut restored = disk.recover(client()).unwrap();
    let state = TtlState {
        check: crate::id::CheckId::parse("c").unwrap(),
        status: crate::catalog::model::CheckStatus::Passing,
        output: "ok".to_owned(),
        expires: WallClock::from_millis(5),
    };
    disk.perform(restored.registrations.append(vec![Change::PutTtl(state.clone())]));
    disk.put("serf/local.snapshot", b"alive: a 127.0.0.1:8301\n\xff");
    let restored = disk.recover(client()).unwrap();
    assert_eq!(restored.registrations.registrations().ttl.get(&state.check), Some(&state));
    let text = restored.lan.snapshot.unwrap();
    assert!(text.starts_with("alive: a 127.0.0.1:8301\n"));
}

#[test]
fn a_failing_disk_is_refused_with_what_was_done() {
    let rng = Rng::for_stream(crate::rng::Seed::from_number(1), crate::rng::Stream::Identity);
    let mut recovery = Recovery::new(RecoveryConfig { wal: TINY, ..client() }, rng);
    recovery.step(None);
    recovery.step(Some(Answer::Names(Vec::new())));
    let Step::Refused(error) = recovery.step(Some(Answer::Failed(StorageFault::Denied))) else {
        panic!("a recovery goes on without its files");
    };
    assert_eq!(error.to_string(), "reading node-id: permission denied");
}

#[test]
fn keys_of_gossip_are_found_again_and_a_broken_file_is_refused() {
    let mut disk = MemDisk::default();
    assert_eq!(disk.recover(client()).unwrap().lan.keyring, None);
    let ring = Keyring::new(Key::new(&[1; 16]).unwrap());
    disk.put("serf/local.keyring", &ring.to_file());
    assert_eq!(disk.recover(client()).unwrap().lan.keyring, Some(ring));
    disk.put("serf/local.keyring", b"[]");
    let before = disk.clone();
    let error = disk.recover(client()).unwrap_err();
    assert_eq!(error.to_string(), "the file serf/local.keyring is not usable: it holds no key");
    assert_eq!(disk, before);
}

#[test]
fn retired_keys_belong_to_a_keyring() {
    let mut disk = MemDisk::default();
    let mut ring = Keyring::new(Key::new(&[1; 16]).unwrap());
    let file = b"[\"AgICAgICAgICAgICAgICAg== 7\"]";
    disk.put("serf/local.retired", file);
    assert_eq!(disk.recover(client()).unwrap().lan.keyring, None);
    disk.put("serf/local.keyring", &ring.to_file());
    ring.retire_from_file(file).unwrap();
    assert_eq!(ring.retired().count(), 1);
    assert_eq!(disk.recover(client()).unwrap().lan.keyring, Some(ring));
    disk.put("serf/local.retired", b"[\"AgICAgICAgICAgICAgICAg==\"]");
    let error = disk.recover(client()).unwrap_err().to_string();
    let rule = "its string number 1 has no time in milliseconds behind the key";
    assert_eq!(error, format!("the file serf/local.retired is not usable: {rule}"));
}
