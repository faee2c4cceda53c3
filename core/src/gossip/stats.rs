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
    /// Probes that this member gave more time than usual, since it distrusted itself (Lifeguard,
    /// LHA-Probe).
    pub probes_stretched: u64,
    /// Suspicions that ran out with fewer confirmations than would have shortened them to the
    /// least: the suspect is gone, or this member's word is worth little (Lifeguard,
    /// LHA-Suspicion).
    pub suspicions_unconfirmed: u64,
    /// Exchanges of state that this member began, from the wish for a stream until the other
    /// side's state was merged or the exchange failed.
    pub exchanges: Durations,
}
