//! Where the faults and operations of a world come from: drawn from its seed, or read in a script.

use crate::ambush::{Ambush, Watch};
use crate::disk::{Crash, Loss, SyncFault};
use crate::net::HostId;
use crate::plan::{Fault, Plan};
use crate::rot::Part;
use crate::script::{Blow, Script};
use crate::workload::{Action, Workload};
use crate::world::{World, world_rng};
use std::collections::VecDeque;
use std::time::Duration;
use terraform_core::rng::{Rng, Stream};
use terraform_core::time::Instant;

/// How long an agent that left stays away.
const AWAY_TIME: Duration = Duration::from_secs(40);
/// A time that never comes.
pub const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Where faults and operations come from.
#[derive(Debug)]
pub enum Source {
    /// From a seed.
    Drawn(Box<Drawn>),
    /// From a script: what is still to come of it.
    Script {
        /// What befalls the world.
        blows: VecDeque<(Instant, Blow)>,
        /// What its clients do.
        actions: VecDeque<(Instant, Action)>,
    },
}

/// What draws the faults and operations of a plan.
#[derive(Debug)]
pub struct Drawn {
    plan: Plan,
    next_action: Instant,
    /// When the next fault happens, while they happen.
    next_blow: Option<Instant>,
    /// The fault that waits for its moment, while they happen.
    watch: Option<Watch>,
    /// When what is cut is healed.
    heal_at: Option<Instant>,
    rng: Rng,
}

impl Source {
    /// Draws what a plan says; clients begin at `start`.
    pub fn drawn(plan: Plan, start: Instant) -> Self {
        let rng = world_rng(plan.seed, Stream::Serf);
        let (next_blow, watch, heal_at) = (None, None, None);
        let next_action = start;
        Self::Drawn(Box::new(Drawn { plan, next_action, next_blow, watch, heal_at, rng }))
    }

    /// Reads what a script says.
    pub fn script(script: &Script) -> Self {
        let (blows, actions) = (script.blows.clone().into(), script.actions.clone().into());
        Self::Script { blows, actions }
    }

    /// From `now` on, faults happen.
    pub fn begin(&mut self, now: Instant) {
        let Self::Drawn(drawn) = self else { return };
        let rng = world_rng(drawn.plan.seed, Stream::Identity);
        drawn.watch = drawn.plan.ambush.map(|ambush| Watch::new(ambush, rng));
        if !drawn.plan.faults.is_empty() {
            drawn.wait(now);
        }
    }

    /// No more faults happen.
    pub fn end(&mut self) {
        match self {
            Self::Drawn(drawn) => {
                (drawn.next_blow, drawn.watch, drawn.heal_at) = (None, None, None);
            }
            Self::Script { blows, .. } => blows.clear(),
        }
    }

    /// Looks at what the last event did.
    pub fn look(&mut self, world: &World) {
        if let Self::Drawn(drawn) = self
            && let Some(watch) = &mut drawn.watch
        {
            watch.look(world);
        }
    }

    /// When the next blow falls, as far as that is known.
    pub fn next_blow(&self) -> Instant {
        match self {
            Self::Drawn(drawn) => {
                let ambush = drawn.watch.as_ref().and_then(Watch::due_at);
                ambush.into_iter().chain(drawn.next_blow).min().unwrap_or(NEVER)
            }
            Self::Script { blows, .. } => blows.front().map_or(NEVER, |(at, _)| *at),
        }
    }

    /// The blows that fall now.
    pub fn blows(&mut self, world: &mut World) -> Vec<Blow> {
        match self {
            Self::Drawn(drawn) => drawn.blows(world),
            Self::Script { blows, .. } => due(blows, world.now),
        }
    }

    /// Until when a cut that is to last for `span` lasts: what is drawn is healed all at once.
    pub fn end_of_cut(&mut self, now: Instant, span: Duration) -> Instant {
        match self {
            Self::Drawn(drawn) => {
                drawn.heal_at = Some(now + span);
                NEVER
            }
            Self::Script { .. } => now + span,
        }
    }

    /// Whether everything that is cut is healed now.
    pub fn heals(&mut self, now: Instant) -> bool {
        match self {
            Self::Drawn(drawn) => drawn.heal_at.take_if(|at| *at <= now).is_some(),
            Self::Script { .. } => false,
        }
    }

    /// When a client acts next.
    pub fn next_action(&self) -> Instant {
        match self {
            Self::Drawn(drawn) => drawn.next_action,
            Self::Script { actions, .. } => actions.front().map_or(NEVER, |(at, _)| *at),
        }
    }

    /// What clients do now.
    pub fn actions(&mut self, workload: &mut Workload, world: &World) -> Vec<Action> {
        match self {
            Self::Drawn(drawn) => {
                if drawn.next_action > world.now {
                    return Vec::new();
                }
                drawn.next_action = world.now + drawn.plan.act_every;
                let moves = drawn.next_blow.is_some();
                workload.draw(world, drawn.plan.restores, moves)
            }
            Self::Script { actions, .. } => due(actions, world.now),
        }
    }
}

fn due<T>(queue: &mut VecDeque<(Instant, T)>, now: Instant) -> Vec<T> {
    let count = queue.iter().take_while(|(at, _)| *at <= now).count();
    queue.drain(..count).map(|(_, item)| item).collect()
}

impl Drawn {
    fn wait(&mut self, now: Instant) {
        let wait = self.rng.jitter(self.plan.fault_every * 2);
        self.next_blow = Some(now + wait.max(Duration::from_millis(1)));
    }

    fn blows(&mut self, world: &mut World) -> Vec<Blow> {
        let now = world.now;
        let mut blows = Vec::new();
        if let Some((blow, host)) = self.watch.as_mut().and_then(|watch| watch.strike(now)) {
            world.note(format!("x host {host} is ambushed: {blow:?}"));
            blows.extend(self.blow(blow, host, world));
        }
        if self.next_blow.is_some_and(|at| at <= now) {
            let fault = self.plan.faults[self.rng.index(self.plan.faults.len())];
            let of_servers =
                matches!(fault, Fault::Rot | Fault::Wipe | Fault::Fill | Fault::SyncError);
            let hosts = if of_servers { self.plan.servers } else { world.hosts.len() };
            let host = self.rng.index(hosts);
            // Servers leave rarely: each leave changes the configuration.
            let awaited = self.plan.ambush.is_some_and(Ambush::awaits_changes)
                || self.plan.faults.contains(&Fault::Wipe);
            let rare = fault == Fault::Leave && host < self.plan.servers && !awaited;
            if !rare || self.rng.chance(1, 4) {
                blows.extend(self.blow(fault, host, world));
            }
            self.wait(now);
        }
        blows
    }

    /// What a fault of this kind does to a host, and to others.
    fn blow(&mut self, fault: Fault, host: HostId, world: &World) -> Vec<Blow> {
        let count = world.hosts.len();
        let span = Duration::from_millis(10 << self.rng.below(12));
        let power_loss = |host| {
            let crash = Crash::Power(Loss::Mixed);
            Blow::Crash { host, crash, down: span }
        };
        let others = || (0..count).filter(|other| *other != host).collect::<Vec<HostId>>();
        let cut = |hosts: Vec<HostId>, from: Vec<HostId>, mute| match hosts.is_empty() {
            false if !from.is_empty() => vec![Blow::Cut { hosts, from, mute, span }],
            _ => Vec::new(),
        };
        match fault {
            Fault::Kill => vec![Blow::Crash { host, crash: Crash::Process, down: span }],
            Fault::PowerLoss if self.rng.chance(1, 8) => (0..count).map(power_loss).collect(),
            Fault::PowerLoss => vec![power_loss(host)],
            Fault::Partition => {
                let mut hosts: Vec<HostId> = (0..count).collect();
                self.rng.shuffle(&mut hosts);
                let from = hosts.split_off(self.rng.index(count));
                cut(hosts, from, false)
            }
            Fault::Isolate => cut(vec![host], others(), false),
            Fault::OneWay => cut(vec![host], others(), true),
            Fault::Partial => {
                let mut others = others();
                self.rng.shuffle(&mut others);
                others.truncate(1);
                cut(vec![host], others, false)
            }
            Fault::Pause => vec![Blow::Pause { host, span }],
            Fault::Leave => vec![Blow::Leave { host, away: AWAY_TIME }],
            Fault::Lossy => Vec::new(),
            Fault::Rot => {
                let part = Part::DAMAGED[self.rng.index(Part::DAMAGED.len())];
                let crash =
                    if self.rng.chance(1, 2) { Crash::Process } else { Crash::Power(Loss::Mixed) };
                let down = Blow::Crash { host, crash, down: span };
                vec![down, Blow::Rot { host, part, place: self.rng.bits() }]
            }
            Fault::Wipe => {
                let down = Blow::Crash { host, crash: Crash::Process, down: span };
                vec![down, Blow::Rot { host, part: Part::Store, place: 0 }]
            }
            Fault::SyncError => {
                let forgets = self.rng.chance(1, 2);
                let fault = if forgets { SyncFault::Forget } else { SyncFault::Revert };
                vec![Blow::SyncError { host, fault }]
            }
            Fault::Fill => {
                let room = 1 << self.rng.below(18);
                let span = Duration::from_millis(500 << self.rng.below(7));
                vec![Blow::Fill { host, room, span }]
            }
            Fault::Stall => {
                let span = Duration::from_millis(125 << self.rng.below(7));
                vec![Blow::Stall { host, span }]
            }
        }
    }
}
