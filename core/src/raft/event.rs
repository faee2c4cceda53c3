//! What the consensus machine is told and what it wants done (raft.md §2.1).

use super::{
    Change, Configuration, Entry, ImageId, Message, PersistBatch, PersistSeq, ProposalError,
    ProposalId, RaftTrace, ReadError, ReadId, ReceiptId, SnapshotMeta, TransferError, TransferId,
};
use crate::id::{ClusterId, LogIndex, NodeId, Term};
use crate::trace::Level;
use crate::wire::rpc::Lane;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;

/// What the Raft machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftInput {
    /// A message arrived from another server, in any order and any number of times.
    Receive(Message),
    /// Append a command; answered by `ProposalApplied` or `ProposalFailed`.
    Propose {
        /// The answer names it.
        id: ProposalId,
        /// The command's bytes.
        payload: Bytes,
    },
    /// Confirm a read; answered by `ReadReady` or `ReadFailed`.
    Read {
        /// The answer names it.
        id: ReadId,
    },
    /// Hand leadership over; answered by `TransferEnded`.
    Transfer {
        /// The answer names it.
        id: TransferId,
        /// To whom; `None` for whoever is fit for it best.
        to: Option<NodeId>,
    },
    /// Change the configuration; answered like a proposal.
    Change {
        /// The answer names it.
        id: ProposalId,
        /// How.
        change: Change,
    },
    /// Everything up to this persist request is durable.
    PersistDone {
        /// The request.
        seq: PersistSeq,
    },
    /// The catalog holds everything up to here; fed back after each `Apply`.
    Applied {
        /// The last entry applied.
        index: LogIndex,
    },
    /// About snapshots.
    Snapshot(SnapshotInput),
    /// The transport lost its connection to a server.
    PeerUnreachable {
        /// Who.
        peer: NodeId,
    },
    /// The bootstrap machine decided the first configuration.
    Bootstrapped {
        /// The cluster's identity.
        cluster: ClusterId,
        /// The first configuration; it names this server.
        configuration: Configuration,
    },
    /// The only cluster this blank server may join, as it promised; `None` for any.
    Bound {
        /// The cluster.
        cluster: Option<ClusterId>,
    },
    /// Whether the disk has no space for more of the log than what is asked for already. It is
    /// taken to have some at the start.
    LogFull(bool),
}

/// What the Raft machine is told about snapshots (raft.md §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotInput {
    /// The snapshot that was to be taken is durable.
    Taken {
        /// The newest entry it covers.
        index: LogIndex,
        /// Its bytes.
        bytes: u64,
    },
    /// The block that was asked for.
    Block {
        /// Of which image.
        image: ImageId,
        /// Its bytes.
        data: Bytes,
        /// Whether it is the image's last one.
        last: bool,
    },
    /// A block received is written; not necessarily durable.
    Stored {
        /// Of which receipt.
        receipt: ReceiptId,
        /// Which block.
        number: u64,
    },
    /// Everything received is what a snapshot is, and durable as one.
    Durable {
        /// Which.
        receipt: ReceiptId,
    },
    /// What was received is no snapshot; nothing of it is kept.
    Refused {
        /// Which.
        receipt: ReceiptId,
    },
    /// The disk has no space for a snapshot; nothing of it is kept.
    NoRoom {
        /// Which receipt; `None` for the one that was to be taken.
        receipt: Option<ReceiptId>,
    },
}

/// What the Raft machine wants done about snapshots (raft.md §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutput {
    /// Store a snapshot of what is applied; answered by `Taken` or `NoRoom`. At most one is
    /// outstanding.
    Take {
        /// What it stands for.
        meta: SnapshotMeta,
    },
    /// Set what is applied aside as an image.
    Open {
        /// Its name from here on.
        image: ImageId,
    },
    /// Hand out the next block of an image; answered by `Block`.
    Read {
        /// Which.
        image: ImageId,
    },
    /// Forget an image.
    Close {
        /// Which.
        image: ImageId,
    },
    /// Store a block that arrived; answered by `Stored`, the last one by `Durable`, or at any
    /// block by `Refused` or `NoRoom`.
    Receive {
        /// Which receipt; block 0 begins it.
        receipt: ReceiptId,
        /// What the snapshot stands for.
        meta: SnapshotMeta,
        /// Which block, each once and in order.
        number: u64,
        /// Its bytes.
        data: Bytes,
        /// Whether it is the last one.
        last: bool,
    },
    /// Forget a receipt, and its file.
    Drop {
        /// Which.
        receipt: ReceiptId,
    },
    /// What was received is what is applied from here on.
    Install {
        /// Which.
        receipt: ReceiptId,
    },
}

/// What a server is in its term, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// It follows, or waits for a leader.
    Follower,
    /// It asks for votes, or asks whether asking would be of use.
    Candidate,
    /// It leads.
    Leader,
}

impl RoleKind {
    /// The word in log lines and in views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follower => "Follower",
            Self::Candidate => "Candidate",
            Self::Leader => "Leader",
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the Raft machine wants. Sends are already released by durability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftOutput {
    /// Make this durable; answered by `PersistDone`. At most one is outstanding.
    Persist {
        /// The completion names it.
        seq: PersistSeq,
        /// What.
        batch: PersistBatch,
    },
    /// Send a message; it may be lost.
    Send {
        /// Who.
        to: NodeId,
        /// Where.
        address: SocketAddr,
        /// How.
        lane: Lane,
        /// What.
        message: Message,
    },
    /// These entries are committed and durable here: apply them in order, then feed `Applied`.
    Apply {
        /// The entries, consecutive, each exactly once in a run.
        entries: Vec<Entry>,
    },
    /// About snapshots.
    Snapshot(SnapshotOutput),
    /// The proposal is committed and applied here.
    ProposalApplied {
        /// Which.
        id: ProposalId,
        /// Its entry.
        index: LogIndex,
    },
    /// The proposal was not done, or its outcome is unknown; the error tells which.
    ProposalFailed {
        /// Which.
        id: ProposalId,
        /// Why.
        error: ProposalError,
    },
    /// This server led after the read came, and what it has applied holds every write acknowledged
    /// before: answer the read now.
    ReadReady {
        /// Which.
        id: ReadId,
    },
    /// The read was not confirmed.
    ReadFailed {
        /// Which.
        id: ReadId,
        /// Why.
        error: ReadError,
    },
    /// A transfer is over: this server does not lead any more, or it goes on to lead.
    TransferEnded {
        /// Which.
        id: TransferId,
        /// Why it still leads, if so.
        result: Result<(), TransferError>,
    },
    /// Role, term or leader changed; the last output of its call but for traces.
    RoleChanged {
        /// What this server is.
        role: RoleKind,
        /// The term.
        term: Term,
        /// Who leads it, if known, and where.
        leader: Option<(NodeId, SocketAddr)>,
    },
    /// This server leads and has applied everything committed before its term: leader duties
    /// begin.
    LeaderReady {
        /// The term.
        term: Term,
    },
    /// This server led and does not any more: leader duties end.
    LeadershipLost {
        /// The term that ended.
        term: Term,
    },
    /// The newest configuration changed; not necessarily committed.
    ConfigurationChanged {
        /// Its entry.
        index: LogIndex,
        /// The whole value.
        configuration: Configuration,
    },
    /// The store belongs to this cluster from here on; the bootstrap machine stops.
    ClusterKnown {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A committed configuration does not name this server any more.
    Removed,
    /// A rule is broken and the server must not go on; the text names the rule. Nothing follows.
    Fatal(String),
    /// Something worth telling.
    Trace(Level, RaftTrace),
}

impl From<(Level, RaftTrace)> for RaftOutput {
    fn from((level, trace): (Level, RaftTrace)) -> Self {
        Self::Trace(level, trace)
    }
}
