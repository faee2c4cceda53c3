//! What filters take and refuse, as Consul 1.8.7 answered, and how they judge rows.

mod model;

use super::*;
use crate::catalog::model::{Check, CheckStatus, Node, Service, ServiceAddress};
use crate::catalog::query::{Instance, ServiceNode};
use crate::catalog::tests::{check, node, service};
use crate::id::NodeId;
use crate::wire::pack::{from_bytes, to_bytes};
use std::collections::BTreeMap;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn a_node() -> Node {
    Node {
        tagged_addresses: map(&[("wan", "8.8.8.8")]),
        meta: map(&[("env", "prod"), ("a-b", "x"), ("empty", "")]),
        ..node("n1", None)
    }
}

fn a_service() -> Service {
    let lan = ServiceAddress { address: "10.0.0.1".to_owned(), port: 80 };
    Service {
        tags: vec!["primary".to_owned(), "a b".to_owned()],
        tagged_addresses: BTreeMap::from([("lan_ipv4".to_owned(), lan)]),
        meta: map(&[("m", "1")]),
        port: 5432,
        ..service("db1", "db")
    }
}

fn a_check() -> Check {
    Check {
        service_tags: vec!["primary".to_owned()],
        service_name: "db".to_owned(),
        kind: "tcp".to_owned(),
        ..check("n1", "db-check", Some("db1"), CheckStatus::Passing)
    }
}

fn wants<R: Row>(source: &str, row: &R) -> bool {
    match Filter::parse(source) {
        Ok(filter) => filter.wants(row, "dc1"),
        Err(error) => panic!("{source}: {error}"),
    }
}

fn refusal<R: Row>(source: &str) -> String {
    Filter::<R>::parse(source).map(|_| source).expect_err("a bad filter").to_string()
}

#[test]
fn expressions_judge_nodes_as_clients_know() {
    let node = a_node();
    for source in [
        "Node == n1",
        "Node==n1",
        "Node != n2",
        "Node!=n2",
        " ( Node == n1 ) ",
        "((Node == n1))",
        "Node ==\nn1\t",
        "not Node == n2",
        "not not Node == n1",
        "not (Node == n2)",
        "Node == n1 and not Node == n2 or Node == n3",
        "Node == n3 and Node == n1 or Node == n1",
        "not (Node == n3 or Node == n1 and Node == n2)",
        "Node contains n",
        "n in Node",
        "x not in Node",
        "Node not contains x",
        "Node matches `^n\\d$`",
        r#"Node matches "^n\\d$""#,
        "Node matches \"1\"",
        "Node not matches \"2\"",
        r#"Node == "\x6e1""#,
        r#"Node == "\156\u0031""#,
        r#"Meta["env"] == prod"#,
        "Meta[ `env` ] == prod",
        "Meta.env == prod",
        r#""prod" in Meta.env"#,
        "env in Meta",
        "Meta contains env",
        "Meta is not empty",
        r#"Meta["a-b"] == x"#,
        "Meta.empty == \"\"",
        "Meta.nope != \"\"",
        "x not in Meta.nope",
        "Meta.nope not contains x",
        "Meta.nope matches x",
        "Meta.nope not matches x",
        "TaggedAddresses.wan == \"8.8.8.8\"",
        "Datacenter == dc1",
        "ID == ``",
        "Address == \"10.0.0.1\"",
        "not in Address or not not in Address",
        r#"Node != n_1.x["y"]"#,
        "Node != -5.25 and Node != 0",
    ] {
        assert!(wants(source, &node), "{source}");
    }
    for source in [
        "Node == N1",
        "Meta is empty",
        "Meta.nope == \"\"",
        "Meta.nope contains x",
        "x in Meta.nope",
        "Datacenter == dc2",
        "Node == not",
        "Node == `a\"b`",
        "Node == n1 and Node == n2",
        "not Node == n1 and Node == n1",
    ] {
        assert!(!wants(source, &node), "{source}");
    }
    let known = Node { id: Some(NodeId::from_bytes([7; 16])), ..a_node() };
    assert!(wants("ID matches \"^07070707-\"", &known));
}

#[test]
fn all_that_rows_have_is_selected_by_the_names_of_its_kind() {
    let service = a_service();
    for source in [
        "Service == db and ID == db1 and Kind == \"\"",
        "Port == 5432 and Port == \"5432\" and Port != 80",
        r#"Port == "0x1538" and Port == "012470" and Port == "+5_432" and Port == "0b1_0101_0011_1000""#,
        "primary in Tags and \"a b\" in Tags and prim not in Tags",
        "Tags contains primary and Tags is not empty",
        "EnableTagOverride == false and EnableTagOverride == 0 and EnableTagOverride != true",
        "Meta.m == 1 and m in Meta",
        "TaggedAddresses.lan_ipv4.Address == \"10.0.0.1\" and lan_ipv4 in TaggedAddresses",
        "TaggedAddresses.lan_ipv4.Port == 80 and TaggedAddresses.nope.Port != 80",
        "Weights.Passing == 1 and Weights.Warning == 1",
        "Connect.Native == false and Proxy.Upstreams is empty and Proxy.MeshGateway.Mode == ``",
        "Proxy.DestinationServiceName == `` and Proxy.LocalServicePort == 0",
        "Proxy.Expose.Checks == false and Proxy.Expose.Paths is empty",
        "Address == \"\"",
    ] {
        assert!(wants(source, &service), "{source}");
    }
    assert!(wants("Node == n1 and CheckID == `db-check` and Name contains check", &a_check()));
    assert!(wants("Status == passing and Notes == `` and Output == ``", &a_check()));
    assert!(wants("ServiceID == db1 and ServiceName == db and Type == tcp", &a_check()));
    assert!(wants("primary in ServiceTags", &a_check()));

    let row = ServiceNode { node: a_node().into(), service: a_service().into() };
    for source in [
        "Node == n1 and ID == `` and Datacenter == dc1 and NodeMeta.env == prod",
        "Address == \"10.0.0.1\" and ServiceAddress == `` and TaggedAddresses is not empty",
        "ServiceID == db1 and ServiceName == db and ServicePort == 5432 and ServiceKind == ``",
        "primary in ServiceTags and ServiceMeta.m == 1 and ServiceWeights.Passing == 1",
        "ServiceTaggedAddresses.lan_ipv4.Port == 80 and ServiceConnect.Native == false",
        "ServiceEnableTagOverride == false and ServiceProxy.DestinationServiceName == ``",
    ] {
        assert!(wants(source, &row), "{source}");
    }
}

#[test]
fn any_check_of_an_instance_may_be_as_wanted() {
    let checks = vec![check("n1", "alive", None, CheckStatus::Critical).into(), a_check().into()];
    let row = Instance { node: a_node().into(), service: a_service().into(), checks };
    for source in [
        "Checks.Status == passing",
        "Checks.Status != passing",
        "not Checks.Status == warning",
        "Checks is not empty",
        "primary in Checks.ServiceTags",
        "primary not in Checks.ServiceTags",
        "Node.Meta.env == prod and Node.Datacenter == dc1 and Node.Node == n1",
        "Service.Port == 5432 and primary in Service.Tags",
    ] {
        assert!(wants(source, &row), "{source}");
    }
    assert!(!wants("not Checks.Status == passing", &row));
    let without = Instance { checks: Vec::new(), ..row };
    assert!(wants("Checks is empty", &without));
    assert!(!wants("Checks.Status != passing", &without));
}

#[test]
fn what_does_not_fit_the_rows_is_refused_by_name() {
    for (source, text) in [
        ("Nope == 1", r#"Selector "Nope" is not valid"#),
        ("CreateIndex == 5", r#"Selector "CreateIndex" is not valid"#),
        ("Node.x == 1", r#"Selector "Node.x" is not valid"#),
        ("Meta.a.b.c == 1", r#"Selector "Meta.a.b" is not valid"#),
        ("not == n1", r#"Selector "not" is not valid"#),
        ("Meta == 1", r#"Invalid match operator "Equal" for selector "Meta""#),
        ("Meta != 1", r#"Invalid match operator "Not Equal" for selector "Meta""#),
        ("Node is empty", r#"Invalid match operator "Is Empty" for selector "Node""#),
        ("Node is not empty", r#"Invalid match operator "Is Not Empty" for selector "Node""#),
        ("Meta matches x", r#"Invalid match operator "Matches" for selector "Meta""#),
        ("Meta not matches x", r#"Invalid match operator "Not Matches" for selector "Meta""#),
    ] {
        assert_eq!(refusal::<Node>(source), text, "{source}");
    }
    let value = |value: &str, selector: &str, parser: &str, rule: &str| {
        format!(
            "Failed to coerce value {value:?} for selector {selector:?}: \
             strconv.{parser}: parsing {value:?}: {rule}"
        )
    };
    let integer = |text: &str, rule| value(text, "ServicePort", "ParseInt", rule);
    let of_tags =
        |operator| format!("Invalid match operator {operator:?} for selector \"ServiceTags\"");
    let large = "99999999999999999999";
    for (source, text) in [
        ("ServicePort == abc", integer("abc", "invalid syntax")),
        ("ServicePort == 54.32", integer("54.32", "invalid syntax")),
        ("ServicePort == `5__4`", integer("5__4", "invalid syntax")),
        ("ServicePort == `08`", integer("08", "invalid syntax")),
        ("ServicePort == ``", integer("", "invalid syntax")),
        ("ServicePort == `--5`", integer("--5", "invalid syntax")),
        (&format!("ServicePort == {large}"), integer(large, "value out of range")),
        (
            "ServiceTaggedAddresses.nope.Port != x",
            value("x", "ServiceTaggedAddresses.nope.Port", "ParseInt", "invalid syntax"),
        ),
        (
            "ServiceEnableTagOverride == maybe",
            value("maybe", "ServiceEnableTagOverride", "ParseBool", "invalid syntax"),
        ),
        (
            "5 in ServicePort",
            "Invalid match operator \"In\" for selector \"ServicePort\"".to_owned(),
        ),
        ("ServiceTags == a", of_tags("Equal")),
        ("ServiceTags matches a", of_tags("Matches")),
        ("ServiceTags.x == 1", "Selector \"ServiceTags.x\" is not valid".to_owned()),
        ("Service == db", "Selector \"Service\" is not valid".to_owned()),
        ("ServiceService == db", "Selector \"ServiceService\" is not valid".to_owned()),
        ("ServiceProxy.Mode == x", "Selector \"ServiceProxy.Mode\" is not valid".to_owned()),
        ("ServiceConnect.X == x", "Selector \"ServiceConnect.X\" is not valid".to_owned()),
        (
            "ServiceWeights == 1",
            "Invalid match operator \"Equal\" for selector \"ServiceWeights\"".to_owned(),
        ),
    ] {
        assert_eq!(refusal::<ServiceNode>(source), text, "{source}");
    }
    for (source, text) in [
        ("Node == ext", r#"Invalid match operator "Equal" for selector "Node""#),
        ("Checks == x", r#"Invalid match operator "Equal" for selector "Checks""#),
        ("Checks.x == x", r#"Selector "Checks.x" is not valid"#),
        ("Checks.Definition.TCP == x", r#"Selector "Checks.Definition" is not valid"#),
        ("Status == x", r#"Selector "Status" is not valid"#),
    ] {
        assert_eq!(refusal::<Instance>(source), text, "{source}");
    }
    let text = refusal::<Node>("Node matches \"(\"");
    assert!(text.starts_with("Failed to compile regular expression \"(\": "), "{text}");
}

#[test]
fn syntax_errors_tell_where_and_what_could_stand_there() {
    const START: &str = r#""(", "-", "0", "\"", "`", "not", [ \t\r\n], [1-9] or [a-zA-Z]"#;
    const NAME: &str = r#""!=", ".", "==", "[", [ \t\r\n] or [a-zA-Z0-9_]"#;
    const OPERATOR: &str = r#""!=", "==", "contains", "in", "is", "matches", "not" or [ \t\r\n]"#;
    const VALUE: &str = r#""-", "0", "\"", "`", [ \t\r\n], [1-9] or [a-zA-Z]"#;
    const JOINED: &str = r#""and", "or", [ \t\r\n] or EOF"#;
    for (source, place, expected) in [
        ("", "1:1 (0)", START),
        (" ", "1:2 (1)", START),
        ("(", "1:2 (1)", START),
        ("()", "1:2 (1)", START),
        ("not (", "1:6 (5)", START),
        ("é", "1:1 (0)", START),
        ("Node", "1:5 (4)", NAME),
        ("not not not", "1:12 (11)", NAME),
        ("not(Node == n1)", "1:4 (3)", NAME),
        ("Meta.a-b == x", "1:7 (6)", NAME),
        ("Meta[\"a\"]", "1:10 (9)", r#""!=", ".", "==", "[" or [ \t\r\n]"#),
        ("Node = a", "1:6 (5)", OPERATOR),
        ("\n\n Node = a", "3:7 (8)", OPERATOR),
        ("Node ==", "1:8 (7)", VALUE),
        ("Node == é", "1:9 (8)", VALUE),
        ("Node matches ", "1:14 (13)", VALUE),
        ("Node == -", "1:10 (9)", "\"0\" or [1-9]"),
        ("Node == 5)", "1:10 (9)", r#"".", [ \t\r\n], [0-9] or EOF"#),
        ("Node == a and", "1:14 (13)", r"[ \t\r\n]"),
        ("Node == a and(Node == b)", "1:14 (13)", r"[ \t\r\n]"),
        ("Node == \"a\" and or", "1:19 (18)", NAME),
        ("Node == a foo", "1:11 (10)", JOINED),
        ("Node==n1and Node==n1", "1:13 (12)", JOINED),
        ("Node == \"n1\"or Node == ext", "1:13 (12)", r"[ \t\r\n] or EOF"),
        ("(Node == n1))", "1:13 (12)", r"[ \t\r\n] or EOF"),
        ("Meta is emptyx", "1:14 (13)", r"[ \t\r\n] or EOF"),
        ("Meta is not x", "1:13 (12)", r#""empty" or [ \t\r\n]"#),
        ("Meta is no", "1:9 (8)", r#""empty", "not" or [ \t\r\n]"#),
        ("Node not c", "1:10 (9)", r#""contains", "in", "matches" or [ \t\r\n]"#),
        ("5 == Node", "1:3 (2)", r#""in", "not" or [ \t\r\n]"#),
    ] {
        let text = format!("{place}: no match found, expected: {expected}");
        assert_eq!(refusal::<Node>(source), text, "{source}");
    }
    for (source, text) in [
        ("(Node == n1", "1:12 (11): rule \"grouping\": Unmatched parentheses"),
        ("((Node == a", "1:12 (11): rule \"grouping\": Unmatched parentheses"),
        ("((Node == a) or (Node == b)", "1:28 (27): rule \"grouping\": Unmatched parentheses"),
        ("Node == 127.0.0.1", "1:14 (13): rule \"number\": Invalid number literal"),
        ("Node == 1x or Node = 2x", "1:10 (9): rule \"number\": Invalid number literal"),
        ("Node == 007", "1:10 (9): rule \"number\": Invalid number literal"),
        ("Node == 5.", "1:10 (9): rule \"number\": Invalid number literal"),
        ("Node == \"abc", "1:13 (12): rule \"string\": Unterminated string literal"),
        ("Node == `abc", "1:13 (12): rule \"string\": Unterminated string literal"),
        ("Node == \"a\\\"b\"", "1:9 (8): rule \"string\": invalid syntax"),
        (
            "Node == \"\\d\" or Node == \"\\e\"",
            "1:9 (8): rule \"string\": invalid syntax\n1:25 (24): rule \"string\": invalid syntax",
        ),
        ("Node == \"\\400\"", "1:9 (8): rule \"string\": invalid syntax"),
        ("Node == \"a\nb\"", "1:9 (8): rule \"string\": invalid syntax"),
        ("\"\\d\" in Node", "1:1 (0): rule \"string\": invalid syntax"),
        ("Meta[env] == x", "1:6 (5): rule \"index\": Invalid index"),
        ("Meta[\"a\" == x", "1:10 (9): rule \"index\": Unclosed index expression"),
        (
            "Meta[\"env == x",
            "1:15 (14): rule \"string\": Unterminated string literal\n\
             1:6 (5): rule \"index\": Invalid index",
        ),
        ("Node in \"x\"", "1:9 (8): rule \"match\": Invalid selector"),
        ("env in 5", "1:8 (7): rule \"match\": Invalid selector"),
    ] {
        assert_eq!(refusal::<Node>(source), text, "{source}");
    }
}

#[test]
fn filters_are_bounded_in_length_depth_and_expressions() {
    let within = |text: String| format!("Node == `{text}`");
    let longest = within("a".repeat(FILTER_BYTES_MAX - within(String::new()).len()));
    assert!(Filter::<Node>::parse(&longest).is_ok());
    assert_eq!(Filter::<Node>::parse(&format!("{longest} ")), Err(FilterError::TooLong));

    for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")")] {
        let nested = |n: usize| format!("{}Node == a{}", open.repeat(n), close.repeat(n));
        let levels = if open.len() == 5 { DEPTH_MAX / 2 } else { DEPTH_MAX };
        assert!(Filter::<Node>::parse(&nested(levels)).is_ok());
        assert_eq!(Filter::<Node>::parse(&nested(levels + 1)), Err(FilterError::TooDeep));
    }
    let unclosed = "(".repeat(FILTER_BYTES_MAX);
    assert_eq!(Filter::<Node>::parse(&unclosed), Err(FilterError::TooDeep));

    let many = |n: usize| vec!["((Node matches a))"; n].join(" or ");
    assert!(Filter::<Node>::parse(&many(EXPRESSIONS_MAX)).is_ok());
    let refused = Filter::<Node>::parse(&many(EXPRESSIONS_MAX + 1));
    assert_eq!(refused, Err(FilterError::TooManyExpressions));
}

#[test]
fn a_filter_is_its_text() {
    let filter = Filter::<Node>::parse("Node == n1").unwrap();
    assert_ne!(filter, Filter::parse("Node  == n1").unwrap());
    assert_eq!(from_bytes(&to_bytes(&filter)), Ok(filter));
    let bad = from_bytes::<Filter<Node>>(&to_bytes(&"Nope == n1".to_owned()));
    let rule = "is not a legal filter";
    assert_eq!(bad, Err(DecodeError::Invalid { field: "message", rule }));
}
