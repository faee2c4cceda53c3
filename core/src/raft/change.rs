//! Changing the configuration by one voter (Raft thesis §4.1, §4.2; raft.md §10.2 to §10.4).
//!
//! Invariants: a change needs an entry of this term committed (P1) and the configuration before it
//! committed (P2), alters one voter (P3), and leaves voters with distinct addresses (P5). A server
//! to be added has answered this leader first (P6, as far as there are no learners), and that
//! answer names its store.

use super::leader::Leader;
use super::shared::Shared;
use super::{
    Configuration, EntryKind, Header, ProposalError, ProposalId, Raft, RaftOutput, Role, Server,
    TransferError, quorum,
};
use crate::id::{NodeId, StoreId};
use crate::machine::Outbox;
use crate::mutant;
use crate::time::Instant;
use crate::wire::pack;
use std::net::SocketAddr;

/// A server that is contacted before it is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    pub(super) id: ProposalId,
    pub(super) server: NodeId,
    pub(super) address: SocketAddr,
    give_up_at: Instant,
}

impl Raft {
    /// Contacts a server that is to vote.
    pub(super) fn on_add_server(
        &mut self,
        now: Instant,
        joining: (ProposalId, NodeId, SocketAddr),
        out: &mut Outbox<RaftOutput>,
    ) {
        let (id, server, address) = joining;
        let shared = &mut self.shared;
        let error = match &mut self.role {
            Role::Follower(_) | Role::Candidate(_) => ProposalError::NotLeader,
            Role::Leader(leader) => match leader.unchangeable(shared, None) {
                Some(rule) => ProposalError::Refused(rule),
                None if server == shared.id() => ProposalError::Refused("the leader votes already"),
                None => {
                    let give_up_at = now + shared.settings.timing.heartbeat_timeout * 2;
                    leader.joining = Some(Joining { id, server, address, give_up_at });
                    return leader.heartbeat(shared, now, out);
                }
            },
        };
        out.push(RaftOutput::ProposalFailed { id, error });
    }

    /// The server to be added has answered: takes the step towards its vote that is possible.
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
        if next == *current {
            let index = shared.configs.latest_index();
            return out.push(RaftOutput::ProposalApplied { id: joining.id, index });
        }
        self.change(now, joining.id, &next, out);
    }

    /// Removes a voter.
    pub(super) fn on_remove_server(
        &mut self,
        now: Instant,
        removal: (ProposalId, NodeId),
        force: bool,
        out: &mut Outbox<RaftOutput>,
    ) {
        let (id, server) = removal;
        let shared = &self.shared;
        let Role::Leader(leader) = &self.role else {
            let error = ProposalError::NotLeader;
            return out.push(RaftOutput::ProposalFailed { id, error });
        };
        let mut next = shared.configs.latest().clone();
        let settled = shared.configs.latest_index() <= shared.commit;
        // A removal that is not committed may still be undone: it is no answer to this one.
        if next.voters.remove(&server).is_none() && settled {
            let index = shared.configs.latest_index();
            return out.push(RaftOutput::ProposalApplied { id, index });
        }
        let live = quorum::reached(&next.voters, |voter| leader.hears(shared, *voter, now));
        let broken = if next.voters.is_empty() {
            Some("P5: the last voter stays")
        } else if !live && !force {
            crate::mark!("raft.config.p8_refused");
            Some("P8: the remaining voters have no live quorum")
        } else {
            None
        };
        let refused = leader.unchangeable(shared, Some(server)).or(broken);
        match refused {
            Some(rule) => {
                let error = ProposalError::Refused(rule);
                out.push(RaftOutput::ProposalFailed { id, error });
            }
            None => self.change(now, id, &next, out),
        }
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
        self.count_matches(now, out);
        self.serve_reads(now, out);
    }
}

impl Leader {
    /// Which rule forbids any change at the moment, or one that removes `removed` (raft.md §10.2).
    fn unchangeable(&self, shared: &Shared, removed: Option<NodeId>) -> Option<&'static str> {
        if shared.commit < self.noop {
            crate::mark!("raft.config.p1_refused");
            return Some("P1: nothing of this term is committed yet");
        }
        if shared.configs.latest_index() > shared.commit && !mutant!(M21) {
            crate::mark!("raft.config.p2_refused");
            return Some("P2: the configuration before is not committed yet");
        }
        if self.transfer_forbids(shared, removed) {
            return Some("P7: leadership is being handed over");
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

/// The configuration one step nearer to `server` voting with `store` at `address`: without a voter
/// that is in the way, else with the server (raft.md §10.4).
fn step_towards(
    current: &Configuration,
    server: NodeId,
    address: SocketAddr,
    store: StoreId,
) -> Configuration {
    let mut next = current.clone();
    let in_the_way = |(id, voter): (&NodeId, &Server)| {
        let same_address = *id != server && voter.address == address;
        let wiped = *id == server && voter.store != store;
        (same_address || wiped).then_some(*id)
    };
    match current.voters.iter().find_map(in_the_way) {
        Some(id) => next.voters.remove(&id),
        None => next.voters.insert(server, Server { address, store }),
    };
    next
}

/// Panics if two configurations that follow each other could have disjoint quorums.
fn assert_neighbours(before: &Configuration, after: &Configuration) {
    let joined = after.voters.keys().filter(|id| !before.is_voter(**id)).count();
    let left = before.voters.keys().filter(|id| !after.is_voter(**id)).count();
    assert!(joined + left <= 1, "INV-RAFT-9: a change alters one voter");
    assert!(!after.voters.is_empty(), "INV-RAFT-9: a configuration has a voter");
}
