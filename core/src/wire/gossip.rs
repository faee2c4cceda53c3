//! The messages of memberlist: one type byte, then a msgpack map (gossip-wire.md §3).
//!
//! [`Message`] is what a datagram carries, [`StreamMessage`] what a stream carries. The layers
//! around them are [`super::packet`]'s and [`super::stream`]'s; the content of user messages is
//! [`super::serf`]'s.

use super::DecodeError;
use super::msgpack::{self, Field, Flavour, Gossip, message};
use super::pack::{Reader, put_unsigned};
use crate::gossip::Versions;
use crate::id::{Incarnation, NodeName, SeqNo};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// Bytes of meta a member may have (gossip-wire.md §3).
pub const META_BYTES_MAX: usize = 512;

/// The type bytes of messages (gossip-wire.md §1).
pub(super) mod kind {
    pub(crate) const PING: u8 = 0;
    pub(crate) const INDIRECT_PING: u8 = 1;
    pub(crate) const ACK: u8 = 2;
    pub(crate) const SUSPECT: u8 = 3;
    pub(crate) const ALIVE: u8 = 4;
    pub(crate) const DEAD: u8 = 5;
    pub(crate) const PUSH_PULL: u8 = 6;
    pub(crate) const USER: u8 = 8;
    pub(crate) const COMPRESS: u8 = 9;
    pub(crate) const ENCRYPT: u8 = 10;
    pub(crate) const NACK: u8 = 11;
    pub(crate) const ERR: u8 = 13;
    pub(crate) const LABEL: u8 = 244;
}

/// Asks a member whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The answer repeats it.
    pub seq_no: SeqNo,
    /// Whom the sender means; a member of another name does not answer.
    pub node: Option<NodeName>,
    /// The sender's address, if it says so.
    pub source_address: Option<IpAddr>,
    /// The sender's port; zero if it does not say so.
    pub source_port: u16,
    /// The sender's name, if it says so.
    pub source_node: Option<NodeName>,
}
message!(Gossip, Ping {
    "Node" => node,
    "SeqNo" => seq_no,
    "SourceAddr" => source_address omitempty,
    "SourceNode" => source_node omitempty,
    "SourcePort" => source_port omitempty,
});

impl Ping {
    /// Where the sender wants its answer, if it said both address and port.
    pub fn source(&self) -> Option<SocketAddr> {
        source(self.source_address, self.source_port)
    }
}

fn source(address: Option<IpAddr>, port: u16) -> Option<SocketAddr> {
    address.filter(|_| port != 0).map(|ip| SocketAddr::new(ip, port))
}

/// Asks a member to ping another and to pass its answer on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndirectPing {
    /// The answer repeats it.
    pub seq_no: SeqNo,
    /// The other member's address.
    pub target: IpAddr,
    /// The other member's port; zero stands for the receiver's own.
    pub port: u16,
    /// The other member's name.
    pub node: Option<NodeName>,
    /// Whether the sender understands a nack.
    pub nack: bool,
    /// The sender's address, if it says so.
    pub source_address: Option<IpAddr>,
    /// The sender's port; zero if it does not say so.
    pub source_port: u16,
    /// The sender's name, if it says so.
    pub source_node: Option<NodeName>,
}
message!(Gossip, IndirectPing {
    "Nack" => nack,
    "Node" => node,
    "Port" => port,
    "SeqNo" => seq_no,
    "SourceAddr" => source_address omitempty,
    "SourceNode" => source_node omitempty,
    "SourcePort" => source_port omitempty,
    "Target" => target,
});

impl IndirectPing {
    /// Where the sender wants its answer, if it said both address and port.
    pub fn source(&self) -> Option<SocketAddr> {
        source(self.source_address, self.source_port)
    }
}

/// Answers a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The ping's number.
    pub seq_no: SeqNo,
    /// What the application adds: Serf's coordinate.
    pub payload: Option<Bytes>,
}
message!(Gossip, Ack { "Payload" => payload, "SeqNo" => seq_no });

/// Tells that an indirect ping got no answer in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The indirect ping's number.
    pub seq_no: SeqNo,
}
message!(Gossip, Nack { "SeqNo" => seq_no });

/// Tells that a member may be dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The incarnation that is suspected.
    pub incarnation: Incarnation,
    /// Who is suspected.
    pub node: NodeName,
    /// Who suspected first.
    pub from: NodeName,
}
message!(Gossip, Suspect { "From" => from, "Incarnation" => incarnation, "Node" => node });

/// Tells that a member is dead, or left on purpose if `from` is the member itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The incarnation that is dead.
    pub incarnation: Incarnation,
    /// Who is dead.
    pub node: NodeName,
    /// Who says so.
    pub from: NodeName,
}
message!(Gossip, Dead { "From" => from, "Incarnation" => incarnation, "Node" => node });

/// Tells that a member is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The member's incarnation.
    pub incarnation: Incarnation,
    /// Its name.
    pub node: NodeName,
    /// Its address.
    pub address: IpAddr,
    /// Its port; zero stands for the receiver's own.
    pub port: u16,
    /// What it says of itself, at most [`META_BYTES_MAX`] bytes.
    pub meta: Bytes,
    /// Its versions, if it says them.
    pub versions: Option<Versions>,
}
message!(Gossip, Alive {
    "Addr" => address,
    "Incarnation" => incarnation,
    "Meta" => meta,
    "Node" => node,
    "Port" => port,
    "Vsn" => versions,
});

/// What a state exchange says about one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// It answers.
    Alive,
    /// It may be dead.
    Suspect,
    /// It is dead.
    Dead,
    /// It left on purpose.
    Left,
}

impl<F: Flavour> Field<F> for PeerState {
    fn put(&self, out: &mut Vec<u8>) {
        let code: u8 = match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Dead => 2,
            Self::Left => 3,
        };
        put_unsigned(out, code.into());
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match <u64 as Field<F>>::get(input)? {
            0 => Ok(Self::Alive),
            1 => Ok(Self::Suspect),
            2 => Ok(Self::Dead),
            3 => Ok(Self::Left),
            value => Err(DecodeError::Unknown { field: input.field(), value }),
        }
    }
    fn zero() -> Option<Self> {
        Some(Self::Alive)
    }
}

/// One member in a state exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushPullState {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: IpAddr,
    /// Its port; zero stands for the receiver's own.
    pub port: u16,
    /// What it says of itself, at most [`META_BYTES_MAX`] bytes.
    pub meta: Bytes,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How it is.
    pub state: PeerState,
    /// Its versions, if the sender knows them.
    pub versions: Option<Versions>,
}
message!(Gossip, PushPullState {
    "Addr" => address,
    "Incarnation" => incarnation,
    "Meta" => meta,
    "Name" => name,
    "Port" => port,
    "State" => state,
    "Vsn" => versions,
});

/// The members of a state exchange as they stand on the wire: whoever holds the same bytes need
/// not look into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStates {
    pub(super) count: u64,
    pub(super) bytes: Bytes,
}

impl PeerStates {
    /// These members, in this order.
    pub fn encode(states: impl IntoIterator<Item = PushPullState>) -> Self {
        Self::encode_within(usize::MAX, states)
    }

    /// As many of these members, in this order, as fit into `bytes_max` bytes.
    pub fn encode_within(
        bytes_max: usize,
        states: impl IntoIterator<Item = PushPullState>,
    ) -> Self {
        let (mut count, mut bytes) = (0, Vec::new());
        for state in states {
            let before = bytes.len();
            state.put(&mut bytes);
            if bytes.len() > bytes_max {
                bytes.truncate(before);
                break;
            }
            count += 1;
        }
        Self { count, bytes: bytes.into() }
    }

    /// How many members these are.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether it is nobody.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes they take.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All members.
    ///
    /// - Errors: one that is not well-formed, or says too much of itself.
    pub fn decode(&self) -> Result<Vec<PushPullState>, DecodeError> {
        let mut input = Reader::new(&self.bytes);
        let state = |_| {
            let state: PushPullState = msgpack::get(&mut input)?;
            check_meta(&state.meta).map(|()| state)
        };
        (0..self.count).map(state).collect()
    }
}

/// A full exchange of state, both as request and as reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushPull {
    /// Whether it is part of a join; the reply repeats it.
    pub join: bool,
    /// Every member the sender knows, itself included.
    pub states: PeerStates,
    /// The application's part: a Serf push/pull message, or nothing.
    pub user_state: Bytes,
}

/// What stands before the members of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PushPullHeader {
    pub(super) join: bool,
    pub(super) nodes: u64,
    pub(super) user_state_len: u64,
}
message!(Gossip, PushPullHeader {
    "Join" => join,
    "Nodes" => nodes,
    "UserStateLen" => user_state_len,
});

/// What stands before a user message on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserHeader {
    pub(super) len: u64,
}
message!(Gossip, UserHeader { "UserMsgLen" => len });

/// Why a stream was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) error: String,
}
message!(Gossip, ErrorBody { "Error" => error });

/// One message of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks a member whether it is there.
    Ping(Ping),
    /// Asks a member to ping another.
    IndirectPing(IndirectPing),
    /// Answers a ping.
    Ack(Ack),
    /// Tells that an indirect ping got no answer.
    Nack(Nack),
    /// Tells that a member may be dead.
    Suspect(Suspect),
    /// Tells that a member is there.
    Alive(Alive),
    /// Tells that a member is dead or left.
    Dead(Dead),
    /// A message of the layer above: a whole Serf message.
    User(Bytes),
}

fn put<T: Field<Gossip>>(kind: u8, body: &T) -> Vec<u8> {
    let mut out = vec![kind];
    body.put(&mut out);
    out
}

impl Message {
    /// The message with its type byte.
    pub fn encode(&self) -> Bytes {
        let bytes = match self {
            Self::Ping(body) => put(kind::PING, body),
            Self::IndirectPing(body) => put(kind::INDIRECT_PING, body),
            Self::Ack(body) => put(kind::ACK, body),
            Self::Nack(body) => put(kind::NACK, body),
            Self::Suspect(body) => put(kind::SUSPECT, body),
            Self::Alive(body) => put(kind::ALIVE, body),
            Self::Dead(body) => put(kind::DEAD, body),
            Self::User(payload) => [&[kind::USER], payload.as_ref()].concat(),
        };
        bytes.into()
    }

    /// Reads one message with its type byte.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (kind, body) =
            bytes.split_first().ok_or(DecodeError::Truncated { field: "message" })?;
        Ok(match *kind {
            kind::PING => Self::Ping(msgpack::decode(body)?),
            kind::INDIRECT_PING => Self::IndirectPing(msgpack::decode(body)?),
            kind::ACK => Self::Ack(msgpack::decode(body)?),
            kind::NACK => Self::Nack(msgpack::decode(body)?),
            kind::SUSPECT => Self::Suspect(msgpack::decode(body)?),
            kind::ALIVE => {
                let alive: Alive = msgpack::decode(body)?;
                check_meta(&alive.meta)?;
                Self::Alive(alive)
            }
            kind::DEAD => Self::Dead(msgpack::decode(body)?),
            kind::USER => Self::User(bytes.slice_ref(body)),
            kind => return Err(unknown_kind(kind)),
        })
    }
}

/// No message of this kind can stand where it was found.
pub(super) fn unknown_kind(kind: u8) -> DecodeError {
    DecodeError::Unknown { field: "message type", value: kind.into() }
}

pub(super) fn check_meta(meta: &[u8]) -> Result<(), DecodeError> {
    let (value, limit) = (meta.len() as u64, META_BYTES_MAX as u64);
    if value > limit {
        return Err(DecodeError::Limit { field: "Meta", value, limit });
    }
    Ok(())
}

/// One message of a stream; each side sends one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// Asks a member whether it is there; answered by an ack without payload.
    Ping(Ping),
    /// Answers a ping.
    Ack(Ack),
    /// Exchanges state; answered by the same.
    PushPull(PushPull),
    /// A message of the layer above: a whole Serf message.
    User(Bytes),
    /// Tells why the request could not be read.
    Err(String),
}

impl StreamMessage {
    /// The message with its type byte.
    pub fn encode(&self) -> Bytes {
        let bytes = match self {
            Self::Ping(body) => put(kind::PING, body),
            Self::Ack(body) => put(kind::ACK, body),
            Self::PushPull(body) => {
                let mut out = put(
                    kind::PUSH_PULL,
                    &PushPullHeader {
                        join: body.join,
                        nodes: body.states.count,
                        user_state_len: body.user_state.len() as u64,
                    },
                );
                out.extend_from_slice(&body.states.bytes);
                out.extend_from_slice(&body.user_state);
                out
            }
            Self::User(payload) => {
                let mut out = put(kind::USER, &UserHeader { len: payload.len() as u64 });
                out.extend_from_slice(payload);
                out
            }
            Self::Err(error) => put(kind::ERR, &ErrorBody { error: error.clone() }),
        };
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = NodeName> {
        "[a-zA-Z0-9.-]{1,40}".prop_map(|text| NodeName::parse(&text).unwrap())
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let four = any::<[u8; 4]>().prop_map(IpAddr::from);
        let sixteen = any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_canonical());
        prop_oneof![four, sixteen]
    }

    fn versions() -> impl Strategy<Value = Option<Versions>> {
        prop::option::of(any::<[u8; 6]>().prop_map(|v| Versions {
            protocol_min: v[0],
            protocol_max: v[1],
            protocol: v[2],
            delegate_min: v[3],
            delegate_max: v[4],
            delegate: v[5],
        }))
    }

    fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..len).prop_map(Bytes::from)
    }

    fn message() -> impl Strategy<Value = Message> {
        let names = (name(), name(), any::<u32>());
        let facts = (names, any::<bool>()).prop_map(|((node, from, n), suspect)| {
            let incarnation = Incarnation::new(n);
            if suspect {
                Message::Suspect(Suspect { incarnation, node, from })
            } else {
                Message::Dead(Dead { incarnation, node, from })
            }
        });
        let alive = (name(), address(), any::<(u16, u32)>(), bytes(513), versions()).prop_map(
            |(node, address, (port, n), meta, versions)| {
                let incarnation = Incarnation::new(n);
                Message::Alive(Alive { incarnation, node, address, port, meta, versions })
            },
        );
        let source = (prop::option::of(address()), any::<u16>(), prop::option::of(name()));
        let asked = (any::<u32>(), prop::option::of(name()), address(), any::<(u16, bool)>());
        let indirect = (asked, source).prop_map(|((n, node, target, (port, nack)), source)| {
            let (source_address, source_port, source_node) = source;
            let seq_no = SeqNo::new(n);
            Message::IndirectPing(IndirectPing {
                seq_no,
                target,
                port,
                node,
                nack,
                source_address,
                source_port,
                source_node,
            })
        });
        let ack = (any::<u32>(), prop::option::of(bytes(200)))
            .prop_map(|(n, payload)| Message::Ack(Ack { seq_no: SeqNo::new(n), payload }));
        prop_oneof![facts, alive, indirect, ack, bytes(200).prop_map(Message::User)]
    }

    proptest! {
        #[test]
        fn a_message_survives_its_encoding(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn an_answer_goes_to_the_source_only_if_address_and_port_are_said() {
        let ping = Ping {
            seq_no: SeqNo::new(1),
            node: None,
            source_address: Some([10, 0, 0, 1].into()),
            source_port: 8301,
            source_node: None,
        };
        assert_eq!(ping.source(), Some(SocketAddr::from(([10, 0, 0, 1], 8301))));
        assert_eq!(Ping { source_port: 0, ..ping.clone() }.source(), None);
        assert_eq!(Ping { source_address: None, ..ping }.source(), None);
    }

    #[test]
    fn meta_above_the_limit_is_refused() {
        let alive = Alive {
            incarnation: Incarnation::new(1),
            node: NodeName::parse("n").unwrap(),
            address: [10, 0, 0, 1].into(),
            port: 8301,
            meta: Bytes::from(vec![0; META_BYTES_MAX + 1]),
            versions: None,
        };
        let refused = Err(DecodeError::Limit { field: "Meta", value: 513, limit: 512 });
        assert_eq!(Message::decode(&Message::Alive(alive).encode()), refused);
    }
}
