//! Consensus (Raft thesis), pure: a log that a majority of servers agrees on, one after the other.
//!
//! [`Raft`] is one server's machine. It never interprets a command, reads no clock and touches no
//! disk: what must be durable comes out as `Persist`, and everything that depends on it waits
//! inside until `PersistDone` (raft.md K8). [`bootstrap`] decides the first configuration.
//!
//! The invariants, by the labels that the assertions carry (raft.md §12):
//!
//! | label | rule |
//! |---|---|
//! | INV-RAFT-1 | at most one leader in each term |
//! | INV-RAFT-2 | a leader never truncates its log |
//! | INV-RAFT-3 | equal position and term mean equal histories |
//! | INV-RAFT-4 | what is committed is in the log of every later leader |
//! | INV-RAFT-5 | the entry applied at a position is the same everywhere |
//! | INV-RAFT-6 | term, commit and applied never decrease |
//! | INV-RAFT-7 | one vote for each store and term |
//! | INV-RAFT-8 | applied ≤ commit ≤ last; applied ≤ durable; persist requests complete in order |
//! | INV-RAFT-9 | at most one configuration is uncommitted; neighbours share every quorum |
//! | INV-RAFT-10 | while a lease holds, nobody else is elected |
//! | INV-RAFT-13 | nothing is said before what it rests on is durable |
//! | INV-RAFT-14 | next > match; windows stay within their limits |

pub mod bootstrap;
mod candidate;
mod change;
#[cfg(any(test, feature = "sim"))]
pub mod cluster;
mod entry;
mod event;
mod follower;
mod leader;
mod lease;
mod machine;
mod membership;
mod message;
mod persist;
mod progress;
mod quorum;
mod read;
mod recovering;
mod replicate;
mod settings;
mod shared;
mod snapshot;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod trace;
mod transfer;
mod vote;

pub use crate::wire::rpc::Lane;
pub use bootstrap::BootstrapTrace;
pub use entry::{
    Change, Configuration, Entry, EntryKind, HardState, IdentityChange, PersistBatch, PersistSeq,
    ProposalError, ProposalId, ReadError, ReadId, RestoredRaft, Server, SnapshotMeta,
    TransferError, TransferId,
};
pub use event::{RaftInput, RaftOutput, RoleKind, SnapshotInput, SnapshotOutput};
pub use message::{
    Append, AppendReject, Body, Campaign, Condition, Header, Message, Refusal, SnapshotBlock, Unfit,
};
pub use settings::{ENTRY_BYTES_MAX, RaftLimits, RaftSettings, Timing};
pub use snapshot::{ImageId, ReceiptId};
pub use stats::{LeaderStats, PeerStats, RaftStats};
pub use status::{LeaveVerdict, Replica, Replication};
pub use trace::{NoQuorum, RaftTrace};

use machine::{Announced, Role};
use shared::Shared;

/// One server's consensus.
#[derive(Clone, Debug)]
pub struct Raft {
    shared: Shared,
    role: Role,
    announced: Announced,
}
