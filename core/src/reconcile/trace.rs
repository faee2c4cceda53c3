//! What leader duties tell about themselves; the lines are the founding page's and Consul's.

use super::StepError;
use crate::id::{NodeId, NodeName};
use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileTrace {
    /// A live member goes into the catalog.
    Joined(NodeName),
    /// A failed member's health becomes critical.
    Failed(NodeName),
    /// A member goes out of the catalog.
    Deregistering {
        /// Who.
        member: NodeName,
        /// `left` or `reaped`.
        reason: &'static str,
    },
    /// This node left, so that it is for the next leader to remove it.
    NotSelf,
    /// A live client once was a server.
    NoServerAnyMore(NodeName),
    /// A server is to vote.
    AddingServer(NodeId),
    /// A server is to vote no longer.
    RemovingServer(NodeId),
    /// A step was not done.
    StepFailed {
        /// Which member or server it was for.
        of: String,
        /// Why.
        error: StepError,
    },
}

impl fmt::Display for ReconcileTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined(name) => write!(f, "member '{name}' joined, marking health alive"),
            Self::Failed(name) => write!(f, "member '{name}' failed, marking health critical"),
            Self::Deregistering { member, reason } => {
                write!(f, "deregistering member: member={member} reason={reason}")
            }
            Self::NotSelf => f.write_str("deregistering self should be done by follower"),
            Self::NoServerAnyMore(name) => {
                write!(f, "member '{name}' is no server any more, removing its server service")
            }
            Self::AddingServer(id) => write!(f, "adding voting server: id={id}"),
            Self::RemovingServer(id) => write!(f, "removing voting server: id={id}"),
            Self::StepFailed { of, error } => {
                write!(f, "failed to reconcile member: member={of} error={error}")
            }
        }
    }
}
