//! What all endpoints share: routing, methods, encoding, read options, errors (http-api.md §1).

use super::*;

fn nodes() -> Rows {
    Rows::Nodes(vec![values::bare_node()])
}

#[test]
fn paths_are_routed_cleaned_and_refused() {
    let world = server();
    assert_eq!(world.say("GET /"), (200, "Consul Agent".to_owned()));
    let (reply, _) = world.exchange("GET /v1/nope", vec![]);
    assert_eq!((reply.status, body(&reply), header(&reply, "Vary")), (404, String::new(), None));
    let (reply, _) = world.exchange("GET /v1/kv?keys", vec![]);
    assert_eq!(reply.status, 301);
    assert_eq!(header(&reply, "Location"), Some("/v1/kv/?keys"));
    assert_eq!(body(&reply), "<a href=\"/v1/kv/?keys\">Moved Permanently</a>.\n\n");
    let (reply, _) = world.exchange("PUT /v1//agent/%2e/join/a%20b", vec![]);
    assert_eq!((reply.status, body(&reply)), (301, String::new()));
    assert_eq!(header(&reply, "Location"), Some("/v1/agent/join/a%20b"));
    assert_eq!(world.say("GET /v1/kv/%01"), (400, String::new()));
    assert_eq!(world.say("GET /v1/agent/self?a=%zz"), (500, String::new()));
    assert_eq!(world.say("GET /v1/%zz").0, 400);
}

#[test]
fn each_endpoint_knows_its_methods() {
    let world = server();
    let (reply, _) = world.exchange("POST /v1/catalog/nodes", vec![]);
    assert_eq!((reply.status, body(&reply)), (405, "method POST not allowed".to_owned()));
    assert_eq!(header(&reply, "Allow"), Some("OPTIONS,GET"));
    assert_eq!(header(&reply, "Vary"), Some("Accept-Encoding"));
    assert_eq!(world.say("HEAD /v1/catalog/nodes").0, 405);
    assert_eq!(world.say("GET /v1/agent/check/pass/x").0, 405);
    let (reply, _) = world.exchange("OPTIONS /v1/kv/a", vec![]);
    assert_eq!((reply.status, body(&reply)), (200, String::new()));
    assert_eq!(header(&reply, "Allow"), Some("OPTIONS,GET,PUT,DELETE"));
    assert_eq!(world.say("OPTIONS *"), (200, String::new()));
}

#[test]
fn what_is_not_built_answers_501_by_name() {
    let refused = server().say("PUT /v1/agent/reload");
    assert_eq!(refused, (501, "/v1/agent/reload is not built yet".to_owned()));
}

#[test]
fn what_the_settings_forbid_answers_403() {
    let rules = HttpRules {
        blocked: vec!["/v1/agent/self".to_owned(), "/v1/kv/a".to_owned()],
        writers: vec!["10.0.0.0/8".parse().unwrap()],
        ..HttpRules::default()
    };
    let world = World::new(HttpSettings { rules, ..settings() }, LocalView::default());
    let blocked = (403, "Endpoint is blocked by agent configuration".to_owned());
    assert_eq!(world.say("GET /v1/agent/self"), blocked);
    assert_eq!(world.say("PUT /v1/kv/abc"), blocked);
    let from = |address: &str, text: &str| {
        let source = address.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 1));
        let reply = smol::block_on(world.api.answer(&request(text), source.as_ref()));
        (reply.status, body(&reply))
    };
    let text = "PUT /v1/agent/force-leave/x";
    assert_eq!(from("192.0.2.1", text), (403, "Access is restricted".to_owned()));
    assert_eq!(from("192.0.2.1", "POST /v1/kv/b").0, 405, "what no endpoint has is told first");
    assert_eq!(from("192.0.2.1", "GET /v1/agent/services").0, 200);
    assert_eq!(from("10.1.2.3", "GET /v1/agent/services").0, 200);
}

#[test]
fn the_settings_say_how_long_reads_wait_and_how_old_discovery_may_be() {
    let rules = HttpRules {
        wait_default: Duration::from_secs(7),
        wait_max: Duration::from_secs(9),
        discovery_max_stale: Some(Duration::from_secs(1)),
        ..HttpRules::default()
    };
    let world = World::new(HttpSettings { rules, ..settings() }, LocalView::default());
    let context = |text: &str| world.read(text, nodes()).1.context;
    let waits = |rest: &str| context(&format!("GET /v1/catalog/nodes?index=5{rest}")).wait;
    assert_eq!(waits(""), Some(Duration::from_secs(7)));
    assert_eq!(waits("&wait=8s"), Some(Duration::from_secs(8)));
    assert_eq!(waits("&wait=1m"), Some(Duration::from_secs(9)));
    let mode = |text: &str| context(text).consistency;
    assert_eq!(mode("GET /v1/catalog/nodes"), Consistency::Stale);
    assert_eq!(mode("GET /v1/catalog/nodes?leader"), Consistency::Leader);
    assert_eq!(mode("GET /v1/catalog/nodes?consistent"), Consistency::Consistent);
    let (_, asked) = world.read("GET /v1/session/list", Rows::Sessions(vec![]));
    assert_eq!(asked.context.consistency, Consistency::Leader, "no discovery");
}

#[test]
fn acls_are_off_for_whoever_asks() {
    let world = server();
    for target in ["PUT /v1/acl/bootstrap", "GET /v1/acl/tokens", "PUT /v1/agent/token/default"] {
        assert_eq!(world.say(target), (401, "ACL support disabled".to_owned()), "{target}");
    }
    assert_eq!(world.say("GET /v1/agent/token/default").0, 405);
}

#[test]
fn a_read_carries_meta_headers_and_its_context() {
    let target = "GET /v1/catalog/nodes?stale&token=a\nX-Consul-Token: b";
    let (reply, asked) = server().read(target, nodes());
    assert_eq!((reply.status, reply.content), (200, crate::http::respond::Content::Json));
    let meta = Meta {
        index: 42,
        known_leader: true,
        last_contact: Duration::from_millis(3),
        consistency: Some(Consistency::Leader),
    };
    assert_eq!(reply.meta, Some(meta));
    assert_eq!(asked.context.consistency, Consistency::Stale);
    assert_eq!(asked.context.token.as_deref(), Some("a"));
}

#[test]
fn tokens_are_taken_in_order() {
    let token = |fields: &str| {
        let target = format!("GET /v1/catalog/nodes{fields}");
        server().read(&target, nodes()).1.context.token
    };
    assert_eq!(token("\nX-Consul-Token: b\nAuthorization: Bearer c"), Some("b".to_owned()));
    assert_eq!(token("\nAuthorization: bEARER c more"), Some("c".to_owned()));
    assert_eq!(token("\nAuthorization: Basic c"), None);
}

#[test]
fn malformed_read_options_have_their_400() {
    let world = server();
    let say = |query: &str| world.say(&format!("GET /v1/catalog/nodes{query}"));
    let bad = |text: &str| (400, text.to_owned());
    let stale = "Cannot specify ?stale with ?consistent, conflicting semantics.";
    let cached = "Cannot specify ?cached with ?consistent, conflicting semantics.";
    assert_eq!(say("?stale=false&consistent"), bad(stale));
    assert_eq!(say("?max_stale=1s&consistent"), bad(stale));
    assert_eq!(say("?cached&consistent"), bad(cached));
    assert_eq!(say("?max_stale=zz"), bad("Invalid max_stale value \"zz\""));
    assert_eq!(say("?index=-1"), bad("Invalid index"));
    assert_eq!(say("?index=18446744073709551616"), bad("Invalid index"));
    assert_eq!(say("?index=5&wait=5"), bad("Invalid wait time"));
    assert_eq!(say("\nCache-Control: max-age=x"), bad("Invalid Cache-Control header."));
    assert_eq!(say("?dc=bad%20name").0, 500);
    let ns = "Bad request: Invalid query parameter: \"ns\" - \
              Namespaces are a Consul Enterprise feature";
    assert_eq!(world.say("GET /v1/catalog/services?ns=a"), bad(ns));
    assert_eq!(world.say("GET /v1/health/node/n\nX-Consul-Namespace: a").0, 400);
}

#[test]
fn a_read_with_an_index_waits_as_long_as_it_says_and_not_too_long() {
    let seconds = |text: &str| {
        let (reply, asked) = server().read(&format!("GET /v1/catalog/nodes{text}"), nodes());
        assert_eq!(reply.meta.map(|meta| meta.index), Some(42), "{text}");
        let context = asked.context;
        (context.min_index.get(), context.waits().map(|wait| wait.as_secs()))
    };
    assert_eq!(seconds("?index=5&wait=7s"), (5, Some(7)));
    assert_eq!(seconds("?index=5"), (5, Some(300)));
    assert_eq!(seconds("?index=5&wait=0s"), (5, Some(300)));
    assert_eq!(seconds("?index=5&wait=1h"), (5, Some(600)));
    assert_eq!(seconds("?wait=7s"), (0, None));
    assert_eq!(seconds("?index=0&wait=7s"), (0, None));
    let (_, asked) = server().read("GET /v1/kv/a?index=5", Rows::Entries(vec![]));
    assert_eq!(asked.context.min_index.get(), 5);
}

#[test]
fn parameters_without_effect_are_accepted() {
    for query in ["?index=0&wait=5s", "?wait=-1s", "?dc=DC1", "?filter=&near=", "?cached", "?zz"] {
        let (reply, _) = server().read(&format!("GET /v1/catalog/nodes{query}"), nodes());
        assert_eq!(reply.status, 200, "{query}");
    }
    // Endpoints that ignore a parameter in Consul ignore it here.
    let (reply, _) =
        server().read("GET /v1/status/leader?index=7&filter=x", Rows::Text(String::new()));
    assert_eq!((reply.status, body(&reply)), (200, "\"\"".to_owned()));
}

#[test]
fn a_stale_answer_that_is_too_old_is_asked_for_again() {
    let world = server();
    let target = "GET /v1/catalog/nodes?max_stale=2ms";
    let (reply, asked) = world.exchange(target, vec![answer(nodes()), answer(nodes())]);
    let modes: Vec<_> = asked.iter().map(|request| request.context.consistency).collect();
    assert_eq!(reply.status, 200);
    assert_eq!(modes, [Consistency::Stale, Consistency::Leader]);
}

#[test]
fn errors_of_the_node_have_their_status_and_zero_meta() {
    let world = server();
    for (error, status, text) in [
        (RequestError::NoLeader, 500, "No cluster leader"),
        (RequestError::NoServers, 500, "No known Consul servers"),
        (RequestError::NoPath, 500, "No path to datacenter"),
        (RequestError::NoServerReachable, 500, "Remote DC has no server currently reachable"),
        (RequestError::NotBuilt("x".to_owned()), 501, "x is not built yet"),
        (RequestError::Overloaded("x".to_owned()), 503, "overloaded: x"),
        (RequestError::RateExceeded, 429, "RPC rate limit exceeded"),
        (RequestError::Stopping, 503, "the agent is shutting down"),
    ] {
        let (reply, _) = world.exchange("GET /v1/health/node/n1", vec![Err(error)]);
        assert_eq!((reply.status, body(&reply)), (status, text.to_owned()));
        assert_eq!(reply.meta, Some(Meta::zero()));
    }
}

#[test]
fn pretty_and_gzip_change_only_the_form() {
    let (reply, _) = server().read("GET /v1/status/peers?pretty=false", Rows::Names(vec![]));
    assert_eq!(body(&reply), "[]\n");
    let names = || Rows::Names(vec!["a".to_owned()]);
    let (reply, _) = server().read("GET /v1/status/peers?pretty", names());
    assert_eq!(body(&reply), "[\n    \"a\"\n]\n");
    let (reply, _) =
        server().read("GET /v1/status/peers\nAccept-Encoding: br, gzip;q=0.5", names());
    assert!(reply.form.gzip);
    let (reply, _) = server().read("GET /v1/status/peers\nAccept-Encoding: gzip;q=0", names());
    assert!(!reply.form.gzip);
}

/// A request takes its memory for as long as it waits, and glibc gives what is at most this large
/// without a lock; above it, two threads that serve requests waited for each other.
#[test]
fn waiting_for_an_answer_takes_little_memory() {
    let (world, request) = (server(), request("GET /v1/kv/a"));
    let waiting = world.api.answer(&request, None);
    assert!(size_of_val(&waiting) <= 1024, "{} bytes", size_of_val(&waiting));
}
