//! The simulated network: who reaches whom, how late, and what gets lost.
//!
//! Datagrams may be delayed, reordered, duplicated and lost. Streams keep their order; a cut link
//! stalls them, and one that stays stalled breaks at both ends, as a transport does that gives up
//! retransmitting. Each direction of each link can be cut by itself (simulation.md §3).

use crate::luck::{Luck, Purpose};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use terraform_core::time::Instant;

/// A host's number in its world.
pub type HostId = usize;

/// How the links behave while no fault is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// The shortest one-way delay.
    pub delay_min: Duration,
    /// The delay added uniformly to it.
    pub delay_jitter: Duration,
    /// Datagrams lost, per million.
    pub loss_ppm: u64,
    /// Datagrams delivered twice, per million.
    pub duplicate_ppm: u64,
    /// Datagrams delivered much later, per million.
    pub late_ppm: u64,
}

impl NetOptions {
    /// A quiet local network without losses.
    pub const fn quiet() -> Self {
        Self {
            delay_min: Duration::from_micros(100),
            delay_jitter: Duration::from_micros(400),
            loss_ppm: 0,
            duplicate_ppm: 0,
            late_ppm: 0,
        }
    }
}

/// How long a stream may stall before it breaks, and how long a connect to nobody takes.
pub const STALL_LIMIT: Duration = Duration::from_secs(15);
/// Time between attempts to deliver on a stalled stream.
pub const STALL_RETRY: Duration = Duration::from_millis(200);
/// How long a connect to a host behind a cut takes to fail.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The links between all hosts.
#[derive(Clone, Debug)]
pub struct Network {
    options: NetOptions,
    /// Directions that are cut, and until when.
    cut: BTreeMap<(HostId, HostId), Instant>,
    /// Directions in which only datagrams are lost.
    filtered: BTreeSet<(HostId, HostId)>,
    seed: u64,
    /// When luck was asked for last, and how often at that moment.
    asked: (Instant, u64),
}

/// The end of a cut that lasts until it is healed.
const FOREVER: Instant = Instant::from_nanos(u64::MAX);

impl Network {
    /// A network with all links up.
    pub fn new(options: NetOptions, seed: u64) -> Self {
        let (cut, filtered) = (BTreeMap::new(), BTreeSet::new());
        Self { options, cut, filtered, seed, asked: (Instant::ZERO, 0) }
    }

    /// How links behave from now on.
    pub fn set_options(&mut self, options: NetOptions) {
        self.options = options;
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut_until(from, to, FOREVER);
    }

    /// Cuts one direction until then, or for as long as it was to be cut already.
    pub fn cut_until(&mut self, from: HostId, to: HostId, until: Instant) {
        let end = self.cut.entry((from, to)).or_insert(until);
        *end = until.max(*end);
    }

    /// When the next cut is over by itself.
    pub fn next_mend(&self) -> Instant {
        self.cut.values().copied().min().unwrap_or(FOREVER)
    }

    /// Restores the links whose cuts are over.
    pub fn mend(&mut self, now: Instant) {
        self.cut.retain(|_, until| *until > now);
    }

    /// Loses the datagrams of one direction, as a firewall does that lets streams pass.
    pub fn filter(&mut self, from: HostId, to: HostId) {
        self.filtered.insert((from, to));
    }

    /// Cuts both directions between every host of `left` and every one of `right`.
    pub fn partition(&mut self, left: &[HostId], right: &[HostId]) {
        for a in left {
            for b in right {
                self.cut(*a, *b);
                self.cut(*b, *a);
            }
        }
    }

    /// Restores every link.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.filtered.clear();
    }

    /// Whether `from` reaches `to` at this moment.
    pub fn reaches(&self, from: HostId, to: HostId) -> bool {
        from == to || !self.cut.contains_key(&(from, to))
    }

    /// Whether any link is cut.
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty() || !self.filtered.is_empty()
    }

    /// The luck of what is sent from one host to another at this moment.
    fn luck(&mut self, now: Instant, purpose: Purpose, from: HostId, to: HostId) -> Luck {
        if self.asked.0 != now {
            self.asked = (now, 0);
        }
        self.asked.1 += 1;
        let link = (self.asked.1 << 48) ^ ((from as u64) << 24) ^ to as u64;
        Luck::of(self.seed, purpose, link, now)
    }

    /// The delay of a part of a stream that is sent at this moment.
    pub fn delay(&mut self, now: Instant, from: HostId, to: HostId) -> Duration {
        let mut luck = self.luck(now, Purpose::Stream, from, to);
        self.options.delay_min + luck.jitter(self.options.delay_jitter)
    }

    /// When copies of a datagram that is sent at this moment arrive: none if it is lost, two if it
    /// is duplicated.
    pub fn datagram(&mut self, now: Instant, from: HostId, to: HostId) -> [Option<Duration>; 2] {
        const MILLION: u64 = 1_000_000;
        let mut luck = self.luck(now, Purpose::Datagram, from, to);
        // Every fate is drawn whatever the others are, so that removing one shifts none.
        let delay = self.options.delay_min + luck.jitter(self.options.delay_jitter);
        let lost = luck.chance(self.options.loss_ppm, MILLION);
        let twice = luck.chance(self.options.duplicate_ppm, MILLION);
        let late = luck.chance(self.options.late_ppm, MILLION);
        let extra = luck.jitter(Duration::from_secs(20));
        if lost || !self.reaches(from, to) || self.filtered.contains(&(from, to)) {
            return [None, None];
        }
        let first = if late { delay + extra } else { delay };
        [Some(first), twice.then(|| delay + extra / 8)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn a_cut_direction_loses_datagrams_and_the_other_does_not() {
        let mut network = Network::new(NetOptions::quiet(), 1);
        network.cut(0, 1);
        assert_eq!(network.datagram(NOW, 0, 1), [None, None]);
        assert!(network.datagram(NOW, 1, 0)[0].is_some());
        network.heal();
        assert!(network.datagram(NOW, 0, 1)[0].is_some());
    }

    #[test]
    fn a_cut_is_over_when_its_last_reason_is() {
        let at = Instant::from_nanos;
        let mut network = Network::new(NetOptions::quiet(), 1);
        network.cut_until(0, 1, at(5));
        network.cut_until(0, 1, at(9));
        network.cut_until(0, 1, at(7));
        assert_eq!(network.next_mend(), at(9));
        network.mend(at(8));
        assert!(!network.reaches(0, 1));
        network.mend(at(9));
        assert!(network.reaches(0, 1));
    }

    #[test]
    fn losses_follow_their_rate() {
        let options = NetOptions { loss_ppm: 500_000, ..NetOptions::quiet() };
        let mut network = Network::new(options, 1);
        let lost = (0..1000).filter(|_| network.datagram(NOW, 0, 1)[0].is_none()).count();
        assert!((400..600).contains(&lost), "{lost}");
    }

    #[test]
    fn what_one_link_carries_decides_nothing_on_another() {
        let at = Instant::from_nanos;
        let mut network = Network::new(NetOptions::quiet(), 1);
        let alone = network.clone().delay(at(2), 0, 1);
        network.delay(at(1), 1, 2);
        assert_eq!(network.delay(at(2), 0, 1), alone);
    }
}
