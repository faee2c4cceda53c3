//! Changing the configuration by one server (Raft thesis §4.1, §4.2; raft.md §10.2 to §10.4).
//!
//! Invariants: a change needs an entry of this term committed (P1) and the configuration before it
//! committed (P2), alters one voter (P3), and leaves voters with distinct addresses (P5). A new
//! server begins as a learner, once it has answered this leader with the store it speaks for; it
//! votes only when it holds nearly everything (P6).

use super::leader::Leader;
use super::shared::Shared;
use super::{
    Change, Configuration, EntryKind, Header, ProposalError, ProposalId, Raft, RaftOutput, Role,
    Server, TransferError, quorum,
};
use crate::id::{LogIndex, NodeId, StoreId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::wire::pack;
use crate::{mark, mutant};
use std::net::SocketAddr;

/// Committed entries that a learner may lack when it is to vote: what it fetches in a moment.
const CATCH_UP_MAX: u64 = 250;

/// A server that is contacted before it is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    pub(super) id: ProposalId,
    pub(super) server: NodeId,
    pub(super) address: SocketAddr,
    give_up_at: Instant,
}

impl Raft {
    /// Makes a change, or begins with it.
    pub(super) fn on_change(
        &mut self,
        now: Instant,
        id: ProposalId,
        change: Change,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        let Role::Leader(leader) = &mut self.role else {
            let error = ProposalError::NotLeader;
            return out.push(RaftOutput::ProposalFailed { id, error });
        };
        let next = match change {
            Change::Add { server, address } => {
                let refused = leader
                    .unchangeable(shared, None)
                    .or_else(|| (server == shared.id()).then_some("the leader votes already"));
                if refused.is_none() {
                    let give_up_at = now + shared.settings.timing.heartbeat_timeout * 2;
                    leader.joining = Some(Joining { id, server, address, give_up_at });
                    return leader.heartbeat(shared, now, out);
                }
                refused.map_or(Ok(None), Err)
            }
            Change::Promote(server) => leader.promoted(shared, server, now),
            Change::Demote(server) => leader.demoted(shared, server, now),
            Change::Remove { server, force } => leader.without(shared, (server, force), now),
        };
        match next {
            Err(rule) => {
                let error = ProposalError::Refused(rule);
                out.push(RaftOutput::ProposalFailed { id, error });
            }
            Ok(Some(next)) => self.change(now, id, &next, out),
            Ok(None) => {
                let index = shared.configs.latest_index();
                out.push(RaftOutput::ProposalApplied { id, index });
            }
        }
    }

    /// The server to be added has answered: takes the step towards it that is possible.
    pub(super) fn on_joiner_answers(
        &mut self,
        now: Instant,
        header: &Header,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let expected = |joining: &mut Joining| {
            joining.server == header.from && joining.address == header.address
        };
        let Some(joining) = leader.joining.take_if(expected) else { return };
        let shared = &mut self.shared;
        if let Some(rule) = leader.unchangeable(shared, None) {
            let error = ProposalError::Refused(rule);
            return out.push(RaftOutput::ProposalFailed { id: joining.id, error });
        }
        let current = shared.configs.latest();
        let next = step_towards(current, joining.server, joining.address, header.from_store);
        if next.voters.is_empty() {
            let error = ProposalError::Refused("P5: the last voter stays");
            return out.push(RaftOutput::ProposalFailed { id: joining.id, error });
        }
        if next == **current {
            let index = shared.configs.latest_index();
            return out.push(RaftOutput::ProposalApplied { id: joining.id, index });
        }
        self.change(now, joining.id, &next, out);
    }

    /// Appends a configuration, which counts at once (K1).
    fn change(
        &mut self,
        now: Instant,
        id: ProposalId,
        next: &Configuration,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let shared = &mut self.shared;
        assert_neighbours(shared.configs.latest(), next);
        leader.end_transfer(Err(TransferError::Aborted), out);
        leader.append(shared, id, EntryKind::Config, pack::to_bytes(next), out);
        leader.match_peers(shared, now);
        leader.heartbeat_soon(now);
        leader.replicate_all(shared, now, out);
        if mutant!(M25) && !next.is_voter(shared.id()) {
            return self.become_follower(now, "it is to be removed", out);
        }
        self.count_matches(now, out);
        self.serve_reads(now, out);
    }
}

/// The configuration that a change leads to, `None` if it is there already, or the rule that
/// forbids it.
type Next = Result<Option<Configuration>, &'static str>;

impl Leader {
    fn promoted(&self, shared: &Shared, server: NodeId, now: Instant) -> Next {
        self.unchangeable(shared, None).map_or(Ok(()), Err)?;
        let mut next = Configuration::clone(shared.configs.latest());
        if next.is_voter(server) {
            return Ok(None);
        }
        let learner = next.learners.remove(&server).ok_or("the server is no part yet")?;
        let matched = self.peers.get(&server).map(|peer| peer.progress.matched);
        let lag = shared.commit.above(matched.unwrap_or(LogIndex::ZERO));
        let counts = self.hears(shared, server, now) && !shared.wrong_store.contains(&server);
        if !counts || lag > CATCH_UP_MAX {
            mark!("raft.config.p6_refused");
            return Err("P6: the server does not hold nearly everything yet");
        }
        next.voters.insert(server, learner);
        Ok(Some(next))
    }

    fn demoted(&self, shared: &Shared, server: NodeId, now: Instant) -> Next {
        self.unchangeable(shared, Some(server)).map_or(Ok(()), Err)?;
        let mut next = Configuration::clone(shared.configs.latest());
        if server == shared.id() {
            return Err("the leader votes");
        }
        let Some(voter) = next.voters.remove(&server) else {
            return if next.contains(server) { Ok(None) } else { Err("the server is no part") };
        };
        self.can_spare(shared, &next, now)?;
        next.learners.insert(server, voter);
        Ok(Some(next))
    }

    fn without(&self, shared: &Shared, (server, force): (NodeId, bool), now: Instant) -> Next {
        let mut next = Configuration::clone(shared.configs.latest());
        let settled = shared.configs.latest_index() <= shared.commit;
        let voted = next.voters.remove(&server).is_some();
        let there = voted || next.learners.remove(&server).is_some();
        // A removal that is not committed may still be undone: it is no answer to this one.
        if !there && settled {
            return Ok(None);
        }
        self.unchangeable(shared, Some(server)).map_or(Ok(()), Err)?;
        if next.voters.is_empty() {
            return Err("P5: the last voter stays");
        }
        if voted && !force {
            self.can_spare(shared, &next, now)?;
        }
        Ok(Some(next))
    }

    /// Whether the voters of `next` have a quorum that answers and could go on alone (P8).
    fn can_spare(
        &self,
        shared: &Shared,
        next: &Configuration,
        now: Instant,
    ) -> Result<(), &'static str> {
        let unfit =
            |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.progress.unfit.is_some());
        let lives = |voter: &NodeId| self.hears(shared, *voter, now) && !unfit(voter);
        if quorum::reached(&next.voters, lives) {
            return Ok(());
        }
        mark!("raft.config.p8_refused");
        Err("P8: the remaining voters have no live quorum")
    }

    /// Which rule forbids any change at the moment, or one that takes the vote of `removed`
    /// (raft.md §10.2).
    fn unchangeable(&self, shared: &Shared, removed: Option<NodeId>) -> Option<&'static str> {
        if shared.commit < self.noop && !mutant!(M20) {
            mark!("raft.config.p1_refused");
            return Some("P1: nothing of this term is committed yet");
        }
        if shared.configs.latest_index() > shared.commit && !mutant!(M21) {
            mark!("raft.config.p2_refused");
            return Some("P2: the configuration before is not committed yet");
        }
        if self.transfer_forbids(shared, removed) {
            return Some("P7: leadership is being handed over");
        }
        if !self.finds_room(shared) {
            return Some("the disks are full: there is no space left for the log");
        }
        self.joining.is_some().then_some("P2: another server is being added")
    }

    /// Stops waiting for a server that does not answer.
    pub(super) fn give_up_joining(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        if let Some(joining) = self.joining.take_if(|joining| joining.give_up_at <= now) {
            let error = ProposalError::Unreachable;
            out.push(RaftOutput::ProposalFailed { id: joining.id, error });
        }
    }
}

/// The configuration one step nearer to `server` being a part with `store` at `address`: without
/// who is in the way, else with the server (raft.md §10.4).
fn step_towards(
    current: &Configuration,
    server: NodeId,
    address: SocketAddr,
    store: StoreId,
) -> Configuration {
    let mut next = current.clone();
    let in_the_way = |(id, other): (&NodeId, &Server)| {
        let same_address = *id != server && other.address == address;
        let wiped = *id == server && other.store != store;
        (same_address || wiped).then_some(*id)
    };
    if let Some(id) = current.servers().find_map(in_the_way) {
        next.voters.remove(&id);
        next.learners.remove(&id);
        return next;
    }
    let role = if next.is_voter(server) { &mut next.voters } else { &mut next.learners };
    role.insert(server, Server { address, store });
    next
}

/// Panics if two configurations that follow each other could have disjoint quorums.
fn assert_neighbours(before: &Configuration, after: &Configuration) {
    let joined = after.voters.keys().filter(|id| !before.is_voter(**id)).count();
    let left = before.voters.keys().filter(|id| !after.is_voter(**id)).count();
    assert!(joined + left <= 1, "INV-RAFT-9: a change alters one voter");
    assert!(after.is_sound(), "INV-RAFT-9: a configuration has a voter, and nobody twice");
}
