//! Recordings: everything one agent was told, as bytes, so that its run can be replayed.
//!
//! A node is a function of its settings, its seed, what its disk held and the list of
//! `(Instant, Input)` it was given (style.md §3.1), so these are the run. [`Recorder`] makes the
//! bytes as a host drives a node, [`Decoder`] gives them back as [`Record`]s, and `sim replay`
//! feeds them to a new node. What the node wanted is recorded as an [`OutputDigest`] for each
//! output: enough to see whether it wants the same again, and if not, after which input.
//!
//! A recording holds the seed, keys and tokens: whoever has it has the secrets of the cluster.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `tFRECORD` |
//! | 8 | 4 | version of the format, big-endian as all numbers |
//! | 12 | – | records |
//!
//! | offset in a record | bytes | field |
//! |---|---|---|
//! | 0 | 4 | bytes of the payload |
//! | 4 | 4 | CRC-32 of the 4 bytes before |
//! | 8 | 4 | CRC-32 of the payload |
//! | 12 | – | payload: a [`Record`] in the form of [`crate::wire::pack`] |
//!
//! The length has a checksum of its own, so that a recording that ends within a record, as that of
//! a killed agent may, is told from one whose bytes were changed.

mod decode;
mod digest;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, RecordingError};
pub use digest::{OutputDigest, step_digest};
pub use encode::{Recorder, beginning};

use crate::config::NodeConfig;
use crate::node::input::Input;
use crate::rng::Seed;
use crate::storage::recovery::{Answer, RecoveryConfig};
use crate::time::{Instant, WallClock};
use crate::{pack_enum, pack_struct};

/// The first bytes of a recording.
const MAGIC: [u8; 8] = *b"tFRECORD";
/// The version of the format that is written and read.
const VERSION: u32 = 1;
/// Bytes before the first record.
const START_BYTES: usize = 12;
/// Bytes before a record's payload.
const HEAD_BYTES: usize = 12;
/// Bytes of a payload: the largest file that recovery reads whole, with some room.
const PAYLOAD_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// The release of this code; only the very build that recorded a run is sure to repeat it.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What a node is made of, beside what its disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The release that made the recording.
    pub release: String,
    /// The node's only randomness.
    pub seed: Seed,
    /// Its settings.
    pub config: NodeConfig,
    /// The settings of its recovery.
    pub recovery: RecoveryConfig,
}
pack_struct!(Origin { release, seed, config, recovery });

/// What the node wanted since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// How many outputs waited after each of the inputs since the last drain.
    pub waiting: Vec<usize>,
    /// The outputs: a new view, if there was one, and then those that waited.
    pub outputs: Vec<OutputDigest>,
}
pack_struct!(Drain { waiting, outputs });

/// One thing recorded. A recording is an origin, the answers of its recovery and, unless that
/// refused the disk, a start, a drain, and then inputs and drains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What the node is made of.
    Origin(Box<Origin>),
    /// What the disk answered to a step of recovery.
    Answer {
        /// What the step was: its [`step_digest`].
        step: u32,
        /// The answer.
        answer: Answer,
    },
    /// The node was made.
    Start {
        /// Civil time of it.
        wall: WallClock,
        /// When.
        now: Instant,
    },
    /// The node was told something.
    Input {
        /// When.
        now: Instant,
        /// What.
        input: Input,
    },
    /// Everything that the node wanted was taken.
    Drain(Drain),
}
pack_enum!(Record {
    1 => Origin(Box<Origin>), 2 => Answer { step, answer }, 3 => Start { wall, now },
    4 => Input { now, input }, 5 => Drain(Drain),
});
