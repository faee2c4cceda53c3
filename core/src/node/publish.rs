//! The view for readers on other threads: made once for each drain, and only if something a reader
//! may see has changed.

use super::Node;
use crate::catalog::query::DatacenterCoordinates;
use crate::id::LogIndex;
use crate::view::{ConsensusView, View};
use std::sync::Arc;

/// What the newest view was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint {
    members: u64,
    wan_members: u64,
    datacenters: Arc<[DatacenterCoordinates]>,
    local: u64,
    events: u64,
    consensus: Option<ConsensusView>,
}

/// Remembers what was published.
#[derive(Clone, Debug, Default)]
pub(super) struct Publisher {
    newest: Option<Fingerprint>,
    version: u64,
    local_version: u64,
    draining: bool,
}

impl Publisher {
    /// Notes whether a drain goes on after this call.
    pub(super) const fn draining(&mut self, on: bool) {
        self.draining = on;
    }

    /// Notes that this agent's registrations changed.
    pub(super) const fn local_changed(&mut self) {
        self.local_version += 1;
    }
}

impl Node {
    /// The view to publish at the start of a drain, if one is due.
    pub(super) fn view_to_publish(&mut self) -> Option<Arc<View>> {
        if self.publisher.draining {
            return None;
        }
        self.publisher.draining = true;
        let fingerprint = self.fingerprint();
        if self.publisher.newest.as_ref() == Some(&fingerprint) {
            return None;
        }
        self.publisher.newest = Some(fingerprint);
        self.publisher.version += 1;
        Some(Arc::new(View {
            name: self.config.name.clone(),
            id: self.id,
            datacenter: self.config.datacenter.clone(),
            members: self.lan.serf.all_members(),
            wan_members: self.wan.as_deref().map(|wan| wan.serf.all_members()),
            datacenters: Arc::clone(&self.wan_state.datacenters),
            local: self.local.view().clone(),
            events: self.events.kept().clone(),
            consensus: self.server.as_deref().map(|server| server.raft.view(self.last_now)),
            catalog: self.server.as_deref().map(|server| server.tables.clone()),
            version: self.publisher.version,
        }))
    }

    fn fingerprint(&self) -> Fingerprint {
        let raft = self.server.as_deref().map(|server| &server.raft);
        let mut consensus = raft.map(|raft| raft.view(self.last_now));
        if let Some(leader) = consensus.as_mut().filter(|view| view.is_leader()) {
            // A leader hears of itself at every moment; that alone is nothing new.
            leader.leader_contact_at = None;
        } else if let Some(other) = consensus.as_mut().filter(|_| crate::mutant!(M61)) {
            // A bug: what a follower applies alone is no reason to publish it.
            other.leader_contact_at = None;
            [other.commit, other.applied, other.last] = [LogIndex::ZERO; 3];
        }
        Fingerprint {
            members: self.lan.serf.version(),
            wan_members: self.wan.as_deref().map_or(0, |wan| wan.serf.version()),
            datacenters: Arc::clone(&self.wan_state.datacenters),
            local: self.publisher.local_version,
            events: self.events.version(),
            consensus,
        }
    }
}
