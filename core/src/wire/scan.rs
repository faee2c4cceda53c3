//! Finds where a msgpack value ends, looking at each byte once, however it arrives.
//!
//! Streams of gossip and IPC carry values without framing, so a reader must tell a value that is
//! still arriving from one that is wrong. A [`Scan`] remembers how far it looked; its cost is
//! linear in the bytes received even if they come one at a time, and its memory is bounded by
//! [`DEPTH_MAX`]. It does not judge types: the codec of the value does.

use super::DecodeError;
use bytes::{Bytes, BytesMut};
use rmp::Marker;

/// Nesting a value may have at most.
pub const DEPTH_MAX: usize = 16;

/// A search for the end of one value.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Offset of the next marker, from the start of the value; may lie beyond what has arrived.
    next: usize,
    /// For each open array or map, the values still to come, at least one.
    open: Vec<u64>,
    started: bool,
}

/// What a marker says about the bytes after it.
struct Extent {
    /// Bytes of its length field.
    width: usize,
    /// Bytes of content, besides those that the length field counts.
    fixed: u64,
    /// How many bytes one unit of the length field stands for.
    unit_bytes: u64,
    /// How many nested values there are, besides those that the length field counts.
    values: u64,
    /// How many nested values one unit of the length field stands for.
    unit_values: u64,
}

impl Extent {
    const fn fixed(fixed: u64) -> Self {
        Self { width: 0, fixed, unit_bytes: 0, values: 0, unit_values: 0 }
    }

    const fn bytes(width: usize, fixed: u64) -> Self {
        Self { width, fixed, unit_bytes: 1, values: 0, unit_values: 0 }
    }

    const fn values(width: usize, values: u64, unit_values: u64) -> Self {
        Self { width, fixed: 0, unit_bytes: 0, values, unit_values }
    }

    fn of(marker: Marker) -> Option<Self> {
        Some(match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) => Self::fixed(0),
            Marker::Null | Marker::True | Marker::False => Self::fixed(0),
            Marker::U8 | Marker::I8 => Self::fixed(1),
            Marker::U16 | Marker::I16 => Self::fixed(2),
            Marker::U32 | Marker::I32 | Marker::F32 => Self::fixed(4),
            Marker::U64 | Marker::I64 | Marker::F64 => Self::fixed(8),
            Marker::FixStr(n) => Self::fixed(u64::from(n)),
            Marker::Str8 | Marker::Bin8 => Self::bytes(1, 0),
            Marker::Str16 | Marker::Bin16 => Self::bytes(2, 0),
            Marker::Str32 | Marker::Bin32 => Self::bytes(4, 0),
            Marker::FixArray(n) => Self::values(0, u64::from(n), 0),
            Marker::Array16 => Self::values(2, 0, 1),
            Marker::Array32 => Self::values(4, 0, 1),
            Marker::FixMap(n) => Self::values(0, u64::from(n) * 2, 0),
            Marker::Map16 => Self::values(2, 0, 2),
            Marker::Map32 => Self::values(4, 0, 2),
            Marker::FixExt1 => Self::fixed(2),
            Marker::FixExt2 => Self::fixed(3),
            Marker::FixExt4 => Self::fixed(5),
            Marker::FixExt8 => Self::fixed(9),
            Marker::FixExt16 => Self::fixed(17),
            Marker::Ext8 => Self::bytes(1, 1),
            Marker::Ext16 => Self::bytes(2, 1),
            Marker::Ext32 => Self::bytes(4, 1),
            Marker::Reserved => return None,
        })
    }
}

impl Scan {
    /// Looks on in `bytes`, which start with the value and hold at least what earlier calls saw.
    ///
    /// Gives the value's length once all of it is there, `None` while more must come.
    ///
    /// - Errors: `Limit` as soon as the value must exceed `limit` bytes, `Invalid` for nesting
    ///   beyond [`DEPTH_MAX`], `Type` for the byte that msgpack reserves.
    /// - Cost: linear in the bytes not seen before.
    pub fn advance(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let limit = limit as u64;
        while !self.started || !self.open.is_empty() {
            let Some((first, rest)) = bytes.get(self.next..).and_then(<[u8]>::split_first) else {
                return Ok(None);
            };
            let extent = Extent::of(Marker::from_u8(*first));
            let extent = extent.ok_or(DecodeError::Type { field, expected: "a value" })?;
            let Some(width) = rest.get(..extent.width) else {
                return Ok(None);
            };
            let units = width.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
            let content = extent.fixed + units * extent.unit_bytes;
            let values = extent.values + units * extent.unit_values;
            let end = self.next as u64 + 1 + extent.width as u64 + content;
            // Each nested value needs a byte at least, so the claim alone can break the limit.
            let least = end.saturating_add(values);
            if least > limit {
                return Err(DecodeError::Limit { field, value: least, limit });
            }
            self.next = usize::try_from(end).expect("end is at most limit, which was a usize");
            self.started = true;
            self.close_or_open(field, values)?;
        }
        Ok((self.next <= bytes.len()).then_some(self.next))
    }

    /// Accounts for one value that was passed, and for the values nested in it.
    fn close_or_open(&mut self, field: &'static str, values: u64) -> Result<(), DecodeError> {
        if values > 0 {
            if self.open.len() == DEPTH_MAX {
                return Err(DecodeError::Invalid { field, rule: "is nested too deeply" });
            }
            self.open.push(values);
            return Ok(());
        }
        while let Some(last) = self.open.last_mut() {
            *last -= 1;
            if *last > 0 {
                break;
            }
            self.open.pop();
        }
        Ok(())
    }
}

/// Bytes of a stream that arrived and were not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    bytes: BytesMut,
    scan: Scan,
}

impl From<Bytes> for Arrivals {
    /// These bytes arrived at once.
    fn from(bytes: Bytes) -> Self {
        Self { bytes: bytes.into(), scan: Scan::default() }
    }
}

impl Arrivals {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds what arrived.
    pub fn push(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes `len` bytes once they are there. Not for use while a value has arrived in part.
    pub fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.bytes.len() >= len).then(|| self.bytes.split_to(len).freeze())
    }

    /// Takes one msgpack value of at most `limit` bytes once all of it is there.
    ///
    /// Errors and cost: as [`Scan::advance`].
    pub fn take_value(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<Option<Bytes>, DecodeError> {
        let Some(len) = self.scan.advance(field, &self.bytes, limit)? else {
            return Ok(None);
        };
        self.scan = Scan::default();
        Ok(self.take(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        Scan::default().advance("value", bytes, 1000)
    }

    #[test]
    fn a_value_ends_where_its_last_nested_value_ends() {
        assert_eq!(length(&[0x07, 0xff]), Ok(Some(1)));
        assert_eq!(length(&[0x92, 0x81, 0xa1, b'k', 0x90, 0xc4, 1, 9, 0xff]), Ok(Some(8)));
        assert_eq!(length(&[0xde, 0, 1, 0xa0, 0xd8, 1]), Ok(None));
        assert_eq!(length(&[0x80]), Ok(Some(1)));
    }

    #[test]
    fn a_claim_beyond_the_limit_is_refused_before_the_bytes_arrive() {
        for claim in [[0xdb, 0xff, 0xff, 0xff, 0xff], [0xdd, 0xff, 0xff, 0xff, 0xff]] {
            assert!(matches!(length(&claim), Err(DecodeError::Limit { limit: 1000, .. })));
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let deep = [0x91; DEPTH_MAX + 1];
        let refused = DecodeError::Invalid { field: "value", rule: "is nested too deeply" };
        assert_eq!(length(&deep), Err(refused));
        assert_eq!(length(&deep[..DEPTH_MAX]), Ok(None));
    }

    proptest! {
        #[test]
        fn arrival_byte_by_byte_changes_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let at_once = length(&bytes);
            let mut scan = Scan::default();
            let mut step = Ok(None);
            for end in 0..=bytes.len() {
                step = scan.advance("value", &bytes[..end], 1000);
                if step != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(at_once, step);
        }
    }
}
