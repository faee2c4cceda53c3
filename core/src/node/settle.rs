//! The only routing between machines: one output at a time, always from the pipeline's start.
//!
//! `LAN gossip → LAN serf → WAN gossip → WAN serf → bootstrap → raft → reconcile → local → checks →
//! anti-entropy → rpc`. Each machine writes into its own outbox; what a later machine wants of an
//! earlier one is fed to it and comes out of its outbox at the next step, so nothing calls upwards
//! and nothing recurses.

use super::input::{Input, StreamKind};
use super::output::{Output, StopReason};
use super::pool::Pool;
use super::snapshots::SnapshotWrite;
use super::writes::Purpose;
use super::{Node, NodeTrace};
use crate::anti_entropy::{AntiEntropyInput, AntiEntropyOutput};
use crate::checks::{ChecksInput, ChecksOutput};
use crate::gossip::keyring::keyring_file;
use crate::gossip::{GossipInput, GossipOutput};
use crate::id::{PoolName, StreamId, WriteId};
use crate::local::{LocalInput, LocalOutput};
use crate::machine::Machine as _;
use crate::node::request::{Request, Response};
use crate::raft::bootstrap::{BootstrapInput, BootstrapMessage, BootstrapOutput};
use crate::raft::{Message, RaftInput, RaftOutput, RoleKind};
use crate::reconcile::{ReconcileInput, ReconcileOutput};
use crate::rpc::{Caller, RpcInput, RpcOutput};
use crate::serf::{SerfEvent, SerfInput, SerfOutput, snapshot_file};
use crate::storage::op::{Lane, StorageFault};
use crate::time::{Instant, WallClock};
use crate::trace::{Level, TraceKind};
use crate::wire::pack;
use crate::wire::serf::MemberRecord;
use std::net::SocketAddr;
use std::sync::Arc;

/// Steps that one input may take; more means that two machines answer each other for ever.
const STEPS_MAX: u32 = 1_000_000;

impl Node {
    /// Gives an input to the machine it is for.
    pub(super) fn route_input(&mut self, now: Instant, input: Input) {
        let boxes = &mut self.boxes;
        match input {
            Input::Timeout => self.fire_timers(now),
            Input::Datagram { pool, from, payload } => {
                self.tell_gossip(now, pool, GossipInput::Datagram { from, payload });
            }
            Input::StreamOpened { stream, kind, peer } => match kind {
                StreamKind::Gossip(name) => {
                    let Some(pool) = self.pool(name) else {
                        self.out.push_back(Output::CloseStream { stream });
                        return;
                    };
                    pool.streams.insert(stream);
                    pool.tell_gossip(now, GossipInput::StreamOpened { stream, peer });
                }
                StreamKind::Server => {
                    let input = RpcInput::StreamOpened { stream, peer };
                    self.rpc.handle(now, input, &mut boxes.rpc);
                }
            },
            Input::StreamData { stream, data } => match self.pool_of(stream) {
                Some(pool) => pool.tell_gossip(now, GossipInput::StreamData { stream, data }),
                None => {
                    let input = RpcInput::StreamData { stream, data };
                    self.rpc.handle(now, input, &mut self.boxes.rpc);
                }
            },
            Input::StreamClosed { stream, reason } => match self.pool_of(stream) {
                Some(pool) => {
                    pool.streams.remove(&stream);
                    pool.tell_gossip(now, GossipInput::StreamClosed { stream, reason });
                }
                None => {
                    let input = RpcInput::StreamClosed { stream, reason };
                    self.rpc.handle(now, input, &mut self.boxes.rpc);
                }
            },
            Input::Persisted { write } => self.persisted(now, write),
            Input::PersistFailed { write, error } => self.persist_failed(now, write, error),
            Input::Request { id, wall, request } => self.route_request(now, id, wall, request),
            Input::RequestAbandoned { id } => self.abandon(now, id),
            Input::CheckFinished { check, run, result } => {
                let input = ChecksInput::Finished { check, run, result };
                self.checks.handle(now, input, &mut boxes.checks);
            }
            Input::Leave => self.leave_signalled(now),
            Input::Shutdown => self.shutdown_signalled(now),
        }
    }

    /// Routes outputs until no machine has any.
    pub(super) fn settle(&mut self, now: Instant) {
        for _ in 0..STEPS_MAX {
            if self.lifecycle.is_stopped() {
                return;
            }
            if let Some(output) = self.lan.gossip_out.pop() {
                self.route_gossip(now, PoolName::Lan, output);
            } else if let Some(output) = self.lan.serf_out.pop() {
                self.route_serf(now, PoolName::Lan, output);
            } else if let Some(output) = self.wan.as_mut().and_then(|wan| wan.gossip_out.pop()) {
                self.route_gossip(now, PoolName::Wan, output);
            } else if let Some(output) = self.wan.as_mut().and_then(|wan| wan.serf_out.pop()) {
                self.route_serf(now, PoolName::Wan, output);
            } else if let Some(output) = self.boxes.bootstrap.pop() {
                self.route_bootstrap(now, output);
            } else if let Some(output) = self.boxes.raft.pop() {
                self.route_raft(now, output);
            } else if let Some(output) = self.boxes.reconcile.pop() {
                self.route_reconcile(now, output);
            } else if let Some(output) = self.boxes.local.pop() {
                self.route_local(now, output);
            } else if let Some(output) = self.boxes.checks.pop() {
                self.route_checks(now, output);
            } else if let Some(output) = self.boxes.anti_entropy.pop() {
                self.route_anti_entropy(now, output);
            } else if let Some(output) = self.boxes.rpc.pop() {
                self.route_rpc(now, output);
            } else {
                self.forget_outcomes();
                if !self.wake_reads(now) {
                    return;
                }
            }
        }
        panic!("INV-NODE-1: one input settles within {STEPS_MAX} steps");
    }

    fn route_gossip(&mut self, now: Instant, pool: PoolName, output: GossipOutput) {
        let serf = match output {
            GossipOutput::SendDatagram { to, payload } => {
                self.stats.datagrams_sent += 1;
                self.out.push_back(Output::SendDatagram { pool, to, payload });
                return;
            }
            GossipOutput::OpenStream { stream, to } => {
                if let Some(pool) = self.pool(pool) {
                    pool.streams.insert(stream);
                }
                let kind = StreamKind::Gossip(pool);
                self.out.push_back(Output::OpenStream { stream, kind, to });
                return;
            }
            GossipOutput::SendStream { stream, data } => {
                self.out.push_back(Output::SendStream { stream, data });
                return;
            }
            GossipOutput::CloseStream { stream } => {
                if let Some(pool) = self.pool(pool) {
                    pool.streams.remove(&stream);
                }
                self.out.push_back(Output::CloseStream { stream });
                return;
            }
            GossipOutput::JoinFinished { join, contacted, errors } => {
                self.join_finished(now, (pool, join), contacted, &errors);
                return;
            }
            GossipOutput::Trace(level, trace) => {
                self.emit_of_members(now, level, TraceKind::Gossip(pool, trace));
                return;
            }
            GossipOutput::PersistKeyring(ops) => {
                self.writes.issue(Purpose::Keyring(pool), Lane::State, ops, &mut self.out);
                return;
            }
            GossipOutput::KeyFinished { ticket, result } => {
                self.key_finished(now, pool, ticket, result);
                return;
            }
            GossipOutput::ThoughtDead => {
                if pool == PoolName::Lan {
                    self.tell_anti_entropy(now, AntiEntropyInput::ThoughtDead);
                }
                return;
            }
            GossipOutput::Joined(peer) => SerfInput::Joined(peer),
            GossipOutput::Gone { name, left } => SerfInput::Gone { name, left },
            GossipOutput::Updated(peer) => SerfInput::Updated(peer),
            GossipOutput::OwnIncarnation(incarnation) => SerfInput::OwnIncarnation(incarnation),
            GossipOutput::Conflict { existing, .. } => SerfInput::Conflict(existing.name),
            GossipOutput::UserMessage(payload) => SerfInput::UserMessage(payload),
            GossipOutput::ProbeAnswered { peer, round_trip, payload } => {
                SerfInput::ProbeAnswered { peer, round_trip, payload }
            }
            GossipOutput::RemoteUserState { payload, join } => {
                SerfInput::RemoteUserState { payload, join }
            }
            GossipOutput::WantUserState { exchange, join } => {
                SerfInput::WantUserState { exchange, join }
            }
            GossipOutput::LeaveSpread => SerfInput::LeaveSpread,
            GossipOutput::BroadcastSpread(id) => SerfInput::BroadcastSpread(id),
        };
        let probed = pool == PoolName::Wan && matches!(serf, SerfInput::ProbeAnswered { .. });
        self.tell_serf(now, pool, serf);
        if probed {
            self.wan_probed();
        }
    }

    fn route_serf(&mut self, now: Instant, pool: PoolName, output: SerfOutput) {
        let gossip = match output {
            SerfOutput::Event(event) => {
                match pool {
                    PoolName::Lan => self.serf_event(now, event),
                    PoolName::Wan => self.wan_event(now, &event),
                }
                return;
            }
            SerfOutput::Reply { id, result } => {
                self.serf_replied(now, id, result);
                return;
            }
            SerfOutput::QueryHeard { id, heard } => {
                self.out.push_back(Output::QueryHeard { id, heard });
                return;
            }
            SerfOutput::KeyOperation { query, operation } => {
                self.key_operation(now, pool, (query, operation));
                return;
            }
            SerfOutput::NameLost { matching, total, other } => {
                self.name_lost(now, pool, (matching, total), other.as_deref());
                return;
            }
            SerfOutput::LeaveFinished => {
                self.farewell_spread(now, pool);
                return;
            }
            SerfOutput::Persist(ops) => {
                self.writes.issue(Purpose::Serf(pool), Lane::State, ops, &mut self.out);
                return;
            }
            SerfOutput::Trace(level, trace) => {
                self.emit_of_members(now, level, TraceKind::Serf(pool, trace));
                return;
            }
            SerfOutput::Broadcast { class, key, payload, notify } => {
                GossipInput::Broadcast { class, key, payload, notify }
            }
            SerfOutput::UserState { exchange, payload } => {
                GossipInput::UserState { exchange, payload }
            }
            SerfOutput::Join { join, addresses } => GossipInput::Join { join, addresses },
            SerfOutput::GossipLeave => GossipInput::Leave,
            SerfOutput::SendUser { to, payload } => GossipInput::SendUser { to, payload },
            SerfOutput::SetAckPayload(payload) => GossipInput::SetAckPayload(payload),
            SerfOutput::SetMeta(meta) => GossipInput::SetMeta(meta),
        };
        self.tell_gossip(now, pool, gossip);
    }

    /// Tells machines and subscribers what the Serf layer delivers.
    fn serf_event(&mut self, now: Instant, event: SerfEvent) {
        self.stats.count_event(&event);
        if let SerfEvent::Members { kind, members } = &event {
            for member in members {
                self.member_changed(now, member);
                self.lan_server_event(now, *kind, member);
                if self.leads {
                    let (kind, member) = (*kind, Arc::clone(member));
                    self.tell_reconcile(now, ReconcileInput::Member { kind, member });
                }
            }
        }
        if let SerfEvent::User(event) = &event {
            self.event_received(event);
        }
        let events = self.coalescer.take(now, event);
        self.out.extend(events.into_iter().map(Output::Event));
    }

    fn route_bootstrap(&mut self, now: Instant, output: BootstrapOutput) {
        match output {
            BootstrapOutput::Persist { seq, batch } => {
                self.persist_log(now, Purpose::Bootstrap(seq), batch);
            }
            BootstrapOutput::Send { to, message } => {
                let payload = pack::to_bytes(&message);
                let input = RpcInput::SendBootstrap { to, payload };
                self.rpc.handle(now, input, &mut self.boxes.rpc);
            }
            BootstrapOutput::Bound { cluster } => {
                self.tell_raft(now, RaftInput::Bound { cluster });
            }
            BootstrapOutput::Start { cluster, configuration } => {
                self.tell_raft(now, RaftInput::Bootstrapped { cluster, configuration });
            }
            BootstrapOutput::Trace(level, trace) => self.emit(level, TraceKind::Bootstrap(trace)),
        }
    }

    fn route_raft(&mut self, now: Instant, output: RaftOutput) {
        match output {
            RaftOutput::Persist { seq, batch } => self.persist_log(now, Purpose::Raft(seq), batch),
            RaftOutput::Send { to, address, lane, message } => {
                let payload = pack::to_bytes(&message);
                let input = RpcInput::SendRaft { to, address, lane, payload };
                self.rpc.handle(now, input, &mut self.boxes.rpc);
            }
            RaftOutput::Apply { entries } => self.apply(now, entries),
            RaftOutput::Snapshot(output) => self.route_snapshot(now, output),
            RaftOutput::ProposalApplied { id, index } => self.proposal_applied(now, id, index),
            RaftOutput::ProposalFailed { id, error } => self.proposal_failed(now, id, error),
            RaftOutput::ReadReady { id } => self.read_ready(now, id),
            RaftOutput::ReadFailed { id, error } => self.read_failed(now, id, error),
            RaftOutput::TransferEnded { id, result } => self.transfer_ended(now, id, result),
            RaftOutput::RoleChanged { role, leader, .. } => self.role_changed(now, role, leader),
            RaftOutput::LeaderReady { .. } => {
                self.tell_reconcile(now, ReconcileInput::LeaderReady);
            }
            RaftOutput::LeadershipLost { .. } => {
                self.trace(Level::Info, NodeTrace::LeadershipLost);
                self.tell_reconcile(now, ReconcileInput::LeadershipLost);
                self.end_leader_reads(now);
            }
            // Leader duties and readers look at consensus itself when they need it.
            RaftOutput::ConfigurationChanged { .. } => {}
            RaftOutput::ClusterKnown { cluster } => {
                if let Some(server) = self.server.as_deref_mut() {
                    let input = BootstrapInput::Formed { cluster };
                    server.bootstrap.handle(now, input, &mut self.boxes.bootstrap);
                }
            }
            RaftOutput::Removed => self.removed_from_configuration(now),
            RaftOutput::Fatal(rule) => self.fatal(rule),
            RaftOutput::Trace(level, trace) => self.emit(level, TraceKind::Raft(trace)),
        }
    }

    fn route_reconcile(&mut self, now: Instant, output: ReconcileOutput) {
        match output {
            ReconcileOutput::Propose { ticket, command } => {
                self.stats.count_duty(&command);
                let payload = command.encode();
                self.propose_for_reconcile(now, ticket, |id| RaftInput::Propose { id, payload });
            }
            ReconcileOutput::Change { ticket, change } => {
                self.propose_for_reconcile(now, ticket, |id| RaftInput::Change { id, change });
            }
            ReconcileOutput::Trace(level, trace) => {
                self.emit_of_members(now, level, TraceKind::Reconcile(trace));
            }
        }
    }

    fn route_local(&mut self, now: Instant, output: LocalOutput) {
        match output {
            LocalOutput::Persist { ticket, changes } => {
                let ops = self.registrations.append(changes);
                self.writes.issue(Purpose::Local(ticket), Lane::State, ops, &mut self.out);
            }
            LocalOutput::Reply { id, error } => self.answer(id, Err(error)),
            LocalOutput::Done(id) => {
                self.tell_anti_entropy(now, AntiEntropyInput::Answer(id));
            }
            LocalOutput::StartCheck(start) => {
                self.checks.handle(now, ChecksInput::Start(start), &mut self.boxes.checks);
            }
            LocalOutput::StopCheck(check) => {
                self.checks.handle(now, ChecksInput::Stop(check), &mut self.boxes.checks);
            }
            LocalOutput::Told { check, status } => {
                let input = ChecksInput::Told { check, status };
                self.checks.handle(now, input, &mut self.boxes.checks);
            }
            LocalOutput::Changed(change) => {
                self.publisher.local_changed();
                let view = self.local.view().clone();
                self.tell_anti_entropy(now, AntiEntropyInput::Local { change, view });
            }
            LocalOutput::Trace(level, trace) => self.emit(level, TraceKind::Agent(trace)),
        }
    }

    fn route_checks(&mut self, now: Instant, output: ChecksOutput) {
        let input = match output {
            ChecksOutput::Run { check, run, kind, output_max_size } => {
                self.out.push_back(Output::RunCheck { check, run, kind, output_max_size });
                return;
            }
            ChecksOutput::Look { run, request } => {
                // Commands that need a civil time take their request's; a read has none.
                let (caller, wall) = (Caller::Check(run), WallClock::from_millis(0));
                let input = RpcInput::Submit { caller, hold: true, wall, request };
                self.rpc.handle(now, input, &mut self.boxes.rpc);
                return;
            }
            ChecksOutput::Trace(level, trace) => {
                self.emit(level, TraceKind::Agent(trace));
                return;
            }
            ChecksOutput::Result { check, status, output } => {
                LocalInput::CheckResult { check, status, output }
            }
            ChecksOutput::Expired(check) => LocalInput::TtlExpired(check),
            ChecksOutput::Reap { service, check } => LocalInput::Reap { service, check },
        };
        self.local.handle(now, input, &mut self.boxes.local);
    }

    fn route_anti_entropy(&mut self, now: Instant, output: AntiEntropyOutput) {
        match output {
            AntiEntropyOutput::Submit { ticket, hold, body } => {
                let caller = Caller::Internal(ticket.0);
                // Commands that need a civil time take their request's; a sync has none.
                let wall = WallClock::from_millis(0);
                let request = Arc::new(Request::new(*body));
                let input = RpcInput::Submit { caller, hold, wall, request };
                self.rpc.handle(now, input, &mut self.boxes.rpc);
            }
            AntiEntropyOutput::Done(id) => self.answer(id, Ok(Response::Done)),
            AntiEntropyOutput::AdoptTags { service, tags } => {
                let input = LocalInput::AdoptTags { service, tags };
                self.local.handle(now, input, &mut self.boxes.local);
            }
            AntiEntropyOutput::Stopped => self.synchronisation_stopped(now),
            AntiEntropyOutput::Trace(level, trace) => self.emit(level, TraceKind::Agent(trace)),
        }
    }

    fn route_rpc(&mut self, now: Instant, output: RpcOutput) {
        match output {
            RpcOutput::OpenStream { stream, to } => {
                self.out.push_back(Output::OpenStream { stream, kind: StreamKind::Server, to });
            }
            RpcOutput::SendStream { stream, data } => {
                self.out.push_back(Output::SendStream { stream, data });
            }
            RpcOutput::CloseStream { stream } => {
                self.out.push_back(Output::CloseStream { stream });
            }
            RpcOutput::Execute { ticket, request, .. } => self.execute(now, ticket, request),
            RpcOutput::Forget { ticket } => self.forget_read(ticket),
            RpcOutput::Done { caller: Caller::Request(id), result } => self.answer(id, result),
            RpcOutput::Done { caller: Caller::Internal(ticket), result } => {
                let ticket = crate::anti_entropy::SyncTicket(ticket);
                self.tell_anti_entropy(now, AntiEntropyInput::Reply { ticket, result });
            }
            RpcOutput::Done { caller: Caller::Check(run), result } => {
                let input = ChecksInput::Looked { run, result };
                self.checks.handle(now, input, &mut self.boxes.checks);
            }
            RpcOutput::Done { caller: Caller::Execution(number), result } => {
                self.execution_answered(now, number, result);
            }
            RpcOutput::RaftMessage { from, payload } => {
                match pack::from_bytes::<Message>(&payload) {
                    Ok(message) if message.header.from == from => {
                        self.tell_raft(now, RaftInput::Receive(message));
                    }
                    Ok(_) => self.bad_message("consensus", "it names another sender".to_owned()),
                    Err(error) => self.bad_message("consensus", error.to_string()),
                }
            }
            RpcOutput::BootstrapMessage { payload, .. } => {
                match pack::from_bytes::<BootstrapMessage>(&payload) {
                    Ok(message) => {
                        if let Some(server) = self.server.as_deref_mut() {
                            let input = BootstrapInput::Receive(message);
                            server.bootstrap.handle(now, input, &mut self.boxes.bootstrap);
                        }
                    }
                    Err(error) => self.bad_message("bootstrap", error.to_string()),
                }
            }
            RpcOutput::PeerUnreachable { peer } => {
                self.tell_raft(now, RaftInput::PeerUnreachable { peer });
            }
            RpcOutput::Trace(level, trace) => self.emit(level, TraceKind::Rpc(trace)),
        }
    }

    pub(super) fn bad_message(&mut self, what: &'static str, error: String) {
        self.trace(Level::Warn, NodeTrace::BadMessage { what, error });
    }

    fn tell_raft(&mut self, now: Instant, input: RaftInput) {
        if let Some(server) = self.server.as_deref_mut() {
            server.raft.handle(now, input, &mut self.boxes.raft);
        }
    }

    pub(super) fn tell_anti_entropy(&mut self, now: Instant, input: AntiEntropyInput) {
        self.anti_entropy.handle(now, input, &mut self.boxes.anti_entropy);
    }

    fn role_changed(
        &mut self,
        now: Instant,
        role: RoleKind,
        leader: Option<(crate::id::NodeId, SocketAddr)>,
    ) {
        self.stats.roles_taken.count(role);
        if role == RoleKind::Leader && !self.leads {
            self.trace(Level::Info, NodeTrace::LeadershipAcquired);
        }
        self.leads = role == RoleKind::Leader;
        if leader != self.leader {
            self.leader = leader;
            self.rpc.handle(now, RpcInput::Leader(leader), &mut self.boxes.rpc);
            if let Some((id, _)) = leader {
                let named = self.lan.serf.members().find(|member| member.id() == Some(id));
                let name = named.map_or_else(|| id.to_string(), |member| member.name.to_string());
                self.trace(Level::Info, NodeTrace::NewLeader(name));
                self.tell_anti_entropy(now, AntiEntropyInput::ServerReachable);
            }
        }
    }

    fn persisted(&mut self, now: Instant, write: WriteId) {
        match self.writes.complete(write) {
            Some(Purpose::Raft(seq)) => self.tell_raft(now, RaftInput::PersistDone { seq }),
            Some(Purpose::Bootstrap(seq)) => {
                if let Some(server) = self.server.as_deref_mut() {
                    let input = BootstrapInput::PersistDone { seq };
                    server.bootstrap.handle(now, input, &mut self.boxes.bootstrap);
                }
            }
            Some(Purpose::Prepare(lane)) => self.log_prepared(now, lane),
            Some(Purpose::Local(ticket)) => {
                let input = LocalInput::Persisted(ticket);
                self.local.handle(now, input, &mut self.boxes.local);
            }
            Some(Purpose::Snapshot(write)) => self.snapshot_written(now, write),
            Some(Purpose::Seal) => self.sealed(),
            Some(Purpose::Keyring(pool)) => {
                self.tell_gossip(now, pool, GossipInput::KeyringPersisted(Ok(())));
            }
            Some(Purpose::Serf(_) | Purpose::Reserve) | None => {}
        }
    }

    fn persist_failed(&mut self, now: Instant, write: WriteId, error: StorageFault) {
        let Some(purpose) = self.writes.complete(write) else { return };
        match purpose {
            Purpose::Prepare(lane) if error == StorageFault::Full => {
                self.log_unprepared(now, lane);
            }
            Purpose::Snapshot(write)
                if error == StorageFault::Full && write != SnapshotWrite::Removal =>
            {
                self.snapshot_found_no_room(now, write);
            }
            Purpose::Reserve if error == StorageFault::Full => self.no_space_aside(),
            // After a failed write or sync nobody knows what the disk holds (raft.md §11.3 rule 5).
            Purpose::Raft(_) | Purpose::Bootstrap(_) | Purpose::Prepare(_) => {
                self.fatal(format!("writing the log failed: {error}"));
            }
            Purpose::Snapshot(_) | Purpose::Reserve => {
                self.fatal(format!("storing a snapshot failed: {error}"))
            }
            Purpose::Seal => self.sealed(),
            Purpose::Local(ticket) => {
                self.registrations.failed();
                let input = LocalInput::PersistFailed { ticket, error };
                self.local.handle(now, input, &mut self.boxes.local);
            }
            Purpose::Keyring(pool) => {
                let (file, text) = (keyring_file(pool), error.to_string());
                self.trace(Level::Error, NodeTrace::WriteFailed { file, error: text });
                self.tell_gossip(now, pool, GossipInput::KeyringPersisted(Err(error)));
            }
            Purpose::Serf(pool) => {
                let (file, error) = (snapshot_file(pool), error.to_string());
                self.trace(Level::Error, NodeTrace::WriteFailed { file, error });
                self.tell_serf(now, pool, SerfInput::PersistFailed);
            }
        }
    }

    pub(super) fn pool(&mut self, name: PoolName) -> Option<&mut Pool> {
        match name {
            PoolName::Lan => Some(&mut self.lan),
            PoolName::Wan => self.wan.as_deref_mut(),
        }
    }

    /// The pool that a stream belongs to; the others are the servers'.
    fn pool_of(&mut self, stream: StreamId) -> Option<&mut Pool> {
        let wan = self.wan.as_deref_mut();
        [Some(&mut self.lan), wan].into_iter().flatten().find(|pool| pool.streams.contains(&stream))
    }

    /// Gives an input to the membership protocol of a pool, if this agent is in it.
    pub(super) fn tell_gossip(&mut self, now: Instant, pool: PoolName, input: GossipInput) {
        if let Some(pool) = self.pool(pool) {
            pool.tell_gossip(now, input);
        }
    }

    /// Gives an input to the Serf layer of a pool, if this agent is in it.
    pub(super) fn tell_serf(&mut self, now: Instant, pool: PoolName, input: SerfInput) {
        if let Some(pool) = self.pool(pool) {
            pool.tell_serf(now, input);
        }
    }

    /// Most members of a pool know another agent by this one's name.
    fn name_lost(
        &mut self,
        now: Instant,
        pool: PoolName,
        (matching, total): (usize, usize),
        other: Option<&MemberRecord>,
    ) {
        match pool {
            PoolName::Lan => {
                let other = other.map_or_else(String::new, |other| {
                    let at = SocketAddr::new(other.address, other.port);
                    let id = other.tags.get("id").map_or("none", String::as_str);
                    format!(" (at {at}, its ID is {id})")
                });
                let rule = format!(
                    "another agent is called {}{other}: {matching} of {total} members know this \
                     one (at {}, its ID is {}); give it another name with -node",
                    self.config.name,
                    self.config.gossip_address(),
                    self.id
                );
                self.trace(Level::Error, NodeTrace::Fatal(rule.clone()));
                self.begin_stop(now, StopReason::Fatal(rule));
            }
            // A mistake in another datacenter must not stop the servers of this one.
            PoolName::Wan => {
                self.trace(Level::Error, NodeTrace::WanNameTaken { matching, total });
            }
        }
    }

    fn fatal(&mut self, rule: String) {
        self.trace(Level::Error, NodeTrace::Fatal(rule.clone()));
        self.stop(StopReason::Fatal(rule));
    }
}
