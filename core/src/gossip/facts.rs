//! What happens when a claim about a member is believed, and when one about this member is not.
//!
//! Implements gossip-protocol.md §5 to §8. The judgement itself is [`super::state`]'s; here the
//! table, the timers, the broadcasts and the events follow from it.
//!
//! Differs: whoever spreads an alive record of a member that is known to be gone is sent the
//! accusation back, so that a restarted member, whose incarnation began low again, learns at once
//! above which incarnation it must announce itself (gossip-protocol.md §28, mass restart).

use super::admission::identity;
use super::broadcast::Notify;
use super::proof::Spread;
use super::state::{
    Claim, Known, SelfVerdict, Verdict, is_gone, is_newer, judge, judge_self, refutation, successor,
};
use super::suspicion::Suspicion;
use super::table::{MEMBERS_MAX, Record};
use super::trace::DropReason;
use super::{Gossip, GossipOutput, GossipTrace, Peer, Timer, Versions};
use crate::id::{Incarnation, NodeName};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::{Alive, Dead, Message, PeerState, Suspect};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often the same gone member is told that it is believed gone.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// A claim that a member is alive, from a message or from a state exchange.
#[derive(Clone, Debug)]
pub(super) struct AliveClaim {
    /// The member's incarnation.
    pub(super) incarnation: Incarnation,
    /// Its name.
    pub(super) name: NodeName,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its port; zero stands for the receiver's own.
    pub(super) port: u16,
    /// What it says of itself.
    pub(super) meta: Bytes,
    /// Its versions, if given.
    pub(super) versions: Option<Versions>,
}

impl From<Alive> for AliveClaim {
    fn from(message: Alive) -> Self {
        Self {
            incarnation: message.incarnation,
            name: message.node,
            address: message.address,
            port: message.port,
            meta: message.meta,
            versions: message.versions,
        }
    }
}

impl Versions {
    /// Whether the protocol range holds together (gossip-wire.md §3.1).
    const fn is_sane(&self) -> bool {
        self.protocol_min != 0 && self.protocol_max != 0 && self.protocol_min <= self.protocol_max
    }
}

impl Record {
    /// Whether a claim about this member, at `address`, says nothing new: most of them do, since
    /// everybody hears everything several times.
    fn repeats(&self, claim: &AliveClaim, address: SocketAddr) -> bool {
        !is_gone(self.state)
            && !is_newer(self.peer.incarnation, claim.incarnation)
            && address == self.peer.address
    }
}

impl Gossip {
    /// Takes a claim that a member is alive, sent by `from`; `spread` says how one is spread that
    /// makes it count among the living.
    pub(super) fn alive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        claim: AliveClaim,
        spread: Spread,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(versions) = claim.versions.filter(Versions::is_sane) else {
            self.drops.drop(now, from, DropReason::Versions(claim.name), out);
            return;
        };
        let address = self.claimed_address(claim.address, claim.port);
        if claim.name != self.local
            && self.table.get(&claim.name).is_some_and(|known| known.repeats(&claim, address))
        {
            if spread == Spread::Now && self.proofs.waits(&claim.name) {
                self.spread_alive(now, &claim.name, spread, out);
            }
            return;
        }
        let peer = Peer {
            name: claim.name,
            address,
            meta: claim.meta,
            versions,
            incarnation: claim.incarnation,
        };
        if peer.name == self.local {
            self.alive_self(now, from, &peer, out);
            return;
        }
        if let Err(refusal) = self.admits((&peer.name, peer.address), &peer.meta) {
            self.drops.drop(now, from, DropReason::Refused(refusal), out);
            return;
        }
        let known = self.known_beside(now, &peer);
        match judge(known, Claim::Alive, peer.incarnation) {
            Verdict::Accept if self.table.get(&peer.name).is_none() => {
                self.add(now, from, peer, spread, out);
            }
            Verdict::Accept => self.revive(now, peer, spread, out),
            Verdict::Conflict => self.conflict(&peer, out),
            Verdict::TooFar => {
                self.drops.drop(now, from, DropReason::Incarnation(peer.name), out);
            }
            Verdict::Ignore | Verdict::Confirm | Verdict::Raise => {
                self.tell_gone(now, &peer, out);
            }
        }
    }

    /// Where a member says it is.
    pub(super) fn claimed_address(&self, address: IpAddr, port: u16) -> SocketAddr {
        let port = if port == 0 { self.address().port() } else { port };
        SocketAddr::new(address, port)
    }

    /// What is known of a member that an alive claim is about, if only from its tombstone.
    fn known_beside(&self, now: Instant, claimed: &Peer) -> Option<Known> {
        let reclaim = self.config.dead_node_reclaim_time;
        let known = |state, incarnation, address, changed_at| Known {
            state,
            incarnation,
            same_address: address == claimed.address,
            reclaimable: !reclaim.is_zero() && now.since(changed_at) > reclaim,
        };
        if let Some(record) = self.table.get(&claimed.name) {
            let Peer { incarnation, address, .. } = record.peer;
            let judged = known(record.state, incarnation, address, record.changed_at);
            // The same agent at a new address need not wait; only another of its name could be
            // mistaken for it (cluster-behaviour.md §16, row 6).
            let identity_of = |peer: &Peer| identity(&peer.meta).map(str::to_owned);
            let same = identity_of(&record.peer);
            let same = same.is_some() && same == identity_of(claimed);
            let reclaimable = judged.reclaimable || (!reclaim.is_zero() && same);
            return Some(Known { reclaimable, ..judged });
        }
        let stone = self.table.tombstone(&claimed.name).filter(|_| !crate::mutant!(M47))?;
        Some(known(stone.state, stone.incarnation, stone.address, stone.changed_at))
    }

    fn add(
        &mut self,
        now: Instant,
        from: SocketAddr,
        peer: Peer,
        spread: Spread,
        out: &mut Outbox<GossipOutput>,
    ) {
        if self.table.len() >= MEMBERS_MAX {
            self.drops.drop(now, from, DropReason::TooManyMembers(peer.name), out);
            return;
        }
        let record = Record {
            peer: peer.clone(),
            state: PeerState::Alive,
            changed_at: now,
            suspicion: None,
            told_at: None,
        };
        self.table.insert(record, &mut self.rng);
        self.stats.alive += 1;
        self.spread_alive(now, &peer.name, spread, out);
        tell_state(&peer.name, PeerState::Alive, peer.incarnation, None, out);
        out.push(GossipOutput::Joined(peer));
    }

    fn revive(
        &mut self,
        now: Instant,
        mut peer: Peer,
        spread: Spread,
        out: &mut Outbox<GossipOutput>,
    ) {
        if crate::mutant!(M48)
            && let Some(record) = self.table.get(&peer.name)
        {
            peer.address = record.peer.address;
        }
        self.stats.alive += 1;
        self.table.set_address(&peer.name, peer.address);
        let Some(record) = self.table.get_mut(&peer.name) else { return };
        let before = record.state;
        let mut old = std::mem::replace(&mut record.peer, peer.clone());
        old.incarnation = peer.incarnation;
        record.state = PeerState::Alive;
        record.suspicion = None;
        record.told_at = None;
        if before != PeerState::Alive {
            record.changed_at = now;
            self.timers.cancel(&Timer::Suspicion(peer.name.clone()));
            tell_state(&peer.name, PeerState::Alive, peer.incarnation, None, out);
        }
        let spread = if is_gone(before) { spread } else { Spread::Now };
        self.spread_alive(now, &peer.name, spread, out);
        if is_gone(before) {
            crate::mark!("gossip.revived");
            out.push(GossipOutput::Joined(peer));
        } else if old != peer {
            out.push(GossipOutput::Updated(peer));
        }
    }

    fn conflict(&self, peer: &Peer, out: &mut Outbox<GossipOutput>) {
        crate::mark!("gossip.name_conflict");
        let Some(record) = self.table.get(&peer.name) else { return };
        let (existing, claimed) = (record.peer.clone(), peer.address);
        crate::trace!(
            out,
            Level::Error,
            GossipTrace::Conflict {
                name: peer.name.clone(),
                mine: existing.address,
                theirs: claimed,
                state: record.state,
            }
        );
        out.push(GossipOutput::Conflict { existing, claimed });
    }

    /// Sends the accusation against a gone member to where an outdated record says it is.
    fn tell_gone(&mut self, now: Instant, peer: &Peer, out: &mut Outbox<GossipOutput>) {
        let Some((incarnation, told_at)) = self.table.told_mut(&peer.name) else { return };
        if told_at.is_some_and(|at| now.since(at) < TELL_INTERVAL) {
            return;
        }
        crate::mark!("gossip.told_gone");
        *told_at = Some(now);
        let (node, from) = (peer.name.clone(), self.local.clone());
        let accusation = Message::Suspect(Suspect { incarnation, node, from });
        let versions = self.versions_at(&peer.address);
        self.send(peer.address, versions, &accusation.encode(), out);
    }

    /// Takes a suspicion about a member, raised by `accuser` and sent by `from`.
    pub(super) fn suspect(
        &mut self,
        now: Instant,
        from: SocketAddr,
        name: &NodeName,
        incarnation: Incarnation,
        accuser: &NodeName,
        out: &mut Outbox<GossipOutput>,
    ) {
        if *name == self.local {
            self.accused(now, from, Claim::Suspect, incarnation, accuser, out);
            return;
        }
        let fact = || {
            let node = name.clone();
            Message::Suspect(Suspect { incarnation, node, from: accuser.clone() })
        };
        match judge(self.known(name), Claim::Suspect, incarnation) {
            Verdict::Accept => {
                self.stats.suspect += 1;
                let n = self.table.len();
                let Some(record) = self.table.get_mut(name) else { return };
                let suspicion = Suspicion::new(&self.config, n, accuser.clone(), now);
                self.timers.set(Timer::Suspicion(name.clone()), suspicion.deadline());
                record.suspicion = Some(suspicion);
                record.state = PeerState::Suspect;
                record.changed_at = now;
                record.peer.incarnation = incarnation;
                tell_state(name, PeerState::Suspect, incarnation, Some(accuser), out);
                self.broadcast_fact(name.as_str(), &fact(), Notify::None, out);
            }
            Verdict::Confirm => {
                let Some(record) = self.table.get_mut(name) else { return };
                let Some(suspicion) = &mut record.suspicion else { return };
                if suspicion.confirm(accuser) {
                    crate::mark!("gossip.suspicion_confirmed");
                    self.timers.set(Timer::Suspicion(name.clone()), suspicion.deadline());
                    self.broadcast_fact(name.as_str(), &fact(), Notify::None, out);
                }
            }
            Verdict::TooFar => {
                self.drops.drop(now, from, DropReason::Incarnation(name.clone()), out);
            }
            Verdict::Ignore | Verdict::Conflict | Verdict::Raise => {}
        }
    }

    /// Takes the news that a member is dead, or left if `accuser` is the member itself.
    pub(super) fn dead(
        &mut self,
        now: Instant,
        from: SocketAddr,
        name: &NodeName,
        incarnation: Incarnation,
        accuser: &NodeName,
        out: &mut Outbox<GossipOutput>,
    ) {
        let left = name == accuser;
        let claim = if left { Claim::Left } else { Claim::Dead };
        if *name == self.local {
            self.accused(now, from, claim, incarnation, accuser, out);
            return;
        }
        match judge(self.known(name), claim, incarnation) {
            Verdict::Accept => {}
            Verdict::Raise => {
                let Some(record) = self.table.get_mut(name) else { return };
                record.peer.incarnation = incarnation;
                let (node, from) = (name.clone(), accuser.clone());
                let fact = Message::Dead(Dead { incarnation, node, from });
                self.broadcast_fact(name.as_str(), &fact, Notify::None, out);
                return;
            }
            Verdict::TooFar => {
                self.drops.drop(now, from, DropReason::Incarnation(name.clone()), out);
                return;
            }
            Verdict::Ignore | Verdict::Confirm | Verdict::Conflict => return,
        }
        self.stats.dead += 1;
        let Some(record) = self.table.get_mut(name) else { return };
        record.state = if left { PeerState::Left } else { PeerState::Dead };
        record.suspicion = None;
        record.changed_at = now;
        record.peer.incarnation = incarnation;
        tell_state(name, record.state, incarnation, (!left).then_some(accuser), out);
        self.timers.cancel(&Timer::Suspicion(name.clone()));
        self.proofs.forget(name);
        self.reach.clear(&record.peer.address);
        let (node, from) = (name.clone(), accuser.clone());
        let fact = Message::Dead(Dead { incarnation, node, from });
        self.broadcast_fact(name.as_str(), &fact, Notify::None, out);
        out.push(GossipOutput::Gone { name: name.clone(), left });
    }

    /// A suspicion ran out.
    pub(super) fn suspicion_expired(
        &mut self,
        now: Instant,
        name: &NodeName,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(record) = self.table.get(name) else { return };
        let Some(suspicion) = &record.suspicion else { return };
        let (confirmations, incarnation) = (suspicion.confirmations(), record.peer.incarnation);
        self.stats.suspicions_unconfirmed += u64::from(suspicion.lacks_confirmations());
        crate::trace!(
            out,
            Level::Info,
            GossipTrace::SuspicionExpired { name: name.clone(), confirmations }
        );
        let (accuser, from) = (self.local.clone(), self.address());
        self.dead(now, from, name, incarnation, &accuser, out);
    }

    fn known(&self, name: &NodeName) -> Option<Known> {
        self.table.get(name).map(|record| Known {
            state: record.state,
            incarnation: record.peer.incarnation,
            same_address: true,
            reclaimable: false,
        })
    }

    /// Somebody spreads an alive record of this member.
    fn alive_self(
        &mut self,
        now: Instant,
        from: SocketAddr,
        claim: &Peer,
        out: &mut Outbox<GossipOutput>,
    ) {
        let own = self.own();
        if !self.is_active() {
            return;
        }
        if claim.address != own.address {
            self.conflict(claim, out);
            return;
        }
        let same = claim.meta == own.meta && claim.versions == own.versions;
        match judge_self(own.incarnation, false, Claim::Alive, claim.incarnation, same) {
            SelfVerdict::Ignore => {}
            SelfVerdict::TooFar => {
                self.drops.drop(now, from, DropReason::Incarnation(claim.name.clone()), out);
            }
            SelfVerdict::Refute => {
                let incarnation = self.refute(claim.incarnation, out);
                let (name, address) = (claim.name.clone(), claim.address);
                crate::trace!(
                    out,
                    Level::Warn,
                    GossipTrace::RefutingAlive { name, address, incarnation }
                );
            }
        }
    }

    /// Somebody takes this member for suspect, dead or left.
    fn accused(
        &mut self,
        now: Instant,
        from: SocketAddr,
        claim: Claim,
        incarnation: Incarnation,
        accuser: &NodeName,
        out: &mut Outbox<GossipOutput>,
    ) {
        let own = self.own().incarnation;
        match judge_self(own, !self.is_active(), claim, incarnation, false) {
            SelfVerdict::Ignore => {}
            SelfVerdict::TooFar => {
                self.drops.drop(now, from, DropReason::Incarnation(self.local.clone()), out);
            }
            SelfVerdict::Refute => {
                let incarnation = self.refute(incarnation, out);
                let accusation = if claim == Claim::Suspect {
                    PeerState::Suspect
                } else {
                    out.push(GossipOutput::ThoughtDead);
                    PeerState::Dead
                };
                let from = accuser.clone();
                crate::trace!(
                    out,
                    Level::Warn,
                    GossipTrace::Refuting { accusation, from, incarnation }
                );
            }
        }
    }

    /// Announces an incarnation above the accused one; returns it.
    fn refute(&mut self, accused: Incarnation, out: &mut Outbox<GossipOutput>) -> Incarnation {
        crate::mark!("gossip.refuted");
        self.health.worsen(1);
        let incarnation = refutation(self.own().incarnation, accused);
        self.change_own(Notify::None, out, |own| own.incarnation = incarnation);
        incarnation
    }

    /// Changes this member's own record and announces it.
    pub(super) fn change_own(
        &mut self,
        notify: Notify,
        out: &mut Outbox<GossipOutput>,
        change: impl FnOnce(&mut Peer),
    ) {
        let record = self.table.own_mut();
        change(&mut record.peer);
        let own = record.peer.clone();
        self.announce(&own, notify, out);
        out.push(GossipOutput::OwnIncarnation(own.incarnation));
    }

    /// Goes on above the last incarnation of an earlier run, so that whoever remembers that run
    /// believes this one at once.
    pub fn restore_incarnation(&mut self, last: Incarnation, out: &mut Outbox<GossipOutput>) {
        self.change_own(Notify::None, out, |own| own.incarnation = successor(last));
    }

    /// Queues the news that a member is alive.
    pub(super) fn announce(&mut self, peer: &Peer, notify: Notify, out: &mut Outbox<GossipOutput>) {
        let fact = Message::Alive(Alive {
            incarnation: peer.incarnation,
            node: peer.name.clone(),
            address: peer.address.ip(),
            port: peer.address.port(),
            meta: peer.meta.clone(),
            versions: Some(peer.versions),
        });
        self.broadcast_fact(peer.name.as_str(), &fact, notify, out);
    }
}

fn tell_state(
    name: &NodeName,
    state: PeerState,
    incarnation: Incarnation,
    accuser: Option<&NodeName>,
    out: &mut Outbox<GossipOutput>,
) {
    let trace = || {
        let (name, accuser) = (name.clone(), accuser.cloned());
        GossipTrace::State { name, state, incarnation, accuser }
    };
    crate::trace!(out, Level::Debug, trace());
}
