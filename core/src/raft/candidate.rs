//! Campaigning: first the question whether it would be of use, then for votes (Raft thesis §3.4,
//! §9.6; raft.md §4.2).
//!
//! Invariants: a vote counts once, only from a voter and its own store (§4.2); nobody is asked for
//! a vote before the own vote is durable (D1).

use super::shared::{Destination, Shared};
use super::trace::NoQuorum;
use super::{
    Body, Campaign, HardState, Header, PersistSeq, Raft, RaftOutput, RaftTrace, Refusal, Role,
    RoleKind, quorum,
};
use crate::id::{NodeId, Term};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{mark, mutant, trace};
use std::collections::BTreeMap;

/// The campaign without enough answers after which the operator is told: after 10 to 20 s.
const LONELY_TOLD: u32 = 10;
/// The operator is told again after so many: every 5 to 10 minutes.
const LONELY_PERIOD: u32 = 300;

/// A server that campaigns.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) stage: Stage,
    /// Who answered, and whether with a grant.
    answers: BTreeMap<NodeId, bool>,
    pub(super) deadline: Instant,
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asking who would vote for it; the term is not raised.
    PreVote,
    /// Asking for votes; its own waits for this persist request, if at all.
    Vote { own: Option<PersistSeq> },
}

impl Candidate {
    fn granted(&self) -> usize {
        self.answers.values().filter(|granted| **granted).count()
    }

    fn won(&self, shared: &Shared) -> bool {
        let voters = &shared.configs.latest().voters;
        quorum::reached(voters, |id| self.answers.get(id) == Some(&true))
    }
}

impl Raft {
    /// Begins a campaign. The only voter need not ask whether it would win (raft.md §4.2).
    pub(super) fn campaign(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let shared = &mut self.shared;
        shared.leader = None;
        if shared.configs.latest().is_sole_voter(shared.id()) {
            return self.ask_for_votes(now, None, out);
        }
        shared.stats.pre_votes_started += 1;
        self.begin(now, Stage::PreVote);
        let term = self.shared.hard.term.next();
        self.ask_everybody(now, (term, None), out);
        self.count(now, out);
    }

    /// Raises the term, votes for itself and asks the others, with the permission of the leader of
    /// `transfer_from` if there is one.
    pub(super) fn ask_for_votes(
        &mut self,
        now: Instant,
        transfer_from: Option<Term>,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        let (address, role) = (shared.settings.address, RoleKind::Candidate);
        trace!(out, Level::Info, RaftTrace::Entering { address, role });
        shared.stats.elections_started += 1;
        shared.leader = None;
        let term = shared.hard.term.next();
        let own = shared.save_hard(HardState { term, voted_for: Some(shared.id()) });
        self.begin(now, Stage::Vote { own: Some(own) });
        self.ask_everybody(now, (term, transfer_from), out);
    }

    fn begin(&mut self, now: Instant, stage: Stage) {
        let timeout = self.shared.settings.timing.election_timeout;
        let deadline = now + self.shared.rng.between(timeout, timeout * 2);
        let mut answers = BTreeMap::new();
        if stage == Stage::PreVote {
            answers.insert(self.shared.id(), true);
        }
        self.role = Role::Candidate(Candidate { stage, answers, deadline });
    }

    fn ask_everybody(
        &mut self,
        now: Instant,
        (term, transfer_from): (Term, Option<Term>),
        out: &mut Outbox<RaftOutput>,
    ) {
        let Role::Candidate(candidate) = &self.role else { return };
        let shared = &mut self.shared;
        let (last_index, last_term) = (shared.log.last_index(), shared.log.last_term());
        let campaign = Campaign { term, last_index, last_term, transfer_from };
        for (id, server) in shared.configs.latest().voters.clone() {
            if id != shared.id() {
                let body = match candidate.stage {
                    Stage::PreVote => Body::PreVote(campaign),
                    Stage::Vote { .. } => Body::RequestVote(campaign),
                };
                shared.send(Destination::request(id, server.address, now), body, out);
            }
        }
    }

    /// The campaign took too long: asks again, from the beginning.
    pub(super) fn on_campaign_over(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        mark!("raft.campaign.timed_out");
        self.note_lonely_campaign(out);
        if self.shared.unpromotable(now).is_some() {
            return self.become_follower(now, "", out);
        }
        trace!(out, Level::Debug, RaftTrace::ElectionTimeout);
        self.campaign(now, out);
    }

    /// Counts campaigns that too few voters answered, and tells the operator what to do about it:
    /// soon, and then from time to time (cluster-behaviour.md §16, row 9).
    fn note_lonely_campaign(&mut self, out: &mut Outbox<RaftOutput>) {
        let Role::Candidate(candidate) = &self.role else { return };
        let shared = &mut self.shared;
        let (own, address) = (shared.id(), shared.settings.address);
        let answers = |id: &NodeId| *id == own || candidate.answers.contains_key(id);
        let voters = &shared.configs.latest().voters;
        if quorum::reached(voters, answers) {
            shared.lonely_campaigns = 0;
            return;
        }
        shared.lonely_campaigns = shared.lonely_campaigns.wrapping_add(1);
        if shared.lonely_campaigns % LONELY_PERIOD != LONELY_TOLD {
            return;
        }
        mark!("raft.campaign.lonely");
        let silent = voters.iter().filter(|(id, _)| !answers(id));
        let silent = silent.map(|(id, server)| (*id, server.address)).collect();
        let told = NoQuorum { own, address, voters: voters.len(), silent };
        trace!(out, Level::Error, RaftTrace::NoQuorum(told));
    }

    /// The disk confirmed a request: the own vote may count now.
    pub(super) fn own_vote_durable(
        &mut self,
        now: Instant,
        done: PersistSeq,
        out: &mut Outbox<RaftOutput>,
    ) {
        let id = self.shared.id();
        let Role::Candidate(candidate) = &mut self.role else { return };
        if let Stage::Vote { own: Some(own) } = candidate.stage
            && own <= done
        {
            candidate.stage = Stage::Vote { own: None };
            candidate.answers.insert(id, true);
            self.count(now, out);
        }
    }

    /// A server said whether it would vote for this one.
    pub(super) fn on_pre_vote_answer(
        &mut self,
        now: Instant,
        header: &Header,
        campaign_term: Term,
        refusal: Option<Refusal>,
        out: &mut Outbox<RaftOutput>,
    ) {
        // A refusal from a later term tells of that term, or two groups with different terms
        // would block each other (K4); a grant only repeats the term that was asked for.
        if refusal.is_some() && header.term > self.shared.hard.term && !mutant!(M10) {
            mark!("raft.pre_vote.refusal_raised_the_term");
            return self.adopt_term(now, header.term, "a voter has a higher term", out);
        }
        let asked = campaign_term == self.shared.hard.term.next();
        if !asked || !self.shared.store_counts(header, out) {
            return;
        }
        let retry_span = self.shared.settings.timing.heartbeat_interval;
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.stage != Stage::PreVote {
            return;
        }
        candidate.answers.insert(header.from, refusal.is_none());
        if let Some(Refusal::Embargo(remaining)) = refusal {
            let again = now + remaining + self.shared.rng.jitter(retry_span);
            candidate.deadline = candidate.deadline.min(again);
        }
        self.count(now, out);
    }

    /// A server voted, or refused to.
    pub(super) fn on_vote_answer(
        &mut self,
        now: Instant,
        header: &Header,
        refusal: Option<Refusal>,
        out: &mut Outbox<RaftOutput>,
    ) {
        if header.term > self.shared.hard.term {
            return self.adopt_term(now, header.term, "a voter has a higher term", out);
        }
        if header.term < self.shared.hard.term || !self.shared.store_counts(header, out) {
            return;
        }
        let Role::Candidate(candidate) = &mut self.role else { return };
        if matches!(candidate.stage, Stage::Vote { .. }) {
            candidate.answers.insert(header.from, refusal.is_none());
            self.count(now, out);
        }
    }

    /// Goes on to the next stage once a quorum has granted this one.
    fn count(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Candidate(candidate) = &self.role else { return };
        if !candidate.won(&self.shared) {
            return;
        }
        match candidate.stage {
            Stage::PreVote => self.ask_for_votes(now, None, out),
            Stage::Vote { .. } => {
                let tally = candidate.granted();
                trace!(out, Level::Info, RaftTrace::ElectionWon { tally });
                self.become_leader(now, out);
            }
        }
    }
}
