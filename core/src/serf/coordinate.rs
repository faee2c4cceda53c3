//! Where members are: this member's coordinate goes out with its acks, those of others come in.
//!
//! Implements gossip-protocol.md §24 and gossip-wire.md §11.9 for one pool; the arithmetic is
//! [`crate::coordinate`]'s. Only members that are known are remembered, and forgetting a member
//! forgets where it was.

use super::{Serf, SerfOutput, SerfTrace};
use crate::coordinate::{Coordinate, Vivaldi};
use crate::id::{NodeName, PoolName};
use crate::machine::Outbox;
use crate::rng::{Rng, Seed, Stream};
use crate::trace::Level;
use crate::wire::serf::{decode_coordinate, encode_coordinate};
use std::collections::BTreeMap;
use std::time::Duration;

/// All coordinates of one pool.
#[derive(Clone, Debug)]
pub(super) struct Coordinates {
    vivaldi: Vivaldi,
    /// This member's own and those of members that have told it.
    known: BTreeMap<NodeName, Coordinate>,
    rng: Rng,
}

impl Coordinates {
    /// Nobody's coordinate is known but that of `local`, which is at the origin; nobody's at all
    /// without it.
    pub(super) fn new(local: Option<NodeName>, seed: Seed, pool: PoolName) -> Self {
        let stream = match pool {
            PoolName::Lan => Stream::Coordinate,
            PoolName::Wan => Stream::CoordinateWan,
        };
        let rng = Rng::for_stream(seed, stream);
        let vivaldi = Vivaldi::default();
        let known = local.map(|name| (name, vivaldi.own().clone())).into_iter().collect();
        Self { vivaldi, known, rng }
    }

    /// Forgets where a member was.
    pub(super) fn forget(&mut self, name: &NodeName) {
        self.known.remove(name);
        self.vivaldi.forget(name);
    }
}

impl Serf {
    /// Where members are that have told it, this one among them.
    pub const fn coordinates(&self) -> &BTreeMap<NodeName, Coordinate> {
        &self.coordinates.known
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
        if !self.config.coordinates || !self.members.contains_key(&peer) {
            return;
        }
        let coordinate = match decode_coordinate(payload) {
            Ok(coordinate) => coordinate,
            Err(error) => {
                crate::trace!(out, Level::Debug, SerfTrace::BadCoordinate { name: peer, error });
                return;
            }
        };
        let Coordinates { vivaldi, known, rng } = &mut self.coordinates;
        if let Err(error) = vivaldi.update(&peer, &coordinate, round_trip, rng) {
            crate::trace!(out, Level::Debug, SerfTrace::BadRoundTrip { name: peer, error });
            return;
        }
        crate::mark!("serf.coordinate_moved");
        for (name, place) in [(&peer, &coordinate), (&self.local, vivaldi.own())] {
            match known.get_mut(name) {
                Some(known) => known.clone_from(place),
                None => drop(known.insert(name.clone(), place.clone())),
            }
        }
        self.tell_coordinate(out);
    }
}
