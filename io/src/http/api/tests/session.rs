//! Sessions over HTTP.

use super::*;
use std::sync::Arc;
use terraform_core::catalog::command::{Command, SERF_HEALTH};
use terraform_core::catalog::lock::Behavior;
use terraform_core::catalog::session::Session;
use terraform_core::id::{CheckId, SessionId};

const ID: &str = "01010101-0101-0101-0101-010101010101";

fn checks(ids: &[&str]) -> Vec<CheckId> {
    ids.iter().map(|id| CheckId::parse(id).unwrap()).collect()
}

/// What is made of a body.
fn created(world: &World, body: &str) -> Session {
    let (status, shown, asked) = world.write(&format!("PUT /v1/session/create\n\n{body}"));
    let RequestBody::Write(Command::CreateSession(session)) = asked else { panic!("{asked:?}") };
    assert_eq!((status, shown), (200, format!(r#"{{"ID":"{}"}}"#, session.id)), "{body}");
    *session
}

fn session() -> Session {
    Session {
        id: SessionId::parse(ID).unwrap(),
        name: "lock".to_owned(),
        node: NodeName::parse("n1").unwrap(),
        lock_delay: Duration::from_secs(15),
        behavior: Behavior::Release,
        ttl: Duration::from_secs(90),
        ttl_text: "90s".to_owned(),
        node_checks: checks(&[SERF_HEALTH]),
        service_checks: Vec::new(),
        checks: Vec::new(),
        create_index: ModifyIndex::new(5),
    }
}

#[test]
fn a_session_has_defaults() {
    let world = server();
    for body in ["", "{}", "null", r#"{"Bogus":1,"name":null}"#] {
        let made = created(&world, body);
        let zero = ModifyIndex::ZERO;
        let expected = Session {
            id: made.id,
            name: String::new(),
            ttl: Duration::ZERO,
            ttl_text: String::new(),
            create_index: zero,
            ..session()
        };
        assert_eq!(made, expected, "{body}");
    }
    assert_ne!(created(&world, "").id, created(&world, "").id);
}

#[test]
fn a_session_is_what_its_body_says() {
    let world = server();
    let body = r#"{"NODE":"ext","name":"l","LockDelay":"5s","behavior":"delete","TTL":"1m30s",
        "NodeChecks":["c1"],"ServiceChecks":[{"ID":"service:web","Namespace":""}]}"#;
    let made = created(&world, body);
    assert_eq!((made.node.as_str(), made.name.as_str()), ("ext", "l"));
    assert_eq!((made.lock_delay, made.behavior), (Duration::from_secs(5), Behavior::Delete));
    assert_eq!((made.ttl, made.ttl_text.as_str()), (Duration::from_secs(90), "1m30s"));
    assert_eq!(
        (made.node_checks, made.service_checks),
        (checks(&["c1"]), checks(&["service:web"]))
    );
    for (given, delay) in [
        ("5", Duration::from_secs(5)),
        ("0", Duration::ZERO),
        ("2000000000", Duration::from_secs(2)),
        (r#""0s""#, Duration::ZERO),
    ] {
        assert_eq!(created(&world, &format!(r#"{{"LockDelay":{given}}}"#)).lock_delay, delay);
    }
    for (given, node, old) in [
        (r#""Checks":[]"#, vec![], vec![]),
        (r#""NodeChecks":[]"#, vec![], vec![]),
        (r#""Checks":["x"]"#, vec![SERF_HEALTH], vec!["x"]),
        (r#""Checks":["x"],"NodeChecks":["y"]"#, vec!["y"], vec!["x"]),
    ] {
        let made = created(&world, &format!("{{{given}}}"));
        assert_eq!((made.node_checks, made.checks), (checks(&node), checks(&old)), "{given}");
    }
}

#[test]
fn bad_sessions_are_refused_by_their_rule() {
    let world = server();
    let create = |body: &str| world.say(&format!("PUT /v1/session/create\n\n{body}"));
    for (body, status, shown) in [
        (r#"{"Node":""}"#, 500, "Must provide Node"),
        (r#"{"Behavior":"x"}"#, 500, "Invalid Behavior setting 'x'"),
        (r#"{"TTL":"x"}"#, 500, r#"Session TTL 'x' invalid: time: invalid duration "x""#),
        (r#"{"TTL":"5s"}"#, 500, "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"),
        (
            r#"{"TTL":"25h"}"#,
            500,
            "Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]",
        ),
        (r#"{"LockDelay":"x"}"#, 400, r#"Request decode failed: time: invalid duration "x""#),
        ("{", 400, "Request decode failed: unexpected EOF"),
    ] {
        assert_eq!(create(body), (status, shown.to_owned()), "{body}");
    }
    let (status, _) = create(r#"{"TTL":10}"#);
    assert_eq!(status, 400, "a TTL is a text");
    assert_eq!(created(&world, r#"{"TTL":"0s"}"#).ttl, Duration::ZERO);
    let not_uuid = "failed session lookup: index error: UUID must be 36 characters";
    for (text, status, shown) in [
        ("PUT /v1/session/destroy/", 400, "Missing session"),
        ("PUT /v1/session/renew/", 400, "Missing session"),
        ("GET /v1/session/info/", 400, "Missing session"),
        ("GET /v1/session/node/", 400, "Missing node name"),
        ("PUT /v1/session/destroy/x", 500, not_uuid),
        ("PUT /v1/session/renew/x", 500, not_uuid),
        ("GET /v1/session/info/x", 500, not_uuid),
        ("GET /v1/session/create", 405, "method GET not allowed"),
        ("POST /v1/session/list", 405, "method POST not allowed"),
    ] {
        assert_eq!(world.say(text), (status, shown.to_owned()), "{text}");
    }
    let refused = Err(RequestError::Refused("Missing node registration".to_owned()));
    let (reply, _) = world.exchange("PUT /v1/session/create", vec![refused]);
    assert_eq!((reply.status, body(&reply).as_str()), (500, "Missing node registration"));
}

#[test]
fn sessions_are_shown_with_their_index() {
    let world = server();
    let shown = format!(
        r#"{{"ID":"{ID}","Name":"lock","Node":"n1","LockDelay":15000000000,"Behavior":"release","TTL":"90s","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":5,"ModifyIndex":5}}"#
    );
    for (path, query) in [
        (format!("info/{ID}"), Query::Session(SessionId::parse(ID).unwrap())),
        ("node/N1".to_owned(), Query::Sessions(Some(NodeName::parse("N1").unwrap()))),
        ("list".to_owned(), Query::Sessions(None)),
    ] {
        let text = format!("GET /v1/session/{path}?index=7&wait=1s");
        let (reply, asked) = world.read(&text, Rows::Sessions(vec![Arc::new(session())]));
        assert_eq!((reply.status, body(&reply)), (200, format!("[{shown}]")));
        let meta = reply.meta.unwrap();
        assert_eq!((meta.index, meta.consistency), (42, None));
        assert_eq!(asked.body, RequestBody::Query(query));
        assert_eq!(asked.context.min_index, ModifyIndex::new(7));
        let (reply, _) = world.read(&text, Rows::Sessions(vec![]));
        assert_eq!((reply.status, body(&reply).as_str()), (200, "[]"));
    }
    let all = Session {
        service_checks: checks(&["service:web"]),
        checks: checks(&["x"]),
        behavior: Behavior::Delete,
        ..session()
    };
    let (reply, _) = world.read("GET /v1/session/list", Rows::Sessions(vec![Arc::new(all)]));
    let shown = body(&reply);
    assert!(
        shown.contains(r#""ServiceChecks":[{"ID":"service:web","Namespace":""}],"Checks":["x"]"#)
    );
    assert!(shown.contains(r#""Behavior":"delete""#));
}

#[test]
fn a_session_is_renewed_by_the_leader_and_destroyed_once_and_again() {
    let world = server();
    let text = format!("PUT /v1/session/renew/{ID}?stale");
    let (reply, asked) = world.read(&text, Rows::Sessions(vec![Arc::new(session())]));
    assert!(reply.status == 200 && body(&reply).starts_with(&format!(r#"[{{"ID":"{ID}""#)));
    let id = SessionId::parse(ID).unwrap();
    assert_eq!(asked.body, RequestBody::RenewSession(id));
    assert_eq!(asked.context.consistency, Consistency::Leader, "no other server can");
    let (reply, _) = world.read(&text, Rows::Sessions(vec![]));
    let gone = format!("Session id '{ID}' not found");
    assert_eq!((reply.status, body(&reply)), (404, gone.clone()));
    let ending = Err(RequestError::NotFound(gone.clone()));
    let (reply, _) = world.exchange(&text, vec![ending]);
    assert_eq!((reply.status, body(&reply)), (404, gone));
    let (status, shown, asked) = world.write(&format!("PUT /v1/session/destroy/{ID}"));
    assert_eq!((status, shown.as_str()), (200, "true"));
    assert_eq!(asked, RequestBody::Write(Command::EndSessions(vec![id])));
}
