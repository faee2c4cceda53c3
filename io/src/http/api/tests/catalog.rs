//! `/v1/catalog`, `/v1/health` and `/v1/status` (http-api.md §2, §3, §7, §8).

use super::values::{bare_node, bare_service, check, check_with_recipe, map, node, service};
use super::*;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::model::{CheckStatus, Node, Service, ServiceAddress, Weights};
use terraform_core::catalog::query::{Instance, NodeQuery, NodeServices, NodesQuery, ServiceNode};

const NODE: &str = r#"{"ID":"63699824-3d7c-20f0-3429-0aaae87bddca","Node":"n1","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","wan":"127.0.0.1"},"Meta":{"consul-network-segment":""},"CreateIndex":5,"ModifyIndex":7}"#;
const BARE_NODE: &str = r#"{"ID":"","Node":"ext","Address":"10.9.9.9","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":15,"ModifyIndex":15}"#;
const SERVICE: &str = r#"{"ID":"web1","Service":"web","Tags":["a","b"],"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":80},"wan":{"Address":"5.6.7.8","Port":99}},"Meta":{"v":"1"},"Port":80,"Weights":{"Passing":5,"Warning":2},"EnableTagOverride":true,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":12,"ModifyIndex":12}"#;
const BARE_SERVICE: &str = r#"{"ID":"db","Service":"db","Tags":[],"Address":"","Meta":null,"Port":5432,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":0,"ModifyIndex":0}"#;
const CHECK: &str = r#"{"Node":"ext","CheckID":"db-check","Name":"db check","Status":"passing","Notes":"n","Output":"o","ServiceID":"db","ServiceName":"db","ServiceTags":["primary"],"Type":"tcp","Definition":{"Interval":"5s","Timeout":"1s","DeregisterCriticalServiceAfter":"30s","TCP":"1.2.3.4:5","TTL":7},"CreateIndex":15,"ModifyIndex":15}"#;
const NODE_CHECK: &str = r#"{"Node":"ext","CheckID":"c","Name":"db check","Status":"odd","Notes":"n","Output":"o","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"tcp","Definition":{},"CreateIndex":15,"ModifyIndex":15}"#;

fn read(target: &str, rows: Rows) -> (String, Query) {
    let (reply, asked) = server().read(&format!("GET {target}"), rows);
    assert_eq!(reply.status, 200);
    let RequestBody::Query(query) = asked.body else { panic!("{:?}", asked.body) };
    (body(&reply), query)
}

#[test]
fn nodes_have_the_shape_clients_know() {
    let target = "/v1/catalog/nodes?node-meta=a:b:c&node-meta=d";
    let (text, query) = read(target, Rows::Nodes(vec![bare_node(), node()]));
    assert_eq!(text, format!("[{BARE_NODE},{NODE}]"));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let meta = vec![pair("a", "b:c"), pair("d", "")];
    assert_eq!(query, Query::Nodes(NodesQuery { meta, ..NodesQuery::default() }));
    assert_eq!(read("/v1/catalog/nodes", Rows::Nodes(vec![])).0, "[]");
}

#[test]
fn rows_of_another_datacenter_carry_its_name() {
    let found = NodeServices { node: node(), services: Vec::new() };
    let row = ServiceNode { node: node(), service: service() };
    let instance = Arc::new(Instance { node: node(), service: service(), checks: Vec::new() });
    let reads = [
        ("catalog/nodes", Rows::Nodes(vec![node()])),
        ("catalog/service/web", Rows::ServiceNodes(vec![row])),
        ("catalog/node/n1", Rows::Node(Some(found.clone()))),
        ("catalog/node-services/n1", Rows::Node(Some(found))),
        ("health/service/web", Rows::Instances(vec![instance])),
    ];
    for (target, rows) in reads {
        let (text, _) = read(&format!("/v1/{target}?dc=dc2"), rows);
        assert!(text.contains(r#""Datacenter":"dc2""#), "{target}: {text}");
    }
}

/// A node and a service that other datacenters reach elsewhere.
fn translated() -> (Arc<Node>, Arc<Service>) {
    let tagged = map(&[("lan_ipv4", "10.0.0.4"), ("wan", "192.0.2.4"), ("wan_ipv4", "192.0.2.44")]);
    let node = Node { tagged_addresses: tagged, ..(*node()).clone() };
    let address = |address: &str, port| ServiceAddress { address: address.to_owned(), port };
    let tagged_addresses = BTreeMap::from([
        ("wan".to_owned(), address("192.0.2.94", 8081)),
        ("wan_ipv6".to_owned(), address("2001:db8::94", 8082)),
    ]);
    (Arc::new(node), Arc::new(Service { tagged_addresses, ..(*service()).clone() }))
}

#[test]
fn rows_of_other_datacenters_alone_are_shown_with_their_wan_addresses() {
    let (node, service) = translated();
    let found =
        || Rows::Node(Some(NodeServices { node: node.clone(), services: vec![service.clone()] }));
    let instance = Instance { node: node.clone(), service: service.clone(), checks: Vec::new() };
    let reads = [
        ("catalog/nodes", Rows::Nodes(vec![node.clone()]), false),
        (
            "catalog/service/web",
            Rows::ServiceNodes(vec![ServiceNode { node: node.clone(), service: service.clone() }]),
            true,
        ),
        ("catalog/node/n1", found(), true),
        ("catalog/node-services/n1", found(), true),
        ("health/service/web", Rows::Instances(vec![Arc::new(instance)]), true),
    ];
    let rules = HttpRules { translates_wan_addresses: true, ..HttpRules::default() };
    let translating = World::new(HttpSettings { rules, ..settings() }, LocalView::default());
    let flag = "X-Consul-Translate-Addresses";
    // Consul 1.8.7 was asked for such rows: IPv6 wins, the port is that of `wan`.
    let outside = (r#""Address":"192.0.2.44""#, r#"Address":"2001:db8::94","#, r#"Port":8081,"#);
    let inside = (r#""Address":"127.0.0.1""#, r#"Address":"10.0.0.1","#, r#"Port":80,"#);
    for (target, rows, has_service) in reads {
        let shows = |world: &World, dc: &str, (node, address, port): (&str, &str, &str)| {
            let (reply, _) = world.read(&format!("GET /v1/{target}?dc={dc}"), rows.clone());
            let text = body(&reply);
            assert!(text.contains(node), "{target}: {node}: {text}");
            for part in [address, port].into_iter().filter(|_| has_service) {
                assert!(text.contains(part), "{target}: {part}: {text}");
            }
            header(&reply, flag).map(str::to_owned)
        };
        assert_eq!(shows(&translating, "dc2", outside).as_deref(), Some("true"));
        assert_eq!(shows(&translating, "", inside).as_deref(), Some("true"));
        assert_eq!(shows(&translating, "dc1", inside).as_deref(), Some("true"));
        assert_eq!(shows(&server(), "dc2", inside), None);
    }
    let (reply, _) = translating.exchange("OPTIONS /v1/kv/a", vec![]);
    assert_eq!(header(&reply, flag), Some("true"), "whatever is asked of the API");
    assert_eq!(header(&translating.exchange("GET /v1/nope", vec![]).0, flag), None);
}

#[test]
fn a_write_that_an_agent_will_undo_is_told_of() {
    let world = server();
    let warned = |text: &str| {
        let (reply, _) = world.exchange(text, vec![Ok(Response::Done)]);
        assert_eq!((reply.status, body(&reply)), (200, "true".to_owned()));
        header(&reply, "X-Terraform-Warning").map(str::to_owned)
    };
    let service = r#""Service":{"Service":"web"}"#;
    let check = r#""Check":{"CheckID":"c","Name":"c"}"#;
    let text = |verb: &str, node: &str, rest: &str| {
        format!(r#"PUT /v1/catalog/{verb}{}{{"Node":"{node}","Address":"10.0.0.1"{rest}}}"#, "\n\n")
    };
    let agent = "the agent of node n1 at 127.0.0.1";
    let undone = Some(format!("{agent} takes out what it does not know itself: register it there"));
    assert_eq!(warned(&text("register", "n1", &format!(",{service}"))), undone);
    assert_eq!(warned(&text("register", "n1", &format!(",{check}"))), undone);
    assert_eq!(warned(&text("register", "n1", "")), None, "a node alone stays");
    assert_eq!(warned(&text("register", "external", &format!(",{service}"))), None);
    let elsewhere = format!(r#","Datacenter":"dc2",{service}"#);
    assert_eq!(warned(&text("register", "n1", &elsewhere)), None);
    let back = Some(format!("{agent} brings back what it still has: deregister it there"));
    assert_eq!(warned(&text("deregister", "n1", r#","ServiceID":"web""#)), back);
    assert_eq!(warned(&text("deregister", "n1", "")), back);
    assert_eq!(warned(&text("deregister", "external", r#","ServiceID":"web""#)), None);
}

#[test]
fn services_are_a_sorted_map_of_tags() {
    let services =
        BTreeMap::from([("web".to_owned(), vec!["a".to_owned()]), ("bare".to_owned(), vec![])]);
    let (text, _) = read("/v1/catalog/services", Rows::Services(services));
    assert_eq!(text, r#"{"bare":[],"web":["a"]}"#);
    assert_eq!(read("/v1/catalog/services", Rows::Services(BTreeMap::new())).0, "{}");
}

#[test]
fn a_service_is_flattened_with_its_node() {
    let row = ServiceNode { node: bare_node(), service: bare_service("db") };
    let (text, query) = read("/v1/catalog/service/db?tag=x&tag=y", Rows::ServiceNodes(vec![row]));
    assert_eq!(
        text,
        r#"[{"ID":"","Node":"ext","Address":"10.9.9.9","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":null,"ServiceKind":"","ServiceID":"db","ServiceName":"db","ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":5432,"ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":0,"ModifyIndex":0}]"#
    );
    let Query::ServiceNodes(wanted) = query else { panic!() };
    assert_eq!((wanted.tags, wanted.passing), (vec!["x".to_owned(), "y".to_owned()], false));
}

#[test]
fn a_node_comes_with_its_services_or_as_null() {
    let services = vec![bare_service("db"), service()];
    let found = NodeServices { node: node(), services };
    let (text, query) = read("/v1/catalog/node/n1", Rows::Node(Some(found.clone())));
    let expected =
        format!(r#"{{"Node":{NODE},"Services":{{"db":{BARE_SERVICE},"web1":{SERVICE}}}}}"#);
    assert_eq!(text, expected);
    assert_eq!(query, Query::Node(NodeQuery::all("n1")));
    let (text, _) = read("/v1/catalog/node-services/n1", Rows::Node(Some(found)));
    assert_eq!(text, format!(r#"{{"Node":{NODE},"Services":[{BARE_SERVICE},{SERVICE}]}}"#));
    assert_eq!(read("/v1/catalog/node/n1", Rows::Node(None)).0, "null");
    let unknown = read("/v1/catalog/node-services/n1", Rows::Node(None)).0;
    assert_eq!(unknown, r#"{"Node":null,"Services":null}"#);
}

#[test]
fn health_lists_checks_and_instances() {
    let checks = || Rows::Checks(vec![check("c", "odd", None), check_with_recipe()]);
    let all = format!("[{NODE_CHECK},{CHECK}]");
    assert_eq!(read("/v1/health/node/ext", checks()).0, all);
    assert_eq!(read("/v1/health/state/any", checks()).0, all);
    let (text, query) = read("/v1/health/checks/db", checks());
    assert_eq!(text, all);
    assert!(matches!(query, Query::ServiceChecks(_)));
    let instance = Instance {
        node: bare_node(),
        service: bare_service("db"),
        checks: vec![check_with_recipe()],
    };
    let rows = || Rows::Instances(vec![Arc::new(instance.clone())]);
    let (text, query) = read("/v1/health/service/db?passing", rows());
    let expected =
        format!(r#"[{{"Node":{BARE_NODE},"Service":{BARE_SERVICE},"Checks":[{CHECK}]}}]"#);
    assert_eq!(text, expected);
    assert!(matches!(query, Query::ServiceHealth(wanted) if wanted.passing));
    let (_, query) = read("/v1/health/service/db?passing=false", rows());
    assert!(matches!(query, Query::ServiceHealth(wanted) if !wanted.passing));
}

#[test]
fn missing_arguments_have_their_400() {
    let world = server();
    for (target, text) in [
        ("/v1/catalog/service/", "Missing service name"),
        ("/v1/catalog/node/", "Missing node name"),
        ("/v1/catalog/node-services/", "Missing node name"),
        ("/v1/health/node/", "Missing node name"),
        ("/v1/health/checks/", "Missing service name"),
        ("/v1/health/service/", "Missing service name"),
        ("/v1/health/state/", "Missing check state"),
        ("/v1/health/service/a?passing=zz", "Invalid value for ?passing"),
    ] {
        assert_eq!(world.say(&format!("GET {target}")), (400, text.to_owned()), "{target}");
    }
}

#[test]
fn leader_peers_and_datacenters_are_plain_json() {
    let leader = Rows::Text("127.0.0.1:8300".to_owned());
    assert_eq!(read("/v1/status/leader", leader).0, "\"127.0.0.1:8300\"");
    let names = || Rows::Names(vec!["dc1".to_owned()]);
    assert_eq!(read("/v1/status/peers", names()).0, "[\"dc1\"]");
    assert_eq!(read("/v1/catalog/datacenters", names()).0, "[\"dc1\"]");
    let (reply, _) = server().read("GET /v1/catalog/datacenters", names());
    assert_eq!(reply.meta, None);
}

fn register(json: &str) -> terraform_core::catalog::command::Registration {
    let (status, text, asked) = server().write(&format!("PUT /v1/catalog/register\n\n{json}"));
    assert_eq!((status, text.as_str()), (200, "true"));
    let RequestBody::Write(Command::Register(registration)) = asked else { panic!("{asked:?}") };
    *registration
}

#[test]
fn a_registration_is_decoded_with_defaults() {
    let wanted = register(
        r#"{"datacenter":"DC1","Node":"ext","Address":"10.9.9.9","NodeMeta":{"env":"prod"},
            "Service":{"Service":"db","Port":5432,"Weights":{"Passing":0},"Connect":{},
                       "Proxy":{"MeshGateway":{}}},
            "Check":{"CheckID":"a","ServiceID":"db","Definition":{"TCP":"1.2.3.4:5","Interval":"5s"}},
            "Checks":[{"Name":"b","Status":"odd"}]}"#,
    );
    assert_eq!((wanted.node.name.as_str(), wanted.node.id), ("ext", None));
    assert_eq!(wanted.node.meta, map(&[("env", "prod")]));
    let service = wanted.service.unwrap();
    assert_eq!((service.id.as_str(), service.name.as_str()), ("db", "db"));
    assert_eq!(service.weights, Weights::default());
    let [b, a] = wanted.checks.as_slice() else { panic!() };
    assert_eq!((b.id.as_str(), &b.status), ("b", &CheckStatus::Other("odd".to_owned())));
    assert_eq!((a.status.clone(), a.kind.as_str()), (CheckStatus::Critical, "tcp"));
    assert_eq!(a.recipe.interval, Duration::from_secs(5));
}

#[test]
fn a_broken_registration_is_refused_with_its_rule() {
    let world = server();
    let say = |json: &str| world.say(&format!("PUT /v1/catalog/register\n\n{json}"));
    let node = |rest: &str| format!(r#"{{"Node":"ext","Address":"a"{rest}}}"#);
    for (json, status, text) in [
        ("{}", 500, "Must provide node"),
        (r#"{"Node":"n"}"#, 500, "Must provide address if SkipNodeUpdate is not set"),
        (&node(r#","ID":"7""#), 500, "Bad node ID: uuid string is wrong length"),
        (&node(r#","Service":{"ID":"a"}"#), 500, "Must provide service name with ID"),
        (&node(r#","Service":{"Service":"a","Address":"::"}"#), 500, "Invalid service address"),
        (
            &node(r#","Check":{}"#),
            500,
            "failed inserting check: failed inserting check: object missing primary index on node \"ext\"",
        ),
        ("", 400, "Request decode failed: EOF"),
        ("{", 400, "Request decode failed: unexpected EOF"),
        (
            &node(r#","node_meta":{}"#),
            400,
            "Request decode failed: json: unknown field \"node_meta\"",
        ),
        (
            &node(r#","Service":{"Service":"a","Kind":"connect-proxy"}"#),
            501,
            "the field \"Kind\" is not built yet",
        ),
    ] {
        assert_eq!(say(json), (status, text.to_owned()), "{json}");
    }
    let refused = RequestError::Refused("rule".to_owned());
    let (reply, _) =
        world.exchange(&format!("PUT /v1/catalog/register\n\n{}", node("")), vec![Err(refused)]);
    assert_eq!((reply.status, body(&reply)), (500, "rule".to_owned()));
}

#[test]
fn a_deregistration_names_its_target() {
    let json = r#"{"Node":"n","ServiceID":"s","Address":"ignored"}"#;
    let (status, text, asked) = server().write(&format!("PUT /v1/catalog/deregister\n\n{json}"));
    assert_eq!((status, text.as_str()), (200, "true"));
    let RequestBody::Write(Command::Deregister(target)) = asked else { panic!() };
    assert_eq!((target.node.as_str(), target.check), ("n", None));
    assert_eq!(target.service.unwrap().as_str(), "s");
    let missing = server().say("PUT /v1/catalog/deregister\n\n{}");
    assert_eq!(missing, (500, "Must provide node".to_owned()));
    assert_eq!(server().say("PUT /v1/catalog/deregister\n\n{\"x\":1}").0, 400);
}
