//! What gossip costs one agent of a large pool: the core alone, without sockets.
//!
//! One client agent learns of `n` members by a state exchange, tells what it has to tell, and is
//! then given what the members of a quiet pool send it. Times are those of this machine, so they
//! are for comparing two builds in one sitting, not for judging one.

use crate::disk::SimDisk;
use crate::plan::node_config;
use crate::recover::recover;
use bytes::Bytes;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant as Wall};
use terraform_core::config::{GossipConfig, NodeConfig};
use terraform_core::gossip::Versions;
use terraform_core::id::{Incarnation, NodeName, PoolName, SeqNo, StreamId};
use terraform_core::node::Node;
use terraform_core::node::input::{Input, StreamKind};
use terraform_core::node::output::Output;
use terraform_core::rng::Seed;
use terraform_core::time::{Instant, WallClock};
use terraform_core::wire::compound::compound;
use terraform_core::wire::gossip::{
    Ack, Alive, Message, PeerState, PeerStates, Ping, PushPull, PushPullState, StreamMessage,
};
use terraform_core::wire::packet::decode_packet;
use terraform_core::wire::serf::encode_tags;

/// Sizes that are measured unless one is asked for.
pub const SIZES: [usize; 2] = [1_000, 10_000];
/// The largest size: as many members as an agent takes.
pub const MEMBERS_MAX: usize = 65_536;
/// The columns of a row.
pub const HEADER: &str = "members | pings/s | gossip packets/s (facts/s) | \
                          exchanges/s: equal, one news | idle CPU";

/// Datagrams of each kind.
const DATAGRAMS: usize = 100_000;
/// Facts in a packet of gossip: as many as fit beside what their members say of themselves.
const FACTS: usize = 8;
/// State exchanges of each kind.
const EXCHANGES: usize = 50;
/// World time of rest.
const REST: Duration = Duration::from_secs(600);

/// What one size costs.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    members: usize,
    pings: f64,
    packets: f64,
    equal_exchanges: f64,
    news_exchanges: f64,
    /// Seconds of a core for each second of rest.
    idle: f64,
}

impl Row {
    /// Measures a pool of `members`.
    pub fn measure(members: usize) -> Self {
        let mut agent = Agent::new(members);
        let pings = rate(DATAGRAMS, |number| agent.pinged(number));
        let packets = rate(DATAGRAMS, |number| agent.told(number));
        let equal = agent.states();
        let equal_exchanges = rate(EXCHANGES, |_| agent.exchange(equal.clone()));
        let news: Vec<Bytes> =
            (1..=EXCHANGES).map(|number| agent.states_with_news(number)).collect();
        let news_exchanges = rate(EXCHANGES, |number| agent.exchange(news[number].clone()));
        agent.tell_all();
        let started = Wall::now();
        agent.rest(REST);
        let idle = started.elapsed().as_secs_f64() / REST.as_secs_f64();
        Self { members, pings, packets, equal_exchanges, news_exchanges, idle }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7} | {:.0} | {:.0} ({:.0}) | {:.0}, {:.0} | {:.4} %",
            self.members,
            self.pings,
            self.packets,
            self.packets * FACTS as f64,
            self.equal_exchanges,
            self.news_exchanges,
            100.0 * self.idle,
        )
    }
}

/// How often `act` can be done in a second.
fn rate(count: usize, mut act: impl FnMut(usize)) -> f64 {
    let started = Wall::now();
    (0..count).for_each(&mut act);
    count as f64 / started.elapsed().as_secs_f64().max(1e-9)
}

/// The agent and the members around it, which only say what they must.
#[derive(Debug)]
struct Agent {
    node: Node,
    now: Instant,
    /// The first is the agent itself.
    members: Vec<PushPullState>,
    streams: u64,
    /// Until when members have pinged.
    pinged_at: Instant,
}

impl Agent {
    fn new(members: usize) -> Self {
        let gossip = GossipConfig { compression: false, ..GossipConfig::lan() };
        let config = NodeConfig { gossip, ..node_config("member-0", None) };
        let seed = Seed::from_number(1);
        let wall = WallClock::from_millis(0);
        let restored = recover(&mut SimDisk::new(), &config, seed);
        let restored = restored.expect("an empty disk is accepted");
        let node = Node::new(config, restored, seed, wall, Instant::ZERO);
        let node = node.expect("the settings agree with each other");
        let members = (0..members).map(member).collect();
        let (now, pinged_at) = (Instant::ZERO, Instant::ZERO);
        let mut agent = Self { node, now, members, streams: 0, pinged_at };
        agent.perform();
        agent.exchange(agent.states());
        agent.tell_all();
        agent
    }

    /// Lets time pass until there is nothing to tell any more.
    fn tell_all(&mut self) {
        while self.node.gossip().queued() != [0; 4] {
            self.rest(Duration::from_secs(10));
        }
    }

    fn input(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.perform();
    }

    /// Does what the agent wants: pings are answered, nothing else is heard.
    fn perform(&mut self) {
        let mut acks = Vec::new();
        while let Some(output) = self.node.poll_output() {
            let Output::SendDatagram { to, payload, .. } = output else { continue };
            for message in decode_packet(&payload).into_iter().flatten() {
                if let Message::Ping(ping) = message {
                    acks.push((to, Message::Ack(Ack { seq_no: ping.seq_no, payload: None })));
                }
            }
        }
        for (from, ack) in acks {
            self.datagram(from, ack.encode());
        }
    }

    fn datagram(&mut self, from: SocketAddr, payload: Bytes) {
        self.input(Input::Datagram { pool: PoolName::Lan, from, payload });
    }

    /// The member with this number, which is not the agent.
    fn other(&self, number: usize) -> &PushPullState {
        &self.members[1 + number % (self.members.len() - 1)]
    }

    /// A member probes the agent.
    fn pinged(&mut self, number: usize) {
        let PushPullState { name, address, port, .. } = self.other(number).clone();
        let ping = Message::Ping(Ping {
            seq_no: SeqNo::new(7),
            node: Some(self.members[0].name.clone()),
            source_address: Some(address),
            source_port: port,
            source_node: Some(name),
        });
        self.datagram(SocketAddr::new(address, port), ping.encode());
    }

    /// A member passes facts on that are known.
    fn told(&mut self, number: usize) {
        let from = SocketAddr::new(self.other(number).address, self.other(number).port);
        let fact = |at: usize| {
            let state = self.other(number * 7919 + at).clone();
            let alive = Alive {
                incarnation: state.incarnation,
                node: state.name,
                address: state.address,
                port: state.port,
                meta: state.meta,
                versions: state.versions,
            };
            Message::Alive(alive).encode()
        };
        let parts: Vec<Bytes> = (0..FACTS).map(fact).collect();
        for packet in compound(&parts) {
            self.datagram(from, packet);
        }
    }

    /// What a member that knows the same tells in an exchange.
    fn states(&self) -> Bytes {
        let own = self.node.gossip().peers().next().expect("a member knows itself").0;
        let mut states = self.members.clone();
        (states[0].meta, states[0].address) = (own.meta.clone(), own.address.ip());
        states.sort_by(|a, b| a.name.cmp(&b.name));
        let states = PeerStates::encode(states);
        let exchange = PushPull { join: false, states, user_state: Bytes::new() };
        StreamMessage::PushPull(exchange).encode()
    }

    /// The same from one that heard of the member `number` again.
    fn states_with_news(&mut self, number: usize) -> Bytes {
        let state = &mut self.members[number];
        state.incarnation = state.incarnation.next();
        self.states()
    }

    /// A member exchanges state.
    fn exchange(&mut self, states: Bytes) {
        self.streams += 2;
        let stream = StreamId::new(self.streams);
        let peer = SocketAddr::new(self.other(0).address, 40_000);
        let kind = StreamKind::Gossip(PoolName::Lan);
        self.input(Input::StreamOpened { stream, kind, peer });
        self.input(Input::StreamData { stream, data: states });
    }

    /// Lets time pass as in a quiet pool: each second one member probes the agent.
    fn rest(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let due = self.node.next_timeout().map_or(end, |(at, _)| at).min(end);
            self.now = self.now.max(due);
            self.input(Input::Timeout);
            while self.pinged_at < self.now {
                self.pinged_at = self.pinged_at + Duration::from_secs(1);
                let number = usize::try_from(self.node.stats().inputs).unwrap_or_default();
                self.pinged(number);
            }
        }
    }
}

fn member(number: usize) -> PushPullState {
    let tags = [
        ("build", "1.8.7:"),
        ("dc", "dc1"),
        ("id", "0f1f3a45-6f1c-4f0e-9a56-3d6e5d8c7b21"),
        ("role", "node"),
        ("segment", ""),
        ("vsn", "2"),
        ("vsn_max", "3"),
        ("vsn_min", "2"),
    ];
    let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let address = if number == 0 {
        Ipv4Addr::LOCALHOST
    } else {
        let number = u32::try_from(number).expect("a pool has fewer members");
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number)
    };
    PushPullState {
        name: NodeName::parse(&format!("member-{number}")).expect("letters and digits"),
        address: address.into(),
        port: 8301,
        meta: encode_tags(&tags).expect("tags of an agent are few"),
        incarnation: Incarnation::new(1),
        state: PeerState::Alive,
        versions: Some(Versions::OURS),
    }
}
