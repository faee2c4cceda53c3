//! Alive records that only a state exchange told: believed at once, spread once they are proven.
//!
//! Differs: memberlist spreads everything that a state exchange brings, so that one member with an
//! old table gives its dead ones to everybody for hours (gossip-protocol.md §28). Here the record
//! of a member that this one did not count among the living waits until the member has answered.
//! It is asked at once instead of in its turn, a few at a time, so that two pools that meet know
//! each other as fast as before; whoever does not answer is left to the ordinary probes. These
//! pings carry no broadcasts: a member that was slow has false accusations to tell, which must not
//! spread faster than what refutes them.
//!
//! Only what makes a member live for the first time, or again, is held back. A refutation learnt
//! from an exchange is spread at once, since a suspicion may be running out elsewhere, and what a
//! message brings was spread by others already.

use super::broadcast::Notify;
use super::table::MEMBERS_MAX;
use super::{Gossip, GossipOutput, Timer};
use crate::id::{NodeName, SeqNo};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::wire::gossip::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Members asked in each gossip interval.
const ASKED_AT_ONCE: usize = 16;

/// How often a member is asked before it is left to the ordinary probes.
const ATTEMPTS_MAX: u8 = 3;

/// How an alive record is spread that changes what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// At once: others spread it too, or its owner just raised its incarnation.
    Now,
    /// Once its owner has answered.
    Proven,
}

/// The members whose records wait for a proof.
#[derive(Clone, Debug, Default)]
pub(super) struct Proofs {
    /// All of them; a member that is gone is none.
    unproven: BTreeSet<NodeName>,
    /// Those to be asked, and how often they were.
    waiting: VecDeque<(NodeName, u8)>,
    /// Those that were asked, by the number of the ping.
    asked: BTreeMap<SeqNo, Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    name: NodeName,
    /// How often, this time included.
    attempts: u8,
    /// When it is asked again.
    until: Instant,
}

impl Proofs {
    /// Whether the record of `name` waits for a proof.
    pub(super) fn waits(&self, name: &NodeName) -> bool {
        self.unproven.contains(name)
    }

    /// The record of `name` needs no proof any more, or never gets one.
    pub(super) fn forget(&mut self, name: &NodeName) -> bool {
        self.unproven.remove(name)
    }
}

impl Gossip {
    /// Spreads the record of a member that became alive, now or when it is proven.
    pub(super) fn spread_alive(
        &mut self,
        now: Instant,
        name: &NodeName,
        spread: Spread,
        out: &mut Outbox<GossipOutput>,
    ) {
        match spread {
            Spread::Now => {
                self.proofs.forget(name);
                let Some(record) = self.table.get(name) else { return };
                let peer = record.peer.clone();
                self.announce(&peer, Notify::None, out);
            }
            Spread::Proven => {
                crate::mark!("gossip.proof_wanted");
                let proofs = &mut self.proofs;
                if proofs.unproven.insert(name.clone()) && proofs.waiting.len() < MEMBERS_MAX {
                    proofs.waiting.push_back((name.clone(), 0));
                    if self.timers.deadline(&Timer::ProofTick).is_none() {
                        self.timers.set(Timer::ProofTick, now);
                    }
                }
            }
        }
    }

    /// The member `name` has answered: what is known of it may be spread.
    pub(super) fn proven(&mut self, name: &NodeName, out: &mut Outbox<GossipOutput>) {
        if !self.proofs.forget(name) || !self.is_active() {
            return;
        }
        crate::mark!("gossip.proven");
        let Some(record) = self.table.get(name) else { return };
        let peer = record.peer.clone();
        self.announce(&peer, Notify::None, out);
    }

    /// A ping came from `address`: whoever is there lives.
    pub(super) fn pinged_by(&mut self, address: &SocketAddr, out: &mut Outbox<GossipOutput>) {
        if self.proofs.unproven.is_empty() {
            return;
        }
        if let Some(name) = self.table.at(address).map(|record| record.peer.name.clone()) {
            self.proven(&name, out);
        }
    }

    /// An ack arrived that answers no probe.
    pub(super) fn proof_acked(&mut self, seq_no: SeqNo, out: &mut Outbox<GossipOutput>) {
        if let Some(asked) = self.proofs.asked.remove(&seq_no) {
            self.proven(&asked.name, out);
        }
    }

    /// Asks the next members for a proof, and again those that did not answer in time.
    pub(super) fn ask_for_proofs(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        if !self.is_active() {
            self.proofs = Proofs::default();
            return;
        }
        let Proofs { waiting, asked, .. } = &mut self.proofs;
        asked.retain(|_, it| {
            let over = it.until <= now;
            if over && it.attempts < ATTEMPTS_MAX {
                waiting.push_back((it.name.clone(), it.attempts));
            }
            !over
        });
        let mut left = ASKED_AT_ONCE;
        while left > 0
            && let Some((name, attempts)) = self.proofs.waiting.pop_front()
        {
            let Some(record) = self.table.get(&name).filter(|_| self.proofs.waits(&name)) else {
                continue;
            };
            left -= 1;
            let (address, versions) = (record.peer.address, record.peer.versions);
            let seq_no = self.next_seq_no();
            let ping = Message::Ping(self.ping(seq_no, Some(name.clone())));
            self.send(address, Some(versions), &ping.encode(), out);
            let (attempts, until) = (attempts + 1, now + self.config.probe_timeout);
            self.proofs.asked.insert(seq_no, Asked { name, attempts, until });
        }
        if !self.proofs.waiting.is_empty() || !self.proofs.asked.is_empty() {
            self.timers.set(Timer::ProofTick, now + self.config.gossip_interval);
        }
    }
}
