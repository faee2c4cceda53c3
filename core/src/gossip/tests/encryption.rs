//! Whole clusters under the outer layers: keys, their rotation, verification, labels, compression.

use super::cluster::Cluster;
use crate::config::GossipConfig;
use crate::gossip::keyring::{KeyOperation, KeyTicket, Keyring, KeyringError};
use crate::gossip::{DropReason, GossipInput, GossipTrace, KeyTrace};
use crate::serf::{MemberEventKind, MemberStatus};
use crate::wire::DecodeError;
use crate::wire::gossip::PeerState;
use crate::wire::label::Label;
use crate::wire::seal::Key;

fn key(len: usize, first: u8) -> Key {
    Key::new(&vec![first; len]).unwrap()
}

fn encrypted(key: &Key) -> GossipConfig {
    GossipConfig { encrypt: Some(key.clone()), ..GossipConfig::lan() }
}

/// The stages of a cluster that goes over to encryption (agent-config.md §12).
fn stage(number: usize) -> GossipConfig {
    let plain = GossipConfig::lan();
    let key = encrypted(&key(16, 1));
    match number {
        0 => plain,
        1 => GossipConfig { verify_incoming: false, verify_outgoing: false, ..key },
        2 => GossipConfig { verify_incoming: false, ..key },
        _ => key,
    }
}

/// Members with these settings that have been told to join the first.
fn told(configs: impl IntoIterator<Item = GossipConfig>, seed: u64) -> Cluster {
    let mut cluster = Cluster::empty(seed);
    for config in configs {
        let index = cluster.add(Some(config));
        if index > 0 {
            cluster.join(index, &[0]);
        }
    }
    cluster.run(10);
    cluster
}

fn meet(configs: impl IntoIterator<Item = GossipConfig>, seed: u64) -> Cluster {
    let cluster = told(configs, seed);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    cluster
}

fn ask(cluster: &mut Cluster, index: usize, operation: KeyOperation) {
    let ended = cluster.seats[index].key_results.len();
    cluster.gossip(index, GossipInput::Key { ticket: KeyTicket(1), operation });
    assert_eq!(cluster.seats[index].key_results.len(), ended + 1, "each operation is answered");
}

fn closed(trace: &GossipTrace) -> bool {
    matches!(trace, GossipTrace::Dropped { reason: DropReason::Closed(_), .. })
}

#[test]
fn an_encrypted_cluster_meets_and_detects_a_failure_with_every_length_of_key() {
    for len in [16, 24, 32] {
        let mut cluster = meet(vec![encrypted(&key(len, 7)); 4], 1);
        cluster.kill(3);
        cluster.run(60);
        cluster.assert_seen(3, MemberStatus::Failed);
        cluster.start(3);
        cluster.join(3, &[1]);
        cluster.run(10);
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        for seat in &cluster.seats {
            assert!(seat.sent_by_kind.keys().eq([&1]), "nothing is sent in clear");
            assert!(!seat.traces.iter().any(closed), "everything opens");
        }
    }
}

#[test]
fn forty_members_stay_within_the_budget_under_all_layers() {
    let label = Label::new("production-east").unwrap();
    let config = GossipConfig { label, compression: false, ..encrypted(&key(32, 7)) };
    let mut cluster = told(vec![config; 40], 2);
    // Gossip alone may miss somebody; a state exchange does not.
    cluster.run(120);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    for seat in &cluster.seats {
        assert!(seat.sent_by_kind.keys().eq([&244]), "the label comes first");
        assert!(seat.sent.1 <= 1400, "{} bytes", seat.sent.1);
    }
    assert!(cluster.seats.iter().any(|seat| seat.sent.1 > 1200), "packets are filled");
}

#[test]
fn members_with_other_keys_never_meet_and_say_why() {
    let cluster = told([encrypted(&key(16, 1)), encrypted(&key(16, 2))], 3);
    for index in [0, 1] {
        assert_eq!(cluster.sees(index, 1 - index), (None, None));
    }
    let (contacted, errors) = &cluster.seats[1].joins[0];
    assert_eq!(*contacted, 0);
    let tried = key(16, 2).id();
    assert!(errors[0].contains(&format!("(tried {tried})")), "{errors:?}");
    let refused = |trace: &GossipTrace| {
        let sealed = DecodeError::Sealed { tried: vec![key(16, 1).id()] };
        matches!(trace, GossipTrace::Dropped { reason, .. }
            if *reason == DropReason::Closed(sealed))
    };
    assert_eq!(cluster.traced(0, refused), 1);
}

#[test]
fn a_plain_member_and_an_encrypted_one_refuse_each_other() {
    for (configs, reason) in [
        ([stage(3), stage(0)], "the message is encrypted, but gossip is not here"),
        ([stage(0), stage(3)], "gossip is encrypted here, but the message is not"),
    ] {
        let cluster = told(configs, 4);
        let (contacted, errors) = &cluster.seats[1].joins[0];
        assert_eq!(*contacted, 0);
        assert!(errors[0].contains(reason), "{errors:?}");
        assert_eq!(cluster.sees(0, 1), (None, None));
    }
}

#[test]
fn members_of_neighbouring_stages_of_the_transition_meet() {
    for number in 0..3 {
        let (before, after) = (stage(number), stage(number + 1));
        let mut cluster = meet([before.clone(), after.clone(), before, after], 5);
        cluster.run(60);
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        for index in 0..4 {
            assert_eq!(
                cluster.traced(index, |trace| matches!(trace, GossipTrace::NoAck { .. })),
                0
            );
        }
    }
}

#[test]
fn a_rotation_passes_through_mixed_primary_keys_and_survives_restarts() {
    let (old, new) = (key(16, 1), key(32, 2));
    let mut cluster = meet(vec![encrypted(&old); 6], 6);
    let everyone = |cluster: &mut Cluster, operation: &KeyOperation| {
        for index in 0..6 {
            ask(cluster, index, operation.clone());
            cluster.run(5);
        }
    };
    everyone(&mut cluster, &KeyOperation::Install(new.clone()));
    everyone(&mut cluster, &KeyOperation::Use(new.clone()));
    cluster.kill(2);
    cluster.start(2);
    cluster.join(2, &[0]);
    cluster.run(20);
    everyone(&mut cluster, &KeyOperation::Remove(old));
    cluster.kill(4);
    cluster.start(4);
    cluster.join(4, &[0]);
    cluster.run(60);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    for seat in &cluster.seats {
        assert_eq!(
            Keyring::from_file(seat.keyring.as_ref().unwrap()),
            Ok(Keyring::new(new.clone()))
        );
        assert!(seat.key_results.iter().all(Result::is_ok));
        assert!(!seat.traces.iter().any(closed), "a rotation loses no message");
    }
    let wins = |trace: &GossipTrace| matches!(trace, GossipTrace::Keys(KeyTrace::RingWins { .. }));
    assert_eq!(cluster.traced(4, wins), 1, "its settings still name the old key");
    assert_eq!(cluster.events(0, MemberEventKind::Failed, 2), 0);
}

#[test]
fn key_operations_are_answered_with_all_keys_or_the_rule_they_break() {
    let (old, new) = (key(16, 1), key(16, 2));
    let mut cluster = meet([encrypted(&old)], 7);
    let operations = [
        (KeyOperation::Use(new.clone()), Err(KeyringError::Missing)),
        (KeyOperation::Install(new.clone()), Ok(vec![old.clone(), new.clone()])),
        (KeyOperation::Use(new.clone()), Ok(vec![new.clone(), old.clone()])),
        (KeyOperation::Remove(new.clone()), Err(KeyringError::Primary)),
        (KeyOperation::List, Ok(vec![new.clone(), old.clone()])),
        (KeyOperation::Remove(old), Ok(vec![new.clone()])),
    ];
    for (operation, expected) in operations {
        ask(&mut cluster, 0, operation);
        let result = cluster.seats[0].key_results.pop().unwrap();
        assert_eq!(result.map(|ring| ring.keys().to_vec()), expected);
    }
    let mut plain = meet([stage(0)], 7);
    for (operation, error) in [
        (KeyOperation::List, KeyringError::Empty),
        (KeyOperation::Install(new), KeyringError::NotEnabled),
    ] {
        ask(&mut plain, 0, operation);
        assert_eq!(plain.seats[0].key_results.pop(), Some(Err(error)));
    }
    assert_eq!(plain.seats[0].keyring, None);
}

#[test]
fn a_key_of_the_settings_is_stored_once_another_member_has_proven_it() {
    let (right, wrong) = (key(16, 1), key(16, 2));
    let mut cluster = told([encrypted(&right), encrypted(&wrong)], 8);
    assert_eq!((&cluster.seats[0].keyring, &cluster.seats[1].keyring), (&None, &None));
    cluster.kill(1);
    cluster.seats[1].config = Some(encrypted(&right));
    cluster.start(1);
    cluster.join(1, &[0]);
    cluster.run(10);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    for seat in &cluster.seats {
        assert_eq!(seat.keyring, Some(Keyring::new(right.clone()).to_file()));
    }
}

#[test]
fn without_a_file_keys_are_used_but_not_stored() {
    let config = GossipConfig { keyring_file: false, ..encrypted(&key(16, 1)) };
    let mut cluster = meet(vec![config; 2], 9);
    ask(&mut cluster, 0, KeyOperation::Install(key(16, 2)));
    assert!(cluster.seats[0].key_results[0].is_ok());
    assert!(cluster.seats.iter().all(|seat| seat.keyring.is_none()));
}

#[test]
fn only_members_with_the_same_label_meet() {
    let labelled = |text, config| GossipConfig { label: Label::new(text).unwrap(), ..config };
    for config in [stage(0), stage(3)] {
        meet(vec![labelled("east", config.clone()); 3], 10);
        for other in ["west", ""] {
            let configs = [labelled("east", config.clone()), labelled(other, config.clone())];
            let cluster = told(configs, 10);
            assert_eq!(cluster.seats[1].joins[0].0, 0);
            assert_eq!((cluster.sees(0, 1), cluster.sees(1, 0)), ((None, None), (None, None)));
        }
    }
}

#[test]
fn members_with_and_without_compression_meet() {
    let without = GossipConfig { compression: false, ..stage(0) };
    let mut cluster = meet([stage(0), without.clone(), stage(0), without], 11);
    cluster.run(60);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

fn names_retired(trace: &GossipTrace) -> bool {
    matches!(trace, GossipTrace::Keys(KeyTrace::Retired { .. }))
}

fn ask_all(cluster: &mut Cluster, members: std::ops::Range<usize>, operation: &KeyOperation) {
    members.for_each(|index| ask(cluster, index, operation.clone()));
    cluster.run(5);
}

#[test]
fn a_member_that_only_lacked_the_change_to_a_new_key_is_in_touch_again_by_itself() {
    let (old, new) = (key(16, 1), key(32, 2));
    let mut cluster = meet(vec![encrypted(&old); 4], 12);
    ask_all(&mut cluster, 0..4, &KeyOperation::Install(new.clone()));
    cluster.kill(3);
    ask_all(&mut cluster, 0..3, &KeyOperation::Use(new.clone()));
    ask_all(&mut cluster, 0..3, &KeyOperation::Remove(old.clone()));
    cluster.run(60);
    cluster.assert_seen(3, MemberStatus::Failed);
    // Restarts of the others do not make them forget the retired key.
    cluster.kill(0);
    cluster.start(0);
    cluster.join(0, &[1]);
    cluster.start(3);
    cluster.join(3, &[0]);
    cluster.run(20);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    assert_eq!(cluster.traced(0, names_retired), 1);
    assert_eq!(cluster.traced(3, names_retired), 0);
    // What the operator does then, at everybody as such operations go.
    ask_all(&mut cluster, 0..4, &KeyOperation::Use(new.clone()));
    ask_all(&mut cluster, 0..4, &KeyOperation::Remove(old));
    cluster.run(60);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
    for seat in &cluster.seats {
        assert_eq!(seat.keyring, Some(Keyring::new(new.clone()).to_file()));
    }
    assert_eq!(cluster.seats[0].retired, None, "removed twice");
}

#[test]
fn a_member_that_missed_a_whole_rotation_is_named_and_not_taken_for_alive_until_it_understands() {
    let (old, new) = (key(16, 1), key(32, 2));
    let mut cluster = meet(vec![encrypted(&old); 4], 13);
    cluster.kill(3);
    ask_all(&mut cluster, 0..3, &KeyOperation::Install(new.clone()));
    ask_all(&mut cluster, 0..3, &KeyOperation::Use(new.clone()));
    ask_all(&mut cluster, 0..3, &KeyOperation::Remove(old.clone()));
    cluster.run(60);
    cluster.assert_seen(3, MemberStatus::Failed);
    let joined = |cluster: &Cluster| cluster.events(0, MemberEventKind::Join, 3);
    let before = joined(&cluster);
    cluster.start(3);
    for _ in 0..3 {
        cluster.join(3, &[0]);
        cluster.run(30);
    }
    let tried = format!("(tried {})", old.id());
    for (contacted, errors) in &cluster.seats[3].joins[1..] {
        assert_eq!(*contacted, 0);
        assert!(errors[0].contains(&tried), "{errors:?}");
    }
    cluster.assert_seen(3, MemberStatus::Failed);
    assert_eq!(joined(&cluster), before, "no try makes it come and go");
    assert_eq!(cluster.traced(0, names_retired), 1);
    // Its operator gives it the new key; the old one seals until it uses that.
    ask(&mut cluster, 3, KeyOperation::Install(new));
    cluster.join(3, &[0]);
    cluster.run(20);
    cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
}

#[test]
fn a_key_that_is_removed_twice_opens_nothing() {
    let (old, new) = (key(16, 1), key(32, 2));
    let mut cluster = meet(vec![encrypted(&old); 3], 14);
    ask_all(&mut cluster, 0..3, &KeyOperation::Install(new.clone()));
    cluster.kill(2);
    ask_all(&mut cluster, 0..2, &KeyOperation::Use(new));
    for _ in 0..2 {
        ask_all(&mut cluster, 0..2, &KeyOperation::Remove(old.clone()));
    }
    cluster.start(2);
    cluster.join(2, &[0]);
    cluster.run(60);
    assert_eq!(cluster.seats[2].joins.last().map(|(contacted, _)| *contacted), Some(0));
    let refused = |trace: &GossipTrace| {
        let sealed = DecodeError::Sealed { tried: vec![key(32, 2).id()] };
        matches!(trace, GossipTrace::Dropped { reason, .. }
            if *reason == DropReason::Closed(sealed))
    };
    assert_eq!(cluster.traced(0, refused), 1);
    cluster.assert_seen(2, MemberStatus::Failed);
}
