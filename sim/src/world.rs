//! One simulated cluster: hosts, network, disks and time in one queue of events.
//!
//! The world drives the very core that ships, through `Node::handle` and `Node::poll_output`, and
//! plays the host's part: it performs outputs in order and reports completions. Everything random
//! is the [`Luck`] of what it decides, so the same seed gives the same events and the same
//! [`TraceHash`], bit for bit (simulation.md §1).

mod anew;
mod held;

use crate::disk::{Crash, SimDisk};
use crate::durable::Synced;
use crate::hash::{TraceHash, hash_input};
use crate::host::{Host, Running, address_of, host_at};
use crate::luck::{Luck, Purpose};
use crate::net::{CONNECT_LIMIT, HostId, NetOptions, Network, STALL_LIMIT, STALL_RETRY};
use crate::queue::{Class, EventQueue, TieOrder};
use crate::recover::recover;
use crate::rot::{Part, rot};
use crate::streams::{ConnectionId, Connections, End, Process, Segment};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::config::NodeConfig;
use terraform_core::gossip::GossipTrace;
use terraform_core::id::{CheckId, NodeName, PoolName, RequestId};
use terraform_core::marks;
use terraform_core::node::input::{CheckResult, CloseReason, Input, StreamKind};
use terraform_core::node::output::{Output, StopReason};
use terraform_core::node::request::{Request, RequestError, Response};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::serf::{SerfEvent, SerfTrace};
use terraform_core::storage::op::{Lane, StorageFault};
use terraform_core::time::{Instant, WallClock};
use terraform_core::trace::{TraceEvent, TraceKind};
use terraform_core::wire::gossip::PeerState;

/// Trace events kept for a failure's report.
const RING_EVENTS: usize = 4096;
/// Civil time at the world's start: 2026-11-22T00:00:00Z.
const EPOCH_MILLIS: i64 = 1_795_305_600_000;

/// What a world is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldOptions {
    /// How links behave.
    pub net: NetOptions,
    /// How events of one instant are ordered.
    pub order: TieOrder,
    /// The longest usual time of a disk operation.
    pub disk_latency: Duration,
    /// Clock drift of each host is drawn up to this.
    pub drift_ppm_max: i32,
}

/// Something that will happen.
#[derive(Clone, Debug)]
enum Event {
    Timer {
        process: Process,
        version: u64,
    },
    Datagram {
        pool: PoolName,
        to: HostId,
        from: SocketAddr,
        payload: Bytes,
        /// The paused or blocked process that it waits in, and is lost with.
        held_by: Option<Process>,
    },
    Connect {
        connection: ConnectionId,
    },
    Pump {
        connection: ConnectionId,
        forth: bool,
    },
    DiskDone {
        process: Process,
        lane: Lane,
    },
    CheckDone {
        process: Process,
        check: CheckId,
        run: u64,
    },
}

/// One answered request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Who answered.
    pub process: Process,
    /// Which request.
    pub id: RequestId,
    /// When.
    pub at: Instant,
    /// During which event, by number.
    pub event: u64,
    /// The answer.
    pub result: Result<Response, RequestError>,
}

/// One thing that a host's Serf layer told.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// Where.
    pub process: Process,
    /// What.
    pub told: Told,
}

/// What the Serf layer tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// To its subscribers, after it waited for what may be merged with it.
    Event(SerfEvent),
    /// To the log, at once.
    Trace(SerfTrace),
}

/// What a host began to believe of a member.
#[derive(Clone, Debug)]
pub struct Belief {
    /// Since when.
    pub at: Instant,
    /// Who believes it.
    pub observer: HostId,
    /// Of whom.
    pub subject: NodeName,
    /// What.
    pub state: PeerState,
}

/// One line of the ring: a trace of a host, or a deed of the world.
#[derive(Clone, Debug)]
pub enum Note {
    /// A host's trace.
    Trace(HostId, TraceEvent),
    /// What the world did.
    Deed(String),
}

/// One simulated cluster.
#[derive(Clone, Debug)]
pub struct World {
    /// World time.
    pub now: Instant,
    /// All machines.
    pub hosts: Vec<Host>,
    /// The links.
    pub net: Network,
    /// Answers nobody has taken yet.
    pub replies: Vec<Reply>,
    /// Hosts whose state moved since the checkers last looked.
    pub touched: Vec<HostId>,
    /// What servers sent on streams since the checkers last looked.
    pub sent: Vec<(Process, Bytes)>,
    /// Events handled so far.
    pub events: u64,
    /// Datagrams handed to the network so far.
    pub datagrams: u64,
    /// Pieces of streams handed to the network so far.
    pub segments: u64,
    /// Bytes in both.
    pub bytes: u64,
    /// What hosts began to believe, if somebody wants to know; they tell it at level debug.
    pub beliefs: Option<Vec<Belief>>,
    /// What subscribers were told, if somebody wants to know.
    pub deliveries: Option<Vec<Delivery>>,
    /// Bytes of the largest datagram so far.
    pub datagram_max: usize,
    queue: EventQueue<Event>,
    connections: Connections,
    hash: TraceHash,
    ring: VecDeque<(Instant, Note)>,
    options: WorldOptions,
    seed: u64,
}

/// The stream of a world's randomness for one purpose, apart from those of its nodes.
pub fn world_rng(seed: u64, purpose: Stream) -> Rng {
    Rng::for_stream(Seed::from_number(seed ^ 0x5eed_0fa0_0aa1_1d00), purpose)
}

impl World {
    /// A world without hosts.
    pub fn new(seed: u64, options: WorldOptions) -> Self {
        Self {
            now: Instant::ZERO,
            hosts: Vec::new(),
            net: Network::new(options.net.clone(), seed),
            replies: Vec::new(),
            touched: Vec::new(),
            sent: Vec::new(),
            events: 0,
            datagrams: 0,
            segments: 0,
            bytes: 0,
            beliefs: None,
            deliveries: None,
            datagram_max: 0,
            queue: EventQueue::new(options.order),
            connections: Connections::default(),
            hash: TraceHash::default(),
            ring: VecDeque::new(),
            options,
            seed,
        }
    }

    /// Adds a machine, switched off, and returns its number. `config` gets its address.
    pub fn add_host(&mut self, mut config: NodeConfig) -> HostId {
        let id = self.hosts.len();
        config.advertise = address_of(id);
        config.advertise_wan = config.advertise;
        let mut drift = self.luck(Purpose::Clock, id as u64);
        let span = self.options.drift_ppm_max;
        let wide = u64::from(span.unsigned_abs()) * 2 + 1;
        let drift_ppm = i32::try_from(drift.below(wide)).unwrap_or(0) - span;
        self.hosts.push(Host::new(id, config, SimDisk::new(), drift_ppm));
        id
    }

    /// The luck at this moment of what `key` names.
    fn luck(&self, purpose: Purpose, key: u64) -> Luck {
        Luck::of(self.seed, purpose, key, self.now)
    }

    /// Civil time.
    pub fn wall(&self) -> WallClock {
        let millis = i64::try_from(self.now.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        WallClock::from_millis(EPOCH_MILLIS.saturating_add(millis))
    }

    /// The hash of everything that happened so far.
    pub const fn hash(&self) -> TraceHash {
        self.hash
    }

    /// The newest traces and deeds, oldest first.
    pub fn ring(&self) -> impl Iterator<Item = &(Instant, Note)> {
        self.ring.iter()
    }

    /// Writes a deed of the world into the ring.
    pub fn note(&mut self, deed: impl Into<String>) {
        self.push_ring(Note::Deed(deed.into()));
    }

    fn push_ring(&mut self, note: Note) {
        if self.ring.len() == RING_EVENTS {
            self.ring.pop_front();
        }
        self.ring.push_back((self.now, note));
    }

    // --- Processes -----------------------------------------------------------------------------

    /// Starts the host's process from its disk. Returns why the disk was refused, if it was.
    pub fn start(&mut self, id: HostId) -> Result<(), String> {
        assert!(self.hosts[id].running.is_none(), "host {id} already runs");
        self.hosts[id].boots += 1;
        // Whatever it drew before, and however often it ended, does not shift this.
        let seed = self.luck(Purpose::Process, id as u64).seed();
        let wall = self.wall();
        let host = &mut self.hosts[id];
        let restored = recover(&mut host.disk, &host.config, seed)?;
        host.synced.is_held_by(&restored)?;
        host.synced = Synced::default();
        host.disk_failed = false;
        let node = terraform_core::node::Node::new(
            host.config.clone(),
            restored,
            seed,
            wall,
            Instant::ZERO,
        )
        .map_err(|error| error.to_string())?;
        host.begin(Running::new(node, self.now));
        self.hash.number(1);
        self.hash.number(id as u64);
        self.note(format!("^ host {id} starts, run {}", self.hosts[id].boots));
        self.drain(id);
        Ok(())
    }

    /// Ends the host's process at once; `crash` says what its disk keeps. Peers learn of it by
    /// resets after a kill, and by silence after a power loss.
    pub fn crash(&mut self, id: HostId, crash: Crash) {
        let process = self.hosts[id].process();
        if self.hosts[id].running.take().is_none() {
            return;
        }
        self.hash.number(2);
        self.hash.number(id as u64);
        self.note(format!("! host {id} ends: {crash:?}"));
        self.hosts[id].queued = [0, 0];
        self.hosts[id].paused_until = None;
        self.hosts[id].blocked_until = None;
        let luck = self.luck(Purpose::Crash, id as u64).seed();
        self.hosts[id].disk.crash(crash, &mut Rng::for_stream(luck, Stream::Node));
        let told = crash == Crash::Process;
        for (connection, opener) in self.connections.of_process(process) {
            if told {
                self.send_segment(connection, opener, Segment::Close(CloseReason::Reset));
            }
            if let Some(ends) = self.connections.get_mut(connection) {
                let end = if opener { Some(ends.opener) } else { ends.acceptor };
                if let Some(end) = end {
                    self.connections.forget_end(end);
                }
            }
        }
    }

    /// Lets a part of the host's disk rot; whether anything did.
    pub fn rot(&mut self, id: HostId, part: Part, place: u64) -> bool {
        let rotten = rot(&mut self.hosts[id].disk, part, place);
        if rotten && part == Part::Store {
            self.hosts[id].synced = Synced::default();
        }
        if rotten {
            let part = part.as_str();
            self.note(format!("~ the disk of host {id} rots: {part} at {place}"));
        }
        rotten
    }

    /// Tells the host's process to leave, or to stop without leaving.
    pub fn tell(&mut self, id: HostId, input: Input) {
        self.note(format!("> host {id} is told {input:?}"));
        self.feed(id, input);
    }

    /// Asks something of the host's agent; the answer appears in `replies`.
    pub fn request(&mut self, id: HostId, request: Request) -> Option<RequestId> {
        let wall = self.wall();
        let running = self.hosts[id].running.as_mut().filter(|r| r.stopped.is_none())?;
        let request_id = running.request();
        self.feed(id, Input::Request { id: request_id, wall, request: Arc::new(request) });
        Some(request_id)
    }

    // --- The loop ------------------------------------------------------------------------------

    /// Handles the earliest event, if one is due by `until`; otherwise moves the clock there.
    pub fn step(&mut self, until: Instant) -> bool {
        match self.queue.next_at() {
            Some(at) if at <= until => {}
            Some(_) | None => {
                self.now = self.now.max(until);
                return false;
            }
        }
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = at;
        self.events += 1;
        self.handle(event);
        true
    }

    /// Runs for `span` of world time.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    fn handle(&mut self, event: Event) {
        let Some(event) = self.unless_held(event) else { return };
        match event {
            Event::Timer { process, version } => self.timer(process, version),
            Event::Datagram { pool, to, from, payload, held_by } => {
                if held_by.is_none_or(|process| self.is_current(process)) {
                    self.feed(to, Input::Datagram { pool, from, payload });
                }
            }
            Event::Connect { connection } => self.connect(connection),
            Event::Pump { connection, forth } => self.pump(connection, forth),
            Event::DiskDone { process, lane } => self.disk_done(process, lane),
            Event::CheckDone { process, check, run } => {
                if self.is_current(process) {
                    let output = "ok".to_owned();
                    let result = CheckResult { status: CheckStatus::Passing, output };
                    self.feed(process.host, Input::CheckFinished { check, run, result });
                }
            }
        }
    }

    fn is_current(&self, process: Process) -> bool {
        self.hosts[process.host].is_up() && self.hosts[process.host].boots == process.boot
    }

    fn timer(&mut self, process: Process, version: u64) {
        let current = self.is_current(process)
            && self.hosts[process.host]
                .running
                .as_ref()
                .is_some_and(|running| running.timer_version == version);
        if !current {
            return;
        }
        if let Some(running) = &mut self.hosts[process.host].running {
            running.timer_at = None;
        }
        self.feed(process.host, Input::Timeout);
    }

    /// Gives one input to the host's process, then performs what it wants.
    fn feed(&mut self, id: HostId, input: Input) {
        let local = self.hosts[id].local_time(self.now);
        hash_input(&mut self.hash, self.now, id, &input);
        let Some(running) = &mut self.hosts[id].running else { return };
        if running.stopped.is_some() {
            return;
        }
        if marks::is_buggified() {
            let luck = Luck::of(self.seed, Purpose::Unusual, id as u64, self.now).bits();
            marks::buggify_by(luck);
        }
        running.node.handle(local, input);
        self.drain(id);
    }

    fn drain(&mut self, id: HostId) {
        self.touched.push(id);
        while let Some(running) = &mut self.hosts[id].running {
            let Some(output) = running.node.poll_output() else { break };
            self.perform(id, output);
        }
        self.arm(id);
    }

    fn arm(&mut self, id: HostId) {
        let process = self.hosts[id].process();
        let Some(running) = &self.hosts[id].running else { return };
        if running.stopped.is_some() {
            return;
        }
        let Some((wanted, _)) = running.node.next_timeout() else { return };
        if running.timer_at == Some(wanted) {
            return;
        }
        let at = self.hosts[id].world_time(wanted).max(self.now);
        let Some(running) = &mut self.hosts[id].running else { return };
        running.timer_at = Some(wanted);
        running.timer_version += 1;
        let version = running.timer_version;
        self.queue.push(at, Class::Timer, Event::Timer { process, version });
    }

    // --- Outputs -------------------------------------------------------------------------------

    fn perform(&mut self, id: HostId, output: Output) {
        let process = self.hosts[id].process();
        match output {
            Output::SendDatagram { pool, to, payload } => {
                self.send_datagram((id, pool), to, payload);
            }
            Output::OpenStream { stream, kind, to } => {
                self.open_stream(End { process, stream }, kind, to);
            }
            Output::SendStream { stream, data } => {
                self.segments += 1;
                self.bytes += data.len() as u64;
                self.hash.number(4);
                self.hash.bytes(&data);
                if self.hosts[id].config.server.is_some() {
                    self.sent.push((process, data.clone()));
                }
                if let Some((connection, opener)) = self.connections.of_end(process, stream) {
                    self.send_segment(connection, opener, Segment::Data(data));
                }
            }
            Output::CloseStream { stream } => {
                if let Some((connection, opener)) = self.connections.of_end(process, stream) {
                    let close = Segment::Close(CloseReason::Finished);
                    self.send_segment(connection, opener, close);
                    self.connections.forget_end(End { process, stream });
                }
            }
            Output::Persist { write, op } => {
                let (lane, host) = (op.lane, &mut self.hosts[id]);
                if lane == Lane::Log {
                    host.synced.began(&op.ops);
                }
                host.disk.start(write, op);
                *host.queued(lane) += 1;
                if *host.queued(lane) == 1 {
                    self.schedule_disk(id, lane);
                }
            }
            Output::RunCheck { check, run, .. } => {
                let key = ((id as u64) << 48) ^ run;
                let delay = self.luck(Purpose::Check, key).jitter(Duration::from_millis(50));
                let event = Event::CheckDone { process, check, run };
                self.queue.push(self.now + delay, Class::Network, event);
            }
            Output::Reply { id, result } => {
                self.hash.number(5);
                self.hash.number(id.get());
                self.hash.number(u64::from(result.is_ok()));
                let (at, event) = (self.now, self.events);
                self.replies.push(Reply { process, id, at, event, result });
            }
            Output::Event(event) => {
                if let Some(deliveries) = &mut self.deliveries {
                    let told = Told::Event(event);
                    deliveries.push(Delivery { at: self.now, process, told });
                }
            }
            // The reply that follows has all of it.
            Output::QueryHeard { .. } => {}
            Output::Publish(view) => self.publish(id, view),
            Output::Trace(event) => self.traced(id, event),
            Output::Stopped(reason) => self.stopped(id, reason),
        }
    }

    fn traced(&mut self, observer: HostId, event: TraceEvent) {
        if let Some(beliefs) = &mut self.beliefs
            && let TraceKind::Gossip(PoolName::Lan, GossipTrace::State { name, state, .. }) =
                &event.kind
        {
            let (at, subject, state) = (self.now, name.clone(), *state);
            beliefs.push(Belief { at, observer, subject, state });
        }
        if let Some(deliveries) = &mut self.deliveries
            && let TraceKind::Serf(PoolName::Lan, trace) = &event.kind
        {
            let (process, told) = (self.hosts[observer].process(), Told::Trace(trace.clone()));
            deliveries.push(Delivery { at: self.now, process, told });
        }
        self.push_ring(Note::Trace(observer, event));
    }

    fn publish(&mut self, id: HostId, view: Arc<terraform_core::view::View>) {
        if let Some(running) = &mut self.hosts[id].running {
            running.view = Some(view);
        }
    }

    fn stopped(&mut self, id: HostId, reason: StopReason) {
        self.note(format!("v host {id} stopped: {reason:?}"));
        let process = self.hosts[id].process();
        if let Some(running) = &mut self.hosts[id].running {
            running.stopped = Some(reason);
        }
        for (connection, opener) in self.connections.of_process(process) {
            self.send_segment(connection, opener, Segment::Close(CloseReason::Finished));
        }
    }

    fn send_datagram(&mut self, (from, pool): (HostId, PoolName), to: SocketAddr, payload: Bytes) {
        self.datagrams += 1;
        self.bytes += payload.len() as u64;
        self.datagram_max = self.datagram_max.max(payload.len());
        self.hash.number(3);
        self.hash.bytes(&payload);
        let source =
            SocketAddr::new(address_of(from), self.hosts[from].port(StreamKind::Gossip(pool)));
        let Some(target) = host_at(to.ip()).filter(|target| *target < self.hosts.len()) else {
            return;
        };
        // A port that nobody listens on takes nothing; the other pool's port takes what comes.
        let Some(pool) = self.hosts[target].pool_at(to.port()) else { return };
        let blocked = self.blocked(from);
        let leaves = blocked.unwrap_or(self.now);
        let held_by = blocked.map(|_| self.hosts[from].process());
        for delay in self.net.datagram(self.now, from, target).into_iter().flatten() {
            let payload = payload.clone();
            let event = Event::Datagram { pool, to: target, from: source, payload, held_by };
            self.queue.push(leaves + delay, Class::Network, event);
        }
    }

    fn open_stream(&mut self, opener: End, kind: StreamKind, to: SocketAddr) {
        let target = host_at(to.ip()).filter(|target| *target < self.hosts.len());
        // An address of nobody behaves like a machine that is switched off.
        let target = target.unwrap_or(opener.process.host);
        let delay = self.net.delay(self.now, opener.process.host, target);
        let connection = self.connections.open((kind, to.port()), opener, target);
        let event = Event::Connect { connection };
        self.queue.push(self.now + delay, Class::Network, event);
    }

    /// The first message of a connection arrives, or does not.
    fn connect(&mut self, connection: ConnectionId) {
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let (opener, target, kind, port) = (ends.opener, ends.target, ends.kind, ends.port);
        let from = opener.process.host;
        let reachable = self.net.reaches(from, target) && self.net.reaches(target, from);
        if !reachable {
            // Nobody answers; the opener gives up after its limit.
            let limit = self.now + CONNECT_LIMIT;
            self.close_direction(connection, false, CloseReason::ConnectFailed, limit);
            return;
        }
        let address = SocketAddr::new(address_of(target), port);
        let listener = self.hosts[target].listener(port).filter(|_| target != from);
        let Some(accepted_as) = listener else {
            let at = self.now + self.net.delay(self.now, target, from);
            self.close_direction(connection, false, CloseReason::ConnectFailed, at);
            return;
        };
        let Some(running) = &mut self.hosts[target].running else { return };
        let stream = running.accept();
        let acceptor = End { process: self.hosts[target].process(), stream };
        self.connections.accept(connection, acceptor);
        let peer = SocketAddr::new(address_of(from), 40_000);
        self.feed(target, Input::StreamOpened { stream, kind: accepted_as, peer });
        if self.connections.is_live(opener) && self.is_current(opener.process) {
            let stream = opener.stream;
            self.feed(from, Input::StreamOpened { stream, kind, peer: address });
        }
    }

    /// Queues the end of a direction and schedules its delivery for `at`.
    fn close_direction(
        &mut self,
        connection: ConnectionId,
        forth: bool,
        reason: CloseReason,
        at: Instant,
    ) {
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let direction = ends.direction(forth);
        direction.waiting.push_back(Segment::Close(reason));
        direction.pumping = true;
        self.queue.push(at, Class::Network, Event::Pump { connection, forth });
    }

    fn send_segment(&mut self, connection: ConnectionId, forth: bool, segment: Segment) {
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let (from, to) = ends.path(forth);
        let direction = ends.direction(forth);
        direction.waiting.push_back(segment);
        if !direction.pumping {
            direction.pumping = true;
            let at = self.now + self.net.delay(self.now, from, to);
            self.queue.push(at, Class::Network, Event::Pump { connection, forth });
        }
    }

    /// Delivers the head of one direction, or waits for the link.
    fn pump(&mut self, connection: ConnectionId, forth: bool) {
        let now = self.now;
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let (from, to) = ends.path(forth);
        let Some(receiver) = ends.receiver(forth) else {
            ends.direction(forth).pumping = false;
            return;
        };
        let failed_connect = ends.acceptor.is_none();
        let is_data = matches!(ends.direction(forth).waiting.front(), Some(Segment::Data(_)));
        let current = self.is_current(receiver.process);
        // A machine that is off answers nothing, as one behind a cut.
        let silent = is_data && !current && !self.hosts[to].is_up();
        if !failed_connect && (silent || !self.net.reaches(from, to)) {
            self.stall(connection, forth);
            return;
        }
        let live = self.connections.is_live(receiver);
        let delay = self.net.delay(now, from, to);
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let direction = ends.direction(forth);
        direction.stalled_since = None;
        let Some(segment) = direction.waiting.pop_front() else {
            direction.pumping = false;
            return;
        };
        direction.pumping = !direction.waiting.is_empty();
        if direction.pumping {
            // Segments follow each other closely: order is kept, the delay is paid once.
            let at = now + delay / 8;
            self.queue.push(at, Class::Network, Event::Pump { connection, forth });
        }
        if !current || !live {
            self.refuse_segment(connection, forth, &segment);
            return;
        }
        self.deliver(connection, receiver, segment);
    }

    /// The receiving end is gone and its machine says so.
    fn refuse_segment(&mut self, connection: ConnectionId, forth: bool, segment: &Segment) {
        match segment {
            Segment::Close(_) => self.connections.remove(connection),
            Segment::Data(_) => {
                self.send_segment(connection, !forth, Segment::Close(CloseReason::Reset));
            }
        }
    }

    /// Tries again later, or breaks a connection that has been held up too long.
    fn stall(&mut self, connection: ConnectionId, forth: bool) {
        let now = self.now;
        let Some(ends) = self.connections.get_mut(connection) else { return };
        let direction = ends.direction(forth);
        let since = *direction.stalled_since.get_or_insert(now);
        direction.pumping = true;
        if now.since(since) < STALL_LIMIT {
            self.queue.push(now + STALL_RETRY, Class::Network, Event::Pump { connection, forth });
            return;
        }
        let ends: [Option<End>; 2] = [Some(ends.opener), ends.acceptor];
        for end in ends.into_iter().flatten() {
            if self.connections.is_live(end) && self.is_current(end.process) {
                self.connections.forget_end(end);
                let (stream, reason) = (end.stream, CloseReason::Reset);
                self.feed(end.process.host, Input::StreamClosed { stream, reason });
            }
        }
        self.connections.remove(connection);
    }

    /// Whether what `receiver` is told comes from a server.
    fn is_from_a_server(&mut self, connection: ConnectionId, receiver: End) -> bool {
        let Some(ends) = self.connections.get_mut(connection) else { return false };
        let sender = if ends.opener == receiver { ends.acceptor } else { Some(ends.opener) };
        sender.is_some_and(|end| self.hosts[end.process.host].config.server.is_some())
    }

    fn deliver(&mut self, connection: ConnectionId, receiver: End, segment: Segment) {
        let (host, stream) = (receiver.process.host, receiver.stream);
        match segment {
            Segment::Data(data) => {
                if self.is_from_a_server(connection, receiver) {
                    self.hosts[host].heard_at = Some(self.now);
                }
                self.feed(host, Input::StreamData { stream, data });
            }
            Segment::Close(reason) => {
                self.connections.forget_end(receiver);
                let other_lives = self.connections.get_mut(connection).is_some_and(|ends| {
                    let other =
                        if ends.opener == receiver { ends.acceptor } else { Some(ends.opener) };
                    other.is_some_and(|other| other != receiver)
                });
                if !other_lives {
                    self.connections.remove(connection);
                }
                self.feed(host, Input::StreamClosed { stream, reason });
            }
        }
    }

    // --- Disks ---------------------------------------------------------------------------------

    fn schedule_disk(&mut self, id: HostId, lane: Lane) {
        let process = self.hosts[id].process();
        let at = self.now + self.disk_latency(id, lane);
        self.queue.push(at, Class::Disk, Event::DiskDone { process, lane });
    }

    /// Mostly short, sometimes long, as disks are.
    fn disk_latency(&self, id: HostId, lane: Lane) -> Duration {
        let mut luck = self.luck(Purpose::Disk, ((id as u64) << 8) ^ lane as u64);
        let usual = Duration::from_micros(50) + luck.jitter(self.options.disk_latency);
        let slow = luck.chance(1, 500);
        if slow { usual + luck.jitter(Duration::from_millis(200)) } else { usual }
    }

    fn disk_done(&mut self, process: Process, lane: Lane) {
        if !self.is_current(process) {
            return;
        }
        let host = &mut self.hosts[process.host];
        let Some((write, result)) = host.disk.complete(lane) else { return };
        host.disk_failed |= result == Err(StorageFault::Io);
        if lane == Lane::Log {
            host.synced.completed(result.is_ok());
        }
        *host.queued(lane) -= 1;
        if *host.queued(lane) > 0 {
            self.schedule_disk(process.host, lane);
        }
        let input = match result {
            Ok(()) => Input::Persisted { write },
            Err(error) => Input::PersistFailed { write, error },
        };
        self.feed(process.host, input);
    }
}
