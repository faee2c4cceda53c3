//! Seeds that once found a bug, and the same seed twice.

use sim::gossip::{self, plan::GossipPlan};
use sim::plan::Plan;
use sim::run::run;

#[test]
fn seeds_that_found_bugs_pass() {
    for line in include_str!("../seeds/regress.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let kind = words.next();
        let seed = words.next().and_then(|seed| seed.parse().ok());
        let seed = seed.expect("every line has a kind and a seed");
        let violation = match kind {
            Some("swarm") => run(Plan::of_seed(seed)).0.violation,
            Some("gossip") => gossip::run(GossipPlan::of_seed(seed)).0.violation,
            other => panic!("{other:?} is no kind of world"),
        };
        assert_eq!(violation, None, "seed {seed}");
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same_run() {
    for seed in 0..16 {
        let (first, _) = run(Plan::of_seed(seed));
        let (second, _) = run(Plan::of_seed(seed));
        assert_eq!(first.violation, None, "seed {seed}");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}
