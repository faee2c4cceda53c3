//! What prepared queries found, kept for executions with `cached` (http-api.md §1.8).
//!
//! Nothing follows them: each is as old as it is. Bounded: [`KEPT_MAX`]; the oldest goes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terraform_core::catalog::prepared::{Executed, Execution};
use terraform_core::catalog::query::Consistency;
use terraform_core::id::Datacenter;
use terraform_core::node::request::RequestContext;
use terraform_core::time::Instant;

/// Executions that are kept.
const KEPT_MAX: usize = 256;

/// What was executed, where, and by whose right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    execution: Execution,
    datacenter: Option<Datacenter>,
    stale: bool,
    token: Option<String>,
}

impl Key {
    /// The key of an execution that is asked for like this.
    pub fn new(context: &RequestContext, execution: &Execution) -> Self {
        Self {
            execution: execution.clone(),
            datacenter: context.datacenter.clone(),
            stale: context.consistency == Consistency::Stale,
            token: context.token.clone(),
        }
    }
}

/// All that is kept of one agent's executions.
#[derive(Debug, Default)]
pub struct Executions(Mutex<BTreeMap<Key, (Instant, Arc<Executed>)>>);

impl Executions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, (Instant, Arc<Executed>)>> {
        // Entries are whole whenever the lock is free, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found last, and how old that is.
    pub fn find(&self, key: &Key, now: Instant) -> Option<(Arc<Executed>, Duration)> {
        let kept = self.lock();
        let (found_at, executed) = kept.get(key)?;
        Some((Arc::clone(executed), now.since(*found_at)))
    }

    /// Keeps what was found now.
    pub fn keep(&self, key: Key, executed: Arc<Executed>, now: Instant) {
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            let oldest = kept.iter().min_by_key(|(_, (found_at, _))| *found_at);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.map(|oldest| kept.remove(&oldest));
        }
        kept.insert(key, (now, executed));
    }
}
