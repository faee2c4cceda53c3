//! From the bytes of a question to the bytes of its reply.
//!
//! [`respond`] is pure: a function of the message, the view, the settings and the time. A question
//! that the view does not answer becomes a [`Waiting`], which goes on with what the node and the
//! recursors say.

use super::recursor::Recursors;
use super::reply;
use super::request::{self, Received, Request, Transport};
use crate::handle::NodeHandle;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use terraform_core::catalog::query::{Consistency, QueryAnswer};
use terraform_core::dns::{Answer, Chase, DnsConfig, Found, Lookup, Need, Plan, Rcode, Zone};
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
    /// The reply was written.
    Replied,
    /// Somebody must be asked.
    Wait(Box<Waiting>),
}

/// A question that waits for somebody.
#[derive(Debug)]
pub struct Waiting {
    request: Request,
    transport: Transport,
    from: SocketAddr,
    needs: Needs,
}

/// What a question waits for.
#[derive(Debug)]
pub enum Needs {
    /// What the catalog says.
    Rows(Lookup),
    /// What recursors say.
    Recursion,
    /// The addresses of host names.
    Chase(Box<Chase>),
}

/// Answers a message from the view if that is allowed, into `out`.
pub fn respond(
    moment: Moment<'_>,
    message: &[u8],
    (transport, from): (Transport, SocketAddr),
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Step {
    let request = match request::decode(message) {
        Received::Dropped => return Step::Dropped,
        Received::Refused(reply) => {
            *out = reply;
            return Step::Replied;
        }
        Received::Question(request) => request,
    };
    let Moment { view, config, now, wall } = moment;
    let zone = zone(config, &view.datacenter, wall);
    let plan = request.ask((config, transport), |question| match zone.plan(question) {
        Plan::Lookup(lookup) => {
            let context = context(config, &lookup, request.source(from));
            let Some(state) = view.readable(&context, &lookup.query, now) else {
                return Plan::Lookup(lookup);
            };
            if is_too_old(config, &context, state.last_contact(now)) {
                return Plan::Lookup(lookup);
            }
            if let Some(found) = Found::within(state, &lookup.query) {
                return zone.answer(question, &lookup, found, rng);
            }
            match view.answer(&context, &lookup.query, now).map(Ok) {
                Some(outcome) => zone.answer(question, &lookup, Found::of(&outcome), rng),
                None => Plan::Lookup(lookup),
            }
        }
        plan @ (Plan::Answer(_) | Plan::Recurse | Plan::Chase(_)) => plan,
    });
    let needs = match plan {
        Plan::Answer(answer) => {
            reply::encode(&request, &answer, (config, transport), out);
            return Step::Replied;
        }
        Plan::Lookup(lookup) => Needs::Rows(lookup),
        Plan::Recurse => Needs::Recursion,
        Plan::Chase(chase) => Needs::Chase(Box::new(chase)),
    };
    Step::Wait(Box::new(Waiting { request, transport, from, needs }))
}

impl Waiting {
    /// What it waits for.
    pub const fn needs(&self) -> &Needs {
        &self.needs
    }

    /// How the catalog is to be asked.
    pub fn context(&self, config: &DnsConfig, lookup: &Lookup) -> RequestContext {
        context(config, lookup, self.request.source(self.from))
    }

    /// What follows from what the catalog says: the reply, or a longer wait.
    pub fn found(
        &mut self,
        zone: Zone<'_>,
        outcome: &Result<QueryAnswer, RequestError>,
        rng: &mut Rng,
    ) -> Option<Vec<u8>> {
        let Needs::Rows(lookup) = &self.needs else { return None };
        let plan = self.request.ask((zone.config, self.transport), |question| {
            zone.answer(question, lookup, Found::of(outcome), rng)
        });
        match plan {
            Plan::Answer(answer) => return Some(self.reply(zone.config, &answer)),
            Plan::Lookup(lookup) => self.needs = Needs::Rows(lookup),
            Plan::Recurse => self.needs = Needs::Recursion,
            Plan::Chase(chase) => self.needs = Needs::Chase(Box::new(chase)),
        }
        None
    }

    /// The reply with this answer.
    pub fn reply(&self, config: &DnsConfig, answer: &Answer) -> Vec<u8> {
        let mut reply = Vec::new();
        reply::encode(&self.request, answer, (config, self.transport), &mut reply);
        reply
    }
}

fn zone<'a>(config: &'a DnsConfig, datacenter: &'a Datacenter, wall: WallClock) -> Zone<'a> {
    let serial = u32::try_from(wall.as_millis() / 1000).unwrap_or(0);
    Zone { config, datacenter, serial }
}

fn context(config: &DnsConfig, lookup: &Lookup, source: SocketAddr) -> RequestContext {
    let consistency = if config.allow_stale { Consistency::Stale } else { Consistency::Leader };
    let datacenter = lookup.datacenter.clone();
    RequestContext { datacenter, consistency, source: Some(source), ..RequestContext::default() }
}

/// Whether a stale answer is older than the settings allow (dns.md §8).
fn is_too_old(config: &DnsConfig, context: &RequestContext, age: std::time::Duration) -> bool {
    context.consistency == Consistency::Stale && age > config.max_stale
}

/// Answers questions for one socket or connection.
#[derive(Clone, Debug)]
pub(super) struct Responder {
    handle: NodeHandle,
    config: Arc<ArcSwap<DnsConfig>>,
    recursors: Recursors,
    rng: Rng,
}

impl Responder {
    pub(super) fn new(
        handle: NodeHandle,
        config: Arc<ArcSwap<DnsConfig>>,
        recursors: Recursors,
        rng: Rng,
    ) -> Self {
        Self { handle, config, recursors, rng }
    }

    /// A responder with random numbers of its own.
    pub(super) fn fork(&mut self) -> Self {
        let rng = Rng::for_stream(Seed::from_number(self.rng.bits()), Stream::Dns);
        Self { rng, ..self.clone() }
    }

    /// Answers a message from the newest view if that is allowed, into `out`.
    pub(super) fn begin(
        &mut self,
        bytes: &[u8],
        by: (Transport, SocketAddr),
        out: &mut Vec<u8>,
    ) -> Step {
        let (view, config) = (self.handle.view(), self.config.load());
        let clock = self.handle.clock();
        let (now, wall) = (clock.now(), clock.wall());
        let moment = Moment { view: &view, config: &config, now, wall };
        respond(moment, bytes, by, &mut self.rng, out)
    }

    /// Asks whoever must be asked until there is a reply.
    pub(super) async fn finish(&mut self, mut waiting: Waiting) -> Vec<u8> {
        let config = self.config.load_full();
        loop {
            match waiting.needs {
                Needs::Rows(ref lookup) => {
                    let context = waiting.context(&config, lookup);
                    let outcome = self.rows(&config, context, lookup).await;
                    let zone = |zone: Zone<'_>, rng: &mut Rng| waiting.found(zone, &outcome, rng);
                    if let Some(reply) = self.within_zone(&config, zone) {
                        return reply;
                    }
                }
                Needs::Recursion => {
                    let (number, by) = (self.number(), (&*config, waiting.transport));
                    let reply = self.recursors.forward(&waiting.request, by, number).await;
                    let failed = || waiting.reply(&config, &Answer::refusal(Rcode::ServFail));
                    return reply.unwrap_or_else(failed);
                }
                Needs::Chase(chase) => {
                    let answer = self.chase(*chase, &config, waiting.from).await;
                    let Waiting { request, transport, .. } = waiting;
                    let mut reply = Vec::new();
                    reply::encode(&request, &answer, (&config, transport), &mut reply);
                    return reply;
                }
            }
        }
    }

    /// Follows host names to their end.
    async fn chase(&mut self, mut chase: Chase, config: &DnsConfig, from: SocketAddr) -> Answer {
        loop {
            let need = self.within_zone(config, |zone, _| chase.next(&zone));
            match need {
                Need::Rows(lookup) => {
                    let outcome = self.rows(config, context(config, &lookup, from), &lookup).await;
                    self.within_zone(config, |zone, rng| {
                        chase.found(&zone, &lookup, Found::of(&outcome), rng);
                    });
                }
                Need::Records(name, kind) => {
                    let number = self.number();
                    let records = self.recursors.addresses(&name, kind, config, number).await;
                    chase.heard(records);
                }
                Need::Nothing => return chase.into_answer(),
            }
        }
    }

    /// Asks the catalog, and once more where the leader is if the answer is too old.
    async fn rows(
        &self,
        config: &DnsConfig,
        mut context: RequestContext,
        lookup: &Lookup,
    ) -> Result<QueryAnswer, RequestError> {
        let outcome = self.handle.query(context.clone(), lookup.query.clone()).await;
        let age = outcome.as_ref().map(|answer| answer.last_contact).unwrap_or_default();
        if !is_too_old(config, &context, age) {
            return outcome;
        }
        context.consistency = Consistency::Leader;
        self.handle.query(context, lookup.query.clone()).await
    }

    /// The reply where nobody can be asked.
    pub(super) fn overloaded(&self, waiting: &Waiting) -> Vec<u8> {
        waiting.reply(&self.config.load(), &Answer::empty(Rcode::ServFail))
    }

    fn within_zone<T>(
        &mut self,
        config: &DnsConfig,
        then: impl FnOnce(Zone<'_>, &mut Rng) -> T,
    ) -> T {
        let view = self.handle.view();
        then(zone(config, &view.datacenter, self.handle.clock().wall()), &mut self.rng)
    }

    /// The number of a question to a recursor: nobody may foretell it (RFC 5452 §9.2).
    fn number(&mut self) -> u16 {
        let [high, low, ..] = self.rng.bits().to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}
