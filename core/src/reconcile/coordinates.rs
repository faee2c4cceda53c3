//! Where members are, into the catalog.
//!
//! Implements cluster-behaviour.md §12. The leader probes every member, so it hears where all of
//! them are, and nobody has to tell it by other means. What is stored is what moved noticeably
//! ([`Coordinate::is_news_to`]) since it was stored, in one command at a time, so a cluster at rest
//! does not write its log.
//!
//! Differs: in Consul 1.8.7 every agent sends its coordinate to a server every 15 s or more, and
//! all of them are stored, moved or not.

use super::*;
use crate::catalog::model::NodeCoordinate;
use crate::coordinate::Coordinate;

/// Coordinates in one command; the others come with the next.
const COORDINATES_MAX: usize = 640;

impl Reconcile {
    /// Stores the coordinates of registered nodes that moved.
    pub(super) fn tell_coordinates(
        &mut self,
        now: Instant,
        world: &World<'_>,
        out: &mut ReconcileOutbox,
    ) {
        self.timers.set(DutyTimer::Coordinates, now + COORDINATES_INTERVAL);
        if self.coordinates_in_flight.is_some() {
            return;
        }
        let moved: Vec<NodeCoordinate> = world
            .coordinates
            .iter()
            .filter_map(|row| news(world, row))
            .take(COORDINATES_MAX)
            .collect();
        if moved.is_empty() {
            return;
        }
        crate::mark!("reconcile.coordinates");
        let ticket = self.ticket();
        self.coordinates_in_flight = Some(ticket);
        let command = Box::new(Command::Coordinates(moved));
        out.push(ReconcileOutput::Propose { ticket, command });
    }

    /// What became of the last command; one that failed is made anew at the next look.
    pub(super) fn coordinates_told(
        &self,
        result: Result<(), StepError>,
        out: &mut ReconcileOutbox,
    ) {
        if let Err(error) = result {
            let failed = ReconcileTrace::StepFailed { of: "coordinates".to_owned(), error };
            crate::trace!(out, Level::Debug, failed);
        }
    }
}

/// The coordinate to store for a member, if its node exists and it moved.
fn news(world: &World<'_>, (name, at): (&NodeName, &Coordinate)) -> Option<NodeCoordinate> {
    let stored = world.tables.coordinate_of(name)?;
    let is_news = stored.is_none_or(|old| at.is_news_to(old));
    let (node, segment, coordinate) = (name.clone(), String::new(), at.clone());
    is_news.then_some(NodeCoordinate { node, segment, coordinate })
}
