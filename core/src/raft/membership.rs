//! Configurations: which count, and how one follows another (Raft thesis §4.1, raft.md §10).
//!
//! A configuration counts from when it is appended (K1). Invariants: at most one is uncommitted,
//! and neighbours differ by at most one voter, so that their quorums intersect (INV-RAFT-9).

use super::quorum;
use super::{Configuration, EntryKind, Server, SnapshotMeta};
use crate::id::{LogIndex, NodeId};
use crate::log::Log;
use crate::wire::pack;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Configuration {
    /// Whether `server` votes.
    pub fn is_voter(&self, server: NodeId) -> bool {
        self.voters.contains_key(&server)
    }

    /// Whether `server` takes part, as a voter or as a learner.
    pub fn contains(&self, server: NodeId) -> bool {
        self.is_voter(server) || self.learners.contains_key(&server)
    }

    /// Everybody who takes part, the voters first.
    pub fn servers(&self) -> impl Iterator<Item = (&NodeId, &Server)> {
        self.voters.iter().chain(&self.learners)
    }

    /// Whether a leader may append it: somebody votes, and nobody is there twice (raft.md P5).
    pub fn is_sound(&self) -> bool {
        let count = self.voters.len() + self.learners.len();
        let ids: BTreeSet<&NodeId> = self.servers().map(|(id, _)| id).collect();
        let addresses: BTreeSet<_> = self.servers().map(|(_, server)| server.address).collect();
        !self.voters.is_empty() && ids.len() == count && addresses.len() == count
    }

    /// Whether `server` is the only voter.
    pub fn is_sole_voter(&self, server: NodeId) -> bool {
        self.voters.len() == 1 && self.is_voter(server)
    }

    /// Whether the voters in `live` are a quorum.
    pub fn has_quorum(&self, live: &BTreeSet<NodeId>) -> bool {
        quorum::reached(&self.voters, |id| live.contains(id))
    }
}

/// The configurations of a log, from the one that counts at its base on.
#[derive(Clone, Debug, Default)]
pub(super) struct Configurations {
    none: Arc<Configuration>,
    /// By position, oldest first.
    entries: Vec<(LogIndex, Arc<Configuration>)>,
}

impl Configurations {
    /// Those of a recovered snapshot and log.
    ///
    /// Panics if an entry is no configuration: it was checked before it was appended, and storage
    /// verified its bytes.
    pub(super) fn of(snapshot: Option<&SnapshotMeta>, log: &Log) -> Self {
        let read = |payload: &[u8]| {
            pack::from_bytes(payload).expect("configurations are checked before they are appended")
        };
        let mut configs = snapshot.map_or_else(Self::default, Self::after);
        for entry in log.iter().filter(|entry| entry.kind == EntryKind::Config) {
            if entry.index > configs.latest_index() {
                configs.append(entry.index, read(&entry.payload));
            }
        }
        configs
    }

    /// That of a snapshot, where the log goes on after it.
    pub(super) fn after(snapshot: &SnapshotMeta) -> Self {
        let mut configs = Self::default();
        if snapshot.configuration_index > LogIndex::ZERO {
            configs.append(snapshot.configuration_index, snapshot.configuration.clone());
        }
        configs
    }

    /// The one that counts at `index`, and its position.
    pub(super) fn at(&self, index: LogIndex) -> (LogIndex, &Configuration) {
        let found = self.entries.iter().rev().find(|(position, _)| *position <= index);
        found.map_or((LogIndex::ZERO, &self.none), |(position, config)| (*position, config))
    }

    /// Forgets those before the one that counts at `index`.
    pub(super) fn compact(&mut self, index: LogIndex) {
        let (first, _) = self.at(index);
        self.entries.retain(|(position, _)| *position >= first);
    }

    /// The newest, committed or not; without voters if there is none.
    pub(super) fn latest(&self) -> &Arc<Configuration> {
        self.entries.last().map_or(&self.none, |(_, configuration)| configuration)
    }

    /// Its position; zero if there is none.
    pub(super) fn latest_index(&self) -> LogIndex {
        self.entries.last().map_or(LogIndex::ZERO, |(index, _)| *index)
    }

    /// The newest that is known to be committed when the log is known to be up to `commit`: the
    /// one before the newest is, even if a restart forgot how far (INV-RAFT-9).
    pub(super) fn committed(&self, commit: LogIndex) -> Option<&Configuration> {
        let ((index, latest), before) = self.entries.split_last()?;
        let committed = if *index <= commit { Some(latest) } else { None };
        committed.or_else(|| before.last().map(|(_, configuration)| configuration)).map(|it| &**it)
    }

    /// Whether any of them ever named `server`.
    pub(super) fn was_in(&self, server: NodeId) -> bool {
        self.entries.iter().any(|(_, configuration)| configuration.contains(server))
    }

    /// A configuration was appended.
    pub(super) fn append(&mut self, index: LogIndex, configuration: Configuration) {
        assert!(index > self.latest_index(), "INV-RAFT-9: configurations come in log order");
        self.entries.push((index, Arc::new(configuration)));
    }

    /// The log was truncated; whether that changed the newest configuration.
    pub(super) fn truncate_from(&mut self, index: LogIndex) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(position, _)| *position < index);
        self.entries.len() != before
    }
}
