//! Clients that watch: each reads something, and then again once that has changed (simulation.md
//! §8, workload queue/watch; http-api.md §1.6).
//!
//! Like real programs they give the index of the last answer back, wait for a while, begin at zero
//! again when an index went backwards, move on when their agent is down, and now and then hang up.

use crate::checker::watch::{BlockingRead, answered_rightly, not_overdue};
use crate::checker::{KvChecker, Violation};
use crate::kv::{applied_at, from_view};
use crate::net::HostId;
use crate::streams::Process;
use crate::world::{Reply, World, world_rng};
use std::time::Duration;
use terraform_core::catalog::kv::KeyList;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer, ServiceQuery};
use terraform_core::id::{ModifyIndex, RequestId, ServiceName};
use terraform_core::node::input::Input;
use terraform_core::node::request::{Request, RequestBody, RequestContext, Response};
use terraform_core::rng::{Rng, Stream};
use terraform_core::time::Instant;

/// Clients there are.
const CLIENTS: usize = 4;
/// Keys that are watched; the last is never there.
const KEYS: [&str; 4] = ["reg/0", "list/b", "list/b/c", "reg/none"];
/// Prefixes that are watched; there is never anything under the third.
const PREFIXES: [&str; 4] = ["list/", "list/b", "list/x", ""];
/// Services that are watched; the last is never there.
const SERVICES: [&str; 4] = ["service-0", "service-1", "terraform", "nothing"];

/// A read on its way.
#[derive(Clone, Debug)]
struct Pending {
    process: Process,
    request: RequestId,
    read: BlockingRead,
    /// When the client hangs up, if it does.
    hang_up_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Client {
    host: HostId,
    query: Query,
    consistency: Consistency,
    /// The index of the last answer.
    index: ModifyIndex,
    next_at: Instant,
    pending: Option<Pending>,
}

/// All clients of a world that watch.
#[derive(Debug)]
pub struct Watchers {
    /// What was on its way to agents that ended.
    pub gone: Vec<BlockingRead>,
    clients: Vec<Client>,
    rng: Rng,
}

impl Watchers {
    /// Clients that have asked nothing yet.
    pub fn new(seed: u64) -> Self {
        let mut rng = world_rng(seed, Stream::Watch);
        let clients = (0..CLIENTS).map(|_| Client::any(&mut rng)).collect();
        Self { gone: Vec::new(), clients, rng }
    }

    /// Every client whose time has come asks, or hangs up.
    pub fn act(&mut self, world: &mut World, kv: &mut KvChecker) -> Result<(), Violation> {
        for client in 0..self.clients.len() {
            match &self.clients[client].pending {
                Some(pending) if pending.hang_up_at.is_some_and(|at| at <= world.now) => {
                    self.hang_up(client, world);
                }
                None if self.clients[client].next_at <= world.now => {
                    self.ask(client, world, kv)?;
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn ask(
        &mut self,
        number: usize,
        world: &mut World,
        kv: &mut KvChecker,
    ) -> Result<(), Violation> {
        let (client, rng) = (&mut self.clients[number], &mut self.rng);
        if client.host >= world.hosts.len() || !world.hosts[client.host].is_up() {
            client.host = rng.index(world.hosts.len());
            return Ok(());
        }
        let (host, consistency, min_index) = (client.host, client.consistency, client.index);
        let wait = Duration::from_secs(2 << rng.below(6));
        let floor = match consistency {
            Consistency::Stale => applied_at(world, host),
            Consistency::Leader | Consistency::Consistent => kv.floor(),
        };
        let query = client.query.clone();
        let asked_at = world.now;
        let read = BlockingRead { query, consistency, min_index, wait, asked_at, floor };
        world.note(format!("> host {host} is asked by watcher {number}: {read:?}"));
        let wait = Some(wait);
        let context = RequestContext { consistency, min_index, wait, ..RequestContext::default() };
        if rng.chance(1, 2)
            && let Some(answer) = from_view(world, host, &context, &read.query)
        {
            let (now, event) = (world.now, world.events);
            return self.answered(number, &read, &answer, (now, event), kv);
        }
        let hang_up_at = rng.chance(1, 6).then(|| asked_at + rng.jitter(read.wait));
        let process = world.hosts[host].process();
        let body = RequestBody::Query(read.query.clone());
        if let Some(request) = world.request(host, Request { context, body }) {
            self.clients[number].pending = Some(Pending { process, request, read, hang_up_at });
        }
        Ok(())
    }

    fn hang_up(&mut self, number: usize, world: &mut World) {
        let client = &mut self.clients[number];
        let Some(Pending { process, request, .. }) = client.pending.take() else { return };
        client.next_at = world.now + self.rng.jitter(Duration::from_secs(1));
        world.tell(process.host, Input::RequestAbandoned { id: request });
    }

    /// Takes an answer; `None` if it is not to one of these clients.
    pub fn take(&mut self, reply: &Reply, kv: &mut KvChecker) -> Option<Result<(), Violation>> {
        let key = (reply.process, reply.id);
        let number = self.clients.iter().position(|client| {
            client.pending.as_ref().is_some_and(|it| (it.process, it.request) == key)
        })?;
        let Pending { read, .. } = self.clients[number].pending.take()?;
        Some(match &reply.result {
            Ok(Response::Answer(answer)) => {
                self.answered(number, &read, answer, (reply.at, reply.event), kv)
            }
            Ok(other) => {
                let facts = format!("{other:?} is no answer to {read:?}");
                Err(Violation { rule: "C11", facts })
            }
            Err(_) => {
                self.failed(number, reply.at);
                Ok(())
            }
        })
    }

    /// Nothing was learned: the client asks the same again in a while.
    fn failed(&mut self, number: usize, at: Instant) {
        let pause = Duration::from_millis(200) + self.rng.jitter(Duration::from_secs(1));
        self.clients[number].next_at = at + pause;
    }

    fn answered(
        &mut self,
        number: usize,
        read: &BlockingRead,
        answer: &QueryAnswer,
        (at, event): (Instant, u64),
        kv: &mut KvChecker,
    ) -> Result<(), Violation> {
        answered_rightly(read, answer, at)?;
        if matches!(read.query, Query::Key(_) | Query::KeyTree(_) | Query::Keys(_)) {
            kv.read((&read.query, read.consistency), read.floor, answer, event)?;
        }
        let client = &mut self.clients[number];
        let went_back = answer.index < read.min_index;
        client.index = if went_back { ModifyIndex::ZERO } else { answer.index };
        client.next_at = at;
        if self.rng.chance(1, 2) {
            client.next_at = at + self.rng.jitter(Duration::from_secs(2));
        }
        if self.rng.chance(1, 16) {
            let next_at = client.next_at;
            *client = Client { next_at, ..Client::any(&mut self.rng) };
        }
        Ok(())
    }

    /// Whoever waits for an answer of this process waits in vain.
    pub fn forget(&mut self, process: Process) {
        for client in &mut self.clients {
            let pending = client.pending.take_if(|pending| pending.process == process);
            self.gone.extend(pending.map(|pending| pending.read));
        }
    }

    /// All hang up. C7: none has waited longer than an agent may take for an answer.
    ///
    /// The agents that are up must have been awake for as long as that.
    pub fn leave(&mut self, world: &mut World) -> Result<(), Violation> {
        for number in 0..self.clients.len() {
            let Some(pending) = &self.clients[number].pending else { continue };
            not_overdue(&pending.read, world.now)?;
            self.hang_up(number, world);
        }
        Ok(())
    }
}

impl Client {
    /// A client that has nothing yet.
    fn any(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, of: [&str; 4]| of[rng.index(4)].to_owned();
        let query = match rng.below(8) {
            0..2 => Query::Key(one_of(rng, KEYS)),
            2..4 => Query::KeyTree(one_of(rng, PREFIXES)),
            4 => {
                let separator = if rng.chance(1, 2) { "/" } else { "" }.to_owned();
                Query::Keys(KeyList { prefix: one_of(rng, PREFIXES), separator })
            }
            5..7 => {
                let name = ServiceName::parse(&one_of(rng, SERVICES));
                Query::ServiceHealth(ServiceQuery::all(name.expect("letters are a name")))
            }
            _ => Query::Nodes(Vec::new()),
        };
        let consistency = match rng.below(4) {
            0..2 => Consistency::Leader,
            2 => Consistency::Consistent,
            _ => Consistency::Stale,
        };
        Self {
            // Moves to one that is up when it asks.
            host: HostId::MAX,
            query,
            consistency,
            index: ModifyIndex::ZERO,
            next_at: Instant::ZERO,
            pending: None,
        }
    }
}
