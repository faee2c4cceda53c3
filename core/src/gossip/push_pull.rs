//! Streams: state exchanges both ways, pings for members that datagrams do not reach, and messages
//! that no datagram has room for.
//!
//! Implements gossip-protocol.md §6 (what a remote record claims), §11 and gossip-wire.md §9 and
//! §3.1 (one contradictory version rejects a whole exchange). The responder sends its own state
//! before it merges the other's; a request whose layers do not come off, and a join of members that
//! may not be in the pool, are answered with the reason. Every exchange has a deadline; accepted
//! ones are bounded in number, together and for each address, and all of them in bytes.
//!
//! Differs: a request under a retired key is answered, but its state is not taken over: whoever
//! missed a whole rotation of keys cannot read the answer, and would be taken for alive and fail
//! again at every try. Whoever can read it tells of itself by datagram.
//!
//! Members that take more bytes than a peer takes in are told page by page, this one and the next
//! ones by name in each exchange, and it is told in time that they come near that limit
//! (gossip-protocol.md §28, size of the state). A peer takes any part of the members for what it
//! is; news are spread by gossip, so that an exchange needs no order of its own for them.

use super::broadcast::Notify;
use super::facts::AliveClaim;
use super::proof::Spread;
use super::scale::push_pull_scale;
use super::state::Claim;
use super::table::Record;
use super::trace::DropReason;
use super::{ExchangeId, Gossip, GossipOutput, GossipTrace, JoinId, Refusal, Timer, Versions};
use crate::id::{NodeName, SeqNo, StreamId};
use crate::machine::Outbox;
use crate::node::input::CloseReason;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::DecodeError;
use crate::wire::gossip::{
    Ack, PeerState, PeerStates, Ping, PushPull, PushPullState, StreamMessage,
};
use crate::wire::stream::{PAYLOAD_BYTES_MAX, StreamDecoder, StreamError};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// Accepted streams served at once.
pub(super) const ACCEPTED_MAX: usize = 128;

/// Bytes held for unfinished messages on all streams together.
pub(super) const BUFFERED_BYTES_MAX: usize = 64 << 20;

/// Accepted streams served at once for one address: whoever opens more waits for its own.
pub(super) const ACCEPTED_PER_PEER_MAX: usize = 64;

/// Bytes of the members in one exchange: half of what a peer takes in, since the Serf layer's part,
/// which grows with them as well, comes on top (gossip-wire.md §4).
pub(super) const STATES_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;

/// From this share of the limit on, in percent, it is told.
const STATES_ALARM_PERCENT: usize = 60;

/// Why this member opened a stream.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// To exchange state, for a join or by itself.
    PushPull {
        /// The join it belongs to.
        join: Option<JoinId>,
    },
    /// To ping a member that datagrams did not reach.
    Ping(Ping),
    /// To send a message that no datagram has room for.
    User(Bytes),
}

/// One stream and how far its exchange is.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    peer: SocketAddr,
    /// When the stream was wanted, or accepted.
    since: Instant,
    stage: Stage,
    /// Bytes taken in so far.
    fed: usize,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Accepted; the request is arriving.
    Reading(StreamDecoder),
    /// Accepted; the request is here, the own user state is awaited.
    Replying(Remote),
    /// Asked for.
    Opening(Purpose),
    /// Open; the own user state is awaited.
    Preparing {
        /// The join it belongs to.
        join: Option<JoinId>,
    },
    /// The request is sent, the answer is arriving.
    Awaiting(Purpose, StreamDecoder),
}

/// What the other side of an exchange knows.
#[derive(Clone, Debug)]
struct Remote {
    join: bool,
    /// Its members; `None` if they are, to the byte, what this member knows and has settled, or if
    /// they are not to be believed.
    states: Option<Vec<PushPullState>>,
    user_state: Bytes,
}

/// What this member tells of all members, encoded once for each change of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnStates {
    /// Of the table.
    version: Option<u64>,
    states: PeerStates,
    /// Whether nobody is suspect: then hearing the same from another member changes nothing.
    settled: bool,
    /// Where this page begins, and the next one, if they do not all fit into one exchange.
    start: Option<NodeName>,
    next: Option<NodeName>,
    /// Whether it was told that they come near the limit.
    is_told: bool,
}

impl Exchange {
    /// Whether this member accepted the stream.
    const fn is_accepted(&self) -> bool {
        matches!(self.stage, Stage::Reading(_) | Stage::Replying(_))
    }

    /// Whether it pings for the probe `seq_no`.
    pub(super) fn is_ping(&self, seq_no: SeqNo) -> bool {
        match &self.stage {
            Stage::Opening(Purpose::Ping(ping)) | Stage::Awaiting(Purpose::Ping(ping), _) => {
                ping.seq_no == seq_no
            }
            Stage::Reading(_)
            | Stage::Replying(_)
            | Stage::Preparing { .. }
            | Stage::Opening(Purpose::PushPull { .. } | Purpose::User(_))
            | Stage::Awaiting(Purpose::PushPull { .. } | Purpose::User(_), _) => false,
        }
    }

    /// Whether it sends one message.
    pub(super) const fn is_user(&self) -> bool {
        matches!(self.stage, Stage::Opening(Purpose::User(_)))
    }
}

/// What a record in a state exchange claims: death is never believed outright.
pub(super) const fn claim_of(state: PeerState) -> Claim {
    match state {
        PeerState::Alive => Claim::Alive,
        PeerState::Suspect | PeerState::Dead => Claim::Suspect,
        PeerState::Left => Claim::Left,
    }
}

impl Gossip {
    /// Exchanges state with a random member, and plans the next exchange.
    pub(super) fn push_pull_next(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        self.timers.set(Timer::PushPullTick, now + self.push_pull_interval());
        let is_alive = |record: &Record| record.state == PeerState::Alive;
        let chosen = self.table.random(1, &mut self.rng, is_alive);
        let partner = chosen.first().map(|record| record.peer.address);
        if let Some(partner) = partner {
            let deadline = now + self.config.stream_timeout;
            self.open_exchange(now, partner, Purpose::PushPull { join: None }, deadline, out);
        }
    }

    /// The time until the next exchange, longer in large clusters.
    pub(super) fn push_pull_interval(&self) -> Duration {
        self.config.push_pull_interval.saturating_mul(push_pull_scale(self.table.len()))
    }

    /// Opens a stream that has to reach its purpose before `deadline`.
    pub(super) fn open_exchange(
        &mut self,
        now: Instant,
        to: SocketAddr,
        purpose: Purpose,
        deadline: Instant,
        out: &mut Outbox<GossipOutput>,
    ) {
        let stream = self.next_stream;
        self.next_stream = StreamId::new(stream.get() + super::STREAM_STEP);
        let stage = Stage::Opening(purpose);
        self.exchanges.insert(stream, Exchange { peer: to, since: now, stage, fed: 0 });
        self.timers.set(Timer::Exchange(stream), deadline);
        out.push(GossipOutput::OpenStream { stream, to });
    }

    /// A stream was accepted, or the one asked for is open.
    pub(super) fn stream_opened(
        &mut self,
        now: Instant,
        stream: StreamId,
        peer: SocketAddr,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else {
            // Numbers of streams that agents open are odd: this one was given up meanwhile.
            if stream.get().is_multiple_of(2) {
                self.accept(now, stream, peer, out);
            }
            return;
        };
        let Stage::Opening(purpose) = &exchange.stage else { return };
        match purpose.clone() {
            Purpose::PushPull { join } => {
                exchange.stage = Stage::Preparing { join };
                let join = join.is_some();
                let exchange = ExchangeId(stream.get());
                out.push(GossipOutput::WantUserState { exchange, join });
            }
            Purpose::Ping(ping) => {
                let data = StreamMessage::Ping(ping.clone()).encode();
                exchange.stage = Stage::Awaiting(Purpose::Ping(ping), StreamDecoder::dialled());
                self.send_message(now, stream, &data, out);
            }
            Purpose::User(payload) => {
                let data = StreamMessage::User(payload).encode();
                self.send_message(now, stream, &data, out);
                self.close_exchange(stream, out);
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        stream: StreamId,
        peer: SocketAddr,
        out: &mut Outbox<GossipOutput>,
    ) {
        let accepted = self.exchanges.values().filter(|exchange| exchange.is_accepted());
        let (mut all, mut its) = (0, 0);
        for exchange in accepted {
            all += 1;
            its += usize::from(exchange.peer.ip() == peer.ip());
        }
        if all >= ACCEPTED_MAX || its >= ACCEPTED_PER_PEER_MAX {
            crate::mark!("gossip.push_pull_refused");
            self.drops.drop(now, peer, DropReason::TooManyStreams, out);
            out.push(GossipOutput::CloseStream { stream });
            return;
        }
        let stage = Stage::Reading(StreamDecoder::accepted());
        self.exchanges.insert(stream, Exchange { peer, since: now, stage, fed: 0 });
        self.timers.set(Timer::Exchange(stream), now + self.config.stream_timeout);
    }

    /// Bytes arrived on a stream.
    pub(super) fn stream_data(
        &mut self,
        now: Instant,
        stream: StreamId,
        data: &[u8],
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        let decoder = match &mut exchange.stage {
            Stage::Reading(decoder) | Stage::Awaiting(_, decoder) => decoder,
            // Bytes before the request is sent, or after it was read, are no part of any message.
            Stage::Replying(_) | Stage::Opening(_) | Stage::Preparing { .. } => return,
        };
        self.buffered += data.len();
        exchange.fed += data.len();
        if self.buffered > BUFFERED_BYTES_MAX {
            let peer = exchange.peer;
            self.drops.drop(now, peer, DropReason::TooManyStreams, out);
            self.fail_exchange(now, stream, "too many bytes are being received", out);
            return;
        }
        let fed = decoder.feed(data, &self.keys.opener(&self.config));
        let key = decoder.key();
        let (peer, is_accepted) = (exchange.peer, exchange.is_accepted());
        let retired = key.is_some_and(|key| self.opened_by_retired(now, peer, key, out));
        match fed {
            Ok(None) => {}
            Ok(Some(message)) if is_accepted => {
                self.request_arrived(now, stream, message, retired, out);
            }
            Ok(Some(message)) => self.answer_arrived(now, stream, message, out),
            Err(error) => self.unreadable(now, stream, &error, out),
        }
    }

    /// What arrived on a stream is no message: tells the other side if it can mend that.
    fn unreadable(
        &mut self,
        now: Instant,
        stream: StreamId,
        error: &StreamError,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(exchange) = self.exchanges.get(&stream) else { return };
        let (peer, is_accepted) = (exchange.peer, exchange.is_accepted());
        if is_accepted && let StreamError::Unreadable(error) = error {
            let data = StreamMessage::Err(error.to_string()).encode();
            self.send_message(now, stream, &data, out);
            self.drops.drop(now, peer, DropReason::Closed(error.clone()), out);
        }
        self.fail_exchange(now, stream, &error.to_string(), out);
    }

    /// Sends one message on a stream, under its layers; a message too long for them fails the
    /// exchange.
    fn send_message(
        &mut self,
        now: Instant,
        stream: StreamId,
        message: &Bytes,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(exchange) = self.exchanges.get(&stream) else { return };
        let layers = self.keys.layers(&self.config, &mut self.rng);
        match self.wrapper.stream(message, !exchange.is_accepted(), &layers) {
            Ok(data) => out.push(GossipOutput::SendStream { stream, data }),
            Err(error) => {
                let (peer, reason) = (exchange.peer, error.to_string());
                if exchange.is_accepted() {
                    let reason = reason.clone();
                    crate::trace!(out, Level::Error, GossipTrace::ExchangeFailed { peer, reason });
                }
                self.fail_exchange(now, stream, &reason, out);
            }
        }
    }

    /// The request on an accepted stream is complete; `retired` tells whether its key is.
    fn request_arrived(
        &mut self,
        now: Instant,
        stream: StreamId,
        message: StreamMessage,
        retired: bool,
        out: &mut Outbox<GossipOutput>,
    ) {
        match message {
            StreamMessage::PushPull(request) => {
                let join = request.join;
                let mut request = match self.received(request) {
                    Ok(request) => request,
                    Err(error) => {
                        self.unreadable(now, stream, &StreamError::Malformed(error), out);
                        return;
                    }
                };
                if join && let Err(refusal) = self.admit(&request) {
                    self.refuse_join(now, stream, &refusal, out);
                    return;
                }
                if retired {
                    crate::mark!("gossip.retired_request");
                    request = Remote { join, states: None, user_state: Bytes::new() };
                }
                if let Some(exchange) = self.exchanges.get_mut(&stream) {
                    exchange.stage = Stage::Replying(request);
                }
                let exchange = ExchangeId(stream.get());
                out.push(GossipOutput::WantUserState { exchange, join });
                return;
            }
            StreamMessage::Ping(ping) => {
                if self.meant_for_another(ping.node.as_ref()).is_none() {
                    let ack = Ack { seq_no: ping.seq_no, payload: None };
                    self.send_message(now, stream, &StreamMessage::Ack(ack).encode(), out);
                }
            }
            StreamMessage::User(payload) => out.push(GossipOutput::UserMessage(payload)),
            StreamMessage::Ack(_) | StreamMessage::Err(_) => {}
        }
        self.close_exchange(stream, out);
    }

    /// Tells a joiner why its members may not be in this pool, instead of who is.
    fn refuse_join(
        &mut self,
        now: Instant,
        stream: StreamId,
        refusal: &Refusal,
        out: &mut Outbox<GossipOutput>,
    ) {
        crate::mark!("gossip.join_refused");
        self.send_message(now, stream, &StreamMessage::Err(refusal.to_string()).encode(), out);
        if let Some(Exchange { peer, .. }) = self.close_exchange(stream, out) {
            self.drops.drop(now, peer, DropReason::Refused(refusal.clone()), out);
        }
    }

    /// Decodes the members of an exchange, unless they say what is known.
    ///
    /// - Errors: a member that is not well-formed.
    fn received(&mut self, exchange: PushPull) -> Result<Remote, DecodeError> {
        let PushPull { join, states, user_state } = exchange;
        let own = self.own_states();
        let states = if own.settled && own.states == states {
            crate::mark!("gossip.equal_states");
            None
        } else {
            Some(states.decode()?)
        };
        Ok(Remote { join, states, user_state })
    }

    /// Whether all members that an exchange would add may be in this pool.
    fn admit(&self, remote: &Remote) -> Result<(), Refusal> {
        let there =
            |state: &&PushPullState| matches!(state.state, PeerState::Alive | PeerState::Suspect);
        self.admits_all(remote.states.iter().flatten().filter(there))
    }

    /// The answer on a stream that this member opened is complete.
    fn answer_arrived(
        &mut self,
        now: Instant,
        stream: StreamId,
        message: StreamMessage,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(exchange) = self.close_exchange(stream, out) else { return };
        let (peer, since) = (exchange.peer, exchange.since);
        match (exchange.stage, message) {
            (Stage::Awaiting(Purpose::Ping(ping), _), StreamMessage::Ack(ack)) => {
                if ack.seq_no == ping.seq_no {
                    self.stream_ping_answered(ping.seq_no);
                }
            }
            (Stage::Awaiting(Purpose::PushPull { join }, _), StreamMessage::PushPull(answer)) => {
                let answer = PushPull { join: join.is_some(), ..answer };
                let merged = self.received(answer).map_err(|error| error.to_string());
                let merged = merged.and_then(|remote| {
                    if remote.join {
                        self.admit(&remote).map_err(|refusal| refusal.to_string())?;
                    }
                    self.merge(now, peer, remote, out)
                });
                self.push_pull_finished(now, (peer, since), join, merged, out);
            }
            (Stage::Awaiting(Purpose::PushPull { join }, _), StreamMessage::Err(text)) => {
                let error = Err(format!("remote error: {text}"));
                self.push_pull_finished(now, (peer, since), join, error, out);
            }
            (Stage::Awaiting(Purpose::PushPull { join }, _), _) => {
                let reason = "the answer is no state".to_owned();
                self.push_pull_finished(now, (peer, since), join, Err(reason), out);
            }
            (
                Stage::Awaiting(Purpose::Ping(_) | Purpose::User(_), _)
                | Stage::Reading(_)
                | Stage::Replying(_)
                | Stage::Opening(_)
                | Stage::Preparing { .. },
                _,
            ) => {}
        }
    }

    /// The Serf layer's part of an exchange is here: sends the state, and merges the request if
    /// this member answers one.
    pub(super) fn user_state(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        payload: Bytes,
        out: &mut Outbox<GossipOutput>,
    ) {
        let stream = StreamId::new(exchange.0);
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return };
        match &exchange.stage {
            Stage::Preparing { join } => {
                let join = *join;
                exchange.stage =
                    Stage::Awaiting(Purpose::PushPull { join }, StreamDecoder::dialled());
                let data = self.own_state(join.is_some(), payload, out);
                self.send_message(now, stream, &data, out);
            }
            Stage::Replying(request) => {
                let join = request.join;
                let data = self.own_state(join, payload, out);
                self.send_message(now, stream, &data, out);
                let Some(Exchange { peer, stage: Stage::Replying(request), .. }) =
                    self.close_exchange(stream, out)
                else {
                    return;
                };
                if let Err(reason) = self.merge(now, peer, request, out) {
                    crate::trace!(out, Level::Error, GossipTrace::ExchangeFailed { peer, reason });
                }
            }
            Stage::Reading(_) | Stage::Opening(_) | Stage::Awaiting(..) => {}
        }
    }

    fn own_state(
        &mut self,
        join: bool,
        user_state: Bytes,
        out: &mut Outbox<GossipOutput>,
    ) -> Bytes {
        let own = self.own_states();
        let (states, near) = (own.states.clone(), STATES_BYTES_MAX / 100 * STATES_ALARM_PERCENT);
        let bytes = states.bytes();
        if bytes < near {
            own.is_told = false;
        }
        let tells = bytes >= near && !std::mem::replace(&mut own.is_told, true);
        if own.start != own.next {
            own.start.clone_from(&own.next);
            own.version = None;
        }
        if tells {
            crate::mark!("gossip.large_state");
            let (members, limit) = (self.table.len(), STATES_BYTES_MAX);
            crate::trace!(out, Level::Warn, GossipTrace::LargeState { members, bytes, limit });
        }
        StreamMessage::PushPull(PushPull { join, states, user_state }).encode()
    }

    fn own_states(&mut self) -> &mut OwnStates {
        let version = Some(self.table.version());
        if self.own_states.version != version {
            let start = self.own_states.start.take();
            let (states, next) = self.encode_states(start.as_ref());
            let settled = self.table.iter().all(|record| record.state != PeerState::Suspect);
            let is_told = self.own_states.is_told;
            self.own_states = OwnStates { version, states, settled, start, next, is_told };
        }
        &mut self.own_states
    }

    /// All members, or this one and a page of the others from `start` on, and where the next page
    /// begins.
    fn encode_states(&self, start: Option<&NodeName>) -> (PeerStates, Option<NodeName>) {
        let state = |record: &Record| PushPullState {
            name: record.peer.name.clone(),
            address: record.peer.address.ip(),
            port: record.peer.address.port(),
            meta: record.peer.meta.clone(),
            incarnation: record.peer.incarnation,
            state: record.state,
            versions: Some(record.peer.versions),
        };
        let all = self.table.len();
        if start.is_none() {
            let states = PeerStates::encode_within(STATES_BYTES_MAX, self.table.iter().map(state));
            if states.len() == all {
                return (states, None);
            }
        }
        crate::mark!("gossip.paged_state");
        let others = || self.table.others_from(start.unwrap_or(&self.local));
        let page = std::iter::once(self.table.own()).chain(others());
        let states = PeerStates::encode_within(STATES_BYTES_MAX, page.map(state));
        let next = others().nth(states.len().saturating_sub(1));
        (states, next.map(|record| record.peer.name.clone()))
    }

    /// Takes over what the other side knows, or nothing of it. Whoever calls has admitted the
    /// members of a join.
    fn merge(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        remote: Remote,
        out: &mut Outbox<GossipOutput>,
    ) -> Result<(), String> {
        let Remote { join, states, user_state } = remote;
        if let Some(states) = &states {
            self.check_versions(states)?;
        }
        for state in states.into_iter().flatten() {
            let (name, incarnation) = (state.name.clone(), state.incarnation);
            match claim_of(state.state) {
                Claim::Alive => {
                    let claim = AliveClaim {
                        incarnation,
                        name,
                        address: state.address,
                        port: state.port,
                        meta: state.meta,
                        versions: state.versions,
                    };
                    self.alive(now, peer, claim, Spread::Proven, out);
                }
                Claim::Left => self.dead(now, peer, &name, incarnation, &name, out),
                Claim::Suspect | Claim::Dead => {
                    let (local, before) = (self.local.clone(), self.own().incarnation);
                    self.suspect(now, peer, &name, incarnation, &local, out);
                    // Nothing but a refutation raises it.
                    if state.state == PeerState::Dead && self.own().incarnation != before {
                        out.push(GossipOutput::ThoughtDead);
                    }
                }
            }
        }
        if !user_state.is_empty() {
            out.push(GossipOutput::RemoteUserState { payload: user_state, join });
        }
        Ok(())
    }

    /// Whether all members of both sides can speak with each other (gossip-wire.md §3.1).
    fn check_versions(&self, remote: &[PushPullState]) -> Result<(), String> {
        let mut low = (0, 0);
        let mut high = (u8::MAX, u8::MAX);
        let mut narrow = |versions: &Versions| {
            low = (low.0.max(versions.protocol_min), low.1.max(versions.delegate_min));
            high = (high.0.min(versions.protocol_max), high.1.min(versions.delegate_max));
        };
        for state in remote.iter().filter(|state| state.state == PeerState::Alive) {
            state.versions.iter().for_each(&mut narrow);
        }
        let alive = self.table.iter().filter(|record| record.state == PeerState::Alive);
        alive.for_each(|record| narrow(&record.peer.versions));
        let speaks = |versions: &Versions| {
            (low.0..=high.0).contains(&versions.protocol)
                && (low.1..=high.1).contains(&versions.delegate)
        };
        let foreign = remote.iter().find(|state| !state.versions.as_ref().is_some_and(speaks));
        let known = self.table.iter().find(|record| !speaks(&record.peer.versions));
        match foreign.map(|state| &state.name).or_else(|| known.map(|record| &record.peer.name)) {
            Some(name) => {
                crate::mark!("gossip.push_pull_conflict");
                Err(format!("the versions of {name} do not fit those of the other members"))
            }
            None => Ok(()),
        }
    }

    /// A stream ended from the other side or in the network.
    pub(super) fn stream_closed(
        &mut self,
        now: Instant,
        stream: StreamId,
        reason: CloseReason,
        out: &mut Outbox<GossipOutput>,
    ) {
        let text = match reason {
            CloseReason::Finished => "the stream ended early",
            CloseReason::ConnectFailed => "could not connect",
            CloseReason::Reset => "the stream broke",
            CloseReason::Limit => "a limit of this host ended the stream",
        };
        if let Some(exchange) = self.forget_exchange(stream) {
            self.exchange_failed(now, exchange, text, out);
        }
    }

    /// An exchange took too long.
    pub(super) fn exchange_timed_out(
        &mut self,
        now: Instant,
        stream: StreamId,
        out: &mut Outbox<GossipOutput>,
    ) {
        self.fail_exchange(now, stream, "timed out", out);
    }

    fn fail_exchange(
        &mut self,
        now: Instant,
        stream: StreamId,
        reason: &str,
        out: &mut Outbox<GossipOutput>,
    ) {
        if let Some(exchange) = self.close_exchange(stream, out) {
            self.exchange_failed(now, exchange, reason, out);
        }
    }

    fn exchange_failed(
        &mut self,
        now: Instant,
        exchange: Exchange,
        reason: &str,
        out: &mut Outbox<GossipOutput>,
    ) {
        let join = match exchange.stage {
            Stage::Opening(Purpose::PushPull { join })
            | Stage::Awaiting(Purpose::PushPull { join }, _)
            | Stage::Preparing { join } => join,
            Stage::Opening(Purpose::User(_)) | Stage::Awaiting(Purpose::User(_), _) => {
                let (peer, reason) = (exchange.peer, reason.to_owned());
                crate::trace!(out, Level::Warn, GossipTrace::MessageFailed { peer, reason });
                return;
            }
            // A stream ping that fails leaves the verdict to the deadline of the probe; a stream
            // that was accepted is its opener's affair.
            Stage::Opening(Purpose::Ping(_))
            | Stage::Awaiting(Purpose::Ping(_), _)
            | Stage::Reading(_)
            | Stage::Replying(_) => return,
        };
        let (peer, since) = (exchange.peer, exchange.since);
        self.push_pull_finished(now, (peer, since), join, Err(reason.to_owned()), out);
    }

    fn push_pull_finished(
        &mut self,
        now: Instant,
        (peer, since): (SocketAddr, Instant),
        join: Option<JoinId>,
        result: Result<(), String>,
        out: &mut Outbox<GossipOutput>,
    ) {
        self.stats.exchanges.record_since(since, now);
        if let Some(join) = join {
            if result.is_ok() && self.is_active() {
                // First-hand news need no proof; what was queued while alone was dropped.
                let own = self.own().clone();
                self.announce(&own, Notify::None, out);
            }
            self.joined_one(now, join, peer, result, out);
        } else if let Err(reason) = result {
            crate::trace!(out, Level::Error, GossipTrace::ExchangeFailed { peer, reason });
        }
    }

    /// Closes a stream and forgets its exchange.
    pub(super) fn close_exchange(
        &mut self,
        stream: StreamId,
        out: &mut Outbox<GossipOutput>,
    ) -> Option<Exchange> {
        let exchange = self.forget_exchange(stream)?;
        out.push(GossipOutput::CloseStream { stream });
        Some(exchange)
    }

    fn forget_exchange(&mut self, stream: StreamId) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&stream)?;
        self.timers.cancel(&Timer::Exchange(stream));
        self.buffered -= exchange.fed;
        Some(exchange)
    }
}
