//! Bringing the other logs to the leader's, and committing what a quorum holds (Raft thesis §3.5,
//! §3.6, §10.2.1; raft.md §6).
//!
//! Invariants: the leader counts itself only for what is durable here (K7); only entries of its own
//! term are committed by counting (INV-RAFT-4, Raft thesis §3.6.2); one slow server delays no
//! other.

use super::leader::Leader;
use super::progress::Flow;
use super::shared::{Destination, Shared};
use super::{
    Append, AppendReject, Body, Condition, ENTRY_BYTES_MAX, EntryKind, Header, ProposalError,
    ProposalId, Raft, RaftOutput, RaftTrace, Role, Server, quorum,
};
use crate::id::{LogIndex, NodeId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{buggify, mark, mutant, trace};
use bytes::Bytes;
use std::collections::BTreeMap;

impl Raft {
    /// Appends for a client, or says why not.
    pub(super) fn on_propose(
        &mut self,
        now: Instant,
        id: ProposalId,
        payload: Bytes,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        let error = match &mut self.role {
            Role::Leader(leader) if !leader.finds_room(shared) => {
                mark!("raft.propose.disk_full");
                // Whoever is asked to lead instead may have room.
                let hope = leader.transfer.is_some();
                if hope { ProposalError::HandingOver } else { ProposalError::DiskFull }
            }
            Role::Leader(leader) if leader.is_overloaded(shared) => {
                mark!("raft.propose.overloaded");
                ProposalError::Overloaded
            }
            Role::Leader(leader) if leader.hands_over(shared, now) => {
                mark!("raft.propose.handing_over");
                ProposalError::HandingOver
            }
            Role::Leader(_) if payload.len() > ENTRY_BYTES_MAX => {
                ProposalError::TooLarge { bytes: payload.len() }
            }
            Role::Leader(leader) => {
                leader.append(shared, id, EntryKind::Command, payload, out);
                return leader.replicate_all(shared, now, out);
            }
            Role::Follower(_) | Role::Candidate(_) => ProposalError::NotLeader,
        };
        out.push(RaftOutput::ProposalFailed { id, error });
    }

    /// Counts what a quorum holds durably; called when a match or the configuration changed.
    pub(super) fn count_matches(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.commit_by_counting(&mut self.shared, out) {
            leader.committed(&mut self.shared, now, out);
            let (id, shared) = (self.shared.id(), &self.shared);
            let committed = shared.configs.committed(shared.commit);
            if committed.is_some_and(|config| !config.is_voter(id)) {
                mark!("raft.leader.removed_itself");
                self.become_follower(now, "it is removed from the configuration", out);
            }
        }
    }

    /// A server holds everything up to `matched`.
    pub(super) fn on_append_ok(
        &mut self,
        now: Instant,
        header: &Header,
        matched: LogIndex,
        condition: Condition,
        out: &mut Outbox<RaftOutput>,
    ) {
        if !self.counts_as_answer(now, header, out) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&header.from) else { return };
        if matched > self.shared.log.last_index() {
            self.shared.stats.malformed += 1;
            return;
        }
        peer.progress.acknowledged(matched);
        let took = peer.progress.answered(now, header.sent_at, condition);
        self.shared.peer_stats(header.from).appends.record(took);
        self.count_matches(now, out);
        if let Role::Leader(leader) = &mut self.role {
            leader.dismiss(header.from);
            leader.replicate(&mut self.shared, now, header.from, out);
            leader.permit_once(&mut self.shared, now, out);
        }
    }

    /// A server's log does not continue where it was thought to.
    pub(super) fn on_append_reject(
        &mut self,
        now: Instant,
        header: &Header,
        reject: AppendReject,
        out: &mut Outbox<RaftOutput>,
    ) {
        if !self.counts_as_answer(now, header, out) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&header.from) else { return };
        let progress = &mut peer.progress;
        let refused = reject.prev_index;
        let current = match progress.flow {
            Flow::Probe { .. } => refused == progress.next.previous(),
            Flow::Replicate => refused < progress.next,
            Flow::Snapshot => false,
        };
        if refused <= progress.matched || !current {
            mark!("raft.append.late_refusal");
            return;
        }
        // The newest entry here that the follower may have too: not after its hint, and of no
        // later term, so that each probe skips a whole term.
        let agree = self.shared.log.newest_at_most(reject.hint_index, reject.hint_term);
        let Some(agree) = agree else {
            mark!("raft.append.refused_below_the_log");
            return leader.begin_snapshot(&mut self.shared, now, header.from, out);
        };
        let next = agree.next().min(refused);
        progress.probe(next);
        self.shared.stats.probes += 1;
        trace!(out, Level::Debug, RaftTrace::ProbeRejected { peer: header.from, next });
        leader.replicate(&mut self.shared, now, header.from, out);
    }

    /// A server heard the heartbeat.
    pub(super) fn on_heartbeat_answer(
        &mut self,
        now: Instant,
        header: &Header,
        round: u64,
        condition: Condition,
        out: &mut Outbox<RaftOutput>,
    ) {
        if header.term == self.shared.hard.term {
            self.on_joiner_answers(now, header, out);
        }
        // Rounds are counted anew in every term: an old answer may bear the number of a new round.
        let old = mutant!(M19) && header.term < self.shared.hard.term;
        if !old && !self.counts_as_answer(now, header, out) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&header.from) else { return };
        if round > leader.reads.round {
            self.shared.stats.malformed += 1;
            return;
        }
        let took = peer.progress.answered(now, header.sent_at, condition);
        self.shared.peer_stats(header.from).heartbeats.record(took);
        peer.progress.acked_round = peer.progress.acked_round.max(round);
        if peer.progress.take_suspicion() {
            if let Flow::Probe { sent } = &mut peer.progress.flow {
                *sent = false;
            } else if !peer.progress.is_idle() {
                // All messages on their way may be lost: a position that is not there tells so.
                let next = peer.progress.next;
                leader.send_append(&mut self.shared, now, header.from, next, Vec::new(), out);
            }
            leader.resend_blocks(&mut self.shared, now, header.from, out);
        }
        leader.dismiss(header.from);
        leader.replicate(&mut self.shared, now, header.from, out);
        self.serve_reads(now, out);
    }

    /// The transport lost a server: what was on its way to it may be lost.
    pub(super) fn on_peer_unreachable(&mut self, peer: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&peer)
            && peer.progress.flow == Flow::Replicate
            && !mutant!(M34)
        {
            peer.progress.probe(LogIndex::ZERO);
        }
    }

    /// Whether an answer is for this leader, of this term, and from the store that counts.
    pub(super) fn counts_as_answer(
        &mut self,
        now: Instant,
        header: &Header,
        out: &mut Outbox<RaftOutput>,
    ) -> bool {
        if header.term > self.shared.hard.term {
            self.adopt_term(now, header.term, "another server has a higher term", out);
            return false;
        }
        let Role::Leader(leader) = &self.role else { return false };
        let departing = leader.peers.get(&header.from).is_some_and(|peer| peer.departing.is_some());
        let current = header.term == self.shared.hard.term;
        current && (departing || self.shared.store_counts(header, out))
    }
}

impl Leader {
    /// Sends every peer what it lacks, as far as its window allows.
    pub(super) fn replicate_all(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        #[cfg(feature = "sim")]
        let peers = if mutant!(M49) { crate::marks::disordered(peers) } else { peers };
        for peer in peers {
            self.replicate(shared, now, peer, out);
        }
    }

    /// Sends one peer what it lacks, as far as its window allows; if it lacks nothing, the commit
    /// index it was not told yet (raft.md §6.3).
    pub(super) fn replicate(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: NodeId,
        out: &mut Outbox<RaftOutput>,
    ) {
        let limits = shared.settings.limits;
        loop {
            let Some(peer) = self.peers.get(&to) else { return };
            if peer.progress.is_full() {
                return;
            }
            let next = peer.progress.next;
            if next <= shared.log.base().index {
                return self.begin_snapshot(shared, now, to, out);
            }
            let waiting = shared.log.last_index().above(next.previous());
            let full = waiting >= limits.append_entries_max as u64;
            if waiting == 0 || !peer.progress.may_send(&limits, full) {
                break;
            }
            // A probe may as well ask without bringing anything.
            let bare = peer.progress.flow != Flow::Replicate && buggify!("raft.probe.bare");
            let count = if bare { 0 } else { limits.append_entries_max };
            let entries = shared.log.slice(next, count, limits.append_bytes_max);
            self.send_append(shared, now, to, next, entries, out);
        }
        let Some(peer) = self.peers.get(&to) else { return };
        let progress = &peer.progress;
        let uninformed = progress.sent_commit < shared.commit.min(progress.next.previous());
        let probing = progress.flow == Flow::Probe { sent: false };
        if probing || (uninformed && progress.flow == Flow::Replicate && progress.is_idle()) {
            self.send_append(shared, now, to, progress.next, Vec::new(), out);
        }
    }

    /// Sends one message of entries that follow `next - 1`.
    pub(super) fn send_append(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: NodeId,
        next: LogIndex,
        entries: Vec<super::Entry>,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let prev_index = next.previous();
        let Some(prev) = shared.log.position(prev_index) else {
            assert!(next <= shared.log.base().index, "INV-RAFT-14: next is at most one after last");
            return self.begin_snapshot(shared, now, to, out);
        };
        let last = entries.last().map_or(prev_index, |entry| entry.index);
        let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        let commit = shared.commit;
        peer.progress.sent(last, bytes);
        shared.peer_stats(to).entries += entries.len() as u64;
        peer.progress.sent_commit = commit.min(last).max(peer.progress.sent_commit);
        let destination = Destination::request(to, peer.address, now);
        let (prev_term, prev_chain) = (prev.term, prev.chain);
        let append = Append { prev_index, prev_term, prev_chain, commit, entries };
        shared.send(destination, Body::Append(append), out);
    }

    /// Raises the commit index to what a quorum holds; whether it rose (raft.md C1 to C4).
    fn commit_by_counting(&self, shared: &mut Shared, out: &mut Outbox<RaftOutput>) -> bool {
        let (id, mut durable) = (shared.id(), shared.persist.durable());
        if mutant!(M04) {
            durable = shared.log.last_index();
        }
        let matched = |voter: &NodeId| match self.peers.get(voter) {
            Some(peer) => peer.progress.matched,
            None if *voter == id => durable,
            None => LogIndex::ZERO,
        };
        let latest = shared.configs.latest();
        let with_learners: BTreeMap<NodeId, Server>;
        let voters = if mutant!(M24) {
            with_learners = latest.servers().map(|(id, server)| (*id, server.clone())).collect();
            &with_learners
        } else {
            &latest.voters
        };
        let Some(held) = quorum::reached_by_quorum(voters, matched) else { return false };
        let own_term = shared.log.term(held) == Some(shared.hard.term);
        if held <= shared.commit {
            return false;
        }
        if !own_term && !mutant!(M05) {
            mark!("raft.commit.older_term_waits");
            return false;
        }
        shared.advance_commit(held, out);
        true
    }

    /// Whether this server and a quorum of the voters have space on their disks for more entries.
    pub(super) fn finds_room(&self, shared: &Shared) -> bool {
        let full = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.progress.is_full());
        let voters = &shared.configs.latest().voters;
        !shared.log_full && quorum::reached(voters, |voter| !full(voter))
    }

    /// The commit index rose: frees the quota and tells the others.
    fn committed(&mut self, shared: &mut Shared, now: Instant, out: &mut Outbox<RaftOutput>) {
        let after = shared.commit;
        let waiting = shared.log.range(after, shared.log.last_index());
        self.uncommitted_bytes = waiting.iter().map(|entry| entry.payload.len()).sum();
        let farewell = shared.settings.timing.heartbeat_timeout * 2;
        for peer in self.peers.values_mut() {
            if let Some(departing) = &mut peer.departing
                && departing.index <= after
            {
                departing.until.get_or_insert(now + farewell);
            }
        }
        self.replicate_all(shared, now, out);
    }

    /// Lets a removed server go once it has applied its removal (raft.md §10.4).
    fn dismiss(&mut self, id: NodeId) {
        let knows = |peer: &super::leader::Peer| {
            peer.departing.is_some_and(|departing| peer.progress.applied >= departing.index)
        };
        if self.peers.get(&id).is_some_and(knows) {
            self.peers.remove(&id);
        }
    }
}
