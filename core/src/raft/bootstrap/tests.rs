//! Bootstrap under differing views, loss, reordering and crashes: never two first configurations
//! that name the same server, and one once everybody is back.

use super::*;
use crate::id::{Datacenter, NodeId, NodeName};
use crate::raft::{HardState, PersistBatch};
use crate::rng::{Rng, Seed, Stream};
use crate::trace::Level;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8300))
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn info(n: u8, expect: Option<u32>) -> ServerInfo {
    ServerInfo {
        id: id(n),
        name: NodeName::parse(&format!("server-{n}")).unwrap(),
        address: address(n),
        datacenter: Datacenter::parse("dc1").unwrap(),
        bootstrap: false,
        expect,
        votes: votes(n),
    }
}

/// Server 9 is not to vote.
fn votes(n: u8) -> bool {
    n != 9
}

struct Host {
    machine: Option<Bootstrap>,
    disk: RestoredRaft,
    saving: Option<(PersistSeq, PersistBatch)>,
    /// A decision that is not on the disk yet.
    deciding: Option<(ClusterId, Configuration)>,
    bound: Option<ClusterId>,
}

struct World {
    now: Instant,
    rng: Rng,
    hosts: BTreeMap<u8, Host>,
    network: Vec<(u8, BootstrapMessage)>,
    decided: Vec<(ClusterId, Configuration)>,
    traces: Vec<String>,
}

impl World {
    fn new(seed: u64, servers: u8) -> Self {
        let rng = Rng::for_stream(Seed::from_number(seed), Stream::Node);
        let (hosts, network) = (BTreeMap::new(), Vec::new());
        let (decided, traces) = (Vec::new(), Vec::new());
        let mut world = Self { now: Instant::ZERO, rng, hosts, network, decided, traces };
        for n in 1..=servers {
            let disk = RestoredRaft {
                store: StoreId::from_bytes([0x40 + n; 16]),
                cluster: None,
                promise: None,
                hard: HardState::default(),
                snapshot: None,
                entries: Vec::new(),
                heartbeat_timeout: Duration::ZERO,
                recovering: None,
            };
            world.add(n, disk);
        }
        world
    }

    fn add(&mut self, n: u8, disk: RestoredRaft) {
        let (saving, deciding) = (None, None);
        self.hosts.insert(n, Host { machine: None, disk, saving, deciding, bound: None });
        self.start(n);
    }

    fn start(&mut self, n: u8) {
        let rng = Rng::for_stream(Seed::from_number(self.rng.bits()), Stream::Bootstrap);
        let host = self.hosts.get_mut(&n).unwrap();
        let mode = config::Bootstrap::Expect(3);
        let settings = BootstrapSettings { id: id(n), address: address(n), mode, votes: votes(n) };
        let mut out = Outbox::new(Level::Info);
        host.bound = None;
        host.machine = Some(Bootstrap::new(settings, &host.disk, rng, self.now, &mut out));
        self.perform(n, out);
    }

    fn crash(&mut self, n: u8) {
        let host = self.hosts.get_mut(&n).unwrap();
        (host.machine, host.saving, host.deciding) = (None, None, None);
    }

    fn input(&mut self, n: u8, input: BootstrapInput) {
        let mut out = Outbox::new(Level::Info);
        let Some(machine) = &mut self.hosts.get_mut(&n).unwrap().machine else { return };
        machine.handle(self.now, input, &mut out);
        self.perform(n, out);
    }

    fn see(&mut self, n: u8, servers: &[u8]) {
        let list = servers.iter().chain([&n]).map(|n| info(*n, Some(3))).collect();
        self.input(n, BootstrapInput::Servers(list));
    }

    fn perform(&mut self, n: u8, mut out: Outbox<BootstrapOutput>) {
        let host = self.hosts.get_mut(&n).unwrap();
        for output in out.drain() {
            match output {
                BootstrapOutput::Persist { seq, batch } => {
                    assert!(host.saving.replace((seq, batch)).is_none());
                }
                BootstrapOutput::Send { to, message } => {
                    let SocketAddr::V4(to) = to else { panic!("{to}") };
                    self.network.push((to.ip().octets()[3], message));
                }
                BootstrapOutput::Bound { cluster } => host.bound = cluster,
                BootstrapOutput::Start { cluster, configuration } => {
                    host.deciding = Some((cluster, configuration));
                }
                BootstrapOutput::Trace(_, trace) => self.traces.push(trace.to_string()),
            }
        }
    }

    /// The disk of one server finishes what it works on.
    fn sync(&mut self, n: u8) {
        let host = self.hosts.get_mut(&n).unwrap();
        if let Some((cluster, configuration)) = host.deciding.take() {
            host.disk.cluster = Some(cluster);
            for (_, other) in &self.decided {
                let shared = configuration.voters.keys().any(|voter| other.is_voter(*voter));
                assert!(!shared, "two first configurations name the same server");
            }
            self.decided.push((cluster, configuration));
        }
        if let Some((seq, batch)) = host.saving.take() {
            host.disk.promise = batch.identity.promise.or_else(|| host.disk.promise.take());
            self.input(n, BootstrapInput::PersistDone { seq });
        }
    }

    /// Raft brings a decided cluster to one server it names, if the server may join it.
    fn replicate(&mut self, n: u8) {
        let named = self.decided.iter().find(|(_, config)| config.contains(id(n)));
        let Some((cluster, _)) = named.cloned() else { return };
        let host = self.hosts.get_mut(&n).unwrap();
        if host.machine.is_some() && host.disk.cluster.is_none() {
            assert!(host.bound.is_none_or(|bound| bound == cluster), "a named server is bound");
            host.disk.cluster = Some(cluster);
            self.input(n, BootstrapInput::Formed { cluster });
        }
    }

    fn deliver(&mut self) {
        if !self.network.is_empty() {
            let position = self.rng.index(self.network.len());
            let (to, message) = self.network.swap_remove(position);
            self.input(to, BootstrapInput::Receive(message));
        }
    }

    fn tick(&mut self) {
        self.now = self.now + RETRY;
        for n in self.hosts.keys().copied().collect::<Vec<_>>() {
            let mut out = Outbox::new(Level::Info);
            if let Some(machine) = &mut self.hosts.get_mut(&n).unwrap().machine {
                machine.handle_timeout(self.now, &mut out);
            }
            self.perform(n, out);
        }
    }

    /// Everybody is up, sees everybody, and everything arrives.
    fn heal(&mut self) {
        let all: Vec<u8> = self.hosts.keys().copied().collect();
        for n in &all {
            if self.hosts[n].machine.is_none() {
                self.start(*n);
            }
        }
        all.iter().for_each(|n| self.see(*n, &all));
        for _ in 0..12 {
            self.tick();
            for _ in 0..200 {
                self.deliver();
                all.iter().for_each(|n| self.sync(*n));
            }
            all.iter().for_each(|n| self.replicate(*n));
        }
    }
}

#[test]
fn three_servers_that_see_each_other_decide_one_configuration() {
    let mut world = World::new(1, 3);
    world.heal();
    assert_eq!(world.decided.len(), 1);
    let (cluster, configuration) = &world.decided[0];
    assert_eq!(configuration.voters.len(), 3);
    assert!(world.hosts.values().all(|host| host.disk.cluster == Some(*cluster)));
    let told = "Found expected number of peers, attempting bootstrap: \
                10.0.0.1:8300,10.0.0.2:8300,10.0.0.3:8300";
    assert!(world.traces.iter().any(|trace| trace == told));
}

#[test]
fn two_of_three_wait() {
    let mut world = World::new(1, 2);
    world.heal();
    assert!(world.decided.is_empty());
}

#[test]
fn one_that_is_not_to_vote_is_no_substitute_and_begins_as_a_learner() {
    let mut world = World::new(1, 2);
    let disk =
        RestoredRaft { store: StoreId::from_bytes([0x49; 16]), ..world.hosts[&1].disk.clone() };
    world.add(9, disk);
    world.heal();
    assert!(world.decided.is_empty(), "two of three voters");
    let disk = RestoredRaft {
        store: StoreId::from_bytes([0x50; 16]),
        promise: None,
        ..world.hosts[&9].disk.clone()
    };
    world.add(3, disk);
    world.heal();
    let (cluster, configuration) = &world.decided[0];
    assert_eq!(configuration.voters.len(), 3);
    assert!(configuration.learners.contains_key(&id(9)));
    assert_eq!(world.hosts[&9].disk.cluster, Some(*cluster));
}

#[test]
fn a_conflicting_expectation_is_told_once_and_waited_out() {
    let mut world = World::new(1, 3);
    for _ in 0..3 {
        let list = vec![info(1, Some(3)), info(2, Some(5)), info(3, Some(3))];
        world.input(1, BootstrapInput::Servers(list));
    }
    let told = "Member server-2 has a conflicting expect value. All nodes should expect the same \
                number.";
    assert_eq!(world.traces, [told]);
    world.heal();
    assert_eq!(world.decided.len(), 1);
}

#[test]
fn a_server_that_hears_of_a_cluster_waits_to_be_added() {
    let mut world = World::new(1, 3);
    let cluster = ClusterId::from_bytes([9; 16]);
    world.hosts.get_mut(&3).unwrap().disk.cluster = Some(cluster);
    world.crash(3);
    world.heal();
    assert!(world.decided.is_empty());
    assert!(world.traces.iter().any(|trace| trace.contains("disabling bootstrap mode")));
    assert_eq!(world.hosts[&1].bound, None);
    assert_eq!(world.hosts[&2].bound, None);
}

#[test]
fn a_server_alone_starts_at_once() {
    let mode = config::Bootstrap::Alone;
    let settings = BootstrapSettings { id: id(1), address: address(1), mode, votes: true };
    let disk = World::new(1, 1).hosts[&1].disk.clone();
    let mut out = Outbox::new(Level::Info);
    let rng = Rng::for_stream(Seed::from_number(1), Stream::Bootstrap);
    let machine = Bootstrap::new(settings, &disk, rng, Instant::ZERO, &mut out);
    let Some(BootstrapOutput::Start { configuration, .. }) = out.pop() else { panic!("no start") };
    assert!(configuration.is_sole_voter(id(1)));
    assert_eq!(machine.next_timeout(), None);
}

proptest! {
    #[test]
    fn no_server_is_named_by_two_first_configurations(
        seed: u64,
        steps in prop::collection::vec((0u8..12, 1u8..=5, 0u8..32), 1..300),
    ) {
        let mut world = World::new(seed, 5);
        for (kind, n, mask) in steps {
            match kind {
                0 => world.crash(n),
                1 if world.hosts[&n].machine.is_none() => world.start(n),
                2 => {
                    let seen: BTreeSet<u8> =
                        (1..=5).filter(|b| mask & (1 << (b - 1)) != 0).collect();
                    world.see(n, &seen.into_iter().collect::<Vec<_>>());
                }
                3 => world.tick(),
                4 | 5 => world.sync(n),
                6 => world.replicate(n),
                7 if !world.network.is_empty() => {
                    let position = world.rng.index(world.network.len());
                    world.network.swap_remove(position);
                }
                _ => world.deliver(),
            }
        }
        world.heal();
        prop_assert_eq!(world.decided.len(), 1);
        let (cluster, configuration) = world.decided[0].clone();
        for (n, host) in &world.hosts {
            let member = configuration.is_voter(id(*n));
            prop_assert_eq!(host.disk.cluster, member.then_some(cluster));
            // One asked in an earlier attempt of the same proposer stays bound to its cluster.
            let free = host.bound.is_none_or(|bound| bound == cluster);
            prop_assert!(free, "server {} is free to be added, not bound to {:?}", n, host.bound);
        }
    }
}
