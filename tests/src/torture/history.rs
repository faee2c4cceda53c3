//! What clients did, and the judgement of it key by key.

use sim::checker::linear::{Deed, KeyOp, Told, Verdict, linearizable};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that tells which operations were over before others began.
#[derive(Debug, Default)]
pub(super) struct Ticks(AtomicU64);

impl Ticks {
    /// The next moment; no two are the same.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody knows: it may take effect at any later time, or never.
    Open,
    /// Nothing happened, the client was told.
    NotDone,
    /// With an answer, at a tick.
    Told(u64, Told),
}

/// One operation. What a write stores is the tick of its begin, so no value is stored twice.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Through which server.
    pub server: usize,
    /// On which key.
    pub key: String,
    /// What.
    pub deed: Deed,
    /// The tick of its begin.
    pub invoked: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The index that came with what was read, or that was a condition.
    pub index: Option<u64>,
    /// When it ended, since the load's begin.
    pub at: Duration,
}

impl Operation {
    /// Whether it stored or deleted something, and the client was told so.
    pub fn is_written(&self) -> bool {
        matches!(self.outcome, Outcome::Told(_, Told::Done))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server, key, deed, invoked, outcome, index, at } = self;
        let at = at.as_secs_f64();
        write!(f, "{at:9.4} tick={invoked} client={client} server={server} {key} {deed:?}")?;
        if let Some(index) = index {
            write!(f, " index={index}")?;
        }
        write!(f, " -> {outcome:?}")
    }
}

/// What is wrong with a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Keys whose operations were judged.
    pub keys: usize,
    /// A key and why its operations contradict each other.
    pub broken: Vec<(String, String)>,
    /// Keys with too much to search.
    pub undecided: Vec<String>,
}

/// Judges all keys: one order explains the answers, and an index stands for one write.
pub(super) fn judge(operations: &[Operation]) -> Judgement {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut judgement = Judgement { keys: keys.len(), ..Judgement::default() };
    for (key, operations) in keys {
        if let Some(facts) = two_writers(&operations) {
            judgement.broken.push((key.to_owned(), facts));
        }
        let operations: Vec<KeyOp> = operations.into_iter().filter_map(searched).collect();
        match linearizable(&operations) {
            Verdict::Legal => {}
            Verdict::Illegal(stuck) => judgement.broken.push((key.to_owned(), stuck)),
            Verdict::Undecided => judgement.undecided.push(key.to_owned()),
        }
    }
    judgement
}

/// Conditions name indexes, and the search takes them for the values that were seen with them. So
/// no index may stand for two.
fn two_writers(operations: &[&Operation]) -> Option<String> {
    let mut writers: BTreeMap<u64, u64> = BTreeMap::new();
    for operation in operations {
        let (Some(index), Outcome::Told(_, Told::Saw(Some(writer)))) =
            (operation.index, operation.outcome)
        else {
            continue;
        };
        let known = *writers.entry(index).or_insert(writer);
        if known != writer {
            return Some(format!("index {index} came with the values {known} and {writer}"));
        }
    }
    None
}

fn searched(operation: &Operation) -> Option<KeyOp> {
    let returned = match operation.outcome {
        Outcome::NotDone => return None,
        Outcome::Open => None,
        Outcome::Told(at, told) => Some((at, told)),
    };
    Some(KeyOp { deed: operation.deed, invoked: operation.invoked, returned })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(deed: Deed, invoked: u64, outcome: Outcome) -> Operation {
        Operation {
            client: 0,
            server: 0,
            key: "a".to_owned(),
            deed,
            invoked,
            outcome,
            index: None,
            at: Duration::ZERO,
        }
    }

    fn saw(invoked: u64, value: Option<u64>, index: u64) -> Operation {
        let outcome = Outcome::Told(invoked + 1, Told::Saw(value));
        Operation { index: Some(index), ..operation(Deed::Get, invoked, outcome) }
    }

    #[test]
    fn an_acknowledged_write_must_be_seen_and_a_refused_one_must_not() {
        let put = |outcome| operation(Deed::Put(1), 1, outcome);
        let broken = |outcome, seen| !judge(&[put(outcome), saw(3, seen, 7)]).broken.is_empty();
        let done = Outcome::Told(2, Told::Done);
        assert!(!broken(done, Some(1)) && broken(done, None));
        assert!(!broken(Outcome::NotDone, None) && broken(Outcome::NotDone, Some(1)));
        assert!(!broken(Outcome::Open, None) && !broken(Outcome::Open, Some(1)));
    }

    #[test]
    fn an_index_stands_for_one_write() {
        let puts = [1, 3].map(|at| operation(Deed::Put(at), at, Outcome::Open));
        let history = |second| [&puts[..], &[saw(5, Some(1), 7), saw(7, Some(3), second)]].concat();
        assert_eq!(judge(&history(8)).broken, []);
        assert_eq!(judge(&history(7)).broken.len(), 1);
    }
}
