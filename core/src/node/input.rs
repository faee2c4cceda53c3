//! Everything that can happen to a node.

use crate::catalog::model::CheckStatus;
use crate::id::{CheckId, PoolName, RequestId, StreamId, WriteId};
use crate::node::request::Request;
use crate::storage::op::StorageFault;
use crate::time::WallClock;
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a stream is for; decides which machine it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// Push/pull and stream probes on the Serf port of a pool.
    Gossip(PoolName),
    /// Requests and Raft on the server port.
    Server,
}
pack_enum!(StreamKind { 1 => Gossip(PoolName), 2 => Server });

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it in order.
    Finished,
    /// It could not be opened: refused, unreachable, timed out.
    ConnectFailed,
    /// It broke.
    Reset,
    /// The host's own limits ended it.
    Limit,
}
pack_enum!(CloseReason { 1 => Finished, 2 => ConnectFailed, 3 => Reset, 4 => Limit });

/// How one run of a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// What the runner makes of it.
    pub status: CheckStatus,
    /// What there is to read, already cut to the check's limit.
    pub output: String,
}
pack_struct!(CheckResult { status, output });

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The deadline of `next_timeout` may have passed; late or early delivery is harmless.
    Timeout,
    /// A datagram arrived on a Serf port.
    Datagram {
        /// The pool whose port it is.
        pool: PoolName,
        /// Its source.
        from: SocketAddr,
        /// Its bytes.
        payload: Bytes,
    },
    /// A stream is ready: accepted from a peer, or opened at the node's wish.
    StreamOpened {
        /// The stream.
        stream: StreamId,
        /// What it is for.
        kind: StreamKind,
        /// The other end.
        peer: SocketAddr,
    },
    /// Bytes arrived on a stream, in order.
    StreamData {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
    },
    /// A stream ended; nothing more arrives on it and nothing more can be sent.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: CloseReason,
    },
    /// A storage operation is complete.
    Persisted {
        /// Which.
        write: WriteId,
    },
    /// A storage operation failed.
    PersistFailed {
        /// Which.
        write: WriteId,
        /// Why.
        error: StorageFault,
    },
    /// Somebody asks something of this agent.
    Request {
        /// The reply names it.
        id: RequestId,
        /// Civil time of its arrival.
        wall: WallClock,
        /// What is asked.
        request: Arc<Request>,
    },
    /// Nobody waits for the request's reply any more.
    RequestAbandoned {
        /// Which.
        id: RequestId,
    },
    /// A run of a check ended.
    CheckFinished {
        /// Which.
        check: CheckId,
        /// The run that `Output::RunCheck` started.
        run: u64,
        /// How.
        result: CheckResult,
    },
    /// The operator wants the agent to leave the cluster and stop.
    Leave,
    /// The operator wants the agent to stop without leaving.
    Shutdown,
}
pack_enum!(Input {
    1 => Timeout,
    2 => Datagram { pool, from, payload },
    3 => StreamOpened { stream, kind, peer },
    4 => StreamData { stream, data },
    5 => StreamClosed { stream, reason },
    6 => Persisted { write },
    7 => PersistFailed { write, error },
    8 => Request { id, wall, request },
    9 => RequestAbandoned { id },
    10 => CheckFinished { check, run, result },
    11 => Leave,
    12 => Shutdown,
});
