//! The numeric example of the reference, and what holds whatever peers say.

use super::*;
use crate::gossip::tests::timers;
use crate::rng::{Rng, Seed, Stream};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn rng() -> Rng {
    Rng::for_stream(Seed::from_number(1), Stream::Coordinate)
}

fn coordinate(value: &serde_json::Value) -> Coordinate {
    let number = |key: &str| value[key].as_f64().unwrap();
    let mut position = [0.0; DIMENSIONS];
    let given = value["Vec"].as_array().unwrap();
    assert_eq!(given.len(), DIMENSIONS);
    for (x, given) in position.iter_mut().zip(given) {
        *x = given.as_f64().unwrap();
    }
    Coordinate::new(position, number("Error"), number("Height"), number("Adjustment")).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12
}

#[test]
fn updates_agree_with_the_numeric_example() {
    let example = &timers()["vivaldi"];
    let mut vivaldi = Vivaldi { own: coordinate(&example["start"]), ..Vivaldi::default() };
    let mut kept: BTreeMap<&str, RoundTrips> = BTreeMap::new();
    for step in example["steps"].as_array().unwrap() {
        let peer = kept.entry(step["node"].as_str().unwrap()).or_default();
        let round_trip = Duration::from_secs_f64(step["rtt_s"].as_f64().unwrap());
        vivaldi.update(peer, &coordinate(&step["other"]), round_trip, &mut rng()).unwrap();
        let (got, expected) = (vivaldi.own(), coordinate(&step["after"]));
        for (got, expected) in got.position.iter().zip(expected.position) {
            assert!(close(*got, expected), "{step}");
        }
        assert!(close(got.error, expected.error), "{step}");
        assert!(close(got.height, expected.height), "{step}");
        assert!(close(got.adjustment, expected.adjustment), "{step}");
    }
}

#[test]
fn a_round_trip_above_ten_seconds_changes_nothing() {
    let mut vivaldi = Vivaldi::default();
    let long = ROUND_TRIP_MAX + Duration::from_nanos(1);
    let refused = vivaldi.update(&mut RoundTrips::default(), &Coordinate::ORIGIN, long, &mut rng());
    assert_eq!(refused, Err(RoundTripTooLong(long)));
    assert_eq!(*vivaldi.own(), Coordinate::ORIGIN);
    assert!(
        vivaldi
            .update(&mut RoundTrips::default(), &Coordinate::ORIGIN, ROUND_TRIP_MAX, &mut rng())
            .is_ok()
    );
}

#[test]
fn a_peer_out_of_range_costs_one_reset_and_no_more() {
    let far = Coordinate::new([f64::MAX; DIMENSIONS], 1.0, 1.0, 0.0).unwrap();
    let near = Coordinate::ORIGIN;
    let (mut vivaldi, mut rng) = (Vivaldi::default(), rng());
    vivaldi.update(&mut RoundTrips::default(), &far, Duration::from_millis(1), &mut rng).unwrap();
    assert_eq!((vivaldi.resets(), vivaldi.own()), (1, &Coordinate::ORIGIN));
    vivaldi.update(&mut RoundTrips::default(), &near, Duration::from_millis(1), &mut rng).unwrap();
    assert_eq!(vivaldi.resets(), 1);
}

/// Members on a line, 10 ms apart, that measure each other by turns.
#[test]
fn distances_converge_to_the_round_trips() {
    let mut rng = rng();
    let mut members = vec![Vivaldi::default(); 6];
    let mut kept = [[RoundTrips::default(); 6]; 6];
    let truth = |a: usize, b: usize| Duration::from_millis(10 * a.abs_diff(b) as u64);
    for _ in 0..400 {
        for a in 0..members.len() {
            for b in 0..members.len() {
                if a != b {
                    let other = members[b].own().clone();
                    members[a].update(&mut kept[a][b], &other, truth(a, b), &mut rng).unwrap();
                }
            }
        }
    }
    for a in 0..members.len() {
        for b in 0..a {
            let told = members[a].own().distance(members[b].own());
            let wrong = told.abs_diff(truth(a, b));
            assert!(wrong < Duration::from_millis(2), "{a} to {b}: {told:?}");
        }
    }
}

fn any_coordinate() -> impl Strategy<Value = Coordinate> {
    let number = || prop_oneof![-1.0_f64..1.0, any::<f64>()];
    let position = prop::array::uniform8(number());
    (position, number(), number(), number())
        .prop_filter_map("finite", |(p, e, h, a)| Coordinate::new(p, e, h, a))
}

proptest! {
    #[test]
    fn whatever_peers_say_the_coordinate_stays_finite_and_its_error_bounded(
        updates in prop::collection::vec((any_coordinate(), 0_u64..11_000_000_000, 0_u8..3), 0..60),
    ) {
        let (mut vivaldi, mut rng) = (Vivaldi::default(), rng());
        let mut kept = [RoundTrips::default(); 3];
        for (other, nanos, peer) in updates {
            let kept = &mut kept[usize::from(peer)];
            let _ = vivaldi.update(kept, &other, Duration::from_nanos(nanos), &mut rng);
            prop_assert!(vivaldi.own().is_finite());
            prop_assert!((0.0..=ERROR_MAX).contains(&vivaldi.own().error()));
            prop_assert!(vivaldi.own().height() >= HEIGHT_MIN);
        }
    }
}
