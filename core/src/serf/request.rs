//! What programs and people ask of the Serf layer, and what it answers.
//!
//! Every request is answered once with [`super::SerfOutput::Reply`]: at once, or when the query
//! behind it is over. Sizes are refused with how much they are too large.

use super::answer::{ANSWER_BYTES_MAX, QueryId};
use super::event::EVENT_BYTES_MAX;
use super::keys::{KeyOperation, KeyReport};
use super::query::{QUERY_BYTES_MAX, QUERY_TIMEOUT_MAX, QueryOutcome, RELAY_FACTOR_MAX};
use super::{Serf, SerfOutput};
use crate::expression::ExpressionError;
use crate::id::{LamportTime, NodeName, RequestId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::wire::gossip::META_BYTES_MAX;
use crate::wire::serf::{TagsTooLong, decode_tags, encode_tags};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfRequest {
    /// Tell every member something once. Answered by `SerfReply::Fired`.
    FireEvent {
        /// What it is about.
        name: String,
        /// What is told.
        payload: Bytes,
        /// Whether receivers may merge events of this name into the newest.
        coalesce: bool,
    },
    /// Ask members something. Answered by `SerfReply::Query` at the query's deadline.
    Query(Box<QueryParameters>),
    /// Answer a query that was delivered here. Answered by `SerfReply::Done`.
    AnswerQuery {
        /// Which.
        query: QueryId,
        /// The answer.
        payload: Bytes,
    },
    /// Do something with the keyring of every member. Answered by `SerfReply::Keys` when all have
    /// answered, or at the deadline.
    Keys {
        /// What.
        operation: KeyOperation,
        /// How many relays each answer takes besides.
        relay_factor: u8,
    },
    /// Change what this member says of itself: first `delete`, then `set`. Answered by
    /// `SerfReply::Done`.
    EditTags {
        /// Tags to take away; unknown ones are no error.
        delete: Vec<String>,
        /// Tags to set.
        set: BTreeMap<String, String>,
    },
}
pack_enum!(SerfRequest {
    1 => FireEvent { name, payload, coalesce },
    2 => Query(Box<QueryParameters>),
    3 => AnswerQuery { query, payload },
    4 => Keys { operation, relay_factor },
    5 => EditTags { delete, set },
});

/// Whom to ask what, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryParameters {
    /// What it is about.
    pub name: String,
    /// What is asked.
    pub payload: Bytes,
    /// Only these members answer; empty stands for all.
    pub nodes: Vec<NodeName>,
    /// Only members answer whose tags match these expressions.
    pub tags: BTreeMap<String, String>,
    /// Whether members say at once that they were asked.
    pub acknowledge: bool,
    /// How many relays each answer takes besides.
    pub relay_factor: u8,
    /// How long answers are taken; the default grows with the cluster.
    pub timeout: Option<Duration>,
}
pack_struct!(QueryParameters { name, payload, nodes, tags, acknowledge, relay_factor, timeout });

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfReply {
    /// It is done.
    Done,
    /// The event has this time on the event clock.
    Fired(LamportTime),
    /// What the members answered.
    Query(QueryOutcome),
    /// What became of the key operation.
    Keys(KeyReport),
}

/// Why a request was refused. Nothing changed; whoever asked is at fault unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SerfRefusal {
    /// The event is too large to be told.
    #[error(
        "user event exceeds configured limit of {EVENT_BYTES_MAX} bytes before encoding, by {over}"
    )]
    EventTooLarge {
        /// Bytes it is too large.
        over: usize,
    },
    /// The event is too large once it has its time and field names.
    #[error(
        "encoded user event exceeds configured limit of {EVENT_BYTES_MAX} bytes after encoding, \
         by {over}"
    )]
    EncodedEventTooLarge {
        /// Bytes it is too large.
        over: usize,
    },
    /// The query is too large to be told.
    #[error("query exceeds limit of {QUERY_BYTES_MAX} bytes, by {over}")]
    QueryTooLarge {
        /// Bytes it is too large.
        over: usize,
    },
    /// The query's name belongs to Serf itself.
    #[error("Queries cannot contain the '_serf_' prefix")]
    ReservedQuery,
    /// The expression for a tag cannot be used.
    #[error("the expression for tag {tag:?} cannot be used: {rule}")]
    BadExpression {
        /// Which tag.
        tag: String,
        /// The rule it breaks.
        rule: ExpressionError,
    },
    /// The timeout is longer than a query may run.
    #[error("query timeout exceeds limit of {QUERY_TIMEOUT_MAX:?}")]
    TimeoutTooLong,
    /// More relays than are allowed.
    #[error("Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]")]
    RelayFactor,
    /// Too many queries run already; try again. Nobody is at fault.
    #[error("too many queries are running")]
    TooManyQueries,
    /// No such query was delivered here, or it is long over.
    #[error("No pending queries matching ID")]
    UnknownQuery,
    /// The query was answered before.
    #[error("failed to respond to key query: response already sent")]
    AlreadyAnswered,
    /// The query's deadline has passed.
    #[error("response is past the deadline")]
    TooLate,
    /// The answer is too large to be sent.
    #[error("response exceeds limit of {ANSWER_BYTES_MAX} bytes, by {over}")]
    AnswerTooLarge {
        /// Bytes it is too large.
        over: usize,
    },
    /// The tags are too long to be told.
    #[error("Encoded length of tags exceeds limit of {META_BYTES_MAX} bytes, by {over}")]
    TagsTooLong {
        /// Bytes they are too long.
        over: usize,
    },
    /// The agent leaves. Nobody is at fault.
    #[error("the agent is leaving")]
    Leaving,
}

impl Serf {
    /// Takes a request.
    pub(super) fn request(
        &mut self,
        now: Instant,
        id: RequestId,
        request: SerfRequest,
        out: &mut Outbox<SerfOutput>,
    ) {
        let result = if self.is_active() {
            self.perform(now, id, request, out)
        } else {
            Err(SerfRefusal::Leaving)
        };
        if let Some(result) = result.transpose() {
            out.push(SerfOutput::Reply { id, result });
        }
    }

    /// Does what is asked; `None` if the answer comes later.
    fn perform(
        &mut self,
        now: Instant,
        id: RequestId,
        request: SerfRequest,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<Option<SerfReply>, SerfRefusal> {
        match request {
            SerfRequest::FireEvent { name, payload, coalesce } => {
                let time = self.fire_event(name, payload, coalesce, out)?;
                Ok(Some(SerfReply::Fired(time)))
            }
            SerfRequest::Query(parameters) => {
                self.user_query(now, id, *parameters, out).map(|()| None)
            }
            SerfRequest::AnswerQuery { query, payload } => {
                self.answer_query(now, query, payload, out)?;
                Ok(Some(SerfReply::Done))
            }
            SerfRequest::Keys { operation, relay_factor } => {
                self.ask_for_keys(now, id, operation, relay_factor, out).map(|()| None)
            }
            SerfRequest::EditTags { delete, set } => {
                self.edit_tags(&delete, set, out)?;
                Ok(Some(SerfReply::Done))
            }
        }
    }

    fn edit_tags(
        &mut self,
        delete: &[String],
        set: BTreeMap<String, String>,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<(), SerfRefusal> {
        let mut tags = decode_tags(&self.meta).expect("this member's own meta holds its tags");
        delete.iter().for_each(|tag| drop(tags.remove(tag)));
        tags.extend(set);
        let meta = encode_tags(&tags).map_err(|TagsTooLong { bytes }| {
            SerfRefusal::TagsTooLong { over: bytes - META_BYTES_MAX }
        })?;
        if meta != self.meta {
            self.meta = meta.clone();
            out.push(SerfOutput::SetMeta(meta));
        }
        Ok(())
    }
}
