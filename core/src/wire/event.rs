//! What a user event of Serf carries when it is one of the HTTP interface.
//!
//! A map with Consul's keys, in gossip's flavour of msgpack, so that agents of both programs in
//! one pool list each other's events. Empty filters and payloads are left out.

use super::DecodeError;
use super::msgpack::{Gossip, decode, encode, message};
use bytes::Bytes;

/// The payload of a `consul:event:NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPayload {
    /// A UUID as text.
    pub id: String,
    /// The event's name.
    pub name: String,
    /// Which nodes it is for; empty stands for all.
    pub node_filter: String,
    /// What is told.
    pub payload: Option<Bytes>,
    /// Nodes with which services it is for; empty stands for all.
    pub service_filter: String,
    /// Which tags these services have; empty stands for any.
    pub tag_filter: String,
    /// The version of this format, 1.
    pub version: u64,
}
message!(Gossip, EventPayload {
    "ID" => id, "n" => name, "nf" => node_filter omitempty, "p" => payload omitempty,
    "sf" => service_filter omitempty, "tf" => tag_filter omitempty, "v" => version,
});

impl EventPayload {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        encode::<Gossip, _>(self)
    }

    /// Reads exactly one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::<Gossip, _>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out_and_unknown_keys_are_skipped() {
        let event = EventPayload {
            id: "i".to_owned(),
            name: "deploy".to_owned(),
            tag_filter: "t".to_owned(),
            version: 1,
            ..EventPayload::default()
        };
        assert_eq!(&*event.encode(), b"\x84\xa2ID\xa1i\xa1n\xa6deploy\xa2tf\xa1t\xa1v\x01");
        assert_eq!(EventPayload::decode(&event.encode()), Ok(event.clone()));
        let more = b"\x85\xa2ID\xa1i\xa1n\xa6deploy\xa2tf\xa1t\xa1v\x01\xa1x\x93\x01\x02\x03";
        assert_eq!(EventPayload::decode(more), Ok(event));
        assert!(EventPayload::decode(b"\x81\xa1n\x01").is_err());
    }
}
