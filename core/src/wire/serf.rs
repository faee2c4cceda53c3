//! The messages of Serf, carried by gossip's user messages (gossip-wire.md §11).
//!
//! A type byte, then a msgpack map; a relay is a map and then another whole message. Tags travel
//! in a member's meta, coordinates in acks. What events, queries and key operations do is not
//! decided here.

use super::DecodeError;
use super::gossip::META_BYTES_MAX;
use super::msgpack::{self, Field, FloatBits, Gossip, Nullable, message};
use super::pack::Reader;
use crate::coordinate::{Coordinate, DIMENSIONS};
use crate::id::{LamportTime, NodeName};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use thiserror::Error;

/// Slots of the ring in which a Serf agent remembers events, as it sends it (§11.2).
pub const EVENT_SLOTS: usize = 512;

/// Marks a meta that holds tags (§11.3).
pub(super) const TAGS_MAGIC: u8 = 0xff;

mod kind {
    pub(super) const LEAVE: u8 = 0;
    pub(super) const JOIN: u8 = 1;
    pub(super) const PUSH_PULL: u8 = 2;
    pub(super) const USER_EVENT: u8 = 3;
    pub(super) const QUERY: u8 = 4;
    pub(super) const QUERY_RESPONSE: u8 = 5;
    pub(super) const CONFLICT_RESPONSE: u8 = 6;
    pub(super) const KEY_REQUEST: u8 = 7;
    pub(super) const KEY_RESPONSE: u8 = 8;
    pub(super) const RELAY: u8 = 9;
}

/// A member leaves on purpose, or is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Member clock.
    pub time: LamportTime,
    /// Who leaves.
    pub node: NodeName,
    /// Whether to forget it at once.
    pub prune: bool,
}
message!(Gossip, Leave { "LTime" => time, "Node" => node, "Prune" => prune });

/// A member joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Member clock.
    pub time: LamportTime,
    /// Who joins.
    pub node: NodeName,
}
message!(Gossip, Join { "LTime" => time, "Node" => node });

/// One event in a slot of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentEvent {
    /// Its name.
    pub name: String,
    /// Its content.
    pub payload: Option<Bytes>,
}
message!(Gossip, RecentEvent { "Name" => name, "Payload" => payload });

/// The events of one Lamport time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSlot {
    /// The events.
    pub events: Vec<RecentEvent>,
    /// Event clock.
    pub time: LamportTime,
}
message!(Gossip, EventSlot { "Events" => events, "LTime" => time });
impl Nullable for EventSlot {}

/// Serf's part of a state exchange. The three clocks are the sender's present values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushPull {
    /// Event clock.
    pub event_time: LamportTime,
    /// Recent events; a real agent sends [`EVENT_SLOTS`] slots, most of them empty.
    pub events: Option<Vec<Option<EventSlot>>>,
    /// Member clock.
    pub time: LamportTime,
    /// Members that left.
    pub left_members: Vec<NodeName>,
    /// Query clock.
    pub query_time: LamportTime,
    /// Each member's last intent, by name; zero if there was none.
    pub status_times: BTreeMap<String, LamportTime>,
}
message!(Gossip, PushPull {
    "EventLTime" => event_time,
    "Events" => events,
    "LTime" => time,
    "LeftMembers" => left_members,
    "QueryLTime" => query_time,
    "StatusLTimes" => status_times,
});

/// An event that a user fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// Whether events of this name may be merged into the newest.
    pub coalesce: bool,
    /// Event clock.
    pub time: LamportTime,
    /// Its name.
    pub name: String,
    /// Its content.
    pub payload: Option<Bytes>,
}
message!(Gossip, UserEvent {
    "CC" => coalesce,
    "LTime" => time,
    "Name" => name,
    "Payload" => payload,
});

/// A question to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where answers go.
    pub address: IpAddr,
    /// Who should answer: type byte and value each (§11.4).
    pub filters: Option<Vec<Bytes>>,
    /// Bit 0: acknowledge; bit 1: do not spread.
    pub flags: u32,
    /// With `time`, identifies the query.
    pub id: u32,
    /// Query clock.
    pub time: LamportTime,
    /// Its name.
    pub name: String,
    /// Its content.
    pub payload: Option<Bytes>,
    /// Where answers go.
    pub port: u16,
    /// How many relays each answer takes besides.
    pub relay_factor: u8,
    /// Who asks, if it says so.
    pub source_node: Option<NodeName>,
    /// How long answers are taken.
    pub timeout: Duration,
}
message!(Gossip, Query {
    "Addr" => address,
    "Filters" => filters,
    "Flags" => flags,
    "ID" => id,
    "LTime" => time,
    "Name" => name,
    "Payload" => payload,
    "Port" => port,
    "RelayFactor" => relay_factor,
    "SourceNode" => source_node,
    "Timeout" => timeout,
});

/// Asks for an acknowledgement (§11.4); in an answer, says that it is nothing else.
pub const FLAG_ACK: u32 = 1;
/// Asks receivers not to spread the query (§11.4).
pub const FLAG_NO_BROADCAST: u32 = 2;

/// Who should answer a query (§11.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryFilter {
    /// Members of these names.
    Nodes(Vec<String>),
    /// Members whose tag matches.
    Tag {
        /// Which tag.
        tag: String,
        /// The expression its value must match somewhere.
        expression: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TagFilter {
    expression: String,
    tag: String,
}
message!(Gossip, TagFilter { "Expr" => expression, "Tag" => tag });

mod filter {
    pub(super) const NODES: u8 = 0;
    pub(super) const TAG: u8 = 1;
}

impl QueryFilter {
    /// The filter with its type byte.
    pub fn encode(&self) -> Bytes {
        let bytes = match self.clone() {
            Self::Nodes(names) => put(filter::NODES, &names),
            Self::Tag { tag, expression } => put(filter::TAG, &TagFilter { expression, tag }),
        };
        bytes.into()
    }

    /// Reads one filter with its type byte.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let field = "query filter";
        let (kind, body) = bytes.split_first().ok_or(DecodeError::Truncated { field })?;
        match *kind {
            filter::NODES => msgpack::decode::<Gossip, _>(body).map(Self::Nodes),
            filter::TAG => {
                let TagFilter { expression, tag } = msgpack::decode::<Gossip, _>(body)?;
                Ok(Self::Tag { tag, expression })
            }
            value => Err(DecodeError::Unknown { field, value: value.into() }),
        }
    }
}

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryResponse {
    /// Bit 0: only an acknowledgement.
    pub flags: u32,
    /// Who answers.
    pub from: NodeName,
    /// The query's.
    pub id: u32,
    /// The query's.
    pub time: LamportTime,
    /// The answer.
    pub payload: Option<Bytes>,
}
message!(Gossip, QueryResponse {
    "Flags" => flags,
    "From" => from,
    "ID" => id,
    "LTime" => time,
    "Payload" => payload,
});

/// A member as the asked one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its address.
    pub address: IpAddr,
    /// Serf protocol spoken.
    pub delegate: u8,
    /// Highest Serf protocol understood.
    pub delegate_max: u8,
    /// Lowest Serf protocol understood.
    pub delegate_min: u8,
    /// Its name.
    pub name: NodeName,
    /// Its port.
    pub port: u16,
    /// Protocol spoken.
    pub protocol: u8,
    /// Highest protocol understood.
    pub protocol_max: u8,
    /// Lowest protocol understood.
    pub protocol_min: u8,
    /// 0 none, then as `MemberStatus::code`.
    pub status: u8,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}
message!(Gossip, MemberRecord {
    "Addr" => address,
    "DelegateCur" => delegate,
    "DelegateMax" => delegate_max,
    "DelegateMin" => delegate_min,
    "Name" => name,
    "Port" => port,
    "ProtocolCur" => protocol,
    "ProtocolMax" => protocol_max,
    "ProtocolMin" => protocol_min,
    "Status" => status,
    "Tags" => tags,
});
impl Nullable for MemberRecord {}

/// A key operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// The raw key; empty to list.
    pub key: Bytes,
}
message!(Gossip, KeyRequest { "Key" => key });

/// The outcome of a key operation on one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyResponse {
    /// Its keys in base64, when listed.
    pub keys: Option<Vec<String>>,
    /// What went wrong, or empty.
    pub message: String,
    /// Its primary key in base64, when listed.
    pub primary_key: String,
    /// Whether it worked.
    pub result: bool,
}
message!(Gossip, KeyResponse {
    "Keys" => keys,
    "Message" => message,
    "PrimaryKey" => primary_key,
    "Result" => result,
});

#[derive(Clone, Debug, PartialEq, Eq)]
struct UdpAddress {
    ip: IpAddr,
    port: u16,
    zone: String,
}
message!(Gossip, UdpAddress { "IP" => ip, "Port" => port, "Zone" => zone });

#[derive(Clone, Debug, PartialEq, Eq)]
struct RelayHeader {
    address: UdpAddress,
    name: Option<NodeName>,
}
message!(Gossip, RelayHeader { "DestAddr" => address, "DestName" => name });

/// A message to be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// To which address.
    pub address: IpAddr,
    /// To which port.
    pub port: u16,
    /// The scope of an IPv6 address; usually empty.
    pub zone: String,
    /// To whom, if the sender says so.
    pub name: Option<NodeName>,
    /// The whole Serf message, unread.
    pub message: Bytes,
}

/// One Serf message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfMessage {
    /// A member leaves.
    Leave(Leave),
    /// A member joins.
    Join(Join),
    /// Serf's part of a state exchange.
    PushPull(PushPull),
    /// An event that a user fired.
    UserEvent(UserEvent),
    /// A question to the members.
    Query(Query),
    /// An answer to a query.
    QueryResponse(QueryResponse),
    /// Who has a name, as the payload of an answer; `None` if unknown.
    ConflictResponse(Option<MemberRecord>),
    /// A key operation, as the payload of a query.
    KeyRequest(KeyRequest),
    /// Its outcome, as the payload of an answer.
    KeyResponse(KeyResponse),
    /// A message to be passed on.
    Relay(Relay),
}

fn put<T: Field<Gossip>>(kind: u8, body: &T) -> Vec<u8> {
    let mut out = vec![kind];
    body.put(&mut out);
    out
}

impl SerfMessage {
    /// The message with its type byte.
    pub fn encode(&self) -> Bytes {
        let bytes = match self {
            Self::Leave(body) => put(kind::LEAVE, body),
            Self::Join(body) => put(kind::JOIN, body),
            Self::PushPull(body) => put(kind::PUSH_PULL, body),
            Self::UserEvent(body) => put(kind::USER_EVENT, body),
            Self::Query(body) => put(kind::QUERY, body),
            Self::QueryResponse(body) => put(kind::QUERY_RESPONSE, body),
            Self::ConflictResponse(body) => put(kind::CONFLICT_RESPONSE, body),
            Self::KeyRequest(body) => put(kind::KEY_REQUEST, body),
            Self::KeyResponse(body) => put(kind::KEY_RESPONSE, body),
            Self::Relay(relay) => {
                let Relay { address: ip, port, zone, name, message } = relay.clone();
                let header = RelayHeader { address: UdpAddress { ip, port, zone }, name };
                let mut out = put(kind::RELAY, &header);
                out.extend_from_slice(&message);
                out
            }
        };
        bytes.into()
    }

    /// Reads one message with its type byte.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let field = "serf message";
        let (kind, body) = bytes.split_first().ok_or(DecodeError::Truncated { field })?;
        Ok(match *kind {
            kind::LEAVE => Self::Leave(msgpack::decode(body)?),
            kind::JOIN => Self::Join(msgpack::decode(body)?),
            kind::PUSH_PULL => Self::PushPull(msgpack::decode(body)?),
            kind::USER_EVENT => Self::UserEvent(msgpack::decode(body)?),
            kind::QUERY => Self::Query(msgpack::decode(body)?),
            kind::QUERY_RESPONSE => Self::QueryResponse(msgpack::decode(body)?),
            kind::CONFLICT_RESPONSE => Self::ConflictResponse(msgpack::decode(body)?),
            kind::KEY_REQUEST => Self::KeyRequest(msgpack::decode(body)?),
            kind::KEY_RESPONSE => Self::KeyResponse(msgpack::decode(body)?),
            kind::RELAY => {
                let mut input = Reader::new(body);
                let RelayHeader { address, name } = RelayHeader::get(&mut input)?;
                let UdpAddress { ip, port, zone } = address;
                let message = bytes.slice_ref(input.take(input.remaining())?);
                Self::Relay(Relay { address: ip, port, zone, name, message })
            }
            value => return Err(DecodeError::Unknown { field, value: value.into() }),
        })
    }
}

/// The tags do not fit into a member's meta. Nothing changed; the operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Encoded length of tags exceeds limit of {META_BYTES_MAX} bytes")]
pub struct TagsTooLong {
    /// Bytes they take.
    pub bytes: usize,
}

/// The meta that says these tags: `ff` and a map, at most 512 bytes (§11.3).
pub fn encode_tags(tags: &BTreeMap<String, String>) -> Result<Bytes, TagsTooLong> {
    let out = put_tags(tags);
    match out.len() {
        ..=META_BYTES_MAX => Ok(out),
        bytes => Err(TagsTooLong { bytes }),
    }
}

/// Writes tags, however long.
pub(super) fn put_tags(tags: &BTreeMap<String, String>) -> Bytes {
    let mut out = vec![TAGS_MAGIC];
    Field::<Gossip>::put(tags, &mut out);
    out.into()
}

/// The tags that a meta says; one without the mark is the value of the tag `role` (§11.3).
pub fn decode_tags(meta: &[u8]) -> Result<BTreeMap<String, String>, DecodeError> {
    if let Some((&TAGS_MAGIC, map)) = meta.split_first() {
        return msgpack::decode::<Gossip, _>(map);
    }
    let invalid = DecodeError::Invalid { field: "Meta", rule: "is not UTF-8" };
    let role = std::str::from_utf8(meta).map_err(|_| invalid)?;
    Ok(BTreeMap::from([("role".to_owned(), role.to_owned())]))
}

/// Marks an ack's payload that holds a coordinate (§11.9).
const COORDINATE_VERSION: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
struct CoordinateRecord {
    adjustment: FloatBits,
    error: FloatBits,
    height: FloatBits,
    position: Vec<FloatBits>,
}
message!(Gossip, CoordinateRecord {
    "Adjustment" => adjustment,
    "Error" => error,
    "Height" => height,
    "Vec" => position,
});

/// The payload of an ack that says this coordinate (§11.9).
pub fn encode_coordinate(coordinate: &Coordinate) -> Bytes {
    let bits = |number: f64| FloatBits(number.to_bits());
    let record = CoordinateRecord {
        adjustment: bits(coordinate.adjustment()),
        error: bits(coordinate.error()),
        height: bits(coordinate.height()),
        position: coordinate.position().iter().copied().map(bits).collect(),
    };
    put(COORDINATE_VERSION, &record).into()
}

/// The coordinate that an ack's payload says.
///
/// - Errors: another version, another number of dimensions, a number that is not finite.
pub fn decode_coordinate(payload: &[u8]) -> Result<Coordinate, DecodeError> {
    let field = "coordinate";
    let (version, map) = payload.split_first().ok_or(DecodeError::Truncated { field })?;
    if *version != COORDINATE_VERSION {
        return Err(DecodeError::Unknown { field, value: (*version).into() });
    }
    let record: CoordinateRecord = msgpack::decode(map)?;
    let number = |bits: FloatBits| f64::from_bits(bits.0);
    let position: Vec<f64> = record.position.into_iter().map(number).collect();
    let dimensions = DecodeError::Invalid { field: "Vec", rule: "eight dimensions are needed" };
    let position = <[f64; DIMENSIONS]>::try_from(position).map_err(|_| dimensions)?;
    let [error, height, adjustment] = [record.error, record.height, record.adjustment].map(number);
    let infinite = DecodeError::Invalid { field, rule: "holds a number that is not finite" };
    Coordinate::new(position, error, height, adjustment).ok_or(infinite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn meta_without_the_mark_is_the_role() {
        assert_eq!(decode_tags(b"web").unwrap()["role"], "web");
        assert_eq!(decode_tags(b"").unwrap()["role"], "");
        assert_eq!(decode_tags(&[0xff, 0x80]), Ok(BTreeMap::new()));
        assert!(decode_tags(&[0xff]).is_err());
        assert!(decode_tags(&[0xc0, 0xfe]).is_err());
    }

    #[test]
    fn tags_are_refused_above_512_bytes() {
        let tags = |len| BTreeMap::from([("k".to_owned(), "v".repeat(len))]);
        let longest = 512 - 1 - 1 - 2 - 3;
        assert_eq!(encode_tags(&tags(longest)).map(|meta| meta.len()), Ok(512));
        assert_eq!(encode_tags(&tags(longest + 1)), Err(TagsTooLong { bytes: 513 }));
    }

    #[test]
    fn a_coordinate_has_the_captured_form_and_is_refused_beyond_its_rules() {
        let payload = encode_coordinate(&Coordinate::ORIGIN);
        assert_eq!(payload.len(), 130);
        assert_eq!(decode_coordinate(&payload), Ok(Coordinate::ORIGIN));
        let version = DecodeError::Unknown { field: "coordinate", value: 2 };
        assert_eq!(decode_coordinate(&[2, 0x80]), Err(version));
        let rule = "eight dimensions are needed";
        assert_eq!(decode_coordinate(&[1, 0x80]), Err(DecodeError::Invalid { field: "Vec", rule }));
        let mut infinite = payload.to_vec();
        let last = infinite.len() - 8;
        infinite[last..].copy_from_slice(&f64::INFINITY.to_be_bytes());
        let rule = "holds a number that is not finite";
        let refused = DecodeError::Invalid { field: "coordinate", rule };
        assert_eq!(decode_coordinate(&infinite), Err(refused));
    }

    proptest! {
        #[test]
        fn tags_survive_their_meta(tags in prop::collection::btree_map(".{0,40}", ".{0,40}", 0..4)) {
            if let Ok(meta) = encode_tags(&tags) {
                prop_assert_eq!(decode_tags(&meta), Ok(tags));
            }
        }

        #[test]
        fn arbitrary_messages_never_panic(
            kind in 0_u8..11,
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = Bytes::from([&[kind], body.as_slice()].concat());
            if let Ok(decoded) = SerfMessage::decode(&message) {
                prop_assert_eq!(SerfMessage::decode(&decoded.encode()), Ok(decoded));
            }
        }
    }
}
