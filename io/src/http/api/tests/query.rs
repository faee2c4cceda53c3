//! Prepared queries over HTTP.

use super::values::{bare_node, bare_service, map};
use super::*;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::model::{Node, Service, Weights};
use terraform_core::catalog::prepared::{
    Executed, Execution, PreparedQuery, PreparedWrite, Selection, Template,
};
use terraform_core::catalog::query::Instance;
use terraform_core::id::{PreparedQueryId, ServiceId, ServiceName, SessionId};

const ID: &str = "01010101-0101-0101-0101-010101010101";
const NOT_UUID: &str = "failed prepared query lookup: index error: UUID must be 36 characters";

fn query() -> PreparedQuery {
    PreparedQuery {
        id: PreparedQueryId::parse(ID).unwrap(),
        name: "q1".to_owned(),
        session: None,
        token: String::new(),
        template: None,
        service: Selection { service: "web".to_owned(), ..Selection::default() },
        ttl: None,
        ttl_text: String::new(),
        create_index: ModifyIndex::new(5),
        modify_index: ModifyIndex::new(6),
    }
}

/// What is made of a body.
fn created(world: &World, body: &str) -> PreparedQuery {
    let (status, shown, asked) = world.write(&format!("POST /v1/query\n\n{body}"));
    let RequestBody::Write(Command::Prepared(PreparedWrite::Create(query))) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!((status, shown), (200, format!(r#"{{"ID":"{}"}}"#, query.id)), "{body}");
    *query
}

#[test]
fn a_query_is_what_its_body_says() {
    let world = server();
    let made = created(&world, r#"{"name":"q1","SERVICE":{"service":"web"}}"#);
    let zero = ModifyIndex::ZERO;
    let plain = PreparedQuery { id: made.id, create_index: zero, modify_index: zero, ..query() };
    assert_eq!(made, plain);
    let session = "63699824-3d7c-20f0-3429-0aaae87bddca";
    let body = format!(
        r#"{{"Name":"t-","Session":"{session}","Token":"s","CreateIndex":3,
        "Template":{{"Type":"name_prefix_match","Regexp":"^t-(.*)$","RemoveEmptyTags":true}},
        "Service":{{"Service":"${{match(1)}}","Failover":{{"NearestN":2,"Datacenters":["dc2"]}},
          "OnlyPassing":true,"IgnoreCheckIDs":["c"],"Near":"_agent","Tags":["a","!b"],
          "NodeMeta":{{"k":"v"}},"ServiceMeta":{{"s":"t"}},"Connect":false}},
        "DNS":{{"TTL":"10s"}}}}"#
    );
    let made = created(&world, &body);
    assert_eq!((made.session, made.token.as_str()), (SessionId::parse(session).ok(), "s"));
    let template = Template { regexp: "^t-(.*)$".to_owned(), remove_empty_tags: true };
    assert_eq!(made.template, Some(template));
    assert_eq!((made.ttl, made.ttl_text.as_str()), (Some(Duration::from_secs(10)), "10s"));
    let expected = Selection {
        service: "${match(1)}".to_owned(),
        nearest: 2,
        datacenters: vec!["dc2".to_owned()],
        only_passing: true,
        ignored_checks: vec!["c".to_owned()],
        near: "_agent".to_owned(),
        tags: vec!["a".to_owned(), "!b".to_owned()],
        node_meta: [("k".to_owned(), "v".to_owned())].into(),
        service_meta: [("s".to_owned(), "t".to_owned())].into(),
    };
    assert_eq!(made.service, expected);
    let (status, shown, asked) = world.write(&format!(
        "PUT /v1/query/{ID}\n\n{{\"Name\":\"q1\",\"Service\":{{\"Service\":\"web\"}}}}"
    ));
    assert_eq!((status, shown.as_str()), (200, ""));
    let RequestBody::Write(Command::Prepared(PreparedWrite::Update(made))) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(*made, PreparedQuery { create_index: zero, modify_index: zero, ..query() });
    let (status, shown, asked) = world.write(&format!("DELETE /v1/query/{ID}"));
    assert_eq!((status, shown.as_str()), (200, ""));
    let gone = PreparedWrite::Delete(PreparedQueryId::parse(ID).unwrap());
    assert_eq!(asked, RequestBody::Write(Command::Prepared(gone)));
}

#[test]
fn bad_queries_are_refused_by_their_rule() {
    let world = server();
    let named = |rest: &str| format!(r#"{{"Name":"q","Service":{{"Service":"web"}}{rest}}}"#);
    for (body, status, shown) in [
        ("{".to_owned(), 400, "Request decode failed: unexpected EOF"),
        (named(r#","Foo":1"#), 400, r#"Request decode failed: json: unknown field "Foo""#),
        ("{}".to_owned(), 500, "Invalid prepared query: Must be bound to a session"),
        (
            r#"{"Name":"a"}"#.to_owned(),
            500,
            "Invalid prepared query: Must provide a Service name to query",
        ),
        (named(r#","ID":"x""#), 500, "ID must be empty when creating a new prepared query"),
        (
            named(r#","DNS":{"TTL":"x"}"#),
            500,
            r#"Invalid prepared query: Bad DNS TTL 'x': time: invalid duration "x""#,
        ),
        (
            named(r#","DNS":{"TTL":"-1s"}"#),
            500,
            "Invalid prepared query: DNS TTL '-1000000000', must be >=0",
        ),
        (
            named(r#","Session":"abc""#),
            500,
            "invalid session: index error: UUID must be 36 characters",
        ),
        (
            named(r#","Template":{"Type":"zz"}"#),
            500,
            "failed compiling template: Bad Template.Type 'zz'",
        ),
        (
            r#"{"Name":"q","Service":{"Service":"web","Failover":{"NearestN":-1}}}"#.to_owned(),
            500,
            "Invalid prepared query: Bad NearestN '-1', must be >= 0",
        ),
        (
            r#"{"Name":"q","Service":{"Service":"web","Connect":true}}"#.to_owned(),
            501,
            r#"the field "Service.Connect" is not built yet"#,
        ),
    ] {
        let answer = world.say(&format!("POST /v1/query\n\n{body}"));
        assert_eq!(answer, (status, shown.to_owned()), "{body}");
    }
    let lookup = format!("Prepared Query lookup failed: {NOT_UUID}");
    for (text, status, shown) in [
        ("GET /v1/query/q1", 500, NOT_UUID),
        ("GET /v1/query/q1/execute/x", 500, NOT_UUID),
        ("PUT /v1/query/q1\n\n{}", 500, &lookup),
        ("DELETE /v1/query/q1", 500, &lookup),
        (
            "GET /v1/query/q1/execute?limit=x",
            500,
            "Bad limit: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            "GET /v1/query/q1/execute?connect=zz",
            500,
            "Error parsing 'connect' value: strconv.ParseBool: parsing \"zz\": invalid syntax",
        ),
        ("GET /v1/query/q1/execute?index=zz", 400, "Invalid index"),
    ] {
        assert_eq!(world.say(text), (status, shown.to_owned()), "{text}");
    }
}

#[test]
fn one_query_has_its_own_book_of_methods() {
    let world = server();
    for (text, status, allow, shown) in [
        ("OPTIONS /v1/query", 200, "OPTIONS,GET,POST", ""),
        ("OPTIONS /v1/query/abc", 200, "OPTIONS,GET,PUT,DELETE", "{}"),
        ("OPTIONS /v1/query/abc/execute", 200, "OPTIONS,GET", "{}"),
        ("PUT /v1/query", 405, "OPTIONS,GET,POST", "method PUT not allowed"),
        ("POST /v1/query/abc", 405, "GET,PUT,DELETE", "method POST not allowed"),
        ("POST /v1/query/abc/explain", 405, "GET", "method POST not allowed"),
    ] {
        let (reply, asked) = world.exchange(text, vec![]);
        assert_eq!((reply.status, body(&reply).as_str()), (status, shown), "{text}");
        assert!(reply.headers.contains(&("Allow", allow.to_owned())), "{text}: {reply:?}");
        assert!(asked.is_empty());
    }
}

#[test]
fn queries_are_shown_and_waited_for() {
    let world = server();
    let shown = format!(
        r#"{{"ID":"{ID}","Name":"q1","Session":"","Token":"","Template":{{"Type":"","Regexp":"","RemoveEmptyTags":false}},"Service":{{"Service":"web","Failover":{{"NearestN":0,"Datacenters":null}},"OnlyPassing":false,"IgnoreCheckIDs":null,"Near":"","Tags":null,"NodeMeta":null,"ServiceMeta":null,"Connect":false}},"DNS":{{"TTL":""}},"CreateIndex":5,"ModifyIndex":6}}"#
    );
    let id = PreparedQueryId::parse(ID).unwrap();
    for (path, asks) in [
        ("/v1/query".to_owned(), Query::PreparedQueries),
        (format!("/v1/query/{ID}"), Query::PreparedQuery(id)),
    ] {
        let text = format!("GET {path}?index=7");
        let rows = Rows::PreparedQueries(vec![Arc::new(query())]);
        let (reply, asked) = world.read(&text, rows);
        assert_eq!((reply.status, body(&reply)), (200, format!("[{shown}]")));
        assert_eq!(reply.meta.unwrap().index, 42);
        assert_eq!(asked.body, RequestBody::Query(asks));
        assert_eq!(asked.context.min_index, ModifyIndex::new(7));
    }
    let (reply, _) = world.read("GET /v1/query", Rows::PreparedQueries(vec![]));
    assert_eq!((reply.status, body(&reply).as_str()), (200, "[]"));
    let gone = format!("GET /v1/query/{ID}");
    let (reply, _) = world.read(&gone, Rows::PreparedQueries(vec![]));
    assert_eq!((reply.status, body(&reply).as_str()), (404, "Query not found"));

    let rows = Rows::PreparedQueries(vec![Arc::new(query())]);
    let (reply, asked) = world.read("GET /v1/query/Q1/explain", rows);
    let rest = r#""Index":0,"LastContact":3000000,"KnownLeader":true,"ConsistencyLevel":"leader"}"#;
    assert_eq!(body(&reply), format!(r#"{{"Query":{shown},{rest}"#));
    assert_eq!(reply.meta.unwrap().index, 1);
    assert_eq!(asked.body, RequestBody::Query(Query::ExplainPrepared("Q1".to_owned())));
    let (reply, _) = world.read("GET /v1/query/Q1/explain", Rows::PreparedQueries(vec![]));
    assert_eq!((reply.status, body(&reply).as_str()), (404, "Query not found"));
    let template = PreparedQuery { template: Some(Template::default()), ..query() };
    let rows = Rows::PreparedQueries(vec![Arc::new(template)]);
    let (reply, _) = world.read(&format!("GET /v1/query/{ID}/explain"), rows);
    let by_id = "prepared query templates can only be resolved up by name, not by ID";
    assert_eq!((reply.status, body(&reply).as_str()), (500, by_id));
}

/// An instance of web on n2 without checks.
fn instance() -> Instance {
    let zero = ModifyIndex::new(9);
    let node = Node {
        id: None,
        name: NodeName::parse("n2").unwrap(),
        address: "10.0.0.2".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: zero,
        modify_index: zero,
    };
    let service = Service {
        id: ServiceId::parse("web").unwrap(),
        name: ServiceName::parse("web").unwrap(),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: zero,
        modify_index: zero,
    };
    Instance { node: Arc::new(node), service: Arc::new(service), checks: Vec::new() }
}

#[test]
fn an_execution_names_who_asks_and_shows_what_was_found() {
    let world = server();
    let executed = Executed {
        service: "web".to_owned(),
        instances: vec![Arc::new(instance())],
        ttl: Some(Duration::from_secs(10)),
        ttl_text: "10s".to_owned(),
        datacenter: Datacenter::parse("dc2").unwrap(),
        failovers: 1,
        known_leader: true,
        last_contact: Duration::from_millis(3),
        consistency: Consistency::Stale,
    };
    let text = "GET /v1/query/geo-web/execute?near=_ip&limit=3&stale&index=9\nX-Forwarded-For: 192.0.2.7, 10.0.0.1";
    let answer = Ok(Response::Executed(Box::new(executed)));
    let (reply, asked) = world.exchange(text, vec![answer]);
    let node = r#"{"ID":"","Node":"n2","Address":"10.0.0.2","Datacenter":"dc2","TaggedAddresses":null,"Meta":null,"CreateIndex":9,"ModifyIndex":9}"#;
    let service = r#"{"ID":"web","Service":"web","Tags":[],"Address":"","Meta":null,"Port":80,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":9,"ModifyIndex":9}"#;
    let rest = r#""DNS":{"TTL":"10s"},"Datacenter":"dc2","Failovers":1,"Index":0,"LastContact":3000000,"KnownLeader":true,"ConsistencyLevel":"stale"}"#;
    let shown = format!(
        r#"{{"Service":"web","Nodes":[{{"Node":{node},"Service":{service},"Checks":null}}],{rest}"#
    );
    assert_eq!((reply.status, body(&reply)), (200, shown));
    let meta = reply.meta.unwrap();
    assert_eq!((meta.index, meta.consistency), (1, Some(Consistency::Stale)));
    let execution = Execution {
        query: "geo-web".to_owned(),
        near: Some("_ip".to_owned()),
        limit: 3,
        agent: NodeName::parse("n1").unwrap(),
        agent_datacenter: Datacenter::parse("dc1").unwrap(),
        address: "192.0.2.7".parse().ok(),
    };
    assert_eq!(asked[0].body, RequestBody::ExecutePrepared(Box::new(execution)));
    assert_eq!(asked[0].context.min_index, ModifyIndex::ZERO, "it does not wait");
    let unknown = Err(RequestError::NotFound("Query not found".to_owned()));
    let (reply, _) = world.exchange("GET /v1/query/nope/execute", vec![unknown]);
    assert_eq!((reply.status, body(&reply).as_str()), (404, "Query not found"));
    assert_eq!(reply.meta, None);
}

#[test]
fn what_was_found_in_another_datacenter_is_shown_with_its_wan_addresses() {
    let node = Node { tagged_addresses: map(&[("wan", "192.0.2.4")]), ..(*bare_node()).clone() };
    let instance = Instance { node: Arc::new(node), service: bare_service("db"), checks: vec![] };
    let executed = |datacenter: &str| Executed {
        service: "db".to_owned(),
        instances: vec![Arc::new(instance.clone())],
        ttl: None,
        ttl_text: String::new(),
        datacenter: Datacenter::parse(datacenter).unwrap(),
        failovers: 1,
        known_leader: true,
        last_contact: Duration::ZERO,
        consistency: Consistency::Leader,
    };
    let rules = HttpRules { translates_wan_addresses: true, ..HttpRules::default() };
    let world = World::new(HttpSettings { rules, ..settings() }, LocalView::default());
    for (datacenter, address) in [("dc1", "10.9.9.9"), ("dc2", "192.0.2.4")] {
        let found = Ok(Response::Executed(Box::new(executed(datacenter))));
        let (reply, _) = world.exchange("GET /v1/query/web/execute", vec![found]);
        let shown = format!(r#""Address":"{address}","Datacenter":"{datacenter}""#);
        assert!(body(&reply).contains(&shown), "{}", body(&reply));
    }
}

#[test]
fn a_kept_execution_is_as_old_as_the_client_lets_it_be() {
    let world = server();
    let executed = |service: &str| Executed {
        service: service.to_owned(),
        instances: Vec::new(),
        ttl: None,
        ttl_text: String::new(),
        datacenter: Datacenter::parse("dc1").unwrap(),
        failovers: 0,
        known_leader: true,
        last_contact: Duration::ZERO,
        consistency: Consistency::Leader,
    };
    let found = |service: &str| Ok(Response::Executed(Box::new(executed(service))));
    let ask = |rest: &str, answers: Vec<Answer>| {
        let text = format!("GET /v1/query/web/execute?cached{rest}");
        let (reply, asked) = world.exchange(&text, answers);
        let cache = header(&reply, "X-Cache").unwrap_or_default().to_owned();
        (reply.status, cache, body(&reply).contains(r#""Service":"new""#), asked.len())
    };
    let hit = |is_new| (200, "HIT".to_owned(), is_new, 0);
    let miss = |is_new| (200, "MISS".to_owned(), is_new, 1);
    assert_eq!(ask("", vec![found("old")]), miss(false));
    assert_eq!(ask("", vec![]), hit(false));
    assert_eq!(ask("\nCache-Control: max-age=60", vec![]), hit(false));
    assert_eq!(ask("&limit=1", vec![found("new")]), miss(true), "another question");
    let refused = || vec![Err(RequestError::NoLeader)];
    let (status, cache, is_new, _) =
        ask("\nCache-Control: max-age=0, stale-if-error=60", refused());
    assert_eq!((status, cache.as_str(), is_new), (200, "HIT", false), "better than nothing");
    assert_eq!(ask("\nCache-Control: max-age=0", refused()).0, 500);
    assert_eq!(ask("\nCache-Control: max-age=0", vec![found("new")]), miss(true));
    assert_eq!(ask("", vec![]), hit(true));
}
