//! Faults that wait for their moment: when a server does a certain thing, something befalls it.
//!
//! Faults at random times seldom hit the narrow windows between persisting and sending, or between
//! being elected and being heard (simulation.md §6, "Fault targeting"). A seed draws the cue and the
//! blow once and keeps to them, so that what needs several such moments in a row comes about too.

use crate::net::HostId;
use crate::plan::Fault;
use crate::world::World;
use std::time::Duration;
use terraform_core::raft::RoleKind;
use terraform_core::rng::Rng;
use terraform_core::time::Instant;

/// What an ambush waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// A server becomes leader.
    Elected,
    /// A server hands a write of its log to the disk.
    Persists,
    /// A leader has a configuration that is not committed.
    Configures,
    /// A leader commits.
    Commits,
    /// A leader hands over, which it does when it leaves.
    HandsOver,
}

/// Changes of the configuration are the rarest cue and meet few blows, so they are drawn twice.
const CUES: [Cue; 6] =
    [Cue::Elected, Cue::Persists, Cue::Configures, Cue::Commits, Cue::Configures, Cue::HandsOver];

/// What befalls the server.
const BLOWS: [Fault; 6] =
    [Fault::Kill, Fault::PowerLoss, Fault::Isolate, Fault::OneWay, Fault::Pause, Fault::Leave];

/// The cue and the blow of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambush {
    /// What is waited for.
    pub cue: Cue,
    /// What happens then.
    pub blow: Fault,
    /// How long after the cue, at most.
    pub delay_max: Duration,
    /// How long nothing is waited for after a blow, at most.
    pub pause_max: Duration,
}

impl Ambush {
    /// Whether it is laid in vain unless servers come and go.
    pub fn awaits_changes(self) -> bool {
        matches!(self.cue, Cue::Configures | Cue::HandsOver)
    }

    /// What is unusual in its world every time: a leader that hands over when it leaves changes no
    /// configuration, so that no change would meet another one.
    pub fn always(self) -> Option<&'static str> {
        let meets = self.cue == Cue::Configures && self.blow == Fault::Leave;
        meets.then_some("leave.nobody_takes_over")
    }

    /// An ambush for a seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let delay = Duration::from_micros(250 << rng.below(8));
        let (cue, blow) = (CUES[rng.index(CUES.len())], BLOWS[rng.index(BLOWS.len())]);
        // Only another change can meet a change, and a leader that leaves makes one.
        let meets = cue == Cue::Configures && rng.chance(3, 4);
        // A paused leader does not hear that it was replaced: its lease must be void before.
        let sleeps = cue == Cue::HandsOver && rng.chance(1, 2);
        Self {
            cue,
            blow: if meets {
                Fault::Leave
            } else if sleeps {
                Fault::Pause
            } else {
                blow
            },
            delay_max: if rng.chance(1, 3) { Duration::ZERO } else { delay },
            pause_max: Duration::from_millis(250 << rng.below(6)),
        }
    }
}

/// What an ambush remembers of a server to tell that it did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mien {
    leads: bool,
    persists: bool,
    configures: bool,
    commit: u64,
    hands_over: bool,
}

impl Mien {
    fn of(world: &World, host: HostId) -> Self {
        let running = world.hosts[host].running.as_ref();
        let Some(raft) = running.and_then(|running| running.node.raft()) else {
            return Self::default();
        };
        let leads = raft.role() == RoleKind::Leader;
        Self {
            leads,
            persists: world.hosts[host].queued[0] > 0,
            configures: leads && !raft.configuration_is_committed(),
            commit: if leads { raft.commit().get() } else { 0 },
            hands_over: raft.hands_over_to().is_some(),
        }
    }

    const fn shows(self, cue: Cue, before: Self) -> bool {
        match cue {
            Cue::Elected => self.leads && !before.leads,
            Cue::Persists => self.persists && !before.persists,
            Cue::Configures => self.configures && !before.configures,
            Cue::Commits => before.leads && self.commit > before.commit,
            Cue::HandsOver => self.hands_over && !before.hands_over,
        }
    }
}

/// An ambush that is laid: watches every event of a world.
#[derive(Debug)]
pub struct Watch {
    ambush: Ambush,
    miens: Vec<Mien>,
    /// Nothing is waited for before.
    quiet_until: Instant,
    /// The blow that is on its way.
    due: Option<(Instant, HostId)>,
    rng: Rng,
}

impl Watch {
    /// Begins to watch.
    pub const fn new(ambush: Ambush, rng: Rng) -> Self {
        Self { ambush, miens: Vec::new(), quiet_until: Instant::ZERO, due: None, rng }
    }

    /// Looks at the hosts that the last event moved.
    pub fn look(&mut self, world: &World) {
        self.miens.resize(world.hosts.len(), Mien::default());
        for host in &world.touched {
            let now = Mien::of(world, *host);
            let before = std::mem::replace(&mut self.miens[*host], now);
            let waits = self.due.is_none() && world.now >= self.quiet_until;
            if waits && now.shows(self.ambush.cue, before) {
                let delay = self.rng.jitter(self.ambush.delay_max);
                self.due = Some((world.now + delay, *host));
            }
        }
    }

    /// When the blow falls, if one is on its way.
    pub fn due_at(&self) -> Option<Instant> {
        self.due.map(|(at, _)| at)
    }

    /// The blow that falls now and whom it hits.
    pub fn strike(&mut self, now: Instant) -> Option<(Fault, HostId)> {
        let (_, host) = self.due.take_if(|(at, _)| *at <= now)?;
        self.quiet_until = now + self.rng.jitter(self.ambush.pause_max);
        Some((self.ambush.blow, host))
    }
}
