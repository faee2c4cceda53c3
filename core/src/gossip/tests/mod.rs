//! What the tests of the membership machine share.

pub(crate) mod cluster;
mod encryption;
mod packets;
mod paper;
mod proof;
mod streams;

use super::{Peer, Versions};
use crate::id::{Incarnation, NodeName};
use crate::wire::gossip::{Alive, Message, PeerState, PushPullState};
use bytes::Bytes;
use std::net::SocketAddr;

/// The name `text`.
pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

/// A member of that name on a port of 10.0.0.1.
pub(crate) fn peer(text: &str, port: u16) -> Peer {
    Peer {
        name: name(text),
        address: SocketAddr::from(([10, 0, 0, 1], port)),
        meta: Bytes::from_static(b"\xff\x80"),
        versions: Versions::OURS,
        incarnation: Incarnation::new(1),
    }
}

/// The message that this member is alive.
pub(super) fn alive(peer: Peer) -> Message {
    let Peer { name: node, address, meta, versions, incarnation } = peer;
    let (port, versions) = (address.port(), Some(versions));
    Message::Alive(Alive { incarnation, node, address: address.ip(), port, meta, versions })
}

/// What a state exchange says of this member while it is alive.
pub(super) fn record(peer: Peer) -> PushPullState {
    let Peer { name, address, meta, versions, incarnation } = peer;
    let (port, versions, state) = (address.port(), Some(versions), PeerState::Alive);
    PushPullState { name, address: address.ip(), port, meta, incarnation, state, versions }
}

/// Reactions of a recorded agent to hand-made facts.
pub(crate) fn state_rules() -> serde_json::Value {
    let text = include_str!("../../../tests/vectors/gossip/state-rules.json");
    serde_json::from_str(text).unwrap()
}

/// Numbers computed from the formulas of the reference.
pub(crate) fn timers() -> serde_json::Value {
    let text = include_str!("../../../tests/vectors/gossip/timers.json");
    serde_json::from_str(text).unwrap()
}
