//! The leader's lease: until when it may answer reads alone (Raft thesis §6.4.1; raft.md §7.2).
//!
//! Invariant: while a lease holds, no other server has been elected, since a quorum sticks to this
//! leader for at least a heartbeat timeout after each request it answered, and a restarted member
//! of that quorum votes for nobody during its embargo (INV-RAFT-10). The lease counts from the
//! time of sending, on the leader's own clock.

use super::leader::Leader;
use super::quorum;
use super::shared::Shared;
use crate::mutant;
use crate::time::Instant;
use std::time::Duration;

impl Leader {
    /// Until when this leader may answer reads from its own state; `None` before the state holds
    /// everything committed in earlier terms, once another server has the permission to be elected
    /// (raft.md §8), and while the own disk does not answer: the state falls behind then, and
    /// another server is about to take over (§5.2).
    pub(super) fn lease_until(&self, shared: &Shared, now: Instant) -> Option<Instant> {
        let (id, configuration) = (shared.id(), shared.configs.latest());
        let void = self.lease_void && !mutant!(M16);
        let void = void || (shared.disk_stalled(now) && !mutant!(M58));
        if shared.applied < self.noop || !configuration.is_voter(id) || void {
            return None;
        }
        if configuration.is_sole_voter(id) {
            // Nobody else can be elected before another configuration is appended here.
            return Some(Instant::from_nanos(u64::MAX));
        }
        let sent = quorum::reached_by_quorum(&configuration.voters, |voter| {
            let peer = self.peers.get(voter).and_then(|peer| peer.progress.acked_send);
            if *voter == id { Some(now) } else { peer }
        })??;
        // A follower with a shorter patience of its own deserts the leader sooner.
        let patience = self.peers.values().map(|peer| peer.progress.patience / 2).min();
        let patience = patience.filter(|_| !mutant!(M54));
        let length = shared.settings.timing.lease_timeout;
        Some(sent + length.min(patience.unwrap_or(Duration::MAX)))
    }
}
