//! One world from its start to its end: start, faults, healing, rest (simulation.md §7).

mod disaster;
mod ending;
mod quorum;

use crate::checker::{Checkers, Expectation, Violation, at_rest};
use crate::disk::Crash;
use crate::hash::TraceHash;
use crate::host::address_of;
use crate::kv;
use crate::luck::{Luck, Purpose};
use crate::net::HostId;
use crate::plan::Plan;
use crate::recover::inspect;
use crate::rot::Part;
use crate::script::{Blow, Script};
use crate::source::{NEVER, Source};
use crate::workload::Workload;
use crate::world::World;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use terraform_core::id::{NodeName, PoolName};
use terraform_core::marks;
use terraform_core::node::input::Input;
use terraform_core::node::output::StopReason;
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::raft::{Configuration, EntryKind, RestoredRaft};
use terraform_core::storage::recovery::Restored;
use terraform_core::time::Instant;
use terraform_core::wire::pack;

/// Time between looks of whoever operates the cluster.
const TICK: Duration = Duration::from_secs(1);
/// How long a server stays away whose disk failed.
const REPAIR_TIME: Duration = Duration::from_secs(3);
/// How long a host that has lost its pool waits before it joins again (`retry_interval`).
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the cluster is given to form before faults begin.
const START_TIME: Duration = Duration::from_secs(20);
/// How long it takes at most until every host of a newborn cluster is there.
const BIRTHS_TIME: Duration = Duration::from_secs(40);

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub hash: TraceHash,
    /// World time that passed.
    pub simulated: Duration,
    /// Events handled.
    pub events: u64,
    /// Operations of clients that were answered with success, and all that were answered.
    pub operations: (u64, u64),
    /// Committed entries.
    pub committed: usize,
    /// Keys whose history could not be judged without the log.
    pub undecided: usize,
    /// How long it was without a leader.
    pub elections: Elections,
}

/// How long a world was without a leader that commits (simulation.md §9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elections {
    /// Once a quorum of it was healed.
    pub after_healing: Option<Duration>,
    /// Once the leader of a world at rest was killed.
    pub after_a_crash: Option<Duration>,
}

/// A world with its clients, checkers and operator.
#[derive(Debug)]
pub struct Run {
    /// The world.
    pub world: World,
    /// Its clients.
    pub workload: Workload,
    /// Its rules.
    pub checkers: Checkers,
    expected: Vec<Expectation>,
    /// When each host that is down comes back.
    back_at: Vec<Option<Instant>>,
    /// Which hosts have started since the operator looked.
    started: Vec<bool>,
    /// When each host may join again.
    joins_at: Vec<Instant>,
    next_tick: Instant,
    source: Source,
    /// How long faults are drawn after the start; a script says itself when they end.
    length: Option<Duration>,
    /// What was decided so far.
    record: Script,
    /// Keys whose history was too long to judge.
    undecided: usize,
    /// Whether a server ever lost its store.
    wiped: bool,
    elections: Elections,
}

/// Runs the world of `plan` to its end.
pub fn run(plan: Plan) -> (Outcome, Run) {
    let mut run = Run::new(plan);
    (run.to_end(), run)
}

impl Run {
    /// A world whose hosts are all switched off.
    pub fn new(plan: Plan) -> Self {
        let mut record = Script::of_plan(&plan);
        record.until = NEVER;
        let quiet = plan.faults.is_empty() && plan.ambush.is_none();
        let length = Some(plan.length);
        Self::with(record, quiet, length, Source::drawn(plan, Instant::ZERO + START_TIME / 2))
    }

    /// The world of a script, whose hosts are all switched off.
    pub fn of_script(script: &Script) -> Self {
        let record = Script { blows: Vec::new(), actions: Vec::new(), ..script.clone() };
        Self::with(record, script.is_quiet(), None, Source::script(script))
    }

    fn with(record: Script, quiet: bool, length: Option<Duration>, source: Source) -> Self {
        let mut world = World::new(record.seed, record.world.clone());
        let plan = record.plan();
        for id in 0..record.hosts() {
            world.add_host(plan.config(id));
        }
        let mut checkers = Checkers::default();
        checkers.permissions.quiet = quiet;
        checkers.kv.deletions_last(plan.care.tombstones);
        Self {
            workload: Workload::new(record.seed),
            checkers,
            expected: vec![Expectation::Up; record.hosts()],
            back_at: vec![None; record.hosts()],
            started: vec![false; record.hosts()],
            joins_at: vec![Instant::ZERO; record.hosts()],
            next_tick: Instant::ZERO,
            source,
            length,
            record,
            undecided: 0,
            wiped: false,
            elections: Elections::default(),
            world,
        }
    }

    /// Goes to the end of the world, or to the first broken rule.
    pub fn to_end(&mut self) -> Outcome {
        marks::set_buggify(Some(self.record.seed));
        marks::set_always(self.record.always);
        let violation = self.phases().err();
        marks::set_buggify(None);
        marks::set_always(None);
        let world = &self.world;
        Outcome {
            violation,
            hash: world.hash(),
            simulated: world.now.since(Instant::ZERO),
            events: world.events,
            operations: (self.workload.succeeded, self.workload.answered),
            committed: self.checkers.committed(),
            undecided: self.undecided,
            elections: self.elections,
        }
    }

    /// What was decided in this world, as far as it went.
    pub fn script(&self) -> Script {
        let mut script = self.record.clone();
        script.until = script.until.min(self.world.now);
        script.healed(script.until);
        script
    }

    /// Notes what becomes of a host.
    pub fn expect(&mut self, host: HostId, expectation: Expectation) {
        self.expected[host] = expectation;
    }

    /// What each host is expected to be.
    pub fn expected(&self) -> &[Expectation] {
        &self.expected
    }

    /// How many of the hosts are servers; they come first.
    pub const fn servers(&self) -> usize {
        self.record.servers
    }

    /// Whether everything holds that must hold at rest.
    pub fn is_at_rest(&self) -> Result<(), Violation> {
        let (acknowledged, kv) = (&self.workload.acknowledged, self.checkers.kv.newest());
        at_rest(&self.world, &self.expected, acknowledged, kv)
    }

    fn phases(&mut self) -> Result<(), Violation> {
        if self.record.newborn {
            self.source.begin(self.world.now);
            self.await_births();
        } else {
            for host in 0..self.world.hosts.len() {
                self.start(host)?;
            }
        }
        if let Some(length) = self.length {
            self.advance(START_TIME, true)?;
            if !self.record.newborn {
                self.source.begin(self.world.now);
            }
            self.advance(length, true)?;
        } else {
            self.advance(self.record.until.since(self.world.now), true)?;
        }
        if !self.record.rests {
            return self.judge_history();
        }
        self.heal_a_quorum()?;
        self.heal()?;
        self.hang_up()?;
        self.come_to_rest()?;
        self.ask_everybody()?;
        self.judge_history()?;
        self.restart_everything()?;
        self.lose_the_leader()?;
        self.keep_a_cut()?;
        if self.record.disaster { self.lose_the_quorum() } else { Ok(()) }
    }

    /// Every host starts at a moment of its own.
    fn await_births(&mut self) {
        let (seed, now) = (self.record.seed, self.world.now);
        for host in 0..self.world.hosts.len() {
            let wait = Luck::of(seed, Purpose::Birth, host as u64, now).jitter(BIRTHS_TIME);
            self.expected[host] = Expectation::Absent;
            self.back_at[host] = Some(now + wait);
        }
    }

    /// Judges what the clients of the key-value table were told, once nothing is on its way.
    pub fn judge_history(&mut self) -> Result<(), Violation> {
        let history = &self.workload.kv.history;
        self.checkers.kv.at_end(history)?;
        self.undecided = kv::judge::judge(history, &self.steady())?;
        Ok(())
    }

    /// Nodes that stay in the catalog once they are there: agents that never leave, and no servers,
    /// since those may be replaced.
    fn steady(&self) -> BTreeSet<NodeName> {
        let names = self.world.hosts.iter().skip(self.record.servers).map(|it| &it.config.name);
        names.filter(|name| !self.checkers.permissions.may_leave.contains(*name)).cloned().collect()
    }

    /// Starts a host that should run from here on.
    pub fn start(&mut self, host: HostId) -> Result<(), Violation> {
        self.expected[host] = Expectation::Up;
        self.back_at[host] = None;
        self.started[host] = true;
        let mut started = self.world.start(host);
        if started.is_err() && self.world.hosts[host].full_until.is_some() {
            // A start may need space; then an operator makes some.
            self.world.empty_disk(host);
            started = self.world.start(host);
        }
        started.map_err(|error| Violation {
            rule: "R18",
            facts: format!("host {host} cannot start: {error}"),
        })
    }

    /// Runs for `span`, with clients acting if `busy`.
    pub fn advance(&mut self, span: Duration, busy: bool) -> Result<(), Violation> {
        let end = self.world.now + span;
        while self.world.now < end {
            let mut until = end.min(self.next_tick).min(self.next_back());
            until = until.min(self.world.net.next_mend());
            until = until.min(self.world.next_space().unwrap_or(NEVER));
            if busy {
                until = until.min(self.source.next_action());
            }
            while self.world.step(until.min(self.source.next_blow())) {
                self.source.look(&self.world);
                self.checkers.look(&mut self.world);
                self.stopped_ok()?;
                // At once: some answers are answered, and that must not wait for the next look.
                if !self.world.replies.is_empty() {
                    self.workload.take_replies(&mut self.world, &mut self.checkers.kv)?;
                }
            }
            self.workload.take_replies(&mut self.world, &mut self.checkers.kv)?;
            for blow in self.source.blows(&mut self.world) {
                self.suffer(blow);
            }
            self.world.make_space();
            self.come_back()?;
            if busy {
                self.act()?;
                // What is answered at once is answered on at once: when the loop comes around next
                // depends on what was drawn, which a script does not know.
                self.checkers.look(&mut self.world);
                self.stopped_ok()?;
                self.workload.take_replies(&mut self.world, &mut self.checkers.kv)?;
            }
            self.world.net.mend(self.world.now);
            if self.world.now >= self.next_tick {
                self.next_tick = self.world.now + TICK;
                self.operate()?;
            }
        }
        Ok(())
    }

    /// Clients do what they do at this moment.
    fn act(&mut self) -> Result<(), Violation> {
        for action in self.source.actions(&mut self.workload, &self.world) {
            self.record.actions.push((self.world.now, action.clone()));
            self.workload.perform(&mut self.world, &mut self.checkers.kv, &action)?;
        }
        Ok(())
    }

    fn stopped_ok(&mut self) -> Result<(), Violation> {
        match self.checkers.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    /// When the next host that is down comes back.
    fn next_back(&self) -> Instant {
        let back = self.back_at.iter().zip(&self.world.hosts);
        // A pause may keep a host from coming to the end of its leave in time.
        let down = back.filter(|(_, host)| host.running.is_none()).filter_map(|(at, _)| *at);
        down.min().unwrap_or(NEVER)
    }

    /// Starts the hosts whose time to come back has come: each at its own moment, so that some
    /// restart while others still count on what they said before.
    fn come_back(&mut self) -> Result<(), Violation> {
        if self.next_back() > self.world.now {
            return Ok(());
        }
        for host in 0..self.world.hosts.len() {
            let is_due = self.back_at[host].is_some_and(|at| at <= self.world.now);
            if is_due && self.world.hosts[host].running.is_none() {
                self.start(host)?;
            }
        }
        Ok(())
    }

    /// What an operator does: takes down what has stopped, joins what has started or is lost.
    fn operate(&mut self) -> Result<(), Violation> {
        if self.source.heals(self.world.now) {
            self.world.note("= links heal");
            self.world.net.heal();
            self.record.healed(self.world.now);
        }
        for host in 0..self.world.hosts.len() {
            if let Some(reason) = self.world.hosts[host].stop_reason() {
                self.has_stopped(host, &reason)?;
            }
            self.retry_join(host);
        }
        Ok(())
    }

    /// R22: a server stops by itself only if its disk failed. Then it is started again.
    fn has_stopped(&mut self, host: HostId, reason: &StopReason) -> Result<(), Violation> {
        self.take_down(host, Crash::Process);
        let StopReason::Fatal(rule) = reason else { return Ok(()) };
        if !self.world.hosts[host].disk_failed {
            return Err(Violation { rule: "R22", facts: format!("host {host} stopped: {rule}") });
        }
        self.expected[host] = Expectation::Failed;
        self.back_at[host] = Some(self.world.now + REPAIR_TIME);
        Ok(())
    }

    /// As `retry_join` does: each start joins all addresses, and so does a host that has lost its
    /// pool. Two hosts that come back together may otherwise find only each other, and be a pool
    /// apart (swarm seed 1001559).
    fn retry_join(&mut self, host: HostId) {
        let Some(running) = &self.world.hosts[host].running else { return };
        let has_lost = running.view.as_ref().is_some_and(|view| view.has_lost(PoolName::Lan));
        let is_due = self.started[host] || (has_lost && self.joins_at[host] <= self.world.now);
        if !is_due || self.world.hosts.len() == 1 || !self.world.hosts[host].is_up() {
            return;
        }
        self.started[host] = false;
        self.joins_at[host] = self.world.now + RETRY_INTERVAL;
        let targets = (0..self.world.hosts.len()).filter(|other| *other != host);
        let addresses = targets.map(|id| SocketAddr::new(address_of(id), 8301)).collect();
        let body = RequestBody::Join { pool: PoolName::Lan, addresses, replay: false };
        self.world.request(host, Request::new(body));
    }

    /// Ends a host's process at once.
    pub fn take_down(&mut self, host: HostId, crash: Crash) {
        let process = self.world.hosts[host].process();
        self.world.crash(host, crash);
        self.workload.forget(process);
    }

    /// Something befalls the world, unless it cannot any more.
    fn suffer(&mut self, mut blow: Blow) {
        let now = self.world.now;
        match &mut blow {
            Blow::Crash { host, crash, down } => {
                if self.world.hosts[*host].running.is_none() {
                    return;
                }
                self.crash_for(*host, *crash, *down);
            }
            Blow::Cut { hosts, from, mute, span } => {
                let end = self.source.end_of_cut(now, *span);
                *span = end.since(now);
                self.cut(hosts, from, *mute, end);
            }
            Blow::Pause { host, .. }
            | Blow::Leave { host, .. }
            | Blow::Stall { host, .. }
            | Blow::Fill { host, .. }
            | Blow::SyncError { host, .. }
                if !self.world.hosts[*host].is_up() =>
            {
                return;
            }
            // With one store lost, the others are as few as they may be.
            Blow::Leave { host, .. }
                if self.wiped && *host < self.record.servers && !self.all_count() =>
            {
                return;
            }
            Blow::Pause { host, span } => self.world.pause(*host, *span),
            Blow::Leave { host, away } => self.leave(*host, *away),
            Blow::Rot { host, part, place } => {
                if !self.may_rot(*host, *part) || !self.world.rot(*host, *part, *place) {
                    return;
                }
                self.wiped |= *part == Part::Store;
            }
            Blow::Stall { host, span } => self.world.stall_disk(*host, *span),
            Blow::SyncError { host, fault } => self.world.hosts[*host].disk.fail_sync(*fault),
            Blow::Fill { host, room, span } => self.world.fill_disk(*host, *room, *span),
        }
        self.record.blows.push((now, blow));
    }

    /// Whether the disk of a host may rot: it is a server that is down, and each other one knows of
    /// more than two voters and is neither damaged nor recovers, should the power fail now. A whole
    /// store may go only while every other server is up, and all of them are what they are to be:
    /// one that is not counts as lost already.
    fn may_rot(&self, host: HostId, part: Part) -> bool {
        let servers = self.record.servers;
        let down = host < servers && self.world.hosts[host].running.is_none();
        let sound = |other: &HostId| {
            let server = inspect(&self.world.hosts[*other]).ok().and_then(|found| found.server);
            let raft = server.map(|server| server.raft).filter(|it| it.recovering.is_none());
            let known = raft.and_then(|raft| newest_configuration(&raft));
            known.is_some_and(|known| known.voters.len() > 2)
        };
        let mut others = (0..servers).filter(|other| *other != host);
        let there = |other: HostId| {
            self.world.hosts[other].is_up() && self.expected[other] == Expectation::Up
        };
        let others_up = (0..servers).all(|other| other == host || there(other));
        let spared = part != Part::Store || (others_up && self.all_count());
        down && servers > 2 && others.all(|other| sound(&other)) && spared
    }

    /// Whether the newest configuration on every disk names all servers, with their stores and
    /// votes: one that is on some only may still be taken back.
    fn all_count(&self) -> bool {
        let hosts = self.world.hosts.iter().take(self.record.servers);
        let found: Vec<Restored> = hosts.clone().filter_map(|host| inspect(host).ok()).collect();
        let rafts =
            found.iter().filter_map(|found| Some((found.node_id, &found.server.as_ref()?.raft)));
        let configs: Vec<Configuration> =
            rafts.clone().filter_map(|(_, raft)| newest_configuration(raft)).collect();
        let votes = hosts.map(|host| host.config.server.as_ref().is_some_and(|it| it.votes));
        let named = |config: &Configuration| {
            rafts.clone().zip(votes.clone()).all(|((id, raft), votes)| {
                let known = config.servers().find(|(known, _)| **known == id);
                known.is_some_and(|(_, known)| known.store == raft.store)
                    && config.is_voter(id) == votes
            })
        };
        configs.len() == self.record.servers && configs.iter().all(named)
    }

    fn cut(&mut self, hosts: &[HostId], from: &[HostId], mute: bool, until: Instant) {
        let how = if mute { "do not reach" } else { "are cut off from" };
        self.world.note(format!("/ hosts {hosts:?} {how} {from:?}"));
        for (host, other) in hosts.iter().flat_map(|host| from.iter().map(move |o| (*host, *o))) {
            self.world.net.cut_until(host, other, until);
            if !mute {
                self.world.net.cut_until(other, host, until);
            }
        }
    }

    fn crash_for(&mut self, host: HostId, crash: Crash, span: Duration) {
        self.take_down(host, crash);
        self.expected[host] = Expectation::Failed;
        self.back_at[host] = Some(self.world.now + span);
    }

    fn leave(&mut self, host: HostId, away: Duration) {
        let name = self.world.hosts[host].config.name.clone();
        self.checkers.permissions.may_leave.insert(name);
        self.expected[host] = Expectation::Left;
        self.world.tell(host, Input::Leave);
        self.back_at[host] = Some(self.world.now + away);
    }
}

/// The newest configuration that a disk holds.
fn newest_configuration(raft: &RestoredRaft) -> Option<Configuration> {
    let mut entries = raft.entries.iter().rev();
    let entry = entries.find(|entry| entry.kind == EntryKind::Config);
    match entry {
        Some(entry) => pack::from_bytes(&entry.payload).ok(),
        None => raft.snapshot.as_ref().map(|meta| meta.configuration.clone()),
    }
}
