//! Serf above gossip: Lamport clocks, intents, tags, reconnects, reaping.
//!
//! [`Serf`] turns what the membership protocol sees into members with a status, implementing
//! gossip-protocol.md §15 to §24. Each job has its file.
//!
//! Invariants: a member's status time never falls; every member known to gossip is known here; what
//! is remembered of others is bounded in number.
//!
//! Differs: a member that gossip saw leave on purpose is left at once, even if its farewell
//! overtook its leave intent (gossip-protocol.md §27, leave shown as failed).

mod answer;
mod coalesce;
mod conflict;
mod coordinate;
mod event;
mod filter;
mod intent;
mod keys;
mod lamport;
mod leave;
mod member;
mod members;
mod push_pull;
mod query;
mod reap;
mod recent;
mod request;
mod snapshot;
#[cfg(test)]
mod tests;
mod trace;

pub use answer::QueryId;
pub use coalesce::Coalescer;
pub use coordinate::Coordinates;
pub use event::EVENT_BYTES_MAX;
pub use keys::{KeyOperation, KeyReport, KeyResult};
pub use member::{Member, MemberStatus, ServerInfo};
pub use members::Members;
pub use query::{QueryHeard, QueryOutcome, RELAY_FACTOR_MAX};
pub use request::{QueryParameters, SerfRefusal, SerfReply, SerfRequest};
pub use trace::SerfTrace;

use crate::config::SerfConfig;
use crate::gossip::{BroadcastClass, BroadcastId, ExchangeId, JoinId, Peer};
use crate::id::{Incarnation, LamportTime, NodeName, PoolName, RequestId};
use crate::machine::{Machine, Outbox};
use crate::rng::{Rng, Seed, Stream};
use crate::storage::op::FileOp;
use crate::time::Instant;
use crate::timers::Timers;
use crate::trace::Level;
use crate::wire::serf::{MemberRecord, UserEvent, encode_tags};
use crate::wire::tags::Tags;
use answer::Pending;
use bytes::Bytes;
use imbl::OrdMap;
use intent::{EarlyIntents, IntentKind};
use lamport::LamportClock;
use leave::Life;
use members::Entry;
use push_pull::OwnState;
use query::{QueryKey, Running};
use reap::Rejoin;
use recent::Recent;
use snapshot::Snapshot;
pub use snapshot::snapshot_file;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Members known at most; the one gone longest makes room for another.
const MEMBERS_MAX: usize = 65_536;

/// How soon after its failure a member has to be back for that to be counted as flapping
/// (gossip-protocol.md §15).
const FLAP_TIME: Duration = Duration::from_secs(60);

/// What the Serf machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfInput {
    /// As in `GossipOutput`.
    Joined(Peer),
    /// As in `GossipOutput`.
    Gone {
        /// Who.
        name: NodeName,
        /// Whether it said so itself.
        left: bool,
    },
    /// As in `GossipOutput`.
    Updated(Peer),
    /// As in `GossipOutput`.
    OwnIncarnation(Incarnation),
    /// As in `GossipOutput`.
    UserMessage(Bytes),
    /// As in `GossipOutput`.
    RemoteUserState {
        /// The Serf push/pull message.
        payload: Bytes,
        /// Whether the exchange is a join.
        join: bool,
    },
    /// As in `GossipOutput`.
    ProbeAnswered {
        /// Who.
        peer: NodeName,
        /// The time between ping and ack.
        round_trip: Duration,
        /// What it added.
        payload: Bytes,
    },
    /// As in `GossipOutput`; answered by `SerfOutput::UserState`.
    WantUserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// Whether it is a join.
        join: bool,
    },
    /// Another member claims this name from another address.
    Conflict(NodeName),
    /// A join begins that takes no events from before it.
    JoinBegan(JoinId),
    /// A join through gossip succeeded: announce it.
    JoinedCluster,
    /// As in `GossipOutput`.
    JoinFinished {
        /// Which; the machine recognises its own.
        join: JoinId,
        /// How many addresses answered.
        contacted: usize,
    },
    /// As in `GossipOutput`.
    BroadcastSpread(BroadcastId),
    /// As in `GossipOutput`.
    LeaveSpread,
    /// Leave the cluster; answered by `SerfOutput::LeaveFinished`.
    Leave,
    /// Make a failed member leave.
    ForceLeave {
        /// Who.
        name: NodeName,
        /// Whether to forget it at once.
        prune: bool,
    },
    /// Somebody asks for something; answered by `SerfOutput::Reply`.
    Request {
        /// The answer names it.
        id: RequestId,
        /// What is asked.
        request: SerfRequest,
    },
    /// What became of a `SerfOutput::KeyOperation`.
    KeyResult {
        /// Which.
        query: QueryId,
        /// What.
        result: KeyResult,
    },
    /// A `Persist` failed: the snapshot is written anew later.
    PersistFailed,
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberEventKind {
    /// It is new or back.
    Join,
    /// It left on purpose.
    Leave,
    /// It stopped answering.
    Failed,
    /// Its tags, address or versions changed.
    Update,
    /// It is forgotten.
    Reap,
}

/// What subscribers are told: each member change, each user event and each query once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfEvent {
    /// Members changed: one for each change, until [`Coalescer`] merges them.
    Members {
        /// How.
        kind: MemberEventKind,
        /// The members after the change.
        members: Vec<Arc<Member>>,
    },
    /// A user event.
    User(UserEvent),
    /// A query for this member; answered by `SerfRequest::AnswerQuery`, or not at all.
    Query {
        /// The answer names it.
        query: QueryId,
        /// Query clock.
        time: LamportTime,
        /// What it is about.
        name: String,
        /// What is asked.
        payload: Bytes,
    },
}

/// What the Serf machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfOutput {
    /// Spread a message through gossip.
    Broadcast {
        /// Which queue.
        class: BroadcastClass,
        /// Replaces an earlier one with the same key.
        key: Option<String>,
        /// The whole Serf message.
        payload: Bytes,
        /// Whether to tell when it has spread.
        notify: Option<BroadcastId>,
    },
    /// The answer to `WantUserState`.
    UserState {
        /// Which exchange.
        exchange: ExchangeId,
        /// The Serf push/pull message.
        payload: Bytes,
    },
    /// Try to reach these addresses through gossip (reconnect, rejoin).
    Join {
        /// The answer names it.
        join: JoinId,
        /// Where to.
        addresses: Vec<SocketAddr>,
    },
    /// Tell gossip to announce the leave.
    GossipLeave,
    /// Tell gossip what acks carry from now on.
    SetAckPayload(Bytes),
    /// Tell gossip this member's new meta.
    SetMeta(Bytes),
    /// Send a Serf message to one address, on a stream if it is too large for a datagram.
    SendUser {
        /// Where to.
        to: SocketAddr,
        /// The whole Serf message.
        payload: Bytes,
    },
    /// Something that subscribers are told.
    Event(SerfEvent),
    /// The answer to a request.
    Reply {
        /// Which.
        id: RequestId,
        /// The answer.
        result: Result<SerfReply, SerfRefusal>,
    },
    /// A member said something to the query of a request, whose answer will repeat it.
    QueryHeard {
        /// Which request.
        id: RequestId,
        /// Who said what.
        heard: QueryHeard,
    },
    /// Do something with this member's keyring; answered by `SerfInput::KeyResult`.
    KeyOperation {
        /// The answer names it.
        query: QueryId,
        /// What.
        operation: KeyOperation,
    },
    /// Most members know another member of this name: this one must stop.
    NameLost {
        /// Members that know this one.
        matching: usize,
        /// Members that answered.
        total: usize,
        /// The other one, as they know it.
        other: Option<Box<MemberRecord>>,
    },
    /// The leave is complete.
    LeaveFinished,
    /// Write to the pool's snapshot (state lane).
    Persist(Vec<FileOp>),
    /// Something worth telling.
    Trace(Level, SerfTrace),
}

impl From<(Level, SerfTrace)> for SerfOutput {
    fn from((level, trace): (Level, SerfTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

/// What the machine waits for; at the same instant, earlier kinds fire first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A step of the leave takes too long, or the silence after it is over.
    LeaveStep,
    /// The members of an earlier run are tried.
    Rejoin,
    /// A query asked here is over.
    Query(LamportTime, u32),
    /// A failed member may be tried.
    Reconnect,
    /// Members gone for long are forgotten.
    Reap,
    /// The snapshot is written.
    Flush,
}

/// The Serf layer of one member.
#[derive(Clone, Debug)]
pub struct Serf {
    config: SerfConfig,
    local: NodeName,
    meta: Bytes,
    rng: Rng,
    timers: Timers<Timer>,
    started: Instant,
    members: OrdMap<NodeName, Entry>,
    version: u64,
    flaps: u64,
    /// The version in which every member was alive, if it was looked at.
    all_alive_in: Option<u64>,
    clock: LamportClock,
    event_clock: LamportClock,
    query_clock: LamportClock,
    early: EarlyIntents,
    own_state: OwnState,
    life: Life,
    snapshot: Snapshot,
    rejoin: Rejoin,
    reconnecting: Option<JoinId>,
    coordinates: Coordinates,
    /// Joins under way that take no events from before them.
    joins_ignoring_old: BTreeSet<JoinId>,
    /// User events heard lately: name and content.
    events: Recent<(String, Bytes)>,
    /// Numbers of queries heard lately.
    queries: Recent<u32>,
    /// Queries asked here that are not over.
    running: BTreeMap<QueryKey, Running>,
    /// Queries delivered here whose deadline has not passed.
    pending: BTreeMap<QueryId, Pending>,
    /// Queries delivered so far.
    delivered: u64,
    /// Joins asked for so far.
    joins: u64,
    /// Broadcasts waited for so far.
    broadcasts: u64,
}

impl Serf {
    /// The Serf layer of the member `local`, which says `tags` of itself.
    ///
    /// `snapshot` is the content of the pool's snapshot, if there is one: clocks go on from
    /// there, and the members it names are tried one after the other until one answers.
    ///
    /// Panics if `tags` take more than 512 bytes: a node's own tags are few and short.
    pub fn new(
        local: NodeName,
        tags: &BTreeMap<String, String>,
        config: &SerfConfig,
        snapshot: Option<&str>,
        seed: Seed,
        now: Instant,
        out: &mut Outbox<SerfOutput>,
    ) -> Self {
        let coordinates =
            Coordinates::new(config.coordinates.then(|| local.clone()), seed, config.pool);
        let snapshot = Snapshot::restore(snapshot.unwrap_or(""), config.rejoin_after_leave);
        let mut serf = Self {
            config: config.clone(),
            local,
            meta: encode_tags(tags).expect("a node's own tags are few and short"),
            rng: Rng::for_stream(
                seed,
                match config.pool {
                    PoolName::Lan => Stream::Serf,
                    PoolName::Wan => Stream::SerfWan,
                },
            ),
            timers: Timers::default(),
            started: now,
            members: OrdMap::new(),
            version: 0,
            flaps: 0,
            all_alive_in: None,
            clock: LamportClock::new(),
            event_clock: LamportClock::new(),
            query_clock: LamportClock::new(),
            early: EarlyIntents::default(),
            own_state: OwnState::default(),
            life: Life::Active,
            snapshot,
            rejoin: Rejoin::default(),
            reconnecting: None,
            coordinates,
            joins_ignoring_old: BTreeSet::new(),
            events: Recent::new(LamportTime::ZERO, event::RECENT_BYTES_MAX),
            queries: Recent::new(LamportTime::ZERO, answer::RECENT_BYTES_MAX),
            running: BTreeMap::new(),
            pending: BTreeMap::new(),
            delivered: 0,
            joins: 0,
            broadcasts: 0,
        };
        let [member, event, query] = serf.snapshot.times();
        // A time too far ahead is damage: the clock then begins anew, as without a file.
        serf.clock.witness(member);
        serf.event_clock.witness(event);
        serf.query_clock.witness(query);
        // What the earlier run heard is not heard again (gossip-wire.md §11.10).
        serf.events.skip_below(serf.event_clock.now());
        serf.queries.skip_below(serf.query_clock.now());
        serf.flush(out);
        serf.tell_coordinate(out);
        serf.timers.set(Timer::Reap, now + config.reap_interval);
        serf.timers.set(Timer::Reconnect, now + config.reconnect_interval);
        if !serf.snapshot.remembered(&serf.local).is_empty() {
            serf.timers.set(Timer::Rejoin, now);
        }
        serf
    }

    /// The incarnation under which this member was last known, if the snapshot tells.
    pub const fn last_incarnation(&self) -> Option<Incarnation> {
        self.snapshot.incarnation()
    }

    /// What this member says of itself, in the form gossip carries.
    pub fn meta(&self) -> Bytes {
        self.meta.clone()
    }

    /// Every member known, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|entry| &*entry.member)
    }

    /// Every member known at this moment, to keep.
    pub fn all_members(&self) -> Members {
        Members(self.members.clone())
    }

    /// What is known of `name`.
    pub fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.get(name).map(|entry| &*entry.member)
    }

    /// Counts the changes of `members`: as long as it stays, so do they.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How often members were back within a minute after they had failed.
    pub const fn flaps(&self) -> u64 {
        self.flaps
    }

    /// The member clock, for people.
    pub const fn member_time(&self) -> LamportTime {
        self.clock.now()
    }

    /// The event clock, for people.
    pub const fn event_time(&self) -> LamportTime {
        self.event_clock.now()
    }

    /// The query clock, for people.
    pub const fn query_time(&self) -> LamportTime {
        self.query_clock.now()
    }

    fn joined(&mut self, now: Instant, peer: Peer, out: &mut Outbox<SerfOutput>) {
        if !self.members.contains_key(&peer.name) && !self.make_room(&peer.name, out) {
            return;
        }
        let tags = self.tags(&peer, out);
        let Peer { name, address, versions, .. } = peer;
        let (mut status, mut status_time) = (MemberStatus::Alive, Default::default());
        let mut prune = false;
        if let Some(known) = self.members.get(&name) {
            status_time = known.member.status_time;
            let failed = known.member.status == MemberStatus::Failed;
            self.flaps += u64::from(failed && now.since(known.since) < FLAP_TIME);
        } else if let Some(early) = self.early.take(&name) {
            (status_time, prune) = (early.time, early.pruned);
            if early.kind == IntentKind::Leave {
                status = MemberStatus::Leaving;
            }
        }
        self.version += 1;
        self.snapshot.joined(&name, address);
        let member = Member { name: name.clone(), address, tags, status, status_time, versions };
        let member = Arc::new(member);
        let entry = Entry { member: Arc::clone(&member), since: now, prune };
        self.members.insert(name, entry);
        self.event(MemberEventKind::Join, member, out);
    }

    /// Whether one more member fits in, after the one gone longest made room if need be.
    fn make_room(&mut self, name: &NodeName, out: &mut Outbox<SerfOutput>) -> bool {
        if self.members.len() < MEMBERS_MAX {
            return true;
        }
        let gone = self.members.values().filter(|entry| entry.is_gone());
        let longest = gone.min_by_key(|entry| entry.since).map(|e| e.member.name.clone());
        match longest {
            Some(longest) => {
                self.erase(&longest, out);
                true
            }
            None => {
                let name = name.clone();
                crate::trace!(out, Level::Warn, SerfTrace::TooManyMembers { name });
                false
            }
        }
    }

    fn member_gone(
        &mut self,
        now: Instant,
        name: &NodeName,
        left: bool,
        out: &mut Outbox<SerfOutput>,
    ) {
        let Some(entry) = self.members.get_mut(name) else { return };
        let on_purpose = match entry.member.status {
            MemberStatus::Alive => left,
            MemberStatus::Leaving => true,
            MemberStatus::Left | MemberStatus::Failed => return,
        };
        let on_purpose = if crate::mutant!(M46) { !on_purpose } else { on_purpose };
        let (status, kind) = if on_purpose {
            (MemberStatus::Left, MemberEventKind::Leave)
        } else {
            (MemberStatus::Failed, MemberEventKind::Failed)
        };
        entry.member_mut().status = status;
        entry.since = now;
        self.version += 1;
        let member = Arc::clone(&entry.member);
        self.gone(kind, member, out);
        self.prune_if_wanted(now, name, out);
    }

    fn updated(&mut self, peer: Peer, out: &mut Outbox<SerfOutput>) {
        let tags = self.tags(&peer, out);
        let Some(entry) = self.members.get_mut(&peer.name) else { return };
        let member = entry.member_mut();
        (member.tags, member.address, member.versions) = (tags, peer.address, peer.versions);
        let member = Arc::clone(&entry.member);
        self.version += 1;
        self.snapshot.joined(&peer.name, peer.address);
        self.event(MemberEventKind::Update, member, out);
    }

    fn tags(&self, peer: &Peer, out: &mut Outbox<SerfOutput>) -> Tags {
        Tags::of_meta(&peer.meta).unwrap_or_else(|error| {
            let name = peer.name.clone();
            crate::trace!(out, Level::Warn, SerfTrace::BadTags { name, error });
            Tags::default()
        })
    }

    /// Tells what became of a member.
    fn event(&self, kind: MemberEventKind, member: Arc<Member>, out: &mut Outbox<SerfOutput>) {
        let (name, ip) = (member.name.clone(), member.address.ip());
        let event = match kind {
            MemberEventKind::Join => SerfTrace::MemberJoin { name, ip },
            MemberEventKind::Leave => SerfTrace::MemberLeave { name, ip },
            MemberEventKind::Failed => SerfTrace::MemberFailed { name, ip },
            MemberEventKind::Update => SerfTrace::MemberUpdate { name },
            MemberEventKind::Reap => SerfTrace::MemberReap { name },
        };
        // Every server is in its own WAN pool; the LAN pool has already said that it is there.
        let is_own = self.config.pool == PoolName::Wan && member.name == self.local;
        let level = if is_own { Level::Debug } else { Level::Info };
        crate::trace!(out, level, event);
        let members = vec![member];
        out.push(SerfOutput::Event(SerfEvent::Members { kind, members }));
    }

    fn force_leave(
        &mut self,
        now: Instant,
        node: NodeName,
        prune: bool,
        out: &mut Outbox<SerfOutput>,
    ) {
        let name = node.clone();
        let intent = self.announce_leave(now, node, prune, out);
        self.spread(name.as_str(), intent, None, out);
    }

    fn fire(&mut self, now: Instant, timer: Timer, out: &mut Outbox<SerfOutput>) {
        match timer {
            Timer::LeaveStep => self.leave_step(now, out),
            Timer::Rejoin => self.rejoin(out),
            Timer::Query(time, number) => self.query_over((time, number), out),
            Timer::Reconnect => self.reconnect(now, out),
            Timer::Reap => self.reap(now, out),
            Timer::Flush => self.flush(out),
        }
    }
}

impl Machine for Serf {
    type Input = SerfInput;
    type Output = SerfOutput;

    fn handle(&mut self, now: Instant, input: SerfInput, out: &mut Outbox<SerfOutput>) {
        match input {
            SerfInput::Joined(peer) => self.joined(now, peer, out),
            SerfInput::Gone { name, left } => self.member_gone(now, &name, left, out),
            SerfInput::Updated(peer) => self.updated(peer, out),
            SerfInput::OwnIncarnation(incarnation) => self.snapshot.rose(incarnation),
            SerfInput::UserMessage(bytes) => self.message(now, bytes, out),
            SerfInput::RemoteUserState { payload, join } => self.merge(now, &payload, join, out),
            SerfInput::ProbeAnswered { peer, round_trip, payload } => {
                self.probe_answered(peer, round_trip, &payload, out);
            }
            SerfInput::WantUserState { exchange, join: _ } => {
                let payload = self.own_state().payload.clone();
                out.push(SerfOutput::UserState { exchange, payload });
            }
            SerfInput::Conflict(name) => self.conflict(now, &name, out),
            SerfInput::JoinBegan(join) => {
                self.joins_ignoring_old.insert(join);
            }
            SerfInput::JoinedCluster => {
                if self.is_active() {
                    self.announce_join(now, out);
                }
            }
            SerfInput::JoinFinished { join, contacted } => {
                self.join_finished(now, join, contacted, out);
            }
            SerfInput::BroadcastSpread(id) => self.broadcast_spread(now, id, out),
            SerfInput::LeaveSpread => self.leave_spread(now, out),
            SerfInput::Leave => self.leave(now, out),
            SerfInput::ForceLeave { name, prune } => self.force_leave(now, name, prune, out),
            SerfInput::Request { id, request } => self.request(now, id, request, out),
            SerfInput::KeyResult { query, result } => self.key_result(now, query, result, out),
            SerfInput::PersistFailed => {
                let file = snapshot_file(self.config.pool);
                crate::trace!(out, Level::Error, SerfTrace::SnapshotFailed { file });
                self.snapshot.failed();
                self.timers.set(Timer::Flush, now + snapshot::RETRY_INTERVAL);
            }
        }
        self.plan_flush(now);
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        while let Some(timer) = self.timers.pop_due(now) {
            self.fire(now, timer, out);
        }
        self.plan_flush(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}
