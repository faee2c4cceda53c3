//! Clients of keys while the leader is killed and stopped; a long run is `--bin torture`.

use e2e::torture::{Fault, Settings, run};
use std::time::Duration;

#[test]
fn clients_see_one_history_though_the_leader_is_killed_and_stopped() {
    let faults = vec![Fault::KillLeader, Fault::StopLeader];
    let settings = Settings { seed: 1, clients: 6, length: Duration::ZERO, faults };
    let report = run(&settings);
    assert_eq!(report.judgement.broken, [], "{report}");
    assert_eq!(report.judgement.undecided, [""; 0], "{report}");
    assert_eq!(report.injected.len(), 2, "{report}");
    for fault in &report.injected {
        let mut written = report.operations.iter().filter(|operation| operation.is_written());
        assert!(written.any(|operation| operation.at > fault.healed), "no write after {fault}");
    }
}
