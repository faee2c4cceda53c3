//! Requests between agents over the server port: which server answers, and what becomes of it.
//!
//! A client agent sends to one server of a shuffled list; a server that does not lead sends on to
//! the leader (cluster-behaviour.md §5). A request is tried again only where nothing can have
//! happened yet: it was not sent, the other side said `NoLeader`, or it only reads. A write whose
//! stream broke after it was sent is `Unknown` and never repeated. Raft's messages travel on the
//! same port, heartbeats on a stream of their own so that they never wait behind data.

mod trace;

pub use crate::wire::rpc::Lane;
pub use trace::{CloseRule, RpcTrace};

use crate::id::{Datacenter, NodeId, NodeName, RequestId, StreamId};
use crate::node::input::CloseReason;
use crate::node::request::{Request, RequestError, Response};
use crate::serf::ServerInfo;
use crate::time::WallClock;
use crate::trace::Level;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who waits for the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A request that came in through `Input::Request`.
    Request(RequestId),
    /// A machine of this node; the number is the machine's own.
    Internal(u64),
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
    /// How long a request may wait for a leader (`performance.rpc_hold_timeout`).
    pub hold: Duration,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcInput {
    /// The servers of the own datacenter that are alive, as Serf sees them, the own one included.
    Servers(Vec<ServerInfo>),
    /// Who leads, as consensus sees it; the own identity if this node leads. Servers only.
    Leader(Option<(NodeId, SocketAddr)>),
    /// Find somebody to answer a query or a write; answered by `Done`.
    Submit {
        /// The answer names it.
        caller: Caller,
        /// Whether to wait for a leader; `false` fails at once where none is known.
        hold: bool,
        /// Civil time of the request's arrival.
        wall: WallClock,
        /// The request; its body is a `Query` or a `Write`.
        request: Box<Request>,
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
        /// The request; its body is a `Query` or a `Write`.
        request: Arc<Request>,
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
