//! One agent: input in, outputs out.
//!
//! [`Node`] composes the machines of this crate. It is driven by two calls: [`Node::handle`] takes
//! one input to completion, [`Node::poll_output`] hands out what is wanted, oldest first. The
//! host's duties are to perform outputs in their order and to report completions with the number
//! the output carried; what must wait for durability is held back here.
//!
//! All routing between machines is in [`settle`](self), in one direction.

mod backups;
mod events;
mod info;
pub mod input;
mod keys;
mod leave;
mod member_lines;
mod operator;
pub mod output;
mod pool;
mod prepared;
mod publish;
mod reads;
pub mod request;
mod requests;
mod room;
mod serf_requests;
mod serve;
mod server;
mod settle;
mod snapshots;
mod status;
mod trace;
mod wan;
mod writes;

pub use status::{
    LeaderStatus, NodeStatus, PoolStatus, RolesTaken, ServerStatus, Stats, WriteTimes,
};
pub use trace::NodeTrace;

use crate::anti_entropy::{self, AntiEntropy, AntiEntropyOutput};
use crate::checks::{Checks, ChecksOutput};
use crate::config::{ConfigError, NodeConfig};
use crate::event::Events;
use crate::gossip::Gossip;
use crate::id::{NodeId, NodeName, PoolName, RequestId};
use crate::local::{Local, LocalConfig, LocalOutput};
use crate::machine::{Machine, Outbox, give_back};
use crate::raft::bootstrap::BootstrapOutput;
use crate::raft::{Raft, RaftOutput};
use crate::reconcile::ReconcileOutput;
use crate::rng::{Rng, Seed, Stream};
use crate::rpc::{Rpc, RpcConfig, RpcOutput};
use crate::serf::{Coalescer, Member, Serf, ServerInfo};
use crate::storage::recovery::Restored;
use crate::storage::registrations::RegistrationLog;
use crate::time::{Instant, WallClock};
use crate::trace::{Level, TraceEvent, TraceKind};
use input::Input;
use output::{Output, StopReason};
use pool::Pool;
use request::RequestError;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The outboxes of all machines above the pools, in the order of the pipeline.
#[derive(Clone, Debug)]
struct Outboxes {
    bootstrap: Outbox<BootstrapOutput>,
    raft: Outbox<RaftOutput>,
    reconcile: Outbox<ReconcileOutput>,
    local: Outbox<LocalOutput>,
    checks: Outbox<ChecksOutput>,
    anti_entropy: Outbox<AntiEntropyOutput>,
    rpc: Outbox<RpcOutput>,
}

impl Outboxes {
    fn new(level: Level) -> Self {
        Self {
            bootstrap: Outbox::new(level),
            raft: Outbox::new(level),
            reconcile: Outbox::new(level),
            local: Outbox::new(level),
            checks: Outbox::new(level),
            anti_entropy: Outbox::new(level),
            rpc: Outbox::new(level),
        }
    }

    fn set_level(&mut self, level: Level) {
        self.bootstrap.set_level(level);
        self.raft.set_level(level);
        self.reconcile.set_level(level);
        self.local.set_level(level);
        self.checks.set_level(level);
        self.anti_entropy.set_level(level);
        self.rpc.set_level(level);
    }
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Node {
    config: NodeConfig,
    id: NodeId,
    lan: Pool,
    /// Set on servers that take part in the WAN pool.
    wan: Option<Box<Pool>>,
    rpc: Rpc,
    local: Local,
    checks: Checks,
    anti_entropy: AntiEntropy,
    /// Set on servers.
    server: Option<Box<server::ServerParts>>,
    registrations: RegistrationLog,
    events: Events,
    coalescer: Coalescer,
    boxes: Outboxes,
    member_lines: member_lines::MemberLines,
    writes: writes::Writes,
    waiting: requests::Waiting,
    lifecycle: leave::Lifecycle,
    publisher: publish::Publisher,
    /// What the WAN pool shows; without that pool, only this datacenter.
    wan_state: wan::WanState,
    /// The servers of this datacenter that gossip shows alive.
    servers: BTreeMap<NodeName, ServerInfo>,
    /// Whether this server leads, as readers were last told.
    leads: bool,
    /// Who leads, as the other machines were last told.
    leader: Option<(NodeId, SocketAddr)>,
    /// Whether construction is over: before that, members are not told of.
    started: bool,
    /// The level of traces that monitors want.
    monitored: Option<Level>,
    out: VecDeque<Output>,
    stats: Stats,
    last_now: Instant,
}

/// The deadline of a node by the machine that wants it. Of two at the same time, the one that
/// comes first here is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerName {
    /// Membership in a pool.
    Gossip(PoolName),
    /// Serf in a pool.
    Serf(PoolName),
    /// Events held back to be merged.
    Events,
    /// Requests between agents.
    Rpc,
    /// Check schedules.
    Checks,
    /// Anti-entropy.
    AntiEntropy,
    /// The first configuration.
    Bootstrap,
    /// Consensus.
    Raft,
    /// Leader duties.
    Reconcile,
    /// Reads that wait for a change.
    Watches,
    /// Backups that nobody reads on.
    Backups,
    /// Space for the log on a full disk.
    Room,
    /// The search for servers that the WAN pool lacks.
    Flood,
    /// A leave under way.
    Leave,
    /// Lines about members that were left out.
    MemberLines,
}

impl Node {
    /// Makes an agent of its settings and of what its disk holds.
    ///
    /// `seed` is the only randomness it will ever get; `wall` decides which persisted check states
    /// and which retired keys have expired.
    ///
    /// - Errors: settings that contradict each other; nothing was started.
    pub fn new(
        config: NodeConfig,
        restored: Restored,
        seed: Seed,
        wall: WallClock,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let mut boxes = Outboxes::new(config.level);
        let id = restored.node_id;
        let own = anti_entropy::own_node(&config, id);
        let local_config = LocalConfig {
            node: config.name.clone(),
            services: config.services.clone(),
            checks: config.checks.clone(),
            restored: restored.registrations.registrations().clone(),
            output: config.check_output,
            wall,
        };
        let lan = Pool::lan(&config, id, restored.lan, (seed, wall, now))?;
        let (wan, server) = match restored.server {
            Some(server) => (
                Pool::wan(&config, id, server.wan, (seed, wall, now))?,
                Some((server.raft, server.wal, (server.tables, server.snapshots))),
            ),
            None => (None, None),
        };
        let local = Local::new(local_config, &mut boxes.local)?;
        let rpc = Rpc::new(rpc_config(&config, id), Rng::for_stream(seed, Stream::Rpc), now);
        let anti_entropy =
            AntiEntropy::new(own, local.view().clone(), config.check_update_interval, seed, now);
        let mut node = Self {
            id,
            lan,
            wan: wan.map(Box::new),
            rpc,
            local,
            checks: Checks::new(seed),
            anti_entropy,
            server: None,
            registrations: restored.registrations,
            events: Events::new(Rng::for_stream(seed, Stream::Event)),
            coalescer: Coalescer::default(),
            boxes,
            member_lines: member_lines::MemberLines::default(),
            writes: writes::Writes::default(),
            waiting: requests::Waiting::default(),
            lifecycle: leave::Lifecycle::Running,
            publisher: publish::Publisher::default(),
            wan_state: wan::WanState::new(&config.datacenter, now),
            servers: BTreeMap::new(),
            leads: false,
            leader: None,
            started: false,
            monitored: None,
            out: VecDeque::new(),
            stats: Stats::default(),
            last_now: now,
            config,
        };
        for note in restored.notes {
            node.trace(Level::Warn, NodeTrace::Recovered(note.to_string()));
        }
        // Membership first: the founding page has the own member join before consensus starts.
        node.settle(now);
        if let Some(server) = server {
            node.start_server(now, server, seed);
            node.settle(now);
        }
        node.started = true;
        for member in node.lan.serf.all_members().iter() {
            node.member_changed(now, member);
        }
        node.wan_changed(now);
        node.settle(now);
        // The first synchronisation is tried at once, whether there is a leader or not.
        node.anti_entropy.handle_timeout(now, &mut node.boxes.anti_entropy);
        node.settle(now);
        Ok(node)
    }

    /// Takes one input to completion. Never fails: bad bytes are counted and traced, bad requests
    /// are answered.
    ///
    /// Panics if `now` is earlier than in the previous call, which is the host's bug.
    pub fn handle(&mut self, now: Instant, input: Input) {
        assert!(
            now >= self.last_now,
            "the host's clock went back from {:?} to {now:?}",
            self.last_now
        );
        self.last_now = now;
        if self.lifecycle.is_stopped() {
            if let Input::Request { id, .. } = input {
                self.reply(id, Err(RequestError::Stopping));
            }
            return;
        }
        self.stats.inputs += 1;
        self.route_input(now, input);
        self.settle(now);
    }

    /// Takes the next thing to perform, oldest first. A drain begins with the new view if anything
    /// a reader may see has changed, so no reply overtakes the view that shows it.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(view) = self.view_to_publish() {
            self.stats.views_published += 1;
            return Some(Output::Publish(view));
        }
        let output = self.out.pop_front();
        give_back(&mut self.out);
        self.publisher.draining(output.is_some());
        output
    }

    /// How many outputs wait; a drain begins with a new view besides, if one is due.
    pub fn outputs_waiting(&self) -> usize {
        self.out.len()
    }

    /// When `Input::Timeout` is wanted next, and by whom.
    pub fn next_timeout(&self) -> Option<(Instant, TimerName)> {
        if self.lifecycle.is_stopped() {
            return None;
        }
        let (server, wan) = (self.server.as_deref(), self.wan.as_deref());
        let mut first = None;
        // One by one: as an array to iterate over, this took a tenth of the simulator's time.
        let mut wants = |at: Option<Instant>, name| {
            if let Some(at) = at
                && first.is_none_or(|(earliest, _)| at < earliest)
            {
                first = Some((at, name));
            }
        };
        wants(self.lan.gossip.next_timeout(), TimerName::Gossip(PoolName::Lan));
        wants(wan.and_then(|wan| wan.gossip.next_timeout()), TimerName::Gossip(PoolName::Wan));
        wants(self.lan.serf.next_timeout(), TimerName::Serf(PoolName::Lan));
        wants(wan.and_then(|wan| wan.serf.next_timeout()), TimerName::Serf(PoolName::Wan));
        wants(self.coalescer.next_timeout(), TimerName::Events);
        wants(self.rpc.next_timeout(), TimerName::Rpc);
        wants(self.checks.next_timeout(), TimerName::Checks);
        wants(self.anti_entropy.next_timeout(), TimerName::AntiEntropy);
        if let Some(server) = server {
            wants(server.bootstrap.next_timeout(), TimerName::Bootstrap);
            wants(server.raft.next_timeout(), TimerName::Raft);
            wants(server.reconcile.next_timeout(), TimerName::Reconcile);
            wants(server.watches.next_timeout(), TimerName::Watches);
            wants(server.backups.next_timeout(), TimerName::Backups);
            wants(server.room.next_timeout(), TimerName::Room);
        }
        wants(wan.map(|_| self.wan_state.flood_at), TimerName::Flood);
        wants(self.lifecycle.deadline(), TimerName::Leave);
        wants(self.member_lines.next_timeout(), TimerName::MemberLines);
        first
    }

    /// Counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// This agent's identity.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// This agent's name.
    pub const fn name(&self) -> &NodeName {
        &self.config.name
    }

    /// All known members of the LAN pool, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.lan.serf.members()
    }

    /// The Serf layer of the LAN pool, for checkers.
    pub const fn serf(&self) -> &Serf {
        &self.lan.serf
    }

    /// Membership in the LAN pool, for checkers.
    pub const fn gossip(&self) -> &Gossip {
        &self.lan.gossip
    }

    /// All known members of the WAN pool, by name; none on an agent that is not in it.
    pub fn wan_members(&self) -> impl Iterator<Item = &Member> {
        self.wan.iter().flat_map(|wan| wan.serf.members())
    }

    /// What is registered here, for checkers.
    pub const fn local(&self) -> &Local {
        &self.local
    }

    /// Consensus, for checkers; `None` on clients.
    pub fn raft(&self) -> Option<&Raft> {
        self.server.as_deref().map(|server| &server.raft)
    }

    /// The catalog, for checkers; `None` on clients.
    pub fn tables(&self) -> Option<&crate::catalog::Tables> {
        self.server.as_deref().map(|server| &server.tables)
    }

    /// Reads that wait here, for checkers; `None` on clients.
    pub fn watches(&self) -> Option<&crate::watch::Watches> {
        self.server.as_deref().map(|server| &server.watches)
    }

    /// Fires every timer that is due.
    fn fire_timers(&mut self, now: Instant) {
        self.lan.handle_timeout(now);
        if let Some(wan) = self.wan.as_deref_mut() {
            wan.handle_timeout(now);
        }
        let boxes = &mut self.boxes;
        let events = self.coalescer.handle_timeout(now);
        self.out.extend(events.into_iter().map(Output::Event));
        self.rpc.handle_timeout(now, &mut boxes.rpc);
        self.checks.handle_timeout(now, &mut boxes.checks);
        self.anti_entropy.handle_timeout(now, &mut boxes.anti_entropy);
        if let Some(server) = self.server.as_deref_mut() {
            server.bootstrap.handle_timeout(now, &mut boxes.bootstrap);
            server.raft.handle_timeout(now, &mut boxes.raft);
            server.backups.handle_timeout(now);
        }
        self.room_timeout(now);
        self.reconcile_timeout(now);
        self.reads_due(now);
        self.flood_timeout(now);
        self.leave_timeout(now);
        self.end_member_lines(now);
    }

    fn trace(&mut self, level: Level, trace: NodeTrace) {
        self.emit(level, TraceKind::Node(trace));
    }

    fn emit(&mut self, level: Level, kind: TraceKind) {
        if self.boxes.rpc.wants(level) {
            self.out.push_back(Output::Trace(TraceEvent { level, kind }));
        }
    }

    fn reply(&mut self, id: RequestId, result: Result<request::Response, RequestError>) {
        self.out.push_back(Output::Reply { id, result });
    }

    /// Ends the node. Everything that waits is answered; nothing is handled after it.
    ///
    /// What waits may have been sent to a server already and may still take effect there, so its
    /// outcome is unknown; `Stopping` would promise that nothing happened.
    fn stop(&mut self, reason: StopReason) {
        for id in self.waiting.take_all() {
            let text = "the agent stopped before the outcome was known".to_owned();
            self.reply(id, Err(RequestError::Unknown(text)));
        }
        self.lifecycle = leave::Lifecycle::Stopped;
        self.out.push_back(Output::Stopped(reason));
    }
}

fn rpc_config(config: &NodeConfig, id: NodeId) -> RpcConfig {
    RpcConfig {
        id,
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        server: config.server.is_some(),
        wan: config.wan().is_some(),
        hold: config.rpc_hold,
        handshake: config.server.as_ref().and_then(|server| server.handshake),
        rate: config.rpc_rate,
    }
}

/// How long a stopping step may take before the next one is taken all the same.
const LEAVE_STEP: Duration = Duration::from_secs(5);

type Pending<K> = BTreeMap<K, RequestId>;

#[cfg(test)]
mod tests;
