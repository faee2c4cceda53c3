//! In which direction datagrams get lost between this member and one that is alive all the same.
//!
//! Differs: memberlist warns at every probe that only a stream gets through, for as long as that
//! lasts, and leaves open who does not hear whom (gossip-protocol.md §28). Here each such member is
//! watched from the first direct ping that it leaves unanswered until the next that it answers, and
//! two lines tell it: one at the beginning if only a stream got through, and one as soon as the
//! direction is known. What can be known:
//!
//! - A datagram of the member arrived since: its datagrams reach this member, so the pings do not
//!   reach it.
//! - None did in a time in which it must have pinged this member, as it pings everybody: its
//!   datagrams do not reach this member. Whether those to it arrive stays open.

use super::trace::Way;
use super::{Gossip, GossipOutput, GossipTrace, Peer};
use crate::id::NodeName;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Members watched at once; the trouble of further ones is not told.
const WATCHED_MAX: usize = 256;
/// Pings in a row without an answer before a direction is concluded: one may just be lost.
const MISSED_MIN: u32 = 3;
/// Passes of its probe list in which a member must have pinged everybody: two, and as many again
/// for one that is slow.
const PASSES: u32 = 4;
/// How long what was told of a member is not told again.
const TOLD_FOR: Duration = Duration::from_secs(3600);

/// What is told of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Trouble,
    Direction,
}

/// A member whose last direct pings got no answer, but that is alive.
#[derive(Clone, Debug)]
struct Watched {
    name: NodeName,
    since: Instant,
    /// Direct pings in a row without an answer.
    missed: u32,
    /// Whether a datagram of it arrived since.
    heard: bool,
}

/// All such members.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    watched: BTreeMap<SocketAddr, Watched>,
    told: BTreeSet<(SocketAddr, Told)>,
    told_since: Instant,
}

impl Reach {
    /// Nobody watched yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { watched: BTreeMap::new(), told: BTreeSet::new(), told_since: now }
    }

    /// A datagram came from `address`.
    pub(super) fn heard(&mut self, address: &SocketAddr) {
        if !self.watched.is_empty()
            && let Some(watched) = self.watched.get_mut(address)
        {
            watched.heard = true;
        }
    }

    /// Whoever is at `address` answered a direct ping, or is not known to be alive any more.
    pub(super) fn clear(&mut self, address: &SocketAddr) {
        self.watched.remove(address);
    }

    /// Whether it is time to tell this of the member at `address`.
    fn may_tell(&mut self, now: Instant, address: SocketAddr, what: Told) -> bool {
        if now.since(self.told_since) > TOLD_FOR {
            self.told.clear();
            self.told_since = now;
        }
        self.told.len() < 2 * WATCHED_MAX && self.told.insert((address, what))
    }
}

impl Gossip {
    /// A direct ping of `peer` got no answer, but the peer answered by another `way`.
    pub(super) fn answered_otherwise(
        &mut self,
        now: Instant,
        peer: Peer,
        way: Way,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Peer { name, address, .. } = peer;
        let Reach { watched, .. } = &mut self.reach;
        if watched.len() >= WATCHED_MAX && !watched.contains_key(&address) {
            return;
        }
        let new = || Watched { name: name.clone(), since: now, missed: 0, heard: false };
        let watch = watched.entry(address).or_insert_with(new);
        if watch.name != name {
            *watch = new();
        }
        watch.missed = watch.missed.saturating_add(1);
        let (missed, silent, heard) = (watch.missed, now.since(watch.since), watch.heard);
        if way == Way::Stream && self.reach.may_tell(now, address, Told::Trouble) {
            let name = name.clone();
            crate::trace!(out, Level::Warn, GossipTrace::OnlyStream { name });
        }
        let members = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        let must_have_pinged = self.config.probe_interval.saturating_mul(PASSES * members);
        let known = heard || silent >= must_have_pinged;
        if missed >= MISSED_MIN && known && self.reach.may_tell(now, address, Told::Direction) {
            crate::mark!("gossip.direction_told");
            let silent = (!heard).then_some(silent);
            let trace = GossipTrace::OneWay { name, address, way, silent };
            crate::trace!(out, Level::Warn, trace);
        }
    }
}
