//! Leaving and stopping: the order of steps, each bounded in time.
//!
//! A stop without a leave is short: a leader hands leadership over, and the log is sealed.
//!
//! In a leave anti-entropy stops first, so that nothing re-registers what the leave removes. A
//! leader hands leadership over, so that writes go on at once (raft.md §8); where that fails it
//! takes itself out of the configuration. Then a server leaves the WAN pool, so that other
//! datacenters turn to its peers, then every agent leaves the LAN pool. From that farewell on a
//! server refuses what others ask anew, so that they move on; behind it, it goes on for a while
//! with what it has (`performance.leave_drain_time`). A follower waits until the leader has taken
//! it out. The last voter leaves gossip only and stays in its own configuration, so that a restart
//! finds its data (DESIGN.md §6 and §8; cluster-behaviour.md §8).

use super::output::StopReason;
use super::request::{RequestError, Response};
use super::writes::Purpose;
use super::{LEAVE_STEP, Node, NodeTrace};
use crate::anti_entropy::AntiEntropyInput;
use crate::buggify;
use crate::id::{PoolName, RequestId};
use crate::machine::Machine as _;
use crate::raft::{LeaveVerdict, RoleKind};
use crate::rpc::RpcInput;
use crate::serf::{MemberStatus, SerfInput, ServerInfo};
use crate::time::Instant;
use crate::trace::Level;
use std::time::Duration;

/// How long leaving the WAN pool may take; what then has not spread, failing probes tell.
const WAN_STEP: Duration = Duration::from_secs(5);
/// How long leaving gossip may take: intent, farewell, and the time given to both to spread.
const GOSSIP_STEP: Duration = Duration::from_secs(14);

/// Whether the agent runs, leaves or has stopped.
#[derive(Clone, Debug)]
pub(super) enum Lifecycle {
    /// It runs.
    Running,
    /// It leaves.
    Leaving(Leave),
    /// It hands leadership over; then it stops.
    HandingOver { deadline: Instant },
    /// The last write is on its way; then the agent stops.
    Stopping { reason: StopReason, deadline: Instant },
    /// It has stopped.
    Stopped,
}

/// A leave under way.
#[derive(Clone, Debug)]
pub(super) struct Leave {
    step: Step,
    deadline: Instant,
    /// Whether the configuration may lose its quorum.
    force: bool,
    /// Whether a follower waits to be taken out of the configuration.
    wait_for_removal: bool,
    waiting: Vec<RequestId>,
}

/// One step of a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Until anti-entropy has nothing on its way.
    AntiEntropy,
    /// Until another server leads.
    HandOver,
    /// Until this leader is out of the configuration.
    OwnRemoval,
    /// Until the farewell has spread in the WAN pool.
    Wan,
    /// Until the farewell has spread in the LAN pool.
    Gossip,
    /// Until requests on their way had their time.
    Drain,
    /// Until the leader has taken this follower out of the configuration.
    Removal,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::AntiEntropy => "the end of its synchronisation",
            Self::HandOver => "handing leadership over",
            Self::OwnRemoval => "leaving the configuration",
            Self::Wan => "the spread of its farewell in the WAN pool",
            Self::Gossip => "the spread of its farewell",
            Self::Drain => "the end of requests on their way",
            Self::Removal => "being taken out of the configuration",
        }
    }
}

impl Lifecycle {
    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    pub(super) const fn is_leaving(&self) -> bool {
        !matches!(self, Self::Running)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Leaving(leave) => Some(leave.deadline),
            Self::HandingOver { deadline } | Self::Stopping { deadline, .. } => Some(*deadline),
            Self::Running | Self::Stopped => None,
        }
    }
}

impl Node {
    /// A request asks this agent to leave; refused if the cluster would lose its quorum.
    pub(super) fn leave_requested(&mut self, now: Instant, id: RequestId, force: bool) {
        if let Lifecycle::Leaving(leave) = &mut self.lifecycle {
            leave.waiting.push(id);
            return;
        }
        match self.leave_refusal() {
            Some(rule) if !force => self.answer(id, Err(RequestError::Refused(rule))),
            Some(_) | None => self.begin_leave(now, Some(id), force),
        }
    }

    /// The operator's signal asks this agent to leave; where that is refused it stops and says so.
    pub(super) fn leave_signalled(&mut self, now: Instant) {
        if self.lifecycle.is_leaving() {
            return;
        }
        match self.leave_refusal() {
            Some(rule) => {
                self.trace(Level::Warn, NodeTrace::NotLeaving(rule));
                self.begin_stop(now, StopReason::Shutdown);
            }
            None => self.begin_leave(now, None, false),
        }
    }

    /// The operator's signal asks this agent to stop: a leader hands over first, so that writes go
    /// on at once (raft.md §8).
    pub(super) fn shutdown_signalled(&mut self, now: Instant) {
        let others = self
            .server
            .as_deref()
            .is_some_and(|server| !server.raft.configuration().is_sole_voter(self.id));
        if matches!(self.lifecycle, Lifecycle::Running) && self.is_leader() && others {
            self.lifecycle = Lifecycle::HandingOver { deadline: now + LEAVE_STEP };
            self.hand_over(now);
        } else {
            self.begin_stop(now, StopReason::Shutdown);
        }
    }

    /// What the leave of this server would mean; `None` on clients.
    fn leave_verdict(&self) -> Option<LeaveVerdict> {
        let is_alive = |server: &&ServerInfo| {
            let member = self.lan.serf.member(&server.name);
            member.is_some_and(|member| member.status == MemberStatus::Alive)
        };
        let alive = self.servers.values().filter(is_alive).map(|server| server.id).collect();
        Some(self.server.as_deref()?.raft.leave_verdict(self.id, &alive))
    }

    /// Why a leave would do harm, if it would (rule P8).
    fn leave_refusal(&self) -> Option<String> {
        match self.leave_verdict()? {
            LeaveVerdict::NotVoter | LeaveVerdict::LastVoter | LeaveVerdict::Allowed => None,
            LeaveVerdict::NoLeader => Some(
                "there is no leader to take this server out of the configuration; use -force to \
                 leave all the same"
                    .to_owned(),
            ),
            LeaveVerdict::BreaksQuorum => Some(
                "the servers that remain would have no quorum; use -force to leave all the same"
                    .to_owned(),
            ),
        }
    }

    fn begin_leave(&mut self, now: Instant, id: Option<RequestId>, force: bool) {
        self.trace(Level::Info, NodeTrace::Leaving);
        let wait_for_removal = self.leave_verdict() == Some(LeaveVerdict::Allowed);
        self.lifecycle = Lifecycle::Leaving(Leave {
            step: Step::AntiEntropy,
            deadline: now + LEAVE_STEP,
            force,
            wait_for_removal,
            waiting: id.into_iter().collect(),
        });
        let boxes = &mut self.boxes;
        self.anti_entropy.handle(now, AntiEntropyInput::Stop, &mut boxes.anti_entropy);
    }

    /// Anti-entropy has nothing on its way any more.
    pub(super) fn synchronisation_stopped(&mut self, now: Instant) {
        if self.at_step(Step::AntiEntropy).is_none() {
            return;
        }
        // Where the others would have no quorum, none of them could remove this server.
        let allowed = self.leave_verdict() == Some(LeaveVerdict::Allowed);
        if self.is_leader() && allowed && !buggify!("leave.nobody_takes_over") {
            self.go_to(now, Step::HandOver, LEAVE_STEP);
            self.hand_over(now);
        } else {
            self.leave_consensus(now);
        }
    }

    /// Another server leads now and will remove this one, or it does not come to that.
    pub(super) fn hand_over_ended(&mut self, now: Instant) {
        if matches!(self.lifecycle, Lifecycle::HandingOver { .. }) {
            return self.begin_stop(now, StopReason::Shutdown);
        }
        if self.at_step(Step::HandOver).is_some() {
            self.leave_consensus(now);
        }
    }

    /// Takes this server out of the configuration if it leads.
    fn leave_consensus(&mut self, now: Instant) {
        let Lifecycle::Leaving(Leave { force, .. }) = self.lifecycle else { return };
        let votes = !matches!(
            self.leave_verdict(),
            None | Some(LeaveVerdict::NotVoter | LeaveVerdict::LastVoter)
        );
        if self.is_leader() && votes {
            self.go_to(now, Step::OwnRemoval, LEAVE_STEP);
            self.propose_own_removal(now, self.id, force);
        } else {
            self.leave_gossip(now);
        }
    }

    fn is_leader(&self) -> bool {
        self.server.as_deref().is_some_and(|server| server.raft.role() == RoleKind::Leader)
    }

    /// This server's removal is committed, or will not be.
    pub(super) fn own_removal_settled(&mut self, now: Instant) {
        if self.at_step(Step::OwnRemoval).is_some() {
            self.leave_gossip(now);
        }
    }

    /// Leaves the pools, one after the other.
    fn leave_gossip(&mut self, now: Instant) {
        match self.wan.as_deref_mut() {
            None => self.leave_lan(now),
            Some(wan) => {
                wan.tell_serf(now, SerfInput::Leave);
                self.go_to(now, Step::Wan, WAN_STEP);
            }
        }
    }

    fn leave_lan(&mut self, now: Instant) {
        self.go_to(now, Step::Gossip, GOSSIP_STEP);
        self.rpc.handle(now, RpcInput::Leaving, &mut self.boxes.rpc);
        self.lan.tell_serf(now, SerfInput::Leave);
    }

    /// The farewell has spread in a pool.
    pub(super) fn farewell_spread(&mut self, now: Instant, pool: PoolName) {
        if pool == PoolName::Wan {
            if self.at_step(Step::Wan).is_some() {
                self.leave_lan(now);
            }
            return;
        }
        if self.at_step(Step::Gossip).is_none() {
            return;
        }
        match self.drain_time() {
            Duration::ZERO => self.drained(now),
            time => {
                self.trace(Level::Info, NodeTrace::Draining(time));
                self.go_to(now, Step::Drain, time);
            }
        }
    }

    /// How long requests on their way are waited for: clients answer nobody, and alone in its pools
    /// a server is asked by nobody.
    fn drain_time(&self) -> Duration {
        let wan = self.wan.as_deref().is_some_and(|wan| wan.serf.has_company());
        let asked = wan || self.lan.serf.has_company();
        let server = self.config.server.as_ref().filter(|_| asked);
        server.map_or(Duration::ZERO, |server| server.leave_drain)
    }

    /// Requests on their way had their time.
    fn drained(&mut self, now: Instant) {
        let Lifecycle::Leaving(leave) = &self.lifecycle else { return };
        if leave.wait_for_removal && self.leave_verdict() != Some(LeaveVerdict::NotVoter) {
            self.go_to(now, Step::Removal, LEAVE_STEP);
        } else {
            self.finish_leave(now);
        }
    }

    /// A committed configuration does not name this server.
    pub(super) fn removed_from_configuration(&mut self, now: Instant) {
        self.trace(Level::Info, NodeTrace::Removed);
        if self.at_step(Step::Removal).is_some() {
            self.finish_leave(now);
        }
    }

    /// Takes the next step of a leave, or ends it, if the present one takes too long.
    pub(super) fn leave_timeout(&mut self, now: Instant) {
        if self.lifecycle.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let step = match &self.lifecycle {
            Lifecycle::Leaving(leave) => leave.step,
            Lifecycle::HandingOver { .. } => return self.hand_over_ended(now),
            Lifecycle::Stopping { reason, .. } => {
                let reason = reason.clone();
                return self.stop(reason);
            }
            Lifecycle::Running | Lifecycle::Stopped => return,
        };
        // The time of a drain is meant to pass; any other step should have ended before.
        if !matches!(step, Step::Drain) {
            self.trace(Level::Warn, NodeTrace::LeaveStep(step.name()));
        }
        match step {
            Step::AntiEntropy => self.synchronisation_stopped(now),
            Step::HandOver => self.hand_over_ended(now),
            Step::OwnRemoval => self.leave_gossip(now),
            Step::Wan => self.leave_lan(now),
            Step::Gossip => self.farewell_spread(now, PoolName::Lan),
            Step::Drain => self.drained(now),
            Step::Removal => self.finish_leave(now),
        }
    }

    fn finish_leave(&mut self, now: Instant) {
        if let Lifecycle::Leaving(leave) = &mut self.lifecycle {
            for id in std::mem::take(&mut leave.waiting) {
                self.answer(id, Ok(Response::Done));
            }
        }
        self.begin_stop(now, StopReason::Left);
    }

    /// Seals the log, then stops.
    pub(super) fn begin_stop(&mut self, now: Instant, reason: StopReason) {
        if self.lifecycle.is_stopped() {
            return;
        }
        if self.writes.is_idle(Purpose::is_of_log) && self.seal_log() {
            self.lifecycle = Lifecycle::Stopping { reason, deadline: now + LEAVE_STEP };
        } else {
            self.stop(reason);
        }
    }

    /// The seal is durable.
    pub(super) fn sealed(&mut self) {
        if let Lifecycle::Stopping { reason, .. } = &self.lifecycle {
            let reason = reason.clone();
            self.stop(reason);
        }
    }

    fn at_step(&self, step: Step) -> Option<&Leave> {
        match &self.lifecycle {
            Lifecycle::Leaving(leave) if leave.step == step => Some(leave),
            Lifecycle::Leaving(_)
            | Lifecycle::Running
            | Lifecycle::HandingOver { .. }
            | Lifecycle::Stopping { .. }
            | Lifecycle::Stopped => None,
        }
    }

    fn go_to(&mut self, now: Instant, step: Step, span: Duration) {
        if let Lifecycle::Leaving(leave) = &mut self.lifecycle {
            leave.step = step;
            leave.deadline = now + span;
        }
    }
}
