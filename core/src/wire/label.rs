//! The label in front of gossip: keeps clusters apart that must not meet (gossip-wire.md §7).
//!
//! ```text
//! f4 | length u8, at least 1 | label
//! ```
//!
//! It stands once before every datagram, and once before a stream's first byte from the side that
//! dialled. It is in clear, and part of what encryption authenticates, in both directions.

use super::DecodeError;
use super::gossip::kind;
use super::pack::{Pack, Reader, put_blob};

/// Bytes a label may have.
pub const LABEL_BYTES_MAX: usize = 255;

/// Bytes the layer costs besides the label's own.
const HEAD_BYTES: usize = 2;

/// A cluster's label; empty if it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Vec<u8>);

impl Label {
    /// No label.
    pub const NONE: Self = Self(Vec::new());

    /// The label `text`; empty for none.
    ///
    /// - Errors: more than [`LABEL_BYTES_MAX`] bytes; the operator is at fault.
    pub fn new(text: &str) -> Result<Self, DecodeError> {
        let (value, limit) = (text.len() as u64, LABEL_BYTES_MAX as u64);
        if value > limit {
            return Err(DecodeError::Limit { field: "label", value, limit });
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// The label's bytes; none without a label.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Pack for Label {
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, &self.0);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(input.text()?)
    }
}

/// Bytes the layer costs for `label`.
pub const fn overhead(label: &[u8]) -> usize {
    if label.is_empty() { 0 } else { HEAD_BYTES + label.len() }
}

/// Appends the header of `label`; nothing without a label.
pub fn put(label: &[u8], out: &mut Vec<u8>) {
    if !label.is_empty() {
        let length = u8::try_from(label.len()).expect("a label has at most 255 bytes");
        out.extend_from_slice(&[kind::LABEL, length]);
        out.extend_from_slice(label);
    }
}

/// The length of the header of `own` at the start of `bytes`, 0 if there must be none.
///
/// `None` while more bytes must come.
///
/// - Errors: another label, or one on only one side.
pub fn check(own: &[u8], bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let field = "label";
    let mut bytes = bytes.iter();
    let Some(first) = bytes.next() else { return Ok(None) };
    if *first != kind::LABEL {
        if own.is_empty() {
            return Ok(Some(0));
        }
        return Err(DecodeError::Invalid { field, rule: "is missing" });
    }
    let Some(length) = bytes.next().map(|length| usize::from(*length)) else {
        return Ok(None);
    };
    if length == 0 {
        return Err(DecodeError::Invalid { field, rule: "is empty" });
    }
    let other = DecodeError::Invalid { field, rule: "is not this cluster's" };
    if length != own.len() {
        return Err(other);
    }
    match bytes.as_slice().get(..length) {
        None => Ok(None),
        Some(label) if label == own => Ok(Some(HEAD_BYTES + length)),
        Some(_) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(label: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(label, &mut out);
        out
    }

    #[test]
    fn only_the_own_label_passes() {
        assert_eq!(header(b"prod1"), b"\xf4\x05prod1");
        assert_eq!(check(b"prod1", b"\xf4\x05prod1rest"), Ok(Some(7)));
        assert_eq!(overhead(b"prod1"), 7);
        assert!(check(b"prod1", &header(b"prod2")).is_err());
        assert!(check(b"prod1", b"\x00").is_err(), "a missing label");
        assert!(check(b"", &header(b"prod1")).is_err(), "a label where none belongs");
        assert!(check(b"", b"\xf4\x00").is_err(), "an empty label");
        assert_eq!(check(b"", b"\x00"), Ok(Some(0)));
        assert_eq!(header(b""), b"");
        assert_eq!(overhead(b""), 0);
    }

    #[test]
    fn a_header_may_arrive_in_pieces() {
        for end in 0..7 {
            assert_eq!(check(b"prod1", &header(b"prod1")[..end]), Ok(None));
        }
    }

    #[test]
    fn a_label_has_at_most_255_bytes() {
        assert!(Label::new(&"x".repeat(255)).is_ok());
        assert!(Label::new(&"x".repeat(256)).is_err());
    }
}
