//! The named scenario `federation`: two datacenters of three servers meet over the WAN.
//!
//! One join connects all; reads and writes cross; while the link between the two is cut, what must
//! cross fails with a clear error and each datacenter works on; once it is healed, all is as
//! before. The rules of consensus and gossip are checked in each datacenter after every event.

use crate::checker::{Checkers, Violation};
use crate::host::address_of;
use crate::net::HostId;
use crate::plan::Plan;
use crate::world::World;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::{Node, Service, Weights};
use terraform_core::catalog::prepared::{
    Executed, Execution, PreparedQuery, PreparedWrite, Selection,
};
use terraform_core::catalog::query::{NodeQuery, NodesQuery, Query, Rows};
use terraform_core::id::{
    Datacenter, ModifyIndex, NodeName, PoolName, PreparedQueryId, ServiceId, ServiceName,
};
use terraform_core::node::request::{Request, RequestBody, RequestError, Response};
use terraform_core::raft::{Raft, RoleKind};
use terraform_core::serf::MemberStatus;

/// Its name among the scenarios.
pub const NAME: &str = "federation";
/// The worlds it is performed in.
pub const SEEDS: Range<u64> = 1..5;

/// Servers of each datacenter; the hosts of the first come first.
const SERVERS: usize = 3;
/// Time between looks at a fact.
const LOOK: Duration = Duration::from_millis(100);
/// How long an answer may take, whatever is cut: longer than any request is held.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may stay unknown to another one: two rounds of flooding.
const MEET_LIMIT: Duration = Duration::from_secs(120);
/// How long the link stays cut: far longer than a suspicion in the WAN pool runs.
const CUT_TIME: Duration = Duration::from_secs(300);
/// How long the pools may take to find together again: reconnects are tried every 30 s by chance.
const HEAL_LIMIT: Duration = Duration::from_secs(600);

/// A service that one of them has.
const SERVICE: &str = "far";

/// Two datacenters in one world.
#[derive(Debug)]
pub struct Federation {
    /// Their hosts.
    pub world: World,
    checkers: [Checkers; 2],
}

/// Performs the scenario in the world of `seed`; the world is returned for the report.
pub fn perform(seed: u64) -> (Result<(), Violation>, World) {
    let plan = Plan::quiet(seed, SERVERS, 0);
    let mut world = World::new(seed, plan.world.clone());
    for id in 0..2 * SERVERS {
        let mut config = plan.config(id % SERVERS);
        config.datacenter = datacenter(id / SERVERS);
        world.add_host(config);
    }
    let mut federation = Federation { world, checkers: Default::default() };
    let result = federation.all();
    (result, federation.world)
}

fn datacenter(number: usize) -> Datacenter {
    Datacenter::parse(&format!("dc{}", number + 1)).expect("letters and a digit are a datacenter")
}

fn wrong<T>(facts: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { rule: NAME, facts: facts.into() })
}

/// A node that nobody runs an agent on.
fn register(name: &str) -> RequestBody {
    let node = Node {
        id: None,
        name: NodeName::parse(name).expect("letters are a name"),
        address: "192.0.2.1".to_owned(),
        tagged_addresses: Default::default(),
        meta: Default::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let (service, checks) = (None, Vec::new());
    let registration = Registration { node, skip_node_update: false, service, checks };
    RequestBody::Write(Command::Register(Box::new(registration)))
}

/// The instance of a service on such a node.
fn instance() -> RequestBody {
    let RequestBody::Write(Command::Register(mut registration)) = register("far-away") else {
        unreachable!("a registration is a write of the catalog")
    };
    registration.service = Some(Service {
        id: ServiceId::parse(SERVICE).expect("letters are an id"),
        name: ServiceName::parse(SERVICE).expect("letters are a name"),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: Default::default(),
        meta: Default::default(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    });
    RequestBody::Write(Command::Register(registration))
}

impl Federation {
    fn all(&mut self) -> Result<(), Violation> {
        for host in 0..2 * SERVERS {
            self.world.start(host).map_err(|facts| Violation { rule: NAME, facts })?;
        }
        for host in 0..2 * SERVERS {
            self.join(PoolName::Lan, host, host / SERVERS * SERVERS)?;
        }
        self.until("a leader in each datacenter", MEET_LIMIT, |world| {
            (0..2).all(|number| has_leader(world, number))
        })?;
        self.join(PoolName::Wan, 1, 2 * SERVERS - 1)?;
        self.until("six members in every WAN pool", MEET_LIMIT, all_met)?;
        self.crosses("before")?;
        self.prepare()?;
        self.finds("before", 1)?;
        self.until("the places of all servers", MEET_LIMIT, all_placed)?;
        self.apart()?;
        self.world.note("= the link is healed");
        self.world.net.heal();
        self.until("the WAN pools to find together", HEAL_LIMIT, all_met)?;
        self.crosses("after")?;
        self.finds("after", 1)
    }

    /// The second datacenter has the only instance of a service, and the first a prepared query
    /// for it, which names a datacenter that nobody knows as well.
    fn prepare(&mut self) -> Result<(), Violation> {
        let query = PreparedQuery {
            id: PreparedQueryId::from_bytes([1; 16]),
            name: SERVICE.to_owned(),
            session: None,
            token: String::new(),
            template: None,
            service: Selection {
                service: SERVICE.to_owned(),
                datacenters: vec!["nowhere".to_owned(), datacenter(1).to_string()],
                ..Selection::default()
            },
            ttl: None,
            ttl_text: String::new(),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let create = Command::Prepared(PreparedWrite::Create(Box::new(query)));
        for (number, body) in [(0, RequestBody::Write(create)), (1, instance())] {
            match self.ask(1, number, body)? {
                Ok(Response::Done) => {}
                other => return wrong(format!("a write was answered with {other:?}")),
            }
        }
        Ok(())
    }

    /// The prepared query finds as many instances, in the other datacenter.
    fn finds(&mut self, moment: &str, count: usize) -> Result<(), Violation> {
        for host in 0..SERVERS {
            let execution = Execution {
                query: SERVICE.to_uppercase(),
                near: None,
                limit: 0,
                agent: NodeName::parse("somebody").expect("letters are a name"),
                agent_datacenter: datacenter(0),
                address: None,
            };
            let body = RequestBody::ExecutePrepared(Box::new(execution));
            let found = match self.ask(host, 0, body)? {
                Ok(Response::Executed(found)) => found,
                other => return wrong(format!("{moment}, an execution gave {other:?}")),
            };
            let Executed { instances, datacenter: at, failovers, .. } = *found;
            if (instances.len(), &at, failovers) != (count, &datacenter(1), 1) {
                let found = instances.len();
                return wrong(format!("{moment}, {found} found in {at} after {failovers} others"));
            }
        }
        Ok(())
    }

    /// Requests reach the other datacenter, from both sides, and change nothing on their own.
    fn crosses(&mut self, name: &str) -> Result<(), Violation> {
        for (from, number) in [(2, 1), (SERVERS, 0)] {
            match self.ask(from, number, register(name))? {
                Ok(Response::Done) => {}
                other => return wrong(format!("a write across was answered with {other:?}")),
            }
            if !self.knows(from, number, name)? {
                return wrong(format!("host {from} does not find across what it wrote"));
            }
            if number == 1 && self.knows(from, 0, name)? {
                return wrong("a write across changed the own datacenter as well");
            }
        }
        let expected = [[datacenter(0), datacenter(1)], [datacenter(1), datacenter(0)]];
        for host in 0..2 * SERVERS {
            let view = self.world.hosts[host].running.as_ref().and_then(|run| run.view.as_ref());
            let known = view.iter().flat_map(|view| view.datacenters.iter());
            let known: Vec<Datacenter> = known.map(|it| it.datacenter.clone()).collect();
            if known != expected[host / SERVERS] {
                return wrong(format!("host {host} knows the datacenters {known:?}"));
            }
        }
        Ok(())
    }

    /// The link is cut: nothing crosses, and each datacenter works.
    fn apart(&mut self) -> Result<(), Violation> {
        self.world.note("/ the link between the datacenters is cut");
        let hosts: Vec<HostId> = (0..2 * SERVERS).collect();
        let (left, right) = hosts.split_at(SERVERS);
        self.world.net.partition(left, right);
        for moment in ["at once", "once the pool knows it"] {
            let across = self.ask(0, 1, RequestBody::Query(Query::Nodes(NodesQuery::default())))?;
            if across != Err(RequestError::NoServerReachable) {
                return wrong(format!("{moment}, a read across was answered with {across:?}"));
            }
            for host in [1, SERVERS + 1] {
                let own = host / SERVERS;
                let written = self.ask(host, own, register("alone"))?;
                if written != Ok(Response::Done) || !self.knows(host, own, "alone")? {
                    return wrong(format!("{moment}, host {host} cannot work: {written:?}"));
                }
            }
            self.finds(moment, 0)?;
            self.advance(CUT_TIME)?;
        }
        Ok(())
    }

    fn join(&mut self, pool: PoolName, host: HostId, other: HostId) -> Result<(), Violation> {
        if host == other {
            return Ok(());
        }
        let port = if pool == PoolName::Lan { 8301 } else { 8302 };
        let addresses = vec![SocketAddr::new(address_of(other), port)];
        let body = RequestBody::Join { pool, addresses, replay: false };
        match self.ask(host, host / SERVERS, body)? {
            Ok(Response::Joined(1)) => Ok(()),
            other => wrong(format!("a join of host {host} was answered with {other:?}")),
        }
    }

    /// Whether the catalog of a datacenter has a node, as `host` is told.
    fn knows(&mut self, host: HostId, number: usize, name: &str) -> Result<bool, Violation> {
        let query = RequestBody::Query(Query::Node(NodeQuery::all(name)));
        match self.ask(host, number, query)? {
            Ok(Response::Answer(answer)) => Ok(matches!(answer.rows, Rows::Node(Some(_)))),
            other => wrong(format!("a read of host {host} was answered with {other:?}")),
        }
    }

    /// Asks a datacenter something through the agent of `host`, and waits for the answer.
    fn ask(
        &mut self,
        host: HostId,
        number: usize,
        body: RequestBody,
    ) -> Result<Result<Response, RequestError>, Violation> {
        let mut request = Request::new(body);
        request.context.datacenter = Some(datacenter(number));
        let Some(id) = self.world.request(host, request) else {
            return wrong(format!("host {host} does not run"));
        };
        let end = self.world.now + ANSWER_LIMIT;
        loop {
            let replies = std::mem::take(&mut self.world.replies);
            let of_host = |reply: &crate::world::Reply| reply.process.host == host;
            if let Some(reply) = replies.into_iter().find(|r| of_host(r) && r.id == id) {
                return Ok(reply.result);
            }
            if self.world.now >= end {
                return wrong(format!("host {host} was not answered within {ANSWER_LIMIT:?}"));
            }
            self.advance(LOOK)?;
        }
    }

    fn until(
        &mut self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        let end = self.world.now + limit;
        while !holds(&self.world) {
            if self.world.now >= end {
                return wrong(format!("not within {limit:?}: {what}"));
            }
            self.advance(LOOK)?;
        }
        Ok(())
    }

    fn advance(&mut self, span: Duration) -> Result<(), Violation> {
        let until = self.world.now + span;
        while self.world.step(until) {
            self.look()?;
        }
        Ok(())
    }

    /// Has each datacenter's rules look at its own hosts.
    fn look(&mut self) -> Result<(), Violation> {
        let touched = std::mem::take(&mut self.world.touched);
        let sent = std::mem::take(&mut self.world.sent);
        for (number, checkers) in self.checkers.iter_mut().enumerate() {
            let own = |host: HostId| host / SERVERS == number;
            self.world.touched = touched.iter().copied().filter(|host| own(*host)).collect();
            self.world.sent = sent.iter().filter(|(by, _)| own(by.host)).cloned().collect();
            checkers.look(&mut self.world);
            if let Some(violation) = checkers.violation.take() {
                return Err(violation);
            }
        }
        Ok(())
    }
}

fn has_leader(world: &World, number: usize) -> bool {
    (number * SERVERS..(number + 1) * SERVERS).any(|host| {
        let raft = world.hosts[host].running.as_ref().and_then(|running| running.node.raft());
        let voters = raft.map_or(0, |raft| raft.configuration().voters.len());
        raft.map(Raft::role) == Some(RoleKind::Leader) && voters == SERVERS
    })
}

/// Whether every server knows where the servers of both datacenters are.
fn all_placed(world: &World) -> bool {
    world.hosts.iter().all(|host| {
        let view = host.running.as_ref().and_then(|run| run.view.as_ref());
        view.is_some_and(|view| view.datacenters.iter().all(|it| it.servers.len() == SERVERS))
    })
}

/// Whether every server knows all servers of both datacenters alive, in the WAN pool.
fn all_met(world: &World) -> bool {
    world.hosts.iter().all(|host| {
        let members = host.running.iter().flat_map(|running| running.node.wan_members());
        members.filter(|member| member.status == MemberStatus::Alive).count() == 2 * SERVERS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_datacenters_meet_part_and_meet_again_the_same_way_each_time() {
        let ((result, world), (_, again)) = (perform(1), perform(1));
        assert_eq!(result, Ok(()));
        assert_eq!(world.hash(), again.hash());
    }
}
