//! What must hold once every fault is healed and the world has come to rest (simulation.md §9.3,
//! §9.4).

use super::{Violation, ask, broken};
use crate::kv::model::Model;
use crate::net::HostId;
use crate::workload::Acknowledged;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use terraform_core::catalog::command::SERF_HEALTH;
use terraform_core::catalog::model::{Check, CheckStatus, Service};
use terraform_core::catalog::query::{NodeChecksQuery, NodeQuery, NodeServices, Query, Rows};
use terraform_core::id::{NodeName, ServiceId};
use terraform_core::node::Node;
use terraform_core::raft::{Raft, RoleKind};
use terraform_core::serf::MemberStatus;

/// What became of a host, as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It runs.
    Up,
    /// It stopped without a word.
    Failed,
    /// It left.
    Left,
    /// It was never started.
    Absent,
}

/// Checks a world at rest; `expected` has one entry for each host.
pub fn at_rest(
    world: &World,
    expected: &[Expectation],
    acknowledged: &Acknowledged,
    keys: &Model,
) -> Result<(), Violation> {
    members_agree(world, expected)?;
    wan_pool_agrees(world, expected)?;
    let leader = one_leader(world, expected)?;
    servers_agree(world, expected, leader)?;
    voters_are_servers(world, expected, leader)?;
    nobody_recovers(world, expected)?;
    let catalog = Catalog { world, leader };
    for (host, expectation) in expected.iter().enumerate() {
        catalog_shows(&catalog, host, *expectation)?;
    }
    acknowledged_is_there(&catalog, acknowledged)?;
    keys_are_the_models(&catalog, keys)
}

/// The catalog of the leader, read as clients read it.
struct Catalog<'a> {
    world: &'a World,
    leader: HostId,
}

impl Catalog<'_> {
    fn ask(&self, query: &Query) -> Option<Rows> {
        ask(self.world, self.leader, query).map(|answer| answer.rows)
    }

    fn node(&self, name: &NodeName) -> Option<NodeServices> {
        let rows = self.ask(&Query::Node(NodeQuery::all(name.to_string())))?;
        if let Rows::Node(found) = rows { found } else { None }
    }

    fn checks(&self, name: &NodeName) -> Vec<Arc<Check>> {
        match self.ask(&Query::NodeChecks(NodeChecksQuery::all(name.clone()))) {
            Some(Rows::Checks(checks)) => checks,
            _ => Vec::new(),
        }
    }
}

fn node(world: &World, host: HostId) -> Option<&Node> {
    world.hosts.get(host)?.running.as_ref().map(|running| &running.node)
}

fn up(expected: &[Expectation]) -> impl Iterator<Item = HostId> + '_ {
    let is_up = |(host, e): (HostId, &Expectation)| (*e == Expectation::Up).then_some(host);
    expected.iter().enumerate().filter_map(is_up)
}

/// G3, G5: every agent that runs knows the truth about every other.
fn members_agree(world: &World, expected: &[Expectation]) -> Result<(), Violation> {
    for observer in up(expected) {
        let Some(observing) = node(world, observer) else {
            return broken("G5", format!("host {observer} does not run"));
        };
        let seen: BTreeMap<&NodeName, MemberStatus> =
            observing.members().map(|member| (&member.name, member.status)).collect();
        for (host, expectation) in expected.iter().enumerate() {
            let name = &world.hosts[host].config.name;
            let status = seen.get(name).copied();
            let right = match expectation {
                Expectation::Up => status == Some(MemberStatus::Alive),
                Expectation::Failed => matches!(status, Some(MemberStatus::Failed) | None),
                Expectation::Left => matches!(status, Some(MemberStatus::Left) | None),
                Expectation::Absent => status.is_none(),
            };
            if !right {
                let rule = if *expectation == Expectation::Failed { "G3" } else { "G5" };
                let facts =
                    format!("host {observer} has {name} as {status:?}, it is {expectation:?}");
                return broken(rule, facts);
            }
        }
    }
    Ok(())
}

/// Whether every host that should run sees `host` as `status`.
pub fn seen_by_all(
    world: &World,
    expected: &[Expectation],
    host: HostId,
    status: MemberStatus,
) -> Result<(), Violation> {
    let name = &world.hosts[host].config.name;
    for observer in up(expected) {
        let seen = node(world, observer)
            .and_then(|node| node.members().find(|member| member.name == *name))
            .map(|member| member.status);
        if seen != Some(status) {
            return broken("G3", format!("host {observer} has {name} as {seen:?}"));
        }
    }
    Ok(())
}

/// Whether a server that runs leads, other than `except`.
pub fn has_leader(world: &World, except: Option<HostId>) -> Result<(), Violation> {
    let leads = |host: HostId| {
        node(world, host).and_then(Node::raft).is_some_and(|raft| raft.role() == RoleKind::Leader)
    };
    let found = (0..world.hosts.len()).any(|host| Some(host) != except && leads(host));
    if found { Ok(()) } else { broken("I15", "nobody leads") }
}

/// I15: the servers that run have one leader and know it.
fn one_leader(world: &World, expected: &[Expectation]) -> Result<HostId, Violation> {
    let mut leaders = Vec::new();
    for host in up(expected) {
        let raft = node(world, host).and_then(Node::raft);
        if raft.is_some_and(|raft| raft.role() == RoleKind::Leader) {
            leaders.push(host);
        }
    }
    match leaders.as_slice() {
        [leader] => Ok(*leader),
        others => broken("I15", format!("the leaders are the hosts {others:?}")),
    }
}

/// G5 in the WAN pool, which nobody here joins by hand: each server that runs knows the others.
fn wan_pool_agrees(world: &World, expected: &[Expectation]) -> Result<(), Violation> {
    let is_in = |host: &HostId| world.hosts[*host].config.wan().is_some();
    for observer in up(expected).filter(is_in) {
        let Some(node) = node(world, observer) else { continue };
        for subject in up(expected).filter(is_in) {
            let config = &world.hosts[subject].config;
            let name = config.name.in_wan(&config.datacenter).ok();
            let mut known = node.wan_members();
            let status = known.find(|member| Some(&member.name) == name.as_ref()).map(|m| m.status);
            if status != Some(MemberStatus::Alive) {
                let facts = format!("host {observer} sees host {subject} {status:?} in the WAN");
                return broken("G5", facts);
            }
        }
    }
    Ok(())
}

/// I15: servers that lost a part of their logs hold it again.
fn nobody_recovers(world: &World, expected: &[Expectation]) -> Result<(), Violation> {
    let recovers =
        |host: &HostId| node(world, *host).and_then(Node::raft).is_some_and(Raft::is_recovering);
    match up(expected).find(recovers) {
        None => Ok(()),
        Some(host) => broken("I15", format!("host {host} still recovers")),
    }
}

/// R5 at the level of the catalog: servers that applied the same hold the same.
fn servers_agree(world: &World, expected: &[Expectation], leader: HostId) -> Result<(), Violation> {
    let of = |host: HostId| {
        let node = node(world, host)?;
        Some((node.raft()?.commit(), node.raft()?.applied(), node.tables()?))
    };
    let Some((commit, applied, tables)) = of(leader) else {
        return broken("I15", "the leader is no server");
    };
    if commit != applied {
        return broken("I15", format!("the leader applied {applied} of {commit}"));
    }
    for host in up(expected) {
        let Some((_, theirs, others)) = of(host) else { continue };
        let votes = node(world, leader)
            .and_then(Node::raft)
            .zip(node(world, host))
            .is_some_and(|(raft, node)| raft.configuration().voters.contains_key(&node.id()));
        if votes && theirs != applied {
            return broken("I15", format!("host {host} applied {theirs}, the leader {applied}"));
        }
        if theirs == applied && others != tables {
            return broken("R5", format!("hosts {host} and {leader} differ at index {applied}"));
        }
    }
    Ok(())
}

/// C3: the servers that run vote if they want to, those that left do not take part.
fn voters_are_servers(
    world: &World,
    expected: &[Expectation],
    leader: HostId,
) -> Result<(), Violation> {
    let Some(raft) = node(world, leader).and_then(Node::raft) else { return Ok(()) };
    for host in up(expected) {
        let Some(server) = node(world, host).filter(|node| node.raft().is_some()) else { continue };
        let wants = world.hosts[host].config.server.as_ref().is_some_and(|config| config.votes);
        let (id, configuration) = (server.id(), raft.configuration());
        if !configuration.contains(id) || configuration.is_voter(id) != wants {
            return broken("C3", format!("host {host} runs, and its vote is not what it wants"));
        }
    }
    for (host, expectation) in expected.iter().enumerate() {
        if *expectation == Expectation::Left && takes_part(world, leader, host) {
            return broken("C3", format!("host {host} left and still takes part"));
        }
    }
    Ok(())
}

/// Whether the leader's configuration has a place for a host.
fn takes_part(world: &World, leader: HostId, host: HostId) -> bool {
    let address = world.hosts[host].config.server_address();
    let raft = node(world, leader).and_then(Node::raft);
    world.hosts[host].config.server.is_some()
        && raft.is_some_and(|raft| {
            raft.configuration().servers().any(|(_, server)| server.address == address)
        })
}

fn is_replaced(catalog: &Catalog<'_>, host: HostId) -> bool {
    let Catalog { world, leader } = *catalog;
    world.hosts[host].config.server.is_some() && !takes_part(world, leader, host)
}

/// C1, C2, C4: the catalog shows what became of a host, and what its agent has registered.
fn catalog_shows(
    catalog: &Catalog<'_>,
    host: HostId,
    expectation: Expectation,
) -> Result<(), Violation> {
    let name = &catalog.world.hosts[host].config.name;
    let (found, checks) = (catalog.node(name), catalog.checks(name));
    let health = checks.iter().find(|check| check.id.as_str() == SERF_HEALTH);
    let status = health.map(|check| check.status.clone());
    match expectation {
        Expectation::Left if found.is_some() => {
            broken("C2", format!("{name} left and is still in the catalog"))
        }
        Expectation::Left => Ok(()),
        // A server that failed and was replaced has no place in the catalog either.
        Expectation::Failed if is_replaced(catalog, host) => match found {
            Some(_) => broken("C2", format!("{name} was replaced and is still in the catalog")),
            None => Ok(()),
        },
        Expectation::Failed if found.is_none() => {
            broken("C1", format!("{name} failed and is not kept in the catalog"))
        }
        Expectation::Failed if status != Some(CheckStatus::Critical) => {
            broken("C1", format!("{name} failed and its serfHealth is {status:?}"))
        }
        Expectation::Absent if found.is_some() => {
            broken("C5", format!("{name} never ran and is in the catalog"))
        }
        Expectation::Failed | Expectation::Absent => Ok(()),
        Expectation::Up => {
            let Some(found) = found else {
                return broken("C4", format!("{name} runs and is not in the catalog"));
            };
            if status != Some(CheckStatus::Passing) {
                return broken("C1", format!("{name} runs and its serfHealth is {status:?}"));
            }
            let Some(node) = node(catalog.world, host) else { return Ok(()) };
            registrations_match(node, &found, &checks)
        }
    }
}

/// C4: what the agent registered is what the catalog has of its node.
fn registrations_match(
    node: &Node,
    found: &NodeServices,
    checks: &[Arc<Check>],
) -> Result<(), Violation> {
    let view = node.local().view();
    let name = node.name();
    let same = |a: &Service, b: &Service| {
        (&a.id, &a.name, &a.tags, &a.address, a.port, &a.meta)
            == (&b.id, &b.name, &b.tags, &b.address, b.port, &b.meta)
    };
    let in_catalog: BTreeMap<&ServiceId, _> = found
        .services
        .iter()
        .filter(|service| service.id.as_str() != "terraform")
        .map(|service| (&service.id, service))
        .collect();
    for (id, service) in &view.services {
        match in_catalog.get(id) {
            Some(stored) if same(stored, service) => {}
            Some(_) => return broken("C4", format!("{id} of {name} differs in the catalog")),
            None => return broken("C4", format!("{id} of {name} is not in the catalog")),
        }
    }
    if let Some(foreign) = in_catalog.keys().find(|id| !view.services.contains_key(**id)) {
        return broken("C4", format!("the catalog has {foreign} of {name}, its agent does not"));
    }
    for (id, check) in &view.checks {
        let stored = checks.iter().find(|stored| stored.id == *id);
        if stored.is_none_or(|stored| stored.status != check.status) {
            let stored = stored.map(|stored| &stored.status);
            let local = &check.status;
            return broken("C4", format!("check {id} of {name} is {local:?}, there {stored:?}"));
        }
    }
    Ok(())
}

/// C5: what was acknowledged is there, unless something later removed it.
fn acknowledged_is_there(
    catalog: &Catalog<'_>,
    acknowledged: &Acknowledged,
) -> Result<(), Violation> {
    for (register, name) in acknowledged.names() {
        let found = catalog.node(&name);
        let version = found.as_ref().and_then(|found| found.node.meta.get("v")).cloned();
        let version = version.and_then(|text| text.parse().ok()).unwrap_or(0);
        if !acknowledged.may_be(register, version) {
            return broken("C5", format!("{name} has version {version}: {acknowledged:?}"));
        }
    }
    Ok(())
}

/// C5: every key is what the committed log makes of it.
fn keys_are_the_models(catalog: &Catalog<'_>, model: &Model) -> Result<(), Violation> {
    let query = Query::KeyTree(String::new());
    let expected = model.answer(&query).map(|(rows, _)| rows);
    let found = catalog.ask(&query);
    if found == expected {
        return Ok(());
    }
    broken("C5", format!("the keys are {found:?}, the log makes them {expected:?}"))
}
