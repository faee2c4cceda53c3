//! Commands that the Serf layer answers: events, queries, tags, keys and coordinates.

use super::filter::Events;
use super::session::{Answer, Session, Verdict, done, error};
use super::stream::Records;
use crate::runtime::spawn;
use bytes::Bytes;
use std::collections::BTreeMap;
use terraform_core::id::{NameError, NodeName};
use terraform_core::node::request::{self, Request, RequestBody};
use terraform_core::serf::{
    KeyOperation, KeyReport, QueryId, QueryParameters, SerfReply, SerfRequest,
};
use terraform_core::wire::base64;
use terraform_core::wire::ipc::{
    Body, Coordinate, CoordinateReply, Event, KeysReply, Query, Respond, Tags,
};
use terraform_core::wire::msgpack::FloatBits;

/// Subscriptions to events, and queries that run, of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Errors that clients know by their whole text, to which the node adds by how much.
const KNOWN_ERRORS: [&str; 2] = [
    "user event exceeds configured limit of 512 bytes before encoding",
    "Encoded length of tags exceeds limit of 512 bytes",
];

impl Session {
    async fn ask_serf(&self, request: SerfRequest) -> Answer {
        let (error, body) = self.ask(RequestBody::Serf(request)).await;
        let known = KNOWN_ERRORS.iter().find(|known| error.starts_with(**known));
        (known.map_or(error, |known| (*known).to_owned()), body)
    }

    pub(super) async fn fire(&self, event: Event) -> Answer {
        let Event { coalesce, name, payload } = event;
        self.ask_serf(SerfRequest::FireEvent { name, payload, coalesce }).await
    }

    pub(super) async fn respond(&self, respond: Respond) -> Answer {
        let Respond { id, payload } = respond;
        self.ask_serf(SerfRequest::AnswerQuery { query: QueryId(id), payload }).await
    }

    pub(super) async fn tags(&self, tags: Tags) -> Answer {
        let (delete, set) = (tags.delete.unwrap_or_default(), tags.set.unwrap_or_default());
        self.ask_serf(SerfRequest::EditTags { delete, set }).await
    }

    pub(super) async fn key(&self, key: &str, operation: fn(Bytes) -> KeyOperation) -> Answer {
        match base64::decode(key.as_bytes()) {
            Ok(key) => self.keys(operation(key.into())).await,
            Err(refused) => (refused.to_string(), Some(no_keys())),
        }
    }

    /// Does something with the keyring of every member.
    pub(super) async fn keys(&self, operation: KeyOperation) -> Answer {
        let listed = operation == KeyOperation::List;
        let request = SerfRequest::Keys { operation, relay_factor: 0 };
        let report = match self.request(RequestBody::Serf(request)).await {
            Ok(request::Response::Serf(SerfReply::Keys(report))) => report,
            Ok(other) => return (format!("keys were answered with {other:?}"), Some(no_keys())),
            Err(text) => return (text, Some(no_keys())),
        };
        let error = report.failure().unwrap_or_default();
        (error, Some(Body::Keys(keys_reply(report, listed))))
    }

    pub(super) async fn coordinate(&self, node: &str) -> Answer {
        let reply = |coordinate, ok| Some(Body::Coordinate(CoordinateReply { coordinate, ok }));
        let unknown = || reply(Coordinate::default(), false);
        match self.request(RequestBody::Coordinates).await {
            Ok(request::Response::Coordinates(known)) => {
                let found = known.iter().find(|(name, _)| name.as_str() == node);
                let found = found.map(|(_, at)| reply(wire_coordinate(at), true));
                (String::new(), found.unwrap_or_else(unknown))
            }
            Ok(other) => (format!("coordinates were answered with {other:?}"), unknown()),
            Err(text) => (text, unknown()),
        }
    }

    /// Subscribes to events: the answer, then those to come.
    pub(super) async fn stream(&mut self, seq: u64, filter: &str) -> Verdict {
        self.subscriptions.retain(|_, task| !task.is_finished());
        let filter = match Events::new(filter) {
            None => Err("Invalid event filter".to_owned()),
            Some(_) if self.subscriptions.contains_key(&seq) => {
                Err("Stream with given sequence exists".to_owned())
            }
            Some(_) if self.subscriptions.len() >= SUBSCRIPTIONS_MAX => Err(too_many()),
            Some(filter) => Ok(filter),
        };
        let filter = match filter {
            Ok(filter) => filter,
            Err(text) => return self.verdict(seq, error(&text)).await,
        };
        let coming = self.control.node.fan().subscribe(Box::new(move |event| filter.wants(event)));
        let verdict = self.verdict(seq, done()).await;
        let records = Records { seq, queue: self.queue.clone() };
        self.subscriptions.insert(seq, spawn(records.events(coming)));
        verdict
    }

    /// Asks the members: the answer says whether the question went out; records follow.
    pub(super) async fn query(&mut self, seq: u64, query: &Query) -> Verdict {
        self.queries.retain(|task| !task.is_finished());
        if self.queries.len() >= SUBSCRIPTIONS_MAX {
            return self.verdict(seq, error(&too_many())).await;
        }
        let asked = parameters(query).map_err(|refused| refused.to_string());
        let asked = asked.and_then(|parameters| {
            let body = RequestBody::Serf(SerfRequest::Query(Box::new(parameters)));
            let submitted = self.control.node.submit_query(Request::new(body));
            submitted.map_err(|refused| refused.to_string())
        });
        let (answer, told) = match asked {
            Ok(asked) => asked,
            Err(text) => return self.verdict(seq, error(&text)).await,
        };
        // The node refuses a query at once, and answers a good one when it is over. Once it has
        // answered a later request, a refusal is there.
        let _ = self.request(RequestBody::Coordinates).await;
        if answer.is_there() {
            let refused = answer.wait().await.err();
            let text = refused.map_or_else(|| "the query is over".to_owned(), |e| e.to_string());
            return self.verdict(seq, error(&text)).await;
        }
        let verdict = self.verdict(seq, done()).await;
        let records = Records { seq, queue: self.queue.clone() };
        self.queries.push(spawn(records.query(answer, told)));
        verdict
    }
}

fn too_many() -> String {
    format!("one connection may have {SUBSCRIPTIONS_MAX} of these at a time")
}

fn parameters(query: &Query) -> Result<QueryParameters, NameError> {
    let names = query.filter_nodes.iter().flatten();
    let nodes = names.map(|name| NodeName::parse(name)).collect::<Result<_, _>>()?;
    Ok(QueryParameters {
        name: query.name.clone(),
        payload: query.payload.clone().unwrap_or_default(),
        nodes,
        tags: query.filter_tags.clone().unwrap_or_default(),
        acknowledge: query.request_ack,
        relay_factor: query.relay_factor,
        timeout: (!query.timeout.is_zero()).then_some(query.timeout),
    })
}

fn keys_reply(report: KeyReport, listed: bool) -> KeysReply {
    let KeyReport { nodes, responses, errors, messages, keys, primary_keys: _ } = report;
    KeysReply {
        keys: listed.then_some(keys),
        messages: messages.into_iter().map(|(name, text)| (name.to_string(), text)).collect(),
        errors,
        nodes,
        responses,
    }
}

const fn no_keys() -> Body {
    let messages = BTreeMap::new();
    Body::Keys(KeysReply { keys: None, messages, errors: 0, nodes: 0, responses: 0 })
}

fn wire_coordinate(at: &terraform_core::coordinate::Coordinate) -> Coordinate {
    let bits = |number: f64| FloatBits(number.to_bits());
    Coordinate {
        adjustment: bits(at.adjustment()),
        error: bits(at.error()),
        height: bits(at.height()),
        position: Some(at.position().iter().copied().map(bits).collect()),
    }
}
