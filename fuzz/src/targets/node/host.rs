//! The host of one agent: clock, disk, streams, checks; performs outputs, reports completions.

use super::peers::{self, Peer};
use crate::choices::Choices;
use crate::disk::{Disk, SERVER};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::config::{
    Bootstrap, GossipConfig, NodeConfig, SerfConfig, ServerConfig, WanConfig,
};
use terraform_core::id::{
    CheckId, ClusterId, Datacenter, LamportTime, NodeName, PoolName, RequestId, StreamId, WriteId,
};
use terraform_core::node::Node;
use terraform_core::node::input::{CheckResult, CloseReason, Input, StreamKind};
use terraform_core::node::output::Output;
use terraform_core::rng::Seed;
use terraform_core::storage::op::{Lane, StorageFault, StorageOp};
use terraform_core::storage::recovery::RecoveryConfig;
use terraform_core::time::{Instant, WallClock};
use terraform_core::trace::Level;
use terraform_core::wire::frame::FrameDecoder;
use terraform_core::wire::gossip::Message;
use terraform_core::wire::packet::decode_packet;
use terraform_core::wire::rpc::Frame;
use terraform_core::wire::serf::SerfMessage;

/// Outputs of one drain; far above what one input may want.
const OUTPUTS_MAX: usize = 10_000;

/// A stream between the agent and a peer.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) kind: StreamKind,
    pub(super) peer: Peer,
    /// Whether the agent was told that it is open.
    pub(super) open: bool,
    /// What the agent sent on it.
    decoder: FrameDecoder,
    /// The frames in it that the peer has not answered.
    pub(super) heard: VecDeque<Frame>,
}

/// One agent and everything around it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) node: Node,
    recovery: RecoveryConfig,
    pub(super) now: Instant,
    disk: Disk,
    /// Operations that are not done, in the order of each lane.
    lanes: BTreeMap<Lane, VecDeque<(WriteId, StorageOp)>>,
    failed: BTreeSet<Lane>,
    pub(super) streams: Vec<Stream>,
    accepted: u64,
    checks: Vec<(CheckId, u64)>,
    requests: u64,
    unanswered: BTreeSet<RequestId>,
    /// The cluster as the agent's own messages name it.
    pub(super) cluster: ClusterId,
    /// The newest query that the agent spread.
    pub(super) query: (LamportTime, u32),
    stopped: bool,
}

fn config(kind: u8) -> NodeConfig {
    let bootstrap = match kind % 4 {
        0 => None,
        1 => Some(Bootstrap::Alone),
        2 => Some(Bootstrap::Expect(3)),
        _ => Some(Bootstrap::Join),
    };
    NodeConfig {
        name: NodeName::parse("agent").expect("five letters are a name"),
        datacenter: Datacenter::parse("dc1").expect("letters and a digit are a datacenter"),
        advertise: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        advertise_wan: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        tagged_addresses: BTreeMap::new(),
        serf_lan_port: 8301,
        server_port: 8300,
        server: bootstrap.map(|bootstrap| ServerConfig {
            wan: Some(WanConfig {
                port: 8302,
                gossip: GossipConfig::wan(),
                serf: SerfConfig::wan(),
            }),
            ..ServerConfig::new(bootstrap)
        }),
        gossip: GossipConfig::lan(),
        serf: SerfConfig::default(),
        services: Vec::new(),
        checks: Vec::new(),
        node_meta: BTreeMap::new(),
        rpc_hold: Duration::from_secs(7),
        rpc_rate: None,
        check_update_interval: Duration::from_secs(300),
        check_output: terraform_core::local::definition::OutputRules::default(),
        level: if kind & 4 == 0 { Level::Warn } else { Level::Trace },
    }
}

impl Host {
    /// An agent on an empty disk.
    pub(super) fn start(kind: u8) -> Self {
        let config = config(kind);
        let recovery = RecoveryConfig { server: config.server.is_some(), ..SERVER };
        let mut disk = Disk::default();
        let restored = disk.recover(recovery.clone()).expect("an empty disk is usable");
        let (now, wall) = (Instant::from_nanos(0), WallClock::from_millis(1_700_000_000_000));
        let node = Node::new(config, restored, Seed::from_number(1), wall, now);
        let mut host = Self {
            node: node.expect("the settings agree with each other"),
            recovery,
            now,
            disk,
            lanes: BTreeMap::new(),
            failed: BTreeSet::new(),
            streams: Vec::new(),
            accepted: 0,
            checks: Vec::new(),
            requests: 0,
            unanswered: BTreeSet::new(),
            cluster: ClusterId::from_bytes([7; 16]),
            query: (LamportTime::ZERO, 0),
            stopped: false,
        };
        host.drain();
        host
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn input(&mut self, input: Input) {
        self.node.handle(self.now, input);
    }

    /// Performs everything the agent wants.
    pub(super) fn drain(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.node.poll_output() else {
                return;
            };
            self.perform(output);
        }
        panic!("a drain ends");
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::OpenStream { stream, kind, to } => {
                assert!(stream.get() % 2 == 1, "the agent numbers its streams with odd numbers");
                let peer = Peer::at(to);
                self.streams.push(Stream {
                    id: stream,
                    kind,
                    peer,
                    open: false,
                    decoder: new_decoder(),
                    heard: VecDeque::new(),
                });
            }
            Output::SendStream { stream, data } => self.hear(stream, &data),
            Output::CloseStream { stream } => self.streams.retain(|known| known.id != stream),
            Output::Persist { write, op } => {
                self.lanes.entry(op.lane).or_default().push_back((write, op));
            }
            Output::RunCheck { check, run, .. } => self.checks.push((check, run)),
            Output::Reply { id, .. } => {
                assert!(self.unanswered.remove(&id), "a request is answered once");
            }
            Output::Stopped(_) => self.stopped = true,
            Output::SendDatagram { payload, .. } => self.overhear(&payload),
            Output::Event(_)
            | Output::QueryHeard { .. }
            | Output::Publish(_)
            | Output::Trace(_) => {}
        }
    }

    /// Peers learn the number of a query, which nobody could guess.
    fn overhear(&mut self, datagram: &Bytes) {
        for message in decode_packet(datagram) {
            if let Ok(Message::User(bytes)) = message
                && let Ok(SerfMessage::Query(query)) = SerfMessage::decode(&bytes)
            {
                self.query = (query.time, query.id);
            }
        }
    }

    fn hear(&mut self, stream: StreamId, data: &[u8]) {
        let Some(stream) = self.streams.iter_mut().find(|known| known.id == stream) else {
            return;
        };
        if stream.kind != StreamKind::Server {
            return;
        }
        stream.decoder.push(data);
        while let Some(body) = stream.decoder.next_frame().expect("the agent sends whole frames") {
            let frame = Frame::decode(&body).expect("the agent sends readable frames");
            if let Some(cluster) = peers::cluster_of(&frame) {
                self.cluster = cluster;
            }
            stream.heard.push_back(frame);
        }
    }

    /// Lets time pass, to the next deadline or by up to 16 s.
    pub(super) fn pass_time(&mut self, choices: &mut Choices<'_>) {
        let due = self.node.next_timeout().map(|(at, _)| at);
        let step = match choices.byte() {
            0..128 => due.map_or(Duration::ZERO, |at| at.since(self.now)),
            shift => Duration::from_micros(1 << (shift % 25)),
        };
        self.now = self.now + step;
        if due.is_some_and(|at| at <= self.now) {
            self.input(Input::Timeout);
        }
    }

    /// Completes the oldest operation of a lane; rarely, it fails.
    pub(super) fn complete_write(&mut self, choices: &mut Choices<'_>) {
        let lane = choices.below(self.lanes.len().max(1));
        let queue = self.lanes.values_mut().nth(lane);
        let Some((write, op)) = queue.and_then(VecDeque::pop_front) else {
            return;
        };
        // A lane that failed once fails everything after it.
        if choices.byte() == u8::MAX || self.failed.contains(&op.lane) {
            self.failed.insert(op.lane);
            self.input(Input::PersistFailed { write, error: StorageFault::Io });
            return;
        }
        self.disk.perform(op.ops);
        self.input(Input::Persisted { write });
    }

    /// A peer connects, or the agent's own connection is open.
    pub(super) fn open_stream(&mut self, choices: &mut Choices<'_>) {
        let choice = choices.byte();
        if let Some(stream) = self.streams.iter_mut().find(|stream| !stream.open)
            && choice < 192
        {
            stream.open = true;
            let (stream, kind, peer) = (stream.id, stream.kind, stream.peer.address(8300));
            self.input(Input::StreamOpened { stream, kind, peer });
            return;
        }
        self.accepted += 2;
        let (id, peer) = (StreamId::new(self.accepted), Peer::number(choice));
        let kind = match choice & 12 {
            0 => StreamKind::Gossip(PoolName::Lan),
            8 => StreamKind::Gossip(PoolName::Wan),
            _ => StreamKind::Server,
        };
        let (decoder, heard) = (new_decoder(), VecDeque::new());
        self.streams.push(Stream { id, kind, peer, open: true, decoder, heard });
        let peer = peer.address(50_000);
        self.input(Input::StreamOpened { stream: id, kind, peer });
    }

    /// An open stream, if there is one.
    pub(super) fn pick_stream(&mut self, choices: &mut Choices<'_>) -> Option<&mut Stream> {
        let mut open: Vec<&mut Stream> = self.streams.iter_mut().filter(|s| s.open).collect();
        let at = choices.below(open.len().max(1));
        (at < open.len()).then(|| open.swap_remove(at))
    }

    /// Bytes of the input arrive on a stream.
    pub(super) fn stream_bytes(&mut self, choices: &mut Choices<'_>) {
        let Some(stream) = self.pick_stream(choices).map(|stream| stream.id) else {
            return;
        };
        let len = usize::from(choices.byte());
        let data = Bytes::copy_from_slice(choices.take(len));
        self.input(Input::StreamData { stream, data });
    }

    pub(super) fn close_stream(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(self.streams.len().max(1));
        if at >= self.streams.len() {
            return;
        }
        let stream = self.streams.swap_remove(at);
        let reason = match (stream.open, choices.byte() % 3) {
            (false, _) => CloseReason::ConnectFailed,
            (true, 0) => CloseReason::Finished,
            (true, 1) => CloseReason::Reset,
            (true, _) => CloseReason::Limit,
        };
        self.input(Input::StreamClosed { stream: stream.id, reason });
    }

    /// The number of a request that is now waited for.
    pub(super) fn new_request(&mut self) -> RequestId {
        self.requests += 1;
        let id = RequestId::new(self.requests);
        self.unanswered.insert(id);
        id
    }

    /// The oldest check that runs ends, a request is abandoned, or the agent is to stop.
    pub(super) fn rare(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() {
            0..160 if !self.checks.is_empty() => {
                let (check, run) = self.checks.remove(0);
                let status = match choices.byte() % 3 {
                    0 => CheckStatus::Passing,
                    1 => CheckStatus::Warning,
                    _ => CheckStatus::Critical,
                };
                let output = String::from_utf8_lossy(choices.take(8)).into_owned();
                let result = CheckResult { status, output };
                self.input(Input::CheckFinished { check, run, result });
            }
            0..250 => {
                let Some(id) = self.unanswered.pop_first() else {
                    return;
                };
                self.input(Input::RequestAbandoned { id });
            }
            250..253 => self.input(Input::Leave),
            _ => self.input(Input::Shutdown),
        }
    }

    /// The agent dies here; what is on its disk must do for the next one.
    pub(super) fn restart(mut self) {
        self.disk.recover(self.recovery.clone()).expect("what the agent wrote is readable");
    }
}

fn new_decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::default();
    decoder.accept_hello();
    decoder
}
