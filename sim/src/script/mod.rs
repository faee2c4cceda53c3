//! Scripts: everything that was decided in a world, as data (simulation.md §11.2).
//!
//! A [`Script`] is the shape of a cluster, what befalls it, and what its clients do, each at its
//! time. Every world of a seed makes one while it runs, and a script makes a world again. What is
//! left to chance there is [`Luck`](crate::luck::Luck), which does not shift when a line is taken
//! out. As text ([`print`](mod@print), [`parse`]) a script is a file that people read and change.

pub mod parse;
pub mod print;
#[cfg(test)]
mod tests;

use crate::disk::{Crash, SyncFault};
use crate::net::{HostId, NetOptions};
use crate::plan::{Care, Plan};
use crate::rot::Part;
use crate::workload::Action;
use crate::world::WorldOptions;
use std::time::Duration;
use terraform_core::raft::RaftLimits;
use terraform_core::time::Instant;

/// One thing that befalls a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    /// A process ends at once, alone or with its machine, and comes back.
    Crash {
        /// Whose.
        host: HostId,
        /// What its disk keeps.
        crash: Crash,
        /// How long it is down.
        down: Duration,
    },
    /// Links are cut.
    Cut {
        /// The hosts at one end.
        hosts: Vec<HostId>,
        /// The hosts at the other.
        from: Vec<HostId>,
        /// Whether only what the former send is lost.
        mute: bool,
        /// For how long.
        span: Duration,
    },
    /// A process gets no time.
    Pause {
        /// Whose.
        host: HostId,
        /// For how long.
        span: Duration,
    },
    /// An agent leaves, and comes back.
    Leave {
        /// Which.
        host: HostId,
        /// How long after it was told to.
        away: Duration,
    },
    /// What is durable on the disk of a server that is down is damaged.
    Rot {
        /// Whose.
        host: HostId,
        /// What rots.
        part: Part,
        /// Where, modulo the size of that.
        place: u64,
    },
    /// A disk is full.
    Fill {
        /// Whose.
        host: HostId,
        /// Bytes of space that are left.
        room: u64,
        /// For how long.
        span: Duration,
    },
    /// The next sync of a log fails.
    SyncError {
        /// Whose.
        host: HostId,
        /// What becomes of what was to be synced.
        fault: SyncFault,
    },
    /// A disk does nothing.
    Stall {
        /// Whose.
        host: HostId,
        /// For how long.
        span: Duration,
    },
}

impl Blow {
    /// The kind of it, for people and for leaving out whole kinds.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Crash { crash: Crash::Process, .. } => "kill",
            Self::Crash { crash: Crash::Power(_), .. } => "power-loss",
            Self::Cut { mute: false, .. } => "cut",
            Self::Cut { mute: true, .. } => "mute",
            Self::Pause { .. } => "pause",
            Self::Leave { .. } => "leave",
            Self::Rot { .. } => "rot",
            Self::Stall { .. } => "stall",
            Self::Fill { .. } => "fill",
            Self::SyncError { .. } => "sync-error",
        }
    }
}

/// Everything that was decided in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What luck comes from.
    pub seed: u64,
    /// The planted bug that is to be on.
    pub mutant: Option<&'static str>,
    /// The rule that it breaks.
    pub rule: Option<String>,
    /// Servers.
    pub servers: usize,
    /// Client agents.
    pub clients: usize,
    /// Sizes of consensus.
    pub limits: RaftLimits,
    /// Network, disk, clocks.
    pub world: WorldOptions,
    /// Whether gossip is compressed.
    pub compressed: bool,
    /// Whether gossip is encrypted.
    pub encrypted: bool,
    /// Whether the first server is more patient than the others.
    pub uneven: bool,
    /// Whether hosts start one by one, into what befalls them.
    pub newborn: bool,
    /// Whether most servers are lost in the end.
    pub disaster: bool,
    /// How the leader cares for the servers.
    pub care: Care,
    /// A place of the core that does what is unusual there every time.
    pub always: Option<&'static str>,
    /// When no more befalls it.
    pub until: Instant,
    /// Whether it is healed then and must come to rest; otherwise the world ends.
    pub rests: bool,
    /// What befalls it, in order.
    pub blows: Vec<(Instant, Blow)>,
    /// What its clients do, in order.
    pub actions: Vec<(Instant, Action)>,
}

impl Script {
    /// The script of a world of `plan` in which nothing has happened yet.
    pub fn of_plan(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            mutant: None,
            rule: None,
            servers: plan.servers,
            clients: plan.clients,
            limits: plan.limits,
            world: plan.world.clone(),
            compressed: plan.compressed,
            encrypted: plan.encrypted,
            uneven: plan.uneven,
            newborn: plan.newborn,
            disaster: plan.disaster,
            care: plan.care,
            always: plan.ambush.and_then(crate::ambush::Ambush::always),
            until: Instant::ZERO,
            rests: true,
            blows: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// The plan of its world: one in which nothing is drawn.
    pub fn plan(&self) -> Plan {
        Plan {
            limits: self.limits,
            world: self.world.clone(),
            compressed: self.compressed,
            encrypted: self.encrypted,
            uneven: self.uneven,
            newborn: self.newborn,
            disaster: self.disaster,
            care: self.care,
            ..Plan::quiet(self.seed, self.servers, self.clients)
        }
    }

    /// How many hosts there are.
    pub const fn hosts(&self) -> usize {
        self.servers + self.clients
    }

    /// Whether nothing goes wrong in its world.
    pub fn is_quiet(&self) -> bool {
        self.blows.is_empty() && self.world.net == NetOptions::quiet()
    }

    /// Notes that all links work again: what was cut and not healed by then was cut until now.
    pub fn healed(&mut self, now: Instant) {
        for (at, blow) in &mut self.blows {
            if let Blow::Cut { span, .. } = blow
                && *span > now.since(*at)
            {
                *span = now.since(*at);
            }
        }
    }
}
