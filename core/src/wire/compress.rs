//! The compression layer of gossip: LZW as in GIF, least significant bit first (gossip-wire.md
//! §5.2).
//!
//! ```text
//! 09 | map { Algo: 0, Buf: codes }
//! ```
//!
//! Codes of 9 to 12 bits; 256 clears the table, 257 ends the stream, 258 is the first free one.
//! Both sides count from 257, one up with every code after a clear, and widen codes when the count
//! reaches a power of two. A writer clears at 4095 and so never uses that code; what it writes
//! equals a real peer's bytes. A reader takes whatever is unambiguous and never makes more than it
//! was allowed to.

use super::DecodeError;
use super::gossip::kind;
use super::msgpack::{self, Flavour, Gossip, message};
use bytes::Bytes;

/// Bytes a stream may have once decompressed (gossip-wire.md §4).
pub const STREAM_BYTES_MAX: usize = 40 << 20;

/// Bytes a datagram may have once decompressed, all its parts together: what a datagram without
/// compression could carry.
pub const DATAGRAM_BYTES_MAX: usize = 64 << 10;

const CLEAR: u16 = 256;
const END: u16 = 257;
const WIDTH_MIN: u32 = 9;
const WIDTH_MAX: u32 = 12;
/// At this count a writer clears the table.
const FULL: u16 = (1 << WIDTH_MAX) - 1;
/// Codes that can exist.
const CODES: usize = 1 << WIDTH_MAX;

/// The one algorithm there is.
const LZW: u8 = 0;

struct Compressed {
    algo: u8,
    buf: Bytes,
}
message!(Gossip, Compressed { "Algo" => algo, "Buf" => buf });

/// Slots of the writer's table: twice the codes that can exist, so that searches stay short.
const SLOTS: usize = 2 * CODES;
/// Slots used for the shortest packets.
const SLOTS_MIN: usize = 256;

/// Compresses packets one after the other with the same memory.
#[derive(Clone)]
pub struct Compressor {
    /// Prefix, byte and code of each entry, open addressed; 0 is an empty slot.
    slots: Box<[u32]>,
    codes: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { slots: vec![0; SLOTS].into(), codes: Vec::new() }
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// Appends `plain` under the compression layer to `out`.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.encode(plain);
        out.extend_from_slice(&[kind::COMPRESS, 0x82]);
        Gossip::put_text(out, "Algo");
        out.push(LZW);
        Gossip::put_text(out, "Buf");
        Gossip::put_bytes(out, &self.codes);
    }

    /// Leaves the codes of `plain` in `self.codes`.
    fn encode(&mut self, plain: &[u8]) {
        self.codes.clear();
        // A short packet makes few strings, and then less is to be cleared.
        let size = (2 * plain.len()).next_power_of_two().clamp(SLOTS_MIN, SLOTS);
        let slots = self.slots.get_mut(..size).expect("size is at most the number of slots");
        slots.fill(0);
        let mut writer = CodeWriter::new(&mut self.codes);
        writer.put(CLEAR);
        let mut bytes = plain.iter();
        let Some(first) = bytes.next() else {
            writer.put(END);
            writer.pad();
            return;
        };
        let mut string = u16::from(*first);
        for byte in bytes {
            let key = u32::from(string) << 8 | u32::from(*byte);
            let slot = find(slots, key);
            if *slot != 0 {
                string = code_of(*slot);
                continue;
            }
            writer.put(string);
            match writer.count_up() {
                Some(code) => *slot = key << WIDTH_MAX | u32::from(code),
                None => slots.fill(0),
            }
            string = u16::from(*byte);
        }
        writer.put(string);
        writer.count_up();
        writer.put(END);
        writer.pad();
    }
}

fn code_of(slot: u32) -> u16 {
    let [.., high, low] = (slot & u32::from(FULL)).to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The slot that holds `key`, or the empty one where it belongs.
#[expect(clippy::indexing_slicing, reason = "`at` is always taken modulo the number of slots")]
fn find(slots: &mut [u32], key: u32) -> &mut u32 {
    // Knuth's multiplicative hash; its upper bits are the good ones.
    let mut at = (key.wrapping_mul(0x9e37_79b1) >> 16) as usize % slots.len();
    while slots[at] != 0 && slots[at] >> WIDTH_MAX != key {
        at = (at + 1) % slots.len();
    }
    &mut slots[at]
}

/// Appends codes bit by bit.
struct CodeWriter<'a> {
    out: &'a mut Vec<u8>,
    bits: u32,
    filled: u32,
    width: u32,
    count: u16,
}

impl<'a> CodeWriter<'a> {
    const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, bits: 0, filled: 0, width: WIDTH_MIN, count: END }
    }

    fn put(&mut self, code: u16) {
        self.bits |= u32::from(code) << self.filled;
        self.filled += self.width;
        while self.filled >= 8 {
            self.out.push(self.bits.to_le_bytes()[0]);
            self.bits >>= 8;
            self.filled -= 8;
        }
    }

    /// Counts a code that was written. Gives the number of the string that it completes with the
    /// next byte, or clears a full table and gives none.
    fn count_up(&mut self) -> Option<u16> {
        self.count += 1;
        if u32::from(self.count) == 1 << self.width {
            self.width += 1;
        }
        if self.count < FULL {
            return Some(self.count);
        }
        self.put(CLEAR);
        self.width = WIDTH_MIN;
        self.count = END;
        None
    }

    fn pad(&mut self) {
        if self.filled > 0 {
            self.out.push(self.bits.to_le_bytes()[0]);
        }
    }
}

/// What the compression layer `layer`, without its type byte, holds.
///
/// - Errors: `Limit` as soon as the result must exceed `limit` bytes.
/// - Cost: linear in the bytes given and made.
pub fn decompress(layer: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    let Compressed { algo, buf } = msgpack::decode(layer)?;
    if algo != LZW {
        return Err(DecodeError::Unknown { field: "Algo", value: algo.into() });
    }
    decode(&buf, limit).map(Bytes::from)
}

/// A string of the reader's table: a place in what was made so far.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
}

fn decode(codes: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let field = "Buf";
    let mut reader = CodeReader { rest: codes.iter(), bits: 0, filled: 0 };
    let mut out = Vec::with_capacity(limit.min(codes.len().saturating_mul(3)));
    // Entry n is the string of code 258 + n: the one before it and one byte more, which lie side
    // by side in `out`.
    let mut table: Vec<Place> = Vec::with_capacity(CODES);
    let (mut width, mut count, mut last) = (WIDTH_MIN, END, None::<Place>);
    loop {
        let code = reader.take(width).ok_or(DecodeError::Truncated { field })?;
        if code == END {
            return Ok(out);
        }
        if code == CLEAR {
            table.clear();
            (width, count, last) = (WIDTH_MIN, END, None);
            continue;
        }
        if let Some(last) = last
            && END as usize + table.len() + 1 < CODES
        {
            table.push(Place { start: last.start, len: last.len + 1 });
        }
        let start = out.len();
        if let Ok(byte) = u8::try_from(code) {
            out.push(byte);
        } else {
            let index = usize::from(code) - usize::from(END) - 1;
            let place = table.get(index).copied();
            let place = place.ok_or(DecodeError::Invalid { field, rule: "no such code yet" })?;
            check(field, start + place.len, limit)?;
            // The newest string may end with its own first byte, which is not made yet.
            let there = place.len.min(start - place.start);
            out.extend_from_within(place.start..place.start + there);
            if there < place.len {
                out.extend_from_within(start..=start);
            }
        }
        check(field, out.len(), limit)?;
        last = Some(Place { start, len: out.len() - start });
        if count < FULL {
            count += 1;
            if u32::from(count) == 1 << width && width < WIDTH_MAX {
                width += 1;
            }
        }
    }
}

const fn check(field: &'static str, value: usize, limit: usize) -> Result<(), DecodeError> {
    if value > limit {
        return Err(DecodeError::Limit { field, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Reads codes bit by bit.
struct CodeReader<'a> {
    rest: std::slice::Iter<'a, u8>,
    bits: u32,
    filled: u32,
}

impl CodeReader<'_> {
    fn take(&mut self, width: u32) -> Option<u16> {
        while self.filled < width {
            self.bits |= u32::from(*self.rest.next()?) << self.filled;
            self.filled += 8;
        }
        let code = self.bits & ((1 << width) - 1);
        self.bits >>= width;
        self.filled -= width;
        u16::try_from(code).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lzw(plain: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::default();
        compressor.encode(plain);
        compressor.codes
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * n / 7).to_le_bytes()[0]).collect()
    }

    #[test]
    fn a_table_that_fills_is_cleared_and_the_text_survives() {
        for len in [0, 1, 2, 3837, 3838, 3839, 3840, 20_000, 100_000] {
            let plain = text(len);
            let codes = lzw(&plain);
            assert_eq!(decode(&codes, len).as_deref(), Ok(plain.as_slice()), "{len} bytes");
        }
        // Text with few repetitions fills the table soonest.
        let noise: Vec<u8> =
            (0..8000_u32).map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()[1]).collect();
        let codes = lzw(&noise);
        assert_eq!(decode(&codes, 8000), Ok(noise));
    }

    #[test]
    fn nothing_is_made_beyond_the_limit() {
        let bomb = lzw(&vec![0; 1 << 20]);
        assert!(bomb.len() < 4000);
        assert_eq!(decode(&bomb, 1 << 20).map(|plain| plain.len()), Ok(1 << 20));
        let refused = decode(&bomb, (1 << 20) - 1);
        let limit = (1 << 20) - 1;
        assert_eq!(refused, Err(DecodeError::Limit { field: "Buf", value: 1 << 20, limit }));
    }

    #[test]
    fn codes_that_mean_nothing_are_refused() {
        let codes = |given: &[u16]| {
            let mut out = Vec::new();
            let mut writer = CodeWriter::new(&mut out);
            given.iter().for_each(|code| writer.put(*code));
            writer.pad();
            decode(&out, 100)
        };
        let none = Err(DecodeError::Invalid { field: "Buf", rule: "no such code yet" });
        assert_eq!(codes(&[CLEAR, 258, END]), none);
        assert_eq!(codes(&[CLEAR, 97, 259, END]), none);
        assert_eq!(codes(&[CLEAR, 97, 258, END]), Ok(b"aaa".to_vec()));
        assert_eq!(codes(&[97, 98, CLEAR, 258, END]), none, "a clear forgets every string");
        assert_eq!(codes(&[97, END]), Ok(b"a".to_vec()), "a leading clear is not needed");
        assert_eq!(codes(&[97, 98]), Err(DecodeError::Truncated { field: "Buf" }));
    }

    #[test]
    fn another_algorithm_is_refused() {
        let layer = msgpack::encode(&Compressed { algo: 1, buf: Bytes::new() });
        let unknown = DecodeError::Unknown { field: "Algo", value: 1 };
        assert_eq!(decompress(&layer, 100), Err(unknown));
    }

    #[test]
    fn a_compressor_keeps_nothing_of_the_packet_before() {
        let mut compressor = Compressor::default();
        let (mut first, mut again) = (Vec::new(), Vec::new());
        compressor.compress(b"TOBEORNOTTOBE", &mut first);
        compressor.compress(&text(5000), &mut Vec::new());
        compressor.compress(b"TOBEORNOTTOBE", &mut again);
        assert_eq!(first, again);
        assert_eq!(decompress(&first[1..], 13), Ok(Bytes::from_static(b"TOBEORNOTTOBE")));
    }

    proptest! {
        #[test]
        fn plain_bytes_survive(
            plain in prop::collection::vec(0..4_u8, 0..6000),
            noise in prop::collection::vec(any::<u8>(), 0..6000),
        ) {
            for plain in [plain, noise] {
                let len = plain.len();
                prop_assert_eq!(decode(&lzw(&plain), len), Ok(plain));
            }
        }

        #[test]
        fn arbitrary_codes_never_panic(codes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(plain) = decode(&codes, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
            let _ = decompress(&codes, 1000);
        }
    }
}
