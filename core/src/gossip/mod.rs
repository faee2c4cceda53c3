//! SWIM membership with Lifeguard, memberlist on the wire.

mod trace;

pub use trace::GossipTrace;

use crate::id::{Incarnation, NodeName, StreamId};
use crate::node::input::CloseReason;
use crate::trace::Level;
use bytes::Bytes;
use std::net::SocketAddr;

/// Protocol versions a member understands and speaks (gossip-wire.md §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Lowest protocol understood.
    pub protocol_min: u8,
    /// Highest protocol understood.
    pub protocol_max: u8,
    /// Protocol spoken.
    pub protocol: u8,
    /// Lowest Serf protocol understood.
    pub delegate_min: u8,
    /// Highest Serf protocol understood.
    pub delegate_max: u8,
    /// Serf protocol spoken.
    pub delegate: u8,
}

/// A member as the membership protocol knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its gossip address.
    pub address: SocketAddr,
    /// What it says of itself; Serf's tags.
    pub meta: Bytes,
    /// Its versions.
    pub versions: Versions,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// Which queue a broadcast waits in; earlier ones fill a packet first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BroadcastClass {
    /// Join and leave intents.
    Intent,
    /// Queries.
    Query,
    /// User events.
    Event,
}

/// One state exchange that waits for the Serf layer's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// One join that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinId(pub u64);

/// One broadcast that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BroadcastId(pub u64);

/// What the membership machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipInput {
    /// A datagram arrived.
    Datagram {
        /// Its source.
        from: SocketAddr,
        /// Its bytes.
        payload: Bytes,
    },
    /// A stream was accepted or the one asked for is open.
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
    /// Exchange state with these addresses; answered by `JoinFinished`.
    Join {
        /// The answer names it.
        join: JoinId,
        /// Where to.
        addresses: Vec<SocketAddr>,
    },
    /// Announce that this member leaves on purpose; answered by `LeaveSpread`.
    Leave,
    /// This member's meta changed: announce it under a new incarnation.
    SetMeta(Bytes),
    /// Spread a Serf message.
    Broadcast {
        /// Which queue.
        class: BroadcastClass,
        /// A later broadcast with the same key replaces this one.
        key: Option<String>,
        /// The whole Serf message, without the `user` byte.
        payload: Bytes,
        /// If set, `BroadcastSpread` tells when it was sent often enough or replaced.
        notify: Option<BroadcastId>,
    },
    /// The Serf layer's part of a state exchange, asked for by `WantUserState`.
    UserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// The whole Serf push/pull message.
        payload: Bytes,
    },
}

/// What the membership machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipOutput {
    /// Send a datagram.
    SendDatagram {
        /// Destination.
        to: SocketAddr,
        /// Bytes.
        payload: Bytes,
    },
    /// Connect; the node numbers streams, so the machine draws numbers from its own range.
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
    /// A member is new, or back from dead or left.
    Joined(Peer),
    /// A member is dead, or left on purpose.
    Gone {
        /// Who.
        name: NodeName,
        /// Whether it said so itself.
        left: bool,
    },
    /// A live member's meta, address or versions changed.
    Updated(Peer),
    /// Another member claims a known name from another address.
    Conflict {
        /// Who is known.
        existing: Peer,
        /// Who claims.
        claimed: SocketAddr,
    },
    /// A Serf message arrived.
    UserMessage(Bytes),
    /// The Serf part of a state exchange arrived; comes after the exchange's member changes.
    RemoteUserState {
        /// The whole Serf push/pull message.
        payload: Bytes,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// The Serf part of a state exchange is needed now.
    WantUserState {
        /// Answer with this.
        exchange: ExchangeId,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// A join is over.
    JoinFinished {
        /// Which.
        join: JoinId,
        /// How many addresses answered.
        contacted: usize,
        /// What went wrong with the others, one line each.
        errors: Vec<String>,
    },
    /// The leave was told often enough, or nobody is there to hear it.
    LeaveSpread,
    /// A broadcast was sent often enough or replaced.
    BroadcastSpread(BroadcastId),
    /// Something worth telling.
    Trace(Level, GossipTrace),
}

impl From<(Level, GossipTrace)> for GossipOutput {
    fn from((level, trace): (Level, GossipTrace)) -> Self {
        Self::Trace(level, trace)
    }
}
