//! `?filter=` and `?near=`: which rows of which endpoints are left, and what is refused
//! (http-api.md §1.9, §1.10).

use super::sharing::Server;
use super::values::{check, map, node, service};
use super::*;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::{Check, Node, NodeCoordinate, Service};
use terraform_core::coordinate::Coordinate;
use terraform_core::id::{CheckId, ServiceId};

const HEAD: &str = "Failed to create boolean expression evaluator: ";

/// The nodes `n1` (prod), `n2` and `n3` (nothing), each with its instance of `web`, on port 81 and
/// so on, and a check of it, which passes on `n1` alone. `n1` is 30 ms from `n2`; where `n3` is,
/// nobody knows.
fn server() -> Server {
    let server = Server::new();
    for number in 1..=3_u8 {
        let name = NodeName::parse(&format!("n{number}")).unwrap();
        let env = if number == 1 { "prod" } else { "" };
        let id = Some(NodeId::from_bytes([number; 16]));
        let node = Node { id, name: name.clone(), meta: map(&[("env", env)]), ..(*node()).clone() };
        let id = ServiceId::parse(&format!("web{number}")).unwrap();
        let port = 80 + i64::from(number);
        let service = Service { id: id.clone(), port, ..(*service()).clone() };
        let status = if number == 1 { "passing" } else { "critical" };
        let id = CheckId::parse(&format!("c{number}")).unwrap();
        let of_service = check("c", status, Some(service.id.as_str()));
        let check = Check { node: name, id, ..(*of_service).clone() };
        let service = Some(service);
        let checks = vec![check];
        let registration = Registration { node, skip_node_update: false, service, checks };
        server.apply(Command::Register(Box::new(registration)));
    }
    let place = |name: &str, seconds| NodeCoordinate {
        node: NodeName::parse(name).unwrap(),
        segment: String::new(),
        coordinate: Coordinate::new([seconds, 0., 0., 0., 0., 0., 0., 0.], 1., 0., 0.).unwrap(),
    };
    server.apply(Command::Coordinates(vec![place("n1", 0.02), place("n2", -0.01)]));
    server
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// What each row of an answer is called by `name`, in order.
fn names(text: &str, name: &str) -> Vec<String> {
    let key = format!("\"{name}\":\"");
    let parts = text.split(&key).skip(1);
    parts.map(|part| part.split('"').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn filters_choose_among_the_rows_of_every_endpoint_that_has_them() {
    let server = server();
    for (path, filter, name, expected) in [
        ("catalog/nodes", "Node == n2", "Node", &["n2"][..]),
        ("catalog/nodes", "Meta.env == prod or ID matches `^03`", "Node", &["n1", "n3"]),
        ("catalog/nodes", "Datacenter == dc1 and not Node == n1", "Node", &["n2", "n3"]),
        ("catalog/nodes", "Datacenter == dc2", "Node", &[]),
        ("catalog/nodes", "", "Node", &["n1", "n2", "n3"]),
        ("catalog/service/web", "ServicePort == 82", "Node", &["n2"]),
        ("catalog/service/web", "a in ServiceTags and NodeMeta.env == prod", "Node", &["n1"]),
        ("catalog/node/n1", "Port == 81", "Service", &["web"]),
        ("catalog/node/n1", "Port == 80", "Service", &[]),
        ("catalog/node/n1", "Port == 80", "Node", &["n1"]),
        ("catalog/node-services/n2", "ID == web2 and Meta is not empty", "Service", &["web"]),
        ("catalog/node-services/n2", "Tags is empty", "Service", &[]),
        ("health/node/n1", "CheckID == c1", "CheckID", &["c1"]),
        ("health/node/n1", "CheckID == c2", "CheckID", &[]),
        ("health/checks/web", "Status != passing", "CheckID", &["c2", "c3"]),
        ("health/state/any", "ServiceName == web and Node != n3", "CheckID", &["c1", "c2"]),
        ("health/state/critical", "Node != n3", "CheckID", &["c2"]),
        ("health/service/web", "Checks.Status == passing", "CheckID", &["c1"]),
        ("health/service/web", "Node.Node == n2 and Service.Port == 82", "CheckID", &["c2"]),
        ("health/service/web", "Checks is empty", "CheckID", &[]),
        ("health/service/web?passing", "Node.Node != n9", "CheckID", &["c1"]),
        ("health/service/web?passing", "Node.Node == n2", "CheckID", &[]),
    ] {
        let join = if path.contains('?') { '&' } else { '?' };
        let target = format!("GET /v1/{path}{join}filter={}", encoded(filter));
        let reply = server.say(&target);
        let text = body(&reply);
        assert_eq!(reply.status, 200, "{path} {filter}: {text}");
        assert_eq!(names(&text, name), expected, "{path} {filter}: {text}");
        assert!(reply.meta.is_some_and(|meta| meta.index > 1), "{path} {filter}");
    }
    let unknown = server.say("GET /v1/catalog/node/nope?filter=Port==1");
    assert_eq!(body(&unknown), "null");
}

#[test]
fn bad_filters_are_refused_with_their_rule_before_anything_is_asked() {
    let server = server();
    for (path, filter, expected) in [
        ("catalog/nodes", "Nope == 1", "Selector \"Nope\" is not valid"),
        ("catalog/nodes", "ServicePort == 1", "Selector \"ServicePort\" is not valid"),
        ("catalog/nodes", "Meta == 1", "Invalid match operator \"Equal\" for selector \"Meta\""),
        (
            "catalog/nodes",
            "Node",
            "1:5 (4): no match found, expected: \"!=\", \".\", \"==\", \"[\", [ \\t\\r\\n] or \
             [a-zA-Z0-9_]",
        ),
        (
            "catalog/nodes",
            " ",
            "1:2 (1): no match found, expected: \"(\", \"-\", \"0\", \"\\\"\", \"`\", \"not\", \
             [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
        (
            "catalog/nodes",
            "Address == 127.0.0.1",
            "1:17 (16): rule \"number\": Invalid number literal",
        ),
        (
            "catalog/service/web",
            "ServicePort == abc",
            "Failed to coerce value \"abc\" for selector \"ServicePort\": strconv.ParseInt: \
             parsing \"abc\": invalid syntax",
        ),
        ("catalog/node/nope", "ServicePort == 1", "Selector \"ServicePort\" is not valid"),
        (
            "catalog/node-services/n1",
            "(Port == 1",
            "1:11 (10): rule \"grouping\": Unmatched parentheses",
        ),
        ("health/node/n1", "Definition.TCP == x", "Selector \"Definition\" is not valid"),
        ("health/checks/web", "Checks.Status == x", "Selector \"Checks\" is not valid"),
        (
            "health/state/any",
            "Output is empty",
            "Invalid match operator \"Is Empty\" for selector \"Output\"",
        ),
        (
            "health/service/web",
            "Node == n1",
            "Invalid match operator \"Equal\" for selector \"Node\"",
        ),
    ] {
        let reply = server.say(&format!("GET /v1/{path}?filter={}", encoded(filter)));
        assert_eq!((reply.status, body(&reply)), (500, format!("{HEAD}{expected}")), "{filter}");
        assert_eq!(reply.meta, Some(Meta::zero()), "{filter}");
    }
    // What is wrong with the rest of a request is told first.
    for (target, text) in [
        ("/v1/health/service/?filter=x", "Missing service name"),
        ("/v1/health/service/web?passing=zz&filter=x", "Invalid value for ?passing"),
        ("/v1/catalog/nodes?index=x&filter=x", "Invalid index"),
        ("/v1/catalog/node/?filter=x", "Missing node name"),
    ] {
        let reply = server.say(&format!("GET {target}"));
        assert_eq!((reply.status, body(&reply)), (400, text.to_owned()), "{target}");
    }
}

#[test]
fn endpoints_without_filters_ignore_them() {
    let server = server();
    for path in ["catalog/services", "agent/members", "coordinate/nodes", "event/list"] {
        let reply = server.say(&format!("GET /v1/{path}?filter=Nope&near=n1"));
        assert_eq!(reply.status, 200, "{path}: {}", body(&reply));
    }
}

#[test]
fn registrations_of_the_agent_are_filtered() {
    let local = LocalView {
        services: [service()].into_iter().map(|it| (it.id.clone(), it)).collect(),
        checks: [check("a", "passing", None), check("b", "critical", None)]
            .into_iter()
            .map(|it| (it.id.clone(), it))
            .collect(),
    };
    let world = World::new(settings(), local);
    let say = |path: &str, filter: &str| {
        world.say(&format!("GET /v1/agent/{path}?filter={}", encoded(filter)))
    };
    let services = |filter: &str| names(&say("services", filter).1, "Service");
    assert_eq!(services("Port == 80 and b in Tags and Connect.Native == false"), ["web"]);
    assert_eq!(services("Port != 80"), [""; 0]);
    let checks = |filter: &str| names(&say("checks", filter).1, "CheckID");
    assert_eq!(checks("Status == passing"), ["a"]);
    assert_eq!(checks("Node == ext"), ["a", "b"]);
    assert_eq!(say("services", "Port == 1"), (200, "{}".to_owned()));

    let selector = "Selector \"Nope\" is not valid";
    assert_eq!(say("services", "Nope == 1"), (500, format!("{HEAD}{selector}")));
    assert_eq!(say("checks", "Nope == 1"), (500, selector.to_owned()));
    let (status, text) = say("checks", "Nope");
    assert!(status == 500 && text.starts_with(HEAD), "{text}");
}

#[test]
fn the_nearest_rows_come_first_and_those_at_unknown_places_last() {
    let server = server();
    let nodes = |target: &str| names(&body(&server.say(&format!("GET /v1/{target}"))), "Node");
    for path in [
        "catalog/nodes",
        "catalog/service/web",
        "health/service/web",
        "health/checks/web",
        "health/state/any",
    ] {
        let near = |near: &str| {
            let mut found = nodes(&format!("{path}?near={near}"));
            found.dedup();
            found
        };
        assert_eq!(near("n2"), ["n2", "n1", "n3"], "{path}");
        assert_eq!(near("N2"), ["n2", "n1", "n3"], "{path}");
        assert_eq!(near("n1"), ["n1", "n2", "n3"], "{path}");
        assert_eq!(near("_agent"), ["n1", "n2", "n3"], "{path}");
        for unknown in ["nope", "n3", "", "%20%21"] {
            assert_eq!(near(unknown), ["n1", "n2", "n3"], "{path} {unknown}");
        }
    }
    assert_eq!(nodes("catalog/nodes?near=n2&filter=Node!=n2"), ["n1", "n3"]);
    assert_eq!(nodes("health/node/n1?near=n2"), ["n1"]);
}

#[test]
fn questions_carry_what_narrows_them_to_the_server_that_answers() {
    let world = super::server();
    let asked = |target: &str| {
        let (_, asked) = world.read(&format!("GET /v1/{target}"), Rows::Instances(vec![]));
        let RequestBody::Query(Query::ServiceHealth(wanted)) = asked.body else { panic!() };
        let near = wanted.near.map(|near| near.as_str().to_owned());
        (wanted.filter.map(|filter| filter.source().to_owned()), near)
    };
    let target = "health/service/web?filter=Service.Port==80&near=_agent";
    let filter = Some("Service.Port==80".to_owned());
    assert_eq!(asked(target), (filter.clone(), Some("n1".to_owned())));
    assert_eq!(asked("health/service/web?near=x"), (None, Some("x".to_owned())));
    // Nobody can tell how far the nodes of another datacenter are.
    assert_eq!(asked(&format!("{target}&dc=dc2")), (filter, None));
}
