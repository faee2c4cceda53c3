//! The driver around a scripted core, with real sockets on the loopback.
#![expect(clippy::wildcard_enum_match_arm, reason = "a script reacts to the inputs it names")]

use super::*;
use crate::event::queues;
use crate::fanout::{EVENTS_MAX, tests::user};
use crate::handle::NodeHandle;
use crate::storage::DataDir;
use bytes::Bytes;
use smol::channel::{Receiver, unbounded};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use terraform_core::catalog::model::CheckStatus;
use terraform_core::event::KeptEvents;
use terraform_core::id::{Datacenter, NodeId, NodeName, StreamId, WriteId};
use terraform_core::local::LocalView;
use terraform_core::node::input::{CloseReason, StreamKind};
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::storage::op::{Lane, StorageOp};

/// What the script answers to an input.
type Script = fn(&Input) -> Vec<Output>;

/// Tells the test what it was fed, and does what the script says.
struct Scripted {
    script: Script,
    fed: Sender<Input>,
    outputs: VecDeque<Output>,
    timeout: Option<Instant>,
    /// The first request has an entry applied.
    applied: u64,
}

impl Core for Scripted {
    fn handle(&mut self, _: Instant, input: Input) {
        if input == Input::Timeout {
            self.timeout = None;
        }
        if matches!(input, Input::Request { .. }) {
            self.applied = 1;
        }
        self.outputs.extend((self.script)(&input));
        self.fed.try_send(input).unwrap();
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }
    fn entries_applied(&self) -> u64 {
        self.applied
    }
}

struct Bench {
    handle: NodeHandle,
    inbox: Inbox,
    fed: Receiver<Input>,
    gossip: SocketAddr,
    fan: Arc<EventFan>,
    counters: Arc<Counters>,
    driver: smol::Task<StopReason>,
    folder: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder of this test's own.
fn folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("driver-{}-{count}", std::process::id()))
}

fn view(version: u64) -> View {
    View {
        name: NodeName::parse("a").unwrap(),
        id: NodeId::from_bytes([1; 16]),
        datacenter: Datacenter::parse("dc1").unwrap(),
        members: terraform_core::serf::Members::default(),
        wan_members: None,
        datacenters: Arc::from([]),
        local: LocalView::default(),
        events: KeptEvents::new(),
        consensus: None,
        catalog: None,
        version,
    }
}

fn bench(script: Script, first: Vec<Output>, timeout: Option<Instant>) -> Bench {
    let outputs = first.into();
    bench_of(|_, _, fed| Scripted { script, fed, outputs, timeout, applied: 0 })
}

/// A driver of the core that is made of its queues, its clock and where it tells what it was fed.
fn bench_of<C: Core + Send + 'static>(
    make: impl FnOnce(&Inbox, Clock, Sender<Input>) -> C,
) -> Bench {
    let (inbox, arrivals) = queues();
    let (fed_in, fed) = unbounded();
    let clock = Clock::start();
    let core = make(&inbox, clock, fed_in);
    let counters = Arc::new(Counters::default());
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let datagrams = Datagrams::bind(PoolName::Lan, local, Arc::clone(&counters)).unwrap();
    let gossip = datagrams.address().unwrap();
    spawn(datagrams.clone().receive(inbox.clone())).detach();
    let cell = Arc::new(ArcSwap::from_pointee(view(0)));
    let handle = NodeHandle::new(Arc::clone(&cell), inbox.calls.clone(), clock);
    let sink: Sink = Arc::new(|_| ());
    let folder = folder();
    let dir = DataDir::open(&folder).unwrap();
    let report = report_to(inbox.events.clone(), Arc::clone(&sink));
    let disk = Disk::start(dir, report).unwrap();
    let run_check: RunCheck = Box::new(|_, _| {
        async { CheckResult { status: CheckStatus::Passing, output: "ok".to_owned() } }.boxed()
    });
    let fan = Arc::new(EventFan::default());
    let host = Host {
        clock,
        view: cell,
        datagrams,
        wan_datagrams: None,
        disk,
        run_check,
        sink,
        fan: Arc::clone(&fan),
        registered: Arc::default(),
        counters: Arc::clone(&counters),
        metrics: Arc::clone(handle.metrics()),
        server_streams_of_source_max: 2,
    };
    let driver = spawn(Driver::new(core, host, inbox.clone(), arrivals).run());
    Bench { handle, inbox, fed, gossip, fan, counters, driver, folder }
}

/// The next input that was fed, within a moment.
fn fed(bench: &Bench) -> Input {
    let next = crate::runtime::within(Duration::from_secs(10), bench.fed.recv());
    smol::block_on(next).expect("an input in time").unwrap()
}

#[test]
fn a_request_is_fed_and_its_reply_comes_after_the_view_that_shows_it() {
    let script: Script = |input| match input {
        Input::Request { id, .. } => vec![
            Output::Publish(Arc::new(view(5))),
            Output::Reply { id: *id, result: Ok(Response::Done) },
        ],
        _ => vec![],
    };
    let bench = bench(script, vec![], None);
    let request = Request::new(RequestBody::Info);
    assert_eq!(smol::block_on(bench.handle.request(request)), Ok(Response::Done));
    assert_eq!(bench.handle.view().version, 5);
}

#[test]
fn a_turn_that_applies_something_is_measured_and_no_other() {
    let script: Script = |input| match input {
        Input::Request { id, .. } => {
            vec![Output::Reply { id: *id, result: Ok(Response::Done) }]
        }
        _ => vec![],
    };
    let bench = bench(script, vec![], None);
    for _ in 0..3 {
        let request = Request::new(RequestBody::Info);
        assert_eq!(smol::block_on(bench.handle.request(request)), Ok(Response::Done));
    }
    let interval = bench.handle.metrics().last();
    let measured = interval.samples.iter().map(|(key, times)| (&*key.name, times.count()));
    assert_eq!(measured.collect::<Vec<_>>(), [("raft.fsm.apply", 1)]);
}

/// Is sent something in the middle of its first turn, which must not come with a time that was over
/// by then.
struct Interrupted {
    clock: Clock,
    inbox: Inbox,
    fed: Sender<Input>,
    sent_at: Option<Instant>,
}

impl Core for Interrupted {
    fn handle(&mut self, now: Instant, input: Input) {
        if let Some(sent_at) = self.sent_at {
            assert!(now >= sent_at, "it was sent at {sent_at:?} and handled at {now:?}");
        } else {
            self.sent_at = Some(self.clock.now());
            self.inbox.events.try_send(Event::Input(Input::Shutdown)).unwrap();
        }
        self.fed.try_send(input).unwrap();
    }
    fn poll_output(&mut self) -> Option<Output> {
        None
    }
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
    fn entries_applied(&self) -> u64 {
        0
    }
}

/// A server that was stopped in the middle of a turn answered reads of after that by its old lease.
#[test]
fn nothing_is_handled_with_a_time_of_before_it_arrived() {
    let bench = bench_of(|inbox, clock, fed| Interrupted {
        clock,
        inbox: inbox.clone(),
        fed,
        sent_at: None,
    });
    bench.inbox.events.try_send(Event::Input(Input::Leave)).unwrap();
    assert_eq!([fed(&bench), fed(&bench)], [Input::Leave, Input::Shutdown]);
}

#[test]
fn a_request_whose_caller_went_away_is_abandoned() {
    let bench = bench(|_| vec![], vec![], None);
    let request = Request::new(RequestBody::Info);
    let asked = bench.handle.request(request);
    assert!(smol::block_on(smol::future::poll_once(asked)).is_none());
    assert!(matches!(fed(&bench), Input::Request { .. }));
    assert_eq!(fed(&bench), Input::RequestAbandoned { id: RequestId::new(1) });
}

#[test]
fn a_due_timeout_a_datagram_a_write_and_a_check_reach_the_node() {
    let script: Script = |input| match input {
        Input::Datagram { .. } => vec![Output::Persist {
            write: WriteId::new(3),
            op: StorageOp { lane: Lane::Log, ops: vec![], deferrable: false },
        }],
        Input::Persisted { .. } => vec![Output::RunCheck {
            check: CheckId::parse("c").unwrap(),
            run: 9,
            kind: CheckKind::Ttl(Duration::from_secs(1)),
            output_max_size: 10,
        }],
        _ => vec![],
    };
    let bench = bench(script, vec![], Some(Instant::ZERO + Duration::from_millis(5)));
    assert_eq!(fed(&bench), Input::Timeout);
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"x", bench.gossip).unwrap();
    assert!(matches!(fed(&bench), Input::Datagram { payload, .. } if payload == "x"));
    assert_eq!(fed(&bench), Input::Persisted { write: WriteId::new(3) });
    let finished = fed(&bench);
    assert!(
        matches!(finished, Input::CheckFinished { run: 9, result, .. } if result.output == "ok")
    );
}

#[test]
fn a_stop_ends_the_driver_with_its_reason() {
    let script: Script = |input| match input {
        Input::Shutdown => vec![Output::Stopped(StopReason::Shutdown)],
        _ => vec![],
    };
    let bench = bench(script, vec![], None);
    bench.inbox.events.try_send(Event::Input(Input::Shutdown)).unwrap();
    let mut bench = bench;
    assert_eq!(smol::block_on(&mut bench.driver), StopReason::Shutdown);
    DataDir::open(&bench.folder).expect("the lock is given up");
    let request = Request::new(RequestBody::Info);
    assert_eq!(smol::block_on(bench.handle.request(request)), Err(RequestError::Stopping));
}

#[test]
fn a_request_in_flight_when_the_driver_ends_has_an_unknown_outcome() {
    let script: Script = |input| match input {
        Input::Request { .. } => vec![Output::Stopped(StopReason::Shutdown)],
        _ => vec![],
    };
    let bench = bench(script, vec![], None);
    let answer = smol::block_on(bench.handle.request(Request::new(RequestBody::Info)));
    assert!(matches!(answer, Err(RequestError::Unknown(_))), "{answer:?}");
}

#[test]
fn bytes_sent_before_a_close_are_delivered_and_nothing_follows_the_close() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let stream = StreamId::new(3);
    let script: Script = |input| match input {
        Input::StreamOpened { stream, .. } => vec![
            Output::SendStream { stream: *stream, data: Bytes::from(vec![7; 300_000]) },
            Output::SendStream { stream: *stream, data: Bytes::from_static(b"end") },
            Output::CloseStream { stream: *stream },
        ],
        _ => vec![],
    };
    let open = Output::OpenStream { stream, kind: StreamKind::Server, to };
    let bench = bench(script, vec![open], None);
    let (mut socket, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut socket, &mut got).unwrap();
    assert_eq!(got.len(), 300_003);
    assert!(got.ends_with(b"end"));
    assert!(matches!(fed(&bench), Input::StreamOpened { .. }));
    drop(socket);
    bench.inbox.events.try_send(Event::Input(Input::Leave)).unwrap();
    assert_eq!(fed(&bench), Input::Leave, "no StreamClosed after CloseStream");
}

#[test]
fn an_accepted_stream_has_an_even_number_and_tells_of_its_end() {
    let bench = bench(|_| vec![], vec![], None);
    let (listener, to) = smol::block_on(async {
        let listener = smol::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        (listener, to)
    });
    let events = bench.inbox.events.clone();
    spawn(crate::stream::accept(listener, StreamKind::Gossip(PoolName::Lan), events)).detach();
    let mut socket = std::net::TcpStream::connect(to).unwrap();
    std::io::Write::write_all(&mut socket, b"hello").unwrap();
    let peer = socket.local_addr().unwrap();
    let stream = StreamId::new(2);
    let kind = StreamKind::Gossip(PoolName::Lan);
    assert_eq!(fed(&bench), Input::StreamOpened { stream, kind, peer });
    assert_eq!(fed(&bench), Input::StreamData { stream, data: Bytes::from_static(b"hello") });
    drop(socket);
    assert_eq!(fed(&bench), Input::StreamClosed { stream, reason: CloseReason::Finished });
}

#[test]
fn the_server_port_takes_so_many_streams_of_one_source() {
    let bench = bench(|_| vec![], vec![], None);
    let listen = |kind| {
        let listening = smol::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = smol::block_on(listening).unwrap();
        let to = listener.local_addr().unwrap();
        spawn(crate::stream::accept(listener, kind, bench.inbox.events.clone())).detach();
        move || std::net::TcpStream::connect(to).unwrap()
    };
    let gossip = StreamKind::Gossip(PoolName::Lan);
    let (server, other) = (listen(StreamKind::Server), listen(gossip));
    let opened = |socket: &std::net::TcpStream, id, kind| {
        let (stream, peer) = (StreamId::new(id), socket.local_addr().unwrap());
        assert_eq!(fed(&bench), Input::StreamOpened { stream, kind, peer });
    };
    let first = server();
    opened(&first, 2, StreamKind::Server);
    let second = server();
    opened(&second, 4, StreamKind::Server);
    let mut refused = server();
    assert_eq!(std::io::Read::read(&mut refused, &mut [0]).unwrap(), 0, "closed at once");
    let of_gossip = other();
    opened(&of_gossip, 6, gossip);
    drop(first);
    let closed = Input::StreamClosed { stream: StreamId::new(2), reason: CloseReason::Finished };
    assert_eq!(fed(&bench), closed);
    let third = server();
    opened(&third, 8, StreamKind::Server);
}

#[test]
fn a_stream_to_nobody_is_closed_as_not_connected() {
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = nobody.local_addr().unwrap();
    drop(nobody);
    let stream = StreamId::new(3);
    let open = Output::OpenStream { stream, kind: StreamKind::Gossip(PoolName::Lan), to };
    let bench = bench(|_| vec![], vec![open], None);
    let reason = CloseReason::ConnectFailed;
    assert_eq!(fed(&bench), Input::StreamClosed { stream, reason });
}

#[test]
fn subscribers_are_told_of_events_and_one_that_does_not_read_is_counted() {
    let script: Script = |input| match input {
        Input::Request { id, request, .. } => {
            let count = if request.body == RequestBody::Info { EVENTS_MAX } else { 1 };
            let mut outputs = vec![Output::Event(user("a")); count];
            outputs.push(Output::Reply { id: *id, result: Ok(Response::Done) });
            outputs
        }
        _ => Vec::new(),
    };
    let bench = bench(script, Vec::new(), None);
    let events = bench.fan.subscribe(Box::new(|_| true));
    for (body, expected) in [(RequestBody::Info, 0), (RequestBody::Coordinates, 1)] {
        let answer = smol::block_on(bench.handle.request(Request::new(body)));
        assert_eq!(answer, Ok(Response::Done));
        let ended = bench.counters.subscriptions_overflowed.load(Ordering::Relaxed);
        assert_eq!(ended, expected);
    }
    assert_eq!(events.len(), EVENTS_MAX);
}
