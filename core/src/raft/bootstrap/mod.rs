//! How the first configuration of a cluster comes about (raft.md §10.5), as a machine of its own.
//!
//! Blank servers that expect each other see through gossip who is there. The one with the smallest
//! identity proposes: it asks each of the others to be bound to it, and once all are, it decides
//! the configuration and writes it as the first entry of its log. From there on Raft does the
//! rest: a bound server votes for, and takes entries of, that cluster alone.
//!
//! Invariants (raft.md B5, B6):
//! - A server is bound to one proposer at most, durably before it says so.
//! - A proposer decides only when everybody it names is bound to it, and once for each store: what
//!   it decided is its own first entry. So two first entries never name the same server.
//! - A binding ends only when its proposer, asked by the bound server after the latest binding
//!   answer, says that it does not propose. Its later attempts ask everybody again.
//!
//! Differs: B5 binds a server to the hash of one configuration, and needs a durable record when a
//! proposer changes its mind. Bound to the proposer instead, a server leaves the value to the one
//! log that decides it, and a restarted proposer simply asks again.

mod answer;
mod event;
mod propose;
#[cfg(test)]
mod tests;
mod trace;

pub use event::{
    BootstrapInput, BootstrapMessage, BootstrapOutput, BootstrapSettings, Promise, Verdict,
};
pub use trace::BootstrapTrace;

use crate::config;
use crate::id::{ClusterId, StoreId};
use crate::machine::{Machine, Outbox};
use crate::raft::{Configuration, PersistSeq, RestoredRaft, Server};
use crate::rng::Rng;
use crate::serf::ServerInfo;
use crate::time::Instant;
use crate::wire::pack;
use answer::Saving;
use propose::Attempt;
use std::time::Duration;

/// Time between questions to servers that have not answered.
const RETRY: Duration = Duration::from_secs(1);

/// One server's way to its first configuration.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    settings: BootstrapSettings,
    store: StoreId,
    rng: Rng,
    /// The servers that are there, as gossip says.
    servers: Vec<ServerInfo>,
    /// The cluster this store belongs to; nothing is left to do then.
    formed: Option<ClusterId>,
    /// To whom this server is bound, or was until it was released.
    promise: Option<Promise>,
    released: bool,
    /// The question to that proposer that is not answered.
    question: Option<u64>,
    saving: Option<Saving>,
    next: PersistSeq,
    attempt: Option<Attempt>,
    /// A cluster exists: this server waits to be added (B3).
    gave_up: bool,
    bound: Option<ClusterId>,
    told: Option<BootstrapTrace>,
    retry_at: Option<Instant>,
}

impl Bootstrap {
    /// A server that was just started, from what its disk held. Its first outputs wait in `out`.
    pub fn new(
        settings: BootstrapSettings,
        restored: &RestoredRaft,
        rng: Rng,
        now: Instant,
        out: &mut Outbox<BootstrapOutput>,
    ) -> Self {
        let promise = restored.promise.as_deref().and_then(|bytes| pack::from_bytes(bytes).ok());
        let mut machine = Self {
            store: restored.store,
            rng,
            servers: Vec::new(),
            formed: restored.cluster,
            promise,
            released: false,
            question: None,
            saving: None,
            next: PersistSeq(1),
            attempt: None,
            gave_up: false,
            bound: None,
            told: None,
            retry_at: None,
            settings,
        };
        if machine.formed.is_none() && machine.settings.mode == config::Bootstrap::Alone {
            machine.start(Configuration::default(), out);
        }
        machine.go_on(now, out);
        machine
    }

    /// The promise this server would give for its own proposal.
    const fn own_promise(&self) -> Promise {
        Promise { proposer: self.settings.id, store: self.store }
    }

    /// To whom else this server is bound at the moment.
    fn bound_to_other(&self) -> Option<Promise> {
        let own = self.own_promise();
        self.promise.filter(|promise| *promise != own && !self.released)
    }

    /// Decides: the configuration of the others, each with its store, and this server.
    fn start(&mut self, mut configuration: Configuration, out: &mut Outbox<BootstrapOutput>) {
        let cluster = self.own_promise().cluster();
        let own = Server { address: self.settings.address, store: self.store };
        configuration.voters.insert(self.settings.id, own);
        self.formed = Some(cluster);
        self.attempt = None;
        self.tell_bound(out);
        out.push(BootstrapOutput::Start { cluster, configuration });
    }

    /// What every call ends with: takes the next step that is possible.
    fn go_on(&mut self, now: Instant, out: &mut Outbox<BootstrapOutput>) {
        if self.formed.is_some() {
            self.attempt = None;
            self.retry_at = None;
        } else {
            self.propose(out);
            let waits = self.attempt.is_some() || self.bound_to_other().is_some();
            let at = self.retry_at.filter(|at| *at > now).unwrap_or(now + RETRY);
            self.retry_at = waits.then_some(at);
        }
        self.tell_bound(out);
    }

    /// Tells Raft which cluster this server may join.
    fn tell_bound(&mut self, out: &mut Outbox<BootstrapOutput>) {
        let own = self.attempt.as_ref().map(|_| self.own_promise());
        let promise =
            if self.formed.is_some() { None } else { own.or_else(|| self.bound_to_other()) };
        let cluster = promise.map(|promise| promise.cluster());
        if cluster != self.bound {
            self.bound = cluster;
            out.push(BootstrapOutput::Bound { cluster });
        }
    }
}

impl Machine for Bootstrap {
    type Input = BootstrapInput;
    type Output = BootstrapOutput;

    fn handle(&mut self, now: Instant, input: BootstrapInput, out: &mut Outbox<BootstrapOutput>) {
        match input {
            BootstrapInput::Servers(servers) => self.servers = servers,
            BootstrapInput::Receive(message) => self.receive(message, out),
            BootstrapInput::PersistDone { seq } => self.on_saved(seq, out),
            BootstrapInput::Formed { cluster } => self.formed = Some(cluster),
        }
        self.go_on(now, out);
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<BootstrapOutput>) {
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        self.ask_again(out);
        self.query(out);
        self.go_on(now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}
