//! Requests between agents over the server port: which server answers, and what becomes of it.
//!
//! A client agent sends to one server of a shuffled list; a server that does not lead sends on to
//! the leader (cluster-behaviour.md §5). What another datacenter is asked goes from a server to one
//! of its servers, which answers it like a request of a client; it never crosses a second time. A
//! request is tried again only where nothing can have happened yet: it was not sent, the other side
//! said `NoLeader`, or it only reads. A write whose stream broke after it was sent is `Unknown` and
//! never repeated. Raft's messages travel on the same port, heartbeats on a stream of their own so
//! that they never wait behind data.

mod call;
mod pool;
mod rate;
mod remote;
mod servers;
#[cfg(test)]
mod tests;
mod trace;

pub use crate::wire::rpc::Lane;
pub use rate::RequestRate;
pub use remote::RemoteServer;
pub use trace::{CloseRule, RpcTrace};

use crate::id::{Datacenter, NodeId, NodeName, RequestId, StreamId};
use crate::machine::{Machine, Outbox};
use crate::node::input::CloseReason;
use crate::node::request::{Request, RequestError, Response};
use crate::rng::Rng;
use crate::serf::ServerInfo;
use crate::time::{Instant, WallClock};
use crate::timers::Timers;
use crate::trace::Level;
use crate::wire::rpc::Frame;
use bytes::Bytes;
use call::{Call, Origin, Timer};
use pool::{Event, Lost, Pool};
use rate::Bucket;
use remote::Remote;
use servers::Servers;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who waits for the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A request that came in through `Input::Request`.
    Request(RequestId),
    /// Anti-entropy of this node; the number is its own.
    Internal(u64),
    /// A check of this node; the number is its run's.
    Check(u64),
    /// A prepared query that this server executes; the number is its own.
    Execution(u64),
}

/// One request that the own server executes; `Executed` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcConfig {
    /// This node's identity.
    pub id: NodeId,
    /// This node's name.
    pub name: NodeName,
    /// This node's datacenter.
    pub datacenter: Datacenter,
    /// Whether this node is a server.
    pub server: bool,
    /// Whether it deals with servers of other datacenters.
    pub wan: bool,
    /// How long a request may wait for a leader (`performance.rpc_hold_timeout`).
    pub hold: Duration,
    /// How long an accepted stream may take to its hello; `None` for as long as it may be idle.
    pub handshake: Option<Duration>,
    /// How many requests a client may send to servers; `None` for no limit. Servers have none.
    pub rate: Option<RequestRate>,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcInput {
    /// The servers of the own datacenter that are alive, as Serf sees them, the own one included.
    Servers(Vec<ServerInfo>),
    /// The servers of other datacenters that the WAN pool knows, alive or failed.
    RemoteServers(Vec<RemoteServer>),
    /// Who leads, as consensus sees it; the own identity if this node leads. Servers only.
    Leader(Option<(NodeId, SocketAddr)>),
    /// Find somebody to answer a request; answered by `Done`.
    Submit {
        /// The answer names it.
        caller: Caller,
        /// Whether to wait for a leader; `false` fails at once where none is known.
        hold: bool,
        /// Civil time of the request's arrival.
        wall: WallClock,
        /// The request; its body [is forwarded](crate::node::request::RequestBody::is_forwarded).
        request: Arc<Request>,
    },
    /// The outcome of `Execute`.
    Executed {
        /// Which.
        ticket: Ticket,
        /// `Err(NoLeader)` says that nothing happened, so that another server is tried.
        result: Result<Response, RequestError>,
    },
    /// Nobody waits for this request any more.
    Abandoned(RequestId),
    /// Send a message of consensus to another server.
    SendRaft {
        /// To whom.
        to: NodeId,
        /// Its server port.
        address: SocketAddr,
        /// On which stream.
        lane: Lane,
        /// The message.
        payload: Bytes,
    },
    /// Send a message of the bootstrap to another server.
    SendBootstrap {
        /// Its server port.
        to: SocketAddr,
        /// The message.
        payload: Bytes,
    },
    /// Answer a message of the bootstrap on the stream it came by.
    AnswerBootstrap {
        /// As in `BootstrapMessage`.
        via: StreamId,
        /// The message.
        payload: Bytes,
    },
    /// A stream was accepted, or the one asked for is open.
    StreamOpened {
        /// The stream.
        stream: StreamId,
        /// The other end.
        peer: SocketAddr,
    },
    /// Bytes arrived on a stream.
    StreamData {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
    },
    /// A stream ended.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: CloseReason,
    },
    /// This node leaves: requests of others are refused with `NoLeader`, so that they move on.
    Leaving,
    /// How many requests a client may send to servers from here on; `None` for no limit.
    Rate(Option<RequestRate>),
}

/// What the machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcOutput {
    /// Connect; the machine's numbers are 3 modulo 4.
    OpenStream {
        /// The stream.
        stream: StreamId,
        /// Destination.
        to: SocketAddr,
    },
    /// Send bytes on a stream.
    SendStream {
        /// The stream.
        stream: StreamId,
        /// Bytes.
        data: Bytes,
    },
    /// Close a stream.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// This server is the one to answer: run the request here; answered by `Executed`.
    Execute {
        /// The answer names it.
        ticket: Ticket,
        /// Civil time of the request's arrival at the first agent.
        wall: WallClock,
        /// The request; its body [is forwarded](crate::node::request::RequestBody::is_forwarded).
        request: Arc<Request>,
    },
    /// Nobody waits any more for the outcome of `Execute`.
    Forget {
        /// Which.
        ticket: Ticket,
    },
    /// The outcome of a submitted request.
    Done {
        /// Who waits for it.
        caller: Caller,
        /// What became of it.
        result: Result<Response, RequestError>,
    },
    /// A message of consensus arrived.
    RaftMessage {
        /// Who its stream's hello says it is; the message must say the same.
        from: NodeId,
        /// The message.
        payload: Bytes,
    },
    /// A message of the bootstrap arrived.
    BootstrapMessage {
        /// Who its stream's hello says it is.
        from: NodeId,
        /// Where an answer goes, by `AnswerBootstrap`.
        via: StreamId,
        /// The message.
        payload: Bytes,
    },
    /// Messages for this server were or may have been lost.
    PeerUnreachable {
        /// Which.
        peer: NodeId,
    },
    /// Something worth telling.
    Trace(Level, RpcTrace),
}

impl From<(Level, RpcTrace)> for RpcOutput {
    fn from((level, trace): (Level, RpcTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

/// Counters of requests; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcStats {
    /// Requests of this agent.
    pub submitted: u64,
    /// Requests of this agent that no server answered, or not in time.
    pub failed: u64,
    /// Streams that other agents opened.
    pub streams_accepted: u64,
    /// Requests of other agents.
    pub accepted: u64,
    /// Requests of other agents that were answered with an error.
    pub accepted_failed: u64,
    /// Requests that were passed on to another datacenter.
    pub crossed: u64,
    /// Requests refused because too many are on their way, or more were sent than the rate allows.
    pub exceeded: u64,
}

/// Requests and streams between this agent and others.
#[derive(Clone, Debug)]
pub struct Rpc {
    config: RpcConfig,
    pool: Pool,
    servers: Servers,
    remote: Remote,
    leader: Option<(NodeId, SocketAddr)>,
    /// Whether there ever was one: before that nobody knows how old this server's state is.
    has_heard: bool,
    leaving: bool,
    /// Requests on their way, by number.
    calls: BTreeMap<u64, Call>,
    by_origin: BTreeMap<Origin, u64>,
    /// Their size, as far as they wait or were sent on.
    weight: usize,
    next_call: u64,
    timers: Timers<Timer>,
    bucket: Bucket,
    stats: RpcStats,
}

impl Rpc {
    /// A machine without streams, servers or a leader.
    pub fn new(config: RpcConfig, rng: Rng, now: Instant) -> Self {
        let mut pool = Pool::new(rng);
        let mut timers = Timers::default();
        if !config.server {
            timers.set(Timer::Rebalance, now + servers::rebalance_after(&mut pool.rng));
        }
        let bucket = Bucket::new(config.rate.filter(|_| !config.server), now);
        Self {
            config,
            pool,
            servers: Servers::default(),
            remote: Remote::default(),
            leader: None,
            has_heard: false,
            leaving: false,
            calls: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            weight: 0,
            next_call: 1,
            timers,
            bucket,
            stats: RpcStats::default(),
        }
    }

    /// The counters.
    pub const fn stats(&self) -> &RpcStats {
        &self.stats
    }

    /// Whether somebody still waits for the outcome of `Execute`.
    pub(crate) fn awaits(&self, ticket: Ticket) -> bool {
        self.calls.contains_key(&ticket.0)
    }

    fn send_raft(
        &mut self,
        now: Instant,
        (to, address): (NodeId, SocketAddr),
        (lane, payload): (Lane, Bytes),
        out: &mut Outbox<RpcOutput>,
    ) {
        let own = self.config.datacenter.clone();
        let sent = match self.pool.connect_to(now, &own, (to, address), lane, out) {
            Some(stream) if self.pool.node(stream).is_none_or(|node| node == to) => {
                self.pool.carries(stream, to);
                let frame = Frame::Raft(payload).encode();
                frame.is_ok_and(|data| self.pool.send(now, stream, data, out))
            }
            _ => false,
        };
        if !sent && lane == Lane::Data {
            out.push(RpcOutput::PeerUnreachable { peer: to });
        }
    }

    /// A message of the bootstrap is asked again by its sender, so a dropped one is no loss.
    fn send_bootstrap(
        &mut self,
        now: Instant,
        stream: StreamId,
        payload: Bytes,
        out: &mut Outbox<RpcOutput>,
    ) {
        if let Ok(data) = Frame::Bootstrap(payload).encode() {
            self.pool.send(now, stream, data, out);
        }
    }

    fn take(&mut self, now: Instant, event: Event, out: &mut Outbox<RpcOutput>) {
        let (stream, node, lane, frame, bytes) = match event {
            Event::Lost(lost) => return self.lost(now, &lost, out),
            Event::Frame { stream, node, lane, frame, bytes } => (stream, node, lane, frame, bytes),
        };
        let server = self.config.server;
        // Consensus is a matter of one datacenter.
        let peer = server && !self.pool.is_foreign(&self.config, stream);
        match (frame, lane) {
            (Frame::Raft(payload), _) if peer => {
                out.push(RpcOutput::RaftMessage { from: node, payload });
            }
            (Frame::Bootstrap(payload), Lane::Data) if peer => {
                out.push(RpcOutput::BootstrapMessage { from: node, via: stream, payload });
            }
            (Frame::Request(request), Lane::Data) if server => {
                self.accept(now, (stream, request), bytes, out);
            }
            (Frame::Cancel(id), Lane::Data) if server => self.cancelled(now, (stream, id), out),
            (Frame::Reply(reply), Lane::Data) => self.reply(now, (stream, reply), out),
            (
                Frame::Raft(_)
                | Frame::Bootstrap(_)
                | Frame::Request(_)
                | Frame::Cancel(_)
                | Frame::Reply(_),
                Lane::Data | Lane::Heartbeat,
            )
            | (Frame::Hello(_) | Frame::Ping | Frame::Pong, _) => {
                if let Some(lost) = self.pool.give_up(now, stream, CloseRule::Misplaced, out) {
                    self.lost(now, &lost, out);
                }
            }
        }
    }

    /// A stream is gone: what was sent on it may be lost.
    fn lost(&mut self, now: Instant, lost: &Lost, out: &mut Outbox<RpcOutput>) {
        if let Some(peer) = lost.raft_peer
            && lost.lane == Lane::Data
        {
            out.push(RpcOutput::PeerUnreachable { peer });
        }
        self.calls_lost(now, lost, out);
        if let Some(node) = lost.node
            && lost.lane == Lane::Heartbeat
            && lost.silent
        {
            for lost in self.pool.give_up_data(now, node, out) {
                self.lost(now, &lost, out);
            }
        }
    }
}

impl Machine for Rpc {
    type Input = RpcInput;
    type Output = RpcOutput;

    fn handle(&mut self, now: Instant, input: RpcInput, out: &mut Outbox<RpcOutput>) {
        match input {
            RpcInput::Servers(servers) => self.servers.update(servers, &mut self.pool.rng),
            RpcInput::RemoteServers(servers) => self.remote.update(servers, &mut self.pool.rng),
            RpcInput::Leader(leader) => self.leader_is(now, leader, out),
            RpcInput::Submit { caller, hold, wall, request } => {
                let hold = if hold { self.config.hold } else { Duration::ZERO };
                let origin = Origin::Local(caller);
                self.submit(now, Call::new(now, origin, hold, wall, request), out);
            }
            RpcInput::Executed { ticket, result } => self.executed(now, ticket, result, out),
            RpcInput::Abandoned(id) => self.abandoned(now, Caller::Request(id), out),
            RpcInput::SendRaft { to, address, lane, payload } => {
                self.send_raft(now, (to, address), (lane, payload), out);
            }
            RpcInput::SendBootstrap { to, payload } => {
                let own = self.config.datacenter.clone();
                if let Some(stream) = self.pool.connect(now, &own, (to, Lane::Data), out) {
                    self.send_bootstrap(now, stream, payload, out);
                }
            }
            RpcInput::AnswerBootstrap { via, payload } => {
                self.send_bootstrap(now, via, payload, out);
            }
            RpcInput::StreamOpened { stream, peer } => {
                let theirs = self.pool.opened(now, &self.config, stream, peer, out);
                self.stats.streams_accepted += u64::from(theirs);
            }
            RpcInput::StreamData { stream, data } => {
                for event in self.pool.data(now, &self.config, (stream, &data), out) {
                    self.take(now, event, out);
                }
                self.pool.heard(now, stream);
            }
            RpcInput::StreamClosed { stream, reason: _ } => {
                if let Some(lost) = self.pool.closed(now, stream, out) {
                    self.lost(now, &lost, out);
                }
            }
            RpcInput::Leaving => self.leave(now, out),
            RpcInput::Rate(rate) => self.bucket.set(now, rate.filter(|_| !self.config.server)),
        }
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<RpcOutput>) {
        for lost in self.pool.timeouts(now, out) {
            self.lost(now, &lost, out);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Call(id) => self.call_due(now, id, out),
                Timer::Rebalance => self.rebalance(now, out),
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let calls = self.timers.next();
        let streams = self.pool.next_timeout();
        calls.into_iter().chain(streams).min()
    }
}
