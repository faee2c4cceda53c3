//! What reaches the driver from the tasks around it, and the bounded queues it comes by.
//!
//! Datagrams have a queue of their own and are dropped when it is full, as a network may drop
//! them; whatever else arrives waits for room, which slows its sender down.

use crate::handle::Call;
use smol::channel::{Receiver, Sender, bounded};
use smol::net::TcpStream;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use terraform_core::id::StreamId;
use terraform_core::node::input::{Input, StreamKind};

/// Datagrams that wait for the node; the kernel's buffer holds what comes while it is busy.
const DATAGRAMS_MAX: usize = 1024;
/// Other events that wait for the node.
const EVENTS_MAX: usize = 256;
/// Requests that wait for the node.
const CALLS_MAX: usize = 4096;

/// One thing that happened outside the node.
#[derive(Debug)]
pub enum Event {
    /// It is an input as it stands.
    Input(Input),
    /// Another agent opened a stream.
    Accepted {
        /// By the port it came in.
        kind: StreamKind,
        /// The stream.
        socket: TcpStream,
        /// Its source.
        peer: SocketAddr,
    },
    /// A stream that the node wants is open.
    Connected {
        /// The node's number for it.
        stream: StreamId,
        /// The stream.
        socket: TcpStream,
        /// Its destination.
        peer: SocketAddr,
    },
}

/// The sending ends of the driver's queues.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// Datagrams; full means dropped.
    pub datagrams: Sender<Input>,
    /// Everything else but requests.
    pub events: Sender<Event>,
    /// Requests.
    pub calls: Sender<Call>,
}

/// The receiving ends of the driver's queues.
#[derive(Debug)]
pub struct Arrivals {
    /// As in [`Inbox`].
    pub datagrams: Receiver<Input>,
    /// As in [`Inbox`].
    pub events: Receiver<Event>,
    /// As in [`Inbox`].
    pub calls: Receiver<Call>,
}

/// Empty queues.
pub fn queues() -> (Inbox, Arrivals) {
    let (datagrams, datagrams_in) = bounded(DATAGRAMS_MAX);
    let (events, events_in) = bounded(EVENTS_MAX);
    let (calls, calls_in) = bounded(CALLS_MAX);
    let arrivals = Arrivals { datagrams: datagrams_in, events: events_in, calls: calls_in };
    (Inbox { datagrams, events, calls }, arrivals)
}

/// What the host counts; each only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams dropped because the node was too busy.
    pub datagrams_dropped: AtomicU64,
    /// Datagrams that the kernel did not take.
    pub datagrams_unsent: AtomicU64,
    /// Streams refused because there were too many.
    pub streams_refused: AtomicU64,
    /// Streams closed because their send queue was full.
    pub streams_overflowed: AtomicU64,
    /// Subscriptions to Serf events that ended because their clients were too slow.
    pub subscriptions_overflowed: AtomicU64,
    /// Turns of the driver that took longer than they should.
    pub slow_turns: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
