//! How the servers do, as their leader sees it (cluster-behaviour.md §7).
//!
//! The leader looks every [`HEALTH_INTERVAL`]. It knows from its own replication what Consul asks
//! every server for: when it was heard of last, and how much of the log it holds.

use super::{Reconcile, World};
use crate::catalog::autopilot::AutopilotConfig;
use crate::id::{LogIndex, NodeId, NodeName, Term};
use crate::pack_struct;
use crate::raft::Unfit;
use crate::serf::{Member, MemberStatus};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Time between two looks.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between looks in which nothing is missed.
const BLINK_MAX: Duration = Duration::from_secs(3);
/// Heartbeats a server may miss before its silence counts, whatever the threshold says: what is
/// shorter than that is no silence.
const HEARTBEATS: u32 = 3;

/// How all servers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Voters that may fail before the others stop; those that are not healthy count as failed.
    pub failure_tolerance: u64,
    /// Each server, the voters first, by identity.
    pub servers: Vec<ServerHealth>,
}
pack_struct!(Health { failure_tolerance, servers });

/// How one server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its identity.
    pub id: NodeId,
    /// Its name, if gossip knows it.
    pub name: Option<NodeName>,
    /// Its server port.
    pub address: SocketAddr,
    /// Gossip's word for it; empty for one that it does not know.
    pub status: String,
    /// What it says it is, as in the tag `build`.
    pub version: String,
    /// Whether it leads.
    pub leader: bool,
    /// How long ago it was heard of.
    pub last_contact: Duration,
    /// The term of the last entry it holds.
    pub last_term: Term,
    /// The last entry it holds.
    pub last_index: LogIndex,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Whether it votes.
    pub voter: bool,
    /// For how long it has been healthy, or not.
    pub stable_for: Duration,
}
pack_struct!(ServerHealth {
    id,
    name,
    address,
    status,
    version,
    leader,
    last_contact,
    last_term,
    last_index,
    healthy,
    voter,
    stable_for,
});

/// What a leader remembers of how the servers do.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// When it looked last.
    looked_at: Option<Instant>,
    servers: BTreeMap<NodeId, Seen>,
    stable: BTreeSet<NodeId>,
    /// Servers that neither gossip nor consensus hears, and since when.
    failed: BTreeMap<NodeId, Instant>,
    given_up: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    healthy: bool,
    since: Instant,
}

impl Watch {
    /// Whether it was healthy for long enough to vote.
    pub(super) fn is_stable(&self, server: NodeId) -> bool {
        self.stable.contains(&server)
    }

    /// Whether nobody hears it.
    pub(super) fn is_failed(&self, server: NodeId) -> bool {
        self.failed.contains_key(&server)
    }

    /// Whether nobody has heard it for so long that it is not coming back.
    pub(super) fn is_given_up(&self, server: NodeId) -> bool {
        self.given_up.contains(&server)
    }

    /// Looks at every server of the configuration.
    pub(super) fn look(
        &mut self,
        now: Instant,
        world: &World<'_>,
        (config, grace): (AutopilotConfig, Duration),
    ) {
        if self.looked_at.replace(now).is_some_and(|at| now.since(at) > BLINK_MAX) {
            // A process that got no time hears at once what was said meanwhile, and may take it
            // for news: what it knew before counts no more, nor that it lasted.
            (self.servers, self.failed) = Default::default();
        }
        let (known, failed) = (std::mem::take(&mut self.servers), std::mem::take(&mut self.failed));
        let members = members(world);
        for (id, _) in world.configuration.servers() {
            let (status, heard) =
                (members.get(id).map(|it| it.status), is_heard(now, world, config, *id));
            let healthy =
                status == Some(MemberStatus::Alive) && heard && keeps_up(world, config, *id);
            let before = known.get(id).filter(|seen| seen.healthy == healthy);
            let since = before.map_or(now, |seen| seen.since);
            self.servers.insert(*id, Seen { healthy, since });
            if status == Some(MemberStatus::Failed) && !heard {
                self.failed.insert(*id, failed.get(id).copied().unwrap_or(now));
            }
        }
        let long =
            |seen: &Seen| seen.healthy && now.since(seen.since) >= config.server_stabilization_time;
        let stable = self.servers.iter().filter(|(_, seen)| long(seen));
        self.stable = stable.map(|(id, _)| *id).collect();
        let given_up = self.failed.iter().filter(|(_, since)| now.since(**since) >= grace);
        self.given_up = given_up.map(|(id, _)| *id).collect();
    }
}

/// The member of each identity, a live one rather than another.
fn members<'a>(world: &World<'a>) -> BTreeMap<NodeId, &'a Member> {
    let mut members: BTreeMap<NodeId, &Member> = BTreeMap::new();
    for member in world.members.iter().filter(|member| world.is_here(member)) {
        let Some(id) = member.id() else { continue };
        let known = members.entry(id).or_insert(member);
        if known.status != MemberStatus::Alive {
            *known = member;
        }
    }
    members
}

/// Whether consensus hears the server.
fn is_heard(now: Instant, world: &World<'_>, config: AutopilotConfig, id: NodeId) -> bool {
    let replication = world.replication;
    let patience = config.last_contact_threshold.max(replication.heartbeat_interval * HEARTBEATS);
    let replica = replication.replicas.get(&id);
    replica.is_some_and(|replica| replica.counts && now.since(replica.heard_at) <= patience)
}

/// Whether the server holds nearly everything that this leader holds, and its disk works.
fn keeps_up(world: &World<'_>, config: AutopilotConfig, id: NodeId) -> bool {
    let (last, term) = world.replication.last;
    world.replication.replicas.get(&id).is_some_and(|replica| {
        let fit = matches!(replica.unfit, None | Some(Unfit::NotVoter));
        fit && replica.term == term && last.above(replica.matched) <= config.max_trailing_logs
    })
}

impl Reconcile {
    /// How the servers do; nobody's health is known on a server that does not lead.
    pub fn health(&self, now: Instant, world: &World<'_>) -> Health {
        let members = members(world);
        let row = |(id, server): (&NodeId, &crate::raft::Server)| {
            let member = members.get(id);
            let replica = world.replication.replicas.get(id);
            let seen = self.watch.servers.get(id);
            let version = member.and_then(|it| it.tags.get("build"));
            ServerHealth {
                id: *id,
                name: member.map(|member| member.name.clone()),
                address: server.address,
                status: member.map(|it| it.status.as_str().to_owned()).unwrap_or_default(),
                version: version.unwrap_or_default().to_owned(),
                leader: *id == self.id,
                last_contact: replica.map_or(Duration::ZERO, |it| now.since(it.heard_at)),
                last_term: replica.map(|it| it.term).unwrap_or_default(),
                last_index: replica.map(|it| it.matched).unwrap_or_default(),
                healthy: seen.is_some_and(|seen| seen.healthy),
                voter: world.configuration.is_voter(*id),
                stable_for: seen.map_or(Duration::ZERO, |seen| now.since(seen.since)),
            }
        };
        let servers: Vec<ServerHealth> = world.configuration.servers().map(row).collect();
        let healthy = servers.iter().filter(|server| server.voter && server.healthy).count();
        let quorum = world.configuration.voters.len() / 2 + 1;
        Health { failure_tolerance: healthy.saturating_sub(quorum) as u64, servers }
    }
}
