//! SWIM membership with Lifeguard, memberlist on the wire.
//!
//! [`Gossip`] is one member of one pool. It implements gossip-protocol.md §1 to §14: each job has
//! its file, the claims of others are judged by pure functions in `state`, and everything the
//! machine wants leaves through [`GossipOutput`].
//!
//! Invariants: this member is always in its own table; a member is suspect exactly while a
//! suspicion runs for it; an incarnation of another member never falls, except when a freed name is
//! taken by another address and when a new epoch begins; every queue, table, stream and exchange
//! has a bound.
//!
//! Numbers: streams that this machine opens are 1 modulo 8 in the LAN pool and 5 modulo 8 in the
//! WAN pool; 3 modulo 4 is another machine's, and accepted streams have even numbers from the host.
//! A [`JoinId`] whose top bit is set belongs to the Serf layer ([`JoinId::SERF`]), every other one
//! to the node.

mod admission;
mod awareness;
mod broadcast;
mod drops;
mod facts;
mod join;
pub mod keyring;
mod leave;
mod network;
mod packet;
mod probe;
mod proof;
mod push_pull;
mod reach;
pub mod retired;
mod scale;
mod state;
mod stats;
mod suspicion;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod trace;
mod user;

pub use admission::{Admission, Refusal};
pub use network::{Network, NetworkError};
pub use stats::GossipStats;
pub use trace::{DropReason, GossipTrace, KeyTrace, Way};

use crate::config::GossipConfig;
use crate::id::{Incarnation, NodeName, PoolName, SeqNo, StreamId};
use crate::machine::{Machine, Outbox};
use crate::node::input::CloseReason;
use crate::rng::{Rng, Seed, Stream};
use crate::storage::op::{FileOp, StorageFault};
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace::Level;
use crate::wire::gossip::{Message, PeerState};
use crate::wire::packet::Wrapper;
use awareness::Awareness;
use broadcast::{BroadcastQueue, Notify};
use bytes::Bytes;
use drops::Drops;
use join::Join;
use keyring::{KeyOperation, KeyTicket, Keyring, KeyringError, Keys};
use leave::Life;
use probe::{Probe, Relay};
use proof::Proofs;
use push_pull::{Exchange, OwnStates};
use reach::Reach;
use state::successor;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use table::{MEMBERS_MAX, Record, Table};

/// The distance between the numbers of streams that this machine opens.
const STREAM_STEP: u64 = 8;

/// The number of the first stream that the machine of a pool opens.
const fn stream_first(pool: PoolName) -> StreamId {
    StreamId::new(match pool {
        PoolName::Lan => 1,
        PoolName::Wan => 5,
    })
}

/// Messages in each queue of the Serf layer, if the cluster has less than half as many members.
const SERF_QUEUE_MAX: usize = 4096;

/// Bytes of a Serf message that is spread: every packet has room for it, whatever its layers.
pub(crate) const BROADCAST_BYTES_MAX: usize =
    packet::PARTS_BYTES_MIN - crate::wire::compound::PART_OVERHEAD - 1;

/// Protocol versions a member understands and speaks (gossip-wire.md §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Lowest protocol understood.
    pub protocol_min: u8,
    /// Highest protocol understood.
    pub protocol_max: u8,
    /// Protocol spoken.
    pub protocol: u8,
    /// Lowest Serf protocol understood.
    pub delegate_min: u8,
    /// Highest Serf protocol understood.
    pub delegate_max: u8,
    /// Serf protocol spoken.
    pub delegate: u8,
}

impl Versions {
    /// What this program understands and speaks: the same as Consul 1.8.
    pub const OURS: Self = Self {
        protocol_min: 1,
        protocol_max: 5,
        protocol: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate: 4,
    };
}

/// A member as the membership protocol knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its gossip address.
    pub address: SocketAddr,
    /// What it says of itself; Serf's tags.
    pub meta: Bytes,
    /// Its versions.
    pub versions: Versions,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// Which queue a broadcast waits in; earlier ones fill a packet first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BroadcastClass {
    /// Join and leave intents.
    Intent,
    /// Queries.
    Query,
    /// User events.
    Event,
}

/// One state exchange that waits for the Serf layer's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// One join that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinId(pub u64);

impl JoinId {
    /// Set in the joins that the Serf layer asks for by itself (reconnect, rejoin).
    pub const SERF: u64 = 1 << 63;

    /// Whether the Serf layer asked for it by itself.
    pub const fn is_serf(self) -> bool {
        self.0 & Self::SERF != 0
    }
}

/// One broadcast that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BroadcastId(pub u64);

/// What the membership machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipInput {
    /// A datagram arrived.
    Datagram {
        /// Its source.
        from: SocketAddr,
        /// Its bytes.
        payload: Bytes,
    },
    /// A stream was accepted or the one asked for is open.
    StreamOpened {
        /// The stream.
        stream: StreamId,
        /// The other end.
        peer: SocketAddr,
    },
    /// Bytes arrived on a stream.
    StreamData {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
    },
    /// A stream ended.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: CloseReason,
    },
    /// Exchange state with these addresses; answered by `JoinFinished`.
    Join {
        /// The answer names it.
        join: JoinId,
        /// Where to.
        addresses: Vec<SocketAddr>,
    },
    /// Announce that this member leaves on purpose; answered by `LeaveSpread`.
    Leave,
    /// This member's meta changed: announce it under a new incarnation.
    SetMeta(Bytes),
    /// Spread a Serf message.
    Broadcast {
        /// Which queue.
        class: BroadcastClass,
        /// A later broadcast with the same key replaces this one.
        key: Option<String>,
        /// The whole Serf message, without the `user` byte.
        payload: Bytes,
        /// If set, `BroadcastSpread` tells when it was sent often enough or replaced.
        notify: Option<BroadcastId>,
    },
    /// Send a Serf message to one address, on a stream if it is too large for a datagram.
    SendUser {
        /// Where to.
        to: SocketAddr,
        /// The whole Serf message, without the `user` byte.
        payload: Bytes,
    },
    /// What acks to probes carry from now on.
    SetAckPayload(Bytes),
    /// The Serf layer's part of a state exchange, asked for by `WantUserState`.
    UserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// The whole Serf push/pull message.
        payload: Bytes,
    },
    /// Do something with the keys; answered by `KeyFinished`.
    Key {
        /// The answer names it.
        ticket: KeyTicket,
        /// What to do.
        operation: KeyOperation,
    },
    /// The oldest `PersistKeyring` that is not over is done, or failed.
    KeyringPersisted(Result<(), StorageFault>),
}

/// What the membership machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipOutput {
    /// Send a datagram.
    SendDatagram {
        /// Destination.
        to: SocketAddr,
        /// Bytes.
        payload: Bytes,
    },
    /// Connect; the node numbers streams, so the machine draws numbers from its own range.
    OpenStream {
        /// The stream.
        stream: StreamId,
        /// Destination.
        to: SocketAddr,
    },
    /// Send bytes on a stream.
    SendStream {
        /// The stream.
        stream: StreamId,
        /// Bytes.
        data: Bytes,
    },
    /// Close a stream.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// A member is new, or back from dead or left.
    Joined(Peer),
    /// A member is dead, or left on purpose.
    Gone {
        /// Who.
        name: NodeName,
        /// Whether it said so itself.
        left: bool,
    },
    /// A live member's meta, address or versions changed.
    Updated(Peer),
    /// This member is known under this incarnation from now on.
    OwnIncarnation(Incarnation),
    /// Somebody took this member for dead, and may have acted upon it.
    ThoughtDead,
    /// Another member claims a known name from another address.
    Conflict {
        /// Who is known.
        existing: Peer,
        /// Who claims.
        claimed: SocketAddr,
    },
    /// A Serf message arrived.
    UserMessage(Bytes),
    /// A probed member answered directly and in time, and added something to its answer.
    ProbeAnswered {
        /// Who.
        peer: NodeName,
        /// The time between ping and ack.
        round_trip: Duration,
        /// What it added.
        payload: Bytes,
    },
    /// The Serf part of a state exchange arrived; comes after the exchange's member changes.
    RemoteUserState {
        /// The whole Serf push/pull message.
        payload: Bytes,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// The Serf part of a state exchange is needed now.
    WantUserState {
        /// Answer with this.
        exchange: ExchangeId,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// A join is over.
    JoinFinished {
        /// Which.
        join: JoinId,
        /// How many addresses answered.
        contacted: usize,
        /// What went wrong with the others, one line each.
        errors: Vec<String>,
    },
    /// The leave was told often enough, or nobody is there to hear it.
    LeaveSpread,
    /// A broadcast was sent often enough or replaced.
    BroadcastSpread(BroadcastId),
    /// A key operation is over; a change is in force, and stored unless the error says otherwise.
    KeyFinished {
        /// Which.
        ticket: KeyTicket,
        /// All keys after it, the primary first.
        result: Result<Keyring, KeyringError>,
    },
    /// Write the pool's file of keys (state lane); answered by `KeyringPersisted`.
    PersistKeyring(Vec<FileOp>),
    /// Something worth telling.
    Trace(Level, GossipTrace),
}

impl From<(Level, GossipTrace)> for GossipOutput {
    fn from((level, trace): (Level, GossipTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

/// What the machine waits for; at the same instant, earlier kinds fire first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The running probe is decided.
    ProbeVerdict,
    /// The probed member did not answer directly.
    ProbeTimeout,
    /// A ping made for another member got no answer.
    Relay(SeqNo),
    /// A suspicion runs out.
    Suspicion(NodeName),
    /// An exchange takes too long.
    Exchange(StreamId),
    /// Members are asked whether they live.
    ProofTick,
    /// A retired key has opened messages for long enough.
    KeyExpiry,
    /// The next probe.
    ProbeTick,
    /// The next gossip round.
    GossipTick,
    /// The next state exchange.
    PushPullTick,
}

/// One member of one gossip pool.
#[derive(Clone, Debug)]
pub struct Gossip {
    config: GossipConfig,
    local: NodeName,
    rng: Rng,
    timers: Timers<Timer>,
    table: Table,
    health: Awareness,
    facts: BroadcastQueue,
    /// In the order of [`BroadcastClass`].
    serf_queues: [BroadcastQueue; 3],
    /// Packets filled with broadcasts so far.
    packets_filled: u32,
    /// A gossip round is due at this moment and whole intervals after it.
    round_at: Instant,
    seq_no: SeqNo,
    probe: Option<Probe>,
    relays: BTreeMap<SeqNo, Relay>,
    proofs: Proofs,
    reach: Reach,
    exchanges: BTreeMap<StreamId, Exchange>,
    own_states: OwnStates,
    /// Bytes taken in by all exchanges that are not over.
    buffered: usize,
    next_stream: StreamId,
    joins: BTreeMap<JoinId, Join>,
    life: Life,
    drops: Drops,
    stats: GossipStats,
    /// What acks carry.
    ack_payload: Option<Bytes>,
    keys: Keys,
    wrapper: Wrapper,
}

impl Gossip {
    /// A member that knows only itself; says so with `Joined`.
    ///
    /// It begins at incarnation 1, unless `restore_incarnation` is called. The first probe, gossip
    /// round and exchange come after a random part of their intervals.
    ///
    /// Panics if an interval of `config` is zero or `meta` has more than 512 bytes: both are
    /// checked where they come from.
    pub fn new(
        name: NodeName,
        address: SocketAddr,
        meta: Bytes,
        config: &GossipConfig,
        seed: Seed,
        now: Instant,
        out: &mut Outbox<GossipOutput>,
    ) -> Self {
        let intervals = [config.probe_interval, config.gossip_interval, config.push_pull_interval];
        assert!(intervals.iter().all(|interval| !interval.is_zero()), "intervals are above zero");
        assert!(meta.len() <= crate::wire::gossip::META_BYTES_MAX, "meta fits its limit");
        let incarnation = Incarnation::ZERO.next();
        let peer = Peer { name, address, meta, versions: Versions::OURS, incarnation };
        let own = Record {
            peer: peer.clone(),
            state: PeerState::Alive,
            changed_at: now,
            suspicion: None,
            told_at: None,
        };
        let mut gossip = Self {
            config: config.clone(),
            local: peer.name.clone(),
            rng: Rng::for_stream(
                seed,
                match config.pool {
                    PoolName::Lan => Stream::Gossip,
                    PoolName::Wan => Stream::GossipWan,
                },
            ),
            timers: Timers::default(),
            table: Table::new(own),
            health: Awareness::new(config.awareness_max_multiplier),
            facts: BroadcastQueue::new(MEMBERS_MAX),
            serf_queues: std::array::from_fn(|_| BroadcastQueue::new(SERF_QUEUE_MAX)),
            packets_filled: 0,
            round_at: now,
            seq_no: SeqNo::ZERO,
            probe: None,
            relays: BTreeMap::new(),
            proofs: Proofs::default(),
            reach: Reach::new(now),
            exchanges: BTreeMap::new(),
            own_states: OwnStates::default(),
            buffered: 0,
            next_stream: stream_first(config.pool),
            joins: BTreeMap::new(),
            life: Life::Active,
            stats: GossipStats::default(),
            drops: Drops::new(now),
            ack_payload: None,
            keys: Keys::new(config.encrypt.clone(), config.keyring_file),
            wrapper: Wrapper::default(),
        };
        let [probe, round, push_pull] = intervals.map(|each| gossip.rng.stagger(now, each));
        gossip.timers.set(Timer::ProbeTick, probe);
        gossip.round_at = round;
        gossip.timers.set(Timer::PushPullTick, push_pull);
        gossip.announce(&peer, Notify::None, out);
        out.push(GossipOutput::OwnIncarnation(incarnation));
        out.push(GossipOutput::Joined(peer));
        gossip.plan_round(now);
        gossip
    }

    /// Every member known and what is believed of it, this one included, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&Peer, PeerState)> {
        self.table.iter().map(|record| (&record.peer, record.state))
    }

    /// What is known of `name`.
    pub fn peer(&self, name: &NodeName) -> Option<(&Peer, PeerState)> {
        self.table.get(name).map(|record| (&record.peer, record.state))
    }

    /// Counts the occasions on which `peers` may have changed: as long as it stays, so do they.
    pub const fn version(&self) -> u64 {
        self.table.version()
    }

    /// The local health score; 0 is healthy.
    pub const fn health_score(&self) -> u32 {
        self.health.score()
    }

    /// Messages, parts of datagrams and streams without effect in this run.
    pub const fn dropped(&self) -> u64 {
        self.drops.count()
    }

    /// What happened so far in this run.
    pub const fn stats(&self) -> &GossipStats {
        &self.stats
    }

    /// Broadcasts queued: facts, then the Serf layer's by class.
    pub fn queued(&self) -> [usize; 4] {
        let [intents, queries, events] = &self.serf_queues;
        [self.facts.len(), intents.len(), queries.len(), events.len()]
    }

    fn own(&self) -> &Peer {
        &self.table.own().peer
    }

    fn address(&self) -> SocketAddr {
        self.own().address
    }

    fn set_meta(&mut self, meta: Bytes, out: &mut Outbox<GossipOutput>) {
        assert!(meta.len() <= crate::wire::gossip::META_BYTES_MAX, "meta fits its limit");
        if !self.is_active() {
            return;
        }
        self.change_own(Notify::None, out, |own| {
            own.meta = meta;
            own.incarnation = successor(own.incarnation);
        });
        out.push(GossipOutput::Updated(self.own().clone()));
    }

    fn broadcast(
        &mut self,
        class: BroadcastClass,
        key: Option<String>,
        payload: Bytes,
        notify: Option<BroadcastId>,
        out: &mut Outbox<GossipOutput>,
    ) {
        let notify = notify.map_or(Notify::None, Notify::Serf);
        if payload.len() > BROADCAST_BYTES_MAX {
            let bytes = payload.len();
            crate::trace!(out, Level::Error, GossipTrace::BroadcastTooLarge { bytes });
            self.spread(notify, out);
            return;
        }
        let message = Message::User(payload).encode();
        let [intents, queries, events] = &mut self.serf_queues;
        let queue = match class {
            BroadcastClass::Intent => intents,
            BroadcastClass::Query => queries,
            BroadcastClass::Event => events,
        };
        queue.set_entries_max(SERF_QUEUE_MAX.max(2 * self.table.len()));
        let replaced = queue.push(key, message, notify);
        self.spread(replaced, out);
    }

    fn fire(&mut self, now: Instant, timer: Timer, out: &mut Outbox<GossipOutput>) {
        match timer {
            Timer::ProbeVerdict => self.probe_verdict(now, out),
            Timer::ProbeTimeout => self.probe_indirectly(now, out),
            Timer::Relay(seq_no) => self.relay_timed_out(seq_no, out),
            Timer::Suspicion(name) => self.suspicion_expired(now, &name, out),
            Timer::Exchange(stream) => self.exchange_timed_out(now, stream, out),
            Timer::ProofTick => self.ask_for_proofs(now, out),
            Timer::KeyExpiry => self.expire_keys(now, out),
            Timer::ProbeTick => {
                self.timers.set(Timer::ProbeTick, now + self.config.probe_interval);
                self.probe_next(now, out);
            }
            Timer::GossipTick => {
                self.round_at = now;
                self.gossip(now, out);
            }
            Timer::PushPullTick => self.push_pull_next(now, out),
        }
    }
}

impl Machine for Gossip {
    type Input = GossipInput;
    type Output = GossipOutput;

    fn handle(&mut self, now: Instant, input: GossipInput, out: &mut Outbox<GossipOutput>) {
        match input {
            GossipInput::Datagram { from, payload } => self.datagram(now, from, &payload, out),
            GossipInput::StreamOpened { stream, peer } => {
                self.stream_opened(now, stream, peer, out);
            }
            GossipInput::StreamData { stream, data } => self.stream_data(now, stream, &data, out),
            GossipInput::StreamClosed { stream, reason } => {
                self.stream_closed(now, stream, reason, out);
            }
            GossipInput::Join { join, addresses } => self.join(now, join, addresses, out),
            GossipInput::Leave => self.leave(now, out),
            GossipInput::SetMeta(meta) => self.set_meta(meta, out),
            GossipInput::Broadcast { class, key, payload, notify } => {
                self.broadcast(class, key, payload, notify, out);
            }
            GossipInput::SendUser { to, payload } => self.send_user(now, to, payload, out),
            GossipInput::SetAckPayload(payload) => self.ack_payload = Some(payload),
            GossipInput::UserState { exchange, payload } => {
                self.user_state(now, exchange, payload, out);
            }
            GossipInput::Key { ticket, operation } => {
                self.key_operation(now, ticket, operation, out)
            }
            GossipInput::KeyringPersisted(result) => self.keyring_persisted(result, out),
        }
        self.plan_round(now);
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        while let Some(timer) = self.timers.pop_due(now) {
            self.fire(now, timer, out);
            self.plan_round(now);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}
