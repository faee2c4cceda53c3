//! Clients of the key-value table (simulation.md §8, workloads kv-reg, kv-list, lock, semaphore).
//!
//! Each does one operation after the other at an agent of its own, and remembers what it read, so
//! that its conditions are sometimes met. What it does is a [`KvAction`], which is drawn first and
//! performed then, so that it can be kept and performed in another world. Single keys lie apart
//! from those that trees and transactions touch: they are judged twice, with the log and without.

pub mod backup;
pub mod history;
pub mod judge;
pub mod locks;
pub mod model;
pub mod semaphore;
pub mod session;

use crate::checker::{KvChecker, Violation};
use crate::net::HostId;
use crate::question::Question;
use crate::streams::Process;
use crate::world::{World, world_rng};
use backup::{Backup, Foreign, Saved};
use bytes::Bytes;
use history::{Call, History, OpId, Outcome, marker_of, seen_in, value_of};
use semaphore::Look;
use session::SessionShape;
use std::collections::BTreeMap;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use terraform_core::catalog::transaction::{IndexCheck, Operation};
use terraform_core::id::{LogIndex, ModifyIndex, RequestId, SessionId};
use terraform_core::node::request::{
    BackupId, BackupRead, BackupReply, BackupRequest, Request, RequestBody, RequestContext,
    RequestError, Response,
};
use terraform_core::rng::{Rng, Stream};

/// Clients there are.
pub const CLIENTS: usize = 6;
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

/// What a part of a transaction does with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Writes it.
    Put,
    /// Writes it if it is as the client saw it.
    PutSeen,
    /// Deletes it.
    Delete,
    /// Deletes it if it is as the client saw it.
    DeleteSeen,
    /// Deletes all keys that begin so.
    DeleteTree,
    /// Reads it.
    Get,
    /// Reads all keys that begin so.
    GetTree,
    /// Fails unless it is as the client saw it.
    CheckSeen,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Writes a key, perhaps only if it is as the client saw it.
    Put {
        /// Which.
        key: String,
        /// Only if it is as the client saw it.
        seen: bool,
    },
    /// Deletes a key, perhaps only if it is as the client saw it.
    Delete {
        /// Which.
        key: String,
        /// Only if it is as the client saw it.
        seen: bool,
    },
    /// Deletes all keys that begin so.
    DeleteTree(String),
    /// Does several things as one.
    Transaction(Vec<(PartKind, String)>),
    /// Restores the backup of another cluster, with these keys.
    Restore(Vec<String>),
    /// Saves a backup.
    Save,
    /// Restores what was saved last.
    PutBack,
    /// Reads.
    Read {
        /// What.
        question: Question,
        /// How fresh.
        consistency: Consistency,
        /// Whether the published view may answer, as it does over HTTP.
        view: bool,
    },
    /// Begins a session, the client's from then on.
    Open(SessionShape),
    /// Writes a key that the client's session holds then.
    Acquire(String),
    /// Writes a key that the client's session held until then.
    Release(String),
    /// Lets the client's session live on.
    Renew,
    /// Ends the client's session.
    Close,
    /// Goes a step towards a place in the semaphore for the client's session, or back from it.
    Place {
        /// Whether it wants one.
        wants: bool,
    },
}

impl Ask {
    /// Whether it changes registers together with other keys, which no client does.
    pub fn mixes_registers(&self) -> bool {
        let is_register = |key: &String| REGISTERS.contains(&key.as_str());
        let is_above = |key: &String| REGISTERS.iter().any(|register| register.starts_with(key));
        match self {
            Self::DeleteTree(prefix) => is_above(prefix),
            Self::Transaction(parts) => parts.iter().any(|(kind, key)| match kind {
                PartKind::DeleteTree => is_above(key),
                PartKind::Put | PartKind::PutSeen | PartKind::Delete | PartKind::DeleteSeen => {
                    is_register(key)
                }
                PartKind::Get | PartKind::GetTree | PartKind::CheckSeen => false,
            }),
            // A backup is known to both judges.
            Self::Acquire(key) | Self::Release(key) => is_register(key),
            Self::Put { .. }
            | Self::Delete { .. }
            | Self::Restore(_)
            | Self::Save
            | Self::PutBack
            | Self::Read { .. }
            | Self::Open(_)
            | Self::Renew
            | Self::Close
            | Self::Place { .. } => false,
        }
    }
}

/// Something that one client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvAction {
    /// Which client.
    pub client: usize,
    /// Whom it asks.
    pub host: HostId,
    /// For what.
    pub ask: Ask,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// Whom it asks.
    host: HostId,
    /// Whether it waits for an answer.
    busy: bool,
    /// What it last saw of each key.
    seen: BTreeMap<String, Seen>,
    /// Its session, as far as it knows.
    session: Option<SessionId>,
    /// What it saw of the semaphore, until it does something about it.
    look: Option<Look>,
}

/// A backup that is being read.
#[derive(Debug)]
struct Saving {
    backup: BackupId,
    /// The position that it stands for.
    at: LogIndex,
    blocks: Vec<Bytes>,
}

impl Saving {
    /// What brings its next block.
    fn read(&self) -> RequestBody {
        let block = self.blocks.len() as u64;
        RequestBody::Backup(BackupRequest::Read(BackupRead { backup: self.backup, block }))
    }

    /// Whether it is what it is to be.
    fn is_right(
        &self,
        floor: u64,
        event: u64,
        checker: &mut KvChecker,
    ) -> Result<Arc<Saved>, Violation> {
        let saved = Saved::of_blocks(self.at.get(), &self.blocks);
        let saved = saved.map_err(|error| Violation { rule: "C10", facts: error })?;
        checker.saved(&saved, floor, event)?;
        Ok(Arc::new(saved))
    }
}

/// All clients of a world's key-value table.
#[derive(Debug)]
pub struct KvClients {
    /// What they did.
    pub history: History,
    clients: Vec<Client>,
    waiting: BTreeMap<(Process, RequestId), OpId>,
    /// Restores whose backup is on its way, and the block that comes next.
    staging: BTreeMap<OpId, u64>,
    /// Backups that are being read.
    saving: BTreeMap<OpId, Saving>,
    /// What was saved last.
    saved: Option<Arc<Saved>>,
    rng: Rng,
    /// What draws what they do with sessions, in worlds in which they have some: nothing else is
    /// shifted by it.
    locks: Option<Rng>,
    /// Whether they contend for a semaphore too.
    semaphore: bool,
}

impl KvClients {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            history: History::default(),
            clients: vec![Client::default(); CLIENTS],
            waiting: BTreeMap::new(),
            staging: BTreeMap::new(),
            saving: BTreeMap::new(),
            saved: None,
            rng: world_rng(seed, Stream::Event),
            locks: seed.is_multiple_of(2).then(|| world_rng(seed, Stream::Watch)),
            semaphore: seed % 4 == 2,
        }
    }

    /// What one client does next, unless it waits for an answer; perhaps it restores a backup.
    pub fn draw(&mut self, world: &World, restores: bool) -> Option<KvAction> {
        let client = self.rng.index(CLIENTS);
        let mut host = self.clients[client].host;
        if self.rng.chance(1, 8) || !world.hosts[host].is_up() {
            host = self.rng.index(world.hosts.len());
        }
        let session = self.clients[client].session;
        let ask = if let Some(rng) = &mut self.locks
            && rng.chance(1, 3)
        {
            session::any_lock_ask(rng, (session.is_some(), self.semaphore), world)
        } else if restores && self.rng.chance(1, 20) {
            any_restore(&mut self.rng)
        } else {
            any_ask(&mut self.rng)
        };
        self.clients[client].host = host;
        let can = !self.clients[client].busy && world.hosts[host].is_up();
        can.then_some(KvAction { client, host, ask })
    }

    /// Performs what a client does, unless it waits for an answer or its agent is down.
    pub fn perform(
        &mut self,
        world: &mut World,
        checker: &mut KvChecker,
        action: &KvAction,
    ) -> Result<(), Violation> {
        let KvAction { client, host, ask } = action;
        let (client, host) = (*client, *host);
        if self.clients[client].busy || !world.hosts[host].is_up() {
            return Ok(());
        }
        let id = self.history.next_id();
        let Some((call, believed)) = self.call(client, id, ask, world) else { return Ok(()) };
        let floor = match call {
            Call::Read(_, Consistency::Stale) => applied_at(world, host),
            Call::Read(..)
            | Call::Write(_)
            | Call::Transaction(_)
            | Call::Restore(_)
            | Call::Save
            | Call::Open(_)
            | Call::Renew(_)
            | Call::Close(_) => checker.floor(),
        };
        world.note(format!("> host {host} is asked by {client} operation {id}: {call:?}"));
        self.history.invoke(client, (call.clone(), world.now), believed, floor);
        let request = match call {
            Call::Write(write) => Request::new(RequestBody::Write(Command::Kv(write))),
            Call::Transaction(all) => Request::new(RequestBody::Write(Command::Transaction(all))),
            Call::Restore(backup) => {
                checker.offer(&backup);
                self.staging.insert(id, 1);
                Request::new(RequestBody::Write(backup.step(0)))
            }
            Call::Save => Request::new(RequestBody::Backup(BackupRequest::Open)),
            Call::Open(session) => {
                Request::new(RequestBody::Write(Command::CreateSession(session)))
            }
            Call::Renew(session) => {
                checker.renewing(session, world.now);
                Request::new(RequestBody::RenewSession(session))
            }
            Call::Close(session) => {
                checker.closing(session);
                Request::new(RequestBody::Write(Command::EndSessions(vec![session])))
            }
            Call::Read(query, consistency) => {
                let context = RequestContext { consistency, ..RequestContext::default() };
                if matches!(ask, Ask::Read { view: true, .. })
                    && let Some(answer) = from_view(world, host, &context, &query)
                {
                    let answer = Outcome::Answered(Response::Answer(Arc::new(answer)));
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

    /// What a client asks for, and whose value it believes to be where it sets a condition; `None`
    /// if it would need a session and has none.
    fn call(
        &self,
        client: usize,
        id: OpId,
        ask: &Ask,
        world: &World,
    ) -> Option<(Call, Option<OpId>)> {
        let call = match ask {
            Ask::Place { wants } => {
                let Client { session, look, .. } = &self.clients[client];
                semaphore::step(id, (*session)?, *wants, look.as_ref())
            }
            Ask::Open(_) | Ask::Acquire(_) | Ask::Release(_) | Ask::Renew | Ask::Close => {
                let session = self.clients[client].session;
                return Some((Self::session_call(id, ask, session, world)?, None));
            }
            Ask::Put { key, seen: false } => Call::Write(put(id, key, None)),
            Ask::Delete { key, seen: false } => Call::Write(delete(key, None)),
            Ask::Put { key, seen: true } => {
                let (at, believed) = self.seen(client, key);
                return Some((Call::Write(put(id, key, Some(at))), believed));
            }
            Ask::Delete { key, seen: true } => {
                let (at, believed) = self.seen(client, key);
                return Some((Call::Write(delete(key, Some(at))), believed));
            }
            Ask::DeleteTree(prefix) => Call::Write(KvWrite::DeleteTree(prefix.clone())),
            Ask::Transaction(parts) => {
                let parts = parts.iter().map(|(kind, key)| self.part(client, id, *kind, key));
                Call::Transaction([marker_of(id)].into_iter().chain(parts).collect())
            }
            Ask::Restore(keys) => Call::Restore(Backup::Foreign(Foreign::new(id, keys.clone()))),
            Ask::Save => Call::Save,
            Ask::PutBack => Call::Restore(Backup::Own(id, Arc::clone(self.saved.as_ref()?))),
            Ask::Read { question, consistency, .. } => Call::Read(question.query(), *consistency),
        };
        Some((call, None))
    }

    fn part(&self, client: usize, id: OpId, kind: PartKind, key: &str) -> Operation {
        let (at, _) = self.seen(client, key);
        match kind {
            PartKind::Put => Operation::Write(put(id, key, None)),
            PartKind::PutSeen => Operation::Write(put(id, key, Some(at))),
            PartKind::Delete => Operation::Write(delete(key, None)),
            PartKind::DeleteSeen => Operation::Write(delete(key, Some(at))),
            PartKind::DeleteTree => Operation::Write(KvWrite::DeleteTree(key.to_owned())),
            PartKind::Get => Operation::Get(key.to_owned()),
            PartKind::GetTree => Operation::GetTree(key.to_owned()),
            PartKind::CheckSeen => {
                Operation::CheckIndex(IndexCheck { key: key.to_owned(), index: at })
            }
        }
    }

    fn seen(&self, client: usize, key: &str) -> Seen {
        self.clients[client].seen.get(key).copied().unwrap_or((ModifyIndex::ZERO, None))
    }

    /// Takes an answer that arrived during the event of this number; `None` if it is not to one of
    /// these clients.
    pub fn take(
        &mut self,
        world: &mut World,
        (process, request): (Process, RequestId),
        result: &Result<Response, RequestError>,
        event: u64,
        checker: &mut KvChecker,
    ) -> Option<Result<(), Violation>> {
        let id = self.waiting.remove(&(process, request))?;
        if let Some(judged) = self.goes_on(world, (process, id), result, event, checker) {
            return Some(judged);
        }
        if let Some(Call::Renew(session)) =
            usize::try_from(id).ok().and_then(|at| Some(&self.history.records().get(at)?.call))
        {
            checker.renewed(*session, world.now);
        }
        let outcome = match result {
            Ok(response) => Outcome::Answered(response.clone()),
            Err(RequestError::Unknown(_)) => Outcome::Open,
            // The log may hold what is refused: it was when it was applied.
            Err(RequestError::Refused(why)) if why.contains("invalid session") => {
                Outcome::NoSession
            }
            Err(RequestError::Refused(_)) => Outcome::Refused,
            // Every other error says that nothing happened.
            Err(_) => Outcome::NotDone,
        };
        Some(self.finish(id, outcome, event, checker))
    }

    /// Goes a step on with a backup, if there is one to go.
    fn goes_on(
        &mut self,
        world: &mut World,
        (process, id): (Process, OpId),
        result: &Result<Response, RequestError>,
        event: u64,
        checker: &mut KvChecker,
    ) -> Option<Result<(), Violation>> {
        let record = self.history.records().get(usize::try_from(id).ok()?)?;
        let next = match (&record.call, result) {
            (Call::Restore(backup), Ok(Response::Done)) => {
                let next = self.staging.get_mut(&id)?;
                *next += 1;
                let step = backup.step(*next - 1);
                if *next > backup.blocks() {
                    self.staging.remove(&id);
                }
                RequestBody::Write(step)
            }
            (Call::Restore(_), _) => {
                self.staging.remove(&id);
                return None;
            }
            (Call::Save, Ok(Response::Backup(BackupReply::Opened(opened)))) => {
                let saving =
                    Saving { backup: opened.backup, at: opened.applied, blocks: Vec::new() };
                let read = saving.read();
                self.saving.insert(id, saving);
                read
            }
            (Call::Save, Ok(Response::Backup(BackupReply::Block(block)))) => {
                let saving = self.saving.get_mut(&id)?;
                saving.blocks.push(block.data.clone());
                if block.last {
                    let saving = self.saving.remove(&id)?;
                    let judged = saving.is_right(record.floor, event, checker);
                    self.saved = judged.as_ref().ok().cloned();
                    let judged = judged.map(drop);
                    if world.hosts[process.host].process() == process {
                        let close = RequestBody::Backup(BackupRequest::Close(saving.backup));
                        world.request(process.host, Request::new(close));
                    }
                    let finished =
                        self.finish(id, Outcome::Answered(Response::Done), event, checker);
                    return Some(judged.and(finished));
                }
                saving.read()
            }
            _ => return None,
        };
        let alive = world.hosts[process.host].process() == process;
        let sent = if alive { world.request(process.host, Request::new(next)) } else { None };
        let Some(request) = sent else {
            return Some(self.finish(id, Outcome::NotDone, event, checker));
        };
        self.waiting.insert((process, request), id);
        Some(Ok(()))
    }

    fn finish(
        &mut self,
        id: OpId,
        outcome: Outcome,
        event: u64,
        checker: &mut KvChecker,
    ) -> Result<(), Violation> {
        let record = self.history.finish(id, outcome);
        let client = &mut self.clients[record.client];
        client.busy = false;
        if let (Call::Read(Query::Key(key), _), Outcome::Answered(Response::Answer(answer))) =
            (&record.call, &record.outcome)
            && let Some(entry) = seen_in(&answer.rows)
        {
            client.seen.insert(key.clone(), entry.unwrap_or((ModifyIndex::ZERO, None)));
        }
        match (&record.call, &record.outcome) {
            (Call::Open(session), Outcome::Answered(_)) => client.session = Some(session.id),
            (Call::Read(query, _), Outcome::Answered(Response::Answer(answer)))
                if semaphore::looks(query) =>
            {
                client.look = Look::of_rows(&answer.rows);
            }
            (Call::Write(KvWrite::Put(put)), _) if put.key == semaphore::LIST => {
                client.look = None;
            }
            (Call::Write(KvWrite::Acquire(lock)), Outcome::Answered(_) | Outcome::Open)
                if lock.key.starts_with(semaphore::FOLDER) =>
            {
                client.look = None;
            }
            // Whoever hears that it is gone, or may be, begins anew.
            (Call::Close(_), _)
            | (Call::Write(KvWrite::Acquire(_)), Outcome::Refused | Outcome::NoSession) => {
                client.session = None;
            }
            (Call::Renew(_), Outcome::Answered(Response::Answer(answer))) => {
                if matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty()) {
                    client.session = None;
                }
            }
            _ => {}
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

fn any_ask(rng: &mut Rng) -> Ask {
    if rng.chance(3, 5) {
        let key = one_of(rng, &REGISTERS);
        return on_one_key(rng, key);
    }
    match rng.below(20) {
        0..9 => {
            let key = one_of(rng, &LISTED);
            on_one_key(rng, key)
        }
        9..14 => {
            let prefix = one_of(rng, &PREFIXES).to_owned();
            let question = match rng.below(3) {
                0 => Question::Tree(prefix),
                1 => Question::Keys { prefix, separator: String::new() },
                _ => Question::Keys { prefix, separator: "/".to_owned() },
            };
            any_read(rng, question)
        }
        14..16 => Ask::DeleteTree(one_of(rng, &TREES).to_owned()),
        16..19 => Ask::Transaction((0..2 + rng.index(3)).map(|_| any_part(rng)).collect()),
        _ => {
            let gets = LISTED.map(|key| (rng.chance(3, 4), key.to_owned()));
            any_read(rng, Question::Gets(gets.to_vec()))
        }
    }
}

/// What a client does with backups.
fn any_restore(rng: &mut Rng) -> Ask {
    match rng.below(4) {
        0 => return Ask::PutBack,
        1..3 => return Ask::Save,
        _ => {}
    }
    let keys = REGISTERS.iter().chain(&LISTED).filter(|_| rng.chance(1, 2));
    Ask::Restore(keys.map(|key| (*key).to_owned()).collect())
}

fn on_one_key(rng: &mut Rng, key: &str) -> Ask {
    let key = key.to_owned();
    match rng.below(20) {
        0..4 => Ask::Put { key, seen: false },
        4..9 => Ask::Put { key, seen: true },
        9 => Ask::Delete { key, seen: false },
        10..12 => Ask::Delete { key, seen: true },
        _ => any_read(rng, Question::Key(key)),
    }
}

fn any_part(rng: &mut Rng) -> (PartKind, String) {
    let key = one_of(rng, &LISTED).to_owned();
    let kind = match rng.below(10) {
        0..3 => PartKind::Put,
        3 => PartKind::PutSeen,
        4 => PartKind::Delete,
        5 => PartKind::DeleteSeen,
        6 => PartKind::Get,
        7 => PartKind::GetTree,
        8 => PartKind::CheckSeen,
        _ => PartKind::DeleteTree,
    };
    (kind, key)
}

fn any_read(rng: &mut Rng, question: Question) -> Ask {
    Ask::Read { question, consistency: any_consistency(rng), view: rng.chance(1, 2) }
}

fn one_of(rng: &mut Rng, of: &[&'static str]) -> &'static str {
    of[rng.index(of.len())]
}

pub(crate) fn any_consistency(rng: &mut Rng) -> Consistency {
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
