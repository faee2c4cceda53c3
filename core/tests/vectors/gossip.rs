//! Captured gossip: what real agents sent decodes, and encodes again to the same bytes.
//!
//! Vectors: gossip-wire.md §13, those without compression and encryption. Entries of real maps
//! come in random order and are compared as sets (DESIGN.md §8, vectors "byte for byte");
//! hand-made vectors are decoded or refused as the real agent did.

use crate::common::{Vector, canonical, load};
use bytes::Bytes;
use terraform_core::wire::DecodeError;
use terraform_core::wire::checksum::{HAS_CRC, with_crc};
use terraform_core::wire::compound::{COMPOUND, compound};
use terraform_core::wire::gossip::{Message, StreamMessage};
use terraform_core::wire::packet::decode_datagram;
use terraform_core::wire::serf::{SerfMessage, decode_tags, encode_tags};
use terraform_core::wire::stream::StreamDecoder;

/// Encodes a datagram's messages under the same layers as the original.
fn encode_like(original: &Bytes, messages: &[Message]) -> Bytes {
    let parts: Vec<Bytes> = messages.iter().map(Message::encode).collect();
    let packets = compound(&parts);
    assert_eq!(packets.len(), 1);
    if original.first() == Some(&HAS_CRC) { with_crc(&packets[0]) } else { packets[0].clone() }
}

/// What a datagram holds, in the notation of the vectors' names.
fn describe(original: &Bytes, messages: &[Message]) -> String {
    let inner: Vec<String> = messages.iter().map(describe_message).collect();
    let plain =
        if original.first() == Some(&HAS_CRC) { original.slice(5..) } else { original.clone() };
    let inner = match plain.first() {
        Some(&COMPOUND) => format!("compound[{}]", inner.join(",")),
        _ => inner.join(","),
    };
    if plain == *original { inner } else { format!("crc>{inner}") }
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

#[test]
fn captured_datagrams_encode_to_the_same_bytes() {
    let vectors = load("udp-plain");
    assert_eq!(vectors.len(), 90);
    for Vector { name, bytes, .. } in vectors {
        let decoded: Result<Vec<Message>, DecodeError> =
            decode_datagram(&bytes).into_iter().collect();
        let messages = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(encode_like(&bytes, &messages), bytes, "{name}");
        if let Some((structure, _)) = name.split_once('#') {
            assert_eq!(describe(&bytes, &messages), structure);
        }
        for message in &messages {
            match message {
                Message::User(payload) => check_serf(&name, payload),
                Message::Alive(alive) => check_meta(&name, &alive.meta),
                Message::Ping(_)
                | Message::IndirectPing(_)
                | Message::Ack(_)
                | Message::Nack(_)
                | Message::Suspect(_)
                | Message::Dead(_) => {}
            }
        }
    }
}

#[test]
fn captured_streams_encode_to_the_same_bytes() {
    let vectors = load("tcp-plain");
    assert_eq!(vectors.len(), 12);
    for Vector { name, bytes, .. } in vectors {
        let mut decoder = StreamDecoder::new();
        let (last, start) = bytes.split_last().unwrap();
        assert_eq!(decoder.feed(start), Ok(None), "{name}");
        let message = decoder.feed(&[*last]).unwrap().unwrap();
        assert_eq!(message.encode(), bytes, "{name}");
        match &message {
            StreamMessage::PushPull(exchange) => {
                exchange.states.iter().for_each(|state| check_meta(&name, &state.meta));
                if !exchange.user_state.is_empty() {
                    check_serf(&name, &exchange.user_state);
                }
            }
            StreamMessage::User(payload) => check_serf(&name, payload),
            StreamMessage::Ping(_) | StreamMessage::Ack(_) | StreamMessage::Err(_) => {}
        }
    }
}

/// What the real agent did shows whether it could read the message: these it could not, or not
/// as a plain agent; every other one decodes.
#[test]
fn hand_made_messages_are_read_or_refused_as_by_a_real_agent() {
    let layer = |layer| DecodeError::Layer { layer };
    let unknown = |value| DecodeError::Unknown { field: "message type", value };
    let mut refused = 0;
    for Vector { name, transport, bytes, .. } in load("probes") {
        let result: Result<usize, DecodeError> = if transport == "tcp" {
            StreamDecoder::new().feed(&bytes).map(|message| message.iter().len())
        } else {
            let messages: Result<Vec<Message>, _> = decode_datagram(&bytes).into_iter().collect();
            messages.map(|messages| messages.len())
        };
        let expected = match name.as_str() {
            "ping-bin8-node" => {
                Err(DecodeError::Invalid { field: "Node", rule: "gossip has no bin type" })
            }
            "crc-ping-bad" => Err(DecodeError::Checksum { field: "crc" }),
            "compressed-ping" | "crc-compressed-ping" | "compressed-crc-ping" => {
                Err(layer("compression"))
            }
            "compound-truncated" => Err(DecodeError::Truncated { field: "compound" }),
            "label-ping" | "encrypted-agent-label-plain" => Err(layer("label")),
            "tcp-encrypted-on-plain" => Err(layer("encryption")),
            "tcp-bad-type" => Err(unknown(99)),
            _ => Ok(1),
        };
        refused += usize::from(expected.is_err());
        assert_eq!(result, expected, "{name}");
        if name == "compound-truncated" {
            assert!(decode_datagram(&bytes)[0].is_ok(), "the part before the cut is kept");
        }
    }
    assert_eq!(refused, 10);
}
