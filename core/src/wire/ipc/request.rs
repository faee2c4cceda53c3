//! Requests of the control protocol (gossip-wire.md §12.1).

use super::REQUEST_BYTES_MAX;
use crate::wire::DecodeError;
use crate::wire::msgpack::{self, Field, Ipc, message};
use crate::wire::scan::Arrivals;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client, unique in its connection; the response repeats it.
    pub seq: u64,
    /// What is asked for.
    pub command: Command,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Must come first, once.
    Handshake {
        /// The protocol's version: 1.
        version: u64,
    },
    /// Proves that the client may.
    Auth {
        /// The key.
        key: String,
    },
    /// Fires a user event.
    Event(Event),
    /// Makes a failed member leave.
    ForceLeave {
        /// Who.
        node: String,
        /// Whether to forget it at once.
        prune: bool,
    },
    /// Joins other agents.
    Join(Join),
    /// Lists the members.
    Members,
    /// Lists the members of the LAN pool.
    MembersLan,
    /// Lists the members of the WAN pool.
    MembersWan,
    /// Lists the members that match.
    MembersFiltered(Filter),
    /// Leaves the cluster and stops.
    Leave {
        /// Leaves even if the quorum would be lost.
        force: bool,
    },
    /// Changes this agent's tags.
    Tags(Tags),
    /// Asks the members; answered by a stream of records.
    Query(Query),
    /// Answers a query that arrived as a record of a stream.
    Respond(Respond),
    /// Subscribes to events.
    Stream {
        /// Which, as a comma-separated list; empty or `*` for all.
        filter: String,
    },
    /// Subscribes to the log.
    Monitor {
        /// The lowest level wanted.
        level: String,
    },
    /// Ends a subscription.
    Stop {
        /// The number of the request that made it.
        seq: u64,
    },
    /// Asks for the agent's figures.
    Stats,
    /// Adds a gossip key.
    InstallKey {
        /// The key in base64.
        key: String,
    },
    /// Makes a gossip key the primary one.
    UseKey {
        /// The key in base64.
        key: String,
    },
    /// Removes a gossip key.
    RemoveKey {
        /// The key in base64.
        key: String,
    },
    /// Lists the gossip keys.
    ListKeys,
    /// Asks for a member's network coordinate.
    GetCoordinate {
        /// Whose.
        node: String,
    },
    /// Reads the configuration files again.
    Reload,
    /// A command that does not exist; the connection is of no use any more.
    Unknown(String),
}

/// A user event to fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether events of this name may be merged into the newest.
    pub coalesce: bool,
    /// Its name.
    pub name: String,
    /// Its content.
    pub payload: Bytes,
}
message!(Ipc, Event { "Coalesce" => coalesce, "Name" => name, "Payload" => payload });

/// Agents to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Their addresses, `HOST` or `HOST:PORT`.
    pub addresses: Vec<String>,
    /// Whether old user events are wanted.
    pub replay: bool,
    /// Whether the WAN pool is meant.
    pub wan: bool,
}
message!(Ipc, Join { "Existing" => addresses, "Replay" => replay, "WAN" => wan omitempty });

/// Which members to list: regular expressions over the whole text, empty for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// On the name.
    pub name: String,
    /// On the status.
    pub status: String,
    /// On the values of tags.
    pub tags: BTreeMap<String, String>,
}
message!(Ipc, Filter { "Name" => name, "Status" => status, "Tags" => tags });

/// A change of tags: first the deletions, then the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Tags to delete.
    pub delete: Option<Vec<String>>,
    /// Tags to set.
    pub set: Option<BTreeMap<String, String>>,
}
message!(Ipc, Tags { "DeleteTags" => delete, "Tags" => set });

/// A question to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only these members answer, if set.
    pub filter_nodes: Option<Vec<String>>,
    /// Only members whose tags match these regular expressions answer, if set.
    pub filter_tags: Option<BTreeMap<String, String>>,
    /// Its name.
    pub name: String,
    /// Its content.
    pub payload: Option<Bytes>,
    /// How many relays each answer takes besides.
    pub relay_factor: u8,
    /// Whether acknowledgements are wanted.
    pub request_ack: bool,
    /// How long answers are taken; zero for the default.
    pub timeout: Duration,
}
message!(Ipc, Query {
    "FilterNodes" => filter_nodes,
    "FilterTags" => filter_tags,
    "Name" => name,
    "Payload" => payload,
    "RelayFactor" => relay_factor,
    "RequestAck" => request_ack,
    "Timeout" => timeout,
});

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The number in the query's record.
    pub id: u64,
    /// The answer.
    pub payload: Bytes,
}
message!(Ipc, Respond { "ID" => id, "Payload" => payload });

#[derive(Debug)]
struct Header {
    command: String,
    force: bool,
    seq: u64,
}
message!(Ipc, Header { "Command" => command, "Force" => force omitempty, "Seq" => seq });

struct HandshakeBody {
    version: u64,
}
message!(Ipc, HandshakeBody { "Version" => version });

struct AuthBody {
    key: String,
}
message!(Ipc, AuthBody { "AuthKey" => key });

struct ForceLeaveBody {
    node: String,
    prune: bool,
}
message!(Ipc, ForceLeaveBody { "Node" => node, "Prune" => prune });

struct StreamBody {
    filter: String,
}
message!(Ipc, StreamBody { "Type" => filter });

struct MonitorBody {
    level: String,
}
message!(Ipc, MonitorBody { "LogLevel" => level });

struct StopBody {
    seq: u64,
}
message!(Ipc, StopBody { "Stop" => seq });

struct KeyBody {
    key: String,
}
message!(Ipc, KeyBody { "Key" => key });

struct NodeBody {
    node: String,
}
message!(Ipc, NodeBody { "Node" => node });

impl Command {
    /// The command's word.
    pub fn name(&self) -> &str {
        match self {
            Self::Handshake { .. } => "handshake",
            Self::Auth { .. } => "auth",
            Self::Event(_) => "event",
            Self::ForceLeave { .. } => "force-leave",
            Self::Join(_) => "join",
            Self::Members => "members",
            Self::MembersLan => "members-lan",
            Self::MembersWan => "members-wan",
            Self::MembersFiltered(_) => "members-filtered",
            Self::Leave { .. } => "leave",
            Self::Tags(_) => "tags",
            Self::Query(_) => "query",
            Self::Respond(_) => "respond",
            Self::Stream { .. } => "stream",
            Self::Monitor { .. } => "monitor",
            Self::Stop { .. } => "stop",
            Self::Stats => "stats",
            Self::InstallKey { .. } => "install-key",
            Self::UseKey { .. } => "use-key",
            Self::RemoveKey { .. } => "remove-key",
            Self::ListKeys => "list-keys",
            Self::GetCoordinate { .. } => "get-coordinate",
            Self::Reload => "reload",
            Self::Unknown(name) => name,
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self.clone() {
            Self::Handshake { version } => HandshakeBody { version }.put(out),
            Self::Auth { key } => AuthBody { key }.put(out),
            Self::Event(event) => event.put(out),
            Self::ForceLeave { node, prune } => ForceLeaveBody { node, prune }.put(out),
            Self::Join(join) => join.put(out),
            Self::MembersFiltered(filter) => filter.put(out),
            Self::Tags(tags) => tags.put(out),
            Self::Query(query) => query.put(out),
            Self::Respond(respond) => respond.put(out),
            Self::Stream { filter } => StreamBody { filter }.put(out),
            Self::Monitor { level } => MonitorBody { level }.put(out),
            Self::Stop { seq } => StopBody { seq }.put(out),
            Self::InstallKey { key } | Self::UseKey { key } | Self::RemoveKey { key } => {
                KeyBody { key }.put(out);
            }
            Self::GetCoordinate { node } => NodeBody { node }.put(out),
            Self::Members
            | Self::MembersLan
            | Self::MembersWan
            | Self::Leave { .. }
            | Self::Stats
            | Self::ListKeys
            | Self::Reload
            | Self::Unknown(_) => {}
        }
    }

    /// The command of a header that no body follows.
    fn without_body(header: &Header) -> Option<Self> {
        Some(match header.command.as_str() {
            "members" => Self::Members,
            "members-lan" => Self::MembersLan,
            "members-wan" => Self::MembersWan,
            "leave" => Self::Leave { force: header.force },
            "stats" => Self::Stats,
            "list-keys" => Self::ListKeys,
            "reload" => Self::Reload,
            name if !WITH_BODY.contains(&name) => Self::Unknown(name.to_owned()),
            _ => return None,
        })
    }

    /// The command called `name` with this body; `name` is one of [`WITH_BODY`].
    fn with_body(name: &str, body: &[u8]) -> Result<Self, DecodeError> {
        let key = || msgpack::decode(body).map(|KeyBody { key }| key);
        Ok(match name {
            "handshake" => {
                let HandshakeBody { version } = msgpack::decode(body)?;
                Self::Handshake { version }
            }
            "auth" => {
                let AuthBody { key } = msgpack::decode(body)?;
                Self::Auth { key }
            }
            "event" => Self::Event(msgpack::decode(body)?),
            "force-leave" => {
                let ForceLeaveBody { node, prune } = msgpack::decode(body)?;
                Self::ForceLeave { node, prune }
            }
            "join" => Self::Join(msgpack::decode(body)?),
            "members-filtered" => Self::MembersFiltered(msgpack::decode(body)?),
            "tags" => Self::Tags(msgpack::decode(body)?),
            "query" => Self::Query(msgpack::decode(body)?),
            "respond" => Self::Respond(msgpack::decode(body)?),
            "stream" => {
                let StreamBody { filter } = msgpack::decode(body)?;
                Self::Stream { filter }
            }
            "monitor" => {
                let MonitorBody { level } = msgpack::decode(body)?;
                Self::Monitor { level }
            }
            "stop" => {
                let StopBody { seq } = msgpack::decode(body)?;
                Self::Stop { seq }
            }
            "install-key" => Self::InstallKey { key: key()? },
            "use-key" => Self::UseKey { key: key()? },
            "remove-key" => Self::RemoveKey { key: key()? },
            _ => {
                let NodeBody { node } = msgpack::decode(body)?;
                Self::GetCoordinate { node }
            }
        })
    }
}

/// The commands whose header is followed by a body.
const WITH_BODY: [&str; 16] = [
    "handshake",
    "auth",
    "event",
    "force-leave",
    "join",
    "members-filtered",
    "tags",
    "query",
    "respond",
    "stream",
    "monitor",
    "stop",
    "install-key",
    "use-key",
    "remove-key",
    "get-coordinate",
];

impl Request {
    /// The request's bytes: header and body.
    pub fn encode(&self) -> Bytes {
        let command = self.command.name().to_owned();
        let force = self.command == Command::Leave { force: true };
        let mut out = Vec::with_capacity(64);
        Header { command, force, seq: self.seq }.put(&mut out);
        self.command.put_body(&mut out);
        out.into()
    }
}

/// Reads the requests of one connection as they arrive.
#[derive(Debug, Default)]
pub struct RequestReader {
    arrivals: Arrivals,
    /// The header whose body is awaited.
    header: Option<Header>,
}

impl RequestReader {
    /// A reader at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes.
    ///
    /// - Errors: `Limit` if more waits than two whole requests, because the client sends ahead
    ///   of its answers without bound; close the connection.
    pub fn feed(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let (waiting, limit) = (self.arrivals.len() + data.len(), 4 * REQUEST_BYTES_MAX);
        if waiting > limit {
            let (value, limit) = (waiting as u64, limit as u64);
            return Err(DecodeError::Limit { field: "requests", value, limit });
        }
        self.arrivals.push(data);
        Ok(())
    }

    /// The next request, once all of it is there.
    ///
    /// - Errors: the bytes are no request; close the connection.
    pub fn next_request(&mut self) -> Result<Option<Request>, DecodeError> {
        let header = match self.header.take() {
            Some(header) => header,
            None => match self.arrivals.take_value("request header", REQUEST_BYTES_MAX)? {
                Some(bytes) => msgpack::decode(&bytes)?,
                None => return Ok(None),
            },
        };
        if let Some(command) = Command::without_body(&header) {
            return Ok(Some(Request { seq: header.seq, command }));
        }
        match self.arrivals.take_value("request body", REQUEST_BYTES_MAX)? {
            Some(body) => {
                let command = Command::with_body(&header.command, &body)?;
                Ok(Some(Request { seq: header.seq, command }))
            }
            None => {
                self.header = Some(header);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn commands() -> Vec<Command> {
        let text = || "x".to_owned();
        vec![
            Command::Handshake { version: 1 },
            Command::ForceLeave { node: text(), prune: true },
            Command::Join(Join { addresses: vec![text()], replay: false, wan: true }),
            Command::MembersWan,
            Command::Leave { force: true },
            Command::Leave { force: false },
            Command::Tags(Tags { delete: None, set: Some(BTreeMap::from([(text(), text())])) }),
            Command::Reload,
            Command::GetCoordinate { node: text() },
        ]
    }

    #[test]
    fn requests_survive_any_cut() {
        let numbered = commands().into_iter().zip(1..);
        let requests: Vec<Request> =
            numbered.map(|(command, seq)| Request { seq, command }).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(Request::encode).collect();
        for size in [1, 3, 64, 4096] {
            let mut reader = RequestReader::new();
            let mut read = Vec::new();
            for piece in bytes.chunks(size) {
                reader.feed(piece).unwrap();
                while let Some(request) = reader.next_request().unwrap() {
                    read.push(request);
                }
            }
            assert_eq!(read, requests);
        }
    }

    #[test]
    fn an_unknown_command_is_read_without_waiting_for_a_body() {
        let request = Request { seq: 2, command: Command::Unknown("frobnicate".to_owned()) };
        let mut reader = RequestReader::new();
        reader.feed(&request.encode()).unwrap();
        assert_eq!(reader.next_request(), Ok(Some(request)));
    }

    #[test]
    fn an_oversized_request_is_refused_by_its_claim() {
        let mut reader = RequestReader::new();
        reader.feed(&[0x82, 0xdb, 0x7f, 0xff, 0xff, 0xff]).unwrap();
        assert!(matches!(reader.next_request(), Err(DecodeError::Limit { .. })));
        assert!(reader.feed(&vec![0; 4 * REQUEST_BYTES_MAX]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_requests_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = RequestReader::new();
            reader.feed(&bytes).unwrap();
            while let Ok(Some(_)) = reader.next_request() {}
        }
    }
}
