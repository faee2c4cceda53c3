//! Codecs of everything that agents say to each other, with limits on every length.
//!
//! Decoders never panic and never allocate more than the input's size allows; a refused message is
//! a [`DecodeError`] naming the field and the rule. Each family has its own file.

pub mod base64;
pub mod checksum;
pub mod compound;
pub mod compress;
pub mod event;
pub mod frame;
pub mod gossip;
pub mod ipc;
pub mod label;
pub mod msgpack;
pub mod pack;
pub mod packet;
pub mod raft;
pub mod rpc;
pub mod scan;
pub mod seal;
pub mod serf;
pub mod stream;
pub mod tags;

use seal::KeyId;
use thiserror::Error;

/// Why bytes were refused. Nothing changed; the sender is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("{field}: the input ends early")]
    Truncated {
        /// What was being read.
        field: &'static str,
    },
    /// A value of another type stands where `expected` belongs.
    #[error("{field}: expected {expected}")]
    Type {
        /// What was being read.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A length or number is outside its limits.
    #[error("{field}: {value} is outside the limit of {limit}")]
    Limit {
        /// What was being read.
        field: &'static str,
        /// What was found.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A value is well-formed but not a legal one.
    #[error("{field}: {rule}")]
    Invalid {
        /// What was being read.
        field: &'static str,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A checksum does not match.
    #[error("{field}: checksum mismatch")]
    Checksum {
        /// What was being read.
        field: &'static str,
    },
    /// An outer layer is there on one side only.
    #[error("{layer}: {rule}")]
    Layer {
        /// Which layer of gossip-wire.md §1.
        layer: &'static str,
        /// On which side.
        rule: &'static str,
    },
    /// No key of this member opens the bytes: the sender uses another one, or they were changed.
    #[error("encryption: {}", none_opens(.tried))]
    Sealed {
        /// The keys that were tried.
        tried: Vec<KeyId>,
    },
    /// A tag names no known variant.
    #[error("{field}: unknown kind {value}")]
    Unknown {
        /// What was being read.
        field: &'static str,
        /// The tag found.
        value: u64,
    },
    /// Bytes remain after the value.
    #[error("{field}: {count} bytes follow the value")]
    Trailing {
        /// What was being read.
        field: &'static str,
        /// How many bytes remain.
        count: u64,
    },
}

fn none_opens(tried: &[KeyId]) -> String {
    let tried: Vec<String> = tried.iter().map(KeyId::to_string).collect();
    format!("none of the keys installed here opens the message (tried {})", tried.join(", "))
}
