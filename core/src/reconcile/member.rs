//! What one member asks of the catalog: at most one command, none if the catalog already agrees.
//!
//! - Source: cluster-behaviour.md §2. Tagged addresses and metadata of a known node are kept: the
//!   node's own agent fills them in. Entries without `serfHealth` are never touched.

use super::{ReconcileTrace, World};
use crate::anti_entropy::SERVER_SERVICE;
use crate::catalog::command::{Command, Deregistration, Registration, SERF_HEALTH};
use crate::catalog::model::{Check, CheckRecipe, CheckStatus, Node, Service, Weights};
use crate::catalog::query::Rows;
use crate::id::{CheckId, ModifyIndex, NodeName, ServiceId, ServiceName};
use crate::serf::{Member, ServerInfo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A command with the line that announces it.
pub(super) type Step = (Command, ReconcileTrace);

/// What the catalog has of one node.
struct Row {
    node: Arc<Node>,
    services: Vec<Arc<Service>>,
    health: Option<Arc<Check>>,
}

fn row(world: &World<'_>, name: &NodeName) -> Option<Row> {
    let (Rows::Node(found), _) = world.tables.node_with_services(name.as_str()) else {
        return None;
    };
    // A name may also match the beginning of another node's identity.
    let found = found.filter(|found| found.node.name.folded() == name.folded())?;
    let (Rows::Checks(checks), _) = world.tables.node_checks(name) else { return None };
    let health = checks.into_iter().find(|check| check.id.as_str() == SERF_HEALTH);
    Some(Row { node: found.node, services: found.services, health })
}

/// A live member: its node with passing health, and a server's service.
pub(super) fn alive(world: &World<'_>, member: &Member) -> Option<Step> {
    let row = row(world, &member.name);
    // A name is one member's: whoever had it before is gone, however healthy it looked.
    let had = row.as_ref().and_then(|row| row.node.id);
    if had.is_some_and(|had| member.id().is_some_and(|id| id != had)) {
        return gone(world, &member.name, REPLACED);
    }
    let server = member.server();
    let service = server.as_ref().map(|server| server_service(member, server));
    let known = row.as_ref().map(|row| &row.node);
    let node = Node {
        id: member.id().or_else(|| known.and_then(|node| node.id)),
        name: member.name.clone(),
        address: member.address.ip().to_string(),
        tagged_addresses: known.map(|node| node.tagged_addresses.clone()).unwrap_or_default(),
        meta: known.map(|node| node.meta.clone()).unwrap_or_default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let Some(row) = row.filter(|row| agrees(row, &node, service.as_ref())) else {
        let check = health(&member.name, CheckStatus::Passing, "Agent alive and reachable");
        let registration =
            Registration { node, skip_node_update: false, service, checks: vec![check] };
        let joined = ReconcileTrace::Joined(member.name.clone());
        return Some((Command::Register(Box::new(registration)), joined));
    };
    let leftover = row.services.iter().find(|it| it.id.as_str() == SERVER_SERVICE);
    let leftover = leftover.filter(|_| server.is_none())?;
    let removal = Deregistration {
        node: member.name.clone(),
        service: Some(leftover.id.clone()),
        check: None,
    };
    let trace = ReconcileTrace::NoServerAnyMore(member.name.clone());
    Some((Command::Deregister(removal), trace))
}

fn agrees(row: &Row, node: &Node, service: Option<&Service>) -> bool {
    let theirs = &row.node;
    let passing = row.health.as_ref().is_some_and(|it| it.status == CheckStatus::Passing);
    let same_service = service.is_none_or(|wanted| {
        let found = row.services.iter().find(|it| it.id == wanted.id);
        found.is_some_and(|found| {
            let (create_index, modify_index) = (found.create_index, found.modify_index);
            Service { create_index, modify_index, ..wanted.clone() } == **found
        })
    });
    passing
        && same_service
        && theirs.id == node.id
        && theirs.name == node.name
        && theirs.address == node.address
}

/// A failed member: critical health, everything else as it is; nothing if it is not known.
pub(super) fn failed(world: &World<'_>, member: &Member) -> Option<Step> {
    let row = row(world, &member.name)?;
    if row.health.is_some_and(|check| check.status == CheckStatus::Critical) {
        return None;
    }
    let check = health(&row.node.name, CheckStatus::Critical, "Agent not live or unreachable");
    let node = (*row.node).clone();
    let registration =
        Registration { node, skip_node_update: true, service: None, checks: vec![check] };
    let failed = ReconcileTrace::Failed(member.name.clone());
    Some((Command::Register(Box::new(registration)), failed))
}

/// A member that left or was forgotten: its node goes, with everything on it.
pub(super) fn gone(world: &World<'_>, name: &NodeName, reason: &'static str) -> Option<Step> {
    let row = row(world, name)?;
    if reason == REAPED && row.health.is_none() {
        return None;
    }
    let removal = Deregistration { node: name.clone(), service: None, check: None };
    let trace = ReconcileTrace::Deregistering { member: name.clone(), reason };
    Some((Command::Deregister(removal), trace))
}

/// The member said so, or was made to.
pub(super) const LEFT: &str = "left";
/// The member is a server that failed and was taken out of the configuration.
pub(super) const DEAD: &str = "failed and taken out";
/// Another identity has the member's name.
const REPLACED: &str = "replaced";
/// Serf forgot the member.
pub(super) const REAPED: &str = "reaped";

fn health(node: &NodeName, status: CheckStatus, output: &str) -> Check {
    let id = CheckId::parse(SERF_HEALTH).expect("the constant is a legal check id");
    Check {
        node: node.clone(),
        id,
        name: "Serf Health Status".to_owned(),
        status,
        notes: String::new(),
        output: output.to_owned(),
        service_id: None,
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: String::new(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

/// The service that every server has (cluster-behaviour.md §2).
fn server_service(member: &Member, server: &ServerInfo) -> Service {
    let tag = |key: &str| member.tags.get(key).unwrap_or_default().to_owned();
    let versions = &member.versions;
    let meta = [
        ("non_voter", (!server.votes).to_string()),
        ("raft_version", tag("raft_vsn")),
        ("serf_protocol_current", versions.protocol.to_string()),
        ("serf_protocol_max", versions.protocol_max.to_string()),
        ("serf_protocol_min", versions.protocol_min.to_string()),
        ("version", tag("build")),
    ];
    Service {
        id: ServiceId::parse(SERVER_SERVICE).expect("the constant is a legal service id"),
        name: ServiceName::parse(SERVER_SERVICE).expect("the constant is a legal service name"),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: meta.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        port: i64::from(server.address.port()),
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}
