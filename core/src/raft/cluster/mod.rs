//! A small deterministic cluster of Raft machines alone: virtual time, network, disks and crashes.
//! For tests and the simulator only.
//!
//! Every event is followed by the safety checks of raft.md §12, which panic. The network delays,
//! drops, repeats, reorders and cuts, as no stream would; a crash loses what the disk has not
//! confirmed, of the write in progress any prefix. [`Chaos`] draws what happens from a seed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a broken rule shows"
)]

mod chaos;
mod check;
pub(super) mod disk;

pub use chaos::Chaos;

use super::*;
use crate::id::{ClusterId, LogIndex, NodeId, StoreId, Term};
use crate::machine::{Machine, Outbox};
use crate::rng::{Rng, Seed, Stream};
use crate::time::Instant;
use crate::trace::Level;
use bytes::Bytes;
use disk::{blank, recover, write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// One thing that will happen.
#[derive(Debug)]
enum Event {
    Deliver {
        to: u8,
        message: Message,
        /// Whether it took a way of its own, on which nothing is cut.
        strays: bool,
    },
    /// An operator wants another configuration.
    Order {
        to: u8,
        change: Change,
    },
    Synced {
        to: u8,
        life: u64,
        seq: PersistSeq,
    },
    /// A snapshot is durable: the server's own, or one that it received.
    Stored {
        to: u8,
        life: u64,
        meta: SnapshotMeta,
        receipt: Option<ReceiptId>,
    },
    /// A block that the server received is written.
    Block {
        to: u8,
        life: u64,
        receipt: ReceiptId,
        number: u64,
    },
}

/// A server: its machine while it runs, and its disk.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) raft: Option<Raft>,
    pub(super) disk: RestoredRaft,
    writing: Option<(PersistSeq, PersistBatch)>,
    /// Counts its starts, so that a completion for an earlier one is recognised.
    life: u64,
    pub(super) applied: Vec<Entry>,
    /// What is being received.
    receipt: Option<(ReceiptId, SnapshotMeta)>,
    /// How many blocks of each image were read.
    images: BTreeMap<ImageId, u64>,
}

impl Host {
    /// The newest entry that the snapshot covers which is being received.
    #[cfg(test)]
    pub(super) fn receiving(&self) -> Option<LogIndex> {
        self.receipt.as_ref().map(|(_, meta)| meta.index)
    }
}

/// Blocks of every snapshot.
const BLOCKS: u64 = 3;

const SECOND: Duration = Duration::from_secs(1);
/// How long a message may be on its way that comes twice.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Messages that are remembered.
const RECENT_MAX: usize = 1000;

/// The world, and what is true of it so far.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) hosts: BTreeMap<u8, Host>,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    pub(super) cut: BTreeSet<(u8, u8)>,
    pub(super) loss_percent: u64,
    /// How many of a hundred messages come once more, up to [`LATE_MAX`] later.
    pub(super) echo_percent: u64,
    pub(super) delay_max: Duration,
    pub(super) sync_max: Duration,
    leaders: BTreeMap<Term, u8>,
    /// Who was asked by whom whether it would vote for it in which term, by a log that deserves it.
    deserved: BTreeSet<(u8, NodeId, Term)>,
    /// The newest messages that were sent, whether they arrived or not.
    recent: VecDeque<(u8, Message)>,
    /// Whether nobody hears whoever is elected.
    pub(super) unheard: bool,
    /// Whether whoever is elected is at once ordered to change the configuration.
    pub(super) eager: bool,
    committed: Vec<Entry>,
    pub(super) done: BTreeMap<ProposalId, LogIndex>,
    pub(super) failed: BTreeMap<ProposalId, ProposalError>,
    payloads: BTreeMap<ProposalId, Bytes>,
    /// The server whose disk does not answer.
    pub(super) stuck: Option<u8>,
    /// The server whose disk has no space for a snapshot.
    pub(super) full: Option<u8>,
    /// Whether nobody hears of a candidate.
    pub(super) no_votes: bool,
    pub(super) transfers: BTreeMap<TransferId, Result<(), TransferError>>,
    next_transfer: u64,
    pub(super) reads_done: BTreeSet<ReadId>,
    pub(super) reads_failed: BTreeMap<ReadId, ReadError>,
    /// When each read came, and the newest position acknowledged to anybody before.
    asked: BTreeMap<ReadId, (Instant, LogIndex)>,
    /// When each server last answered a heartbeat of each other one, and in which term.
    answered: BTreeMap<(u8, u8), (Term, Instant)>,
    /// What the servers told, and in chaos what befell them.
    pub(super) story: Vec<String>,
    next_proposal: u64,
    pub(super) limits: RaftLimits,
    /// How long a snapshot takes to be durable, and a block to be written.
    pub(super) store_time: Duration,
}

impl Cluster {
    pub(super) fn new(seed: u64, servers: &[u8]) -> Self {
        let mut cluster = Self {
            now: Instant::ZERO,
            rng: Rng::for_stream(Seed::from_number(seed), Stream::Node),
            hosts: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            loss_percent: 0,
            echo_percent: 0,
            delay_max: Duration::from_millis(2),
            sync_max: Duration::from_millis(2),
            leaders: BTreeMap::new(),
            deserved: BTreeSet::new(),
            recent: VecDeque::new(),
            eager: false,
            unheard: false,
            committed: Vec::new(),
            done: BTreeMap::new(),
            failed: BTreeMap::new(),
            payloads: BTreeMap::new(),
            stuck: None,
            full: None,
            no_votes: false,
            transfers: BTreeMap::new(),
            next_transfer: 1,
            reads_done: BTreeSet::new(),
            reads_failed: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            story: Vec::new(),
            next_proposal: 1,
            limits: RaftLimits::default(),
            store_time: Duration::from_millis(3),
        };
        for n in servers {
            cluster.add_host(*n);
        }
        cluster
    }

    pub(super) fn add_host(&mut self, n: u8) {
        let (raft, writing, life, applied) = (None, None, 0, Vec::new());
        let (receipt, images) = (None, BTreeMap::new());
        let host = Host { raft, disk: blank(n), writing, life, applied, receipt, images };
        self.hosts.insert(n, host);
        self.start(n);
    }

    /// A cluster of `servers`, bootstrapped by the first and led by somebody.
    #[cfg(test)]
    pub(super) fn formed(seed: u64, servers: &[u8]) -> Self {
        let mut cluster = Self::new(seed, servers);
        cluster.form(servers);
        cluster
    }

    /// Bootstraps it.
    pub(super) fn form(&mut self, servers: &[u8]) {
        let configuration = configuration(servers);
        let first = RaftInput::Bootstrapped { cluster: cluster_id(), configuration };
        self.input(servers[0], first);
        self.run(Duration::from_secs(5));
        assert!(self.leader().is_some(), "a bootstrapped cluster elects a leader");
    }

    pub(super) fn start(&mut self, n: u8) {
        let seed = Seed::from_number(self.rng.bits());
        let host = self.hosts.get_mut(&n).unwrap();
        assert!(host.raft.is_none());
        host.life += 1;
        (host.receipt, host.images) = (None, BTreeMap::new());
        recover(&mut host.disk);
        let covered = host.disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.index.get());
        host.applied = self.committed[..usize::try_from(covered).unwrap()].to_vec();
        let mut out = Outbox::new(Level::Info);
        let rng = Rng::for_stream(seed, Stream::Raft);
        let restored = host.disk.clone();
        let settings = RaftSettings { limits: self.limits, ..settings(n) };
        host.raft = Some(Raft::new(settings, restored, rng, self.now, &mut out));
        self.perform(n, out);
    }

    /// Stops a server at once: of the write in progress any prefix reaches the disk.
    pub(super) fn crash(&mut self, n: u8) {
        let host = self.hosts.get_mut(&n).unwrap();
        host.raft = None;
        if let Some((_, mut batch)) = host.writing.take() {
            let parts = batch.entries.len() as u64 + 2;
            let kept = usize::try_from(self.rng.below(parts + 1)).unwrap();
            if kept > 0 {
                batch.entries.truncate(kept - 1);
                write(&mut host.disk, batch);
            }
        }
    }

    pub(super) fn input(&mut self, n: u8, input: RaftInput) {
        let mut out = Outbox::new(Level::Info);
        let Some(raft) = self.hosts.get_mut(&n).and_then(|host| host.raft.as_mut()) else { return };
        let before = (raft.term(), raft.lease_until(self.now));
        if let RaftInput::Receive(Message { header, body: Body::PreVote(campaign) }) = &input
            && (campaign.last_term, campaign.last_index)
                >= (raft.shared.log.last_term(), raft.last_index())
        {
            self.deserved.insert((n, header.from, campaign.term));
        }
        raft.handle(self.now, input, &mut out);
        self.check_constancy(n, before);
        self.perform(n, out);
    }

    pub(super) fn propose(&mut self, n: u8) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        let payload = Bytes::from(format!("proposal {}", id.0));
        self.payloads.insert(id, payload.clone());
        self.input(n, RaftInput::Propose { id, payload });
        id
    }

    pub(super) fn read(&mut self, n: u8) -> ReadId {
        let id = ReadId(self.asked.len() as u64 + 1);
        let floor = self.done.values().max().copied();
        self.asked.insert(id, (self.now, floor.unwrap_or(LogIndex::ZERO)));
        self.input(n, RaftInput::Read { id });
        id
    }

    pub(super) fn transfer(&mut self, n: u8, to: Option<u8>) -> TransferId {
        let id = TransferId(self.next_transfer);
        self.next_transfer += 1;
        self.input(n, RaftInput::Transfer { id, to: to.map(node) });
        id
    }

    pub(super) fn next_id(&mut self) -> ProposalId {
        self.next_proposal += 1;
        ProposalId(self.next_proposal - 1)
    }

    /// The running leader of the highest term.
    pub(super) fn leader(&self) -> Option<u8> {
        let running = self.hosts.iter().filter_map(|(n, host)| Some((*n, host.raft.as_ref()?)));
        let leaders = running.filter(|(_, raft)| raft.role() == RoleKind::Leader);
        leaders.max_by_key(|(_, raft)| raft.term()).map(|(n, _)| n)
    }

    pub(super) fn raft(&self, n: u8) -> &Raft {
        self.hosts[&n].raft.as_ref().unwrap()
    }

    /// Cuts every connection between the two groups, both ways.
    pub(super) fn part(&mut self, left: &[u8], right: &[u8]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let wakes = self.hosts.iter().filter_map(|(n, host)| {
                Some((host.raft.as_ref()?.next_timeout()?.max(self.now), *n))
            });
            let wake = wakes.min();
            let next = event.into_iter().chain(wake.map(|(at, _)| at)).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = at;
            // Messages come before timers of the same moment (raft.md §13, order rule for 40).
            if event == Some(at) {
                let (_, event) = self.queue.pop_first().unwrap();
                self.happen(event);
            } else if let Some((_, n)) = wake {
                let mut out = Outbox::new(Level::Info);
                let raft = self.hosts.get_mut(&n).unwrap().raft.as_mut().unwrap();
                let before = (raft.term(), raft.lease_until(self.now));
                raft.handle_timeout(self.now, &mut out);
                self.check_constancy(n, before);
                self.perform(n, out);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, message, strays } => {
                if strays || !self.cut.contains(&(message.header.from.as_bytes()[0], to)) {
                    self.input(to, RaftInput::Receive(message));
                }
            }
            Event::Order { to, change } => {
                let id = self.next_id();
                self.input(to, RaftInput::Change { id, change });
            }
            Event::Synced { to, life, seq } => {
                let host = self.hosts.get_mut(&to).unwrap();
                // A disk that did not answer may say twice that it did this.
                let current = host.life == life && host.raft.is_some();
                let written = host.writing.take_if(|(writing, _)| current && *writing == seq);
                if let Some((_, batch)) = written {
                    write(&mut host.disk, batch);
                    self.input(to, RaftInput::PersistDone { seq });
                }
            }
            Event::Block { to, life, receipt, number } => {
                if self.hosts[&to].life == life {
                    let input = SnapshotInput::Stored { receipt, number };
                    self.input(to, RaftInput::Snapshot(input));
                }
            }
            Event::Stored { to, life, meta, receipt } => {
                let host = self.hosts.get_mut(&to).unwrap();
                if host.life != life || host.raft.is_none() {
                    return;
                }
                let index = meta.index;
                let older = host.disk.snapshot.as_ref();
                if older.is_none_or(|older| older.index < index) {
                    host.disk.snapshot = Some(meta);
                }
                let input = match receipt {
                    Some(receipt) => SnapshotInput::Durable { receipt },
                    None => {
                        let kept = LogIndex::new(index.get().saturating_sub(3));
                        host.disk.entries.retain(|entry| entry.index > kept);
                        SnapshotInput::Taken { index, bytes: 100 }
                    }
                };
                self.input(to, RaftInput::Snapshot(input));
            }
        }
    }

    /// The disk that did not answer does so again.
    pub(super) fn unstick(&mut self) {
        let Some(to) = self.stuck.take() else { return };
        let host = &self.hosts[&to];
        if let Some((seq, _)) = host.writing {
            let life = host.life;
            self.schedule(self.sync_max, Event::Synced { to, life, seq });
        }
    }

    fn remember(&mut self, to: u8, message: &Message) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((to, message.clone()));
    }

    /// What was lately sent to `n` comes once more, in its order, after a moment.
    pub(super) fn replay(&mut self, n: u8) {
        let delay = self.rng.jitter(SECOND / 5);
        self.replay_after(delay, n);
    }

    /// So does, after some time, what was sent to who was sent a snapshot, or else to `n`.
    pub(super) fn replay_blocks(&mut self, n: u8) {
        let block = |(_, message): &&(u8, Message)| matches!(message.body, Body::SnapshotBlock(_));
        let n = self.recent.iter().rfind(block).map_or(n, |(to, _)| *to);
        let delay = self.rng.jitter(LATE_MAX);
        self.replay_after(delay, n);
    }

    fn replay_after(&mut self, mut delay: Duration, n: u8) {
        let again = self.recent.iter().filter(|(to, _)| *to == n);
        for (to, message) in again.cloned().collect::<Vec<_>>() {
            self.schedule(delay, Event::Deliver { to, message, strays: true });
            delay += Duration::from_millis(2);
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    fn perform(&mut self, n: u8, mut out: Outbox<RaftOutput>) {
        while let Some(output) = out.pop() {
            match output {
                RaftOutput::Persist { seq, batch } => {
                    let host = self.hosts.get_mut(&n).unwrap();
                    assert!(host.writing.is_none(), "one persist request at a time");
                    host.writing = Some((seq, batch));
                    let life = host.life;
                    let delay = self.rng.jitter(self.sync_max);
                    if self.stuck != Some(n) {
                        self.schedule(delay, Event::Synced { to: n, life, seq });
                    }
                }
                RaftOutput::Send { to, address: place, message, .. } => {
                    assert_eq!(place, address(to.as_bytes()[0]));
                    self.send(n, message);
                }
                RaftOutput::Apply { entries } => {
                    self.check_apply(n, &entries);
                    let index = entries.last().unwrap().index;
                    self.hosts.get_mut(&n).unwrap().applied.extend(entries);
                    self.input(n, RaftInput::Applied { index });
                }
                RaftOutput::Snapshot(output) => self.perform_snapshot(n, output),
                RaftOutput::ProposalApplied { id, index } => {
                    if let Some(payload) = self.payloads.get(&id) {
                        let entry = &self.committed[usize::try_from(index.get()).unwrap() - 1];
                        assert_eq!(entry.payload, payload, "the entry applied is the one proposed");
                    }
                    assert!(self.done.insert(id, index).is_none());
                }
                RaftOutput::ProposalFailed { id, error } => {
                    assert!(!self.done.contains_key(&id));
                    self.failed.insert(id, error);
                }
                RaftOutput::ReadReady { id } => {
                    self.check_read(n, id);
                    assert!(self.reads_done.insert(id), "a read is answered once");
                }
                RaftOutput::ReadFailed { id, error } => {
                    assert!(!self.reads_done.contains(&id));
                    self.reads_failed.insert(id, error);
                }
                RaftOutput::TransferEnded { id, result } => {
                    assert!(self.transfers.insert(id, result).is_none());
                }
                RaftOutput::RoleChanged { role: RoleKind::Leader, term, .. } => {
                    self.check_leader(n, term);
                    if self.unheard {
                        self.isolate(n);
                    } else if self.eager {
                        self.press(n);
                    }
                }
                RaftOutput::Fatal(rule) => panic!("server {n} stopped: {rule}"),
                RaftOutput::Trace(level, trace) => {
                    let (now, level) = (self.now, level.name());
                    self.story.push(format!("{now:?} {n} [{level}] raft: {trace}"));
                }
                RaftOutput::RoleChanged { .. }
                | RaftOutput::LeaderReady { .. }
                | RaftOutput::LeadershipLost { .. }
                | RaftOutput::ConfigurationChanged { .. }
                | RaftOutput::ClusterKnown { .. }
                | RaftOutput::Removed => {}
            }
        }
    }

    fn send(&mut self, n: u8, message: Message) {
        self.check_send(n, &message);
        let to = message.header.to.as_bytes()[0];
        self.remember(to, &message);
        if matches!(message.body, Body::HeartbeatAnswer { .. }) {
            self.answered.insert((n, to), (message.header.term, self.now));
        }
        let vote = matches!(message.body, Body::RequestVote(_));
        let lost = self.rng.chance(self.loss_percent, 100) || (vote && self.no_votes);
        if lost || self.cut.contains(&(n, to)) || !self.hosts.contains_key(&to) {
            return;
        }
        if self.rng.chance(self.echo_percent, 100) {
            let (delay, message) = (self.rng.jitter(LATE_MAX), message.clone());
            self.schedule(delay, Event::Deliver { to, message, strays: true });
        }
        let delay = Duration::from_micros(100) + self.rng.jitter(self.delay_max);
        self.schedule(delay, Event::Deliver { to, message, strays: false });
    }

    fn perform_snapshot(&mut self, n: u8, output: SnapshotOutput) {
        let host = self.hosts.get_mut(&n).unwrap();
        let (to, life, delay) = (n, host.life, self.store_time);
        match output {
            SnapshotOutput::Take { meta } => {
                let index = host.applied.last().unwrap().index;
                assert_eq!(meta.index, index, "INV-RAFT-8: a snapshot covers what is applied");
                assert_eq!(meta.position(), host.applied.last().unwrap().position());
                self.schedule(delay * 3, Event::Stored { to, life, meta, receipt: None });
            }
            SnapshotOutput::Open { image } => {
                assert!(host.images.insert(image, 0).is_none());
            }
            SnapshotOutput::Read { image } => {
                let read = host.images.get_mut(&image).unwrap();
                *read += 1;
                let data = Bytes::from(read.to_string());
                let last = *read == BLOCKS;
                let input = SnapshotInput::Block { image, data, last };
                self.input(n, RaftInput::Snapshot(input));
            }
            SnapshotOutput::Close { image } => {
                assert!(host.images.remove(&image).is_some());
            }
            SnapshotOutput::Receive { receipt, meta, number, data, last } => {
                assert_eq!(data, (number + 1).to_string(), "blocks come once and in order");
                let disk = &host.disk;
                assert!(disk.hard.term >= meta.term, "INV-RAFT-13: a snapshot before its term");
                assert_eq!(disk.cluster, Some(cluster_id()), "INV-RAFT-13: nor before its cluster");
                if number == 0 {
                    host.receipt = Some((receipt, meta.clone()));
                }
                assert_eq!(host.receipt, Some((receipt, meta.clone())));
                if self.full == Some(n) {
                    host.receipt = None;
                    let input = SnapshotInput::NoRoom { receipt: Some(receipt) };
                    return self.input(n, RaftInput::Snapshot(input));
                }
                self.schedule(delay, Event::Block { to, life, receipt, number });
                if last {
                    let receipt = Some(receipt);
                    self.schedule(delay * 2, Event::Stored { to, life, meta, receipt });
                }
            }
            SnapshotOutput::Drop { receipt } => {
                host.receipt.take_if(|(held, _)| *held == receipt);
            }
            SnapshotOutput::Install { receipt } => {
                let (held, meta) = host.receipt.take().unwrap();
                assert_eq!(held, receipt);
                let before = host.applied.len() as u64;
                assert!(meta.index.get() > before, "INV-RAFT-6: applied never decreases");
                let covered = usize::try_from(meta.index.get()).unwrap();
                host.applied = self.committed[..covered].to_vec();
                assert_eq!(host.applied.last().unwrap().position(), meta.position());
                let last = host.raft.as_ref().map(Raft::last_index);
                assert_eq!(last, Some(meta.index), "INV-RAFT-3: {n} keeps what does not follow");
            }
        }
    }
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(super) fn store(n: u8) -> StoreId {
    StoreId::from_bytes([n; 16])
}

pub(super) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8300))
}

pub(super) fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0xcc; 16])
}

pub(super) fn settings(n: u8) -> RaftSettings {
    let (id, address) = (node(n), address(n));
    RaftSettings { id, address, timing: Timing::scaled(1), limits: RaftLimits::default() }
}

pub(super) fn configuration(voters: &[u8]) -> Configuration {
    let server = |n: &u8| (node(*n), Server { address: address(*n), store: store(*n) });
    Configuration { voters: voters.iter().map(server).collect(), ..Configuration::default() }
}
