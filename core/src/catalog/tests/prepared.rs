//! Prepared queries: what may be stored, whom a name asks for, and what is chosen.

use super::super::prepared::{
    Execution, PreparedQuery, PreparedQueryError, PreparedQueryRule, PreparedWrite, Selection,
    Template,
};
use super::super::query::Rows;
use super::image::any_command;
use super::session::{id as session_id, session};
use super::*;
use crate::catalog::command::Applied;
use crate::catalog::model::NodeCoordinate;
use crate::coordinate::{Coordinate, DIMENSIONS};
use crate::id::{Datacenter, PreparedQueryId};
use crate::rng::{Rng, Seed, Stream};
use proptest::prelude::*;
use std::time::Duration;

fn query_id(byte: u8) -> PreparedQueryId {
    PreparedQueryId::from_bytes([byte; 16])
}

fn query(byte: u8, name: &str) -> PreparedQuery {
    PreparedQuery {
        id: query_id(byte),
        name: name.to_owned(),
        session: None,
        token: String::new(),
        template: None,
        service: Selection { service: "web".to_owned(), ..Selection::default() },
        ttl: None,
        ttl_text: String::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn template(byte: u8, name: &str) -> PreparedQuery {
    PreparedQuery { template: Some(Template::default()), ..query(byte, name) }
}

fn apply(tables: &mut Tables, index: u64, write: PreparedWrite) -> Result<Applied, ApplyError> {
    tables.apply(LogIndex::new(index), Command::Prepared(write))
}

fn create(query: PreparedQuery) -> PreparedWrite {
    PreparedWrite::Create(Box::new(query))
}

fn update(query: PreparedQuery) -> PreparedWrite {
    PreparedWrite::Update(Box::new(query))
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The identity of the query that a name asks for.
fn resolved(tables: &Tables, asked: &str) -> Option<PreparedQueryId> {
    tables.resolve_prepared(asked).unwrap().map(|query| query.id)
}

#[test]
fn a_name_is_taken_once_in_any_case_and_no_identity_is_a_name() {
    let mut tables = Tables::default();
    apply(&mut tables, 1, create(query(1, "One"))).unwrap();
    let refused = |tables: &mut Tables, write, error: PreparedQueryError| {
        let before = tables.clone();
        assert_eq!(apply(tables, 2, write), Err(error.into()));
        assert_eq!(*tables, before);
    };
    let taken = PreparedQueryError::NameTaken("oNE".to_owned());
    refused(&mut tables, create(query(2, "oNE")), taken.clone());
    refused(&mut tables, create(template(2, "oNE")), taken);
    let name = query_id(1).to_string();
    let identity = PreparedQueryError::NameIsIdentity(name.clone());
    refused(&mut tables, create(query(2, &name)), identity);
    let missing = PreparedQueryError::Missing(query_id(2));
    refused(&mut tables, update(query(2, "two")), missing.clone());
    refused(&mut tables, PreparedWrite::Delete(query_id(2)), missing);
    refused(&mut tables, create(query(1, "two")), PreparedQueryError::Exists(query_id(1)));
    apply(&mut tables, 2, create(template(3, ""))).unwrap();
    refused(&mut tables, create(template(4, "")), PreparedQueryError::EmptyNameTaken);

    apply(&mut tables, 5, update(query(1, "two"))).unwrap();
    apply(&mut tables, 6, create(query(2, "one"))).unwrap();
    assert_eq!(resolved(&tables, "TWO"), Some(query_id(1)));
    assert_eq!(resolved(&tables, "one"), Some(query_id(2)));
    let (Rows::PreparedQueries(rows), index) = tables.prepared_row(query_id(1)) else { panic!() };
    let (created, modified) = (rows[0].create_index, rows[0].modify_index);
    assert_eq!((created.get(), modified.get(), index.get()), (1, 5, 6));
}

#[test]
fn what_is_stored_already_raises_no_index() {
    let mut tables = Tables::default();
    apply(&mut tables, 1, create(query(1, "one"))).unwrap();
    let before = tables.clone();
    apply(&mut tables, 2, create(query(1, "one"))).unwrap();
    apply(&mut tables, 3, update(query(1, "one"))).unwrap();
    assert_eq!(tables, before);
}

#[test]
fn a_query_ends_with_its_session() {
    let mut tables = Tables::default();
    register(&mut tables, 1, registration(node("n1", None))).unwrap();
    let bound = |byte| PreparedQuery { session: Some(session_id(7)), ..query(byte, "") };
    let missing = PreparedQueryError::NoSession(session_id(7));
    assert_eq!(apply(&mut tables, 2, create(bound(1))), Err(missing.into()));
    let open = Command::CreateSession(Box::new(session(7, "n1", &[])));
    tables.apply(LogIndex::new(3), open).unwrap();
    apply(&mut tables, 4, create(bound(1))).unwrap();
    apply(&mut tables, 5, create(bound(2))).unwrap();
    apply(&mut tables, 6, create(query(3, "stays"))).unwrap();
    deregister(&mut tables, 7, "n1", None, None);
    let (Rows::PreparedQueries(rows), index) = tables.all_prepared() else { panic!() };
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [query_id(3)]);
    assert_eq!(index.get(), 7);
}

#[test]
fn a_name_asks_for_itself_then_for_the_template_with_the_longest_prefix() {
    let mut tables = Tables::default();
    let all = [query(1, "geo-db"), template(2, "geo-"), template(3, "GEO-db-"), template(4, "g")];
    for (index, query) in (1..).zip(all) {
        apply(&mut tables, index, create(query)).unwrap();
    }
    for (asked, found) in [
        ("geo-db", Some(1)),
        ("GEO-DB", Some(1)),
        ("geo-dbx", Some(2)),
        ("geo-", Some(2)),
        ("geo-db-master", Some(3)),
        ("go", Some(4)),
        ("other", None),
        ("", None),
    ] {
        assert_eq!(resolved(&tables, asked), found.map(query_id), "{asked}");
    }
    assert_eq!(resolved(&tables, &query_id(1).to_string()), Some(query_id(1)));
    let by_id = tables.resolve_prepared(&query_id(2).to_string());
    assert_eq!(by_id.unwrap_err(), PreparedQueryRule::TemplateById);
    // The template without a name takes what nobody else does.
    apply(&mut tables, 9, create(template(5, ""))).unwrap();
    assert_eq!(resolved(&tables, "other"), Some(query_id(5)));
    assert_eq!(resolved(&tables, ""), None, "nobody asks for nothing");
}

#[test]
fn a_template_is_filled_in() {
    let mut tables = Tables::default();
    let made = PreparedQuery {
        template: Some(Template { regexp: "^t-(.+)-(.+)$".to_owned(), remove_empty_tags: true }),
        service: Selection {
            service: "${match(1)}".to_owned(),
            tags: texts(&["${match(2)}", "${match(9)}", "!${name.full}|${ name.suffix }"]),
            datacenters: texts(&["${name.prefix}dc${agent.segment}"]),
            node_meta: [("k".to_owned(), "$${x} $ {y}".to_owned())].into(),
            ..Selection::default()
        },
        ..query(1, "t-")
    };
    assert_eq!(made.check(), Ok(()));
    apply(&mut tables, 1, create(made)).unwrap();
    let service = |asked: &str| tables.resolve_prepared(asked).unwrap().unwrap().service.clone();
    let filled = service("t-web-x");
    assert_eq!(filled.service, "web");
    assert_eq!(filled.tags, ["x", "!t-web-x|web-x"]);
    assert_eq!(filled.datacenters, ["t-dc"]);
    assert_eq!(filled.node_meta["k"], "${x} $ {y}");
    // The name fits in any case, but to the expression case matters (seen in Consul 1.8.7).
    assert_eq!(service("T-web-x").service, "");
}

#[test]
fn a_query_that_breaks_a_rule_is_told_which() {
    let refused = |query: PreparedQuery| query.check().unwrap_err().to_string();
    assert!(refused(query(1, "")).ends_with("Must be bound to a session"));
    let hidden = PreparedQuery { token: "<hidden>".to_owned(), ..query(1, "a") };
    assert!(refused(hidden).contains("redacted token"));
    let nothing = PreparedQuery { service: Selection::default(), ..query(1, "a") };
    assert!(refused(nothing).ends_with("Must provide a Service name to query"));
    let expression = Template { regexp: "(".to_owned(), ..Template::default() };
    let bad = PreparedQuery { template: Some(expression), ..query(1, "a") };
    assert!(refused(bad).starts_with("failed compiling template: Bad Regexp: "));
    for text in ["${name.ful}", "${name.full", "${match(x)}", "${}", "a${match(1) + 1}"] {
        let service = Selection { service: text.to_owned(), ..Selection::default() };
        let bad = PreparedQuery { service, ..template(1, "a") };
        let told = refused(bad);
        assert!(told.contains(&format!("{text:?}")), "{told}");
    }
}

/// Instances of web: one a node, n0 to n4, with what the index says.
fn instances() -> Tables {
    let mut tables = Tables::default();
    for at in 0..5_u64 {
        let name = format!("n{at}");
        let mut wanted = registration(node(&name, None));
        wanted.node.address = format!("10.0.0.{at}");
        wanted.node.meta.insert("odd".to_owned(), (at % 2).to_string());
        let mut web = service("w", "web");
        web.tags = texts(&["all", &format!("Tag{at}")]);
        web.meta.insert("v".to_owned(), (at / 3).to_string());
        wanted.service = Some(web);
        let status = match at {
            3 => CheckStatus::Warning,
            4 => CheckStatus::Critical,
            _ => CheckStatus::Passing,
        };
        wanted.checks = vec![check(&name, "c", Some("w"), status)];
        register(&mut tables, at + 1, wanted).unwrap();
        let coordinate = Coordinate::new([at as f64 / 1000.0; DIMENSIONS], 0.5, 1e-5, 0.0);
        let coordinate = coordinate.unwrap();
        let row = NodeCoordinate {
            node: NodeName::parse(&name).unwrap(),
            segment: String::new(),
            coordinate,
        };
        tables.apply(LogIndex::new(at + 10), Command::Coordinates(vec![row])).unwrap();
    }
    tables
}

#[test]
fn instances_are_chosen_by_health_tags_and_metadata() {
    let tables = instances();
    let chosen = |wanted: Selection| {
        let wanted = Selection { service: "WEB".to_owned(), ..wanted };
        let rows = tables.chosen(&wanted);
        rows.iter().map(|row| row.node.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    let plain = Selection::default;
    let meta = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    assert_eq!(chosen(plain()), "n0 n1 n2 n3");
    assert_eq!(chosen(Selection { only_passing: true, ..plain() }), "n0 n1 n2");
    let ignored_checks = texts(&["C"]);
    assert_eq!(
        chosen(Selection { only_passing: true, ignored_checks, ..plain() }),
        "n0 n1 n2 n3 n4"
    );
    assert_eq!(chosen(Selection { tags: texts(&["ALL", "tag1"]), ..plain() }), "n1");
    assert_eq!(chosen(Selection { tags: texts(&["all", "!TAG1"]), ..plain() }), "n0 n2 n3");
    assert_eq!(chosen(Selection { node_meta: meta("odd", "1"), ..plain() }), "n1 n3");
    assert_eq!(chosen(Selection { service_meta: meta("v", "1"), ..plain() }), "n3");
}

#[test]
fn the_nearest_come_first_and_without_a_place_luck_decides() {
    let tables = instances();
    let wanted = Selection { service: "web".to_owned(), ..Selection::default() };
    let dc1 = Datacenter::parse("dc1").unwrap();
    let execution = |near: &str| Execution {
        query: String::new(),
        near: (!near.is_empty()).then(|| near.to_owned()),
        limit: 0,
        agent: NodeName::parse("n1").unwrap(),
        agent_datacenter: dc1.clone(),
        address: "10.0.0.3".parse().ok(),
    };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let mut order = |near: Option<NodeName>| {
        let mut rows = tables.chosen(&wanted);
        tables.arrange(&mut rows, near.as_ref(), &mut rng);
        rows.iter().map(|row| row.node.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    let near_of = |near: &str, query: &str, own: &str| {
        let wanted = Selection { near: query.to_owned(), ..wanted.clone() };
        tables.near_of(&execution(near), &wanted, &Datacenter::parse(own).unwrap())
    };
    assert_eq!(order(near_of("n2", "", "dc1")).get(..2), Some("n2"));
    assert_eq!(order(near_of("_ip", "n0", "dc1")), "n3 n2 n1 n0");
    assert_eq!(order(near_of("", "_agent", "dc1")).get(..2), Some("n1"));
    assert_eq!(near_of("", "_agent", "dc2"), None, "the agent is in another datacenter");
    assert_eq!(order(near_of("n0", "", "dc1")), "n0 n1 n2 n3");
    let orders: std::collections::BTreeSet<_> = (0..50).map(|_| order(None)).collect();
    assert!(orders.len() > 10, "{orders:?}");
}

/// Stores a query that ends with a session.
pub(super) fn prepared_command() -> Command {
    let session = Some(session_id(1));
    Command::Prepared(create(PreparedQuery { session, ..query(1, "Query") }))
}

/// Changes of few queries.
pub(super) fn any_prepared_write() -> impl Strategy<Value = Command> {
    let made = (1..4_u8, "[ab]{0,2}", any::<bool>(), 0..4_u8, any::<bool>());
    let made = made.prop_map(|(byte, name, is_template, bound, creates)| {
        let session = (bound > 0).then(|| session_id(bound));
        let template = is_template.then(Template::default);
        let made = PreparedQuery { template, session, ..query(byte, &name) };
        let made = PreparedQuery { ttl: Some(Duration::from_secs(9)), ..made };
        if creates { create(made) } else { update(made) }
    });
    let gone = (1..4_u8).prop_map(|byte| PreparedWrite::Delete(query_id(byte)));
    prop_oneof![3 => made, 1 => gone].prop_map(Command::Prepared)
}

proptest! {
    #[test]
    fn names_are_unique_and_no_query_outlives_its_session(
        commands in prop::collection::vec(any_command(), 0..60),
    ) {
        let mut tables = Tables::default();
        for (index, command) in (10..).zip(commands) {
            let before = tables.clone();
            if tables.apply(LogIndex::new(index), command).is_err() {
                prop_assert_eq!(&tables, &before);
            }
            let (Rows::PreparedQueries(rows), newest) = tables.all_prepared() else { panic!() };
            let mut names = std::collections::BTreeSet::new();
            for row in rows {
                prop_assert!(row.modify_index <= newest);
                prop_assert!(row.session.is_none_or(|id| tables.session(id).is_some()));
                if row.template.is_some() || !row.name.is_empty() {
                    prop_assert!(names.insert(row.name.to_lowercase()));
                    let found = resolved(&tables, &row.name);
                    prop_assert_eq!(found, (!row.name.is_empty()).then_some(row.id));
                }
            }
        }
    }
}
