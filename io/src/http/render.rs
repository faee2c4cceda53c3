//! The JSON shapes that clients know, written from plain values.
//!
//! - Source: http-api.md §2 (order of members, what is left out when empty, `null` or `[]`).

use super::json::{Json, Value as _};
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::catalog::address::Seen;
use terraform_core::catalog::kv::KvEntry;
use terraform_core::catalog::lock::Behavior;
use terraform_core::catalog::model::{Check, CheckRecipe, Node, Service, ServiceAddress, Weights};
use terraform_core::catalog::prepared::{PreparedQuery, Selection};
use terraform_core::catalog::query::Instance;
use terraform_core::catalog::session::Session;
use terraform_core::coordinate::Coordinate;
use terraform_core::id::Datacenter;
use terraform_core::serf::Member;
use terraform_core::wire::base64;

/// The only kind of templates of prepared queries.
pub const TEMPLATE_TYPE: &str = "name_prefix_match";

/// The datacenter that rows are of, and from where it is looked at.
#[derive(Clone, Debug)]
pub struct Place {
    /// The datacenter.
    pub datacenter: Datacenter,
    /// From where.
    pub seen: Seen,
}

/// `Node`.
pub fn node(json: &mut Json, node: &Node, place: &Place) {
    json.object(|json| {
        let id = node.id.map(|id| id.to_string()).unwrap_or_default();
        json.field("ID", &id);
        json.field("Node", node.name.as_str());
        json.field("Address", place.seen.address_of_node(node));
        json.field("Datacenter", place.datacenter.as_str());
        json.key("TaggedAddresses");
        texts_or_null(json, &node.tagged_addresses);
        json.key("Meta");
        texts_or_null(json, &node.meta);
        json.field("CreateIndex", node.create_index.get());
        json.field("ModifyIndex", node.modify_index.get());
    });
}

/// `NodeService`.
pub fn node_service(json: &mut Json, service: &Service, seen: Seen) {
    service_with(json, service, seen, strings);
}

/// `NodeService` as transactions show it: `null` for no tags.
pub fn bare_service(json: &mut Json, service: &Service) {
    service_with(json, service, Seen::Inside, strings_or_null);
}

fn service_with(json: &mut Json, service: &Service, seen: Seen, tags: fn(&mut Json, &[String])) {
    json.object(|json| {
        json.field("ID", service.id.as_str());
        json.field("Service", service.name.as_str());
        json.key("Tags");
        tags(json, &service.tags);
        json.field("Address", seen.address_of_service(service));
        addresses_if_set(json, "TaggedAddresses", &service.tagged_addresses);
        json.key("Meta");
        texts_or_null(json, &service.meta);
        json.field("Port", seen.port_of_service(service));
        json.key("Weights");
        weights(json, service.weights);
        json.field("EnableTagOverride", service.enable_tag_override);
        json.key("Proxy");
        json.raw(r#"{"MeshGateway":{},"Expose":{}}"#);
        json.key("Connect");
        json.raw("{}");
        json.field("CreateIndex", service.create_index.get());
        json.field("ModifyIndex", service.modify_index.get());
    });
}

/// An entry of the key-value table; `LockIndex` counts locks, which come with sessions.
pub fn kv_entry(json: &mut Json, entry: &KvEntry) {
    json.object(|json| {
        let (acquired, session) = entry.lock();
        json.field("LockIndex", acquired);
        json.field("Key", &*entry.key);
        json.field("Flags", entry.flags);
        json.key("Value");
        if entry.value.is_empty() {
            json.null();
        } else {
            json.string(&base64::encode(&entry.value));
        }
        if let Some(session) = session {
            json.field("Session", &session.to_string());
        }
        json.field("CreateIndex", entry.create_index.get());
        json.field("ModifyIndex", entry.modify_index.get());
    });
}

/// A session.
pub fn session(json: &mut Json, session: &Session) {
    json.object(|json| {
        json.field("ID", &session.id.to_string());
        json.field("Name", &session.name);
        json.field("Node", session.node.as_str());
        json.field("LockDelay", u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX));
        json.field(
            "Behavior",
            match session.behavior {
                Behavior::Release => "release",
                Behavior::Delete => "delete",
            },
        );
        json.field("TTL", &session.ttl_text);
        json.key("NodeChecks");
        json.array(&session.node_checks, |json, id| json.string(id.as_str()));
        json.key("ServiceChecks");
        if session.service_checks.is_empty() {
            json.null();
        } else {
            json.array(&session.service_checks, |json, id| {
                json.object(|json| {
                    json.field("ID", id.as_str());
                    json.field("Namespace", "");
                });
            });
        }
        if !session.checks.is_empty() {
            json.key("Checks");
            json.array(&session.checks, |json, id| json.string(id.as_str()));
        }
        json.field("CreateIndex", session.create_index.get());
        json.field("ModifyIndex", session.create_index.get());
    });
}

/// `CheckServiceNode` as executions of prepared queries show it: `null` for no checks, and for no
/// tags of a check.
pub fn bare_instance(json: &mut Json, instance: &Instance, place: &Place) {
    json.object(|json| {
        json.key("Node");
        node(json, &instance.node, place);
        json.key("Service");
        node_service(json, &instance.service, place.seen);
        json.key("Checks");
        if instance.checks.is_empty() {
            json.null();
        } else {
            json.array(&instance.checks, |json, check| bare_check(json, check));
        }
    });
}

/// A prepared query.
pub fn prepared_query(json: &mut Json, query: &PreparedQuery) {
    json.object(|json| {
        json.field("ID", &query.id.to_string());
        json.field("Name", &query.name);
        json.field("Session", &query.session.map(|id| id.to_string()).unwrap_or_default());
        json.field("Token", &query.token);
        json.key("Template");
        json.object(|json| {
            let template = query.template.as_ref();
            json.field("Type", template.map_or("", |_| TEMPLATE_TYPE));
            json.field("Regexp", template.map_or("", |template| template.regexp.as_str()));
            let removes = template.is_some_and(|template| template.remove_empty_tags);
            json.field("RemoveEmptyTags", removes);
        });
        json.key("Service");
        selection(json, &query.service);
        json.key("DNS");
        json.object(|json| json.field("TTL", &query.ttl_text));
        json.field("CreateIndex", query.create_index.get());
        json.field("ModifyIndex", query.modify_index.get());
    });
}

fn selection(json: &mut Json, wanted: &Selection) {
    json.object(|json| {
        json.field("Service", &wanted.service);
        json.key("Failover");
        json.object(|json| {
            json.field("NearestN", wanted.nearest);
            json.key("Datacenters");
            strings_or_null(json, &wanted.datacenters);
        });
        json.field("OnlyPassing", wanted.only_passing);
        json.key("IgnoreCheckIDs");
        strings_or_null(json, &wanted.ignored_checks);
        json.field("Near", &wanted.near);
        json.key("Tags");
        strings_or_null(json, &wanted.tags);
        json.key("NodeMeta");
        texts_or_null(json, &wanted.node_meta);
        json.key("ServiceMeta");
        texts_or_null(json, &wanted.service_meta);
        json.field("Connect", false);
    });
}

/// `ServiceNode`: a service flattened with its node; the indexes are the service's.
pub fn service_node(json: &mut Json, node: &Node, service: &Service, place: &Place) {
    json.object(|json| {
        let (id, seen) = (node.id.map(|id| id.to_string()).unwrap_or_default(), place.seen);
        json.field("ID", &id);
        json.field("Node", node.name.as_str());
        json.field("Address", seen.address_of_node(node));
        json.field("Datacenter", place.datacenter.as_str());
        json.key("TaggedAddresses");
        texts_or_null(json, &node.tagged_addresses);
        json.key("NodeMeta");
        texts_or_null(json, &node.meta);
        json.field("ServiceKind", "");
        json.field("ServiceID", service.id.as_str());
        json.field("ServiceName", service.name.as_str());
        json.key("ServiceTags");
        strings(json, &service.tags);
        json.field("ServiceAddress", seen.address_of_service(service));
        addresses_if_set(json, "ServiceTaggedAddresses", &service.tagged_addresses);
        json.key("ServiceWeights");
        weights(json, service.weights);
        json.key("ServiceMeta");
        texts(json, &service.meta);
        json.field("ServicePort", seen.port_of_service(service));
        json.field("ServiceEnableTagOverride", service.enable_tag_override);
        json.key("ServiceProxy");
        json.raw(r#"{"MeshGateway":{},"Expose":{}}"#);
        json.key("ServiceConnect");
        json.raw("{}");
        json.field("CreateIndex", service.create_index.get());
        json.field("ModifyIndex", service.modify_index.get());
    });
}

/// `HealthCheck`.
pub fn health_check(json: &mut Json, check: &Check) {
    check_with(json, check, strings);
}

/// `HealthCheck` as transactions show it: `null` for no tags.
pub fn bare_check(json: &mut Json, check: &Check) {
    check_with(json, check, strings_or_null);
}

fn check_with(json: &mut Json, check: &Check, tags: fn(&mut Json, &[String])) {
    json.object(|json| {
        check_head(json, check);
        json.key("ServiceTags");
        tags(json, &check.service_tags);
        json.field("Type", &check.kind);
        json.key("Definition");
        recipe(json, &check.recipe);
        json.field("CreateIndex", check.create_index.get());
        json.field("ModifyIndex", check.modify_index.get());
    });
}

/// `HealthCheck` as local health shows it: no type, a definition of zeros, `null` for no tags.
pub fn local_health_check(json: &mut Json, check: &Check) {
    json.object(|json| {
        check_head(json, check);
        json.key("ServiceTags");
        strings_or_null(json, &check.service_tags);
        json.field("Type", "");
        json.key("Definition");
        json.raw(concat!(
            r#"{"Interval":"0s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s","HTTP":"","#,
            r#""Header":null,"Method":"","Body":"","TLSSkipVerify":false,"TCP":""}"#
        ));
        json.field("CreateIndex", 0_u64);
        json.field("ModifyIndex", 0_u64);
    });
}

fn check_head(json: &mut Json, check: &Check) {
    json.field("Node", check.node.as_str());
    json.field("CheckID", check.id.as_str());
    json.field("Name", &check.name);
    json.field("Status", check.status.as_str());
    json.field("Notes", &check.notes);
    json.field("Output", &check.output);
    json.field("ServiceID", check.service_id.as_ref().map_or("", |id| id.as_str()));
    json.field("ServiceName", &check.service_name);
}

/// `Definition`: what is set, in Consul's order.
fn recipe(json: &mut Json, recipe: &CheckRecipe) {
    json.object(|json| {
        let duration = |json: &mut Json, name, value: Duration| {
            if !value.is_zero() {
                json.field(name, &go_duration(value));
            }
        };
        duration(json, "Interval", recipe.interval);
        json.field_if_set("OutputMaxSize", recipe.output_max_size);
        duration(json, "Timeout", recipe.timeout);
        let after = recipe.deregister_critical_service_after;
        duration(json, "DeregisterCriticalServiceAfter", after);
        json.field_if_set("HTTP", &recipe.http);
        json.field_if_set("TLSSkipVerify", recipe.tls_skip_verify);
        if !recipe.header.is_empty() {
            json.key("Header");
            map(json, &recipe.header, |json, values| strings(json, values));
        }
        json.field_if_set("Method", &recipe.method);
        json.field_if_set("Body", &recipe.body);
        json.field_if_set("TCP", &recipe.tcp);
        if !recipe.script_args.is_empty() {
            json.key("ScriptArgs");
            strings(json, &recipe.script_args);
        }
        json.field_if_set("DockerContainerID", &recipe.docker_container_id);
        json.field_if_set("Shell", &recipe.shell);
        json.field_if_set("GRPC", &recipe.grpc);
        json.field_if_set("GRPCUseTLS", recipe.grpc_use_tls);
        json.field_if_set("AliasNode", &recipe.alias_node);
        json.field_if_set("AliasService", &recipe.alias_service);
        json.field_if_set("TTL", u64::try_from(recipe.ttl.as_nanos()).unwrap_or(u64::MAX));
    });
}

/// `AgentService`, with `ContentHash` if one is given.
pub fn agent_service(json: &mut Json, service: &Service, hash: &str) {
    json.object(|json| {
        json.field("ID", service.id.as_str());
        json.field("Service", service.name.as_str());
        json.key("Tags");
        strings(json, &service.tags);
        json.key("Meta");
        texts(json, &service.meta);
        json.field("Port", service.port);
        json.field("Address", &service.address);
        addresses_if_set(json, "TaggedAddresses", &service.tagged_addresses);
        json.key("Weights");
        weights(json, service.weights);
        json.field("EnableTagOverride", service.enable_tag_override);
        json.field_if_set("ContentHash", hash);
    });
}

/// `Member`, and how long ago it was alive if it is not.
///
/// Differs: Consul does not tell `GoneSeconds` (cluster-behaviour.md §16, row 1).
pub fn member(json: &mut Json, member: &Member, gone_for: Option<Duration>) {
    json.object(|json| {
        json.field("Name", member.name.as_str());
        json.field("Addr", &member.address.ip().to_string());
        json.field("Port", u64::from(member.address.port()));
        json.key("Tags");
        json.object(|json| {
            for (key, value) in member.tags.iter() {
                json.field(key, value);
            }
        });
        json.field("Status", u64::from(member.status.code()));
        let versions = &member.versions;
        json.field("ProtocolMin", u64::from(versions.protocol_min));
        json.field("ProtocolMax", u64::from(versions.protocol_max));
        json.field("ProtocolCur", u64::from(versions.protocol));
        json.field("DelegateMin", u64::from(versions.delegate_min));
        json.field("DelegateMax", u64::from(versions.delegate_max));
        json.field("DelegateCur", u64::from(versions.delegate));
        if let Some(span) = gone_for {
            json.field("GoneSeconds", span.as_secs());
        }
    });
}

/// `Coord`; all numbers are seconds.
pub fn coordinate(json: &mut Json, at: &Coordinate) {
    json.object(|json| {
        json.key("Vec");
        json.array(at.position(), |json, number| number.write(json));
        json.field("Error", at.error());
        json.field("Adjustment", at.adjustment());
        json.field("Height", at.height());
    });
}

/// An array of strings; `[]` when empty.
pub fn strings(json: &mut Json, items: &[String]) {
    json.array(items, |json, item| json.string(item));
}

fn strings_or_null(json: &mut Json, items: &[String]) {
    if items.is_empty() {
        json.null();
    } else {
        strings(json, items);
    }
}

/// A map, sorted by key.
pub fn map<T>(json: &mut Json, entries: &BTreeMap<String, T>, each: impl Fn(&mut Json, &T)) {
    json.object(|json| {
        for (key, value) in entries {
            json.key(key);
            each(json, value);
        }
    });
}

/// A map of texts; `{}` when empty.
pub fn texts(json: &mut Json, entries: &BTreeMap<String, String>) {
    map(json, entries, |json, text| json.string(text));
}

/// A map of texts; `null` for an empty one.
pub fn texts_or_null(json: &mut Json, entries: &BTreeMap<String, String>) {
    if entries.is_empty() {
        json.null();
    } else {
        texts(json, entries);
    }
}

fn addresses_if_set(json: &mut Json, name: &str, entries: &BTreeMap<String, ServiceAddress>) {
    if entries.is_empty() {
        return;
    }
    json.key(name);
    map(json, entries, |json, address| {
        json.object(|json| {
            json.field("Address", &address.address);
            json.field("Port", address.port);
        });
    });
}

fn weights(json: &mut Json, weights: Weights) {
    json.object(|json| {
        json.field("Passing", weights.passing);
        json.field("Warning", weights.warning);
    });
}

/// A duration as Go prints it: `0s`, `200ms`, `27.29ms`, `10s`, `1m0s`, `24h0m0s`.
pub fn go_duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let (whole, rest) = (value / unit, value % unit);
        let digits = unit.ilog10() as usize;
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => whole.to_string(),
            rest => format!("{whole}.{rest}"),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        1_000_000_000.. => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        let text = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(200_000_000), "200ms");
        assert_eq!(text(27_290_000), "27.29ms");
        assert_eq!(text(1_500), "1.5µs");
        assert_eq!(text(10_000_000_000), "10s");
        assert_eq!(text(60_000_000_000), "1m0s");
        assert_eq!(text(90_500_000_000), "1m30.5s");
        assert_eq!(text(86_400_000_000_000), "24h0m0s");
    }
}
