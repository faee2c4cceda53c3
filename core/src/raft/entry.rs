//! The values consensus is made of: entries, configurations, and what must be durable.
//!
//! Storage encodes a [`PersistBatch`] and recovers a [`RestoredRaft`]; both sides agree on these
//! types and on nothing else (raft.md §2, §11.4).

use super::{ENTRY_BYTES_MAX, Unfit};
use crate::id::{ClusterId, LogIndex, NodeId, StoreId, Term};
use crate::log::Position;
use crate::pack_struct;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What an entry is for; apply looks at nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command for the catalog.
    Command,
    /// The first entry of a leader's term.
    Noop,
    /// A whole configuration, effective when appended.
    Config,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: LogIndex,
    /// The term it was appended in.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// Its content; the codec of its kind reads it.
    pub payload: Bytes,
    /// FNV-1a over the previous chain value and this entry: equal chains, equal histories.
    pub chain: u64,
}

impl Entry {
    /// Where it is, and the history up to it.
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term, chain: self.chain }
    }
}

/// One server of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its server port.
    pub address: SocketAddr,
    /// The store it votes with.
    pub store: StoreId,
}
pack_struct!(Server { address, store });

/// Who takes part. An entry of kind `Config` holds the whole value (raft.md §10.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes, by identity.
    pub voters: BTreeMap<NodeId, Server>,
    /// Who is sent everything and does not vote, by identity (Raft thesis §4.2.1).
    pub learners: BTreeMap<NodeId, Server>,
}
pack_struct!(Configuration { voters, learners });

/// One step from a configuration to the next (raft.md §10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One step towards `server` being a part at `address`: a learner, unless it votes already.
    ///
    /// The server is contacted first, to see that it answers and with which store. Who is in its
    /// way (same address, or the same identity with another store) is removed by this step, so the
    /// caller repeats it until the configuration names the server.
    Add {
        /// Who.
        server: NodeId,
        /// Its server port.
        address: SocketAddr,
    },
    /// A learner votes from here on.
    Promote(NodeId),
    /// A voter is a learner from here on.
    Demote(NodeId),
    /// A server is no part any more; at once done for one that is none.
    Remove {
        /// Who.
        server: NodeId,
        /// Whether to go on although the rest may have no live quorum (P8).
        force: bool,
    },
}

impl Change {
    /// Whom it is about.
    pub const fn server(&self) -> NodeId {
        match self {
            Self::Add { server, .. }
            | Self::Promote(server)
            | Self::Demote(server)
            | Self::Remove { server, .. } => *server,
        }
    }
}

/// What a snapshot stands for: everything up to a position, all of it committed (raft.md §9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The newest entry it covers.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// That entry's chain value.
    pub chain: u64,
    /// The newest configuration it covers.
    pub configuration: Configuration,
    /// That configuration's position.
    pub configuration_index: LogIndex,
}
pack_struct!(SnapshotMeta { index, term, chain, configuration, configuration_index });

impl SnapshotMeta {
    /// Where the log goes on behind it.
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term, chain: self.chain }
    }
}

/// The durable part of a server's vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term adopted.
    pub term: Term,
    /// The vote in that term.
    pub voted_for: Option<NodeId>,
}

/// Changes to the identity file; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityChange {
    /// The cluster this store belongs to from here on.
    pub cluster: Option<ClusterId>,
    /// The promise this blank server gives (`raft::bootstrap`).
    pub promise: Option<Bytes>,
    /// The largest heartbeat timeout this store was run with.
    pub heartbeat_timeout: Option<Duration>,
    /// Whether this server holds again what its disk had lost (`raft::recovering`).
    pub recovered: bool,
}

/// What to make durable, in this order: identity, hard state, reset, truncation, entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistBatch {
    /// Changes to the identity file.
    pub identity: IdentityChange,
    /// A new hard state.
    pub hard: Option<HardState>,
    /// Forget the whole log; it goes on after this position, which a durable snapshot covers.
    pub reset: Option<LogIndex>,
    /// Forget entries from here on.
    pub truncate_from: Option<LogIndex>,
    /// Append these.
    pub entries: Vec<Entry>,
}

/// What storage recovered of a server's consensus state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredRaft {
    /// This data directory.
    pub store: StoreId,
    /// The cluster, once known.
    pub cluster: Option<ClusterId>,
    /// The newest promise of this blank server (`raft::bootstrap`), if any.
    pub promise: Option<Bytes>,
    /// Term and vote.
    pub hard: HardState,
    /// The newest usable snapshot; the catalog was restored from it.
    pub snapshot: Option<SnapshotMeta>,
    /// The log: consecutive, without a gap behind the snapshot, or from index 1 on without one.
    pub entries: Vec<Entry>,
    /// The largest heartbeat timeout of earlier runs; sets the vote embargo.
    pub heartbeat_timeout: Duration,
    /// The term in which a part of the log was found lost; set until this server holds it again.
    pub recovering: Option<Term>,
}

/// One proposal that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// One read that somebody waits for; no two reads of a run share a number, also not when one is
/// tried again (raft.md R7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// One request to hand leadership over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(pub u64);

impl TransferId {
    /// The one that the leave of this server asks for; there is at most one.
    pub const OF_LEAVE: Self = Self(0);
}

/// Number of a persist request; completions come in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistSeq(pub u64);

/// Why a proposal was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// Not the leader; not appended, safe to retry.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over; not appended, safe to retry.
    #[error("leadership is being handed over")]
    HandingOver,
    /// Nobody answered at the address to add; not appended, safe to retry.
    #[error("the server to add does not answer")]
    Unreachable,
    /// Leadership was lost after it was appended: the outcome is unknown.
    #[error("leadership was lost before the outcome was known")]
    LeadershipLost,
    /// A queue is full; not appended.
    #[error("too many unfinished writes")]
    Overloaded,
    /// This server's disk is full, or those of a majority are; not appended.
    #[error("no space left for the log: writes are refused until the disk has room again")]
    DiskFull,
    /// The command is too large for an entry; not appended.
    #[error("the command has {bytes} bytes, at most {ENTRY_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A configuration change broke rule P1 to P8 (raft.md §10.2); not appended.
    #[error("configuration change refused: {0}")]
    Refused(&'static str),
}

/// Why a read was not confirmed. It changed nothing, so it may be tried again anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not the leader, or no longer.
    #[error("not the leader")]
    NotLeader,
    /// Too many reads wait.
    #[error("too many unfinished reads")]
    Overloaded,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Not the leader.
    #[error("not the leader")]
    NotLeader,
    /// Nobody else votes and answers, or not the one that was named.
    #[error("there is no other voter that answers")]
    NoTarget,
    /// The target does not campaign.
    #[error("the server does not campaign: {0}")]
    Rejected(Unfit),
    /// Nobody was elected within an election timeout.
    #[error("nobody was elected in time")]
    TimedOut,
    /// Another transfer, or the removal of a server it concerns, came in between.
    #[error("something else came in between")]
    Aborted,
}
