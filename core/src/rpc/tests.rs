//! Two and three machines wired together in memory, under virtual time.

use super::*;
use crate::catalog::command::{Command, Deregistration};
use crate::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use crate::event::{Event, Filters, FireEvent};
use crate::id::{EventId, LamportTime, ModifyIndex};
use crate::node::request::{
    BackupBlock, BackupId, BackupRead, BackupReply, BackupRequest, RequestBody,
};
use crate::rng::{Seed, Stream};
use crate::wire::rpc::{Hello, RemoteRequest};
use std::collections::{BTreeSet, VecDeque};

mod hello;
mod rate;
mod waiting;

const HOLD: Duration = Duration::from_secs(7);
const MILLI: Duration = Duration::from_millis(1);

/// What one machine's host sees.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Execute(Ticket),
    Forget(Ticket),
    Done(Caller, Result<Response, RequestError>),
    Raft(NodeId, Bytes),
    Bootstrap(NodeId, StreamId, Bytes),
    Unreachable(NodeId),
    Trace(RpcTrace),
}

struct World {
    now: Instant,
    nodes: Vec<Rpc>,
    outs: Vec<Outbox<RpcOutput>>,
    seen: Vec<(usize, Seen)>,
    /// Which (node, stream) is at the other end.
    ends: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    inputs: VecDeque<(usize, RpcInput)>,
    accepted: u64,
    down: BTreeSet<usize>,
    /// Nodes that answer `Execute` by themselves, with this.
    answers: BTreeMap<usize, Result<Response, RequestError>>,
    /// Nodes whose bytes get lost without a trace.
    muted: BTreeSet<usize>,
    /// How long what nodes executed may wait.
    waits: Vec<(usize, Option<Duration>)>,
}

fn id(node: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(node).unwrap() + 1; 16])
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).unwrap() + 1], 8300))
}

fn config(node: usize, server: bool) -> RpcConfig {
    let name = NodeName::parse(&format!("n{node}")).unwrap();
    let datacenter = Datacenter::parse("dc1").unwrap();
    RpcConfig {
        id: id(node),
        name,
        datacenter,
        server,
        wan: false,
        hold: HOLD,
        handshake: None,
        rate: None,
    }
}

fn info(node: usize) -> ServerInfo {
    let RpcConfig { id, name, datacenter, .. } = config(node, true);
    let (bootstrap, expect, votes) = (false, None, true);
    ServerInfo { id, name, address: address(node), datacenter, bootstrap, expect, votes }
}

impl World {
    /// Machines of which the last `clients` are clients, which know all servers.
    fn new(servers: usize, clients: usize) -> Self {
        let now = Instant::from_nanos(1);
        let machine = |node| {
            let rng = Rng::for_stream(Seed::from_number(node as u64), Stream::Rpc);
            Rpc::new(config(node, node < servers), rng, now)
        };
        let count = servers + clients;
        let mut world = Self {
            now,
            nodes: (0..count).map(machine).collect(),
            outs: (0..count).map(|_| Outbox::new(Level::Trace)).collect(),
            seen: Vec::new(),
            ends: BTreeMap::new(),
            inputs: VecDeque::new(),
            accepted: 0,
            down: BTreeSet::new(),
            answers: BTreeMap::new(),
            muted: BTreeSet::new(),
            waits: Vec::new(),
        };
        for client in servers..count {
            world.input(client, RpcInput::Servers((0..servers).map(info).collect()));
        }
        world
    }

    fn lead(&mut self, leader: usize, followers: &[usize]) {
        for node in followers.iter().chain([&leader]) {
            self.input(*node, RpcInput::Leader(Some((id(leader), address(leader)))));
        }
    }

    fn input(&mut self, node: usize, input: RpcInput) {
        self.inputs.push_back((node, input));
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((node, input)) = self.inputs.pop_front() {
            if !self.down.contains(&node) {
                self.nodes[node].handle(self.now, input, &mut self.outs[node]);
                self.collect(node);
            }
        }
    }

    fn collect(&mut self, node: usize) {
        while let Some(output) = self.outs[node].pop() {
            self.output(node, output);
        }
    }

    fn output(&mut self, node: usize, output: RpcOutput) {
        let seen = match output {
            RpcOutput::OpenStream { stream, to } => return self.open(node, stream, to),
            RpcOutput::SendStream { stream, data } => {
                if let Some((peer, stream)) = self.ends.get(&(node, stream)).copied()
                    && !self.muted.contains(&node)
                {
                    self.inputs.push_back((peer, RpcInput::StreamData { stream, data }));
                }
                return;
            }
            RpcOutput::CloseStream { stream } => return self.close(node, stream),
            RpcOutput::Execute { ticket, request, .. } => {
                self.waits.push((node, request.context.waits()));
                if let Some(result) = self.answers.get(&node).cloned() {
                    self.inputs.push_back((node, RpcInput::Executed { ticket, result }));
                }
                Seen::Execute(ticket)
            }
            RpcOutput::Forget { ticket } => Seen::Forget(ticket),
            RpcOutput::Done { caller, result } => Seen::Done(caller, result),
            RpcOutput::RaftMessage { from, payload } => Seen::Raft(from, payload),
            RpcOutput::BootstrapMessage { from, via, payload } => {
                Seen::Bootstrap(from, via, payload)
            }
            RpcOutput::PeerUnreachable { peer } => Seen::Unreachable(peer),
            RpcOutput::Trace(_, trace) => Seen::Trace(trace),
        };
        self.seen.push((node, seen));
    }

    fn open(&mut self, node: usize, stream: StreamId, to: SocketAddr) {
        assert_eq!(stream.get() % 4, 3);
        let peer = (0..self.nodes.len()).find(|peer| address(*peer) == to);
        let Some(peer) = peer.filter(|peer| !self.down.contains(peer)) else {
            let reason = CloseReason::ConnectFailed;
            self.inputs.push_back((node, RpcInput::StreamClosed { stream, reason }));
            return;
        };
        self.accepted += 2;
        let other = StreamId::new(self.accepted);
        self.ends.insert((node, stream), (peer, other));
        self.ends.insert((peer, other), (node, stream));
        let source = SocketAddr::new(address(node).ip(), 40_000);
        self.inputs.push_back((peer, RpcInput::StreamOpened { stream: other, peer: source }));
        self.inputs.push_back((node, RpcInput::StreamOpened { stream, peer: to }));
    }

    fn close(&mut self, node: usize, stream: StreamId) {
        if let Some((peer, other)) = self.ends.remove(&(node, stream)) {
            self.ends.remove(&(peer, other));
            let reason = CloseReason::Finished;
            self.inputs.push_back((peer, RpcInput::StreamClosed { stream: other, reason }));
        }
    }

    /// The process is gone: its streams break.
    fn kill(&mut self, node: usize) {
        self.down.insert(node);
        let streams: Vec<_> = self.ends.keys().filter(|end| end.0 == node).copied().collect();
        for (node, stream) in streams {
            self.close(node, stream);
        }
        self.settle();
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let next = |rpc: &Rpc| rpc.next_timeout();
            let due = self.nodes.iter().enumerate().filter(|(node, _)| !self.down.contains(node));
            let Some((at, node)) = due.filter_map(|(node, rpc)| Some((next(rpc)?, node))).min()
            else {
                break;
            };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            self.nodes[node].handle_timeout(self.now, &mut self.outs[node]);
            self.collect(node);
            self.settle();
        }
        self.now = end;
    }

    fn submit(&mut self, node: usize, number: u64, hold: bool, body: RequestBody) {
        let request = Arc::new(Request::new(body));
        let (caller, wall) = (Caller::Internal(number), WallClock::from_millis(5));
        self.input(node, RpcInput::Submit { caller, hold, wall, request });
    }

    fn done(&self, node: usize, number: u64) -> Option<Result<Response, RequestError>> {
        self.seen.iter().find_map(|(at, seen)| {
            let Seen::Done(caller, result) = seen else { return None };
            (*at == node && *caller == Caller::Internal(number)).then(|| result.clone())
        })
    }

    fn executions(&self, node: usize) -> usize {
        let executed =
            |(at, seen): &&(usize, Seen)| *at == node && matches!(seen, Seen::Execute(_));
        self.seen.iter().filter(executed).count()
    }

    fn traces(&self, node: usize) -> Vec<RpcTrace> {
        let trace = |(at, seen): &(usize, Seen)| {
            let Seen::Trace(trace) = seen else { return None };
            (*at == node).then(|| trace.clone())
        };
        self.seen.iter().filter_map(trace).collect()
    }
}

fn write() -> RequestBody {
    let node = NodeName::parse("web").unwrap();
    RequestBody::Write(Command::Deregister(Deregistration { node, service: None, check: None }))
}

fn read() -> RequestBody {
    RequestBody::Query(Query::Datacenters)
}

fn answer() -> Result<Response, RequestError> {
    Ok(Response::Answer(Arc::new(QueryAnswer {
        rows: Rows::Names(vec!["dc1".to_owned()]),
        index: ModifyIndex::new(7),
        known_leader: true,
        last_contact: Duration::ZERO,
        consistency: Consistency::Leader,
    })))
}

#[test]
fn a_write_goes_from_client_to_follower_to_leader_and_back() {
    let mut world = World::new(2, 1);
    world.lead(1, &[0]);
    world.answers.insert(1, Ok(Response::Done));
    // Only the follower is known, so that the request takes both hops.
    world.input(2, RpcInput::Servers(vec![info(0)]));
    world.submit(2, 1, true, write());
    assert_eq!(world.done(2, 1), Some(Ok(Response::Done)));
    assert_eq!((world.executions(0), world.executions(1)), (0, 1));
    let accepted = |node: usize| world.nodes[node].stats().streams_accepted;
    assert_eq!([0, 1, 2].map(accepted), [1, 1, 0], "each opened one to the next");
}

#[test]
fn an_answer_with_rows_comes_back_whole() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    world.answers.insert(0, answer());
    world.submit(1, 1, true, read());
    assert_eq!(world.done(1, 1), Some(answer()));
}

#[test]
fn a_stale_read_is_executed_by_the_first_server() {
    let mut world = World::new(2, 1);
    world.lead(1, &[0]);
    world.answers.insert(0, answer());
    world.input(2, RpcInput::Servers(vec![info(0)]));
    let mut request = Request::new(read());
    request.context.consistency = Consistency::Stale;
    let (caller, wall) = (Caller::Internal(1), WallClock::from_millis(0));
    let request = Arc::new(request);
    world.input(2, RpcInput::Submit { caller, hold: true, wall, request });
    assert_eq!(world.done(2, 1), Some(answer()));
    assert_eq!(world.executions(1), 0);
}

#[test]
fn a_stale_read_waits_on_a_server_that_never_heard_of_a_leader() {
    let mut world = World::new(2, 0);
    world.answers.insert(0, answer());
    let ask_for = |world: &mut World, number, body| {
        let mut request = Request::new(body);
        request.context.consistency = Consistency::Stale;
        let (caller, wall) = (Caller::Internal(number), WallClock::from_millis(0));
        let request = Arc::new(request);
        world.input(0, RpcInput::Submit { caller, hold: true, wall, request });
    };
    let ask = |world: &mut World, number| ask_for(world, number, read());
    ask(&mut world, 1);
    ask_for(&mut world, 4, RequestBody::Backup(BackupRequest::Open));
    assert_eq!(world.done(0, 4), Some(answer()), "a backup tells how old it is");
    world.run(Duration::from_secs(9));
    assert_eq!(world.done(0, 1), Some(Err(RequestError::NoLeader)));
    ask(&mut world, 2);
    world.lead(1, &[0]);
    assert_eq!(world.done(0, 2), Some(answer()));
    // How long ago it heard of one is known from then on.
    world.input(0, RpcInput::Leader(None));
    ask(&mut world, 3);
    assert_eq!(world.done(0, 3), Some(answer()));
}

#[test]
fn a_backup_is_read_from_the_server_that_has_it() {
    let mut world = World::new(3, 1);
    for server in 0..3 {
        world.input(server, RpcInput::Servers((0..3).map(info).collect()));
    }
    world.lead(1, &[0, 2]);
    let block = BackupBlock { data: Bytes::from_static(b"block"), last: true };
    let block = Ok(Response::Backup(BackupReply::Block(block)));
    world.answers.insert(2, block.clone());
    let read = |server: usize| {
        let backup = BackupId { server: id(server), number: 5 };
        RequestBody::Backup(BackupRequest::Read(BackupRead { backup, block: 0 }))
    };
    // Only another follower is known: the request takes both hops, and not to the leader.
    world.input(3, RpcInput::Servers(vec![info(0)]));
    world.submit(3, 1, true, read(2));
    assert_eq!(world.done(3, 1), Some(block));
    assert_eq!([0, 1, 2].map(|server| world.executions(server)), [0, 0, 1]);

    world.submit(0, 2, false, read(8));
    assert_eq!(world.done(0, 2), Some(Err(RequestError::NoLeader)), "no such server");
    world.answers.insert(1, Err(RequestError::Refused("four are open".to_owned())));
    world.submit(3, 3, true, RequestBody::Backup(BackupRequest::Open));
    let refused = world.done(3, 3).unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "four are open", "the leader opens");
}

#[test]
fn a_client_moves_on_from_a_dead_server() {
    let mut world = World::new(3, 1);
    world.lead(0, &[1, 2]);
    world.answers.insert(0, Ok(Response::Done));
    world.kill(1);
    world.kill(2);
    for number in 0..4 {
        world.submit(3, number, true, write());
        assert_eq!(world.done(3, number), Some(Ok(Response::Done)));
    }
    assert_eq!(world.executions(0), 4);
}

#[test]
fn a_read_whose_stream_breaks_is_asked_elsewhere_and_a_write_is_not() {
    for (body, answered) in [(read(), true), (write(), false)] {
        let mut world = World::new(2, 1);
        for node in 0..2 {
            world.input(node, RpcInput::Leader(Some((id(node), address(node)))));
        }
        world.submit(2, 1, true, body);
        let first = (0..2).find(|node| world.executions(*node) == 1).unwrap();
        let second = 1 - first;
        world.answers.insert(second, answer());
        world.kill(first);
        world.run(HOLD);
        assert_eq!(world.executions(second) == 1, answered);
        match world.done(2, 1).unwrap() {
            Ok(_) => assert!(answered),
            Err(error) => assert!(!answered && matches!(error, RequestError::Unknown(_))),
        }
    }
}

#[test]
fn without_a_leader_a_request_is_held_and_then_fails() {
    let mut world = World::new(1, 0);
    world.submit(0, 1, true, write());
    world.run(HOLD - MILLI);
    assert_eq!(world.done(0, 1), None);
    world.run(MILLI * 2);
    assert_eq!(world.done(0, 1), Some(Err(RequestError::NoLeader)));
    world.submit(0, 2, false, write());
    assert_eq!(world.done(0, 2), Some(Err(RequestError::NoLeader)));
}

#[test]
fn a_held_request_is_executed_at_the_moment_a_leader_is_known() {
    let mut world = World::new(2, 1);
    world.submit(2, 1, true, write());
    world.run(Duration::from_secs(2));
    world.answers.insert(1, Ok(Response::Done));
    let before = world.now;
    world.lead(1, &[0]);
    assert_eq!(world.done(2, 1), Some(Ok(Response::Done)));
    assert_eq!(world.now, before);
}

#[test]
fn a_leader_that_says_it_does_not_lead_is_asked_again_later() {
    let mut world = World::new(2, 0);
    world.lead(1, &[0]);
    world.answers.insert(1, Err(RequestError::NoLeader));
    world.submit(0, 1, true, write());
    assert_eq!(world.done(0, 1), None);
    world.answers.insert(1, Ok(Response::Done));
    world.run(HOLD / 8);
    assert_eq!(world.done(0, 1), Some(Ok(Response::Done)));
}

#[test]
fn two_servers_that_take_each_other_for_the_leader_do_not_send_for_ever() {
    let mut world = World::new(2, 1);
    world.input(0, RpcInput::Leader(Some((id(1), address(1)))));
    world.input(1, RpcInput::Leader(Some((id(0), address(0)))));
    world.submit(2, 1, true, write());
    world.run(HOLD + Duration::from_secs(1));
    assert_eq!(world.done(2, 1), Some(Err(RequestError::NoLeader)));
}

#[test]
fn a_client_without_servers_fails_at_once() {
    let mut world = World::new(0, 1);
    world.submit(0, 1, true, read());
    assert_eq!(world.done(0, 1), Some(Err(RequestError::NoServers)));
}

fn dc2() -> Datacenter {
    Datacenter::parse("dc2").unwrap()
}

impl World {
    /// A server of dc1, two of dc2 of which number 1 leads, and a client of dc1. Server 0 knows
    /// the other datacenter.
    fn federated() -> Self {
        let mut world = Self::new(3, 1);
        let dc1 = config(0, true).datacenter;
        for (node, datacenter) in [(0, dc1), (1, dc2()), (2, dc2())] {
            let rng = Rng::for_stream(Seed::from_number(node as u64), Stream::Rpc);
            let config = RpcConfig { datacenter, wan: true, ..config(node, true) };
            world.nodes[node] = Rpc::new(config, rng, world.now);
        }
        world.input(3, RpcInput::Servers(vec![info(0)]));
        world.lead(1, &[2]);
        world.know([1, 2].map(|node| (node, true)).to_vec());
        world
    }

    fn know(&mut self, servers: Vec<(usize, bool)>) {
        let remote = |(node, alive)| {
            let (datacenter, address) = (dc2(), address(node));
            RemoteServer { datacenter, address, alive }
        };
        self.input(0, RpcInput::RemoteServers(servers.into_iter().map(remote).collect()));
    }

    fn submit_across(&mut self, node: usize, number: u64, body: RequestBody) {
        let mut request = Request::new(body);
        request.context.datacenter = Some(dc2());
        let (caller, wall) = (Caller::Internal(number), WallClock::from_millis(0));
        self.input(node, RpcInput::Submit { caller, hold: true, wall, request: Arc::new(request) });
    }
}

#[test]
fn an_unknown_datacenter_has_no_path_and_a_failed_one_no_server() {
    let mut world = World::federated();
    world.know(Vec::new());
    world.submit_across(0, 1, read());
    assert_eq!(world.done(0, 1), Some(Err(RequestError::NoPath)));
    world.know(vec![(1, false), (2, false)]);
    world.submit_across(3, 2, read());
    assert_eq!(world.done(3, 2), Some(Err(RequestError::NoServerReachable)));
}

#[test]
fn a_request_for_another_datacenter_reaches_its_leader_through_any_server() {
    let mut world = World::federated();
    world.answers.insert(1, Ok(Response::Done));
    // No server of dc1 has a leader, and none is needed; requests go round both servers of dc2.
    for number in 1..=4 {
        world.submit_across(3, number, write());
        assert_eq!(world.done(3, number), Some(Ok(Response::Done)));
    }
    let streams = world.ends.keys().filter(|(node, _)| *node == 0).count();
    assert_eq!(streams, 3, "one from the client, one to each server of dc2");
}

#[test]
fn an_event_for_another_datacenter_is_fired_by_any_server_there() {
    let mut world = World::federated();
    let event = Event {
        id: EventId::from_bytes([1; 16]),
        name: "deploy".to_owned(),
        payload: None,
        filters: Filters::default(),
        version: 1,
        time: LamportTime::ZERO,
    };
    let fired = Ok(Response::Event(Box::new(event)));
    // Server 2 does not lead, and 1 says nothing.
    world.answers.insert(2, fired.clone());
    world.know(vec![(2, true)]);
    let fire = FireEvent { name: "deploy".to_owned(), ..FireEvent::default() };
    world.submit_across(3, 1, RequestBody::FireEvent(Box::new(fire)));
    assert_eq!(world.done(3, 1), Some(fired));
}

#[test]
fn what_came_from_another_datacenter_crosses_no_second_time() {
    let mut world = World::federated();
    let third = Datacenter::parse("dc3").unwrap();
    let server = RemoteServer { datacenter: third.clone(), address: address(0), alive: true };
    world.input(1, RpcInput::RemoteServers(vec![server]));
    let stream = StreamId::new(1000);
    world.input(1, RpcInput::StreamOpened { stream, peer: address(0) });
    let RpcConfig { id: node, name, datacenter, .. } = config(0, true);
    let lane = Lane::Data;
    let hello = Hello { protocol_min: 1, protocol_max: 1, datacenter, node, name, lane };
    let mut request = Request::new(read());
    request.context.datacenter = Some(third);
    let (wall, request) = (WallClock::from_millis(0), Arc::new(request));
    let request = RemoteRequest { id: 1, hold: HOLD, wall, hops: 1, request };
    for frame in [Frame::Hello(hello), Frame::Request(request)] {
        let data = frame.encode().unwrap();
        world.input(1, RpcInput::StreamData { stream, data });
    }
    assert_eq!(world.nodes[1].calls.len(), 0, "it is refused at once");
    assert!(world.ends.is_empty(), "and nobody was asked");
}

#[test]
fn a_datacenter_that_does_not_answer_fails_when_the_hold_is_over() {
    let mut world = World::federated();
    world.down.extend([1, 2]);
    world.submit_across(0, 1, write());
    assert_eq!(world.done(0, 1), None);
    world.run(HOLD * 2);
    assert_eq!(world.done(0, 1), Some(Err(RequestError::NoServerReachable)));
    assert_eq!(world.nodes[0].calls.len(), 0);
}

#[test]
fn consensus_of_another_datacenter_is_refused() {
    let mut world = World::federated();
    let payload = Bytes::from_static(b"raft");
    let (to, address) = (id(1), address(1));
    world.input(0, RpcInput::SendRaft { to, address, lane: Lane::Data, payload });
    world.run(MILLI * 100);
    assert!(!world.seen.iter().any(|(_, seen)| matches!(seen, Seen::Raft(..))));
}

#[test]
fn a_silent_server_leaves_a_write_unknown() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    world.answers.insert(0, Ok(Response::Done));
    world.submit(1, 1, true, write());
    world.muted.insert(0);
    world.submit(1, 2, true, write());
    world.run(Duration::from_secs(9));
    assert_eq!(world.done(1, 2), None);
    world.run(Duration::from_secs(2));
    assert!(matches!(world.done(1, 2), Some(Err(RequestError::Unknown(_)))));
}

/// Node 1 asks for something that is not there yet, as its request 1.
fn submit_read_that_waits(world: &mut World) {
    let mut request = Request::new(read());
    request.context.min_index = ModifyIndex::new(9);
    let (caller, wall) = (Caller::Internal(1), WallClock::from_millis(0));
    let request = Arc::new(request);
    world.input(1, RpcInput::Submit { caller, hold: true, wall, request });
}

#[test]
fn a_request_that_waits_long_is_kept_alive_by_pings() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    submit_read_that_waits(&mut world);
    world.run(Duration::from_secs(299));
    assert_eq!(world.done(1, 1), None);
    let result = answer();
    world.input(0, RpcInput::Executed { ticket: Ticket(1), result });
    assert_eq!(world.done(1, 1), Some(answer()));
}

/// Simulator, disk profile, seed 176: an agent lost power while a read of its client waited at the
/// leader, and came back so soon that nothing else told of it.
#[test]
fn what_an_agent_asked_that_went_without_a_word_is_forgotten() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    submit_read_that_waits(&mut world);
    let forgotten = |world: &World| {
        world.seen.iter().any(|(node, seen)| *node == 0 && *seen == Seen::Forget(Ticket(1)))
    };
    world.run(Duration::from_secs(60));
    assert!(!forgotten(&world));
    world.down.insert(1);
    world.run(Duration::from_secs(11));
    assert!(forgotten(&world));
}

#[test]
fn a_leaving_server_sends_callers_on() {
    let mut world = World::new(2, 1);
    world.lead(0, &[1]);
    world.answers.insert(0, Ok(Response::Done));
    world.input(1, RpcInput::Leaving);
    for number in 0..3 {
        world.submit(2, number, true, write());
        assert_eq!(world.done(2, number), Some(Ok(Response::Done)));
    }
}

#[test]
fn an_abandoned_request_is_not_answered() {
    let mut world = World::new(1, 0);
    world.lead(0, &[]);
    let (id, wall) = (RequestId::new(4), WallClock::from_millis(0));
    let request = Arc::new(Request::new(write()));
    let caller = Caller::Request(id);
    world.input(0, RpcInput::Submit { caller, hold: true, wall, request });
    world.input(0, RpcInput::Abandoned(id));
    world.input(0, RpcInput::Executed { ticket: Ticket(1), result: Ok(Response::Done) });
    assert!(!world.seen.iter().any(|(_, seen)| matches!(seen, Seen::Done(..))));
}

#[test]
fn requests_beyond_the_limit_are_refused_as_overload() {
    let mut world = World::new(1, 0);
    for number in 0..32_769 {
        world.submit(0, number, true, write());
    }
    assert_eq!(world.done(0, 32_767), None);
    assert!(matches!(world.done(0, 32_768), Some(Err(RequestError::Overloaded(_)))));
}

fn raft(to: usize, lane: Lane, text: &'static str) -> RpcInput {
    let payload = Bytes::from_static(text.as_bytes());
    RpcInput::SendRaft { to: id(to), address: address(to), lane, payload }
}

#[test]
fn raft_messages_travel_both_ways_on_one_stream_for_each_lane() {
    let mut world = World::new(2, 0);
    world.input(0, raft(1, Lane::Data, "append"));
    world.input(1, raft(0, Lane::Data, "done"));
    world.input(0, raft(1, Lane::Heartbeat, "beat"));
    world.input(1, raft(0, Lane::Heartbeat, "alive"));
    for (node, from, text) in [(1, 0, "append"), (0, 1, "done"), (1, 0, "beat"), (0, 1, "alive")] {
        let message = Seen::Raft(id(from), Bytes::from_static(text.as_bytes()));
        assert!(world.seen.contains(&(node, message)), "{text}");
    }
    assert_eq!(world.ends.len(), 4, "two streams with two ends each");
}

#[test]
fn raft_hears_of_a_peer_it_cannot_reach() {
    let mut world = World::new(2, 0);
    world.kill(1);
    world.input(0, raft(1, Lane::Data, "append"));
    assert!(world.seen.contains(&(0, Seen::Unreachable(id(1)))));
    let told = RpcTrace::Unreachable { address: address(1) };
    for _ in 0..20 {
        world.run(Duration::from_secs(1));
        world.input(0, raft(1, Lane::Data, "append"));
    }
    assert_eq!(world.traces(0), vec![told], "told once");
    world.down.clear();
    world.run(Duration::from_secs(1));
    world.input(0, raft(1, Lane::Data, "again"));
    assert!(world.seen.contains(&(1, Seen::Raft(id(0), Bytes::from_static(b"again")))));
}

#[test]
fn a_bootstrap_message_is_answered_on_its_own_stream() {
    let mut world = World::new(2, 0);
    let payload = Bytes::from_static(b"who leads?");
    world.input(0, RpcInput::SendBootstrap { to: address(1), payload });
    let via = world.seen.iter().find_map(|(node, seen)| {
        let Seen::Bootstrap(from, via, _) = seen else { return None };
        (*node == 1 && *from == id(0)).then_some(*via)
    });
    let payload = Bytes::from_static(b"nobody");
    world.input(1, RpcInput::AnswerBootstrap { via: via.unwrap(), payload: payload.clone() });
    let heard = |(node, seen): &(usize, Seen)| {
        *node == 0 && matches!(seen, Seen::Bootstrap(_, _, bytes) if *bytes == payload)
    };
    assert!(world.seen.iter().any(heard));
}

#[test]
fn an_idle_stream_is_closed_by_its_opener() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    world.answers.insert(0, answer());
    world.submit(1, 1, true, read());
    assert_eq!(world.ends.len(), 2);
    world.run(Duration::from_secs(121));
    assert!(world.ends.is_empty());
}

/// A stream from nowhere to node 0, and what node 0 says to these bytes.
fn hostile(world: &mut World, stream: u64, bytes: &[u8]) {
    let stream = StreamId::new(stream);
    let peer = SocketAddr::from(([192, 0, 2, 9], 1));
    world.input(0, RpcInput::StreamOpened { stream, peer });
    world.input(0, RpcInput::StreamData { stream, data: Bytes::copy_from_slice(bytes) });
}

fn hello(change: impl FnOnce(&mut Hello)) -> Bytes {
    let RpcConfig { id, name, datacenter, .. } = config(5, true);
    let mut hello =
        Hello { protocol_min: 1, protocol_max: 1, datacenter, node: id, name, lane: Lane::Data };
    change(&mut hello);
    Frame::Hello(hello).encode().unwrap()
}

#[test]
fn a_peer_that_breaks_a_rule_is_closed_and_told_once() {
    let far = Datacenter::parse("dc9").unwrap();
    let cases = [
        (vec![0xff; 40], 0),
        (Frame::Ping.encode().unwrap().to_vec(), 1),
        (hello(|hello| (hello.protocol_min, hello.protocol_max) = (9, 9)).to_vec(), 3),
        (hello(|hello| hello.datacenter = far).to_vec(), 4),
        (hello(|hello| hello.node = id(0)).to_vec(), 6),
    ];
    for (bytes, kind) in cases {
        let mut world = World::new(1, 0);
        hostile(&mut world, 100, &bytes);
        hostile(&mut world, 102, &bytes);
        let traces = world.traces(0);
        assert!(
            matches!(&traces[..], [RpcTrace::Refused { rule, .. }] if rule.kind() == kind),
            "{traces:?}"
        );
        assert_eq!(world.nodes[0].next_timeout(), None, "nothing is left of the stream");
    }
}

#[test]
fn a_request_on_the_heartbeat_lane_is_refused() {
    let mut world = World::new(1, 0);
    let mut bytes = hello(|hello| hello.lane = Lane::Heartbeat).to_vec();
    let reply = crate::wire::rpc::RemoteReply { id: 1, outcome: crate::wire::rpc::Outcome::Done };
    bytes.extend_from_slice(&Frame::Reply(reply).encode().unwrap());
    hostile(&mut world, 100, &bytes);
    let traces = world.traces(0);
    assert!(matches!(&traces[..], [RpcTrace::Refused { rule: CloseRule::Misplaced, .. }]));
}

#[test]
fn arbitrary_bytes_never_panic() {
    use proptest::prelude::*;
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..50)| {
        let mut world = World::new(1, 0);
        hostile(&mut world, 100, &hello(|_| ()));
        for chunk in bytes.chunks(cut) {
            let data = Bytes::copy_from_slice(chunk);
            world.input(0, RpcInput::StreamData { stream: StreamId::new(100), data });
        }
        world.run(Duration::from_secs(300));
    });
}
