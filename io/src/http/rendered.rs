//! Rendered bodies, kept to be shared: a read is rendered once for each (query, index).
//!
//! - Source: DESIGN.md §6, performance-notes.md §7: a map for each thread, so that no lock is
//!   taken, dropped when the state has moved.
//! - The catalog is a function of the applied log, so a body is that of any state of the same agent
//!   with the same applied position, and of no other. What a head says of the moment (leader, age
//!   of the answer) is not kept.
//! - Bounded in entries and bytes; a full map is emptied, and a body too large for it is not kept.

use super::respond::Form;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use terraform_core::catalog::query::Query;
use terraform_core::id::{LogIndex, ModifyIndex};

/// Bodies a thread keeps.
const ENTRIES_MAX: usize = 512;
/// Bytes that they may have together.
const BYTES_MAX: usize = 4 << 20;

thread_local! {
    static BODIES: RefCell<Bodies> = RefCell::new(Bodies::default());
}

/// Tells the agents of one process apart: each sees only bodies of its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// One that no other agent has.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A state of an agent's catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whose.
    pub owner: Owner,
    /// What was applied to it.
    pub applied: LogIndex,
}

/// A rendered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The index of what was read.
    pub index: ModifyIndex,
    /// How the body is written.
    pub form: Form,
    /// The body.
    pub body: Bytes,
}

/// The answer to `query` at `state` in the form `wanted`: one of this thread's, or a new one by
/// `render`; `None` if that makes none.
pub fn shared(
    state: State,
    query: &Query,
    wanted: Form,
    render: impl FnOnce() -> Option<Rendered>,
) -> Option<Rendered> {
    let key = (query, wanted);
    if let Some(found) = BODIES.with_borrow(|bodies| bodies.find(state, key)) {
        return Some(found);
    }
    let rendered = render()?;
    BODIES.with_borrow_mut(|bodies| bodies.keep(state, key, &rendered));
    Some(rendered)
}

/// One thread's.
#[derive(Debug, Default)]
struct Bodies {
    state: Option<State>,
    by_query: HashMap<Query, Vec<(Form, Rendered)>>,
    entries: usize,
    bytes: usize,
}

impl Bodies {
    fn find(&self, state: State, (query, wanted): (&Query, Form)) -> Option<Rendered> {
        let forms = self.by_query.get(query).filter(|_| self.state == Some(state))?;
        forms.iter().find(|(form, _)| *form == wanted).map(|(_, rendered)| rendered.clone())
    }

    fn keep(&mut self, state: State, (query, wanted): (&Query, Form), rendered: &Rendered) {
        let size = rendered.body.len();
        if size > BYTES_MAX {
            return;
        }
        let is_full = self.entries == ENTRIES_MAX || self.bytes + size > BYTES_MAX;
        if self.state != Some(state) || is_full {
            *self = Self { state: Some(state), ..Self::default() };
        }
        self.entries += 1;
        self.bytes += size;
        let forms = self.by_query.entry(query.clone()).or_default();
        forms.push((wanted, rendered.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::catalog::query::NodeQuery;

    const PLAIN: Form = Form { pretty: false, gzip: false };

    fn state(owner: Owner, applied: u64) -> State {
        State { owner, applied: LogIndex::new(applied) }
    }

    fn named(number: usize) -> Query {
        Query::Node(NodeQuery::all(number.to_string()))
    }

    fn rendered(bytes: usize) -> Rendered {
        Rendered { index: ModifyIndex::new(1), form: PLAIN, body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn a_body_is_found_only_for_its_state_its_query_and_its_form() {
        let at = state(Owner::unique(), 5);
        let mut bodies = Bodies::default();
        bodies.keep(at, (&named(1), PLAIN), &rendered(3));
        assert_eq!(bodies.find(at, (&named(1), PLAIN)), Some(rendered(3)));
        assert_eq!(bodies.find(at, (&named(2), PLAIN)), None);
        assert_eq!(bodies.find(at, (&named(1), Form { gzip: true, ..PLAIN })), None);
        assert_eq!(bodies.find(state(at.owner, 6), (&named(1), PLAIN)), None);
        assert_eq!(bodies.find(state(Owner::unique(), 5), (&named(1), PLAIN)), None);
    }

    #[test]
    fn a_state_that_has_moved_leaves_nothing_behind() {
        let owner = Owner::unique();
        let mut bodies = Bodies::default();
        bodies.keep(state(owner, 5), (&named(1), PLAIN), &rendered(3));
        bodies.keep(state(owner, 6), (&named(2), PLAIN), &rendered(4));
        assert_eq!((bodies.by_query.len(), bodies.entries, bodies.bytes), (1, 1, 4));
        assert_eq!(bodies.find(state(owner, 6), (&named(1), PLAIN)), None);
    }

    #[test]
    fn bodies_are_bounded_in_entries() {
        let at = state(Owner::unique(), 5);
        let mut bodies = Bodies::default();
        for number in 0..ENTRIES_MAX + 1 {
            bodies.keep(at, (&named(number), PLAIN), &rendered(1));
            assert!(bodies.by_query.len() <= ENTRIES_MAX);
        }
        assert_eq!((bodies.entries, bodies.bytes), (1, 1));
    }

    #[test]
    fn bodies_are_bounded_in_bytes() {
        let at = state(Owner::unique(), 5);
        let mut bodies = Bodies::default();
        bodies.keep(at, (&named(1), PLAIN), &rendered(BYTES_MAX - 1));
        bodies.keep(at, (&named(2), PLAIN), &rendered(BYTES_MAX + 1));
        assert_eq!((bodies.entries, bodies.bytes), (1, BYTES_MAX - 1));
        bodies.keep(at, (&named(3), PLAIN), &rendered(2));
        assert_eq!((bodies.entries, bodies.bytes), (1, 2));
        assert_eq!(bodies.find(at, (&named(1), PLAIN)), None);
    }
}
