//! `/v1/agent/metrics` (http-api.md §4.3).

use super::*;
use crate::telemetry::TelemetryConfig;
use terraform_core::time::{Instant, WallClock};

fn metrics(world: &World) -> &crate::telemetry::Metrics {
    world.api.node().metrics()
}

#[test]
fn requests_are_timed_by_the_pattern_of_their_path() {
    let world = server();
    world.say("GET /v1/agent/service/a/b");
    world.say("GET /v1/agent/services");
    world.say("GET /v1/agent/services?filter=x");
    world.say("POST /v1/agent/services");
    world.say("BREW /v1/agent/services");
    world.say("GET /v1/nope");
    let interval = metrics(&world).turn(Instant::ZERO, WallClock::from_millis(0));
    let counts = interval.samples.iter().map(|(key, it)| (key.name.as_str(), it.count()));
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [
            ("http.GET.v1.agent.service._", 1),
            ("http.GET.v1.agent.services", 2),
            ("http.POST.v1.agent.services", 1)
        ]
    );
}

#[test]
fn the_interval_finished_last_is_shown() {
    let world = server();
    world.say("GET /v1/agent/services");
    metrics(&world).turn(Instant::ZERO, WallClock::from_millis(0));
    world.say("GET /v1/agent/checks");
    let (reply, _) = world.exchange("GET /v1/agent/metrics", vec![]);
    assert_eq!((reply.status, reply.content), (200, crate::http::respond::Content::Json));
    let text = body(&reply);
    assert!(text.contains(r#""Name":"consul.http.GET.v1.agent.services","Count":1,"#), "{text}");
    assert!(!text.contains("agent.checks"), "{text}");
}

#[test]
fn prometheus_is_chosen_by_format_or_accept_and_must_be_switched_on() {
    let world = server();
    let ways = [
        "GET /v1/agent/metrics?format=prometheus",
        "GET /v1/agent/metrics\nAccept: application/openmetrics-text; version=1.0.0",
        "GET /v1/agent/metrics\nAccept: text/html, text/plain;version=0.4.0;q=0.5",
    ];
    let rule = "Prometheus is not enabled since its retention time is not positive";
    for way in ways {
        assert_eq!(world.say(way), (415, rule.to_owned()), "{way}");
    }
    let prometheus_retention = Duration::from_secs(60);
    metrics(&world).configure(TelemetryConfig { prometheus_retention, ..Default::default() });
    for way in ways {
        let (reply, _) = world.exchange(way, vec![]);
        assert_eq!(reply.content, crate::http::respond::Content::Prometheus, "{way}");
        assert!(body(&reply).contains("# TYPE consul_http_GET_v1_agent_metrics summary\n"));
    }
    for way in ["GET /v1/agent/metrics", "GET /v1/agent/metrics\nAccept: text/plain"] {
        assert!(world.say(way).1.starts_with("{\"Timestamp\":"), "{way}");
    }
}
