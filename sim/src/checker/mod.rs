//! What must hold: rules checked after every event, and rules checked once a world is at rest.
//!
//! Each rule has its name of simulation.md §9 (`R1`, `G1`, `C1`, …). The first broken rule of
//! a world is kept with the facts that contradict each other; nothing after it counts.

mod forsaken;
mod gossip;
pub mod health;
mod kv;
pub mod linear;
mod raft;
mod rest;
mod session;
mod tombstones;
pub mod watch;

use crate::net::HostId;
use crate::streams::Process;
use crate::world::World;
use std::collections::BTreeSet;
use std::fmt;
use terraform_core::catalog::query::{Consistency, DatacenterCoordinates, Query, QueryAnswer};
use terraform_core::id::{LogIndex, NodeName};
use terraform_core::view::{ServerState, answer_now};

pub use kv::KvChecker;
pub use rest::{Expectation, at_rest, has_leader, seen_by_all};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// The facts that contradict each other.
    pub facts: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.facts)
    }
}

/// What the online checkers look at beside the hosts themselves.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// Members that may be seen as left: their owner began to leave, or somebody forced it.
    pub may_leave: BTreeSet<NodeName>,
    /// Whether every accusation is false: no host was crashed, paused or cut off.
    pub quiet: bool,
    /// Changes of a table of members after which it is looked at again: 1, but for large pools, in
    /// which each look costs as much as many changes.
    pub stride: u64,
}

impl Default for Permissions {
    fn default() -> Self {
        Self { may_leave: BTreeSet::new(), quiet: false, stride: 1 }
    }
}

/// All rules that are checked after every event.
#[derive(Debug, Default)]
pub struct Checkers {
    raft: raft::RaftChecker,
    gossip: gossip::GossipChecker,
    watch: watch::WatchChecker,
    /// The key-value table by the committed log.
    pub kv: KvChecker,
    /// What is allowed in this world.
    pub permissions: Permissions,
    /// The first broken rule.
    pub violation: Option<Violation>,
}

impl Checkers {
    /// Looks at every host that moved since the last look, and at what it sent.
    pub fn look(&mut self, world: &mut World) {
        if self.violation.is_some() {
            return;
        }
        let sent = std::mem::take(&mut world.sent);
        for (process, data) in &sent {
            if let Err(violation) = self.raft.sent(world, *process, data) {
                self.violation.get_or_insert(violation);
            }
        }
        let mut touched = std::mem::take(&mut world.touched);
        touched.sort_unstable();
        touched.dedup();
        for host in touched {
            if let Err(violation) = self.look_at(world, host) {
                self.violation.get_or_insert(violation);
            }
            let now = world.now;
            world.hosts[host].note_contact(now);
        }
        for entry in self.raft.take_fresh() {
            if let Err(violation) = self.kv.commit(&entry, world.events, world.now) {
                self.violation.get_or_insert(violation);
            }
        }
    }

    fn look_at(&mut self, world: &World, host: HostId) -> Result<(), Violation> {
        let Some(running) = world.hosts.get(host).and_then(|host| host.running.as_ref()) else {
            return Ok(());
        };
        let process = world.hosts[host].process();
        if let Some(raft) = running.node.raft() {
            let begins_to_lead = self.raft.look(process, running.node.id(), raft)?;
            if begins_to_lead {
                self.kv.new_leader(world.now);
                raft::no_other_lease(world, host)?;
            }
            raft::disk_answers(world, host)?;
            self.watch.look(world, host)?;
        }
        self.gossip.look(process, &running.node, &self.permissions)
    }

    /// Whether this is the committed history up to a position; `None` if none is known to be.
    pub fn is_committed(&self, index: LogIndex, chain: u64) -> Option<bool> {
        self.raft.is_committed(index, chain)
    }

    /// The committed history as far as it was seen: how many entries.
    pub fn committed(&self) -> usize {
        self.raft.committed()
    }
}

/// A broken rule.
pub(crate) fn broken<T>(rule: &'static str, facts: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { rule, facts: facts.into() })
}

/// What a server would answer at this moment, from what it has applied.
pub(crate) fn ask(world: &World, host: HostId, query: &Query) -> Option<QueryAnswer> {
    let host = world.hosts.get(host)?;
    let node = &host.running.as_ref()?.node;
    let now = host.local_time(world.now);
    let datacenters = &[DatacenterCoordinates::unknown(host.config.datacenter.clone())];
    let (tables, consensus) = (node.tables()?, &node.raft()?.view(now));
    let state = ServerState { tables, consensus, datacenters };
    Some(answer_now(state, query, Consistency::Leader, now))
}

/// A process in a report.
pub(crate) fn shown(process: Process) -> String {
    format!("host {} run {}", process.host, process.boot)
}
