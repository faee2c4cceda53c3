//! What is recorded comes back, and nothing else is taken for it.

use super::*;
use crate::catalog::autopilot::AutopilotConfig;
use crate::catalog::command::Command;
use crate::catalog::kv::{KvPut, KvWrite};
use crate::catalog::model::{CheckStatus, Service, Weights};
use crate::catalog::query::{Consistency, Query};
use crate::config::{Bootstrap, GossipConfig, SerfConfig, ServerConfig, WanConfig};
use crate::event::{Filters, FireEvent};
use crate::gossip::Admission;
use crate::id::{
    CheckId, Datacenter, LamportTime, ModifyIndex, NodeId, NodeName, PoolName, RequestId,
    ServiceId, ServiceName, StreamId, WriteId,
};
use crate::local::Maintenance;
use crate::local::definition::{self, CheckDefinition, CheckKind, ServiceDefinition};
use crate::node::input::{CheckResult, CloseReason, StreamKind};
use crate::node::output::{Output, StopReason};
use crate::node::request::{
    BackupRequest, KeyringRequest, OperatorRequest, Reloadable, Request, RequestBody, RequestError,
    Response,
};
use crate::raft::RaftLimits;
use crate::rpc::RequestRate;
use crate::serf::{KeyOperation, QueryHeard, QueryId, QueryParameters, SerfEvent, SerfRequest};
use crate::storage::op::{FileOp, FilePath, Lane, StorageFault, StorageOp};
use crate::storage::recovery::{Peer, Step};
use crate::storage::wal::WalConfig;
use crate::trace::Level;
use crate::wire::label::Label;
use crate::wire::seal::Key;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const WALL: WallClock = WallClock::from_millis(1_700_000_000_123);

fn peer() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 7], 8301))
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([(text("rack"), text("b"))])
}

fn check() -> CheckDefinition {
    CheckDefinition {
        id: CheckId::parse("c").unwrap(),
        name: text("c"),
        notes: text("n"),
        service_id: None,
        status: CheckStatus::Other(text("odd")),
        kind: CheckKind::Ttl(Duration::from_secs(9)),
        output_max_size: 4096,
        success_before_passing: 1,
        failures_before_critical: 2,
        deregister_critical_service_after: Some(Duration::from_secs(60)),
        token: text("secret"),
        origin: definition::Origin::File,
    }
}

fn service() -> ServiceDefinition {
    let service = Service {
        id: ServiceId::parse("web-1").unwrap(),
        name: ServiceName::parse("web").unwrap(),
        tags: vec![text("v1")],
        address: text("10.0.0.8"),
        tagged_addresses: BTreeMap::new(),
        meta: pairs(),
        port: -1,
        weights: Weights { passing: 1, warning: 1 },
        enable_tag_override: true,
        create_index: ModifyIndex::new(3),
        modify_index: ModifyIndex::new(4),
    };
    ServiceDefinition {
        service,
        checks: vec![check()],
        token: text("t"),
        origin: definition::Origin::Api,
    }
}

fn rate() -> Option<RequestRate> {
    Some(RequestRate { interval: Duration::from_millis(20), burst: 3 })
}

/// Settings that differ from the default wherever there is a choice.
fn config() -> NodeConfig {
    let label = Label::new("blue").unwrap();
    let encrypt = Some(Key::new(&[7; 24]).unwrap());
    let admission = Admission::Datacenter(Datacenter::parse("dc2").unwrap());
    let gossip = GossipConfig { label, encrypt, admission, ..GossipConfig::lan() };
    let wan_gossip = GossipConfig { admission: Admission::Servers, ..GossipConfig::wan() };
    let wan = WanConfig { port: 8302, gossip: wan_gossip, serf: SerfConfig::wan() };
    let server = ServerConfig {
        bootstrap: Bootstrap::Expect(3),
        votes: false,
        autopilot: AutopilotConfig { min_quorum: 3, ..AutopilotConfig::default() },
        dead_server_grace: Duration::from_secs(77),
        tombstone_time: Duration::from_secs(78),
        raft_multiplier: 5,
        limits: RaftLimits { snapshot_entries: 17, ..RaftLimits::default() },
        handshake: Some(Duration::from_millis(4001)),
        leave_drain: Duration::from_millis(4002),
        wan: Some(wan),
    };
    NodeConfig {
        name: NodeName::parse("armons.local").unwrap(),
        datacenter: Datacenter::parse("dc2").unwrap(),
        advertise: IpAddr::from([10, 0, 0, 9]),
        advertise_wan: "2001:db8::1".parse().unwrap(),
        tagged_addresses: pairs(),
        serf_lan_port: 8301,
        server_port: 8300,
        server: Some(server),
        gossip,
        serf: SerfConfig::default(),
        services: vec![service()],
        checks: vec![check()],
        node_meta: pairs(),
        rpc_hold: Duration::from_millis(7001),
        rpc_rate: rate(),
        check_update_interval: Duration::ZERO,
        check_output: definition::OutputRules { bytes_max: 9, discard: true },
        level: Level::Trace,
    }
}

fn origin() -> Origin {
    Origin {
        release: RELEASE.to_owned(),
        seed: Seed::new([9; 32]),
        config: config(),
        recovery: RecoveryConfig {
            server: true,
            node_id: Some(NodeId::from_random([4; 16])),
            wal: WalConfig::default(),
            peers: Some(vec![Peer {
                id: None,
                address: SocketAddr::from(([10, 0, 0, 1], 8300)),
                votes: true,
            }]),
            host: vec![text("machine")],
        },
    }
}

fn serf_requests() -> Vec<SerfRequest> {
    let (name, payload) = (text("deploy"), Bytes::from_static(b"v7"));
    let query = QueryParameters {
        name: name.clone(),
        payload: payload.clone(),
        nodes: vec![NodeName::parse("a").unwrap()],
        tags: pairs(),
        acknowledge: true,
        relay_factor: 2,
        timeout: Some(Duration::from_secs(4)),
    };
    let operation = KeyOperation::Install(Bytes::from_static(&[1; 16]));
    vec![
        SerfRequest::FireEvent { name, payload: payload.clone(), coalesce: true },
        SerfRequest::Query(Box::new(query)),
        SerfRequest::AnswerQuery { query: QueryId(5), payload },
        SerfRequest::Keys { operation, relay_factor: 1 },
        SerfRequest::EditTags { delete: vec![text("zone")], set: pairs() },
    ]
}

/// A request of every kind.
fn bodies() -> Vec<RequestBody> {
    let put = KvPut { key: text("k"), value: Bytes::from_static(b"v"), flags: 1, only_at: None };
    let filters = Filters { node: text("^db"), ..Filters::default() };
    let event = FireEvent { name: text("deploy"), payload: Bytes::new(), filters };
    let reload = Reloadable {
        services: vec![service()],
        checks: vec![check()],
        node_meta: pairs(),
        discard_check_output: true,
        rpc_rate: rate(),
        level: Level::Debug,
    };
    let id = || CheckId::parse("c").unwrap();
    let operation = KeyOperation::List;
    let mut bodies = vec![
        RequestBody::Query(Query::Key(text("k"))),
        RequestBody::Write(Command::Kv(KvWrite::Put(put))),
        RequestBody::FireEvent(Box::new(event)),
        RequestBody::Keys(KeyringRequest { pool: PoolName::Wan, operation, relay_factor: 3 }),
        RequestBody::Operator(OperatorRequest::TransferLeadership(None)),
        RequestBody::Backup(BackupRequest::Open),
        RequestBody::Join { pool: PoolName::Lan, addresses: vec![peer()], replay: true },
        RequestBody::Coordinates,
        RequestBody::ForceLeave { node: NodeName::parse("b").unwrap(), prune: true },
        RequestBody::Leave { force: true },
        RequestBody::RegisterService {
            definition: Box::new(service()),
            replace_existing_checks: true,
        },
        RequestBody::DeregisterService(ServiceId::parse("web-1").unwrap()),
        RequestBody::RegisterCheck(Box::new(check())),
        RequestBody::DeregisterCheck(id()),
        RequestBody::UpdateTtl { check: id(), status: CheckStatus::Warning, output: text("so") },
        RequestBody::Reload(Box::new(reload)),
        RequestBody::Info,
        RequestBody::Status,
        RequestBody::Monitor(Some(Level::Trace)),
        RequestBody::Maintenance(Box::new(Maintenance {
            service: Some(ServiceId::parse("web-1").unwrap()),
            enable: true,
            reason: text("moving"),
        })),
    ];
    bodies.extend(serf_requests().into_iter().map(RequestBody::Serf));
    bodies
}

/// An input of every kind, with a request of every kind.
fn inputs() -> Vec<Input> {
    let (stream, write, id) = (StreamId::new(2), WriteId::new(300), RequestId::new(70_000));
    let result = CheckResult { status: CheckStatus::Critical, output: text("refused") };
    let payload = Bytes::from_static(b"\x00gossip");
    let pool = PoolName::Wan;
    let mut inputs = vec![
        Input::Timeout,
        Input::Datagram { pool, from: peer(), payload: payload.clone() },
        Input::StreamOpened { stream, kind: StreamKind::Gossip(pool), peer: peer() },
        Input::StreamOpened { stream, kind: StreamKind::Server, peer: peer() },
        Input::StreamData { stream, data: payload },
        Input::StreamClosed { stream, reason: CloseReason::Limit },
        Input::Persisted { write },
        Input::PersistFailed { write, error: StorageFault::Full },
        Input::RequestAbandoned { id },
        Input::CheckFinished { check: CheckId::parse("c").unwrap(), run: 8, result },
        Input::Leave,
        Input::Shutdown,
    ];
    for body in bodies() {
        let mut request = Request::new(body);
        request.context.token = Some(text("secret"));
        request.context.consistency = Consistency::Stale;
        request.context.wait = Some(Duration::from_secs(5));
        request.context.source = Some(peer());
        inputs.push(Input::Request { id, wall: WALL, request: Arc::new(request) });
    }
    inputs
}

fn outputs() -> Vec<Output> {
    let (stream, write, id) = (StreamId::new(3), WriteId::new(1), RequestId::new(2));
    let file = FilePath::new("raft/wal/1.seg");
    let ops = |ops: Vec<FileOp>| StorageOp { lane: Lane::Log, ops, deferrable: false };
    let write_at = |offset, data: &'static [u8]| {
        let data = Bytes::from_static(data);
        vec![FileOp::Write { file: file.clone(), offset, data }, FileOp::Sync(file.clone())]
    };
    let from = NodeName::parse("a").unwrap();
    let answer = Some(Bytes::new());
    let check = CheckId::parse("c").unwrap();
    let (name, payload) = (text("load"), Bytes::new());
    let time = LamportTime::new(1);
    vec![
        Output::SendDatagram { pool: PoolName::Lan, to: peer(), payload: Bytes::new() },
        Output::SendDatagram { pool: PoolName::Wan, to: peer(), payload: Bytes::new() },
        Output::OpenStream { stream, kind: StreamKind::Server, to: peer() },
        Output::SendStream { stream, data: Bytes::from_static(b"a") },
        Output::SendStream { stream, data: Bytes::from_static(b"b") },
        Output::CloseStream { stream },
        Output::Persist { write, op: ops(write_at(0, b"abc")) },
        Output::Persist { write, op: ops(write_at(8, b"abc")) },
        Output::Persist { write, op: ops(write_at(0, b"abd")) },
        Output::RunCheck { check, run: 1, kind: self::check().kind, output_max_size: 9 },
        Output::Reply { id, result: Ok(Response::Done) },
        Output::Reply { id, result: Ok(Response::Unmet) },
        Output::Reply { id, result: Err(RequestError::NoLeader) },
        Output::QueryHeard { id, heard: QueryHeard { from: from.clone(), answer } },
        Output::QueryHeard { id, heard: QueryHeard { from, answer: None } },
        Output::Event(SerfEvent::Query { query: QueryId(1), time, name, payload }),
        Output::Stopped(StopReason::Left),
        Output::Stopped(StopReason::Shutdown),
        Output::Stopped(StopReason::Fatal(text("a rule"))),
    ]
}

/// A recording of a run that was told everything there is.
fn recording() -> (Vec<u8>, Vec<Record>) {
    let mut recorder = Recorder::new(origin());
    let mut records = vec![Record::Origin(Box::new(origin()))];
    let step = Step::List(None);
    let answers = [
        Answer::Names(vec![text("raft")]),
        Answer::Content(None),
        Answer::Content(Some(Bytes::from_static(b"bytes"))),
        Answer::TooLarge(7),
        Answer::Performed,
        Answer::Failed(StorageFault::Denied),
    ];
    for answer in answers {
        assert_eq!(recorder.answer(&step, answer.clone()), answer, "it is handed back");
        records.push(Record::Answer { step: step_digest(&step), answer });
    }
    let now = Instant::from_nanos(5_000_000_001);
    recorder.start(WALL, now);
    records.push(Record::Start { wall: WALL, now });
    recorder.drained();
    for (waiting, input) in inputs().into_iter().enumerate() {
        assert_eq!(recorder.input(now, input.clone()), input, "it is handed back");
        recorder.handled(waiting);
        records.push(Record::Input { now, input });
    }
    assert_eq!(recorder.inputs(), inputs().len() as u64);
    outputs().iter().for_each(|output| recorder.output(output));
    recorder.drained();
    let digests = outputs().iter().map(OutputDigest::of).collect();
    records.push(Record::Drain(Drain { waiting: (0..inputs().len()).collect(), outputs: digests }));
    (recorder.bytes().to_vec(), records)
}

/// What can be read of `bytes`, and what ends it.
fn read(bytes: &[u8]) -> (Vec<Record>, Decoder, Result<(), RecordingError>) {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let mut records = Vec::new();
    let end = loop {
        match decoder.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (records, decoder, end)
}

#[test]
fn everything_that_is_recorded_comes_back() {
    let (bytes, records) = recording();
    let (again, decoder, end) = read(&bytes);
    assert_eq!(again, records);
    assert_eq!((end, decoder.rest(), decoder.offset()), (Ok(()), 0, bytes.len() as u64));
}

#[test]
fn a_recording_may_come_in_any_pieces() {
    let (bytes, records) = recording();
    let mut decoder = Decoder::default();
    let mut again = Vec::new();
    for piece in bytes.chunks(7) {
        decoder.feed(piece);
        while let Some(record) = decoder.next_record().unwrap() {
            again.push(record);
        }
    }
    assert_eq!(again, records);
}

#[test]
fn a_recording_that_was_cut_off_gives_what_is_whole() {
    let (bytes, records) = recording();
    let mut whole = 0;
    for end in 0..bytes.len() {
        let (again, decoder, result) = read(&bytes[..end]);
        assert_eq!(result, Ok(()), "cut at {end}");
        assert!(again.len() >= whole && records.starts_with(&again), "cut at {end}");
        assert_eq!(decoder.offset() + decoder.rest() as u64, end as u64);
        whole = again.len();
    }
    assert_eq!(whole, records.len() - 1);
}

#[test]
fn a_changed_byte_is_refused_where_it_is() {
    let (bytes, records) = recording();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let (again, _, result) = read(&changed);
        assert!(records.starts_with(&again), "byte {at}");
        match result.expect_err("a change is seen") {
            RecordingError::Foreign => assert!(at < 8, "byte {at}"),
            RecordingError::Version { version } => {
                assert!((8..12).contains(&at) && version != 1, "byte {at}");
            }
            RecordingError::Head { offset } => {
                assert!((offset..offset + 8).contains(&(at as u64)), "byte {at}");
            }
            RecordingError::Payload { offset } => assert!(offset + 8 <= at as u64, "byte {at}"),
            other @ (RecordingError::TooLarge { .. } | RecordingError::Content { .. }) => {
                panic!("byte {at}: {other}");
            }
        }
    }
}

#[test]
fn a_record_that_is_too_long_or_not_legal_is_refused_with_its_place() {
    let start = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
    let frame = |length: u32, payload: &[u8]| {
        let length = length.to_be_bytes();
        let crcs = [crc32fast::hash(&length), crc32fast::hash(payload)].map(u32::to_be_bytes);
        [&start, &length[..], &crcs[0], &crcs[1], payload].concat()
    };
    let bytes = u64::from(u32::MAX);
    let too_large = RecordingError::TooLarge { offset: 12, bytes };
    assert_eq!(read(&frame(u32::MAX, &[])).2, Err(too_large));
    let (_, _, refused) = read(&frame(3, &[0x92, 99, 0xc0]));
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "the recording is not legal at byte 12: Record: unknown kind 99");
}

#[test]
fn outputs_that_differ_have_different_digests_and_keep_their_kind() {
    let outputs = outputs();
    for (at, output) in outputs.iter().enumerate() {
        let digest = OutputDigest::of(output);
        assert_eq!(digest, OutputDigest::of(&output.clone()));
        assert!(format!("{output:?}").starts_with(digest.kind()), "{output:?}");
        for other in outputs.iter().skip(at + 1) {
            assert_ne!(digest, OutputDigest::of(other), "{output:?} and {other:?}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let start = [&MAGIC[..], &VERSION.to_be_bytes(), &bytes].concat();
        let _ = read(&bytes);
        let _ = read(&start);
        let _ = crate::wire::pack::from_bytes::<Record>(&bytes);
    }

    #[test]
    fn an_input_survives(nanos: u64, payload in prop::collection::vec(any::<u8>(), 0..99)) {
        let (now, payload) = (Instant::from_nanos(nanos), Bytes::from(payload));
        let input = Input::Datagram { pool: PoolName::Lan, from: peer(), payload };
        let record = Record::Input { now, input };
        let bytes = crate::wire::pack::to_bytes(&record);
        prop_assert_eq!(crate::wire::pack::from_bytes(&bytes), Ok(record));
    }
}
