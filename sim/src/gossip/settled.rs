//! What must hold once everything is healed: G3, G5, G6, G7 and G8 (simulation.md §9.2).

use super::plan::GossipFault;
use super::{Fate, GossipRun};
use crate::checker::{Violation, broken};
use crate::host::address_of;
use crate::net::HostId;
use std::net::SocketAddr;
use std::time::Duration;
use terraform_core::id::PoolName;
use terraform_core::node::Node;
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::serf::MemberStatus;
use terraform_core::wire::gossip::PeerState;

/// How long a healed pool may take to agree: members that lost each other are tried every 30 s by
/// chance, and several such meetings may be needed one after the other.
const AGREE_LIMIT: Duration = Duration::from_secs(600);
/// The oldest packet that may still be on its way.
const STALE: Duration = Duration::from_secs(25);
/// After a restart of somebody everybody has forgotten.
const RETURN_LIMIT: Duration = Duration::from_secs(120);
/// Datagrams that a member may send in a second on average: 15 of gossip, at most `4 k + 2` of
/// probes (gossip-protocol.md §25), and as much again for what is asked and fired here.
const DATAGRAMS_MAX: u64 = 60;

impl GossipRun {
    /// Everybody comes back, and all agree.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let absent = |member: &super::Member| match member.fate {
            Fate::Down(until) => Some(until),
            Fate::Up | Fate::Gone => None,
        };
        while let Some(until) = self.members.iter().filter_map(absent).max() {
            let wait = until.max(self.world.now).since(self.world.now);
            self.advance(wait + Duration::from_secs(2))?;
        }
        let held = |host: &crate::host::Host| host.paused_until.max(host.blocked_until);
        let awake = self.world.hosts.iter().filter_map(held).max().unwrap_or(self.world.now);
        let wait = awake.max(self.world.now).since(self.world.now);
        self.advance(wait + STALE)?;
        if self.plan.faults.contains(&GossipFault::Move) {
            self.join_islands();
        }
        self.until(AGREE_LIMIT, all_agree)?;
        self.rate()
    }

    /// Members that came back without their memory may have met only some of the others, and those
    /// may be gone. As after any such loss, it takes an operator to join what is left.
    fn join_islands(&mut self) {
        let up: Vec<HostId> = self.up().map(|member| self.members[member].host).collect();
        let addresses: Vec<SocketAddr> =
            up.iter().take(8).map(|id| SocketAddr::new(address_of(*id), 8301)).collect();
        for host in up {
            let join = RequestBody::Join {
                pool: PoolName::Lan,
                addresses: addresses.clone(),
                replay: false,
            };
            self.world.request(host, Request::new(join));
        }
    }

    /// G7: those that are gone for good are forgotten in their time, and their names are free.
    pub(super) fn outlive(&mut self) -> Result<(), Violation> {
        let gone = self.members.iter().position(|member| member.fate == Fate::Gone);
        let Some(gone) = gone else { return Ok(()) };
        let serf = self.plan.config(0).serf;
        let end = self.world.now + serf.reconnect_timeout.max(serf.tombstone_timeout);
        while self.world.now < end {
            self.advance(Duration::from_secs(10))?;
            stays_gone(self)?;
        }
        // One that failed may turn into one that left late, and is kept for another while then.
        self.until(serf.tombstone_timeout + serf.reap_interval * 4, is_forgotten)?;
        self.world.note("= a forgotten member comes back");
        self.start(gone)?;
        self.give_key(gone)?;
        self.until(RETURN_LIMIT, all_agree)
    }

    /// G8: nobody sends without end.
    fn rate(&self) -> Result<(), Violation> {
        let seconds = self.world.now.as_nanos() / 1_000_000_000;
        let limit = DATAGRAMS_MAX * seconds * self.members.len() as u64;
        if self.world.datagrams > limit {
            let sent = self.world.datagrams;
            return broken("G8", format!("{sent} datagrams were sent, {limit} are allowed"));
        }
        Ok(())
    }

    pub(super) fn node(&self, host: HostId) -> Option<&Node> {
        self.world.hosts[host].running.as_ref().map(|running| &running.node)
    }
}

/// G3, G5, G6: everybody who runs has everybody who runs as alive, with its own address, tags and
/// incarnation, and everybody who is gone as gone.
pub(super) fn all_agree(run: &GossipRun) -> Result<(), Violation> {
    for observer in run.up() {
        let host = run.members[observer].host;
        let Some(node) = run.node(host) else { continue };
        for subject in run.up() {
            agrees(run, host, node, subject)?;
        }
    }
    stays_gone(run)
}

fn agrees(run: &GossipRun, host: HostId, node: &Node, subject: usize) -> Result<(), Violation> {
    let subject = &run.members[subject];
    let name = &subject.name;
    let Some(own) = run.node(subject.host) else { return Ok(()) };
    let seen = node.serf().member(name);
    if seen.map(|member| member.status) != Some(MemberStatus::Alive) {
        let status = seen.map(|member| member.status);
        return broken("G6", format!("host {host} has {name} as {status:?}, it is alive"));
    }
    let itself = own.serf().member(name);
    let told = |member: &terraform_core::serf::Member| (member.address, member.tags.clone());
    if seen.map(told) != itself.map(told) {
        let facts = format!("host {host} has {name} as {seen:?}, it says {itself:?}");
        return broken("G5", facts);
    }
    let believed = |node: &Node| {
        let found = node.gossip().peer(name);
        found.map(|(peer, state)| (peer.incarnation, state))
    };
    let (here, there) = (believed(node), believed(own));
    if here != there {
        return broken("G5", format!("host {host} has {name} as {here:?}, it is {there:?}"));
    }
    Ok(())
}

/// G3, G7: nobody holds a member for alive that is gone for good.
pub(super) fn stays_gone(run: &GossipRun) -> Result<(), Violation> {
    for observer in run.up() {
        let host = run.members[observer].host;
        let Some(node) = run.node(host) else { continue };
        for member in run.members.iter().filter(|member| member.fate == Fate::Gone) {
            let name = &member.name;
            let status = node.serf().member(name).map(|member| member.status);
            let state = node.gossip().peer(name).map(|(_, state)| state);
            let there = matches!(status, Some(MemberStatus::Alive | MemberStatus::Leaving))
                || matches!(state, Some(PeerState::Alive | PeerState::Suspect));
            if there {
                let facts =
                    format!("host {host} has {name} as {status:?} and {state:?}, it is gone");
                return broken("G3", facts);
            }
        }
    }
    Ok(())
}

fn is_forgotten(run: &GossipRun) -> Result<(), Violation> {
    for observer in run.up() {
        let host = run.members[observer].host;
        let Some(node) = run.node(host) else { continue };
        for member in run.members.iter().filter(|member| member.fate == Fate::Gone) {
            if let Some(kept) = node.serf().member(&member.name) {
                let facts =
                    format!("host {host} still has {} as {}", kept.name, kept.status.as_str());
                return broken("G7", facts);
            }
        }
    }
    Ok(())
}
