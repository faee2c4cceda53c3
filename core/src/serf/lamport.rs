//! Lamport clocks: an order on intents that no wall clock gives.
//!
//! Implements gossip-wire.md §11.1. A clock starts at 1; whoever says something stamps it with the
//! present value and then counts on; whoever hears a time at or above its own goes above it.

use crate::id::LamportTime;

/// How far ahead of this member's clock a time may be to be believed, so that one forged message
/// cannot use up the times.
const JUMP_MAX: u64 = 1 << 40;

/// One Lamport clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct LamportClock(LamportTime);

impl LamportClock {
    /// A clock at 1.
    pub(super) const fn new() -> Self {
        Self(LamportTime::new(1))
    }

    /// The present value: the time of the next thing said.
    pub(super) const fn now(self) -> LamportTime {
        self.0
    }

    /// The newest time that was seen.
    pub(super) const fn seen(self) -> LamportTime {
        LamportTime::new(self.0.get().saturating_sub(1))
    }

    /// A time for something said now.
    pub(super) const fn tick(&mut self) -> LamportTime {
        let now = self.0;
        self.0 = now.next();
        now
    }

    /// Takes note of a time heard; `false` if it is too far ahead to be believed.
    pub(super) fn witness(&mut self, time: LamportTime) -> bool {
        if time.get().saturating_sub(self.0.get()) > JUMP_MAX {
            return false;
        }
        if time >= self.0 {
            self.0 = time.next();
        }
        true
    }

    /// Takes note of another member's present value, which it has not given to anything yet.
    pub(super) fn witness_present(&mut self, time: LamportTime) -> bool {
        time == LamportTime::ZERO || self.witness(LamportTime::new(time.get() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_above_everything_it_hears() {
        let mut clock = LamportClock::new();
        assert_eq!(clock.tick(), LamportTime::new(1));
        assert!(clock.witness(LamportTime::new(10)));
        assert_eq!(clock.now(), LamportTime::new(11));
        assert!(clock.witness(LamportTime::new(3)));
        assert_eq!(clock.now(), LamportTime::new(11));
        assert!(clock.witness_present(LamportTime::new(11)));
        assert_eq!(clock.now(), LamportTime::new(11));
        assert!(clock.witness_present(LamportTime::ZERO));
    }

    #[test]
    fn one_forged_time_cannot_use_up_the_clock() {
        let mut clock = LamportClock::new();
        assert!(!clock.witness(LamportTime::new(u64::MAX)));
        assert_eq!(clock.now(), LamportTime::new(1));
    }
}
