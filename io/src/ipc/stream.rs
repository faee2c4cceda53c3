//! Subscriptions: records that come beside the answers (gossip-wire.md §12.2).
//!
//! Each runs as a task that ends with its connection. A query's acknowledgements and answers are
//! told as they come: Serf's clients stop reading answers at the record that ends a query, and
//! lose those that came together with it.

use crate::handle::Answer;
use crate::log::{Line, Monitor};
use bytes::Bytes;
use smol::channel::{Receiver, Sender};
use std::sync::Arc;
use terraform_core::id::NodeName;
use terraform_core::node::request;
use terraform_core::serf::{
    MemberEventKind, QueryHeard, QueryId, QueryOutcome, SerfEvent, SerfReply,
};
use terraform_core::wire::ipc::{Body, EventRecord, Member, QueryRecord, Response};
use terraform_core::wire::serf::UserEvent;

/// Where the records of one subscription go.
pub(super) struct Records {
    /// The number of the request that made it.
    pub(super) seq: u64,
    /// What waits for the client.
    pub(super) queue: Sender<Bytes>,
}

impl Records {
    /// Queues a record; false if the client is gone.
    async fn put(&self, body: Body) -> bool {
        let record = Response { seq: self.seq, error: String::new(), body: Some(body) };
        self.queue.send(record.encode()).await.is_ok()
    }

    /// The kept lines of the log, then those to come.
    pub(super) async fn log(self, kept: Vec<Arc<Line>>, monitor: Monitor) {
        for line in kept {
            if !self.put(Body::Log(line.to_string())).await {
                return;
            }
        }
        while let Some(line) = monitor.next().await {
            if !self.put(Body::Log(line.to_string())).await {
                return;
            }
        }
    }

    /// Events, until their sender drops the subscription; the connection ends with it, since
    /// nothing else tells the client that it missed events.
    pub(super) async fn events(self, coming: Receiver<Arc<SerfEvent>>) {
        while let Ok(event) = coming.recv().await {
            if !self.put(Body::Event(event_record(&event))).await {
                return;
            }
        }
        self.queue.close();
    }

    /// What members say to a query, and the record that ends it.
    pub(super) async fn query(self, answer: Answer, told: Receiver<QueryHeard>) {
        let mut known = QueryOutcome::default();
        // The node's end of it goes away with the query.
        while let Ok(QueryHeard { from, answer }) = told.recv().await {
            if !self.said(&from, answer.as_ref()).await {
                return;
            }
            match answer {
                Some(payload) => drop(known.answers.insert(from, payload)),
                None => drop(known.acks.insert(from)),
            }
        }
        let Ok(request::Response::Serf(SerfReply::Query(outcome))) = answer.wait().await else {
            // The agent stops before the query is over.
            return;
        };
        for name in outcome.acks.difference(&known.acks) {
            if !self.said(name, None).await {
                return;
            }
        }
        for (name, payload) in &outcome.answers {
            if !known.answers.contains_key(name) && !self.said(name, Some(payload)).await {
                return;
            }
        }
        let (from, kind) = (String::new(), "done".to_owned());
        self.put(Body::Query(QueryRecord { from, payload: None, kind })).await;
    }

    /// Queues what one member said; false if the client is gone.
    async fn said(&self, from: &NodeName, answer: Option<&Bytes>) -> bool {
        let kind = if answer.is_some() { "response" } else { "ack" };
        let (from, payload) = (from.to_string(), answer.cloned());
        self.put(Body::Query(QueryRecord { from, payload, kind: kind.to_owned() })).await
    }
}

/// What clients are told of an event. The number of a query is the node's own.
fn event_record(event: &SerfEvent) -> EventRecord {
    match event {
        SerfEvent::Members { kind, members } => {
            let members = members.iter().map(|member| Member::from(&**member)).collect();
            EventRecord::Members { event: kind_name(*kind).to_owned(), members }
        }
        SerfEvent::User(UserEvent { coalesce, time, name, payload }) => EventRecord::User {
            coalesce: *coalesce,
            time: *time,
            name: name.clone(),
            payload: payload.clone(),
        },
        SerfEvent::Query { query: QueryId(id), time, name, payload } => EventRecord::Query {
            id: *id,
            time: *time,
            name: name.clone(),
            payload: (!payload.is_empty()).then(|| payload.clone()),
        },
    }
}

/// The word for a change of members, in records and in filters.
pub(super) const fn kind_name(kind: MemberEventKind) -> &'static str {
    match kind {
        MemberEventKind::Join => "member-join",
        MemberEventKind::Leave => "member-leave",
        MemberEventKind::Failed => "member-failed",
        MemberEventKind::Update => "member-update",
        MemberEventKind::Reap => "member-reap",
    }
}
