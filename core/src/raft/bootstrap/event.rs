//! What the bootstrap machine is told, says to others, and wants done.

use super::BootstrapTrace;
use crate::config;
use crate::id::{ClusterId, NodeId, StoreId};
use crate::pack_struct;
use crate::raft::{Configuration, PersistBatch, PersistSeq};
use crate::serf::ServerInfo;
use crate::trace::Level;
use std::net::SocketAddr;

/// What the bootstrap machine is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapSettings {
    /// This server.
    pub id: NodeId,
    /// Its server port, as others reach it.
    pub address: SocketAddr,
    /// How its first configuration comes about.
    pub mode: config::Bootstrap,
    /// Whether it is to vote. One that is not takes part, and proposes nothing (B7).
    pub votes: bool,
}

/// To whom a blank server is bound: it joins no other cluster until released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The server that proposes.
    pub proposer: NodeId,
    /// The store it proposes with.
    pub store: StoreId,
}
pack_struct!(Promise { proposer, store });

impl Promise {
    /// The cluster that the proposer would make.
    pub const fn cluster(&self) -> ClusterId {
        self.store.own_cluster()
    }
}

/// What the bootstrap machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapInput {
    /// All servers of this datacenter that are alive in gossip, including this one; given at each
    /// change.
    Servers(Vec<ServerInfo>),
    /// A message arrived from another server.
    Receive(BootstrapMessage),
    /// This persist request is durable.
    PersistDone {
        /// The request.
        seq: PersistSeq,
    },
    /// The store belongs to a cluster (`RaftOutput::ClusterKnown`).
    Formed {
        /// The cluster.
        cluster: ClusterId,
    },
}

/// What the bootstrap machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapOutput {
    /// Make this durable; answered by `PersistDone`. At most one is outstanding.
    Persist {
        /// The completion names it.
        seq: PersistSeq,
        /// Only its identity is set.
        batch: PersistBatch,
    },
    /// Send a message to a server port; it may be lost.
    Send {
        /// Where.
        to: SocketAddr,
        /// What.
        message: BootstrapMessage,
    },
    /// Feed `RaftInput::Bound`, before anything else.
    Bound {
        /// The only cluster this blank server may join; `None` for any.
        cluster: Option<ClusterId>,
    },
    /// The first configuration is decided: feed `RaftInput::Bootstrapped`.
    Start {
        /// The cluster's identity.
        cluster: ClusterId,
        /// The configuration; it names this server.
        configuration: Configuration,
    },
    /// Something worth telling.
    Trace(Level, BootstrapTrace),
}

impl From<(Level, BootstrapTrace)> for BootstrapOutput {
    fn from((level, trace): (Level, BootstrapTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

/// What servers say to each other before there is a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapMessage {
    /// Will you wait for the configuration I am about to decide?
    Ask {
        /// The addressee.
        to: NodeId,
        /// To whom it would be bound.
        promise: Promise,
        /// The proposer's attempt; the answer echoes it.
        round: u64,
        /// How many servers the proposer expects.
        expect: u32,
    },
    /// The answer to it.
    Answer {
        /// The addressee: the proposer.
        to: NodeId,
        /// Who answers.
        from: NodeId,
        /// The store it answers for.
        store: StoreId,
        /// As asked.
        round: u64,
        /// The answer.
        verdict: Verdict,
    },
    /// I am bound to you: do you still need it?
    Query {
        /// The addressee: the proposer.
        to: NodeId,
        /// Who asks.
        from: NodeId,
        /// What was promised.
        promise: Promise,
        /// The question; the answer echoes it.
        question: u64,
    },
    /// No: the promised cluster will not come from your promise.
    Release {
        /// The addressee.
        to: NodeId,
        /// As asked.
        question: u64,
    },
}

/// What a server says to a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is bound to the proposer, durably.
    Promised,
    /// It is bound to another proposer, or takes no part.
    Refused,
    /// It belongs to a cluster already.
    Member(ClusterId),
}
