//! Queries asked here: told to everybody, answers gathered until the deadline.
//!
//! Implements the asking side of gossip-protocol.md §21. A query is a broadcast with a number; the
//! answers come point to point, and count once for each member. Queries of the layer itself (keys,
//! name conflicts) run the same way and may end as soon as every member has answered.

use super::request::{QueryParameters, SerfRefusal, SerfReply};
use super::{MemberStatus, Serf, SerfOutput, SerfTrace, Timer};
use crate::expression::compile;
use crate::id::{LamportTime, NodeName, RequestId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::serf::{FLAG_ACK, Query, QueryFilter, QueryResponse, SerfMessage};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of an encoded query.
pub(super) const QUERY_BYTES_MAX: usize = 1024;
/// How long a query may run.
pub(super) const QUERY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Relays each answer may take; more are not asked for, nor given.
pub const RELAY_FACTOR_MAX: u8 = 5;

/// Queries that may run at once.
const RUNNING_MAX: usize = 32;
/// Bytes of answers and acknowledgements that one query gathers.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// What an answer or an acknowledgement takes besides its texts.
const ANSWER_OVERHEAD: usize = 64;
/// Gossip rounds that a query takes by default, for each digit of the number of members.
const TIMEOUT_ROUNDS: u32 = 16;
/// Query numbers have 31 bits.
const NUMBER_BITS: u32 = 31;

/// What the members answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryOutcome {
    /// Who said that it was asked.
    pub acks: BTreeSet<NodeName>,
    /// The answers.
    pub answers: BTreeMap<NodeName, Bytes>,
}

/// What one member said to a query that still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryHeard {
    /// Who.
    pub from: NodeName,
    /// Its answer; `None` says that it was asked.
    pub answer: Option<Bytes>,
}

/// Who waits for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request.
    Request(RequestId),
    /// A key operation that a request wants.
    Keys(RequestId),
    /// This member's own name, which another one claims.
    Conflict,
}

/// What identifies a query everywhere: its time and its number.
pub(super) type QueryKey = (LamportTime, u32);

/// A query that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) purpose: Purpose,
    /// Members when it began that could answer.
    pub(super) nodes: usize,
    pub(super) outcome: QueryOutcome,
    bytes: usize,
}

impl Serf {
    /// Asks what a program or a person wants to know.
    pub(super) fn user_query(
        &mut self,
        now: Instant,
        id: RequestId,
        parameters: QueryParameters,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<(), SerfRefusal> {
        let ping = parameters.name == "_serf_ping" && parameters.payload.is_empty();
        if parameters.name.starts_with(super::answer::INTERNAL_PREFIX) && !ping {
            return Err(SerfRefusal::ReservedQuery);
        }
        self.ask(now, Purpose::Request(id), parameters, out)
    }

    /// Begins a query.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        purpose: Purpose,
        parameters: QueryParameters,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<(), SerfRefusal> {
        let timeout = parameters.timeout.filter(|timeout| !timeout.is_zero());
        let timeout = timeout
            .unwrap_or_else(|| default_timeout(self.config.gossip_interval, self.members_there()));
        let address = self.own_address().ok_or(SerfRefusal::Leaving)?;
        let filters = filters(&parameters)?;
        if timeout > QUERY_TIMEOUT_MAX {
            return Err(SerfRefusal::TimeoutTooLong);
        }
        if parameters.relay_factor > RELAY_FACTOR_MAX {
            return Err(SerfRefusal::RelayFactor);
        }
        if self.running.len() >= RUNNING_MAX {
            return Err(SerfRefusal::TooManyQueries);
        }
        let number = self.rng.below(1 << NUMBER_BITS);
        let query = Query {
            address: address.ip(),
            filters,
            flags: if parameters.acknowledge { FLAG_ACK } else { 0 },
            id: u32::try_from(number).expect("31 bits were drawn"),
            time: self.query_clock.now(),
            name: parameters.name,
            payload: (!parameters.payload.is_empty()).then_some(parameters.payload),
            port: address.port(),
            relay_factor: parameters.relay_factor,
            source_node: Some(self.local.clone()),
            timeout,
        };
        let bytes = SerfMessage::Query(query.clone()).encode();
        if let Some(over) = bytes.len().checked_sub(QUERY_BYTES_MAX).filter(|over| *over > 0) {
            return Err(SerfRefusal::QueryTooLarge { over });
        }
        let key = (query.time, query.id);
        let nodes = self.members_there();
        let outcome = QueryOutcome::default();
        self.running.insert(key, Running { purpose, nodes, outcome, bytes: 0 });
        self.timers.set(Timer::Query(key.0, key.1), now + timeout);
        self.query_arrived(now, query, bytes, out);
        Ok(())
    }

    /// Members that are not gone, this one included.
    pub(super) fn members_there(&self) -> usize {
        self.members.values().filter(|entry| !entry.is_gone()).count()
    }

    pub(super) fn own_address(&self) -> Option<SocketAddr> {
        self.members.get(&self.local).map(|entry| entry.member.address)
    }

    /// An answer or an acknowledgement arrived.
    pub(super) fn response_arrived(
        &mut self,
        response: QueryResponse,
        out: &mut Outbox<SerfOutput>,
    ) {
        let QueryResponse { flags, from, id, time, payload } = response;
        let key = (time, id);
        let Some(running) = self.running.get_mut(&key) else { return };
        let Running { outcome: QueryOutcome { acks, answers }, bytes, nodes, purpose } = running;
        let is_ack = flags & FLAG_ACK != 0;
        let known = if is_ack { acks.contains(&from) } else { answers.contains_key(&from) };
        if known {
            return;
        }
        let payload = payload.unwrap_or_default();
        let room = ANSWERS_BYTES_MAX.saturating_sub(*bytes);
        let takes = from.as_str().len() + payload.len() + ANSWER_OVERHEAD;
        if takes > room {
            crate::mark!("serf.answer_without_room");
            crate::trace!(out, Level::Warn, SerfTrace::AnswerWithoutRoom { from });
            return;
        }
        *bytes += takes;
        if let Purpose::Request(id) = *purpose {
            let answer = (!is_ack).then(|| payload.clone());
            let heard = QueryHeard { from: from.clone(), answer };
            out.push(SerfOutput::QueryHeard { id, heard });
        }
        if is_ack {
            acks.insert(from);
            return;
        }
        answers.insert(from, payload);
        let all = answers.len() >= *nodes;
        if all && matches!(purpose, Purpose::Keys(_)) {
            self.query_over(key, out);
        }
    }

    /// A query is over: its deadline has come, or nothing more is wanted.
    pub(super) fn query_over(&mut self, key: QueryKey, out: &mut Outbox<SerfOutput>) {
        self.timers.cancel(&Timer::Query(key.0, key.1));
        let Some(running) = self.running.remove(&key) else { return };
        let (id, reply) = match running.purpose {
            Purpose::Request(id) => (id, SerfReply::Query(running.outcome)),
            Purpose::Keys(id) => (id, SerfReply::Keys(super::keys::report(running))),
            Purpose::Conflict => {
                self.resolve_conflict(running.outcome.answers, out);
                return;
            }
        };
        out.push(SerfOutput::Reply { id, result: Ok(reply) });
    }

    /// The addresses of `count` random members that can relay, this one left out.
    pub(super) fn relays(&mut self, count: usize) -> Vec<SocketAddr> {
        let able = |entry: &&super::Entry| {
            let member = &entry.member;
            member.status == MemberStatus::Alive
                && member.versions.protocol_max >= RELAY_PROTOCOL
                && member.name != self.local
        };
        let mut able: Vec<SocketAddr> =
            self.members.values().filter(able).map(|entry| entry.member.address).collect();
        self.rng.shuffle(&mut able);
        able.truncate(count);
        able
    }
}

/// How long a query takes if nobody says otherwise, among `n` members (gossip-wire.md §11.11).
pub(super) fn default_timeout(gossip_interval: Duration, n: usize) -> Duration {
    let digits = n.max(1).ilog10() + 1;
    gossip_interval.saturating_mul(TIMEOUT_ROUNDS * digits)
}

/// The first protocol version that relays.
const RELAY_PROTOCOL: u8 = 5;

/// The filters on the wire, once every expression is known to be usable.
fn filters(parameters: &QueryParameters) -> Result<Option<Vec<Bytes>>, SerfRefusal> {
    let mut filters = Vec::new();
    if !parameters.nodes.is_empty() {
        let names = parameters.nodes.iter().map(ToString::to_string).collect();
        filters.push(QueryFilter::Nodes(names).encode());
    }
    for (tag, expression) in &parameters.tags {
        let (tag, expression) = (tag.clone(), expression.clone());
        if let Err(rule) = compile(&expression) {
            return Err(SerfRefusal::BadExpression { tag, rule });
        }
        filters.push(QueryFilter::Tag { tag, expression }.encode());
    }
    Ok((!filters.is_empty()).then_some(filters))
}
