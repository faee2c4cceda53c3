//! How a world ends: it is healed, comes to rest, restarts from its disks, and keeps one cut
//! (simulation.md §7, phases 3 to 6).

use super::Run;
use crate::checker::watch::none_waits;
use crate::checker::{Expectation, Violation};
use crate::disk::{Crash, Loss};
use crate::kv::history::Outcome;
use crate::kv::{self, Ask, KvAction};
use crate::net::{HostId, NetOptions};
use crate::question::Question;
use std::collections::BTreeSet;
use std::time::Duration;
use terraform_core::catalog::query::Consistency;
use terraform_core::raft::Raft;

/// How long a healed world may take to come to rest: reconnects are tried every 30 s by chance,
/// a full synchronisation takes two minutes at most, and both may be needed one after the other.
const REST_LIMIT: Duration = Duration::from_secs(600);
/// How long servers may take to hear that nobody waits for a read any more.
const HANG_UP_TIME: Duration = Duration::from_secs(1);
/// How long a cluster may be without a leader that commits once its leader is killed: two heartbeat
/// timeouts and an election timeout, of a second each.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
/// Syncs one after the other that an election and its first commit take at most.
const SYNCS: u32 = 6;
/// What those that are slow take beyond what is usual, and messages.
const SLOW_SYNC: Duration = Duration::from_millis(500);
/// How long the power is gone everywhere.
const OUTAGE: Duration = Duration::from_secs(3);
/// How long anybody waits for an answer at most: for a leader (7 s), and for the answer (10 s).
const PATIENCE: Duration = Duration::from_secs(18);
/// How long anybody at rest takes for an answer: to and from the leader, which asks a quorum.
const ANSWER_TIME: Duration = Duration::from_millis(200);
/// How long one link stays cut at the end.
const CUT_TIME: Duration = Duration::from_secs(15);

impl Run {
    /// Everything is repaired: links, machines, losses.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.world.note("= everything is healed");
        self.record.until = self.record.until.min(self.world.now);
        self.source.end();
        self.world.net.heal();
        self.world.net.set_options(NetOptions::quiet());
        (0..self.world.hosts.len()).for_each(|host| self.repair(host));
        // A leave that began comes to its end, and everybody comes back.
        self.advance(Duration::from_secs(45), true)?;
        self.checkers.kv.none_outlives_its_time(self.world.now)?;
        for host in 0..self.world.hosts.len() {
            if self.world.hosts[host].running.is_none() {
                self.start(host)?;
            }
            self.back_at[host] = None;
            self.expected[host] = Expectation::Up;
        }
        Ok(())
    }

    /// A machine works again, once it is through with a pause.
    pub(super) fn repair(&mut self, host: HostId) {
        self.world.hosts[host].disk.heal_syncs();
        if self.world.hosts[host].full_until.is_some() {
            self.world.empty_disk(host);
        }
    }

    /// Phase 6: everything restarts from its disk after a loss of power, and whatever was there
    /// at rest is there again: nothing lives in memory alone.
    pub(super) fn restart_everything(&mut self) -> Result<(), Violation> {
        self.world.note("= the power fails everywhere");
        self.checkers.permissions.quiet = false;
        let hosts = 0..self.world.hosts.len();
        for host in hosts.clone() {
            self.take_down(host, Crash::Power(Loss::Mixed));
            self.expected[host] = Expectation::Failed;
        }
        self.advance(OUTAGE, false)?;
        for host in hosts {
            self.start(host)?;
        }
        self.come_to_rest()?;
        self.ask_everybody()?;
        self.judge_history()
    }

    /// I15: the leader of a world at rest is killed; another one leads in time, and it comes back.
    pub(super) fn lose_the_leader(&mut self) -> Result<(), Violation> {
        let servers: BTreeSet<HostId> = (0..self.record.servers).collect();
        let Some((leader, ..)) = self.leader_among(&servers) else { return Ok(()) };
        if self.voters(leader) < 3 {
            return Ok(());
        }
        self.checkers.permissions.quiet = false;
        self.take_down(leader, Crash::Process);
        self.expected[leader] = Expectation::Failed;
        let plan = self.record.plan();
        let limit = FAILOVER_LIMIT * plan.patience() + plan.world.disk_latency * SYNCS + SLOW_SYNC;
        let took = self.elect(&servers, limit)?;
        self.elections.after_a_crash = Some(took);
        self.start(leader)?;
        self.hang_up()?;
        self.come_to_rest()?;
        self.judge_history()
    }

    /// How many voters a server knows.
    fn voters(&self, host: HostId) -> usize {
        self.raft(host).map_or(0, |raft| raft.configuration().voters.len())
    }

    /// R16: once all is well, one link between the leader and another voter stays cut. The voter
    /// that does not hear the leader must not disturb those that do: nobody campaigns.
    pub(super) fn keep_a_cut(&mut self) -> Result<(), Violation> {
        let servers: BTreeSet<HostId> = (0..self.record.servers).collect();
        let Some((leader, term, _)) = self.leader_among(&servers) else { return Ok(()) };
        let other = servers.iter().copied().find(|host| *host != leader);
        let Some(other) = other.filter(|_| self.voters(leader) > 2) else { return Ok(()) };
        self.world.note(format!("/ hosts {leader} and {other} stay cut apart"));
        self.world.net.partition(&[leader], &[other]);
        self.advance(CUT_TIME, false)?;
        for host in servers {
            let now = self.raft(host).map(Raft::term);
            if now != Some(term) {
                let facts = format!(
                    "host {other} did not hear its leader {leader} of term {term}; host {host} is \
                     at {now:?} now"
                );
                return Err(Violation { rule: "R16", facts });
            }
        }
        Ok(())
    }

    /// C5, C10: whoever asks any agent of a world at rest for all keys has an answer, and whatever
    /// happened before, it is what the log makes of them. Clients judge that as they always do.
    pub(super) fn ask_everybody(&mut self) -> Result<(), Violation> {
        // Whoever still waits for something has its answer, or none, by then.
        self.advance(PATIENCE, false)?;
        for consistency in [Consistency::Stale, Consistency::Consistent] {
            for host in 0..self.world.hosts.len() {
                let (client, question) = (host % kv::CLIENTS, Question::Tree(String::new()));
                let ask = Ask::Read { question, consistency, view: false };
                let action = KvAction { client, host, ask };
                let asked = usize::try_from(self.workload.kv.history.next_id()).unwrap_or(0);
                self.workload.kv.perform(&mut self.world, &mut self.checkers.kv, &action)?;
                self.advance(ANSWER_TIME, false)?;
                let told = self.workload.kv.history.records().get(asked);
                if !told.is_some_and(|record| matches!(record.outcome, Outcome::Answered(_))) {
                    let facts = format!("host {host} has no answer at rest: {told:?}");
                    return Err(Violation { rule: "I15", facts });
                }
            }
        }
        self.checkers.kv.none_outlives_its_time(self.world.now)
    }

    /// R20: once those that watch have hung up, no server keeps what they asked.
    pub(super) fn hang_up(&mut self) -> Result<(), Violation> {
        self.workload.watchers.leave(&mut self.world)?;
        self.advance(HANG_UP_TIME, false)?;
        none_waits(&self.world, &self.workload.watchers.gone)
    }

    /// Waits until everything that must hold at rest does, or gives up.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        let end = self.world.now + REST_LIMIT;
        loop {
            self.advance(Duration::from_secs(5), false)?;
            match self.is_at_rest() {
                Ok(()) => return self.checkers.kv.none_outlives_its_time(self.world.now),
                Err(violation) if self.world.now >= end => return Err(violation),
                Err(_) => {}
            }
        }
    }
}
