//! Messages that had no effect: all counted, each source and reason told once.
//!
//! A hostile source must not be able to fill the log: what was told is remembered in a bounded
//! table, and when that is full nothing more is told until it is forgotten.

use super::{GossipOutput, GossipTrace};
use crate::gossip::trace::DropReason;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::DecodeError;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Pairs of source and reason remembered.
const TOLD_MAX: usize = 256;
/// How long they are remembered.
const TOLD_FOR: Duration = Duration::from_secs(3600);

/// The count of dropped messages and the memory of what was told.
#[derive(Clone, Debug)]
pub(super) struct Drops {
    count: u64,
    told: BTreeSet<(IpAddr, &'static str)>,
    told_since: Instant,
}

impl Drops {
    /// Nothing dropped yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { count: 0, told: BTreeSet::new(), told_since: now }
    }

    /// Messages dropped in this run.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Counts a drop, and tells it if this source and reason are not known yet.
    pub(super) fn drop(
        &mut self,
        now: Instant,
        from: SocketAddr,
        reason: DropReason,
        out: &mut Outbox<GossipOutput>,
    ) {
        self.count += 1;
        if self.is_news(now, from, kind(&reason)) {
            crate::trace!(out, Level::Warn, GossipTrace::Dropped { from, reason });
        }
    }

    /// Whether `what` was not told of this source yet; it counts as told then.
    pub(super) fn is_news(&mut self, now: Instant, from: SocketAddr, what: &'static str) -> bool {
        if now.since(self.told_since) > TOLD_FOR {
            self.told.clear();
            self.told_since = now;
        }
        self.told.len() < TOLD_MAX && self.told.insert((from.ip(), what))
    }
}

/// The kind of a reason: details that a sender chooses do not make it another one.
const fn kind(reason: &DropReason) -> &'static str {
    match reason {
        DropReason::Malformed(_) => "malformed",
        DropReason::Closed(DecodeError::Sealed { .. }) => "key",
        DropReason::Closed(DecodeError::Layer { .. }) => "encryption",
        DropReason::Closed(_) => "label",
        DropReason::NotMe(_) => "not me",
        DropReason::Versions(_) => "versions",
        DropReason::Incarnation(_) => "incarnation",
        DropReason::TooManyMembers(_) => "members",
        DropReason::TooManyRelays => "relays",
        DropReason::TooManyStreams => "streams",
        DropReason::Refused(_) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_told_once_for_each_reason_and_counted_every_time() {
        let mut out = Outbox::new(Level::Trace);
        let mut drops = Drops::new(Instant::ZERO);
        let malformed = |field| DropReason::Malformed(DecodeError::Truncated { field });
        for port in 1..400 {
            let from = SocketAddr::from(([10, 0, 0, 1], port));
            drops.drop(Instant::ZERO, from, malformed("a"), &mut out);
            drops.drop(Instant::ZERO, from, DropReason::TooManyRelays, &mut out);
        }
        assert_eq!(drops.count(), 798);
        assert_eq!(out.drain().count(), 2);
    }
}
