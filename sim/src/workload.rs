//! Clients of the simulated cluster: registers in the catalog, services on agents, those of the
//! key-value table ([`crate::kv`]), those that watch ([`crate::watch`]), those that look for
//! services ([`crate::finder`]), and operators who put services into maintenance and move
//! leadership.
//!
//! A register is an external node whose metadata carries a version. It has one write on its way at
//! a time, so what a read may return is a range: not below the newest write acknowledged before the
//! read was sent, not above the newest one ever sent (linearizability of a single-writer register;
//! raft.md I11, I12). Stale reads may return anything that was ever sent.

use crate::checker::{KvChecker, Violation};
use crate::finder::{FindAction, Finders};
use crate::kv::{KvAction, KvClients};
use crate::net::HostId;
use crate::streams::Process;
use crate::watch::{self, WatchAction, Watchers};
use crate::world::{Reply, World, world_rng};
use std::collections::{BTreeMap, BTreeSet};
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::{Node, Service, Weights};
use terraform_core::catalog::query::{Consistency, NodeQuery, Query, Rows};
use terraform_core::id::{ModifyIndex, NodeName, RequestId, ServiceId, ServiceName};
use terraform_core::local::Maintenance;
use terraform_core::local::definition::{Origin, ServiceDefinition};
use terraform_core::node::request::{
    OperatorRequest, Request, RequestBody, RequestContext, RequestError, Response,
};
use terraform_core::rng::{Rng, Stream};

/// Registers there are.
pub const REGISTERS: usize = 5;
/// Services each agent may have registered.
pub const SERVICES: u64 = 3;

/// Something that one client does: all that is drawn of it, so that it can be kept and performed in
/// another world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes the next version of a register.
    Write {
        /// Whom it asks.
        host: HostId,
        /// Which.
        register: usize,
    },
    /// Reads a register.
    Read {
        /// Whom it asks.
        host: HostId,
        /// Which.
        register: usize,
        /// How fresh.
        consistency: Consistency,
    },
    /// Registers a service on an agent.
    AddService {
        /// Whose agent.
        host: HostId,
        /// Which.
        number: u64,
        /// Where it listens.
        port: u16,
    },
    /// Takes a service off an agent.
    RemoveService {
        /// Whose agent.
        host: HostId,
        /// Which.
        number: u64,
    },
    /// Something with keys and values.
    Kv(KvAction),
    /// Something of those that watch.
    Watch(WatchAction),
    /// Something of those that look for services.
    Find(FindAction),
    /// Puts an agent or one of its services into maintenance, or takes it out.
    Maintain {
        /// Whose agent.
        host: HostId,
        /// Which service; `None` for the whole node.
        number: Option<u64>,
        /// Whether into it.
        enable: bool,
    },
    /// Wants another server to lead.
    HandOver {
        /// Whom it asks.
        host: HostId,
    },
}

/// One operation on its way.
#[derive(Clone, Debug)]
enum Operation {
    Write { register: usize, version: u64 },
    Read { register: usize, floor: u64 },
    StaleRead { register: usize },
    Agent,
}

#[derive(Clone, Debug, Default)]
struct Register {
    /// The newest version ever sent.
    sent: u64,
    /// The newest version acknowledged.
    acknowledged: u64,
    /// Versions whose outcome nobody knows: they may take effect at any later time, or never.
    unknown: BTreeSet<u64>,
    /// Whether a write is on its way.
    busy: bool,
}

impl Register {
    /// Whether a read sent when `floor` was the newest acknowledged version may give `version`.
    fn may_be(&self, floor: u64, version: u64) -> bool {
        (floor..=self.sent).contains(&version) || self.unknown.contains(&version)
    }
}

/// What clients were told is done.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    registers: Vec<Register>,
}

impl Acknowledged {
    /// The names of all registers.
    pub fn names(&self) -> impl Iterator<Item = (usize, NodeName)> {
        (0..self.registers.len()).map(|at| (at, register_name(at)))
    }

    /// Whether a register may have `version` once nothing is on its way any more.
    pub fn may_be(&self, register: usize, version: u64) -> bool {
        self.registers
            .get(register)
            .is_some_and(|register| register.may_be(register.acknowledged, version))
    }
}

/// All clients of a world.
#[derive(Debug)]
pub struct Workload {
    /// What they were told.
    pub acknowledged: Acknowledged,
    /// Operations answered, and of those the successful ones.
    pub answered: u64,
    /// Operations answered with success.
    pub succeeded: u64,
    /// Clients of the key-value table.
    pub kv: KvClients,
    /// Clients that watch.
    pub watchers: Watchers,
    /// Clients that look for services.
    finders: Finders,
    /// What draws what operators do.
    operators: Rng,
    waiting: BTreeMap<(Process, RequestId), Operation>,
    rng: Rng,
}

fn register_name(at: usize) -> NodeName {
    NodeName::parse(&format!("register-{at}")).expect("letters, a dash and digits are a name")
}

impl Workload {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64) -> Self {
        let registers = (0..REGISTERS).map(|_| Register::default()).collect();
        Self {
            acknowledged: Acknowledged { registers },
            answered: 0,
            succeeded: 0,
            kv: KvClients::new(seed),
            watchers: Watchers::new(seed),
            finders: Finders::new(seed),
            operators: world_rng(seed, Stream::Checks),
            waiting: BTreeMap::new(),
            rng: world_rng(seed, Stream::Rpc),
        }
    }

    /// What clients do at this moment: one of them something, those that watch what they have to,
    /// and now and then those that look for services, and operators. Where backups are restored
    /// there are no registers, and leadership is moved only while things go wrong.
    pub fn draw(&mut self, world: &World, restores: bool, moves: bool) -> Vec<Action> {
        let watchers = (0..watch::CLIENTS).filter_map(|at| self.watchers.draw(at, world));
        let mut actions: Vec<Action> = watchers.map(Action::Watch).collect();
        actions.extend(self.finders.draw(world).map(Action::Find));
        actions.extend(self.operate(world, moves));
        if self.rng.chance(2, 5) {
            actions.extend(self.kv.draw(world, restores).map(Action::Kv));
            return actions;
        }
        let host = self.rng.index(world.hosts.len());
        let register = self.rng.index(REGISTERS);
        let choice = self.rng.below(100);
        let read = |consistency| Action::Read { host, register, consistency };
        let action = match choice {
            // A backup takes the registers away.
            _ if restores => self.any_service(host),
            0..40 => Action::Write { host, register },
            40..60 => read(Consistency::Leader),
            60..70 => read(Consistency::Consistent),
            70..80 => read(Consistency::Stale),
            _ => self.any_service(host),
        };
        let writes = matches!(action, Action::Write { .. });
        let waits = writes && self.acknowledged.registers[register].busy;
        if world.hosts[host].is_up() && !waits {
            actions.push(action);
        }
        actions
    }

    fn operate(&mut self, world: &World, moves: bool) -> Option<Action> {
        let rng = &mut self.operators;
        if !rng.chance(1, 128) {
            return None;
        }
        let host = rng.index(world.hosts.len());
        let action = if moves && rng.chance(1, 4) {
            Action::HandOver { host }
        } else {
            let number = rng.chance(2, 3).then(|| rng.below(SERVICES));
            Action::Maintain { host, number, enable: rng.chance(1, 2) }
        };
        world.hosts[host].is_up().then_some(action)
    }

    fn any_service(&mut self, host: HostId) -> Action {
        let number = self.rng.below(SERVICES);
        if self.rng.chance(1, 3) {
            return Action::RemoveService { host, number };
        }
        let port = u16::try_from(self.rng.below(9000)).unwrap_or(0);
        Action::AddService { host, number, port }
    }

    /// Performs what a client does, unless that is impossible by now.
    pub fn perform(
        &mut self,
        world: &mut World,
        kv: &mut KvChecker,
        action: &Action,
    ) -> Result<(), Violation> {
        match action {
            Action::Kv(action) => return self.kv.perform(world, kv, action),
            Action::Watch(action) => return self.watchers.perform(world, kv, action),
            Action::Find(action) => return self.finders.perform(world, kv, action),
            Action::Write { host, register } => self.write(world, *host, *register),
            Action::Read { host, register, consistency } => {
                self.read(world, *host, *register, *consistency);
            }
            Action::AddService { host, number, port } => {
                let definition = Box::new(definition(service_id(*number).as_str(), *port));
                let body =
                    RequestBody::RegisterService { definition, replace_existing_checks: false };
                self.send(world, *host, Request::new(body), Operation::Agent);
            }
            Action::RemoveService { host, number } => {
                let body = RequestBody::DeregisterService(service_id(*number));
                self.send(world, *host, Request::new(body), Operation::Agent);
            }
            Action::Maintain { host, number, enable } => {
                let (service, reason) = (number.map(service_id), String::new());
                let wanted = Box::new(Maintenance { service, enable: *enable, reason });
                let body = RequestBody::Maintenance(wanted);
                self.send(world, *host, Request::new(body), Operation::Agent);
            }
            Action::HandOver { host } => {
                let body = RequestBody::Operator(OperatorRequest::TransferLeadership(None));
                self.send(world, *host, Request::new(body), Operation::Agent);
            }
        }
        Ok(())
    }

    fn send(&mut self, world: &mut World, host: HostId, request: Request, operation: Operation) {
        let process = world.hosts[host].process();
        world.note(format!("> host {host} is asked {operation:?}"));
        if let Some(id) = world.request(host, request) {
            self.waiting.insert((process, id), operation);
        }
    }

    fn write(&mut self, world: &mut World, host: HostId, register: usize) {
        let state = &mut self.acknowledged.registers[register];
        if state.busy || !world.hosts[host].is_up() {
            return;
        }
        state.busy = true;
        state.sent += 1;
        let version = state.sent;
        let node = Node {
            id: None,
            name: register_name(register),
            address: "192.0.2.1".to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: [("v".to_owned(), version.to_string())].into(),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let registration =
            Registration { node, skip_node_update: false, service: None, checks: Vec::new() };
        let body = RequestBody::Write(Command::Register(Box::new(registration)));
        self.send(world, host, Request::new(body), Operation::Write { register, version });
    }

    fn read(&mut self, world: &mut World, host: HostId, register: usize, consistency: Consistency) {
        let query = Query::Node(NodeQuery::all(register_name(register).to_string()));
        let context = RequestContext { consistency, ..RequestContext::default() };
        let floor = self.acknowledged.registers[register].acknowledged;
        let operation = match consistency {
            Consistency::Stale => Operation::StaleRead { register },
            Consistency::Leader | Consistency::Consistent => Operation::Read { register, floor },
        };
        self.send(world, host, Request { context, body: RequestBody::Query(query) }, operation);
    }

    /// Takes in the answers that have arrived; an impossible one is a violation.
    pub fn take_replies(&mut self, world: &mut World, kv: &mut KvChecker) -> Result<(), Violation> {
        // Some answers are answered, and the answer to that may be there at once.
        while !world.replies.is_empty() {
            for reply in std::mem::take(&mut world.replies) {
                self.take(world, kv, reply)?;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        world: &mut World,
        kv: &mut KvChecker,
        reply: Reply,
    ) -> Result<(), Violation> {
        if let Some(judged) = self.watchers.take(&reply, kv) {
            return judged;
        }
        if let Some(judged) = self.finders.take(world, &reply, kv) {
            self.count(&reply.result);
            return judged;
        }
        let Reply { process, id, at: _, event, result } = reply;
        if let Some(judged) = self.kv.take(world, (process, id), &result, event, kv) {
            self.count(&result);
            return judged;
        }
        let Some(operation) = self.waiting.remove(&(process, id)) else { return Ok(()) };
        let shown = result.as_ref().map(|_| "done");
        world.note(format!("< host {} answers {operation:?}: {shown:?}", process.host));
        self.count(&result);
        self.judge(operation, result)
    }

    fn count(&mut self, result: &Result<Response, RequestError>) {
        self.answered += 1;
        self.succeeded += u64::from(result.is_ok());
    }

    /// Whoever waits for an answer of this process waits in vain.
    pub fn forget(&mut self, process: Process) {
        self.kv.forget(process);
        self.watchers.forget(process);
        self.finders.forget(process);
        let gone: Vec<_> = self.waiting.keys().filter(|(of, _)| *of == process).copied().collect();
        for key in gone {
            if let Some(Operation::Write { register, version }) = self.waiting.remove(&key) {
                let state = &mut self.acknowledged.registers[register];
                state.busy = false;
                state.unknown.insert(version);
            }
        }
    }

    fn judge(
        &mut self,
        operation: Operation,
        result: Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        match operation {
            Operation::Agent => Ok(()),
            Operation::Write { register, version } => {
                let state = &mut self.acknowledged.registers[register];
                state.busy = false;
                match result {
                    Ok(_) => state.acknowledged = version.max(state.acknowledged),
                    Err(RequestError::Unknown(_)) => {
                        state.unknown.insert(version);
                    }
                    // Every other error says that nothing happened.
                    Err(_) => {}
                }
                Ok(())
            }
            Operation::Read { register, floor } => self.may_read(register, floor, &result, "I12"),
            Operation::StaleRead { register } => self.may_read(register, 0, &result, "C6"),
        }
    }

    fn may_read(
        &self,
        register: usize,
        floor: u64,
        result: &Result<Response, RequestError>,
        rule: &'static str,
    ) -> Result<(), Violation> {
        let Ok(Response::Answer(answer)) = result else { return Ok(()) };
        let Rows::Node(found) = &answer.rows else { return Ok(()) };
        let version = found.as_ref().and_then(|found| found.node.meta.get("v"));
        let version = version.and_then(|text| text.parse().ok()).unwrap_or(0);
        let state = &self.acknowledged.registers[register];
        if state.may_be(floor, version) {
            return Ok(());
        }
        let name = register_name(register);
        let consistency = answer.consistency;
        let facts = format!(
            "a {consistency:?} read of {name}, sent after {floor} was acknowledged, gave {version}: \
             {state:?}"
        );
        Err(Violation { rule, facts })
    }
}

fn service_id(number: u64) -> ServiceId {
    ServiceId::parse(&format!("service-{number}")).expect("letters, a dash and digits are an id")
}

/// A service whose name is its identity.
pub(crate) fn definition(id: &str, port: u16) -> ServiceDefinition {
    let name = ServiceName::parse(id).expect("an id is a name");
    let id = ServiceId::parse(id).expect("letters, a dash and digits are an id");
    ServiceDefinition {
        service: Service {
            id,
            name,
            tags: Vec::new(),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: i64::from(port),
            weights: Weights::default(),
            enable_tag_override: false,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        },
        checks: Vec::new(),
        token: String::new(),
        origin: Origin::Api,
    }
}
