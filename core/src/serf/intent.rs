//! Intents: what members say about joining and leaving, and those about members not known yet.
//!
//! Implements gossip-protocol.md §15 (rows of intents) and §16. An intent counts only if its
//! Lamport time is above the last accepted one; accepted intents are spread on as they came, one
//! queued for each member. A running member answers a leave intent about itself with a join intent.
//!
//! Differs: a member that is pruned leaves a tombstone with the time of its leave, which state
//! exchanges carry like a left member; so members that missed the prune learn of the leave, and an
//! outdated record brings the member back only until it is found dead (gossip-protocol.md §28).

use super::member::{Member, MemberStatus};
use super::{MemberEventKind, Serf, SerfOutput, SerfTrace};
use crate::gossip::{BROADCAST_BYTES_MAX, BroadcastClass, BroadcastId};
use crate::id::{LamportTime, NodeName};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::serf::{Join, Leave, SerfMessage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Members for which an early intent is kept.
const EARLY_MAX: usize = 4096;
/// How long an early intent is kept.
const EARLY_FOR: Duration = Duration::from_secs(300);

/// What an intent announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntentKind {
    /// The member joins.
    Join,
    /// The member leaves.
    Leave,
}

/// An intent about a member that is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    pub(super) kind: IntentKind,
    pub(super) time: LamportTime,
    /// Whether the member was known and is pruned: a tombstone.
    pub(super) pruned: bool,
    heard_at: Instant,
}

/// Intents that came before the member they are about, and tombstones of members that are pruned;
/// the newest for each name.
#[derive(Clone, Debug, Default)]
pub(super) struct EarlyIntents {
    by_name: BTreeMap<NodeName, Early>,
    changes: u64,
}

impl EarlyIntents {
    /// Keeps an intent; `false` if a newer one is known, or no room is left.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        name: &NodeName,
        kind: IntentKind,
        time: LamportTime,
    ) -> bool {
        let mut early = Early { kind, time, pruned: false, heard_at: now };
        let full = self.by_name.len() >= EARLY_MAX;
        match self.by_name.get_mut(name) {
            Some(known) if known.time >= time => false,
            Some(known) => {
                if known.pruned && kind == IntentKind::Leave {
                    // Others repeat the leave for as long as they know of it.
                    (early.pruned, early.heard_at) = (true, known.heard_at);
                }
                *known = early;
                self.changes += 1;
                true
            }
            None if full => false,
            None => {
                self.changes += 1;
                self.by_name.insert(name.clone(), early).is_none()
            }
        }
    }

    /// Takes the intent kept for `name`.
    pub(super) fn take(&mut self, name: &NodeName) -> Option<Early> {
        self.changes += 1;
        self.by_name.remove(name)
    }

    /// Keeps a tombstone of a member that is pruned.
    fn bury(&mut self, now: Instant, name: &NodeName, time: LamportTime) {
        if self.by_name.len() < EARLY_MAX {
            let kind = IntentKind::Leave;
            self.changes += 1;
            self.by_name.insert(name.clone(), Early { kind, time, pruned: true, heard_at: now });
        }
    }

    /// The members that are pruned, and when they left.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = (&NodeName, LamportTime)> {
        let pruned = self.by_name.iter().filter(|(_, early)| early.pruned);
        pruned.map(|(name, early)| (name, early.time))
    }

    /// Forgets intents that nobody asked for in time, and old tombstones.
    pub(super) fn expire(&mut self, now: Instant, tombstones_for: Duration) {
        let before = self.by_name.len();
        self.by_name.retain(|_, early| {
            let kept_for = if early.pruned { tombstones_for } else { EARLY_FOR };
            now.since(early.heard_at) <= kept_for
        });
        self.changes += (before - self.by_name.len()) as u64;
    }

    /// Counts the occasions on which one may have changed.
    pub(super) const fn version(&self) -> u64 {
        self.changes
    }
}

impl Serf {
    /// Takes a leave intent; `true` if it is to be spread on.
    pub(super) fn leave_intent(
        &mut self,
        now: Instant,
        intent: &Leave,
        out: &mut Outbox<SerfOutput>,
    ) -> bool {
        if !self.clock.witness(intent.time) {
            self.refuse_time(&intent.node, intent.time, out);
            return false;
        }
        let wrong = intent.node == self.local && self.is_active();
        match self.members.get(&intent.node) {
            None => return self.early.keep(now, &intent.node, IntentKind::Leave, intent.time),
            Some(known) if intent.time <= known.member.status_time => return false,
            Some(_) => {}
        }
        if wrong && !crate::mutant!(M43) {
            crate::mark!("serf.leave_intent_refuted");
            crate::trace!(out, Level::Debug, SerfTrace::RefutingLeave { time: intent.time });
            self.announce_join(now, out);
            return false;
        }
        let Some(entry) = self.members.get_mut(&intent.node) else { return false };
        entry.member_mut().status_time = intent.time;
        entry.prune |= intent.prune;
        self.version += 1;
        match entry.member.status {
            MemberStatus::Alive => {
                entry.member_mut().status = MemberStatus::Leaving;
                entry.since = now;
            }
            MemberStatus::Leaving | MemberStatus::Left => {}
            MemberStatus::Failed => {
                crate::mark!("serf.failed_made_left");
                entry.member_mut().status = MemberStatus::Left;
                entry.since = now;
                let member = Arc::clone(&entry.member);
                self.gone(MemberEventKind::Leave, member, out);
            }
        }
        self.prune_if_wanted(now, &intent.node, out);
        true
    }

    /// Takes a join intent; `true` if it is to be spread on.
    pub(super) fn join_intent(
        &mut self,
        now: Instant,
        intent: &Join,
        out: &mut Outbox<SerfOutput>,
    ) -> bool {
        if !self.clock.witness(intent.time) {
            self.refuse_time(&intent.node, intent.time, out);
            return false;
        }
        // Looked at first: changing the map copies what readers share with it.
        match self.members.get(&intent.node) {
            None => return self.early.keep(now, &intent.node, IntentKind::Join, intent.time),
            Some(known) if intent.time <= known.member.status_time => return false,
            Some(_) => {}
        }
        let Some(entry) = self.members.get_mut(&intent.node) else { return false };
        entry.member_mut().status_time = intent.time;
        if entry.member.status == MemberStatus::Leaving {
            entry.member_mut().status = MemberStatus::Alive;
            entry.prune = false;
        }
        self.version += 1;
        true
    }

    /// A Serf message arrived.
    pub(super) fn message(&mut self, now: Instant, bytes: Bytes, out: &mut Outbox<SerfOutput>) {
        match SerfMessage::decode(&bytes) {
            Ok(SerfMessage::Leave(intent)) => {
                if self.leave_intent(now, &intent, out) {
                    self.spread(intent.node.as_str(), bytes, None, out);
                }
            }
            Ok(SerfMessage::Join(intent)) => {
                if self.join_intent(now, &intent, out) {
                    self.spread(intent.node.as_str(), bytes, None, out);
                }
            }
            Ok(SerfMessage::UserEvent(event)) => self.event_arrived(event, bytes, out),
            Ok(SerfMessage::Query(query)) => self.query_arrived(now, query, bytes, out),
            Ok(SerfMessage::QueryResponse(response)) => self.response_arrived(response, out),
            Ok(SerfMessage::Relay(relay)) => self.pass_on(relay, out),
            Ok(
                SerfMessage::PushPull(_)
                | SerfMessage::ConflictResponse(_)
                | SerfMessage::KeyRequest(_)
                | SerfMessage::KeyResponse(_),
            ) => {
                let kind = bytes.first().copied().unwrap_or_default();
                crate::trace!(out, Level::Debug, SerfTrace::NotHandled { kind });
            }
            Err(error) => crate::trace!(out, Level::Debug, SerfTrace::Malformed { error }),
        }
    }

    /// Queues an event or a query, unless it is too large to be spread by anybody.
    pub(super) fn broadcast(
        &self,
        class: BroadcastClass,
        payload: Bytes,
        out: &mut Outbox<SerfOutput>,
    ) {
        if payload.len() <= BROADCAST_BYTES_MAX {
            out.push(SerfOutput::Broadcast { class, key: None, payload, notify: None });
        }
    }

    /// Says that this member joins, at the present time of its clock.
    pub(super) fn announce_join(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        let intent = Join { time: self.clock.now(), node: self.local.clone() };
        self.join_intent(now, &intent, out);
        let name = self.local.clone();
        self.spread(name.as_str(), SerfMessage::Join(intent).encode(), None, out);
    }

    /// Says that `node` leaves, at the present time of the clock.
    pub(super) fn announce_leave(
        &mut self,
        now: Instant,
        node: NodeName,
        prune: bool,
        out: &mut Outbox<SerfOutput>,
    ) -> Bytes {
        let intent = Leave { time: self.clock.tick(), node, prune };
        self.leave_intent(now, &intent, out);
        SerfMessage::Leave(intent).encode()
    }

    /// Queues an intent about `name`; an earlier one about it is replaced.
    pub(super) fn spread(
        &self,
        name: &str,
        payload: Bytes,
        notify: Option<BroadcastId>,
        out: &mut Outbox<SerfOutput>,
    ) {
        let (class, key) = (BroadcastClass::Intent, Some(name.to_owned()));
        out.push(SerfOutput::Broadcast { class, key, payload, notify });
    }

    /// Forgets a gone member that somebody wanted pruned.
    pub(super) fn prune_if_wanted(
        &mut self,
        now: Instant,
        name: &NodeName,
        out: &mut Outbox<SerfOutput>,
    ) {
        let Some(entry) = self.members.get(name) else { return };
        if entry.prune && entry.is_gone() {
            crate::mark!("serf.pruned");
            let time = entry.member.status_time;
            self.erase(name, out);
            self.early.bury(now, name, time);
        }
    }

    /// Tells that a member is gone, and why.
    pub(super) fn gone(
        &mut self,
        kind: MemberEventKind,
        member: Arc<Member>,
        out: &mut Outbox<SerfOutput>,
    ) {
        if kind == MemberEventKind::Leave {
            self.snapshot.gone(&member.name);
        }
        self.event(kind, member, out);
    }

    fn refuse_time(&self, node: &NodeName, time: LamportTime, out: &mut Outbox<SerfOutput>) {
        crate::trace!(out, Level::Warn, SerfTrace::TimeTooFar { about: node.to_string(), time });
    }
}
