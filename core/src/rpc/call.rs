//! Requests on their way: who answers them, how long they may wait, when they are tried again.
//!
//! A call is executed by the own server, sent to another one, or held until a leader is known.
//! Everything it may wait for has a deadline. Rules of trying again: never after a write may have
//! reached a server, unless that server said that nothing happened.

use super::pool::Lost;
use super::servers::{rebalance_after, retry_at};
use super::{Caller, Rpc, RpcOutput, RpcTrace, Ticket};
use crate::catalog::query::Consistency;
use crate::id::{Datacenter, NodeId, StreamId};
use crate::machine::Outbox;
use crate::node::request::{Request, RequestBody, RequestError, Response};
use crate::time::{Instant, WallClock};
use crate::trace;
use crate::trace::Level;
use crate::wire::rpc::{Frame, Lane, Outcome, RemoteReply, RemoteRequest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Requests on their way in all; most may be reads that wait, which cost little.
const CALLS_MAX: usize = 32_768;
/// Requests on their way for one stream.
const CALLS_OF_STREAM_MAX: usize = 16_384;
/// Bytes of the requests that wait or were sent on.
const CALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often a request is sent on: from a client to a server, and from there to the leader.
const HOPS_MAX: u8 = 2;
/// Beyond holding and waiting, what an answer may take before nobody waits for it any more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server may take beyond holding a call to say that it has no leader.
const HELD_SLACK: Duration = Duration::from_secs(1);

/// The machine's own timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A call is to be tried again, or has waited long enough.
    Call(u64),
    /// The order of servers is to be drawn again.
    Rebalance,
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// This node.
    Local(Caller),
    /// Another agent: the stream and the number it used.
    Remote(StreamId, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not yet anywhere, or waiting to be tried again.
    Held,
    /// The own server has it.
    Executing,
    /// Sent on this stream to the server at this address.
    Sent(StreamId, SocketAddr),
}

/// One request on its way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    origin: Origin,
    request: Arc<Request>,
    wall: WallClock,
    /// How often it was sent before it came here, within this datacenter.
    hops: u8,
    /// Whether it came from another datacenter.
    foreign: bool,
    /// The other datacenter that is to answer it, on a server.
    across: Option<Datacenter>,
    /// Whether a server of that datacenter was reached and had no leader.
    leaderless: bool,
    /// Until when it may wait for a leader.
    hold_until: Instant,
    /// Until when a read waits for a change.
    wait_until: Option<Instant>,
    /// When it was last sent on.
    sent_at: Instant,
    /// When nobody waits for its answer any more.
    deadline: Instant,
    /// Bytes it is counted with.
    weight: usize,
    /// Servers tried since it was last held.
    tries: usize,
    state: State,
}

impl Call {
    pub(super) fn new(
        now: Instant,
        origin: Origin,
        hold: Duration,
        wall: WallClock,
        request: Arc<Request>,
    ) -> Self {
        let waits = request.context.waits();
        let wait = waits.unwrap_or_default();
        let hold_until = now + hold;
        let deadline = hold_until + wait + wait / 16 + ANSWER_TIMEOUT;
        Self {
            origin,
            request,
            wall,
            hops: 0,
            foreign: false,
            across: None,
            leaderless: false,
            hold_until,
            wait_until: waits.map(|wait| now + wait),
            sent_at: now,
            deadline,
            weight: 0,
            tries: 0,
            state: State::Held,
        }
    }

    /// Whether it may be executed twice: of what a backup is asked, at worst one is opened in vain.
    fn is_read(&self) -> bool {
        matches!(
            self.request.body,
            RequestBody::Query(_)
                | RequestBody::ExecutePrepared(_)
                | RequestBody::Backup(_)
                | RequestBody::RenewSession(_)
        )
    }

    /// The server that alone can answer it, wherever leadership is.
    fn server(&self) -> Option<NodeId> {
        let RequestBody::Backup(wanted) = &self.request.body else { return None };
        wanted.server()
    }

    /// A server had it and has it no longer: a read that waited does so again, for what is left of
    /// its time and of `hold`.
    fn start_over(&mut self, now: Instant, hold: Duration) {
        let Some(until) = self.wait_until else { return };
        self.hold_until = (now + hold).min(self.deadline);
        let left = if until > now { until.since(now) } else { Duration::ZERO };
        Arc::make_mut(&mut self.request).context.wait = Some(left);
    }

    /// What it fails with if nobody takes it in time.
    const fn untaken(&self) -> RequestError {
        match self.across {
            Some(_) if !self.leaderless => RequestError::NoServerReachable,
            Some(_) | None => RequestError::NoLeader,
        }
    }

    /// Whether any server of the datacenter may answer it: what Serf does, which is no matter of
    /// consensus, and a stale read if the server `has_heard` of a leader. One that has not cannot
    /// tell how old its state is, so the read waits as others do (http-api.md §1.4). A backup is
    /// made all the same, where no server leads any more: its index says how old it is.
    fn is_for_any_server(&self, has_heard: bool) -> bool {
        let stale = self.request.context.consistency == Consistency::Stale;
        let of_serf = matches!(self.request.body, RequestBody::FireEvent(_) | RequestBody::Keys(_));
        let renews = matches!(self.request.body, RequestBody::RenewSession(_));
        let tells_age = has_heard || matches!(self.request.body, RequestBody::Backup(_));
        of_serf || (self.is_read() && stale && !renews && tells_age)
    }
}

/// Who gets a call.
enum Target {
    OwnServer,
    Other(SocketAddr),
    Nobody,
}

impl Rpc {
    /// Takes a new call.
    pub(super) fn submit(&mut self, now: Instant, mut call: Call, out: &mut Outbox<RpcOutput>) {
        let body = &call.request.body;
        assert!(body.is_forwarded(), "the node answers {body:?} itself");
        let id = self.next_call;
        self.next_call += 1;
        if let Some(earlier) = self.by_origin.get(&call.origin).copied() {
            let origin = call.origin;
            let remote = matches!(origin, Origin::Remote(..));
            assert!(remote, "a caller's number is used once at a time: {origin:?}");
            // Another agent that uses a number again waits for the newer answer alone.
            self.drop_call(now, earlier, out);
        }
        self.by_origin.insert(call.origin, id);
        let full = match call.origin {
            Origin::Local(_) => {
                self.stats.submitted += 1;
                false
            }
            Origin::Remote(stream, _) => {
                self.stats.accepted += 1;
                self.pool.serve(stream) > CALLS_OF_STREAM_MAX
            }
        };
        let path = self.path(&call);
        call.across = path.clone().unwrap_or(None);
        self.stats.crossed += u64::from(call.across.is_some());
        let refuse = matches!(call.origin, Origin::Remote(..)) && self.leaving;
        self.weight += call.weight;
        self.calls.insert(id, call);
        if full || self.calls.len() > CALLS_MAX || self.weight > CALL_BYTES_MAX {
            self.overloaded(now, id, out);
        } else if let Err(error) = path {
            self.finish(now, id, Err(error), out);
        } else if refuse {
            self.finish(now, id, Err(RequestError::NoLeader), out);
        } else {
            self.dispatch(now, id, out);
        }
    }

    /// The other datacenter that a server sends the call to; an error if there is no way. A client
    /// leaves that to its server.
    fn path(&self, call: &Call) -> Result<Option<Datacenter>, RequestError> {
        let own = &self.config.datacenter;
        let asked = call.request.context.datacenter.as_ref().filter(|asked| *asked != own);
        let Some(asked) = asked.filter(|_| self.config.server) else { return Ok(None) };
        match self.remote.reachable(asked) {
            // What came from another datacenter goes to no third one, so nothing goes in circles.
            Some(_) if call.foreign => Err(RequestError::NoPath),
            Some(true) => Ok(Some(asked.clone())),
            Some(false) => Err(RequestError::NoServerReachable),
            None => Err(RequestError::NoPath),
        }
    }

    /// Takes a request that another agent sent.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        (stream, remote): (StreamId, RemoteRequest),
        bytes: usize,
        out: &mut Outbox<RpcOutput>,
    ) {
        let origin = Origin::Remote(stream, remote.id);
        let hold = remote.hold.min(self.config.hold);
        let mut call = Call::new(now, origin, hold, remote.wall, remote.request);
        call.foreign = self.pool.is_foreign(&self.config, stream);
        // A server of another datacenter is like a client of this one.
        call.hops = if call.foreign { 1 } else { remote.hops };
        call.weight = bytes;
        self.submit(now, call, out);
    }

    fn target(&self, now: Instant, call: &Call) -> Target {
        if let Some(datacenter) = &call.across {
            let mut ready = self.remote.servers(datacenter);
            let ready = ready.find(|server| !self.pool.backs_off(now, *server));
            return ready.map_or(Target::Nobody, Target::Other);
        }
        if !self.config.server {
            let mut ready = self.servers.iter().filter(|server| !self.pool.backs_off(now, *server));
            return ready.next().map_or(Target::Nobody, Target::Other);
        }
        let wanted = match call.server() {
            Some(server) if server == self.config.id => return Target::OwnServer,
            Some(server) => self.servers.address(server).map(|address| (server, address)),
            None if call.is_for_any_server(self.has_heard) => return Target::OwnServer,
            None => self.leader,
        };
        match wanted {
            Some((server, _)) if server == self.config.id => Target::OwnServer,
            Some((_, address)) if call.hops < HOPS_MAX => Target::Other(address),
            Some(_) | None => Target::Nobody,
        }
    }

    fn dispatch(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        let Some(call) = self.calls.get(&id) else { return };
        if !self.config.server && self.servers.len() == 0 {
            self.finish(now, id, Err(RequestError::NoServers), out);
            return;
        }
        match self.target(now, call) {
            Target::OwnServer => self.execute(id, out),
            Target::Other(address) if self.bucket.take(now) => self.forward(now, id, address, out),
            Target::Other(_) => self.beyond_rate(now, id, out),
            Target::Nobody => self.hold(now, id, out),
        }
    }

    fn execute(&mut self, id: u64, out: &mut Outbox<RpcOutput>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.state = State::Executing;
        let (wall, request) = (call.wall, Arc::clone(&call.request));
        self.timers.set(Timer::Call(id), call.deadline);
        out.push(RpcOutput::Execute { ticket: Ticket(id), wall, request });
    }

    fn forward(&mut self, now: Instant, id: u64, address: SocketAddr, out: &mut Outbox<RpcOutput>) {
        let Some(data) = self.encoded(now, id, out) else { return };
        let across = self.calls.get(&id).and_then(|call| call.across.clone());
        if across.is_some() {
            self.remote.passed(address);
        }
        let datacenter = across.unwrap_or_else(|| self.config.datacenter.clone());
        let Some(stream) = self.pool.connect(now, &datacenter, (address, Lane::Data), out) else {
            return self.hold(now, id, out);
        };
        if !self.pool.send(now, stream, data, out) {
            return self.overloaded(now, id, out);
        }
        self.pool.owe(stream);
        if let Some(call) = self.calls.get_mut(&id) {
            call.state = State::Sent(stream, address);
            call.sent_at = now;
            call.tries += 1;
            self.timers.set(Timer::Call(id), call.deadline);
        }
    }

    /// The request's frame; `None` if it was answered instead, since it is above a limit.
    fn encoded(
        &mut self,
        now: Instant,
        id: u64,
        out: &mut Outbox<RpcOutput>,
    ) -> Option<bytes::Bytes> {
        let call = self.calls.get_mut(&id)?;
        let hold = call.hold_until.since(now);
        let (wall, hops) = (call.wall, call.hops.saturating_add(1));
        let request = Arc::clone(&call.request);
        let frame = Frame::Request(RemoteRequest { id, hold, wall, hops, request });
        match frame.encode() {
            Ok(data) => {
                if call.weight == 0 {
                    call.weight = data.len();
                    self.weight += data.len();
                    if self.weight > CALL_BYTES_MAX {
                        self.overloaded(now, id, out);
                        return None;
                    }
                }
                Some(data)
            }
            Err(error) => {
                self.finish(now, id, Err(RequestError::Refused(format!("request: {error}"))), out);
                None
            }
        }
    }

    /// Nobody can take the call now: it waits, or fails.
    fn hold(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        let Some(call) = self.calls.get(&id) else { return };
        let late = now >= call.hold_until;
        if late || (call.hops >= HOPS_MAX && call.across.is_none()) {
            return self.finish(now, id, Err(call.untaken()), out);
        }
        if call.weight == 0 && self.encoded(now, id, out).is_none() {
            return;
        }
        let retry = retry_at(now, self.config.hold, &mut self.pool.rng);
        if let Some(call) = self.calls.get_mut(&id) {
            call.state = State::Held;
            call.tries = 0;
            self.timers.set(Timer::Call(id), retry.min(call.hold_until));
        }
    }

    /// A server did not take the call, and nothing happened: the next one, or a pause.
    fn try_again(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        let Some(call) = self.calls.get(&id) else { return };
        let servers = match &call.across {
            Some(datacenter) => self.remote.servers(datacenter).count(),
            None if self.config.server => 0,
            None => self.servers.len(),
        };
        let others = call.tries < servers;
        if others && now < call.hold_until {
            self.dispatch(now, id, out)
        } else {
            self.hold(now, id, out)
        }
    }

    /// A call's timer fired.
    pub(super) fn call_due(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        let Some(call) = self.calls.get(&id) else { return };
        match call.state {
            State::Held if now < call.hold_until => self.dispatch(now, id, out),
            State::Held => self.finish(now, id, Err(call.untaken()), out),
            State::Executing | State::Sent(..) => {
                if call.state == State::Executing {
                    out.push(RpcOutput::Forget { ticket: Ticket(id) });
                }
                let late = "rpc error: no answer in time".to_owned();
                self.finish(now, id, Err(RequestError::Unknown(late)), out);
            }
        }
    }

    /// The own server is through with a call.
    pub(super) fn executed(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Response, RequestError>,
        out: &mut Outbox<RpcOutput>,
    ) {
        let Some(call) = self.calls.get_mut(&ticket.0) else { return };
        assert!(call.state == State::Executing, "only executed calls have outcomes");
        if result == Err(RequestError::NoLeader) {
            call.start_over(now, self.config.hold);
            self.hold(now, ticket.0, out);
        } else {
            self.finish(now, ticket.0, result, out);
        }
    }

    /// A server answered a call. Answers that nobody waits for are late and without meaning.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        (stream, reply): (StreamId, RemoteReply),
        out: &mut Outbox<RpcOutput>,
    ) {
        let Some(call) = self.calls.get_mut(&reply.id) else { return };
        let State::Sent(sent, address) = call.state else { return };
        if sent != stream {
            return;
        }
        match reply.outcome {
            Outcome::Failed(RequestError::NoLeader | RequestError::Stopping) => {
                call.state = State::Held;
                call.leaderless = true;
                // It has held the call for a leader itself; only one that it had before lost it.
                if now.since(call.sent_at) > self.config.hold + HELD_SLACK {
                    call.start_over(now, self.config.hold);
                }
                self.pool.settle(stream);
                self.servers.failed(address);
                self.try_again(now, reply.id, out);
            }
            outcome @ (Outcome::Done
            | Outcome::Answer(_)
            | Outcome::Event(_)
            | Outcome::Keys(_)
            | Outcome::Unmet
            | Outcome::Transaction(_)
            | Outcome::Backup(_)
            | Outcome::Health(_)
            | Outcome::Executed(_)
            | Outcome::Failed(_)) => {
                self.finish(now, reply.id, outcome.into(), out);
            }
        }
    }

    /// A stream is gone: calls that it brought are dropped, calls sent on it tried again if that
    /// is safe.
    pub(super) fn calls_lost(&mut self, now: Instant, lost: &Lost, out: &mut Outbox<RpcOutput>) {
        let of_stream = Origin::Remote(lost.stream, 0)..=Origin::Remote(lost.stream, u64::MAX);
        let brought: Vec<u64> = self.by_origin.range(of_stream).map(|(_, id)| *id).collect();
        for id in brought {
            self.drop_call(now, id, out);
        }
        if lost.opened_here {
            self.servers.failed(lost.peer);
            self.remote.passed(lost.peer);
        }
        let on_it =
            |call: &Call| matches!(call.state, State::Sent(stream, _) if stream == lost.stream);
        let sent: Vec<u64> =
            self.calls.iter().filter(|(_, call)| on_it(call)).map(|(id, _)| *id).collect();
        for id in sent {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if lost.node.is_none() || call.is_read() {
                call.state = State::Held;
                call.start_over(now, self.config.hold);
                self.try_again(now, id, out);
            } else {
                let peer = lost.peer;
                let text = format!("rpc error: the stream to {peer} broke before the answer came");
                self.finish(now, id, Err(RequestError::Unknown(text)), out);
            }
        }
    }

    /// Consensus has a leader, or lost it: what waits for one is tried at once, and reads that
    /// an earlier leader has are asked again.
    pub(super) fn leader_is(
        &mut self,
        now: Instant,
        leader: Option<(NodeId, SocketAddr)>,
        out: &mut Outbox<RpcOutput>,
    ) {
        assert!(self.config.server, "only servers know consensus");
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        if leader.is_none() {
            return;
        }
        self.has_heard = true;
        let again = |call: &Call| match call.state {
            State::Held => true,
            State::Sent(..) => call.is_read() && call.across.is_none(),
            State::Executing => false,
        };
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| again(call)).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if let State::Sent(stream, _) = call.state {
                self.pool.settle(stream);
                self.cancel(now, id, stream, out);
            }
            let Some(call) = self.calls.get_mut(&id) else { continue };
            call.state = State::Held;
            call.start_over(now, self.config.hold);
            self.dispatch(now, id, out);
        }
    }

    /// Nobody waits for this call any more, nor does the server that has it need to.
    pub(super) fn abandoned(&mut self, now: Instant, caller: Caller, out: &mut Outbox<RpcOutput>) {
        self.forget(now, Origin::Local(caller), out);
    }

    /// Another agent waits no longer for what it asked by this stream.
    pub(super) fn cancelled(
        &mut self,
        now: Instant,
        (stream, number): (StreamId, u64),
        out: &mut Outbox<RpcOutput>,
    ) {
        self.forget(now, Origin::Remote(stream, number), out);
    }

    fn forget(&mut self, now: Instant, origin: Origin, out: &mut Outbox<RpcOutput>) {
        if let Some(id) = self.by_origin.get(&origin).copied() {
            self.drop_call(now, id, out);
        }
    }

    /// Takes a call away without an answer, also from whoever has it.
    fn drop_call(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        match self.remove(id).map(|call| call.state) {
            Some(State::Executing) => out.push(RpcOutput::Forget { ticket: Ticket(id) }),
            Some(State::Sent(stream, _)) => self.cancel(now, id, stream, out),
            Some(State::Held) | None => {}
        }
    }

    /// Tells the server that a call was sent to that nobody waits for its answer.
    fn cancel(&mut self, now: Instant, id: u64, stream: StreamId, out: &mut Outbox<RpcOutput>) {
        if let Ok(data) = Frame::Cancel(id).encode() {
            self.pool.send(now, stream, data, out);
        }
    }

    /// Refuses what others wait for and ask from here on.
    pub(super) fn leave(&mut self, now: Instant, out: &mut Outbox<RpcOutput>) {
        self.leaving = true;
        let held =
            |call: &Call| call.state == State::Held && matches!(call.origin, Origin::Remote(..));
        let held: Vec<u64> =
            self.calls.iter().filter(|(_, call)| held(call)).map(|(id, _)| *id).collect();
        for id in held {
            self.finish(now, id, Err(RequestError::NoLeader), out);
        }
    }

    pub(super) fn rebalance(&mut self, now: Instant, out: &mut Outbox<RpcOutput>) {
        let after = rebalance_after(&mut self.pool.rng);
        self.timers.set(Timer::Rebalance, now + after);
        if let Some(head) = self.servers.shuffle(&mut self.pool.rng) {
            trace!(out, Level::Debug, RpcTrace::Rebalanced { head });
        }
    }

    fn overloaded(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        self.stats.exceeded += 1;
        let pending = self.calls.len();
        trace!(out, Level::Debug, RpcTrace::Overloaded { pending });
        let text = "too many requests are on their way".to_owned();
        self.finish(now, id, Err(RequestError::Overloaded(text)), out);
    }

    /// Refuses a call for which there is no token; what it was sent before did not take it.
    fn beyond_rate(&mut self, now: Instant, id: u64, out: &mut Outbox<RpcOutput>) {
        self.stats.exceeded += 1;
        if let Some(rate) = self.bucket.tell(now) {
            trace!(out, Level::Warn, RpcTrace::RateExceeded { rate });
        }
        self.finish(now, id, Err(RequestError::RateExceeded), out);
    }

    fn remove(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.timers.cancel(&Timer::Call(id));
        self.weight -= call.weight;
        self.by_origin.remove(&call.origin);
        if let Origin::Remote(stream, _) = call.origin {
            self.pool.served(stream);
        }
        if let State::Sent(stream, _) = call.state {
            self.pool.settle(stream);
        }
        Some(call)
    }

    fn finish(
        &mut self,
        now: Instant,
        id: u64,
        result: Result<Response, RequestError>,
        out: &mut Outbox<RpcOutput>,
    ) {
        let Some(call) = self.remove(id) else { return };
        let (stream, id) = match call.origin {
            Origin::Local(caller) => {
                self.stats.failed += u64::from(result.as_ref().is_err_and(is_unserved));
                return out.push(RpcOutput::Done { caller, result });
            }
            Origin::Remote(stream, id) => (stream, id),
        };
        self.stats.accepted_failed += u64::from(result.is_err());
        let frame = Frame::Reply(RemoteReply { id, outcome: result.into() });
        let data = frame.encode().unwrap_or_else(|error| {
            let refused = RequestError::Refused(format!("the answer is too large: {error}"));
            let outcome = Outcome::Failed(refused);
            let frame = Frame::Reply(RemoteReply { id, outcome });
            frame.encode().expect("an error of two numbers is below the limit")
        });
        self.pool.send_last(now, stream, data, out);
    }
}

/// Whether a request failed because no server served it, and not by a rule.
const fn is_unserved(error: &RequestError) -> bool {
    match error {
        RequestError::NoLeader
        | RequestError::NoServers
        | RequestError::NoPath
        | RequestError::NoServerReachable
        | RequestError::Overloaded(_)
        | RequestError::Unknown(_)
        | RequestError::Stopping => true,
        RequestError::Refused(_)
        | RequestError::NotFound(_)
        | RequestError::NotBuilt(_)
        | RequestError::RateExceeded => false,
    }
}
