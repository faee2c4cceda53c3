//! Shrinking: from a world that breaks a rule to the shortest script that still does
//! (simulation.md §11.2).
//!
//! The script of the world is cut down in passes, and a step is kept if the same rule is broken.
//! Since luck belongs to what it decides, a step changes little else; yet whatever it does change
//! may matter. So when no step works any more, each is tried again with the luck of other seeds.
//! Many worlds are tried at once, and the first one in order that fails is kept, so the result
//! depends on no thread's speed, unless the time is over before the search is.

pub mod command;
mod passes;

use crate::cli::caught;
use crate::plan::Plan;
use crate::run::Run;
use crate::script::Script;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use terraform_core::marks;

/// With how many lucks steps are tried in the next round of a search.
const MORE: usize = 4;
/// How many worlds are tried at least where there are few steps: those leave out the most.
const COARSE: usize = 32;
/// With how many lucks steps are tried in the last round, unless somebody wants less.
pub const LUCKS: usize = 16;

/// What to look for, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The planted bug that is on.
    pub mutant: Option<&'static str>,
    /// Whether another broken rule will do.
    pub any: bool,
    /// How long to search.
    pub time: Duration,
    /// How many worlds to try at once.
    pub jobs: usize,
    /// With how many lucks to try each step, at most.
    pub lucks: usize,
}

/// How much there is in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Operations of clients.
    pub operations: usize,
    /// Servers.
    pub servers: usize,
    /// Client agents.
    pub clients: usize,
    /// World time until the rule is broken.
    pub simulated: Duration,
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is broken.
    pub rule: String,
    /// The shortest script found that breaks it.
    pub script: Script,
    /// The size of the world it came from.
    pub before: Size,
    /// Its own.
    pub after: Size,
    /// Worlds tried.
    pub worlds: u64,
}

/// Why there is nothing to shrink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The seed breaks no rule.
    Passes,
    /// The seed breaks a rule, its script does not.
    Differs(String),
}

/// What was broken in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule, or the invariant of the core.
    pub rule: String,
    /// What contradicts it.
    pub facts: String,
    /// Whether the core itself found it.
    pub panicked: bool,
}

/// Takes a world to its end, with a planted bug on or none; what it broke.
pub fn outcome(run: &mut Run, mutant: Option<&'static str>) -> Option<Broken> {
    marks::set_mutant(mutant);
    let ended = caught(|| run.to_end());
    marks::set_mutant(None);
    match ended {
        Ok(outcome) => outcome.violation.map(|broken| {
            let rule = broken.rule.to_owned();
            Broken { rule, facts: broken.facts, panicked: false }
        }),
        Err(facts) => {
            marks::set_buggify(None);
            marks::set_always(None);
            let label = facts.split(':').next().filter(|label| label.starts_with("INV-"));
            let rule = label.unwrap_or("panic").to_owned();
            Some(Broken { rule, facts, panicked: true })
        }
    }
}

/// Shrinks what the world of a plan breaks.
pub fn shrink(plan: Plan, options: &Options) -> Result<Shrunk, Refusal> {
    let deadline = Instant::now() + options.time;
    let mut run = Run::new(plan);
    let Broken { rule, .. } = outcome(&mut run, options.mutant).ok_or(Refusal::Passes)?;
    let mut script = ended(&run);
    (script.mutant, script.rule) = (options.mutant, Some(rule.clone()));
    let before = size_of(&script, &run);
    let mut search = Search {
        options: options.clone(),
        rule,
        deadline,
        best: script,
        tries: 1,
        worlds: 0.into(),
    };
    let Some((script, mut after)) = search.fails(search.best.clone()) else {
        return Err(Refusal::Differs(search.rule));
    };
    search.best = script;
    while search.tries <= options.lucks {
        after = search.passes(after);
        search.tries *= MORE;
    }
    let Search { rule, best, worlds, .. } = search;
    let rule = best.rule.clone().unwrap_or(rule);
    Ok(Shrunk { rule, script: best, before, after, worlds: worlds.into_inner() })
}

/// The script of a world that ended with a broken rule, without what came after that.
fn ended(run: &Run) -> Script {
    let mut script = run.script();
    if run.world.now <= script.until {
        script.rests = false;
    }
    script
}

fn size_of(script: &Script, run: &Run) -> Size {
    Size {
        faults: script.blows.len(),
        operations: script.actions.len(),
        servers: script.servers,
        clients: script.clients,
        simulated: Duration::from_nanos(run.world.now.as_nanos()),
    }
}

/// A search for a shorter script.
struct Search {
    options: Options,
    /// What must be broken.
    rule: String,
    deadline: Instant,
    /// The shortest script so far that breaks it.
    best: Script,
    /// How many lucks a step is tried with.
    tries: usize,
    /// Worlds tried so far.
    worlds: AtomicU64,
}

impl Search {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The script as it was performed, with its size, if it breaks the rule.
    fn fails(&self, script: Script) -> Option<(Script, Size)> {
        let performed = self.attempt(&script)?;
        // What it did not come to, or what could not happen, is left out; that must not matter.
        self.attempt(&performed.0).or(Some((script, performed.1)))
    }

    fn attempt(&self, script: &Script) -> Option<(Script, Size)> {
        self.worlds.fetch_add(1, Ordering::Relaxed);
        let mut run = Run::of_script(script);
        let Broken { rule, .. } = outcome(&mut run, self.options.mutant)?;
        let same = rule == self.rule;
        (same || self.options.any).then(|| {
            let script = Script { rule: Some(rule), ..ended(&run) };
            let size = size_of(&script, &run);
            (script, size)
        })
    }

    /// The first of so many candidates that breaks the rule, with its number and size.
    fn first(
        &self,
        count: usize,
        candidate: impl Fn(usize) -> Option<Script> + Sync,
    ) -> Option<(usize, Script, Size)> {
        let tries = self.tries.max(COARSE / count.max(1));
        let next = AtomicUsize::new(0);
        let found = Mutex::new(None::<(usize, Script, Size)>);
        let is_found_before = |job: usize| {
            let found = found.lock();
            found.is_ok_and(|found| found.as_ref().is_some_and(|(at, ..)| *at < job))
        };
        let work = || {
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= count * tries || is_found_before(job) || self.is_over() {
                    return;
                }
                let Some(mut script) = candidate(job % count) else { continue };
                script.seed = script.seed.wrapping_add((job / count) as u64);
                let Some((script, size)) = self.fails(script) else { continue };
                if let Ok(mut found) = found.lock()
                    && found.as_ref().is_none_or(|(at, ..)| job < *at)
                {
                    *found = Some((job, script, size));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.jobs.min(count * tries) {
                scope.spawn(work);
            }
        });
        let (job, script, size) = found.into_inner().ok()??;
        Some((job % count, script, size))
    }

    /// Tells people how far it is.
    fn tell(&self, size: Size) {
        if std::io::stderr().is_terminal() {
            let (faults, operations) = (size.faults, size.operations);
            let worlds = self.worlds.load(Ordering::Relaxed);
            eprint!("\r{worlds} worlds: {faults} faults, {operations} operations   ");
            // Whether people see it does not matter.
            let _: std::io::Result<()> = std::io::stderr().flush();
        }
    }
}
