//! Whether the history of one thing, such as a key, is linearizable, seen from outside
//! (simulation.md §8.1, checker B).
//!
//! The search is Wing and Gong's with Lowe's memory: operations are put into an order one by one;
//! next may be whatever began before the first unordered answer; what was ordered together with the
//! value it left is remembered and not tried again. It knows nothing of the log.
//!
//! Two things keep it short, and neither loses an order. An operation that only looked is taken as
//! soon as it fits. An operation without an answer is ordered only right before one that builds on
//! it: wherever else it stood, it could be left out or moved there. So no operation may need the
//! effects of two others that do not build on each other.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// Operations one key may have.
const OPERATIONS_MAX: usize = 2000;
/// Combinations that are tried before the search gives up.
const STEPS_MAX: usize = 100_000;

/// One operation on the thing.
pub trait Operation: Clone + Debug {
    /// What the thing is between operations; at first it is the default.
    type State: Clone + Debug + Default + Ord;

    /// What the thing is after this operation; `None` if it cannot have been answered as it was
    /// there, or, without an answer, if it has no effect there.
    fn after(&self, state: &Self::State) -> Option<Self::State>;

    /// Whether it needs another one that led from `before` to `state`: it would not fit without
    /// it, or would leave something else behind that others may tell.
    fn builds_on(&self, before: &Self::State, _state: &Self::State) -> bool {
        self.after(before).is_none()
    }

    /// Whether it changed nothing, wherever it stands.
    fn only_looked(&self) -> bool;

    /// When it began, and when it was answered, if it was.
    fn span(&self) -> (u64, Option<u64>);
}

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

impl Operation for KeyOp {
    type State = Value;

    fn after(&self, state: &Value) -> Option<Value> {
        let (value, told) = (*state, self.returned.map_or(Told::Done, |(_, told)| told));
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

    fn only_looked(&self) -> bool {
        self.deed == Deed::Get || matches!(self.returned, Some((_, Told::Unmet)))
    }

    fn span(&self) -> (u64, Option<u64>) {
        (self.invoked, self.returned.map(|(at, _)| at))
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
struct Move<S> {
    taken: Vec<usize>,
    state: S,
}

/// One choice of the search.
struct Choice<S> {
    moves: std::vec::IntoIter<Move<S>>,
    /// What led here.
    taken: Vec<usize>,
}

struct Search<O> {
    /// Those with an answer, by their begin.
    answered: Vec<O>,
    open: Vec<O>,
    /// What is ordered: first those with an answer, then the open ones.
    ordered: Vec<bool>,
    left: usize,
}

/// Whether all operations fit into one order that starts with nothing.
pub fn linearizable<O: Operation>(operations: &[O]) -> Verdict {
    if operations.len() > OPERATIONS_MAX {
        return Verdict::Undecided;
    }
    let mut search = Search::new(operations);
    let (mut tried, mut best) = (BTreeSet::new(), (usize::MAX, String::new()));
    let first = search.moves(&O::State::default());
    let mut choices = vec![Choice { moves: first.into_iter(), taken: Vec::new() }];
    if search.left == 0 {
        return Verdict::Legal;
    }
    while let Some(choice) = choices.last_mut() {
        let Some(Move { taken, state }) = choice.moves.next() else {
            search.order(&choice.taken, false);
            choices.pop();
            continue;
        };
        search.order(&taken, true);
        if search.left == 0 {
            return Verdict::Legal;
        }
        if !tried.insert((search.bits(), state.clone())) {
            search.order(&taken, false);
            continue;
        }
        if tried.len() >= STEPS_MAX {
            return Verdict::Undecided;
        }
        if search.left < best.0 {
            best = (search.left, search.stuck_at(&state));
        }
        choices.push(Choice { moves: search.moves(&state).into_iter(), taken });
    }
    Verdict::Illegal(best.1)
}

impl<O: Operation> Search<O> {
    fn new(operations: &[O]) -> Self {
        let has_answer = |operation: &&O| operation.span().1.is_some();
        let mut answered: Vec<O> = operations.iter().filter(has_answer).cloned().collect();
        answered.sort_by_key(|operation| operation.span().0);
        let of_effect = |operation: &&O| !has_answer(operation) && !operation.only_looked();
        let open: Vec<O> = operations.iter().filter(of_effect).cloned().collect();
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
            let (invoked, returned) = operation.span();
            if invoked > first {
                break;
            }
            if !self.ordered[at] {
                front.push(at);
                first = first.min(returned.unwrap_or(u64::MAX));
            }
        }
        front.retain(|at| self.answered[*at].span().0 <= first);
        (front, first)
    }

    fn moves(&self, state: &O::State) -> Vec<Move<O::State>> {
        let (front, first) = self.front();
        let mut moves = Vec::new();
        for at in &front {
            let Some(after) = self.answered[*at].after(state) else { continue };
            let step = Move { taken: vec![*at], state: after };
            if self.answered[*at].only_looked() {
                return vec![step];
            }
            moves.push(step);
        }
        self.open_moves(&mut Vec::new(), (state, state), (&front, first), &mut moves);
        moves
    }

    /// Adds the moves that begin with `chain`, open operations that lead from the state before its
    /// last one to the state behind it.
    fn open_moves(
        &self,
        chain: &mut Vec<usize>,
        (before, state): (&O::State, &O::State),
        (front, first): (&[usize], u64),
        moves: &mut Vec<Move<O::State>>,
    ) {
        let needs = |op: &O| chain.is_empty() || op.builds_on(before, state);
        if !chain.is_empty() {
            for at in front.iter().filter(|at| needs(&self.answered[**at])) {
                if let Some(after) = self.answered[*at].after(state) {
                    let taken = chain.iter().copied().chain([*at]).collect();
                    moves.push(Move { taken, state: after });
                }
            }
        }
        let numbered = (self.answered.len()..).zip(&self.open);
        let fits: Vec<(usize, O::State)> = numbered
            .filter(|(at, _)| !self.ordered[*at] && !chain.contains(at))
            .filter(|(_, op)| op.span().0 <= first && needs(op))
            .filter_map(|(at, op)| Some((at, op.after(state)?)))
            .collect();
        for (at, after) in fits {
            chain.push(at);
            self.open_moves(chain, (state, &after), (front, first), moves);
            chain.pop();
        }
    }

    fn stuck_at(&self, state: &O::State) -> String {
        let (front, _) = self.front();
        let next: Vec<&O> = front.iter().map(|at| &self.answered[*at]).collect();
        format!("after {state:?} none of {next:?} fits")
    }
}

#[cfg(test)]
mod tests;
