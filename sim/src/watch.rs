//! Clients that watch: each reads something, and then again once that has changed (simulation.md
//! §8, workload queue/watch; http-api.md §1.6).
//!
//! Like real programs they give the index of the last answer back, wait for a while, begin at zero
//! again when an index went backwards, move on when their agent is down, and now and then hang up.
//! What one does is drawn first, and performed then, as a [`WatchAction`].

use crate::checker::watch::{BlockingRead, answered_rightly, not_overdue};
use crate::checker::{KvChecker, Violation};
use crate::kv::{any_consistency, applied_at, from_view};
use crate::net::HostId;
use crate::question::Question;
use crate::streams::Process;
use crate::world::{Reply, World, world_rng};
use std::time::Duration;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer};
use terraform_core::id::{ModifyIndex, RequestId, ServiceName};
use terraform_core::node::input::Input;
use terraform_core::node::request::{Request, RequestBody, RequestContext, Response};
use terraform_core::rng::{Rng, Stream};
use terraform_core::time::Instant;

/// Clients there are.
pub const CLIENTS: usize = 4;
/// Keys that are watched; the last is never there.
const KEYS: [&str; 4] = ["reg/0", "list/b", "list/b/c", "reg/none"];
/// Prefixes that are watched; there is never anything under the third.
const PREFIXES: [&str; 4] = ["list/", "list/b", "list/x", ""];
/// Services that are watched; the last is never there.
const SERVICES: [&str; 4] = ["service-0", "service-1", "terraform", "nothing"];

/// Something that one client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAction {
    /// Asks, and waits for a change of what it was last told.
    Ask {
        /// Which client.
        client: usize,
        /// Whom.
        host: HostId,
        /// What.
        question: Question,
        /// How fresh.
        consistency: Consistency,
        /// Whether it forgets what it was told, and so waits for nothing.
        afresh: bool,
        /// How long to wait.
        wait: Duration,
        /// Whether the published view may answer, as it does over HTTP.
        view: bool,
    },
    /// Waits no longer.
    HangUp {
        /// Which client.
        client: usize,
    },
}

/// A read on its way.
#[derive(Clone, Debug)]
struct Pending {
    process: Process,
    request: RequestId,
    read: BlockingRead,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// The last question, and how fresh the answer had to be.
    asked: Option<(Question, Consistency)>,
    /// The index of the last answer to it.
    index: ModifyIndex,
    pending: Option<Pending>,
    /// How the last question ended, until the whim has heard of it.
    end: Option<(Instant, End)>,
}

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
    HungUp,
}

/// What a client is about to do, while that is drawn.
#[derive(Clone, Debug)]
struct Whim {
    host: HostId,
    question: Question,
    consistency: Consistency,
    afresh: bool,
    next_at: Instant,
    hang_up_at: Option<Instant>,
}

/// All clients of a world that watch.
#[derive(Debug)]
pub struct Watchers {
    /// What was on its way to agents that ended.
    pub gone: Vec<BlockingRead>,
    /// Answers, not to stale reads, whose index was below that of the one before.
    pub went_back: u64,
    clients: Vec<Client>,
    whims: Vec<Whim>,
    rng: Rng,
}

impl Watchers {
    /// Clients that have asked nothing yet.
    pub fn new(seed: u64) -> Self {
        let mut rng = world_rng(seed, Stream::Watch);
        let whims = (0..CLIENTS).map(|_| Whim::any(&mut rng)).collect();
        let clients = vec![Client::default(); CLIENTS];
        Self { gone: Vec::new(), went_back: 0, clients, whims, rng }
    }

    /// What the client of this number does now, if its time has come.
    pub fn draw(&mut self, client: usize, world: &World) -> Option<WatchAction> {
        let (whim, rng) = (&mut self.whims[client], &mut self.rng);
        let state = &mut self.clients[client];
        if let Some((at, end)) = state.end.take() {
            whim.heard(at, end, rng);
        }
        if state.pending.is_some() {
            let hangs_up = whim.hang_up_at.is_some_and(|at| at <= world.now);
            return hangs_up.then_some(WatchAction::HangUp { client });
        }
        if whim.next_at > world.now {
            return None;
        }
        if whim.host >= world.hosts.len() || !world.hosts[whim.host].is_up() {
            whim.host = rng.index(world.hosts.len());
            return None;
        }
        let wait = Duration::from_secs(2 << rng.below(6));
        let view = rng.chance(1, 2);
        whim.hang_up_at = rng.chance(1, 6).then(|| world.now + rng.jitter(wait));
        let (host, consistency) = (whim.host, whim.consistency);
        let afresh = std::mem::replace(&mut whim.afresh, false);
        let question = whim.question.clone();
        Some(WatchAction::Ask { client, host, question, consistency, afresh, wait, view })
    }

    /// Performs what a client does, unless that is impossible by now.
    pub fn perform(
        &mut self,
        world: &mut World,
        kv: &mut KvChecker,
        action: &WatchAction,
    ) -> Result<(), Violation> {
        let (client, host, view) = match action {
            WatchAction::Ask { client, host, view, .. } => (*client, *host, *view),
            WatchAction::HangUp { client } => {
                self.hang_up(*client, world);
                return Ok(());
            }
        };
        if self.clients[client].pending.is_some() || !world.hosts[host].is_up() {
            return Ok(());
        }
        let Some(read) = self.read(action, world, kv) else { return Ok(()) };
        world.note(format!("> host {host} is asked by watcher {client}: {read:?}"));
        let BlockingRead { consistency, min_index, .. } = read;
        let wait = Some(read.wait);
        let context = RequestContext { consistency, min_index, wait, ..RequestContext::default() };
        if view && let Some(answer) = from_view(world, host, &context, &read.query) {
            let (now, event) = (world.now, world.events);
            return self.answered(client, &read, &answer, (now, event), kv);
        }
        let process = world.hosts[host].process();
        let body = RequestBody::Query(read.query.clone());
        if let Some(request) = world.request(host, Request { context, body }) {
            self.clients[client].pending = Some(Pending { process, request, read });
        }
        Ok(())
    }

    /// What a client asks, with the index of its last answer to the same.
    fn read(&mut self, ask: &WatchAction, world: &World, kv: &KvChecker) -> Option<BlockingRead> {
        let WatchAction::Ask { client, host, question, consistency, afresh, wait, .. } = ask else {
            return None;
        };
        let (consistency, wait) = (*consistency, *wait);
        let state = &mut self.clients[*client];
        let same = state.asked.replace((question.clone(), consistency))
            == Some((question.clone(), consistency));
        if *afresh || !same {
            state.index = ModifyIndex::ZERO;
        }
        let floor = match consistency {
            Consistency::Stale => applied_at(world, *host),
            Consistency::Leader | Consistency::Consistent => kv.floor(),
        };
        let (query, min_index, asked_at) = (question.query(), state.index, world.now);
        Some(BlockingRead { query, consistency, min_index, wait, asked_at, floor })
    }

    fn hang_up(&mut self, client: usize, world: &mut World) {
        let state = &mut self.clients[client];
        let Some(Pending { process, request, .. }) = state.pending.take() else { return };
        state.end = Some((world.now, End::HungUp));
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
                self.clients[number].end = Some((reply.at, End::Failed));
                Ok(())
            }
        })
    }

    fn answered(
        &mut self,
        number: usize,
        read: &BlockingRead,
        answer: &QueryAnswer,
        (at, event): (Instant, u64),
        kv: &mut KvChecker,
    ) -> Result<(), Violation> {
        let may_go_back = kv.may_go_back(&read.query, read.min_index, event);
        answered_rightly(read, answer, at, may_go_back)?;
        if matches!(read.query, Query::Key(_) | Query::KeyTree(_) | Query::Keys(_)) {
            kv.read((&read.query, read.consistency), read.floor, answer, event)?;
        }
        let client = &mut self.clients[number];
        let went_back = answer.index < read.min_index;
        let fresh = read.consistency != Consistency::Stale;
        self.went_back += u64::from(went_back && fresh);
        client.index = if went_back { ModifyIndex::ZERO } else { answer.index };
        client.end = Some((at, End::Answered));
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

impl Whim {
    /// That of a client that has nothing yet.
    fn any(rng: &mut Rng) -> Self {
        let one_of = |rng: &mut Rng, of: [&str; 4]| of[rng.index(4)].to_owned();
        let question = match rng.below(8) {
            0..2 => Question::Key(one_of(rng, KEYS)),
            2..4 => Question::Tree(one_of(rng, PREFIXES)),
            4 => {
                let separator = if rng.chance(1, 2) { "/" } else { "" }.to_owned();
                Question::Keys { prefix: one_of(rng, PREFIXES), separator }
            }
            5..7 => {
                let name = ServiceName::parse(&one_of(rng, SERVICES));
                Question::Service(name.expect("letters are a name"))
            }
            _ => Question::Nodes,
        };
        Self {
            // Moves to one that is up when it asks.
            host: HostId::MAX,
            question,
            consistency: any_consistency(rng),
            afresh: true,
            next_at: Instant::ZERO,
            hang_up_at: None,
        }
    }

    /// A question ended: the client goes on at once or in a while, and sometimes to another one.
    fn heard(&mut self, at: Instant, end: End, rng: &mut Rng) {
        self.next_at = match end {
            End::Answered if rng.chance(1, 2) => at + rng.jitter(Duration::from_secs(2)),
            End::Answered => at,
            // Nothing was learned.
            End::Failed => at + Duration::from_millis(200) + rng.jitter(Duration::from_secs(1)),
            End::HungUp => at + rng.jitter(Duration::from_secs(1)),
        };
        if end == End::Answered && rng.chance(1, 16) {
            *self = Self { next_at: self.next_at, ..Self::any(rng) };
        }
    }
}
