//! The simulated network: who reaches whom, how late, and what gets lost.
//!
//! Datagrams may be delayed, reordered, duplicated and lost. Streams keep their order; a cut link
//! stalls them, and one that stays stalled breaks at both ends, as a transport does that gives up
//! retransmitting. Each direction of each link can be cut by itself (simulation.md §3).

use std::collections::BTreeSet;
use std::time::Duration;
use terraform_core::rng::Rng;

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
    cut: BTreeSet<(HostId, HostId)>,
    /// Directions in which only datagrams are lost.
    filtered: BTreeSet<(HostId, HostId)>,
    rng: Rng,
}

impl Network {
    /// A network with all links up.
    pub fn new(options: NetOptions, rng: Rng) -> Self {
        Self { options, cut: BTreeSet::new(), filtered: BTreeSet::new(), rng }
    }

    /// How links behave from now on.
    pub fn set_options(&mut self, options: NetOptions) {
        self.options = options;
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
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
        from == to || !self.cut.contains(&(from, to))
    }

    /// Whether any link is cut.
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty() || !self.filtered.is_empty()
    }

    /// The delay of one message.
    pub fn delay(&mut self) -> Duration {
        self.options.delay_min + self.rng.jitter(self.options.delay_jitter)
    }

    /// When copies of one datagram arrive: none if it is lost, two if it is duplicated.
    pub fn datagram(&mut self, from: HostId, to: HostId) -> [Option<Duration>; 2] {
        const MILLION: u64 = 1_000_000;
        // Every fate is drawn whatever the others are, so that removing one shifts none.
        let delay = self.delay();
        let lost = self.rng.chance(self.options.loss_ppm, MILLION);
        let twice = self.rng.chance(self.options.duplicate_ppm, MILLION);
        let late = self.rng.chance(self.options.late_ppm, MILLION);
        let extra = self.rng.jitter(Duration::from_secs(20));
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
    use terraform_core::rng::{Seed, Stream};

    fn network(options: NetOptions) -> Network {
        Network::new(options, Rng::for_stream(Seed::from_number(1), Stream::Node))
    }

    #[test]
    fn a_cut_direction_loses_datagrams_and_the_other_does_not() {
        let mut network = network(NetOptions::quiet());
        network.cut(0, 1);
        assert_eq!(network.datagram(0, 1), [None, None]);
        assert!(network.datagram(1, 0)[0].is_some());
        network.heal();
        assert!(network.datagram(0, 1)[0].is_some());
    }

    #[test]
    fn losses_follow_their_rate() {
        let options = NetOptions { loss_ppm: 500_000, ..NetOptions::quiet() };
        let mut network = network(options);
        let lost = (0..1000).filter(|_| network.datagram(0, 1)[0].is_none()).count();
        assert!((400..600).contains(&lost), "{lost}");
    }
}
