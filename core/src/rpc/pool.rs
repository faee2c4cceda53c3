//! Streams to other agents: at most one opened for each address and lane, on demand.
//!
//! A stream starts with a hello in each direction ([`crate::wire::rpc`]); what is to be sent
//! before that waits in a queue bounded in bytes, so whatever is lost with a stream that never got
//! ready was certainly not sent. After a failure an address is left alone for a moment that doubles
//! up to a bound. The opener ends an idle stream; the other side does so much later, so that a
//! request and the end of its stream do not cross. A silent peer is pinged, then given up.

use super::trace::{CloseRule, RpcTrace};
use super::{RpcConfig, RpcOutput};
use crate::id::{Datacenter, NodeId, StreamId};
use crate::machine::Outbox;
use crate::rng::Rng;
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace;
use crate::trace::Level;
use crate::wire::frame::FrameDecoder;
use crate::wire::rpc::{Frame, Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// From opening a stream to the other side's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// An unused stream is closed by its opener after this, by the other side after twice this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The shortest pause after a failure; doubles with each up to 16 times this.
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_DOUBLINGS_MAX: u32 = 4;
/// Addresses whose failures are remembered.
const BACKOFFS_MAX: usize = 256;
/// Sources and rules whose refusal was told; beyond this the list starts again.
const TOLD_MAX: usize = 256;

/// Bytes that wait for a stream to become ready.
const fn queue_bytes_max(lane: Lane) -> usize {
    match lane {
        Lane::Data => 16 * 1024 * 1024,
        Lane::Heartbeat => 64 * 1024,
    }
}

/// How long a peer may owe an answer before it is pinged.
const fn ping_after(lane: Lane) -> Duration {
    match lane {
        Lane::Data => Duration::from_secs(5),
        Lane::Heartbeat => Duration::from_secs(1),
    }
}

/// How long a peer may take to answer a ping before its stream is given up.
const fn dead_after(lane: Lane) -> Duration {
    match lane {
        Lane::Data => Duration::from_secs(5),
        Lane::Heartbeat => Duration::from_secs(2),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Opened here; the host is connecting.
    Connecting,
    /// The other side's hello is missing.
    AwaitHello,
    /// Both hellos were exchanged.
    Ready(NodeId),
}

#[derive(Clone, Debug)]
struct Conn {
    /// The other end: where it was opened to, or where it came from.
    peer: SocketAddr,
    opened_here: bool,
    /// Where the other end is, as the opener wants it or as it says itself.
    datacenter: Datacenter,
    lane: Lane,
    state: State,
    decoder: FrameDecoder,
    queue: Vec<Bytes>,
    queued_bytes: usize,
    /// The server whose messages were sent on it last.
    raft_peer: Option<NodeId>,
    used_at: Instant,
    /// Requests sent on it whose replies are missing.
    owed: usize,
    /// Requests that came on it and are not answered.
    serving: usize,
    life: Life,
}

/// Whether the other side owes a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Nothing was sent since it was last heard.
    Quiet,
    /// The first thing to answer was sent then.
    Owed(Instant),
    /// It was heard last then, and waits for an answer.
    Waits(Instant),
    /// It was asked then whether it is there.
    Pinged(Instant),
}

impl Conn {
    fn new(
        now: Instant,
        datacenter: Datacenter,
        (peer, lane): (SocketAddr, Lane),
        opened_here: bool,
    ) -> Self {
        Self {
            peer,
            opened_here,
            datacenter,
            lane,
            state: if opened_here { State::Connecting } else { State::AwaitHello },
            decoder: FrameDecoder::default(),
            queue: Vec::new(),
            queued_bytes: 0,
            raft_peer: None,
            used_at: now,
            owed: 0,
            serving: 0,
            life: Life::Quiet,
        }
    }

    const fn node(&self) -> Option<NodeId> {
        match self.state {
            State::Ready(node) => Some(node),
            State::Connecting | State::AwaitHello => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    until: Instant,
}

/// A stream that is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// Which.
    pub(super) stream: StreamId,
    /// The other end.
    pub(super) peer: SocketAddr,
    /// Whether it was opened here.
    pub(super) opened_here: bool,
    /// What it carried.
    pub(super) lane: Lane,
    /// Who was there; `None` if it never got ready and so nothing was sent.
    pub(super) node: Option<NodeId>,
    /// The server whose messages were for it.
    pub(super) raft_peer: Option<NodeId>,
    /// Whether it was given up because nobody answered.
    pub(super) silent: bool,
}

/// What came of a stream's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame for the machine.
    Frame {
        /// Where it came from.
        stream: StreamId,
        /// Who says so.
        node: NodeId,
        /// What the stream is for.
        lane: Lane,
        /// The frame; neither a hello, a ping nor a pong.
        frame: Frame,
        /// Its size.
        bytes: usize,
    },
    /// The stream is no more.
    Lost(Lost),
}

/// All streams of this node on the server port.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// The machine's one stream of randomness.
    pub(super) rng: Rng,
    conns: BTreeMap<StreamId, Conn>,
    /// Streams opened here.
    targets: BTreeMap<(SocketAddr, Lane), StreamId>,
    /// Ready streams that others opened; the newest of each.
    accepted: BTreeMap<(NodeId, Lane), StreamId>,
    backoffs: BTreeMap<SocketAddr, Backoff>,
    timers: Timers<StreamId>,
    told: BTreeSet<(IpAddr, u8)>,
    next_stream: u64,
}

impl Pool {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            conns: BTreeMap::new(),
            targets: BTreeMap::new(),
            accepted: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            timers: Timers::default(),
            told: BTreeSet::new(),
            next_stream: 3,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether the address is left alone after a failure.
    pub(super) fn backs_off(&self, now: Instant, address: SocketAddr) -> bool {
        self.backoffs.get(&address).is_some_and(|backoff| now < backoff.until)
    }

    /// The stream to `address` in `datacenter`, opened if there is none; `None` while the address
    /// is left alone.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        datacenter: &Datacenter,
        (address, lane): (SocketAddr, Lane),
        out: &mut Outbox<RpcOutput>,
    ) -> Option<StreamId> {
        if let Some(stream) = self.targets.get(&(address, lane)) {
            // Two datacenters cannot be at one address: one of the two pools is outdated.
            let same = self.conns.get(stream).is_some_and(|conn| conn.datacenter == *datacenter);
            return same.then_some(*stream);
        }
        if self.backs_off(now, address) {
            return None;
        }
        let stream = StreamId::new(self.next_stream);
        self.next_stream += 4;
        self.conns.insert(stream, Conn::new(now, datacenter.clone(), (address, lane), true));
        self.targets.insert((address, lane), stream);
        self.timers.set(stream, now + HELLO_TIMEOUT);
        out.push(RpcOutput::OpenStream { stream, to: address });
        Some(stream)
    }

    /// The stream for messages to the server `to`: one opened here, else a ready one that it
    /// opened from the same host, else a new one.
    pub(super) fn connect_to(
        &mut self,
        now: Instant,
        own: &Datacenter,
        (to, address): (NodeId, SocketAddr),
        lane: Lane,
        out: &mut Outbox<RpcOutput>,
    ) -> Option<StreamId> {
        if !self.targets.contains_key(&(address, lane))
            && let Some(stream) = self.accepted.get(&(to, lane))
            && let Some(conn) = self.conns.get(stream)
            && conn.peer.ip() == address.ip()
        {
            return Some(*stream);
        }
        self.connect(now, own, (address, lane), out)
    }

    /// Whether the other end is in another datacenter.
    pub(super) fn is_foreign(&self, config: &RpcConfig, stream: StreamId) -> bool {
        self.conns.get(&stream).is_some_and(|conn| conn.datacenter != config.datacenter)
    }

    /// Who is at the other end, once known.
    pub(super) fn node(&self, stream: StreamId) -> Option<NodeId> {
        self.conns.get(&stream)?.node()
    }

    /// Sends a frame, or keeps it until the stream is ready. False if it was dropped: the stream
    /// is gone or its queue is full.
    pub(super) fn send(
        &mut self,
        now: Instant,
        stream: StreamId,
        data: Bytes,
        out: &mut Outbox<RpcOutput>,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(&stream) else { return false };
        conn.used_at = now;
        match conn.state {
            State::Ready(_) => {
                out.push(RpcOutput::SendStream { stream, data });
                self.expect_life(now, stream);
                true
            }
            State::Connecting | State::AwaitHello => {
                let queued_bytes = conn.queued_bytes.saturating_add(data.len());
                if queued_bytes > queue_bytes_max(conn.lane) {
                    let address = conn.peer;
                    trace!(out, Level::Debug, RpcTrace::QueueFull { address });
                    return false;
                }
                conn.queued_bytes = queued_bytes;
                conn.queue.push(data);
                true
            }
        }
    }

    /// Sends a frame to which no answer is owed.
    pub(super) fn send_last(
        &mut self,
        now: Instant,
        stream: StreamId,
        data: Bytes,
        out: &mut Outbox<RpcOutput>,
    ) {
        if let Some(conn) = self.conns.get_mut(&stream) {
            assert!(conn.node().is_some(), "answers go to streams that asked, so they are ready");
            conn.used_at = now;
            out.push(RpcOutput::SendStream { stream, data });
        }
    }

    /// The peer owes a sign of life from here on.
    fn expect_life(&mut self, now: Instant, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&stream) else { return };
        if !matches!(conn.life, Life::Quiet | Life::Waits(_)) {
            return;
        }
        conn.life = Life::Owed(now);
        self.ping_later(now, stream);
    }

    fn ping_later(&mut self, now: Instant, stream: StreamId) {
        let Some(conn) = self.conns.get(&stream) else { return };
        let ping_at = now + ping_after(conn.lane);
        if self.timers.deadline(&stream).is_none_or(|at| at > ping_at) {
            self.timers.set(stream, ping_at);
        }
    }

    /// What arrived on the stream was taken; the peer goes on owing what it has not answered. One
    /// that waits for an answer has to be there for it, or what it asked would be kept in vain: a
    /// machine that lost power says no farewell.
    pub(super) fn heard(&mut self, now: Instant, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&stream) else { return };
        if conn.owed > 0 {
            self.expect_life(now, stream);
        } else if conn.serving > 0 && conn.life == Life::Quiet {
            conn.life = Life::Waits(now);
            self.ping_later(now, stream);
        }
    }

    /// A request came that is to be answered; returns how many there are now.
    pub(super) fn serve(&mut self, stream: StreamId) -> usize {
        let Some(conn) = self.conns.get_mut(&stream) else { return 0 };
        conn.serving += 1;
        conn.serving
    }

    /// A request that came is answered, or not wanted any more.
    pub(super) fn served(&mut self, stream: StreamId) {
        if let Some(conn) = self.conns.get_mut(&stream) {
            assert!(conn.serving > 0, "every request that is over came");
            conn.serving -= 1;
        }
    }

    /// A request was sent whose reply is awaited.
    pub(super) fn owe(&mut self, stream: StreamId) {
        if let Some(conn) = self.conns.get_mut(&stream) {
            conn.owed += 1;
        }
    }

    /// A reply is not awaited any more.
    pub(super) fn settle(&mut self, stream: StreamId) {
        if let Some(conn) = self.conns.get_mut(&stream) {
            assert!(conn.owed > 0, "every settled request was owed");
            conn.owed -= 1;
        }
    }

    /// A stream is open, by our wish or another's; whether by another's.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        config: &RpcConfig,
        stream: StreamId,
        peer: SocketAddr,
        out: &mut Outbox<RpcOutput>,
    ) -> bool {
        if let Some(conn) = self.conns.get_mut(&stream) {
            conn.state = State::AwaitHello;
            out.push(RpcOutput::SendStream { stream, data: hello(config, conn.lane) });
            return false;
        }
        let conn = Conn::new(now, config.datacenter.clone(), (peer, Lane::Data), false);
        let within = config.handshake.unwrap_or_else(|| idle_after(&conn));
        self.conns.insert(stream, conn);
        self.timers.set(stream, now + within);
        true
    }

    /// Bytes arrived.
    pub(super) fn data(
        &mut self,
        now: Instant,
        config: &RpcConfig,
        (stream, data): (StreamId, &Bytes),
        out: &mut Outbox<RpcOutput>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(conn) = self.conns.get_mut(&stream) {
            conn.decoder.push(data);
            conn.used_at = now;
            conn.life = Life::Quiet;
        }
        loop {
            let Some(conn) = self.conns.get_mut(&stream) else { return events };
            let body = match conn.decoder.next_frame() {
                Ok(Some(body)) => body,
                Ok(None) => return events,
                Err(error) => {
                    let rule = CloseRule::Malformed(error);
                    events.extend(self.give_up(now, stream, rule, out).map(Event::Lost));
                    return events;
                }
            };
            let taken = match Frame::decode(&body) {
                Ok(frame) => self.frame(now, config, (stream, frame), body.len(), out),
                Err(error) => Err(CloseRule::Malformed(error)),
            };
            match taken {
                Ok(event) => events.extend(event),
                Err(rule) => events.extend(self.give_up(now, stream, rule, out).map(Event::Lost)),
            }
        }
    }

    fn frame(
        &mut self,
        now: Instant,
        config: &RpcConfig,
        (stream, frame): (StreamId, Frame),
        bytes: usize,
        out: &mut Outbox<RpcOutput>,
    ) -> Result<Option<Event>, CloseRule> {
        let Some(conn) = self.conns.get(&stream) else { return Ok(None) };
        let (lane, node) = (conn.lane, conn.node());
        match (node, frame) {
            (None, Frame::Hello(hello)) => {
                self.hello(now, config, (stream, &hello), out)?;
                Ok(None)
            }
            (Some(_), Frame::Ping) => {
                let pong = Frame::Pong.encode().expect("a pong is below the limit");
                self.send_last(now, stream, pong, out);
                Ok(None)
            }
            (Some(_), Frame::Pong) => Ok(None),
            (None, _) | (Some(_), Frame::Hello(_)) => Err(CloseRule::HelloOrder),
            (Some(node), frame) => Ok(Some(Event::Frame { stream, node, lane, frame, bytes })),
        }
    }

    /// The other side says who it is.
    fn hello(
        &mut self,
        now: Instant,
        config: &RpcConfig,
        (stream, said): (StreamId, &Hello),
        out: &mut Outbox<RpcOutput>,
    ) -> Result<(), CloseRule> {
        let Some(conn) = self.conns.get_mut(&stream) else { return Ok(()) };
        if said.common_version().is_none() {
            let (min, max) = (said.protocol_min, said.protocol_max);
            return Err(CloseRule::Version { min, max });
        }
        let from_afar = config.wan && !conn.opened_here && said.lane == Lane::Data;
        if said.datacenter != conn.datacenter && !from_afar {
            return Err(CloseRule::Datacenter(said.datacenter.to_string()));
        }
        if said.node == config.id {
            return Err(CloseRule::OwnIdentity);
        }
        if conn.opened_here {
            if conn.state == State::Connecting {
                return Err(CloseRule::HelloOrder);
            }
            if said.lane != conn.lane {
                return Err(CloseRule::Lane);
            }
            self.backoffs.remove(&conn.peer);
        } else {
            conn.lane = said.lane;
            conn.datacenter = said.datacenter.clone();
            if said.datacenter == config.datacenter {
                self.accepted.insert((said.node, said.lane), stream);
            }
            out.push(RpcOutput::SendStream { stream, data: hello(config, said.lane) });
        }
        conn.state = State::Ready(said.node);
        conn.decoder.accept_hello();
        conn.queued_bytes = 0;
        let waiting = std::mem::take(&mut conn.queue);
        let idle = idle_after(conn);
        self.timers.set(stream, now + idle);
        for data in waiting {
            self.send(now, stream, data, out);
        }
        Ok(())
    }

    /// The host says that a stream ended.
    pub(super) fn closed(
        &mut self,
        now: Instant,
        stream: StreamId,
        out: &mut Outbox<RpcOutput>,
    ) -> Option<Lost> {
        let lost = self.forget(stream)?;
        self.failed(now, &lost, out);
        Some(lost)
    }

    /// Ends a stream whose other side broke `rule`; told once for each source and rule.
    pub(super) fn give_up(
        &mut self,
        now: Instant,
        stream: StreamId,
        rule: CloseRule,
        out: &mut Outbox<RpcOutput>,
    ) -> Option<Lost> {
        let mut lost = self.forget(stream)?;
        lost.silent = rule == CloseRule::Silent;
        out.push(RpcOutput::CloseStream { stream });
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        let peer = lost.peer.ip();
        if self.told.insert((peer, rule.kind())) {
            trace!(out, Level::Warn, RpcTrace::Refused { peer, rule });
        }
        self.failed(now, &lost, out);
        Some(lost)
    }

    fn forget(&mut self, stream: StreamId) -> Option<Lost> {
        let conn = self.conns.remove(&stream)?;
        self.timers.cancel(&stream);
        if conn.opened_here {
            self.targets.remove(&(conn.peer, conn.lane));
        } else if let Some(node) = conn.node()
            && self.accepted.get(&(node, conn.lane)) == Some(&stream)
        {
            self.accepted.remove(&(node, conn.lane));
        }
        let (peer, opened_here, lane) = (conn.peer, conn.opened_here, conn.lane);
        let (node, raft_peer, silent) = (conn.node(), conn.raft_peer, false);
        Some(Lost { stream, peer, opened_here, lane, node, raft_peer, silent })
    }

    /// Leaves the address alone for a while.
    fn failed(&mut self, now: Instant, lost: &Lost, out: &mut Outbox<RpcOutput>) {
        if !lost.opened_here {
            return;
        }
        let address = lost.peer;
        let failures = self.backoffs.get(&address).map_or(0, |backoff| backoff.failures);
        let failures_now = match lost.node {
            Some(_) => {
                trace!(out, Level::Debug, RpcTrace::Broken { address });
                0
            }
            None => failures.saturating_add(1),
        };
        if failures_now == 1 {
            trace!(out, Level::Warn, RpcTrace::Unreachable { address });
        }
        if self.backoffs.len() >= BACKOFFS_MAX && !self.backoffs.contains_key(&address) {
            let oldest = self.backoffs.iter().min_by_key(|(_, backoff)| backoff.until);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.backoffs.remove(&oldest);
            }
        }
        let pause = BACKOFF_BASE * 2u32.pow(failures.min(BACKOFF_DOUBLINGS_MAX));
        let until = now + self.rng.between(pause / 2, pause);
        self.backoffs.insert(address, Backoff { failures: failures_now, until });
    }

    /// Looks after every stream that is due; returns those given up.
    pub(super) fn timeouts(&mut self, now: Instant, out: &mut Outbox<RpcOutput>) -> Vec<Lost> {
        let mut lost = Vec::new();
        while let Some(stream) = self.timers.pop_due(now) {
            lost.extend(self.timeout(now, stream, out));
        }
        lost
    }

    fn timeout(
        &mut self,
        now: Instant,
        stream: StreamId,
        out: &mut Outbox<RpcOutput>,
    ) -> Option<Lost> {
        let conn = self.conns.get(&stream)?;
        let (lane, life) = (conn.lane, conn.life);
        match (conn.state, life) {
            (State::Connecting, _) => {
                out.push(RpcOutput::CloseStream { stream });
                self.closed(now, stream, out)
            }
            (State::AwaitHello, _) => self.give_up(now, stream, CloseRule::HelloLate, out),
            (State::Ready(_), Life::Quiet) => {
                let idle_at = conn.used_at + idle_after(conn);
                if now < idle_at {
                    self.timers.set(stream, idle_at);
                    return None;
                }
                assert!(conn.owed == 0, "a stream with requests on it is not idle");
                out.push(RpcOutput::CloseStream { stream });
                self.forget(stream);
                None
            }
            (State::Ready(_), Life::Waits(_)) if conn.serving == 0 => {
                self.timers.set(stream, conn.used_at + idle_after(conn));
                if let Some(conn) = self.conns.get_mut(&stream) {
                    conn.life = Life::Quiet;
                }
                None
            }
            (State::Ready(_), Life::Owed(since) | Life::Waits(since))
                if now < since + ping_after(lane) =>
            {
                self.timers.set(stream, since + ping_after(lane));
                None
            }
            (State::Ready(_), Life::Owed(_) | Life::Waits(_)) => {
                self.ping(now, stream, out);
                None
            }
            (State::Ready(_), Life::Pinged(at)) if now < at + dead_after(lane) => {
                self.timers.set(stream, at + dead_after(lane));
                None
            }
            (State::Ready(_), Life::Pinged(_)) => self.give_up(now, stream, CloseRule::Silent, out),
        }
    }

    fn ping(&mut self, now: Instant, stream: StreamId, out: &mut Outbox<RpcOutput>) {
        let Some(conn) = self.conns.get_mut(&stream) else { return };
        conn.life = Life::Pinged(now);
        self.timers.set(stream, now + dead_after(conn.lane));
        let data = Frame::Ping.encode().expect("a ping is below the limit");
        out.push(RpcOutput::SendStream { stream, data });
    }

    /// Remembers whose messages are sent on the stream.
    pub(super) fn carries(&mut self, stream: StreamId, peer: NodeId) {
        if let Some(conn) = self.conns.get_mut(&stream) {
            conn.raft_peer = Some(peer);
        }
    }

    /// Gives up the data streams of a node whose heartbeat stream went silent.
    pub(super) fn give_up_data(
        &mut self,
        now: Instant,
        node: NodeId,
        out: &mut Outbox<RpcOutput>,
    ) -> Vec<Lost> {
        let same = |conn: &Conn| conn.lane == Lane::Data && conn.node() == Some(node);
        let streams: Vec<StreamId> =
            self.conns.iter().filter(|(_, conn)| same(conn)).map(|(id, _)| *id).collect();
        let give_up = |stream| self.give_up(now, stream, CloseRule::Silent, out);
        streams.into_iter().filter_map(give_up).collect()
    }
}

fn idle_after(conn: &Conn) -> Duration {
    if conn.opened_here { IDLE_TIMEOUT } else { IDLE_TIMEOUT * 2 }
}

fn hello(config: &RpcConfig, lane: Lane) -> Bytes {
    let hello = Frame::Hello(Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        datacenter: config.datacenter.clone(),
        node: config.id,
        name: config.name.clone(),
        lane,
    });
    hello.encode().expect("a hello holds two bounded names and is below the limit")
}
