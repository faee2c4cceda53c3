//! A planted bug's failing seed shrinks to little, and what is left fails alone; the scripts that
//! are kept hold.

use sim::plan::Plan;
use sim::run::Run;
use sim::script::Script;
use sim::shrink::{Options, Refusal, outcome, shrink};
use std::time::Duration;

/// Faults and operations that may be left (simulation.md §11.2).
const FAULTS_MAX: usize = 10;
const OPERATIONS_MAX: usize = 20;

fn options(mutant: Option<&'static str>) -> Options {
    // No time limit: how much is left must not depend on the machine. One luck is enough here.
    Options { mutant, any: false, time: Duration::from_secs(3600), jobs: 2, lucks: 1 }
}

#[test]
fn a_failing_seed_shrinks_and_what_is_left_fails_alone() {
    for (mutant, rule) in [("M17", "I12"), ("M55", "I11")] {
        // The first seeds that find the bug are others after every change of what worlds do.
        let shrunk =
            (1..100).find_map(|seed| shrink(Plan::of_seed(seed), &options(Some(mutant))).ok());
        let shrunk = shrunk.expect("some seed finds the bug");
        assert_eq!(shrunk.rule, rule, "{mutant}");
        let after = shrunk.after;
        assert!(after.faults <= FAULTS_MAX && after.operations <= OPERATIONS_MAX, "{after:?}");
        assert!(shrunk.before.operations > OPERATIONS_MAX, "{mutant} is no test of this");
        let read: Script = shrunk.script.to_string().parse().expect("the file can be read");
        assert_eq!(read, shrunk.script, "{mutant}");
        let broken = outcome(&mut Run::of_script(&read), read.mutant);
        assert_eq!(broken.map(|broken| broken.rule).as_deref(), Some(rule), "{mutant}");
        assert_eq!(outcome(&mut Run::of_script(&read), None), None, "{mutant}, healthy");
    }
}

#[test]
fn the_same_search_finds_the_same_script() {
    let search = || shrink(Plan::of_seed(1), &options(Some("M55"))).map(|shrunk| shrunk.script);
    assert_eq!(search(), search());
}

#[test]
fn a_seed_that_breaks_nothing_is_refused() {
    let passes = (0..4).find(|seed| Run::new(Plan::of_seed(*seed)).to_end().violation.is_none());
    let refused = shrink(Plan::of_seed(passes.expect("one of them passes")), &options(None)).err();
    assert_eq!(refused, Some(Refusal::Passes));
}

#[test]
fn every_script_that_is_kept_holds_and_its_planted_bug_does_not() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let mut performed = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let script: Script = text.parse().unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(outcome(&mut Run::of_script(&script), None), None, "{path:?}");
        if script.mutant.is_some() {
            let broken = outcome(&mut Run::of_script(&script), script.mutant);
            assert_eq!(broken.map(|broken| broken.rule), script.rule, "{path:?}");
        }
        performed += 1;
    }
    assert!(performed > 0, "no script is in {folder}");
}
