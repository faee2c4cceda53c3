//! Typed traces: what the core says about itself, as values.
//!
//! One enum for each machine, defined beside it, with fields and a one-line `Display`. The wanted
//! level is configuration and never alters behaviour. `io` turns traces into log records, `sim`
//! stores and hashes them.

use crate::id::PoolName;
use crate::pack_enum;
use std::fmt;

/// How severe a trace is; later is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What a developer of the agent wants to see.
    Debug,
    /// What an operator wants to see.
    Info,
    /// Something unusual that the agent dealt with.
    Warn,
    /// Something failed.
    Error,
}
pack_enum!(Level { 1 => Trace, 2 => Debug, 3 => Info, 4 => Warn, 5 => Error });

impl Level {
    /// The level named by an operator, in any case; `ERROR` is accepted for `ERR`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "TRACE" => Some(Self::Trace),
            "DEBUG" => Some(Self::Debug),
            "INFO" => Some(Self::Info),
            "WARN" => Some(Self::Warn),
            "ERR" | "ERROR" => Some(Self::Error),
            _ => None,
        }
    }

    /// The name in log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERR",
        }
    }
}

/// One trace: severity, the machine it comes from, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// How severe it is.
    pub level: Level,
    /// What happened.
    pub kind: TraceKind,
}

/// What a trace tells, by machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// Membership protocol.
    Gossip(PoolName, crate::gossip::GossipTrace),
    /// Member events, intents, reconnects.
    Serf(PoolName, crate::serf::SerfTrace),
    /// Consensus.
    Raft(crate::raft::RaftTrace),
    /// The cluster's first configuration.
    Bootstrap(crate::raft::BootstrapTrace),
    /// Leader duties.
    Reconcile(crate::reconcile::ReconcileTrace),
    /// Local services and checks, anti-entropy.
    Agent(crate::local::AgentTrace),
    /// Requests between agents.
    Rpc(crate::rpc::RpcTrace),
    /// The node itself.
    Node(crate::node::NodeTrace),
}

impl TraceKind {
    /// The prefix of the log line.
    pub const fn subsystem(&self) -> &'static str {
        match self {
            Self::Gossip(PoolName::Lan, _) => "memberlist",
            Self::Gossip(PoolName::Wan, _) => "memberlist.wan",
            Self::Serf(PoolName::Lan, _) => "serf",
            Self::Serf(PoolName::Wan, _) => "serf.wan",
            Self::Raft(_) => "raft",
            Self::Bootstrap(_) | Self::Reconcile(_) | Self::Node(_) => "terraform",
            Self::Agent(_) => "agent",
            Self::Rpc(_) => "rpc",
        }
    }
}

impl fmt::Display for TraceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gossip(_, trace) => trace.fmt(f),
            Self::Serf(_, trace) => trace.fmt(f),
            Self::Raft(trace) => trace.fmt(f),
            Self::Bootstrap(trace) => trace.fmt(f),
            Self::Reconcile(trace) => trace.fmt(f),
            Self::Agent(trace) => trace.fmt(f),
            Self::Rpc(trace) => trace.fmt(f),
            Self::Node(trace) => trace.fmt(f),
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}: {}", self.level.name(), self.kind.subsystem(), self.kind)
    }
}
