//! What the node as a whole tells about itself.

use super::member_lines::WINDOW;
use crate::id::Datacenter;
use crate::storage::op::FilePath;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One event of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeTrace {
    /// A server was seen through gossip.
    AddingServer {
        /// Its datacenter.
        datacenter: Datacenter,
        /// Its server port.
        address: SocketAddr,
    },
    /// A server is gone from gossip.
    RemovingServer {
        /// Its datacenter.
        datacenter: Datacenter,
        /// Its server port.
        address: SocketAddr,
    },
    /// Servers of this datacenter that the WAN pool lacks are joined there.
    Flooding {
        /// How many.
        count: usize,
    },
    /// This server leads.
    LeadershipAcquired,
    /// This server led and does not any more.
    LeadershipLost,
    /// A leader is known.
    NewLeader(String),
    /// Recovery dealt with something unusual.
    Recovered(String),
    /// A member of another datacenter, or without a role, is in the pool.
    ForeignMember {
        /// Its name.
        name: String,
        /// What it says its datacenter is.
        datacenter: String,
    },
    /// What a leader sent as a snapshot is none.
    SnapshotRefused(String),
    /// Lines about members beyond those that were told as they are, by kind.
    MemberLines(Vec<(&'static str, u64)>),
    /// The agent leaves the cluster.
    Leaving,
    /// The agent stops without leaving, and why.
    NotLeaving(String),
    /// A leave step took too long and was passed over.
    LeaveStep(&'static str),
    /// It left the pools, and answers for that long what is on its way.
    Draining(Duration),
    /// This server is not in the configuration any more.
    Removed,
    /// Something that was to be written is lost.
    WriteFailed {
        /// Which file.
        file: FilePath,
        /// Why.
        error: String,
    },
    /// Most servers of other datacenters know another agent by this server's name.
    WanNameTaken {
        /// Members that know this one.
        matching: usize,
        /// Members that answered.
        total: usize,
    },
    /// A datacenter could not be asked for what a prepared query wants.
    FailoverFailed {
        /// Which.
        datacenter: Datacenter,
        /// Why.
        error: String,
    },
    /// The node cannot go on.
    Fatal(String),
    /// An entry of the log could not be read; every server passes over it alike.
    UnreadableEntry(String),
    /// The disk has no space for more of the log.
    LogFull,
    /// It has again.
    LogHasRoom,
    /// No space could be set aside for the next snapshot and the next start.
    Unreserved,
    /// A snapshot could not be stored for want of space.
    NoRoomForSnapshot,
    /// A message from a server was refused.
    BadMessage {
        /// What it was.
        what: &'static str,
        /// The rule it breaks.
        error: String,
    },
}

impl fmt::Display for NodeTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddingServer { datacenter, address } => {
                write!(f, "adding server for datacenter: {datacenter}, addr: {address}")
            }
            Self::RemovingServer { datacenter, address } => {
                write!(f, "removing server for datacenter: {datacenter}, addr: {address}")
            }
            Self::Flooding { count } => {
                write!(f, "joining {count} servers of this datacenter in the WAN pool")
            }
            Self::LeadershipAcquired => f.write_str("cluster leadership acquired"),
            Self::LeadershipLost => f.write_str("cluster leadership lost"),
            Self::NewLeader(name) => write!(f, "New leader elected: {name}"),
            Self::Recovered(note) => f.write_str(note),
            Self::ForeignMember { name, datacenter } => {
                write!(f, "member '{name}' part of wrong datacenter '{datacenter}'")
            }
            Self::SnapshotRefused(error) => write!(f, "received snapshot refused: {error}"),
            Self::Leaving => f.write_str("leaving the cluster"),
            Self::NotLeaving(why) => write!(f, "stopping without leaving: {why}"),
            Self::Draining(time) => write!(f, "waiting {time:?} for requests on their way"),
            Self::LeaveStep(step) => write!(f, "leave goes on without {step}: it took too long"),
            Self::Removed => f.write_str("removed from the configuration"),
            Self::WriteFailed { file, error } => write!(f, "writing {file} failed: {error}"),
            Self::WanNameTaken { matching, total } => write!(
                f,
                "another server of the WAN pool has this server's name and datacenter: {matching} \
                 of {total} members know this one, so requests of other datacenters may go to the \
                 other; give one of the two datacenters another name with -datacenter"
            ),
            Self::FailoverFailed { datacenter, error } => {
                write!(f, "a prepared query could not ask datacenter {datacenter}: {error}")
            }
            Self::MemberLines(left_out) => {
                let time = WINDOW.as_secs();
                write!(f, "lines about members left out in {time}s, which DEBUG has:")?;
                let mut before = "";
                left_out.iter().try_for_each(|(kind, count)| {
                    write!(f, "{} {count} {kind}", std::mem::replace(&mut before, ","))
                })
            }
            Self::Fatal(rule) => write!(f, "cannot go on: {rule}"),
            Self::UnreadableEntry(error) => write!(f, "log entry passed over: {error}"),
            Self::LogFull => f.write_str(
                "the disk is full: this server takes no writes until there is space for the log \
                 in raft/wal; reads go on",
            ),
            Self::LogHasRoom => f.write_str("the disk has space again: writes are taken"),
            Self::Unreserved => f.write_str(
                "no space could be set aside on the disk: should it fill up, snapshots and the \
                 next start may fail",
            ),
            Self::NoRoomForSnapshot => f.write_str(
                "the disk has no space for a snapshot: it is given up and tried again later",
            ),
            Self::BadMessage { what, error } => write!(f, "{what} message refused: {error}"),
        }
    }
}
