//! Bodies of catalog registrations and deregistrations (http-api.md §7.1, §7.2).
//!
//! Rules broken here are 500, as the servers' own validation is (http-api.md §21).

use super::{is_any_address, read, service_address, weights};
use crate::http::api::options::foreign;
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use std::collections::BTreeMap;
use terraform_core::catalog::command::{Deregistration, Registration};
use terraform_core::catalog::model::{
    Check, CheckRecipe, CheckStatus, Node, Service, ServiceAddress, Weights,
};
use terraform_core::id::{
    CheckId, Datacenter, ModifyIndex, NameError, NodeId, NodeName, ServiceId, ServiceName,
};

/// A registration as given.
#[derive(Debug, Default)]
struct RegisterBody {
    datacenter: String,
    id: String,
    node: String,
    address: String,
    tagged_addresses: BTreeMap<String, String>,
    node_meta: BTreeMap<String, String>,
    skip_node_update: bool,
    service: Option<ServiceBody>,
    check: Option<CheckBody>,
    checks: Vec<CheckBody>,
}

#[derive(Debug, Default)]
pub(super) struct ServiceBody {
    id: String,
    name: String,
    tags: Vec<String>,
    address: String,
    tagged_addresses: BTreeMap<String, ServiceAddress>,
    meta: BTreeMap<String, String>,
    port: i64,
    weights: Option<Weights>,
    enable_tag_override: bool,
    modify_index: u64,
    unbuilt: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct CheckBody {
    node: String,
    id: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    service_id: String,
    kind: String,
    recipe: CheckRecipe,
    modify_index: u64,
}

/// Why a row cannot be stored.
pub(super) enum Refusal {
    /// It breaks this rule.
    Rule(String),
    /// This field of a feature that is not built says something.
    NotBuilt(&'static str),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rule(rule) => Self::text(500, rule),
            Refusal::NotBuilt(field) => Self::not_built(&format!("the field \"{field}\"")),
        }
    }
}

/// The body of `catalog/register`, and the other datacenter that it names.
pub(in crate::http::api) fn registration(
    body: &[u8],
    own: &Datacenter,
) -> Result<(Option<Datacenter>, Registration), Reply> {
    let body = read(body, decode_registration)?;
    let datacenter = foreign(&body.datacenter, own)?;
    let name = node_name(&body.node)?;
    if body.address.is_empty() && !body.skip_node_update {
        return Err(broken("Must provide address if SkipNodeUpdate is not set").into());
    }
    let id = node_id(&body.id)?;
    let service = body.service.map(ServiceBody::define).transpose()?;
    let given = body.checks.into_iter().chain(body.check);
    let checks = given.map(|check| check.define(Some(&name))).collect::<Result<_, _>>()?;
    let node = Node {
        id,
        name,
        address: body.address,
        tagged_addresses: body.tagged_addresses,
        meta: body.node_meta,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let skip_node_update = body.skip_node_update;
    Ok((datacenter, Registration { node, skip_node_update, service, checks }))
}

/// The body of `catalog/deregister`, and the other datacenter that it names.
pub(in crate::http::api) fn deregistration(
    body: &[u8],
    own: &Datacenter,
) -> Result<(Option<Datacenter>, Deregistration), Reply> {
    let [mut datacenter, mut node, mut service, mut check] = [const { String::new() }; 4];
    read(body, |value| {
        decode::each(value, "Deregister", |key, value| {
            match key {
                "datacenter" => datacenter = decode::string(value, "Datacenter")?,
                "node" => node = decode::string(value, "Node")?,
                "serviceid" => service = decode::string(value, "ServiceID")?,
                "checkid" => check = decode::string(value, "CheckID")?,
                // Accepted and without meaning (http-api.md §7.2); the token is the request's.
                "address" | "token" => drop(decode::string(value, "Address")?),
                _ => return Ok(false),
            }
            Ok(true)
        })
    })?;
    let datacenter = foreign(&datacenter, own)?;
    let node = node_name(&node)?;
    let service = optional(&service, ServiceId::parse)?;
    let check = optional(&check, CheckId::parse)?;
    Ok((datacenter, Deregistration { node, service, check }))
}

fn decode_registration(value: &Value) -> Result<RegisterBody, DecodeError> {
    let mut body = RegisterBody::default();
    decode::each(value, "Register", |key, value| {
        match key {
            "datacenter" => body.datacenter = decode::string(value, "Datacenter")?,
            "id" => body.id = decode::string(value, "ID")?,
            "node" => body.node = decode::string(value, "Node")?,
            "address" => body.address = decode::string(value, "Address")?,
            "taggedaddresses" => {
                body.tagged_addresses = decode::map(value, "TaggedAddresses", decode::string)?;
            }
            "nodemeta" => body.node_meta = decode::map(value, "NodeMeta", decode::string)?,
            "skipnodeupdate" => {
                body.skip_node_update = decode::boolean(value, "SkipNodeUpdate")?;
            }
            "service" => body.service = present(value, decode_service)?,
            "check" => body.check = present(value, decode_check)?,
            "checks" => {
                body.checks = decode::list(value, "Checks", |item, _| decode_check(item))?;
            }
            // The request's own token comes from its headers.
            "token" => drop(decode::string(value, "Token")?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}

pub(super) fn decode_service(value: &Value) -> Result<ServiceBody, DecodeError> {
    let mut body = ServiceBody::default();
    decode::each(value, "Service", |key, value| {
        match key {
            "id" => body.id = decode::string(value, "ID")?,
            "service" => body.name = decode::string(value, "Service")?,
            "tags" => body.tags = decode::list(value, "Tags", decode::string)?,
            "address" => body.address = decode::string(value, "Address")?,
            "taggedaddresses" => {
                let field = "TaggedAddresses";
                body.tagged_addresses = decode::map(value, field, service_address)?;
            }
            "meta" => body.meta = decode::map(value, "Meta", decode::string)?,
            "port" => body.port = decode::integer(value, "Port")?,
            "weights" => body.weights = weights(value)?,
            "enabletagoverride" => {
                body.enable_tag_override = decode::boolean(value, "EnableTagOverride")?;
            }
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
            // Indexes are the catalog's to give; conditions of transactions compare them.
            "createindex" => drop(decode::unsigned(value, "CreateIndex")?),
            "modifyindex" => body.modify_index = decode::unsigned(value, "ModifyIndex")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}

pub(super) fn decode_check(value: &Value) -> Result<CheckBody, DecodeError> {
    let mut body = CheckBody::default();
    decode::each(value, "Check", |key, value| {
        match key {
            "node" => body.node = decode::string(value, "Node")?,
            "checkid" => body.id = decode::string(value, "CheckID")?,
            "name" => body.name = decode::string(value, "Name")?,
            "status" => body.status = decode::string(value, "Status")?,
            "notes" => body.notes = decode::string(value, "Notes")?,
            "output" => body.output = decode::string(value, "Output")?,
            "serviceid" => body.service_id = decode::string(value, "ServiceID")?,
            "type" => body.kind = decode::string(value, "Type")?,
            "definition" => body.recipe = decode_recipe(value)?,
            // The catalog fills these in from the service and the log.
            "servicename" => drop(decode::string(value, "ServiceName")?),
            "servicetags" => drop(decode::list(value, "ServiceTags", decode::string)?),
            "createindex" => drop(decode::unsigned(value, "CreateIndex")?),
            "modifyindex" => body.modify_index = decode::unsigned(value, "ModifyIndex")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}

fn decode_recipe(value: &Value) -> Result<CheckRecipe, DecodeError> {
    let mut recipe = CheckRecipe::default();
    let strings = |value: &Value, field| decode::list(value, field, decode::string);
    decode::each(value, "Definition", |key, value| {
        match key {
            "interval" => recipe.interval = decode::duration(value, "Interval")?,
            "timeout" => recipe.timeout = decode::duration(value, "Timeout")?,
            "ttl" => recipe.ttl = decode::duration(value, "TTL")?,
            "deregistercriticalserviceafter" => {
                recipe.deregister_critical_service_after =
                    decode::duration(value, "DeregisterCriticalServiceAfter")?;
            }
            "outputmaxsize" => {
                let size = decode::integer(value, "OutputMaxSize")?;
                recipe.output_max_size = u64::try_from(size).unwrap_or(0);
            }
            "http" => recipe.http = decode::string(value, "HTTP")?,
            "tlsskipverify" => recipe.tls_skip_verify = decode::boolean(value, "TLSSkipVerify")?,
            "header" => recipe.header = decode::map(value, "Header", strings)?,
            "method" => recipe.method = decode::string(value, "Method")?,
            "body" => recipe.body = decode::string(value, "Body")?,
            "tcp" => recipe.tcp = decode::string(value, "TCP")?,
            "scriptargs" => recipe.script_args = strings(value, "ScriptArgs")?,
            "dockercontainerid" => {
                recipe.docker_container_id = decode::string(value, "DockerContainerID")?;
            }
            "shell" => recipe.shell = decode::string(value, "Shell")?,
            "grpc" => recipe.grpc = decode::string(value, "GRPC")?,
            "grpcusetls" => recipe.grpc_use_tls = decode::boolean(value, "GRPCUseTLS")?,
            "aliasnode" => recipe.alias_node = decode::string(value, "AliasNode")?,
            "aliasservice" => recipe.alias_service = decode::string(value, "AliasService")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(recipe)
}

impl ServiceBody {
    /// The id that is given, and the index.
    pub(super) fn key(&self) -> (&str, ModifyIndex) {
        let id = if self.id.is_empty() { &self.name } else { &self.id };
        (id, ModifyIndex::new(self.modify_index))
    }

    pub(super) fn define(self) -> Result<Service, Refusal> {
        if self.name.is_empty() {
            let with_id = !self.id.is_empty();
            let rule = "Must provide service name with ID";
            return Err(broken(if with_id { rule } else { "Must provide service name" }));
        }
        if is_any_address(&self.address) {
            return Err(broken("Invalid service address"));
        }
        if let Some(field) = self.unbuilt {
            return Err(Refusal::NotBuilt(field));
        }
        let id = if self.id.is_empty() { &self.name } else { &self.id };
        Ok(Service {
            id: ServiceId::parse(id).map_err(|error| broken(error.to_string()))?,
            name: ServiceName::parse(&self.name).map_err(|error| broken(error.to_string()))?,
            tags: self.tags,
            address: self.address,
            tagged_addresses: self.tagged_addresses,
            meta: self.meta,
            port: self.port,
            weights: self.weights.filter(|it| it.is_legal()).unwrap_or_default(),
            enable_tag_override: self.enable_tag_override,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        })
    }
}

impl CheckBody {
    /// The node that is given, the id and the index.
    pub(super) fn key(&self) -> (&str, &str, ModifyIndex) {
        let id = if self.id.is_empty() { &self.name } else { &self.id };
        (&self.node, id, ModifyIndex::new(self.modify_index))
    }

    /// The check, on `node` unless it names its own.
    pub(super) fn define(self, node: Option<&NodeName>) -> Result<Check, Refusal> {
        let id = if self.id.is_empty() { &self.name } else { &self.id };
        if id.is_empty() {
            let rule = "object missing primary index on node";
            let node = node.map_or(self.node.as_str(), |node| node.as_str());
            let text = format!("failed inserting check: failed inserting check: {rule} {node:?}");
            return Err(broken(text));
        }
        let owner = match node {
            Some(node) if self.node.is_empty() => node.clone(),
            Some(_) | None => node_name(&self.node)?,
        };
        let kind = if self.kind.is_empty() { self.recipe.kind().to_owned() } else { self.kind };
        let status = match self.status.as_str() {
            "" => CheckStatus::Critical,
            status => CheckStatus::from_text(status),
        };
        Ok(Check {
            node: owner,
            id: CheckId::parse(id).map_err(|error| broken(error.to_string()))?,
            name: self.name,
            status,
            notes: self.notes,
            output: self.output,
            service_id: optional(&self.service_id, ServiceId::parse)?,
            service_name: String::new(),
            service_tags: Vec::new(),
            kind,
            recipe: self.recipe,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        })
    }
}

/// A nested object, unless it is `null`.
fn present<T>(
    value: &Value,
    decode: impl Fn(&Value) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if value.is_null() { Ok(None) } else { decode(value).map(Some) }
}

/// The identity of a node, if one is given.
pub(super) fn node_id(text: &str) -> Result<Option<NodeId>, Refusal> {
    match text {
        "" => Ok(None),
        text if text.len() != 36 => Err(broken("Bad node ID: uuid string is wrong length")),
        text => {
            let bad = |_| broken("Bad node ID: uuid is improperly formatted");
            NodeId::parse(text).map(Some).map_err(bad)
        }
    }
}

pub(super) fn node_name(text: &str) -> Result<NodeName, Refusal> {
    if text.is_empty() {
        return Err(broken("Must provide node"));
    }
    NodeName::parse(text).map_err(|error| broken(error.to_string()))
}

fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, NameError>,
) -> Result<Option<T>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| broken(error.to_string()))
}

fn broken(rule: impl Into<String>) -> Refusal {
    Refusal::Rule(rule.into())
}
