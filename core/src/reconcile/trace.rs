//! What leader duties tell about themselves; the lines are the founding page's and Consul's.

use super::StepError;
use crate::id::{CheckId, NodeName, ServiceId, SessionId};
use crate::raft::Change;
use std::fmt;
use std::time::Duration;

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
        /// `left`, `reaped` or why else.
        reason: &'static str,
    },
    /// This node left, so that it is for the next leader to remove it.
    NotSelf,
    /// A live client once was a server.
    NoServerAnyMore(NodeName),
    /// A service goes: its check says so, and no agent lives on its node to do it.
    Forsaken {
        /// The node.
        node: NodeName,
        /// The service.
        service: ServiceId,
        /// Its check.
        check: CheckId,
        /// How long it was kept.
        after: Duration,
    },
    /// Nobody renewed a session for too long.
    SessionExpired(SessionId),
    /// The configuration is to change.
    Changing(Change),
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
            Self::Forsaken { node, service, check, after } => write!(
                f,
                "deregistering service without a live agent: node={node} service={service} \
                 check={check} after={after:?}"
            ),
            Self::SessionExpired(id) => write!(f, "session TTL expired: session={id}"),
            Self::Changing(Change::Add { server, address }) => {
                write!(f, "adding server: id={server} address={address}")
            }
            Self::Changing(Change::Promote(id)) => write!(f, "promoting server to voter: id={id}"),
            Self::Changing(Change::Demote(id)) => write!(f, "demoting server: id={id}"),
            Self::Changing(Change::Remove { server, .. }) => {
                write!(f, "removing server: id={server}")
            }
            Self::StepFailed { of, error } => {
                write!(f, "failed to reconcile member: member={of} error={error}")
            }
        }
    }
}
