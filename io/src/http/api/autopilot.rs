//! `/v1/operator/autopilot`: how the leader cares for the servers, and how they do.
//!
//! - Source: http-api.md §16. The paid editions' members are shown as they are when unused, and
//!   refused when they say something.

use super::*;
use crate::civil::timestamp;
use crate::http::decode::{self, DecodeError};
use crate::http::json::Json;
use crate::http::render::go_duration;
use serde_json::Value;
use std::time::Duration;
use terraform_core::catalog::autopilot::{Autopilot, AutopilotConfig, AutopilotWrite};
use terraform_core::catalog::command::Command;
use terraform_core::id::ModifyIndex;
use terraform_core::node::request::OperatorRequest;
use terraform_core::reconcile::{Health, ServerHealth};
use terraform_core::time::WallClock;

impl Api {
    pub(super) async fn autopilot_configuration(&self, request: &ApiRequest<'_>) -> Handled {
        if request.timed.head.method == Method::Put {
            return self.store_autopilot(request).await;
        }
        let options = options::read(request, Reads::default())?;
        let answer = self.query(options, Query::Autopilot).await;
        let answer = answer.map_err(|error| Reply::error(&error))?;
        let Rows::Autopilot(stored) = &answer.rows else { return Err(unexpected(&answer)) };
        match stored {
            Some(stored) => Ok(Reply::json(render(stored))),
            None => Err(Reply::error(&RequestError::NoLeader)),
        }
    }

    async fn store_autopilot(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        let (only_at, config) = (only_at(request)?, config(request.body)?);
        let body = RequestBody::Write(Command::Autopilot(AutopilotWrite { config, only_at }));
        let answer = self.node.request(Request { context, body }).await;
        let answer = answer.map_err(|error| Reply::error(&error))?;
        if answer != Response::Done && answer != Response::Unmet {
            return Err(Reply::error(&other_answer()));
        }
        Ok(Reply::json((answer == Response::Done).to_string().into_bytes()))
    }

    pub(super) async fn autopilot_health(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        let body = RequestBody::Operator(OperatorRequest::Health);
        let answer = self.node.request(Request { context, body }).await;
        let Response::Health(health) = answer.map_err(|error| Reply::error(&error))? else {
            return Err(Reply::error(&other_answer()));
        };
        let healthy = health.servers.iter().all(|server| server.healthy);
        let now = self.node.clock().wall();
        let mut reply = Reply::json(render_health(&health, healthy, now));
        if !healthy {
            reply.status = 429;
        }
        Ok(reply)
    }
}

/// The index that `cas` demands.
fn only_at(request: &ApiRequest<'_>) -> Result<Option<ModifyIndex>, Reply> {
    if !request.params.has("cas") {
        return Ok(None);
    }
    let index = options::unsigned(request.params.get("cas")).map(ModifyIndex::new);
    index
        .map(Some)
        .map_err(|error| Reply::text(400, format!("Bad request: Error parsing cas value: {error}")))
}

fn config(body: &[u8]) -> Result<AutopilotConfig, Reply> {
    let mut paid = None;
    let decoded = decode::parse(body).and_then(|value| read(&value, &mut paid));
    let config = decoded.map_err(|error| {
        Reply::text(400, format!("Bad request: Error parsing autopilot config: {error}"))
    })?;
    match paid {
        Some(field) => Err(Reply::not_built(&format!("the field \"{field}\""))),
        None => Ok(config),
    }
}

/// Reads a configuration; what is left out is zero. `paid` becomes a member that says something
/// and that nothing acts on.
fn read(value: &Value, paid: &mut Option<&'static str>) -> Result<AutopilotConfig, DecodeError> {
    let mut config = AutopilotConfig {
        cleanup_dead_servers: false,
        last_contact_threshold: Duration::ZERO,
        max_trailing_logs: 0,
        min_quorum: 0,
        server_stabilization_time: Duration::ZERO,
    };
    let mut unused = |name, value: &Value| {
        if !decode::is_zero(value) {
            *paid = Some(name);
        }
    };
    decode::each(value, "AutopilotConfiguration", |key, value| {
        match key {
            "cleanupdeadservers" => {
                config.cleanup_dead_servers = decode::boolean(value, "CleanupDeadServers")?;
            }
            "lastcontactthreshold" => {
                config.last_contact_threshold = decode::duration(value, "LastContactThreshold")?;
            }
            "maxtrailinglogs" => {
                config.max_trailing_logs = decode::unsigned(value, "MaxTrailingLogs")?;
            }
            "minquorum" => config.min_quorum = decode::unsigned(value, "MinQuorum")?,
            "serverstabilizationtime" => {
                config.server_stabilization_time =
                    decode::duration(value, "ServerStabilizationTime")?;
            }
            "redundancyzonetag" => unused("RedundancyZoneTag", value),
            "disableupgrademigration" => unused("DisableUpgradeMigration", value),
            "upgradeversiontag" => unused("UpgradeVersionTag", value),
            "createindex" | "modifyindex" => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(config)
}

fn render(stored: &Autopilot) -> Vec<u8> {
    let config = &stored.config;
    let mut json = Json::default();
    json.object(|json| {
        json.field("CleanupDeadServers", config.cleanup_dead_servers);
        json.field("LastContactThreshold", &go_duration(config.last_contact_threshold));
        json.field("MaxTrailingLogs", config.max_trailing_logs);
        json.field("MinQuorum", config.min_quorum);
        json.field("ServerStabilizationTime", &go_duration(config.server_stabilization_time));
        json.field("RedundancyZoneTag", "");
        json.field("DisableUpgradeMigration", false);
        json.field("UpgradeVersionTag", "");
        json.field("CreateIndex", stored.create_index.get());
        json.field("ModifyIndex", stored.modify_index.get());
    });
    json.into_bytes()
}

fn render_health(health: &Health, healthy: bool, now: WallClock) -> Vec<u8> {
    let mut json = Json::default();
    json.object(|json| {
        json.field("Healthy", healthy);
        json.field("FailureTolerance", health.failure_tolerance);
        json.key("Servers");
        json.array(&health.servers, |json, server| render_server(json, server, now));
    });
    json.into_bytes()
}

fn render_server(json: &mut Json, server: &ServerHealth, now: WallClock) {
    let since = i64::try_from(server.stable_for.as_millis()).unwrap_or(i64::MAX);
    let since = WallClock::from_millis(now.as_millis().saturating_sub(since));
    json.object(|json| {
        json.field("ID", &server.id.to_string());
        json.field("Name", server.name.as_ref().map_or("", |name| name.as_str()));
        json.field("Address", &server.address.to_string());
        json.field("SerfStatus", if server.status.is_empty() { "none" } else { &server.status });
        json.field("Version", &server.version);
        json.field("Leader", server.leader);
        json.field("LastContact", &go_duration(server.last_contact));
        json.field("LastTerm", server.last_term.get());
        json.field("LastIndex", server.last_index.get());
        json.field("Healthy", server.healthy);
        json.field("Voter", server.voter);
        json.field("StableSince", &timestamp(since));
    });
}
