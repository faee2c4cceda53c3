//! The proposer's side: who is there, and whether all of them are bound to this server
//! (raft.md B2 to B4).

use super::{Bootstrap, BootstrapMessage, BootstrapOutput, BootstrapTrace, Verdict};
use crate::config;
use crate::id::{NodeId, StoreId};
use crate::machine::Outbox;
use crate::raft::{Configuration, Server};
use crate::trace;
use crate::trace::Level;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One attempt to have everybody bound to this server.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Its number; answers to earlier ones do not count.
    round: u64,
    /// The others.
    others: BTreeMap<NodeId, Other>,
    /// Which are bound, with their stores.
    bound: BTreeMap<NodeId, StoreId>,
}

/// Another server, as gossip shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Other {
    address: SocketAddr,
    /// Whether it is to vote (B7).
    votes: bool,
}

impl Bootstrap {
    /// Begins, keeps or ends the attempt, as the servers that are there demand.
    pub(super) fn propose(&mut self, out: &mut Outbox<BootstrapOutput>) {
        let others = self.proposable(out);
        let Some(others) = others.filter(|_| self.bound_to_other().is_none()) else {
            self.attempt = None;
            return;
        };
        let own = self.own_promise();
        if self.promise != Some(own) || self.saving.is_some() {
            if self.saving.is_none() {
                self.save(own, None, out);
            }
            return;
        }
        if self.attempt.as_ref().is_none_or(|attempt| attempt.others != others) {
            let mut peers = vec![self.settings.address];
            peers.extend(others.values().map(|other| other.address));
            trace!(out, Level::Info, BootstrapTrace::Attempting { peers });
            let round = self.rng.bits();
            self.attempt = Some(Attempt { round, others, bound: BTreeMap::new() });
            self.ask_again(out);
        }
        self.decide_if_bound(out);
    }

    /// The others of the configuration that this server is to propose now, if it is to.
    fn proposable(&mut self, out: &mut Outbox<BootstrapOutput>) -> Option<BTreeMap<NodeId, Other>> {
        let config::Bootstrap::Expect(expected) = self.settings.mode else { return None };
        if self.gave_up || !self.settings.votes {
            return None;
        }
        let mut others = BTreeMap::new();
        for server in self.servers.iter().filter(|server| server.id != self.settings.id) {
            let name = server.name.clone();
            if server.bootstrap {
                self.tell(BootstrapTrace::OtherBootstraps { server: name }, out);
                return None;
            }
            match server.expect {
                Some(expect) if expect != expected => {
                    self.tell(BootstrapTrace::ExpectDiffers { server: name }, out);
                    return None;
                }
                Some(_) => {
                    let other = Other { address: server.address, votes: server.votes };
                    others.insert(server.id, other);
                }
                None => {}
            }
        }
        let voters = || others.iter().filter(|(_, other)| other.votes);
        let enough = voters().count() as u64 + 1 >= u64::from(expected);
        let smallest = voters().all(|(other, _)| *other > self.settings.id);
        (enough && smallest).then_some(others)
    }

    /// Asks everybody who is not bound yet.
    pub(super) fn ask_again(&self, out: &mut Outbox<BootstrapOutput>) {
        let Some(attempt) = &self.attempt else { return };
        let config::Bootstrap::Expect(expect) = self.settings.mode else { return };
        let (promise, round) = (self.own_promise(), attempt.round);
        for (to, other) in &attempt.others {
            if !attempt.bound.contains_key(to) {
                let message = BootstrapMessage::Ask { to: *to, promise, round, expect };
                out.push(BootstrapOutput::Send { to: other.address, message });
            }
        }
    }

    /// A server answered the proposal.
    pub(super) fn on_answer(
        &mut self,
        from: NodeId,
        store: StoreId,
        round: u64,
        verdict: Verdict,
        out: &mut Outbox<BootstrapOutput>,
    ) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.round == round) else {
            return;
        };
        match verdict {
            Verdict::Promised if attempt.others.contains_key(&from) => {
                attempt.bound.insert(from, store);
            }
            Verdict::Promised | Verdict::Refused => {}
            Verdict::Member(cluster) => {
                crate::mark!("raft.bootstrap.cluster_exists");
                self.gave_up = true;
                self.attempt = None;
                self.tell(BootstrapTrace::ClusterExists { server: from, cluster }, out);
            }
        }
    }

    fn decide_if_bound(&mut self, out: &mut Outbox<BootstrapOutput>) {
        let Some(attempt) = &self.attempt else { return };
        let mut configuration = Configuration::default();
        for (id, Other { address, votes }) in &attempt.others {
            let Some(store) = attempt.bound.get(id).copied() else { return };
            let role = if *votes { &mut configuration.voters } else { &mut configuration.learners };
            role.insert(*id, Server { address: *address, store });
        }
        self.start(configuration, out);
    }

    /// Tells why this server waits, once for each reason.
    pub(super) fn tell(&mut self, trace: BootstrapTrace, out: &mut Outbox<BootstrapOutput>) {
        if self.told.as_ref() != Some(&trace) {
            trace!(out, Level::Warn, trace.clone());
            self.told = Some(trace);
        }
    }
}
