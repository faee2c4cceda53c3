//! Seeds that once found a bug, and the same seed twice.

use sim::plan::Plan;
use sim::run::run;

#[test]
fn seeds_that_found_bugs_pass() {
    for line in include_str!("../seeds/regress.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().and_then(|seed| seed.parse().ok());
        let seed = seed.expect("every line begins with a seed");
        assert_eq!(run(Plan::of_seed(seed)).0.violation, None, "seed {seed}");
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
