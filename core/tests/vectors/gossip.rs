//! Captured gossip: what real agents sent decodes, and encodes again to the same bytes.
//!
//! Vectors: gossip-wire.md §13. Entries of real maps come in random order and are compared as sets
//! (DESIGN.md §8, vectors "byte for byte"); what is sealed is sealed again under the key and nonce
//! of the vector; hand-made vectors are decoded or refused as the real agent did.

use crate::common::{Vector, canonical, load};
use bytes::Bytes;
use terraform_core::wire::DecodeError;
use terraform_core::wire::checksum::HAS_CRC;
use terraform_core::wire::compound::{COMPOUND, compound};
use terraform_core::wire::compress::{Compressor, DATAGRAM_BYTES_MAX, decompress};
use terraform_core::wire::gossip::{Message, StreamMessage};
use terraform_core::wire::packet::{Layers, Opener, Wrapper, decode_packet};
use terraform_core::wire::seal::{Key, NONCE_BYTES, SealVersion};
use terraform_core::wire::serf::{SerfMessage, decode_tags, encode_tags};
use terraform_core::wire::stream::{StreamDecoder, StreamError};

/// The type byte of the compression layer.
const COMPRESS: u8 = 9;

/// The keys of the encrypted vectors, and the one that computed vectors use.
fn key(name: &str) -> Key {
    let bytes: Vec<u8> = match name {
        "K1" => (0..32).collect(),
        "K2" => (0x64..0x74).collect(),
        _ => (0..16).collect(),
    };
    Key::new(&bytes).unwrap()
}

/// The inner layers of a packet, from outside.
struct Shape {
    checksum: bool,
    compressed: bool,
    compound: bool,
}

impl Shape {
    fn of(packet: &Bytes) -> Self {
        let checksum = packet.first() == Some(&HAS_CRC);
        let covered = if checksum { packet.slice(5..) } else { packet.clone() };
        let compressed = covered.first() == Some(&COMPRESS);
        let limit = DATAGRAM_BYTES_MAX;
        let plain = if compressed { decompress(&covered[1..], limit).unwrap() } else { covered };
        Self { checksum, compressed, compound: plain.first() == Some(&COMPOUND) }
    }
}

/// Encodes a packet's messages under the same layers as the original.
fn encode_like(
    shape: &Shape,
    messages: &[Message],
    key: Option<(&Key, [u8; NONCE_BYTES])>,
) -> Bytes {
    let parts: Vec<Bytes> = messages.iter().map(Message::encode).collect();
    let packets = compound(&parts);
    assert_eq!(packets.len(), 1);
    let layers = Layers { label: &[], key, compress: shape.compressed };
    Wrapper::default().datagram(&packets[0], shape.checksum, &layers)
}

/// What a packet holds, in the notation of the vectors' names.
fn describe(shape: &Shape, messages: &[Message]) -> String {
    let inner: Vec<String> = messages.iter().map(describe_message).collect();
    let inner = inner.join(",");
    let inner = if shape.compound { format!("compound[{inner}]") } else { inner };
    let inner = if shape.compressed { format!("compress>{inner}") } else { inner };
    if shape.checksum { format!("crc>{inner}") } else { inner }
}

fn describe_message(message: &Message) -> String {
    match message {
        Message::Ping(_) => "ping".to_owned(),
        Message::IndirectPing(_) => "indirectPing".to_owned(),
        Message::Ack(_) => "ack".to_owned(),
        Message::Nack(_) => "nack".to_owned(),
        Message::Suspect(_) => "suspect".to_owned(),
        Message::Alive(_) => "alive".to_owned(),
        Message::Dead(_) => "dead".to_owned(),
        Message::User(payload) => format!("user:{}", describe_serf(payload)),
    }
}

fn describe_serf(payload: &Bytes) -> String {
    let nested = |payload: &Option<Bytes>, kinds: [u8; 3]| match payload {
        Some(payload) if payload.first().is_some_and(|kind| kinds.contains(kind)) => {
            format!("+{}", describe_serf(payload))
        }
        _ => String::new(),
    };
    match SerfMessage::decode(payload).unwrap() {
        SerfMessage::Leave(_) => "leave".to_owned(),
        SerfMessage::Join(_) => "join".to_owned(),
        SerfMessage::PushPull(_) => "pushPull".to_owned(),
        SerfMessage::UserEvent(_) => "userEvent".to_owned(),
        SerfMessage::Query(query) => {
            format!("query({}){}", query.name, nested(&query.payload, [7; 3]))
        }
        SerfMessage::QueryResponse(response) => {
            format!("queryResponse{}", nested(&response.payload, [6, 7, 8]))
        }
        SerfMessage::ConflictResponse(_) => "conflictResponse".to_owned(),
        SerfMessage::KeyRequest(_) => "keyRequest".to_owned(),
        SerfMessage::KeyResponse(_) => "keyResponse".to_owned(),
        SerfMessage::Relay(relay) => format!("relay>{}", describe_serf(&relay.message)),
    }
}

/// Decodes and encodes a Serf message and everything inside it.
fn check_serf(name: &str, payload: &Bytes) {
    let message = SerfMessage::decode(payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    let kind = payload[0];
    let encoded = message.encode();
    assert_eq!(encoded[0], kind, "{name}");
    if !matches!(message, SerfMessage::Relay(_)) {
        assert_eq!(canonical(&encoded[1..]), canonical(&payload[1..]), "{name}");
    }
    if !matches!(message, SerfMessage::PushPull(_) | SerfMessage::ConflictResponse(_)) {
        assert_eq!(encoded, *payload, "{name}: only real maps may differ in order");
    }
    match message {
        SerfMessage::Relay(relay) => check_serf(name, &relay.message),
        SerfMessage::Query(query)
            if query.name.ends_with("-key") || query.name.ends_with("-keys") =>
        {
            check_serf(name, &query.payload.unwrap());
        }
        SerfMessage::QueryResponse(response) => {
            if let Some(payload) = response.payload.filter(|p| matches!(p.first(), Some(6 | 8))) {
                check_serf(name, &payload);
            }
        }
        SerfMessage::Leave(_)
        | SerfMessage::Join(_)
        | SerfMessage::PushPull(_)
        | SerfMessage::UserEvent(_)
        | SerfMessage::Query(_)
        | SerfMessage::ConflictResponse(_)
        | SerfMessage::KeyRequest(_)
        | SerfMessage::KeyResponse(_) => {}
    }
}

fn check_meta(name: &str, meta: &Bytes) {
    let tags = decode_tags(meta).unwrap_or_else(|error| panic!("{name}: {error}"));
    if meta.first() == Some(&0xff) {
        let encoded = encode_tags(&tags).unwrap();
        assert_eq!(canonical(&encoded[1..]), canonical(&meta[1..]), "{name}");
    }
}

fn decode(name: &str, packet: &Bytes) -> Vec<Message> {
    let decoded: Result<Vec<Message>, DecodeError> = decode_packet(packet).into_iter().collect();
    let messages = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
    for message in &messages {
        match message {
            Message::User(payload) => check_serf(name, payload),
            Message::Alive(alive) => check_meta(name, &alive.meta),
            Message::Ping(_)
            | Message::IndirectPing(_)
            | Message::Ack(_)
            | Message::Nack(_)
            | Message::Suspect(_)
            | Message::Dead(_) => {}
        }
    }
    messages
}

#[test]
fn captured_datagrams_encode_to_the_same_bytes() {
    let vectors = load("udp-plain");
    assert_eq!(vectors.len(), 101);
    let mut compressed = 0;
    for Vector { name, bytes, .. } in vectors {
        let (shape, messages) = (Shape::of(&bytes), decode(&name, &bytes));
        compressed += usize::from(shape.compressed);
        assert_eq!(encode_like(&shape, &messages, None), bytes, "{name}");
        if let Some((structure, _)) = name.split_once('#') {
            assert_eq!(describe(&shape, &messages), structure);
        }
    }
    assert_eq!(compressed, 11);
}

fn nonce(sealed: &[u8]) -> [u8; NONCE_BYTES] {
    sealed[1..=NONCE_BYTES].try_into().unwrap()
}

#[test]
fn encrypted_datagrams_open_and_seal_to_the_same_bytes() {
    let keys = [key("K2"), key("K1")];
    let opener = Opener { label: &[], keys: &keys, verify: true };
    let vectors = load("encrypted").into_iter().filter(|vector| vector.transport == "udp");
    let mut count = 0;
    for Vector { name, bytes, key: key_name, .. } in vectors {
        count += 1;
        let packet = opener.open(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).packet;
        let (shape, messages) = (Shape::of(&packet), decode(&name, &packet));
        let own = key(&key_name);
        if name == "probe-v0-pkcs7" {
            let mut again = Vec::new();
            own.seal(SealVersion::Padded, nonce(&bytes), &[], &[&packet], &mut again);
            assert_eq!(again, bytes);
            continue;
        }
        let sealing = Some((&own, nonce(&bytes)));
        assert_eq!(encode_like(&shape, &messages, sealing), bytes, "{name}");
        if let Some((structure, _)) = name.split_once('|') {
            assert_eq!(describe(&shape, &messages), structure);
        }
        let others: Vec<Key> = keys.iter().filter(|key| **key != own).cloned().collect();
        assert!(Opener { keys: &others, ..opener }.open(&bytes).is_err(), "{name}");
    }
    assert_eq!(count, 39);
}

/// Decodes a stream in two pieces and encodes its message again.
fn check_stream(vector: &Vector, opener: &Opener<'_>, layers: &Layers<'_>) {
    let Vector { name, bytes, .. } = vector;
    let mut decoder = StreamDecoder::accepted();
    let (last, start) = bytes.split_last().unwrap();
    assert_eq!(decoder.feed(start, opener), Ok(None), "{name}");
    let message = decoder.feed(&[*last], opener).unwrap().unwrap();
    let again = Wrapper::default().stream(&message.encode(), true, layers);
    assert_eq!(again.as_ref(), Ok(bytes), "{name}");
    match &message {
        StreamMessage::PushPull(exchange) => {
            let states = exchange.states.decode().unwrap();
            states.iter().for_each(|state| check_meta(name, &state.meta));
            if !exchange.user_state.is_empty() {
                check_serf(name, &exchange.user_state);
            }
        }
        StreamMessage::User(payload) => check_serf(name, payload),
        StreamMessage::Ping(_) | StreamMessage::Ack(_) | StreamMessage::Err(_) => {}
    }
}

#[test]
fn captured_streams_encode_to_the_same_bytes() {
    let vectors = load("tcp-plain");
    assert_eq!(vectors.len(), 25);
    let compressed = |vector: &Vector| vector.bytes.first() == Some(&COMPRESS);
    assert_eq!(vectors.iter().filter(|vector| compressed(vector)).count(), 13);
    for vector in vectors {
        let layers = Layers { label: &[], key: None, compress: compressed(&vector) };
        check_stream(&vector, &Opener::PLAIN, &layers);
    }
}

#[test]
fn encrypted_streams_open_and_seal_to_the_same_bytes() {
    let keys = [key("K2"), key("K1")];
    let opener = Opener { label: &[], keys: &keys, verify: true };
    let vectors = load("encrypted").into_iter().filter(|vector| vector.transport == "tcp");
    let mut count = 0;
    for vector in vectors {
        count += 1;
        let own = key(&vector.key);
        // The hand-made ping alone is not compressed.
        let compress = vector.name != "tcp-ping-encrypted-request";
        let key = Some((&own, nonce(&vector.bytes[5..])));
        check_stream(&vector, &opener, &Layers { label: &[], key, compress });
    }
    assert_eq!(count, 5);
}

#[test]
fn computed_layers_are_put_on_and_taken_off() {
    let (own, label) = (key(""), b"prod1".as_slice());
    let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let plain_layers = Layers { label: &[], key: None, compress: false };
    let sealing = Layers { key: Some((&own, nonce)), ..plain_layers };
    for Vector { name, bytes, plain, .. } in load("computed") {
        let mut wrapper = Wrapper::default();
        let made: Bytes = match name.as_str() {
            "label-plain-udp" => wrapper.datagram(&plain, false, &Layers { label, ..plain_layers }),
            "label-encrypted-udp" => wrapper.datagram(&plain, false, &Layers { label, ..sealing }),
            "label-encrypted-tcp" => {
                wrapper.stream(&plain, true, &Layers { label, ..sealing }).unwrap()
            }
            "label-encrypted-tcp-reply" => {
                wrapper.stream(&plain, false, &Layers { label, ..sealing }).unwrap()
            }
            "encrypt-v0-udp" => {
                let mut out = Vec::new();
                own.seal(SealVersion::Padded, nonce, &[], &[&plain], &mut out);
                out.into()
            }
            "crc-order" => wrapper.datagram(&plain, true, &plain_layers),
            _ => {
                assert!(name.starts_with("lzw-"), "{name}");
                let mut layer = Vec::new();
                Compressor::default().compress(&plain, &mut layer);
                assert_eq!(decompress(&layer[1..], plain.len()), Ok(plain), "{name}");
                assert!(layer.ends_with(&bytes), "{name}");
                continue;
            }
        };
        assert_eq!(made, bytes, "{name}");
    }
}

/// What the real agent did shows whether it could read the message: these it could not, or not
/// as a plain agent; every other one decodes.
#[test]
fn hand_made_messages_are_read_or_refused_as_by_a_real_agent() {
    let unknown = |value| DecodeError::Unknown { field: "message type", value };
    let mut refused = 0;
    for Vector { name, transport, bytes, .. } in load("probes") {
        let result: Result<usize, DecodeError> = if transport == "tcp" {
            let fed = StreamDecoder::accepted().feed(&bytes, &Opener::PLAIN);
            fed.map(|message| message.iter().len()).map_err(|error| match error {
                StreamError::Unreadable(error) | StreamError::Malformed(error) => error,
            })
        } else {
            Opener::PLAIN.open(&bytes).and_then(|opened| {
                let messages: Result<Vec<Message>, _> =
                    decode_packet(&opened.packet).into_iter().collect();
                messages.map(|messages| messages.len())
            })
        };
        let expected = match name.as_str() {
            "ping-bin8-node" => {
                Err(DecodeError::Invalid { field: "Node", rule: "gossip has no bin type" })
            }
            "crc-ping-bad" => Err(DecodeError::Checksum { field: "crc" }),
            "compressed-crc-ping" => Err(unknown(12)),
            "compound-truncated" => Err(DecodeError::Truncated { field: "compound" }),
            "label-ping" | "encrypted-agent-label-plain" => {
                Err(DecodeError::Invalid { field: "label", rule: "is not this cluster's" })
            }
            "tcp-encrypted-on-plain" => {
                let rule = "the message is encrypted, but gossip is not here";
                Err(DecodeError::Layer { layer: "encryption", rule })
            }
            "tcp-bad-type" => Err(unknown(99)),
            _ => Ok(1),
        };
        refused += usize::from(expected.is_err());
        assert_eq!(result, expected, "{name}");
        if name == "compound-truncated" {
            assert!(decode_packet(&bytes)[0].is_ok(), "the part before the cut is kept");
        }
    }
    assert_eq!(refused, 8);
}
