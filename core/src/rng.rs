//! The only randomness of the core: ChaCha8 streams derived from one seed, one for each purpose.
//!
//! An extra draw in one machine never shifts another machine's draws (simulation.md D4, D5). The
//! generator is cryptographic because identities come from it; the host seeds it freshly from the
//! system at every start.

use crate::time::Instant;
use crate::wire::DecodeError;
use crate::wire::pack::{Pack, Reader, put_blob};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use std::time::Duration;

/// The node's whole randomness: 32 bytes from the system, or from a simulation's seed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of exactly these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A seed spread from one number, for simulations and tests.
    pub fn from_number(number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl Pack for Seed {
    /// Its 32 bytes: key material, so what holds them must be kept secret.
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, &self.0);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = <[u8; 32]>::try_from(input.blob()?);
        bytes.map(Self).map_err(|_| input.invalid("a seed has 32 bytes"))
    }
}

impl std::fmt::Debug for Seed {
    /// Hides the bytes: they are key material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What a stream of randomness is for. Each purpose draws from a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Gossip on the LAN: probe order, gossip targets, staggers, nonces.
    Gossip,
    /// Serf of the LAN pool: reconnect choices.
    Serf,
    /// Elections and heartbeats.
    Raft,
    /// Bootstrap.
    Bootstrap,
    /// Server choice, hold jitter, rebalancing.
    Rpc,
    /// Check staggers.
    Checks,
    /// Anti-entropy staggers.
    AntiEntropy,
    /// Leader duties.
    Reconcile,
    /// Identities made at the first start.
    Identity,
    /// Order of DNS answers; readers derive their own from it.
    Dns,
    /// The node itself: join retries.
    Node,
    /// Network coordinates of the LAN pool: the direction away from a member at the same place.
    Coordinate,
    /// Identities of events.
    Event,
    /// Gossip of the WAN pool.
    GossipWan,
    /// Serf of the WAN pool.
    SerfWan,
    /// Network coordinates of the WAN pool.
    CoordinateWan,
    /// How much longer than asked reads wait.
    Watch,
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of `seed` for one purpose.
    pub fn for_stream(seed: Seed, stream: Stream) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed.0);
        rng.set_stream(stream as u64 + 1);
        Self(rng)
    }

    /// A uniform number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Lemire's multiply-shift; the bias is below 2^-32 for every n used here.
        let wide = u128::from(self.0.next_u64()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A uniform index into a list of `len` items; 0 if the list is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A uniform duration in `[0, span)`.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// A uniform duration in `[low, high)`; `low` if the range is empty.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + self.jitter(high.saturating_sub(low))
    }

    /// `now` plus a uniform duration in `[0, span)`.
    pub fn stagger(&mut self, now: Instant, span: Duration) -> Instant {
        now + self.jitter(span)
    }

    /// True with probability `numerator / denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// Puts `items` into a uniformly random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// 16 random bytes, for identities.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// 12 random bytes, for a message that is sealed.
    pub fn nonce(&mut self) -> [u8; 12] {
        let mut bytes = [0; 12];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let seed = Seed::from_number(7);
        let draw = |stream| Rng::for_stream(seed, stream).bits();
        assert_eq!(draw(Stream::Gossip), draw(Stream::Gossip));
        assert_ne!(draw(Stream::Gossip), draw(Stream::Raft));
    }

    #[test]
    fn a_draw_below_n_stays_below_n_and_reaches_every_value() {
        let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Node);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.index(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
    }
}
