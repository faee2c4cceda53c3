//! The Raft machine's dispatch: which input and which message goes where (raft.md §15).
//!
//! Each call ends the same way: what waits for the disk is handed to it as one request, and a
//! change of role, term or leader is announced once.

use super::candidate::Candidate;
use super::follower::Follower;
use super::leader::Leader;
use super::shared::Shared;
use super::{
    Body, Configuration, EntryKind, HardState, Message, Raft, RaftInput, RaftOutput, RaftSettings,
    RaftTrace, RestoredRaft, RoleKind, SnapshotInput,
};
use crate::id::{ClusterId, LogIndex, NodeId, Term};
use crate::machine::{Machine, Outbox};
use crate::rng::Rng;
use crate::time::Instant;
use crate::trace;
use crate::trace::Level;
use crate::wire::pack;
use std::net::SocketAddr;

/// What a server is in its term, with what only that role has.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Role {
    pub(super) const fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::Candidate(_) => RoleKind::Candidate,
            Self::Leader(_) => RoleKind::Leader,
        }
    }
}

/// What `RoleChanged` last told.
pub(super) type Announced = (RoleKind, Term, Option<(NodeId, SocketAddr)>);

impl Raft {
    /// A server that was just started, from what its disk held.
    ///
    /// It begins as a follower and knows nothing to be committed. Its first outputs, if any, wait
    /// in `out`. Panics if the log is not one log, which storage checks.
    pub fn new(
        settings: RaftSettings,
        restored: RestoredRaft,
        rng: Rng,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) -> Self {
        let mut shared = Shared::new(settings, restored, rng, now);
        let (address, role) = (shared.settings.address, RoleKind::Follower);
        trace!(out, Level::Info, RaftTrace::Entering { address, role });
        if let Some(term) = shared.recovering {
            trace!(out, Level::Warn, RaftTrace::Recovering { term });
        }
        let mut follower = Follower::new(now, &mut shared);
        if shared.configs.latest().is_sole_voter(shared.id()) {
            follower.wait_no_longer(now);
        }
        let announced = (role, shared.hard.term, None);
        let mut raft = Self { shared, role: Role::Follower(follower), announced };
        raft.settle(now, out);
        raft
    }

    fn receive(&mut self, now: Instant, message: Message, out: &mut Outbox<RaftOutput>) {
        if !self.shared.admit(&message, out) {
            return;
        }
        let Message { header, body } = message;
        match body {
            Body::PreVote(campaign) => self.on_pre_vote(now, &header, &campaign, out),
            Body::PreVoteAnswer { campaign_term, refusal } => {
                self.on_pre_vote_answer(now, &header, campaign_term, refusal, out);
            }
            Body::RequestVote(campaign) => self.on_request_vote(now, &header, &campaign, out),
            Body::VoteAnswer { refusal } => self.on_vote_answer(now, &header, refusal, out),
            Body::Append(append) => self.on_append(now, &header, append, out),
            Body::AppendOk { match_index, condition } => {
                self.on_append_ok(now, &header, match_index, condition, out);
            }
            Body::AppendReject(reject) => self.on_append_reject(now, &header, reject, out),
            Body::Heartbeat { commit, round } => {
                self.on_heartbeat(now, &header, (commit, round), out);
            }
            Body::HeartbeatAnswer { round, condition } => {
                self.on_heartbeat_answer(now, &header, round, condition, out);
            }
            Body::SnapshotBlock(block) => self.on_snapshot_block(now, &header, block, out),
            Body::SnapshotAnswer { snapshot, next } => {
                self.on_snapshot_answer(now, &header, (snapshot, next), out);
            }
            Body::TimeoutNow { transfer } => self.on_timeout_now(now, &header, transfer, out),
            Body::TransferReject { transfer, reason } => {
                self.on_transfer_reject(now, &header, (transfer, reason), out);
            }
        }
    }

    /// Writes the first entry of a new cluster, in term 1 (raft.md §10.5 B1).
    fn on_bootstrapped(
        &mut self,
        now: Instant,
        cluster: ClusterId,
        configuration: &Configuration,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        assert!(configuration.is_voter(shared.id()), "a first configuration names its writer");
        // Only a peer that lies to both machines in one breath is faster: nothing may come of it.
        if shared.cluster.is_some() || shared.log.last_index() != LogIndex::ZERO {
            return;
        }
        shared.join_cluster(cluster, out);
        let term = shared.hard.term.max(Term::new(1));
        shared.save_hard(HardState { term, ..shared.hard });
        shared.append_own(EntryKind::Config, pack::to_bytes(configuration), out);
        if let Role::Follower(follower) = &mut self.role {
            follower.wait_no_longer(now);
        }
    }

    fn on_persist_done(
        &mut self,
        now: Instant,
        seq: super::PersistSeq,
        out: &mut Outbox<RaftOutput>,
    ) {
        let since = self.shared.persist_done(seq, out);
        if let (Role::Leader(_), Some(since)) = (&self.role, since) {
            self.shared.leading.dispatches.record_since(since, now);
        }
        self.own_vote_durable(now, seq, out);
        self.count_matches(now, out);
        self.shared.hand_out(out);
    }

    fn on_snapshot_input(
        &mut self,
        now: Instant,
        input: SnapshotInput,
        out: &mut Outbox<RaftOutput>,
    ) {
        match input {
            SnapshotInput::Taken { index, bytes } => {
                self.on_snapshot_taken(now, (index, bytes), out);
            }
            SnapshotInput::Block { image, data, last } => {
                self.on_image_block(now, image, (data, last), out);
            }
            SnapshotInput::Stored { receipt, number } => {
                self.on_block_stored(receipt, number, out);
            }
            SnapshotInput::Durable { receipt } => self.on_receipt_durable(now, receipt, out),
            SnapshotInput::Refused { receipt } => self.on_receipt_refused(receipt),
            SnapshotInput::NoRoom { receipt } => self.on_no_room(now, receipt),
        }
    }

    /// What every call ends with.
    fn settle(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        if self.shared.stopped {
            return;
        }
        self.shared.persist.flush(now, out);
        let state = (self.role.kind(), self.shared.hard.term, self.shared.leader);
        if state != self.announced {
            self.announced = state;
            let (role, term, leader) = state;
            out.push(RaftOutput::RoleChanged { role, term, leader });
        }
    }
}

impl Machine for Raft {
    type Input = RaftInput;
    type Output = RaftOutput;

    fn handle(&mut self, now: Instant, input: RaftInput, out: &mut Outbox<RaftOutput>) {
        if self.shared.stopped {
            return;
        }
        match input {
            RaftInput::Receive(message) => self.receive(now, message, out),
            RaftInput::Propose { id, payload } => self.on_propose(now, id, payload, out),
            RaftInput::Transfer { id, to } => self.on_transfer(now, id, to, out),
            RaftInput::Read { id } => self.on_read(now, id, out),
            RaftInput::Change { id, change } => self.on_change(now, id, change, out),
            RaftInput::PersistDone { seq } => self.on_persist_done(now, seq, out),
            RaftInput::Applied { index } => {
                let shared = &mut self.shared;
                assert!(index <= shared.handed, "INV-RAFT-8: applied is not above what was handed");
                shared.applied = shared.applied.max(index);
                if let Role::Leader(leader) = &mut self.role {
                    leader.applied(shared, now, index, out);
                }
                self.serve_reads(now, out);
                self.take_snapshot_if_due(now, out);
            }
            RaftInput::Snapshot(input) => self.on_snapshot_input(now, input, out),
            RaftInput::PeerUnreachable { peer } => self.on_peer_unreachable(peer),
            RaftInput::Bootstrapped { cluster, configuration } => {
                self.on_bootstrapped(now, cluster, &configuration, out);
            }
            RaftInput::Bound { cluster } => self.shared.bound = cluster,
            RaftInput::LogFull(full) => {
                self.shared.log_full = full;
                self.mind_the_disk(now, out);
            }
        }
        self.settle(now, out);
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        if self.next_timeout().is_none_or(|at| at > now) {
            return;
        }
        match &self.role {
            Role::Follower(_) => self.on_leader_silent(now, out),
            Role::Candidate(_) => self.on_campaign_over(now, out),
            Role::Leader(_) => self.on_heartbeat_due(now, out),
        }
        self.settle(now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.shared.stopped {
            return None;
        }
        match &self.role {
            Role::Follower(follower) => follower.deadline(&self.shared),
            Role::Candidate(candidate) => Some(candidate.deadline),
            Role::Leader(leader) => leader.deadline(),
        }
    }
}
