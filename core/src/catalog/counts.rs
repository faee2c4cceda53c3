//! How much the catalog holds.

use super::Tables;

/// How many rows there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: usize,
    /// Names of services.
    pub services: usize,
    /// Instances of services.
    pub instances: usize,
    /// Checks.
    pub checks: usize,
    /// Sessions.
    pub sessions: usize,
    /// Keys.
    pub keys: usize,
}

impl Tables {
    /// How much this catalog holds.
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.nodes.len(),
            services: self.service_indexes.len(),
            instances: self.services.len(),
            checks: self.checks.len(),
            sessions: self.sessions.len(),
            keys: self.kv.entries.len(),
        }
    }
}
