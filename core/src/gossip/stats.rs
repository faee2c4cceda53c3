//! What happened in a pool, for whoever measures it.

use crate::durations::Durations;

/// What this member took for news in this run, and how long its probes took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipStats {
    /// Claims that a member is alive.
    pub alive: u64,
    /// Suspicions of members.
    pub suspect: u64,
    /// Members that died or left.
    pub dead: u64,
    /// From a probe until it was answered, or until its verdict.
    pub probes: Durations,
}
