//! Clients of the key-value table (simulation.md §8, workloads kv-reg and kv-list).
//!
//! Each does one operation after the other at an agent of its own, and remembers what it read, so
//! that its conditions are sometimes met. Single keys lie apart from those that trees and
//! transactions touch: they are judged twice, with the log and without it.

pub mod history;
pub mod judge;
pub mod model;

use crate::checker::{KvChecker, Violation};
use crate::net::HostId;
use crate::streams::Process;
use crate::world::{World, world_rng};
use history::{Call, History, OpId, Outcome, marker_of, seen_in, value_of};
use std::collections::BTreeMap;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KeyList, KvDelete, KvPut, KvWrite};
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer};
use terraform_core::catalog::transaction::{IndexCheck, Operation};
use terraform_core::id::{ModifyIndex, RequestId};
use terraform_core::node::request::{Request, RequestBody, RequestContext, RequestError, Response};
use terraform_core::rng::{Rng, Stream};

/// Clients there are.
const CLIENTS: usize = 6;
/// Keys that only operations on one key touch.
const REGISTERS: [&str; 3] = ["reg/0", "reg/1", "reg/2"];
/// Keys that everything touches.
const LISTED: [&str; 4] = ["list/a", "list/b", "list/b/c", "list/d"];
/// What is listed.
const PREFIXES: [&str; 4] = ["list/", "list/b", "list/x", ""];
/// What is deleted as a whole.
const TREES: [&str; 2] = ["list/", "list/b"];

/// What a client saw at a key: the entry's index, zero if there was none, and who wrote it.
type Seen = (ModifyIndex, Option<OpId>);

#[derive(Clone, Debug, Default)]
struct Client {
    /// Whom it asks.
    host: HostId,
    /// Whether it waits for an answer.
    busy: bool,
    /// What it last saw of each key.
    seen: BTreeMap<String, Seen>,
}

/// All clients of a world's key-value table.
#[derive(Debug)]
pub struct KvClients {
    /// What they did.
    pub history: History,
    clients: Vec<Client>,
    waiting: BTreeMap<(Process, RequestId), OpId>,
    rng: Rng,
}

impl KvClients {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            history: History::default(),
            clients: vec![Client::default(); CLIENTS],
            waiting: BTreeMap::new(),
            rng: world_rng(seed, Stream::Event),
        }
    }

    /// One client, unless it waits for an answer, does something.
    pub fn act(&mut self, world: &mut World, checker: &mut KvChecker) -> Result<(), Violation> {
        let client = self.rng.index(CLIENTS);
        let moves = self.rng.chance(1, 8) || !world.hosts[self.clients[client].host].is_up();
        if moves {
            self.clients[client].host = self.rng.index(world.hosts.len());
        }
        let host = self.clients[client].host;
        if self.clients[client].busy || !world.hosts[host].is_up() {
            return Ok(());
        }
        let id = self.history.next_id();
        let (call, believed) = self.choose(client, id);
        let floor = match call {
            Call::Read(_, Consistency::Stale) => applied_at(world, host),
            Call::Read(..) | Call::Write(_) | Call::Transaction(_) => checker.floor(),
        };
        world.note(format!("> host {host} is asked by {client} operation {id}: {call:?}"));
        self.history.invoke(client, call.clone(), believed, floor);
        let request = match call {
            Call::Write(write) => Request::new(RequestBody::Write(Command::Kv(write))),
            Call::Transaction(all) => Request::new(RequestBody::Write(Command::Transaction(all))),
            Call::Read(query, consistency) => {
                let context = RequestContext { consistency, ..RequestContext::default() };
                if self.rng.chance(1, 2)
                    && let Some(answer) = from_view(world, host, &context, &query)
                {
                    let answer = Ok(Response::Answer(Box::new(answer)));
                    return self.finish(id, answer, world.events, checker);
                }
                Request { context, body: RequestBody::Query(query) }
            }
        };
        let process = world.hosts[host].process();
        if let Some(request) = world.request(host, request) {
            self.clients[client].busy = true;
            self.waiting.insert((process, request), id);
        }
        Ok(())
    }

    /// What a client does next, and whose value it believes to be where it sets a condition.
    fn choose(&mut self, client: usize, id: OpId) -> (Call, Option<OpId>) {
        let rng = &mut self.rng;
        if rng.chance(3, 5) {
            let key = one_of(rng, &REGISTERS);
            return self.on_one_key(client, id, key);
        }
        let call = match rng.below(20) {
            0..9 => {
                let key = one_of(rng, &LISTED);
                return self.on_one_key(client, id, key);
            }
            9..14 => {
                let prefix = one_of(rng, &PREFIXES).to_owned();
                let query = match rng.below(3) {
                    0 => Query::KeyTree(prefix),
                    1 => Query::Keys(KeyList { prefix, separator: String::new() }),
                    _ => Query::Keys(KeyList { prefix, separator: "/".to_owned() }),
                };
                Call::Read(query, any_consistency(rng))
            }
            14..16 => Call::Write(KvWrite::DeleteTree(one_of(rng, &TREES).to_owned())),
            16..19 => {
                let count = 2 + rng.index(3);
                let others = (0..count).map(|_| self.any_operation(client, id));
                Call::Transaction([marker_of(id)].into_iter().chain(others).collect())
            }
            _ => {
                let gets = LISTED.map(|key| match rng.chance(3, 4) {
                    true => Operation::GetTree(key.to_owned()),
                    false => Operation::Get(key.to_owned()),
                });
                Call::Read(Query::Transaction(gets.to_vec()), any_consistency(rng))
            }
        };
        (call, None)
    }

    fn on_one_key(&mut self, client: usize, id: OpId, key: &str) -> (Call, Option<OpId>) {
        let (at, believed) = self.seen(client, key);
        let call = match self.rng.below(20) {
            0..4 => return (Call::Write(put(id, key, None)), None),
            4..9 => Call::Write(put(id, key, Some(at))),
            9 => return (Call::Write(delete(key, None)), None),
            10..12 => Call::Write(delete(key, Some(at))),
            _ => Call::Read(Query::Key(key.to_owned()), any_consistency(&mut self.rng)),
        };
        (call, believed)
    }

    fn any_operation(&mut self, client: usize, id: OpId) -> Operation {
        let key = one_of(&mut self.rng, &LISTED);
        let (at, _) = self.seen(client, key);
        match self.rng.below(10) {
            0..3 => Operation::Write(put(id, key, None)),
            3 => Operation::Write(put(id, key, Some(at))),
            4 => Operation::Write(delete(key, None)),
            5 => Operation::Write(delete(key, Some(at))),
            6 => Operation::Get(key.to_owned()),
            7 => Operation::GetTree(key.to_owned()),
            8 => Operation::CheckIndex(IndexCheck { key: key.to_owned(), index: at }),
            _ => Operation::Write(KvWrite::DeleteTree(key.to_owned())),
        }
    }

    fn seen(&self, client: usize, key: &str) -> Seen {
        self.clients[client].seen.get(key).copied().unwrap_or((ModifyIndex::ZERO, None))
    }

    /// Takes an answer that arrived during the event of this number; `None` if it is not to one of
    /// these clients.
    pub fn take(
        &mut self,
        (process, request): (Process, RequestId),
        result: &Result<Response, RequestError>,
        event: u64,
        checker: &mut KvChecker,
    ) -> Option<Result<(), Violation>> {
        let id = self.waiting.remove(&(process, request))?;
        Some(self.finish(id, result.clone(), event, checker))
    }

    fn finish(
        &mut self,
        id: OpId,
        result: Result<Response, RequestError>,
        event: u64,
        checker: &mut KvChecker,
    ) -> Result<(), Violation> {
        let outcome = match result {
            Ok(response) => Outcome::Answered(response),
            Err(RequestError::Unknown(_)) => Outcome::Open,
            // Every other error says that nothing happened.
            Err(_) => Outcome::NotDone,
        };
        let record = self.history.finish(id, outcome);
        let client = &mut self.clients[record.client];
        client.busy = false;
        if let (Call::Read(Query::Key(key), _), Outcome::Answered(Response::Answer(answer))) =
            (&record.call, &record.outcome)
            && let Some(entry) = seen_in(&answer.rows)
        {
            client.seen.insert(key.clone(), entry.unwrap_or((ModifyIndex::ZERO, None)));
        }
        checker.answered(id, record, event)
    }

    /// Whoever waits for an answer of this process waits in vain.
    pub fn forget(&mut self, process: Process) {
        let records = self.history.records();
        self.waiting.retain(|(of, _), id| {
            let is_gone = *of == process;
            let record = usize::try_from(*id).ok().and_then(|at| records.get(at));
            if let Some(record) = record.filter(|_| is_gone) {
                self.clients[record.client].busy = false;
            }
            !is_gone
        });
    }
}

fn put(id: OpId, key: &str, only_at: Option<ModifyIndex>) -> KvWrite {
    let (key, value) = (key.to_owned(), value_of(id));
    KvWrite::Put(KvPut { key, value, flags: id % 3, only_at })
}

fn delete(key: &str, only_at: Option<ModifyIndex>) -> KvWrite {
    KvWrite::Delete(KvDelete { key: key.to_owned(), only_at })
}

fn one_of(rng: &mut Rng, of: &[&'static str]) -> &'static str {
    of[rng.index(of.len())]
}

fn any_consistency(rng: &mut Rng) -> Consistency {
    match rng.below(4) {
        0..2 => Consistency::Leader,
        2 => Consistency::Consistent,
        _ => Consistency::Stale,
    }
}

/// What a server has applied; a client agent promises nothing, since it asks any server.
pub(crate) fn applied_at(world: &World, host: HostId) -> u64 {
    let running = world.hosts[host].running.as_ref();
    running.and_then(|running| running.node.raft()).map_or(0, |raft| raft.applied().get())
}

/// The answer from the published view, which the HTTP interface looks at before it asks the node.
pub(crate) fn from_view(
    world: &World,
    host: HostId,
    context: &RequestContext,
    query: &Query,
) -> Option<QueryAnswer> {
    let view = world.hosts[host].running.as_ref()?.view.as_ref()?;
    let now = world.hosts[host].local_time(world.now);
    view.answer(context, query, now)
}
