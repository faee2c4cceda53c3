//! The tables against a naive model of nested ordered maps, under random commands.
//!
//! The model knows the rules of what is stored, and takes every index from one rule: whatever a
//! reader sees differ after a command has that command's index.

use super::super::model::NodeCoordinate;
use super::super::query::{AddressOwner, CoordinateQuery, Rows, ServiceQuery, StateQuery};
use super::*;
use crate::coordinate::{Coordinate, DIMENSIONS};
use proptest::prelude::*;

#[derive(Clone, Debug, Default, PartialEq)]
struct Naive {
    nodes: BTreeMap<String, NaiveNode>,
}

#[derive(Clone, Debug, PartialEq)]
struct NaiveNode {
    node: Node,
    services: BTreeMap<String, Service>,
    checks: BTreeMap<String, Check>,
    coordinate: Option<Coordinate>,
}

impl Naive {
    fn apply(&mut self, index: u64, command: &Command) -> bool {
        let mut next = self.clone();
        let accepted = match command {
            Command::Register(wanted) => next.register(wanted),
            Command::Deregister(target) => {
                next.deregister(target);
                true
            }
            Command::Coordinates(rows) => {
                for row in rows {
                    if let Some(entry) = next.nodes.get_mut(&row.node.as_str().to_lowercase()) {
                        entry.coordinate = Some(row.coordinate.clone());
                    }
                }
                true
            }
            Command::Kv(_)
            | Command::Transaction(_)
            | Command::ReapTombstones(_)
            | Command::EndLockDelays(_) => {
                unreachable!("the key-value table has a model of its own")
            }
            Command::CreateSession(_) | Command::EndSessions(_) => {
                unreachable!("sessions have tests of their own")
            }
            Command::Prepared(_) => unreachable!("prepared queries have tests of their own"),
            Command::Autopilot(_) => unreachable!("settings have tests of their own"),
            Command::RestoreBlock(_) | Command::RestoreCommit(_) | Command::RestoreAbort(_) => {
                unreachable!("restores have tests of their own")
            }
        };
        if accepted {
            next.follow_services();
            next.give_indexes(self, ModifyIndex::new(index));
            *self = next;
        }
        accepted
    }

    fn register(&mut self, wanted: &Registration) -> bool {
        let key = wanted.node.name.as_str().to_lowercase();
        let known = self.nodes.get(&key).cloned();
        if !(wanted.skip_node_update && known.is_some()) {
            let mut former = None;
            if let Some(id) = wanted.node.id {
                let passes = |entry: &NaiveNode| {
                    let health = entry.checks.get("serfHealth");
                    health.is_some_and(|check| check.status == CheckStatus::Passing)
                };
                let other = |entry: &NaiveNode| entry.node.id.is_some_and(|other| other != id);
                if known.as_ref().is_some_and(|entry| other(entry) && passes(entry)) {
                    return false;
                }
                let same = |(name, entry): &(&String, &NaiveNode)| {
                    **name != key && entry.node.id == Some(id)
                };
                former = self.nodes.iter().find(same).map(|(name, _)| name.clone());
            }
            let former = former.and_then(|name| self.nodes.remove(&name));
            let mut node = wanted.node.clone();
            let before = former.map(|entry| entry.node.create_index);
            let before = before.or_else(|| known.as_ref().map(|entry| entry.node.create_index));
            node.create_index = before.unwrap_or(ModifyIndex::ZERO);
            let mut entry = known.unwrap_or_else(|| NaiveNode {
                node: node.clone(),
                services: BTreeMap::new(),
                checks: BTreeMap::new(),
                coordinate: None,
            });
            entry.node = node;
            self.nodes.insert(key.clone(), entry);
        }
        let Some(entry) = self.nodes.get_mut(&key) else { return false };
        if let Some(service) = &wanted.service {
            entry.services.insert(service.id.to_string(), service.clone());
        }
        for check in &wanted.checks {
            let service = check.service_id.as_ref().map(|id| entry.services.get(id.as_str()));
            if check.node.as_str().to_lowercase() != key || service == Some(None) {
                return false;
            }
            entry.checks.insert(check.id.to_string(), check.clone());
        }
        true
    }

    fn deregister(&mut self, target: &Deregistration) {
        let key = target.node.as_str().to_lowercase();
        let Some(entry) = self.nodes.get_mut(&key) else { return };
        match (&target.service, &target.check) {
            (Some(id), _) => {
                entry.services.remove(id.as_str());
                entry.checks.retain(|_, check| check.service_id.as_ref() != Some(id));
            }
            (None, Some(id)) => {
                entry.checks.remove(id.as_str());
            }
            (None, None) => {
                self.nodes.remove(&key);
            }
        }
    }

    fn follow_services(&mut self) {
        for entry in self.nodes.values_mut() {
            for check in entry.checks.values_mut() {
                check.node = entry.node.name.clone();
                let id = check.service_id.as_ref();
                let service = id.map(|id| &entry.services[id.as_str()]);
                check.service_name = service.map_or_else(String::new, |s| s.name.to_string());
                check.service_tags = service.map_or_else(Vec::new, |s| s.tags.clone());
            }
        }
    }

    fn give_indexes(&mut self, before: &Self, index: ModifyIndex) {
        for (key, entry) in &mut self.nodes {
            let old = before.nodes.get(key);
            let create = entry.node.create_index;
            let create = if create == ModifyIndex::ZERO { index } else { create };
            let was = old.map(|old| &old.node);
            entry.node.modify_index = was.map_or(index, |node| node.modify_index);
            entry.node.create_index = create;
            if was != Some(&entry.node) {
                entry.node.modify_index = index;
            }
            for (id, service) in &mut entry.services {
                let was = old.and_then(|old| old.services.get(id));
                service.create_index = was.map_or(index, |was| was.create_index);
                service.modify_index = was.map_or(index, |was| was.modify_index);
                if was != Some(service) {
                    service.modify_index = index;
                }
            }
            for (id, check) in &mut entry.checks {
                let was = old.and_then(|old| old.checks.get(id));
                check.create_index = was.map_or(index, |was| was.create_index);
                check.modify_index = was.map_or(index, |was| was.modify_index);
                if was != Some(check) {
                    check.modify_index = index;
                }
            }
        }
    }

    fn coordinates(&self) -> Vec<NodeCoordinate> {
        let row = |entry: &NaiveNode| {
            let (node, segment) = (entry.node.name.clone(), String::new());
            entry.coordinate.clone().map(|at| NodeCoordinate { node, segment, coordinate: at })
        };
        self.nodes.values().filter_map(row).collect()
    }

    fn owner(&self, address: &str) -> AddressOwner {
        if address.parse::<std::net::IpAddr>().is_err() {
            return AddressOwner::Nobody;
        }
        let mut nodes = self.nodes.values().map(|entry| &entry.node);
        if let Some(node) = nodes.find(|node| node.address == address) {
            return AddressOwner::Node(node.name.clone());
        }
        let services = ["db", "web"].into_iter().flat_map(|name| self.health(name));
        let mut services = services.map(|(_, service, _)| service);
        let found = services.find(|service| service.address == address);
        found.map_or(AddressOwner::Nobody, |service| AddressOwner::Service(service.name))
    }

    fn health(&self, service: &str) -> Vec<(Node, Service, Vec<Check>)> {
        let mut rows = Vec::new();
        for entry in self.nodes.values() {
            let named = |found: &&Service| found.name.as_str().eq_ignore_ascii_case(service);
            for found in entry.services.values().filter(named) {
                let of = |id: Option<&ServiceId>| -> Vec<Check> {
                    let all = entry.checks.values();
                    all.filter(|check| check.service_id.as_ref() == id).cloned().collect()
                };
                let checks = [of(None), of(Some(&found.id))].concat();
                rows.push((entry.node.clone(), found.clone(), checks));
            }
        }
        rows
    }
}

const NODES: [&str; 4] = ["a", "A", "b", "c"];
const SERVICES: [&str; 3] = ["web", "Web", "db"];
const IDS: [&str; 3] = ["s1", "s2", "s3"];
const ADDRESSES: [&str; 4] = ["", "10.0.0.1", "10.0.0.2", "host"];
const CHECKS: [&str; 3] = ["serfHealth", "c1", "c2"];

/// Commands about few nodes, services and checks.
pub(super) fn commands() -> impl Strategy<Value = Command> {
    let status = prop_oneof![
        3 => Just(CheckStatus::Passing),
        1 => Just(CheckStatus::Critical),
        1 => Just(CheckStatus::Other("odd".to_owned())),
    ];
    let of = prop_oneof![2 => Just(None), 1 => prop::sample::select(&IDS[..]).prop_map(Some)];
    let checks = prop::collection::btree_map(prop::sample::select(&CHECKS[..]), (of, status), 0..3);
    let instance = (
        prop::sample::select(&IDS[..]),
        prop::sample::select(&SERVICES[..]),
        0..2_usize,
        0..4_usize,
    );
    let registering = (
        prop::sample::select(&NODES[..]),
        prop::option::of(1..4_u8),
        0..2_u8,
        any::<bool>(),
        prop::option::of(instance),
        checks,
    );
    let registering = registering.prop_map(|(name, id, address, skip, of, checks)| {
        let mut node = node(name, id);
        node.address = format!("10.0.0.{address}");
        let made = of.map(|(id, name, tags, address)| Service {
            tags: vec!["t".to_owned(); tags],
            address: ADDRESSES.get(address).unwrap().to_string(),
            ..service(id, name)
        });
        let checks = checks.into_iter().map(|(id, (of, status))| check(name, id, of, status));
        Command::Register(Box::new(Registration {
            node,
            skip_node_update: skip,
            service: made,
            checks: checks.collect(),
        }))
    });
    let removing = (
        prop::sample::select(&NODES[..]),
        prop::option::of(prop::sample::select(&IDS[..])),
        prop::option::of(prop::sample::select(&CHECKS[..])),
    );
    let removing = removing.prop_map(|(node, service, check)| {
        Command::Deregister(Deregistration {
            node: NodeName::parse(node).unwrap(),
            service: service.map(|id| ServiceId::parse(id).unwrap()),
            check: check.map(|id| CheckId::parse(id).unwrap()),
        })
    });
    // Each node once: what a command changes and changes back still has its index.
    let places =
        prop::collection::btree_map(prop::sample::select(&["A", "b", "c"][..]), 0..3_u8, 0..3);
    let telling = places.prop_map(|places| {
        let row = |(node, place): (&str, u8)| {
            let position = [f64::from(place); DIMENSIONS];
            NodeCoordinate {
                node: NodeName::parse(node).unwrap(),
                segment: String::new(),
                coordinate: Coordinate::new(position, 0.5, 0.1, 0.0).unwrap(),
            }
        };
        Command::Coordinates(places.into_iter().map(row).collect())
    });
    prop_oneof![4 => registering, 1 => removing, 1 => telling]
}

fn seen_coordinates(tables: &Tables) -> (Vec<NodeCoordinate>, u64) {
    let (Rows::Coordinates(rows), index) = tables.coordinates(&CoordinateQuery::default()) else {
        panic!()
    };
    (rows.iter().map(|row| (**row).clone()).collect(), index.get())
}

fn seen_nodes(tables: &Tables) -> (Vec<Node>, u64) {
    let (Rows::Nodes(rows), index) = tables.all_nodes(&Vec::new()) else { panic!() };
    (rows.iter().map(|node| (**node).clone()).collect(), index.get())
}

fn seen_checks(tables: &Tables) -> (Vec<Check>, u64) {
    let any = StateQuery::all("any");
    let (Rows::Checks(rows), index) = tables.checks_in_state(&any) else { panic!() };
    (rows.iter().map(|check| (**check).clone()).collect(), index.get())
}

type HealthRows = Vec<(Node, Service, Vec<Check>)>;

fn seen_health(tables: &Tables, service: &str) -> (HealthRows, u64) {
    let query = ServiceQuery::all(ServiceName::parse(service).unwrap());
    let (Rows::Instances(rows), index) = tables.service_health(&query) else { panic!() };
    let row = |instance: &std::sync::Arc<super::super::query::Instance>| {
        let checks = instance.checks.iter().map(|check| (**check).clone()).collect();
        ((*instance.node).clone(), (*instance.service).clone(), checks)
    };
    (rows.iter().map(row).collect(), index.get())
}

proptest! {
    #[test]
    fn tables_equal_a_naive_model_and_a_replay(
        commands in prop::collection::vec(commands(), 1..40),
    ) {
        let (mut tables, mut naive) = (Tables::default(), Naive::default());
        for (index, command) in (10..).zip(&commands) {
            let before = tables.clone();
            let accepted = tables.apply(LogIndex::new(index), command.clone()).is_ok();
            prop_assert_eq!(accepted, naive.apply(index, command), "{:?}", command);
            let nodes: Vec<_> = naive.nodes.values().map(|entry| entry.node.clone()).collect();
            prop_assert_eq!(&seen_nodes(&tables).0, &nodes);
            let checks = naive.nodes.values().flat_map(|entry| entry.checks.values().cloned());
            prop_assert_eq!(seen_checks(&tables).0, checks.collect::<Vec<_>>());
            for service in ["web", "db"] {
                let (rows, seen) = seen_health(&tables, service);
                prop_assert_eq!(&rows, &naive.health(service));
                let (old_rows, old_seen) = seen_health(&before, service);
                if !rows.is_empty() && !old_rows.is_empty() {
                    let due = if rows == old_rows { old_seen } else { index };
                    prop_assert_eq!(seen, due, "{} after {:?}", service, command);
                }
            }
            for address in ADDRESSES {
                let (Rows::Owner(owner), _) = tables.address_owner(address) else { panic!() };
                prop_assert_eq!(owner, naive.owner(address), "{} after {:?}", address, command);
            }
            let due = |moved: bool, old: u64| if moved { index } else { old };
            let (old_nodes, old_index) = seen_nodes(&before);
            prop_assert_eq!(seen_nodes(&tables).1, due(nodes != old_nodes, old_index));
            let rows = naive.coordinates();
            let (old_rows, old_index) = seen_coordinates(&before);
            let expected = due(rows != old_rows, old_index);
            prop_assert_eq!(seen_coordinates(&tables), (rows, expected));
            let ids = naive.nodes.values().filter(|entry| entry.node.id.is_some()).count();
            prop_assert_eq!(tables.node_ids.len(), ids);
        }
        let mut replay = Tables::default();
        for (index, command) in (10..).zip(&commands) {
            let read = Command::decode(&command.encode()).unwrap();
            let _outcome = replay.apply(LogIndex::new(index), read);
        }
        prop_assert_eq!(replay, tables);
    }
}
