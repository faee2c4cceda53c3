//! Peers that know the protocols and lie as the input wants.

use super::host::Host;
use crate::choices::Choices;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use terraform_core::catalog::Tables;
use terraform_core::catalog::image::ImageEncoder;
use terraform_core::gossip::Versions;
use terraform_core::id::{
    ClusterId, Datacenter, Incarnation, LogIndex, NodeId, NodeName, PoolName, SeqNo, StoreId, Term,
};
use terraform_core::log::chain;
use terraform_core::node::input::{Input, StreamKind};
use terraform_core::node::request::RequestError;
use terraform_core::raft::bootstrap::{BootstrapMessage, Verdict};
use terraform_core::raft::{
    Append, AppendReject, Body, Campaign, Condition, Configuration, Entry, EntryKind, Header,
    Message, Refusal, Server, SnapshotBlock, SnapshotMeta, Unfit,
};
use terraform_core::wire::gossip::{
    Ack, Alive, Dead, IndirectPing, Message as Gossip, PeerState, PeerStates, Ping, PushPull,
    PushPullState, StreamMessage, Suspect,
};
use terraform_core::wire::pack::{from_bytes, to_bytes};
use terraform_core::wire::rpc::{Frame, Hello, Lane, Outcome, RemoteReply};
use terraform_core::wire::serf::encode_tags;

/// One of four peers; the fourth has the agent's own name and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer(u8);

impl Peer {
    pub(super) const fn number(n: u8) -> Self {
        Self(n % 4)
    }

    pub(super) fn at(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self::number(ip.octets()[3].saturating_sub(1)),
            IpAddr::V6(_) => Self(0),
        }
    }

    fn ip(self) -> IpAddr {
        let last = if self.0 == 3 { 9 } else { self.0 + 1 };
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    pub(super) fn address(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    fn name(self) -> NodeName {
        let name = match self.0 {
            0 => "p1",
            1 => "p2",
            2 => "p3",
            _ => "agent",
        };
        NodeName::parse(name).expect("letters and digits are a name")
    }

    /// Two identities are above the agent's and one below, because the lowest one proposes.
    const fn id(self) -> NodeId {
        NodeId::from_bytes(match self.0 {
            0 => [0xf1; 16],
            1 => [0xf2; 16],
            _ => [0x03; 16],
        })
    }

    const fn store(self) -> StoreId {
        StoreId::from_bytes([self.0 + 101; 16])
    }

    /// What it says of itself: a server, or a client if `choice` is odd.
    fn meta(self, choice: u8) -> Bytes {
        let role = if choice & 1 == 0 { "terraform" } else { "node" };
        let mut tags: BTreeMap<String, String> = [
            ("role", role),
            ("dc", if choice & 2 == 0 { "dc1" } else { "dc2" }),
            ("port", "8300"),
            ("vsn", "1"),
            ("expect", "3"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        tags.insert("id".to_owned(), self.id().to_string());
        encode_tags(&tags).expect("six short tags fit")
    }
}

const VERSIONS: Versions = Versions {
    protocol_min: 1,
    protocol_max: 5,
    protocol: 2,
    delegate_min: 2,
    delegate_max: 5,
    delegate: 4,
};

/// The cluster that a frame of the agent names.
pub(super) fn cluster_of(frame: &Frame) -> Option<ClusterId> {
    if let Frame::Raft(bytes) = frame {
        return from_bytes::<Message>(bytes).ok().map(|message| message.header.cluster);
    }
    let Frame::Bootstrap(bytes) = frame else {
        return None;
    };
    match from_bytes(bytes) {
        Ok(BootstrapMessage::Ask { promise, .. } | BootstrapMessage::Query { promise, .. }) => {
            Some(promise.cluster())
        }
        Ok(BootstrapMessage::Answer { .. } | BootstrapMessage::Release { .. }) | Err(_) => None,
    }
}

/// A fact about a member, or a message of the layer above.
fn gossip(choices: &mut Choices<'_>) -> Gossip {
    let subject = Peer::number(choices.byte());
    let incarnation = Incarnation::new(u32::from(choices.byte()));
    let seq_no = SeqNo::new(u32::from(choices.byte()));
    let (node, from) = (subject.name(), Peer::number(choices.byte()).name());
    match choices.byte() % 8 {
        0 => Gossip::Suspect(Suspect { incarnation, node, from }),
        1 => Gossip::Dead(Dead { incarnation, node, from }),
        2 => Gossip::Ack(Ack { seq_no, payload: super::serf::ack_payload(choices) }),
        3 => Gossip::Ping(Ping {
            seq_no,
            node: Some(node),
            source_address: Some(subject.ip()),
            source_port: 8301,
            source_node: Some(from),
        }),
        4 => Gossip::IndirectPing(IndirectPing {
            seq_no,
            target: subject.ip(),
            port: u16::from(choices.byte()),
            node: Some(node),
            nack: true,
            source_address: None,
            source_port: 0,
            source_node: None,
        }),
        5 => Gossip::User(super::serf::message(choices, node, subject.ip()).encode()),
        _ => {
            let meta = choices.byte();
            Gossip::Alive(Alive {
                incarnation,
                node,
                address: subject.ip(),
                // Rarely, somebody else claims the name.
                port: if meta == u8::MAX { 8302 } else { 8301 },
                meta: subject.meta(meta),
                versions: Some(VERSIONS),
            })
        }
    }
}

fn exchange(choices: &mut Choices<'_>) -> StreamMessage {
    let states = (0..choices.byte() % 5).map(|_| {
        let peer = Peer::number(choices.byte());
        PushPullState {
            name: peer.name(),
            address: peer.ip(),
            port: 8301,
            meta: peer.meta(choices.byte()),
            incarnation: Incarnation::new(u32::from(choices.byte())),
            state: match choices.byte() % 6 {
                0 => PeerState::Suspect,
                1 => PeerState::Dead,
                2 => PeerState::Left,
                _ => PeerState::Alive,
            },
            versions: Some(VERSIONS),
        }
    });
    let states = PeerStates::encode(states);
    let about = Peer::number(choices.byte());
    let user_state = super::serf::message(choices, about.name(), about.ip()).encode();
    if choices.byte() % 4 == 3 {
        return StreamMessage::User(user_state);
    }
    StreamMessage::PushPull(PushPull { join: choices.byte() & 1 == 0, states, user_state })
}

/// A term or position near `near`.
fn around(choices: &mut Choices<'_>, near: u64) -> u64 {
    match choices.byte() {
        0..160 => near,
        byte @ 160..250 => near.saturating_add(u64::from(byte % 5)).saturating_sub(2),
        byte => u64::MAX >> (byte % 3),
    }
}

fn refusal(choices: &mut Choices<'_>) -> Option<Refusal> {
    match choices.byte() % 16 {
        0 => Some(Refusal::LeaderAlive),
        1 => Some(Refusal::Embargo(Duration::from_secs(1))),
        2 => Some(Refusal::Term),
        3 => Some(Refusal::Log),
        _ => None,
    }
}

fn entries(choices: &mut Choices<'_>, prev: (LogIndex, u64), term: Term) -> Vec<Entry> {
    let (mut index, mut before) = prev;
    let entry = |_| {
        index = index.next();
        let kind = match choices.byte() % 4 {
            0 => EntryKind::Config,
            1 => EntryKind::Command,
            _ => EntryKind::Noop,
        };
        let len = usize::from(choices.byte() % 32);
        let payload = match kind {
            EntryKind::Noop => Bytes::new(),
            EntryKind::Command | EntryKind::Config => Bytes::copy_from_slice(choices.take(len)),
        };
        before = chain(before, index, term, &kind, &payload);
        Entry { index, term, kind, payload, chain: before }
    };
    let count = 3;
    (0..count).map(entry).collect()
}

/// A part of a snapshot of any kind; without bytes in it, all that is one of an empty catalog.
fn block(choices: &mut Choices<'_>, term: Term) -> SnapshotBlock {
    let index = LogIndex::new(around(choices, 2));
    let peer = Peer::number(1);
    let server = Server { address: peer.address(8300), store: peer.store() };
    let configuration =
        Configuration { voters: [(peer.id(), server)].into(), ..Configuration::default() };
    let configuration_index = LogIndex::new(around(choices, 1));
    let chain = u64::from(choices.byte()) & 1;
    let meta = SnapshotMeta { index, term, chain, configuration, configuration_index };
    let (snapshot, number) = (1, u64::from(choices.byte() % 4));
    let last = choices.byte().is_multiple_of(2);
    let len = usize::from(choices.byte() % 64);
    let data = if len == 0 {
        ImageEncoder::new(Tables::default()).next_block(1000).unwrap_or_default()
    } else {
        Bytes::copy_from_slice(choices.take(len))
    };
    SnapshotBlock { snapshot, meta, number, data, last }
}

/// What a peer asks by itself.
fn demand(choices: &mut Choices<'_>, term: Term) -> Body {
    // What drew a number of its own would give every later byte of the corpus another meaning.
    let asked = Term::new(around(choices, term.get()));
    let last_index = LogIndex::new(around(choices, 1));
    let last_term = Term::new(around(choices, term.get()));
    let before = Term::new(asked.get().saturating_sub(1));
    let transfer_from = (last_index.get() > 1).then_some(before);
    let campaign = Campaign { term: asked, last_index, last_term, transfer_from };
    match choices.byte() % 4 {
        0 => Body::PreVote(campaign),
        1 => Body::RequestVote(campaign),
        2 => match around(choices, 1) {
            3 => Body::TimeoutNow { transfer: 1 },
            4 => Body::SnapshotBlock(block(choices, asked)),
            commit => Body::Heartbeat { commit: LogIndex::new(commit), round: 1 },
        },
        _ => {
            let prev_index = LogIndex::new(u64::from(choices.byte() % 4));
            let prev_chain = u64::from(choices.byte()) & 1;
            Body::Append(Append {
                prev_index,
                prev_term: Term::new(around(choices, if prev_index.get() == 0 { 0 } else { 1 })),
                prev_chain,
                commit: LogIndex::new(around(choices, prev_index.get())),
                entries: entries(choices, (prev_index, prev_chain), term),
            })
        }
    }
}

/// A plausible answer to what the agent asked, with numbers of the input's choice.
fn answer(choices: &mut Choices<'_>, body: &Body, term: Term) -> Body {
    let patience = Duration::from_millis(u64::from(choices.word()));
    let applied = LogIndex::new(around(choices, 0));
    let unfit = [None, Some(Unfit::DiskFull), Some(Unfit::Recovering), None];
    let unfit = unfit.get(usize::from(choices.byte() / 64)).copied().flatten();
    let condition = Condition { applied, patience, unfit };
    match body {
        Body::PreVote(campaign) => Body::PreVoteAnswer {
            campaign_term: Term::new(around(choices, campaign.term.get())),
            refusal: refusal(choices),
        },
        Body::RequestVote(_) => Body::VoteAnswer { refusal: refusal(choices) },
        Body::Append(append) => {
            let last = append.prev_index.get() + append.entries.len() as u64;
            if choices.byte() < 200 {
                let match_index = LogIndex::new(around(choices, last));
                return Body::AppendOk { match_index, condition };
            }
            Body::AppendReject(AppendReject {
                prev_index: append.prev_index,
                hint_index: LogIndex::new(around(choices, append.prev_index.get())),
                hint_term: Term::new(around(choices, append.prev_term.get())),
            })
        }
        Body::TimeoutNow { transfer } => {
            Body::TransferReject { transfer: *transfer, reason: Unfit::NotVoter }
        }
        Body::Heartbeat { round, .. } => {
            let round = round.saturating_add(applied.get());
            Body::HeartbeatAnswer { round, condition }
        }
        Body::SnapshotBlock(block) => {
            let next = around(choices, block.number.saturating_add(1));
            Body::SnapshotAnswer { snapshot: block.snapshot, next }
        }
        Body::PreVoteAnswer { .. }
        | Body::VoteAnswer { .. }
        | Body::AppendOk { .. }
        | Body::AppendReject(_)
        | Body::SnapshotAnswer { .. }
        | Body::HeartbeatAnswer { .. }
        | Body::TransferReject { .. } => demand(choices, term),
    }
}

fn bootstrap_answer(
    choices: &mut Choices<'_>,
    peer: Peer,
    message: BootstrapMessage,
) -> BootstrapMessage {
    let round = u64::from(choices.byte());
    match message {
        BootstrapMessage::Ask { promise, round, .. } => BootstrapMessage::Answer {
            to: promise.proposer,
            from: peer.id(),
            store: peer.store(),
            round: around(choices, round),
            verdict: match choices.byte() % 8 {
                0 => Verdict::Refused,
                1 => Verdict::Member(promise.cluster()),
                _ => Verdict::Promised,
            },
        },
        BootstrapMessage::Answer { to, from, .. } => {
            BootstrapMessage::Release { to: if round < 128 { from } else { to }, question: round }
        }
        BootstrapMessage::Query { promise, question, .. } => {
            let to = promise.proposer;
            BootstrapMessage::Release { to, question: around(choices, question) }
        }
        BootstrapMessage::Release { to, question } => {
            let promise = terraform_core::raft::bootstrap::Promise {
                proposer: peer.id(),
                store: peer.store(),
            };
            BootstrapMessage::Ask { to, promise, round: question, expect: 3 }
        }
    }
}

impl Host {
    /// A datagram from a peer: a fact, or bytes of the input.
    pub(super) fn datagram(&mut self, choices: &mut Choices<'_>) {
        let from = Peer::number(choices.byte()).address(8301);
        let choice = choices.byte();
        let payload = if choice < 32 {
            let len = usize::from(choices.byte());
            Bytes::copy_from_slice(choices.take(len))
        } else if choice < 48 {
            let who = Peer::number(choices.byte()).name();
            let response = super::serf::response(choices, self.query, who);
            Gossip::User(response.encode()).encode()
        } else {
            gossip(choices).encode()
        };
        let pool = if choice & 1 == 0 { PoolName::Lan } else { PoolName::Wan };
        self.input(Input::Datagram { pool, from, payload });
    }

    /// A peer says something on a stream: what was heard is answered, or something is asked.
    pub(super) fn peer_speaks(&mut self, choices: &mut Choices<'_>) {
        let (to, cluster) = (self.node.id(), self.cluster);
        let Some(stream) = self.pick_stream(choices) else {
            return;
        };
        let (id, peer) = (stream.id, stream.peer);
        if stream.kind != StreamKind::Server {
            let data = exchange(choices).encode();
            self.input(Input::StreamData { stream: id, data });
            return;
        }
        let heard = stream.heard.pop_front();
        let frame = speak(choices, peer, (to, cluster), heard);
        let data = frame.encode().expect("a peer's frame is short");
        self.input(Input::StreamData { stream: id, data });
    }
}

/// The peer's next frame.
fn speak(
    choices: &mut Choices<'_>,
    peer: Peer,
    (to, cluster): (NodeId, ClusterId),
    heard: Option<Frame>,
) -> Frame {
    let header = |term| Header {
        cluster,
        from: peer.id(),
        address: peer.address(8300),
        from_store: peer.store(),
        to,
        term,
        sent_at: 0,
    };
    match heard {
        Some(Frame::Raft(bytes)) => {
            let message: Message = from_bytes(&bytes).expect("the agent sends readable messages");
            let term = Term::new(around(choices, message.header.term.get()));
            let sent_at = around(choices, message.header.sent_at);
            let body = answer(choices, &message.body, term);
            let header = Header { sent_at, ..header(term) };
            Frame::Raft(to_bytes(&Message { header, body }))
        }
        Some(Frame::Bootstrap(bytes)) => {
            let message = from_bytes(&bytes).expect("the agent sends readable messages");
            Frame::Bootstrap(to_bytes(&bootstrap_answer(choices, peer, message)))
        }
        Some(Frame::Request(request)) => {
            let outcome = match choices.byte() % 4 {
                0 => Outcome::Failed(RequestError::NoLeader),
                1 => Outcome::Failed(RequestError::Refused("no".to_owned())),
                _ => Outcome::Done,
            };
            Frame::Reply(RemoteReply { id: request.id, outcome })
        }
        Some(Frame::Ping) => Frame::Pong,
        Some(Frame::Hello(hello)) => {
            Frame::Hello(Hello { node: peer.id(), name: peer.name(), lane: hello.lane, ..hello })
        }
        Some(Frame::Reply(_) | Frame::Pong | Frame::Cancel(_)) | None => match choices.byte() % 4 {
            0 => Frame::Hello(Hello {
                protocol_min: 1,
                protocol_max: 1,
                datacenter: Datacenter::parse("dc1").expect("a datacenter's name"),
                node: peer.id(),
                name: peer.name(),
                lane: if choices.byte() & 1 == 0 { Lane::Data } else { Lane::Heartbeat },
            }),
            1 => Frame::Ping,
            _ => {
                let term = Term::new(u64::from(choices.byte() % 8));
                let body = demand(choices, term);
                Frame::Raft(to_bytes(&Message { header: header(term), body }))
            }
        },
    }
}
