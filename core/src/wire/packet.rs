//! A gossip datagram: its layers taken off, its messages one by one (gossip-wire.md §1).
//!
//! Order from outside: checksum, compound, message. A part that is refused does not take the
//! others with it. Compression, encryption and labels would be taken off here; a packet under one
//! of them is a [`DecodeError::Layer`].

use super::DecodeError;
use super::checksum::without_crc;
use super::compound::{COMPOUND, parts};
use super::gossip::Message;
use bytes::Bytes;

/// Nesting compounds may have at most; real senders never nest.
const DEPTH_MAX: u32 = 4;

/// The messages of a datagram in order, each decoded or refused.
///
/// - Errors: one for each part that is refused; a wrong checksum is the only entry.
/// - Cost: linear in the datagram; entries are at most half as many as its bytes.
pub fn decode_datagram(datagram: &Bytes) -> Vec<Result<Message, DecodeError>> {
    let mut messages = Vec::new();
    match without_crc(datagram) {
        Ok(packet) => unpack(&packet, DEPTH_MAX, &mut messages),
        Err(error) => messages.push(Err(error)),
    }
    messages
}

fn unpack(packet: &Bytes, depth: u32, messages: &mut Vec<Result<Message, DecodeError>>) {
    if packet.first() != Some(&COMPOUND) {
        messages.push(Message::decode(packet));
        return;
    }
    let Some(depth) = depth.checked_sub(1) else {
        let rule = "is nested too deeply";
        messages.push(Err(DecodeError::Invalid { field: "compound", rule }));
        return;
    };
    let (parts, cut) = parts(&packet.slice(1..));
    parts.iter().for_each(|part| unpack(part, depth, messages));
    messages.extend(cut.map(Err));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SeqNo;
    use crate::wire::checksum::with_crc;
    use crate::wire::compound::compound;
    use crate::wire::gossip::Nack;
    use proptest::prelude::*;

    fn nack(n: u32) -> Message {
        Message::Nack(Nack { seq_no: SeqNo::new(n) })
    }

    #[test]
    fn a_refused_part_leaves_the_others() {
        let parts = [nack(1).encode(), Bytes::from_static(&[99]), nack(2).encode()];
        let unknown = DecodeError::Unknown { field: "message type", value: 99 };
        let packet = with_crc(&compound(&parts)[0]);
        let expected = [Ok(nack(1)), Err(unknown), Ok(nack(2))];
        assert_eq!(decode_datagram(&packet), expected);
    }

    #[test]
    fn a_layer_that_is_not_built_is_named() {
        for (kind, layer) in [(9, "compression"), (10, "encryption"), (244, "label")] {
            let packet = Bytes::from(vec![kind, 0x80]);
            assert_eq!(decode_datagram(&packet), [Err(DecodeError::Layer { layer })]);
        }
    }

    #[test]
    fn a_checksum_inside_a_compound_is_refused() {
        let packet = compound(&[nack(1).encode(), with_crc(&nack(2).encode())]).remove(0);
        let unknown = DecodeError::Unknown { field: "message type", value: 12 };
        assert_eq!(decode_datagram(&packet), [Ok(nack(1)), Err(unknown)]);
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let mut packet = nack(1).encode();
        for _ in 0..DEPTH_MAX {
            packet = compound(&[packet, nack(2).encode()]).remove(0);
        }
        assert!(decode_datagram(&packet).iter().all(Result::is_ok));
        packet = compound(&[packet, nack(2).encode()]).remove(0);
        assert!(decode_datagram(&packet).iter().any(Result::is_err));
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let messages = decode_datagram(&bytes.clone().into());
            prop_assert!(messages.len() <= bytes.len() / 2 + 1);
        }
    }
}
