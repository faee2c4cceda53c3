//! When checks run, and what their results mean: intervals, time limits, thresholds, TTLs, reaping.
//!
//! Implements http-api.md §5.2. A check that runs has at most one run in flight; the next one
//! starts an interval after the last one ended, the first one after a random part of an interval.
//! Results carry their run's number, and only the current run's result counts. A run that never
//! reports ends by its timeout and [`RUN_GRACE`]. Consecutive results are counted as Consul counts
//! them: the counters start full, so that the first result always takes effect, and a warning
//! counts as a success.

mod look;
#[cfg(test)]
mod tests;

use crate::catalog::model::CheckStatus;
use crate::id::{CheckId, ModifyIndex, ServiceId};
use crate::local::definition::{CheckDefinition, CheckKind};
use crate::local::{AgentTrace, CheckStart};
use crate::machine::{Machine, Outbox};
use crate::node::input::CheckResult;
use crate::node::request::{Request, RequestError, Response};
use crate::rng::{Rng, Seed, Stream};
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace;
use crate::trace::Level;
use look::Look;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time between looks for services whose checks were critical for too long (http-api.md §5.1).
pub const REAP_INTERVAL: Duration = Duration::from_secs(30);
/// How long after its timeout a run may still report: it may have waited for its turn.
pub const RUN_GRACE: Duration = Duration::from_secs(10);

/// What this machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChecksInput {
    /// Schedule a check, or go on with a changed definition.
    Start(Box<CheckStart>),
    /// Forget a check.
    Stop(CheckId),
    /// The state of a check that does not run; the clock of one with a TTL starts again.
    Told {
        /// Which.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
    },
    /// The outcome of `ChecksOutput::Look`.
    Looked {
        /// Which.
        run: u64,
        /// What became of it.
        result: Result<Response, RequestError>,
    },
    /// A run ended, as in `Input::CheckFinished`.
    Finished {
        /// Which check.
        check: CheckId,
        /// Which run.
        run: u64,
        /// How.
        result: CheckResult,
    },
}

/// What this machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChecksOutput {
    /// Run a check once, as in `Output::RunCheck`.
    Run {
        /// Which check.
        check: CheckId,
        /// The number of the run.
        run: u64,
        /// How it finds out.
        kind: CheckKind,
        /// Bytes of output to keep.
        output_max_size: usize,
    },
    /// Read the catalog; answered by `ChecksInput::Looked`.
    Look {
        /// The answer names it.
        run: u64,
        /// What is asked.
        request: Arc<Request>,
    },
    /// A result that counts (`LocalInput::CheckResult`).
    Result {
        /// Which check.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
        /// What there is to read.
        output: String,
    },
    /// A TTL check was not reported in time (`LocalInput::TtlExpired`).
    Expired(CheckId),
    /// A service's check was critical for too long (`LocalInput::Reap`).
    Reap {
        /// The service to remove.
        service: ServiceId,
        /// The check.
        check: CheckId,
    },
    /// Something worth telling.
    Trace(Level, AgentTrace),
}

impl From<(Level, AgentTrace)> for ChecksOutput {
    fn from((level, trace): (Level, AgentTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CheckTimer {
    /// The next run, the end of a run's time, or the expiry of a TTL.
    Check(CheckId),
    /// The next look for services to remove.
    Reap,
}

/// What the timer of a check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next run is due.
    Waiting,
    /// This run is out of time.
    Running(u64),
    /// The TTL is over.
    Ttl,
    /// It has none: the state is decided elsewhere.
    Told,
}

#[derive(Clone, Debug)]
struct Entry {
    definition: CheckDefinition,
    phase: Phase,
    successes: u32,
    failures: u32,
    /// For an alias of another node, the index of what is known of that node.
    seen: ModifyIndex,
    /// Since when it is critical, if it is.
    critical_since: Option<Instant>,
}

impl Entry {
    fn took_status(&mut self, status: &CheckStatus, now: Instant) {
        let critical = *status == CheckStatus::Critical;
        self.critical_since = critical.then(|| self.critical_since.unwrap_or(now));
    }
}

/// The schedule of every check of this agent.
#[derive(Clone, Debug)]
pub struct Checks {
    entries: BTreeMap<CheckId, Entry>,
    timers: Timers<CheckTimer>,
    rng: Rng,
    /// The newest run of any check; numbers are never used twice.
    runs: u64,
    /// Reads of the catalog on their way, by their run.
    looks: BTreeMap<u64, Look>,
}

impl Checks {
    /// A schedule without checks.
    pub fn new(seed: Seed) -> Self {
        let rng = Rng::for_stream(seed, Stream::Checks);
        Self {
            entries: BTreeMap::new(),
            timers: Timers::default(),
            rng,
            runs: 0,
            looks: BTreeMap::new(),
        }
    }

    /// A check that runs the same way as before keeps its schedule, so that a program that
    /// registers itself again and again cannot keep its checks from running.
    fn start(&mut self, now: Instant, start: CheckStart) {
        let CheckStart { definition, status, remaining } = start;
        let id = definition.id.clone();
        let timer = CheckTimer::Check(id.clone());
        let reaps = definition.deregister_critical_service_after.is_some();
        let old = self.entries.remove(&id);
        let critical_since = old.as_ref().and_then(|old| old.critical_since);
        let same = old.filter(|old| old.definition.kind == definition.kind);
        let full = (definition.success_before_passing, definition.failures_before_critical);
        let (successes, failures) = full;
        let fresh = |definition, phase| Entry {
            definition,
            phase,
            successes,
            failures,
            seen: ModifyIndex::ZERO,
            critical_since,
        };
        let interval = match definition.kind.pace() {
            None if look::is_remote(&definition.kind) => Some(look::LOOK_PAUSE),
            pace => pace.map(|(interval, _)| interval),
        };
        let mut entry = match (interval, same) {
            (Some(_), Some(same)) => Entry { definition, ..same },
            (Some(interval), None) => {
                self.timers.set(timer, self.rng.stagger(now, interval));
                fresh(definition, Phase::Waiting)
            }
            (None, _) if definition.kind.ttl().is_some() => {
                self.timers.set(timer, now + remaining);
                fresh(definition, Phase::Ttl)
            }
            (None, _) => {
                self.timers.cancel(&timer);
                fresh(definition, Phase::Told)
            }
        };
        entry.took_status(&status, now);
        self.entries.insert(id, entry);
        if reaps && self.timers.deadline(&CheckTimer::Reap).is_none() {
            self.timers.set(CheckTimer::Reap, now + REAP_INTERVAL);
        }
    }

    fn told(&mut self, now: Instant, check: CheckId, status: &CheckStatus) {
        let Some(entry) = self.entries.get_mut(&check) else { return };
        entry.took_status(status, now);
        if let Some(ttl) = entry.definition.kind.ttl() {
            self.timers.set(CheckTimer::Check(check), now + ttl);
        }
    }

    fn finished(
        &mut self,
        now: Instant,
        check: CheckId,
        run: u64,
        result: CheckResult,
        out: &mut Outbox<ChecksOutput>,
    ) {
        let current = self.entries.get_mut(&check).filter(|it| it.phase == Phase::Running(run));
        let Some(entry) = current else {
            trace!(out, Level::Debug, AgentTrace::StaleResult { check, run });
            return;
        };
        let Some((interval, _)) = entry.definition.kind.pace() else { return };
        entry.phase = Phase::Waiting;
        self.timers.set(CheckTimer::Check(check.clone()), now + interval);
        let success = matches!(result.status, CheckStatus::Passing | CheckStatus::Warning);
        let (count, other, needed) = if success {
            let needed = entry.definition.success_before_passing;
            (&mut entry.successes, &mut entry.failures, needed)
        } else {
            let needed = entry.definition.failures_before_critical;
            (&mut entry.failures, &mut entry.successes, needed)
        };
        *count = count.saturating_add(1);
        *other = 0;
        let count = *count;
        let CheckResult { status, output } = result;
        if count < needed {
            trace!(out, Level::Warn, AgentTrace::BelowThreshold { check, status, count, needed });
            return;
        }
        entry.took_status(&status, now);
        let limit = output.floor_char_boundary(entry.definition.output_max_size + NOTICE_BYTES);
        let output = output.get(..limit).unwrap_or_default().to_owned();
        out.push(ChecksOutput::Result { check, status, output });
    }

    fn run(&mut self, now: Instant, check: CheckId, out: &mut Outbox<ChecksOutput>) {
        let Some(entry) = self.entries.get_mut(&check) else { return };
        let Some((_, timeout)) = entry.definition.kind.pace() else {
            return self.look(now, check, out);
        };
        self.runs = self.runs.saturating_add(1);
        let run = self.runs;
        entry.phase = Phase::Running(run);
        self.timers.set(CheckTimer::Check(check.clone()), now + timeout + RUN_GRACE);
        let kind = entry.definition.kind.clone();
        let output_max_size = entry.definition.output_max_size;
        out.push(ChecksOutput::Run { check, run, kind, output_max_size });
    }

    fn check_timer(&mut self, now: Instant, check: CheckId, out: &mut Outbox<ChecksOutput>) {
        let Some(entry) = self.entries.get_mut(&check) else { return };
        match entry.phase {
            Phase::Waiting => self.run(now, check, out),
            Phase::Running(run) => {
                trace!(out, Level::Warn, AgentTrace::RunLost { check: check.clone() });
                if look::is_remote(&entry.definition.kind) {
                    let late = RequestError::Unknown("no answer".to_owned());
                    return self.looked(now, run, Err(late), out);
                }
                let output = "The run did not report in time".to_owned();
                let result = CheckResult { status: CheckStatus::Critical, output };
                self.finished(now, check, run, result, out);
            }
            Phase::Ttl => {
                entry.took_status(&CheckStatus::Critical, now);
                out.push(ChecksOutput::Expired(check));
            }
            Phase::Told => {}
        }
    }

    /// Asks for the removal of every service with a check that was critical for too long.
    fn reap(&mut self, now: Instant, out: &mut Outbox<ChecksOutput>) {
        let mut wanted = false;
        for (check, entry) in &self.entries {
            let limit = entry.definition.deregister_critical_service_after;
            let Some((limit, service)) = limit.zip(entry.definition.service_id.clone()) else {
                continue;
            };
            wanted = true;
            if entry.critical_since.is_some_and(|since| now.since(since) > limit) {
                out.push(ChecksOutput::Reap { service, check: check.clone() });
            }
        }
        if wanted {
            self.timers.set(CheckTimer::Reap, now + REAP_INTERVAL);
        }
    }
}

/// Room above a check's limit for the text that says what was cut, or what was asked of whom.
const NOTICE_BYTES: usize = 4096;

impl Machine for Checks {
    type Input = ChecksInput;
    type Output = ChecksOutput;

    fn handle(&mut self, now: Instant, input: ChecksInput, out: &mut Outbox<ChecksOutput>) {
        match input {
            ChecksInput::Start(start) => self.start(now, *start),
            ChecksInput::Stop(check) => {
                self.entries.remove(&check);
                self.timers.cancel(&CheckTimer::Check(check));
            }
            ChecksInput::Told { check, status } => self.told(now, check, &status),
            ChecksInput::Looked { run, result } => self.looked(now, run, result, out),
            ChecksInput::Finished { check, run, result } => {
                self.finished(now, check, run, result, out);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<ChecksOutput>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                CheckTimer::Check(check) => self.check_timer(now, check, out),
                CheckTimer::Reap => self.reap(now, out),
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}
