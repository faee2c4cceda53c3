//! Leader duties: members into the catalog, servers into consensus.
//!
//! Implements cluster-behaviour.md §2. Every member event while this server leads, and a full pass
//! when it begins to lead and every [`PASS_INTERVAL`], compare what Serf knows with the catalog
//! and with the configuration, and propose what differs. Coordinates that moved go into the
//! catalog in one command at most every [`COORDINATES_INTERVAL`], deletions of keys are forgotten
//! after a while, sessions end that nobody renews, and services go that no agent looks after any
//! more if their checks say so. Each decision is made from the present state alone, so a proposal
//! that got lost is simply made again.
//!
//! Invariants: a server that does not lead proposes nothing (INV-RECONCILE-1); at most one step of
//! a member and one change of the configuration are in flight (INV-RECONCILE-2); the leader never
//! removes itself.
//!
//! Differs: a node unknown to Serf is removed only after [`UNKNOWN_GRACE`], where Consul 1.8.7
//! removes it in the first pass: after a restart of all servers the members are not back yet, and
//! what was registered for them must not be lost.

mod coordinates;
mod forsaken;
mod health;
mod member;
mod servers;
mod sessions;
#[cfg(test)]
mod tests;
mod tombstones;
mod trace;

pub use health::{HEALTH_INTERVAL, Health, ServerHealth};
pub use trace::ReconcileTrace;

use crate::catalog::Tables;
use crate::catalog::autopilot::{AutopilotConfig, AutopilotWrite};
use crate::catalog::command::{ApplyError, Command, SERF_HEALTH};
use crate::catalog::query::{Rows, StateQuery};
use crate::durations::Durations;
use crate::id::{Datacenter, ModifyIndex, NodeId, NodeName};
use crate::machine::Outbox;
use crate::raft::{Change, Configuration, ProposalError, Replication};
use crate::rng::{Rng, Seed, Stream};
use crate::serf::{Coordinates, Member, MemberEventKind, MemberStatus, Members};
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace::Level;
use forsaken::Forsaken;
use health::Watch;
use member::{DEAD, LEFT, REAPED};
use servers::Grounds;
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tombstones::Tombstones;

/// Time between full passes.
pub const PASS_INTERVAL: Duration = Duration::from_secs(60);
/// How long a node or voter may be unknown to Serf before it counts as reaped.
pub const UNKNOWN_GRACE: Duration = Duration::from_secs(600);
/// Time between commands that store coordinates.
pub const COORDINATES_INTERVAL: Duration = Duration::from_secs(5);
/// Steps in flight at most.
pub const STEPS_MAX: usize = 64;
/// Steps one member takes in a row at most; a member that needs more waits for the next pass.
const STEPS_IN_A_ROW_MAX: u32 = 4;
/// The pause after a failed step, doubled with each further failure.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One step on its way; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReconcileTicket(pub u64);

/// What the duties read.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// This node's datacenter; members of others are left alone.
    pub datacenter: &'a Datacenter,
    /// The catalog as applied here.
    pub tables: &'a Tables,
    /// Every member Serf knows, by name.
    pub members: &'a Members,
    /// The newest configuration.
    pub configuration: &'a Configuration,
    /// What this leader knows of the servers' logs; nothing on others.
    pub replication: &'a Replication,
    /// Where members are, as they told this one in their acks.
    pub coordinates: &'a Coordinates,
}

impl World<'_> {
    fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.get(name)
    }

    /// Whether a member is an agent of this datacenter.
    fn is_here(&self, member: &Member) -> bool {
        member.datacenter().as_ref() == Some(self.datacenter)
            && (member.is_client() || member.server().is_some())
    }
}

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// The catalog refused the command.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// Consensus did not commit it, or not yet.
    #[error(transparent)]
    Failed(#[from] ProposalError),
}

/// What this machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileInput {
    /// As in `RaftOutput`: this server leads, and the catalog is up to date.
    LeaderReady,
    /// As in `RaftOutput`.
    LeadershipLost,
    /// Sessions began or ended; the world already shows it.
    SessionsChanged,
    /// As in `SerfOutput`; the world already shows it.
    Member {
        /// How it changed.
        kind: MemberEventKind,
        /// The member after the change.
        member: Arc<Member>,
    },
    /// The outcome of a step; what it changed is applied.
    Done {
        /// Which.
        ticket: ReconcileTicket,
        /// What became of it.
        result: Result<(), StepError>,
    },
}

/// What this machine wants. Every step is answered by exactly one `Done`, unless this server
/// loses its leadership first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileOutput {
    /// Propose a command.
    Propose {
        /// The answer names it.
        ticket: ReconcileTicket,
        /// The command.
        command: Box<Command>,
    },
    /// `RaftInput::Change`.
    Change {
        /// The answer names it.
        ticket: ReconcileTicket,
        /// How.
        change: Change,
    },
    /// Something worth telling.
    Trace(Level, ReconcileTrace),
}

impl From<(Level, ReconcileTrace)> for ReconcileOutput {
    fn from((level, trace): (Level, ReconcileTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

type ReconcileOutbox = Outbox<ReconcileOutput>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DutyTimer {
    /// The next full pass.
    Pass,
    /// Failed steps are tried again.
    Retry,
    /// The next look at coordinates.
    Coordinates,
    /// The next look at how the servers do.
    Health,
    /// The next look at deletions.
    Tombstones,
}

/// A member to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    /// Whether its absence is final.
    reaped: bool,
    /// Steps already taken in a row.
    steps: u32,
}

/// What the duties are told once.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileSettings {
    /// How servers are cared for until that is stored.
    pub autopilot: AutopilotConfig,
    /// How long nobody hears a voter before it is taken out although nobody replaces it.
    pub dead_server_grace: Duration,
    /// How long a deletion is remembered at least.
    pub tombstone_time: Duration,
}

/// The duties of one server; idle unless it leads.
#[derive(Clone, Debug)]
pub struct Reconcile {
    name: NodeName,
    id: NodeId,
    settings: ReconcileSettings,
    leads: bool,
    due: BTreeMap<NodeName, Due>,
    /// Members whose step failed, for the next retry.
    failed: BTreeMap<NodeName, Due>,
    in_flight: BTreeMap<ReconcileTicket, (NodeName, Due, Instant)>,
    busy: BTreeSet<NodeName>,
    server_in_flight: Option<(ReconcileTicket, NodeId)>,
    coordinates_in_flight: Option<ReconcileTicket>,
    autopilot_in_flight: Option<ReconcileTicket>,
    watch: Watch,
    tombstones: Tombstones,
    sessions: Sessions,
    forsaken: Forsaken,
    /// Servers whose change failed, until the next retry.
    skipped: BTreeSet<NodeId>,
    /// Servers that Serf forgot.
    forgotten: BTreeSet<NodeId>,
    /// Nodes and servers that Serf does not know, and since when.
    unknown_nodes: BTreeMap<NodeName, Instant>,
    unknown_servers: BTreeMap<NodeId, Instant>,
    pause: Duration,
    timers: Timers<DutyTimer>,
    /// When the pass began whose members are not all done with.
    pass_began: Option<Instant>,
    times: DutyTimes,
    rng: Rng,
    tickets: u64,
}

/// How long duties took in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DutyTimes {
    /// Full passes, from the look at all members until no step of one is left.
    pub passes: Durations,
    /// Steps of members, from the proposal until it was applied or refused.
    pub steps: Durations,
    /// Commands that let all forget old deletions, likewise.
    pub reapings: Durations,
}

impl Reconcile {
    /// The idle duties of this node.
    pub fn new(name: NodeName, id: NodeId, settings: ReconcileSettings, seed: Seed) -> Self {
        Self {
            name,
            id,
            settings,
            leads: false,
            due: BTreeMap::new(),
            failed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            server_in_flight: None,
            coordinates_in_flight: None,
            autopilot_in_flight: None,
            watch: Watch::default(),
            tombstones: Tombstones::default(),
            sessions: Sessions::default(),
            forsaken: Forsaken::default(),
            skipped: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            unknown_nodes: BTreeMap::new(),
            unknown_servers: BTreeMap::new(),
            pause: RETRY_MIN,
            timers: Timers::default(),
            pass_began: None,
            times: DutyTimes::default(),
            rng: Rng::for_stream(seed, Stream::Reconcile),
            tickets: 0,
        }
    }

    /// Takes one input to completion.
    pub fn handle(
        &mut self,
        now: Instant,
        input: ReconcileInput,
        world: World<'_>,
        out: &mut ReconcileOutbox,
    ) {
        match input {
            ReconcileInput::LeaderReady => {
                self.resign();
                self.leads = true;
                self.timers.set(DutyTimer::Coordinates, now + COORDINATES_INTERVAL);
                self.await_deletions(now);
                self.look_at_servers(now, &world, out);
                self.look_at_sessions(now, &world);
                self.look_at_checks(now, &world);
                self.pass(now, &world);
            }
            ReconcileInput::LeadershipLost => self.resign(),
            ReconcileInput::SessionsChanged => self.look_at_sessions(now, &world),
            ReconcileInput::Member { kind, member } if self.leads => {
                self.forsaken.member_changed(now, &member, &world);
                let reaped = kind == MemberEventKind::Reap;
                if reaped && let Some(server) = member.server() {
                    self.forgotten.insert(server.id);
                }
                if reaped || world.is_here(&member) {
                    self.due.insert(member.name.clone(), Due { reaped, steps: 0 });
                }
            }
            ReconcileInput::Member { .. } => {}
            ReconcileInput::Done { ticket, result } => {
                self.done(now, (ticket, result), &world, out);
            }
        }
        self.advance(now, &world, out);
    }

    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant, world: World<'_>, out: &mut ReconcileOutbox) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                DutyTimer::Pass => self.pass(now, &world),
                DutyTimer::Coordinates => self.tell_coordinates(now, &world, out),
                DutyTimer::Health => self.look_at_servers(now, &world, out),
                DutyTimer::Tombstones => self.reap_tombstones(now, &world, out),
                DutyTimer::Retry => {
                    self.skipped.clear();
                    for (name, due) in std::mem::take(&mut self.failed) {
                        self.due.entry(name).or_insert(due);
                    }
                }
            }
        }
        self.end_sessions(now, out);
        self.deregister_forsaken(now, &world, out);
        self.advance(now, &world, out);
    }

    /// How long duties took.
    pub const fn times(&self) -> &DutyTimes {
        &self.times
    }

    /// How many sessions end unless somebody renews them; none but on the leader.
    pub fn sessions_timed(&self) -> usize {
        self.sessions.timed()
    }

    /// When `handle_timeout` is wanted next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let others = [self.sessions.next_timeout(), self.forsaken.next_timeout()];
        others.into_iter().flatten().chain(self.timers.next()).min()
    }

    /// Forgets everything that only a leader may do.
    fn resign(&mut self) {
        self.leads = false;
        self.due.clear();
        self.failed.clear();
        self.in_flight.clear();
        self.busy.clear();
        self.server_in_flight = None;
        self.coordinates_in_flight = None;
        self.autopilot_in_flight = None;
        self.watch = Watch::default();
        self.tombstones = Tombstones::default();
        self.sessions = Sessions::default();
        self.forsaken = Forsaken::default();
        self.skipped.clear();
        self.forgotten.clear();
        self.unknown_nodes.clear();
        self.unknown_servers.clear();
        self.pause = RETRY_MIN;
        self.pass_began = None;
        self.timers.clear();
    }

    /// Looks at every member, and at what the catalog and the configuration have beyond them.
    fn pass(&mut self, now: Instant, world: &World<'_>) {
        self.timers.set(DutyTimer::Pass, now + PASS_INTERVAL);
        self.pass_began = Some(now);
        for member in world.members.iter().filter(|member| world.is_here(member)) {
            self.due.entry(member.name.clone()).or_default();
        }
        let any = StateQuery::all("any");
        let (Rows::Checks(checks), _) = world.tables.checks_in_state(&any) else { return };
        let nodes = checks.iter().filter(|check| check.id.as_str() == SERF_HEALTH);
        let strangers = nodes.map(|it| &it.node).filter(|name| world.member(name).is_none());
        let known = std::mem::take(&mut self.unknown_nodes);
        for name in strangers {
            let since = known.get(name).copied().unwrap_or(now);
            self.unknown_nodes.insert(name.clone(), since);
            if now.since(since) >= UNKNOWN_GRACE {
                self.due.insert(name.clone(), Due { reaped: true, steps: 0 });
            }
        }
        let known = std::mem::take(&mut self.unknown_servers);
        let ids: BTreeSet<NodeId> = world.members.iter().filter_map(Member::id).collect();
        let servers = world.configuration.servers().map(|(id, _)| id);
        for id in servers.filter(|id| !ids.contains(*id)) {
            let since = known.get(id).copied().unwrap_or(now);
            self.unknown_servers.insert(*id, since);
            if now.since(since) >= UNKNOWN_GRACE {
                self.forgotten.insert(*id);
            }
        }
    }

    fn done(
        &mut self,
        now: Instant,
        (ticket, result): (ReconcileTicket, Result<(), StepError>),
        world: &World<'_>,
        out: &mut ReconcileOutbox,
    ) {
        // What was stored, or why nothing was, shows at the next look.
        if self.autopilot_in_flight.take_if(|wanted| *wanted == ticket).is_some() {
            return;
        }
        if self.coordinates_in_flight.take_if(|wanted| *wanted == ticket).is_some() {
            self.coordinates_told(result, out);
            return;
        }
        if self.tombstones_reaped(now, ticket, &result)
            || self.sessions_ended(now, (ticket, &result), (world, out))
            || self.forsaken_deregistered(now, (ticket, &result), (world, out))
        {
            return;
        }
        if let Some((_, id)) = self.server_in_flight.filter(|(wanted, _)| *wanted == ticket) {
            self.server_in_flight = None;
            if let Err(error) = result {
                self.skipped.insert(id);
                self.retry(now, id.to_string(), error, out);
            } else {
                self.pause = RETRY_MIN;
                // A server that failed leaves the catalog with its place in the configuration.
                for member in world.members.iter().filter(|member| member.id() == Some(id)) {
                    self.due.entry(member.name.clone()).or_default();
                }
            }
            return;
        }
        let Some((name, due, since)) = self.in_flight.remove(&ticket) else { return };
        self.times.steps.record_since(since, now);
        self.busy.remove(&name);
        match result {
            Ok(()) => {
                self.pause = RETRY_MIN;
                let steps = due.steps + 1;
                if steps < STEPS_IN_A_ROW_MAX {
                    self.due.entry(name).or_insert(Due { steps, ..due });
                }
            }
            // It would be refused again; the next pass looks whether things have changed.
            Err(error @ StepError::Refused(_)) => {
                let failed = ReconcileTrace::StepFailed { of: name.to_string(), error };
                crate::trace!(out, Level::Warn, failed);
            }
            Err(error @ StepError::Failed(_)) => {
                self.failed.insert(name.clone(), Due { steps: 0, ..due });
                self.retry(now, name.to_string(), error, out);
            }
        }
    }

    fn retry(&mut self, now: Instant, of: String, error: StepError, out: &mut ReconcileOutbox) {
        crate::trace!(out, Level::Warn, ReconcileTrace::StepFailed { of, error });
        if self.timers.deadline(&DutyTimer::Retry).is_none() {
            self.timers.set(DutyTimer::Retry, now + self.pause + self.rng.jitter(self.pause));
            self.pause = (self.pause * 2).min(RETRY_MAX);
        }
    }

    /// Takes every step that is due and possible.
    fn advance(&mut self, now: Instant, world: &World<'_>, out: &mut ReconcileOutbox) {
        if !self.leads {
            assert!(self.in_flight.is_empty(), "INV-RECONCILE-1: only a leader proposes");
            return;
        }
        let ready: Vec<NodeName> =
            self.due.keys().filter(|name| !self.busy.contains(*name)).cloned().collect();
        for name in ready {
            if self.in_flight.len() >= STEPS_MAX {
                break;
            }
            let Some(due) = self.due.remove(&name) else { continue };
            let Some((command, line)) = self.step(world, &name, due, out) else { continue };
            crate::trace!(out, Level::Info, line);
            let ticket = self.ticket();
            out.push(ReconcileOutput::Propose { ticket, command: Box::new(command) });
            self.busy.insert(name.clone());
            self.in_flight.insert(ticket, (name, due, now));
        }
        if self.due.is_empty()
            && self.in_flight.is_empty()
            && let Some(began) = self.pass_began.take()
        {
            self.times.passes.record_since(began, now);
        }
        self.advance_servers(world, out);
    }

    fn step(
        &self,
        world: &World<'_>,
        name: &NodeName,
        due: Due,
        out: &mut ReconcileOutbox,
    ) -> Option<member::Step> {
        let Some(member) = world.member(name) else {
            return member::gone(world, name, REAPED).filter(|_| due.reaped && *name != self.name);
        };
        match member.status {
            MemberStatus::Alive => member::alive(world, member),
            MemberStatus::Failed if self.is_taken_out(world, member) => {
                member::gone(world, name, DEAD)
            }
            MemberStatus::Failed => member::failed(world, member),
            MemberStatus::Left if *name == self.name => {
                crate::trace!(out, Level::Warn, ReconcileTrace::NotSelf);
                None
            }
            MemberStatus::Left => member::gone(world, name, LEFT),
            MemberStatus::Leaving => None,
        }
    }

    fn advance_servers(&mut self, world: &World<'_>, out: &mut ReconcileOutbox) {
        if self.server_in_flight.is_some() {
            return;
        }
        let (own, config) = (self.id, self.autopilot(world));
        let (skip, forgotten, watch) = (&self.skipped, &self.forgotten, &self.watch);
        let next = servers::next(world, Grounds { own, skip, forgotten, watch, config });
        let Some(change) = next else { return };
        let ticket = self.ticket();
        crate::trace!(out, Level::Info, ReconcileTrace::Changing(change));
        out.push(ReconcileOutput::Change { ticket, change });
        self.server_in_flight = Some((ticket, change.server()));
    }

    /// How servers are cared for.
    fn autopilot(&self, world: &World<'_>) -> AutopilotConfig {
        world.tables.autopilot().map_or(self.settings.autopilot, |stored| stored.config)
    }

    /// Looks how the servers do, and stores how they are cared for if nobody has.
    fn look_at_servers(&mut self, now: Instant, world: &World<'_>, out: &mut ReconcileOutbox) {
        self.timers.set(DutyTimer::Health, now + HEALTH_INTERVAL);
        let config = self.autopilot(world);
        self.watch.look(now, world, (config, self.settings.dead_server_grace));
        if world.tables.autopilot().is_none() && self.autopilot_in_flight.is_none() {
            let ticket = self.ticket();
            self.autopilot_in_flight = Some(ticket);
            let write = AutopilotWrite { config, only_at: Some(ModifyIndex::ZERO) };
            let command = Box::new(Command::Autopilot(write));
            out.push(ReconcileOutput::Propose { ticket, command });
        }
    }

    /// Whether a failed member is a server that has no place in the configuration any more.
    fn is_taken_out(&self, world: &World<'_>, member: &Member) -> bool {
        let taken_out = |id: NodeId| !world.configuration.contains(id);
        let server = member.server().is_some() && member.id().is_some_and(taken_out);
        server && self.autopilot(world).cleanup_dead_servers
    }

    const fn ticket(&mut self) -> ReconcileTicket {
        self.tickets = self.tickets.saturating_add(1);
        ReconcileTicket(self.tickets)
    }
}
