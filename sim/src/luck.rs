//! Luck: randomness that belongs to what it decides (simulation.md D5, §11.2).
//!
//! How late a datagram is depends on the seed, on its link and on the moment it is sent, not on how
//! often anything was drawn before that moment. So a fault or an operation that is taken out of a
//! world does not shift the luck of all that follows, and what failed with it may still fail
//! without it.

use std::time::Duration;
use terraform_core::rng::Seed;
use terraform_core::time::Instant;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The fate of a datagram.
    Datagram,
    /// How late a part of a stream is.
    Stream,
    /// How long a disk takes.
    Disk,
    /// What a crash spares.
    Crash,
    /// How long a check takes.
    Check,
    /// What a process draws by itself.
    Process,
    /// How wrong a clock goes.
    Clock,
    /// What is unusual, but legal, in what a host does.
    Unusual,
    /// When a host starts for the first time.
    Birth,
    /// Which servers are healed first.
    Quorum,
    /// Which servers are left, and what befalls them when they begin anew.
    Disaster,
    /// How long deletions are remembered.
    Tombstones,
}

/// The luck of one thing, as a stream of numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Luck(u64);

impl Luck {
    /// The luck in the world of `seed` of what `key` names and what happens at `at`.
    pub fn of(seed: u64, purpose: Purpose, key: u64, at: Instant) -> Self {
        let keys = [purpose as u64, key, at.as_nanos()];
        Self(keys.into_iter().fold(mix(seed), |hash, key| mix(hash ^ key)))
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// A uniform number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A uniform duration in `[0, span)`.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// True with probability `numerator / denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// The seed of a generator for what needs many numbers.
    pub fn seed(mut self) -> Seed {
        Seed::from_number(self.bits())
    }
}

const fn mix(number: u64) -> u64 {
    finish(number.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

const fn finish(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_belongs_to_its_seed_purpose_key_and_moment() {
        let at = Instant::from_nanos;
        let bits = |seed, purpose, key, nanos| Luck::of(seed, purpose, key, at(nanos)).bits();
        let one = bits(1, Purpose::Disk, 2, 3);
        assert_eq!(one, bits(1, Purpose::Disk, 2, 3));
        let others = [
            bits(2, Purpose::Disk, 2, 3),
            bits(1, Purpose::Crash, 2, 3),
            bits(1, Purpose::Disk, 3, 3),
            bits(1, Purpose::Disk, 2, 4),
            bits(1, Purpose::Disk, 3, 2),
        ];
        assert!(!others.contains(&one));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut met = [0; 8];
        for nanos in 0..8000 {
            let mut luck = Luck::of(7, Purpose::Datagram, 1, Instant::from_nanos(nanos));
            luck.bits();
            met[usize::try_from(luck.below(8)).unwrap_or(0)] += 1;
        }
        assert!(met.iter().all(|count| (850..1150).contains(count)), "{met:?}");
    }
}
