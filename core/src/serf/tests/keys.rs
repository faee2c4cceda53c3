//! Key operations in small clusters whose keyrings are lists.

use crate::gossip::tests::cluster::{Cluster, host_name};
use crate::gossip::tests::name;
use crate::serf::{KeyOperation, KeyReport, SerfReply, SerfRequest};
use bytes::Bytes;
use std::collections::BTreeMap;

fn cluster() -> Cluster {
    let mut cluster = Cluster::joined(4, 2);
    for seat in &mut cluster.seats {
        seat.keys = vec![Bytes::from_static(b"old")];
    }
    cluster
}

fn operate(cluster: &mut Cluster, operation: KeyOperation) -> KeyReport {
    cluster.ask(1, SerfRequest::Keys { operation, relay_factor: 1 });
    cluster.run(4);
    let reply = cluster.seats[1].replies.pop().unwrap();
    let Ok(SerfReply::Keys(report)) = reply else { panic!("{reply:?}") };
    report
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

const NEW: Bytes = Bytes::from_static(b"new");
const OLD: Bytes = Bytes::from_static(b"old");

#[test]
fn a_key_is_rotated_on_every_member() {
    let mut cluster = cluster();
    let done = KeyReport { nodes: 4, responses: 4, ..KeyReport::default() };
    assert_eq!(operate(&mut cluster, KeyOperation::Install(NEW)), done);
    let listed = operate(&mut cluster, KeyOperation::List);
    assert_eq!(listed.keys, counts(&[("new", 4), ("old", 4)]));
    assert_eq!(listed.primary_keys, counts(&[("old", 4)]));
    assert_eq!(operate(&mut cluster, KeyOperation::Use(NEW)), done);
    assert_eq!(operate(&mut cluster, KeyOperation::Remove(OLD)), done);
    let listed = operate(&mut cluster, KeyOperation::List);
    assert_eq!(listed.keys, counts(&[("new", 4)]));
    assert_eq!(listed.primary_keys, counts(&[("new", 4)]));
    assert_eq!(listed.failure(), None);
}

#[test]
fn an_operation_is_over_as_soon_as_every_member_has_answered() {
    let mut cluster = cluster();
    cluster.ask(1, SerfRequest::Keys { operation: KeyOperation::List, relay_factor: 0 });
    cluster.run(2);
    assert_eq!(cluster.seats[1].replies.len(), 1, "the timeout would be 3.2 s");
}

#[test]
fn members_that_fail_are_named_with_their_reason() {
    let mut cluster = cluster();
    cluster.seats[3].keys = vec![NEW, OLD];
    let report = operate(&mut cluster, KeyOperation::Remove(NEW));
    assert_eq!(report.failure().unwrap(), "1/4 nodes reported failure");
    let reason = "Removing the primary key is not allowed".to_owned();
    assert_eq!(report.messages, BTreeMap::from([(name(&host_name(3)), reason)]));
}

#[test]
fn members_that_do_not_answer_make_the_operation_incomplete() {
    let mut cluster = cluster();
    for index in 0..3 {
        cluster.cut(index, 3);
    }
    let report = operate(&mut cluster, KeyOperation::Install(NEW));
    assert_eq!(report.failure().unwrap(), "3/4 nodes reported success");
    assert_eq!(cluster.seats[3].keys, [OLD]);
}

#[test]
fn a_key_is_not_shown_by_debug_output() {
    assert_eq!(format!("{:?}", KeyOperation::Install(NEW)), "_serf_install-key");
}
