//! A service that a file defines, as the HTTP interface takes it (http-api.md §5.1, §6.1).

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::catalog::model::ServiceAddress;
use terraform_core::local::definition::{CheckDefinition, CheckKind, ServiceDefinition};

/// The body of a registration.
pub(super) fn service(definition: &ServiceDefinition) -> Value {
    let service = &definition.service;
    json!({
        "ID": service.id.as_str(),
        "Name": service.name.as_str(),
        "Tags": service.tags,
        "Address": service.address,
        "TaggedAddresses": tagged_addresses(&service.tagged_addresses),
        "Meta": service.meta,
        "Port": service.port,
        "Weights": { "Passing": service.weights.passing, "Warning": service.weights.warning },
        "EnableTagOverride": service.enable_tag_override,
        "Token": definition.token,
        "Checks": definition.checks.iter().map(check).collect::<Vec<_>>(),
    })
}

fn tagged_addresses(addresses: &BTreeMap<String, ServiceAddress>) -> Map<String, Value> {
    let one = |(tag, at): (&String, &ServiceAddress)| {
        (tag.clone(), json!({ "Address": at.address, "Port": at.port }))
    };
    addresses.iter().map(one).collect()
}

fn check(check: &CheckDefinition) -> Value {
    let mut body = json!({
        "CheckID": check.id.as_str(),
        "Name": check.name,
        "Notes": check.notes,
        "Status": check.status.as_str(),
        "OutputMaxSize": check.output_max_size,
        "SuccessBeforePassing": check.success_before_passing,
        "FailuresBeforeCritical": check.failures_before_critical,
        "DeregisterCriticalServiceAfter": check.deregister_critical_service_after.map(span),
    });
    let kind = source(&check.kind);
    let pace = check
        .kind
        .pace()
        .map(|(interval, timeout)| json!({ "Interval": span(interval), "Timeout": span(timeout) }));
    if let Value::Object(fields) = &mut body {
        for more in [Some(kind), pace].into_iter().flatten() {
            fields.extend(more.as_object().cloned().unwrap_or_default());
        }
    }
    body
}

/// How a check finds out.
fn source(kind: &CheckKind) -> Value {
    match kind {
        CheckKind::Ttl(ttl) => json!({ "TTL": span(*ttl) }),
        CheckKind::Http(http) => json!({
            "HTTP": http.url,
            "Method": http.method,
            "Header": http.header,
            "Body": http.body,
            "TLSSkipVerify": http.tls_skip_verify,
        }),
        CheckKind::Tcp(tcp) => json!({ "TCP": tcp.target }),
        CheckKind::Udp(udp) => json!({ "UDP": udp.target }),
        CheckKind::Grpc(grpc) => json!({
            "GRPC": match grpc.service.as_str() {
                "" => grpc.target.clone(),
                service => format!("{}/{service}", grpc.target),
            },
            "GRPCUseTLS": grpc.tls,
            "TLSSkipVerify": grpc.tls_skip_verify,
        }),
        CheckKind::Script(script) => json!({ "Args": script.args }),
        CheckKind::Docker(docker) => {
            json!({ "DockerContainerID": docker.container, "Args": docker.args })
        }
        CheckKind::Alias(alias) => json!({
            "AliasNode": alias.node.as_ref().map(|name| name.as_str()),
            "AliasService": alias.service.as_ref().map(|id| id.as_str()),
        }),
        // No file defines one.
        CheckKind::Maintenance => json!({}),
    }
}

/// A time as the interface takes it exactly.
fn span(time: Duration) -> String {
    format!("{}ns", time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_a_file_says_arrives() {
        let text = r#"{"service": {
            "name": "web", "port": 80, "tags": ["a"], "meta": {"k": "v"}, "token": "t",
            "tagged_addresses": {"wan": {"address": "192.0.2.1", "port": 81}},
            "checks": [{"ttl": "5s", "status": "passing"},
                       {"http": "http://h", "interval": "2s", "header": {"A": ["b"]}},
                       {"args": ["true"], "interval": "3s", "timeout": "1s"},
                       {"alias_service": "db"},
                       {"grpc": "h:1/s", "grpc_use_tls": true, "interval": "2s"}]}}"#;
        let body = service(&parse(text).unwrap().services[0]);
        assert_eq!((&body["ID"], &body["Token"]), (&"web".into(), &"t".into()));
        assert_eq!(body["TaggedAddresses"]["wan"]["Port"], 81);
        let checks = &body["Checks"];
        assert_eq!(
            (&checks[0]["TTL"], &checks[0]["Status"]),
            (&"5000000000ns".into(), &"passing".into())
        );
        assert_eq!(checks[0]["CheckID"], "service:web:1");
        assert_eq!(
            (&checks[1]["HTTP"], &checks[1]["Header"]["A"][0]),
            (&"http://h".into(), &"b".into())
        );
        assert_eq!(
            (&checks[2]["Args"][0], &checks[2]["Timeout"]),
            (&"true".into(), &"1000000000ns".into())
        );
        assert_eq!(checks[3]["AliasService"], "db");
        assert_eq!((&checks[4]["GRPC"], &checks[4]["GRPCUseTLS"]), (&"h:1/s".into(), &true.into()));
    }
}
