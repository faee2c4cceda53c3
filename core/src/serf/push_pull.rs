//! Serf's part of a state exchange: clocks, when each member's status was last decided, and recent
//! events.
//!
//! Implements gossip-protocol.md §18; the order of the steps matters. What is learnt here is not
//! spread on: everybody exchanges state.

use super::member::MemberStatus;
use super::{Serf, SerfOutput, SerfTrace};
use crate::id::{LamportTime, NodeName};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::serf::{Join, Leave, PushPull, SerfMessage};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The state of this member, encoded once for each change of what it is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnState {
    stamp: Stamp,
    /// The whole Serf push/pull message.
    pub(super) payload: Bytes,
    /// Whether nobody left: hearing the same from another member then changes nothing.
    settled: bool,
}

/// What counts the changes of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    members: u64,
    early: u64,
    events: u64,
    times: [LamportTime; 3],
}

impl Serf {
    /// The state to send.
    pub(super) fn own_state(&mut self) -> &OwnState {
        let stamp = Stamp {
            members: self.version,
            early: self.early.version(),
            events: self.events.version(),
            times: [self.clock.now(), self.event_clock.now(), self.query_clock.now()],
        };
        if self.own_state.payload.is_empty() || self.own_state.stamp != stamp {
            let (payload, settled) = self.encode_state();
            self.own_state = OwnState { stamp, payload, settled };
        }
        &self.own_state
    }

    fn encode_state(&self) -> (Bytes, bool) {
        let members = || self.members.values().map(|entry| &*entry.member);
        let left = members().filter(|member| member.status == MemberStatus::Left);
        let pruned = || self.early.tombstones();
        let state = PushPull {
            event_time: self.event_clock.now(),
            events: self.recent_events(),
            time: self.clock.now(),
            left_members: left
                .map(|member| member.name.clone())
                .chain(pruned().map(|(name, _)| name.clone()))
                .collect(),
            query_time: self.query_clock.now(),
            status_times: members()
                .map(|member| (member.name.to_string(), member.status_time))
                .chain(pruned().map(|(name, time)| (name.to_string(), time)))
                .collect(),
        };
        let settled = state.left_members.is_empty();
        (SerfMessage::PushPull(state).encode(), settled)
    }

    /// Takes over another member's state.
    pub(super) fn merge(
        &mut self,
        now: Instant,
        payload: &Bytes,
        join: bool,
        out: &mut Outbox<SerfOutput>,
    ) {
        let own = self.own_state();
        if !join && own.settled && own.payload == *payload {
            crate::mark!("serf.equal_state");
            return;
        }
        let state = match SerfMessage::decode(payload) {
            Ok(SerfMessage::PushPull(state)) => state,
            Ok(_) => {
                let kind = payload.first().copied().unwrap_or_default();
                crate::trace!(out, Level::Warn, SerfTrace::NotHandled { kind });
                return;
            }
            Err(error) => {
                crate::trace!(out, Level::Warn, SerfTrace::Malformed { error });
                return;
            }
        };
        let believed = self.clock.witness_present(state.time)
            & self.event_clock.witness_present(state.event_time)
            & self.query_clock.witness_present(state.query_time);
        if !believed {
            let (about, time) = ("a state exchange".to_owned(), state.time);
            crate::trace!(out, Level::Warn, SerfTrace::TimeTooFar { about, time });
        }
        let before = self.member(&self.local).map_or_else(Default::default, |own| own.status_time);
        let left: BTreeSet<NodeName> = state.left_members.into_iter().collect();
        for node in &left {
            let time = state.status_times.get(node.as_str()).copied().unwrap_or_default().next();
            let intent = Leave { time, node: node.clone(), prune: false };
            self.leave_intent(now, &intent, out);
        }
        let own = state.status_times.get(self.local.as_str()).copied();
        for (name, time) in state.status_times {
            // A name that no member can have belongs to nobody.
            let Ok(node) = NodeName::parse(&name) else { continue };
            if !left.contains(&node) {
                self.join_intent(now, &Join { time, node }, out);
            }
        }
        self.outdo(now, (before, own.unwrap_or_default()), out);
        if join && believed && !self.joins_ignoring_old.is_empty() {
            self.events.skip_below(state.event_time);
        }
        self.take_recent_events(state.events.unwrap_or_default(), out);
    }

    /// Answers an intent about this member that is newer than any of its own: an earlier run made
    /// it, and those who took it for a leave would show this member as leaving for ever. Exchanges
    /// tell when an intent was made, not which kind it was.
    fn outdo(
        &mut self,
        now: Instant,
        (own, told): (LamportTime, LamportTime),
        out: &mut Outbox<SerfOutput>,
    ) {
        if told > own && self.is_active() {
            crate::mark!("serf.own_intent_outdone");
            self.announce_join(now, out);
        }
    }
}
