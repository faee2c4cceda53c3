//! Several gossip messages in one datagram (gossip-wire.md §5.1).
//!
//! ```text
//! 07 | count u8 | count x length u16 | parts back to back, type bytes included
//! ```
//!
//! A reader keeps the parts before a cut; a writer sends a single message bare.

use super::DecodeError;
use bytes::Bytes;

/// The type byte of a compound.
pub const COMPOUND: u8 = 7;

/// Parts a compound holds at most.
pub const PARTS_MAX: usize = 255;

/// Bytes a compound costs, besides [`PART_OVERHEAD`] for each part.
pub const COMPOUND_OVERHEAD: usize = 2;

/// Bytes a part costs besides its own.
pub const PART_OVERHEAD: usize = 2;

/// Packs `parts` into as few packets as their number needs.
///
/// Panics if one of several parts exceeds 65535 bytes: no packet budget allows such a one.
pub fn compound(parts: &[Bytes]) -> Vec<Bytes> {
    parts.chunks(PARTS_MAX).map(one_compound).collect()
}

fn one_compound(parts: &[Bytes]) -> Bytes {
    if let [single] = parts {
        return single.clone();
    }
    let count = u8::try_from(parts.len()).expect("a chunk has at most 255 parts");
    let mut out = vec![COMPOUND, count];
    for part in parts {
        let length = u16::try_from(part.len());
        let length = length.expect("a part of a compound has at most 65535 bytes");
        out.extend_from_slice(&length.to_be_bytes());
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

/// The parts of a compound's `body` that are there in full, and an error if some are not.
pub fn parts(body: &Bytes) -> (Vec<Bytes>, Option<DecodeError>) {
    let cut = DecodeError::Truncated { field: "compound" };
    let Some((count, rest)) = body.split_first() else {
        return (Vec::new(), Some(cut));
    };
    let Some((lengths, mut rest)) = rest.split_at_checked(usize::from(*count) * 2) else {
        return (Vec::new(), Some(cut));
    };
    let mut parts = Vec::with_capacity(usize::from(*count));
    for length in lengths.as_chunks().0 {
        let Some((part, after)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
            return (parts, Some(cut));
        };
        parts.push(body.slice_ref(part));
        rest = after;
    }
    (parts, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(packet: &Bytes) -> Bytes {
        assert_eq!(packet.first(), Some(&COMPOUND));
        packet.slice(1..)
    }

    #[test]
    fn a_single_message_is_sent_bare() {
        let part = Bytes::from_static(b"one");
        assert_eq!(compound(std::slice::from_ref(&part)), [part]);
        assert!(compound(&[]).is_empty());
    }

    #[test]
    fn more_parts_than_fit_make_a_second_compound() {
        let many = vec![Bytes::from_static(b"x"); PARTS_MAX + 2];
        let packets = compound(&many);
        assert_eq!(packets.len(), 2);
        assert_eq!(parts(&body(&packets[1])), (many[..2].to_vec(), None));
    }

    #[test]
    fn parts_before_a_cut_are_kept() {
        let packets = compound(&[Bytes::from_static(b"whole"), Bytes::from_static(b"cut off")]);
        let body = body(&packets[0]);
        let (kept, error) = parts(&body.slice(..body.len() - 1));
        assert_eq!(kept, [Bytes::from_static(b"whole")]);
        assert_eq!(error, Some(DecodeError::Truncated { field: "compound" }));
    }

    proptest! {
        #[test]
        fn parts_survive_a_compound(
            given in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 2..20),
        ) {
            let given: Vec<Bytes> = given.into_iter().map(Bytes::from).collect();
            let packets = compound(&given);
            prop_assert_eq!(parts(&body(&packets[0])), (given, None));
        }
    }
}
