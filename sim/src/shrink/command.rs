//! The commands that shrink a seed and that perform a script.

use super::{Broken, LUCKS, Options, Refusal, Shrunk, Size, outcome, shrink};
use crate::cli::{mutant_named, ratio, report, usage};
use crate::plan::Plan;
use crate::run::Run;
use crate::script::Script;
use crate::script::print::seconds;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a search lasts unless it is told otherwise.
const SEARCH_TIME: Duration = Duration::from_secs(60);

/// `shrink` with its words.
pub(crate) fn shrink_command(words: &[&str]) -> ExitCode {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    let mut options = Options { mutant: None, any: false, time: SEARCH_TIME, jobs, lucks: LUCKS };
    let (mut seed, mut out) = (None, None);
    let mut plan: fn(u64) -> Plan = Plan::of_seed;
    let mut rest = words;
    loop {
        rest = match rest {
            [] => break,
            ["--any", rest @ ..] => {
                options.any = true;
                rest
            }
            ["--disk", rest @ ..] => {
                plan = Plan::of_disks;
                rest
            }
            ["--members", rest @ ..] => {
                plan = Plan::of_members;
                rest
            }
            ["--seed", text, rest @ ..] => {
                let Ok(number) = text.parse::<u64>() else { return usage() };
                seed = Some(number);
                rest
            }
            ["--seconds", text, rest @ ..] => {
                let time = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
                let Some(time) = time else { return usage() };
                options.time = Duration::from_secs(time);
                rest
            }
            ["--mutant", name, rest @ ..] => {
                options.mutant = mutant_named(name);
                if options.mutant.is_none() {
                    return usage();
                }
                rest
            }
            ["--out", path, rest @ ..] => {
                out = Some((*path).to_owned());
                rest
            }
            _ => return usage(),
        };
    }
    let Some(seed) = seed else { return usage() };
    let bug = options.mutant.map(|mutant| format!("{mutant}-")).unwrap_or_default();
    let out = out.unwrap_or_else(|| format!("{bug}seed-{seed}.script"));
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let plan = plan(seed);
    match shrink(plan, &options) {
        Ok(shrunk) => keep(&shrunk, &out, started.elapsed()),
        Err(Refusal::Passes) => {
            println!("seed {seed} breaks no rule");
            ExitCode::from(2)
        }
        Err(Refusal::Differs(rule)) => {
            println!("seed {seed} breaks {rule}, but its script does not");
            ExitCode::from(12)
        }
    }
}

/// Writes the file, and says what it is.
fn keep(shrunk: &Shrunk, out: &str, wall: Duration) -> ExitCode {
    if let Err(error) = std::fs::write(out, shrunk.script.to_string()) {
        println!("{out}: {error}");
        return ExitCode::from(2);
    }
    let Shrunk { rule, before, after, worlds, .. } = shrunk;
    println!("{rule} is broken:    before     after");
    let row = |name: &str, of: fn(&Size) -> String| {
        println!("  {name:<12} {:>11} {:>9}", of(before), of(after));
    };
    row("faults", |size| size.faults.to_string());
    row("operations", |size| size.operations.to_string());
    row("servers", |size| size.servers.to_string());
    row("clients", |size| size.clients.to_string());
    row("simulated", |size| format!("{:.1} s", size.simulated.as_secs_f64()));
    println!("{worlds} worlds in {:.1} s; perform it with: sim script {out}", wall.as_secs_f64());
    ExitCode::SUCCESS
}

/// Performs the script in a file, and says how it went.
pub(crate) fn script_command(path: &str) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            println!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    let script: Script = match text.parse() {
        Ok(script) => script,
        Err(error) => {
            println!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut run = Run::of_script(&script);
    let broken = outcome(&mut run, script.mutant);
    let simulated = Duration::from_nanos(run.world.now.as_nanos());
    println!(
        "{} faults, {} operations until {}; hash {}",
        script.blows.len(),
        script.actions.len(),
        seconds(simulated),
        run.world.hash()
    );
    println!("{}", ratio(simulated, started.elapsed()));
    match broken {
        None => ExitCode::SUCCESS,
        Some(Broken { rule, facts, panicked }) => {
            report(&format!("script {path}"), &run.world, &format!("{rule}: {facts}"));
            ExitCode::from(if panicked { 13 } else { 10 })
        }
    }
}
