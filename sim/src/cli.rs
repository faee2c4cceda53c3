//! What the simulator's commands do (simulation.md §13).
//!
//! Exit codes: 0 passed, 10 a rule is broken, 12 two runs of one seed differ, 13 a panic, 2 bad
//! arguments.

use crate::checker::Violation;
use crate::coverage::Coverage;
use crate::federation;
use crate::gossip;
use crate::gossip::plan::GossipPlan;
use crate::hash::TraceHash;
use crate::lifeguard::{self, DETECTORS, Grid};
use crate::plan::Plan;
use crate::run::{self, Elections};
use crate::scenario::{SCENARIOS, Scenario};
use crate::shrink::command::{script_command, shrink_command};
use crate::world::{Note, World};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use terraform_core::marks;
use terraform_core::raft::cluster::Chaos;

const USAGE: &str = "usage:
  sim --seed N                       run one world
  sim --scenario NAME [--seed N]     perform one named scenario
  sim scenarios                      perform all of them
  sim swarm --seeds A..B [--jobs J]  run many, on J threads
  sim lite --seed N                  run the consensus of some servers and nothing else
  sim lite --seeds A..B [--jobs J]   run many of them
  sim disk --seed N                  run one world whose disks go wrong
  sim disk --seeds A..B [--jobs J]   run many of them
  sim members --seed N               run one world whose servers come and go
  sim members --seeds A..B [--jobs J]
                                     run many of them
  sim gossip --seed N                run one pool that only gossips
  sim gossip --seeds A..B [--jobs J] run many of them
  sim gossip-large [--members N]     run a pool of 1000 members, or of N
  sim check-determinism --seeds A..B run each twice and compare
  sim mutants [--id M05]             switch planted bugs on, one by one
  sim shrink --seed N [--disk | --members] [--mutant M05] [--out FILE] [--any] [--seconds S]
                                     shorten a world that breaks a rule, for S seconds at most
  sim script FILE                    perform what is left of it
  sim replay FILE [--until N] [--trace]
                                     run a recorded agent again, up to input N, with its log
  sim swim [--members N]             how fast pools of 10 to 100 members, or of N, see a crash
  sim bench                          how much time worlds of each kind simulate in a second of one
                                     core, then what gossip costs
  sim bench --members N              what gossip costs an agent of N, not of 1000 and of 10000
  sim lifeguard [--full]             what slow members do to others, by part of Lifeguard
";

/// A kind of world that seeds make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// The consensus of some servers and nothing else.
    Lite,
    /// Servers and clients.
    Cluster,
    /// Three servers and ten clients.
    DefaultMix,
    /// Servers and clients whose disks go wrong.
    Disk,
    /// Servers that come and go, and clients.
    Members,
    /// A pool that only gossips.
    Gossip,
    /// What a named scenario says happens.
    Scripted(&'static str),
}

/// A planted bug, the worlds in which it shows, and the seeds within which it must be caught
/// (simulation.md §12.1).
const MUTANTS: [(&str, Profile, u64); 58] = [
    ("M01", Profile::Cluster, 200),
    ("M02", Profile::Cluster, 1000),
    ("M03", Profile::Cluster, 50),
    ("M04", Profile::Cluster, 500),
    ("M05", Profile::Lite, 2000),
    ("M06", Profile::Cluster, 200),
    ("M07", Profile::Cluster, 200),
    ("M08", Profile::Cluster, 200),
    ("M09", Profile::Lite, 100),
    ("M10", Profile::Scripted("terms-apart"), 9),
    ("M11", Profile::Scripted("terms-apart"), 9),
    ("M12", Profile::Scripted("deaf-leader"), 9),
    ("M13", Profile::Cluster, 50),
    ("M14", Profile::Scripted("vote-after-restart"), 19),
    ("M15", Profile::Cluster, 2000),
    ("M16", Profile::Cluster, 2000),
    ("M17", Profile::Cluster, 300),
    ("M18", Profile::Cluster, 500),
    ("M19", Profile::Lite, 5000),
    ("M20", Profile::Lite, 5000),
    ("M21", Profile::Cluster, 100),
    ("M22", Profile::Lite, 1000),
    ("M24", Profile::Lite, 200),
    ("M25", Profile::Lite, 1000),
    ("M26", Profile::Lite, 1000),
    ("M27", Profile::Lite, 300),
    ("M28", Profile::Lite, 500),
    ("M29", Profile::Disk, 300),
    ("M30", Profile::Disk, 200),
    ("M31", Profile::Cluster, 2000),
    ("M32", Profile::Disk, 50),
    ("M33", Profile::Lite, 3000),
    ("M34", Profile::Cluster, 100),
    ("M35", Profile::Lite, 300),
    ("M36", Profile::Members, 1000),
    ("M37", Profile::Cluster, 500),
    ("M38", Profile::Cluster, 100),
    ("M39", Profile::Cluster, 300),
    ("M40", Profile::Cluster, 500),
    ("M41", Profile::Cluster, 200),
    ("M42", Profile::Cluster, 100),
    ("M43", Profile::Gossip, 100),
    ("M44", Profile::Gossip, 100),
    ("M45", Profile::Gossip, 100),
    ("M46", Profile::Cluster, 100),
    ("M47", Profile::Gossip, 500),
    ("M48", Profile::Gossip, 200),
    ("M49", Profile::Cluster, 20),
    ("M51", Profile::Cluster, 100),
    ("M54", Profile::Cluster, 2000),
    ("M55", Profile::Cluster, 200),
    ("M56", Profile::Disk, 200),
    ("M57", Profile::Disk, 100),
    ("M58", Profile::Disk, 200),
    ("M59", Profile::Cluster, 50),
    ("M60", Profile::Cluster, 100),
    ("M61", Profile::Cluster, 100),
    ("M62", Profile::Gossip, 300),
];

/// The rules that some of them must be caught by; any will do for the others.
const CAUGHT_BY: [(&str, &str); 7] = [
    ("M38", "C8"),
    ("M40", "C7"),
    ("M41", "C7"),
    ("M59", "C7"),
    ("M60", "C8"),
    ("M61", "C6"),
    ("M62", "G9"),
];

/// The planted bug of this name, if its worlds have servers and clients.
pub(crate) fn mutant_named(name: &str) -> Option<&'static str> {
    let of = |(id, profile, _): &(&'static str, Profile, u64)| {
        let has_world = !matches!(profile, Profile::Lite | Profile::Gossip);
        (*id == name && has_world).then_some(*id)
    };
    MUTANTS.iter().find_map(of)
}

/// Members of a large pool unless another number is asked for.
const LARGE_POOL: usize = 1000;
/// Worlds of each kind whose speed is measured.
const BENCH_SEEDS: u64 = 32;
/// Lines of the trace in a report.
const REPORT_LINES: usize = 40;

/// Runs the command that `words` ask for.
pub fn command(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--seed", seed] => {
            seed.parse().map_or_else(|_| usage(), |seed| one(Plan::of_seed(seed), ""))
        }
        [kind @ ("lite" | "disk" | "members" | "gossip"), "--seed", seed] => {
            seed.parse().map_or_else(|_| usage(), |seed| one_of_kind(kind, seed))
        }
        ["gossip-large"] => pool(GossipPlan::large(1, LARGE_POOL), "gossip-large"),
        ["gossip-large", "--members", members] => match members.parse() {
            Ok(members) if (2..=crate::swim::MEMBERS_MAX).contains(&members) => {
                pool(GossipPlan::large(1, members), "gossip-large")
            }
            _ => usage(),
        },
        [
            kind @ ("lite" | "swarm" | "disk" | "members" | "gossip"),
            "--seeds",
            seeds,
            jobs @ ..,
        ] => {
            let profile = match *kind {
                "lite" => Profile::Lite,
                "swarm" => Profile::Cluster,
                "disk" => Profile::Disk,
                "members" => Profile::Members,
                _ => Profile::Gossip,
            };
            let jobs = match jobs {
                [] => Some(2),
                ["--jobs", jobs] => jobs.parse().ok().filter(|jobs| (1..=256).contains(jobs)),
                _ => None,
            };
            match (range(seeds), jobs) {
                (Some(seeds), Some(jobs)) => swarm(profile, seeds, jobs),
                _ => usage(),
            }
        }
        ["check-determinism", "--seeds", seeds] => {
            range(seeds).map_or_else(usage, check_determinism)
        }
        ["scenarios"] => scenarios(None, None),
        ["--scenario", name] => scenarios(Some(name), None),
        ["--scenario", name, "--seed", seed] => match seed.parse() {
            Ok(seed) => scenarios(Some(name), Some(seed)),
            Err(_) => usage(),
        },
        ["mutants"] => mutants(None),
        ["mutants", "--id", id] => mutants(Some(id)),
        ["shrink", words @ ..] => shrink_command(words),
        ["script", path] => script_command(path),
        ["replay", path, words @ ..] => crate::replay::command::replay_command(path, words),
        ["swim"] => swim(&crate::swim::SIZES),
        ["swim", "--members", members] => match members.parse() {
            Ok(members) if (2..=crate::swim::MEMBERS_MAX).contains(&members) => swim(&[members]),
            _ => usage(),
        },
        ["bench"] => bench_worlds(),
        ["bench", "--members", members] => match members.parse() {
            Ok(members) if (100..=crate::bench::MEMBERS_MAX).contains(&members) => {
                bench(&[members])
            }
            _ => usage(),
        },
        ["lifeguard"] => lifeguard(&Grid::short()),
        ["lifeguard", "--full"] => lifeguard(&Grid::full()),
        _ => usage(),
    }
}

fn one_of_kind(kind: &str, seed: u64) -> ExitCode {
    match kind {
        "lite" => lite_one(seed),
        "disk" => one(Plan::of_disks(seed), "disk "),
        "members" => one(Plan::of_members(seed), "members "),
        _ => pool(GossipPlan::of_seed(seed), "gossip"),
    }
}

pub(crate) fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

/// What is left of a world that was run.
#[derive(Debug, Default)]
struct Summary {
    violation: Option<Violation>,
    hash: TraceHash,
    simulated: Duration,
    undecided: usize,
    elections: Elections,
}

/// What the worlds of a swarm come to.
#[derive(Debug, Default)]
struct Totals {
    simulated: Duration,
    /// Keys whose history could not be judged.
    undecided: usize,
    elections: Vec<Elections>,
    coverage: Coverage,
}

/// Runs the world of a seed to its end, or to a panic, whose text is the error.
fn summary(profile: Profile, seed: u64) -> Result<Summary, String> {
    caught(|| match profile {
        Profile::Cluster => of_cluster(Plan::of_seed(seed)),
        Profile::DefaultMix => of_cluster(Plan::of_default_mix(seed)),
        Profile::Disk => of_cluster(Plan::of_disks(seed)),
        Profile::Members => of_cluster(Plan::of_members(seed)),
        Profile::Lite => lite(seed),
        Profile::Scripted(name) => scripted(name, seed),
        Profile::Gossip => {
            let gossip::Outcome { violation, hash, simulated, .. } =
                gossip::run(GossipPlan::of_seed(seed)).0;
            Summary { violation, hash, simulated, ..Summary::default() }
        }
    })
}

/// Consensus alone; a broken rule is a panic.
fn lite(seed: u64) -> Summary {
    let mut chaos = Chaos::new(seed);
    chaos.run();
    let hash = hash_of_story(&chaos);
    Summary { violation: None, hash, simulated: chaos.simulated(), ..Summary::default() }
}

fn hash_of_story(chaos: &Chaos) -> TraceHash {
    let mut hash = TraceHash::default();
    chaos.story().iter().for_each(|line| hash.bytes(line.as_bytes()));
    hash.number(chaos.committed() as u64);
    hash
}

/// Runs the consensus of one seed alone and tells what happened if it went wrong.
fn lite_one(seed: u64) -> ExitCode {
    let mut chaos = Chaos::new(seed);
    let ended = caught(|| chaos.run());
    println!("hash {}\n{} entries committed", hash_of_story(&chaos), chaos.committed());
    let Err(text) = ended else { return ExitCode::SUCCESS };
    chaos.story().iter().for_each(|line| println!("{line}"));
    panicked(&format!("lite --seed {seed}"), &text)
}

/// The world of a named scenario. Only what it breaks is of interest, and its hash.
fn scripted(name: &str, seed: u64) -> Summary {
    let text = SCENARIOS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let scenario = text.and_then(|text| Scenario::parse(text).ok());
    let (result, run) = scenario.expect("the scenarios of mutants are among all").perform(seed);
    let (hash, simulated) =
        (run.world.hash(), run.world.now.since(terraform_core::time::Instant::ZERO));
    Summary { violation: result.err(), hash, simulated, ..Summary::default() }
}

fn of_cluster(plan: Plan) -> Summary {
    let run::Outcome { violation, hash, simulated, undecided, elections, .. } = run::run(plan).0;
    Summary { violation, hash, simulated, undecided, elections }
}

/// What `run` returns, or the text of the panic that ended it.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "a panic without text".to_owned())
    })
}

fn panicked(repro: &str, text: &str) -> ExitCode {
    println!("panic: {text}\nrepro: cargo run --profile sim -p sim -- {repro}");
    ExitCode::from(13)
}

/// Runs one cluster and says how it went; `command` stands before the words that do so again.
fn one(plan: Plan, command: &str) -> ExitCode {
    let repro = format!("{command}--seed {}", plan.seed);
    println!(
        "seed {}: {} servers, {} clients, faults {:?} every {:?} for {:?}",
        plan.seed, plan.servers, plan.clients, plan.faults, plan.fault_every, plan.length
    );
    let started = Instant::now();
    let (outcome, run) = match caught(|| run::run(plan)) {
        Ok(ran) => ran,
        Err(text) => return panicked(&repro, &text),
    };
    let wall = started.elapsed();
    let (done, answered) = outcome.operations;
    println!("hash {}", outcome.hash);
    println!(
        "{} events, {} entries committed, {done} of {answered} operations succeeded",
        outcome.events, outcome.committed
    );
    if outcome.undecided > 0 {
        println!("the history of {} keys could not be judged", outcome.undecided);
    }
    println!("{}", ratio(outcome.simulated, wall));
    verdict(&repro, &run.world, outcome.violation)
}

/// Runs one pool and says how it went.
fn pool(plan: GossipPlan, command: &str) -> ExitCode {
    let repro = match command {
        "gossip" => format!("gossip --seed {}", plan.seed),
        _ => format!("{command} --members {}", plan.members),
    };
    println!(
        "seed {}: {} members, drill {:?}, faults {:?} every {:?} for {:?}",
        plan.seed, plan.members, plan.drill, plan.faults, plan.fault_every, plan.length
    );
    let started = Instant::now();
    let (outcome, run) = match caught(|| gossip::run(plan)) {
        Ok(ran) => ran,
        Err(text) => return panicked(&repro, &text),
    };
    println!("hash {}\n{} events", outcome.hash, outcome.events);
    println!("{}", ratio(outcome.simulated, started.elapsed()));
    verdict(&repro, &run.world, outcome.violation)
}

fn verdict(repro: &str, world: &World, violation: Option<Violation>) -> ExitCode {
    match violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            report(repro, world, &violation.to_string());
            ExitCode::from(10)
        }
    }
}

pub(crate) fn ratio(simulated: Duration, wall: Duration) -> String {
    let ratio = simulated.as_secs_f64() / wall.as_secs_f64().max(1e-9);
    format!(
        "{:.1} s simulated in {:.3} s: {ratio:.0} to 1",
        simulated.as_secs_f64(),
        wall.as_secs_f64()
    )
}

/// The short trace (simulation.md §11.3) and the line that runs the world again.
pub(crate) fn report(repro: &str, world: &World, violation: &str) {
    let mut lines: VecDeque<String> = VecDeque::with_capacity(REPORT_LINES);
    for (at, note) in world.ring() {
        if lines.len() == REPORT_LINES {
            lines.pop_front();
        }
        lines.push_back(match note {
            Note::Trace(host, event) => {
                let name = &world.hosts[*host].config.name;
                format!("{at:?} {name:<10} {event}")
            }
            Note::Deed(deed) => format!("{at:?} {:<10} {deed}", "world"),
        });
    }
    lines.iter().for_each(|line| println!("{line}"));
    println!("X {violation}");
    for host in world.hosts.iter().take(REPORT_LINES) {
        println!("  {}", crate::trace::state_line(host));
    }
    println!("repro: cargo run --profile sim -p sim -- {repro}");
}

fn swarm(profile: Profile, seeds: Range<u64>, jobs: usize) -> ExitCode {
    let started = Instant::now();
    let next = Mutex::new(seeds.clone());
    let failed = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next.lock().ok().and_then(|mut seeds| seeds.next()) {
                    let passed = swarm_one(profile, seed, &totals);
                    if !passed {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_default();
    let Totals { simulated, undecided, elections, coverage } = totals;
    let count = seeds.end.saturating_sub(seeds.start);
    let keys = match profile {
        Profile::Cluster | Profile::DefaultMix | Profile::Disk | Profile::Members => {
            format!(" {undecided} histories of keys undecided;")
        }
        Profile::Lite | Profile::Gossip | Profile::Scripted(_) => String::new(),
    };
    println!("{count} seeds;{keys} {}", ratio(simulated, started.elapsed()));
    without_leader("a quorum was healed", elections.iter().filter_map(|it| it.after_healing));
    without_leader("the leader was killed", elections.iter().filter_map(|it| it.after_a_crash));
    println!("{coverage}");
    if failed.into_inner() { ExitCode::from(10) } else { ExitCode::SUCCESS }
}

/// Says how long it took, in many worlds, until somebody led and committed.
fn without_leader(once: &str, spans: impl Iterator<Item = Duration>) {
    let mut spans: Vec<Duration> = spans.collect();
    spans.sort_unstable();
    let at =
        |part: usize| spans.get((spans.len() * part / 1000).min(spans.len().saturating_sub(1)));
    if let [Some(half), Some(most), Some(all)] = [500, 990, 1000].map(at) {
        println!(
            "led once {once}, in {} worlds: p50 {half:?} p99 {most:?} max {all:?}",
            spans.len()
        );
    }
}

/// Runs one seed of a swarm; prints what is wrong with it.
fn swarm_one(profile: Profile, seed: u64, totals: &Mutex<Totals>) -> bool {
    match summary(profile, seed) {
        Err(text) => println!("seed {seed}: panic: {text}"),
        Ok(ran) => {
            if let Ok(mut totals) = totals.lock() {
                totals.simulated += ran.simulated;
                totals.undecided += ran.undecided;
                totals.elections.push(ran.elections);
                totals.coverage.take();
            }
            match &ran.violation {
                None => return true,
                Some(violation) => println!("seed {seed}: {violation}"),
            }
        }
    }
    false
}

/// Performs scenarios in all their worlds, or in the one of `seed`.
fn scenarios(only: Option<&str>, seed: Option<u64>) -> ExitCode {
    let (mut failed, mut performed) = (false, 0);
    for (name, text) in SCENARIOS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let scenario = match Scenario::parse(text) {
            Ok(scenario) => scenario,
            Err(error) => {
                println!("{name}: {error}");
                return ExitCode::from(2);
            }
        };
        let seeds = seed.map_or_else(|| scenario.seeds.clone(), |seed| seed..seed + 1);
        for seed in seeds {
            performed += 1;
            let (result, run) = scenario.perform(seed);
            println!("{name} seed {seed}: hash {}", run.world.hash());
            if let Err(violation) = result {
                let repro = format!("--scenario {name} --seed {seed}");
                report(&repro, &run.world, &violation.to_string());
                failed = true;
            }
        }
    }
    let federated = only.is_none_or(|only| only == federation::NAME);
    let seeds = seed.map_or(federation::SEEDS, |seed| seed..seed + 1);
    for seed in seeds.filter(|_| federated) {
        performed += 1;
        let (result, world) = federation::perform(seed);
        println!("{} seed {seed}: hash {}", federation::NAME, world.hash());
        if let Err(violation) = result {
            let repro = format!("--scenario {} --seed {seed}", federation::NAME);
            report(&repro, &world, &violation.to_string());
            failed = true;
        }
    }
    let mut coverage = Coverage::default();
    coverage.take();
    println!("{coverage}");
    match (failed, performed) {
        (true, _) => ExitCode::from(10),
        (false, 0) => usage(),
        (false, _) => ExitCode::SUCCESS,
    }
}

fn check_determinism(seeds: Range<u64>) -> ExitCode {
    let mut differ = false;
    for profile in
        [Profile::Lite, Profile::Cluster, Profile::Disk, Profile::Members, Profile::Gossip]
    {
        for seed in seeds.clone() {
            let (first, second) = (hash_of(profile, seed), hash_of(profile, seed));
            if first != second {
                println!("{profile:?} seed {seed}: {first} and {second}");
                differ = true;
            }
        }
    }
    if differ {
        return ExitCode::from(12);
    }
    println!("{} seeds of each kind: equal hashes", seeds.end.saturating_sub(seeds.start));
    ExitCode::SUCCESS
}

fn hash_of(profile: Profile, seed: u64) -> String {
    summary(profile, seed).map_or_else(|text| text, |ran| ran.hash.to_string())
}

/// Switches each planted bug on and counts the seeds until a rule is broken.
fn mutants(only: Option<&str>) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let chosen = MUTANTS.iter().filter(|(id, ..)| only.is_none_or(|only| only == *id));
    let next = Mutex::new(chosen);
    let missed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((id, profile, limit)) =
                    next.lock().ok().and_then(|mut next| next.next())
                {
                    if !is_caught(id, *profile, *limit) {
                        missed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if missed.into_inner() { ExitCode::from(10) } else { ExitCode::SUCCESS }
}

/// Prints a row for each size of pool as soon as it is known.
fn swim(sizes: &[usize]) -> ExitCode {
    println!("{}", crate::swim::HEADER);
    for members in sizes {
        let started = Instant::now();
        let mut trial = crate::swim::Trial::new(*members);
        let built = started.elapsed();
        let started = Instant::now();
        let idle = trial.idle();
        let speed = idle.as_secs_f64() / started.elapsed().as_secs_f64().max(1e-9);
        println!("{}", trial.measure());
        println!("      joined in {:.1} s; {speed:.0} s of idling a second", built.as_secs_f64());
    }
    ExitCode::SUCCESS
}

/// The speed of worlds of each kind, one after the other on one thread (simulation.md §14).
fn bench_worlds() -> ExitCode {
    println!("{BENCH_SEEDS} worlds of each kind, with all checks, on one core");
    for (name, profile) in [
        ("default mix: 3 servers, 10 clients, 20 operations/s", Profile::DefaultMix),
        ("swarm", Profile::Cluster),
        ("disk", Profile::Disk),
        ("members", Profile::Members),
        ("lite", Profile::Lite),
        ("gossip", Profile::Gossip),
    ] {
        let started = Instant::now();
        let mut simulated = Duration::ZERO;
        for seed in 0..BENCH_SEEDS {
            let ran = summary(profile, seed);
            let sound = ran.ok().filter(|ran| ran.violation.is_none());
            let Some(sound) = sound else {
                println!("{name} seed {seed} breaks a rule");
                return ExitCode::from(10);
            };
            simulated += sound.simulated;
        }
        println!("{}  {name}", ratio(simulated, started.elapsed()));
    }
    bench(&crate::bench::SIZES)
}

fn bench(sizes: &[usize]) -> ExitCode {
    println!("{}", crate::bench::HEADER);
    for members in sizes {
        println!("{}", crate::bench::Row::measure(*members));
    }
    ExitCode::SUCCESS
}

/// Prints a row for each detector as soon as it is known, then what is demanded of them.
fn lifeguard(grid: &Grid) -> ExitCode {
    let started = Instant::now();
    println!("{} worlds of 128 members for each row", grid.len());
    println!("{}", lifeguard::HEADER);
    let mut rows = Vec::with_capacity(DETECTORS.len());
    for detector in DETECTORS {
        rows.push(lifeguard::measure(detector, grid));
        if let (Some(swim), Some(row)) = (rows.first(), rows.last()) {
            println!("{}", row.beside(swim));
        }
    }
    let verdicts = lifeguard::verdicts(&rows);
    for (demand, holds) in &verdicts {
        println!("{}: {demand}", if *holds { "holds" } else { "DOES NOT HOLD" });
    }
    println!("in {:.0} s", started.elapsed().as_secs_f64());
    if verdicts.iter().all(|(_, holds)| *holds) { ExitCode::SUCCESS } else { ExitCode::from(10) }
}

/// Runs seeds with the bug `id` until one breaks a rule, and says how it went.
fn is_caught(id: &'static str, profile: Profile, limit: u64) -> bool {
    let started = Instant::now();
    let wanted = CAUGHT_BY.iter().find(|(known, _)| *known == id).map(|(_, rule)| *rule);
    let caught = (1..=limit).find_map(|seed| {
        let rule = caught_by(id, profile, seed)?;
        wanted.is_none_or(|wanted| wanted == rule).then_some((seed, rule))
    });
    let wall = started.elapsed().as_secs_f64();
    match &caught {
        Some((seed, rule)) => {
            println!("{id}: caught by {rule} with seed {seed} of {limit}, {wall:.1} s");
        }
        None => println!("{id}: not caught within {limit} seeds, {wall:.1} s"),
    }
    caught.is_some()
}

/// The rule that the world of `seed` breaks with the bug `id` switched on.
fn caught_by(id: &'static str, profile: Profile, seed: u64) -> Option<String> {
    marks::set_mutant(Some(id));
    marks::set_disorder(Some(hash_order));
    let rule = match summary(profile, seed) {
        Ok(Summary { violation: Some(violation), .. }) => Some(violation.rule.to_owned()),
        // The order of a hashed map shows only as a difference between two runs.
        Ok(ran) if id == "M49" && hash_of(profile, seed) != ran.hash.to_string() => {
            Some("D10".to_owned())
        }
        Ok(_) => None,
        Err(text) => Some(match text.find("INV-").and_then(|at| text.get(at..)) {
            Some(rule) => rule.lines().next().unwrap_or_default().to_owned(),
            None => format!("an assertion ({text})"),
        }),
    };
    marks::set_mutant(None);
    marks::set_disorder(None);
    rule
}

/// Places in an order that no seed decides and that differs from set to set.
fn hash_order(count: usize) -> Vec<usize> {
    (0..count).collect::<HashSet<usize>>().into_iter().collect()
}
