//! One gossip pool that this agent is a member of: the membership protocol, the Serf layer above
//! it, and the streams that carry its exchanges.

use crate::gossip::{Gossip, GossipInput, GossipOutput};
use crate::id::StreamId;
use crate::machine::{Machine as _, Outbox};
use crate::serf::{Serf, SerfInput, SerfOutput};
use crate::time::Instant;
use crate::trace::Level;
use std::collections::BTreeSet;

/// The machines of one pool with their outboxes.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) gossip: Gossip,
    pub(super) serf: Serf,
    pub(super) gossip_out: Outbox<GossipOutput>,
    pub(super) serf_out: Outbox<SerfOutput>,
    /// The streams that belong to this pool.
    pub(super) streams: BTreeSet<StreamId>,
}

impl Pool {
    /// Gives an input to the membership protocol.
    pub(super) fn tell_gossip(&mut self, now: Instant, input: GossipInput) {
        self.gossip.handle(now, input, &mut self.gossip_out);
    }

    /// Gives an input to the Serf layer.
    pub(super) fn tell_serf(&mut self, now: Instant, input: SerfInput) {
        self.serf.handle(now, input, &mut self.serf_out);
    }

    /// Fires every timer that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now, &mut self.gossip_out);
        self.serf.handle_timeout(now, &mut self.serf_out);
    }

    /// Changes which traces are wanted.
    pub(super) fn set_level(&mut self, level: Level) {
        self.gossip_out.set_level(level);
        self.serf_out.set_level(level);
    }
}
