//! Everything a node wants done, in the order in which it wants it done.

use crate::id::{CheckId, PoolName, RequestId, StreamId, WriteId};
use crate::local::definition::CheckKind;
use crate::node::input::StreamKind;
use crate::node::request::{RequestError, Response};
use crate::serf::{QueryHeard, SerfEvent};
use crate::storage::op::StorageOp;
use crate::trace::TraceEvent;
use crate::view::View;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a datagram from a Serf port.
    SendDatagram {
        /// The pool whose port it is.
        pool: PoolName,
        /// Destination.
        to: SocketAddr,
        /// Bytes.
        payload: Bytes,
    },
    /// Connect; answered by `StreamOpened` or `StreamClosed`.
    OpenStream {
        /// The number the stream will have.
        stream: StreamId,
        /// What it is for.
        kind: StreamKind,
        /// Destination.
        to: SocketAddr,
    },
    /// Send bytes on a stream, after those sent before.
    SendStream {
        /// The stream.
        stream: StreamId,
        /// Bytes.
        data: Bytes,
    },
    /// Close a stream once everything sent on it is delivered. No `StreamClosed` follows.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// Perform a storage operation; answered by `Persisted` or `PersistFailed`. Operations of one
    /// lane are performed in order.
    Persist {
        /// The completion names it.
        write: WriteId,
        /// What to do.
        op: StorageOp,
    },
    /// Run a check once; answered by `CheckFinished`.
    RunCheck {
        /// The check.
        check: CheckId,
        /// The run, for the answer.
        run: u64,
        /// How it finds out.
        kind: CheckKind,
        /// Bytes of output to keep.
        output_max_size: usize,
    },
    /// Answer a request.
    Reply {
        /// Which.
        id: RequestId,
        /// The answer.
        result: Result<Response, RequestError>,
    },
    /// A member said something to a query that still runs: tell whoever asked, if it wants that.
    /// The reply will repeat it, so nothing is lost where it is not told.
    QueryHeard {
        /// The request.
        id: RequestId,
        /// Who said what.
        heard: QueryHeard,
    },
    /// Subscribers are told this of the LAN pool: one for each member change, user event and query
    /// that one input brings, so as many as that input names. Without a subscriber it is of no use.
    Event(SerfEvent),
    /// Readers use this snapshot from now on. First of a drain, at most one for each.
    Publish(Arc<View>),
    /// Something worth telling.
    Trace(TraceEvent),
    /// The node has stopped; it wants no more input.
    Stopped(StopReason),
}

/// Why a node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It left the cluster as asked.
    Left,
    /// It stopped without leaving, as asked.
    Shutdown,
    /// It could not go on; the text names the rule.
    Fatal(String),
}
