//! Services and checks registered on this agent.

pub mod definition;
mod trace;

pub use trace::AgentTrace;

use crate::catalog::model::{Check, Service};
use crate::id::{CheckId, ServiceId};
use imbl::OrdMap;
use std::sync::Arc;

/// What readers see of this agent's own registrations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalView {
    /// Services by id.
    pub services: OrdMap<ServiceId, Arc<Service>>,
    /// Checks by id, with their current state.
    pub checks: OrdMap<CheckId, Arc<Check>>,
}
