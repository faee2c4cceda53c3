//! Enough servers to go on are healed while the others stay as broken as they are made here
//! (simulation.md §7, phases 3 and 4; §9.4).
//!
//! Which servers are enough is a matter of proof, not of patience: a quorum of voters, by every
//! configuration that a winner of an election may go by, whose disks hold what they acknowledged.

use super::Run;
use crate::checker::{Expectation, Violation};
use crate::disk::Crash;
use crate::host::Host;
use crate::luck::{Luck, Purpose};
use crate::net::{HostId, NetOptions};
use crate::recover::inspect;
use std::collections::BTreeSet;
use std::time::Duration;
use terraform_core::id::{LogIndex, Term};
use terraform_core::log::Position;
use terraform_core::raft::{Configuration, Entry, EntryKind, Raft, RoleKind};
use terraform_core::wire::pack;

/// How long an election may take, in heartbeat and election timeouts: ten of each, of a second.
const ELECTION_LIMIT: Duration = Duration::from_secs(20);
/// How long a leader may take until everybody has heard of its term.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// How long nobody may campaign then.
const STABLE_TIME: Duration = Duration::from_secs(15);
/// How long it may take until every server of the quorum holds what one of them had committed:
/// disks are slow, and blocks of snapshots small.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(240);
/// Time between looks.
const LOOK: Duration = Duration::from_millis(20);

impl Run {
    /// Heals a quorum, and breaks the others for good, in three worlds of four: the quorum elects a
    /// leader, nobody disturbs it, and it goes on.
    pub(super) fn heal_a_quorum(&mut self) -> Result<(), Violation> {
        let mut luck = Luck::of(self.record.seed, Purpose::Quorum, 0, self.world.now);
        if self.checkers.permissions.quiet || !luck.chance(3, 4) {
            return Ok(());
        }
        let Some(quorum) = self.choose_quorum(&mut luck) else { return Ok(()) };
        let agents = self.record.servers..self.world.hosts.len();
        let healed: BTreeSet<HostId> =
            agents.filter(|_| luck.chance(1, 2)).chain(quorum.iter().copied()).collect();
        self.world.note(format!("= the hosts {healed:?} are healed, {quorum:?} are a quorum"));
        self.record.until = self.record.until.min(self.world.now);
        self.source.end();
        self.world.net.heal();
        self.world.net.set_options(NetOptions::quiet());
        for host in 0..self.world.hosts.len() {
            if healed.contains(&host) {
                self.repair(host);
                if self.world.hosts[host].running.is_none() {
                    self.start(host)?;
                }
            } else {
                self.break_for_good(host, &healed, &mut luck);
            }
        }
        self.goes_on(&quorum)
    }

    /// I15, I16: the quorum elects a leader in time, which leads until something happens to it, and
    /// everybody in it gets what is committed.
    fn goes_on(&mut self, quorum: &BTreeSet<HostId>) -> Result<(), Violation> {
        while quorum.iter().any(|host| self.world.is_held_up(*host)) {
            self.advance(LOOK, true)?;
        }
        let patience = self.record.plan().patience();
        let took = self.elect(quorum, ELECTION_LIMIT * patience)?;
        self.elections.after_healing = Some(took);
        self.advance(SETTLE_TIME * patience, true)?;
        let Some((leader, term, commit)) = self.leader_among(quorum) else {
            let facts = format!("the quorum {quorum:?} has lost its leader");
            return Err(Violation { rule: "I15", facts });
        };
        self.advance(STABLE_TIME, true)?;
        if let Some(other) =
            quorum.iter().find(|host| self.raft(**host).map(Raft::term) != Some(term))
        {
            let now = self.raft(*other).map(Raft::term);
            let facts = format!(
                "host {leader} led the quorum {quorum:?} in term {term}, host {other} is at {now:?} now"
            );
            return Err(Violation { rule: "I16", facts });
        }
        let end = self.world.now + CATCH_UP_LIMIT;
        loop {
            let behind =
                |host: &&HostId| self.raft(**host).is_none_or(|raft| raft.applied() < commit);
            let Some(other) = quorum.iter().find(behind) else { return Ok(()) };
            if self.world.now >= end {
                let facts = format!(
                    "host {other} has not applied {commit}, which its leader {leader} had committed"
                );
                return Err(Violation { rule: "I15", facts });
            }
            self.advance(LOOK, true)?;
        }
    }

    /// I15: one of these leads and commits within `limit`; how long that took.
    pub(super) fn elect(
        &mut self,
        hosts: &BTreeSet<HostId>,
        limit: Duration,
    ) -> Result<Duration, Violation> {
        let start = self.world.now;
        while self.leader_among(hosts).is_none() {
            if self.world.now.since(start) >= limit {
                let facts = format!("the hosts {hosts:?} have no leader that commits");
                return Err(Violation { rule: "I15", facts });
            }
            self.advance(LOOK, true)?;
        }
        Ok(self.world.now.since(start))
    }

    pub(super) fn raft(&self, host: HostId) -> Option<&Raft> {
        self.world.hosts[host].running.as_ref()?.node.raft()
    }

    /// The leader among these that has committed in its term: with its term, and how far.
    pub(super) fn leader_among(
        &self,
        hosts: &BTreeSet<HostId>,
    ) -> Option<(HostId, Term, LogIndex)> {
        let leads = |host: &HostId| {
            let raft = self.raft(*host).filter(|raft| raft.role() == RoleKind::Leader)?;
            let ready = raft.applied_term() == raft.term();
            ready.then(|| (*host, raft.term(), raft.commit()))
        };
        hosts.iter().filter_map(leads).max_by_key(|(_, term, _)| *term)
    }

    /// A host that is not healed is off, cut off, hears nothing, or is not heard.
    fn break_for_good(&mut self, host: HostId, healed: &BTreeSet<HostId>, luck: &mut Luck) {
        self.back_at[host] = None;
        let (is_on, hears, is_heard) = match luck.below(4) {
            0 => (false, false, false),
            1 => (true, false, false),
            2 => (true, false, true),
            _ => (true, true, false),
        };
        if !self.world.hosts[host].is_up() {
            return;
        }
        // Who sleeps now may wake up with the right to lead, and who leaves is gone soon.
        let goes = self.world.is_held_up(host) || self.expected[host] == Expectation::Left;
        if goes || !is_on {
            self.take_down(host, Crash::Process);
            self.expected[host] = Expectation::Failed;
            return;
        }
        let facts = format!("/ host {host} hears the others: {hears}, is heard: {is_heard}");
        self.world.note(facts);
        for other in healed {
            if !is_heard {
                self.world.net.cut(host, *other);
            }
            if !hears {
                self.world.net.cut(*other, host);
            }
        }
    }

    /// Some servers that are enough to go on, if there are any.
    fn choose_quorum(&self, luck: &mut Luck) -> Option<BTreeSet<HostId>> {
        let configurations = self.configurations();
        let mut able: Vec<HostId> =
            (0..self.record.servers).filter(|host| self.is_able(*host, &configurations)).collect();
        let mut quorum = BTreeSet::new();
        while !self.is_enough(&quorum, &configurations) {
            let at = usize::try_from(luck.below(able.len() as u64))
                .ok()
                .filter(|at| *at < able.len())?;
            quorum.insert(able.remove(at));
        }
        quorum.extend(able.into_iter().filter(|_| luck.chance(1, 3)));
        Some(quorum)
    }

    /// The configurations that whoever wins an election may go by: the newest committed one, and
    /// those that stand in some log and are not known to be committed.
    fn configurations(&self) -> Vec<Configuration> {
        let is_committed = |(position, _): &(Position, Configuration)| {
            self.checkers.is_committed(position.index, position.chain)
        };
        let hosts = self.world.hosts.iter().take(self.record.servers);
        let mut known: Vec<(Position, Configuration)> = hosts.flat_map(in_log).collect();
        // Whoever holds another history than the committed one cannot win.
        known.retain(|known| is_committed(known) != Some(false));
        known.sort_by_key(|(position, _)| position.index);
        let newest = known.iter().rposition(|known| is_committed(known) == Some(true));
        let later = known.split_off(newest.unwrap_or(known.len()));
        later.into_iter().map(|(_, configuration)| configuration).collect()
    }

    /// Whether a server votes in all of these with the store it has, which is whole.
    fn is_able(&self, host: HostId, configurations: &[Configuration]) -> bool {
        let Ok(found) = inspect(&self.world.hosts[host]) else { return false };
        let Some(server) = found.server else { return false };
        let recovers = self.raft(host).is_some_and(Raft::is_recovering);
        let votes = |configuration: &Configuration| {
            let voter = configuration.voters.get(&found.node_id);
            voter.is_some_and(|voter| voter.store == server.raft.store)
        };
        self.expected[host] != Expectation::Left
            && server.raft.recovering.is_none()
            && !recovers
            && configurations.iter().all(votes)
    }

    /// Whether these are a quorum of each configuration, of which there is one, and remain one if a
    /// learner is promoted at this moment that nobody reaches any more.
    fn is_enough(&self, hosts: &BTreeSet<HostId>, configurations: &[Configuration]) -> bool {
        let ids = |host: &HostId| inspect(&self.world.hosts[*host]).ok().map(|found| found.node_id);
        let ids: Vec<_> = hosts.iter().filter_map(ids).collect();
        let quorum = |configuration: &Configuration| {
            let there = ids.iter().filter(|id| configuration.voters.contains_key(*id)).count();
            let promoted = usize::from(!configuration.learners.is_empty());
            there * 2 > configuration.voters.len() + promoted
        };
        !configurations.is_empty() && configurations.iter().all(quorum)
    }
}

/// The configurations in the log of a server, and the one it begins with, by position.
fn in_log(host: &Host) -> Vec<(Position, Configuration)> {
    let decode = |entry: &Entry| {
        let config = entry.kind == EntryKind::Config;
        config.then(|| Some((entry.position(), pack::from_bytes(&entry.payload).ok()?))).flatten()
    };
    if let Some(raft) = host.running.as_ref().and_then(|running| running.node.raft()) {
        let mut found: Vec<_> = raft.entries().filter_map(decode).collect();
        if found.is_empty() {
            found.push((raft.log_base(), raft.configuration().clone()));
        }
        return found;
    }
    let Some(server) = inspect(host).ok().and_then(|found| found.server) else { return Vec::new() };
    let mut found: Vec<_> = server.raft.entries.iter().filter_map(decode).collect();
    if found.is_empty() {
        let snapshot = server.raft.snapshot.as_ref();
        found.extend(snapshot.map(|meta| (meta.position(), meta.configuration.clone())));
    }
    found
}
