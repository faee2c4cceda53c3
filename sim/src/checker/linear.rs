//! Whether the history of one thing, such as a key, is linearizable, seen from outside
//! (simulation.md §8.1, checker B).
//!
//! The search is Wing and Gong's with Lowe's memory: operations are put into an order one by one;
//! next may be whatever began before the first unordered answer; what was ordered together with the
//! value it left is remembered and not tried again. It knows nothing of the log.
//!
//! Three things keep it short, and none loses an order. An operation that only looked is taken as
//! soon as it fits. An operation without an answer is ordered only right before one that builds on
//! it: before any other it can be left out, or can as well come later. So no operation may need the
//! effects of two others that do not build on each other. Of two ways to the same effect of the
//! same operation, one of which takes all that the other takes and more, the longer is not tried.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// Operations one key may have.
const OPERATIONS_MAX: usize = 2000;
/// Bytes of states and of memory that are made before the search gives up: a bound of its room and
/// of its time.
const BYTES_MAX: usize = 64 << 20;

/// One operation on the thing.
pub trait Operation: Clone + Debug {
    /// What the thing is between operations; at first it is the default.
    type State: Clone + Debug + Default + Ord;

    /// What the thing is after this operation; `None` if it cannot have been answered as it was
    /// there, or, without an answer, if it has no effect there.
    fn after(&self, state: &Self::State) -> Option<Self::State>;

    /// Whether whatever can follow on `other` can follow on `state`, if nothing is missing there
    /// but effects of operations that can still be taken.
    fn covers(state: &Self::State, other: &Self::State) -> bool {
        state == other
    }

    /// Bytes that a state takes.
    fn size(_state: &Self::State) -> usize {
        size_of::<Self::State>()
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

/// Operations without an answer, each of which builds on the one before.
struct Chain<S> {
    taken: Vec<usize>,
    /// The chain without its last operation, among those found so far.
    before: usize,
    state: S,
}

/// One choice of the search.
struct Choice<S> {
    moves: std::vec::IntoIter<Move<S>>,
    /// What led here.
    taken: Vec<usize>,
}

/// Whether operations that lead to `state` are a shorter way to what `other` is.
fn covers<O: Operation>(taken: &[usize], state: &O::State, other: &Move<O::State>) -> bool {
    taken.last() == other.taken.last()
        && taken.iter().all(|at| other.taken.contains(at))
        && O::covers(state, &other.state)
}

struct Search<O> {
    /// Those with an answer, by their begin.
    answered: Vec<O>,
    open: Vec<O>,
    /// What is ordered: first those with an answer, then the open ones.
    ordered: Vec<bool>,
    left: usize,
    /// Bytes that were made.
    made: usize,
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
        if search.made > BYTES_MAX {
            return Verdict::Undecided;
        }
        let Some(Move { taken, state }) = choice.moves.next() else {
            search.order(&choice.taken, false);
            choices.pop();
            continue;
        };
        search.order(&taken, true);
        if search.left == 0 {
            return Verdict::Legal;
        }
        let bits = search.bits();
        search.made += size_of_val(&bits[..]) + O::size(&state);
        if !tried.insert((bits, state.clone())) {
            search.order(&taken, false);
            continue;
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
        Self { answered, open, ordered, left, made: 0 }
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

    fn moves(&mut self, state: &O::State) -> Vec<Move<O::State>> {
        let (front, first) = self.front();
        let mut moves = Vec::new();
        for at in &front {
            let Some(after) = self.answered[*at].after(state) else { continue };
            self.made += O::size(&after);
            let step = Move { taken: vec![*at], state: after };
            if self.answered[*at].only_looked() {
                return vec![step];
            }
            moves.push(step);
        }
        let mut chains = vec![Chain { taken: Vec::new(), before: 0, state: state.clone() }];
        let mut last = 0;
        while last < chains.len() && self.made <= BYTES_MAX {
            if last > 0 {
                self.close(&chains, last, &front, &mut moves);
            }
            self.grow(&mut chains, last, first);
            last += 1;
        }
        moves
    }

    /// Adds the moves that end with an operation that has an answer and builds on the chain.
    fn close(
        &mut self,
        chains: &[Chain<O::State>],
        last: usize,
        front: &[usize],
        moves: &mut Vec<Move<O::State>>,
    ) {
        for at in front {
            if let Some(longer) = self.longer(chains, last, *at) {
                let covers =
                    |other: &Move<O::State>| covers::<O>(&other.taken, &other.state, &longer);
                if !moves.iter().any(covers) {
                    moves.push(longer);
                }
            }
        }
    }

    /// Adds the chains that are longer than `last` by one.
    fn grow(&mut self, chains: &mut Vec<Chain<O::State>>, last: usize, first: u64) {
        for at in self.answered.len()..self.ordered.len() {
            let is_free = !self.ordered[at] && !chains[last].taken.contains(&at);
            if !is_free || self.operation(at).span().0 > first {
                continue;
            }
            let Some(longer) = self.longer(chains, last, at) else { continue };
            let covers = |chain: &Chain<O::State>| covers::<O>(&chain.taken, &chain.state, &longer);
            if !chains.iter().any(covers) {
                let Move { taken, state } = longer;
                chains.push(Chain { taken, before: last, state });
            }
        }
    }

    /// The chain `last` with one more operation, if it fits there and builds on the chain: without
    /// the last one it would not fit, or would leave something else behind and that one could not
    /// come later.
    fn longer(
        &mut self,
        chains: &[Chain<O::State>],
        last: usize,
        at: usize,
    ) -> Option<Move<O::State>> {
        let Chain { taken, before, state } = &chains[last];
        let operation = self.operation(at);
        let after = operation.after(state)?;
        if let Some(skipped) = taken.last()
            && let Some(without) = operation.after(&chains[*before].state)
        {
            let is_later = self.operation(*skipped).after(&without).as_ref() == Some(&after);
            if without == after || is_later {
                return None;
            }
        }
        self.made += O::size(&after) + size_of_val(&taken[..]);
        let taken = taken.iter().copied().chain([at]).collect();
        Some(Move { taken, state: after })
    }

    fn operation(&self, at: usize) -> &O {
        self.answered.get(at).unwrap_or_else(|| &self.open[at - self.answered.len()])
    }

    fn stuck_at(&self, state: &O::State) -> String {
        let (front, _) = self.front();
        let next: Vec<&O> = front.iter().map(|at| &self.answered[*at]).collect();
        format!("after {state:?} none of {next:?} fits")
    }
}

#[cfg(test)]
pub(crate) mod tests;
