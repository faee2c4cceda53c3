//! Counters of consensus; they only grow.

/// What happened so far in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStats {
    /// Questions before an election.
    pub pre_votes_started: u64,
    /// Elections this server stood in.
    pub elections_started: u64,
    /// Elections it won.
    pub elections_won: u64,
    /// Terms it led that ended.
    pub step_downs: u64,
    /// Times it dropped entries of an older leader.
    pub truncations: u64,
    /// Times it looked further back for a common position.
    pub probes: u64,
    /// Snapshots it began to send.
    pub snapshots_sent: u64,
    /// Snapshots that took its log's place.
    pub snapshots_installed: u64,
    /// Messages that no correct server sends.
    pub malformed: u64,
    /// Messages meant for another server.
    pub misdirected: u64,
    /// Messages of another cluster.
    pub foreign: u64,
}
