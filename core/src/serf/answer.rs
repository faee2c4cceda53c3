//! Queries of others: spread on, acknowledged, delivered, answered once, relayed.
//!
//! Implements the receiving side of gossip-protocol.md §21 and gossip-wire.md §11.4 to §11.7. A
//! query is spread on even if it is not for this member. Names with the prefix `_serf_` belong to
//! the layer itself and are not delivered.
//!
//! Differs: an answer above 1024 bytes is sent on a stream instead of being refused, without
//! relays (gossip-protocol.md §28, size of answers).

use super::query::RELAY_FACTOR_MAX;
use super::request::SerfRefusal;
use super::{Serf, SerfEvent, SerfOutput, SerfTrace};
use crate::gossip::BroadcastClass;
use crate::id::{LamportTime, NodeName};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::DecodeError;
use crate::wire::pack::{Pack, Reader};
use crate::wire::serf::{FLAG_ACK, FLAG_NO_BROADCAST, Query, QueryResponse, Relay, SerfMessage};
use bytes::Bytes;
use std::net::SocketAddr;

/// Bytes of an encoded answer.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What the names of the layer's own queries begin with.
pub(super) const INTERNAL_PREFIX: &str = "_serf_";

/// Bytes of an answer that is relayed, and of any message passed on.
const RELAYED_BYTES_MAX: usize = 1024;
/// Queries that may wait for their answer from here.
const PENDING_MAX: usize = 1024;
/// Bytes of queries remembered: 512 times with many queries each.
pub(super) const RECENT_BYTES_MAX: usize = 1 << 20;
/// What one remembered query takes.
const RECENT_OVERHEAD: usize = 64;

/// Names a query that was delivered here; counts from 1 in each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(pub u64);

impl Pack for QueryId {
    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u64::unpack(input).map(Self)
    }
}

/// A query that was delivered here.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    id: u32,
    time: LamportTime,
    origin: SocketAddr,
    origin_name: Option<NodeName>,
    relay_factor: u8,
    deadline: Instant,
    answered: bool,
}

impl Serf {
    /// A query arrived, or is asked here.
    pub(super) fn query_arrived(
        &mut self,
        now: Instant,
        query: Query,
        bytes: Bytes,
        out: &mut Outbox<SerfOutput>,
    ) {
        if !self.query_clock.witness(query.time) {
            let (about, time) = (query.name, query.time);
            crate::trace!(out, Level::Warn, SerfTrace::TimeTooFar { about, time });
            return;
        }
        let clock = self.query_clock.now();
        if !self.queries.admit(clock, query.time, query.id, RECENT_OVERHEAD) {
            return;
        }
        crate::mark!("serf.query");
        if query.flags & FLAG_NO_BROADCAST == 0 {
            self.broadcast(BroadcastClass::Query, bytes, out);
        }
        if !self.is_for_me(&query) {
            return;
        }
        let pending = Pending {
            id: query.id,
            time: query.time,
            origin: SocketAddr::new(query.address, query.port),
            origin_name: query.source_node,
            relay_factor: query.relay_factor.min(RELAY_FACTOR_MAX),
            deadline: now + query.timeout,
            answered: false,
        };
        if query.flags & FLAG_ACK != 0 {
            let ack = self.response(&pending, FLAG_ACK, None);
            self.respond(&pending, ack, out);
        }
        let payload = query.payload.unwrap_or_default();
        match query.name.strip_prefix(INTERNAL_PREFIX) {
            Some(name) => self.internal_query(now, name, payload, pending, out),
            None => {
                let (time, name) = (query.time, query.name);
                let query = self.keep_pending(now, pending);
                let event = SerfEvent::Query { query, time, name, payload };
                out.push(SerfOutput::Event(event));
            }
        }
    }

    fn is_for_me(&self, query: &Query) -> bool {
        let Some(own) = self.members.get(&self.local) else { return false };
        let filters = query.filters.as_deref().unwrap_or_default();
        super::filter::matches(filters, &self.local, &own.member.tags)
    }

    fn internal_query(
        &mut self,
        now: Instant,
        name: &str,
        payload: Bytes,
        pending: Pending,
        out: &mut Outbox<SerfOutput>,
    ) {
        match name {
            // The acknowledgement is all there is to it.
            "ping" => {}
            "conflict" => {
                if let Some(answer) = self.conflict_answer(&payload) {
                    let response = self.response(&pending, 0, Some(answer));
                    self.respond(&pending, response, out);
                }
            }
            name => match super::keys::operation(name, &payload) {
                Ok(operation) => {
                    let query = self.keep_pending(now, pending);
                    out.push(SerfOutput::KeyOperation { query, operation });
                }
                Err(error) => crate::trace!(out, Level::Debug, SerfTrace::Malformed { error }),
            },
        }
    }

    /// Keeps a query until its deadline; the oldest one makes room if need be.
    fn keep_pending(&mut self, now: Instant, pending: Pending) -> QueryId {
        self.pending.retain(|_, pending| pending.deadline > now);
        if self.pending.len() >= PENDING_MAX {
            crate::mark!("serf.query_pushed_out");
            self.pending.pop_first();
        }
        self.delivered += 1;
        let id = QueryId(self.delivered);
        self.pending.insert(id, pending);
        id
    }

    /// Answers a query that was delivered here.
    pub(super) fn answer_query(
        &mut self,
        now: Instant,
        query: QueryId,
        payload: Bytes,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<(), SerfRefusal> {
        let pending = self.pending.get(&query).ok_or(SerfRefusal::UnknownQuery)?.clone();
        if pending.answered {
            return Err(SerfRefusal::AlreadyAnswered);
        }
        if now >= pending.deadline {
            return Err(SerfRefusal::TooLate);
        }
        let response = self.response(&pending, 0, Some(payload));
        let bytes = SerfMessage::QueryResponse(response.clone()).encode().len();
        if let Some(over) = bytes.checked_sub(ANSWER_BYTES_MAX).filter(|over| *over > 0) {
            return Err(SerfRefusal::AnswerTooLarge { over });
        }
        if let Some(pending) = self.pending.get_mut(&query) {
            pending.answered = true;
        }
        self.respond(&pending, response, out);
        Ok(())
    }

    fn response(&self, to: &Pending, flags: u32, payload: Option<Bytes>) -> QueryResponse {
        QueryResponse { flags, from: self.local.clone(), id: to.id, time: to.time, payload }
    }

    /// Sends a response to whoever asked, and through relays if it wants that.
    fn respond(&mut self, to: &Pending, response: QueryResponse, out: &mut Outbox<SerfOutput>) {
        if self.own_address() == Some(to.origin) {
            self.response_arrived(response, out);
            return;
        }
        let message = SerfMessage::QueryResponse(response).encode();
        let relays = usize::from(to.relay_factor);
        if relays > 0 && self.members.len() > relays {
            let relay = Relay {
                address: to.origin.ip(),
                port: to.origin.port(),
                zone: String::new(),
                name: to.origin_name.clone(),
                message: message.clone(),
            };
            let payload = SerfMessage::Relay(relay).encode();
            if payload.len() <= RELAYED_BYTES_MAX {
                for to in self.relays(relays) {
                    out.push(SerfOutput::SendUser { to, payload: payload.clone() });
                }
            }
        }
        out.push(SerfOutput::SendUser { to: to.origin, payload: message });
    }

    /// Passes a message on to whom it is for, unread.
    pub(super) fn pass_on(&self, relay: Relay, out: &mut Outbox<SerfOutput>) {
        let bytes = relay.message.len();
        if relay.port == 0 || bytes > RELAYED_BYTES_MAX {
            crate::trace!(out, Level::Debug, SerfTrace::NotPassedOn { bytes });
            return;
        }
        crate::mark!("serf.relayed");
        let to = SocketAddr::new(relay.address, relay.port);
        out.push(SerfOutput::SendUser { to, payload: relay.message });
    }
}
