//! How long a suspicion lasts: shorter with every independent confirmation.
//!
//! Implements gossip-protocol.md §5 (Lifeguard §IV-B, LHA-Suspicion). The first accuser counts as
//! none; every further one moves the timeout on a logarithmic scale from `max` towards `min`.

use super::scale::{log10_nano, suspicion_scale_milli};
use crate::config::GossipConfig;
use crate::id::NodeName;
use crate::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

/// One episode of suspicion.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    /// When it began.
    started: Instant,
    min: Duration,
    max: Duration,
    /// Confirmations that bring the timeout down to `min`.
    wanted: u32,
    /// The first accuser and those who confirmed; at most `wanted + 1`.
    accusers: BTreeSet<NodeName>,
}

impl Suspicion {
    /// A suspicion raised by `accuser` in a cluster of `n` members.
    pub(super) fn new(
        config: &GossipConfig,
        n: usize,
        accuser: NodeName,
        started: Instant,
    ) -> Self {
        let (min, max) = bounds(config, n);
        let wanted = config.suspicion_mult.saturating_sub(2);
        let enough_members = n.saturating_sub(2) >= wanted as usize;
        Self {
            started,
            min,
            max,
            wanted: if enough_members { wanted } else { 0 },
            accusers: BTreeSet::from([accuser]),
        }
    }

    /// Counts `accuser`; `false` if it is known already or no more are wanted.
    pub(super) fn confirm(&mut self, accuser: &NodeName) -> bool {
        if !self.lacks_confirmations() {
            return false;
        }
        self.accusers.insert(accuser.clone())
    }

    /// Whether further accusers would shorten it.
    pub(super) fn lacks_confirmations(&self) -> bool {
        self.confirmations() < self.wanted
    }

    /// Independent accusers beside the first.
    pub(super) fn confirmations(&self) -> u32 {
        u32::try_from(self.accusers.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    /// When the suspect is declared dead.
    pub(super) fn deadline(&self) -> Instant {
        self.started + timeout(self.min, self.max, self.wanted, self.confirmations())
    }
}

/// The shortest and the longest suspicion in a cluster of `n` members.
pub(super) fn bounds(config: &GossipConfig, n: usize) -> (Duration, Duration) {
    let scaled = u128::from(config.suspicion_mult)
        * u128::from(suspicion_scale_milli(n))
        * config.probe_interval.as_nanos()
        / 1000;
    let min = Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX));
    (min, min.saturating_mul(config.suspicion_max_timeout_mult.max(1)))
}

/// `max(min, floor_ms(max - (max - min) · ln(c + 1) / ln(k + 1)))`; `min` if no confirmation is
/// wanted.
fn timeout(min: Duration, max: Duration, wanted: u32, confirmations: u32) -> Duration {
    if wanted == 0 {
        return min;
    }
    let confirmations = if crate::mutant!(M44) { 0 } else { confirmations };
    let part = u128::from(log10_nano(u64::from(confirmations) + 1));
    let whole = u128::from(log10_nano(u64::from(wanted) + 1));
    let off = max.saturating_sub(min).as_nanos() * part / whole;
    let left = max.as_nanos().saturating_sub(off) / 1_000_000;
    Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)).max(min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    #[test]
    fn bounds_agree_with_the_recorded_table() {
        for row in super::super::tests::timers()["suspicion_min_ms"].as_array().unwrap() {
            let duration = |key: &str| Duration::from_secs_f64(row[key].as_f64().unwrap() / 1e3);
            let config = GossipConfig {
                suspicion_mult: u32::try_from(row["mult"].as_u64().unwrap()).unwrap(),
                probe_interval: Duration::from_millis(row["probe_interval_ms"].as_u64().unwrap()),
                ..GossipConfig::lan()
            };
            let n = usize::try_from(row["n"].as_u64().unwrap()).unwrap();
            let (min, max) = bounds(&config, n);
            assert_eq!(min, duration("min_ms"), "{row}");
            assert_eq!(max, duration("max_ms"), "{row}");
        }
    }

    #[test]
    fn remaining_time_agrees_with_the_recorded_table() {
        for row in super::super::tests::timers()["suspicion_remaining_ms"].as_array().unwrap() {
            let number = |key: &str| row[key].as_i64().unwrap();
            let unsigned = |key: &str| row[key].as_u64().unwrap();
            let wanted = u32::try_from(unsigned("k")).unwrap();
            let confirmations = u32::try_from(unsigned("confirmations")).unwrap();
            let min = Duration::from_millis(unsigned("min"));
            let total = timeout(min, Duration::from_millis(unsigned("max")), wanted, confirmations);
            let remaining = i64::try_from(total.as_millis()).unwrap() - number("elapsed");
            assert_eq!(remaining, number("remaining"), "{row}");
        }
    }

    #[test]
    fn suspicion_shrinks_with_confirmations() {
        let config = GossipConfig::lan();
        let mut suspicion = Suspicion::new(&config, 10, name("a"), Instant::ZERO);
        assert_eq!(suspicion.deadline(), Instant::ZERO + Duration::from_secs(24));
        assert!(!suspicion.confirm(&name("a")), "the first accuser is no confirmation");
        assert!(suspicion.confirm(&name("b")));
        assert_eq!(suspicion.deadline(), Instant::ZERO + Duration::from_millis(11_381));
        assert!(suspicion.confirm(&name("c")));
        assert_eq!(suspicion.deadline(), Instant::ZERO + Duration::from_secs(4));
        assert!(!suspicion.confirm(&name("d")), "two confirmations are enough");
        assert_eq!(suspicion.confirmations(), 2);
    }

    #[test]
    fn tiny_clusters_wait_only_the_shortest_time() {
        let config = GossipConfig::lan();
        let suspicion = Suspicion::new(&config, 3, name("a"), Instant::ZERO);
        assert_eq!(suspicion.deadline(), Instant::ZERO + Duration::from_secs(4));
    }
}
