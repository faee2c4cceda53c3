//! `/v1/operator`: the keys that encrypt gossip.
//!
//! Source: http-api.md §16. Each pool of gossip has a keyring on every member of it; an operation
//! is done with the WAN pool and the LAN pools of all datacenters, the own one first, one after
//! the other, and fails if it failed on one.

use super::*;
use crate::http::decode;
use crate::http::json::Json;
use std::collections::BTreeMap;
use terraform_core::id::PoolName;
use terraform_core::node::request::{KeyringRequest, multi_error};
use terraform_core::serf::{KeyOperation, KeyReport, RELAY_FACTOR_MAX, SerfReply};
use terraform_core::wire::base64;

impl Api {
    pub(super) async fn operator_keyring(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::local(request);
        let relay_factor = relay_factor(request.params.get("relay-factor"))?;
        let (operation, local_only) = self.key_operation(request)?;
        if !self.settings.facts.server {
            return Err(Reply::text(500, "keyring operations must run against a server node"));
        }
        let lists = operation == KeyOperation::List;
        let (mut reports, mut errors) = (Vec::new(), Vec::new());
        for (pool, datacenter) in self.keyrings(local_only) {
            let keys = KeyringRequest { pool, operation: operation.clone(), relay_factor };
            let elsewhere = Some(datacenter.clone()).filter(|it| *it != self.datacenter);
            let context = RequestContext { datacenter: elsewhere, ..context.clone() };
            let label = label(pool, &datacenter);
            match self.node.request(Request { context, body: RequestBody::Keys(keys) }).await {
                Ok(Response::Serf(SerfReply::Keys(report))) => {
                    failures(&label, &report, &mut errors);
                    reports.push((pool, datacenter, report));
                }
                Ok(other) => errors.push(format!("{label} error: answered with {other:?}")),
                Err(error) => errors.push(format!("{label} error: {error}")),
            }
        }
        if !errors.is_empty() {
            return Err(Reply::text(500, multi_error(&errors)));
        }
        if !lists {
            return Ok(Reply::empty());
        }
        let mut json = Json::default();
        json.array(&reports, |json, (pool, datacenter, report)| {
            render_keys(json, *pool, datacenter, report);
        });
        Ok(Reply::json(json.into_bytes()))
    }

    /// The pools with keyrings of their own, each with the datacenter that asks its members.
    fn keyrings(&self, local_only: bool) -> Vec<(PoolName, Datacenter)> {
        let (own, view) = (self.datacenter.clone(), self.node.view());
        if local_only || view.wan_members.is_none() {
            return vec![(PoolName::Lan, own)];
        }
        let all = view.datacenters.iter().map(|known| known.datacenter.clone());
        let others = all.filter(|name| *name != own).map(|name| (PoolName::Lan, name));
        let own_pools = [PoolName::Wan, PoolName::Lan].map(|pool| (pool, own.clone()));
        own_pools.into_iter().chain(others).collect()
    }

    /// What is asked, and whether only of the own datacenter's LAN.
    fn key_operation(&self, request: &ApiRequest<'_>) -> Result<(KeyOperation, bool), Reply> {
        let local = local_only(request.params.get("local-only"))?;
        if request.timed.head.method == Method::Get {
            return Ok((KeyOperation::List, local));
        }
        if local {
            let rule = "local-only can only be set for list requests";
            let text = format!("Bad request: Invalid use of local-only: {rule}");
            return Err(Reply::text(400, text));
        }
        let text = key(request.body)?;
        let key = base64::decode(text.as_bytes()).map(Bytes::from).map_err(|error| {
            // Each pool is told of the operation, and each says so.
            let of = |(pool, datacenter)| format!("{} error: {error}", label(pool, &datacenter));
            let errors: Vec<_> = self.keyrings(false).into_iter().map(of).collect();
            Reply::text(500, multi_error(&errors))
        })?;
        let operation = match request.timed.head.method {
            Method::Post => KeyOperation::Install(key),
            Method::Put => KeyOperation::Use(key),
            Method::Delete | Method::Get | Method::Head | Method::Options | Method::Other(_) => {
                KeyOperation::Remove(key)
            }
        };
        Ok((operation, false))
    }
}

/// A pool in messages.
fn label(pool: PoolName, datacenter: &Datacenter) -> String {
    match pool {
        PoolName::Wan => "WAN".to_owned(),
        PoolName::Lan => format!("{datacenter} (LAN)"),
    }
}

fn render_keys(json: &mut Json, pool: PoolName, datacenter: &Datacenter, report: &KeyReport) {
    let counts = |json: &mut Json, keys: &BTreeMap<String, u64>| {
        json.object(|json| {
            for (key, nodes) in keys {
                json.field(key, *nodes);
            }
        });
    };
    json.object(|json| {
        json.field("WAN", pool == PoolName::Wan);
        json.field("Datacenter", datacenter.as_str());
        json.field("Segment", "");
        if !report.messages.is_empty() {
            json.key("Messages");
            json.object(|json| {
                for (node, said) in &report.messages {
                    json.field(node.as_str(), said);
                }
            });
        }
        json.key("Keys");
        counts(json, &report.keys);
        json.key("PrimaryKeys");
        counts(json, &report.primary_keys);
        json.field("NumNodes", report.nodes);
    });
}

/// A line for the pool and one for each member that said why not, if it failed somewhere.
fn failures(label: &str, report: &KeyReport, errors: &mut Vec<String>) {
    let Some(failure) = report.failure() else { return };
    errors.push(format!("{label} error: {failure}"));
    errors.extend(report.messages.iter().map(|(node, said)| format!("{node}: {said}")));
}

fn relay_factor(text: &str) -> Result<u8, Reply> {
    let bad = |rule: String| Reply::text(400, format!("Bad request: {rule}"));
    if text.is_empty() {
        return Ok(0);
    }
    let number: i64 = text.parse().map_err(|_| {
        let rule = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
        bad(format!("Error parsing relay factor: {rule}"))
    })?;
    u8::try_from(number).ok().filter(|factor| *factor <= RELAY_FACTOR_MAX).ok_or_else(|| {
        let rule = format!("Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]");
        bad(format!("Invalid relay-factor: {rule}"))
    })
}

/// Whether only the own datacenter's LAN is asked, which lists alone may want.
fn local_only(text: &str) -> Result<bool, Reply> {
    if text.is_empty() {
        return Ok(false);
    }
    target::truth(text).ok_or_else(|| {
        let rule = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
        Reply::text(400, format!("Bad request: Error parsing local-only: {rule}"))
    })
}

/// The key in a body, as text.
fn key(body: &Bytes) -> Result<String, Reply> {
    let mut text = String::new();
    let decoded = decode::parse(body).and_then(|value| {
        decode::each(&value, "keyring", |name, value| {
            let known = name == "key";
            if known {
                text = decode::string(value, "Key")?;
            }
            Ok(known)
        })
    });
    decoded.map_err(|error| {
        Reply::text(400, format!("Bad request: Request decode failed: {error}"))
    })?;
    Ok(text)
}
