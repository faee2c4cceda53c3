//! Sizes, paces and times that few need to change, each by its dotted key (agent-config.md §5).

use super::FileReader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one source of configuration says of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TuningSettings {
    /// Whole numbers.
    pub numbers: BTreeMap<String, i64>,
    /// Fractions.
    pub fractions: BTreeMap<String, f64>,
    /// Durations.
    pub durations: BTreeMap<String, Duration>,
    /// Switches.
    pub switches: BTreeMap<String, bool>,
}

impl TuningSettings {
    /// Lays those of a later source over these.
    pub(in crate::config) fn extend(&mut self, above: Self) {
        let Self { numbers, fractions, durations, switches } = above;
        self.numbers.extend(numbers);
        self.fractions.extend(fractions);
        self.durations.extend(durations);
        self.switches.extend(switches);
    }
}

impl FileReader {
    /// One of these keys; `false` if it is another.
    pub(super) fn tuning(&mut self, path: &str, value: &Value) -> bool {
        match path {
            "check_output_max_size"
            | "raft_snapshot_threshold"
            | "raft_trailing_logs"
            | "limits.kv_max_value_size"
            | "limits.rpc_max_burst"
            | "limits.rpc_max_conns_per_client"
            | "limits.txn_max_req_len" => {
                let number = self.integer(path, value).map(|number| (path.to_owned(), number));
                self.settings.tuning.numbers.extend(number);
            }
            "limits.rpc_rate" => {
                let number = self.fraction(path, value).map(|number| (path.to_owned(), number));
                self.settings.tuning.fractions.extend(number);
            }
            "disable_host_node_id" | "discard_check_output" => {
                let switch = self.boolean(path, value).map(|switch| (path.to_owned(), switch));
                self.settings.tuning.switches.extend(switch);
            }
            "limits.rpc_handshake_timeout"
            | "performance.leave_drain_time"
            | "raft_snapshot_interval" => {
                let time = self.duration(path, value).map(|time| (path.to_owned(), time));
                self.settings.tuning.durations.extend(time);
            }
            _ => return false,
        }
        true
    }
}
