//! What a watch remembers from one look to the next (cli.md §7).

use serde_json::Value;
use std::time::Duration;

/// What the first failure in a row costs; the n-th costs n² times as much.
const RETRY: Duration = Duration::from_secs(5);
/// What a failure costs at most.
const RETRY_MAX: Duration = Duration::from_secs(180);

/// The last index and result, and how many looks failed since.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Whether an index says nothing but which one it is, so that a smaller one is no step back.
    index_is_hash: bool,
    index: Option<u64>,
    result: Option<Value>,
    failures: u32,
}

impl Plan {
    pub(crate) const fn new(index_is_hash: bool) -> Self {
        Self { index_is_hash, index: None, result: None, failures: 0 }
    }

    /// The index that the next look waits to be passed; `None` if it does not wait.
    pub(crate) fn index(&self) -> Option<u64> {
        self.index.filter(|index| *index > 0)
    }

    /// Takes a result; gives it back with its index if it is another than the last one.
    pub(crate) fn seen(&mut self, index: u64, result: Value) -> Option<(u64, &Value)> {
        self.failures = 0;
        if self.index == Some(index) {
            return None;
        }
        // An index goes back when the servers were restored or replaced: look again from the start.
        let back = !self.index_is_hash && self.index.is_some_and(|last| index < last);
        self.index = Some(if back { 0 } else { index });
        if self.result.as_ref() == Some(&result) {
            return None;
        }
        Some((index, self.result.insert(result)))
    }

    /// Takes a failure; says when to look again, which then does not wait for a change.
    pub(crate) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.index = None;
        RETRY.saturating_mul(self.failures.saturating_mul(self.failures)).min(RETRY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_another_result_is_handled() {
        let mut plan = Plan::new(false);
        assert_eq!(plan.seen(5, Value::Null), Some((5, &Value::Null)));
        assert_eq!(plan.seen(7, Value::Null), None, "something else has changed");
        assert_eq!((plan.index(), plan.seen(7, json!(1))), (Some(7), None), "the wait was over");
        assert_eq!(plan.seen(8, json!(1)), Some((8, &json!(1))));
    }

    #[test]
    fn an_index_that_goes_back_starts_again() {
        let mut plan = Plan::new(false);
        assert!(plan.seen(9, json!(1)).is_some());
        assert_eq!(plan.seen(3, json!(2)), Some((3, &json!(2))));
        assert_eq!(plan.index(), None);
        assert_eq!(plan.seen(3, json!(2)), None, "seen already");
        assert_eq!(plan.index(), Some(3));
        let mut events = Plan::new(true);
        assert!(events.seen(9, json!(1)).is_some() && events.seen(3, json!(2)).is_some());
        assert_eq!(events.index(), Some(3), "a hash goes nowhere");
    }

    #[test]
    fn failures_in_a_row_cost_more_and_more() {
        let mut plan = Plan::new(false);
        plan.seen(9, json!(1));
        let seconds: Vec<u64> = (0..8).map(|_| plan.failed().as_secs()).collect();
        assert_eq!(seconds, [5, 20, 45, 80, 125, 180, 180, 180]);
        assert_eq!(plan.seen(9, json!(1)), None);
        assert_eq!(plan.failed().as_secs(), 5);
    }
}
