//! The body of a service registration on this agent (http-api.md §6.1).

use super::check::{CheckBody, Place, decode_check, is_agent_status};
use super::{is_any_address, read, refuse_unbuilt, service_address, weights};
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use terraform_core::catalog::model::{Service, ServiceAddress, Weights};
use terraform_core::id::{CheckId, ModifyIndex, ServiceId, ServiceName};
use terraform_core::local::definition::{Origin, ServiceDefinition};

/// Pairs of metadata a service may have, and bytes of a key and of a value.
const META_PAIRS_MAX: usize = 64;
const META_KEY_BYTES_MAX: usize = 128;
const META_VALUE_BYTES_MAX: usize = 512;

/// A service as given.
#[derive(Debug, Default)]
struct ServiceBody {
    id: String,
    name: String,
    tags: Vec<String>,
    address: String,
    port: i64,
    tagged_addresses: BTreeMap<String, ServiceAddress>,
    meta: BTreeMap<String, String>,
    weights: Option<Weights>,
    enable_tag_override: bool,
    check: Option<CheckBody>,
    checks: Vec<CheckBody>,
    token: String,
    unbuilt: Option<&'static str>,
}

/// The body of `service/register`.
pub(in crate::http::api) fn definition(body: &[u8]) -> Result<ServiceDefinition, Reply> {
    let body = read(body, decode_service)?;
    let bad = |text: String| Reply::text(400, text);
    if body.name.is_empty() {
        return Err(bad("Missing service name".to_owned()));
    }
    if is_any_address(&body.address) {
        return Err(bad("Invalid service address".to_owned()));
    }
    refuse_unbuilt(body.unbuilt)?;
    let name = ServiceName::parse(&body.name).map_err(|error| bad(error.to_string()))?;
    let id = if body.id.is_empty() { &body.name } else { &body.id };
    let id = ServiceId::parse(id).map_err(|error| bad(error.to_string()))?;
    let given = body.check.into_iter().chain(body.checks).collect();
    let checks = service_checks(given, &id, &name)?;
    if let Some(weights) = body.weights {
        let rule = |rule| bad(format!("Invalid Weights: {rule}"));
        check_weights(weights).map_err(rule)?;
    }
    check_meta(&body.meta).map_err(|rule| bad(format!("Invalid Service Meta: {rule}")))?;
    check_tagged_addresses(&body.tagged_addresses).map_err(|text| Reply::text(500, text))?;
    let mut tagged_addresses = body.tagged_addresses;
    add_own_address(&mut tagged_addresses, &body.address, body.port);
    let service = Service {
        id,
        name,
        tags: body.tags,
        address: body.address,
        tagged_addresses,
        meta: body.meta,
        port: body.port,
        weights: body.weights.unwrap_or_default(),
        enable_tag_override: body.enable_tag_override,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    Ok(ServiceDefinition { service, checks, token: body.token, origin: Origin::Api })
}

fn decode_service(value: &Value) -> Result<ServiceBody, DecodeError> {
    let mut body = ServiceBody::default();
    let check = |value: &Value| decode_check(value, Place::InService);
    decode::each(value, "Service", |key, value| {
        match key {
            "id" => body.id = decode::string(value, "ID")?,
            "name" => body.name = decode::string(value, "Name")?,
            "tags" => body.tags = decode::list(value, "Tags", decode::string)?,
            "address" => body.address = decode::string(value, "Address")?,
            "port" => body.port = decode::integer(value, "Port")?,
            "taggedaddresses" | "tagged_addresses" => {
                let field = "TaggedAddresses";
                body.tagged_addresses = decode::map(value, field, service_address)?;
            }
            "meta" => body.meta = decode::map(value, "Meta", decode::string)?,
            "weights" => body.weights = weights(value)?,
            "enabletagoverride" | "enable_tag_override" => {
                body.enable_tag_override = decode::boolean(value, "EnableTagOverride")?;
            }
            "check" => {
                let given = check(value)?;
                body.check = (!decode::is_zero(value)).then_some(given);
            }
            "checks" => body.checks = decode::list(value, "Checks", |item, _| check(item))?,
            "token" => body.token = decode::string(value, "Token")?,
            "kind" | "proxy" | "connect" => {
                let field = match key {
                    "kind" => "Kind",
                    "proxy" => "Proxy",
                    _ => "Connect",
                };
                if !decode::is_zero(value) {
                    body.unbuilt = Some(field);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}

/// The checks with their default identities and names.
fn service_checks(
    given: Vec<CheckBody>,
    service: &ServiceId,
    name: &ServiceName,
) -> Result<Vec<terraform_core::local::definition::CheckDefinition>, Reply> {
    let count = given.len();
    let mut checks = Vec::with_capacity(count);
    for (at, check) in given.into_iter().enumerate() {
        if !is_agent_status(&check.status) {
            let text = "Status for checks must 'passing', 'warning', 'critical'";
            return Err(Reply::text(400, text));
        }
        let id = match (check.id.as_str(), count) {
            ("", 1) => format!("service:{service}"),
            ("", _) => format!("service:{service}:{}", at + 1),
            (id, _) => id.to_owned(),
        };
        let id = CheckId::parse(&id).map_err(|error| Reply::text(400, error.to_string()))?;
        let name = match check.name.as_str() {
            "" => format!("Service '{name}' check"),
            name => name.to_owned(),
        };
        checks.push(check.define(id, name, Some(service.clone()))?);
    }
    Ok(checks)
}

fn check_weights(weights: Weights) -> Result<(), &'static str> {
    if weights.passing < 1 {
        return Err("Passing must be greater than 0");
    }
    if weights.warning < 0 {
        return Err("Warning must be greater or equal than 0");
    }
    if !weights.is_legal() {
        return Err("DNS Weight must be between 0 and 65535");
    }
    Ok(())
}

fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err("Node metadata cannot contain more than 64 key/value pairs".to_owned());
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    for (key, value) in meta {
        let rule = if key.is_empty() {
            "Key cannot be blank"
        } else if !key.chars().all(legal) {
            "Key contains invalid characters"
        } else if key.len() > META_KEY_BYTES_MAX {
            "Key is too long (limit: 128 characters)"
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use"
        } else if value.len() > META_VALUE_BYTES_MAX {
            "Value is too long (limit: 512 characters)"
        } else {
            continue;
        };
        return Err(format!("Couldn't load metadata pair ('{key}', '{value}'): {rule}"));
    }
    Ok(())
}

fn check_tagged_addresses(tagged: &BTreeMap<String, ServiceAddress>) -> Result<(), String> {
    for (tag, given) in tagged {
        let ip = given.address.parse::<IpAddr>().ok();
        let family = match tag.as_str() {
            "lan_ipv4" | "wan_ipv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => "ipv4",
            "lan_ipv6" | "wan_ipv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => "ipv6",
            _ => continue,
        };
        return Err(format!("Service tagged address {tag:?} must be a valid {family} address"));
    }
    Ok(())
}

/// A service whose address is an IP literal has it under its family's tags too.
fn add_own_address(tagged: &mut BTreeMap<String, ServiceAddress>, address: &str, port: i64) {
    let Ok(ip) = address.parse::<IpAddr>() else { return };
    let tags = if ip.is_ipv4() { ["lan_ipv4", "wan_ipv4"] } else { ["lan_ipv6", "wan_ipv6"] };
    for tag in tags {
        let own = ServiceAddress { address: address.to_owned(), port };
        tagged.entry(tag.to_owned()).or_insert(own);
    }
}
