//! What a read depends on, and what changed between two states of the tables (http-api.md §1.6).
//!
//! A read that waits is concerned by a change exactly if one of its topics is. The maps are
//! persistent, so comparing two states visits only what they do not share.

use super::kv::KeyList;
use super::query::{Query, ServiceQuery};
use super::{TableIndexes, Tables};
use crate::id::ModifyIndex;
use imbl::ordmap::DiffItem;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Something that a read may depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Nodes,
    Services,
    Checks,
    Coordinates,
    Sessions,
    Prepared,
    /// A service lost its last instance.
    ServiceLost,
    /// One service, by its folded name: its instances, their checks and nodes.
    Service(Arc<str>),
    /// The whole key-value table.
    Kv,
    /// One key.
    Key(Arc<str>),
    /// All keys that begin with this.
    Prefix(Arc<str>),
}

/// What differs between two states.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Everything but prefixes.
    pub(crate) topics: BTreeSet<Topic>,
    /// Keys that were stored, changed or deleted, and prefixes that were deleted.
    pub(crate) keys: BTreeSet<Arc<str>>,
}

impl Tables {
    /// What the answer to `query` and its index depend on in this state; once one of it changes
    /// they depend on what this gives then.
    pub(crate) fn topics(&self, query: &Query) -> Vec<Topic> {
        match query {
            Query::Nodes(_) | Query::NodeNamed(_) => vec![Topic::Nodes],
            Query::Services(meta) if meta.is_empty() => vec![Topic::Services],
            Query::Services(_) | Query::Node(_) | Query::AddressOwner(_) => {
                vec![Topic::Nodes, Topic::Services]
            }
            Query::ServiceNodes(wanted) => {
                self.service_topics(wanted, &[Topic::Nodes, Topic::Services])
            }
            Query::ServiceHealth(wanted) => {
                self.service_topics(wanted, &[Topic::Nodes, Topic::Services, Topic::Checks])
            }
            Query::NodeChecks(_) | Query::ServiceChecks(_) | Query::ChecksInState(_) => {
                vec![Topic::Checks]
            }
            Query::Overview(_) => vec![Topic::Nodes, Topic::Services, Topic::Checks],
            Query::Coordinates(_) => vec![Topic::Coordinates],
            Query::Session(_) | Query::Sessions(_) => vec![Topic::Sessions],
            Query::PreparedQueries | Query::PreparedQuery(_) => vec![Topic::Prepared],
            Query::Key(key) if self.kv.one(key).0.is_some() => {
                vec![Topic::Key(key.as_str().into())]
            }
            Query::Key(_) => vec![Topic::Kv],
            Query::KeyTree(prefix) | Query::Keys(KeyList { prefix, .. }) => {
                match self.kv.has_prefix(prefix) {
                    true if !prefix.is_empty() => vec![Topic::Prefix(prefix.as_str().into())],
                    true | false => vec![Topic::Kv],
                }
            }
            // Nothing of the tables, or nothing that is waited for.
            Query::Datacenters
            | Query::DatacenterCoordinates
            | Query::Leader
            | Query::Peers
            | Query::RaftConfiguration
            | Query::Autopilot
            | Query::ExplainPrepared(_)
            | Query::Chosen(_)
            | Query::Transaction(_) => Vec::new(),
        }
    }

    /// A service that exists has an index of its own. One that does not has the index of the last
    /// loss of any service, or of the `tables` if none was ever lost.
    fn service_topics<R>(&self, wanted: &ServiceQuery<R>, tables: &[Topic]) -> Vec<Topic> {
        let name: Arc<str> = wanted.name.folded().into();
        let mut topics = Vec::new();
        if !self.service_indexes.contains_key(&*name) {
            topics.push(Topic::ServiceLost);
            if self.changed.service_lost == ModifyIndex::ZERO {
                topics.extend_from_slice(tables);
            }
        }
        topics.push(Topic::Service(name));
        topics
    }

    /// What this state has changed since `old`, with no restore in between.
    pub(crate) fn changes_since(&self, old: &Self) -> Changes {
        let mut changes = Changes::default();
        let (new, was): (&TableIndexes, &TableIndexes) = (&self.changed, &old.changed);
        for (differs, topic) in [
            (new.nodes != was.nodes, Topic::Nodes),
            (new.services != was.services, Topic::Services),
            (new.checks != was.checks, Topic::Checks),
            (new.coordinates != was.coordinates, Topic::Coordinates),
            (new.sessions != was.sessions, Topic::Sessions),
            (new.service_lost != was.service_lost, Topic::ServiceLost),
        ] {
            if differs {
                changes.topics.insert(topic);
            }
        }
        for item in old.service_indexes.diff(&self.service_indexes) {
            changes.topics.insert(Topic::Service(Arc::clone(key_of(&item))));
        }
        if self.prepared.changed != old.prepared.changed {
            changes.topics.insert(Topic::Prepared);
        }
        if self.kv.changed_at() != old.kv.changed_at() {
            changes.topics.insert(Topic::Kv);
        }
        // Tombstones that are forgotten change what a prefix has as its index, and nothing else.
        self.kv.keys_changed_since(&old.kv, &mut changes.keys);
        let keys = changes.keys.iter().cloned().map(Topic::Key);
        changes.topics.extend(keys);
        changes
    }
}

/// The key that a difference is about.
pub(super) const fn key_of<'a, K, V>(item: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    }
}
