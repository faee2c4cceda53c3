//! Members with both layers on a network in memory: virtual time, one millisecond of delay, no
//! loss except where it is asked for.

use crate::config::{GossipConfig, SerfConfig};
use crate::gossip::keyring::{Keyring, KeyringError};
use crate::gossip::{Gossip, GossipInput, GossipOutput, GossipTrace, JoinId};
use crate::id::{RequestId, StreamId};
use crate::machine::{Machine, Outbox};
use crate::node::input::CloseReason;
use crate::rng::Seed;
use crate::serf::{
    KeyOperation, KeyResult, MemberEventKind, MemberStatus, QueryHeard, QueryId, Serf, SerfEvent,
    SerfInput, SerfOutput, SerfRefusal, SerfReply, SerfRequest,
};
use crate::storage::op::FileOp;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::PeerState;
use crate::wire::serf::UserEvent;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// The request with which a member answers queries by itself.
const SAYS: RequestId = RequestId::new(u64::MAX);

const DELAY: Duration = Duration::from_millis(1);

/// One running member.
pub(crate) struct Host {
    pub(crate) gossip: Gossip,
    pub(crate) serf: Serf,
    gossip_box: Outbox<GossipOutput>,
    serf_box: Outbox<SerfOutput>,
}

/// What remains of a member across restarts.
#[derive(Default)]
pub(crate) struct Seat {
    pub(crate) host: Option<Host>,
    /// The content of its snapshot.
    pub(crate) file: String,
    /// Member events since the start of the world.
    pub(crate) events: Vec<(MemberEventKind, String)>,
    /// Traces of the membership protocol.
    pub(crate) traces: Vec<GossipTrace>,
    /// Joins that ended: addresses reached, errors.
    pub(crate) joins: Vec<(usize, Vec<String>)>,
    /// When it was through with leaving.
    pub(crate) left_at: Option<Instant>,
    /// User events delivered since the start of the world.
    pub(crate) heard: Vec<UserEvent>,
    /// What members said to the queries asked here.
    pub(crate) told: Vec<QueryHeard>,
    /// Queries delivered: name and content.
    pub(crate) asked: Vec<(String, Bytes)>,
    /// Answers to requests.
    pub(crate) replies: Vec<Result<SerfReply, SerfRefusal>>,
    /// What it answers to every query, if it answers.
    pub(crate) says: Option<Bytes>,
    /// What became of these answers.
    pub(crate) said: Vec<Result<SerfReply, SerfRefusal>>,
    /// Its keyring; the first key encrypts.
    pub(crate) keys: Vec<Bytes>,
    /// Set once it has to give up its name: members for it, and all that answered.
    pub(crate) name_lost: Option<(usize, usize)>,
    /// Its name, if not that of its host.
    pub(crate) name: Option<String>,
    /// Datagrams sent and the largest of them.
    pub(crate) sent: (usize, usize),
    /// Datagrams sent by their first byte.
    pub(crate) sent_by_kind: BTreeMap<u8, usize>,
    /// Its own settings; the cluster's if there are none.
    pub(crate) config: Option<GossipConfig>,
    /// The content of its keyring file.
    pub(crate) keyring: Option<Bytes>,
    /// The content of its file of retired keys.
    pub(crate) retired: Option<Bytes>,
    /// Key operations that ended.
    pub(crate) key_results: Vec<Result<Keyring, KeyringError>>,
    starts: u64,
}

enum Delivery {
    Datagram { from: SocketAddr, payload: Bytes },
    Opened { stream: StreamId, peer: SocketAddr },
    Data { stream: StreamId, data: Bytes },
    Closed { stream: StreamId, reason: CloseReason },
}

/// All members and the network between them.
pub(crate) struct Cluster {
    pub(crate) now: Instant,
    pub(crate) seats: Vec<Seat>,
    pub(crate) gossip_config: GossipConfig,
    pub(crate) serf_config: SerfConfig,
    queue: BTreeMap<(Instant, u64), (usize, Delivery)>,
    sequence: u64,
    /// Pairs (from, to) between which nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    /// Pairs between which streams pass, but no datagrams.
    datagram_cuts: BTreeSet<(usize, usize)>,
    /// The other end of each end of a stream.
    streams: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    accepted: u64,
    seed: u64,
}

pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(index + 1).unwrap()], 8301))
}

pub(crate) fn host_name(index: usize) -> String {
    format!("n{index}")
}

/// What a keyring does; texts of keys are not base64 here, which nobody reads.
fn operate(keys: &mut Vec<Bytes>, operation: KeyOperation) -> KeyResult {
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
    match operation {
        KeyOperation::Install(key) => {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        KeyOperation::Use(key) => match keys.iter().position(|known| *known == key) {
            Some(at) => keys.swap(0, at),
            None => return KeyResult::Failed("Requested key is not in the keyring".to_owned()),
        },
        KeyOperation::Remove(key) if keys.first() == Some(&key) => {
            return KeyResult::Failed("Removing the primary key is not allowed".to_owned());
        }
        KeyOperation::Remove(key) => keys.retain(|known| *known != key),
        KeyOperation::List => {
            let primary = keys.first().map(text).unwrap_or_default();
            return KeyResult::Keys { keys: keys.iter().map(text).collect(), primary };
        }
    }
    KeyResult::Done
}

impl Cluster {
    /// `count` members that know nothing of each other.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let mut cluster = Self::empty(seed);
        for _ in 0..count {
            cluster.add(None);
        }
        cluster
    }

    /// Starts another member, with settings of its own if there are any.
    pub(crate) fn add(&mut self, config: Option<GossipConfig>) -> usize {
        self.seats.push(Seat { config, ..Seat::default() });
        self.start(self.seats.len() - 1);
        self.seats.len() - 1
    }

    /// No members.
    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            now: Instant::from_nanos(1),
            seats: Vec::new(),
            gossip_config: GossipConfig::lan(),
            serf_config: SerfConfig::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            cuts: BTreeSet::new(),
            datagram_cuts: BTreeSet::new(),
            streams: BTreeMap::new(),
            accepted: 0,
            seed,
        }
    }

    /// `count` members that have joined through the first and see each other.
    pub(crate) fn joined(count: usize, seed: u64) -> Self {
        let mut cluster = Self::new(count, seed);
        for index in 1..count {
            cluster.join(index, &[0]);
        }
        cluster.run(10);
        cluster.assert_all(PeerState::Alive, MemberStatus::Alive);
        cluster
    }

    pub(crate) fn start(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        seat.starts += 1;
        let seed = Seed::from_number(self.seed * 1_000_003 + seat.starts * 1009 + index as u64);
        let (mut gossip_box, mut serf_box) = (Outbox::new(Level::Trace), Outbox::new(Level::Trace));
        let name = super::name(&seat.name.clone().unwrap_or_else(|| host_name(index)));
        let tags = BTreeMap::from([("role".to_owned(), "node".to_owned())]);
        let serf = Serf::new(
            name.clone(),
            &tags,
            &self.serf_config,
            Some(&seat.file),
            seed,
            self.now,
            &mut serf_box,
        );
        let mut gossip = Gossip::new(
            name,
            address(index),
            serf.meta(),
            seat.config.as_ref().unwrap_or(&self.gossip_config),
            seed,
            self.now,
            &mut gossip_box,
        );
        if let Some(last) = serf.last_incarnation() {
            gossip.restore_incarnation(last, &mut gossip_box);
        }
        if let Some(file) = &seat.keyring {
            let mut ring = Keyring::from_file(file).unwrap();
            if let Some(file) = &seat.retired {
                ring.retire_from_file(file).unwrap();
            }
            gossip.restore_keyring(self.now, ring, &mut gossip_box);
        }
        seat.host = Some(Host { gossip, serf, gossip_box, serf_box });
        self.settle(index);
    }

    /// Stops a member without a word.
    pub(crate) fn kill(&mut self, index: usize) {
        self.seats[index].host = None;
        let ends: Vec<_> =
            self.streams.keys().filter(|(host, _)| *host == index).copied().collect();
        for end in ends {
            let Some((host, stream)) = self.streams.remove(&end) else { continue };
            self.streams.remove(&(host, stream));
            self.deliver(host, Delivery::Closed { stream, reason: CloseReason::Reset });
        }
    }

    pub(crate) fn join(&mut self, index: usize, targets: &[usize]) {
        let addresses = targets.iter().map(|target| address(*target)).collect();
        self.gossip(index, GossipInput::Join { join: JoinId(1), addresses });
    }

    pub(crate) fn gossip(&mut self, index: usize, input: GossipInput) {
        let now = self.now;
        let Some(host) = &mut self.seats[index].host else { return };
        host.gossip.handle(now, input, &mut host.gossip_box);
        self.settle(index);
    }

    pub(crate) fn serf(&mut self, index: usize, input: SerfInput) {
        let now = self.now;
        let Some(host) = &mut self.seats[index].host else { return };
        host.serf.handle(now, input, &mut host.serf_box);
        self.settle(index);
    }

    /// Lets nothing pass between `a` and `b` any more.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Lets no datagram pass between `a` and `b` any more.
    pub(crate) fn cut_datagrams(&mut self, a: usize, b: usize) {
        self.datagram_cuts.extend([(a, b), (b, a)]);
    }

    /// Lets no datagram pass from `from` to `to` any more.
    pub(crate) fn cut_datagrams_to(&mut self, from: usize, to: usize) {
        self.datagram_cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.datagram_cuts.clear();
    }

    /// Runs for `seconds`.
    pub(crate) fn run(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let delivery = self.queue.keys().next().map(|(at, _)| *at);
        let hosts = self.seats.iter().filter_map(|seat| seat.host.as_ref());
        let timers = hosts.flat_map(|h| [h.gossip.next_timeout(), h.serf.next_timeout()]);
        timers.flatten().chain(delivery).min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let (index, delivery) = entry.remove();
            let input = match delivery {
                Delivery::Datagram { from, payload } => GossipInput::Datagram { from, payload },
                Delivery::Opened { stream, peer } => GossipInput::StreamOpened { stream, peer },
                Delivery::Data { stream, data } => GossipInput::StreamData { stream, data },
                Delivery::Closed { stream, reason } => GossipInput::StreamClosed { stream, reason },
            };
            self.gossip(index, input);
        }
        for index in 0..self.seats.len() {
            if let Some(host) = &mut self.seats[index].host {
                host.gossip.handle_timeout(now, &mut host.gossip_box);
                host.serf.handle_timeout(now, &mut host.serf_box);
                self.settle(index);
            }
        }
    }

    fn deliver(&mut self, index: usize, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((self.now + DELAY, self.sequence), (index, delivery));
    }

    fn settle(&mut self, index: usize) {
        loop {
            let Some(host) = &mut self.seats[index].host else { return };
            if let Some(output) = host.gossip_box.pop() {
                self.gossip_output(index, output);
            } else if let Some(output) = host.serf_box.pop() {
                self.serf_output(index, output);
            } else {
                return;
            }
        }
    }

    fn serf_now(&mut self, index: usize, input: SerfInput) {
        let host = self.seats[index].host.as_mut().unwrap();
        host.serf.handle(self.now, input, &mut host.serf_box);
    }

    fn gossip_now(&mut self, index: usize, input: GossipInput) {
        let host = self.seats[index].host.as_mut().unwrap();
        host.gossip.handle(self.now, input, &mut host.gossip_box);
    }

    fn gossip_output(&mut self, index: usize, output: GossipOutput) {
        match output {
            GossipOutput::SendDatagram { to, payload } => self.send(index, to, payload),
            GossipOutput::OpenStream { stream, to } => self.open(index, stream, to),
            GossipOutput::SendStream { stream, data } => {
                if let Some((to, stream)) = self.streams.get(&(index, stream)).copied()
                    && !self.cuts.contains(&(index, to))
                {
                    self.deliver(to, Delivery::Data { stream, data });
                }
            }
            GossipOutput::CloseStream { stream } => {
                if let Some((to, other)) = self.streams.remove(&(index, stream)) {
                    self.streams.remove(&(to, other));
                    let reason = CloseReason::Finished;
                    self.deliver(to, Delivery::Closed { stream: other, reason });
                }
            }
            GossipOutput::Joined(peer) => self.serf_now(index, SerfInput::Joined(peer)),
            GossipOutput::Gone { name, left } => {
                self.serf_now(index, SerfInput::Gone { name, left });
            }
            GossipOutput::Updated(peer) => self.serf_now(index, SerfInput::Updated(peer)),
            GossipOutput::OwnIncarnation(incarnation) => {
                self.serf_now(index, SerfInput::OwnIncarnation(incarnation));
            }
            GossipOutput::ThoughtDead => {}
            GossipOutput::Conflict { existing, .. } => {
                self.serf_now(index, SerfInput::Conflict(existing.name));
            }
            GossipOutput::UserMessage(bytes) => {
                self.serf_now(index, SerfInput::UserMessage(bytes));
            }
            GossipOutput::ProbeAnswered { peer, round_trip, payload } => {
                self.serf_now(index, SerfInput::ProbeAnswered { peer, round_trip, payload });
            }
            GossipOutput::RemoteUserState { payload, join } => {
                self.serf_now(index, SerfInput::RemoteUserState { payload, join });
            }
            GossipOutput::WantUserState { exchange, join } => {
                self.serf_now(index, SerfInput::WantUserState { exchange, join });
            }
            GossipOutput::JoinFinished { join, contacted, errors } => {
                if !join.is_serf() {
                    self.seats[index].joins.push((contacted, errors));
                    if contacted > 0 {
                        self.serf_now(index, SerfInput::JoinedCluster);
                    }
                }
                self.serf_now(index, SerfInput::JoinFinished { join, contacted });
            }
            GossipOutput::LeaveSpread => self.serf_now(index, SerfInput::LeaveSpread),
            GossipOutput::BroadcastSpread(id) => {
                self.serf_now(index, SerfInput::BroadcastSpread(id));
            }
            GossipOutput::KeyFinished { result, .. } => self.seats[index].key_results.push(result),
            GossipOutput::PersistKeyring(ops) => {
                self.seats[index].retired = None;
                for op in ops {
                    let FileOp::Write { file, data, .. } = op else { continue };
                    let seat = &mut self.seats[index];
                    let is_retired = file.as_str().contains("retired");
                    let content = if is_retired { &mut seat.retired } else { &mut seat.keyring };
                    *content = Some(data);
                }
                self.gossip_now(index, GossipInput::KeyringPersisted(Ok(())));
            }
            GossipOutput::Trace(_, trace) => self.seats[index].traces.push(trace),
        }
    }

    fn send(&mut self, index: usize, to: SocketAddr, payload: Bytes) {
        let (count, largest) = self.seats[index].sent;
        self.seats[index].sent = (count + 1, largest.max(payload.len()));
        *self.seats[index].sent_by_kind.entry(payload[0]).or_default() += 1;
        let Some(target) = self.at(to) else { return };
        if !self.cuts.contains(&(index, target)) && !self.datagram_cuts.contains(&(index, target)) {
            self.deliver(target, Delivery::Datagram { from: address(index), payload });
        }
    }

    fn open(&mut self, index: usize, stream: StreamId, to: SocketAddr) {
        let target = self.at(to).filter(|target| self.seats[*target].host.is_some());
        let Some(target) = target else {
            let reason = CloseReason::ConnectFailed;
            self.deliver(index, Delivery::Closed { stream, reason });
            return;
        };
        if self.cuts.contains(&(index, target)) {
            return;
        }
        self.accepted += 2;
        let other = StreamId::new(self.accepted);
        self.streams.insert((index, stream), (target, other));
        self.streams.insert((target, other), (index, stream));
        self.deliver(target, Delivery::Opened { stream: other, peer: address(index) });
        self.deliver(index, Delivery::Opened { stream, peer: to });
    }

    fn at(&self, to: SocketAddr) -> Option<usize> {
        (0..self.seats.len()).find(|index| address(*index) == to)
    }

    fn serf_output(&mut self, index: usize, output: SerfOutput) {
        match output {
            SerfOutput::Broadcast { class, key, payload, notify } => {
                self.gossip_now(index, GossipInput::Broadcast { class, key, payload, notify });
            }
            SerfOutput::UserState { exchange, payload } => {
                self.gossip_now(index, GossipInput::UserState { exchange, payload });
            }
            SerfOutput::Join { join, addresses } => {
                assert!(join.is_serf());
                self.gossip_now(index, GossipInput::Join { join, addresses });
            }
            SerfOutput::GossipLeave => self.gossip_now(index, GossipInput::Leave),
            SerfOutput::SetAckPayload(payload) => {
                self.gossip_now(index, GossipInput::SetAckPayload(payload));
            }
            SerfOutput::SetMeta(meta) => self.gossip_now(index, GossipInput::SetMeta(meta)),
            SerfOutput::Event(SerfEvent::Members { kind, members }) => {
                let names = members.iter().map(|member| (kind, member.name.to_string()));
                self.seats[index].events.extend(names);
            }
            SerfOutput::Event(SerfEvent::User(event)) => self.seats[index].heard.push(event),
            SerfOutput::Event(SerfEvent::Query { query, name, payload, .. }) => {
                self.asked(index, query, name, payload);
            }
            SerfOutput::SendUser { to, payload } => {
                self.gossip_now(index, GossipInput::SendUser { to, payload });
            }
            SerfOutput::Reply { id: SAYS, result } => self.seats[index].said.push(result),
            SerfOutput::Reply { result, .. } => self.seats[index].replies.push(result),
            SerfOutput::QueryHeard { heard, .. } => self.seats[index].told.push(heard),
            SerfOutput::KeyOperation { query, operation } => {
                let result = operate(&mut self.seats[index].keys, operation);
                self.serf_now(index, SerfInput::KeyResult { query, result });
            }
            SerfOutput::NameLost { matching, total, .. } => {
                self.seats[index].name_lost = Some((matching, total));
            }
            SerfOutput::LeaveFinished => self.seats[index].left_at = Some(self.now),
            SerfOutput::Persist(ops) => self.persist(index, ops),
            SerfOutput::Trace(..) => {}
        }
    }

    /// A query was delivered; whoever has something to say to all queries says it.
    fn asked(&mut self, index: usize, query: QueryId, name: String, payload: Bytes) {
        let seat = &mut self.seats[index];
        seat.asked.push((name, payload));
        if let Some(payload) = seat.says.clone() {
            let request = SerfRequest::AnswerQuery { query, payload };
            self.serf_now(index, SerfInput::Request { id: SAYS, request });
        }
    }

    /// Asks something of a member's Serf layer.
    pub(crate) fn ask(&mut self, index: usize, request: SerfRequest) {
        self.serf(index, SerfInput::Request { id: RequestId::ZERO, request });
    }

    fn persist(&mut self, index: usize, ops: Vec<FileOp>) {
        let file = &mut self.seats[index].file;
        for op in ops {
            if let FileOp::Write { offset, data, .. } = op {
                file.truncate(usize::try_from(offset).unwrap());
                file.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    }

    /// What `index` believes of `about` in both layers.
    pub(crate) fn sees(
        &self,
        index: usize,
        about: usize,
    ) -> (Option<PeerState>, Option<MemberStatus>) {
        let host = self.seats[index].host.as_ref().unwrap();
        let name = super::name(&host_name(about));
        let state = host.gossip.peers().find(|(peer, _)| peer.name == name).map(|(_, s)| s);
        (state, host.serf.member(&name).map(|member| member.status))
    }

    /// Its own incarnation.
    pub(crate) fn incarnation(&self, index: usize) -> u32 {
        let host = self.seats[index].host.as_ref().unwrap();
        let name = super::name(&host_name(index));
        let own = host.gossip.peers().find(|(peer, _)| peer.name == name);
        own.unwrap().0.incarnation.get()
    }

    pub(crate) fn status(&self, index: usize, about: usize) -> Option<MemberStatus> {
        self.sees(index, about).1
    }

    /// Asserts that every running member sees every seat so.
    pub(crate) fn assert_all(&self, state: PeerState, status: MemberStatus) {
        for index in self.running() {
            for about in 0..self.seats.len() {
                let seen = self.sees(index, about);
                assert_eq!(seen, (Some(state), Some(status)), "{index} sees {about}");
            }
        }
    }

    /// Asserts that every running member but `about` itself sees `about` so.
    pub(crate) fn assert_seen(&self, about: usize, status: MemberStatus) {
        for index in self.running().filter(|index| *index != about) {
            assert_eq!(self.status(index, about), Some(status), "{index} sees {about}");
        }
    }

    /// Asserts that no running member takes `about` for alive.
    pub(crate) fn assert_seen_suspect_or_worse(&self, about: usize) {
        for index in self.running() {
            assert_ne!(self.sees(index, about).0, Some(PeerState::Alive), "{index} sees {about}");
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.seats.len()).filter(|index| self.seats[*index].host.is_some())
    }

    /// Events of one kind about `about`, seen by `index`.
    pub(crate) fn events(&self, index: usize, kind: MemberEventKind, about: usize) -> usize {
        let about = host_name(about);
        self.seats[index].events.iter().filter(|(k, name)| *k == kind && *name == about).count()
    }

    /// Traces of `index` for which `wanted` holds.
    pub(crate) fn traced(&self, index: usize, wanted: impl Fn(&GossipTrace) -> bool) -> usize {
        self.seats[index].traces.iter().filter(|trace| wanted(trace)).count()
    }
}
