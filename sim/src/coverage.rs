//! Which places worth reaching a set of worlds reached (simulation.md §10).
//!
//! `marks.txt` names all places that the core marks; a test keeps it equal to them.

use std::collections::{BTreeMap, BTreeSet};
use terraform_core::marks;

/// All places, one a line.
const NAMES: &str = include_str!("../marks.txt");

/// The names of all places.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.lines()
}

/// The places that were reached.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeSet<&'static str>);

impl Coverage {
    /// Takes over what this thread reached since the last call.
    pub fn take(&mut self) {
        let hits: BTreeMap<&'static str, u64> = marks::take_hits();
        self.0.extend(hits.into_keys());
    }
}

impl std::fmt::Display for Coverage {
    /// How many of all, and those that are missing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing: Vec<&str> = names().filter(|name| !self.0.contains(name)).collect();
        write!(f, "{} of {} places reached", self.0.len(), names().count())?;
        if missing.is_empty() { Ok(()) } else { write!(f, "; not {}", missing.join(", ")) }
    }
}
