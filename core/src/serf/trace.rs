//! What the Serf machine tells about itself.
//!
//! The wording of member events and reconnects is Serf's, since people search logs for it.

use super::request::SerfRefusal;
use crate::coordinate::RoundTripTooLong;
use crate::id::{LamportTime, NodeName};
use crate::storage::op::FilePath;
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
        /// What the message is about.
        about: String,
        /// The time.
        time: LamportTime,
    },
    /// A member announced its leave long ago and still answers.
    LeavingTooLong {
        /// Who.
        name: NodeName,
    },
    /// A user event is new here.
    UserEvent {
        /// What it is about.
        name: String,
        /// Its time.
        time: LamportTime,
    },
    /// A user event of another member is larger than any may be.
    EventTooLarge {
        /// Bytes of its name and content.
        bytes: usize,
    },
    /// An answer has no room beside the others.
    AnswerWithoutRoom {
        /// Whose.
        from: NodeName,
    },
    /// A message for somebody else is too large, or says no port.
    NotPassedOn {
        /// Its bytes.
        bytes: usize,
    },
    /// The outcome of a key operation could not be told.
    NotAnswered {
        /// Why.
        refusal: SerfRefusal,
    },
    /// The others could not be asked whose this member's name is.
    ConflictNotResolved {
        /// Why.
        refusal: SerfRefusal,
    },
    /// Most members know another member of this name.
    ConflictLost {
        /// The name.
        name: NodeName,
        /// Members that know this one.
        matching: usize,
        /// Members that answered.
        total: usize,
    },
    /// Most members know this one, or none answered.
    ConflictWon {
        /// The name.
        name: NodeName,
        /// Members that know this one.
        matching: usize,
        /// Members that answered.
        total: usize,
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
    SnapshotFailed {
        /// Its file.
        file: FilePath,
    },
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
            Self::TimeTooFar { about, time } => {
                write!(f, "time {time} in a message about {about} is too far ahead")
            }
            Self::LeavingTooLong { name } => {
                write!(f, "{name} is alive although it was to leave: its leave is over")
            }
            Self::UserEvent { name, time } => write!(f, "user event {name} at time {time}"),
            Self::EventTooLarge { bytes } => {
                write!(f, "a user event of {bytes} bytes is too large: dropped")
            }
            Self::AnswerWithoutRoom { from } => {
                write!(f, "a query has no room for the answer of {from}")
            }
            Self::NotPassedOn { bytes } => {
                write!(f, "a message of {bytes} bytes for another member is not passed on")
            }
            Self::NotAnswered { refusal } => {
                write!(f, "a key operation goes unanswered: {refusal}")
            }
            Self::ConflictNotResolved { refusal } => {
                write!(f, "Failed to start name resolution query: {refusal}")
            }
            Self::ConflictLost { name, matching, total } => write!(
                f,
                "minority in name conflict resolution for {name}, quitting [{matching} / {total}]"
            ),
            Self::ConflictWon { name, matching, total } => {
                write!(f, "majority in name conflict resolution for {name} [{matching} / {total}]")
            }
            Self::TooManyMembers { name } => {
                write!(f, "too many members are known to take note of {name}")
            }
            Self::LeaveTimeout { step } => {
                write!(f, "timeout while waiting for the {step} to spread, going on")
            }
            Self::SnapshotFailed { file } => write!(f, "failed to write {file}, trying later"),
        }
    }
}
