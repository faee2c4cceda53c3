//! What consensus tells about itself.

use super::{Refusal, RoleKind, TransferError};
use crate::id::{ClusterId, LogIndex, NodeId, Term};
use std::fmt;
use std::net::SocketAddr;

/// One event of consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftTrace {
    /// The server takes a role.
    Entering {
        /// The server's own address.
        address: SocketAddr,
        /// The role.
        role: RoleKind,
    },
    /// A follower has waited long enough for a leader.
    HeartbeatTimeout,
    /// A candidate has waited long enough for votes.
    ElectionTimeout,
    /// A candidate has the votes of a quorum.
    ElectionWon {
        /// How many.
        tally: usize,
    },
    /// The wait for a leader is over, but this server must not campaign.
    NotPromotable {
        /// Why.
        reason: &'static str,
    },
    /// A vote was asked of this server.
    VoteAsked {
        /// By whom.
        candidate: NodeId,
        /// For which term.
        term: Term,
        /// Whether this was only the question before.
        pre: bool,
        /// Why it was refused; `None` if granted.
        refusal: Option<Refusal>,
    },
    /// A leader steps down.
    SteppedDown {
        /// The term it led.
        term: Term,
        /// Why.
        reason: &'static str,
    },
    /// A leader begins to hand over.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// A leader goes on to lead, since nobody took over.
    TransferFailed {
        /// Who should have.
        to: NodeId,
        /// Why not.
        error: TransferError,
    },
    /// The leader wants this server to take over.
    HandedOver {
        /// The leader.
        by: NodeId,
    },
    /// Too few voters answer for an election, again and again.
    NoQuorum(NoQuorum),
    /// A configuration was appended, or a truncation brought an older one back.
    Configuration {
        /// Its entry.
        index: LogIndex,
        /// The voters' addresses.
        voters: Vec<SocketAddr>,
        /// The learners' addresses.
        learners: Vec<SocketAddr>,
    },
    /// A committed configuration does not name this server any more.
    Removed,
    /// This server lost a part of its log and is started to recover it.
    Recovering {
        /// The term in which that was found.
        term: Term,
    },
    /// It holds again what it lost.
    Recovered {
        /// The newest entry that it holds and knows to be committed.
        last: LogIndex,
    },
    /// A snapshot of what is applied is being stored.
    TakingSnapshot {
        /// The newest entry it covers.
        index: LogIndex,
    },
    /// A snapshot is durable.
    SnapshotTaken {
        /// The newest entry it covers.
        index: LogIndex,
        /// Its bytes.
        bytes: u64,
    },
    /// A server lacks entries that are not kept any more, and gets a snapshot.
    SendingSnapshot {
        /// Who.
        to: NodeId,
        /// The newest entry it covers.
        index: LogIndex,
    },
    /// A leader sends a snapshot.
    ReceivingSnapshot {
        /// Who.
        from: NodeId,
        /// The newest entry it covers.
        index: LogIndex,
    },
    /// A snapshot took the place of the log.
    SnapshotInstalled {
        /// The newest entry it covers.
        index: LogIndex,
    },
    /// Entries of an older leader were dropped.
    Truncated {
        /// The first one.
        from: LogIndex,
    },
    /// A message of another cluster was refused; told once for each sender.
    ForeignCluster {
        /// The sender.
        from: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// This server's, by membership or by promise.
        ours: ClusterId,
    },
    /// A voter speaks for another store than its configuration names, so it does not count;
    /// told once for each sender.
    WrongStore {
        /// The sender.
        from: NodeId,
    },
    /// This blank server joins the cluster that contacted it.
    JoinedCluster {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A server's log does not continue where the leader thought.
    ProbeRejected {
        /// The server.
        peer: NodeId,
        /// Where the leader looks next.
        next: LogIndex,
    },
}

impl fmt::Display for RaftTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entering { address, role } => {
                write!(f, "Node at {address} [{role}] entering {role} state")
            }
            Self::HeartbeatTimeout => f.write_str("Heartbeat timeout reached, starting election"),
            Self::ElectionTimeout => f.write_str("Election timeout reached, restarting election"),
            Self::ElectionWon { tally } => write!(f, "Election won. Tally: {tally}"),
            Self::NotPromotable { reason } => {
                write!(f, "Heartbeat timeout reached, not starting an election: {reason}")
            }
            Self::VoteAsked { candidate, term, pre, refusal } => {
                let kind = if *pre { "Pre-vote" } else { "Vote" };
                match refusal {
                    None => write!(f, "{kind} granted: candidate={candidate} term={term}"),
                    Some(why) => {
                        write!(f, "{kind} refused: candidate={candidate} term={term} why={why:?}")
                    }
                }
            }
            Self::SteppedDown { term, reason } => {
                write!(f, "Stepping down as leader of term {term}: {reason}")
            }
            Self::Transferring { to } => write!(f, "Handing leadership over: to={to}"),
            Self::TransferFailed { to, error } => {
                write!(f, "Leadership was not handed over: to={to} error=\"{error}\"")
            }
            Self::HandedOver { by } => {
                write!(f, "The leader hands over, starting election: leader={by}")
            }
            Self::NoQuorum(told) => told.fmt(f),
            Self::Configuration { index, voters, learners } => {
                write!(f, "Configuration: index={index} voters={voters:?} learners={learners:?}")
            }
            Self::Removed => f.write_str("This server was removed from the configuration"),
            Self::Recovering { term } => write!(
                f,
                "A part of this server's log is lost: it does not vote until an entry of a later \
                 term than {term} is committed here"
            ),
            Self::Recovered { last } => {
                write!(f, "This server holds again what its disk lost, and votes: last={last}")
            }
            Self::TakingSnapshot { index } => write!(f, "Taking snapshot: index={index}"),
            Self::SnapshotTaken { index, bytes } => {
                write!(f, "Snapshot complete: index={index} bytes={bytes}")
            }
            Self::SendingSnapshot { to, index } => {
                write!(f, "Sending snapshot: to={to} index={index}")
            }
            Self::ReceivingSnapshot { from, index } => {
                write!(f, "Receiving snapshot: from={from} index={index}")
            }
            Self::SnapshotInstalled { index } => write!(f, "Installed snapshot: index={index}"),
            Self::Truncated { from } => write!(f, "Clearing log suffix from {from}"),
            Self::ForeignCluster { from, theirs, ours } => {
                write!(
                    f,
                    "Refusing messages of another cluster: from={from} theirs={theirs} ours={ours}"
                )
            }
            Self::WrongStore { from } => write!(
                f,
                "A voter speaks for another data directory, it does not count: from={from}"
            ),
            Self::JoinedCluster { cluster } => write!(f, "Joining cluster {cluster}"),
            Self::ProbeRejected { peer, next } => {
                write!(f, "Append rejected, looking further back: peer={peer} next={next}")
            }
        }
    }
}

/// Who does not answer, and what to do if it never will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoQuorum {
    /// This server.
    pub own: NodeId,
    /// Its server port.
    pub address: SocketAddr,
    /// How many voters there are.
    pub voters: usize,
    /// Those that do not answer.
    pub silent: Vec<(NodeId, SocketAddr)>,
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, address, voters, silent } = self;
        let answering = voters.saturating_sub(silent.len());
        write!(f, "No quorum, so nobody can lead: {answering} of {voters} voters answer; ")?;
        for (place, (id, address)) in silent.iter().enumerate() {
            let gap = if place == 0 { "" } else { ", " };
            write!(f, "{gap}{address} ({id})")?;
        }
        write!(
            f,
            " do not. Start them again. Only if they are lost for good, stop the servers \
             that are left and start the one with the highest last_log_index (terraform \
             info) with a new cluster's file in its data directory; if it is this one: \
             echo '[{{\"id\": \"{own}\", \"address\": \"{address}\"}}]' > raft/peers.json"
        )
    }
}
