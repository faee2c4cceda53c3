//! Where members are: this member's coordinate goes out with its acks, those of others come in.
//!
//! Implements gossip-protocol.md §24 and gossip-wire.md §11.9 for one pool; the arithmetic is
//! [`crate::coordinate`]'s. Only members that are known are remembered, and forgetting a member
//! forgets where it was.

use super::{Serf, SerfOutput, SerfTrace};
use crate::coordinate::{Coordinate, RoundTripTooLong, RoundTrips, Vivaldi};
use crate::id::{NodeName, PoolName};
use crate::machine::Outbox;
use crate::rng::{Rng, Seed, Stream};
use crate::trace::Level;
use crate::wire::serf::{decode_coordinate, encode_coordinate};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the members of one pool are, as they told it in their acks, and this one.
#[derive(Clone, Debug)]
pub struct Coordinates {
    /// This member, if it takes part.
    local: Option<NodeName>,
    vivaldi: Vivaldi,
    others: BTreeMap<NodeName, Place>,
    rng: Rng,
}

/// Where another member is, and how long the way there took.
#[derive(Clone, Debug)]
struct Place {
    coordinate: Coordinate,
    round_trips: RoundTrips,
}

impl Coordinates {
    /// Nobody's coordinate is known but that of `local`, which is at the origin; nobody's at all
    /// without it.
    pub(crate) fn new(local: Option<NodeName>, seed: Seed, pool: PoolName) -> Self {
        let stream = match pool {
            PoolName::Lan => Stream::Coordinate,
            PoolName::Wan => Stream::CoordinateWan,
        };
        let rng = Rng::for_stream(seed, stream);
        Self { local, vivaldi: Vivaldi::default(), others: BTreeMap::new(), rng }
    }

    /// Where `name` is, if that is known.
    pub fn get(&self, name: &NodeName) -> Option<&Coordinate> {
        if self.local.as_ref() == Some(name) {
            return Some(self.vivaldi.own());
        }
        self.others.get(name).map(|place| &place.coordinate)
    }

    /// All of them: this member's first, the others by name.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &Coordinate)> {
        let own = self.local.iter().map(|name| (name, self.vivaldi.own()));
        own.chain(self.others.iter().map(|(name, place)| (name, &place.coordinate)))
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.others.len() + usize::from(self.local.is_some())
    }

    /// Forgets where a member was.
    pub(super) fn forget(&mut self, name: &NodeName) {
        self.others.remove(name);
    }

    /// Takes a round trip to `peer`, which is at `coordinate`.
    pub(crate) fn moved(
        &mut self,
        peer: &NodeName,
        coordinate: Coordinate,
        round_trip: Duration,
    ) -> Result<(), RoundTripTooLong> {
        let Self { vivaldi, others, rng, .. } = self;
        if let Some(place) = others.get_mut(peer) {
            vivaldi.update(&mut place.round_trips, &coordinate, round_trip, rng)?;
            place.coordinate = coordinate;
            return Ok(());
        }
        let mut round_trips = RoundTrips::default();
        vivaldi.update(&mut round_trips, &coordinate, round_trip, rng)?;
        others.insert(peer.clone(), Place { coordinate, round_trips });
        Ok(())
    }
}

impl Serf {
    /// Where members are that have told it, this one among them.
    pub const fn coordinates(&self) -> &Coordinates {
        &self.coordinates
    }

    /// How often this member's coordinate went out of range and began anew.
    pub const fn coordinate_resets(&self) -> u64 {
        self.coordinates.vivaldi.resets()
    }

    /// Has acks say where this member is.
    pub(super) fn tell_coordinate(&self, out: &mut Outbox<SerfOutput>) {
        if !self.config.coordinates {
            return;
        }
        let payload = encode_coordinate(self.coordinates.vivaldi.own());
        out.push(SerfOutput::SetAckPayload(payload));
    }

    /// A member answered a probe and said where it is.
    pub(super) fn probe_answered(
        &mut self,
        peer: NodeName,
        round_trip: Duration,
        payload: &[u8],
        out: &mut Outbox<SerfOutput>,
    ) {
        // What is known of a member is forgotten with it, so whose place is known is a member.
        let known = self.coordinates.others.contains_key(&peer);
        if !self.config.coordinates || !(known || self.members.contains_key(&peer)) {
            return;
        }
        let coordinate = match decode_coordinate(payload) {
            Ok(coordinate) => coordinate,
            Err(error) => {
                crate::trace!(out, Level::Debug, SerfTrace::BadCoordinate { name: peer, error });
                return;
            }
        };
        let told = self.coordinates.moved(&peer, coordinate, round_trip);
        if let Err(error) = told {
            crate::trace!(out, Level::Debug, SerfTrace::BadRoundTrip { name: peer, error });
            return;
        }
        crate::mark!("serf.coordinate_moved");
        self.tell_coordinate(out);
    }
}
