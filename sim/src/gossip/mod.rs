//! Worlds that only gossip: pools without servers, in which members crash, sleep, move, leave and
//! are cut off, with the rules of simulation.md §9.2.
//!
//! A seed makes a [`plan::GossipPlan`]; [`run`] lets its pool form, exercises it while all is well
//! ([`drill`]), lets faults happen, heals everything, and demands what must hold then
//! ([`settled`]).

mod drill;
pub mod plan;
mod rotation;
mod rules;
mod settled;

use crate::checker::{Checkers, Violation};
use crate::disk::Crash;
use crate::hash::TraceHash;
use crate::host::address_of;
use crate::net::{HostId, NetOptions};
use crate::world::{World, world_rng};
use plan::{GossipFault, GossipPlan};
use rotation::Rotation;
use rules::Rules;
use std::net::SocketAddr;
use std::time::Duration;
use terraform_core::id::{NodeName, PoolName};
use terraform_core::node::input::Input;
use terraform_core::node::request::{Request, RequestBody, Response};
use terraform_core::rng::{Rng, Stream};
use terraform_core::serf::{KeyReport, MemberStatus, SerfReply, SerfRequest};
use terraform_core::time::Instant;

/// Time between looks of whoever operates the pool.
const TICK: Duration = Duration::from_secs(1);
/// How long the supervisor waits before it starts an agent again that stopped by itself.
const RETRY: Duration = Duration::from_secs(30);
/// How long a pool may take to form.
const FORM_LIMIT: Duration = Duration::from_secs(240);

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
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It runs.
    Up,
    /// It does not run, until then.
    Down(Instant),
    /// It never runs again.
    Gone,
}

/// One member, whatever machine it runs on.
#[derive(Clone, Debug)]
struct Member {
    name: NodeName,
    /// The machine it runs on, or ran on last.
    host: HostId,
    fate: Fate,
}

/// A pool with its operator and its rules.
#[derive(Debug)]
pub struct GossipRun {
    /// The world. Its first hosts are the members', in order; the others are spare machines.
    pub world: World,
    plan: GossipPlan,
    members: Vec<Member>,
    checkers: Checkers,
    rules: Rules,
    rng: Rng,
    heal_at: Option<Instant>,
    next_tick: Instant,
    next_act: Instant,
    /// What the last key operation came to.
    keys_changed: Option<KeyReport>,
    /// The change of the key that is under way, or done.
    rotation: Option<Rotation>,
    /// Whether members fire events and change their tags.
    busy: bool,
    /// Events fired so far.
    fired: u64,
}

/// Runs the world of `plan` to its end.
pub fn run(plan: GossipPlan) -> (Outcome, GossipRun) {
    let mut run = GossipRun::new(plan);
    let violation = run.phases().err();
    let outcome = Outcome {
        violation,
        hash: run.world.hash(),
        simulated: run.world.now.since(Instant::ZERO),
        events: run.world.events,
    };
    (outcome, run)
}

impl GossipRun {
    fn new(plan: GossipPlan) -> Self {
        let mut world = World::new(plan.seed, plan.world.clone());
        world.deliveries = Some(Vec::new());
        let mut members = Vec::new();
        for id in 0..plan.members + plan.spares {
            let host = world.add_host(plan.config(id));
            if id < plan.members {
                let name = world.hosts[host].config.name.clone();
                members.push(Member { name, host, fate: Fate::Up });
            }
        }
        let mut checkers = Checkers::default();
        // Nothing goes wrong before the faults.
        checkers.permissions.quiet = true;
        checkers.permissions.stride = (plan.members as u64 / 8).max(1);
        Self {
            rules: Rules::new(&plan),
            rng: world_rng(plan.seed, Stream::Serf),
            world,
            plan,
            members,
            checkers,
            heal_at: None,
            next_tick: Instant::ZERO,
            next_act: Instant::ZERO,
            keys_changed: None,
            rotation: None,
            busy: true,
            fired: 0,
        }
    }

    fn phases(&mut self) -> Result<(), Violation> {
        self.form()?;
        self.drills()?;
        self.faults()?;
        self.heal();
        self.settle()?;
        self.rotate_to_the_end()?;
        self.outlive()
    }

    /// Starts all members; the operator joins who is alone.
    fn form(&mut self) -> Result<(), Violation> {
        for member in 0..self.members.len() {
            self.start(member)?;
        }
        self.until(FORM_LIMIT, settled::all_agree)
    }

    /// Starts a member on its machine.
    fn start(&mut self, member: usize) -> Result<(), Violation> {
        self.members[member].fate = Fate::Up;
        let host = self.members[member].host;
        self.world.start(host).map_err(|error| Violation {
            rule: "R18",
            facts: format!("host {host} cannot start: {error}"),
        })
    }

    /// Runs for `span`.
    fn advance(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.world.now + span;
        while self.world.now < end {
            let mut until = end.min(self.next_tick);
            if self.busy {
                until = until.min(self.next_act);
            }
            while self.world.step(until) {
                self.checkers.look(&mut self.world);
                if let Some(violation) = self.checkers.violation.take() {
                    return Err(violation);
                }
                self.rules.look(&mut self.world)?;
            }
            self.take_replies();
            if self.busy && self.world.now >= self.next_act {
                self.next_act = self.world.now + self.plan.act_every;
                self.act();
            }
            if self.world.now >= self.next_tick {
                self.next_tick = self.world.now + TICK;
                self.operate()?;
            }
        }
        Ok(())
    }

    /// Keeps what a key operation came to; nobody waits for other answers.
    fn take_replies(&mut self) {
        for reply in self.world.replies.drain(..) {
            if let Ok(Response::Serf(SerfReply::Keys(report))) = reply.result {
                if let Some(rotation) = &mut self.rotation {
                    rotation.told((reply.process, reply.id), &report);
                }
                self.keys_changed = Some(report);
            }
        }
    }

    /// Runs until `holds`, for `limit` at most; what does not hold then is the violation.
    fn until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let end = self.world.now + limit;
        loop {
            self.advance(TICK)?;
            match holds(self) {
                Ok(()) => return Ok(()),
                Err(violation) if self.world.now >= end => return Err(violation),
                Err(_) => {}
            }
        }
    }

    /// Somebody tells everybody something, or something new about itself.
    fn act(&mut self) {
        let Some(member) = self.any_up() else { return };
        self.fired += 1;
        let request = if self.rng.chance(1, 8) {
            let set = [("load".to_owned(), self.rng.below(100).to_string())].into();
            SerfRequest::EditTags { delete: Vec::new(), set }
        } else {
            let (name, payload) = (format!("event-{}", self.fired), bytes::Bytes::new());
            SerfRequest::FireEvent { name, payload, coalesce: false }
        };
        let host = self.members[member].host;
        self.world.request(host, Request::new(RequestBody::Serf(request)));
    }

    /// A member that runs.
    fn any_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = self.up().collect();
        (!up.is_empty()).then(|| up[self.rng.index(up.len())])
    }

    fn up(&self) -> impl Iterator<Item = usize> + '_ {
        let runs = |member: &usize| {
            let member = &self.members[*member];
            member.fate == Fate::Up && self.world.hosts[member.host].is_up()
        };
        (0..self.members.len()).filter(runs)
    }

    /// What an operator's supervisor does: restarts what should run, joins what is alone.
    fn operate(&mut self) -> Result<(), Violation> {
        if self.heal_at.is_some_and(|at| at <= self.world.now) {
            self.heal_at = None;
            self.world.note("= links heal");
            self.world.net.heal();
        }
        for member in 0..self.members.len() {
            let Member { host, fate, .. } = self.members[member];
            if self.world.hosts[host].running.as_ref().is_some_and(|it| it.stopped.is_some()) {
                self.world.crash(host, Crash::Process);
                if fate == Fate::Up {
                    // It lost its name to the machine it is to replace; tried again later.
                    self.members[member].fate = Fate::Down(self.world.now + RETRY);
                }
            }
            if matches!(fate, Fate::Down(until) if until <= self.world.now)
                && self.world.hosts[host].running.is_none()
            {
                self.start(member)?;
            }
            self.join_if_alone(member);
        }
        self.rotate()
    }

    fn join_if_alone(&mut self, member: usize) {
        let host = self.members[member].host;
        let Some(running) = &self.world.hosts[host].running else { return };
        let alive = |status| status == MemberStatus::Alive;
        let others = running.node.members().filter(|member| alive(member.status)).count();
        if others > 1 || self.members.len() == 1 || !self.world.hosts[host].is_up() {
            return;
        }
        // Whoever is gone for good is no target: there may be more of those than are tried.
        let others = self.members.iter().filter(|it| it.host != host && it.fate != Fate::Gone);
        let targets = others.map(|other| other.host);
        let addresses = targets.take(8).map(|id| SocketAddr::new(address_of(id), 8301)).collect();
        self.world.request(
            host,
            Request::new(RequestBody::Join { pool: PoolName::Lan, addresses, replay: false }),
        );
    }

    fn faults(&mut self) -> Result<(), Violation> {
        self.begin_rotation();
        if self.plan.faults.is_empty() {
            return self.advance(self.plan.length);
        }
        self.checkers.permissions.quiet = false;
        self.world.net.set_options(self.plan.faulty_net.clone());
        let end = self.world.now + self.plan.length;
        while self.world.now < end {
            let wait = self.rng.jitter(self.plan.fault_every * 2);
            self.advance(wait.max(Duration::from_millis(1)))?;
            let fault = self.plan.faults[self.rng.index(self.plan.faults.len())];
            let member = self.rng.index(self.members.len());
            self.inflict(fault, member);
        }
        Ok(())
    }

    fn inflict(&mut self, fault: GossipFault, member: usize) {
        let span = Duration::from_millis(10 << self.rng.below(14));
        let Member { host, fate, .. } = self.members[member];
        let up = fate == Fate::Up && self.world.hosts[host].is_up();
        match fault {
            GossipFault::Kill if up => self.crash(member, Crash::Process, span),
            GossipFault::PowerLoss if up => {
                self.crash(member, Crash::Power(crate::disk::Loss::Mixed), span);
            }
            GossipFault::Vanish if up && self.up().count() > 2 => self.vanish(member),
            GossipFault::Move if up => self.move_away(member),
            GossipFault::Pause if up => self.world.pause(host, span),
            GossipFault::Block if up => self.world.block(host, span),
            GossipFault::Leave if up => self.leave(member),
            GossipFault::ForceLeave => self.force_leave(member, false),
            GossipFault::Prune if !up => self.force_leave(member, true),
            GossipFault::Partition => {
                let mut hosts: Vec<HostId> = (0..self.world.hosts.len()).collect();
                self.rng.shuffle(&mut hosts);
                let (left, right) = hosts.split_at(self.rng.index(hosts.len()));
                self.world.note(format!("/ {left:?} and {right:?} are cut apart"));
                self.world.net.partition(left, right);
                self.heal_at = Some(self.world.now + span);
            }
            GossipFault::OneWay => {
                for other in (0..self.world.hosts.len()).filter(|other| *other != host) {
                    self.world.net.cut(host, other);
                }
                self.world.note(format!("/ nobody hears host {host}"));
                self.heal_at = Some(self.world.now + span);
            }
            GossipFault::Kill
            | GossipFault::PowerLoss
            | GossipFault::Vanish
            | GossipFault::Move
            | GossipFault::Pause
            | GossipFault::Block
            | GossipFault::Leave
            | GossipFault::Prune => {}
        }
    }

    fn crash(&mut self, member: usize, crash: Crash, span: Duration) {
        self.world.crash(self.members[member].host, crash);
        self.members[member].fate = Fate::Down(self.world.now + span);
    }

    /// Takes a member's power for good.
    fn vanish(&mut self, member: usize) {
        let crash = Crash::Power(crate::disk::Loss::Mixed);
        self.world.crash(self.members[member].host, crash);
        self.members[member].fate = Fate::Gone;
    }

    /// Gives a member a machine with an empty disk at another address, if one is left.
    fn relocate(&mut self, member: usize) -> bool {
        let used = |host: &HostId| self.members.iter().any(|other| other.host == *host);
        let mut spare = self.plan.members..self.world.hosts.len();
        let Some(spare) = spare.find(|host| !used(host) && self.world.hosts[*host].boots == 0)
        else {
            return false;
        };
        let name = self.members[member].name.clone();
        self.world.note(format!("! {name} moves to host {spare}"));
        self.world.crash(self.members[member].host, Crash::Power(crate::disk::Loss::Mixed));
        self.world.hosts[spare].config.name = name;
        self.members[member].host = spare;
        true
    }

    /// A member's machine dies; it goes on with an empty disk on another one, at another address.
    fn move_away(&mut self, member: usize) {
        if !self.relocate(member) {
            return;
        }
        // A name that is believed alive is not taken over; an operator starts the replacement
        // once the old machine is known to be dead.
        let wait = self.plan.reclaim_after() + self.rng.jitter(Duration::from_secs(60));
        self.members[member].fate = Fate::Down(self.world.now + wait);
    }

    fn leave(&mut self, member: usize) {
        let Member { host, ref name, .. } = self.members[member];
        self.checkers.permissions.may_leave.insert(name.clone());
        self.world.tell(host, Input::Leave);
        let stays_away = Duration::from_secs(20) + self.rng.jitter(Duration::from_secs(60));
        self.members[member].fate = Fate::Down(self.world.now + stays_away);
    }

    /// Somebody makes a member leave, whether it runs or not.
    fn force_leave(&mut self, member: usize, prune: bool) {
        let node = self.members[member].name.clone();
        let Some(asked) = self.any_up().filter(|asked| *asked != member) else { return };
        self.world.note(format!("> {node} is made to leave, pruned: {prune}"));
        self.checkers.permissions.may_leave.insert(node.clone());
        if prune {
            self.rules.pruned.insert(node.clone());
        }
        let body = RequestBody::ForceLeave { node, prune };
        self.world.request(self.members[asked].host, Request::new(body));
    }

    /// Everything is repaired but for machines that are gone for good.
    fn heal(&mut self) {
        self.world.note("= everything is healed");
        self.heal_at = None;
        self.busy = false;
        self.world.net.heal();
        self.world.net.set_options(NetOptions::quiet());
    }
}
