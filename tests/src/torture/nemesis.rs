//! The three servers, and what is done to them.

use crate::{Agent, Connection, Folder, LONG, Options, Random, wait_until};
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// What may befall the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The leader is killed, and started again after a while.
    KillLeader,
    /// The leader is stopped for longer than an election takes, and goes on as if it still led.
    StopLeader,
    /// The leader is told to end, and started again at once.
    RestartLeader,
    /// Another server is killed, and started again after a while.
    KillFollower,
    /// All servers are killed at once, and started again.
    KillAll,
    /// The leader is killed and its disk replaced: what comes back holds nothing, and has to vote
    /// again before this ends.
    WipeLeader,
    /// So is another server.
    WipeFollower,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::KillLeader,
        Self::StopLeader,
        Self::RestartLeader,
        Self::KillFollower,
        Self::KillAll,
        Self::WipeLeader,
        Self::WipeFollower,
    ];

    /// How long it lasts: at least, and how much longer at most, in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::KillLeader | Self::KillFollower | Self::WipeLeader | Self::WipeFollower => {
                (100, 3000)
            }
            Self::StopLeader => (2500, 3500),
            Self::RestartLeader | Self::KillAll => (0, 1),
        }
    }
}

/// One fault that was injected.
#[derive(Clone, Debug)]
pub struct Injected {
    /// Which.
    pub fault: Fault,
    /// The server it befell; the leader if it befell all.
    pub server: usize,
    /// When it began, since the load's begin.
    pub began: Duration,
    /// When all servers answered again.
    pub healed: Duration,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (began, healed) = (self.began.as_secs_f64(), self.healed.as_secs_f64());
        let fault = format!("{:?}", self.fault);
        write!(f, "{began:7.2} .. {healed:7.2} {fault:<13} server {}", self.server)
    }
}

pub(super) struct Nemesis {
    random: Random,
    /// The servers that run.
    agents: Vec<Option<Agent>>,
    addresses: Vec<SocketAddr>,
    injected: Vec<Injected>,
    /// What servers printed that do not run any more.
    logs: Vec<String>,
    /// Where the servers' settings are.
    _config: Folder,
}

impl Nemesis {
    /// Three servers that have a leader.
    pub(super) fn start(seed: u64) -> Self {
        let config = Folder::new("autopilot");
        let text = r#"{"autopilot": {"server_stabilization_time": "1s"}}"#;
        std::fs::write(config.join("autopilot.json"), text).expect("the folder is writable");
        let arguments = ["-server", "-bootstrap-expect", "3", "-config-dir"];
        let configured = |options: Options| options.with(&[&config.to_string_lossy()]);
        let servers: Vec<Options> =
            (0..3).map(|n| configured(Options::new(&format!("server-{n}"), &arguments))).collect();
        let first = servers[0].address.to_string();
        let addresses = servers.iter().map(|it| SocketAddr::from((it.address, 8500))).collect();
        let start = |options: Options| Some(options.with(&["-retry-join", &first]).start());
        let agents = servers.into_iter().map(start).collect();
        let mut nemesis = Self {
            random: Random::new(seed),
            agents,
            addresses,
            injected: Vec::new(),
            logs: Vec::new(),
            _config: config,
        };
        nemesis.wait_until_well();
        nemesis
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Injects faults, each healed before the next: one round of all, and more until `length` has
    /// passed.
    pub(super) fn rage(&mut self, faults: &[Fault], length: Duration, started: Instant) {
        let mut faults = faults.to_vec();
        thread::sleep(Duration::from_millis(500));
        loop {
            self.random.shuffle(&mut faults);
            for fault in &faults {
                if self.injected.len() >= faults.len() && started.elapsed() >= length {
                    return;
                }
                self.inject(*fault, started);
                thread::sleep(Duration::from_millis(1000 + self.random.below(1000)));
            }
        }
    }

    fn inject(&mut self, fault: Fault, started: Instant) {
        let leader = self.leader();
        let (least, more) = fault.lasts();
        let lasts = Duration::from_millis(least + self.random.below(more));
        let other = (leader + 1 + usize::from(self.random.below(2) == 1)) % self.agents.len();
        let spared = matches!(fault, Fault::KillFollower | Fault::WipeFollower);
        let server = if spared { other } else { leader };
        let began = started.elapsed();
        match fault {
            Fault::KillLeader | Fault::KillFollower => {
                let options = self.take(server).kill();
                thread::sleep(lasts);
                self.agents[server] = Some(options.start());
            }
            Fault::WipeLeader | Fault::WipeFollower => {
                let options = self.take(server).kill();
                std::fs::remove_dir_all(&options.data_dir).expect("the folder is ours");
                thread::sleep(lasts);
                self.agents[server] = Some(options.start());
                self.wait_until_all_vote();
            }
            Fault::StopLeader => {
                self.running(server).signal("STOP");
                thread::sleep(lasts);
                self.running(server).signal("CONT");
            }
            Fault::RestartLeader => {
                let mut agent = self.take(server);
                agent.signal("TERM");
                agent.wait();
                self.agents[server] = Some(agent.options.clone().start());
            }
            Fault::KillAll => {
                let agents: Vec<Agent> = (0..self.agents.len()).map(|it| self.take(it)).collect();
                let killed: Vec<Options> = agents.into_iter().map(Agent::kill).collect();
                self.agents = killed.into_iter().map(|options| Some(options.start())).collect();
            }
        }
        self.wait_until_well();
        let healed = started.elapsed();
        self.injected.push(Injected { fault, server, began, healed });
    }

    fn running(&self, server: usize) -> &Agent {
        self.agents[server].as_ref().expect("faults are healed before the next")
    }

    fn take(&mut self, server: usize) -> Agent {
        let agent = self.agents[server].take().expect("faults are healed before the next");
        self.logs.extend(agent.lines().into_iter().map(|line| format!("server {server}: {line}")));
        agent
    }

    fn leader(&self) -> usize {
        wait_until("a leader", LONG, || {
            let mut named = self.addresses.iter().filter_map(|address| {
                let text = ask(*address, "/v1/status/leader")?;
                let host = text.trim_matches('"').split(':').next()?.to_owned();
                self.addresses.iter().position(|address| address.ip().to_string() == host)
            });
            named.next()
        })
    }

    /// Waits until every server answers a read that needs a leader.
    fn wait_until_well(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            let address = SocketAddr::from((agent.options.address, 8500));
            wait_until("a server that is well", LONG, || {
                if let Some(why) = agent.ended() {
                    panic!("{why}");
                }
                ask(address, "/v1/catalog/nodes?consistent").map(drop)
            });
        }
    }

    /// Waits until autopilot has let every server vote again.
    fn wait_until_all_vote(&self) {
        wait_until("servers that all vote", LONG, || {
            let health = ask(self.addresses[0], "/v1/operator/autopilot/health")?;
            let health: Value = serde_json::from_str(&health).ok()?;
            let servers = health["Servers"].as_array()?;
            let well = |server: &Value| server["Voter"] == true && server["Healthy"] == true;
            (servers.len() == self.agents.len() && servers.iter().all(well)).then_some(())
        });
    }

    /// Kills the servers; their folders go with them, unless they are to be looked at.
    pub(super) fn end(mut self, keeps_folders: bool) -> (Vec<Injected>, Vec<String>) {
        for server in 0..self.agents.len() {
            let options = self.take(server).kill();
            if keeps_folders {
                self.logs.push(format!("server {server}: {}", options.data_dir.display()));
                options.folder.keep();
            }
        }
        (self.injected, self.logs)
    }
}

/// The body of an answer with the status 200.
fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut connection = Connection::open(address, Duration::from_secs(2)).ok()?;
    let answer = connection.exchange("GET", path, "").ok()?;
    (answer.status == 200).then(|| answer.text())
}
