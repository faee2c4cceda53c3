//! Services and checks registered on this agent, and the current state of its checks.
//!
//! Implements http-api.md §1.14, §5 and §6 and agent-config.md §6. What a configuration file
//! defines is never persisted and wins over a persisted registration of the same id; what came
//! over HTTP is durable before it is answered. Scheduling of checks is [`crate::checks`], the
//! catalog's copy is [`crate::anti_entropy`]; this machine only says what changed.
//!
//! Invariants: every check with a service names a registered one (INV-LOCAL-1); the view holds
//! exactly the registered services and checks (INV-LOCAL-2).

mod alias;
pub mod definition;
mod maintenance;
mod registry;
mod restore;
#[cfg(test)]
mod tests;
mod trace;

pub use maintenance::{NODE_MAINTENANCE, SERVICE_MAINTENANCE};
pub use trace::AgentTrace;

use crate::catalog::model::{Check, CheckStatus, Service};
use crate::config::ConfigError;
use crate::id::{CheckId, NodeName, RequestId, ServiceId};
use crate::machine::{Machine, Outbox};
use crate::node::request::RequestError;
use crate::pack_struct;
use crate::storage::op::StorageFault;
use crate::storage::registrations::{Change as Stored, Registrations, TtlState};
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use definition::{
    ALL_PASSING, CheckDefinition, CheckKind, Origin, OutputRules, ServiceDefinition, failing_text,
};
use imbl::OrdMap;
use registry::Registry;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Services one agent keeps at most, so that a runaway program cannot fill its memory.
pub const SERVICES_MAX: usize = 100_000;
/// Checks one agent keeps at most.
pub const CHECKS_MAX: usize = 200_000;

/// What readers see of this agent's own registrations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalView {
    /// Services by id.
    pub services: OrdMap<ServiceId, Arc<Service>>,
    /// Checks by id, with their current state.
    pub checks: OrdMap<CheckId, Arc<Check>>,
}

/// One batch of changes on its way to the disk; later ones have larger numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistTicket(pub u64);

/// What configuration files and earlier runs say at the start.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// This node.
    pub node: NodeName,
    /// Services of the configuration files.
    pub services: Vec<ServiceDefinition>,
    /// Further checks of the configuration files.
    pub checks: Vec<CheckDefinition>,
    /// What was persisted.
    pub restored: Registrations,
    /// What is kept of what checks say.
    pub output: OutputRules,
    /// Civil time of the start; decides which TTL states have expired.
    pub wall: WallClock,
}

/// What is to be in maintenance, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// The service; `None` for the whole node.
    pub service: Option<ServiceId>,
    /// Whether it goes into maintenance or comes out.
    pub enable: bool,
    /// For people; empty for none.
    pub reason: String,
}
pack_struct!(Maintenance { service, enable, reason });

/// What is asked of this agent's registrations, as in `RequestBody`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalRequest {
    /// Register a service with its checks.
    RegisterService {
        /// The service.
        definition: Box<ServiceDefinition>,
        /// Whether its checks that are not named go away.
        replace_existing_checks: bool,
    },
    /// Remove a service and its checks.
    DeregisterService(ServiceId),
    /// Register a check.
    RegisterCheck(Box<CheckDefinition>),
    /// Remove a check.
    DeregisterCheck(CheckId),
    /// Report the state of a TTL check.
    UpdateTtl {
        /// The check.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
        /// What to show.
        output: String,
    },
    /// Put something into maintenance, or take it out.
    Maintenance(Box<Maintenance>),
    /// Replace what came from configuration files.
    Reload {
        /// Services of the files.
        services: Vec<ServiceDefinition>,
        /// Further checks of the files.
        checks: Vec<CheckDefinition>,
        /// Whether nothing is kept of what checks say from now on.
        discard_output: bool,
    },
}

/// What this machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalInput {
    /// A request; answered by `Done` or `Reply`.
    Request {
        /// The answer names it.
        id: RequestId,
        /// Civil time of its arrival.
        wall: WallClock,
        /// What is asked.
        body: LocalRequest,
    },
    /// Everything up to this batch is durable.
    Persisted(PersistTicket),
    /// This batch could not be written.
    PersistFailed {
        /// Which.
        ticket: PersistTicket,
        /// Why.
        error: StorageFault,
    },
    /// A check has a new result, from `ChecksOutput::Result`.
    CheckResult {
        /// Which.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
        /// What there is to read.
        output: String,
    },
    /// A TTL check was not updated in time, from `ChecksOutput::Expired`.
    TtlExpired(CheckId),
    /// A check was critical for too long, from `ChecksOutput::Reap`.
    Reap {
        /// Its service, to be removed.
        service: ServiceId,
        /// The check.
        check: CheckId,
    },
    /// The catalog's tags win (`enable_tag_override`), from `AntiEntropyOutput::AdoptTags`.
    AdoptTags {
        /// The service.
        service: ServiceId,
        /// Its tags in the catalog.
        tags: Vec<String>,
    },
}

/// What anti-entropy has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A service came, changed or went.
    Service(ServiceId),
    /// A check came, changed its definition or state, or went.
    Check(CheckId),
    /// Only a check's output changed; it may reach the catalog later.
    Output(CheckId),
    /// The view took over what the catalog already has.
    Adopted,
}

/// A check to schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckStart {
    /// How it finds out.
    pub definition: CheckDefinition,
    /// Its state.
    pub status: CheckStatus,
    /// For a TTL check, how long until it expires.
    pub remaining: Duration,
}

/// What this machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalOutput {
    /// Make these changes durable, in order; answered by `Persisted` or `PersistFailed`. At most
    /// one batch is on its way.
    Persist {
        /// The completion names it.
        ticket: PersistTicket,
        /// The changes, for `RegistrationLog::append`.
        changes: Vec<Stored>,
    },
    /// The request is refused, or its outcome is not known.
    Reply {
        /// Which.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
    /// The request is done and durable; anti-entropy answers it once the catalog was tried
    /// (`AntiEntropyInput::Answer`).
    Done(RequestId),
    /// Schedule this check, or replace its definition (`ChecksInput::Start`).
    StartCheck(Box<CheckStart>),
    /// Forget this check (`ChecksInput::Stop`).
    StopCheck(CheckId),
    /// A check that does not run was reported, or decided here (`ChecksInput::Told`).
    Told {
        /// Which.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
    },
    /// The view changed: publish it and show it to anti-entropy (`AntiEntropyInput::Local`).
    Changed(Change),
    /// Something worth telling.
    Trace(Level, AgentTrace),
}

impl From<(Level, AgentTrace)> for LocalOutput {
    fn from((level, trace): (Level, AgentTrace)) -> Self {
        Self::Trace(level, trace)
    }
}

/// The registrations of this agent.
#[derive(Clone, Debug)]
pub struct Local {
    registry: Registry,
    /// The newest batch handed out.
    issued: PersistTicket,
    /// The newest batch that is complete.
    completed: PersistTicket,
    /// Requests that wait for a batch, in order of their batches.
    waiting: VecDeque<(PersistTicket, RequestId)>,
}

impl Local {
    /// Merges what files and earlier runs say, and starts every check.
    ///
    /// - Errors: a check of a file that names an unknown service, or too many definitions.
    pub fn new(config: LocalConfig, out: &mut Outbox<LocalOutput>) -> Result<Self, ConfigError> {
        let mut registry = Registry::new(config.node.clone(), config.output);
        restore::restore(&mut registry, config, out)?;
        alias::settle(&mut registry, out);
        let mut local = Self {
            registry,
            issued: PersistTicket::default(),
            completed: PersistTicket::default(),
            waiting: VecDeque::new(),
        };
        local.persist(out);
        Ok(local)
    }

    /// What readers see; cloning it is cheap.
    pub const fn view(&self) -> &LocalView {
        self.registry.view()
    }

    fn request(
        &mut self,
        id: RequestId,
        wall: WallClock,
        body: LocalRequest,
        out: &mut Outbox<LocalOutput>,
    ) {
        let reported = matches!(body, LocalRequest::UpdateTtl { .. });
        match self.perform(wall, body, out) {
            Err(error) => {
                self.persist(out);
                out.push(LocalOutput::Reply { id, error });
            }
            // A report is as good as its time to live; it does not wait for the disk.
            Ok(()) if reported => {
                self.persist(out);
                out.push(LocalOutput::Done(id));
            }
            Ok(()) => {
                self.persist(out);
                match self.newest() {
                    Some(ticket) => self.waiting.push_back((ticket, id)),
                    None => out.push(LocalOutput::Done(id)),
                }
            }
        }
    }

    fn perform(
        &mut self,
        wall: WallClock,
        body: LocalRequest,
        out: &mut Outbox<LocalOutput>,
    ) -> Result<(), RequestError> {
        match body {
            LocalRequest::RegisterService { definition, replace_existing_checks } => {
                self.registry.register_service(*definition, replace_existing_checks, out)
            }
            LocalRequest::DeregisterService(service) => {
                self.registry.remove_service(&service, out);
                Ok(())
            }
            LocalRequest::RegisterCheck(definition) => {
                self.registry.register_check(*definition, out)
            }
            LocalRequest::DeregisterCheck(check) => {
                self.registry.remove_check(&check, out);
                Ok(())
            }
            LocalRequest::UpdateTtl { check, status, output } => {
                self.registry.report_ttl(&check, status, &output, wall, out)
            }
            LocalRequest::Maintenance(maintenance) => {
                maintenance::set(&mut self.registry, *maintenance, out)
            }
            LocalRequest::Reload { services, checks, discard_output } => {
                self.registry.set_discard(discard_output);
                self.registry.reload(services, checks, out)
            }
        }
    }

    /// Hands out what the registry wants stored, if anything and nothing is on its way: the file
    /// has to be known up to its end before it is appended to.
    fn persist(&mut self, out: &mut Outbox<LocalOutput>) {
        if self.completed < self.issued || !self.registry.has_unstored() {
            return;
        }
        self.issued = PersistTicket(self.issued.0.saturating_add(1));
        let changes = self.registry.take_unstored();
        out.push(LocalOutput::Persist { ticket: self.issued, changes });
    }

    /// The batch after which everything so far is stored; `None` if it is.
    fn newest(&self) -> Option<PersistTicket> {
        if self.registry.has_unstored() {
            return Some(PersistTicket(self.issued.0.saturating_add(1)));
        }
        (self.completed < self.issued).then_some(self.issued)
    }

    fn persisted(
        &mut self,
        ticket: PersistTicket,
        fault: Option<StorageFault>,
        out: &mut Outbox<LocalOutput>,
    ) {
        assert!(ticket <= self.issued, "a batch is complete that was never handed out");
        self.completed = self.completed.max(ticket);
        if let Some(fault) = fault {
            crate::trace!(out, Level::Error, AgentTrace::NotStored(fault));
        }
        while self.waiting.front().is_some_and(|(needed, _)| *needed <= ticket) {
            let Some((_, id)) = self.waiting.pop_front() else { break };
            out.push(match fault {
                None => LocalOutput::Done(id),
                Some(fault) => LocalOutput::Reply {
                    id,
                    error: RequestError::Unknown(format!("failed to store the change: {fault}")),
                },
            });
        }
        self.persist(out);
    }
}

impl Machine for Local {
    type Input = LocalInput;
    type Output = LocalOutput;

    fn handle(&mut self, _now: Instant, input: LocalInput, out: &mut Outbox<LocalOutput>) {
        match input {
            LocalInput::Request { id, wall, body } => self.request(id, wall, body, out),
            LocalInput::Persisted(ticket) => self.persisted(ticket, None, out),
            LocalInput::PersistFailed { ticket, error } => self.persisted(ticket, Some(error), out),
            LocalInput::CheckResult { check, status, output } => {
                self.registry.set_state(&check, status, output, out);
            }
            LocalInput::TtlExpired(check) => self.registry.expire_ttl(&check, out),
            LocalInput::Reap { service, check } => {
                if self.registry.has_service(&service) {
                    let reaped = AgentTrace::Reaped { service: service.clone(), check };
                    crate::trace!(out, Level::Info, reaped);
                    self.registry.remove_service(&service, out);
                    self.persist(out);
                }
            }
            LocalInput::AdoptTags { service, tags } => {
                self.registry.adopt_tags(&service, tags, out);
            }
        }
        alias::settle(&mut self.registry, out);
    }

    /// Nothing here waits for a time.
    fn handle_timeout(&mut self, _now: Instant, _out: &mut Outbox<LocalOutput>) {}

    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}
