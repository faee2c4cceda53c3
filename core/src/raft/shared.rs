//! What a server is in every role: term and vote, log, configurations, commit, and the messages
//! that wait for the disk (raft.md §2, §11.4).
//!
//! Invariants: no message leaves with a term or vote that is not durable (D1); an entry is applied
//! once, in order, committed and durable here (INV-RAFT-8); term, commit and applied never
//! decrease (INV-RAFT-6).

use super::membership::Configurations;
use super::persist::Persister;
use super::snapshot::Snapshots;
use super::{
    Body, Condition, Configuration, Entry, EntryKind, HardState, Header, IdentityChange,
    LeaderStats, Message, PeerStats, PersistSeq, RaftOutput, RaftSettings, RaftStats, RaftTrace,
    RestoredRaft, SnapshotMeta, Unfit,
};
use crate::id::{ClusterId, LogIndex, NodeId, StoreId, Term};
use crate::log::Log;
use crate::machine::Outbox;
use crate::rng::Rng;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::pack;
use crate::{mark, mutant, trace};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) to: NodeId,
    pub(super) address: SocketAddr,
    /// The `sent_at` of the message: now for a request, the request's for an answer.
    pub(super) sent_at: u64,
}

impl Destination {
    /// A request of this moment.
    pub(super) const fn request(to: NodeId, address: SocketAddr, now: Instant) -> Self {
        Self { to, address, sent_at: now.as_nanos() }
    }

    /// The answer to a message.
    pub(super) const fn answer(header: &Header) -> Self {
        Self { to: header.from, address: header.address, sent_at: header.sent_at }
    }
}

/// A message that waits for a persist request.
#[derive(Clone, Debug)]
struct Held {
    until: PersistSeq,
    address: SocketAddr,
    message: Message,
}

/// What all roles share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) settings: RaftSettings,
    pub(super) store: StoreId,
    pub(super) cluster: Option<ClusterId>,
    /// The only cluster this blank server may join, if it is bound to one.
    pub(super) bound: Option<ClusterId>,
    pub(super) rng: Rng,
    pub(super) log: Log,
    pub(super) hard: HardState,
    pub(super) configs: Configurations,
    pub(super) commit: LogIndex,
    /// Handed out for applying.
    pub(super) handed: LogIndex,
    /// Reported as applied.
    pub(super) applied: LogIndex,
    pub(super) leader: Option<(NodeId, SocketAddr)>,
    pub(super) leader_contact_at: Option<Instant>,
    /// Campaigns one after the other, without a leader between, that too few voters answered.
    pub(super) lonely_campaigns: u32,
    pub(super) persist: Persister,
    pub(super) snapshots: Snapshots,
    /// The request that makes the newest term, vote and cluster durable, until it is done.
    gate: Option<PersistSeq>,
    held: Vec<Held>,
    pub(super) embargo_until: Option<Instant>,
    /// The term in which a part of the log was found lost that is not held again yet.
    pub(super) recovering: Option<Term>,
    /// Whether the disk has no space for more of the log.
    pub(super) log_full: bool,
    pub(super) stats: RaftStats,
    pub(super) leading: LeaderStats,
    pub(super) stopped: bool,
    told_foreign: BTreeSet<NodeId>,
    pub(super) wrong_store: BTreeSet<NodeId>,
    told_removed: bool,
}

impl Shared {
    pub(super) fn new(
        settings: RaftSettings,
        restored: RestoredRaft,
        rng: Rng,
        now: Instant,
    ) -> Self {
        let snapshot = restored.snapshot.as_ref();
        let covered = snapshot.map_or(LogIndex::ZERO, |snapshot| snapshot.index);
        let log = Log::restore(snapshot.map(SnapshotMeta::position), restored.entries);
        let configs = Configurations::of(snapshot, &log);
        let own_patience = settings.timing.heartbeat_timeout;
        // Exempt are servers that cannot have promised anything to a leader: the only voter, and
        // one that was never in the term of an elected leader, which is above 1 (raft.md §4.6).
        let never_led = log.last_index() <= LogIndex::new(1) && restored.hard.term <= Term::new(1);
        let exempt = never_led || configs.latest().is_sole_voter(settings.id);
        let embargo = own_patience.max(restored.heartbeat_timeout);
        let mut shared = Self {
            store: restored.store,
            cluster: restored.cluster,
            bound: None,
            rng,
            hard: restored.hard,
            configs,
            commit: covered,
            handed: covered,
            applied: covered,
            snapshots: Snapshots::new(covered, now),
            leader: None,
            leader_contact_at: None,
            lonely_campaigns: 0,
            persist: Persister::new(log.last_index()),
            log,
            gate: None,
            held: Vec::new(),
            embargo_until: (!exempt && !mutant!(M14)).then(|| now + embargo),
            recovering: restored.recovering,
            log_full: false,
            stats: RaftStats::default(),
            leading: LeaderStats::default(),
            stopped: false,
            told_foreign: BTreeSet::new(),
            wrong_store: BTreeSet::new(),
            told_removed: false,
            settings,
        };
        assert!(shared.log.last_term() <= shared.hard.term, "INV-RAFT-13: D1, terms come first");
        if own_patience > restored.heartbeat_timeout {
            let heartbeat_timeout = Some(own_patience);
            shared.save_identity(IdentityChange { heartbeat_timeout, ..Default::default() });
        }
        shared
    }

    pub(super) const fn id(&self) -> NodeId {
        self.settings.id
    }

    /// What was sent to this peer.
    pub(super) fn peer_stats(&mut self, peer: NodeId) -> &mut PeerStats {
        self.leading.peers.entry(peer).or_default()
    }

    /// Whether a message's header fits this server at all; adopts the cluster that contacts a
    /// blank server (raft.md §3, §10.5 B8).
    pub(super) fn admit(&mut self, message: &Message, out: &mut Outbox<RaftOutput>) -> bool {
        let header = &message.header;
        if header.to != self.id() || header.from == self.id() {
            self.stats.misdirected += 1;
            return false;
        }
        if let Some(ours) = self.cluster.or(self.bound)
            && ours != header.cluster
        {
            self.stats.foreign += 1;
            if self.told_foreign.len() < 64 && self.told_foreign.insert(header.from) {
                let (from, theirs) = (header.from, header.cluster);
                trace!(out, Level::Warn, RaftTrace::ForeignCluster { from, theirs, ours });
            }
            return false;
        }
        if self.cluster.is_none() {
            if !message.body.is_request() {
                return false;
            }
            self.join_cluster(header.cluster, out);
        }
        true
    }

    /// Makes this store one of `cluster`'s, durably before anything else is said.
    pub(super) fn join_cluster(&mut self, cluster: ClusterId, out: &mut Outbox<RaftOutput>) {
        assert!(self.cluster.is_none(), "a store belongs to one cluster for ever");
        self.cluster = Some(cluster);
        self.save_identity(IdentityChange { cluster: Some(cluster), ..Default::default() });
        trace!(out, Level::Debug, RaftTrace::JoinedCluster { cluster });
        out.push(RaftOutput::ClusterKnown { cluster });
    }

    pub(super) fn save_identity(&mut self, change: IdentityChange) {
        self.gate = Some(self.persist.identity(change));
    }

    /// Adopts a term or a vote; returns the request after which it is durable.
    pub(super) fn save_hard(&mut self, hard: HardState) -> PersistSeq {
        assert!(hard.term >= self.hard.term, "INV-RAFT-6: the term never decreases");
        let revote = hard.term == self.hard.term && self.hard.voted_for.is_some();
        assert!(!revote || hard.voted_for == self.hard.voted_for, "INV-RAFT-7: one vote each term");
        self.hard = hard;
        let voted_for = if mutant!(M01) { None } else { hard.voted_for };
        let seq = self.persist.hard(HardState { voted_for, ..hard });
        if !mutant!(M02) {
            self.gate = Some(seq);
        }
        seq
    }

    /// Whether term, vote and cluster are durable.
    pub(super) const fn is_settled(&self) -> bool {
        self.gate.is_none()
    }

    /// Sends a message once term and vote are durable.
    pub(super) fn send(&mut self, to: Destination, body: Body, out: &mut Outbox<RaftOutput>) {
        self.send_after(to, body, None, out);
    }

    /// Sends a message once term, vote and the request `needs` are durable.
    pub(super) fn send_after(
        &mut self,
        to: Destination,
        body: Body,
        needs: Option<PersistSeq>,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some(cluster) = self.cluster else { return };
        let header = Header {
            cluster,
            from: self.id(),
            address: self.settings.address,
            from_store: self.store,
            to: to.to,
            term: self.hard.term,
            sent_at: to.sent_at,
        };
        let (address, message) = (to.address, Message { header, body });
        match self.gate.max(needs) {
            Some(until) => self.hold(Held { until, address, message }),
            None => emit(address, message, out),
        }
    }

    /// Keeps a message back; of acknowledgements to one leader for one request only the furthest
    /// is kept, so that one answer covers all messages of a group commit (raft.md §6.2 step 9).
    fn hold(&mut self, new: Held) {
        if let Body::AppendOk { match_index, .. } = &new.message.body {
            let same = |old: &&mut Held| {
                old.until == new.until
                    && old.message.header.to == new.message.header.to
                    && old.message.header.term == new.message.header.term
            };
            for old in self.held.iter_mut().filter(same) {
                if let Body::AppendOk { match_index: earlier, .. } = &old.message.body {
                    let furthest = *match_index.max(earlier);
                    let mut merged = new.message;
                    if let Body::AppendOk { match_index, .. } = &mut merged.body {
                        *match_index = furthest;
                    }
                    old.message = merged;
                    mark!("raft.append.acks_merged");
                    return;
                }
            }
        }
        self.held.push(new);
    }

    /// The disk confirms a request: releases what waited for it and may still be said.
    /// Gives since when the disk has worked on the entries in it.
    pub(super) fn persist_done(
        &mut self,
        seq: PersistSeq,
        out: &mut Outbox<RaftOutput>,
    ) -> Option<Instant> {
        let since = self.persist.done(seq);
        if self.gate.is_some_and(|gate| gate <= seq) {
            self.gate = None;
        }
        for held in std::mem::take(&mut self.held) {
            if held.until > seq {
                self.held.push(held);
            } else if held.message.header.term == self.hard.term {
                emit(held.address, held.message, out);
            } else {
                mark!("raft.persist.answer_of_an_older_term_dropped");
            }
        }
        since
    }

    /// Appends a new entry of this term; returns its position.
    pub(super) fn append_own(
        &mut self,
        kind: EntryKind,
        payload: Bytes,
        out: &mut Outbox<RaftOutput>,
    ) -> LogIndex {
        let entry = self.log.append_new(self.hard.term, kind, payload);
        let index = entry.index;
        self.note_configuration(&entry, out);
        self.persist.entry(entry);
        index
    }

    /// Appends an entry of a leader.
    pub(super) fn append_received(
        &mut self,
        entry: Entry,
        out: &mut Outbox<RaftOutput>,
    ) -> PersistSeq {
        self.log.append(entry.clone());
        self.note_configuration(&entry, out);
        self.persist.entry(entry)
    }

    /// Forgets the entries from `from` on; the newest configuration before it counts again.
    pub(super) fn truncate(&mut self, from: LogIndex, out: &mut Outbox<RaftOutput>) {
        assert!(from > self.commit, "INV-RAFT-4: a committed entry is never truncated");
        self.stats.truncations += 1;
        trace!(out, Level::Info, RaftTrace::Truncated { from });
        self.log.truncate_from(from);
        self.persist.truncate(from);
        if !mutant!(M22) && self.configs.truncate_from(from) {
            mark!("raft.truncate.config");
            self.tell_configuration(out);
        }
    }

    fn note_configuration(&mut self, entry: &Entry, out: &mut Outbox<RaftOutput>) {
        if entry.kind == EntryKind::Config {
            let configuration: Configuration = pack::from_bytes(&entry.payload)
                .expect("configurations are checked before they are appended");
            self.configs.append(entry.index, configuration);
            self.tell_configuration(out);
        }
    }

    pub(super) fn tell_configuration(&self, out: &mut Outbox<RaftOutput>) {
        let (index, configuration) = (self.configs.latest_index(), self.configs.latest());
        let configuration = Configuration::clone(configuration);
        if out.wants(Level::Debug) {
            let voters = configuration.voters.values().map(|server| server.address).collect();
            let learners = configuration.learners.values().map(|server| server.address).collect();
            out.push((Level::Debug, RaftTrace::Configuration { index, voters, learners }).into());
        }
        out.push(RaftOutput::ConfigurationChanged { index, configuration });
    }

    /// Learns that everything up to `commit` is committed, and hands out what may be applied.
    pub(super) fn advance_commit(&mut self, commit: LogIndex, out: &mut Outbox<RaftOutput>) {
        assert!(commit <= self.log.last_index(), "INV-RAFT-8: commit is not above the log");
        self.commit = self.commit.max(commit);
        self.hand_out(out);
    }

    /// Hands out entries that are committed and durable here (raft.md C5).
    ///
    /// Differs: C5 lets a leader apply what is not durable on its own disk yet; a server that
    /// steps down would then hold applied entries that its own restart lacks.
    pub(super) fn hand_out(&mut self, out: &mut Outbox<RaftOutput>) {
        let up_to = self.commit.min(self.persist.durable());
        if up_to > self.handed {
            let entries = self.log.range(self.handed, up_to).to_vec();
            self.snapshots.bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
            self.handed = up_to;
            out.push(RaftOutput::Apply { entries });
        }
        self.recover(out);
        let id = self.id();
        let settled = self.configs.latest_index() <= self.commit;
        let removed = settled && !self.configs.latest().contains(id) && self.configs.was_in(id);
        if removed && !self.told_removed {
            trace!(out, Level::Warn, RaftTrace::Removed);
            out.push(RaftOutput::Removed);
        }
        self.told_removed = removed;
    }

    /// How much longer this server neither votes nor campaigns after its restart.
    pub(super) fn embargo(&self, now: Instant) -> Option<Duration> {
        let until = self.embargo_until?;
        (until > now).then(|| until.since(now))
    }

    /// Whether the leader of this term was heard of recently (raft.md §4.4).
    pub(super) fn hears_leader(&self, now: Instant) -> bool {
        let patience = self.settings.timing.heartbeat_timeout;
        self.leader.is_some()
            && self.leader_contact_at.is_some_and(|contact| now.since(contact) < patience)
    }

    /// Whether the disk has been busy with one request for too long (raft.md §5.2).
    pub(super) fn disk_stalled(&self, now: Instant) -> bool {
        let patience = self.settings.timing.heartbeat_timeout;
        self.persist.busy_since().is_some_and(|since| now.since(since) > patience)
    }

    /// Whether this server votes, or did until a configuration that may never be committed: only
    /// its own longer log can then lead (Raft thesis §4.2.2).
    pub(super) fn may_lead(&self) -> bool {
        let id = self.id();
        if self.configs.latest().is_voter(id) {
            return true;
        }
        let pending = self.configs.latest_index() > self.commit;
        let committed = self.configs.committed(self.commit);
        let outside = pending && committed.is_some_and(|config| config.is_voter(id));
        let outside = outside && !mutant!(M26);
        if outside {
            mark!("raft.campaign.outside_latest");
        }
        outside
    }

    /// Why this server should not lead, if so. A full disk comes first: the leader has to know.
    pub(super) fn unfit(&self, now: Instant) -> Option<Unfit> {
        if self.log_full || self.snapshots.has_no_room(now) {
            Some(Unfit::DiskFull)
        } else if !self.may_lead() {
            Some(Unfit::NotVoter)
        } else if self.is_recovering() {
            Some(Unfit::Recovering)
        } else {
            self.disk_stalled(now).then_some(Unfit::DiskStalled)
        }
    }

    /// How this server does.
    pub(super) fn condition(&self, now: Instant) -> Condition {
        let patience = self.settings.timing.heartbeat_timeout;
        Condition { applied: self.applied, patience, unfit: self.unfit(now) }
    }

    /// Why this server must not campaign, if so (raft.md §4.5).
    pub(super) fn unpromotable(&self, now: Instant) -> Option<&'static str> {
        if !self.may_lead() {
            return Some("this server is not a voter");
        }
        if self.is_recovering() {
            return Some("this server recovers what its disk lost");
        }
        if self.embargo(now).is_some() {
            return Some("this server restarted recently");
        }
        self.disk_stalled(now).then_some("the disk does not answer")
    }

    /// Whether `header` speaks for the store that the configuration names; others do not count.
    pub(super) fn store_counts(&mut self, header: &Header, out: &mut Outbox<RaftOutput>) -> bool {
        let mut servers = self.configs.latest().servers();
        let Some((_, server)) = servers.find(|(id, _)| **id == header.from) else { return false };
        let same = server.store == header.from_store || mutant!(M36);
        if same {
            self.wrong_store.remove(&header.from);
        } else if self.wrong_store.insert(header.from) {
            trace!(out, Level::Warn, RaftTrace::WrongStore { from: header.from });
        }
        same
    }

    /// A rule is broken: nothing more is done or said.
    pub(super) fn fatal(&mut self, rule: String, out: &mut Outbox<RaftOutput>) {
        self.stopped = true;
        out.push(RaftOutput::Fatal(rule));
    }
}

fn emit(address: SocketAddr, message: Message, out: &mut Outbox<RaftOutput>) {
    let lane = message.body.lane();
    out.push(RaftOutput::Send { to: message.header.to, address, lane, message });
}
