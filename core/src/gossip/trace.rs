//! What the membership machine tells about itself.
//!
//! The wording of accusations, refutations and conflicts is memberlist's, since people search logs
//! for it.

use super::Refusal;
use super::keyring::{KeyringError, keyring_file};
use super::state::word;
use crate::id::{Incarnation, NodeName, PoolName};
use crate::wire::DecodeError;
use crate::wire::gossip::PeerState;
use crate::wire::seal::KeyId;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a datagram, or a part of one, had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It is not well-formed.
    Malformed(DecodeError),
    /// Its outer layers do not come off: another label, another key, or none.
    Closed(DecodeError),
    /// A ping meant for another member.
    NotMe(NodeName),
    /// Versions that contradict themselves, or none at all.
    Versions(NodeName),
    /// An incarnation too far ahead of the one known.
    Incarnation(NodeName),
    /// Too many members are known.
    TooManyMembers(NodeName),
    /// Too many indirect pings are on their way.
    TooManyRelays,
    /// Too many streams, or bytes on them, are being served: for its address or for all.
    TooManyStreams,
    /// It is about a member that may not be in this pool.
    Refused(Refusal),
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) | Self::Closed(error) => error.fmt(f),
            Self::NotMe(name) => write!(f, "ping is meant for {name}"),
            Self::Versions(name) => write!(f, "versions of {name} are missing or contradictory"),
            Self::Incarnation(name) => write!(f, "incarnation of {name} is too far ahead"),
            Self::TooManyMembers(name) => write!(f, "too many members are known to add {name}"),
            Self::TooManyStreams => {
                f.write_str("Too many pending push/pull requests, its stream is closed")
            }
            Self::TooManyRelays => f.write_str("too many indirect pings are on their way"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

/// How a member answers that leaves direct pings unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over a stream.
    Stream,
    /// To a helper, which passes the answer on.
    Helper,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "over TCP",
            Self::Helper => "through other members",
        })
    }
}

/// One event of the membership protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipTrace {
    /// A message to one member could not be sent.
    MessageFailed {
        /// Where to.
        peer: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The state believed of a member changed.
    State {
        /// Who.
        name: NodeName,
        /// What it is believed to be.
        state: PeerState,
        /// At which incarnation.
        incarnation: Incarnation,
        /// Who accused it, if somebody did.
        accuser: Option<NodeName>,
    },
    /// A probe got no answer.
    NoAck {
        /// Who was probed.
        name: NodeName,
    },
    /// A suspicion ran out.
    SuspicionExpired {
        /// Who was suspected.
        name: NodeName,
        /// Independent accusers beside the first.
        confirmations: u32,
    },
    /// Somebody took this member for suspect or dead.
    Refuting {
        /// What it was taken for.
        accusation: PeerState,
        /// By whom.
        from: NodeName,
        /// The incarnation that refutes it.
        incarnation: Incarnation,
    },
    /// Somebody spread an outdated record of this member.
    RefutingAlive {
        /// This member.
        name: NodeName,
        /// The address in that record.
        address: SocketAddr,
        /// The incarnation that refutes it.
        incarnation: Incarnation,
    },
    /// Another address claims a known name.
    Conflict {
        /// The name.
        name: NodeName,
        /// The address known.
        mine: SocketAddr,
        /// The address that claims it.
        theirs: SocketAddr,
        /// What is believed of the member known.
        state: PeerState,
    },
    /// A member answers over a stream, but not to datagrams.
    OnlyStream {
        /// Who.
        name: NodeName,
    },
    /// Datagrams get lost between this member and one that is alive, in one direction at least.
    OneWay {
        /// Who.
        name: NodeName,
        /// Where it is.
        address: SocketAddr,
        /// How it answers all the same.
        way: Way,
        /// For how long no datagram of it has arrived; `None` if they do arrive.
        silent: Option<Duration>,
    },
    /// A message had no effect; told once for each source and reason.
    Dropped {
        /// Its source.
        from: SocketAddr,
        /// Why.
        reason: DropReason,
    },
    /// A state exchange failed.
    ExchangeFailed {
        /// With whom.
        peer: SocketAddr,
        /// Why.
        reason: String,
    },
    /// What all members say takes so many bytes that exchanges will not hold all of it for long,
    /// or do not any more.
    LargeState {
        /// Members known.
        members: usize,
        /// Bytes of those in one exchange.
        bytes: usize,
        /// Bytes that there may be.
        limit: usize,
    },
    /// A message of the Serf layer fits into no packet.
    BroadcastTooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// Something about the keys of this member.
    Keys(KeyTrace),
    /// This member announced that it leaves.
    Leaving,
}

impl fmt::Display for GossipTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageFailed { peer, reason } => {
                write!(f, "a message to {peer} was not sent: {reason}")
            }
            Self::State { name, state, incarnation, accuser } => {
                write!(f, "member {name}: {} at incarnation {incarnation}", word(*state))?;
                accuser.iter().try_for_each(|accuser| write!(f, ", accused by {accuser}"))
            }
            Self::NoAck { name } => write!(f, "Suspect {name} has failed, no acks received"),
            Self::SuspicionExpired { name, confirmations } => write!(
                f,
                "Marking {name} as failed, suspect timeout reached \
                 ({confirmations} peer confirmations)"
            ),
            Self::Refuting { accusation, from, .. } => {
                write!(f, "Refuting a {} message (from: {from})", word(*accusation))
            }
            Self::RefutingAlive { name, address, .. } => {
                write!(f, "Refuting an alive message for '{name}' ({address})")
            }
            Self::Conflict { name, mine, theirs, state } => write!(
                f,
                "Conflicting address for {name}. Mine: {mine} Theirs: {theirs} Old state: {}",
                word(*state)
            ),
            Self::OnlyStream { name } => write!(
                f,
                "Was able to connect to {name} over TCP but UDP probes failed, \
                 network may be misconfigured"
            ),
            Self::OneWay { name, address, way, silent: None } => write!(
                f,
                "our UDP does not reach {name} ({address}): it leaves pings unanswered, though its \
                 own UDP arrives here and it answers {way}; check what filters UDP on the way to it"
            ),
            Self::OneWay { name, address, way, silent: Some(span) } => write!(
                f,
                "UDP of {name} ({address}) does not reach us: none arrived for {} s, though it \
                 answers {way}; check what filters UDP on the way from it (whether ours reaches it \
                 cannot be told)",
                span.as_secs()
            ),
            Self::Dropped { from, reason } => write!(f, "Dropped a message from {from}: {reason}"),
            Self::ExchangeFailed { peer, reason } => {
                write!(f, "Push/Pull with {peer} failed: {reason}")
            }
            Self::LargeState { members, bytes, limit } => write!(
                f,
                "{members} members take {bytes} bytes in a state exchange, above {} % of the \
                 {limit} allowed; what exceeds them is told in parts: shorten tags or remove \
                 members that are gone",
                bytes * 100 / limit
            ),
            Self::BroadcastTooLarge { bytes } => {
                write!(f, "a message of {bytes} bytes fits into no packet and is not spread")
            }
            Self::Keys(trace) => trace.fmt(f),
            Self::Leaving => f.write_str("announcing that this member leaves"),
        }
    }
}

/// What is told about the keys of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyTrace {
    /// The keyring of an earlier run is used, which does not hold the key of the settings.
    RingWins {
        /// In which pool.
        pool: PoolName,
        /// The key of the settings.
        given: KeyId,
        /// The primary key of the keyring.
        primary: KeyId,
    },
    /// A member still seals messages under a key that was removed; told once for each source.
    Retired {
        /// The member.
        from: SocketAddr,
        /// Its key.
        key: KeyId,
        /// The key that it should use.
        primary: KeyId,
        /// How long it will be heard.
        left: Duration,
    },
    /// A retired key opens messages no more.
    Expired {
        /// Which.
        key: KeyId,
    },
    /// Somebody wanted the keys changed.
    Operation {
        /// How.
        verb: &'static str,
        /// Which key.
        key: KeyId,
        /// Why it had no effect, if it had none.
        error: Option<KeyringError>,
    },
}

impl fmt::Display for KeyTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingWins { pool, given, primary } => write!(
                f,
                "{pool} keyring exists but -encrypt given, using keyring: {} holds the primary key \
                 {primary} and not the key {given}",
                keyring_file(*pool)
            ),
            Self::Retired { from, key, primary, left } => write!(
                f,
                "{from} encrypts gossip with the retired key {key} and is heard for {} more \
                 minutes: it was away during a rotation; install and use the key {primary} there",
                left.as_secs().div_ceil(60)
            ),
            Self::Expired { key } => {
                write!(f, "gossip encryption: the retired key {key} opens nothing any more")
            }
            Self::Operation { verb, key, error: None } => {
                write!(f, "gossip encryption: {verb} key {key}: done")
            }
            Self::Operation { verb, key, error: Some(error) } => {
                write!(f, "gossip encryption: {verb} key {key}: {error}")
            }
        }
    }
}
