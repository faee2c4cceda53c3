//! How fast a quiet pool sees a crash, beside what the papers expect (gossip-protocol.md §25).
//!
//! One member after another loses its power at a random moment. Counted are the protocol periods
//! until the first probe that fails, the time until somebody suspects and until somebody declares
//! the member dead, and how long each of the two takes to reach everybody.

use crate::detection::{self, Detection};
use crate::net::HostId;
use crate::pool::Pool;
use crate::world::world_rng;
use std::fmt;
use std::time::Duration;
use terraform_core::config::GossipConfig;
use terraform_core::rng::{Rng, Stream};

/// The sizes that are tried unless one is asked for; larger pools take minutes.
pub const SIZES: [usize; 3] = [10, 32, 100];
/// The largest pool there may be.
pub const MEMBERS_MAX: usize = 8192;
/// The columns of a row.
pub const HEADER: &str = "members crashes | periods to first failing probe, expected | suspected \
                          after, told to all in, expected | dead after, expected | told to all in";

/// Crashes for each row: in small pools of many worlds, in large ones of one.
const CRASHES: usize = 20;
/// How long pools idle to measure the simulator.
const IDLE: Duration = Duration::from_secs(20);

/// The means of a size of pool.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    members: usize,
    crashes: usize,
    /// Periods begun until the first failing probe.
    periods: f64,
    suspected: f64,
    suspected_by_all: f64,
    dead: f64,
    dead_at_all: f64,
}

/// Pools of one size.
#[derive(Debug)]
pub struct Trial {
    members: usize,
    pool: Pool,
    config: GossipConfig,
}

impl Trial {
    /// A first pool of `members`.
    pub fn new(members: usize) -> Self {
        let config = GossipConfig::lan();
        Self { members, pool: Pool::joined(1, members, &config), config }
    }

    /// Lets the pool idle and returns for how long.
    pub fn idle(&mut self) -> Duration {
        self.pool.run_for(IDLE);
        IDLE
    }

    /// Crashes members, never more than a tenth of a pool.
    pub fn measure(&mut self) -> Row {
        let each = (self.members / 10).clamp(1, CRASHES);
        let mut crashes = Vec::with_capacity(CRASHES);
        let mut worlds = 1;
        loop {
            let mut rng = world_rng(worlds as u64, Stream::Identity);
            for victim in 0..each {
                // Members are alike, but the first one was joined by all.
                let victim = self.members - 1 - victim;
                crashes.extend(self.crash(victim, &mut rng));
            }
            if worlds * each >= CRASHES {
                return Row::of(self.members, &self.config, &crashes);
            }
            worlds += 1;
            self.pool = Pool::joined(worlds as u64, self.members, &self.config);
        }
    }

    fn crash(&mut self, victim: HostId, rng: &mut Rng) -> Option<Detection> {
        self.pool.run_for(rng.jitter(self.config.probe_interval));
        detection::crash(&mut self.pool, &[victim]).pop()
    }
}

impl Row {
    fn of(members: usize, config: &GossipConfig, crashes: &[Detection]) -> Self {
        let mean = |value: &dyn Fn(&Detection) -> f64| {
            crashes.iter().map(value).sum::<f64>() / crashes.len() as f64
        };
        let period = config.probe_interval.as_secs_f64();
        Self {
            members,
            crashes: crashes.len(),
            // The verdict falls one period after the ping.
            periods: mean(&|crash| (crash.suspected.as_secs_f64() / period - 1.0).ceil().max(1.0)),
            suspected: mean(&|crash| crash.suspected.as_secs_f64()),
            suspected_by_all: mean(&|crash| crash.suspected_by_all.as_secs_f64()),
            dead: mean(&|crash| crash.dead.as_secs_f64()),
            dead_at_all: mean(&|crash| crash.dead_at_all.as_secs_f64()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.members as f64;
        let first = 1.0 / (1.0 - (-1.0_f64).exp());
        // Pushing to three members each 0.2 s takes about log4 n + ln n / 3 rounds.
        let spread = 0.2 * (n.log(4.0) + n.ln() / 3.0);
        let dead = first + 1.0 + 4.0 * n.log10().max(1.0);
        write!(
            f,
            "{:>7} {:>7} | {:.2}, {first:.2} | {:.2} s, {:.2} s, {spread:.2} s | \
             {:.1} s, {dead:.1} s | {:.2} s",
            self.members,
            self.crashes,
            self.periods,
            self.suspected,
            self.suspected_by_all,
            self.dead,
            self.dead_at_all,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_seen_by_all_in_the_expected_order() {
        let mut trial = Trial::new(10);
        let mut rng = world_rng(1, Stream::Identity);
        let crash = trial.crash(9, &mut rng).expect("all see it");
        assert!(crash.suspected >= Duration::from_secs(1), "{crash:?}");
        // Four seconds on a clock that may be fast.
        assert!(crash.dead >= crash.suspected + Duration::from_millis(3_999), "{crash:?}");
        assert!(crash.dead < Duration::from_secs(28), "{crash:?}");
    }
}
