//! The rules of registrations on this agent, each with its text (http-api.md §5.1, §6.1).

use super::{check, service};
use crate::http::respond::Reply;
use std::time::Duration;
use terraform_core::catalog::model::{CheckStatus, Weights};
use terraform_core::id::{NodeName, ServiceId};
use terraform_core::local::definition::{
    AliasCheck, CheckDefinition, CheckKind, ServiceDefinition,
};

fn refused<T: std::fmt::Debug>(result: Result<T, Reply>) -> (u16, String) {
    let reply = result.unwrap_err();
    (reply.status, String::from_utf8(reply.body.to_vec()).unwrap())
}

fn check(json: &str) -> Result<CheckDefinition, Reply> {
    check::node_check(json.as_bytes())
}

fn service(json: &str) -> Result<ServiceDefinition, Reply> {
    service::definition(json.as_bytes())
}

#[test]
fn a_check_is_decoded_with_defaults() {
    let it = check(
        r#"{"name":"mem","HTTP":"http://127.0.0.1/","Interval":"100ms","Header":{"A":["b","c"]},
            "deregister_critical_service_after":"5s","service_id":"web","OutputMaxSize":9999,
            "SuccessBeforePassing":2,"FailuresBeforeCritical":-1,"Notes":null}"#,
    )
    .unwrap();
    assert_eq!((it.id.as_str(), it.name.as_str()), ("mem", "mem"));
    assert_eq!(it.service_id, Some(ServiceId::parse("web").unwrap()));
    assert_eq!((it.status, it.output_max_size), (CheckStatus::Critical, 9999));
    assert_eq!((it.success_before_passing, it.failures_before_critical), (2, 0));
    assert_eq!(it.deregister_critical_service_after, Some(Duration::from_secs(60)));
    let CheckKind::Http(http) = it.kind else { panic!() };
    assert_eq!((http.method.as_str(), http.interval), ("GET", Duration::from_secs(1)));
    assert_eq!(http.timeout, Duration::from_secs(10));
    assert_eq!(http.header["A"], ["b", "c"]);
}

#[test]
fn the_kind_of_a_check_follows_from_its_fields() {
    let kind = |fields: &str| check(&format!(r#"{{"Name":"a",{fields}}}"#)).unwrap().kind;
    let alias = |node: Option<&str>, service: Option<&str>| {
        let node = node.map(|name| NodeName::parse(name).unwrap());
        let service = service.map(|id| ServiceId::parse(id).unwrap());
        CheckKind::Alias(AliasCheck { node, service })
    };
    assert_eq!(kind(r#""AliasNode":"n""#), alias(Some("n"), None));
    // Consul takes an interval of an alias and does nothing with it either.
    let both = r#""AliasNode":"n","AliasService":"s","Interval":"5s""#;
    assert_eq!(kind(both), alias(Some("n"), Some("s")));
    assert_eq!(kind(r#""AliasService":"s""#), alias(None, Some("s")));
    let CheckKind::Udp(udp) = kind(r#""UDP":"h:1","Interval":"1s""#) else { panic!() };
    assert_eq!((udp.target.as_str(), udp.timeout), ("h:1", Duration::from_secs(10)));
    let grpc = r#""GRPC":"h:1/s/t","GRPCUseTLS":true,"HTTP":"http://h","Interval":"1s""#;
    let CheckKind::Grpc(grpc) = kind(grpc) else { panic!() };
    assert_eq!((grpc.target.as_str(), grpc.service.as_str(), grpc.tls), ("h:1", "s/t", true));
    let docker = r#""DockerContainerID":"c","Shell":"/bin/sh","Args":["a"],"Interval":"1s""#;
    let CheckKind::Docker(docker) = kind(docker) else { panic!() };
    assert_eq!((docker.container.as_str(), docker.timeout), ("c", Duration::from_secs(30)));
    let CheckKind::Http(http) =
        kind(r#""HTTP":"https://h","tls_skip_verify":true,"Interval":"1s""#)
    else {
        panic!()
    };
    assert!(http.tls_skip_verify);
    let CheckKind::Http(_) = kind(r#""HTTP":"http://h","TCP":"h:1","Interval":"1s""#) else {
        panic!()
    };
}

#[test]
fn a_broken_check_is_refused_with_its_rule() {
    for (json, status, text) in [
        ("{}", 400, "Missing check name"),
        (r#"{"Name":"a","TTL":"1s","Status":"x"}"#, 400, "Bad check status"),
        (r#"{"Name":"a"}"#, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (r#"{"Name":"a","TTL":"-1s"}"#, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (
            r#"{"Name":"a","TCP":"h:1"}"#,
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            r#"{"Name":"a","TTL":"1s","Interval":"1s"}"#,
            400,
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            r#"{"Name":"a","TTL":"1s","OutputMaxSize":-1}"#,
            400,
            "Invalid check: MaxOutputMaxSize must be positive",
        ),
        (
            r#"{"Name":"a","AliasService":"s","TTL":"1s"}"#,
            400,
            "Invalid check: TTL must be not be set for Alias checks",
        ),
        (
            r#"{"Name":"a","AliasService":"s","HTTP":"http://h","Interval":"1s"}"#,
            400,
            "Invalid check: Interval cannot be set for Alias checks",
        ),
        (
            r#"{"Name":"a","DockerContainerID":"c","Interval":"1s"}"#,
            400,
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            r#"{"Name":"a","UDP":"h:1","TTL":"1s"}"#,
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            r#"{"Name":"a","CheckID":"b"}"#,
            400,
            "Request decode failed: json: unknown field \"CheckID\"",
        ),
        (
            r#"{"Name":"a","grpc_use_tls":true}"#,
            400,
            "Request decode failed: json: unknown field \"grpc_use_tls\"",
        ),
        (
            r#"{"Name":"a","TTL":"10"}"#,
            400,
            "Request decode failed: time: missing unit in duration \"10\"",
        ),
        ("", 400, "Request decode failed: EOF"),
        ("null", 400, "Missing check name"),
    ] {
        assert_eq!(refused(check(json)), (status, text.to_owned()), "{json}");
    }
}

#[test]
fn a_service_is_decoded_with_defaults() {
    let it = service(
        r#"{"Name":"web","Address":"10.0.0.1","Port":80,"tagged_addresses":{"wan":{"Address":"h"}},
            "Weights":{"Passing":3},"enable_tag_override":true,"Check":{},"Kind":"","Proxy":null,
            "Checks":[{"TTL":"1s"},{"CheckID":"own","Name":"n","TTL":1000000000}]}"#,
    )
    .unwrap();
    let tags: Vec<_> = it.service.tagged_addresses.keys().map(String::as_str).collect();
    assert_eq!(tags, ["lan_ipv4", "wan", "wan_ipv4"]);
    assert_eq!(it.service.weights, Weights { passing: 3, warning: 0 });
    assert!(it.service.enable_tag_override);
    let checks: Vec<_> =
        it.checks.iter().map(|check| (check.id.as_str(), check.name.as_str())).collect();
    assert_eq!(checks, [("service:web:1", "Service 'web' check"), ("own", "n")]);
    assert!(it.checks.iter().all(|check| check.service_id == Some(it.service.id.clone())));
}

#[test]
fn a_lone_check_is_named_after_its_service() {
    let it =
        service(r#"{"Name":"web","ID":"web/1","Check":{"TTL":"1s","ServiceID":"x"}}"#).unwrap();
    assert_eq!(it.checks[0].id.as_str(), "service:web/1");
    assert_eq!(it.service.weights, Weights::default());
}

#[test]
fn a_broken_service_is_refused_with_its_rule() {
    let web = |rest: &str| format!(r#"{{"Name":"web",{rest}}}"#);
    let pair = "Invalid Service Meta: Couldn't load metadata pair";
    let long = "x".repeat(129);
    for (json, status, text) in [
        ("{}".to_owned(), 400, "Missing service name".to_owned()),
        (web(r#""Address":"0.0.0.0""#), 400, "Invalid service address".to_owned()),
        (
            web(r#""Weights":{"Warning":1}"#),
            400,
            "Invalid Weights: Passing must be greater than 0".to_owned(),
        ),
        (
            web(r#""Weights":{"Passing":1,"Warning":-1}"#),
            400,
            "Invalid Weights: Warning must be greater or equal than 0".to_owned(),
        ),
        (
            web(r#""Weights":{"Passing":70000}"#),
            400,
            "Invalid Weights: DNS Weight must be between 0 and 65535".to_owned(),
        ),
        (web(r#""Meta":{"":"v"}"#), 400, format!("{pair} ('', 'v'): Key cannot be blank")),
        (
            web(r#""Meta":{"a.b":"v"}"#),
            400,
            format!("{pair} ('a.b', 'v'): Key contains invalid characters"),
        ),
        (
            web(&format!(r#""Meta":{{"{long}":"v"}}"#)),
            400,
            format!("{pair} ('{long}', 'v'): Key is too long (limit: 128 characters)"),
        ),
        (
            web(r#""Meta":{"consul-x":"v"}"#),
            400,
            format!("{pair} ('consul-x', 'v'): Key prefix 'consul-' is reserved for internal use"),
        ),
        (
            web(r#""TaggedAddresses":{"lan_ipv4":{"Address":"::1"}}"#),
            500,
            "Service tagged address \"lan_ipv4\" must be a valid ipv4 address".to_owned(),
        ),
        (
            web(r#""Check":{"TTL":"1s","Status":"x"}"#),
            400,
            "Status for checks must 'passing', 'warning', 'critical'".to_owned(),
        ),
        (
            web(r#""Checks":[{}]"#),
            400,
            "Invalid check: TTL must be > 0 for TTL checks".to_owned(),
        ),
        (
            web(r#""Check":{"ID":"x"}"#),
            400,
            "Request decode failed: json: unknown field \"ID\"".to_owned(),
        ),
        (web(r#""Connect":{"Native":true}"#), 501, "the field \"Connect\" is not built yet".to_owned()),
        (
            web(r#""Port":"80""#),
            400,
            "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(service(&json)), (status, text), "{json}");
    }
}

#[test]
fn metadata_is_bounded() {
    let pairs = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|at| format!("\"k{at}\":\"v\"")).collect();
        format!(r#"{{"Name":"web","Meta":{{{}}}}}"#, pairs.join(","))
    };
    assert!(service(&pairs(64)).is_ok());
    let (status, text) = refused(service(&pairs(65)));
    assert_eq!(status, 400);
    assert!(text.ends_with("cannot contain more than 64 key/value pairs"), "{text}");
}
