//! Local health: how much this member should doubt its own verdicts (Lifeguard §IV-A, LHA-Probe).
//!
//! Implements gossip-protocol.md §4. The score stays in `0..multiplier_max` and stretches only the
//! probe interval, as memberlist does.
//!
//! Differs: the paper also stretches the probe timeout; the recorded program does not.

use std::time::Duration;

/// The local health score; 0 is healthy.
#[derive(Clone, Debug)]
pub(super) struct Awareness {
    score: u32,
    multiplier_max: u32,
}

impl Awareness {
    /// A healthy member whose score stays below `multiplier_max`.
    pub(super) const fn new(multiplier_max: u32) -> Self {
        Self { score: 0, multiplier_max }
    }

    /// The score.
    pub(super) const fn score(&self) -> u32 {
        self.score
    }

    /// A probe succeeded.
    pub(super) fn improve(&mut self) {
        if self.score > 0 {
            crate::mark!("gossip.awareness_down");
        }
        self.score = self.score.saturating_sub(1);
    }

    /// Something spoke against this member's own health, `by` times.
    pub(super) fn worsen(&mut self, by: u32) {
        if by > 0 {
            crate::mark!("gossip.awareness_up");
        }
        self.score = self.score.saturating_add(by).min(self.multiplier_max.saturating_sub(1));
    }

    /// `interval` stretched by the score.
    pub(super) fn scale(&self, interval: Duration) -> Duration {
        interval.saturating_mul(self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_within_its_bounds() {
        let mut health = Awareness::new(8);
        health.improve();
        assert_eq!(health.score(), 0);
        health.worsen(100);
        assert_eq!(health.score(), 7);
        health.improve();
        assert_eq!(health.score(), 6);
    }

    #[test]
    fn the_interval_grows_with_the_score() {
        let mut health = Awareness::new(8);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(1));
        health.worsen(7);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(8));
    }
}
