//! From the bytes of a question to the bytes of its reply.
//!
//! [`respond`] is pure: a function of the message, the view, the settings and the time. A question
//! that the view does not answer becomes a [`Waiting`], which goes on with what the node and the
//! recursors say.

use super::recursor::Recursors;
use super::reply;
use super::request::{self, Received, Request, Transport};
use crate::handle::NodeHandle;
use crate::telemetry::{Counted, Timed};
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::prepared::{Executed, Execution};
use terraform_core::catalog::query::{Consistency, QueryAnswer};
use terraform_core::dns::{
    Answer, Chase, DnsConfig, Found, Lookup, Need, Plan, Prepared, Rcode, Zone,
};
use terraform_core::id::Datacenter;
use terraform_core::node::request::{
    Request as NodeRequest, RequestBody, RequestContext, RequestError, Response,
};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::time::{Instant, WallClock};
use terraform_core::view::View;

/// Answers that are older are counted (dns.md §13).
const STALE: Duration = Duration::from_secs(5);

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
    /// What a prepared query finds.
    Execution(Prepared),
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
            let source = request.source(from);
            let context = context(config, lookup.datacenter.as_ref(), source);
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
        plan @ (Plan::Answer(_) | Plan::Execute(_) | Plan::Recurse | Plan::Chase(_)) => plan,
    });
    match Needs::of(plan) {
        Ok(needs) => Step::Wait(Box::new(Waiting { request, transport, from, needs })),
        Err(answer) => {
            reply::encode(&request, &answer, (config, transport), out);
            Step::Replied
        }
    }
}

impl Needs {
    /// What a plan waits for; the answer if it waits for nothing.
    fn of(plan: Plan) -> Result<Self, Answer> {
        match plan {
            Plan::Answer(answer) => Err(answer),
            Plan::Lookup(lookup) => Ok(Self::Rows(lookup)),
            Plan::Execute(prepared) => Ok(Self::Execution(prepared)),
            Plan::Recurse => Ok(Self::Recursion),
            Plan::Chase(chase) => Ok(Self::Chase(Box::new(chase))),
        }
    }
}

impl Waiting {
    /// What it waits for.
    pub const fn needs(&self) -> &Needs {
        &self.needs
    }

    /// How the catalog is to be asked.
    pub fn context(&self, config: &DnsConfig, lookup: &Lookup) -> RequestContext {
        context(config, lookup.datacenter.as_ref(), self.request.source(self.from))
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
        self.goes_on(zone.config, plan)
    }

    /// What follows from what a prepared query found: the reply, or a longer wait.
    pub fn executed(
        &mut self,
        zone: Zone<'_>,
        executed: &Result<Executed, RequestError>,
    ) -> Option<Vec<u8>> {
        let by = (zone.config, self.transport);
        let plan = self.request.ask(by, |question| zone.executed(question, executed));
        self.goes_on(zone.config, plan)
    }

    fn goes_on(&mut self, config: &DnsConfig, plan: Plan) -> Option<Vec<u8>> {
        match Needs::of(plan) {
            Ok(needs) => {
                self.needs = needs;
                None
            }
            Err(answer) => Some(self.reply(config, &answer)),
        }
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

fn context(
    config: &DnsConfig,
    datacenter: Option<&Datacenter>,
    source: SocketAddr,
) -> RequestContext {
    let consistency = if config.allow_stale { Consistency::Stale } else { Consistency::Leader };
    let datacenter = datacenter.cloned();
    RequestContext { datacenter, consistency, source: Some(source), ..RequestContext::default() }
}

/// Whether a stale answer is older than the settings allow (dns.md §8).
fn is_too_old(config: &DnsConfig, context: &RequestContext, age: Duration) -> bool {
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
        let step = respond(moment, bytes, by, &mut self.rng, out);
        if matches!(step, Step::Replied) {
            self.time(request::is_reverse(bytes), now);
        }
        step
    }

    /// Notes how long an answer about the own zones took (dns.md §13).
    fn time(&self, reverse: bool, began: Instant) {
        let what = if reverse { Timed::DnsReverse } else { Timed::DnsDomain };
        self.handle.metrics().time(what, self.handle.clock().now().since(began));
    }

    /// Asks whoever must be asked until there is a reply.
    pub(super) async fn finish(&mut self, waiting: Waiting) -> Vec<u8> {
        let began = self.handle.clock().now();
        let reverse = waiting.request.is_reverse();
        let own = !matches!(waiting.needs, Needs::Recursion);
        let reply = self.asked(waiting).await;
        if own {
            self.time(reverse, began);
        }
        reply
    }

    async fn asked(&mut self, mut waiting: Waiting) -> Vec<u8> {
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
                Needs::Execution(ref prepared) => {
                    let source = waiting.request.source(waiting.from);
                    let executed = self.execute(&config, prepared, source).await;
                    let zone = |zone: Zone<'_>, _: &mut Rng| waiting.executed(zone, &executed);
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
                    let context = context(config, lookup.datacenter.as_ref(), from);
                    let outcome = self.rows(config, context, &lookup).await;
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
            if age > STALE {
                self.handle.metrics().count(Counted::DnsStale);
            }
            return outcome;
        }
        context.consistency = Consistency::Leader;
        self.handle.query(context, lookup.query.clone()).await
    }

    /// Has a prepared query executed, and once more by the leader if the answer is too old.
    async fn execute(
        &self,
        config: &DnsConfig,
        Prepared { query, datacenter }: &Prepared,
        source: SocketAddr,
    ) -> Result<Executed, RequestError> {
        let (agent, agent_datacenter) = {
            let view = self.handle.view();
            (view.name.clone(), view.datacenter.clone())
        };
        let execution = Execution {
            query: query.clone(),
            near: None,
            limit: 0,
            agent,
            agent_datacenter,
            address: Some(source.ip()),
        };
        let body = RequestBody::ExecutePrepared(Box::new(execution));
        let mut context = context(config, datacenter.as_ref(), source);
        let ask = |context: RequestContext| {
            let began = self.handle.clock().now();
            let asked = self.handle.request(NodeRequest { context, body: body.clone() });
            async move {
                let response = asked.await?;
                let took = self.handle.clock().now().since(began);
                self.handle.metrics().time(Timed::Execution, took);
                let Response::Executed(executed) = response else {
                    let text = format!("an execution was answered with {response:?}");
                    return Err(RequestError::Unknown(text));
                };
                Ok(*executed)
            }
        };
        let executed = ask(context.clone()).await;
        let age = executed.as_ref().map(|executed| executed.last_contact).unwrap_or_default();
        if !is_too_old(config, &context, age) {
            return executed;
        }
        context.consistency = Consistency::Leader;
        ask(context).await
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
