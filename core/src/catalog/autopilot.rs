//! How the leader cares for the servers: settings that all of them share (http-api.md §16).
//!
//! The first leader stores what its own configuration says; from then on operators change it.

use super::Tables;
use crate::id::ModifyIndex;
use crate::pack_struct;
use std::sync::Arc;
use std::time::Duration;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutopilotConfig {
    /// Whether servers that failed are taken out once the others are better off without them.
    pub cleanup_dead_servers: bool,
    /// A server that was not heard of for longer is not healthy.
    pub last_contact_threshold: Duration,
    /// A server that lacks more entries is not healthy.
    pub max_trailing_logs: u64,
    /// Voters that the cleanup leaves at least.
    pub min_quorum: u64,
    /// How long a server is healthy before it votes.
    pub server_stabilization_time: Duration,
}
pack_struct!(AutopilotConfig {
    cleanup_dead_servers,
    last_contact_threshold,
    max_trailing_logs,
    min_quorum,
    server_stabilization_time,
});

impl Default for AutopilotConfig {
    /// Consul's (agent-config.md).
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold: Duration::from_millis(200),
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time: Duration::from_secs(10),
        }
    }
}

/// The settings as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autopilot {
    /// What they say.
    pub config: AutopilotConfig,
    /// When they were stored first.
    pub create_index: ModifyIndex,
    /// When they changed last.
    pub modify_index: ModifyIndex,
}
pack_struct!(Autopilot { config, create_index, modify_index });

/// Stores other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutopilotWrite {
    /// What they say.
    pub config: AutopilotConfig,
    /// Only if they changed last there; zero: only if there are none.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(AutopilotWrite { config, only_at });

impl Tables {
    /// The stored settings; none before a first leader stored its own.
    pub fn autopilot(&self) -> Option<&Arc<Autopilot>> {
        self.autopilot.as_ref()
    }

    /// Stores them if the condition holds; whether it does.
    pub(super) fn put_autopilot(&mut self, index: ModifyIndex, write: AutopilotWrite) -> bool {
        let stored = self.autopilot.as_deref();
        let at = stored.map_or(ModifyIndex::ZERO, |stored| stored.modify_index);
        if write.only_at.is_some_and(|only_at| only_at != at) {
            return false;
        }
        let create_index = stored.map_or(index, |stored| stored.create_index);
        let stored = Autopilot { config: write.config, create_index, modify_index: index };
        self.autopilot = Some(Arc::new(stored));
        true
    }
}
