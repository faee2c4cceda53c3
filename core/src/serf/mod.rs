//! Serf above gossip: Lamport clocks, intents, tags, reconnects, reaping.

mod member;
mod trace;

pub use member::{Member, MemberStatus, ServerInfo};
pub use trace::SerfTrace;

use crate::gossip::{BroadcastClass, BroadcastId, ExchangeId, JoinId, Peer};
use crate::id::NodeName;
use crate::storage::op::FileOp;
use crate::trace::Level;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What the Serf machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfInput {
    /// As in `GossipOutput`.
    Joined(Peer),
    /// As in `GossipOutput`.
    Gone {
        /// Who.
        name: NodeName,
        /// Whether it said so itself.
        left: bool,
    },
    /// As in `GossipOutput`.
    Updated(Peer),
    /// As in `GossipOutput`.
    UserMessage(Bytes),
    /// As in `GossipOutput`.
    RemoteUserState {
        /// The Serf push/pull message.
        payload: Bytes,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// As in `GossipOutput`; answered by `SerfOutput::UserState`.
    WantUserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// Whether it is a join.
        join: bool,
    },
    /// A join through gossip succeeded: announce it.
    JoinedCluster,
    /// As in `GossipOutput`.
    JoinFinished {
        /// Which; the machine recognises its own.
        join: JoinId,
        /// How many addresses answered.
        contacted: usize,
    },
    /// As in `GossipOutput`.
    BroadcastSpread(BroadcastId),
    /// As in `GossipOutput`.
    LeaveSpread,
    /// Leave the cluster; answered by `SerfOutput::LeaveFinished`.
    Leave,
    /// Make a failed member leave.
    ForceLeave {
        /// Who.
        name: NodeName,
        /// Whether to forget it at once.
        prune: bool,
    },
    /// This member's tags changed.
    SetTags(BTreeMap<String, String>),
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberEventKind {
    /// It is new or back.
    Join,
    /// It left on purpose.
    Leave,
    /// It stopped answering.
    Failed,
    /// Its tags, address or versions changed.
    Update,
    /// It is forgotten.
    Reap,
}

/// What the Serf machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfOutput {
    /// Spread a message through gossip.
    Broadcast {
        /// Which queue.
        class: BroadcastClass,
        /// Replaces an earlier one with the same key.
        key: Option<String>,
        /// The whole Serf message.
        payload: Bytes,
        /// Whether to tell when it has spread.
        notify: Option<BroadcastId>,
    },
    /// The answer to `WantUserState`.
    UserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// The Serf push/pull message.
        payload: Bytes,
    },
    /// Try to reach these addresses through gossip (reconnect, rejoin).
    Join {
        /// The answer names it.
        join: JoinId,
        /// Where to.
        addresses: Vec<SocketAddr>,
    },
    /// Tell gossip to announce the leave.
    GossipLeave,
    /// Tell gossip this member's new meta.
    SetMeta(Bytes),
    /// A member changed.
    Member {
        /// How.
        kind: MemberEventKind,
        /// The member after the change.
        member: Box<Member>,
    },
    /// The leave is complete.
    LeaveFinished,
    /// Write to `serf/local.snapshot` (state lane).
    Persist(Vec<FileOp>),
    /// Something worth telling.
    Trace(Level, SerfTrace),
}

impl From<(Level, SerfTrace)> for SerfOutput {
    fn from((level, trace): (Level, SerfTrace)) -> Self {
        Self::Trace(level, trace)
    }
}
