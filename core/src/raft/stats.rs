//! What happened to consensus in this run, for whoever measures it; it only grows.

use crate::durations::Durations;
use crate::id::NodeId;
use std::collections::BTreeMap;

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

/// What this server did while it led, and how long that took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderStats {
    /// The disk, for each batch of entries.
    pub dispatches: Durations,
    /// From each election until what was committed before it was applied here.
    pub barriers: Durations,
    /// From a read until a quorum had confirmed that this server leads, and what the read must see
    /// was applied.
    pub confirmations: Durations,
    /// What each other server was sent; those that left the configuration are forgotten with the
    /// next change of it.
    pub peers: BTreeMap<NodeId, PeerStats>,
}

/// What a leader sent to one other server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Entries; those that were sent again count again.
    pub entries: u64,
    /// From a message with entries, or with the commit index alone, until it was agreed to: for
    /// entries, when they are durable there. One answer may stand for several messages.
    pub appends: Durations,
    /// From a heartbeat until its answer.
    pub heartbeats: Durations,
}
