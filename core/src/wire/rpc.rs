//! What agents say on the server port 8300, version 1.
//!
//! | tag | frame | value |
//! |---|---|---|
//! | 1 | hello | map of [`Hello`]; first in each direction, once |
//! | 2 | raft | bytes, read by the codec of consensus |
//! | 3 | bootstrap | bytes, read by the codec of the bootstrap |
//! | 4 | request | map of [`RemoteRequest`] |
//! | 5 | reply | map of [`RemoteReply`] |
//! | 6, 7 | ping, pong | nil |
//!
//! The side that opened the stream says hello first; nothing else is sent before the other side's
//! hello arrived. Both then speak the highest version that both know.

use super::pack::{self, Pack};
use super::{DecodeError, frame};
use crate::catalog::prepared::Executed;
use crate::catalog::query::QueryAnswer;
use crate::catalog::transaction::TransactionResult;
use crate::event::Event;
use crate::id::{Datacenter, NodeId, NodeName};
use crate::node::request::{BackupReply, Request, RequestError, Response};
use crate::reconcile::Health;
use crate::serf::{KeyReport, SerfReply};
use crate::time::WallClock;
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The lowest protocol version spoken.
pub const PROTOCOL_MIN: u8 = 1;
/// The highest protocol version spoken.
pub const PROTOCOL_MAX: u8 = 1;

/// What a stream between two agents carries; the two are not ordered against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Requests, replies, log entries.
    Data,
    /// Small messages that must never wait behind data: heartbeats, votes, their answers.
    Heartbeat,
}
pack_enum!(Lane { 1 => Data, 2 => Heartbeat });

/// The first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version spoken.
    pub protocol_min: u8,
    /// The highest protocol version spoken.
    pub protocol_max: u8,
    /// The speaker's datacenter.
    pub datacenter: Datacenter,
    /// The speaker's identity.
    pub node: NodeId,
    /// The speaker's name.
    pub name: NodeName,
    /// What the stream is for, as its opener wants it.
    pub lane: Lane,
}
pack_struct!(Hello { protocol_min, protocol_max, datacenter, node, name, lane });

impl Hello {
    /// The highest version that both speak.
    pub fn common_version(&self) -> Option<u8> {
        let common = self.protocol_max.min(PROTOCOL_MAX);
        (common >= self.protocol_min && common >= PROTOCOL_MIN).then_some(common)
    }
}

/// A request on its way to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRequest {
    /// The reply names it; unique among the sender's requests on this stream.
    pub id: u64,
    /// How much longer it may wait for a leader.
    pub hold: Duration,
    /// Civil time of its arrival at the first agent.
    pub wall: WallClock,
    /// How often it was sent, this time included.
    pub hops: u8,
    /// What is asked, and by whom.
    pub request: Arc<Request>,
}
pack_struct!(RemoteRequest { id, hold, wall, hops, request });

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReply {
    /// The request's number.
    pub id: u64,
    /// What became of it.
    pub outcome: Outcome,
}
pack_struct!(RemoteReply { id, outcome });

/// What became of a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write is done.
    Done,
    /// A query is answered.
    Answer(Arc<QueryAnswer>),
    /// It was not done, or nobody knows.
    Failed(RequestError),
    /// An event is fired.
    Event(Box<Event>),
    /// Keyrings were asked.
    Keys(KeyReport),
    /// The condition of a write is not met.
    Unmet,
    /// A transaction is over.
    Transaction(TransactionResult),
    /// Something of a backup.
    Backup(BackupReply),
    /// How the servers do.
    Health(Box<Health>),
    /// What a prepared query found.
    Executed(Box<Executed>),
}
pack_enum!(Outcome {
    1 => Done, 2 => Answer(Arc<QueryAnswer>), 3 => Failed(RequestError), 4 => Event(Box<Event>),
    5 => Keys(KeyReport), 6 => Unmet, 7 => Transaction(TransactionResult),
    8 => Backup(BackupReply), 9 => Health(Box<Health>), 10 => Executed(Box<Executed>),
});

impl From<Result<Response, RequestError>> for Outcome {
    /// Panics on a response that nothing has which is forwarded.
    fn from(result: Result<Response, RequestError>) -> Self {
        match result {
            Ok(Response::Done) => Self::Done,
            Ok(Response::Answer(answer)) => Self::Answer(answer),
            Ok(Response::Event(event)) => Self::Event(event),
            Ok(Response::Serf(SerfReply::Keys(report))) => Self::Keys(report),
            Ok(Response::Unmet) => Self::Unmet,
            Ok(Response::Transaction(result)) => Self::Transaction(result),
            Ok(Response::Backup(reply)) => Self::Backup(reply),
            Ok(Response::Health(health)) => Self::Health(health),
            Ok(Response::Executed(executed)) => Self::Executed(executed),
            Ok(other) => unreachable!("what is forwarded was answered with {other:?}"),
            Err(error) => Self::Failed(error),
        }
    }
}

impl From<Outcome> for Result<Response, RequestError> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Ok(Response::Done),
            Outcome::Answer(answer) => Ok(Response::Answer(answer)),
            Outcome::Event(event) => Ok(Response::Event(event)),
            Outcome::Keys(report) => Ok(Response::Serf(SerfReply::Keys(report))),
            Outcome::Unmet => Ok(Response::Unmet),
            Outcome::Transaction(result) => Ok(Response::Transaction(result)),
            Outcome::Backup(reply) => Ok(Response::Backup(reply)),
            Outcome::Health(health) => Ok(Response::Health(health)),
            Outcome::Executed(executed) => Ok(Response::Executed(executed)),
            Outcome::Failed(error) => Err(error),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who speaks.
    Hello(Hello),
    /// A message of consensus.
    Raft(Bytes),
    /// A message of the bootstrap.
    Bootstrap(Bytes),
    /// A request.
    Request(RemoteRequest),
    /// An answer.
    Reply(RemoteReply),
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// Nobody waits any more for the answer to this request of this stream.
    Cancel(u64),
}
pack_enum!(Frame {
    1 => Hello(Hello), 2 => Raft(Bytes), 3 => Bootstrap(Bytes), 4 => Request(RemoteRequest),
    5 => Reply(RemoteReply), 6 => Ping, 7 => Pong, 8 => Cancel(u64),
});

impl Frame {
    /// The frame with its length in front; refused if it is above the limit.
    pub fn encode(&self) -> Result<Bytes, DecodeError> {
        frame::encode(|out| self.pack(out))
    }

    /// Reads the body of a frame.
    ///
    /// - Errors: those of [`pack::from_bytes`]; a request that only an agent's own programs make.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let frame = pack::from_bytes(body)?;
        if let Self::Request(RemoteRequest { request, .. }) = &frame
            && !request.body.is_forwarded()
        {
            return Err(DecodeError::Invalid { field: "request", rule: "is never forwarded" });
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::command::Command;
    use crate::catalog::kv::{KvEntry, KvPut, KvWrite};
    use crate::catalog::query::{
        Consistency, NodeQuery, Query, RaftConfiguration, RaftServer, Rows,
    };
    use crate::catalog::transaction::{IndexCheck, Operation, OperationError, TransactionRow};
    use crate::event::{Filters, FireEvent};
    use crate::id::{EventId, LamportTime, LogIndex, ModifyIndex, PoolName, Term};
    use crate::node::request::{
        BackupBlock, BackupId, BackupOpened, BackupRead, BackupRequest, KeyringRequest,
        OperatorRequest, RequestBody,
    };
    use crate::serf::KeyOperation;
    use proptest::prelude::*;

    fn hello(min: u8, max: u8) -> Hello {
        Hello {
            protocol_min: min,
            protocol_max: max,
            datacenter: Datacenter::parse("dc1").unwrap(),
            node: NodeId::from_random([1; 16]),
            name: NodeName::parse("a").unwrap(),
            lane: Lane::Heartbeat,
        }
    }

    fn body(frame: &Frame) -> Bytes {
        frame.encode().unwrap().slice(4..)
    }

    #[test]
    fn what_an_agent_answers_itself_is_taken_from_no_peer() {
        let request = Arc::new(Request::new(RequestBody::Leave { force: true }));
        let (hold, wall) = (Duration::ZERO, WallClock::from_millis(1));
        let frame = Frame::Request(RemoteRequest { id: 1, hold, wall, hops: 1, request });
        let refused = DecodeError::Invalid { field: "request", rule: "is never forwarded" };
        assert_eq!(Frame::decode(&body(&frame)), Err(refused));
    }

    #[test]
    fn frames_survive_their_wire_form() {
        let mut request = Request::new(RequestBody::Query(Query::Node(NodeQuery::all("n"))));
        request.context.token = Some("secret".to_owned());
        request.context.consistency = Consistency::Consistent;
        let fire = FireEvent {
            name: "deploy".to_owned(),
            payload: Bytes::from_static(b"v7"),
            filters: Filters { node: "^db".to_owned(), ..Filters::default() },
        };
        let FireEvent { name, payload, filters } = fire.clone();
        let event = Event {
            id: EventId::from_bytes([7; 16]),
            name,
            payload: Some(payload),
            filters,
            version: 1,
            time: LamportTime::ZERO,
        };
        let fire = Request::new(RequestBody::FireEvent(Box::new(fire)));
        let operation = KeyOperation::Install(Bytes::from_static(&[7; 16]));
        let keys = KeyringRequest { pool: PoolName::Lan, operation, relay_factor: 2 };
        let keys = Request::new(RequestBody::Keys(keys));
        let report = KeyReport {
            nodes: 3,
            responses: 2,
            messages: [(NodeName::parse("n").unwrap(), "no".to_owned())].into(),
            primary_keys: [("k".to_owned(), 2)].into(),
            ..KeyReport::default()
        };
        let asked = |id, request| {
            let (hold, wall) = (Duration::from_secs(3), WallClock::from_millis(-5));
            Frame::Request(RemoteRequest { id, hold, wall, hops: 1, request: Arc::new(request) })
        };
        let frames = [
            Frame::Hello(hello(1, 1)),
            Frame::Raft(Bytes::from_static(b"raft")),
            Frame::Bootstrap(Bytes::from_static(b"boot")),
            asked(7, request),
            asked(9, fire),
            asked(10, keys),
            asked(
                11,
                Request::new(RequestBody::Operator(OperatorRequest::TransferLeadership(None))),
            ),
            Frame::Reply(RemoteReply { id: 7, outcome: Outcome::Done }),
            Frame::Reply(RemoteReply { id: 8, outcome: Outcome::Failed(RequestError::NoLeader) }),
            Frame::Reply(RemoteReply { id: 9, outcome: Outcome::Event(Box::new(event)) }),
            Frame::Reply(RemoteReply { id: 10, outcome: Outcome::Keys(report) }),
            Frame::Reply(RemoteReply { id: 11, outcome: Outcome::Unmet }),
            Frame::Ping,
            Frame::Pong,
            Frame::Cancel(7),
        ];
        let frames = frames.into_iter().chain(backup_frames(asked)).chain(kv_frames(asked));
        for frame in frames {
            assert_eq!(Frame::decode(&body(&frame)), Ok(frame));
        }
    }

    /// What is asked of a backup, and what is answered.
    fn backup_frames(asked: impl Fn(u64, Request) -> Frame) -> Vec<Frame> {
        let id = NodeId::from_random([3; 16]);
        let backup = BackupId { server: id, number: u64::MAX };
        let configuration = RaftConfiguration {
            index: LogIndex::new(4),
            servers: vec![RaftServer {
                id,
                name: None,
                address: ([10, 0, 0, 1], 8300).into(),
                leader: true,
                voter: true,
            }],
        };
        let opened = BackupOpened {
            backup,
            applied: LogIndex::new(7),
            term: Term::new(2),
            index: ModifyIndex::new(9),
            configuration,
            known_leader: true,
            last_contact: Duration::from_millis(3),
        };
        let block = BackupBlock { data: Bytes::from_static(b"block"), last: true };
        let ask = |id, wanted| asked(id, Request::new(RequestBody::Backup(wanted)));
        let reply = |id, reply| Frame::Reply(RemoteReply { id, outcome: Outcome::Backup(reply) });
        vec![
            ask(30, BackupRequest::Open),
            ask(31, BackupRequest::Read(BackupRead { backup, block: 8 })),
            ask(32, BackupRequest::Close(backup)),
            reply(30, BackupReply::Opened(Box::new(opened))),
            reply(31, BackupReply::Block(block)),
        ]
    }

    /// What is asked about keys, and what is answered.
    fn kv_frames(asked: impl Fn(u64, Request) -> Frame) -> Vec<Frame> {
        let index = ModifyIndex::new(9);
        let value = Bytes::from_static(b"v");
        let put = KvPut { key: "a".to_owned(), value, flags: 7, only_at: Some(index) };
        let operations = vec![
            Operation::Write(KvWrite::Put(put.clone())),
            Operation::Write(KvWrite::DeleteTree("a/".to_owned())),
            Operation::CheckIndex(IndexCheck { key: "a".to_owned(), index }),
        ];
        let entry = KvEntry {
            key: "a".into(),
            value: Bytes::from_static(b"v"),
            flags: 7,
            lock: None,
            create_index: index,
            modify_index: index,
        };
        let answer = QueryAnswer {
            rows: Rows::Entries(vec![Arc::new(entry.clone())]),
            index,
            known_leader: true,
            last_contact: Duration::from_millis(3),
            consistency: Consistency::Stale,
        };
        let mut read = Request::new(RequestBody::Query(Query::KeyTree("a".to_owned())));
        read.context.min_index = index;
        read.context.wait = Some(Duration::from_secs(60));
        let failed = OperationError { operation: 1, what: "key \"a\" exists".to_owned() };
        let reply = |id, outcome| Frame::Reply(RemoteReply { id, outcome });
        vec![
            asked(20, Request::new(RequestBody::Write(Command::Kv(KvWrite::Put(put))))),
            asked(21, Request::new(RequestBody::Write(Command::Transaction(operations)))),
            asked(22, read),
            reply(20, Outcome::Answer(Arc::new(answer))),
            reply(
                21,
                Outcome::Transaction(TransactionResult::Done(vec![TransactionRow::Entry(
                    Arc::new(entry),
                )])),
            ),
            reply(22, Outcome::Transaction(TransactionResult::Failed(vec![failed]))),
        ]
    }

    #[test]
    fn versions_meet_at_the_highest_common_one() {
        assert_eq!(hello(1, 9).common_version(), Some(PROTOCOL_MAX));
        assert_eq!(hello(2, 9).common_version(), None);
        assert_eq!(hello(0, 0).common_version(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::decode(&bytes);
        }
    }
}
