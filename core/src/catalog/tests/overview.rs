//! Reads over everything (http-api.md §18).

use super::*;
use crate::catalog::overview::{NodeOverview, Overview};
use crate::catalog::query::{Query, Rows};
use crate::filter::Filter;

/// Nodes a and b; on a the service web with a check.
fn tables() -> Tables {
    let mut tables = Tables::default();
    let mut first = registration(node("a", None));
    first.service = Some(service("web1", "web"));
    first.checks = vec![
        check("a", "serfHealth", None, CheckStatus::Passing),
        check("a", "http", Some("web1"), CheckStatus::Warning),
    ];
    register(&mut tables, 1, first).unwrap();
    let second = registration(node("b", None));
    register(&mut tables, 2, second).unwrap();
    tables
}

fn rows(tables: &Tables, wanted: Overview) -> Vec<(String, usize, usize)> {
    let query = Query::Overview(wanted);
    let Query::Overview(wanted) = &query else { unreachable!() };
    let (rows, index) = tables.overview(wanted);
    assert_eq!(index.get(), 2, "the index is that of the newest of nodes, services and checks");
    let Rows::NodeOverviews(rows) = tables.refined(&query, rows, "dc1") else { panic!() };
    let row =
        |row: &NodeOverview| (row.node.name.to_string(), row.services.len(), row.checks.len());
    rows.iter().map(row).collect()
}

#[test]
fn nodes_come_with_all_that_is_on_them() {
    let tables = tables();
    let (a, b) = (("a".to_owned(), 1, 2), ("b".to_owned(), 0, 0));
    assert_eq!(rows(&tables, Overview::Nodes(None)), [a.clone(), b.clone()]);
    assert_eq!(rows(&tables, Overview::Node("B".to_owned())), vec![b.clone()]);
    assert_eq!(rows(&tables, Overview::Node("c".to_owned())), []);
    let kept = |text: &str| rows(&tables, Overview::Nodes(Some(Filter::parse(text).unwrap())));
    assert_eq!(kept("Services.Service == web"), vec![a.clone()]);
    assert_eq!(kept("Checks.Status == warning"), [a]);
    assert_eq!(kept("Services is empty"), [b]);
    assert!(Filter::<NodeOverview>::parse("Nope == 1").is_err());
}
