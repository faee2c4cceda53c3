//! Members that are gone: forgotten after a long time, and until then tried again.
//!
//! Implements gossip-protocol.md §19 (reap, reconnect, rejoin at start). Failed members are kept
//! and retried, left ones only kept.
//!
//! Differs: a rejoin does not end with the first member it reaches, and is tried again at the pace
//! of reconnects while a remembered member is unknown: members that restart together and reach only
//! each other would otherwise stay apart from the rest (gossip-protocol.md §28, partitions). What
//! is remembered is forgotten when failed members are. And a member that was made to leave, but
//! lives and could not say so, is leaving for a minute at most (gossip-protocol.md §28).

use super::member::MemberStatus;
use super::members::Entry;
use super::{MemberEventKind, Serf, SerfOutput, SerfTrace, Timer};
use crate::gossip::JoinId;
use crate::id::NodeName;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a member may announce its leave and still answer; a leave takes 14 s at most.
const LEAVING_MAX: Duration = Duration::from_secs(60);

/// The attempts to reach members remembered from an earlier run.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejoin {
    /// Not tried yet in this round; the next one is last.
    candidates: Vec<(NodeName, SocketAddr)>,
    /// The attempt that is running.
    running: Option<JoinId>,
}

impl Serf {
    /// Forgets members gone for too long, early intents and what an earlier run remembered.
    pub(super) fn reap(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        self.timers.set(Timer::Reap, now + self.config.reap_interval);
        self.early.expire(now, self.config.tombstone_timeout);
        if !self.all_alive() {
            self.end_long_leaves(now, out);
            self.erase_expired(now, out);
        }
        if now.since(self.started) > self.config.reconnect_timeout {
            let members = &self.members;
            self.snapshot.forget(|name| !members.contains_key(name));
        }
    }

    /// Whether nobody leaves or is gone; no pass over the members unless one has changed.
    fn all_alive(&mut self) -> bool {
        if self.all_alive_in != Some(self.version) {
            let mut members = self.members.values();
            let all = members.all(|entry| entry.member.status == MemberStatus::Alive);
            self.all_alive_in = all.then_some(self.version);
        }
        self.all_alive_in.is_some()
    }

    fn erase_expired(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        let expired: Vec<NodeName> = self
            .members
            .values()
            .filter(|entry| match entry.member.status {
                MemberStatus::Failed => now.since(entry.since) > self.config.reconnect_timeout,
                MemberStatus::Left => now.since(entry.since) > self.config.tombstone_timeout,
                MemberStatus::Alive | MemberStatus::Leaving => false,
            })
            .filter(|entry| entry.member.name != self.local)
            .map(|entry| entry.member.name.clone())
            .collect();
        for name in expired {
            crate::mark!("serf.reap");
            self.erase(&name, out);
        }
    }

    /// Takes members for alive again that announced their leave long ago and still answer.
    fn end_long_leaves(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        let is_long = |entry: &&Entry| {
            entry.member.status == MemberStatus::Leaving
                && entry.member.name != self.local
                && now.since(entry.since) > LEAVING_MAX
        };
        let leaving = self.members.values().filter(is_long);
        let leaving: Vec<NodeName> = leaving.map(|entry| entry.member.name.clone()).collect();
        for name in leaving {
            let Some(entry) = self.members.get_mut(&name) else { continue };
            crate::mark!("serf.leaving_too_long");
            entry.member_mut().status = MemberStatus::Alive;
            entry.prune = false;
            self.version += 1;
            crate::trace!(out, Level::Warn, SerfTrace::LeavingTooLong { name });
        }
    }

    /// Forgets one member and tells so.
    pub(super) fn erase(&mut self, name: &NodeName, out: &mut Outbox<SerfOutput>) {
        let Some(entry) = self.members.remove(name) else { return };
        self.version += 1;
        self.snapshot.gone(name);
        self.coordinates.forget(name);
        self.event(MemberEventKind::Reap, entry.member, out);
    }

    /// With a probability that keeps the whole cluster's load constant, tries one failed member.
    pub(super) fn reconnect(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        self.timers.set(Timer::Reconnect, now + self.config.reconnect_interval);
        if !self.is_active() || self.reconnecting.is_some() || self.all_alive() {
            return;
        }
        let count = |status| self.members.values().filter(|e| e.member.status == status).count();
        let (failed, left) = (count(MemberStatus::Failed), count(MemberStatus::Left));
        if failed == 0 {
            return;
        }
        let others = self.members.len().saturating_sub(failed + left).max(1);
        if !self.rng.chance(failed as u64, others as u64) {
            return;
        }
        let chosen = self.rng.index(failed);
        let mut candidates =
            self.members.values().filter(|entry| entry.member.status == MemberStatus::Failed);
        let Some(entry) = candidates.nth(chosen) else { return };
        let (name, address) = (entry.member.name.clone(), entry.member.address);
        crate::mark!("serf.reconnect");
        crate::trace!(out, Level::Info, SerfTrace::Reconnecting { name, address });
        let join = self.next_join();
        self.reconnecting = Some(join);
        out.push(SerfOutput::Join { join, addresses: vec![address] });
    }

    /// Begins a round of attempts to reach the members of an earlier run.
    pub(super) fn rejoin(&mut self, out: &mut Outbox<SerfOutput>) {
        if !self.is_active() || self.rejoin.running.is_some() {
            return;
        }
        let mut candidates = self.snapshot.remembered(&self.local);
        candidates.retain(|(name, _)| !self.members.contains_key(name));
        self.rng.shuffle(&mut candidates);
        self.rejoin.candidates = candidates;
        self.rejoin_next(out);
    }

    fn rejoin_next(&mut self, out: &mut Outbox<SerfOutput>) -> bool {
        let members = &self.members;
        self.rejoin.candidates.retain(|(name, _)| !members.contains_key(name));
        let Some((name, address)) = self.rejoin.candidates.pop() else { return false };
        crate::trace!(out, Level::Info, SerfTrace::Rejoining { name, address });
        let join = self.next_join();
        self.rejoin.running = Some(join);
        out.push(SerfOutput::Join { join, addresses: vec![address] });
        true
    }

    /// A join is over; only this machine's own ones matter.
    pub(super) fn join_finished(
        &mut self,
        now: Instant,
        join: JoinId,
        contacted: usize,
        out: &mut Outbox<SerfOutput>,
    ) {
        self.joins_ignoring_old.remove(&join);
        if self.reconnecting == Some(join) {
            self.reconnecting = None;
        }
        if self.rejoin.running != Some(join) {
            return;
        }
        self.rejoin.running = None;
        if !self.is_active() {
            self.rejoin.candidates.clear();
        } else if !self.rejoin_next(out) {
            if contacted > 0 || self.knows_others() {
                crate::mark!("serf.rejoined");
            } else {
                crate::trace!(out, Level::Warn, SerfTrace::RejoinFailed);
            }
            let remembered = self.snapshot.remembered(&self.local);
            if remembered.iter().any(|(name, _)| !self.members.contains_key(name)) {
                self.timers.set(Timer::Rejoin, now + self.config.reconnect_interval);
            }
        }
    }

    fn knows_others(&self) -> bool {
        let alive = |status| matches!(status, MemberStatus::Alive | MemberStatus::Leaving);
        self.members.values().any(|e| e.member.name != self.local && alive(e.member.status))
    }

    const fn next_join(&mut self) -> JoinId {
        self.joins += 1;
        JoinId(JoinId::SERF | self.joins)
    }
}
