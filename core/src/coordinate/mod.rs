//! Network coordinates: where members are, so that round trips can be foretold (Vivaldi §4).
//!
//! Implements gossip-protocol.md §24: eight dimensions and a height, an adjustment from the last
//! samples, gravity towards the origin, and a median over the last round trips to each peer. This
//! is the only module of the core that computes with floating-point numbers, and it uses only
//! operations that every platform rounds alike: `+ - * /` and the square root.
//!
//! Invariants: a coordinate holds finite numbers only; its error is at most 1.5.
//!
//! Differs: a reset forgets the adjustment's samples too, so that one peer far out of range does
//! not spoil the twenty updates after it.

use crate::rng::Rng;
use std::time::Duration;
use thiserror::Error;

/// Dimensions of a position.
pub const DIMENSIONS: usize = 8;

/// The error at the start, and the largest.
const ERROR_MAX: f64 = 1.5;
/// How strongly a sample changes the error.
const ERROR_SHARE: f64 = 0.25;
/// How strongly a sample moves the position.
const FORCE_SHARE: f64 = 0.25;
/// Samples that the adjustment is made of.
const ADJUSTMENT_SAMPLES: usize = 20;
/// What their sum is divided by: twice their number, since both ends of a distance are adjusted.
const ADJUSTMENT_DIVISOR: f64 = 40.0;
/// The smallest height, in seconds.
const HEIGHT_MIN: f64 = 1e-5;
/// Round trips of one peer that the median is taken of.
const FILTER_SAMPLES: usize = 3;
/// The distance from the origin, in seconds, at which gravity moves by one second.
const GRAVITY_RHO: f64 = 150.0;
/// What counts as zero, in seconds.
const ZERO: f64 = 1e-6;
/// By how much a foretold round trip must change at least to be worth telling, in seconds.
const NEWS_MIN: f64 = 1e-3;
/// And by which share of the way to the origin.
const NEWS_SHARE: f64 = 0.2;
/// How much smaller an error must be to be worth telling.
const NEWS_TRUST: f64 = 2.0;
/// Nanoseconds in a second.
const NANOS: f64 = 1e9;
/// The longest round trip that is believed.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

type Vector = [f64; DIMENSIONS];

/// Where a member is; all numbers are seconds and finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinate {
    position: Vector,
    error: f64,
    height: f64,
    adjustment: f64,
}

/// No number is NaN, so every coordinate equals itself.
impl Eq for Coordinate {}

impl Coordinate {
    /// Where everybody starts.
    pub const ORIGIN: Self =
        Self { position: [0.0; DIMENSIONS], error: ERROR_MAX, height: HEIGHT_MIN, adjustment: 0.0 };

    /// A coordinate of these numbers; `None` if one is not finite.
    pub fn new(
        position: [f64; DIMENSIONS],
        error: f64,
        height: f64,
        adjustment: f64,
    ) -> Option<Self> {
        let coordinate = Self { position, error, height, adjustment };
        coordinate.is_finite().then_some(coordinate)
    }

    /// The position.
    pub const fn position(&self) -> &[f64; DIMENSIONS] {
        &self.position
    }

    /// How little it is trusted.
    pub const fn error(&self) -> f64 {
        self.error
    }

    /// The way to the core of the network.
    pub const fn height(&self) -> f64 {
        self.height
    }

    /// What is added to every distance.
    pub const fn adjustment(&self) -> f64 {
        self.adjustment
    }

    fn is_finite(&self) -> bool {
        let rest = [self.error, self.height, self.adjustment];
        self.position.iter().chain(&rest).all(|number| number.is_finite())
    }

    /// The round trip between two members, as their coordinates foretell it.
    ///
    /// - Units: whole nanoseconds, truncated. A sum of adjustments that would make the distance
    ///   negative is left out.
    pub fn distance(&self, other: &Self) -> Duration {
        let raw = self.raw_distance(other);
        let adjusted = raw + self.adjustment + other.adjustment;
        let seconds = if adjusted > 0.0 { adjusted } else { raw };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast truncates and saturates, which is what is wanted"
        )]
        Duration::from_nanos((seconds * NANOS) as u64)
    }

    /// Whether readers of `old` should be told that the member is here now.
    ///
    /// It is so if the round trip to some place may be foretold differently, by more than 1 ms
    /// and a fifth of the way from here to the origin, or if this one is trusted twice as much. A
    /// member at rest keeps wandering a little; that alone is no news.
    pub fn is_news_to(&self, old: &Self) -> bool {
        let apart = magnitude(&difference(&self.position, &old.position))
            + (self.height - old.height).abs()
            + (self.adjustment - old.adjustment).abs();
        let way = magnitude(&self.position) + self.height;
        apart > NEWS_MIN + way * NEWS_SHARE || self.error * NEWS_TRUST < old.error
    }

    fn raw_distance(&self, other: &Self) -> f64 {
        magnitude(&difference(&self.position, &other.position)) + self.height + other.height
    }

    /// Moved by `force` away from `other`.
    fn pushed(&self, force: f64, other: &Self, rng: &mut Rng) -> Self {
        let (direction, length) = direction(&self.position, &other.position, rng);
        let mut moved = self.clone();
        for (at, along) in moved.position.iter_mut().zip(direction) {
            *at += along * force;
        }
        if length > ZERO {
            let height = (moved.height + other.height) * force / length + moved.height;
            moved.height = height.max(HEIGHT_MIN);
        }
        moved
    }
}

fn difference(a: &Vector, b: &Vector) -> Vector {
    let mut difference = *a;
    difference.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
    difference
}

fn magnitude(vector: &Vector) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The unit vector from `b` to `a` and their distance; a random one and zero where they coincide.
fn direction(a: &Vector, b: &Vector, rng: &mut Rng) -> (Vector, f64) {
    let apart = difference(a, b);
    let length = magnitude(&apart);
    if length > ZERO {
        return (apart.map(|x| x / length), length);
    }
    let random = [(); DIMENSIONS].map(|()| fraction(rng) - 0.5);
    let length = magnitude(&random);
    if length > ZERO {
        return (random.map(|x| x / length), 0.0);
    }
    let mut first = [0.0; DIMENSIONS];
    if let Some(x) = first.first_mut() {
        *x = 1.0;
    }
    (first, 0.0)
}

/// A uniform number in `[0, 1)` of 32 random bits.
fn fraction(rng: &mut Rng) -> f64 {
    let bits = u32::try_from(rng.bits() >> 32).expect("32 bits remain of 64");
    f64::from(bits) / 4_294_967_296.0
}

/// Why a sample was refused. Nothing changed; the peer or the clock is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a round trip of {0:?} is longer than {ROUND_TRIP_MAX:?}")]
pub struct RoundTripTooLong(pub Duration);

/// This member's coordinate in one pool, and what it is made of.
#[derive(Clone, Debug)]
pub struct Vivaldi {
    own: Coordinate,
    samples: [f64; ADJUSTMENT_SAMPLES],
    next_sample: usize,
    resets: u64,
}

impl Default for Vivaldi {
    fn default() -> Self {
        Self {
            own: Coordinate::ORIGIN,
            samples: [0.0; ADJUSTMENT_SAMPLES],
            next_sample: 0,
            resets: 0,
        }
    }
}

/// The newest round trips of one peer, in seconds, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrips {
    kept: [f64; FILTER_SAMPLES],
    count: usize,
}

impl RoundTrips {
    /// Keeps one more; returns the median of all that are kept.
    fn median_with(&mut self, seconds: f64) -> f64 {
        if self.count == FILTER_SAMPLES {
            self.kept.rotate_left(1);
            self.count -= 1;
        }
        if let Some(place) = self.kept.get_mut(self.count) {
            *place = seconds;
        }
        self.count += 1;
        let mut sorted = self.kept;
        let sorted = sorted.get_mut(..self.count).unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(seconds)
    }
}

impl Vivaldi {
    /// Where this member is.
    pub const fn own(&self) -> &Coordinate {
        &self.own
    }

    /// How often the coordinate went out of range and began anew.
    pub const fn resets(&self) -> u64 {
        self.resets
    }

    /// Moves this member by a round trip to a peer, which is at `other`; `kept` are the earlier
    /// ones to the same peer.
    ///
    /// - Source: gossip-protocol.md §24; Vivaldi §3.3.
    pub fn update(
        &mut self,
        kept: &mut RoundTrips,
        other: &Coordinate,
        round_trip: Duration,
        rng: &mut Rng,
    ) -> Result<(), RoundTripTooLong> {
        if round_trip > ROUND_TRIP_MAX {
            return Err(RoundTripTooLong(round_trip));
        }
        let seconds = kept.median_with(round_trip.as_secs_f64());
        self.attract(other, seconds, rng);
        self.adjust(other, seconds);
        self.gravitate(rng);
        if !self.own.is_finite() {
            crate::mark!("coordinate.reset");
            self.resets += 1;
            self.own = Coordinate::ORIGIN;
            self.samples = [0.0; ADJUSTMENT_SAMPLES];
        }
        Ok(())
    }

    fn attract(&mut self, other: &Coordinate, seconds: f64, rng: &mut Rng) {
        let distance = self.own.distance(other).as_secs_f64();
        let seconds = seconds.max(ZERO);
        let wrongness = (distance - seconds).abs() / seconds;
        // A peer that claims a negative error would make this one's grow without bound.
        let weight = self.own.error / (self.own.error + other.error.max(0.0)).max(ZERO);
        let share = ERROR_SHARE * weight;
        let error = share * wrongness + self.own.error * (1.0 - share);
        self.own.error = error.min(ERROR_MAX);
        let force = FORCE_SHARE * weight * (seconds - distance);
        self.own = self.own.pushed(force, other, rng);
    }

    fn adjust(&mut self, other: &Coordinate, seconds: f64) {
        let sample = seconds - self.own.raw_distance(other);
        if let Some(slot) = self.samples.get_mut(self.next_sample) {
            *slot = sample;
        }
        self.next_sample = (self.next_sample + 1) % ADJUSTMENT_SAMPLES;
        self.own.adjustment = self.samples.iter().sum::<f64>() / ADJUSTMENT_DIVISOR;
    }

    fn gravitate(&mut self, rng: &mut Rng) {
        let distance = Coordinate::ORIGIN.distance(&self.own).as_secs_f64();
        let pull = distance / GRAVITY_RHO;
        self.own = self.own.pushed(-(pull * pull), &Coordinate::ORIGIN, rng);
    }
}

#[cfg(test)]
mod tests;
