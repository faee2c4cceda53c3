//! Services and checks of the agent, and their local health (http-api.md §5, §6, §6.2).

use super::values::{bare_service, check, service};
use super::*;
use crate::http::respond::Content;
use std::sync::Arc;
use terraform_core::catalog::model::{Check, Service};

fn world(services: &[Arc<Service>], checks: &[Arc<Check>]) -> World {
    let local = LocalView {
        services: services.iter().map(|it| (it.id.clone(), Arc::clone(it))).collect(),
        checks: checks.iter().map(|it| (it.id.clone(), Arc::clone(it))).collect(),
    };
    World::new(settings(), local)
}

const WEB: &str = r#"{"ID":"web1","Service":"web","Tags":["a","b"],"Meta":{"v":"1"},"Port":80,"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":80},"wan":{"Address":"5.6.7.8","Port":99}},"Weights":{"Passing":5,"Warning":2},"EnableTagOverride":true}"#;
const DB: &str = r#"{"ID":"db","Service":"db","Tags":[],"Meta":{},"Port":5432,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false}"#;

#[test]
fn services_and_checks_are_maps_by_id() {
    let empty = server();
    assert_eq!(empty.say("GET /v1/agent/services"), (200, "{}".to_owned()));
    assert_eq!(empty.say("GET /v1/agent/checks"), (200, "{}".to_owned()));
    let full = world(&[service(), bare_service("db")], &[check("c", "passing", None)]);
    let services = format!(r#"{{"db":{DB},"web1":{WEB}}}"#);
    assert_eq!(full.say("GET /v1/agent/services"), (200, services));
    let (status, text) = full.say("GET /v1/agent/checks");
    assert!(status == 200 && text.starts_with(r#"{"c":{"Node":"ext","CheckID":"c""#), "{text}");
}

#[test]
fn a_known_hash_waits_for_another_definition() {
    let local = |services: &[Arc<Service>]| LocalView {
        services: services.iter().map(|it| (it.id.clone(), Arc::clone(it))).collect(),
        ..LocalView::default()
    };
    let (sender, calls) = smol::channel::bounded(1);
    let cell = Arc::new(ArcSwap::from_pointee(view(local(&[service()]))));
    let node = NodeHandle::new(Arc::clone(&cell), sender, Clock::start());
    let bell = Arc::clone(node.registered());
    let world = World { api: Api::new(node, settings()), calls };
    let (reply, _) = world.exchange("GET /v1/agent/service/web1", vec![]);
    let hash = header(&reply, "X-Consul-Contenthash").unwrap().to_owned();
    let waiting = request(&format!("GET /v1/agent/service/web1?hash={hash}"));
    // Publishes these services once the request waits, and gives what it is answered.
    let answered_after = |services: &[Arc<Service>]| {
        let publish = async {
            while bell.listeners() == 0 {
                smol::future::yield_now().await;
            }
            // Another service changed: the request goes on to wait.
            bell.ring();
            cell.store(Arc::new(view(local(services))));
            bell.ring();
            smol::future::pending().await
        };
        smol::block_on(smol::future::or(world.api.answer(&waiting, None), publish))
    };
    let moved = Arc::new(Service { port: 81, ..Service::clone(&service()) });
    let reply = answered_after(&[moved]);
    assert!(body(&reply).contains("\"Port\":81"), "{}", body(&reply));
    assert_ne!(header(&reply, "X-Consul-Contenthash"), Some(hash.as_str()));
    cell.store(Arc::new(view(local(&[service()]))));
    assert_eq!(answered_after(&[]).status, 404, "a service that is removed ends the wait");
    assert_eq!(bell.listeners(), 0);
}

#[test]
fn one_service_comes_with_its_hash() {
    let world = world(&[service()], &[]);
    let (reply, _) = world.exchange("GET /v1/agent/service/web1?hash=other&wait=1s", vec![]);
    let hash = header(&reply, "X-Consul-Contenthash").unwrap().to_owned();
    let open = WEB.strip_suffix('}').unwrap();
    assert_eq!(body(&reply), format!(r#"{open},"ContentHash":"{hash}"}}"#));
    // The wait is over without a change.
    let (status, again) = world.say(&format!("GET /v1/agent/service/web1?hash={hash}&wait=1ms"));
    assert_eq!((status, again), (200, body(&reply)));
    let unknown = world.say("GET /v1/agent/service/WEB1");
    assert_eq!(unknown, (404, "unknown service ID: WEB1".to_owned()));
    assert_eq!(world.say("GET /v1/agent/service/web1?wait=x").0, 400);
}

#[test]
fn local_health_is_the_worst_check_of_service_and_node() {
    let health = |checks: &[Arc<Check>]| {
        let world = world(&[bare_service("db"), bare_service("db2")], checks);
        let (reply, _) = world.exchange("GET /v1/agent/health/service/id/db?format=text", vec![]);
        assert_eq!(reply.content, Content::PlainText);
        assert_eq!(header(&reply, "X-Consul-Reason"), Some(body(&reply).as_str()));
        (reply.status, body(&reply))
    };
    let passing = check("own", "passing", Some("db"));
    assert_eq!(health(&[]), (200, "passing".to_owned()));
    let warning = [passing.clone(), check("node", "warning", None)];
    assert_eq!(health(&warning), (429, "warning".to_owned()));
    let other = [passing, check("other", "critical", Some("db2"))];
    assert_eq!(health(&other), (200, "passing".to_owned()));
    assert_eq!(health(&[check("own", "critical", Some("db"))]), (503, "critical".to_owned()));
    let maintenance = [check("_node_maintenance", "critical", None)];
    assert_eq!(health(&maintenance), (503, "maintenance".to_owned()));
}

#[test]
fn local_health_in_json_shows_service_and_checks() {
    let world = world(&[bare_service("db")], &[check("c", "passing", None)]);
    let check = concat!(
        r#"{"Node":"ext","CheckID":"c","Name":"db check","Status":"passing","Notes":"n","#,
        r#""Output":"o","ServiceID":"","ServiceName":"","ServiceTags":null,"Type":"","#,
        r#""Definition":{"Interval":"0s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s","#,
        r#""HTTP":"","Header":null,"Method":"","Body":"","TLSSkipVerify":false,"TCP":""},"#,
        r#""CreateIndex":0,"ModifyIndex":0}"#
    );
    let one = format!(r#"{{"AggregatedStatus":"passing","Service":{DB},"Checks":[{check}]}}"#);
    assert_eq!(world.say("GET /v1/agent/health/service/id/db"), (200, one.clone()));
    assert_eq!(world.say("GET /v1/agent/health/service/name/db"), (200, format!("[{one}]")));
}

#[test]
fn unknown_services_have_their_own_answers() {
    let world = server();
    let get =
        |rest: &str| world.exchange(&format!("GET /v1/agent/health/service/{rest}"), vec![]).0;
    let reply = get("id/nope");
    let gone = r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#;
    assert_eq!((reply.status, body(&reply)), (404, gone.to_owned()));
    assert_eq!(header(&reply, "X-Consul-Reason"), Some("ServiceId nope not found"));
    let reply = get("id/nope?format=text");
    assert_eq!((reply.status, body(&reply)), (404, "\"ServiceId nope not found\"".to_owned()));
    let reply = get("name/nope");
    assert_eq!((reply.status, body(&reply)), (404, "[]".to_owned()));
    let reply = get("name/nope\nAccept: text/plain");
    assert_eq!((reply.status, body(&reply)), (404, "ServiceName nope Not Found".to_owned()));
    let reply = get("id/");
    assert_eq!((reply.status, body(&reply)), (500, "Bad request: Missing serviceID".to_owned()));
    let reply = get("name/");
    assert_eq!(body(&reply), "Bad request: Missing service Name");
}
