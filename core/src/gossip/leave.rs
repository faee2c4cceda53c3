//! Leaving on purpose: one last fact, told often enough, then answering probes until the end.
//!
//! Implements gossip-protocol.md §14. A leaving member announces its own death, which its peers
//! read as "left"; it probes nobody any more but still answers, so that nobody suspects it before
//! the fact arrived. Whoever waits for the leave bounds the waiting (the Serf layer does).

use super::broadcast::Notify;
use super::{Gossip, GossipOutput, GossipTrace, Timer};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::{Dead, Message, PeerState};

/// Where a member stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It takes part.
    Active,
    /// It announced its leave, which is still spreading.
    Leaving,
    /// Its leave was told often enough.
    Left,
}

impl Gossip {
    /// Announces that this member leaves.
    pub(super) fn leave(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        match self.life {
            Life::Active => {}
            Life::Leaving => return,
            Life::Left => {
                out.push(GossipOutput::LeaveSpread);
                return;
            }
        }
        crate::trace!(out, Level::Debug, GossipTrace::Leaving);
        self.life = Life::Leaving;
        self.abandon_probe(out);
        self.timers.cancel(&Timer::ProbeTick);
        self.timers.cancel(&Timer::PushPullTick);
        let record = self.table.own_mut();
        record.state = PeerState::Left;
        record.changed_at = now;
        let incarnation = record.peer.incarnation;
        let (node, from) = (self.local.clone(), self.local.clone());
        let fact = Message::Dead(Dead { incarnation, node, from });
        let about = self.local.clone();
        self.broadcast_fact(about.as_str(), &fact, Notify::Leave, out);
        if !self.has_company() {
            crate::mark!("gossip.left_alone");
            self.leave_spread(out);
        }
    }

    /// The leave was told often enough, or nobody is there to hear it.
    pub(super) fn leave_spread(&mut self, out: &mut Outbox<GossipOutput>) {
        if self.life == Life::Leaving {
            self.life = Life::Left;
            out.push(GossipOutput::LeaveSpread);
        }
    }
}
