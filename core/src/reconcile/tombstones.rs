//! Deleted keys that nobody needs to remember any longer (http-api.md §1.6).
//!
//! A replica must not look at its own clock to forget a tombstone, so the leader watches how the
//! index of the newest deletion moves, and once that is `tombstone_time` ago lets all forget
//! what was deleted up to there. A new leader starts to watch anew.

use super::*;
use crate::id::ModifyIndex;
use std::collections::VecDeque;

/// How often the leader looks while a deletion is remembered: by so much more than its time it is.
const LOOKS: u32 = 15;

/// What the leader saw of deletions.
#[derive(Clone, Debug, Default)]
pub(super) struct Tombstones {
    /// When the newest deletion was seen to have which index, oldest first.
    seen: VecDeque<(Instant, ModifyIndex)>,
    in_flight: Option<Reaping>,
}

/// A command on its way.
#[derive(Clone, Copy, Debug)]
struct Reaping {
    ticket: ReconcileTicket,
    index: ModifyIndex,
    since: Instant,
}

impl Reconcile {
    /// Sets the time of the next look.
    pub(super) fn await_deletions(&mut self, now: Instant) {
        self.timers.set(DutyTimer::Tombstones, now + self.settings.tombstone_time / LOOKS);
    }

    /// Looks at the newest deletion, and lets go of what is old enough.
    pub(super) fn reap_tombstones(
        &mut self,
        now: Instant,
        world: &World<'_>,
        out: &mut ReconcileOutbox,
    ) {
        self.await_deletions(now);
        let time = if crate::mutant!(M59) { Duration::ZERO } else { self.settings.tombstone_time };
        let seen = &mut self.tombstones.seen;
        let newest = world.tables.newest_deletion();
        if let Some(index) = newest.filter(|index| seen.back().is_none_or(|(_, at)| at < index)) {
            seen.push_back((now, index));
        }
        if self.tombstones.in_flight.is_some() {
            return;
        }
        let old = seen.iter().take_while(|(at, _)| now.since(*at) >= time);
        let Some((_, index)) = old.last().copied() else { return };
        crate::mark!("reconcile.tombstones");
        let ticket = self.ticket();
        self.tombstones.in_flight = Some(Reaping { ticket, index, since: now });
        let command = Box::new(Command::ReapTombstones(index));
        out.push(ReconcileOutput::Propose { ticket, command });
    }

    /// Whether the step was a reaping; one that failed is tried again at the next look.
    pub(super) fn tombstones_reaped(
        &mut self,
        now: Instant,
        ticket: ReconcileTicket,
        result: &Result<(), StepError>,
    ) -> bool {
        let wanted = |flight: &mut Reaping| flight.ticket == ticket;
        let Some(flight) = self.tombstones.in_flight.take_if(wanted) else { return false };
        self.times.reapings.record_since(flight.since, now);
        if result.is_ok() {
            self.tombstones.seen.retain(|(_, at)| *at > flight.index);
        }
        true
    }
}
