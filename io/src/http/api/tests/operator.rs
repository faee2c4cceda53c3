//! The keyring over HTTP.

use super::*;
use bytes::Bytes;
use terraform_core::id::PoolName;
use terraform_core::node::request::{KeyringRequest, multi_error};
use terraform_core::serf::{KeyOperation, KeyReport, SerfReply};

fn report(errors: u64) -> KeyReport {
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

fn answer(report: KeyReport) -> Answer {
    Ok(Response::Serf(SerfReply::Keys(report)))
}

fn keys(pool: PoolName, operation: KeyOperation, relay_factor: u8) -> RequestBody {
    RequestBody::Keys(KeyringRequest { pool, operation, relay_factor })
}

fn bodies(asked: Vec<Request>) -> Vec<RequestBody> {
    asked.into_iter().map(|asked| asked.body).collect()
}

#[test]
fn keys_are_listed_by_pool() {
    let row = |wan: bool| {
        format!(
            r#"{{"WAN":{wan},"Datacenter":"dc1","Segment":"","Keys":{{"a2V5":2}},"PrimaryKeys":{{"a2V5":2}},"NumNodes":2}}"#
        )
    };
    let both = vec![answer(report(0)), answer(report(0))];
    let (reply, asked) = server().exchange("GET /v1/operator/keyring", both);
    let expected = format!("[{},{}]", row(true), row(false));
    assert_eq!((reply.status, body(&reply)), (200, expected));
    assert_eq!(reply.meta, None);
    let lists = |pool, relays| keys(pool, KeyOperation::List, relays);
    assert_eq!(bodies(asked), [lists(PoolName::Wan, 0), lists(PoolName::Lan, 0)]);

    let text = "GET /v1/operator/keyring?local-only=true&relay-factor=5";
    let (reply, asked) = server().exchange(text, vec![answer(report(0))]);
    assert_eq!((reply.status, body(&reply)), (200, format!("[{}]", row(false))));
    assert_eq!(bodies(asked), [lists(PoolName::Lan, 5)]);
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
        let both = vec![answer(report(0)), answer(report(0))];
        let (reply, asked) = server().exchange(&text, both);
        assert_eq!((reply.status, body(&reply)), (200, String::new()), "{method}");
        let of = |pool| keys(pool, operation.clone(), 0);
        assert_eq!(bodies(asked), [of(PoolName::Wan), of(PoolName::Lan)]);
    }
}

#[test]
fn other_datacenters_are_asked_for_their_pools() {
    let known = ["dc1", "dc2"].map(|name| Datacenter::parse(name).unwrap());
    let datacenters = known.iter().cloned().map(DatacenterCoordinates::unknown).collect();
    let world = World::seeing(View { datacenters, ..view(LocalView::default()) }, settings());
    let lost = || Err(RequestError::NoServerReachable);
    let answers = vec![answer(report(0)), answer(report(0)), answer(report(0))];
    let (reply, asked) = world.exchange("GET /v1/operator/keyring", answers);
    let rows: serde_json::Value = serde_json::from_str(&body(&reply)).unwrap();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["Datacenter"]).collect();
    assert_eq!(names, ["dc1", "dc1", "dc2"]);
    let places: Vec<_> = asked.iter().map(|asked| asked.context.datacenter.clone()).collect();
    assert_eq!(places, [None, None, Some(known[1].clone())]);

    let answers = vec![answer(report(0)), answer(report(0)), lost()];
    let (reply, _) = world.exchange("GET /v1/operator/keyring", answers);
    let error = lost().unwrap_err();
    let text = multi_error(&[format!("dc2 (LAN) error: {error}")]);
    assert_eq!((reply.status, body(&reply)), (500, text));
}

#[test]
fn a_failure_names_pool_members_and_reasons() {
    let name = NodeName::parse("n1").unwrap();
    let messages = BTreeMap::from([(name, "no such key".to_owned())]);
    let failed = KeyReport { messages, ..report(1) };
    let answers = vec![answer(report(1)), answer(failed)];
    let (reply, _) = server().exchange("GET /v1/operator/keyring", answers);
    let text = "3 errors occurred:\n\t* WAN error: 1/2 nodes reported failure\n\
                \t* dc1 (LAN) error: 1/2 nodes reported failure\n\
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
