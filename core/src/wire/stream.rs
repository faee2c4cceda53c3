//! A gossip stream as it arrives: one message, however it is cut into pieces.
//!
//! Each side of a stream sends one message and closes (gossip-wire.md §9). A [`StreamDecoder`]
//! looks at each byte once and holds no more than the limits of §4 allow, whatever a peer claims.
//! Bytes after the message are ignored.

use super::DecodeError;
use super::gossip::{
    ErrorBody, Ping, PushPull, PushPullHeader, PushPullState, StreamMessage, UserHeader,
    check_meta, kind, refuse_kind,
};
use super::msgpack;
use super::scan::Arrivals;
use bytes::Bytes;

/// Bytes of a user state, and of all member states together (gossip-wire.md §4).
pub const PAYLOAD_BYTES_MAX: usize = 20 << 20;

/// Members in one exchange (gossip-wire.md §4).
pub const NODES_MAX: u64 = 1 << 20;

/// Bytes of one map: far above a member with the longest name and meta, or an error's text.
const MAP_BYTES_MAX: usize = 64 << 10;

/// Reads the one message a peer sends on a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    arrivals: Arrivals,
    phase: Phase,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    /// Waits for the type byte.
    #[default]
    Kind,
    /// Waits for the map after it.
    Body(u8),
    /// Waits for the members that are missing.
    States { header: PushPullHeader, states: Vec<PushPullState>, state_bytes: usize },
    /// Waits for the application's part.
    UserState { header: PushPullHeader, states: Vec<PushPullState> },
    /// Waits for the content of a user message.
    User(UserHeader),
    /// Gave its message or an error.
    Done,
}

impl StreamDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes; gives the message once, when it is complete.
    ///
    /// - Errors: the stream is of no use any more. [`DecodeError::Layer`] asks for an `err` reply
    ///   (gossip-wire.md §9), every other one for silence.
    /// - Cost: linear in the bytes of the stream.
    pub fn feed(&mut self, data: &[u8]) -> Result<Option<StreamMessage>, DecodeError> {
        if matches!(self.phase, Phase::Done) {
            return Ok(None);
        }
        self.arrivals.push(data);
        loop {
            let phase = std::mem::replace(&mut self.phase, Phase::Done);
            match self.step(phase)? {
                Step::Phase(phase) => self.phase = phase,
                Step::Wait(phase) => {
                    self.phase = phase;
                    return Ok(None);
                }
                Step::Message(message) => {
                    self.arrivals = Arrivals::default();
                    return Ok(Some(message));
                }
            }
        }
    }

    fn step(&mut self, phase: Phase) -> Result<Step, DecodeError> {
        match phase {
            Phase::Kind => match self.arrivals.take(1).as_deref() {
                Some([kind]) => check_kind(*kind).map(|()| Step::Phase(Phase::Body(*kind))),
                _ => Ok(Step::Wait(Phase::Kind)),
            },
            Phase::Body(kind) => self.body(kind),
            Phase::States { header, states, state_bytes } => {
                self.states(header, states, state_bytes)
            }
            Phase::UserState { header, states } => match self.payload(header.user_state_len) {
                Some(user_state) => {
                    let join = header.join;
                    let exchange = PushPull { join, states, user_state };
                    Ok(Step::Message(StreamMessage::PushPull(exchange)))
                }
                None => Ok(Step::Wait(Phase::UserState { header, states })),
            },
            Phase::User(header) => Ok(match self.payload(header.len) {
                Some(payload) => Step::Message(StreamMessage::User(payload)),
                None => Step::Wait(Phase::User(header)),
            }),
            Phase::Done => Ok(Step::Wait(Phase::Done)),
        }
    }

    fn body(&mut self, kind: u8) -> Result<Step, DecodeError> {
        let Some(map) = self.map()? else {
            return Ok(Step::Wait(Phase::Body(kind)));
        };
        Ok(match kind {
            kind::PING => Step::Message(StreamMessage::Ping(msgpack::decode::<_, Ping>(&map)?)),
            kind::ACK => Step::Message(StreamMessage::Ack(msgpack::decode(&map)?)),
            kind::PUSH_PULL => {
                let header: PushPullHeader = msgpack::decode(&map)?;
                check("Nodes", header.nodes, NODES_MAX)?;
                check("UserStateLen", header.user_state_len, PAYLOAD_BYTES_MAX as u64)?;
                Step::Phase(Phase::States { header, states: Vec::new(), state_bytes: 0 })
            }
            kind::USER => {
                let header: UserHeader = msgpack::decode(&map)?;
                check("UserMsgLen", header.len, PAYLOAD_BYTES_MAX as u64)?;
                Step::Phase(Phase::User(header))
            }
            kind::ERR => {
                let body: ErrorBody = msgpack::decode(&map)?;
                Step::Message(StreamMessage::Err(body.error))
            }
            kind => return Err(refuse_kind(kind)),
        })
    }

    fn states(
        &mut self,
        header: PushPullHeader,
        mut states: Vec<PushPullState>,
        mut state_bytes: usize,
    ) -> Result<Step, DecodeError> {
        while (states.len() as u64) < header.nodes {
            let Some(map) = self.map()? else {
                return Ok(Step::Wait(Phase::States { header, states, state_bytes }));
            };
            state_bytes += map.len();
            check("states", state_bytes as u64, PAYLOAD_BYTES_MAX as u64)?;
            let state: PushPullState = msgpack::decode(&map)?;
            check_meta(&state.meta)?;
            states.push(state);
        }
        Ok(Step::Phase(Phase::UserState { header, states }))
    }

    /// The next map, once all of it is there.
    fn map(&mut self) -> Result<Option<Bytes>, DecodeError> {
        self.arrivals.take_value("stream", MAP_BYTES_MAX)
    }

    fn payload(&mut self, len: u64) -> Option<Bytes> {
        self.arrivals.take(usize::try_from(len).ok()?)
    }
}

enum Step {
    /// Goes on at once.
    Phase(Phase),
    /// Needs more bytes.
    Wait(Phase),
    /// Is complete.
    Message(StreamMessage),
}

fn check_kind(kind: u8) -> Result<(), DecodeError> {
    match kind {
        kind::PING | kind::ACK | kind::PUSH_PULL | kind::USER | kind::ERR => Ok(()),
        kind => Err(refuse_kind(kind)),
    }
}

const fn check(field: &'static str, value: u64, limit: u64) -> Result<(), DecodeError> {
    if value > limit {
        return Err(DecodeError::Limit { field, value, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeName, SeqNo};
    use crate::wire::gossip::{Ack, PeerState};
    use proptest::prelude::*;

    fn exchange(states: usize, user_state: &'static [u8]) -> StreamMessage {
        let state = |n: usize| PushPullState {
            name: NodeName::parse(&format!("n{n}")).unwrap(),
            address: [127, 0, 0, 1].into(),
            port: 8301,
            meta: Bytes::from_static(&[0xff, 0x80]),
            incarnation: Incarnation::new(3),
            state: PeerState::Suspect,
            versions: None,
        };
        let states = (0..states).map(state).collect();
        let user_state = Bytes::from_static(user_state);
        StreamMessage::PushPull(PushPull { join: true, states, user_state })
    }

    fn messages() -> [StreamMessage; 6] {
        let seq_no = SeqNo::new(500);
        [
            exchange(0, b""),
            exchange(40, b"user state"),
            StreamMessage::Ack(Ack { seq_no, payload: None }),
            StreamMessage::User(Bytes::from_static(b"hello")),
            StreamMessage::Err("went wrong".to_owned()),
            StreamMessage::Ping(Ping {
                seq_no,
                node: None,
                source_address: None,
                source_port: 0,
                source_node: None,
            }),
        ]
    }

    #[test]
    fn a_message_survives_any_cut() {
        for message in messages() {
            let bytes = message.encode();
            for size in [1, 2, 7, 1000] {
                let mut decoder = StreamDecoder::new();
                let last = bytes.len().div_ceil(size) - 1;
                for (at, piece) in bytes.chunks(size).enumerate() {
                    let expected = (at == last).then(|| message.clone());
                    assert_eq!(decoder.feed(piece), Ok(expected));
                }
                assert_eq!(decoder.feed(b"ignored"), Ok(None));
            }
        }
    }

    #[test]
    fn claims_beyond_the_limits_are_refused_at_once() {
        let too_many = PushPullHeader { join: false, nodes: NODES_MAX + 1, user_state_len: 0 };
        let too_long = PushPullHeader { join: false, nodes: 0, user_state_len: 1 << 30 };
        for (header, name) in [(too_many, "Nodes"), (too_long, "UserStateLen")] {
            let bytes = [&[kind::PUSH_PULL], msgpack::encode(&header).as_ref()].concat();
            let error = StreamDecoder::new().feed(&bytes);
            assert!(matches!(error, Err(DecodeError::Limit { field, .. }) if field == name));
        }
        let huge_map = [kind::ERR, 0xdf, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(StreamDecoder::new().feed(&huge_map), Err(DecodeError::Limit { .. })));
    }

    #[test]
    fn an_unknown_type_is_refused_by_its_first_byte() {
        let unknown = DecodeError::Unknown { field: "message type", value: 99 };
        assert_eq!(StreamDecoder::new().feed(b"c"), Err(unknown));
        let layer = DecodeError::Layer { layer: "encryption" };
        assert_eq!(StreamDecoder::new().feed(&[10]), Err(layer));
    }

    proptest! {
        #[test]
        fn arbitrary_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = StreamDecoder::new().feed(&bytes);
            let framed = [&[kind::PUSH_PULL], bytes.as_slice()].concat();
            let _ = StreamDecoder::new().feed(&framed);
        }
    }
}
