//! Handing leadership over to another voter (Raft thesis §3.10; raft.md §8).
//!
//! The leader brings the target's log to its own, taking no proposals at the end, and then tells it
//! to campaign at once: without the question before, and with the permission of its term, so that
//! those who hear their leader vote all the same. Invariants: a leader has no lease from its first
//! permission to the end of its term, also when the transfer fails, since a vote that rests on the
//! permission may be given at any later time (INV-RAFT-10); a permission is for the election of the
//! term that follows the leader's, and for no later one.
//!
//! Differs: the permission carries no position. The leader gives it only to a server that holds its
//! whole log, and one that came too late wins no vote it should not have.

use super::leader::Leader;
use super::shared::{Destination, Shared};
use super::{Body, Header, Raft, RaftOutput, RaftTrace, Role, TransferError, TransferId, Unfit};
use crate::id::{LogIndex, NodeId, Term};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{buggify, mark, mutant, trace};

/// Entries that a target may lack before no more proposals are taken.
const LAG_MAX: u64 = 64;

/// A transfer under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) target: NodeId,
    /// Counts the transfers of this term.
    number: u64,
    /// Who waits for its end.
    waiting: Vec<TransferId>,
    began_at: Instant,
    /// Whether the target was told to campaign.
    permitted: bool,
}

impl Raft {
    /// Hands leadership over to `to`, or to whoever is fit for it best.
    pub(super) fn on_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        to: Option<NodeId>,
        out: &mut Outbox<RaftOutput>,
    ) {
        let error = match &mut self.role {
            Role::Follower(_) | Role::Candidate(_) => TransferError::NotLeader,
            Role::Leader(leader) => {
                if leader.join_transfer(id, to) {
                    return;
                }
                match leader.fittest(&self.shared, to, now) {
                    None => TransferError::NoTarget,
                    Some(target) => {
                        leader.end_transfer(Err(TransferError::Aborted), out);
                        return leader.transfer(&mut self.shared, now, (target, vec![id]), out);
                    }
                }
            }
        };
        out.push(RaftOutput::TransferEnded { id, result: Err(error) });
    }

    /// The leader of this term permits this server to campaign at once.
    pub(super) fn on_timeout_now(
        &mut self,
        now: Instant,
        header: &Header,
        transfer: u64,
        out: &mut Outbox<RaftOutput>,
    ) {
        let current = header.term == self.shared.hard.term;
        if !current && !mutant!(M37) {
            mark!("raft.transfer.late_permission");
            return;
        }
        if current && !self.follow(now, header, out) {
            return;
        }
        let shared = &mut self.shared;
        // The embargo after a restart protects the lease that this leader gave up.
        match shared.unfit(now) {
            None => {
                let from = shared.hard.term;
                trace!(out, Level::Info, RaftTrace::HandedOver { by: header.from });
                self.ask_for_votes(now, Some(from), out);
            }
            Some(reason) => {
                let body = Body::TransferReject { transfer, reason };
                shared.send(Destination::answer(header), body, out);
            }
        }
    }

    /// The target does not campaign.
    pub(super) fn on_transfer_reject(
        &mut self,
        now: Instant,
        header: &Header,
        (transfer, reason): (u64, Unfit),
        out: &mut Outbox<RaftOutput>,
    ) {
        if !self.counts_as_answer(now, header, out) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let answered = |now: &Transfer| now.target == header.from && now.number == transfer;
        if leader.transfer.as_ref().is_some_and(answered) {
            if let Some(peer) = leader.peers.get_mut(&header.from) {
                peer.progress.unfit = Some(reason);
            }
            leader.end_transfer(Err(TransferError::Rejected(reason)), out);
            self.mind_the_disk(now, out);
        }
    }

    /// A heartbeat is due: gives up a transfer that takes too long, else repeats its permission.
    pub(super) fn go_on_with_transfer(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let patience = self.shared.settings.timing.election_timeout;
        let late = |transfer: &Transfer| now.since(transfer.began_at) >= patience;
        if leader.transfer.as_ref().is_some_and(late) {
            mark!("raft.transfer.timed_out");
            leader.end_transfer(Err(TransferError::TimedOut), out);
        } else {
            leader.permit(&mut self.shared, now, out);
        }
    }

    /// A leader whose disk does not answer hands over, and steps down if that does not help
    /// (raft.md §5.2). One whose disk is full hands over if it can (§11.3 rule 6), and else goes on
    /// to lead: it serves reads.
    pub(super) fn mind_the_disk(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some() {
            return;
        }
        if !self.shared.disk_stalled(now) || mutant!(M58) {
            leader.fled_disk = false;
            if self.shared.log_full
                && let Some(target) = leader.fittest(&self.shared, None, now)
            {
                mark!("raft.leader.disk_full_hands_over");
                leader.transfer(&mut self.shared, now, (target, Vec::new()), out);
            }
            return;
        }
        let tried = std::mem::replace(&mut leader.fled_disk, true);
        match leader.fittest(&self.shared, None, now) {
            Some(target) if !tried => {
                mark!("raft.leader.disk_stalled_hands_over");
                leader.transfer(&mut self.shared, now, (target, Vec::new()), out);
            }
            Some(_) | None => {
                mark!("raft.leader.disk_stalled");
                self.become_follower(now, "the disk does not answer", out);
            }
        }
    }
}

impl Leader {
    /// Begins a transfer.
    fn transfer(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        (target, waiting): (NodeId, Vec<TransferId>),
        out: &mut Outbox<RaftOutput>,
    ) {
        trace!(out, Level::Info, RaftTrace::Transferring { to: target });
        self.transfers += 1;
        let (number, permitted) = (self.transfers, false);
        self.transfer = Some(Transfer { target, number, waiting, began_at: now, permitted });
        self.permit(shared, now, out);
        if buggify!("raft.transfer.permitted_twice") {
            self.permit(shared, now, out);
        }
    }

    /// Adds a request to the transfer under way, if that leads where it wants.
    fn join_transfer(&mut self, id: TransferId, to: Option<NodeId>) -> bool {
        let Some(transfer) = &mut self.transfer else { return false };
        let joins = to.is_none_or(|to| to == transfer.target);
        if joins {
            transfer.waiting.push(id);
        }
        joins
    }

    /// The voter to hand over to: the one asked for, else of those that answer and are fit to lead
    /// the one with the longest log, heard of last. Its own store must count.
    fn fittest(&self, shared: &Shared, to: Option<NodeId>, now: Instant) -> Option<NodeId> {
        let fit = |id: &NodeId| {
            let unfit = self.peers.get(id).is_some_and(|peer| peer.progress.unfit.is_some());
            let wanted = to.map_or(!unfit, |to| to == *id);
            let counts = !shared.wrong_store.contains(id) && self.hears(shared, *id, now);
            *id != shared.id() && wanted && counts
        };
        let voters = shared.configs.latest().voters.keys().copied().filter(fit);
        voters.max_by_key(|id| {
            self.peers.get(id).map(|peer| (peer.progress.matched, peer.progress.active_at))
        })
    }

    /// Tells the target to campaign, once it holds everything.
    pub(super) fn permit(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some(transfer) = &mut self.transfer else { return };
        let Some(peer) = self.peers.get(&transfer.target) else { return };
        if peer.progress.matched < shared.log.last_index() {
            return;
        }
        transfer.permitted = true;
        self.lease_void = true;
        let to = Destination::request(transfer.target, peer.address, now);
        shared.send(to, Body::TimeoutNow { transfer: transfer.number }, out);
    }

    /// The target acknowledged entries: permits it to campaign if it was not told before.
    pub(super) fn permit_once(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        if self.transfer.as_ref().is_some_and(|transfer| !transfer.permitted) {
            self.permit(shared, now, out);
        }
    }

    /// Whether nothing may be appended, so that the target comes to hold everything.
    pub(super) fn hands_over(&self, shared: &Shared, now: Instant) -> bool {
        let Some(transfer) = &self.transfer else { return false };
        let matched = self.peers.get(&transfer.target).map(|peer| peer.progress.matched);
        let lag = shared.log.last_index().above(matched.unwrap_or(LogIndex::ZERO));
        let half = shared.settings.timing.election_timeout / 2;
        transfer.permitted || lag <= LAG_MAX || now.since(transfer.began_at) >= half
    }

    /// Whether a transfer forbids a change that removes `removed` (P7): one that removes the target
    /// or this leader itself ends the transfer instead.
    pub(super) fn transfer_forbids(&self, shared: &Shared, removed: Option<NodeId>) -> bool {
        let concerned = |target| removed.is_some_and(|id| id == target || id == shared.id());
        self.transfer.as_ref().is_some_and(|transfer| !concerned(transfer.target))
    }

    /// Ends the transfer under way, if there is one. Proposals are taken again; the lease stays
    /// void.
    pub(super) fn end_transfer(
        &mut self,
        result: Result<(), TransferError>,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some(transfer) = self.transfer.take() else { return };
        if let Err(error) = result {
            let to = transfer.target;
            trace!(out, Level::Warn, RaftTrace::TransferFailed { to, error });
        }
        for id in transfer.waiting {
            out.push(RaftOutput::TransferEnded { id, result });
        }
    }
}

/// Whether a candidate for `term` has the permission of the leader of the term before, and this
/// server's leader, if it has one, is that one or an earlier one (raft.md §4.4).
pub(super) fn is_permitted(shared: &Shared, from: Option<Term>) -> bool {
    from.is_some_and(|from| from >= shared.hard.term)
}
