//! Coordinates carried by acks in small clusters.

use crate::coordinate::Coordinate;
use crate::gossip::tests::cluster::{Cluster, host_name};
use crate::gossip::tests::name;
use crate::serf::SerfInput;
use std::time::Duration;

fn coordinate(cluster: &Cluster, index: usize, about: usize) -> Option<Coordinate> {
    let about = name(&host_name(about));
    let serf = &cluster.seats[index].host.as_ref().unwrap().serf;
    serf.coordinates().get(&about).cloned()
}

#[test]
fn distances_between_members_converge_to_their_round_trips() {
    let mut cluster = Cluster::joined(5, 1);
    cluster.run(600);
    for index in 0..5 {
        let own = coordinate(&cluster, index, index).unwrap();
        assert!(own.error() < 0.5, "{own:?}");
        for about in 0..5 {
            let other = coordinate(&cluster, index, about).unwrap();
            let told = own.distance(&other);
            // A message takes one millisecond in each direction.
            let wrong = told.abs_diff(Duration::from_millis(2));
            assert!(index == about || wrong < Duration::from_millis(1), "{told:?}");
        }
    }
}

#[test]
fn a_member_that_is_forgotten_takes_its_coordinate_along() {
    let mut cluster = Cluster::joined(3, 3);
    cluster.run(60);
    assert!(coordinate(&cluster, 0, 2).is_some());
    cluster.kill(2);
    cluster.run(20);
    cluster.serf(0, SerfInput::ForceLeave { name: name(&host_name(2)), prune: true });
    assert_eq!(cluster.status(0, 2), None);
    assert_eq!(coordinate(&cluster, 0, 2), None);
}
