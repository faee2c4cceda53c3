//! The numbers of consensus (raft.md §1).

use crate::id::NodeId;
use crate::pack_struct;
use std::net::SocketAddr;
use std::time::Duration;

/// What the Raft machine is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftSettings {
    /// This server.
    pub id: NodeId,
    /// Its server port, as others reach it.
    pub address: SocketAddr,
    /// Its patience.
    pub timing: Timing,
    /// Its limits.
    pub limits: RaftLimits,
}

/// Timeouts (raft.md §1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a follower waits for its leader; a leader steps down after this without a quorum.
    pub heartbeat_timeout: Duration,
    /// How long a candidate waits for votes; not below the heartbeat timeout.
    pub election_timeout: Duration,
    /// How long an answered heartbeat lets the leader serve reads; half the heartbeat timeout.
    pub lease_timeout: Duration,
    /// Time between heartbeats, before jitter of a tenth.
    pub heartbeat_interval: Duration,
}

impl Timing {
    /// The timeouts at this `raft_multiplier`, taken as 1 to 10.
    pub fn scaled(multiplier: u32) -> Self {
        let multiplier = multiplier.clamp(1, 10);
        Self {
            heartbeat_timeout: Duration::from_millis(1000) * multiplier,
            election_timeout: Duration::from_millis(1000) * multiplier,
            lease_timeout: Duration::from_millis(500) * multiplier,
            heartbeat_interval: Duration::from_millis(100) * multiplier,
        }
    }
}

/// Payload bytes of one entry: above what HTTP can be told to take, and far from the frame that
/// must hold it.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Sizes (raft.md §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftLimits {
    /// Entries in one message.
    pub append_entries_max: usize,
    /// Payload bytes in one message; one larger entry still travels alone.
    pub append_bytes_max: usize,
    /// Unanswered messages to one server.
    pub inflight_messages_max: usize,
    /// Unanswered payload bytes to one server.
    pub inflight_bytes_max: usize,
    /// Payload bytes appended by this leader and not committed.
    pub uncommitted_bytes_max: usize,
    /// Payload bytes handed to the disk or waiting for it.
    pub unsynced_bytes_max: usize,
    /// Entries committed and not applied.
    pub apply_lag_max: u64,
    /// Reads that wait for a quorum.
    pub reads_max: usize,
    /// Entries applied since the last snapshot that make one due.
    pub snapshot_entries: u64,
    /// Payload bytes of such entries that make one due at once.
    pub snapshot_bytes: usize,
    /// The shortest time between two snapshots that entries alone make due, before jitter of as
    /// much again.
    pub snapshot_interval: Duration,
    /// Entries below a snapshot that are kept for servers that are a little behind.
    pub trailing_entries: u64,
    /// Payload bytes of the log up to which what a live server still lacks is kept.
    pub pinned_bytes_max: usize,
    /// Bytes of a block of a snapshot that is sent.
    pub block_bytes: usize,
    /// Blocks of a snapshot on their way to one server.
    pub blocks_max: usize,
}
pack_struct!(RaftLimits {
    append_entries_max,
    append_bytes_max,
    inflight_messages_max,
    inflight_bytes_max,
    uncommitted_bytes_max,
    unsynced_bytes_max,
    apply_lag_max,
    reads_max,
    snapshot_entries,
    snapshot_bytes,
    snapshot_interval,
    trailing_entries,
    pinned_bytes_max,
    block_bytes,
    blocks_max
});

impl Default for RaftLimits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            append_entries_max: 64,
            append_bytes_max: MIB,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 * MIB,
            uncommitted_bytes_max: 64 * MIB,
            unsynced_bytes_max: 32 * MIB,
            apply_lag_max: 8192,
            reads_max: 16_384,
            snapshot_entries: 16_384,
            snapshot_bytes: 64 * MIB,
            snapshot_interval: Duration::from_secs(30),
            trailing_entries: 10_240,
            pinned_bytes_max: 256 * MIB,
            block_bytes: MIB / 4,
            blocks_max: 4,
        }
    }
}
