//! The one task that owns the node: wait, feed everything queued, perform outputs, repeat.
//!
//! A turn feeds a bounded share of each queue, then `Timeout` if it is due, and then performs all
//! outputs in their order (style.md §3.1). Nothing here waits for anything but the next arrival:
//! sending, storing and answering go to queues that other tasks work off. `Publish` comes first in
//! a drain, so no reply overtakes the view that shows it (DESIGN.md §8).

use crate::bell::Bell;
use crate::clock::Clock;
use crate::event::{Arrivals, Counters, Event, Inbox};
use crate::fanout::EventFan;
use crate::handle::Call;
use crate::log::{Record, Sink};
use crate::oneshot;
use crate::runtime::spawn;
use crate::storage::{Completion, Disk};
use crate::stream::Streams;
use crate::telemetry::{Metrics, Timed};
use crate::udp::Datagrams;
use arc_swap::ArcSwap;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::{Boxed, FutureExt as _, pending, yield_now};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::id::{CheckId, PoolName, RequestId};
use terraform_core::local::definition::CheckKind;
use terraform_core::node::Node;
use terraform_core::node::input::{CheckResult, Input};
use terraform_core::node::output::{Output, StopReason};
use terraform_core::node::request::{RequestError, Response};
use terraform_core::serf::{QueryHeard, SerfEvent};
use terraform_core::time::Instant;
use terraform_core::trace::{Level, TraceEvent};
use terraform_core::view::View;

/// What one turn takes of each queue.
const TURN_MAX: usize = 256;
/// A turn of the node that takes longer than this is worth a line.
const SLOW_TURN: Duration = Duration::from_millis(50);
/// How often waiting requests are looked through for those nobody waits for any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What the driver drives: a [`Node`], or a stand-in in tests.
pub trait Core: Send + 'static {
    /// Takes one input to completion.
    fn handle(&mut self, now: Instant, input: Input);
    /// The oldest output.
    fn poll_output(&mut self) -> Option<Output>;
    /// When `Input::Timeout` is wanted next.
    fn next_timeout(&self) -> Option<Instant>;
    /// Entries of the log that it has applied in this run.
    fn entries_applied(&self) -> u64;
}

impl Core for Node {
    fn handle(&mut self, now: Instant, input: Input) {
        Self::handle(self, now, input);
    }
    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }
    fn next_timeout(&self) -> Option<Instant> {
        Self::next_timeout(self).map(|(at, _)| at)
    }
    fn entries_applied(&self) -> u64 {
        self.stats().entries_applied
    }
}

/// Starts one run of a check that keeps so many bytes of output.
pub type RunCheck = Box<dyn Fn(CheckKind, usize) -> Boxed<CheckResult> + Send>;

/// What surrounds the node.
pub struct Host {
    /// The clocks.
    pub clock: Clock,
    /// Where readers find the published view.
    pub view: Arc<ArcSwap<View>>,
    /// The Serf LAN port.
    pub datagrams: Datagrams,
    /// The Serf WAN port, if there is one.
    pub wan_datagrams: Option<Datagrams>,
    /// The disk; it reports to [`report_to`].
    pub disk: Disk,
    /// The check runner.
    pub run_check: RunCheck,
    /// Where everything said goes.
    pub sink: Sink,
    /// Who is told of Serf events.
    pub fan: Arc<EventFan>,
    /// Who waits for the services of this agent to change.
    pub registered: Arc<Bell>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Where turns that apply something are noted.
    pub metrics: Arc<Metrics>,
    /// Streams that the server port takes of one source at once.
    pub server_streams_of_source_max: usize,
}

/// The node with everything around it.
pub struct Driver<C> {
    core: C,
    host: Host,
    arrivals: Arrivals,
    events: Sender<Event>,
    streams: Streams,
    /// Inputs that performing outputs brought up; they come first in the next turn.
    raised: Vec<Input>,
    waiting: BTreeMap<RequestId, Waiter>,
    next_request: u64,
    swept_at: Instant,
    alarm: Alarm,
}

/// Who waits for a request.
struct Waiter {
    reply: oneshot::Sender<Result<Response, RequestError>>,
    heard: Option<Sender<QueryHeard>>,
}

/// What a disk does with its completions: the node is told, and a failure is said with its cause.
///
/// It runs on the disk's threads and waits for room in the driver's queue, which the driver always
/// makes: it never waits for the disk.
pub fn report_to(
    events: Sender<Event>,
    sink: Sink,
) -> impl Fn(Completion) + Clone + Send + 'static {
    move |Completion { write, result }| {
        let input = match result {
            Ok(()) => Input::Persisted { write },
            Err(failure) => {
                let (level, subsystem) = (Level::Error, "storage");
                sink(&Record { level, subsystem, text: &failure.text });
                Input::PersistFailed { write, error: failure.fault }
            }
        };
        // After the driver's end nobody waits for it.
        let _ = events.send_blocking(Event::Input(input));
    }
}

/// What ended a wait.
enum Wake {
    Datagram(Input),
    Event(Event),
    Call(Call),
    Timer,
}

impl<C: Core> Driver<C> {
    /// A driver of `core` that takes what `arrivals` brings and gives `inbox` to its tasks.
    pub fn new(core: C, host: Host, inbox: Inbox, arrivals: Arrivals) -> Self {
        let events = inbox.events.clone();
        let streams =
            Streams::new(inbox, Arc::clone(&host.counters), host.server_streams_of_source_max);
        let swept_at = host.clock.now();
        let (raised, waiting) = (Vec::new(), BTreeMap::new());
        let (next_request, alarm) = (1, Alarm::default());
        Self {
            core,
            host,
            arrivals,
            events,
            streams,
            raised,
            waiting,
            next_request,
            swept_at,
            alarm,
        }
    }

    /// Runs until the node has stopped, everything queued for the disk is performed, and its lock
    /// is given up.
    pub async fn run(mut self) -> StopReason {
        let reason = self.turns().await;
        let Self { host, arrivals, waiting, .. } = self;
        // The lanes must not wait for room in queues that nobody empties any more.
        drop((arrivals, waiting));
        smol::unblock(move || host.disk.stop()).await;
        reason
    }

    async fn turns(&mut self) -> StopReason {
        loop {
            if let Some(reason) = self.perform() {
                return reason;
            }
            let wake = if self.raised.is_empty() {
                if let Some(at) = self.wake_at() {
                    self.alarm.set(at, &self.host.clock);
                }
                wait(&self.arrivals, &mut self.alarm).await
            } else {
                Wake::Timer
            };
            let (began, applied) = (self.host.clock.now(), self.core.entries_applied());
            let full = self.feed(began, wake);
            let took = self.host.clock.now().since(began);
            if self.core.entries_applied() > applied {
                self.host.metrics.time(Timed::Applying, took);
            }
            if took > SLOW_TURN {
                Counters::count(&self.host.counters.slow_turns);
                let text = format_args!("the agent was busy for {} ms", took.as_millis());
                let record = Record { level: Level::Warn, subsystem: "agent", text: &text };
                (self.host.sink)(&record);
            }
            if full {
                // Other tasks of this thread must not starve while arrivals never end.
                yield_now().await;
            }
        }
    }

    /// When the driver must wake by itself.
    fn wake_at(&self) -> Option<Instant> {
        let sweep = (!self.waiting.is_empty()).then(|| self.swept_at + SWEEP_INTERVAL);
        self.core.next_timeout().into_iter().chain(sweep).min()
    }

    /// One turn of the node; whether a queue had more than its share.
    ///
    /// The clock is read after an input has arrived, never before: this process may be stopped
    /// between any two inputs, for longer than a lease lasts. With a time of before that, a leader
    /// that was replaced meanwhile would answer a read of afterwards by its lease, and a follower
    /// would take a message of now for one of then (raft.md §7.2).
    fn feed(&mut self, now: Instant, wake: Wake) -> bool {
        for input in std::mem::take(&mut self.raised) {
            self.core.handle(now, input);
        }
        match wake {
            Wake::Datagram(input) => self.core.handle(now, input),
            Wake::Event(event) => self.event(now, event),
            Wake::Call(call) => self.call(now, call),
            Wake::Timer => {}
        }
        let mut full = true;
        for _ in 0..TURN_MAX {
            let datagram = self.arrivals.datagrams.try_recv().ok();
            let event = self.arrivals.events.try_recv().ok();
            let call = self.arrivals.calls.try_recv().ok();
            if datagram.is_none() && event.is_none() && call.is_none() {
                full = false;
                break;
            }
            let now = self.host.clock.now();
            if let Some(event) = event {
                self.event(now, event);
            }
            if let Some(input) = datagram {
                self.core.handle(now, input);
            }
            if let Some(call) = call {
                self.call(now, call);
            }
        }
        let now = self.host.clock.now();
        self.sweep(now);
        if self.core.next_timeout().is_some_and(|at| at <= now) {
            self.core.handle(now, Input::Timeout);
        }
        full
    }

    fn event(&mut self, now: Instant, event: Event) {
        let input = match event {
            Event::Accepted { kind, socket, peer } => self.streams.accepted(kind, socket, peer),
            Event::Connected { stream, socket, peer } => {
                self.streams.connected(stream, socket, peer)
            }
            Event::Input(input) => self.known(input),
        };
        if let Some(input) = input {
            self.core.handle(now, input);
        }
    }

    /// Drops what a stream still brings after the node closed it.
    fn known(&mut self, input: Input) -> Option<Input> {
        if let Input::StreamClosed { stream, .. } = &input {
            let known = self.streams.is_known(*stream);
            self.streams.forget(*stream);
            return known.then_some(input);
        }
        if let Input::StreamData { stream, .. } = &input
            && !self.streams.is_known(*stream)
        {
            return None;
        }
        Some(input)
    }

    fn call(&mut self, now: Instant, call: Call) {
        let id = RequestId::new(self.next_request);
        self.next_request += 1;
        self.waiting.insert(id, Waiter { reply: call.reply, heard: call.heard });
        let wall = self.host.clock.wall();
        self.core.handle(now, Input::Request { id, wall, request: call.request });
    }

    /// Tells the node of requests whose callers went away.
    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept_at) < SWEEP_INTERVAL {
            return;
        }
        self.swept_at = now;
        let gone = self.waiting.iter().filter(|(_, waiter)| waiter.reply.is_closed());
        let gone: Vec<RequestId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.waiting.remove(&id);
            self.core.handle(now, Input::RequestAbandoned { id });
        }
    }

    /// Performs every output; the reason if the node stopped.
    fn perform(&mut self) -> Option<StopReason> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::SendDatagram { pool, to, payload } => self.send(pool, to, &payload),
                Output::OpenStream { stream, kind, to } => self.streams.open(stream, kind, to),
                Output::SendStream { stream, data } => {
                    self.raised.extend(self.streams.send(stream, data));
                }
                Output::CloseStream { stream } => self.streams.close(stream),
                Output::Persist { write, op } => self.host.disk.submit(write, op),
                Output::RunCheck { check, run, kind, output_max_size } => {
                    self.run_check(check, run, kind, output_max_size);
                }
                Output::Reply { id, result } => {
                    if let Some(waiter) = self.waiting.remove(&id) {
                        // The caller may have gone; then nobody wants the answer.
                        waiter.reply.send(result);
                    }
                }
                Output::QueryHeard { id, heard } => {
                    let waiter = self.waiting.get(&id);
                    if let Some(told) = waiter.and_then(|waiter| waiter.heard.as_ref()) {
                        // Without room it is left out here; the reply has it.
                        let _ = told.try_send(heard);
                    }
                }
                Output::Event(event) => self.announce(event),
                Output::Publish(view) => self.publish(view),
                Output::Trace(event) => self.tell(&event),
                Output::Stopped(reason) => return Some(reason),
            }
        }
        None
    }

    fn publish(&self, view: Arc<View>) {
        let old = self.host.view.swap(Arc::clone(&view));
        if !old.local.services.ptr_eq(&view.local.services) {
            self.host.registered.ring();
        }
    }

    fn send(&self, pool: PoolName, to: SocketAddr, payload: &[u8]) {
        match (pool, &self.host.wan_datagrams) {
            (PoolName::Lan, _) => self.host.datagrams.send(to, payload),
            (PoolName::Wan, Some(datagrams)) => datagrams.send(to, payload),
            (PoolName::Wan, None) => panic!("a node in the WAN pool has its port bound"),
        }
    }

    fn run_check(&self, check: CheckId, run: u64, kind: CheckKind, output_max_size: usize) {
        let outcome = (self.host.run_check)(kind, output_max_size);
        let events = self.events.clone();
        let finished = async move {
            let result = outcome.await;
            let input = Input::CheckFinished { check, run, result };
            let _ = events.send(Event::Input(input)).await;
        };
        spawn(finished).detach();
    }

    fn announce(&self, event: SerfEvent) {
        let ended = self.host.fan.push(event);
        if ended > 0 {
            for _ in 0..ended {
                Counters::count(&self.host.counters.subscriptions_overflowed);
            }
            let text = format_args!("{ended} subscriptions to events ended: they were not read");
            let record = Record { level: Level::Warn, subsystem: "agent", text: &text };
            (self.host.sink)(&record);
        }
    }

    fn tell(&self, event: &TraceEvent) {
        let (level, subsystem) = (event.level, event.kind.subsystem());
        (self.host.sink)(&Record { level, subsystem, text: &event.kind });
    }
}

/// A timer that is moved only when it must ring earlier: each move takes the reactor out of its
/// wait, and what is due next moves with every turn of a busy node, mostly to later.
struct Alarm {
    timer: Timer,
    rings_at: Option<Instant>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { timer: Timer::never(), rings_at: None }
    }
}

impl Alarm {
    /// Lets it ring at `at` or before.
    fn set(&mut self, at: Instant, clock: &Clock) {
        if self.rings_at.is_none_or(|rings_at| rings_at > at) {
            self.timer.set_at(clock.system_instant(at));
            self.rings_at = Some(at);
        }
    }

    /// Ends when it rings.
    async fn wait(&mut self) {
        (&mut self.timer).await;
        self.rings_at = None;
    }
}

/// Waits for the first arrival, or for the alarm.
async fn wait(arrivals: &Arrivals, alarm: &mut Alarm) -> Wake {
    let datagram = next(&arrivals.datagrams, Wake::Datagram);
    let event = next(&arrivals.events, Wake::Event);
    let call = next(&arrivals.calls, Wake::Call);
    let timer = async {
        alarm.wait().await;
        Wake::Timer
    };
    datagram.or(event).or(call).or(timer).await
}

/// The next item of a queue; a queue whose senders are gone brings nothing more.
async fn next<T>(queue: &Receiver<T>, wake: impl FnOnce(T) -> Wake) -> Wake {
    match queue.recv().await {
        Ok(item) => wake(item),
        Err(_) => pending().await,
    }
}

#[cfg(test)]
mod tests;
