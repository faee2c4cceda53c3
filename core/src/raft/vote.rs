//! Whether to vote, and whether to say that one would (Raft thesis §3.4, §3.6.1, §4.2.3, §9.6;
//! raft.md §4.1, §4.3, §4.4).
//!
//! Invariants: at most one vote for each term, durable before it is said (INV-RAFT-7); only for a
//! log at least as complete as one's own (INV-RAFT-4), and none by a server that lost a part of its
//! log and so does not know how complete it was. Membership of the candidate is not asked
//! for: the voter's configuration may be behind (Raft thesis §4.1).

use super::shared::{Destination, Shared};
use super::transfer::is_permitted;
use super::{Body, Campaign, HardState, Header, Raft, RaftOutput, RaftTrace, Refusal, Role};
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{mark, mutant, trace};

impl Raft {
    /// Says whether a vote would be granted; changes nothing.
    pub(super) fn on_pre_vote(
        &mut self,
        now: Instant,
        header: &Header,
        campaign: &Campaign,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &self.shared;
        let hard = shared.hard;
        if mutant!(M11) && header.term < hard.term {
            return;
        }
        let free = hard.voted_for.is_none_or(|voted| voted == header.from);
        let in_term = campaign.term > hard.term || (campaign.term == hard.term && free);
        let refusal = self
            .unwilling(now)
            .or_else(|| (!in_term).then_some(Refusal::Term))
            .or_else(|| (behind(shared, campaign) && !mutant!(M09)).then_some(Refusal::Log));
        note(header.from, campaign, true, refusal, out);
        let body = Body::PreVoteAnswer { campaign_term: campaign.term, refusal };
        self.shared.send(Destination::answer(header), body, out);
    }

    /// Votes or refuses to.
    pub(super) fn on_request_vote(
        &mut self,
        now: Instant,
        header: &Header,
        campaign: &Campaign,
        out: &mut Outbox<RaftOutput>,
    ) {
        let from = campaign.transfer_from;
        if campaign.term != header.term || from.is_some_and(|from| from.next() != campaign.term) {
            self.shared.stats.malformed += 1;
            return;
        }
        // A server that must not vote ignores the term too: adopting it would depose the leader
        // that this server hears, or heard before its restart; unless that one asks for it itself.
        let permitted = is_permitted(&self.shared, from) && !self.shared.is_recovering();
        let unwilling = if permitted { None } else { self.unwilling(now) };
        if unwilling.is_none() && header.term > self.shared.hard.term {
            self.adopt_term(now, header.term, "a candidate has a higher term", out);
        }
        let shared = &mut self.shared;
        let voted_for = shared.hard.voted_for;
        let again = voted_for == Some(header.from);
        let free = again || (voted_for.is_none() && shared.leader.is_none());
        let in_term = header.term == shared.hard.term && free;
        let refusal = unwilling
            .or_else(|| (!in_term).then_some(Refusal::Term))
            .or_else(|| behind(shared, campaign).then_some(Refusal::Log));
        note(header.from, campaign, false, refusal, out);
        if refusal.is_none() {
            if !again {
                let term = shared.hard.term;
                shared.save_hard(HardState { term, voted_for: Some(header.from) });
            }
            if let Role::Follower(follower) = &mut self.role {
                shared.leader = None;
                follower.wait_again(now, shared);
            }
        }
        self.shared.send(Destination::answer(header), Body::VoteAnswer { refusal }, out);
    }

    /// Why this server would vote for nobody at this moment.
    fn unwilling(&self, now: Instant) -> Option<Refusal> {
        if self.shared.is_recovering() {
            mark!("raft.vote.refused_while_recovering");
            return Some(Refusal::Recovering);
        }
        if let Some(remaining) = self.shared.embargo(now) {
            mark!("raft.vote.refused_by_embargo");
            return Some(Refusal::Embargo(remaining));
        }
        let sticky = match &self.role {
            Role::Leader(leader) => leader.hears_quorum(&self.shared, now),
            Role::Follower(_) | Role::Candidate(_) => self.shared.hears_leader(now),
        };
        if sticky && !mutant!(M13) {
            mark!("raft.vote.refused_by_stickiness");
            return Some(Refusal::LeaderAlive);
        }
        None
    }
}

/// Whether the candidate's log is less complete than this server's (Raft thesis §3.6.1).
fn behind(shared: &Shared, campaign: &Campaign) -> bool {
    let theirs = (campaign.last_term, campaign.last_index);
    if mutant!(M08) {
        return campaign.last_index < shared.log.last_index();
    }
    theirs < (shared.log.last_term(), shared.log.last_index())
}

fn note(
    candidate: NodeId,
    campaign: &Campaign,
    pre: bool,
    refusal: Option<Refusal>,
    out: &mut Outbox<RaftOutput>,
) {
    let term = campaign.term;
    trace!(out, Level::Debug, RaftTrace::VoteAsked { candidate, term, pre, refusal });
}
