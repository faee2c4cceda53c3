//! Serf: the input is a whole message and, once more, a member's meta and an event's payload.

use bytes::Bytes;
use terraform_core::wire::event::EventPayload;
use terraform_core::wire::serf::{SerfMessage, decode_tags, encode_tags};

/// What decodes survives its encoding.
pub fn serf_wire(data: &[u8]) {
    if let Ok(message) = SerfMessage::decode(&Bytes::copy_from_slice(data)) {
        let again = SerfMessage::decode(&message.encode());
        assert_eq!(again, Ok(message), "a message survives its encoding");
    }
    if let Ok(tags) = decode_tags(data)
        && let Ok(meta) = encode_tags(&tags)
    {
        assert_eq!(decode_tags(&meta), Ok(tags), "tags survive their meta");
    }
    if let Ok(event) = EventPayload::decode(data) {
        let again = EventPayload::decode(&event.encode());
        assert_eq!(again, Ok(event), "an event survives its encoding");
    }
}
