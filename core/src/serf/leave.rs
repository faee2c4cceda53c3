//! Leaving: the intent first, then the membership protocol's own farewell, then a short silence.
//!
//! Implements gossip-protocol.md §14 and §17. Each step has a time limit, after which the next one
//! begins; alone, there is nobody to wait for.

use super::member::MemberStatus;
use super::{Serf, SerfOutput, SerfTrace, Timer};
use crate::gossip::BroadcastId;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;

/// Where this member stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It takes part.
    Active,
    /// Its leave intent is spreading.
    Announcing(BroadcastId),
    /// The membership protocol announces the leave.
    Withdrawing,
    /// Everything is said; it still answers for a while.
    Propagating,
    /// It left.
    Left,
}

impl Serf {
    /// Begins to leave.
    pub(super) fn leave(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        match self.life {
            Life::Active => {}
            Life::Announcing(_) | Life::Withdrawing | Life::Propagating => return,
            Life::Left => {
                out.push(SerfOutput::LeaveFinished);
                return;
            }
        }
        self.snapshot.leave(self.config.rejoin_after_leave);
        self.flush(out);
        self.broadcasts += 1;
        let id = BroadcastId(self.broadcasts);
        self.life = Life::Announcing(id);
        let intent = self.announce_leave(now, self.local.clone(), false, out);
        if self.has_company() {
            let name = self.local.clone();
            self.spread(name.as_str(), intent, Some(id), out);
            self.timers.set(Timer::LeaveStep, now + self.config.broadcast_timeout);
        } else {
            crate::mark!("serf.left_alone");
            self.withdraw(now, out);
        }
    }

    /// The leave intent was sent often enough.
    pub(super) fn broadcast_spread(
        &mut self,
        now: Instant,
        id: BroadcastId,
        out: &mut Outbox<SerfOutput>,
    ) {
        if self.life == Life::Announcing(id) {
            self.withdraw(now, out);
        }
    }

    fn withdraw(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        self.life = Life::Withdrawing;
        self.timers.set(Timer::LeaveStep, now + self.config.broadcast_timeout);
        out.push(SerfOutput::GossipLeave);
    }

    /// The membership protocol told of the leave often enough.
    pub(super) fn leave_spread(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        if self.life != Life::Withdrawing {
            return;
        }
        if self.has_company() {
            self.life = Life::Propagating;
            self.timers.set(Timer::LeaveStep, now + self.config.leave_propagate_delay);
        } else {
            self.finish_leave(out);
        }
    }

    /// A step of the leave took its time.
    pub(super) fn leave_step(&mut self, now: Instant, out: &mut Outbox<SerfOutput>) {
        match self.life {
            Life::Announcing(_) => {
                crate::trace!(out, Level::Warn, SerfTrace::LeaveTimeout { step: "leave intent" });
                self.withdraw(now, out);
            }
            Life::Withdrawing => {
                crate::trace!(out, Level::Warn, SerfTrace::LeaveTimeout { step: "leave" });
                self.leave_spread(now, out);
            }
            Life::Propagating => self.finish_leave(out),
            Life::Active | Life::Left => {}
        }
    }

    fn finish_leave(&mut self, out: &mut Outbox<SerfOutput>) {
        self.life = Life::Left;
        self.timers.cancel(&Timer::LeaveStep);
        if let Some(entry) = self.members.get_mut(&self.local) {
            entry.member_mut().status = MemberStatus::Left;
            self.version += 1;
        }
        out.push(SerfOutput::LeaveFinished);
    }

    /// Whether another member is alive.
    pub(crate) fn has_company(&self) -> bool {
        let alive = |status| status == MemberStatus::Alive;
        self.members.values().any(|e| e.member.name != self.local && alive(e.member.status))
    }

    /// Whether this member takes part, as opposed to being on its way out.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self.life, Life::Active)
    }
}
