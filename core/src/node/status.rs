//! Numbers about this agent for whoever measures it: what the published view does not show.
//!
//! Counters only grow and belong to this run; durations do likewise. Whoever wants rates takes the
//! status at times of their own and compares.

use super::Node;
use super::pool::Pool;
use crate::catalog::command::Command;
use crate::durations::Durations;
use crate::gossip::GossipStats;
use crate::id::RequestId;
use crate::node::request::Response;
use crate::raft::{LeaderStats, RaftStats, RoleKind};
use crate::reconcile::DutyTimes;
use crate::rpc::RpcStats;
use crate::serf::{MemberEventKind, SerfEvent};
use crate::time::Instant;
use std::time::Duration;

/// Plain counters of an agent; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs handled.
    pub inputs: u64,
    /// Datagrams handed out.
    pub datagrams_sent: u64,
    /// Views published.
    pub views_published: u64,
    /// Entries applied.
    pub entries_applied: u64,
    /// Requests refused because a limit was reached.
    pub requests_refused: u64,
    /// Members of the LAN pool that were new or back.
    pub members_joined: u64,
    /// Members of the LAN pool that left on purpose.
    pub members_left: u64,
    /// Members of the LAN pool that stopped answering.
    pub members_failed: u64,
    /// User events of the LAN pool.
    pub user_events: u64,
    /// Times this server began to follow, to be a candidate, and to lead.
    pub roles_taken: RolesTaken,
    /// Reads that this server was to answer.
    pub reads: u64,
    /// Sessions that were ended because nobody renewed them.
    pub sessions_expired: u64,
}

impl Stats {
    /// Counts what the Serf layer of the LAN pool delivers.
    pub(super) fn count_event(&mut self, event: &SerfEvent) {
        match event {
            SerfEvent::Members { kind, members } => {
                let count = members.len() as u64;
                match kind {
                    MemberEventKind::Join => self.members_joined += count,
                    MemberEventKind::Leave => self.members_left += count,
                    MemberEventKind::Failed => self.members_failed += count,
                    MemberEventKind::Update | MemberEventKind::Reap => {}
                }
            }
            SerfEvent::User(_) => self.user_events += 1,
            SerfEvent::Query { .. } => {}
        }
    }

    /// Counts what leader duties propose.
    pub(super) const fn count_duty(&mut self, command: &Command) {
        if let Command::EndSessions(sessions) = command {
            self.sessions_expired += sessions.len() as u64;
        }
    }
}

/// How often a server took each role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolesTaken {
    /// See [`RoleKind::Follower`].
    pub follower: u64,
    /// See [`RoleKind::Candidate`].
    pub candidate: u64,
    /// See [`RoleKind::Leader`].
    pub leader: u64,
    /// The role it has.
    current: Option<RoleKind>,
}

impl RolesTaken {
    /// Counts a role, if it is not the one that the server has already.
    pub(super) fn count(&mut self, role: RoleKind) {
        if self.current.replace(role) == Some(role) {
            return;
        }
        match role {
            RoleKind::Follower => self.follower += 1,
            RoleKind::Candidate => self.candidate += 1,
            RoleKind::Leader => self.leader += 1,
        }
    }
}

/// What a write was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteKind {
    Register,
    Deregister,
    Kv,
    Transaction,
    Session,
    Other,
}

impl WriteKind {
    pub(super) const fn of(command: &Command) -> Self {
        match command {
            Command::Register(_) => Self::Register,
            Command::Deregister(_) => Self::Deregister,
            Command::Kv(_) => Self::Kv,
            Command::Transaction(_) => Self::Transaction,
            Command::CreateSession(_) | Command::EndSessions(_) => Self::Session,
            Command::Coordinates(_)
            | Command::ReapTombstones(_)
            | Command::RestoreBlock(_)
            | Command::RestoreCommit(_)
            | Command::RestoreAbort(_)
            | Command::Autopilot(_)
            | Command::Prepared(_)
            | Command::EndLockDelays(_) => Self::Other,
        }
    }
}

/// How long this server's writes took, from the proposal until they were applied here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteTimes {
    /// All proposals, those of leader duties among them.
    pub all: Durations,
    /// Registrations in the catalog.
    pub register: Durations,
    /// Removals from the catalog.
    pub deregister: Durations,
    /// Changes of keys.
    pub kv: Durations,
    /// Transactions.
    pub transaction: Durations,
    /// Sessions that began or were ended on request.
    pub session: Durations,
}

impl WriteTimes {
    /// Counts a write that took so long.
    pub(super) fn record(&mut self, kind: WriteKind, took: Duration) {
        match kind {
            WriteKind::Register => self.register.record(took),
            WriteKind::Deregister => self.deregister.record(took),
            WriteKind::Kv => self.kv.record(took),
            WriteKind::Transaction => self.transaction.record(took),
            WriteKind::Session => self.session.record(took),
            WriteKind::Other => {}
        }
    }
}

/// Gossip in one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// How much this member distrusts itself (Lifeguard); 0 is well.
    pub health_score: u32,
    /// Messages, parts of datagrams and streams without effect.
    pub dropped: u64,
    /// Facts about members that are still to be spread.
    pub facts_queued: usize,
    /// Intents that are still to be spread.
    pub intents_queued: usize,
    /// Queries that are still to be spread.
    pub queries_queued: usize,
    /// User events that are still to be spread.
    pub events_queued: usize,
    /// What happened so far.
    pub stats: GossipStats,
    /// How often members were back within a minute after they had failed.
    pub flaps: u64,
}

/// How the servers do, in short; their leader alone knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderStatus {
    /// Whether all are healthy.
    pub healthy: bool,
    /// Voters that may fail before the others stop.
    pub failure_tolerance: u64,
    /// How long ago each other server of the configuration was heard of.
    pub contacts: Vec<Duration>,
    /// Sessions that end unless somebody renews them.
    pub sessions_timed: usize,
}

/// What a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Counters of consensus.
    pub raft: RaftStats,
    /// On the leader, how the others do.
    pub leader: Option<LeaderStatus>,
    /// Bytes of the log's files.
    pub log_bytes: u64,
    /// Bytes of the newest snapshot that was stored in this run; `None` without one.
    pub snapshot_bytes: Option<u64>,
    /// How long it took until snapshots taken here were durable.
    pub snapshots: Durations,
    /// How long other datacenters took that were asked for a prepared query.
    pub executions: Durations,
    /// Reads that wait for a change.
    pub reads_waiting: usize,
    /// Proposals to consensus so far.
    pub proposals: u64,
    /// How long writes took.
    pub writes: WriteTimes,
    /// What consensus did while this server led.
    pub leading: LeaderStats,
    /// How long the duties of a leader took.
    pub duties: DutyTimes,
}

/// The numbers of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Counters of the node.
    pub stats: Stats,
    /// Counters of requests between agents.
    pub rpc: RpcStats,
    /// The LAN pool.
    pub lan: PoolStatus,
    /// The WAN pool; `None` on an agent that is not in it.
    pub wan: Option<PoolStatus>,
    /// On servers.
    pub server: Option<ServerStatus>,
}

impl Node {
    /// Answers a request for the numbers of this moment.
    pub(super) fn tell_status(&mut self, now: Instant, id: RequestId) {
        let status = self.status(now);
        self.answer(id, Ok(Response::Status(Box::new(status))));
    }

    fn status(&mut self, now: Instant) -> NodeStatus {
        let leader = self.leader_status(now);
        let server = self.server.as_deref().map(|server| ServerStatus {
            raft: *server.raft.stats(),
            leader,
            log_bytes: server.wal.bytes(),
            snapshot_bytes: server.snapshots.bytes(),
            snapshots: server.snapshots.times().clone(),
            executions: server.executions.times().clone(),
            reads_waiting: server.watches.len(),
            proposals: server.serving.proposals(),
            writes: server.serving.times().clone(),
            leading: server.raft.leading().clone(),
            duties: server.reconcile.times().clone(),
        });
        NodeStatus {
            stats: self.stats,
            rpc: *self.rpc.stats(),
            lan: pool_status(&self.lan),
            wan: self.wan.as_deref().map(pool_status),
            server,
        }
    }

    fn leader_status(&mut self, now: Instant) -> Option<LeaderStatus> {
        let leads = self.raft().is_some_and(|raft| raft.role() == RoleKind::Leader);
        let health = self.with_reconcile(now, |duties, world, _| duties.health(now, &world));
        let health = health.filter(|_| leads)?;
        let others = health.servers.iter().filter(|server| !server.leader);
        let timed = self.server.as_deref().map(|server| server.reconcile.sessions_timed());
        Some(LeaderStatus {
            healthy: health.servers.iter().all(|server| server.healthy),
            failure_tolerance: health.failure_tolerance,
            contacts: others.map(|server| server.last_contact).collect(),
            sessions_timed: timed.unwrap_or_default(),
        })
    }
}

fn pool_status(Pool { gossip, serf, .. }: &Pool) -> PoolStatus {
    let [facts_queued, intents_queued, queries_queued, events_queued] = gossip.queued();
    PoolStatus {
        health_score: gossip.health_score(),
        dropped: gossip.dropped(),
        facts_queued,
        intents_queued,
        queries_queued,
        events_queued,
        stats: gossip.stats().clone(),
        flaps: serf.flaps(),
    }
}
