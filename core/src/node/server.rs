//! What only a server has: consensus, the catalog, leader duties, and their files.

use super::backups::Backups;
use super::prepared::Executions;
use super::room::Room;
use super::serve::Serving;
use super::snapshots::Snapshots;
use super::{Node, NodeTrace};
use crate::anti_entropy::AntiEntropyInput;
use crate::catalog::Tables;
use crate::catalog::command::{Applied, ApplyError, Command};
use crate::config::{Bootstrap, NodeConfig};
use crate::id::{LogIndex, NodeId, PoolName};
use crate::machine::{Machine as _, Outbox};
use crate::raft::bootstrap::{Bootstrap as BootstrapMachine, BootstrapInput, BootstrapSettings};
use crate::raft::{Entry, EntryKind, Raft, RaftInput, RaftSettings, RestoredRaft, Timing};
use crate::reconcile::{Reconcile, ReconcileInput, ReconcileOutput, ReconcileSettings, World};
use crate::rng::{Rng, Seed, Stream};
use crate::rpc::RpcInput;
use crate::serf::{Member, MemberStatus, ServerInfo};
use crate::storage::snapshot::SnapshotFiles;
use crate::storage::wal::Wal;
use crate::time::Instant;
use crate::trace::Level;
use crate::watch::Watches;
use std::collections::BTreeMap;

/// The level of Consul's interface that tags and service metadata announce.
pub(super) const API_VERSION: &str = "1.8.7";

/// What the catalog made of a command.
pub(super) type ApplyResult = Result<Applied, ApplyError>;

/// The parts of a server.
#[derive(Clone, Debug)]
pub(super) struct ServerParts {
    pub(super) raft: Raft,
    pub(super) bootstrap: BootstrapMachine,
    pub(super) reconcile: Reconcile,
    pub(super) tables: Tables,
    pub(super) snapshots: Snapshots,
    pub(super) serving: Serving,
    /// Backups that are being read.
    pub(super) backups: Backups,
    /// Reads that wait for a change.
    pub(super) watches: Watches,
    /// Whether something was applied since the last look at them.
    pub(super) changed: bool,
    /// Prepared queries that other datacenters are asked about.
    pub(super) executions: Executions,
    /// How much longer than asked reads wait, and the order of what prepared queries find.
    pub(super) rng: Rng,
    pub(super) wal: Wal,
    pub(super) room: Room,
    /// What became of the commands of this round that were not simply done, by position.
    outcomes: BTreeMap<LogIndex, ApplyResult>,
}

impl ServerParts {
    /// What became of the command at `index`, applied in this round.
    pub(super) fn take_outcome(&mut self, index: LogIndex) -> ApplyResult {
        self.outcomes.remove(&index).unwrap_or(Ok(Applied::Done))
    }
}

/// The tags this agent announces in a pool, in the order of DESIGN.md §8 where order shows.
pub(super) fn own_tags(
    config: &NodeConfig,
    id: NodeId,
    pool: PoolName,
) -> BTreeMap<String, String> {
    let mut tags: BTreeMap<String, String> = [
        ("dc", config.datacenter.to_string()),
        ("vsn", "1".to_owned()),
        ("vsn_min", "1".to_owned()),
        ("vsn_max", "1".to_owned()),
        ("id", id.to_string()),
        ("build", API_VERSION.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let mut tag = |key: &str, value: String| tags.insert(key.to_owned(), value);
    match &config.server {
        None => {
            tag("role", "node".to_owned());
        }
        Some(server) => {
            tag("role", "terraform".to_owned());
            tag("port", config.server_port.to_string());
            tag("raft_vsn", "3".to_owned());
            if !server.votes {
                tag("nonvoter", "1".to_owned());
            }
            if let (PoolName::Lan, Some(wan)) = (pool, &server.wan) {
                tag("wan_join_port", wan.port.to_string());
            }
            match server.bootstrap {
                Bootstrap::Alone => tag("bootstrap", "1".to_owned()),
                Bootstrap::Expect(expect) => tag("expect", expect.to_string()),
                Bootstrap::Join => None,
            };
        }
    }
    tags
}

impl Node {
    /// Starts consensus from what the disk holds.
    pub(super) fn start_server(
        &mut self,
        now: Instant,
        (restored, wal, (tables, files)): (RestoredRaft, Wal, (Tables, SnapshotFiles)),
        seed: Seed,
    ) {
        let Some(config) = &self.config.server else {
            return;
        };
        let address = self.config.server_address();
        let settings = RaftSettings {
            id: self.id,
            address,
            timing: Timing::scaled(config.raft_multiplier),
            limits: config.limits,
        };
        let mode = config.bootstrap;
        let bootstrap_settings =
            BootstrapSettings { id: self.id, address, mode, votes: config.votes };
        let settings_of_duties = ReconcileSettings {
            autopilot: config.autopilot,
            dead_server_grace: config.dead_server_grace,
            tombstone_time: config.tombstone_time,
        };
        let boxes = &mut self.boxes;
        let bootstrap = BootstrapMachine::new(
            bootstrap_settings,
            &restored,
            Rng::for_stream(seed, Stream::Bootstrap),
            now,
            &mut boxes.bootstrap,
        );
        let raft = Raft::new(
            settings,
            restored,
            Rng::for_stream(seed, Stream::Raft),
            now,
            &mut boxes.raft,
        );
        let reconcile = Reconcile::new(self.config.name.clone(), self.id, settings_of_duties, seed);
        self.server = Some(Box::new(ServerParts {
            raft,
            bootstrap,
            reconcile,
            tables,
            snapshots: Snapshots::new(files),
            serving: Serving::default(),
            executions: Executions::default(),
            backups: Backups::default(),
            watches: Watches::default(),
            changed: false,
            rng: Rng::for_stream(seed, Stream::Watch),
            wal,
            room: Room::default(),
            outcomes: BTreeMap::new(),
        }));
        self.prepare_log(now);
        self.set_space_aside(0);
    }

    /// Applies committed entries to the catalog, in order.
    pub(super) fn apply(&mut self, now: Instant, entries: Vec<Entry>) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let mut unreadable = Vec::new();
        let mut applied = LogIndex::ZERO;
        for entry in entries {
            applied = entry.index;
            self.stats.entries_applied += 1;
            match entry.kind {
                EntryKind::Noop | EntryKind::Config => continue,
                EntryKind::Command => {}
            }
            let result = Command::decode(&entry.payload)
                .map_err(ApplyError::Unreadable)
                .and_then(|command| server.tables.apply(entry.index, command));
            if let Err(error @ ApplyError::Unreadable(_)) = &result {
                unreadable.push(format!("index {}: {error}", entry.index));
            }
            server.changed = true;
            if result != Ok(Applied::Done) {
                server.outcomes.insert(entry.index, result);
            }
        }
        let misses = server.reconcile.misses_sessions(&server.tables);
        let misses_checks = server.reconcile.misses_checks(&server.tables);
        server.raft.handle(now, RaftInput::Applied { index: applied }, &mut self.boxes.raft);
        if misses {
            self.tell_reconcile(now, ReconcileInput::SessionsChanged);
        }
        if misses_checks {
            self.with_reconcile(now, |duties, world, _| duties.look_at_checks(now, &world));
        }
        for error in unreadable {
            self.trace(Level::Error, NodeTrace::UnreadableEntry(error));
        }
    }

    /// Leader duties hear of something, with members, catalog and configuration to look at.
    pub(super) fn tell_reconcile(&mut self, now: Instant, input: ReconcileInput) {
        self.with_reconcile(now, |reconcile, world, out| reconcile.handle(now, input, world, out));
    }

    /// Fires the leader duties that are due.
    pub(super) fn reconcile_timeout(&mut self, now: Instant) {
        let next = self.server.as_deref().and_then(|server| server.reconcile.next_timeout());
        if next.is_some_and(|at| at <= now) {
            self.with_reconcile(now, |reconcile, world, out| {
                reconcile.handle_timeout(now, world, out);
            });
        }
    }

    pub(super) fn with_reconcile<R>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Reconcile, World<'_>, &mut Outbox<ReconcileOutput>) -> R,
    ) -> Option<R> {
        let members = self.lan.serf.all_members();
        let server = self.server.as_deref_mut()?;
        let world = World {
            replication: &server.raft.replication(now),
            datacenter: &self.config.datacenter,
            tables: &server.tables,
            members: &members,
            configuration: server.raft.configuration(),
            coordinates: self.lan.serf.coordinates(),
        };
        Some(act(&mut server.reconcile, world, &mut self.boxes.reconcile))
    }

    /// Forgets outcomes that nobody asked for; called when nothing is left to route.
    pub(super) fn forget_outcomes(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.outcomes.clear();
        }
    }

    /// Tells everybody which servers gossip shows, after a change of one member.
    pub(super) fn member_changed(&mut self, now: Instant, member: &Member) {
        if !self.started {
            return;
        }
        let members = self.lan.serf.all_members().len();
        self.tell_anti_entropy(now, AntiEntropyInput::Members(members));
        // One that announced its leave serves until it is gone.
        let there = matches!(member.status, MemberStatus::Alive | MemberStatus::Leaving);
        let own = &self.config.datacenter;
        let server = member.server().filter(|server| there && server.datacenter == *own);
        let known = self.servers.get(&member.name);
        if known == server.as_ref() {
            return;
        }
        let place = |server: &ServerInfo| (server.id, server.address);
        let moved = known.map(place) != server.as_ref().map(place);
        if let Some(server) = server.as_ref().filter(|_| moved) {
            let (datacenter, address) = (own.clone(), server.address);
            self.trace(Level::Info, NodeTrace::AddingServer { datacenter, address });
        }
        let known = match server {
            Some(server) => self.servers.insert(member.name.clone(), server),
            None => self.servers.remove(&member.name),
        };
        if let Some(known) = known.filter(|_| moved) {
            let (datacenter, address) = (self.config.datacenter.clone(), known.address);
            self.trace(Level::Info, NodeTrace::RemovingServer { datacenter, address });
        }
        self.tell_servers(now);
        if moved && self.servers.contains_key(&member.name) {
            self.tell_anti_entropy(now, AntiEntropyInput::ServerReachable);
        }
    }

    fn tell_servers(&mut self, now: Instant) {
        let servers: Vec<ServerInfo> = self.servers.values().cloned().collect();
        let boxes = &mut self.boxes;
        if let Some(server) = self.server.as_deref_mut() {
            let input = BootstrapInput::Servers(servers.clone());
            server.bootstrap.handle(now, input, &mut boxes.bootstrap);
        }
        self.rpc.handle(now, RpcInput::Servers(servers), &mut boxes.rpc);
    }
}
