//! Clients that look for services: over DNS, over HTTP and by prepared queries (simulation.md §8,
//! workload health/DNS; dns.md §3, http-api.md §7 and §14).
//!
//! A stale answer that is older than its client allows is asked for again at the leader, as the
//! agent does. Whatever was found must have been there at some position of the log that the
//! question allows ([`crate::checker`]), and no server may say that it heard from the leader later
//! than it did.

use crate::checker::health::{Fitness, Place, Wanted};
use crate::checker::{KvChecker, Violation, broken};
use crate::kv::{any_consistency, applied_at, from_view};
use crate::net::HostId;
use crate::streams::Process;
use crate::world::{Reply, World, world_rng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::prepared::{Execution, PreparedQuery, PreparedWrite, Selection};
use terraform_core::catalog::query::{
    Consistency, Instance, Query, QueryAnswer, Rows, ServiceQuery,
};
use terraform_core::dns::record::Data;
use terraform_core::dns::{Answer, DnsConfig, Found, Plan, QueryType, Question, Zone};
use terraform_core::id::{ModifyIndex, PreparedQueryId, RequestId, ServiceName};
use terraform_core::node::request::{Request, RequestBody, RequestContext, RequestError, Response};
use terraform_core::raft::RoleKind;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::time::Instant;

/// Services that are looked for; the last is never there.
pub const SERVICES: [&str; 5] = ["service-0", "service-1", "service-2", "terraform", "nothing"];
/// Prepared queries there may be.
pub const QUERIES: usize = 3;
/// More records than any answer of a world has.
const ROOM: usize = 1000;

/// Something that one client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindAction {
    /// Looks for a service.
    Look {
        /// Whom it asks.
        host: HostId,
        /// Which service, by number.
        service: usize,
        /// Over DNS, by SRV records; else over HTTP, for what passes.
        dns: bool,
        /// How fresh.
        consistency: Consistency,
        /// How old a stale answer may be.
        max_stale: Option<Duration>,
    },
    /// Executes a prepared query.
    Execute {
        /// Whom it asks.
        host: HostId,
        /// Which.
        query: usize,
        /// How fresh.
        consistency: Consistency,
    },
    /// Writes a prepared query.
    Define {
        /// Whom it asks.
        host: HostId,
        /// Which.
        query: usize,
        /// The service it wants.
        service: usize,
        /// Whether only what passes.
        strict: bool,
        /// Whether it is new, so that it must not be there.
        new: bool,
    },
    /// Removes a prepared query.
    Forget {
        /// Whom it asks.
        host: HostId,
        /// Which.
        query: usize,
    },
}

/// A question on its way.
#[derive(Clone, Debug)]
struct Search {
    wanted: Wanted,
    dns: bool,
    consistency: Consistency,
    max_stale: Option<Duration>,
    /// The position that what is found must not be older than.
    floor: u64,
}

/// What is on its way.
#[derive(Clone, Debug)]
enum Pending {
    Search(Search),
    /// The words by which the query's writer is known.
    Define(String),
    Forget,
}

/// All clients that look for services.
#[derive(Debug)]
pub struct Finders {
    waiting: BTreeMap<(Process, RequestId), Pending>,
    written: u64,
    rng: Rng,
}

impl Finders {
    /// Clients that have asked nothing yet.
    pub fn new(seed: u64) -> Self {
        let rng = world_rng(seed, Stream::Dns);
        Self { waiting: BTreeMap::new(), written: 0, rng }
    }

    /// What a client does at this moment, if one does anything.
    pub fn draw(&mut self, world: &World) -> Option<FindAction> {
        let rng = &mut self.rng;
        if !rng.chance(1, 16) {
            return None;
        }
        let host = rng.index(world.hosts.len());
        let (service, query) = (rng.index(SERVICES.len()), rng.index(QUERIES));
        let consistency = any_consistency(rng);
        let action = match rng.below(16) {
            0..9 => {
                let dns = rng.chance(1, 2);
                let limit = Duration::from_millis(50 << rng.below(8));
                let limited = consistency == Consistency::Stale && rng.chance(1, 2);
                let max_stale = limited.then_some(limit);
                FindAction::Look { host, service, dns, consistency, max_stale }
            }
            9..13 => FindAction::Execute { host, query, consistency },
            13..15 => {
                let (strict, new) = (rng.chance(1, 2), rng.chance(1, 2));
                FindAction::Define { host, query, service, strict, new }
            }
            _ => FindAction::Forget { host, query },
        };
        world.hosts[host].is_up().then_some(action)
    }

    /// Performs what a client does, unless that is impossible by now.
    pub fn perform(
        &mut self,
        world: &mut World,
        kv: &mut KvChecker,
        action: &FindAction,
    ) -> Result<(), Violation> {
        let (host, body, pending) = match action {
            FindAction::Look { host, service, dns, consistency, max_stale } => {
                let (name, max_stale) = (SERVICES[*service], *max_stale);
                let health = if *dns { Fitness::NotCritical } else { Fitness::Passing };
                let wanted = Wanted::Service { name: name.to_owned(), health };
                let floor = floor(*consistency, world, *host, kv);
                let (dns, consistency) = (*dns, *consistency);
                let search = Search { wanted, dns, consistency, max_stale, floor };
                return self.search(world, *host, search, kv);
            }
            FindAction::Execute { host, query, consistency } => {
                let wanted = Wanted::Prepared(query_id(*query));
                let floor = floor(*consistency, world, *host, kv);
                let (dns, max_stale, consistency) = (false, None, *consistency);
                let search = Search { wanted, dns, consistency, max_stale, floor };
                return self.search(world, *host, search, kv);
            }
            FindAction::Define { host, query, service, strict, new } => {
                self.written += 1;
                let writer = format!("writer-{}", self.written);
                let query = Box::new(prepared(*query, *service, *strict, writer.clone()));
                let write =
                    if *new { PreparedWrite::Create(query) } else { PreparedWrite::Update(query) };
                let body = RequestBody::Write(Command::Prepared(write));
                (*host, body, Pending::Define(writer))
            }
            FindAction::Forget { host, query } => {
                let write = PreparedWrite::Delete(query_id(*query));
                (*host, RequestBody::Write(Command::Prepared(write)), Pending::Forget)
            }
        };
        self.send(world, host, Request::new(body), pending);
        Ok(())
    }

    fn send(&mut self, world: &mut World, host: HostId, request: Request, pending: Pending) {
        let process = world.hosts[host].process();
        world.note(format!("> host {host} is asked {pending:?}"));
        if let Some(id) = world.request(host, request) {
            self.waiting.insert((process, id), pending);
        }
    }

    /// Asks what is searched for: the published view if that may answer, else the node.
    fn search(
        &mut self,
        world: &mut World,
        host: HostId,
        search: Search,
        kv: &mut KvChecker,
    ) -> Result<(), Violation> {
        if !world.hosts[host].is_up() {
            return Ok(());
        }
        let context =
            RequestContext { consistency: search.consistency, ..RequestContext::default() };
        let body = match &search.wanted {
            Wanted::Service { name, health } => {
                let query = query_of(name, search.dns, *health);
                if let Some(answer) = from_view(world, host, &context, &query) {
                    let result = Ok(Response::Answer(Arc::new(answer)));
                    let now = world.now;
                    return self.found(world, (host, now), search, &result, kv);
                }
                RequestBody::Query(query)
            }
            Wanted::Prepared(id) => {
                let config = &world.hosts[host].config;
                let (agent, agent_datacenter) = (config.name.clone(), config.datacenter.clone());
                let (query, near, limit, address) = (id.to_string(), None, 0, None);
                let execution = Execution { query, near, limit, agent, agent_datacenter, address };
                RequestBody::ExecutePrepared(Box::new(execution))
            }
        };
        self.send(world, host, Request { context, body }, Pending::Search(search));
        Ok(())
    }

    /// Takes an answer; `None` if it is not to one of these clients.
    pub fn take(
        &mut self,
        world: &mut World,
        reply: &Reply,
        kv: &mut KvChecker,
    ) -> Option<Result<(), Violation>> {
        let pending = self.waiting.remove(&(reply.process, reply.id))?;
        Some(match pending {
            Pending::Search(search) => {
                self.found(world, (reply.process.host, reply.at), search, &reply.result, kv)
            }
            Pending::Define(writer) if reply.result == Ok(Response::Done) => {
                kv.query_written(&writer, reply.event)
            }
            Pending::Define(_) | Pending::Forget => Ok(()),
        })
    }

    /// Judges what was found, or asks the leader if that is too old.
    fn found(
        &mut self,
        world: &mut World,
        (host, at): (HostId, Instant),
        search: Search,
        result: &Result<Response, RequestError>,
        kv: &mut KvChecker,
    ) -> Result<(), Violation> {
        let (found, age) = match result {
            Ok(Response::Answer(answer)) => {
                let places =
                    if search.dns { over_dns(&search, answer)? } else { over_http(answer) };
                (Some(places), answer.last_contact)
            }
            Ok(Response::Executed(executed)) => {
                (Some(places(&executed.instances)), executed.last_contact)
            }
            Err(RequestError::NotFound(_)) => (None, Duration::MAX),
            Ok(other) => {
                return broken("C11", format!("{other:?} is no answer to {search:?}"));
            }
            Err(_) => return Ok(()),
        };
        if found.is_some() && search.consistency == Consistency::Stale {
            is_as_old(world, (host, at), age)?;
            if search.max_stale.is_some_and(|limit| age > limit) {
                let (consistency, max_stale) = (Consistency::Leader, None);
                let floor = floor(consistency, world, host, kv);
                let search = Search { consistency, max_stale, floor, ..search };
                return self.search(world, host, search, kv);
            }
        }
        let Search { wanted, consistency, floor, .. } = &search;
        kv.found((wanted, *consistency), found.as_ref(), *floor, world.events)
    }

    /// Whoever waits for an answer of this process waits in vain.
    pub fn forget(&mut self, process: Process) {
        self.waiting.retain(|(of, _), _| *of != process);
    }
}

/// The position that what is found must not be older than.
fn floor(consistency: Consistency, world: &World, host: HostId, kv: &KvChecker) -> u64 {
    match consistency {
        Consistency::Stale => applied_at(world, host),
        Consistency::Leader | Consistency::Consistent => kv.floor(),
    }
}

/// C6: a server that does not lead says that it heard from the leader no later than it heard from
/// any server, or led itself.
fn is_as_old(world: &World, (host, at): (HostId, Instant), age: Duration) -> Result<(), Violation> {
    let asked = &world.hosts[host];
    let raft = asked.running.as_ref().and_then(|running| running.node.raft());
    // A client agent hands on what some server says.
    let Some(raft) = raft.filter(|raft| raft.role() != RoleKind::Leader) else { return Ok(()) };
    let Some(heard_at) = asked.heard_at else {
        return broken(
            "C6",
            format!("host {host} heard from nobody and answers {:?}", raft.role()),
        );
    };
    let silent = if at > heard_at { at.since(heard_at) } else { Duration::ZERO };
    // Clocks drift by less than a thousandth.
    if age + silent / 1000 < silent {
        let facts = format!("host {host} says {age:?}, it heard from nobody for {silent:?}");
        return broken("C6", facts);
    }
    Ok(())
}

fn query_of(name: &str, dns: bool, health: Fitness) -> Query {
    if dns {
        let labels = labels_of(name);
        let (config, datacenter) = (DnsConfig::default(), datacenter());
        if let Plan::Lookup(lookup) = zone(&config, &datacenter).plan(&question(&labels)) {
            return lookup.query;
        }
    }
    let name = ServiceName::parse(name).expect("services have legal names");
    let passing = health == Fitness::Passing;
    Query::ServiceHealth(ServiceQuery { passing, ..ServiceQuery::all(name) })
}

fn datacenter() -> terraform_core::id::Datacenter {
    terraform_core::id::Datacenter::parse("dc1").expect("letters and a digit are a datacenter")
}

fn labels_of(name: &str) -> [&str; 3] {
    [name, "service", "terraform"]
}

fn zone<'a>(config: &'a DnsConfig, datacenter: &'a terraform_core::id::Datacenter) -> Zone<'a> {
    Zone { config, datacenter, serial: 1 }
}

fn question<'a>(labels: &'a [&'a str]) -> Question<'a> {
    Question { labels, qtype: QueryType::Srv, room: ROOM, edns: true }
}

/// The places in the SRV records that are made of an answer.
fn over_dns(search: &Search, answer: &QueryAnswer) -> Result<BTreeSet<Place>, Violation> {
    let Wanted::Service { name, .. } = &search.wanted else { return Ok(BTreeSet::new()) };
    let (config, datacenter, labels) = (DnsConfig::default(), datacenter(), labels_of(name));
    let (zone, question) = (zone(&config, &datacenter), question(&labels));
    let Plan::Lookup(lookup) = zone.plan(&question) else {
        return broken("C11", format!("no way to find {name}"));
    };
    let outcome = Ok(answer.clone());
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let Plan::Answer(Answer { answers, .. }) =
        zone.answer(&question, &lookup, Found::of(&outcome), &mut rng)
    else {
        return broken("C11", format!("{answer:?} does not answer {search:?}"));
    };
    let place = |data: &Data| {
        let Data::Srv { port, target, .. } = data else { return None };
        Some((target.labels().next()?.to_owned(), i64::from(*port)))
    };
    Ok(answers.iter().filter_map(|record| place(&record.data)).collect())
}

/// The places in the rows of an answer.
pub(crate) fn over_http(answer: &QueryAnswer) -> BTreeSet<Place> {
    if let Rows::Instances(rows) = &answer.rows { places(rows) } else { BTreeSet::new() }
}

fn places(rows: &[Arc<Instance>]) -> BTreeSet<Place> {
    rows.iter().map(|row| (row.node.name.to_string(), row.service.port)).collect()
}

/// The identity of a prepared query.
fn query_id(number: usize) -> PreparedQueryId {
    PreparedQueryId::from_bytes((number as u128 + 1).to_be_bytes())
}

fn prepared(number: usize, service: usize, strict: bool, writer: String) -> PreparedQuery {
    let service = SERVICES[service].to_owned();
    PreparedQuery {
        id: query_id(number),
        name: format!("find-{number}"),
        session: None,
        token: writer,
        template: None,
        service: Selection { service, only_passing: strict, ..Selection::default() },
        ttl: None,
        ttl_text: String::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}
