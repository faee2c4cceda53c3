//! Reads that wait until what they read has changed (http-api.md §1.6).
//!
//! [`Watches`] keeps them by what they ask: all that ask the same share one entry, and a change
//! looks only at those whose topics it touches. What a change is follows from comparing the tables
//! with those of the last look, so that however many commands were applied in between are one
//! change, and none is missed.
//!
//! Invariants: a read waits at most until its deadline (INV-WATCH-1); a read that waits has an
//! index that is not below the one of the tables of the last look (INV-WATCH-2).

use crate::catalog::Tables;
use crate::catalog::query::Query;
use crate::catalog::topic::Topic;
use crate::id::ModifyIndex;
use crate::node::request::Request;
use crate::rpc::Ticket;
use crate::time::Instant;
use crate::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One read that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Whoever waits is answered by this.
    pub ticket: Ticket,
    /// The whole request; its body is the query.
    pub request: Arc<Request>,
    /// When it is answered all the same.
    pub until: Instant,
}

/// All that ask the same.
#[derive(Clone, Debug, Default)]
struct Group {
    /// What the answer depends on.
    topics: Vec<Topic>,
    parked: BTreeMap<Ticket, Parked>,
}

/// All reads that wait on one server.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    groups: BTreeMap<Arc<Query>, Group>,
    /// What each read asks.
    queries: BTreeMap<Ticket, Arc<Query>>,
    /// Who depends on what.
    concerned: BTreeMap<Topic, BTreeSet<Arc<Query>>>,
    /// How many watched prefixes have which length, in bytes.
    prefix_lengths: BTreeMap<usize, usize>,
    /// The tables at the last look; those of a moment when nobody waits are of no use.
    seen: Tables,
    deadlines: Timers<Ticket>,
}

impl Watches {
    /// How many reads wait.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// All reads that wait.
    pub fn parked(&self) -> impl Iterator<Item = &Parked> {
        self.groups.values().flat_map(|group| group.parked.values())
    }

    /// When the next one has waited long enough.
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Lets a read wait, whose answer from `tables` is not newer than what it has.
    pub fn park(&mut self, parked: Parked, query: &Query, tables: &Tables) {
        if self.is_empty() {
            self.seen = tables.clone();
        }
        let ticket = parked.ticket;
        self.deadlines.set(ticket, parked.until);
        let known = self.groups.get_key_value(query).map(|(query, _)| Arc::clone(query));
        let query = known.unwrap_or_else(|| Arc::new(query.clone()));
        let group = self.groups.entry(Arc::clone(&query)).or_default();
        group.parked.insert(ticket, parked);
        if group.parked.len() == 1 {
            self.depend(&query, tables);
        }
        self.queries.insert(ticket, query);
    }

    /// What is asked by reads that `tables`, compared with the last look, may have an answer for.
    pub fn look(&mut self, tables: &Tables) -> Vec<Arc<Query>> {
        if self.is_empty() {
            return Vec::new();
        }
        if tables.restored_at() != self.seen.restored_at() {
            // Everything may be another, and every index has risen.
            self.seen = tables.clone();
            return self.groups.keys().cloned().collect();
        }
        let changes = tables.changes_since(&self.seen);
        self.seen = tables.clone();
        let mut found: BTreeSet<Arc<Query>> = BTreeSet::new();
        let mut touch = |topic: &Topic| {
            found.extend(self.concerned.get(topic).into_iter().flatten().cloned());
        };
        changes.topics.iter().for_each(&mut touch);
        for key in &changes.keys {
            let lengths = self.prefix_lengths.keys().take_while(|length| **length <= key.len());
            for prefix in lengths.filter_map(|length| key.get(..*length)) {
                touch(&Topic::Prefix(prefix.into()));
            }
        }
        found.into_iter().collect()
    }

    /// Takes the reads that ask `query` and have less than `index`; the others depend on what
    /// `tables` say from here on.
    pub fn take_older(
        &mut self,
        query: &Arc<Query>,
        index: ModifyIndex,
        tables: &Tables,
    ) -> Vec<Parked> {
        let Some(group) = self.groups.get(query) else { return Vec::new() };
        let older = |parked: &&Parked| parked.request.context.min_index < index;
        let tickets: Vec<Ticket> =
            group.parked.values().filter(older).map(|parked| parked.ticket).collect();
        let taken = tickets.into_iter().filter_map(|ticket| self.remove(ticket)).collect();
        if self.groups.contains_key(query) {
            self.forget_topics(query);
            self.depend(query, tables);
        }
        taken
    }

    /// Takes the reads that have waited long enough.
    pub fn take_due(&mut self, now: Instant) -> Vec<Parked> {
        let mut due = Vec::new();
        while let Some(ticket) = self.deadlines.pop_due(now) {
            due.extend(self.remove(ticket));
        }
        due
    }

    /// Takes all reads that match.
    pub fn take_if(&mut self, matches: impl Fn(&Request) -> bool) -> Vec<Parked> {
        let matching = self.parked().filter(|parked| matches(&parked.request));
        let tickets: Vec<Ticket> = matching.map(|parked| parked.ticket).collect();
        tickets.into_iter().filter_map(|ticket| self.remove(ticket)).collect()
    }

    /// Takes one read, if it waits.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Parked> {
        let query = self.queries.remove(&ticket)?;
        self.deadlines.cancel(&ticket);
        let group = self.groups.get_mut(&query)?;
        let parked = group.parked.remove(&ticket);
        if group.parked.is_empty() {
            self.forget_topics(&query);
            self.groups.remove(&query);
        }
        if self.is_empty() {
            self.seen = Tables::default();
        }
        parked
    }

    fn depend(&mut self, query: &Arc<Query>, tables: &Tables) {
        let topics = tables.topics(query);
        for topic in &topics {
            let queries = self.concerned.entry(topic.clone()).or_default();
            if queries.is_empty()
                && let Topic::Prefix(prefix) = topic
            {
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
            }
            queries.insert(Arc::clone(query));
        }
        if let Some(group) = self.groups.get_mut(query) {
            group.topics = topics;
        }
    }

    fn forget_topics(&mut self, query: &Arc<Query>) {
        let Some(group) = self.groups.get_mut(query) else { return };
        for topic in std::mem::take(&mut group.topics) {
            let Some(queries) = self.concerned.get_mut(&topic) else { continue };
            queries.remove(query);
            if !queries.is_empty() {
                continue;
            }
            self.concerned.remove(&topic);
            if let Topic::Prefix(prefix) = &topic
                && let Some(count) = self.prefix_lengths.get_mut(&prefix.len())
            {
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
