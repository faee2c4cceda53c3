//! Whether the history of one key is linearizable, seen from outside (simulation.md §8.1,
//! checker B).
//!
//! The search is Wing and Gong's with Lowe's memory: operations are put into an order one by one;
//! next may be whatever began before the first unordered answer; what was ordered together with the
//! value it left is remembered and not tried again. It knows nothing of the log.
//!
//! Two things keep it short, and neither loses an order. An operation that only looked is taken as
//! soon as it fits. An operation without an answer is ordered only right before one that would not
//! fit without it: wherever else it stood, it could be left out or moved there.

use std::collections::BTreeSet;

/// Operations one key may have.
const OPERATIONS_MAX: usize = 2000;
/// Combinations that are tried before the search gives up.
const STEPS_MAX: usize = 100_000;

/// The value of a key; no two writes store the same one.
pub type Value = Option<u64>;

/// What was done to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It was read.
    Get,
    /// A value was stored.
    Put(u64),
    /// The second was stored if the value was the first.
    Cas(Value, u64),
    /// It was deleted.
    Delete,
    /// It was deleted if the value was this one; a missing key is as good as deleted.
    DeleteCas(Value),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The value.
    Saw(Value),
    /// It is done.
    Done,
    /// The condition was not met.
    Unmet,
}

/// One operation on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOp {
    /// What.
    pub deed: Deed,
    /// When it began.
    pub invoked: u64,
    /// When it was answered, and how; `None` if it never was.
    pub returned: Option<(u64, Told)>,
}

impl KeyOp {
    /// The value after this operation on `value`; `None` if it cannot have been answered as it was,
    /// or, without an answer, if it has no effect there.
    fn after(&self, value: Value) -> Option<Value> {
        let told = self.returned.map_or(Told::Done, |(_, told)| told);
        match (self.deed, told) {
            (Deed::Get, Told::Saw(seen)) => (seen == value).then_some(value),
            (Deed::Put(new), Told::Done) => Some(Some(new)),
            (Deed::Cas(wanted, new), Told::Done) => (wanted == value).then_some(Some(new)),
            (Deed::Cas(wanted, _), Told::Unmet) => (wanted != value).then_some(value),
            (Deed::Delete, Told::Done) => Some(None),
            (Deed::DeleteCas(wanted), Told::Done) => {
                (value.is_none() || wanted == value).then_some(None)
            }
            (Deed::DeleteCas(wanted), Told::Unmet) => {
                (value.is_some() && wanted != value).then_some(value)
            }
            (Deed::Get | Deed::Put(_) | Deed::Cas(..) | Deed::Delete | Deed::DeleteCas(_), _) => {
                None
            }
        }
    }

    /// Whether it changed nothing, wherever it stands.
    fn only_looked(&self) -> bool {
        matches!(self.returned, Some((_, Told::Saw(_) | Told::Unmet)))
    }
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Legal,
    /// There is none; the text names what no order gets past.
    Illegal(String),
    /// It is too much to search.
    Undecided,
}

/// Operations taken together: some without an answer, then one with.
struct Move {
    taken: Vec<usize>,
    value: Value,
}

/// One choice of the search.
struct Choice {
    moves: std::vec::IntoIter<Move>,
    /// What led here.
    taken: Vec<usize>,
}

struct Search {
    /// Those with an answer, by their begin.
    answered: Vec<KeyOp>,
    open: Vec<KeyOp>,
    /// What is ordered: first those with an answer, then the open ones.
    ordered: Vec<bool>,
    left: usize,
}

/// Whether all operations fit into one order that starts without a value.
pub fn linearizable(operations: &[KeyOp]) -> Verdict {
    if operations.len() > OPERATIONS_MAX {
        return Verdict::Undecided;
    }
    let mut search = Search::new(operations);
    let (mut tried, mut best) = (BTreeSet::new(), (usize::MAX, String::new()));
    let mut choices = vec![Choice { moves: search.moves(None).into_iter(), taken: Vec::new() }];
    if search.left == 0 {
        return Verdict::Legal;
    }
    while let Some(choice) = choices.last_mut() {
        let Some(Move { taken, value }) = choice.moves.next() else {
            search.order(&choice.taken, false);
            choices.pop();
            continue;
        };
        search.order(&taken, true);
        if search.left == 0 {
            return Verdict::Legal;
        }
        if !tried.insert((search.bits(), value)) {
            search.order(&taken, false);
            continue;
        }
        if tried.len() >= STEPS_MAX {
            return Verdict::Undecided;
        }
        if search.left < best.0 {
            best = (search.left, search.stuck_at(value));
        }
        choices.push(Choice { moves: search.moves(value).into_iter(), taken });
    }
    Verdict::Illegal(best.1)
}

impl Search {
    fn new(operations: &[KeyOp]) -> Self {
        let (mut answered, mut open): (Vec<KeyOp>, Vec<KeyOp>) =
            operations.iter().partition(|operation| operation.returned.is_some());
        answered.sort_by_key(|operation| operation.invoked);
        open.retain(|operation| operation.deed != Deed::Get);
        let (ordered, left) = (vec![false; answered.len() + open.len()], answered.len());
        Self { answered, open, ordered, left }
    }

    fn order(&mut self, taken: &[usize], is_in: bool) {
        for at in taken {
            self.ordered[*at] = is_in;
            if *at < self.answered.len() {
                self.left = if is_in { self.left - 1 } else { self.left + 1 };
            }
        }
    }

    /// What is ordered, as a key of the memory.
    fn bits(&self) -> Vec<u64> {
        let word = |bits: &[bool]| {
            bits.iter().enumerate().fold(0, |word, (at, set)| word | (u64::from(*set) << at))
        };
        self.ordered.chunks(64).map(word).collect()
    }

    /// What may be next: those with an answer that began before the first of their answers, and
    /// when that is.
    fn front(&self) -> (Vec<usize>, u64) {
        let (mut front, mut first) = (Vec::new(), u64::MAX);
        for (at, operation) in self.answered.iter().enumerate() {
            if operation.invoked > first {
                break;
            }
            if !self.ordered[at] {
                front.push(at);
                first = first.min(operation.returned.map_or(u64::MAX, |(when, _)| when));
            }
        }
        front.retain(|at| self.answered[*at].invoked <= first);
        (front, first)
    }

    fn moves(&self, value: Value) -> Vec<Move> {
        let (front, first) = self.front();
        let mut moves = Vec::new();
        for at in &front {
            let Some(after) = self.answered[*at].after(value) else { continue };
            let step = Move { taken: vec![*at], value: after };
            if self.answered[*at].only_looked() {
                return vec![step];
            }
            moves.push(step);
        }
        self.open_moves(&mut Vec::new(), (value, value), (&front, first), &mut moves);
        moves
    }

    /// Adds the moves that begin with `chain`, open operations that lead from the value before its
    /// last one to the value behind it.
    fn open_moves(
        &self,
        chain: &mut Vec<usize>,
        (before, value): (Value, Value),
        (front, first): (&[usize], u64),
        moves: &mut Vec<Move>,
    ) {
        let needs = |op: &KeyOp| chain.is_empty() || op.after(before).is_none();
        if !chain.is_empty() {
            for at in front.iter().filter(|at| needs(&self.answered[**at])) {
                if let Some(after) = self.answered[*at].after(value) {
                    let taken = chain.iter().copied().chain([*at]).collect();
                    moves.push(Move { taken, value: after });
                }
            }
        }
        let numbered = (self.answered.len()..).zip(&self.open);
        let fits: Vec<(usize, Value)> = numbered
            .filter(|(at, op)| !self.ordered[*at] && !chain.contains(at) && op.invoked <= first)
            .filter(|(_, op)| needs(op))
            .filter_map(|(at, op)| Some((at, op.after(value)?)))
            .collect();
        for (at, after) in fits {
            chain.push(at);
            self.open_moves(chain, (value, after), (front, first), moves);
            chain.pop();
        }
    }

    fn stuck_at(&self, value: Value) -> String {
        let (front, _) = self.front();
        let next: Vec<&KeyOp> = front.iter().map(|at| &self.answered[*at]).collect();
        format!("after {value:?} none of {next:?} fits")
    }
}

#[cfg(test)]
mod tests;
