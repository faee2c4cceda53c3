//! Answers kept for reads with `cached`: the next such read needs no server.
//!
//! - Source: http-api.md §1.8. A *refreshed* answer is followed by a read that waits for changes,
//!   so it is as new as the servers tell; a *simple* one has an age.
//! - Bounded: [`ENTRIES_MAX`] answers; the one that was used longest ago makes room for another.
//!   One that nobody used for [`UNUSED_MAX`] goes.
//! - What prepared queries found is kept in [`executions`](super::executions).

use crate::bell::Bell;
use crate::handle::NodeHandle;
use crate::runtime::{before, spawn};
use smol::{Task, Timer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer};
use terraform_core::id::{Datacenter, ModifyIndex};
use terraform_core::node::request::{RequestContext, RequestError, WAIT_MAX};
use terraform_core::time::Instant;

/// Answers that are kept.
const ENTRIES_MAX: usize = 256;
/// How long an answer is kept that nobody asks for.
const UNUSED_MAX: Duration = Duration::from_secs(72 * 3600);
/// The pause after a read that failed, and the longest one, which repeated failures lead to.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What was asked, of whom, and by whose right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    query: Query,
    datacenter: Option<Datacenter>,
    stale: bool,
    token: Option<String>,
}

impl Key {
    fn new(context: &RequestContext, query: &Query) -> Self {
        Self {
            query: query.clone(),
            datacenter: context.datacenter.clone(),
            stale: context.consistency == Consistency::Stale,
            token: context.token.clone(),
        }
    }
}

/// A kept answer.
#[derive(Debug)]
struct Kept {
    answer: QueryAnswer,
    /// When it was read.
    read_at: Instant,
    /// Since when the servers do not tell of changes.
    lost_at: Option<Instant>,
    used_at: Instant,
}

#[derive(Debug)]
struct Entry {
    kept: Mutex<Kept>,
    changed: Bell,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry with what keeps it new, if anything does.
#[derive(Debug)]
struct Held {
    entry: Arc<Entry>,
    _refresh: Option<Task<()>>,
}

/// How an answer was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The answer.
    pub answer: QueryAnswer,
    /// How old it is, if it was kept (`X-Cache: HIT`, `Age`); `None` if it was read now (`MISS`).
    pub age: Option<Duration>,
}

/// All kept answers of one agent.
#[derive(Debug)]
pub struct Cache {
    node: NodeHandle,
    entries: Mutex<BTreeMap<Key, Held>>,
}

impl Cache {
    /// An empty cache in front of `node`.
    pub fn new(node: NodeHandle) -> Arc<Self> {
        Arc::new(Self { node, entries: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        // Entries are whole whenever the lock is free, so a panic elsewhere does no harm.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that is kept as new as the servers tell. It waits with `context` as a read of them
    /// does.
    pub async fn refreshed(
        self: &Arc<Self>,
        context: RequestContext,
        query: Query,
    ) -> Result<Cached, RequestError> {
        let key = Key::new(&context, &query);
        let found = self.lock().get(&key).map(|held| Arc::clone(&held.entry));
        let (entry, age) = match found {
            Some(entry) => (entry, true),
            None => (self.begin(key, &context).await?, false),
        };
        wait(&entry, &context).await;
        let now = self.node.clock().now();
        let mut kept = entry.lock();
        kept.used_at = now;
        let since_lost = kept.lost_at.map_or(Duration::ZERO, |lost| now.since(lost));
        Ok(Cached { answer: kept.answer.clone(), age: age.then_some(since_lost) })
    }

    /// An answer that is not older than `age_max`, if that is given.
    pub async fn simple(
        self: &Arc<Self>,
        context: RequestContext,
        query: Query,
        age_max: Option<Duration>,
    ) -> Result<Cached, RequestError> {
        let key = Key::new(&context, &query);
        let now = self.node.clock().now();
        if let Some(held) = self.lock().get(&key) {
            let mut kept = held.entry.lock();
            let age = now.since(kept.read_at);
            if age_max.is_none_or(|limit| !limit.is_zero() && age <= limit) {
                kept.used_at = now;
                return Ok(Cached { answer: kept.answer.clone(), age: Some(age) });
            }
        }
        let answer = self.node.query(at_once(&context), query).await?;
        let entry = self.entry(answer.clone());
        self.keep(key, Held { entry, _refresh: None });
        Ok(Cached { answer, age: None })
    }

    /// Reads an answer, keeps it, and follows it.
    async fn begin(
        self: &Arc<Self>,
        key: Key,
        context: &RequestContext,
    ) -> Result<Arc<Entry>, RequestError> {
        let context = at_once(context);
        let answer = self.node.query(context.clone(), key.query.clone()).await?;
        let entry = self.entry(answer);
        let follow = Follow {
            cache: Arc::downgrade(self),
            entry: Arc::downgrade(&entry),
            node: self.node.clone(),
            key: key.clone(),
            context,
        };
        let held = Held { entry: Arc::clone(&entry), _refresh: Some(spawn(follow.run())) };
        self.keep(key, held);
        Ok(entry)
    }

    fn entry(&self, answer: QueryAnswer) -> Arc<Entry> {
        let now = self.node.clock().now();
        let kept = Kept { answer, read_at: now, lost_at: None, used_at: now };
        Arc::new(Entry { kept: Mutex::new(kept), changed: Bell::default() })
    }

    fn keep(&self, key: Key, held: Held) {
        let mut entries = self.lock();
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&key) {
            let oldest = entries.iter().min_by_key(|(_, held)| held.entry.lock().used_at);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.map(|oldest| entries.remove(&oldest));
        }
        entries.insert(key, held);
    }
}

/// The same without waiting for a change.
fn at_once(context: &RequestContext) -> RequestContext {
    RequestContext { min_index: ModifyIndex::ZERO, wait: None, ..context.clone() }
}

/// Waits as a read with this context does: until the kept answer is newer than what it has.
async fn wait(entry: &Entry, context: &RequestContext) {
    let Some(wait) = context.waits() else { return };
    let mut late = Timer::after(wait);
    loop {
        let changed = entry.changed.listen();
        if entry.lock().answer.index > context.min_index {
            return;
        }
        if before(&mut late, changed.wait()).await.is_none() {
            return;
        }
    }
}

/// What keeps an entry new; it holds neither entry nor cache.
struct Follow {
    cache: Weak<Cache>,
    entry: Weak<Entry>,
    node: NodeHandle,
    key: Key,
    context: RequestContext,
}

impl Follow {
    async fn run(self) {
        let mut pause = RETRY_MIN;
        loop {
            let Some(min_index) = self.min_index() else { return };
            let context =
                RequestContext { min_index, wait: Some(WAIT_MAX), ..self.context.clone() };
            let result = self.node.query(context, self.key.query.clone()).await;
            let failed = result.is_err();
            let Some(entry) = self.entry.upgrade() else { return };
            store(&entry, result, self.node.clock().now());
            drop(entry);
            if failed {
                Timer::after(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            } else {
                pause = RETRY_MIN;
            }
        }
    }

    /// What the entry has; `None` if nobody wants it any more.
    fn min_index(&self) -> Option<ModifyIndex> {
        let entry = self.entry.upgrade()?;
        let (index, used_at) = {
            let kept = entry.lock();
            (kept.answer.index, kept.used_at)
        };
        if self.node.clock().now().since(used_at) <= UNUSED_MAX {
            return Some(index);
        }
        let cache = self.cache.upgrade()?;
        cache.lock().remove(&self.key);
        None
    }
}

fn store(entry: &Entry, result: Result<QueryAnswer, RequestError>, now: Instant) {
    let mut kept = entry.lock();
    match result {
        Ok(answer) => {
            *kept = Kept { answer, read_at: now, lost_at: None, used_at: kept.used_at };
        }
        Err(_) => kept.lost_at = kept.lost_at.or(Some(now)),
    }
    drop(kept);
    entry.changed.ring();
}
