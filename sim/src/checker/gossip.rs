//! Membership, with the world's knowledge of every member's own word (simulation.md §9.2).

use super::{Permissions, Violation, broken, shown};
use crate::streams::Process;
use std::collections::BTreeMap;
use terraform_core::id::{Incarnation, NodeName};
use terraform_core::node::Node;
use terraform_core::serf::{Member, MemberStatus};
use terraform_core::wire::gossip::PeerState;

/// The rules G1, G2 and G4.
#[derive(Debug, Default)]
pub(super) struct GossipChecker {
    /// What each process last knew of each member, and at which version of its table.
    seen: BTreeMap<Process, (u64, BTreeMap<NodeName, Incarnation>)>,
    /// At which version each process's Serf statuses were looked at.
    statuses: BTreeMap<Process, u64>,
    /// The highest incarnation each member gave itself.
    own: BTreeMap<NodeName, Incarnation>,
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
        let version = node.gossip().version();
        if self.seen.get(&process).is_some_and(|(then, _)| *then == version) {
            return Ok(());
        }
        let name = node.name();
        let (_, mut known) = self.seen.remove(&process).unwrap_or_default();
        let mut peers = 0;
        for (peer, state) in node.gossip().peers() {
            let incarnation = peer.incarnation;
            if peer.name == *name {
                match self.own.get_mut(name) {
                    Some(own) => *own = incarnation.max(*own),
                    None => {
                        self.own.insert(name.clone(), incarnation);
                    }
                }
            } else {
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
                Some(then) if *then > incarnation => {
                    let who = shown(process);
                    let name = &peer.name;
                    return broken("G1", format!("{who} has {name} at {incarnation} after {then}"));
                }
                Some(then) => *then = incarnation,
                None => {
                    known.insert(peer.name.clone(), incarnation);
                }
            }
        }
        if peers < known.len() {
            // Who was forgotten may begin again.
            known = node.gossip().peers().map(|(p, _)| (p.name.clone(), p.incarnation)).collect();
        }
        self.seen.insert(process, (version, known));
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
        if self.statuses.insert(process, version) == Some(version) {
            return Ok(());
        }
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
