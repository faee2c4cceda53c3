//! A recorded run is repeated to the last output, and any change of it is found where it is.

use super::{Difference, End, Options, Progress, ReplayError, replay};
use crate::plan::node_config;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::catalog::model::CheckStatus;
use terraform_core::catalog::query::Query;
use terraform_core::config::{Bootstrap, NodeConfig, ServerConfig};
use terraform_core::gossip::Versions;
use terraform_core::id::{CheckId, Incarnation, NodeName, PoolName, RequestId, StreamId};
use terraform_core::local::definition::{CheckDefinition, CheckKind, Origin as From};
use terraform_core::node::Node;
use terraform_core::node::input::{CheckResult, CloseReason, Input, StreamKind};
use terraform_core::node::output::{Output, StopReason};
use terraform_core::node::request::{Reloadable, Request, RequestBody};
use terraform_core::recording::{Decoder, Origin, RELEASE, Record, Recorder, beginning};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::recovery::{Answer, Recovery, RecoveryConfig, Step};
use terraform_core::storage::wal::WalConfig;
use terraform_core::time::{Instant, WallClock};
use terraform_core::trace::Level;
use terraform_core::wire::gossip::{Alive, Message};
use terraform_core::wire::serf::encode_tags;

const WALL: WallClock = WallClock::from_millis(1_700_000_000_000);

fn config() -> NodeConfig {
    let server = ServerConfig::new(Bootstrap::Alone);
    NodeConfig { level: Level::Debug, ..node_config("a", Some(server)) }
}

/// A lone server with a disk that does everything at once, recorded.
struct Agent {
    node: Node,
    recorder: Recorder,
    now: Instant,
    requests: u64,
    raised: Vec<Input>,
}

impl Agent {
    fn start() -> Self {
        let recovery = RecoveryConfig {
            server: true,
            node_id: None,
            wal: WalConfig::default(),
            peers: None,
            host: Vec::new(),
        };
        let (seed, config) = (Seed::from_number(11), config());
        let release = RELEASE.to_owned();
        let origin = Origin { release, seed, config: config.clone(), recovery: recovery.clone() };
        let mut recorder = Recorder::new(origin);
        let mut recovery = Recovery::new(recovery, Rng::for_stream(seed, Stream::Identity));
        let mut answer = None;
        let restored = loop {
            let step = recovery.step(answer.take());
            let found = match &step {
                Step::List(_) => Answer::Names(Vec::new()),
                Step::Read { .. } | Step::ReadPart { .. } => Answer::Content(None),
                Step::Perform(_) => Answer::Performed,
                Step::Done(restored) => break *restored.clone(),
                Step::Refused(error) => panic!("{error}"),
            };
            answer = Some(recorder.answer(&step, found));
        };
        let now = Instant::from_nanos(7);
        recorder.start(WALL, now);
        let node = Node::new(config, restored, seed, WALL, now).unwrap();
        let mut agent = Self { node, recorder, now, requests: 0, raised: Vec::new() };
        agent.drain();
        agent
    }

    fn tell(&mut self, input: Input) {
        let input = self.recorder.input(self.now, input);
        self.node.handle(self.now, input);
        self.recorder.handled(self.node.outputs_waiting());
    }

    fn ask(&mut self, body: RequestBody) {
        self.requests += 1;
        let (id, request) = (RequestId::new(self.requests), Arc::new(Request::new(body)));
        self.tell(Input::Request { id, wall: WALL, request });
    }

    fn put(&mut self, key: &str) {
        let value = Bytes::from_static(b"value");
        let put = KvPut { key: key.to_owned(), value, flags: 0, only_at: None };
        self.ask(RequestBody::Write(Command::Kv(KvWrite::Put(put))));
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a host that answers two kinds of outputs")]
    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.recorder.output(&output);
            match output {
                Output::Persist { write, .. } => self.raised.push(Input::Persisted { write }),
                Output::RunCheck { check, run, .. } => {
                    let (status, output) = (CheckStatus::Passing, "fine".to_owned());
                    let result = CheckResult { status, output };
                    self.raised.push(Input::CheckFinished { check, run, result });
                }
                _ => {}
            }
        }
        self.recorder.drained();
    }

    /// One turn of a host: what was raised, then `tell`, then timers.
    fn turn(&mut self, tell: impl FnOnce(&mut Self)) {
        for input in std::mem::take(&mut self.raised) {
            self.tell(input);
        }
        tell(self);
        if self.node.next_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.tell(Input::Timeout);
        }
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.node.next_timeout().map_or(end, |(at, _)| at);
            let at = if self.raised.is_empty() { due } else { self.now };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            self.turn(|_| ());
            if self.now == end && self.raised.is_empty() {
                break;
            }
        }
    }
}

fn alive(name: &str) -> Bytes {
    let message = Message::Alive(Alive {
        incarnation: Incarnation::new(1),
        node: NodeName::parse(name).unwrap(),
        address: IpAddr::from([10, 9, 9, 9]),
        port: 8301,
        meta: encode_tags(&BTreeMap::new()).unwrap(),
        versions: Some(Versions::OURS),
    });
    message.encode()
}

fn check() -> CheckDefinition {
    CheckDefinition {
        id: CheckId::parse("c").unwrap(),
        name: "c".to_owned(),
        notes: String::new(),
        service_id: None,
        status: CheckStatus::Critical,
        kind: CheckKind::Ttl(Duration::from_secs(2)),
        output_max_size: 4096,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: None,
        token: String::new(),
        origin: From::Api,
    }
}

/// The records of a run in which much happens.
fn run() -> Vec<Record> {
    let mut agent = Agent::start();
    agent.pass(Duration::from_secs(3));
    assert!(agent.node.raft().is_some_and(|raft| raft.role().as_str() == "Leader"));
    agent.turn(|agent| {
        agent.put("one");
        agent.ask(RequestBody::RegisterCheck(Box::new(check())));
        agent.put("two");
    });
    let (pool, from) = (PoolName::Lan, SocketAddr::from(([10, 9, 9, 9], 8301)));
    agent.turn(|agent| agent.tell(Input::Datagram { pool, from, payload: alive("other") }));
    agent.pass(Duration::from_secs(3));
    let (stream, kind) = (StreamId::new(2), StreamKind::Server);
    agent.turn(|agent| {
        agent.tell(Input::StreamOpened { stream, kind, peer: from });
        agent.tell(Input::StreamData { stream, data: Bytes::from_static(b"\0\0\0\x01\xc1") });
        agent.tell(Input::StreamClosed { stream, reason: CloseReason::Reset });
    });
    let level = Level::Trace;
    let (services, checks, node_meta) = (Vec::new(), Vec::new(), BTreeMap::new());
    let reload = Reloadable {
        services,
        checks,
        node_meta,
        discard_check_output: false,
        rpc_rate: None,
        level,
    };
    agent.turn(|agent| {
        agent.ask(RequestBody::Query(Query::Key("two".to_owned())));
        agent.ask(RequestBody::Reload(Box::new(reload)));
        agent.ask(RequestBody::Info);
        let id = RequestId::new(agent.requests);
        agent.tell(Input::RequestAbandoned { id });
    });
    agent.pass(Duration::from_secs(5));
    agent.turn(|agent| agent.tell(Input::Shutdown));
    agent.pass(Duration::from_secs(6));
    records(agent.recorder.bytes())
}

fn records(bytes: &[u8]) -> Vec<Record> {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let records = std::iter::from_fn(|| decoder.next_record().unwrap()).collect();
    assert_eq!(decoder.rest(), 0);
    records
}

fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = beginning();
    records.iter().for_each(|record| record.put(&mut bytes));
    bytes
}

fn replayed(bytes: &[u8]) -> (Result<End, ReplayError>, Progress) {
    let mut progress = Progress::default();
    (replay(bytes, &Options::default(), &mut progress), progress)
}

fn difference(records: &[Record]) -> Difference {
    match replayed(&bytes(records)).0.unwrap() {
        End::Differs(difference) => *difference,
        same @ End::Same { .. } => panic!("{same:?}"),
    }
}

/// The place of the first record that is so, and the number of that input.
fn find(records: &[Record], wanted: impl Fn(&Input) -> bool) -> (usize, u64) {
    let place = records
        .iter()
        .position(|record| matches!(record, Record::Input { input, .. } if wanted(input)));
    let place = place.expect("there is such an input");
    let before = records[..place].iter().filter(|record| matches!(record, Record::Input { .. }));
    (place, before.count() as u64 + 1)
}

fn is_write(input: &Input) -> bool {
    matches!(input, Input::Request { request, .. } if matches!(request.body, RequestBody::Write(_)))
}

#[test]
fn a_recorded_run_is_repeated_to_its_last_output() {
    let records = run();
    let (end, progress) = replayed(&bytes(&records));
    let End::Same { torn, stopped, refused, state } = end.unwrap() else { panic!() };
    assert_eq!((torn, stopped, refused), (None, Some(StopReason::Shutdown), None));
    assert!(state.is_some_and(|line| line.starts_with("a ")));
    let inputs = records.iter().filter(|record| matches!(record, Record::Input { .. })).count();
    assert_eq!(progress.inputs, inputs as u64);
    assert!(progress.simulated() >= Duration::from_secs(10), "{:?}", progress.simulated());
}

#[test]
fn a_recording_that_was_cut_off_is_repeated_as_far_as_it_goes() {
    let bytes = bytes(&run());
    for length in (bytes.len() / 3..bytes.len()).step_by(997) {
        let (end, progress) = replayed(&bytes[..length]);
        let End::Same { torn, stopped, .. } = end.unwrap() else { panic!("cut at {length}") };
        assert!(torn.is_none_or(|offset| offset < length as u64));
        assert_eq!(stopped, None);
        assert!(progress.inputs > 0);
    }
}

#[test]
fn a_replay_may_end_after_any_input() {
    let bytes = bytes(&run());
    let mut progress = Progress::default();
    let options = Options { until: Some(20), trace: false };
    let end = replay(&bytes[..], &options, &mut progress).unwrap();
    assert!(matches!(end, End::Same { torn: None, stopped: None, .. }), "{end:?}");
    assert_eq!(progress.inputs, 20);
}

#[test]
fn an_input_that_was_left_out_is_found() {
    let mut records = run();
    let (place, number) = find(&records, is_write);
    records.remove(place);
    let found = difference(&records);
    assert_eq!(found.input.as_ref().map(|(number, ..)| *number), Some(number), "{found}");
}

#[test]
fn the_one_input_of_a_turn_that_was_changed_is_named_with_what_it_brings() {
    let mut records = run();
    // The second write of a turn of three requests.
    let (first, _) = find(&records, is_write);
    let (place, number) = {
        let (place, number) = find(&records[first + 1..], is_write);
        let before = records[..=first].iter().filter(|r| matches!(r, Record::Input { .. }));
        (first + 1 + place, before.count() as u64 + number)
    };
    let Record::Input { input: Input::Request { request, .. }, .. } = &mut records[place] else {
        panic!()
    };
    Arc::make_mut(request).body = RequestBody::Info;
    let found = difference(&records);
    let (at, _, what) = found.input.clone().unwrap();
    assert_eq!(at, number, "{found}");
    assert!(what.contains("body: Info"), "{found}");
    assert!(found.replayed.starts_with("Reply {"), "{found}");
}

#[test]
fn a_byte_of_a_datagram_that_was_changed_is_found() {
    let mut records = run();
    let (place, number) = find(&records, |input| matches!(input, Input::Datagram { .. }));
    let Record::Input { input: Input::Datagram { payload, .. }, .. } = &mut records[place] else {
        panic!()
    };
    *payload = alive("othes");
    let found = difference(&records);
    assert_eq!(found.input.as_ref().map(|(number, ..)| *number), Some(number), "{found}");
    assert!(found.to_string().contains("othes"), "{found}");
}

#[test]
fn another_seed_and_other_settings_are_found_at_the_start() {
    let mut records = run();
    let Some(Record::Origin(origin)) = records.first_mut() else { panic!() };
    origin.seed = Seed::from_number(12);
    // A new data directory gets other identities.
    assert_eq!(difference(&records).input, None);
    let mut records = run();
    let Some(Record::Origin(origin)) = records.first_mut() else { panic!() };
    origin.config.level = Level::Error;
    let found = difference(&records);
    assert_eq!((found.input.as_ref(), &found.recorded[..5]), (None, "Trace"), "{found}");
}

#[test]
fn what_is_no_run_is_refused_with_its_place() {
    let records = run();
    let refusal = |records: &[Record]| replayed(&bytes(records)).0.unwrap_err().to_string();
    assert!(refusal(&records[1..]).ends_with("it does not say what the agent was made of"));
    let start = records.iter().position(|record| matches!(record, Record::Start { .. })).unwrap();
    let mut without = records.clone();
    without.remove(start);
    assert!(refusal(&without).ends_with("a start belongs here"));
    let mut twice = records.clone();
    twice.insert(start + 2, records[start].clone());
    assert!(refusal(&twice).ends_with("an input or a drain belongs here"));
    let mut back = records.clone();
    let (place, _) = find(&records, is_write);
    let Record::Input { now, .. } = &mut back[place] else { panic!() };
    *now = Instant::ZERO;
    assert!(refusal(&back).ends_with("time goes back"));
    let mut odd = records.clone();
    let Record::Answer { answer, .. } = &mut odd[1] else { panic!() };
    *answer = Answer::Performed;
    assert!(refusal(&odd).ends_with("the answer does not belong to the step"));
    let mut damaged = bytes(&records);
    let at = damaged.len() - 1;
    damaged[at] ^= 1;
    let refused = replayed(&damaged).0.unwrap_err().to_string();
    assert!(refused.ends_with("the checksum of the record does not match"), "{refused}");
}
