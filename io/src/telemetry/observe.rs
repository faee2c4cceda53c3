//! From what the node tells of itself to metrics.
//!
//! - Source: agent-config.md §7 for the names; what has no name there has one of its own kind.
//! - Counters of the node only grow; what is counted is their difference to the last observation.

use super::interval::{Interval, Key};
use super::process::Process;
use crate::event::Counters;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::durations::Durations;
use terraform_core::node::{NodeStatus, PoolStatus, ServerStatus, Stats, WriteTimes};
use terraform_core::raft::{LeaderStats, PeerStats};
use terraform_core::reconcile::DutyTimes;
use terraform_core::rpc::RpcStats;
use terraform_core::serf::{MemberStatus, Members};
use terraform_core::view::View;

/// What an observation sees.
pub(super) struct Seen<'a> {
    pub(super) view: &'a View,
    pub(super) status: Option<&'a NodeStatus>,
    pub(super) process: Option<&'a Process>,
    pub(super) host: &'a Counters,
    pub(super) uptime: Duration,
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Observer {
    stats: Stats,
    rpc: RpcStats,
    /// The LAN pool and the WAN pool.
    pools: [PoolStatus; 2],
    proposals: u64,
    writes: WriteTimes,
    leading: LeaderStats,
    snapshots: Durations,
    executions: Durations,
    duties: DutyTimes,
    host: [u64; 6],
}

/// A number as a gauge has it.
#[expect(clippy::cast_precision_loss, reason = "gauges are shown, not calculated with")]
const fn float(number: u64) -> f64 {
    number as f64
}

fn size(number: usize) -> f64 {
    float(number as u64)
}

impl Observer {
    /// Adds what is seen now to `interval`.
    pub(super) fn observe(&mut self, seen: &Seen<'_>, interval: &mut Interval) {
        members(&seen.view.members, None, interval);
        if let Some(members) = &seen.view.wan_members {
            self::members(members, Some("wan"), interval);
        }
        agent(seen.view, interval);
        catalog(seen.view, interval);
        process(seen.process, seen.uptime, interval);
        self.host(seen.host, interval);
        if let Some(status) = seen.status {
            self.node(status, interval);
        }
    }

    fn node(&mut self, status: &NodeStatus, interval: &mut Interval) {
        let (new, old) = (status.stats, std::mem::replace(&mut self.stats, status.stats));
        let (roles, old_roles) = (new.roles_taken, old.roles_taken);
        let mut count = |name, new: u64, old: u64| {
            interval.count(Key::plain(name), new.saturating_sub(old));
        };
        count("serf.member.join", new.members_joined, old.members_joined);
        count("serf.member.left", new.members_left, old.members_left);
        count("serf.member.failed", new.members_failed, old.members_failed);
        count("serf.events", new.user_events, old.user_events);
        count("raft.state.follower", roles.follower, old_roles.follower);
        count("raft.state.candidate", roles.candidate, old_roles.candidate);
        count("raft.state.leader", roles.leader, old_roles.leader);
        count("rpc.query", new.reads, old.reads);
        count("session_ttl.invalidate", new.sessions_expired, old.sessions_expired);
        count("agent.requests_refused", new.requests_refused, old.requests_refused);
        let (new, old) = (status.rpc, std::mem::replace(&mut self.rpc, status.rpc));
        count("client.rpc", new.submitted, old.submitted);
        count("client.rpc.failed", new.failed, old.failed);
        count("client.rpc.exceeded", new.exceeded, old.exceeded);
        count("rpc.accept_conn", new.streams_accepted, old.streams_accepted);
        count("rpc.request", new.accepted, old.accepted);
        count("rpc.request_error", new.accepted_failed, old.accepted_failed);
        count("rpc.cross-dc", new.crossed, old.crossed);
        let [lan, wan] = &mut self.pools;
        pool(&status.lan, None, lan, interval);
        if let Some(status) = &status.wan {
            pool(status, Some("wan"), wan, interval);
        }
        if let Some(server) = &status.server {
            self.server(server, interval);
        }
    }

    fn server(&mut self, server: &ServerStatus, interval: &mut Interval) {
        interval.set(Key::plain("rpc.queries_blocking"), size(server.reads_waiting));
        interval.set(Key::plain("raft.log_bytes"), float(server.log_bytes));
        if let Some(bytes) = server.snapshot_bytes {
            interval.set(Key::plain("raft.snapshot_bytes"), float(bytes));
        }
        let proposals = std::mem::replace(&mut self.proposals, server.proposals);
        interval.count(Key::plain("raft.apply"), server.proposals.saturating_sub(proposals));
        if let Some(leader) = &server.leader {
            interval.set(Key::plain("autopilot.healthy"), float(leader.healthy.into()));
            interval.set(Key::plain("session_ttl.active"), size(leader.sessions_timed));
            let tolerance = float(leader.failure_tolerance);
            interval.set(Key::plain("autopilot.failure_tolerance"), tolerance);
            let mut contacts = Durations::default();
            leader.contacts.iter().for_each(|contact| contacts.record(*contact));
            interval.sample(Key::plain("raft.leader.lastContact"), &contacts);
        }
        let old = std::mem::replace(&mut self.writes, server.writes.clone());
        let new = &server.writes;
        let mut sample = |name, new: &Durations, old: &Durations| {
            interval.sample(Key::plain(name), &new.since(old));
        };
        sample("raft.commitTime", &new.all, &old.all);
        sample("catalog.register", &new.register, &old.register);
        sample("catalog.deregister", &new.deregister, &old.deregister);
        sample("kvs.apply", &new.kv, &old.kv);
        sample("txn.apply", &new.transaction, &old.transaction);
        sample("session.apply", &new.session, &old.session);
        let old = std::mem::replace(&mut self.leading, server.leading.clone());
        leading(&server.leading, &old, interval);
        let mut sample = |name, new: &Durations, old: &Durations| {
            interval.sample(Key::plain(name), &new.since(old));
        };
        let old = std::mem::replace(&mut self.snapshots, server.snapshots.clone());
        sample("raft.snapshot.persist", &server.snapshots, &old);
        let old = std::mem::replace(&mut self.executions, server.executions.clone());
        sample("prepared-query.execute_remote", &server.executions, &old);
        let old = std::mem::replace(&mut self.duties, server.duties.clone());
        sample("leader.reconcile", &server.duties.passes, &old.passes);
        sample("leader.reconcileMember", &server.duties.steps, &old.steps);
        sample("leader.reapTombstones", &server.duties.reapings, &old.reapings);
    }

    /// What the host counts.
    fn host(&mut self, host: &Counters, interval: &mut Interval) {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = [
            ("agent.datagrams_dropped", now(&host.datagrams_dropped)),
            ("agent.datagrams_unsent", now(&host.datagrams_unsent)),
            ("agent.streams_refused", now(&host.streams_refused)),
            ("agent.streams_overflowed", now(&host.streams_overflowed)),
            ("agent.subscriptions_overflowed", now(&host.subscriptions_overflowed)),
            ("agent.slow_turns", now(&host.slow_turns)),
        ];
        for ((name, new), old) in counters.into_iter().zip(&mut self.host) {
            interval.count(Key::plain(name), new.saturating_sub(std::mem::replace(old, new)));
        }
    }
}

/// What consensus did while this server led. The servers it sent to are the end of the name, as in
/// Consul 1.8, and no label.
fn leading(new: &LeaderStats, old: &LeaderStats, interval: &mut Interval) {
    let mut sample = |name: &str, new: &Durations, old: &Durations| {
        interval.sample(Key::plain(name), &new.since(old));
    };
    sample("raft.leader.dispatchLog", &new.dispatches, &old.dispatches);
    sample("leader.barrier", &new.barriers, &old.barriers);
    sample("rpc.consistentRead", &new.confirmations, &old.confirmations);
    let unknown = PeerStats::default();
    for (id, new) in &new.peers {
        let old = old.peers.get(id).unwrap_or(&unknown);
        let key = |name: &str| Key::plain(&format!("raft.replication.{name}.{id}"));
        let entries = new.entries.saturating_sub(old.entries);
        interval.count(key("appendEntries.logs"), entries);
        interval.sample(key("appendEntries.rpc"), &new.appends.since(&old.appends));
        interval.sample(key("heartbeat"), &new.heartbeats.since(&old.heartbeats));
    }
}

/// A metric of a pool; those of the LAN pool have no label, as in Consul 1.8.
fn of_pool(name: &str, network: Option<&str>) -> Key {
    let key = Key::plain(name);
    match network {
        Some(network) => key.with("network", network),
        None => key,
    }
}

fn members(members: &Members, network: Option<&str>, interval: &mut Interval) {
    let statuses = [
        ("serf.members.alive", MemberStatus::Alive),
        ("serf.members.leaving", MemberStatus::Leaving),
        ("serf.members.left", MemberStatus::Left),
        ("serf.members.failed", MemberStatus::Failed),
    ];
    for (name, status) in statuses {
        let count = members.iter().filter(|member| member.status == status).count();
        interval.set(of_pool(name, network), size(count));
    }
}

fn pool(
    status: &PoolStatus,
    network: Option<&'static str>,
    old: &mut PoolStatus,
    interval: &mut Interval,
) {
    let mut set = |name, value| interval.set(of_pool(name, network), value);
    set("memberlist.health.score", float(status.health_score.into()));
    set("memberlist.queue.broadcasts", size(status.facts_queued));
    set("serf.queue.Intent", size(status.intents_queued));
    set("serf.queue.Query", size(status.queries_queued));
    set("serf.queue.Event", size(status.events_queued));
    let old = std::mem::replace(old, status.clone());
    let (new_stats, old_stats) = (&status.stats, &old.stats);
    let mut count = |name, new: u64, old: u64| {
        interval.count(of_pool(name, network), new.saturating_sub(old));
    };
    count("memberlist.msg.dropped", status.dropped, old.dropped);
    count("memberlist.msg.alive", new_stats.alive, old_stats.alive);
    count("memberlist.msg.suspect", new_stats.suspect, old_stats.suspect);
    count("memberlist.msg.dead", new_stats.dead, old_stats.dead);
    let (stretched, unconfirmed) = (new_stats.probes_stretched, new_stats.suspicions_unconfirmed);
    count("memberlist.degraded.probe", stretched, old_stats.probes_stretched);
    count("memberlist.degraded.timeout", unconfirmed, old_stats.suspicions_unconfirmed);
    count("serf.member.flap", status.flaps, old.flaps);
    let mut sample = |name, new: &Durations, old: &Durations| {
        interval.sample(of_pool(name, network), &new.since(old));
    };
    sample("memberlist.probeNode", &new_stats.probes, &old_stats.probes);
    sample("memberlist.pushPullNode", &new_stats.exchanges, &old_stats.exchanges);
}

/// What is registered on this agent.
fn agent(view: &View, interval: &mut Interval) {
    let (mut passing, mut warning, mut critical) = (0, 0, 0);
    for check in view.local.checks.values() {
        match check.status {
            CheckStatus::Passing => passing += 1,
            CheckStatus::Warning => warning += 1,
            CheckStatus::Critical | CheckStatus::Other(_) => critical += 1,
        }
    }
    interval.set(Key::plain("agent.services"), size(view.local.services.len()));
    interval.set(Key::plain("agent.checks.passing"), size(passing));
    interval.set(Key::plain("agent.checks.warning"), size(warning));
    interval.set(Key::plain("agent.checks.critical"), size(critical));
}

/// What a server holds, and where consensus stands.
fn catalog(view: &View, interval: &mut Interval) {
    let mut set = |name, value| interval.set(Key::plain(name), value);
    if let Some(tables) = &view.catalog {
        let counts = tables.counts();
        set("state.nodes", size(counts.nodes));
        set("state.services", size(counts.services));
        set("state.service_instances", size(counts.instances));
        set("state.checks", size(counts.checks));
        set("state.sessions", size(counts.sessions));
        set("state.kv_entries", size(counts.keys));
    }
    if let Some(consensus) = &view.consensus {
        set("raft.applied_index", float(consensus.applied.get()));
        set("raft.commit_index", float(consensus.commit.get()));
        set("raft.last_index", float(consensus.last.get()));
        set("raft.term", float(consensus.term.get()));
        set("raft.peers", size(consensus.configuration.servers().count()));
        set("server.isLeader", float(consensus.is_leader().into()));
        set("server.knowsLeader", float(consensus.leader.is_some().into()));
    }
}

fn process(process: Option<&Process>, uptime: Duration, interval: &mut Interval) {
    let mut set = |name, value| interval.set(Key::plain(name), value);
    set("runtime.uptime_seconds", uptime.as_secs_f64().floor());
    if let Some(process) = process {
        set("runtime.sys_bytes", float(process.resident_bytes));
        set("runtime.threads", float(process.threads));
        set("runtime.open_fds", float(process.open_fds));
        set("runtime.cpu_seconds", process.cpu.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::time::WallClock;

    #[test]
    fn what_rarely_happens_in_a_pool_is_counted_by_its_difference() {
        let mut interval = Interval::beginning(WallClock::from_millis(0));
        let mut seen = PoolStatus::default();
        for (flaps, stretched, unconfirmed) in [(1, 2, 3), (2, 4, 6)] {
            let mut now = PoolStatus { flaps, ..PoolStatus::default() };
            now.stats.probes_stretched = stretched;
            now.stats.suspicions_unconfirmed = unconfirmed;
            interval.counters.clear();
            pool(&now, Some("wan"), &mut seen, &mut interval);
        }
        let counted: Vec<_> = interval.counters.into_iter().collect();
        let expected = [
            ("memberlist.degraded.probe", 2),
            ("memberlist.degraded.timeout", 3),
            ("serf.member.flap", 1),
        ];
        let expected = expected.map(|(name, count)| (of_pool(name, Some("wan")), count));
        assert_eq!(counted, expected);
    }

    #[test]
    fn what_a_leader_sent_is_named_by_the_server_and_counted_once() {
        let mut interval = Interval::beginning(WallClock::from_millis(0));
        let id = terraform_core::id::NodeId::from_bytes([7; 16]);
        let mut stats = PeerStats { entries: 5, ..PeerStats::default() };
        stats.heartbeats.record(Duration::from_millis(2));
        let new = LeaderStats { peers: [(id, stats)].into(), ..LeaderStats::default() };
        leading(&new, &LeaderStats::default(), &mut interval);
        leading(&new, &new, &mut interval);
        let key = |name: &str| Key::plain(&format!("raft.replication.{name}.{id}"));
        assert_eq!(interval.counters, [(key("appendEntries.logs"), 5)].into());
        let samples = interval.samples.iter().map(|(key, times)| (key.clone(), times.count()));
        assert_eq!(samples.collect::<Vec<_>>(), [(key("heartbeat"), 1)]);
    }
}
