//! Membership, with the world's knowledge of every member's own word (simulation.md §9.2).

use super::{Permissions, Violation, broken, shown};
use crate::streams::Process;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use terraform_core::id::{Incarnation, NodeName};
use terraform_core::node::Node;
use terraform_core::serf::{Member, MemberStatus};
use terraform_core::wire::gossip::PeerState;

/// The rules G1, G2 and G4.
#[derive(Debug, Default)]
pub(super) struct GossipChecker {
    /// What each process last knew of each member, and at which version of its table.
    seen: BTreeMap<Process, Seen>,
    /// At which version each process's Serf statuses were looked at.
    statuses: BTreeMap<Process, u64>,
    /// The highest incarnation each member gave itself.
    own: BTreeMap<NodeName, Incarnation>,
}

/// One process's table at one version: each member's incarnation and address.
#[derive(Debug, Default)]
struct Seen {
    version: u64,
    members: BTreeMap<NodeName, (Incarnation, SocketAddr)>,
}

impl GossipChecker {
    /// Looks at one agent's members after an event.
    pub(super) fn look(
        &mut self,
        process: Process,
        node: &Node,
        permissions: &Permissions,
    ) -> Result<(), Violation> {
        self.look_at_statuses(process, node, permissions)?;
        let (name, version) = (node.name(), node.gossip().version());
        if let Some((own, _)) = node.gossip().peer(name) {
            let highest = self.own.entry(name.clone()).or_insert(own.incarnation);
            *highest = own.incarnation.max(*highest);
        }
        let stride = permissions.stride;
        if self.seen.get(&process).is_some_and(|seen| version - seen.version < stride) {
            return Ok(());
        }
        let Seen { members: mut known, .. } = self.seen.remove(&process).unwrap_or_default();
        let mut peers = 0;
        for (peer, state) in node.gossip().peers() {
            let incarnation = peer.incarnation;
            if peer.name != *name {
                self.is_the_owners(process, &peer.name, incarnation)?;
                if state == PeerState::Left && !permissions.may_leave.contains(&peer.name) {
                    let (who, name) = (shown(process), &peer.name);
                    return broken("G2", format!("{who} has {name} as left, which never left"));
                }
                let accused = matches!(state, PeerState::Suspect | PeerState::Dead);
                if accused && permissions.quiet {
                    let (who, name) = (shown(process), &peer.name);
                    return broken("G4", format!("{who} has {name} as {state:?} without a fault"));
                }
            }
            peers += 1;
            match known.get_mut(&peer.name) {
                // A machine that takes over a name begins anew.
                Some((then, at)) if *then > incarnation && *at == peer.address => {
                    let who = shown(process);
                    let name = &peer.name;
                    return broken("G1", format!("{who} has {name} at {incarnation} after {then}"));
                }
                Some(then) => *then = (incarnation, peer.address),
                None => {
                    known.insert(peer.name.clone(), (incarnation, peer.address));
                }
            }
        }
        if peers < known.len() {
            // Who was forgotten may begin again.
            let peers = node.gossip().peers();
            known = peers.map(|(p, _)| (p.name.clone(), (p.incarnation, p.address))).collect();
        }
        self.seen.insert(process, Seen { version, members: known });
        Ok(())
    }

    /// G2 at the Serf layer, whose statuses the catalog follows.
    fn look_at_statuses(
        &mut self,
        process: Process,
        node: &Node,
        permissions: &Permissions,
    ) -> Result<(), Violation> {
        let version = node.serf().version();
        if self.statuses.get(&process).is_some_and(|then| version - then < permissions.stride) {
            return Ok(());
        }
        self.statuses.insert(process, version);
        let falsely_left = |member: &&Member| {
            let left = member.status == MemberStatus::Left;
            left && !permissions.may_leave.contains(&member.name)
        };
        if let Some(member) = node.members().find(falsely_left) {
            let (who, name) = (shown(process), &member.name);
            return broken("G2", format!("{who} shows {name} as left, which never left"));
        }
        Ok(())
    }

    fn is_the_owners(
        &self,
        process: Process,
        name: &NodeName,
        incarnation: Incarnation,
    ) -> Result<(), Violation> {
        match self.own.get(name) {
            Some(own) if incarnation > *own => {
                let who = shown(process);
                broken("G1", format!("{who} has {name} at {incarnation}, itself only at {own}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
