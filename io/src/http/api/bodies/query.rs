//! Bodies of prepared queries (http-api.md §14).

use super::{read, refuse_unbuilt};
use crate::duration;
use crate::http::decode::{self, DecodeError};
use crate::http::render::TEMPLATE_TYPE;
use crate::http::respond::Reply;
use serde_json::Value;
use std::time::Duration;
use terraform_core::catalog::prepared::{PreparedQuery, Selection, Template};
use terraform_core::id::{ModifyIndex, PreparedQueryId, SessionId};

/// A query as given.
#[derive(Debug, Default)]
struct QueryBody {
    id: String,
    name: String,
    session: String,
    token: String,
    template_type: String,
    template: Template,
    service: Selection,
    nearest: i64,
    ttl: String,
    unbuilt: Option<&'static str>,
}

/// The query that a body asks for, with the identity `id`; one that is to be created must not name
/// another.
pub(in crate::http::api) fn prepared(
    body: &[u8],
    id: PreparedQueryId,
    is_new: bool,
) -> Result<PreparedQuery, Reply> {
    let given = read(body, query)?;
    let refused = |text: String| Reply::text(500, text);
    if is_new && !given.id.is_empty() {
        let text = "ID must be empty when creating a new prepared query";
        return Err(refused(text.to_owned()));
    }
    refuse_unbuilt(given.unbuilt)?;
    let template = match given.template_type.as_str() {
        "" => None,
        TEMPLATE_TYPE => Some(given.template),
        other => {
            return Err(refused(format!("failed compiling template: Bad Template.Type '{other}'")));
        }
    };
    let session = match given.session.as_str() {
        "" => None,
        text => Some(SessionId::parse(text).map_err(|_| {
            refused("invalid session: index error: UUID must be 36 characters".to_owned())
        })?),
    };
    let nearest = u64::try_from(given.nearest).map_err(|_| {
        let nearest = given.nearest;
        refused(format!("Invalid prepared query: Bad NearestN '{nearest}', must be >= 0"))
    })?;
    let query = PreparedQuery {
        id,
        name: given.name,
        session,
        token: given.token,
        template,
        service: Selection { nearest, ..given.service },
        ttl: ttl(&given.ttl)?,
        ttl_text: given.ttl,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    query.check().map_err(|rule| refused(rule.to_string()))?;
    Ok(query)
}

fn ttl(text: &str) -> Result<Option<Duration>, Reply> {
    let refused = |rule: String| Reply::text(500, format!("Invalid prepared query: {rule}"));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let ttl = duration::parse(digits);
    let ttl = ttl.map_err(|error| refused(format!("Bad DNS TTL '{text}': {error}")))?;
    if negative && !ttl.is_zero() {
        return Err(refused(format!("DNS TTL '-{}', must be >=0", ttl.as_nanos())));
    }
    Ok(Some(ttl))
}

fn query(value: &Value) -> Result<QueryBody, DecodeError> {
    let mut body = QueryBody::default();
    decode::each(value, "PreparedQuery", |key, value| {
        match key {
            "id" => body.id = decode::string(value, "ID")?,
            "name" => body.name = decode::string(value, "Name")?,
            "session" => body.session = decode::string(value, "Session")?,
            "token" => body.token = decode::string(value, "Token")?,
            "template" => template(value, &mut body)?,
            "service" => service(value, &mut body)?,
            "dns" => decode::each(value, "DNS", |key, value| {
                let known = key == "ttl";
                if known {
                    body.ttl = decode::string(value, "DNS.TTL")?;
                }
                Ok(known)
            })?,
            // What a query is shown with is taken back.
            "createindex" | "modifyindex" => drop(decode::unsigned(value, "Index")?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}

fn template(value: &Value, body: &mut QueryBody) -> Result<(), DecodeError> {
    decode::each(value, "Template", |key, value| {
        let template = &mut body.template;
        match key {
            "type" => body.template_type = decode::string(value, "Template.Type")?,
            "regexp" => template.regexp = decode::string(value, "Template.Regexp")?,
            "removeemptytags" => {
                template.remove_empty_tags = decode::boolean(value, "Template.RemoveEmptyTags")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn service(value: &Value, body: &mut QueryBody) -> Result<(), DecodeError> {
    decode::each(value, "Service", |key, value| {
        let wanted = &mut body.service;
        match key {
            "service" => wanted.service = decode::string(value, "Service.Service")?,
            "failover" => failover(value, (wanted, &mut body.nearest))?,
            "onlypassing" => wanted.only_passing = decode::boolean(value, "Service.OnlyPassing")?,
            "ignorecheckids" => {
                wanted.ignored_checks =
                    decode::list(value, "Service.IgnoreCheckIDs", decode::string)?;
            }
            "near" => wanted.near = decode::string(value, "Service.Near")?,
            "tags" => wanted.tags = decode::list(value, "Service.Tags", decode::string)?,
            "nodemeta" => {
                wanted.node_meta = decode::map(value, "Service.NodeMeta", decode::string)?
            }
            "servicemeta" => {
                wanted.service_meta = decode::map(value, "Service.ServiceMeta", decode::string)?;
            }
            "connect" => {
                if decode::boolean(value, "Service.Connect")? {
                    body.unbuilt = Some("Service.Connect");
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn failover(
    value: &Value,
    (wanted, nearest): (&mut Selection, &mut i64),
) -> Result<(), DecodeError> {
    decode::each(value, "Service.Failover", |key, value| {
        match key {
            "nearestn" => *nearest = decode::integer(value, "Service.Failover.NearestN")?,
            "datacenters" => {
                wanted.datacenters =
                    decode::list(value, "Service.Failover.Datacenters", decode::string)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}
