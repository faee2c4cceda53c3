//! Failure detection: one member is probed at a time, directly, then through helpers and over a
//! stream (SWIM §3.1, §4.3; Lifeguard §IV-A, §IV-C).
//!
//! Implements gossip-protocol.md §3. Local health stretches the time until the verdict, and so the
//! pace of failing probes; a suspect is told of the suspicion in the very probe (buddy system). An
//! answer to a direct ping also measures the round trip; what it carries is the Serf layer's.

use super::push_pull::Purpose;
use super::trace::{DropReason, Way};
use super::{Gossip, GossipOutput, GossipTrace, Peer, Timer, Versions};
use crate::id::{NodeName, SeqNo, StreamId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::compound::compound;
use crate::wire::gossip::{Ack, IndirectPing, Message, Nack, PeerState, Ping, Suspect};
use std::net::SocketAddr;

/// Pings made for others that may be on their way at once.
pub(super) const RELAYS_MAX: usize = 1024;

/// The first protocol version that answers pings on streams.
const STREAM_PING_PROTOCOL: u8 = 3;
/// The first protocol version with nacks.
const NACK_PROTOCOL: u8 = 4;

/// The probe that is running.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// Who is probed, as known when it began.
    target: Peer,
    seq_no: SeqNo,
    /// When the ping was sent.
    sent_at: Instant,
    /// When the verdict falls.
    deadline: Instant,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Only the target was asked.
    Direct,
    /// Helpers and a stream are tried as well.
    Indirect {
        /// Helpers that tell if they get no answer either.
        nacks_wanted: u32,
        /// Those that did.
        nacks: u32,
        /// Whether the target answered over the stream.
        stream_answered: bool,
    },
}

/// A ping made for another member.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    /// Who asked.
    requester: SocketAddr,
    /// Its number for the ping.
    seq_no: SeqNo,
    /// Whether it wants to know that there was no answer.
    nack: bool,
}

impl Gossip {
    /// Begins the next probe, unless one is running.
    pub(super) fn probe_next(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        if self.probe.is_some() || !self.is_active() {
            return;
        }
        let forget_after = self.config.gossip_to_the_dead_time;
        let next = self.table.next_target(now, forget_after, &mut self.rng);
        let Some(record) = next else { return };
        let (target, suspected) = (record.peer.clone(), record.state == PeerState::Suspect);
        let seq_no = self.next_seq_no();
        let ping = Message::Ping(self.ping(seq_no, Some(target.name.clone())));
        if suspected && self.config.buddy {
            let accusation = Message::Suspect(Suspect {
                incarnation: target.incarnation,
                node: target.name.clone(),
                from: self.local.clone(),
            });
            for packet in compound(&[ping.encode(), accusation.encode()]) {
                self.send(target.address, Some(target.versions), &packet, out);
            }
        } else {
            self.send_with_piggyback(target.address, Some(target.versions), &ping, out);
        }
        self.stats.probes_stretched += u64::from(self.health.score() > 0);
        let deadline = now + self.health.scale(self.config.probe_interval);
        self.timers.set(Timer::ProbeTimeout, (now + self.config.probe_timeout).min(deadline));
        self.timers.set(Timer::ProbeVerdict, deadline);
        let stage = Stage::Direct;
        self.probe = Some(Probe { target, seq_no, sent_at: now, deadline, stage });
    }

    /// The target did not answer in time: asks helpers, and the target over a stream.
    pub(super) fn probe_indirectly(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        let Some(probe) = &self.probe else { return };
        let (target, seq_no, deadline) = (probe.target.clone(), probe.seq_no, probe.deadline);
        let eligible = |record: &super::table::Record| {
            record.state == PeerState::Alive && record.peer.name != target.name
        };
        let helpers: Vec<(SocketAddr, Versions)> = self
            .table
            .random(self.config.indirect_checks, &mut self.rng, eligible)
            .iter()
            .map(|record| (record.peer.address, record.peer.versions))
            .collect();
        let own = self.address();
        let mut nacks_wanted = 0;
        for (to, versions) in helpers {
            let nack = versions.protocol_max >= NACK_PROTOCOL;
            nacks_wanted += u32::from(nack);
            let ping = IndirectPing {
                seq_no,
                target: target.address.ip(),
                port: target.address.port(),
                node: Some(target.name.clone()),
                nack,
                source_address: Some(own.ip()),
                source_port: own.port(),
                source_node: Some(self.local.clone()),
            };
            self.send_with_piggyback(to, Some(versions), &Message::IndirectPing(ping), out);
        }
        if let Some(probe) = &mut self.probe {
            probe.stage = Stage::Indirect { nacks_wanted, nacks: 0, stream_answered: false };
        }
        if target.versions.protocol_max >= STREAM_PING_PROTOCOL && deadline > now {
            crate::mark!("gossip.stream_probe");
            let ping = self.ping(seq_no, Some(target.name));
            self.open_exchange(now, target.address, Purpose::Ping(ping), deadline, out);
        }
    }

    /// The target of the probe `seq_no` answered over its stream.
    pub(super) fn stream_ping_answered(&mut self, seq_no: SeqNo) {
        if let Some(probe) = &mut self.probe
            && probe.seq_no == seq_no
            && let Stage::Indirect { stream_answered, .. } = &mut probe.stage
        {
            *stream_answered = true;
        }
    }

    /// Nobody heard from the target until the deadline: the verdict.
    pub(super) fn probe_verdict(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        self.timers.cancel(&Timer::ProbeTimeout);
        let Some(probe) = self.probe.take() else { return };
        self.stats.probes.record_since(probe.sent_at, now);
        let target = probe.target;
        let (wanted, got, stream_answered) = match probe.stage {
            Stage::Direct => (0, 0, false),
            Stage::Indirect { nacks_wanted, nacks, stream_answered } => {
                (nacks_wanted, nacks, stream_answered)
            }
        };
        if stream_answered {
            crate::mark!("gossip.stream_saved");
            self.health.improve();
            self.proven(&target.name, out);
            self.answered_otherwise(now, target, Way::Stream, out);
            return;
        }
        self.reach.clear(&target.address);
        // With helpers that would have told, each that did not speaks against this member's own
        // link; without any, the failure itself does.
        self.health.worsen(if wanted == 0 { 1 } else { wanted.saturating_sub(got) });
        crate::trace!(out, Level::Info, GossipTrace::NoAck { name: target.name.clone() });
        let (accuser, from) = (self.local.clone(), self.address());
        self.suspect(now, from, &target.name, target.incarnation, &accuser, out);
    }

    /// An ack arrived: for the running probe, or for a ping made for another member.
    pub(super) fn acked(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ack: Ack,
        out: &mut Outbox<GossipOutput>,
    ) {
        let seq_no = ack.seq_no;
        if let Some(relay) = self.relays.remove(&seq_no) {
            self.timers.cancel(&Timer::Relay(seq_no));
            let ack = Message::Ack(Ack { seq_no: relay.seq_no, payload: None });
            self.answer(relay.requester, &ack, out);
            return;
        }
        let Some(probe) = self.probe.take_if(|probe| probe.seq_no == seq_no) else {
            self.proof_acked(seq_no, out);
            return;
        };
        self.stats.probes.record_since(probe.sent_at, now);
        self.proven(&probe.target.name, out);
        // What a helper passes on has no payload.
        let direct = from == probe.target.address || ack.payload.is_some();
        match probe.stage {
            Stage::Direct => {
                self.reach.clear(&probe.target.address);
                if let Some(payload) = ack.payload {
                    let (peer, round_trip) = (probe.target.name, now.since(probe.sent_at));
                    out.push(GossipOutput::ProbeAnswered { peer, round_trip, payload });
                }
            }
            Stage::Indirect { .. } => {
                crate::mark!("gossip.late_ack_saved");
                self.close_pings(seq_no, out);
                if direct {
                    self.reach.clear(&probe.target.address);
                } else {
                    self.answered_otherwise(now, probe.target, Way::Helper, out);
                }
            }
        }
        self.timers.cancel(&Timer::ProbeTimeout);
        self.timers.cancel(&Timer::ProbeVerdict);
        self.health.improve();
    }

    /// A helper got no answer either.
    pub(super) fn nacked(&mut self, seq_no: SeqNo) {
        if let Some(probe) = &mut self.probe
            && probe.seq_no == seq_no
            && let Stage::Indirect { nacks_wanted, nacks, .. } = &mut probe.stage
        {
            crate::mark!("gossip.nack");
            *nacks = nacks.saturating_add(1).min(*nacks_wanted);
        }
    }

    /// Answers a ping meant for this member; also while leaving.
    pub(super) fn pinged(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ping: &Ping,
        out: &mut Outbox<GossipOutput>,
    ) {
        if let Some(name) = self.meant_for_another(ping.node.as_ref()) {
            self.drops.drop(now, from, DropReason::NotMe(name), out);
            return;
        }
        let to = ping.source().unwrap_or(from);
        self.pinged_by(&to, out);
        let payload = self.ack_payload.clone();
        let ack = Message::Ack(Ack { seq_no: ping.seq_no, payload });
        self.answer(to, &ack, out);
    }

    /// The name a ping is meant for, if it is not this member's.
    pub(super) fn meant_for_another(&self, node: Option<&NodeName>) -> Option<NodeName> {
        node.filter(|node| **node != self.local).cloned()
    }

    /// Pings a member for another one.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ping: IndirectPing,
        out: &mut Outbox<GossipOutput>,
    ) {
        if self.relays.len() >= RELAYS_MAX {
            self.drops.drop(now, from, DropReason::TooManyRelays, out);
            return;
        }
        let requester = ping.source().unwrap_or(from);
        let port = if ping.port == 0 { self.address().port() } else { ping.port };
        let to = SocketAddr::new(ping.target, port);
        let seq_no = self.next_seq_no();
        let relay = Relay { requester, seq_no: ping.seq_no, nack: ping.nack };
        self.relays.insert(seq_no, relay);
        self.timers.set(Timer::Relay(seq_no), now + self.config.probe_timeout);
        let ping = Message::Ping(self.ping(seq_no, ping.node));
        self.answer(to, &ping, out);
    }

    /// A ping made for another member got no answer.
    pub(super) fn relay_timed_out(&mut self, seq_no: SeqNo, out: &mut Outbox<GossipOutput>) {
        let Some(relay) = self.relays.remove(&seq_no) else { return };
        if relay.nack {
            let nack = Message::Nack(Nack { seq_no: relay.seq_no });
            self.answer(relay.requester, &nack, out);
        }
    }

    /// Gives up the running probe without a verdict.
    pub(super) fn abandon_probe(&mut self, out: &mut Outbox<GossipOutput>) {
        self.timers.cancel(&Timer::ProbeTimeout);
        self.timers.cancel(&Timer::ProbeVerdict);
        if let Some(probe) = self.probe.take() {
            self.close_pings(probe.seq_no, out);
        }
    }

    fn close_pings(&mut self, seq_no: SeqNo, out: &mut Outbox<GossipOutput>) {
        let pings: Vec<StreamId> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.is_ping(seq_no))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in pings {
            self.close_exchange(stream, out);
        }
    }

    pub(super) fn ping(&self, seq_no: SeqNo, node: Option<NodeName>) -> Ping {
        let own = self.address();
        Ping {
            seq_no,
            node,
            source_address: Some(own.ip()),
            source_port: own.port(),
            source_node: Some(self.local.clone()),
        }
    }

    /// Numbers wrap around: a hostile peer could use them up with indirect pings.
    pub(super) const fn next_seq_no(&mut self) -> SeqNo {
        self.seq_no = SeqNo::new(self.seq_no.get().wrapping_add(1));
        self.seq_no
    }
}
