//! Every named scenario holds in its first two worlds; `sim scenarios` performs them in all.

use sim::scenario::{SCENARIOS, Scenario};

#[test]
fn every_scenario_holds() {
    for (name, text) in SCENARIOS {
        let scenario = Scenario::parse(text).expect("the scripts are legal");
        for seed in scenario.seeds.clone().take(2) {
            let (result, _) = scenario.perform(seed);
            assert_eq!(result, Ok(()), "--scenario {name} --seed {seed}");
        }
    }
}

#[test]
fn a_line_that_says_nothing_is_refused() {
    let refused = Scenario::parse("servers 3\nperhaps kill leader").err();
    assert_eq!(refused.as_deref(), Some("not a statement: perhaps kill leader"));
}

#[test]
fn a_fact_that_never_comes_true_fails_the_script() {
    let scenario = Scenario::parse("servers 1\nexpect new-leader within 1s");
    let (result, _) = scenario.expect("the script is legal").perform(1);
    assert_eq!(result.err().map(|violation| violation.rule), Some("I15"));
}
