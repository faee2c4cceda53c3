//! Filter expressions: the input is the text of one, for each kind of row.

use std::collections::BTreeMap;
use std::sync::Arc;
use terraform_core::catalog::model::{
    Check, CheckRecipe, CheckStatus, Node, Service, ServiceAddress, Weights,
};
use terraform_core::catalog::query::{Instance, ServiceNode};
use terraform_core::filter::{Filter, Row};
use terraform_core::id::{CheckId, ModifyIndex, NodeName, ServiceId, ServiceName};
use terraform_core::wire::pack::{from_bytes, to_bytes};

/// A filter survives its encoding, and its opposite wants exactly the rows it does not.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (node, service, check) = (Arc::new(node()), Arc::new(service()), Arc::new(check()));
    judge(text, &*node);
    judge(text, &*service);
    judge(text, &*check);
    judge(text, &ServiceNode { node: Arc::clone(&node), service: Arc::clone(&service) });
    judge(text, &Instance { node, service, checks: vec![check] });
}

fn judge<R: Row>(text: &str, row: &R) {
    let Ok(filter) = Filter::parse(text) else { return };
    let again = from_bytes::<Filter<R>>(&to_bytes(&filter));
    let again = again.expect("a filter survives its encoding");
    let is_wanted = filter.wants(row, "dc1");
    assert_eq!(again.wants(row, "dc1"), is_wanted, "a filter is its text");
    if let Ok(opposite) = Filter::parse(&format!("not ({text})")) {
        assert_ne!(opposite.wants(row, "dc1"), is_wanted, "its opposite wants the others");
    }
}

fn node() -> Node {
    Node {
        id: None,
        name: NodeName::parse("n1").expect("a legal name"),
        address: "10.0.0.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn service() -> Service {
    let lan = ServiceAddress { address: "10.0.0.1".to_owned(), port: 80 };
    Service {
        id: ServiceId::parse("web1").expect("a legal identity"),
        name: ServiceName::parse("web").expect("a legal name"),
        tags: vec!["a".to_owned()],
        address: String::new(),
        tagged_addresses: BTreeMap::from([("lan".to_owned(), lan)]),
        meta: BTreeMap::new(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn check() -> Check {
    Check {
        node: NodeName::parse("n1").expect("a legal name"),
        id: CheckId::parse("c").expect("a legal identity"),
        name: "c".to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: None,
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: String::new(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}
