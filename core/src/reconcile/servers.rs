//! Which voter to add or remove next, by what Serf says of the servers.
//!
//! - Source: raft.md §10.3, §10.4; cluster-behaviour.md §2, §7. Failed servers keep their vote.

use super::World;
use crate::id::NodeId;
use crate::serf::{Member, MemberStatus};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// One change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerStep {
    Add(NodeId, SocketAddr),
    Remove(NodeId),
}

/// The first change that is due; `skip` are servers whose change failed, `forgotten` those that
/// Serf forgot. This leader never removes itself.
pub(super) fn next(
    world: &World<'_>,
    own: NodeId,
    skip: &BTreeSet<NodeId>,
    forgotten: &BTreeSet<NodeId>,
) -> Option<ServerStep> {
    let voters = &world.configuration.voters;
    let alive = |member: &&Member| member.status == MemberStatus::Alive && world.is_here(member);
    for server in world.members.iter().filter(alive).filter_map(Member::server) {
        let votes = voters.get(&server.id).is_some_and(|voter| voter.address == server.address);
        if !votes && !skip.contains(&server.id) {
            return Some(ServerStep::Add(server.id, server.address));
        }
    }
    let may_go = voters.keys().filter(|id| **id != own && !skip.contains(*id));
    may_go.copied().find(|id| goes(world, id, forgotten)).map(ServerStep::Remove)
}

/// Whether a voter left, is a client by now, or is forgotten. A live server of this identity,
/// under whichever name, keeps it.
fn goes(world: &World<'_>, id: &NodeId, forgotten: &BTreeSet<NodeId>) -> bool {
    let mut known = false;
    let mut gone = false;
    for member in world.members.iter().filter(|it| it.id() == Some(*id) && world.is_here(it)) {
        known = true;
        match member.status {
            MemberStatus::Alive if member.is_client() => gone = true,
            MemberStatus::Alive | MemberStatus::Leaving | MemberStatus::Failed => return false,
            MemberStatus::Left => gone = true,
        }
    }
    gone || !known && forgotten.contains(id)
}
