//! What requests between agents tell about themselves.

use super::RequestRate;
use crate::wire::DecodeError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Why this node closed a stream on the server port: the rule the other side broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseRule {
    /// Bytes that are no frame.
    Malformed(DecodeError),
    /// A frame before the hello, or a second hello.
    HelloOrder,
    /// No hello in time.
    HelloLate,
    /// No protocol version in common.
    Version {
        /// The lowest it speaks.
        min: u8,
        /// The highest it speaks.
        max: u8,
    },
    /// It belongs to another datacenter.
    Datacenter(String),
    /// It announced another lane than the stream was opened for.
    Lane,
    /// It claims this node's own identity.
    OwnIdentity,
    /// A frame that only a server takes reached a client, or a lane that does not carry it.
    Misplaced,
    /// It stopped answering.
    Silent,
}

impl CloseRule {
    /// A number for each kind of rule, by which repeated traces are held back.
    pub(crate) const fn kind(&self) -> u8 {
        match self {
            Self::Malformed(_) => 0,
            Self::HelloOrder => 1,
            Self::HelloLate => 2,
            Self::Version { .. } => 3,
            Self::Datacenter(_) => 4,
            Self::Lane => 5,
            Self::OwnIdentity => 6,
            Self::Misplaced => 7,
            Self::Silent => 8,
        }
    }
}

impl fmt::Display for CloseRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed frame: {error}"),
            Self::HelloOrder => f.write_str("the hello must come first and once"),
            Self::HelloLate => f.write_str("no hello in time"),
            Self::Version { min, max } => {
                write!(f, "no common protocol version with {min}..={max}")
            }
            Self::Datacenter(name) => write!(f, "it belongs to datacenter {name}"),
            Self::Lane => f.write_str("it announced another lane"),
            Self::OwnIdentity => f.write_str("it claims this node's own identity"),
            Self::Misplaced => f.write_str("a frame that does not belong on this stream"),
            Self::Silent => f.write_str("it stopped answering"),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcTrace {
    /// A stream was closed because the other side broke a rule; told once for each source and rule.
    Refused {
        /// The source.
        peer: IpAddr,
        /// The rule.
        rule: CloseRule,
    },
    /// A server could not be reached; told once until it is reached again.
    Unreachable {
        /// Its server port.
        address: SocketAddr,
    },
    /// A stream to a server broke.
    Broken {
        /// Its server port.
        address: SocketAddr,
    },
    /// A message or request was dropped because a send queue is full.
    QueueFull {
        /// The server port it was for.
        address: SocketAddr,
    },
    /// A request was refused because too many are on their way.
    Overloaded {
        /// How many are.
        pending: usize,
    },
    /// Requests are refused because more were sent than the rate allows; told once a minute.
    RateExceeded {
        /// The rate.
        rate: RequestRate,
    },
    /// The order of servers was drawn again.
    Rebalanced {
        /// The server that gets requests from here on.
        head: SocketAddr,
    },
}

impl fmt::Display for RpcTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { peer, rule } => write!(f, "closed a stream of {peer}: {rule}"),
            Self::Unreachable { address } => write!(f, "cannot reach server {address}"),
            Self::Broken { address } => write!(f, "lost the stream to server {address}"),
            Self::QueueFull { address } => write!(f, "send queue of server {address} is full"),
            Self::Overloaded { pending } => {
                write!(f, "refused a request: {pending} requests are on their way")
            }
            Self::RateExceeded { rate: RequestRate { interval, burst } } => write!(
                f,
                "refused a request to servers: limits.rpc_rate allows one in {interval:?}, \
                 limits.rpc_max_burst {burst} at once"
            ),
            Self::Rebalanced { head } => write!(f, "sending requests to server {head}"),
        }
    }
}
