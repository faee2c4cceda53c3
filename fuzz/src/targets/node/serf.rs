//! What peers tell and ask through the Serf layer, and what users ask of it.

use crate::choices::Choices;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use terraform_core::coordinate::{Coordinate, DIMENSIONS};
use terraform_core::id::{LamportTime, NodeName};
use terraform_core::serf::{KeyOperation, QueryId, QueryParameters, SerfRequest};
use terraform_core::wire::serf::{
    self, EventSlot, KeyRequest, KeyResponse, Query, QueryFilter, QueryResponse, RecentEvent,
    Relay, SerfMessage, UserEvent, encode_coordinate,
};

const NAMES: [&str; 7] = [
    "deploy",
    "_serf_ping",
    "_serf_conflict",
    "_serf_install-key",
    "_serf_use-key",
    "_serf_remove-key",
    "_serf_list-keys",
];

fn bytes(choices: &mut Choices<'_>) -> Bytes {
    let len = usize::from(choices.byte());
    Bytes::copy_from_slice(choices.take(len))
}

fn text(choices: &mut Choices<'_>) -> String {
    String::from_utf8_lossy(&bytes(choices)).into_owned()
}

fn name(choices: &mut Choices<'_>) -> String {
    let at = usize::from(choices.byte());
    NAMES.get(at % 8).map_or_else(|| text(choices), |name| (*name).to_owned())
}

/// What an ack says of its sender's place.
pub(super) fn ack_payload(choices: &mut Choices<'_>) -> Option<Bytes> {
    match choices.byte() % 4 {
        0 => None,
        1 => Some(bytes(choices)),
        _ => {
            let position = [(); DIMENSIONS].map(|()| number(choices));
            let [error, height, adjustment] = [(); 3].map(|()| number(choices));
            Coordinate::new(position, error, height, adjustment).map(|at| encode_coordinate(&at))
        }
    }
}

fn number(choices: &mut Choices<'_>) -> f64 {
    match choices.byte() {
        0..200 => f64::from(choices.byte()) / 1000.0,
        200..220 => -f64::from(choices.byte()),
        220..240 => f64::MAX,
        240.. => f64::from_bits(u64::from(choices.word()) << 48),
    }
}

/// A message of the Serf layer about `node`, which is at `ip`.
pub(super) fn message(choices: &mut Choices<'_>, node: NodeName, ip: IpAddr) -> SerfMessage {
    let time = LamportTime::new(u64::from(choices.byte()));
    match choices.byte() {
        0..96 => SerfMessage::Join(serf::Join { time, node }),
        96..112 => SerfMessage::Leave(serf::Leave { time, node, prune: false }),
        112..128 => SerfMessage::Leave(serf::Leave { time, node, prune: true }),
        128..144 => SerfMessage::PushPull(serf::PushPull {
            time,
            left_members: vec![node.clone()],
            status_times: BTreeMap::from([(node.to_string(), time)]),
            event_time: LamportTime::new(u64::from(choices.byte())),
            events: Some(slots(choices)),
            ..serf::PushPull::default()
        }),
        144..168 => {
            let (name, payload) = (name(choices), Some(bytes(choices)));
            SerfMessage::UserEvent(UserEvent { coalesce: false, time, name, payload })
        }
        168..208 => SerfMessage::Query(query(choices, time, node, ip)),
        208.. => SerfMessage::Relay(Relay {
            address: ip,
            port: choices.word(),
            zone: String::new(),
            name: Some(node),
            message: bytes(choices),
        }),
    }
}

fn slots(choices: &mut Choices<'_>) -> Vec<Option<EventSlot>> {
    let slot = |_| {
        let time = LamportTime::new(u64::from(choices.word()));
        let event = RecentEvent { name: name(choices), payload: Some(bytes(choices)) };
        (choices.byte() & 1 == 0).then_some(EventSlot { events: vec![event], time })
    };
    (0..3).map(slot).collect()
}

fn query(choices: &mut Choices<'_>, time: LamportTime, node: NodeName, ip: IpAddr) -> Query {
    let filter = match choices.byte() % 4 {
        0 => None,
        1 => Some(QueryFilter::Nodes(vec!["agent".to_owned()]).encode()),
        2 => {
            let expression = text(choices);
            Some(QueryFilter::Tag { tag: "role".to_owned(), expression }.encode())
        }
        _ => Some(bytes(choices)),
    };
    let name = name(choices);
    let payload = match choices.byte() % 3 {
        0 => SerfMessage::KeyRequest(KeyRequest { key: bytes(choices) }).encode(),
        1 => Bytes::copy_from_slice(node.as_str().as_bytes()),
        _ => bytes(choices),
    };
    Query {
        address: ip,
        filters: filter.map(|filter| vec![filter]),
        flags: u32::from(choices.byte() % 4),
        id: u32::from(choices.byte()),
        time,
        name,
        payload: Some(payload),
        port: 8301,
        relay_factor: choices.byte(),
        source_node: Some(node),
        timeout: Duration::from_millis(u64::from(choices.word())),
    }
}

/// An answer, or an acknowledgement, to the query of this time and number.
pub(super) fn response(
    choices: &mut Choices<'_>,
    (time, id): (LamportTime, u32),
    from: NodeName,
) -> SerfMessage {
    let payload = match choices.byte() % 3 {
        0 => SerfMessage::KeyResponse(KeyResponse {
            keys: Some(vec![text(choices)]),
            message: text(choices),
            primary_key: text(choices),
            result: choices.byte() & 1 == 0,
        })
        .encode(),
        1 => SerfMessage::ConflictResponse(None).encode(),
        _ => bytes(choices),
    };
    let flags = u32::from(choices.byte() % 2);
    SerfMessage::QueryResponse(QueryResponse { flags, from, id, time, payload: Some(payload) })
}

/// What a user asks of the Serf layer.
pub(super) fn request(choices: &mut Choices<'_>) -> SerfRequest {
    match choices.byte() % 8 {
        0 | 1 => SerfRequest::FireEvent {
            name: name(choices),
            payload: bytes(choices),
            coalesce: choices.byte() & 1 == 0,
        },
        2 | 3 => SerfRequest::Query(Box::new(QueryParameters {
            name: name(choices),
            payload: bytes(choices),
            nodes: Vec::new(),
            tags: BTreeMap::from([("role".to_owned(), text(choices))]),
            acknowledge: choices.byte() & 1 == 0,
            relay_factor: choices.byte() % 8,
            timeout: Some(Duration::from_millis(u64::from(choices.word()))),
        })),
        4 | 5 => SerfRequest::AnswerQuery {
            query: QueryId(u64::from(choices.byte() % 8)),
            payload: Bytes::from(vec![7; usize::from(choices.word()) * 2]),
        },
        6 => SerfRequest::Keys {
            operation: match choices.byte() % 4 {
                0 => KeyOperation::Install(bytes(choices)),
                1 => KeyOperation::Use(bytes(choices)),
                2 => KeyOperation::Remove(bytes(choices)),
                _ => KeyOperation::List,
            },
            relay_factor: choices.byte() % 8,
        },
        _ => SerfRequest::EditTags {
            delete: vec![text(choices)],
            set: BTreeMap::from([(text(choices), text(choices))]),
        },
    }
}
