//! Services and checks defined in configuration files (agent-config.md §6).
//!
//! Keys are snake_case here, unlike the HTTP interface. Defaults and validation are those of the
//! HTTP interface where both have a rule (http-api.md §5.1, §6.1).

use super::keys::mismatch;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::catalog::model::{CheckStatus, Service, ServiceAddress, Weights};
use terraform_core::id::{CheckId, ModifyIndex, ServiceId, ServiceName};
use terraform_core::local::definition::{
    CheckDefinition, CheckSource, DEREGISTER_AFTER_MIN, Origin, ServiceDefinition,
};

/// Why a definition was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// A key nobody knows.
    UnknownKey(String),
    /// A value of the wrong type.
    Type {
        /// The key.
        key: String,
        /// What belongs there, and what was found.
        text: String,
    },
    /// A rule is broken; the text names it.
    Rule(String),
}

impl Problem {
    /// The problem as the one holding `outer` sees it: keys are dotted paths.
    pub(super) fn inside(self, outer: &str) -> Self {
        match self {
            Self::UnknownKey(key) => Self::UnknownKey(path(outer, &key)),
            Self::Type { key, text } => Self::Type { key: path(outer, &key), text },
            Self::Rule(rule) => Self::Rule(rule),
        }
    }
}

/// The dotted path of `key` in `outer`; a problem of `outer` itself has no key in it.
pub(super) fn path(outer: &str, key: &str) -> String {
    if key.is_empty() { outer.to_owned() } else { format!("{outer}.{key}") }
}

/// Why a duration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DurationProblem {
    /// Neither text nor a number.
    Type,
    /// Text that is no duration.
    Text(String),
}

/// Reads a duration: Go's text form, or a number of nanoseconds.
pub(super) fn duration(value: &Value) -> Result<Duration, DurationProblem> {
    if let Some(nanos) = value.as_u64() {
        return Ok(Duration::from_nanos(nanos));
    }
    let text = value.as_str().ok_or(DurationProblem::Type)?;
    terraform_io::duration::parse(text).map_err(|error| DurationProblem::Text(error.to_string()))
}

/// The entries of one definition, taken key by key so that leftovers are found.
pub(super) struct Fields<'a> {
    entries: BTreeMap<String, &'a Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, Problem> {
        let Value::Object(object) = value else {
            return Err(mistyped("", "map", value));
        };
        Ok(Self { entries: super::file::folded(object) })
    }

    pub(super) fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<String, Problem> {
        let Some(value) = self.take(key) else { return Ok(String::new()) };
        value.as_str().map(str::to_owned).ok_or_else(|| mistyped(key, "string", value))
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<bool, Problem> {
        let Some(value) = self.take(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| mistyped(key, "bool", value))
    }

    fn integer(&mut self, key: &str) -> Result<i64, Problem> {
        let Some(value) = self.take(key) else { return Ok(0) };
        value.as_i64().ok_or_else(|| mistyped(key, "int", value))
    }

    fn count(&mut self, key: &str) -> Result<u32, Problem> {
        let number = self.integer(key)?;
        let rule = || Problem::Rule(format!("{key} cannot be {number}: it must be 0 to 1000000"));
        u32::try_from(number).ok().filter(|n| *n <= 1_000_000).ok_or_else(rule)
    }

    pub(super) fn duration(&mut self, key: &str) -> Result<Duration, Problem> {
        let Some(value) = self.take(key) else { return Ok(Duration::ZERO) };
        duration(value).map_err(|problem| match problem {
            DurationProblem::Type => mistyped(key, "string", value),
            DurationProblem::Text(error) => {
                let text = value.as_str().unwrap_or_default();
                Problem::Rule(format!("{key}: invalid duration: \"{text}\": {error}"))
            }
        })
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>, Problem> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        text_list(key, value)
    }

    fn text_map(&mut self, key: &str) -> Result<BTreeMap<String, String>, Problem> {
        let Some(value) = self.take(key) else { return Ok(BTreeMap::new()) };
        let Value::Object(object) = value else { return Err(mistyped(key, "map", value)) };
        let text = |name: &String, value: &Value| match value.as_str() {
            Some(text) => Ok((name.clone(), text.to_owned())),
            None => Err(mistyped(&format!("{key}.{name}"), "string", value)),
        };
        object.iter().map(|(name, value)| text(name, value)).collect()
    }

    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.entries.into_iter().find(|(_, value)| !value.is_null()) {
            Some((key, _)) => Err(Problem::UnknownKey(key)),
            None => Ok(()),
        }
    }
}

pub(super) fn mistyped(key: &str, expected: &str, value: &Value) -> Problem {
    Problem::Type { key: key.to_owned(), text: mismatch(expected, value) }
}

pub(super) fn text_list(key: &str, value: &Value) -> Result<Vec<String>, Problem> {
    let Value::Array(values) = value else { return Err(mistyped(key, "list", value)) };
    let text = |value: &Value| match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(mistyped(key, "string", value)),
    };
    values.iter().map(text).collect()
}

/// Reads one service definition with its checks.
pub(super) fn service(value: &Value) -> Result<ServiceDefinition, Problem> {
    let mut fields = Fields::of(value)?;
    let name = fields.text("name")?;
    if name.is_empty() {
        return Err(Problem::Rule("Service name missing".to_owned()));
    }
    let id = fields.text("id")?;
    let id = if id.is_empty() { name.clone() } else { id };
    let service = Service {
        id: ServiceId::parse(&id).map_err(rule)?,
        name: ServiceName::parse(&name).map_err(rule)?,
        tags: fields.texts("tags")?,
        address: fields.text("address")?,
        tagged_addresses: tagged_addresses(&mut fields)?,
        meta: fields.text_map("meta")?,
        port: fields.integer("port")?,
        weights: weights(&mut fields, &name)?,
        enable_tag_override: fields.boolean("enable_tag_override")?,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let token = fields.text("token")?;
    for mesh in ["kind", "proxy", "connect"] {
        if fields.take(mesh).is_some() {
            return Err(Problem::Rule(format!("{mesh}: the service mesh is not built")));
        }
    }
    let mut sources: Vec<_> =
        fields.take("check").map(|value| ("check", value)).into_iter().collect();
    match fields.take("checks") {
        Some(Value::Array(values)) => sources.extend(values.iter().map(|value| ("checks", value))),
        Some(other) => return Err(mistyped("checks", "list", other)),
        None => {}
    }
    fields.finish()?;
    let checks = service_checks(&service, &sources)?;
    Ok(ServiceDefinition { service, checks, token, origin: Origin::File })
}

/// The checks of one service: a single one is `service:ID`, several are numbered from 1.
fn service_checks(
    service: &Service,
    values: &[(&str, &Value)],
) -> Result<Vec<CheckDefinition>, Problem> {
    let mut checks = Vec::with_capacity(values.len());
    for (index, (key, value)) in values.iter().enumerate() {
        let default_id = match values.len() {
            1 => format!("service:{}", service.id),
            _ => format!("service:{}:{}", service.id, index + 1),
        };
        let default_name = format!("Service '{}' check", service.name);
        let check = check(value, &default_id, &default_name);
        let mut check = check.map_err(|problem| problem.inside(key))?;
        check.service_id = Some(service.id.clone());
        checks.push(check);
    }
    Ok(checks)
}

/// Reads one check of the node, or of the local service that its `service_id` names.
pub(super) fn node_check(value: &Value) -> Result<CheckDefinition, Problem> {
    let name = Fields::of(value)?.text("name")?;
    if name.is_empty() {
        return Err(Problem::Rule("Check name missing".to_owned()));
    }
    check(value, &name, &name)
}

fn check(value: &Value, default_id: &str, default_name: &str) -> Result<CheckDefinition, Problem> {
    let mut fields = Fields::of(value)?;
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let id = or(fields.text("id")?, default_id);
    let name = or(fields.text("name")?, default_name);
    let service_id = fields.text("service_id")?;
    let service_id = (!service_id.is_empty()).then(|| ServiceId::parse(&service_id));
    let status = or(fields.text("status")?, "critical");
    let output_max_size = fields.integer("output_max_size")?;
    let reap_after = fields.duration("deregister_critical_service_after")?;
    let definition = CheckDefinition {
        id: CheckId::parse(&id).map_err(rule)?,
        name,
        notes: fields.text("notes")?,
        service_id: service_id.transpose().map_err(rule)?,
        status: status_from(&status)?,
        output_max_size: output_limit(output_max_size)?,
        success_before_passing: fields.count("success_before_passing")?,
        failures_before_critical: fields.count("failures_before_critical")?,
        deregister_critical_service_after: (!reap_after.is_zero())
            .then(|| reap_after.max(DEREGISTER_AFTER_MIN)),
        token: fields.text("token")?,
        origin: Origin::File,
        kind: source(&mut fields)?.kind().map_err(rule)?,
    };
    fields.finish()?;
    Ok(definition)
}

fn source(fields: &mut Fields<'_>) -> Result<CheckSource, Problem> {
    let header = match fields.take("header") {
        None => BTreeMap::new(),
        Some(Value::Object(object)) => {
            let values = |(name, value): (&String, &Value)| {
                Ok((name.clone(), text_list(&format!("header.{name}"), value)?))
            };
            object.iter().map(values).collect::<Result<_, Problem>>()?
        }
        Some(other) => return Err(mistyped("header", "map", other)),
    };
    // Without effect: no shell runs arguments.
    let _ = fields.text("shell")?;
    Ok(CheckSource {
        http: fields.text("http")?,
        method: fields.text("method")?,
        header,
        body: fields.text("body")?,
        tcp: fields.text("tcp")?,
        udp: fields.text("udp")?,
        args: fields.texts("args")?,
        docker_container_id: fields.text("docker_container_id")?,
        grpc: fields.text("grpc")?,
        grpc_use_tls: fields.boolean("grpc_use_tls")?,
        tls_skip_verify: fields.boolean("tls_skip_verify")?,
        alias_node: fields.text("alias_node")?,
        alias_service: fields.text("alias_service")?,
        ttl: fields.duration("ttl")?,
        interval: fields.duration("interval")?,
        timeout: fields.duration("timeout")?,
    })
}

fn status_from(text: &str) -> Result<CheckStatus, Problem> {
    match CheckStatus::from_text(text) {
        CheckStatus::Other(_) => {
            let allowed = "'passing', 'warning', 'critical'";
            Err(Problem::Rule(format!("status cannot be {text:?}: use {allowed}")))
        }
        status @ (CheckStatus::Passing | CheckStatus::Warning | CheckStatus::Critical) => {
            Ok(status)
        }
    }
}

fn output_limit(given: i64) -> Result<usize, Problem> {
    let rule = || Problem::Rule("output_max_size: MaxOutputMaxSize must be positive".to_owned());
    usize::try_from(given).map_err(|_| rule())
}

fn weights(fields: &mut Fields<'_>, service: &str) -> Result<Weights, Problem> {
    let Some(value) = fields.take("weights") else { return Ok(Weights::default()) };
    let numbers = |mut inner: Fields<'_>| {
        let weights =
            Weights { passing: inner.integer("passing")?, warning: inner.integer("warning")? };
        inner.finish().map(|()| weights)
    };
    let weights = Fields::of(value).and_then(numbers).map_err(|p| p.inside("weights"))?;
    let refused = |rule: &str| {
        Err(Problem::Rule(format!("Invalid weight definition for service {service}: {rule}")))
    };
    if weights.passing <= 0 {
        return refused("Passing must be greater than 0");
    }
    if weights.warning < 0 {
        return refused("Warning must be greater or equal than 0");
    }
    if weights.passing > 65_535 || weights.warning > 65_535 {
        return refused("DNS Weight must be between 0 and 65535");
    }
    Ok(weights)
}

fn tagged_addresses(fields: &mut Fields<'_>) -> Result<BTreeMap<String, ServiceAddress>, Problem> {
    let key = "tagged_addresses";
    let Some(value) = fields.take(key) else { return Ok(BTreeMap::new()) };
    let Value::Object(object) = value else { return Err(mistyped(key, "map", value)) };
    let mut addresses = BTreeMap::new();
    let address = |mut inner: Fields<'_>| {
        let address =
            ServiceAddress { address: inner.text("address")?, port: inner.integer("port")? };
        inner.finish().map(|()| address)
    };
    for (tag, value) in object {
        let address = Fields::of(value).and_then(address);
        addresses.insert(tag.clone(), address.map_err(|p| p.inside(&path(key, tag)))?);
    }
    Ok(addresses)
}

pub(super) fn rule(error: impl ToString) -> Problem {
    Problem::Rule(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use terraform_core::local::definition::CheckKind;

    #[test]
    fn a_service_with_one_check_names_it_after_itself() {
        let value =
            json!({"name": "web", "port": 80, "check": {"tcp": "127.0.0.1:80", "interval": "5s"}});
        let definition = service(&value).unwrap();
        assert_eq!(definition.service.id.as_str(), "web");
        assert_eq!(definition.checks[0].id.as_str(), "service:web");
        assert_eq!(definition.checks[0].name, "Service 'web' check");
        assert!(matches!(definition.checks[0].kind, CheckKind::Tcp(_)));
    }

    #[test]
    fn several_checks_are_numbered_from_one() {
        let value = json!({"name": "web", "checks": [{"ttl": "5s"}, {"ttl": "6s"}]});
        let ids: Vec<_> =
            service(&value).unwrap().checks.iter().map(|check| check.id.to_string()).collect();
        assert_eq!(ids, ["service:web:1", "service:web:2"]);
    }

    #[test]
    fn a_check_takes_every_key_of_its_kind() {
        let value = json!({
            "id": "c", "name": "n", "service_id": "web", "notes": "why", "status": "passing",
            "udp": "127.0.0.1:53", "interval": "10ms", "timeout": "3s",
            "success_before_passing": 2, "failures_before_critical": 3, "output_max_size": 10,
            "deregister_critical_service_after": "5s",
        });
        let check = node_check(&value).unwrap();
        assert_eq!((check.success_before_passing, check.failures_before_critical), (2, 3));
        assert_eq!((check.status, check.output_max_size), (CheckStatus::Passing, 10));
        assert_eq!(check.deregister_critical_service_after, Some(Duration::from_secs(60)));
        let CheckKind::Udp(udp) = check.kind else { panic!() };
        assert_eq!((udp.interval, udp.timeout), (Duration::from_secs(1), Duration::from_secs(3)));

        let value = json!({
            "name": "web", "enable_tag_override": true,
            "check": {"alias_node": "n2", "alias_service": "db", "output_max_size": 9999},
        });
        let definition = service(&value).unwrap();
        assert!(definition.service.enable_tag_override);
        assert_eq!(definition.checks[0].output_max_size, 9999, "the agent has its own limit");
        let CheckKind::Alias(alias) = &definition.checks[0].kind else { panic!() };
        assert_eq!(alias.node.as_ref().map(|name| name.as_str()), Some("n2"));
        assert_eq!(alias.service.as_ref().map(|id| id.as_str()), Some("db"));
    }

    #[test]
    fn a_definition_is_refused_with_the_rule_it_breaks() {
        let refused = |value| service(&value).unwrap_err();
        assert_eq!(refused(json!({})), Problem::Rule("Service name missing".to_owned()));
        assert_eq!(
            refused(json!({"name": "w", "prot": 1})),
            Problem::UnknownKey("prot".to_owned())
        );
        let both = json!({"name": "w", "check": {"ttl": "5s", "interval": "5s"}});
        let rule = "Interval and TTL cannot both be specified".to_owned();
        assert_eq!(refused(both), Problem::Rule(rule));
        let zero = json!({"name": "w", "weights": {"warning": 1}});
        let rule = "Invalid weight definition for service w: Passing must be greater than 0";
        assert_eq!(refused(zero), Problem::Rule(rule.to_owned()));
    }
}
