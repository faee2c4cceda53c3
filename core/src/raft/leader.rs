//! Leading: the start of a term, heartbeats, and its end (Raft thesis §3.4, §6.2; raft.md §5).
//!
//! Invariants: a leader only appends (INV-RAFT-2); it stops once it has not heard a quorum for a
//! heartbeat timeout; whatever waits for its entries is told when it ends.

use super::change::Joining;
use super::progress::Progress;
use super::read::Reads;
use super::shared::{Destination, Shared};
use super::snapshot::Sending;
use super::transfer::Transfer;
use super::{
    Body, EntryKind, ProposalError, ProposalId, Raft, RaftOutput, RaftTrace, Role, RoleKind, quorum,
};
use crate::id::{LogIndex, NodeId, Term};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{mark, mutant, trace};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A server that leads its term.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// Every other server that is sent entries: the configuration's, and removed ones for a while.
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Snapshots on their way.
    pub(super) sendings: BTreeMap<NodeId, Sending>,
    /// The first entry of the term.
    pub(super) noop: LogIndex,
    elected_at: Instant,
    ready: bool,
    /// Who waits for which entry.
    waiting: BTreeMap<LogIndex, ProposalId>,
    /// Payload bytes of this leader's entries that are not committed.
    pub(super) uncommitted_bytes: usize,
    heartbeat_at: Instant,
    /// The server that is to be added.
    pub(super) joining: Option<Joining>,
    pub(super) reads: Reads,
    pub(super) transfer: Option<Transfer>,
    /// Transfers of this term so far.
    pub(super) transfers: u64,
    /// Whether somebody has, or had, this leader's permission to be elected.
    pub(super) lease_void: bool,
    /// Whether it tried to hand over because its disk does not answer.
    pub(super) fled_disk: bool,
}

/// Another server, as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) progress: Progress,
    pub(super) departing: Option<Departing>,
}

/// A removed server that is still told of its removal (raft.md §10.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Departing {
    /// The configuration without it.
    pub(super) index: LogIndex,
    /// When to give up; set once that is committed.
    pub(super) until: Option<Instant>,
}

impl Raft {
    /// Starts the term: tells everybody, with an entry of its own (raft.md §5).
    pub(super) fn become_leader(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let shared = &mut self.shared;
        let (address, role) = (shared.settings.address, RoleKind::Leader);
        trace!(out, Level::Info, RaftTrace::Entering { address, role });
        shared.stats.elections_won += 1;
        shared.leader = Some((shared.id(), address));
        shared.lonely_campaigns = 0;
        let mut leader = Leader {
            peers: BTreeMap::new(),
            sendings: BTreeMap::new(),
            noop: shared.log.last_index().next(),
            elected_at: now,
            ready: false,
            waiting: BTreeMap::new(),
            uncommitted_bytes: 0,
            heartbeat_at: now,
            joining: None,
            reads: Reads::default(),
            transfer: None,
            transfers: 0,
            lease_void: false,
            fled_disk: false,
        };
        leader.match_peers(shared, now);
        let noop = shared.append_own(EntryKind::Noop, Bytes::new(), out);
        assert!(noop == leader.noop, "INV-RAFT-4: a term begins with its noop");
        leader.heartbeat(shared, now, out);
        leader.replicate_all(shared, now, out);
        self.role = Role::Leader(Box::new(leader));
    }

    /// Adopts a later term and forgets its leader and vote.
    pub(super) fn adopt_term(
        &mut self,
        now: Instant,
        term: Term,
        why: &'static str,
        out: &mut Outbox<RaftOutput>,
    ) {
        assert!(term > self.shared.hard.term, "INV-RAFT-6: the term never decreases");
        let old = self.shared.hard.term;
        self.shared.save_hard(super::HardState { term, voted_for: None });
        self.shared.leader = None;
        self.leave_role(now, old, why, out);
    }

    /// Becomes a follower in the same term.
    pub(super) fn become_follower(
        &mut self,
        now: Instant,
        why: &'static str,
        out: &mut Outbox<RaftOutput>,
    ) {
        self.shared.leader = None;
        self.leave_role(now, self.shared.hard.term, why, out);
    }

    fn leave_role(
        &mut self,
        now: Instant,
        term: Term,
        why: &'static str,
        out: &mut Outbox<RaftOutput>,
    ) {
        if matches!(self.role, Role::Follower(_)) {
            return;
        }
        let follower = Role::Follower(super::follower::Follower::new(now, &mut self.shared));
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, follower) {
            self.shared.stats.step_downs += 1;
            trace!(out, Level::Warn, RaftTrace::SteppedDown { term, reason: why });
            leader.end(out);
            self.shared.leader_contact_at = Some(now);
            out.push(RaftOutput::LeadershipLost { term });
        }
        let (address, role) = (self.shared.settings.address, RoleKind::Follower);
        trace!(out, Level::Info, RaftTrace::Entering { address, role });
    }

    /// A leader's heartbeat is due.
    pub(super) fn on_heartbeat_due(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Leader(leader) = &self.role else { return };
        if !leader.hears_quorum(&self.shared, now) && !mutant!(M12) {
            mark!("raft.leader.lost_quorum");
            return self.become_follower(now, "a quorum has not answered for too long", out);
        }
        self.go_on_with_transfer(now, out);
        self.mind_the_disk(now, out);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.give_up_joining(now, out);
        leader.peers.retain(|_, peer| {
            peer.departing.and_then(|departing| departing.until).is_none_or(|until| until > now)
        });
        leader.close_sendings(&self.shared, now, out);
        leader.heartbeat(&mut self.shared, now, out);
    }
}

impl Leader {
    /// When the next heartbeat is due; never while there is nobody to hear it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.peers.is_empty() || self.joining.is_some()).then_some(self.heartbeat_at)
    }

    /// Whether a quorum of the voters answered within a heartbeat timeout.
    pub(super) fn hears_quorum(&self, shared: &Shared, now: Instant) -> bool {
        let voters = &shared.configs.latest().voters;
        quorum::reached(voters, |id| self.hears(shared, *id, now))
    }

    /// Whether it is this server, or answered within a heartbeat timeout.
    pub(super) fn hears(&self, shared: &Shared, id: NodeId, now: Instant) -> bool {
        let patience = shared.settings.timing.heartbeat_timeout;
        let answered = |peer: &Peer| now.since(peer.progress.active_at) < patience;
        id == shared.id() || self.peers.get(&id).is_some_and(answered)
    }

    /// Tells everybody that the leader is alive, and when it does so next.
    pub(super) fn heartbeat(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        for peer in self.peers.values_mut() {
            peer.progress.suspect_loss();
        }
        self.broadcast_heartbeat(shared, now, out);
        let interval = shared.settings.timing.heartbeat_interval;
        self.heartbeat_at = now + interval + shared.rng.jitter(interval / 10);
    }

    /// Begins a round: tells everybody that the leader is alive; waits for nothing (K5).
    pub(super) fn broadcast_heartbeat(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        self.reads.round += 1;
        let round = self.reads.round;
        for (id, peer) in &self.peers {
            let commit = shared.commit.min(peer.progress.matched);
            let to = Destination::request(*id, peer.address, now);
            shared.send(to, Body::Heartbeat { commit, round }, out);
        }
        if let Some(joining) = &self.joining {
            let to = Destination::request(joining.server, joining.address, now);
            shared.send(to, Body::Heartbeat { commit: LogIndex::ZERO, round }, out);
        }
    }

    /// The next heartbeat is due at once.
    pub(super) const fn heartbeat_soon(&mut self, now: Instant) {
        self.heartbeat_at = now;
    }

    /// Appends an entry of this term for `id`.
    pub(super) fn append(
        &mut self,
        shared: &mut Shared,
        id: ProposalId,
        kind: EntryKind,
        payload: Bytes,
        out: &mut Outbox<RaftOutput>,
    ) -> LogIndex {
        self.uncommitted_bytes += payload.len();
        let index = shared.append_own(kind, payload, out);
        self.waiting.insert(index, id);
        index
    }

    /// Whether one more proposal would break a limit (raft.md §1.2, §6.5).
    pub(super) fn is_overloaded(&self, shared: &Shared) -> bool {
        let limits = &shared.settings.limits;
        self.uncommitted_bytes >= limits.uncommitted_bytes_max
            || shared.persist.unsynced_bytes() >= limits.unsynced_bytes_max
            || shared.commit.above(shared.applied) > limits.apply_lag_max
    }

    /// The catalog holds everything up to here: answers who waited for it.
    pub(super) fn applied(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: LogIndex,
        out: &mut Outbox<RaftOutput>,
    ) {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= index) {
            let (index, id) = first.remove_entry();
            out.push(RaftOutput::ProposalApplied { id, index });
        }
        if index >= self.noop && !self.ready {
            self.ready = true;
            shared.leading.barriers.record_since(self.elected_at, now);
            out.push(RaftOutput::LeaderReady { term: shared.hard.term });
        }
    }

    /// The term is over: what was appended may or may not be committed by others.
    fn end(mut self, out: &mut Outbox<RaftOutput>) {
        self.end_transfer(Ok(()), out);
        self.close_all(out);
        for id in self.waiting.into_values() {
            let error = ProposalError::LeadershipLost;
            out.push(RaftOutput::ProposalFailed { id, error });
        }
        if let Some(joining) = self.joining {
            let error = ProposalError::NotLeader;
            out.push(RaftOutput::ProposalFailed { id: joining.id, error });
        }
        self.reads.end(out);
    }

    /// Makes the peers those of the newest configuration. Removed ones stay until they know.
    pub(super) fn match_peers(&mut self, shared: &mut Shared, now: Instant) {
        let (config, index) = (shared.configs.latest(), shared.configs.latest_index());
        let patience = shared.settings.timing.heartbeat_timeout;
        for (id, peer) in &mut self.peers {
            if !config.contains(*id) && peer.departing.is_none() {
                peer.departing = Some(Departing { index, until: None });
            }
        }
        for (id, server) in config.servers().filter(|(id, _)| **id != shared.id()) {
            let next = shared.log.last_index().next();
            let fresh = || Peer {
                address: server.address,
                progress: Progress::new(next, now, patience),
                departing: None,
            };
            let peer = self.peers.entry(*id).or_insert_with(fresh);
            if peer.departing.is_some() || peer.address != server.address {
                *peer = fresh();
            }
        }
        shared.leading.peers.retain(|id, _| self.peers.contains_key(id));
    }
}
