//! From the bytes of a question to the bytes of its reply.
//!
//! [`respond`] is pure: a function of the message, the view, the settings and the time. A question
//! that the view may not answer becomes a [`Waiting`], which turns the node's answer into a reply.

use super::wire::{self, Received, Request, Transport};
use crate::clock::Clock;
use crate::handle::NodeHandle;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer};
use terraform_core::dns::{Answer, DnsConfig, Lookup, Plan, Question, Rcode, Zone};
use terraform_core::id::Datacenter;
use terraform_core::node::request::{RequestContext, RequestError};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::time::{Instant, WallClock};
use terraform_core::view::View;

/// What a message is answered from. `now` was read after the view was taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The published state.
    pub view: &'a View,
    /// The settings.
    pub config: &'a DnsConfig,
    /// Monotonic time.
    pub now: Instant,
    /// Civil time, for the SOA's serial.
    pub wall: WallClock,
}

/// What became of a message.
#[derive(Debug)]
pub enum Step {
    /// No reply is due.
    Dropped,
    /// The reply.
    Reply(Vec<u8>),
    /// The node must be asked.
    Wait(Box<Waiting>),
}

/// A question that waits for the node's answer to [`Waiting::query`].
#[derive(Debug)]
pub struct Waiting {
    request: Request,
    lookup: Lookup,
    context: RequestContext,
    transport: Transport,
}

/// Answers a message, from the view if that is allowed.
pub fn respond(
    moment: Moment<'_>,
    message: &[u8],
    transport: Transport,
    from: SocketAddr,
    rng: &mut Rng,
) -> Step {
    let request = match wire::decode(message) {
        Received::Dropped => return Step::Dropped,
        Received::Refused(reply) => return Step::Reply(reply),
        Received::Question(request) => *request,
    };
    let Moment { view, config, now, wall } = moment;
    let zone = zone(config, &view.datacenter, wall);
    let plan = ask(&request, |question| zone.plan(question));
    let answer = match plan {
        Plan::Answer(answer) => answer,
        Plan::Refused => Answer::refusal(Rcode::Refused),
        Plan::NotImplemented => Answer::refusal(Rcode::NotImp),
        Plan::Lookup(lookup) => {
            let context = context(config, &lookup, from);
            let local = view.answer(&context, &lookup.query, now).map(Ok);
            match local.filter(|outcome| !is_too_old(config, &context, outcome)) {
                Some(outcome) => {
                    ask(&request, |question| zone.answer(question, &lookup, &outcome, rng))
                }
                None => {
                    let waiting = Waiting { request, lookup, context, transport };
                    return Step::Wait(Box::new(waiting));
                }
            }
        }
    };
    Step::Reply(wire::encode(&request, &answer, config, transport))
}

impl Waiting {
    /// What to ask the node.
    pub fn query(&self) -> (RequestContext, Query) {
        (self.context.clone(), self.lookup.query.clone())
    }

    /// The reply that follows from the node's answer.
    pub fn reply(
        &self,
        zone: Zone<'_>,
        outcome: &Result<QueryAnswer, RequestError>,
        rng: &mut Rng,
    ) -> Vec<u8> {
        let lookup = &self.lookup;
        let answer = ask(&self.request, |question| zone.answer(question, lookup, outcome, rng));
        wire::encode(&self.request, &answer, zone.config, self.transport)
    }
}

/// Hands the request's question to `then`.
fn ask<T>(request: &Request, then: impl FnOnce(&Question<'_>) -> T) -> T {
    let labels = request.labels();
    let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    then(&Question { labels: &labels, qtype: request.qtype() })
}

fn zone<'a>(config: &'a DnsConfig, datacenter: &'a Datacenter, wall: WallClock) -> Zone<'a> {
    let serial = u32::try_from(wall.as_millis() / 1000).unwrap_or(0);
    Zone { config, datacenter, serial }
}

fn context(config: &DnsConfig, lookup: &Lookup, from: SocketAddr) -> RequestContext {
    let consistency = if config.allow_stale { Consistency::Stale } else { Consistency::Leader };
    let datacenter = lookup.datacenter.clone();
    RequestContext { datacenter, consistency, source: Some(from), ..RequestContext::default() }
}

/// Whether a stale answer is older than the settings allow (dns.md §8).
fn is_too_old(
    config: &DnsConfig,
    context: &RequestContext,
    outcome: &Result<QueryAnswer, RequestError>,
) -> bool {
    let age = outcome.as_ref().map(|answer| answer.last_contact).unwrap_or_default();
    context.consistency == Consistency::Stale && age > config.max_stale
}

/// Answers questions for one socket or connection.
#[derive(Clone, Debug)]
pub(super) struct Responder {
    handle: NodeHandle,
    config: Arc<ArcSwap<DnsConfig>>,
    rng: Rng,
}

impl Responder {
    pub(super) const fn new(handle: NodeHandle, config: Arc<ArcSwap<DnsConfig>>, rng: Rng) -> Self {
        Self { handle, config, rng }
    }

    /// A responder with random numbers of its own.
    pub(super) fn fork(&mut self) -> Self {
        let rng = Rng::for_stream(Seed::from_number(self.rng.bits()), Stream::Dns);
        Self { rng, ..self.clone() }
    }

    /// Answers a message from the newest view if that is allowed.
    pub(super) fn begin(&mut self, bytes: &[u8], transport: Transport, from: SocketAddr) -> Step {
        let (view, config) = (self.handle.view(), self.config.load());
        let clock: Clock = self.handle.clock();
        let (now, wall) = (clock.now(), clock.wall());
        let moment = Moment { view: &view, config: &config, now, wall };
        respond(moment, bytes, transport, from, &mut self.rng)
    }

    /// Asks the node, and once more where the leader is if the answer is too old.
    pub(super) async fn finish(&mut self, waiting: Waiting) -> Vec<u8> {
        let config = self.config.load_full();
        let (mut context, query) = waiting.query();
        let mut outcome = self.handle.query(context.clone(), query.clone()).await;
        if is_too_old(&config, &context, &outcome) {
            context.consistency = Consistency::Leader;
            outcome = self.handle.query(context, query).await;
        }
        self.reply(&waiting, &outcome)
    }

    /// The reply where the node cannot be asked.
    pub(super) fn overloaded(&mut self, waiting: &Waiting) -> Vec<u8> {
        let reason = "too many DNS questions wait for the node".to_owned();
        self.reply(waiting, &Err(RequestError::Overloaded(reason)))
    }

    fn reply(&mut self, waiting: &Waiting, outcome: &Result<QueryAnswer, RequestError>) -> Vec<u8> {
        let (view, config) = (self.handle.view(), self.config.load());
        let zone = zone(&config, &view.datacenter, self.handle.clock().wall());
        waiting.reply(zone, outcome, &mut self.rng)
    }
}
