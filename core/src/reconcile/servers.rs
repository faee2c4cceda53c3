//! Which change of the configuration is next, by what Serf says of the servers and by how they do
//! (raft.md §10.3, §10.4; cluster-behaviour.md §2, §7).
//!
//! A new server is a learner until it has been healthy for a while. One that failed keeps its vote
//! until the others are better off without it: with an even number of voters, which is so once a
//! replacement votes, they survive as many failures without it as with it; or until it is not
//! coming back.
//!
//! Differs: Consul 1.8.7 removes a failed voter at once, replaced or not, so that two of three
//! servers are left, which survive no failure at all.

use super::World;
use super::health::Watch;
use crate::catalog::autopilot::AutopilotConfig;
use crate::id::NodeId;
use crate::raft::Change;
use crate::serf::{Member, MemberStatus, ServerInfo};
use std::collections::BTreeSet;

/// What the next change depends on beside the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grounds<'a> {
    /// This leader; it changes nothing about itself.
    pub(super) own: NodeId,
    /// Servers whose change failed.
    pub(super) skip: &'a BTreeSet<NodeId>,
    /// Servers that Serf forgot.
    pub(super) forgotten: &'a BTreeSet<NodeId>,
    /// How the servers do.
    pub(super) watch: &'a Watch,
    pub(super) config: AutopilotConfig,
}

/// The first change that is due.
pub(super) fn next(world: &World<'_>, grounds: Grounds<'_>) -> Option<Change> {
    let Grounds { own, skip, forgotten, watch, config } = grounds;
    let configuration = world.configuration;
    for server in alive(world).filter(|server| !skip.contains(&server.id)) {
        let known = configuration.servers().find(|(id, _)| **id == server.id);
        // One that speaks for another store was wiped: it counts again once it is added with that.
        let wiped = world.replication.replicas.get(&server.id).is_some_and(|it| !it.counts);
        if wiped || known.is_none_or(|(_, known)| known.address != server.address) {
            return Some(Change::Add { server: server.id, address: server.address });
        }
        let voter = configuration.is_voter(server.id);
        if voter && !server.votes && server.id != own {
            return Some(Change::Demote(server.id));
        }
        if !voter && server.votes && watch.is_stable(server.id) {
            return Some(Change::Promote(server.id));
        }
    }
    let others = configuration.servers().map(|(id, _)| *id);
    let mut others = others.filter(|id| *id != own && !skip.contains(id));
    let goes = |id: &NodeId| {
        goes(world, id, forgotten)
            || config.cleanup_dead_servers && watch.is_failed(*id) && spared(world, *id, grounds)
    };
    others.find(goes).map(|server| Change::Remove { server, force: false })
}

/// The servers of this datacenter that are there.
fn alive<'a>(world: &World<'a>) -> impl Iterator<Item = ServerInfo> + use<'a> {
    let (members, world) = (world.members, *world);
    members
        .iter()
        .filter(move |member| member.status == MemberStatus::Alive && world.is_here(member))
        .filter_map(Member::server)
}

/// Whether a server left, is a client by now, or is forgotten. A live server of this identity,
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

/// Whether the others are better off without a server that failed, or it is not coming back.
fn spared(world: &World<'_>, id: NodeId, grounds: Grounds<'_>) -> bool {
    let voters = world.configuration.voters.len();
    if !world.configuration.is_voter(id) {
        return true;
    }
    let enough = voters as u64 > grounds.config.min_quorum;
    enough && (voters.is_multiple_of(2) || grounds.watch.is_given_up(id))
}
