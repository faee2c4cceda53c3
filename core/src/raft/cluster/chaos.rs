//! A cluster to which anything happens that a seed draws, and that must be well when it ends.

use super::super::{Change, RaftInput, RaftLimits, RoleKind};
use super::{Cluster, address, node, settings};
use crate::rng::{Rng, Seed, Stream};
use crate::time::Instant;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SERVERS: u8 = 5;

/// One thing done to a cluster.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Write,
    WriteMuch,
    WriteUnheard,
    Read,
    ReadUnheard,
    Crash,
    Start,
    Isolate,
    CutOneWay,
    Heal,
    Lose,
    Repeat,
    Replay,
    Split,
    SlowDisk,
    StuckDisk,
    FullDisk,
    SlowSnapshots,
    Delay,
    NoVotes,
    Change,
    ChangeUnheard,
    Transfer,
    OldEntries,
    Wait,
}

/// What happens, and how often compared to the others.
const FAULTS: [(Fault, usize); 25] = [
    (Fault::Write, 6),
    (Fault::WriteMuch, 2),
    (Fault::WriteUnheard, 2),
    (Fault::Read, 4),
    (Fault::ReadUnheard, 1),
    (Fault::Crash, 2),
    (Fault::Start, 3),
    (Fault::Isolate, 2),
    (Fault::Split, 2),
    (Fault::CutOneWay, 2),
    (Fault::Heal, 3),
    (Fault::Lose, 1),
    (Fault::Repeat, 1),
    (Fault::Replay, 2),
    (Fault::SlowDisk, 1),
    (Fault::StuckDisk, 1),
    (Fault::FullDisk, 1),
    (Fault::SlowSnapshots, 1),
    (Fault::Delay, 1),
    (Fault::NoVotes, 1),
    (Fault::Change, 4),
    (Fault::ChangeUnheard, 2),
    (Fault::Transfer, 2),
    (Fault::OldEntries, 1),
    (Fault::Wait, 8),
];

/// The cluster of a seed.
#[derive(Debug)]
pub struct Chaos {
    cluster: Cluster,
    voters: Vec<u8>,
    rng: Rng,
}

impl Chaos {
    /// Draws it.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::for_stream(Seed::from_number(seed), Stream::Raft);
        let voters = (1..=[3, 3, 4, 5][rng.index(4)]).collect();
        let mut cluster = Cluster::new(seed, &[]);
        if rng.chance(2, 3) {
            cluster.limits = RaftLimits {
                snapshot_entries: 10,
                snapshot_interval: Duration::from_millis(100),
                trailing_entries: 4,
                ..settings(1).limits
            };
        }
        if rng.chance(1, 4) {
            cluster.limits.uncommitted_bytes_max = 100;
        }
        if rng.chance(1, 3) {
            // The first entry of a term comes after what is left of earlier ones, not with it.
            cluster.limits.append_entries_max = 1;
            cluster.limits.inflight_messages_max = 1;
        }
        Self { cluster, voters, rng }
    }

    /// Runs it: safety is checked after every event; once faults end a leader is there, writes
    /// complete, all voters agree, and nobody is sent snapshots for ever (raft.md I15).
    ///
    /// # Panics
    /// If a rule is broken; the text names it.
    pub fn run(&mut self) {
        let Self { cluster, voters, rng } = self;
        (1..=SERVERS).for_each(|n| cluster.add_host(n));
        cluster.form(voters);
        cluster.eager = rng.chance(1, 3);
        if rng.chance(1, 2) {
            cluster.add_learners(voters);
        }
        let often = |(fault, times): &(Fault, usize)| std::iter::repeat_n(*fault, *times);
        let faults: Vec<Fault> = FAULTS.iter().flat_map(often).collect();
        for _ in 0..10 + rng.below(90) {
            let fault = faults[rng.index(faults.len())];
            cluster.story.push(format!("{:?} {fault:?}", cluster.now));
            cluster.inflict(fault, rng);
        }
        cluster.story.push(format!("{:?} the end of all faults", cluster.now));
        cluster.recover_and_agree();
    }

    /// How long it ran.
    pub const fn simulated(&self) -> Duration {
        self.cluster.now.since(Instant::ZERO)
    }

    /// Entries committed so far.
    pub const fn committed(&self) -> usize {
        self.cluster.committed.len()
    }

    /// What happened so far and what its servers told, in order.
    pub fn story(&self) -> &[String] {
        &self.cluster.story
    }
}

impl Cluster {
    /// Those who are not among `voters` begin to learn.
    fn add_learners(&mut self, voters: &[u8]) {
        for n in (1..=SERVERS).filter(|n| !voters.contains(n)) {
            let (id, server, address) = (self.next_id(), node(n), address(n));
            let leader = self.leader().unwrap_or(1);
            let add = Change::Add { server, address };
            self.input(leader, RaftInput::Change { id, change: add });
            self.run(SECOND);
        }
    }

    fn inflict(&mut self, fault: Fault, rng: &mut Rng) {
        let any = |rng: &mut Rng| 1 + u8::try_from(rng.below(u64::from(SERVERS))).unwrap();
        let (n, other) = (any(rng), any(rng));
        let leader = self.leader().unwrap_or(n);
        let millis = |rng: &mut Rng, max| Duration::from_millis(1 + rng.below(max));
        match fault {
            Fault::Write => {
                self.propose(leader);
            }
            Fault::WriteMuch => self.write_much(leader),
            Fault::WriteUnheard => {
                self.isolate(leader);
                for _ in 0..50 {
                    self.propose(leader);
                }
            }
            Fault::Read => {
                self.read(if rng.chance(1, 2) { leader } else { n });
            }
            Fault::ReadUnheard => {
                self.isolate(leader);
                self.read(leader);
                self.replay(leader);
                self.run(SECOND);
            }
            Fault::Crash if self.hosts[&n].raft.is_some() => self.crash(n),
            Fault::Start if self.hosts[&n].raft.is_none() => self.start(n),
            Fault::Crash | Fault::Start => {}
            Fault::Isolate => self.isolate(if rng.chance(1, 2) { leader } else { n }),
            Fault::CutOneWay => {
                self.cut.insert((n, other));
            }
            Fault::Split => {
                if rng.chance(1, 2) {
                    self.split();
                } else {
                    self.halve(leader);
                }
                self.propose(leader);
            }
            Fault::Replay => {
                self.replay_blocks(n);
                self.write_much(leader);
                self.read(n);
            }
            Fault::Heal => self.heal(),
            Fault::Lose => self.loss_percent = rng.below(30),
            Fault::Repeat => self.echo_percent = rng.below(20),
            Fault::SlowDisk => self.sync_max = millis(rng, 400),
            Fault::StuckDisk => {
                self.unstick();
                self.stuck = Some(n);
            }
            Fault::FullDisk => self.full = Some(n),
            Fault::SlowSnapshots => self.store_time = millis(rng, 900),
            Fault::Delay => self.delay_max = millis(rng, 300),
            Fault::NoVotes => self.no_votes = true,
            Fault::Change => self.order_change(leader),
            Fault::ChangeUnheard => {
                self.isolate(leader);
                self.order_change(leader);
            }
            Fault::Transfer => {
                self.transfer(leader, (leader != n).then_some(n));
            }
            Fault::OldEntries => self.old_entries(leader),
            Fault::Wait => self.run(millis(rng, 2500)),
        }
    }

    pub(super) fn isolate(&mut self, n: u8) {
        let others: Vec<u8> = (1..=SERVERS).filter(|other| *other != n).collect();
        self.part(&[n], &others);
    }

    /// Figure 8 of the Raft paper: the leader `first` writes what nobody hears; so does whoever is
    /// elected next; the first one leads again, brings its old entries to the others, and is cut
    /// off some time later, when the second one may lead again.
    fn old_entries(&mut self, first: u8) {
        self.isolate(first);
        for _ in 0..50 {
            self.propose(first);
        }
        self.unheard = true;
        self.run(SECOND * 3);
        self.unheard = false;
        let newest = self.leaders.last_key_value().map(|(_, second)| *second);
        let Some(second) = newest.filter(|second| *second != first) else { return };
        self.cut.clear();
        self.isolate(second);
        for _ in 0..3000 {
            if self.leader() == Some(first) {
                break;
            }
            self.run(Duration::from_millis(1));
        }
        let time = self.rng.jitter(SECOND / 4);
        self.run(time);
        self.cut.clear();
        self.isolate(first);
        self.run(SECOND * 3);
    }

    fn write_much(&mut self, leader: u8) {
        for _ in 0..20 {
            self.propose(leader);
            self.run(Duration::from_millis(10));
        }
    }

    /// Two groups do not hear each other, and everybody else again.
    pub(super) fn split(&mut self) {
        let rng = &mut self.rng;
        let (left, right): (Vec<u8>, Vec<u8>) = (1..=SERVERS).partition(|_| rng.chance(1, 2));
        self.cut.clear();
        self.part(&left, &right);
    }

    /// The leader `n` hears one voter less than would be a quorum, and all learners.
    pub(super) fn halve(&mut self, n: u8) {
        let Some(raft) = &self.hosts[&n].raft else { return };
        let voters = raft.configuration().voters.keys().map(|id| id.as_bytes()[0]);
        let mut left: Vec<u8> = voters.filter(|voter| *voter != n).collect();
        let learners = raft.configuration().learners.keys().map(|id| id.as_bytes()[0]);
        let learners: Vec<u8> = learners.collect();
        self.rng.shuffle(&mut left);
        left.truncate(left.len().saturating_sub(1) / 2);
        left.push(n);
        left.extend(learners);
        let right: Vec<u8> = (1..=SERVERS).filter(|other| !left.contains(other)).collect();
        self.cut.clear();
        self.part(&left, &right);
    }

    /// What has befallen the network and the disks is over, except that snapshots are slow.
    fn heal(&mut self) {
        self.cut.clear();
        (self.loss_percent, self.echo_percent, self.no_votes) = (0, 0, false);
        (self.delay_max, self.sync_max) = (Duration::from_millis(2), Duration::from_millis(2));
        self.full = None;
        self.unstick();
    }

    /// Whoever is elected is at once to change the configuration; what is hardest for a change is
    /// to be known to some only.
    pub(super) fn press(&mut self, n: u8) {
        if self.rng.chance(1, 2) {
            self.halve(n);
        }
        self.order_change(n);
    }

    /// Somebody wants the configuration of `leader` changed, in a moment.
    pub(super) fn order_change(&mut self, leader: u8) {
        let Some(raft) = &self.hosts[&leader].raft else { return };
        let configuration = raft.configuration();
        let (mut voters, mut learners, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
        for n in 1..=SERVERS {
            match node(n) {
                id if configuration.is_voter(id) => voters.push(n),
                id if configuration.contains(id) => learners.push(n),
                _ => strangers.push(n),
            }
        }
        let rng = &mut self.rng;
        let any = |rng: &mut Rng, of: &[u8]| match of {
            [] => leader,
            of => of[rng.index(of.len())],
        };
        // Servers that come need several changes, and only voters that go change what is a quorum.
        let change = match if self.eager { 3 } else { rng.below(5) } {
            0 => {
                let n = any(rng, &strangers);
                Change::Add { server: node(n), address: address(n) }
            }
            1 | 2 => Change::Promote(node(any(rng, &learners))),
            3 => Change::Remove { server: node(any(rng, &voters)), force: rng.chance(1, 2) },
            _ => Change::Demote(node(any(rng, &voters))),
        };
        let delay = rng.jitter(self.delay_max * 2);
        self.schedule(delay, super::Event::Order { to: leader, change });
    }

    /// Ends all faults; what must come about then.
    fn recover_and_agree(&mut self) {
        self.heal();
        self.eager = false;
        for n in 1..=SERVERS {
            if self.hosts[&n].raft.is_none() {
                self.start(n);
            }
        }
        let installed = |cluster: &Self, n: u8| cluster.raft(n).stats().snapshots_installed;
        let before: Vec<u64> = (1..=SERVERS).map(|n| installed(self, n)).collect();
        // Clients go on writing while those who were away catch up.
        for _ in 0..400 {
            if let Some(leader) = self.leader() {
                self.propose(leader);
            }
            self.run(SECOND / 20);
        }
        for (n, before) in (1..=SERVERS).zip(before) {
            let again = installed(self, n) - before;
            assert!(again <= 2, "INV-RAFT-15: {n} is sent snapshot after snapshot");
        }
        let leader = self.leader().expect("INV-RAFT-15: a leader once faults end");
        let id = self.propose(leader);
        self.run(5 * SECOND);
        assert!(self.done.contains_key(&id), "INV-RAFT-15: a write once faults end");
        assert_eq!(self.raft(leader).role(), RoleKind::Leader, "INV-RAFT-15: it goes on");
        self.check_agreement();
        for voter in self.raft(leader).configuration().voters.keys() {
            let applied = self.raft(voter.as_bytes()[0]).applied();
            assert_eq!(applied, self.raft(leader).applied(), "INV-RAFT-15: all catch up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happens_nothing_acknowledged_is_lost() {
        for seed in 0..64 {
            let mut chaos = Chaos::new(seed);
            chaos.run();
            assert!(chaos.committed() > 0);
        }
    }
}
