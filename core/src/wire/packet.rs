//! A gossip datagram: its layers put on and taken off, its messages one by one (gossip-wire.md §1).
//!
//! Order from outside: label, encryption, checksum, compression, compound, message. A part that is
//! refused does not take the others with it.
//!
//! Differs: a datagram gives at most [`DATAGRAM_BYTES_MAX`] bytes of compressed parts together,
//! since no sender has more to say in one.

use super::DecodeError;
use super::checksum::{CRC_BYTES, crc_head, without_crc};
use super::compound::{COMPOUND, parts};
use super::compress::{Compressor, DATAGRAM_BYTES_MAX, decompress};
use super::gossip::{Message, kind};
use super::label;
use super::seal::{Key, KeyId, NONCE_BYTES, SEAL_OVERHEAD, SealVersion, open};
use bytes::Bytes;

/// Nesting compounds and compressed parts may have at most; real senders never nest.
const DEPTH_MAX: u32 = 4;

/// What a receiver takes outer layers off with.
#[derive(Clone, Copy, Debug)]
pub struct Opener<'a> {
    /// The label of its pool; none if empty.
    pub label: &'a [u8],
    /// Its keys, in the order in which they are tried; gossip is not encrypted without any.
    pub keys: &'a [Key],
    /// Whether it refuses what is not encrypted although it has keys.
    pub verify: bool,
}

/// A datagram without its label and its encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was inside.
    pub packet: Bytes,
    /// Which of the receiver's keys opened it; `None` if it came in clear.
    pub key: Option<KeyId>,
}

impl Opener<'_> {
    /// A receiver without label and keys.
    pub const PLAIN: Opener<'static> = Opener { label: &[], keys: &[], verify: true };

    /// Takes label and encryption off a datagram.
    ///
    /// - Errors: another label; encryption that no key opens, unless it need not be there.
    pub fn open(&self, datagram: &Bytes) -> Result<Opened, DecodeError> {
        let header = label::check(self.label, datagram)?;
        let header = header.ok_or(DecodeError::Truncated { field: "label" })?;
        let packet = datagram.slice(header..);
        if self.keys.is_empty() {
            return Ok(Opened { packet, key: None });
        }
        match open(self.keys, self.label, &packet) {
            Ok((packet, key)) => Ok(Opened { packet, key: Some(key) }),
            Err(_) if !self.verify => Ok(Opened { packet, key: None }),
            Err(error) => Err(error),
        }
    }
}

/// The outer layers of one message on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// The label of the pool; none if empty.
    pub label: &'a [u8],
    /// The key and a nonce of its own; `None` leaves the message in clear.
    pub key: Option<(&'a Key, [u8; NONCE_BYTES])>,
    /// Whether it is compressed.
    pub compress: bool,
}

/// Puts layers around messages, with the same memory for each.
#[derive(Clone, Debug, Default)]
pub struct Wrapper {
    compressor: Compressor,
    compressed: Vec<u8>,
}

impl Wrapper {
    /// The datagram that carries `packet`; compression is used only if it makes it shorter.
    pub fn datagram(&mut self, packet: &Bytes, checksum: bool, layers: &Layers<'_>) -> Bytes {
        let Layers { label, key, compress } = *layers;
        self.compressed.clear();
        if compress {
            self.compressor.compress(packet, &mut self.compressed);
        }
        let is_shorter = compress && self.compressed.len() < packet.len();
        if !is_shorter && !checksum && key.is_none() && label.is_empty() {
            return packet.clone();
        }
        let body: &[u8] = if is_shorter { &self.compressed } else { packet };
        let head = checksum.then(|| crc_head(body));
        let head: &[u8] = head.as_ref().map_or(&[], |head| head.as_slice());
        let length = label::overhead(label) + SEAL_OVERHEAD + CRC_BYTES + body.len();
        let mut out = Vec::with_capacity(length);
        label::put(label, &mut out);
        match key {
            Some((key, nonce)) => {
                key.seal(SealVersion::Plain, nonce, label, &[head, body], &mut out);
            }
            None => {
                out.extend_from_slice(head);
                out.extend_from_slice(body);
            }
        }
        out.into()
    }

    /// The stream bytes that carry `message`; only the side that dialled begins with the label.
    ///
    /// - Errors: the message is too long to be encrypted.
    pub fn stream(
        &mut self,
        message: &Bytes,
        dialled: bool,
        layers: &Layers<'_>,
    ) -> Result<Bytes, DecodeError> {
        let Layers { label, key, compress } = *layers;
        let label_header = if dialled { label } else { &[] };
        self.compressed.clear();
        if compress {
            self.compressor.compress(message, &mut self.compressed);
        } else if key.is_none() && label_header.is_empty() {
            return Ok(message.clone());
        }
        let body: &[u8] = if compress { &self.compressed } else { message };
        let length = label::overhead(label_header) + SEAL_OVERHEAD + CRC_BYTES + body.len();
        let mut out = Vec::with_capacity(length);
        label::put(label_header, &mut out);
        match key {
            Some((key, nonce)) => key.seal_stream(nonce, label, body, &mut out)?,
            None => out.extend_from_slice(body),
        }
        // A large state must not hold its memory until the next one.
        self.compressed.shrink_to(DATAGRAM_BYTES_MAX);
        Ok(out.into())
    }
}

/// The messages of an opened datagram in order, each decoded or refused.
///
/// - Errors: one for each part that is refused; a wrong checksum is the only entry.
/// - Cost: linear in the datagram and in what its compressed parts give, at most
///   [`DATAGRAM_BYTES_MAX`]; entries are at most half as many as those bytes.
pub fn decode_packet(packet: &Bytes) -> Vec<Result<Message, DecodeError>> {
    let mut unpacking = Unpacking { messages: Vec::new(), budget: DATAGRAM_BYTES_MAX };
    match without_crc(packet) {
        Ok(packet) => unpacking.unpack(&packet, DEPTH_MAX),
        Err(error) => unpacking.messages.push(Err(error)),
    }
    unpacking.messages
}

struct Unpacking {
    messages: Vec<Result<Message, DecodeError>>,
    /// Bytes that compressed parts may still give.
    budget: usize,
}

impl Unpacking {
    fn unpack(&mut self, packet: &Bytes, depth: u32) {
        let kind = match packet.first() {
            Some(kind @ (&COMPOUND | &kind::COMPRESS)) => *kind,
            _ => {
                self.messages.push(Message::decode(packet));
                return;
            }
        };
        let Some(depth) = depth.checked_sub(1) else {
            let rule = "is nested too deeply";
            self.messages.push(Err(DecodeError::Invalid { field: "compound", rule }));
            return;
        };
        let body = packet.slice(1..);
        if kind == COMPOUND {
            let (parts, cut) = parts(&body);
            parts.iter().for_each(|part| self.unpack(part, depth));
            self.messages.extend(cut.map(Err));
            return;
        }
        match decompress(&body, self.budget) {
            Ok(plain) => {
                self.budget -= plain.len();
                self.unpack(&plain, depth);
            }
            Err(error) => self.messages.push(Err(error)),
        }
    }
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

    fn compressed(packet: &[u8]) -> Bytes {
        let mut out = Vec::new();
        Compressor::default().compress(packet, &mut out);
        out.into()
    }

    fn key(first: u8) -> Key {
        Key::new(&[first; 16]).unwrap()
    }

    #[test]
    fn a_refused_part_leaves_the_others() {
        let parts = [nack(1).encode(), Bytes::from_static(&[99]), nack(2).encode()];
        let unknown = DecodeError::Unknown { field: "message type", value: 99 };
        let packet = with_crc(&compound(&parts)[0]);
        let expected = [Ok(nack(1)), Err(unknown), Ok(nack(2))];
        assert_eq!(decode_packet(&packet), expected);
        assert_eq!(decode_packet(&with_crc(&compressed(&compound(&parts)[0]))), expected);
    }

    #[test]
    fn outer_layers_inside_others_are_refused() {
        for kind in [kind::ENCRYPT, kind::LABEL] {
            let unknown = DecodeError::Unknown { field: "message type", value: kind.into() };
            assert_eq!(decode_packet(&Bytes::from(vec![kind, 0x80])), [Err(unknown)]);
        }
        let unknown = DecodeError::Unknown { field: "message type", value: 12 };
        let packet = compound(&[nack(1).encode(), with_crc(&nack(2).encode())]).remove(0);
        assert_eq!(decode_packet(&packet), [Ok(nack(1)), Err(unknown.clone())]);
        assert_eq!(decode_packet(&compressed(&with_crc(&nack(2).encode()))), [Err(unknown)]);
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let mut packet = nack(1).encode();
        for _ in 0..DEPTH_MAX {
            packet = compound(&[packet, nack(2).encode()]).remove(0);
        }
        assert!(decode_packet(&packet).iter().all(Result::is_ok));
        assert!(decode_packet(&compressed(&packet)).iter().any(Result::is_err));
        packet = compound(&[packet, nack(2).encode()]).remove(0);
        assert!(decode_packet(&packet).iter().any(Result::is_err));
    }

    #[test]
    fn all_compressed_parts_together_are_bounded() {
        let user = |bytes: usize| [&[kind::USER], vec![0; bytes].as_slice()].concat();
        let half = compressed(&user(DATAGRAM_BYTES_MAX / 2 - 1));
        let parts = vec![half; 3];
        let messages = decode_packet(&compound(&parts)[0]);
        assert_eq!(messages.iter().filter(|message| message.is_ok()).count(), 2);
        assert!(matches!(messages[2], Err(DecodeError::Limit { .. })));
    }

    #[test]
    fn layers_come_off_as_they_were_put_on() {
        let (own, other) = (key(1), key(2));
        let packet = compound(&[nack(1).encode(), Message::User(vec![7; 90].into()).encode()]);
        let packet = &packet[0];
        for (compress, checksum, sealed, label) in (0..16_u8)
            .map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0, if n & 8 != 0 { "prod1" } else { "" }))
        {
            let label = label.as_bytes();
            let layers = Layers { label, key: sealed.then_some((&own, [9; 12])), compress };
            let datagram = Wrapper::default().datagram(packet, checksum, &layers);
            let keys = if sealed { vec![other.clone(), own.clone()] } else { Vec::new() };
            let opened = Opener { label, keys: &keys, verify: true }.open(&datagram).unwrap();
            assert_eq!(opened.key, sealed.then_some(own.id()));
            assert_eq!(decode_packet(&opened.packet).len(), 2);
            assert_eq!(opened.packet.len() < packet.len(), compress);
            assert!(Opener { label: b"prod2", keys: &keys, verify: true }.open(&datagram).is_err());
        }
    }

    #[test]
    fn only_what_gets_shorter_is_compressed() {
        let layers = Layers { label: &[], key: None, compress: true };
        let packet = nack(1).encode();
        assert_eq!(Wrapper::default().datagram(&packet, false, &layers), packet);
    }

    #[test]
    fn a_plain_datagram_passes_only_without_verification() {
        let (keys, packet) = ([key(1)], nack(1).encode());
        let open = |verify| Opener { label: &[], keys: &keys, verify }.open(&packet);
        assert!(open(true).is_err());
        assert_eq!(open(false), Ok(Opened { packet: packet.clone(), key: None }));
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let keys = [key(1)];
            let _ = Opener { label: b"x", keys: &keys, verify: true }.open(&bytes);
            let _ = Opener { label: b"", keys: &keys, verify: false }.open(&bytes);
            let messages = decode_packet(&bytes);
            prop_assert!(messages.len() <= (bytes.len() + DATAGRAM_BYTES_MAX) / 2 + 1);
        }
    }
}
