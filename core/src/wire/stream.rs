//! A gossip stream as it arrives: one message under its layers, however it is cut into pieces.
//!
//! Each side of a stream sends one message and closes (gossip-wire.md §9). Order from outside:
//! label (only from the side that dialled), encryption, compression, message (§1). A
//! [`StreamDecoder`] looks at each byte once and holds no more than the limits of §4 allow,
//! whatever a peer claims. Bytes after the message are ignored.

use super::DecodeError;
use super::compress::{STREAM_BYTES_MAX, decompress};
use super::gossip::{
    ErrorBody, PeerStates, Ping, PushPull, PushPullHeader, StreamMessage, UserHeader, kind,
    unknown_kind,
};
use super::label;
use super::msgpack;
use super::packet::Opener;
use super::scan::Arrivals;
use super::seal::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES, KeyId, NOT_SEALED, frame_length, open};
use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a user state, and of all member states together (gossip-wire.md §4).
pub const PAYLOAD_BYTES_MAX: usize = 20 << 20;

/// Members in one exchange (gossip-wire.md §4).
pub const NODES_MAX: u64 = 1 << 20;

/// Bytes of one map: far above a member with the longest name and meta, or an error's text.
const MAP_BYTES_MAX: usize = 64 << 10;

/// Bytes of a compressed message: its content and the map around it.
const COMPRESSED_BYTES_MAX: usize = FRAME_BYTES_MAX + 64;

/// Reads the one message a peer sends on a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    arrivals: Arrivals,
    phase: Phase,
    /// Whether the message lay inside another layer and so is there in full, or never will be.
    is_whole: bool,
    /// What opened the message.
    key: Option<KeyId>,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    /// Waits for the label.
    Label,
    /// Waits for the byte that shows whether the message is sealed.
    #[default]
    Outer,
    /// Waits for the head of a sealed message.
    Frame,
    /// Waits for a sealed message of so many bytes.
    Sealed([u8; FRAME_HEAD_BYTES], usize),
    /// Waits for the type byte; the second time behind compression.
    Kind { compressed: bool },
    /// Waits for compressed content.
    Compressed,
    /// Waits for the map after the type byte.
    Body(u8),
    /// Waits for the members that are missing.
    States { header: PushPullHeader, states: BytesMut, count: u64 },
    /// Waits for the application's part.
    UserState { header: PushPullHeader, states: PeerStates },
    /// Waits for the content of a user message.
    User(UserHeader),
    /// Gave its message or an error.
    Done,
}

/// Why a stream was refused; it is of no use any more. The peer is at fault, or the operator who
/// configured the two sides differently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// An outer layer is missing, is not expected, or does not come off. Asks for an `err` reply
    /// (gossip-wire.md §9).
    #[error(transparent)]
    Unreadable(DecodeError),
    /// Another label, or a message that is none. Asks for silence.
    #[error(transparent)]
    Malformed(DecodeError),
}

impl StreamDecoder {
    /// A decoder for a stream that the peer dialled: it begins with the label.
    pub fn accepted() -> Self {
        Self { phase: Phase::Label, ..Self::default() }
    }

    /// A decoder for the answer on a stream that this side dialled.
    pub fn dialled() -> Self {
        Self::default()
    }

    /// Which key opened the message; `None` if none had to, or it is not there yet.
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// Takes in bytes; gives the message once, when it is complete.
    ///
    /// - Cost: linear in the bytes of the stream, and in what its compressed content gives, at
    ///   most [`STREAM_BYTES_MAX`].
    pub fn feed(
        &mut self,
        data: &[u8],
        opener: &Opener<'_>,
    ) -> Result<Option<StreamMessage>, StreamError> {
        if matches!(self.phase, Phase::Done) {
            return Ok(None);
        }
        self.arrivals.push(data);
        loop {
            let phase = std::mem::replace(&mut self.phase, Phase::Done);
            match self.step(phase, opener)? {
                Step::Phase(phase) => self.phase = phase,
                Step::Wait(_) if self.is_whole => {
                    let cut = DecodeError::Truncated { field: "stream" };
                    return Err(StreamError::Malformed(cut));
                }
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

    fn step(&mut self, phase: Phase, opener: &Opener<'_>) -> Result<Step, StreamError> {
        match phase {
            Phase::Label => self.label(opener).map_err(StreamError::Malformed),
            Phase::Outer => self.outer(opener).map_err(StreamError::Unreadable),
            Phase::Frame | Phase::Sealed(..) => {
                self.sealed(phase, opener).map_err(StreamError::Unreadable)
            }
            Phase::Compressed => self.compressed().map_err(StreamError::Unreadable),
            Phase::Kind { .. }
            | Phase::Body(_)
            | Phase::States { .. }
            | Phase::UserState { .. }
            | Phase::User(_)
            | Phase::Done => self.message(phase).map_err(StreamError::Malformed),
        }
    }

    fn label(&mut self, opener: &Opener<'_>) -> Result<Step, DecodeError> {
        Ok(match label::check(opener.label, self.arrivals.waiting())? {
            Some(header) => {
                self.arrivals.take(header);
                Step::Phase(Phase::Outer)
            }
            None => Step::Wait(Phase::Label),
        })
    }

    fn outer(&self, opener: &Opener<'_>) -> Result<Step, DecodeError> {
        let can_open = !opener.keys.is_empty();
        match self.arrivals.waiting().first() {
            None => Ok(Step::Wait(Phase::Outer)),
            Some(&kind::ENCRYPT) if can_open => Ok(Step::Phase(Phase::Frame)),
            Some(&kind::ENCRYPT) => {
                let rule = "the message is encrypted, but gossip is not here";
                Err(DecodeError::Layer { layer: "encryption", rule })
            }
            Some(_) if can_open && opener.verify => Err(NOT_SEALED),
            Some(_) => Ok(Step::Phase(Phase::Kind { compressed: false })),
        }
    }

    fn sealed(&mut self, phase: Phase, opener: &Opener<'_>) -> Result<Step, DecodeError> {
        let Phase::Sealed(head, length) = phase else {
            let head = self.arrivals.take(FRAME_HEAD_BYTES);
            return Ok(match head.as_deref().and_then(<[u8]>::first_chunk) {
                Some(head) => Step::Phase(Phase::Sealed(*head, frame_length(*head)?)),
                None => Step::Wait(phase),
            });
        };
        let Some(sealed) = self.arrivals.take(length) else { return Ok(Step::Wait(phase)) };
        let (plain, key) = open(opener.keys, &[&head, opener.label].concat(), &sealed)?;
        self.key = Some(key);
        Ok(self.inside(plain, false))
    }

    fn compressed(&mut self) -> Result<Step, DecodeError> {
        let Some(map) = self.arrivals.take_value("compression", COMPRESSED_BYTES_MAX)? else {
            return Ok(Step::Wait(Phase::Compressed));
        };
        let plain = decompress(&map, STREAM_BYTES_MAX)?;
        Ok(self.inside(plain, true))
    }

    /// Goes on with what was inside a layer; what follows the layer is ignored.
    fn inside(&mut self, plain: Bytes, compressed: bool) -> Step {
        self.arrivals = plain.into();
        self.is_whole = true;
        Step::Phase(Phase::Kind { compressed })
    }

    fn message(&mut self, phase: Phase) -> Result<Step, DecodeError> {
        match phase {
            Phase::Kind { compressed } => match self.arrivals.take(1).as_deref() {
                Some([kind::COMPRESS]) if !compressed => Ok(Step::Phase(Phase::Compressed)),
                Some([kind]) => check_kind(*kind).map(|()| Step::Phase(Phase::Body(*kind))),
                _ => Ok(Step::Wait(phase)),
            },
            Phase::Body(kind) => self.body(kind),
            Phase::States { header, states, count } => self.states(header, states, count),
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
            Phase::Label
            | Phase::Outer
            | Phase::Frame
            | Phase::Sealed(..)
            | Phase::Compressed
            | Phase::Done => Ok(Step::Wait(phase)),
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
                Step::Phase(Phase::States { header, states: BytesMut::new(), count: 0 })
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
            kind => return Err(unknown_kind(kind)),
        })
    }

    fn states(
        &mut self,
        header: PushPullHeader,
        mut states: BytesMut,
        mut count: u64,
    ) -> Result<Step, DecodeError> {
        while count < header.nodes {
            let Some(map) = self.map()? else {
                return Ok(Step::Wait(Phase::States { header, states, count }));
            };
            check("states", (states.len() + map.len()) as u64, PAYLOAD_BYTES_MAX as u64)?;
            states.extend_from_slice(&map);
            count += 1;
        }
        let states = PeerStates { count, bytes: states.freeze() };
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
        kind => Err(unknown_kind(kind)),
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
    use crate::wire::gossip::{Ack, PeerState, PushPullState};
    use crate::wire::packet::{Layers, Wrapper};
    use crate::wire::seal::Key;
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
        let states = PeerStates::encode((0..states).map(state));
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

    fn key(first: u8) -> Key {
        Key::new(&[first; 32]).unwrap()
    }

    fn refused(data: &[u8], opener: &Opener<'_>) -> StreamError {
        StreamDecoder::accepted().feed(data, opener).unwrap_err()
    }

    #[test]
    fn a_message_survives_its_layers_and_any_cut() {
        let keys = [key(1), key(2)];
        for (message, n) in messages().iter().flat_map(|m| (0..16_u8).map(move |n| (m, n))) {
            let (compress, sealed, dialled) = (n & 1 != 0, n & 2 != 0, n & 4 != 0);
            let label: &[u8] = if n & 8 != 0 { b"prod1" } else { b"" };
            let layers = Layers { label, key: sealed.then_some((&keys[1], [7; 12])), compress };
            let bytes = Wrapper::default().stream(&message.encode(), dialled, &layers).unwrap();
            let keys = if sealed { keys.as_slice() } else { &[] };
            let opener = Opener { label, keys, verify: true };
            for size in [1, 2, 7, 1000] {
                let mut decoder =
                    if dialled { StreamDecoder::accepted() } else { StreamDecoder::dialled() };
                let last = bytes.len().div_ceil(size) - 1;
                for (at, piece) in bytes.chunks(size).enumerate() {
                    let expected = (at == last).then(|| message.clone());
                    assert_eq!(decoder.feed(piece, &opener), Ok(expected));
                }
                assert_eq!(decoder.feed(b"ignored", &opener), Ok(None));
                assert_eq!(decoder.key(), sealed.then(|| keys[1].id()));
            }
        }
    }

    #[test]
    fn claims_beyond_the_limits_are_refused_at_once() {
        let too_many = PushPullHeader { join: false, nodes: NODES_MAX + 1, user_state_len: 0 };
        let too_long = PushPullHeader { join: false, nodes: 0, user_state_len: 1 << 30 };
        for (header, name) in [(too_many, "Nodes"), (too_long, "UserStateLen")] {
            let bytes = [&[kind::PUSH_PULL], msgpack::encode(&header).as_ref()].concat();
            let StreamError::Malformed(error) = refused(&bytes, &Opener::PLAIN) else {
                panic!("{name}: a header is no outer layer")
            };
            assert!(matches!(error, DecodeError::Limit { field, .. } if field == name));
        }
        let huge_map = [kind::ERR, 0xdf, 0xff, 0xff, 0xff, 0xff];
        let limit = StreamError::Malformed(DecodeError::Limit {
            field: "stream",
            value: 5 + u64::from(u32::MAX) * 2,
            limit: MAP_BYTES_MAX as u64,
        });
        assert_eq!(refused(&huge_map, &Opener::PLAIN), limit);
        let huge_frame = [kind::ENCRYPT, 0xff, 0, 0, 0];
        let opener = Opener { label: b"", keys: &[key(1)], verify: true };
        let error = refused(&huge_frame, &opener);
        assert!(matches!(error, StreamError::Unreadable(DecodeError::Limit { .. })));
        let huge_content = [kind::COMPRESS, 0x81, 0xa1, b'x', 0xdb, 0xff, 0xff, 0xff, 0xff];
        let error = refused(&huge_content, &Opener::PLAIN);
        assert!(matches!(error, StreamError::Unreadable(DecodeError::Limit { .. })));
    }

    #[test]
    fn unreadable_layers_ask_for_a_reply_and_unknown_types_for_silence() {
        let (plain, secret) = (Opener::PLAIN, [key(1)]);
        let sealing = Opener { label: b"", keys: &secret, verify: true };
        let ping = messages()[5].encode();
        assert_eq!(refused(&ping, &sealing), StreamError::Unreadable(NOT_SEALED));
        let layers = Layers { label: b"", key: Some((&key(2), [7; 12])), compress: false };
        let sealed = Wrapper::default().stream(&ping, true, &layers).unwrap();
        let no_key = DecodeError::Sealed { tried: vec![secret[0].id()] };
        assert_eq!(refused(&sealed, &sealing), StreamError::Unreadable(no_key));
        let layer = |error| matches!(error, StreamError::Unreadable(DecodeError::Layer { .. }));
        assert!(layer(refused(&sealed, &plain)));
        let lax = Opener { verify: false, ..sealing };
        assert_eq!(StreamDecoder::accepted().feed(&ping, &lax), Ok(Some(messages()[5].clone())));
        let broken = [kind::COMPRESS, 0x81, 0xa3, b'B', b'u', b'f', 0xa1, 0xff];
        assert!(matches!(refused(&broken, &plain), StreamError::Unreadable(_)));
        let unknown = DecodeError::Unknown { field: "message type", value: 99 };
        assert_eq!(refused(b"c", &plain), StreamError::Malformed(unknown));
        let labelled = Opener { label: b"prod1", ..plain };
        assert!(matches!(refused(&ping, &labelled), StreamError::Malformed(_)));
    }

    #[test]
    fn a_layer_must_hold_the_whole_message() {
        let whole = exchange(3, b"user state").encode();
        let layers = Layers { label: b"", key: None, compress: true };
        let cut = whole.slice(..whole.len() - 1);
        let bytes = Wrapper::default().stream(&cut, true, &layers).unwrap();
        let cut = StreamError::Malformed(DecodeError::Truncated { field: "stream" });
        assert_eq!(refused(&bytes, &Opener::PLAIN), cut);
        // Nor may one compressed message hold another.
        let twice = Wrapper::default().stream(&bytes, true, &layers).unwrap();
        let unknown = DecodeError::Unknown { field: "message type", value: 9 };
        assert_eq!(refused(&twice, &Opener::PLAIN), StreamError::Malformed(unknown));
    }

    proptest! {
        #[test]
        fn arbitrary_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let keys = [key(1)];
            for verify in [false, true] {
                let opener = Opener { label: b"", keys: &keys, verify };
                for start in [&[][..], &[kind::PUSH_PULL], &[kind::COMPRESS], &[kind::ENCRYPT]] {
                    let framed = [start, bytes.as_slice()].concat();
                    let _ = StreamDecoder::accepted().feed(&framed, &opener);
                    let _ = StreamDecoder::accepted().feed(&framed, &Opener::PLAIN);
                }
            }
        }
    }
}
