//! Responses and stream records of the control protocol (gossip-wire.md §12.1 and §12.2).

use super::RESPONSE_BYTES_MAX;
use super::request::{Command, Request};
use crate::id::LamportTime;
use crate::wire::DecodeError;
use crate::wire::msgpack::{self, Field, FloatBits, Ipc, message};
use crate::wire::scan::Arrivals;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Errors after which no body follows, whatever the command: the agent does not go on reading.
pub const BODYLESS_ERRORS: [&str; 3] =
    ["Authentication required", "Handshake required", "Unsupported command"];

/// The agent's figures: groups of names and texts.
pub type Stats = BTreeMap<String, BTreeMap<String, String>>;

/// One response, or one record of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's number.
    pub seq: u64,
    /// What went wrong; empty if nothing did.
    pub error: String,
    /// What was asked for, or one record.
    pub body: Option<Body>,
}

/// What follows a response's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// How many agents a join reached; also beside an error.
    Join {
        /// The number.
        reached: u64,
    },
    /// The members.
    Members(Vec<Member>),
    /// The outcome of a key operation; also beside an error.
    Keys(KeysReply),
    /// A coordinate.
    Coordinate(CoordinateReply),
    /// The figures.
    Stats(Stats),
    /// A record of a subscription to events.
    Event(EventRecord),
    /// A record of a query.
    Query(QueryRecord),
    /// A record of a subscription to the log.
    Log(String),
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// Serf protocol spoken.
    pub delegate: u8,
    /// Highest Serf protocol understood.
    pub delegate_max: u8,
    /// Lowest Serf protocol understood.
    pub delegate_min: u8,
    /// For how many whole seconds it has not been alive; told by our own commands alone, since
    /// Serf's protocol has no such field.
    pub gone_seconds: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Protocol spoken.
    pub protocol: u8,
    /// Highest protocol understood.
    pub protocol_max: u8,
    /// Lowest protocol understood.
    pub protocol_min: u8,
    /// none, alive, leaving, left or failed.
    pub status: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}
message!(Ipc, Member {
    "Addr" => address,
    "DelegateCur" => delegate,
    "DelegateMax" => delegate_max,
    "DelegateMin" => delegate_min,
    "GoneSeconds" => gone_seconds omitempty,
    "Name" => name,
    "Port" => port,
    "ProtocolCur" => protocol,
    "ProtocolMax" => protocol_max,
    "ProtocolMin" => protocol_min,
    "Status" => status,
    "Tags" => tags,
});

impl From<&crate::serf::Member> for Member {
    fn from(member: &crate::serf::Member) -> Self {
        Self {
            address: member.address.ip(),
            delegate: member.versions.delegate,
            delegate_max: member.versions.delegate_max,
            delegate_min: member.versions.delegate_min,
            gone_seconds: None,
            name: member.name.to_string(),
            port: member.address.port(),
            protocol: member.versions.protocol,
            protocol_max: member.versions.protocol_max,
            protocol_min: member.versions.protocol_min,
            status: member.status.as_str().to_owned(),
            tags: member.tags.to_map(),
        }
    }
}

/// The outcome of a key operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysReply {
    /// How many members have each key, when listed.
    pub keys: Option<BTreeMap<String, u64>>,
    /// What members said, by name.
    pub messages: BTreeMap<String, String>,
    /// Members that refused.
    pub errors: u64,
    /// Members there are.
    pub nodes: u64,
    /// Members that answered.
    pub responses: u64,
}
message!(Ipc, KeysReply {
    "Keys" => keys,
    "Messages" => messages,
    "NumErr" => errors,
    "NumNodes" => nodes,
    "NumResp" => responses,
});

/// A network coordinate; seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coordinate {
    /// Added to distances.
    pub adjustment: FloatBits,
    /// How little it is trusted.
    pub error: FloatBits,
    /// Distance to the core of the network.
    pub height: FloatBits,
    /// Position; none for an unknown member.
    pub position: Option<Vec<FloatBits>>,
}
message!(Ipc, Coordinate {
    "Adjustment" => adjustment,
    "Error" => error,
    "Height" => height,
    "Vec" => position,
});

/// The answer to a question for a coordinate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinateReply {
    /// The coordinate; zero if unknown.
    pub coordinate: Coordinate,
    /// Whether the member is known.
    pub ok: bool,
}
message!(Ipc, CoordinateReply { "Coord" => coordinate, "Ok" => ok });

/// A record of a subscription to events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventRecord {
    /// Members changed.
    Members {
        /// member-join, member-leave, member-failed, member-update or member-reap.
        event: String,
        /// Who.
        members: Vec<Member>,
    },
    /// A user event.
    User {
        /// Whether events of this name may be merged into the newest.
        coalesce: bool,
        /// Event clock.
        time: LamportTime,
        /// Its name.
        name: String,
        /// Its content.
        payload: Option<Bytes>,
    },
    /// A query.
    Query {
        /// A `respond` repeats it.
        id: u64,
        /// Query clock.
        time: LamportTime,
        /// Its name.
        name: String,
        /// Its content.
        payload: Option<Bytes>,
    },
}

struct EventKind {
    event: String,
}
message!(Ipc, EventKind { "Event" => event });

struct MemberEvent {
    event: String,
    members: Vec<Member>,
}
message!(Ipc, MemberEvent { "Event" => event, "Members" => members });

struct UserEvent {
    coalesce: bool,
    event: String,
    time: LamportTime,
    name: String,
    payload: Option<Bytes>,
}
message!(Ipc, UserEvent {
    "Coalesce" => coalesce,
    "Event" => event,
    "LTime" => time,
    "Name" => name,
    "Payload" => payload,
});

struct QueryEvent {
    event: String,
    id: u64,
    time: LamportTime,
    name: String,
    payload: Option<Bytes>,
}
message!(Ipc, QueryEvent {
    "Event" => event,
    "ID" => id,
    "LTime" => time,
    "Name" => name,
    "Payload" => payload,
});

impl EventRecord {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Members { event, members } => MemberEvent { event, members }.put(out),
            Self::User { coalesce, time, name, payload } => {
                let event = "user".to_owned();
                UserEvent { coalesce, event, time, name, payload }.put(out);
            }
            Self::Query { id, time, name, payload } => {
                let event = "query".to_owned();
                QueryEvent { event, id, time, name, payload }.put(out);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let EventKind { event } = msgpack::decode(bytes)?;
        match event.as_str() {
            "user" => {
                let UserEvent { coalesce, event: _, time, name, payload } = msgpack::decode(bytes)?;
                Ok(Self::User { coalesce, time, name, payload })
            }
            "query" => {
                let QueryEvent { event: _, id, time, name, payload } = msgpack::decode(bytes)?;
                Ok(Self::Query { id, time, name, payload })
            }
            _ => {
                let MemberEvent { event, members } = msgpack::decode(bytes)?;
                Ok(Self::Members { event, members })
            }
        }
    }
}

/// A record of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRecord {
    /// Who answers; empty in the last record.
    pub from: String,
    /// The answer.
    pub payload: Option<Bytes>,
    /// ack, response, or done in the last record.
    pub kind: String,
}
message!(Ipc, QueryRecord { "From" => from, "Payload" => payload, "Type" => kind });

struct LogRecord {
    line: String,
}
message!(Ipc, LogRecord { "Log" => line });

struct JoinReply {
    reached: u64,
}
message!(Ipc, JoinReply { "Num" => reached });

struct MembersReply {
    members: Vec<Member>,
}
message!(Ipc, MembersReply { "Members" => members });

#[derive(Debug)]
struct Header {
    error: String,
    seq: u64,
}
message!(Ipc, Header { "Error" => error, "Seq" => seq });

impl Response {
    /// A response without body; `error` is empty if nothing went wrong.
    pub const fn header(seq: u64, error: String) -> Self {
        Self { seq, error, body: None }
    }

    /// The response's bytes: header and body.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        Header { error: self.error.clone(), seq: self.seq }.put(&mut out);
        match self.body.clone() {
            None => {}
            Some(Body::Join { reached }) => JoinReply { reached }.put(&mut out),
            Some(Body::Members(members)) => MembersReply { members }.put(&mut out),
            Some(Body::Keys(keys)) => keys.put(&mut out),
            Some(Body::Coordinate(coordinate)) => coordinate.put(&mut out),
            Some(Body::Stats(stats)) => Field::<Ipc>::put(&stats, &mut out),
            Some(Body::Event(event)) => event.put(&mut out),
            Some(Body::Query(record)) => record.put(&mut out),
            Some(Body::Log(line)) => LogRecord { line }.put(&mut out),
        }
        out.into()
    }
}

/// What a response's body is, which only the request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Join,
    Members,
    Keys,
    Coordinate,
    Stats,
    Event,
    Query,
    Log,
}

impl Shape {
    /// What follows the answer to `command`, and whether it comes only after a first bare header.
    const fn of(command: &Command) -> Option<(Self, bool)> {
        match command {
            Command::Join(_) => Some((Self::Join, false)),
            Command::Members
            | Command::MembersLan
            | Command::MembersWan
            | Command::MembersFiltered(_) => Some((Self::Members, false)),
            Command::InstallKey { .. }
            | Command::UseKey { .. }
            | Command::RemoveKey { .. }
            | Command::ListKeys => Some((Self::Keys, false)),
            Command::GetCoordinate { .. } => Some((Self::Coordinate, false)),
            Command::Stats => Some((Self::Stats, false)),
            Command::Stream { .. } => Some((Self::Event, true)),
            Command::Query(_) => Some((Self::Query, true)),
            Command::Monitor { .. } => Some((Self::Log, true)),
            Command::Handshake { .. }
            | Command::Auth { .. }
            | Command::Event(_)
            | Command::ForceLeave { .. }
            | Command::Leave { .. }
            | Command::Tags(_)
            | Command::Respond(_)
            | Command::Stop { .. }
            | Command::Reload
            | Command::Unknown(_) => None,
        }
    }

    fn decode(self, bytes: &[u8]) -> Result<Body, DecodeError> {
        Ok(match self {
            Self::Join => {
                let JoinReply { reached } = msgpack::decode(bytes)?;
                Body::Join { reached }
            }
            Self::Members => {
                let MembersReply { members } = msgpack::decode(bytes)?;
                Body::Members(members)
            }
            Self::Keys => Body::Keys(msgpack::decode(bytes)?),
            Self::Coordinate => Body::Coordinate(msgpack::decode(bytes)?),
            Self::Stats => Body::Stats(msgpack::decode::<Ipc, _>(bytes)?),
            Self::Event => Body::Event(EventRecord::decode(bytes)?),
            Self::Query => Body::Query(msgpack::decode(bytes)?),
            Self::Log => {
                let LogRecord { line } = msgpack::decode(bytes)?;
                Body::Log(line)
            }
        })
    }
}

/// What is still to come for one request.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// One header and body.
    Reply(Shape),
    /// A bare header, then records.
    Subscription(Shape),
    /// Records, each a header and a body.
    Records(Shape),
}

/// Reads the responses of one connection as they arrive.
#[derive(Debug, Default)]
pub struct ResponseReader {
    arrivals: Arrivals,
    expected: BTreeMap<u64, Expected>,
    /// The header whose body is awaited.
    header: Option<(Header, Shape)>,
}

impl ResponseReader {
    /// A reader at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells that `request` is sent, so that its response is understood.
    pub fn expect(&mut self, request: &Request) {
        let expected = match Shape::of(&request.command) {
            Some((shape, false)) => Expected::Reply(shape),
            Some((shape, true)) => Expected::Subscription(shape),
            None => return,
        };
        self.expected.insert(request.seq, expected);
    }

    /// Takes in bytes.
    pub fn feed(&mut self, data: &[u8]) {
        self.arrivals.push(data);
    }

    /// The next response or record, once all of it is there.
    ///
    /// - Errors: the bytes are no response; close the connection.
    pub fn next_response(&mut self) -> Result<Option<Response>, DecodeError> {
        let (header, shape) = match self.header.take() {
            Some(waiting) => waiting,
            None => {
                let bytes = self.arrivals.take_value("response header", RESPONSE_BYTES_MAX)?;
                let Some(bytes) = bytes else {
                    return Ok(None);
                };
                let header: Header = msgpack::decode(&bytes)?;
                match self.body_of(&header) {
                    Some(shape) => (header, shape),
                    None => return Ok(Some(Response::header(header.seq, header.error))),
                }
            }
        };
        let Some(bytes) = self.arrivals.take_value("response body", RESPONSE_BYTES_MAX)? else {
            self.header = Some((header, shape));
            return Ok(None);
        };
        let body = shape.decode(&bytes)?;
        if matches!(&body, Body::Query(record) if record.kind == "done") {
            self.expected.remove(&header.seq);
        }
        Ok(Some(Response { seq: header.seq, error: header.error, body: Some(body) }))
    }

    /// The shape of what follows `header`, if something does.
    fn body_of(&mut self, header: &Header) -> Option<Shape> {
        let bodyless = BODYLESS_ERRORS.contains(&header.error.as_str());
        match self.expected.get(&header.seq).copied()? {
            Expected::Reply(shape) => {
                self.expected.remove(&header.seq);
                (!bodyless).then_some(shape)
            }
            Expected::Subscription(shape) => {
                if header.error.is_empty() {
                    self.expected.insert(header.seq, Expected::Records(shape));
                } else {
                    self.expected.remove(&header.seq);
                }
                None
            }
            Expected::Records(shape) => Some(shape),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(seq: u64, command: Command) -> Request {
        Request { seq, command }
    }

    #[test]
    fn records_follow_the_first_bare_header_of_a_subscription() {
        let mut reader = ResponseReader::new();
        reader.expect(&request(2, Command::Monitor { level: "INFO".to_owned() }));
        let started = Response::header(2, String::new());
        let line = Response { body: Some(Body::Log("[INFO] x".to_owned())), ..started.clone() };
        for response in [&started, &line, &line] {
            for byte in response.encode() {
                assert_eq!(reader.next_response(), Ok(None));
                reader.feed(&[byte]);
            }
            assert_eq!(reader.next_response(), Ok(Some(response.clone())));
        }
    }

    #[test]
    fn a_refused_subscription_has_no_records() {
        let mut reader = ResponseReader::new();
        reader.expect(&request(2, Command::Stream { filter: "bogus".to_owned() }));
        let refused = Response::header(2, "Invalid event filter".to_owned());
        reader.feed(&[refused.encode(), refused.encode()].concat());
        assert_eq!(reader.next_response(), Ok(Some(refused.clone())));
        assert_eq!(reader.next_response(), Ok(Some(refused)));
    }

    #[test]
    fn an_error_is_read_with_its_body_unless_the_agent_stopped_reading() {
        let mut reader = ResponseReader::new();
        let failed =
            Response { seq: 1, error: "failed".to_owned(), body: Some(Body::Join { reached: 0 }) };
        let refused = Response::header(2, BODYLESS_ERRORS[0].to_owned());
        for seq in [1, 2] {
            reader.expect(&request(seq, Command::Members));
        }
        let join = super::super::Join { addresses: Vec::new(), replay: false, wan: false };
        reader.expect(&request(1, Command::Join(join)));
        reader.feed(&[failed.encode(), refused.encode()].concat());
        assert_eq!(reader.next_response(), Ok(Some(failed)));
        assert_eq!(reader.next_response(), Ok(Some(refused)));
    }

    proptest! {
        #[test]
        fn arbitrary_responses_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = ResponseReader::new();
            reader.expect(&request(1, Command::Stats));
            reader.expect(&request(2, Command::Stream { filter: String::new() }));
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.next_response() {}
        }
    }
}
