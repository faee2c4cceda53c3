//! Members of the same name.

use crate::gossip::tests::cluster::Cluster;
use crate::gossip::tests::name;
use crate::serf::SerfInput;

/// Members around the first, and one more of the first one's name that knows them.
fn twins(count: usize) -> Cluster {
    let mut cluster = Cluster::joined(count, 1);
    cluster.seats.push(Default::default());
    cluster.seats[count].name = Some("n0".to_owned());
    cluster.start(count);
    cluster.join(count, &[1]);
    cluster
}

#[test]
fn the_member_that_fewer_know_gives_up_its_name() {
    let mut cluster = twins(5);
    cluster.run(30);
    assert_eq!(cluster.seats[5].name_lost, Some((0, 4)));
    for index in 0..5 {
        assert_eq!(cluster.seats[index].name_lost, None, "{index}");
    }
}

#[test]
fn without_a_single_answer_a_member_keeps_its_name() {
    let mut cluster = Cluster::new(1, 1);
    cluster.serf(0, SerfInput::Conflict(name("n0")));
    cluster.run(10);
    assert_eq!(cluster.seats[0].name_lost, None);
}

#[test]
fn a_conflict_about_another_name_is_the_affair_of_others() {
    let mut cluster = Cluster::joined(3, 1);
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    cluster.serf(0, SerfInput::Conflict(name("n1")));
    cluster.run(10);
    assert!(cluster.seats.iter().all(|seat| seat.name_lost.is_none()));
}

#[test]
fn many_claims_are_decided_by_one_query() {
    let mut cluster = Cluster::joined(3, 1);
    for _ in 0..100 {
        cluster.serf(0, SerfInput::Conflict(name("n0")));
    }
    let host = cluster.seats[0].host.as_ref().unwrap();
    assert_eq!(host.gossip.queued()[2], 1);
    cluster.run(10);
    assert_eq!(cluster.seats[0].name_lost, None, "both others know it");
}
