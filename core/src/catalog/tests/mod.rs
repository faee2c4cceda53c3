//! The catalog's rules one by one, and all of them against a naive model.

mod image;
mod model_check;
mod overview;
mod prepared;
pub(crate) mod restore;
mod rules;
mod session;

use super::Tables;
use super::command::{ApplyError, Command, Deregistration, Registration};
use super::model::{Check, CheckRecipe, CheckStatus, Node, Service, Weights};
use crate::id::{CheckId, LogIndex, ModifyIndex, NodeId, NodeName, ServiceId, ServiceName};
use std::collections::BTreeMap;

/// Makers of plain records.
pub(crate) fn node(name: &str, id: Option<u8>) -> Node {
    Node {
        id: id.map(|byte| NodeId::from_bytes([byte; 16])),
        name: NodeName::parse(name).unwrap(),
        address: "10.0.0.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

pub(crate) fn service(id: &str, name: &str) -> Service {
    Service {
        id: ServiceId::parse(id).unwrap(),
        name: ServiceName::parse(name).unwrap(),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

pub(crate) fn check(on: &str, id: &str, of: Option<&str>, status: CheckStatus) -> Check {
    Check {
        node: NodeName::parse(on).unwrap(),
        id: CheckId::parse(id).unwrap(),
        name: id.to_owned(),
        status,
        notes: String::new(),
        output: String::new(),
        service_id: of.map(|id| ServiceId::parse(id).unwrap()),
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: String::new(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

pub(crate) fn registration(node: Node) -> Registration {
    Registration { node, skip_node_update: false, service: None, checks: Vec::new() }
}

pub(crate) fn register(
    tables: &mut Tables,
    index: u64,
    wanted: Registration,
) -> Result<(), ApplyError> {
    let applied = tables.apply(LogIndex::new(index), Command::Register(Box::new(wanted)));
    applied.map(|_| ())
}

pub(crate) fn deregister(
    tables: &mut Tables,
    index: u64,
    node: &str,
    service: Option<&str>,
    check: Option<&str>,
) {
    let target = Deregistration {
        node: NodeName::parse(node).unwrap(),
        service: service.map(|id| ServiceId::parse(id).unwrap()),
        check: check.map(|id| CheckId::parse(id).unwrap()),
    };
    tables.apply(LogIndex::new(index), Command::Deregister(target)).unwrap();
}
