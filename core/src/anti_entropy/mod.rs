//! Keeps the catalog equal to what is registered on this agent.
//!
//! Implements cluster-behaviour.md §4 and http-api.md §1.14. The agent decides: a full sync reads
//! this node's rows and writes whatever differs; a local change is written at once; a change of a
//! check's output alone waits about `check_update_interval`. Entries of other nodes are never
//! touched, nor are the servers' own service and the `serfHealth` check of this node, which belong
//! to the leader.
//!
//! Invariants: at most one read or one batch of [`BATCH_MAX`] writes is in flight, and no two
//! writes of a batch concern the same thing (INV-SYNC-1); after `Stop` nothing is submitted
//! (INV-SYNC-2), so that a leaving node does not come back into the catalog.
//!
//! Differs: a full sync that failed or never happened is repeated soon after a server can be
//! reached again, staggered by cluster size; one that succeeded is not, unless other members took
//! this one for dead, since its services may be gone then.

mod diff;
mod pace;
mod round;
#[cfg(test)]
mod tests;

pub use pace::scale;

use crate::catalog::model::{Check, Node};
use crate::catalog::query::{NodeChecksQuery, NodeQuery, NodeServices, Query, Rows};
use crate::config::NodeConfig;
use crate::id::{CheckId, ModifyIndex, NodeId, RequestId, ServiceId};
use crate::local::{AgentTrace, Change, LocalView};
use crate::machine::{Machine, Outbox};
use crate::node::request::{RequestBody, RequestError, Response};
use crate::rng::{Rng, Seed, Stream};
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace;
use crate::trace::Level;
use diff::Dirty;
use pace::STOP_WAIT;
use round::Round;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Id and name of the service that every server has; the leader keeps it.
pub const SERVER_SERVICE: &str = "terraform";
/// Writes in flight at most.
pub const BATCH_MAX: usize = 64;

/// One request on its way; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncTicket(pub u64);

/// What this machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum AntiEntropyInput {
    /// The agent's registrations changed (`LocalOutput::Changed`).
    Local {
        /// What changed.
        change: Change,
        /// The registrations after the change.
        view: LocalView,
    },
    /// A change is durable: answer this request once the catalog was tried (`LocalOutput::Done`).
    Answer(RequestId),
    /// The outcome of `Submit`.
    Reply {
        /// Which.
        ticket: SyncTicket,
        /// What became of it.
        result: Result<Response, RequestError>,
    },
    /// How many members the cluster has; sets the pace.
    Members(usize),
    /// A server joined, or a leader became known.
    ServerReachable,
    /// Other members took this one for dead: the leader may have removed services of it.
    ThoughtDead,
    /// The node's metadata after a reload.
    NodeMeta(BTreeMap<String, String>),
    /// The agent leaves or stops: submit nothing any more; answered by `Stopped`.
    Stop,
}

/// What this machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AntiEntropyOutput {
    /// Find a server to answer this; answered by exactly one `Reply`.
    Submit {
        /// The answer names it.
        ticket: SyncTicket,
        /// Whether to wait for a leader.
        hold: bool,
        /// A `Query` or a `Write`.
        body: Box<RequestBody>,
    },
    /// Answer this request with `Response::Done`.
    Done(RequestId),
    /// The catalog's tags win (`LocalInput::AdoptTags`).
    AdoptTags {
        /// The service.
        service: ServiceId,
        /// Its tags in the catalog.
        tags: Vec<String>,
    },
    /// Nothing of this machine is on its way any more, or it was waited for long enough: the leave
    /// may be announced.
    Stopped,
    /// Something worth telling.
    Trace(Level, AgentTrace),
}

impl From<(Level, AgentTrace)> for AntiEntropyOutput {
    fn from((level, trace): (Level, AgentTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

type SyncOutbox = Outbox<AntiEntropyOutput>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SyncTimer {
    /// The next full sync.
    Full,
    /// The output of this check goes to the catalog.
    Output(CheckId),
    /// Replies are waited for no longer.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is in flight.
    Idle,
    /// The first read of a full sync is in flight.
    ReadingNode(SyncTicket),
    /// The second one is.
    ReadingChecks(SyncTicket, Option<NodeServices>),
    /// Writes are in flight.
    Writing(Round),
    /// These are still in flight, and nothing follows them.
    Stopping(BTreeSet<SyncTicket>),
    /// Nothing is in flight, and nothing will be.
    Stopped,
}

/// The synchronisation of one agent with the catalog.
#[derive(Clone, Debug)]
pub struct AntiEntropy {
    node: Node,
    check_update_interval: Duration,
    local: LocalView,
    /// What changed since the present round of writes began.
    dirty: Dirty,
    state: State,
    /// Whether a full sync is wanted as soon as nothing is in flight.
    full_wanted: bool,
    /// Whether a full sync was ever tried; the first one does not wait for a leader.
    tried: bool,
    /// Whether the newest full sync succeeded.
    synced: bool,
    /// Requests to answer at the end of the next round.
    waiting: Vec<RequestId>,
    members: usize,
    timers: Timers<SyncTimer>,
    rng: Rng,
    tickets: u64,
}

/// The record of the node that `config` describes (http-api.md §2).
pub fn own_node(config: &NodeConfig, id: NodeId) -> Node {
    let address = config.advertise.to_string();
    Node {
        id: Some(id),
        name: config.name.clone(),
        tagged_addresses: config.tagged_addresses(),
        address,
        meta: own_meta(config.node_meta.clone()),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

/// What a node says of itself beside its configured `meta`: every agent of the recorded release
/// names its network segment, which is the only one here.
pub fn own_meta(mut meta: BTreeMap<String, String>) -> BTreeMap<String, String> {
    meta.insert("consul-network-segment".to_owned(), String::new());
    meta
}

impl AntiEntropy {
    /// A machine whose first full sync is due at once; `local` is what is registered already.
    pub fn new(
        node: Node,
        local: LocalView,
        check_update_interval: Duration,
        seed: Seed,
        now: Instant,
    ) -> Self {
        let mut timers = Timers::default();
        timers.set(SyncTimer::Full, now);
        Self {
            node,
            check_update_interval,
            local,
            dirty: Dirty::default(),
            state: State::Idle,
            full_wanted: false,
            tried: false,
            synced: false,
            waiting: Vec::new(),
            members: 1,
            timers,
            rng: Rng::for_stream(seed, Stream::AntiEntropy),
            tickets: 0,
        }
    }

    const fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopping(_) | State::Stopped)
    }

    fn submit(&mut self, hold: bool, body: RequestBody, out: &mut SyncOutbox) -> SyncTicket {
        assert!(!self.is_stopped(), "INV-SYNC-2: nothing is submitted after the stop");
        self.tickets = self.tickets.saturating_add(1);
        let ticket = SyncTicket(self.tickets);
        out.push(AntiEntropyOutput::Submit { ticket, hold, body: Box::new(body) });
        ticket
    }

    /// Starts what is wanted next if nothing is in flight.
    fn advance(&mut self, now: Instant, out: &mut SyncOutbox) {
        if self.state != State::Idle {
            return;
        }
        if std::mem::take(&mut self.full_wanted) {
            let query = Query::Node(NodeQuery::all(self.node.name.as_str()));
            let hold = std::mem::replace(&mut self.tried, true);
            let ticket = self.submit(hold, RequestBody::Query(query), out);
            self.state = State::ReadingNode(ticket);
        } else if !self.dirty.is_empty() {
            let todo = std::mem::take(&mut self.dirty);
            self.begin(now, Round::new(todo, false, &self.local), out);
        } else {
            answer(&mut self.waiting, out);
        }
    }

    fn begin(&mut self, now: Instant, mut round: Round, out: &mut SyncOutbox) {
        round.answer = std::mem::take(&mut self.waiting);
        self.next_batch(now, round, out);
    }

    /// Submits the next writes of a round, or ends it.
    fn next_batch(&mut self, now: Instant, mut round: Round, out: &mut SyncOutbox) {
        assert!(round.in_flight.is_empty(), "INV-SYNC-1: one batch at a time");
        for write in round.take_batch(&self.local) {
            for check in write.checks() {
                self.timers.cancel(&SyncTimer::Output(check.clone()));
            }
            let (command, done) = write.command(&self.node, &self.local);
            let ticket = self.submit(true, RequestBody::Write(command), out);
            round.in_flight.insert(ticket, (write, done));
        }
        if round.in_flight.is_empty() {
            self.end(now, round, out);
        } else {
            self.state = State::Writing(round);
        }
    }

    /// Everything of a round was written or refused.
    fn end(&mut self, now: Instant, mut round: Round, out: &mut SyncOutbox) {
        self.state = State::Idle;
        answer(&mut round.answer, out);
        if round.refused {
            self.synced = false;
            self.retry_by(now);
        } else if round.full {
            self.synced = true;
            let period = pace::period(self.members, &mut self.rng);
            self.timers.set(SyncTimer::Full, now + period);
        }
        self.advance(now, out);
    }

    /// No server could be asked: nothing more is tried until a local change or the next full sync.
    fn fail(&mut self, now: Instant, error: RequestError, out: &mut SyncOutbox) {
        trace!(out, Level::Error, AgentTrace::SyncFailed(error));
        self.state = State::Idle;
        self.synced = false;
        self.retry_by(now);
        answer(&mut self.waiting, out);
    }

    /// Sees to it that a full sync comes soon.
    fn retry_by(&mut self, now: Instant) {
        let wait = pace::retry(self.members, &mut self.rng);
        self.sync_by(now + wait);
    }

    /// Has the next full sync come soon, unless none was tried yet.
    fn sync_soon(&mut self, now: Instant) {
        if self.tried {
            let wait = pace::stagger(self.members, &mut self.rng);
            self.sync_by(now + wait);
        }
    }

    /// Has the next full sync come at that time, or when it was to come if that is sooner.
    fn sync_by(&mut self, at: Instant) {
        let planned = self.timers.deadline(&SyncTimer::Full);
        self.timers.set(SyncTimer::Full, planned.map_or(at, |planned| planned.min(at)));
    }

    fn changed(&mut self, now: Instant, change: Change, view: LocalView) {
        self.local = view;
        match change {
            Change::Service(id) => {
                self.dirty.services.insert(id);
            }
            Change::Output(id) if !self.check_update_interval.is_zero() => {
                let timer = SyncTimer::Output(id);
                if self.timers.deadline(&timer).is_none() {
                    let (half, middle) =
                        (self.check_update_interval / 2, self.check_update_interval);
                    self.timers.set(timer, now + self.rng.between(half, middle + half));
                }
            }
            Change::Check(id) | Change::Output(id) => {
                self.timers.cancel(&SyncTimer::Output(id.clone()));
                self.dirty.checks.insert(id);
            }
            Change::Adopted => {}
        }
    }

    fn answer_later(&mut self, request: RequestId, out: &mut SyncOutbox) {
        match &mut self.state {
            State::Idle | State::Stopping(_) | State::Stopped => {
                out.push(AntiEntropyOutput::Done(request));
            }
            // Its change may be one of those in flight, but not one of those after them.
            State::Writing(round) if self.dirty.is_empty() => round.answer.push(request),
            State::Writing(_) | State::ReadingNode(_) | State::ReadingChecks(..) => {
                self.waiting.push(request);
            }
        }
    }

    fn reply(
        &mut self,
        now: Instant,
        ticket: SyncTicket,
        result: Result<Response, RequestError>,
        out: &mut SyncOutbox,
    ) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::ReadingNode(wanted) if wanted == ticket => match result.and_then(Response::rows)
            {
                Ok(Rows::Node(remote)) => {
                    // A name may also have matched the beginning of another node's identity.
                    let name = self.node.name.folded();
                    let remote = remote.filter(|remote| remote.node.name.folded() == name);
                    let query = Query::NodeChecks(NodeChecksQuery::all(self.node.name.clone()));
                    let ticket = self.submit(true, RequestBody::Query(query), out);
                    self.state = State::ReadingChecks(ticket, remote);
                }
                Ok(rows) => self.fail(now, unexpected(&rows), out),
                Err(error) => self.fail(now, error, out),
            },
            State::ReadingChecks(wanted, remote) if wanted == ticket => {
                match result.and_then(Response::rows) {
                    Ok(Rows::Checks(checks)) => self.compare(now, remote.as_ref(), &checks, out),
                    Ok(rows) => self.fail(now, unexpected(&rows), out),
                    Err(error) => self.fail(now, error, out),
                }
            }
            State::Writing(mut round) => {
                round.took(ticket, result, out);
                self.written(now, round, out);
            }
            State::Stopping(mut left) => {
                left.remove(&ticket);
                self.state = State::Stopping(left);
                self.stopped_if_quiet(out);
            }
            // A read that was given up with the stop.
            state @ (State::Idle
            | State::Stopped
            | State::ReadingNode(_)
            | State::ReadingChecks(..)) => self.state = state,
        }
    }

    fn compare(
        &mut self,
        now: Instant,
        remote: Option<&NodeServices>,
        checks: &[Arc<Check>],
        out: &mut SyncOutbox,
    ) {
        let deferred =
            |id: &CheckId| self.timers.deadline(&SyncTimer::Output(id.clone())).is_some();
        let found = diff::difference(&self.node, &self.local, remote, checks, deferred);
        for (service, tags) in found.adopt {
            if let Some(ours) = self.local.services.get_mut(&service) {
                Arc::make_mut(ours).tags.clone_from(&tags);
            }
            out.push(AntiEntropyOutput::AdoptTags { service, tags });
        }
        // Whatever changed before this moment is part of the difference.
        self.dirty = Dirty::default();
        self.begin(now, Round::new(found.dirty, true, &self.local), out);
    }

    fn written(&mut self, now: Instant, mut round: Round, out: &mut SyncOutbox) {
        if !round.in_flight.is_empty() {
            self.state = State::Writing(round);
        } else if let Some(error) = round.failure.take() {
            self.waiting.append(&mut round.answer);
            self.dirty.add(round.into_dirty());
            self.fail(now, error, out);
        } else {
            self.next_batch(now, round, out);
        }
    }

    fn stop(&mut self, now: Instant, out: &mut SyncOutbox) {
        if !self.is_stopped() {
            self.timers.clear();
            let state = std::mem::replace(&mut self.state, State::Idle);
            let left = if let State::Writing(mut round) = state {
                answer(&mut round.answer, out);
                round.in_flight.into_keys().collect()
            } else {
                BTreeSet::new()
            };
            answer(&mut self.waiting, out);
            self.timers.set(SyncTimer::Stop, now + STOP_WAIT);
            self.state = State::Stopping(left);
        }
        self.stopped_if_quiet(out);
    }

    fn stopped_if_quiet(&mut self, out: &mut SyncOutbox) {
        let quiet = match &self.state {
            State::Stopping(left) => left.is_empty(),
            State::Stopped => true,
            State::Idle | State::ReadingNode(_) | State::ReadingChecks(..) | State::Writing(_) => {
                false
            }
        };
        if quiet {
            self.timers.clear();
            self.state = State::Stopped;
            out.push(AntiEntropyOutput::Stopped);
        }
    }
}

/// Answers everybody in `waiting`.
fn answer(waiting: &mut Vec<RequestId>, out: &mut SyncOutbox) {
    for request in waiting.drain(..) {
        out.push(AntiEntropyOutput::Done(request));
    }
}

fn unexpected(rows: &Rows) -> RequestError {
    RequestError::Unknown(format!("a query was answered with other rows: {rows:?}"))
}

impl Machine for AntiEntropy {
    type Input = AntiEntropyInput;
    type Output = AntiEntropyOutput;

    fn handle(&mut self, now: Instant, input: AntiEntropyInput, out: &mut SyncOutbox) {
        match input {
            AntiEntropyInput::Stop => self.stop(now, out),
            AntiEntropyInput::Reply { ticket, result } => self.reply(now, ticket, result, out),
            AntiEntropyInput::Answer(request) => self.answer_later(request, out),
            AntiEntropyInput::Members(members) => self.members = members,
            AntiEntropyInput::Local { .. }
            | AntiEntropyInput::ServerReachable
            | AntiEntropyInput::ThoughtDead
            | AntiEntropyInput::NodeMeta(_)
                if self.is_stopped() => {}
            AntiEntropyInput::Local { change, view } => {
                self.changed(now, change, view);
                self.advance(now, out);
            }
            AntiEntropyInput::ServerReachable => {
                if !self.synced {
                    self.sync_soon(now);
                }
            }
            AntiEntropyInput::ThoughtDead => self.sync_soon(now),
            AntiEntropyInput::NodeMeta(meta) => {
                let meta = own_meta(meta);
                if self.node.meta != meta {
                    self.node.meta = meta;
                    self.dirty.node = true;
                    self.advance(now, out);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut SyncOutbox) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                SyncTimer::Full => self.full_wanted = true,
                SyncTimer::Output(check) => {
                    self.dirty.checks.insert(check);
                }
                SyncTimer::Stop => {
                    self.state = State::Stopped;
                    out.push(AntiEntropyOutput::Stopped);
                }
            }
        }
        self.advance(now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}
