//! The loss of a quorum: most servers are gone for good, and those that are left begin anew with
//! `raft/peers.json` (raft.md §10.6).
//!
//! In a world at rest every server holds what was acknowledged, so nothing of it may be lost. One
//! of the others comes back as it was: it belongs to the old cluster, and nobody may take it in
//! until its disk is wiped. The rest comes back wiped.

use super::Run;
use crate::checker::{Expectation, Violation};
use crate::disk::{Crash, Loss};
use crate::luck::{Luck, Purpose};
use crate::net::HostId;
use crate::recover::inspect;
use crate::rot::Part;
use std::collections::BTreeSet;
use std::time::Duration;
use terraform_core::id::LogIndex;
use terraform_core::storage::recovery::Peer;

/// How long it may take until nothing is written for a moment, and how often that is looked at.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// How long the operator needs to see what happened.
const DOWN_TIME: Duration = Duration::from_secs(10);
/// How long the servers that are left may take to elect a leader.
const ELECTION_LIMIT: Duration = Duration::from_secs(30);
/// How long a server of the old cluster has to find its way in.
const STRANGER_TIME: Duration = Duration::from_secs(20);
/// Operations of a recovery that is interrupted, at most: some more than it has.
const OPS_MAX: u64 = 40;

impl Run {
    /// Loses most servers for good, and comes to rest with a new cluster of those that are left.
    pub(super) fn lose_the_quorum(&mut self) -> Result<(), Violation> {
        self.world.net.heal();
        self.come_to_rest()?;
        self.come_to_a_stop()?;
        let seed = self.record.seed;
        let mut luck = Luck::of(seed, Purpose::Disaster, 0, self.world.now);
        let votes = |host: &HostId| {
            self.world.hosts[*host].config.server.as_ref().is_some_and(|server| server.votes)
        };
        let mut left: Vec<HostId> = (0..self.record.servers).filter(votes).collect();
        if left.len() < 3 {
            return Ok(());
        }
        let count = 1 + luck.below((left.len() as u64 - 1) / 2);
        while left.len() as u64 > count {
            let at = usize::try_from(luck.below(left.len() as u64)).unwrap_or(0);
            left.remove(at);
        }
        let mut lost: Vec<HostId> =
            (0..self.record.servers).filter(|host| !left.contains(host)).collect();
        self.world.note(format!("= of the servers only the hosts {left:?} are left"));
        for host in lost.iter().chain(&left) {
            let is_lost = lost.contains(host);
            let crash = if is_lost { Crash::Power(Loss::Mixed) } else { Crash::Process };
            self.take_down(*host, crash);
            self.expected[*host] = Expectation::Failed;
        }
        self.advance(DOWN_TIME, true)?;
        self.begin_anew(&left, &mut luck)?;

        let at = usize::try_from(luck.below(lost.len() as u64)).unwrap_or(0);
        let stranger = lost.remove(at);
        self.stays_a_stranger(stranger)?;
        lost.push(stranger);
        for host in lost {
            self.world.rot(host, Part::Store, 0);
            self.start(host)?;
            self.advance(luck.jitter(DOWN_TIME), true)?;
        }
        self.hang_up()?;
        self.come_to_rest()?;
        self.judge_history()
    }

    /// Waits for a moment at which every server has the same on its disk, and nothing is on its way
    /// there: the leader writes now and then by itself.
    fn come_to_a_stop(&mut self) -> Result<(), Violation> {
        let end = self.world.now + STOP_LIMIT;
        loop {
            let servers = self.world.hosts.iter().take(self.record.servers);
            let rafts = servers.map(|host| host.running.as_ref()?.node.raft());
            let states = rafts.map(|raft| {
                let raft = raft.filter(|raft| raft.persisting_since().is_none())?;
                (raft.last_index() == raft.commit()).then(|| raft.commit())
            });
            let states: BTreeSet<Option<LogIndex>> = states.collect();
            if states.len() == 1 && !states.contains(&None) {
                return Ok(());
            }
            if self.world.now >= end {
                let facts = format!("the logs of servers at rest end at {states:?}");
                return Err(Violation { rule: "I15", facts });
            }
            self.advance(LOOK, false)?;
        }
    }

    /// Those that are left elect a leader, though the power fails while some of them begin.
    fn begin_anew(&mut self, left: &[HostId], luck: &mut Luck) -> Result<(), Violation> {
        let mut peers = Vec::new();
        for host in left {
            let host = &self.world.hosts[*host];
            let found = inspect(host).map_err(|facts| Violation { rule: "R18", facts })?;
            let id = luck.chance(1, 2).then_some(found.node_id);
            peers.push(Peer { id, address: host.config.server_address(), votes: true });
        }
        for host in left {
            self.world.name_peers(*host, &peers);
            while luck.chance(2, 3) {
                let most = usize::try_from(luck.below(OPS_MAX)).unwrap_or(0);
                self.world.start_in_vain(*host, most);
            }
            self.start(*host)?;
        }
        self.elect(&left.iter().copied().collect(), ELECTION_LIMIT).map(|_| ())
    }

    /// K13: a server of the old cluster is a stranger to the new one.
    fn stays_a_stranger(&mut self, host: HostId) -> Result<(), Violation> {
        let found = inspect(&self.world.hosts[host]);
        let found = found.map_err(|facts| Violation { rule: "R18", facts })?;
        let store = found.server.map(|server| server.raft.store);
        self.start(host)?;
        self.advance(STRANGER_TIME, true)?;
        for other in (0..self.record.servers).filter(|other| *other != host) {
            let running = self.world.hosts[other].running.as_ref();
            let Some(raft) = running.and_then(|running| running.node.raft()) else { continue };
            if raft.configuration().servers().any(|(_, server)| Some(server.store) == store) {
                let facts = format!("host {other} takes host {host} of the old cluster in");
                return Err(Violation { rule: "K13", facts });
            }
        }
        self.take_down(host, Crash::Process);
        self.expected[host] = Expectation::Failed;
        Ok(())
    }
}
