//! What the Serf machine tells about itself.
//!
//! The wording of member events and reconnects is Serf's, since people search logs for it.

use crate::coordinate::RoundTripTooLong;
use crate::id::{LamportTime, NodeName};
use crate::wire::DecodeError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One event of the Serf layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfTrace {
    /// A member is new or back.
    MemberJoin {
        /// Who.
        name: NodeName,
        /// Where.
        ip: IpAddr,
    },
    /// A member left on purpose.
    MemberLeave {
        /// Who.
        name: NodeName,
        /// Where it was.
        ip: IpAddr,
    },
    /// A member stopped answering.
    MemberFailed {
        /// Who.
        name: NodeName,
        /// Where it was.
        ip: IpAddr,
    },
    /// A member's tags, address or versions changed.
    MemberUpdate {
        /// Who.
        name: NodeName,
    },
    /// A member is forgotten.
    MemberReap {
        /// Who.
        name: NodeName,
    },
    /// A failed member is tried again.
    Reconnecting {
        /// Who.
        name: NodeName,
        /// Where.
        address: SocketAddr,
    },
    /// A member of an earlier run is tried.
    Rejoining {
        /// Who.
        name: NodeName,
        /// Where.
        address: SocketAddr,
    },
    /// No member of an earlier run answered.
    RejoinFailed,
    /// Somebody says that this member leaves, which it does not.
    RefutingLeave {
        /// The time of that intent.
        time: LamportTime,
    },
    /// A message of a kind that has no meaning here.
    NotHandled {
        /// Its type byte.
        kind: u8,
    },
    /// A message is not well-formed.
    Malformed {
        /// Why.
        error: DecodeError,
    },
    /// A member's meta holds no tags.
    BadTags {
        /// Whose.
        name: NodeName,
        /// Why.
        error: DecodeError,
    },
    /// A member does not say where it is, or says it badly.
    BadCoordinate {
        /// Who.
        name: NodeName,
        /// Why.
        error: DecodeError,
    },
    /// A member answered a probe too late to say where it is.
    BadRoundTrip {
        /// Who.
        name: NodeName,
        /// Why.
        error: RoundTripTooLong,
    },
    /// A Lamport time is too far ahead to be believed.
    TimeTooFar {
        /// Whom the message is about.
        name: NodeName,
        /// The time.
        time: LamportTime,
    },
    /// This member's own tags are too long to be told.
    TagsRefused {
        /// Bytes they take.
        bytes: usize,
    },
    /// A member announced its leave long ago and still answers.
    LeavingTooLong {
        /// Who.
        name: NodeName,
    },
    /// Too many members are known to take note of another.
    TooManyMembers {
        /// The one that has no room.
        name: NodeName,
    },
    /// A step of the leave was not confirmed in time; the next one begins.
    LeaveTimeout {
        /// Which.
        step: &'static str,
    },
    /// The snapshot could not be written; it is written anew later.
    SnapshotFailed,
}

impl fmt::Display for SerfTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemberJoin { name, ip } => write!(f, "EventMemberJoin: {name} {ip}"),
            Self::MemberLeave { name, ip } => write!(f, "EventMemberLeave: {name} {ip}"),
            Self::MemberFailed { name, ip } => write!(f, "EventMemberFailed: {name} {ip}"),
            Self::MemberUpdate { name } => write!(f, "EventMemberUpdate: {name}"),
            Self::MemberReap { name } => write!(f, "EventMemberReap: {name}"),
            Self::Reconnecting { name, address } => {
                write!(f, "attempting reconnect to {name} {address}")
            }
            Self::Rejoining { name, address } => {
                write!(f, "Attempting re-join to previously known node: {name}: {address}")
            }
            Self::RejoinFailed => f.write_str("Failed to re-join any previously known node"),
            Self::RefutingLeave { time } => write!(f, "Refuting a leave intent at time {time}"),
            Self::NotHandled { kind } => {
                write!(f, "a message of kind {kind} is not handled and not spread")
            }
            Self::Malformed { error } => write!(f, "a message was dropped: {error}"),
            Self::BadTags { name, error } => write!(f, "the tags of {name} are ignored: {error}"),
            Self::BadCoordinate { name, error } => {
                write!(f, "the coordinate of {name} is ignored: {error}")
            }
            Self::BadRoundTrip { name, error } => {
                write!(f, "the coordinate of {name} is ignored: {error}")
            }
            Self::TimeTooFar { name, time } => {
                write!(f, "time {time} in a message about {name} is too far ahead")
            }
            Self::TagsRefused { bytes } => {
                write!(f, "the tags take {bytes} bytes, more than the limit: not changed")
            }
            Self::LeavingTooLong { name } => {
                write!(f, "{name} is alive although it was to leave: its leave is over")
            }
            Self::TooManyMembers { name } => {
                write!(f, "too many members are known to take note of {name}")
            }
            Self::LeaveTimeout { step } => {
                write!(f, "timeout while waiting for the {step} to spread, going on")
            }
            Self::SnapshotFailed => f.write_str("failed to write local.snapshot, trying later"),
        }
    }
}
