//! The keyring over HTTP.

use super::*;
use bytes::Bytes;
use terraform_core::serf::{KeyOperation, KeyReport, SerfReply, SerfRequest};

fn report(errors: usize) -> KeyReport {
    let keys = BTreeMap::from([("a2V5".to_owned(), 2)]);
    KeyReport {
        nodes: 2,
        responses: 2,
        errors,
        primary_keys: keys.clone(),
        keys,
        ..KeyReport::default()
    }
}

fn answer(report: KeyReport) -> Vec<Answer> {
    vec![Ok(Response::Serf(SerfReply::Keys(report)))]
}

fn keys(operation: KeyOperation, relay_factor: u8) -> RequestBody {
    RequestBody::Serf(SerfRequest::Keys { operation, relay_factor })
}

#[test]
fn keys_are_listed_by_pool() {
    for (query, relays) in [("", 0), ("?local-only=true&relay-factor=5", 5)] {
        let text = format!("GET /v1/operator/keyring{query}");
        let (reply, mut asked) = server().exchange(&text, answer(report(0)));
        let expected = r#"[{"WAN":false,"Datacenter":"dc1","Segment":"","Keys":{"a2V5":2},"PrimaryKeys":{"a2V5":2},"NumNodes":2}]"#;
        assert_eq!((reply.status, body(&reply).as_str()), (200, expected));
        assert_eq!(reply.meta, None);
        assert_eq!(asked.pop().unwrap().body, keys(KeyOperation::List, relays));
    }
}

#[test]
fn each_method_does_its_operation_with_the_key_of_the_body() {
    let key = || Bytes::from_static(b"key");
    let methods = [
        ("POST", KeyOperation::Install(key())),
        ("PUT", KeyOperation::Use(key())),
        ("DELETE", KeyOperation::Remove(key())),
    ];
    for (method, operation) in methods {
        let text = format!("{method} /v1/operator/keyring\n\n{{\"Key\":\"a2V5\"}}");
        let (reply, mut asked) = server().exchange(&text, answer(report(0)));
        assert_eq!((reply.status, body(&reply)), (200, String::new()), "{method}");
        assert_eq!(asked.pop().unwrap().body, keys(operation, 0));
    }
}

#[test]
fn a_failure_names_pool_members_and_reasons() {
    let name = NodeName::parse("n1").unwrap();
    let messages = BTreeMap::from([(name, "no such key".to_owned())]);
    let failed = KeyReport { messages, ..report(1) };
    let (reply, _) = server().exchange("GET /v1/operator/keyring", answer(failed));
    let text = "2 errors occurred:\n\t* dc1 (LAN) error: 1/2 nodes reported failure\n\
                \t* n1: no such key\n\n";
    assert_eq!((reply.status, body(&reply).as_str()), (500, text));
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_rule() {
    let world = server();
    let refused = |text: &str| world.say(text);
    let (status, text) = refused("GET /v1/operator/keyring?relay-factor=6");
    let rule = "Bad request: Invalid relay-factor: Relay factor must be in range: [0, 5]";
    assert_eq!((status, text.as_str()), (400, rule));
    let (_, text) = refused("GET /v1/operator/keyring?relay-factor=x");
    assert!(text.starts_with("Bad request: Error parsing relay factor: "), "{text}");
    let (_, text) = refused("GET /v1/operator/keyring?local-only=x");
    assert!(text.starts_with("Bad request: Error parsing local-only: "), "{text}");
    let (_, text) = refused("PUT /v1/operator/keyring?local-only=1\n\n{}");
    assert!(text.ends_with("local-only can only be set for list requests"), "{text}");
    let (status, text) = refused("PUT /v1/operator/keyring\n\n{\"Kay\":\"\"}");
    assert!(status == 400 && text.starts_with("Bad request: Request decode failed: "), "{text}");
    let (status, text) = refused("PUT /v1/operator/keyring\n\n{\"Key\":\"!\"}");
    assert!(status == 500 && text.contains("illegal base64 data at input byte 0"), "{text}");

    let mut settings = settings();
    settings.facts.server = false;
    let client = World::new(settings, LocalView::default());
    let rule = "keyring operations must run against a server node";
    assert_eq!(client.say("GET /v1/operator/keyring"), (500, rule.to_owned()));
}
