//! Lifeguard's controlled experiment (gossip-protocol.md §26): what members that are too slow do
//! to the healthy ones, with each of Lifeguard's components switched on by itself.
//!
//! Some members of a pool cannot send or receive for a while, again and again, while their timers
//! run. Counted are the healthy members that somebody declares dead (FP), and those among them that
//! a healthy member does (FP-). How fast real crashes are seen is measured apart, in pools where
//! everybody else is well.

use crate::detection::{self, Detection};
use crate::net::HostId;
use crate::pool::{Pool, id_of};
use crate::world::world_rng;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;
use terraform_core::config::GossipConfig;
use terraform_core::rng::{Rng, Stream};
use terraform_core::wire::gossip::PeerState;

/// Members of each pool.
const MEMBERS: usize = 128;
/// How long a pool idles first.
const QUIET: Duration = Duration::from_secs(15);
/// Anomalies begin for this long.
const RUN: Duration = Duration::from_secs(120);
/// Members that crash at one moment, for the latencies.
const CRASHES: [usize; 3] = [1, 4, 16];
/// Worlds for each number of crashes.
const CRASH_WORLDS: u64 = 8;
/// Worlds that run at one time.
const THREADS: usize = 2;

/// One setting of the failure detector.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    name: &'static str,
    /// Multiplies the shortest suspicion.
    alpha: u32,
    /// The longest suspicion in multiples of the shortest: above 1 is LHA-Suspicion.
    beta: u32,
    /// Local health scores stay below this: above 1 is LHA-Probe.
    awareness: u32,
    /// Whether suspects are told so at once.
    buddy: bool,
}

/// Plain SWIM, each component, all of them, and all of them with a shorter suspicion.
pub const DETECTORS: [Detector; 6] = [
    Detector { name: "SWIM", alpha: 5, beta: 1, awareness: 1, buddy: false },
    Detector { name: "LHA-Probe", alpha: 5, beta: 1, awareness: 8, buddy: false },
    Detector { name: "LHA-Suspicion", alpha: 5, beta: 6, awareness: 1, buddy: false },
    Detector { name: "Buddy System", alpha: 5, beta: 1, awareness: 1, buddy: true },
    Detector { name: "Lifeguard", alpha: 5, beta: 6, awareness: 8, buddy: true },
    Detector { name: "Lifeguard, alpha 4", alpha: 4, beta: 6, awareness: 8, buddy: true },
];

impl Detector {
    fn config(&self) -> GossipConfig {
        GossipConfig {
            suspicion_mult: self.alpha,
            suspicion_max_timeout_mult: self.beta,
            awareness_max_multiplier: self.awareness,
            buddy: self.buddy,
            ..GossipConfig::lan()
        }
    }
}

/// The anomalies of one world.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Members that have them, all at the same time.
    concurrent: usize,
    /// How long each takes.
    duration: Duration,
    /// The time until the next one.
    interval: Duration,
}

/// The anomalies that are tried, each in `worlds` worlds.
#[derive(Clone, Debug)]
pub struct Grid {
    points: Vec<Point>,
    worlds: u64,
}

impl Grid {
    /// A part of the experiment that spans the same ranges, in one world each; takes minutes.
    pub fn short() -> Self {
        Self::of(&[1, 8, 16, 32], &[512, 2048, 8192, 32_768], &[1, 1024, 16_384], 1)
    }

    /// All of it; takes hours.
    pub fn full() -> Self {
        let concurrent = [1, 4, 8, 12, 16, 20, 24, 28, 32];
        let durations = [128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];
        let intervals = [1, 4, 16, 64, 256, 1024, 4096, 16_384];
        Self::of(&concurrent, &durations, &intervals, 10)
    }

    /// The anomalies of every combination, times in milliseconds.
    fn of(concurrent: &[usize], durations: &[u64], intervals: &[u64], worlds: u64) -> Self {
        let mut points = Vec::new();
        for concurrent in concurrent {
            for duration in durations.iter().copied().map(Duration::from_millis) {
                for interval in intervals.iter().copied().map(Duration::from_millis) {
                    points.push(Point { concurrent: *concurrent, duration, interval });
                }
            }
        }
        Self { points, worlds }
    }

    /// Worlds with anomalies for each detector.
    pub fn len(&self) -> usize {
        self.points.len() * usize::try_from(self.worlds).unwrap_or(usize::MAX)
    }

    /// Whether there is nothing to try.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// What one detector did.
#[derive(Clone, Debug)]
pub struct Row {
    detector: Detector,
    /// Healthy members declared dead, counted at all members.
    pub false_positives: u64,
    /// Those counted at healthy members.
    pub at_healthy: u64,
    messages: u64,
    bytes: u64,
    first: Vec<Duration>,
    to_all: Vec<Duration>,
}

/// The columns of a row.
pub const HEADER: &str = "detector           |       FP   of SWIM |      FP-   of SWIM | \
                          first detection: median, 99 %, 99.9 % | told to all: median, 99 %, \
                          99.9 % | messages, bytes of SWIM";

/// Tries a detector on all of the grid.
pub fn measure(detector: Detector, grid: &Grid) -> Row {
    let row = Row {
        detector,
        false_positives: 0,
        at_healthy: 0,
        messages: 0,
        bytes: 0,
        first: Vec::new(),
        to_all: Vec::new(),
    };
    let row = Mutex::new(row);
    for world in 1..=grid.worlds {
        let mut pool = Pool::joined(world, MEMBERS, &detector.config());
        pool.run_for(QUIET);
        let points = Mutex::new(grid.points.iter().enumerate());
        let next = || points.lock().ok().and_then(|mut points| points.next());
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some((number, point)) = next() {
                        // The same members have the same anomalies with every detector.
                        let rng = world_rng((world << 32) | number as u64, Stream::Identity);
                        let disturbed = disturb(pool.clone(), *point, rng);
                        row.lock().expect("no thread panics").add(&disturbed);
                    }
                });
            }
        });
    }
    let mut row = row.into_inner().expect("no thread panics");
    row.crash_members();
    row
}

/// What the anomalies of one world did.
#[derive(Clone, Copy, Debug, Default)]
struct Disturbed {
    false_positives: u64,
    at_healthy: u64,
    messages: u64,
    bytes: u64,
}

fn disturb(mut pool: Pool, point: Point, mut rng: Rng) -> Disturbed {
    let slow: BTreeSet<HostId> = choose(point.concurrent, &mut rng).into_iter().collect();
    let began = pool.world.now;
    let sent = |pool: &Pool| (pool.world.datagrams + pool.world.segments, pool.world.bytes);
    let before = sent(&pool);
    pool.take_beliefs();
    let mut disturbed = Disturbed::default();
    while pool.world.now.since(began) < RUN {
        for id in &slow {
            pool.world.block(*id, point.duration);
        }
        pool.run_for(point.duration + point.interval);
        for belief in pool.take_beliefs().iter().filter(|it| it.state == PeerState::Dead) {
            if id_of(&belief.subject).is_some_and(|subject| !slow.contains(&subject)) {
                disturbed.false_positives += 1;
                disturbed.at_healthy += u64::from(!slow.contains(&belief.observer));
            }
        }
    }
    let after = sent(&pool);
    (disturbed.messages, disturbed.bytes) = (after.0 - before.0, after.1 - before.1);
    disturbed
}

/// `count` different members.
fn choose(count: usize, rng: &mut Rng) -> Vec<HostId> {
    let mut members: Vec<HostId> = (0..MEMBERS).collect();
    rng.shuffle(&mut members);
    members.truncate(count);
    members
}

impl Row {
    fn add(&mut self, disturbed: &Disturbed) {
        self.false_positives += disturbed.false_positives;
        self.at_healthy += disturbed.at_healthy;
        self.messages += disturbed.messages;
        self.bytes += disturbed.bytes;
    }

    /// Measures how fast crashes are seen where everybody else is well.
    fn crash_members(&mut self) {
        let mut seen: Vec<Detection> = Vec::new();
        for world in 1..=CRASH_WORLDS {
            let pool = Pool::joined(world, MEMBERS, &self.detector.config());
            for count in CRASHES {
                let mut rng = world_rng(world, Stream::Identity);
                let mut pool = pool.clone();
                pool.run_for(QUIET + rng.jitter(Duration::from_secs(1)));
                seen.extend(detection::crash(&mut pool, &choose(count, &mut rng)));
            }
        }
        self.first = seen.iter().map(|seen| seen.dead).collect();
        self.to_all = seen.iter().map(|seen| seen.dead + seen.dead_at_all).collect();
        self.first.sort();
        self.to_all.sort();
    }

    /// The row as text, beside that of plain SWIM.
    pub fn beside<'a>(&'a self, swim: &'a Self) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            let part = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
            let [first, to_all] = [&self.first, &self.to_all].map(|times| {
                let [median, high, highest] = [500, 990, 999].map(|at| seconds(times, at));
                format!("{median:.2} s, {high:.2} s, {highest:.2} s")
            });
            write!(
                f,
                "{:<18} | {:>8} {:>7.2} % | {:>8} {:>7.2} % | {first} | {to_all} | {:.1} %, {:.1} %",
                self.detector.name,
                self.false_positives,
                part(self.false_positives, swim.false_positives),
                self.at_healthy,
                part(self.at_healthy, swim.at_healthy),
                part(self.messages, swim.messages),
                part(self.bytes, swim.bytes),
            )
        })
    }

    /// The time within which half of all crashes are seen by somebody, in seconds.
    pub fn median(&self) -> f64 {
        seconds(&self.first, 500)
    }
}

/// The value that so many thousandths of the sorted `times` stay below, in seconds.
fn seconds(times: &[Duration], thousandths: usize) -> f64 {
    let last = times.len().saturating_sub(1);
    times.get(last * thousandths / 1000).map_or(f64::NAN, Duration::as_secs_f64)
}

/// What is demanded of the experiment, and whether it holds (gossip-protocol.md §26).
pub fn verdicts(rows: &[Row]) -> Vec<(String, bool)> {
    let [swim, parts @ .., lifeguard, quicker] = rows else { return Vec::new() };
    let part = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let mut verdicts = vec![
        (
            "Lifeguard's FP are at most 2 % of SWIM's".to_owned(),
            part(lifeguard.false_positives, swim.false_positives) <= 0.02,
        ),
        (
            "Lifeguard's FP- are at most 2 % of SWIM's".to_owned(),
            part(lifeguard.at_healthy, swim.at_healthy) <= 0.02,
        ),
        (
            "its median first detection is within 5 % of SWIM's".to_owned(),
            (lifeguard.median() / swim.median() - 1.0).abs() <= 0.05,
        ),
        ("with alpha 4 it is faster".to_owned(), quicker.median() < swim.median()),
        (
            // Less is no fault: without false alarms there is less to tell.
            "it sends at most 15 % more messages than SWIM".to_owned(),
            part(lifeguard.messages, swim.messages) <= 1.15,
        ),
    ];
    for row in parts {
        let text = format!("{} alone has no more FP than SWIM", row.detector.name);
        verdicts.push((text, row.false_positives <= swim.false_positives));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_members_do_less_harm_with_lifeguard_than_with_plain_swim() {
        let grid = Grid::of(&[8], &[16_384], &[64], 1);
        let [swim, .., lifeguard, _] = DETECTORS;
        let harm = |detector: Detector| {
            let mut pool = Pool::joined(1, MEMBERS, &detector.config());
            pool.run_for(QUIET);
            disturb(pool, grid.points[0], world_rng(1, Stream::Identity)).false_positives
        };
        let (swim, lifeguard) = (harm(swim), harm(lifeguard));
        assert!(swim > 100, "{swim}");
        assert!(lifeguard * 10 < swim, "{lifeguard} of {swim}");
    }
}
