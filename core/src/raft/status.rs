//! What others may know of a server's consensus: the published view, and whether it may leave.

use super::machine::Role;
use super::{Configuration, LeaderStats, Raft, RaftStats, RoleKind, Unfit};
use crate::id::{ClusterId, LogIndex, NodeId, Term};
use crate::log::Position;
use crate::time::Instant;
use crate::view::{ConsensusView, Leader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What a server's leave would mean for consensus (raft.md §10.2 P8, §10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveVerdict {
    /// The server does not vote: nothing to do.
    NotVoter,
    /// The server is the only voter: it stays in its configuration and finds its data again.
    LastVoter,
    /// The others can go on without it: the leader removes it.
    Allowed,
    /// No leader is known, who could remove it.
    NoLeader,
    /// The others are too few: a leave stops the cluster.
    BreaksQuorum,
}

/// What a leader knows of the logs of its configuration's servers, its own among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// The leader's own last entry, and its term.
    pub last: (LogIndex, Term),
    /// How often everybody is told that the leader is alive.
    pub heartbeat_interval: Duration,
    /// Each of them.
    pub replicas: BTreeMap<NodeId, Replica>,
}

/// What a leader knows of one server's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The newest entry known to be durable there.
    pub matched: LogIndex,
    /// Its term.
    pub term: Term,
    /// When the server was last heard of.
    pub heard_at: Instant,
    /// Whether it speaks for the store that the configuration names.
    pub counts: bool,
    /// Why the server should not lead, if so.
    pub unfit: Option<Unfit>,
}

impl Raft {
    /// What this server is.
    pub const fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The newest term adopted.
    pub const fn term(&self) -> Term {
        self.shared.hard.term
    }

    /// The cluster this store belongs to.
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.shared.cluster
    }

    /// The newest committed position known here.
    pub const fn commit(&self) -> LogIndex {
        self.shared.commit
    }

    /// The newest applied position.
    pub const fn applied(&self) -> LogIndex {
        self.shared.applied
    }

    /// The newest position in the log.
    pub fn last_index(&self) -> LogIndex {
        self.shared.log.last_index()
    }

    /// Bytes of a block of a snapshot.
    pub const fn block_bytes(&self) -> usize {
        self.shared.settings.limits.block_bytes
    }

    /// Where the log begins: what it holds follows this position, for checkers.
    pub const fn log_base(&self) -> Position {
        self.shared.log.base()
    }

    /// The entries of the log that are kept, oldest first, for checkers.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &super::Entry> {
        self.shared.log.iter()
    }

    /// Since when the disk has worked on what this server handed to it, for checkers.
    pub fn persisting_since(&self) -> Option<Instant> {
        self.shared.persist.busy_since()
    }

    /// The term of the entry applied last.
    pub fn applied_term(&self) -> Term {
        self.shared.log.term(self.shared.applied).unwrap_or_default()
    }

    /// The newest configuration, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.shared.configs.latest()
    }

    /// Whether the newest configuration is committed, as far as this server knows.
    pub fn configuration_is_committed(&self) -> bool {
        self.shared.configs.latest_index() <= self.shared.commit
    }

    /// Voters that speak for another store than the configuration names, as their leader heard
    /// them: their disks were wiped, and they count again once added again.
    pub const fn wiped_voters(&self) -> &BTreeSet<NodeId> {
        &self.shared.wrong_store
    }

    /// Whether this server lost a part of its log and does not hold it again yet.
    pub const fn is_recovering(&self) -> bool {
        self.shared.recovering.is_some()
    }

    /// The counters.
    pub const fn stats(&self) -> &RaftStats {
        &self.shared.stats
    }

    /// What it did while it led.
    pub const fn leading(&self) -> &LeaderStats {
        &self.shared.leading
    }

    /// To whom this leader is handing over, if it does.
    pub fn hands_over_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.target),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// Until when this server may answer reads as the leader.
    pub fn lease_until(&self, now: Instant) -> Option<Instant> {
        match &self.role {
            Role::Leader(leader) => leader.lease_until(&self.shared, now),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// When this server's leader was last heard of; on the leader itself, `now`.
    pub fn leader_contact_at(&self, now: Instant) -> Option<Instant> {
        match &self.role {
            Role::Leader(_) => Some(now),
            Role::Follower(_) | Role::Candidate(_) => self.shared.leader_contact_at,
        }
    }

    /// What this leader knows of the others' logs; nothing on a server that does not lead.
    pub fn replication(&self, now: Instant) -> Replication {
        let shared = &self.shared;
        let Role::Leader(leader) = &self.role else { return Replication::default() };
        let others = leader.peers.iter().filter(|(_, peer)| peer.departing.is_none());
        let others = others.map(|(id, peer)| {
            let matched = peer.progress.matched;
            let term = shared.log.term(matched).unwrap_or_default();
            let counts = !shared.wrong_store.contains(id);
            let (heard_at, unfit) = (peer.progress.active_at, peer.progress.unfit);
            (*id, Replica { matched, term, heard_at, counts, unfit })
        });
        let (matched, term) = (shared.log.last_index(), shared.log.last_term());
        let own = Replica { matched, term, heard_at: now, counts: true, unfit: shared.unfit(now) };
        Replication {
            last: (matched, term),
            heartbeat_interval: shared.settings.timing.heartbeat_interval,
            replicas: others.chain([(shared.id(), own)]).collect(),
        }
    }

    /// What readers see.
    pub fn view(&self, now: Instant) -> ConsensusView {
        let shared = &self.shared;
        ConsensusView {
            role: self.role.kind().as_str(),
            term: shared.hard.term,
            leader: shared.leader.map(|(id, address)| Leader { id, address }),
            leader_contact_at: self.leader_contact_at(now),
            lease_until: self.lease_until(now),
            commit: shared.commit,
            applied: shared.applied,
            last: shared.log.last_index(),
            last_term: shared.log.last_term(),
            configuration: Arc::clone(shared.configs.latest()),
            configuration_index: shared.configs.latest_index(),
        }
    }

    /// What it would mean if `server` left while the servers in `alive` are there.
    pub fn leave_verdict(&self, server: NodeId, alive: &BTreeSet<NodeId>) -> LeaveVerdict {
        let mut rest = self.configuration().clone();
        rest.learners.remove(&server);
        if rest.voters.remove(&server).is_none() {
            LeaveVerdict::NotVoter
        } else if rest.voters.is_empty() {
            LeaveVerdict::LastVoter
        } else if self.shared.leader.is_none() {
            LeaveVerdict::NoLeader
        } else if rest.has_quorum(alive) {
            LeaveVerdict::Allowed
        } else {
            LeaveVerdict::BreaksQuorum
        }
    }
}
