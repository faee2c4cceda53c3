//! The bound server's side: to whom it is bound, and when that ends (raft.md B5).

use super::{Bootstrap, BootstrapMessage, BootstrapOutput, BootstrapTrace, Promise, Verdict};
use crate::config;
use crate::id::NodeId;
use crate::machine::Outbox;
use crate::raft::{IdentityChange, PersistBatch, PersistSeq};
use crate::trace;
use crate::trace::Level;
use crate::wire::pack;
use std::net::SocketAddr;

/// A promise on its way to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saving {
    seq: PersistSeq,
    /// The round to answer once it is durable; `None` for the own promise.
    round: Option<u64>,
}

impl Bootstrap {
    /// Handles a message for this server; others are dropped.
    pub(super) fn receive(&mut self, message: BootstrapMessage, out: &mut Outbox<BootstrapOutput>) {
        let own = self.settings.id;
        match message {
            BootstrapMessage::Ask { to, promise, round, expect } if to == own => {
                self.on_ask(promise, round, expect, out);
            }
            BootstrapMessage::Answer { to, from, store, round, verdict } if to == own => {
                self.on_answer(from, store, round, verdict, out);
            }
            BootstrapMessage::Query { to, from, promise, question } if to == own => {
                self.on_query(from, promise, question, out);
            }
            BootstrapMessage::Release { to, question } if to == own => {
                self.on_release(question, out);
            }
            BootstrapMessage::Ask { .. }
            | BootstrapMessage::Answer { .. }
            | BootstrapMessage::Query { .. }
            | BootstrapMessage::Release { .. } => {}
        }
    }

    /// A proposer asks this server to be bound to it.
    fn on_ask(
        &mut self,
        promise: Promise,
        round: u64,
        expect: u32,
        out: &mut Outbox<BootstrapOutput>,
    ) {
        if let Some(cluster) = self.formed {
            return self.answer(promise.proposer, round, Verdict::Member(cluster), out);
        }
        if self.saving.is_some() {
            return;
        }
        let takes_part = self.settings.mode == config::Bootstrap::Expect(expect);
        let busy = self.attempt.is_some() || promise.proposer == self.settings.id;
        let taken = self.bound_to_other().is_some_and(|other| other != promise);
        if !takes_part || busy || taken {
            self.answer(promise.proposer, round, Verdict::Refused, out);
        } else if self.promise == Some(promise) {
            self.bind(promise.proposer, round, out);
        } else {
            self.save(promise, Some(round), out);
        }
    }

    /// Makes a promise durable; until then nothing rests on it, but this server is bound already.
    pub(super) fn save(
        &mut self,
        promise: Promise,
        round: Option<u64>,
        out: &mut Outbox<BootstrapOutput>,
    ) {
        let seq = self.next;
        self.next = PersistSeq(seq.0 + 1);
        self.promise = Some(promise);
        self.released = false;
        self.question = None;
        self.saving = Some(Saving { seq, round });
        let promise = Some(pack::to_bytes(&promise));
        let identity = IdentityChange { promise, ..Default::default() };
        let batch = PersistBatch { identity, ..Default::default() };
        out.push(BootstrapOutput::Persist { seq, batch });
    }

    /// The promise is durable.
    ///
    /// Panics if it is not the one on its way: the host completes requests in order.
    pub(super) fn on_saved(&mut self, seq: PersistSeq, out: &mut Outbox<BootstrapOutput>) {
        let saved = self.saving.take().filter(|saving| saving.seq == seq);
        let saved = saved.expect("INV-RAFT-8: persist requests complete in order");
        if let (Some(round), Some(promise)) = (saved.round, self.promise)
            && self.formed.is_none()
        {
            let proposer = promise.proposer;
            trace!(out, Level::Info, BootstrapTrace::Promised { proposer });
            self.bind(proposer, round, out);
        }
    }

    /// Says that this server is bound. A release asked for earlier does not count any more.
    fn bind(&mut self, proposer: NodeId, round: u64, out: &mut Outbox<BootstrapOutput>) {
        self.released = false;
        self.question = None;
        self.answer(proposer, round, Verdict::Promised, out);
    }

    fn answer(&self, to: NodeId, round: u64, verdict: Verdict, out: &mut Outbox<BootstrapOutput>) {
        let (from, store) = (self.settings.id, self.store);
        let message = BootstrapMessage::Answer { to, from, store, round, verdict };
        self.send(to, message, out);
    }

    /// Asks the proposer this server is bound to whether it still needs it.
    pub(super) fn query(&mut self, out: &mut Outbox<BootstrapOutput>) {
        let Some(promise) = self.bound_to_other().filter(|_| self.saving.is_none()) else { return };
        let (to, from) = (promise.proposer, self.settings.id);
        if self.address_of(to).is_none() {
            return self.tell(BootstrapTrace::ProposerAway { proposer: to }, out);
        }
        let question = self.rng.bits();
        self.question = Some(question);
        self.send(to, BootstrapMessage::Query { to, from, promise, question }, out);
    }

    /// A bound server asks whether this one still needs it: not if another store promised to
    /// propose, if this store joined another cluster, or if it proposes nothing at the moment; a
    /// later attempt asks everybody again.
    fn on_query(
        &self,
        from: NodeId,
        promise: Promise,
        question: u64,
        out: &mut Outbox<BootstrapOutput>,
    ) {
        let needed = match self.formed {
            Some(cluster) => cluster == promise.cluster(),
            None => self.attempt.is_some() && promise == self.own_promise(),
        };
        if !needed {
            self.send(from, BootstrapMessage::Release { to: from, question }, out);
        }
    }

    fn on_release(&mut self, question: u64, out: &mut Outbox<BootstrapOutput>) {
        if let Some(promise) = self.bound_to_other()
            && self.question == Some(question)
            && self.formed.is_none()
        {
            crate::mark!("raft.bootstrap.released");
            self.released = true;
            let proposer = promise.proposer;
            trace!(out, Level::Info, BootstrapTrace::Released { proposer });
        }
    }

    fn address_of(&self, server: NodeId) -> Option<SocketAddr> {
        self.servers.iter().find(|other| other.id == server).map(|other| other.address)
    }

    /// Sends to a server that gossip knows; what is lost is asked for again.
    fn send(&self, to: NodeId, message: BootstrapMessage, out: &mut Outbox<BootstrapOutput>) {
        if let Some(to) = self.address_of(to) {
            out.push(BootstrapOutput::Send { to, message });
        }
    }
}
