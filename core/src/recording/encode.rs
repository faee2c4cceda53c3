//! Making the bytes of a recording.

use super::digest::{OutputDigest, step_digest};
use super::{Drain, HEAD_BYTES, MAGIC, Origin, PAYLOAD_BYTES_MAX, Record, VERSION};
use crate::node::input::Input;
use crate::node::output::Output;
use crate::storage::recovery::{Answer, Step};
use crate::time::{Instant, WallClock};
use crate::wire::pack::Pack;

/// Bytes of an empty buffer that is kept for the next ones.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Records what a host tells a node and what the node wants; the host carries the bytes away.
#[derive(Clone, Debug)]
pub struct Recorder {
    bytes: Vec<u8>,
    drain: Drain,
    inputs: u64,
}

impl Recorder {
    /// A recording of a node with this origin.
    pub fn new(origin: Origin) -> Self {
        let bytes = beginning();
        let mut recorder = Self { bytes, drain: Drain::default(), inputs: 0 };
        Record::Origin(Box::new(origin)).put(&mut recorder.bytes);
        recorder
    }

    /// Records what the disk answers to a step of recovery, and hands it back.
    pub fn answer(&mut self, step: &Step, answer: Answer) -> Answer {
        let record = Record::Answer { step: step_digest(step), answer };
        record.put(&mut self.bytes);
        let Record::Answer { answer, .. } = record else { unreachable!("it was made above") };
        answer
    }

    /// Records that the node is made.
    pub fn start(&mut self, wall: WallClock, now: Instant) {
        Record::Start { wall, now }.put(&mut self.bytes);
    }

    /// Records what the node is about to be told, and hands it back. Recorded before the node has
    /// it, an input that ends the process is in the recording too.
    pub fn input(&mut self, now: Instant, input: Input) -> Input {
        self.inputs += 1;
        let record = Record::Input { now, input };
        record.put(&mut self.bytes);
        let Record::Input { input, .. } = record else { unreachable!("it was made above") };
        input
    }

    /// Notes how many outputs wait now that the node has the input.
    pub fn handled(&mut self, waiting: usize) {
        self.drain.waiting.push(waiting);
    }

    /// Notes an output that was taken.
    pub fn output(&mut self, output: &Output) {
        self.drain.outputs.push(OutputDigest::of(output));
    }

    /// Records what was noted since the last drain, if anything was.
    pub fn drained(&mut self) {
        if !self.drain.waiting.is_empty() || !self.drain.outputs.is_empty() {
            let record = Record::Drain(std::mem::take(&mut self.drain));
            record.put(&mut self.bytes);
        }
    }

    /// Inputs recorded so far.
    pub const fn inputs(&self) -> u64 {
        self.inputs
    }

    /// The bytes made since the last [`Recorder::forget`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the bytes, which the host has carried away.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
    }
}

/// What stands before the first record.
pub fn beginning() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes
}

impl Record {
    /// Appends it with its head.
    ///
    /// Panics if it is longer than any that is read back: recovery and the host's limits forbid
    /// that.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        self.pack(out);
        let (_, place) = out.split_at_mut(start);
        let (head, payload) = place.split_at_mut(HEAD_BYTES);
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a record of {} bytes", payload.len());
        let length = u32::try_from(payload.len()).expect("the limit is below 4 GiB").to_be_bytes();
        let checksums = [crc32fast::hash(&length), crc32fast::hash(payload)];
        let fields = [length, checksums[0].to_be_bytes(), checksums[1].to_be_bytes()];
        head.copy_from_slice(fields.as_flattened());
    }
}
