//! What servers say to each other about consensus (raft.md §3).
//!
//! A message is matched by its header alone before any rule looks at it: cluster, addressee, term.
//! An answer carries the `sent_at` of what it answers, so that the asker can measure its lease
//! from the time of sending (§7.2); nobody else reads that number.

use super::{Entry, Lane, SnapshotMeta};
use crate::id::{ClusterId, LogIndex, NodeId, StoreId, Term};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// What every message says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's cluster; a server that knows none says nothing.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// Its server port, where the answer goes.
    pub address: SocketAddr,
    /// The store it speaks for.
    pub from_store: StoreId,
    /// The addressee.
    pub to: NodeId,
    /// The sender's term, durable at the sender.
    pub term: Term,
    /// In a request, the sender's monotonic nanoseconds; in an answer, the request's.
    pub sent_at: u64,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From whom to whom.
    pub header: Header,
    /// What.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me?
    PreVote(Campaign),
    /// The answer to it.
    PreVoteAnswer {
        /// The term it was asked for.
        campaign_term: Term,
        /// Why not; `None` grants.
        refusal: Option<Refusal>,
    },
    /// Vote for me in the header's term.
    RequestVote(Campaign),
    /// The answer to it.
    VoteAnswer {
        /// Why not; `None` grants.
        refusal: Option<Refusal>,
    },
    /// Entries, or none, after a position.
    Append(Append),
    /// Everything up to the position is durable here and equals the leader's log.
    AppendOk {
        /// The position.
        match_index: LogIndex,
        /// How this server does.
        condition: Condition,
    },
    /// A part of a snapshot, for a server that lacks entries which the leader has no more (§9).
    SnapshotBlock(SnapshotBlock),
    /// So much of a snapshot is stored.
    SnapshotAnswer {
        /// Which, by the number its leader gave it.
        snapshot: u64,
        /// The block that is wanted next.
        next: u64,
    },
    /// The position to append after is not in this log.
    AppendReject(AppendReject),
    /// The leader is alive.
    Heartbeat {
        /// The newest committed entry the receiver is known to hold.
        commit: LogIndex,
        /// Which of the term's broadcasts this is (§7.1).
        round: u64,
    },
    /// The answer to it.
    HeartbeatAnswer {
        /// The heartbeat's round.
        round: u64,
        /// How this server does.
        condition: Condition,
    },
    /// Campaign at once: the leader has no lease any more, and the receiver holds its whole log.
    TimeoutNow {
        /// Counts the transfers of the term.
        transfer: u64,
    },
    /// The answer of a server that does not campaign.
    TransferReject {
        /// The refused transfer.
        transfer: u64,
        /// Why.
        reason: Unfit,
    },
}

impl Body {
    /// Which lane it takes: only entries and their answers may be large or wait for the disk.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Append(_)
            | Self::AppendOk { .. }
            | Self::AppendReject(_)
            | Self::SnapshotBlock(_)
            | Self::SnapshotAnswer { .. } => Lane::Data,
            Self::PreVote(_)
            | Self::PreVoteAnswer { .. }
            | Self::RequestVote(_)
            | Self::VoteAnswer { .. }
            | Self::Heartbeat { .. }
            | Self::HeartbeatAnswer { .. }
            | Self::TimeoutNow { .. }
            | Self::TransferReject { .. } => Lane::Heartbeat,
        }
    }

    /// Whether it asks for something, rather than answers.
    pub const fn is_request(&self) -> bool {
        matches!(
            self,
            Self::PreVote(_)
                | Self::RequestVote(_)
                | Self::Append(_)
                | Self::SnapshotBlock(_)
                | Self::Heartbeat { .. }
                | Self::TimeoutNow { .. }
        )
    }
}

/// What a candidate shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// The term it wants to lead.
    pub term: Term,
    /// Its newest entry.
    pub last_index: LogIndex,
    /// That entry's term.
    pub last_term: Term,
    /// The term before, if its leader permitted this campaign; never in a pre-vote (§8).
    pub transfer_from: Option<Term>,
}

/// How a server does, as it tells its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The newest entry applied there.
    pub applied: LogIndex,
    /// How long it sticks to a leader it hears.
    pub patience: Duration,
    /// Why it should not lead, if so.
    pub unfit: Option<Unfit>,
}

/// Why a server should not lead: it does not campaign even if its leader permits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It does not vote.
    #[error("it is not a voter")]
    NotVoter,
    /// Its disk does not answer.
    #[error("its disk does not answer")]
    DiskStalled,
    /// It lost a part of its log.
    #[error("it recovers what its disk lost")]
    Recovering,
    /// Its disk is full: it takes no entries.
    #[error("its disk is full")]
    DiskFull,
}

/// Why a vote was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A leader of the voter's term was heard of recently (§4.4).
    LeaderAlive,
    /// The voter restarted recently; ask again after this time (§4.6).
    Embargo(Duration),
    /// The term is over, or the vote in it is given.
    Term,
    /// The voter's log is more complete.
    Log,
    /// The voter lost a part of its log.
    Recovering,
}

/// The leader's entries after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The position before the first entry.
    pub prev_index: LogIndex,
    /// Its term.
    pub prev_term: Term,
    /// Its chain value.
    pub prev_chain: u64,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// Consecutive entries from `prev_index + 1` on.
    pub entries: Vec<Entry>,
}

/// A part of a snapshot. It is installed once the last one is stored; the answer to that is an
/// `AppendOk` for its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotBlock {
    /// The leader's number of the snapshot, never used again in its run.
    pub snapshot: u64,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// Which block, from 0 on.
    pub number: u64,
    /// Its bytes; whoever applies entries can read them.
    pub data: Bytes,
    /// Whether it is the last one.
    pub last: bool,
}

/// Where a follower's log may agree with the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReject {
    /// The refused position.
    pub prev_index: LogIndex,
    /// The newest entry here, not after `prev_index`, whose term is not above the refused one.
    pub hint_index: LogIndex,
    /// Its term.
    pub hint_term: Term,
}
