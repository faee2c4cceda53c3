//! `/v1/agent/monitor`, `/v1/agent/metrics/stream`, `/v1/agent/host`, `/v1/agent/version`
//! (http-api.md §4.4, §4.5, §19).

use super::*;
use crate::http::respond::Content;
use crate::log::tests::{say, watched};
use smol::future::FutureExt as _;
use terraform_core::time::{Instant, WallClock};
use terraform_core::trace::Level;

/// The next piece of a streamed body.
fn piece(reply: &Reply) -> String {
    let piece = smol::block_on(reply.stream.as_ref().unwrap().next()).unwrap();
    String::from_utf8(piece.to_vec()).unwrap()
}

#[test]
fn a_monitor_is_sent_what_is_said_from_then_on() {
    let world = server();
    let logs = Arc::clone(&world.api.settings().logs);
    say(&logs, Level::Error, "before");
    let request = request("GET /v1/agent/monitor?loglevel=warn");
    let reply = smol::block_on(world.api.answer(&request, None));
    assert_eq!((reply.status, reply.content), (200, Content::Untyped));
    say(&logs, Level::Info, "too fine");
    say(&logs, Level::Warn, "odd");
    say(&logs, Level::Error, "bad");
    assert_eq!(piece(&reply), "2026-11-22T14:09:53.374Z [WARN]  agent: odd\n");
    assert_eq!(piece(&reply), "2026-11-22T14:09:53.374Z [ERROR] agent: bad\n");
    let told = || watched(&world.calls.try_recv().unwrap().request);
    assert_eq!(told(), Some(Level::Warn));
    drop(reply);
    assert_eq!(told(), None, "a client that goes frees its subscription");
}

#[test]
fn a_monitor_may_want_json_and_must_want_a_level() {
    let world = server();
    let say_of = |target: &str| smol::block_on(world.api.answer(&request(target), None));
    let reply = say_of("GET /v1/agent/monitor?logjson");
    say(&world.api.settings().logs, Level::Info, "a \"b\"");
    let expected = r#"{"@level":"info","@message":"a \"b\"","@module":"agent","#.to_owned()
        + r#""@timestamp":"2026-11-22T14:09:53.374Z"}"#;
    assert_eq!(piece(&reply), expected + "\n");
    let refused = say_of("GET /v1/agent/monitor?loglevel=zz");
    let text = "Bad request: Unknown log level: zz".to_owned();
    assert_eq!((refused.status, body(&refused)), (400, text));
}

#[test]
fn the_stream_of_metrics_has_an_object_for_each_interval() {
    let world = server();
    let (reply, _) = world.exchange("GET /v1/agent/metrics/stream", vec![]);
    assert_eq!((reply.status, reply.content), (200, Content::Json));
    let metrics = world.api.node().metrics();
    for number in 1..=2 {
        metrics.turn(Instant::ZERO, WallClock::from_millis(number * 10_000));
        let object = piece(&reply);
        assert!(object.starts_with("{\"Timestamp\":\"") && object.ends_with("}\n"), "{object}");
    }
    let next = async { reply.stream.as_ref().unwrap().next().await.is_some() };
    assert!(!smol::block_on(next.or(async { false })), "no interval has ended");
}

#[test]
fn the_version_is_that_of_the_interface() {
    let expected = r#"{"SHA":"","BuildDate":"","HumanVersion":"1.8.7","FIPS":""}"#;
    assert_eq!(server().say("GET /v1/agent/version"), (200, expected.to_owned()));
}

#[cfg(target_os = "linux")]
#[test]
fn the_host_is_described() {
    let mut settings = settings();
    settings.facts.data_dir = std::env::temp_dir().display().to_string();
    let world = World::new(settings, LocalView::default());
    let (status, text) = world.say("GET /v1/agent/host");
    assert_eq!(status, 200);
    let host: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(host["Memory"]["total"].as_u64() > host["Memory"]["free"].as_u64());
    assert!(host["CPU"].as_array().is_some_and(|processors| !processors.is_empty()));
    assert_eq!(host["Host"]["os"], "linux");
    assert!(host["Disk"]["total"].as_u64() >= host["Disk"]["used"].as_u64());
    assert!(host["CollectionTime"].as_i64().is_some_and(|nanos| nanos > 0));
    assert!(host["Errors"].is_null());
}
