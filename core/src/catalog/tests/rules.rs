//! The rules of http-api.md §1.6, §7 and §8, one test each.

use super::super::model::NodeCoordinate;
use super::super::query::{AddressOwner, CoordinateQuery, Rows, ServiceQuery, StateQuery};
use super::*;
use crate::coordinate::{Coordinate, DIMENSIONS};
use std::sync::Arc;

fn all<R>(name: &str) -> ServiceQuery<R> {
    ServiceQuery::all(ServiceName::parse(name).unwrap())
}

fn names(rows: Rows) -> Vec<String> {
    match &rows {
        Rows::Nodes(nodes) => nodes.iter().map(|node| node.name.to_string()).collect(),
        Rows::ServiceNodes(rows) => {
            rows.iter().map(|row| format!("{}/{}", row.node.name, row.service.id)).collect()
        }
        Rows::Instances(rows) => {
            rows.iter().map(|row| format!("{}/{}", row.node.name, row.service.id)).collect()
        }
        Rows::Checks(checks) => {
            checks.iter().map(|check| format!("{}/{}", check.node, check.id)).collect()
        }
        Rows::Services(_)
        | Rows::Node(_)
        | Rows::Names(_)
        | Rows::Text(_)
        | Rows::Owner(_)
        | Rows::Coordinates(_)
        | Rows::DatacenterCoordinates(_)
        | Rows::Entries(_)
        | Rows::Sessions(_)
        | Rows::PreparedQueries(_)
        | Rows::NodeOverviews(_)
        | Rows::Transaction(_)
        | Rows::Autopilot(_)
        | Rows::RaftConfiguration(_) => {
            panic!("rows without names: {rows:?}")
        }
    }
}

/// Nodes n1 (identity 1, serfHealth passing, web with a check) and n2 (no identity, web).
fn two_nodes() -> Tables {
    let mut tables = Tables::default();
    let mut first = registration(node("n1", Some(1)));
    first.service = Some(service("web1", "web"));
    first.checks = vec![
        check("n1", "serfHealth", None, CheckStatus::Passing),
        check("n1", "http", Some("web1"), CheckStatus::Warning),
    ];
    register(&mut tables, 5, first).unwrap();
    let mut second = registration(node("n2", None));
    second.service = Some(service("web2", "Web"));
    register(&mut tables, 6, second).unwrap();
    tables
}

fn index_of(tables: &Tables, service: &str) -> u64 {
    tables.service_health(&all(service)).1.get()
}

#[test]
fn a_registration_is_found_by_every_question() {
    let tables = two_nodes();
    assert_eq!(names(tables.all_nodes(&Vec::new()).0), ["n1", "n2"]);
    assert_eq!(names(tables.service_nodes(&all("WEB")).0), ["n1/web1", "n2/web2"]);
    assert_eq!(names(tables.service_checks(&all("web")).0), ["n1/http"]);
    let n1 = NodeName::parse("N1").unwrap();
    assert_eq!(names(tables.node_checks(&n1).0), ["n1/http", "n1/serfHealth"]);
    assert_eq!(names(tables.node_named(&n1).0), ["n1"]);
    let Rows::Instances(rows) = tables.service_health(&all("web")).0 else { panic!() };
    let of: Vec<_> = rows[0].checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(of, ["serfHealth", "http"]);
    assert_eq!(rows[0].checks[1].service_name, "web");
}

#[test]
fn passing_drops_whoever_has_a_check_that_does_not_pass() {
    let tables = two_nodes();
    let passing = ServiceQuery { passing: true, ..all("web") };
    assert_eq!(names(tables.service_health(&passing).0), ["n2/web2"]);
}

#[test]
fn checks_are_found_by_exact_state_or_all_at_once() {
    let tables = two_nodes();
    let state = |state: &str| StateQuery::all(state);
    assert_eq!(names(tables.checks_in_state(&state("warning")).0), ["n1/http"]);
    assert_eq!(names(tables.checks_in_state(&state("any")).0).len(), 2);
    assert_eq!(names(tables.checks_in_state(&state("Warning")).0), Vec::<String>::new());
}

#[test]
fn tags_are_all_needed_in_any_case_and_their_union_is_listed() {
    let mut tables = two_nodes();
    let mut tagged = registration(node("n1", Some(1)));
    let tags = vec!["v2".to_owned(), "Primary".to_owned()];
    tagged.service = Some(Service { tags, ..service("web3", "web") });
    register(&mut tables, 7, tagged).unwrap();
    let with = |tags: &[&str]| {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        names(tables.service_nodes(&ServiceQuery { tags, ..all("web") }).0)
    };
    assert_eq!(with(&["primary", "V2"]), ["n1/web3"]);
    assert_eq!(with(&["primary", "v3"]), Vec::<String>::new());
    let Rows::Services(services) = tables.all_services(&Vec::new()).0 else { panic!() };
    assert_eq!(services["web"], ["Primary", "v2"]);
    assert_eq!(services["Web"], Vec::<String>::new());
}

#[test]
fn node_metadata_filters_nodes_services_and_checks() {
    let mut tables = two_nodes();
    let mut prod = node("n1", Some(1));
    prod.meta.insert("env".to_owned(), "prod".to_owned());
    register(&mut tables, 7, registration(prod)).unwrap();
    let meta = vec![("env".to_owned(), "prod".to_owned())];
    assert_eq!(names(tables.all_nodes(&meta).0), ["n1"]);
    let query = ServiceQuery { meta: meta.clone(), ..all("web") };
    assert_eq!(names(tables.service_health(&query).0), ["n1/web1"]);
    let query = StateQuery { meta, ..StateQuery::all("any") };
    assert_eq!(names(tables.checks_in_state(&query).0), ["n1/http", "n1/serfHealth"]);
}

#[test]
fn an_upsert_replaces_the_node_and_skip_leaves_it_alone() {
    let mut tables = two_nodes();
    let bare = Node { address: "9.9.9.9".to_owned(), ..node("n1", None) };
    let kept = Registration { skip_node_update: true, ..registration(bare.clone()) };
    register(&mut tables, 7, kept.clone()).unwrap();
    assert_eq!(tables.nodes["n1"].node.address, "10.0.0.1");
    register(&mut tables, 8, registration(bare)).unwrap();
    let stored = &tables.nodes["n1"].node;
    assert_eq!((stored.id, stored.address.as_str()), (None, "9.9.9.9"));
    assert_eq!((stored.create_index.get(), stored.modify_index.get()), (5, 8));
    let mut created = kept;
    created.node = node("n3", None);
    register(&mut tables, 9, created).unwrap();
    assert!(tables.nodes.contains_key("n3"));
}

#[test]
fn a_known_identity_under_a_new_name_drops_the_old_name_with_everything() {
    let mut tables = two_nodes();
    register(&mut tables, 7, registration(node("n9", Some(1)))).unwrap();
    assert_eq!(names(tables.all_nodes(&Vec::new()).0), ["n2", "n9"]);
    assert_eq!(names(tables.service_nodes(&all("web")).0), ["n2/web2"]);
    assert!(tables.checks.is_empty());
    assert_eq!(tables.nodes["n9"].node.create_index.get(), 5);
}

#[test]
fn a_name_in_other_case_respells_the_node_and_keeps_its_services() {
    let mut tables = two_nodes();
    register(&mut tables, 7, registration(node("N1", Some(1)))).unwrap();
    assert_eq!(names(tables.service_nodes(&all("web")).0), ["N1/web1", "n2/web2"]);
    let n1 = NodeName::parse("n1").unwrap();
    assert_eq!(names(tables.node_checks(&n1).0), ["N1/http", "N1/serfHealth"]);
}

#[test]
fn a_name_is_reserved_while_its_owner_passes() {
    let mut tables = two_nodes();
    let before = tables.clone();
    let thief = Node { address: "2.2.2.2".to_owned(), ..node("n1", Some(2)) };
    let error = register(&mut tables, 7, registration(thief.clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed inserting node: Error while renaming Node ID: \
         \"02020202-0202-0202-0202-020202020202\" (2.2.2.2): Node name n1 is reserved by node \
         01010101-0101-0101-0101-010101010101 with name n1 (10.0.0.1)"
    );
    assert_eq!(tables, before);
    let mut failed = registration(node("n1", Some(1)));
    failed.checks = vec![check("n1", "serfHealth", None, CheckStatus::Critical)];
    register(&mut tables, 8, failed).unwrap();
    register(&mut tables, 9, registration(thief)).unwrap();
    assert_eq!(tables.node_ids.len(), 1);
    assert_eq!(names(tables.service_nodes(&all("web")).0).len(), 2);
}

#[test]
fn a_check_needs_its_service_and_its_node() {
    let mut tables = two_nodes();
    let before = tables.clone();
    let mut wanted = registration(node("n7", None));
    wanted.checks = vec![check("n7", "c", Some("none"), CheckStatus::Passing)];
    let error = register(&mut tables, 7, wanted.clone()).unwrap_err();
    let text = "failed inserting check: Missing service registration on node \"n7\"";
    assert_eq!(error.to_string(), text);
    wanted.checks = vec![check("other", "c", None, CheckStatus::Passing)];
    let error = register(&mut tables, 7, wanted).unwrap_err();
    assert_eq!(error.to_string(), "check node \"other\" does not match node \"n7\"");
    assert_eq!(tables, before);
}

#[test]
fn missing_values_get_their_defaults() {
    let mut tables = Tables::default();
    let mut wanted = registration(node("n1", None));
    let weights = Weights { passing: 0, warning: 5 };
    wanted.service = Some(Service { weights, ..service("db", "db") });
    let mut tcp = check("n1", "c", Some("db"), CheckStatus::Other(String::new()));
    tcp.recipe.tcp = "1.2.3.4:5".to_owned();
    tcp.recipe.interval = std::time::Duration::from_secs(5);
    wanted.checks = vec![tcp];
    register(&mut tables, 1, wanted).unwrap();
    let stored = &tables.checks["n1\0c"];
    assert_eq!((&stored.status, stored.kind.as_str()), (&CheckStatus::Critical, "tcp"));
    assert_eq!(tables.services["n1\0db"].weights, Weights::default());
}

#[test]
fn an_identical_write_raises_no_index() {
    let mut tables = two_nodes();
    let before = tables.clone();
    let mut again = registration(node("n1", Some(1)));
    again.service = Some(service("web1", "web"));
    again.checks = vec![check("n1", "http", Some("web1"), CheckStatus::Warning)];
    register(&mut tables, 99, again).unwrap();
    assert_eq!(tables, before);
}

#[test]
fn a_service_hears_of_its_checks_its_node_and_of_no_other_service() {
    let mut tables = two_nodes();
    let mut other = registration(node("n3", None));
    other.service = Some(service("db", "db"));
    register(&mut tables, 10, other).unwrap();
    assert_eq!((index_of(&tables, "web"), index_of(&tables, "db")), (6, 10));
    let mut turned = registration(node("n1", Some(1)));
    turned.checks = vec![check("n1", "http", Some("web1"), CheckStatus::Passing)];
    register(&mut tables, 11, turned).unwrap();
    assert_eq!((index_of(&tables, "web"), index_of(&tables, "db")), (11, 10));
    let mut failed = registration(node("n3", None));
    failed.checks = vec![check("n3", "serfHealth", None, CheckStatus::Critical)];
    register(&mut tables, 12, failed).unwrap();
    assert_eq!((index_of(&tables, "web"), index_of(&tables, "db")), (11, 12));
    assert_eq!(tables.all_services(&Vec::new()).1.get(), 10);
}

#[test]
fn a_service_without_instances_shows_when_one_was_last_lost() {
    let mut tables = two_nodes();
    assert_eq!(index_of(&tables, "nosuch"), 6);
    deregister(&mut tables, 20, "n1", Some("web1"), None);
    assert_eq!((index_of(&tables, "web"), index_of(&tables, "nosuch")), (20, 20));
    deregister(&mut tables, 21, "n2", Some("web2"), None);
    register(&mut tables, 22, registration(node("n5", None))).unwrap();
    assert_eq!((index_of(&tables, "web"), index_of(&tables, "nosuch")), (21, 21));
}

#[test]
fn deregistering_takes_what_hangs_on_the_target() {
    let mut tables = two_nodes();
    deregister(&mut tables, 7, "N1", Some("web1"), None);
    assert_eq!(names(tables.service_nodes(&all("web")).0), ["n2/web2"]);
    assert!(!tables.checks.contains_key("n1\0http"));
    deregister(&mut tables, 8, "n1", None, Some("serfHealth"));
    assert!(tables.checks.is_empty());
    deregister(&mut tables, 9, "n2", None, None);
    deregister(&mut tables, 10, "n1", None, None);
    let empty = Tables { changed: tables.changed, ..Tables::default() };
    assert_eq!(tables, empty);
    deregister(&mut tables, 11, "n1", None, None);
    assert_eq!(tables, empty);
}

#[test]
fn a_check_follows_its_service_to_another_name_and_other_tags() {
    let mut tables = two_nodes();
    let mut moved = registration(node("n1", Some(1)));
    moved.service = Some(Service { tags: vec!["x".to_owned()], ..service("web1", "api") });
    register(&mut tables, 7, moved).unwrap();
    let stored = &tables.checks["n1\0http"];
    assert_eq!(
        (stored.service_name.as_str(), &stored.service_tags[..]),
        ("api", &["x".into()][..])
    );
    assert_eq!(names(tables.service_checks(&all("api")).0), ["n1/http"]);
    assert_eq!(names(tables.service_nodes(&all("web")).0), ["n2/web2"]);
}

#[test]
fn a_node_is_named_by_name_identity_or_unique_prefix() {
    let mut tables = two_nodes();
    let close = NodeId::parse("01010101-0101-0101-0101-0101010101ff").unwrap();
    register(&mut tables, 7, registration(Node { id: Some(close), ..node("n3", None) })).unwrap();
    let found = |wanted: &str| {
        let Rows::Node(row) = tables.node_with_services(wanted).0 else { panic!() };
        row.map(|row| (row.node.name.to_string(), row.services.len()))
    };
    assert_eq!(found("N1"), Some(("n1".to_owned(), 1)));
    assert_eq!(found("01010101-0101-0101-0101-0101010101FF"), Some(("n3".to_owned(), 0)));
    assert_eq!(found("01010101-0101-0101-0101-01010101010"), Some(("n1".to_owned(), 1)));
    assert_eq!(found("0101"), None);
    assert_eq!(found("0"), None);
    assert_eq!(found("zz"), None);
    assert_eq!(found(&"é".repeat(20)), None);
}

#[test]
fn an_address_belongs_to_a_node_before_a_service() {
    let mut tables = two_nodes();
    let mut wanted = registration(Node { address: "2001:db8:0::1".to_owned(), ..node("n3", None) });
    wanted.service = Some(Service { address: "10.9.8.7".to_owned(), ..service("api", "api") });
    register(&mut tables, 7, wanted).unwrap();
    let owner = |address: &str| {
        let Rows::Owner(owner) = tables.address_owner(address).0 else { panic!() };
        owner
    };
    assert_eq!(owner("10.0.0.1"), AddressOwner::Node(NodeName::parse("n1").unwrap()));
    assert_eq!(owner("2001:db8::1"), AddressOwner::Node(NodeName::parse("n3").unwrap()));
    assert_eq!(owner("10.9.8.7"), AddressOwner::Service(ServiceName::parse("api").unwrap()));
    assert_eq!(owner("9.9.9.9"), AddressOwner::Nobody);
}

#[test]
fn readers_keep_the_tables_they_took() {
    let mut tables = two_nodes();
    let taken = tables.clone();
    deregister(&mut tables, 7, "n1", None, None);
    assert_eq!(names(taken.service_nodes(&all("web")).0), ["n1/web1", "n2/web2"]);
    assert!(Arc::ptr_eq(&taken.nodes["n2"].node, &tables.nodes["n2"].node));
}

fn at(node: &str, seconds: f64) -> NodeCoordinate {
    let node = NodeName::parse(node).unwrap();
    let coordinate = Coordinate::new([seconds; DIMENSIONS], 0.5, 1e-5, 0.0).unwrap();
    NodeCoordinate { node, segment: String::new(), coordinate }
}

fn told(tables: &mut Tables, index: u64, rows: &[NodeCoordinate]) {
    tables.apply(LogIndex::new(index), Command::Coordinates(rows.to_vec())).unwrap();
}

fn stored(tables: &Tables, node: Option<&str>) -> (Vec<NodeCoordinate>, u64) {
    let node = node.map(|name| NodeName::parse(name).unwrap());
    let query = CoordinateQuery { node, segment: None };
    let (Rows::Coordinates(rows), index) = tables.coordinates(&query) else { panic!() };
    (rows.iter().map(|row| (**row).clone()).collect(), index.get())
}

#[test]
fn coordinates_belong_to_nodes_and_go_with_them() {
    let mut tables = Tables::default();
    register(&mut tables, 1, registration(node("Alpha", Some(1)))).unwrap();
    register(&mut tables, 2, registration(node("b", Some(2)))).unwrap();
    told(&mut tables, 3, &[at("alpha", 0.1), at("b", 0.2), at("nobody", 0.3)]);
    let alpha = at("Alpha", 0.1);
    assert_eq!(stored(&tables, None), (vec![alpha.clone(), at("b", 0.2)], 3));
    assert_eq!(stored(&tables, Some("ALPHA")).0, std::slice::from_ref(&alpha));
    told(&mut tables, 4, &[at("b", 0.2)]);
    assert_eq!(stored(&tables, None).1, 3, "the same again changes nothing");

    // A node spelled otherwise keeps its coordinate under the new spelling.
    register(&mut tables, 5, registration(node("ALPHA", Some(1)))).unwrap();
    assert_eq!(stored(&tables, Some("alpha")), (vec![at("ALPHA", 0.1)], 5));
    deregister(&mut tables, 6, "alpha", None, None);
    assert_eq!(stored(&tables, None), (vec![at("b", 0.2)], 6));
    assert_eq!(tables.coordinate_of(&alpha.node), None);
    let servers = tables.coordinates_of([NodeId::from_bytes([2; 16])].into_iter());
    assert_eq!(*servers[0], at("b", 0.2));
}

#[test]
fn coordinates_are_read_by_exact_segment() {
    let mut tables = Tables::default();
    register(&mut tables, 1, registration(node("a", None))).unwrap();
    told(
        &mut tables,
        2,
        &[at("a", 0.1), NodeCoordinate { segment: "x".to_owned(), ..at("a", 0.2) }],
    );
    let count = |segment: Option<&str>| {
        let query = CoordinateQuery { node: None, segment: segment.map(str::to_owned) };
        let (Rows::Coordinates(rows), _) = tables.coordinates(&query) else { panic!() };
        rows.len()
    };
    assert_eq!((count(None), count(Some("")), count(Some("x")), count(Some("y"))), (2, 1, 1, 0));
}
