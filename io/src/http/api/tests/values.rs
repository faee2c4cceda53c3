//! Values as they stand in the examples of http-api.md §2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::model::{
    Check, CheckRecipe, CheckStatus, Node, Service, ServiceAddress, Weights,
};
use terraform_core::id::{CheckId, ModifyIndex, NodeId, NodeName, ServiceId, ServiceName};

pub(in crate::http::api) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(in crate::http::api) fn node() -> Arc<Node> {
    Arc::new(Node {
        id: Some(NodeId::parse("63699824-3d7c-20f0-3429-0aaae87bddca").unwrap()),
        name: NodeName::parse("n1").unwrap(),
        address: "127.0.0.1".to_owned(),
        tagged_addresses: map(&[("wan", "127.0.0.1"), ("lan", "127.0.0.1")]),
        meta: map(&[("consul-network-segment", "")]),
        create_index: ModifyIndex::new(5),
        modify_index: ModifyIndex::new(7),
    })
}

pub(in crate::http::api) fn bare_node() -> Arc<Node> {
    Arc::new(Node {
        id: None,
        name: NodeName::parse("ext").unwrap(),
        address: "10.9.9.9".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::new(15),
        modify_index: ModifyIndex::new(15),
    })
}

pub(in crate::http::api) fn service() -> Arc<Service> {
    let address = |address: &str, port| ServiceAddress { address: address.to_owned(), port };
    Arc::new(Service {
        id: ServiceId::parse("web1").unwrap(),
        name: ServiceName::parse("web").unwrap(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        address: "10.0.0.1".to_owned(),
        tagged_addresses: BTreeMap::from([
            ("wan".to_owned(), address("5.6.7.8", 99)),
            ("lan_ipv4".to_owned(), address("10.0.0.1", 80)),
        ]),
        meta: map(&[("v", "1")]),
        port: 80,
        weights: Weights { passing: 5, warning: 2 },
        enable_tag_override: true,
        create_index: ModifyIndex::new(12),
        modify_index: ModifyIndex::new(12),
    })
}

pub(in crate::http::api) fn bare_service(id: &str) -> Arc<Service> {
    Arc::new(Service {
        id: ServiceId::parse(id).unwrap(),
        name: ServiceName::parse("db").unwrap(),
        tags: vec![],
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: 5432,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    })
}

pub(in crate::http::api) fn check(id: &str, status: &str, service: Option<&str>) -> Arc<Check> {
    Arc::new(Check {
        node: NodeName::parse("ext").unwrap(),
        id: CheckId::parse(id).unwrap(),
        name: "db check".to_owned(),
        status: CheckStatus::from_text(status),
        notes: "n".to_owned(),
        output: "o".to_owned(),
        service_id: service.map(|id| ServiceId::parse(id).unwrap()),
        service_name: service.map(|_| "db".to_owned()).unwrap_or_default(),
        service_tags: vec![],
        kind: "tcp".to_owned(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::new(15),
        modify_index: ModifyIndex::new(15),
    })
}

pub(in crate::http::api) fn check_with_recipe() -> Arc<Check> {
    let mut check = (*check("db-check", "passing", Some("db"))).clone();
    check.service_tags = vec!["primary".to_owned()];
    check.recipe = CheckRecipe {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        deregister_critical_service_after: Duration::from_secs(30),
        tcp: "1.2.3.4:5".to_owned(),
        ttl: Duration::from_nanos(7),
        ..CheckRecipe::default()
    };
    Arc::new(check)
}
