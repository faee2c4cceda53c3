//! Datagrams in and out: layers, piggyback, gossip rounds (SWIM §4.1).
//!
//! Implements gossip-protocol.md §9 and §10 and gossip-wire.md §4 and §5: facts fill a packet
//! first, then the Serf queues in their order, up to 1400 bytes with all layers.
//!
//! Differs: in one packet of four the Serf queues come first, in turns, so that neither facts nor
//! the messages of another kind keep one off the wire (gossip-protocol.md §28); every packet to a
//! member that understands checksums carries one, not only those of gossip rounds (§28, corrupted
//! messages); and with nobody left to hear them, queued broadcasts are dropped as spread instead of
//! waiting for ever: whoever comes back learns them from the state exchange.

use super::broadcast::Notify;
use super::leave::Life;
use super::proof::Spread;
use super::scale::retransmit_limit;
use super::state::is_gone;
use super::table::Record;
use super::trace::DropReason;
use super::{Gossip, GossipOutput, Timer, Versions};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::wire::checksum::CRC_BYTES;
use crate::wire::compound::{COMPOUND_OVERHEAD, PART_OVERHEAD, compound};
use crate::wire::gossip::{Message, PeerState};
use crate::wire::label;
use crate::wire::packet::{Opened, decode_packet};
use crate::wire::seal::SEAL_OVERHEAD;
use bytes::Bytes;
use std::net::SocketAddr;

/// Bytes of a datagram before the headers of IP and UDP (gossip-wire.md §4).
pub(super) const PACKET_BYTES_MAX: usize = 1400;

/// Bytes for the parts of a packet under all layers: with encryption and the longest label.
pub(super) const PARTS_BYTES_MIN: usize = PACKET_BYTES_MAX
    - CRC_BYTES
    - COMPOUND_OVERHEAD
    - SEAL_OVERHEAD
    - label::overhead(&[0; label::LABEL_BYTES_MAX]);

/// One packet of so many is filled with Serf's messages first.
const SERF_TURN: u32 = 4;

/// The first protocol version with checksums (gossip-wire.md §3.1).
const CHECKSUM_PROTOCOL: u8 = 5;

impl Gossip {
    /// Takes a datagram apart and every message in it to completion.
    pub(super) fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        payload: &Bytes,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Opened { packet, key } = match self.keys.opener(&self.config).open(payload) {
            Ok(opened) => opened,
            Err(error) => {
                self.drops.drop(now, from, DropReason::Closed(error), out);
                return;
            }
        };
        // A stream proves nothing: it may be one that this member opened to itself.
        if let Some(key) = key
            && !self.opened_by_retired(now, from, key, out)
        {
            self.keys_proven(out);
        }
        self.reach.heard(&from);
        for message in decode_packet(&packet) {
            match message {
                Ok(message) => self.message(now, from, message, out),
                Err(error) => self.drops.drop(now, from, DropReason::Malformed(error), out),
            }
        }
    }

    fn message(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: Message,
        out: &mut Outbox<GossipOutput>,
    ) {
        match message {
            Message::Ping(ping) => self.pinged(now, from, &ping, out),
            Message::IndirectPing(ping) => self.relay(now, from, ping, out),
            Message::Ack(ack) => self.acked(now, from, ack, out),
            Message::Nack(nack) => self.nacked(nack.seq_no),
            Message::Suspect(claim) => {
                self.suspect(now, from, &claim.node, claim.incarnation, &claim.from, out);
            }
            Message::Alive(claim) => self.alive(now, from, claim.into(), Spread::Now, out),
            Message::Dead(claim) => {
                self.dead(now, from, &claim.node, claim.incarnation, &claim.from, out);
            }
            Message::User(payload) => out.push(GossipOutput::UserMessage(payload)),
        }
    }

    /// Bytes for the parts of a packet: the budget without what its layers cost.
    pub(super) fn parts_bytes_max(&self) -> usize {
        let seal = if self.keys.seals(&self.config) { SEAL_OVERHEAD } else { 0 };
        let label = label::overhead(self.config.label.as_bytes());
        PACKET_BYTES_MAX - CRC_BYTES - COMPOUND_OVERHEAD - seal - label
    }

    /// What the member at `address` speaks, if there is one.
    pub(super) fn versions_at(&self, address: &SocketAddr) -> Option<Versions> {
        self.table.at(address).map(|record| record.peer.versions)
    }

    /// Sends one packet under its layers, with a checksum if the receiver's `versions` are known
    /// and understand it.
    pub(super) fn send(
        &mut self,
        to: SocketAddr,
        versions: Option<Versions>,
        packet: &Bytes,
        out: &mut Outbox<GossipOutput>,
    ) {
        let checksum = versions.is_some_and(|it| it.protocol_max >= CHECKSUM_PROTOCOL);
        let layers = self.keys.layers(&self.config, &mut self.rng);
        let payload = self.wrapper.datagram(packet, checksum, &layers);
        out.push(GossipOutput::SendDatagram { to, payload });
    }

    /// Sends `message` to whoever is at `to`, as `send_with_piggyback` does.
    pub(super) fn answer(
        &mut self,
        to: SocketAddr,
        message: &Message,
        out: &mut Outbox<GossipOutput>,
    ) {
        self.send_with_piggyback(to, self.versions_at(&to), message, out);
    }

    /// Sends `message` to `to`, which speaks `versions`, with as many broadcasts as fit beside it.
    /// An unknown address, which has none, gets the message alone, so that a forged source is sent
    /// little.
    pub(super) fn send_with_piggyback(
        &mut self,
        to: SocketAddr,
        versions: Option<Versions>,
        message: &Message,
        out: &mut Outbox<GossipOutput>,
    ) {
        let message = message.encode();
        let used = message.len() + PART_OVERHEAD;
        let mut parts = vec![message];
        if versions.is_some() {
            let room = self.parts_bytes_max().saturating_sub(used);
            self.fill(room, &mut parts, out);
        }
        for packet in compound(&parts) {
            self.send(to, versions, &packet, out);
        }
    }

    /// One gossip round: broadcasts to a few random members, dead ones included for a while, so
    /// that a member wrongly taken for dead hears of it.
    pub(super) fn gossip(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        let forget = self.config.gossip_to_the_dead_time;
        let eligible = |record: &Record| match record.state {
            PeerState::Alive | PeerState::Suspect => true,
            PeerState::Dead => now.since(record.changed_at) <= forget,
            PeerState::Left => false,
        };
        let chosen = self.table.random(self.config.gossip_nodes, &mut self.rng, eligible);
        let to = |record: &&Record| (record.peer.address, record.peer.versions);
        let targets: Vec<(SocketAddr, Versions)> = chosen.iter().map(to).collect();
        if targets.is_empty() {
            self.drain_queues(out);
        }
        for (to, versions) in targets {
            let mut parts = Vec::new();
            self.fill(self.parts_bytes_max(), &mut parts, out);
            if parts.is_empty() {
                return;
            }
            for packet in compound(&parts) {
                self.send(to, Some(versions), &packet, out);
            }
        }
    }

    /// Plans the next gossip round if there is something to tell: a member of a quiet pool sleeps
    /// until its next probe.
    pub(super) fn plan_round(&mut self, now: Instant) {
        if self.queued() == [0; 4] || self.timers.deadline(&Timer::GossipTick).is_some() {
            return;
        }
        if self.round_at <= now {
            let interval = self.config.gossip_interval;
            let missed = now.since(self.round_at).as_nanos() / interval.as_nanos();
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            self.round_at = self.round_at + interval.saturating_mul(missed) + interval;
        }
        self.timers.set(Timer::GossipTick, self.round_at);
    }

    /// Appends broadcasts to `parts` that fit into `room` bytes.
    fn fill(&mut self, room: usize, parts: &mut Vec<Bytes>, out: &mut Outbox<GossipOutput>) {
        let limit = retransmit_limit(self.config.retransmit_mult, self.table.len());
        let (mut room, mut spread) = (room, Vec::new());
        let [intents, queries, events] = &mut self.serf_queues;
        self.packets_filled = self.packets_filled.wrapping_add(1);
        let queues = if self.packets_filled.is_multiple_of(SERF_TURN) {
            let [first, second, third] = match self.packets_filled / SERF_TURN % 3 {
                0 => [intents, queries, events],
                1 => [queries, events, intents],
                _ => [events, intents, queries],
            };
            [first, second, third, &mut self.facts]
        } else {
            [&mut self.facts, intents, queries, events]
        };
        for queue in queues {
            room = queue.fill(room, PART_OVERHEAD, limit, parts, &mut spread);
        }
        for notify in spread {
            self.spread(notify, out);
        }
    }

    fn drain_queues(&mut self, out: &mut Outbox<GossipOutput>) {
        let mut spread = self.facts.drain();
        for queue in &mut self.serf_queues {
            spread.extend(queue.drain());
        }
        for notify in spread {
            self.spread(notify, out);
        }
    }

    /// Queues a fact about the member `about`; an earlier one about it is replaced.
    pub(super) fn broadcast_fact(
        &mut self,
        about: &str,
        message: &Message,
        notify: Notify,
        out: &mut Outbox<GossipOutput>,
    ) {
        let replaced = self.facts.push(Some(about.to_owned()), message.encode(), notify);
        self.spread(replaced, out);
    }

    /// Tells whoever waits for a broadcast that it was sent often enough or replaced.
    pub(super) fn spread(&mut self, notify: Notify, out: &mut Outbox<GossipOutput>) {
        match notify {
            Notify::None => {}
            Notify::Leave => self.leave_spread(out),
            Notify::Serf(id) => out.push(GossipOutput::BroadcastSpread(id)),
        }
    }

    /// Whether another member is there that is neither dead nor left.
    pub(super) fn has_company(&self) -> bool {
        self.table.iter().any(|record| record.peer.name != self.local && !is_gone(record.state))
    }

    /// Whether this member takes part, as opposed to being on its way out.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self.life, Life::Active)
    }
}
