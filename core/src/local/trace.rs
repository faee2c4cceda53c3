//! What the agent's own state tells about itself: registrations, checks, anti-entropy.
//!
//! Wording follows Consul's lines of the subsystem `agent`; the line of a failed sync is the
//! founding page's.

use crate::catalog::model::CheckStatus;
use crate::id::{CheckId, ServiceId};
use crate::node::request::RequestError;
use crate::storage::op::StorageFault;
use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentTrace {
    /// A check changed its state.
    CheckTurned {
        /// Which.
        check: CheckId,
        /// Into what.
        status: CheckStatus,
    },
    /// A result did not count yet (`success_before_passing`, `failures_before_critical`).
    BelowThreshold {
        /// Which check.
        check: CheckId,
        /// The state it would take.
        status: CheckStatus,
        /// Equal results so far.
        count: u32,
        /// Equal results needed.
        needed: u32,
    },
    /// A result came for a run that is not the current one.
    StaleResult {
        /// Which check.
        check: CheckId,
        /// The run it belongs to.
        run: u64,
    },
    /// A run did not report in its time.
    RunLost {
        /// Which check.
        check: CheckId,
    },
    /// A service goes because its check was critical for too long.
    Reaped {
        /// The service.
        service: ServiceId,
        /// Its check.
        check: CheckId,
    },
    /// A service, or the node, went into maintenance or came out.
    Maintenance {
        /// The service; `None` for the node.
        service: Option<ServiceId>,
        /// Whether it is in maintenance now.
        enable: bool,
    },
    /// A stored registration was not restored.
    NotRestored {
        /// What.
        what: String,
        /// Why.
        why: &'static str,
    },
    /// Registrations could not be written.
    NotStored(StorageFault),
    /// The catalog could not be brought up to date.
    SyncFailed(RequestError),
    /// The node's own record was written.
    SyncedNode,
    /// A service was written to the catalog.
    SyncedService(ServiceId),
    /// A check was written to the catalog.
    SyncedCheck(CheckId),
    /// A service was removed from the catalog.
    DeregisteredService(ServiceId),
    /// A check was removed from the catalog.
    DeregisteredCheck(CheckId),
}

impl fmt::Display for AgentTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckTurned { check, status } => {
                write!(f, "Check '{check}' is now {}", status.as_str())
            }
            Self::BelowThreshold { check, status, count, needed } => {
                write!(f, "Check '{check}' is not yet {}: {count} of {needed}", status.as_str())
            }
            Self::StaleResult { check, run } => {
                write!(f, "Check '{check}': result of old run {run} ignored")
            }
            Self::RunLost { check } => write!(f, "Check '{check}' did not report in time"),
            Self::Reaped { service, check } => write!(
                f,
                "Check '{check}' for service '{service}' has been critical for too long, \
                 deregistering service"
            ),
            Self::Maintenance { service, enable } => {
                let turned = if *enable { "entered" } else { "left" };
                match service {
                    None => write!(f, "Node {turned} maintenance mode"),
                    Some(service) => write!(f, "Service '{service}' {turned} maintenance mode"),
                }
            }
            Self::NotRestored { what, why } => write!(f, "{what} not restored: {why}"),
            Self::NotStored(fault) => write!(f, "failed to store registrations: {fault}"),
            Self::SyncFailed(RequestError::NoServers) => {
                f.write_str("failed to sync remote state: No known Terraform servers")
            }
            Self::SyncFailed(error) => {
                write!(f, "failed to sync remote state: rpc error: {error}")
            }
            Self::SyncedNode => f.write_str("Synced node info"),
            Self::SyncedService(service) => write!(f, "Synced service '{service}'"),
            Self::SyncedCheck(check) => write!(f, "Synced check '{check}'"),
            Self::DeregisteredService(service) => write!(f, "Deregistered service '{service}'"),
            Self::DeregisteredCheck(check) => write!(f, "Deregistered check '{check}'"),
        }
    }
}
