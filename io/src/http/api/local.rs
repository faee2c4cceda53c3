//! `/v1/agent`: the services and checks registered on this agent, and their health.
//!
//! - Source: http-api.md §5, §6 and §6.2; answered from the agent's own view, without servers.
//! - A service with `hash` waits until its definition has another (http-api.md §1.7).

use super::*;
use crate::http::json::Json;
use crate::http::render;
use crate::http::respond::Content;
use crate::runtime::before;
use smol::Timer;
use terraform_core::catalog::model::{Check, CheckStatus, Service};
use terraform_core::filter::{Filter, FilterError};
use terraform_core::local::{LocalView, NODE_MAINTENANCE, SERVICE_MAINTENANCE};

/// The health of a service on this agent, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LocalHealth {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl LocalHealth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Passing => 200,
            Self::Warning => 429,
            Self::Critical | Self::Maintenance => 503,
        }
    }

    fn of(check: &Check) -> Self {
        let id = check.id.as_str();
        if id == NODE_MAINTENANCE || id.starts_with(SERVICE_MAINTENANCE) {
            return Self::Maintenance;
        }
        match check.status {
            CheckStatus::Passing => Self::Passing,
            CheckStatus::Warning => Self::Warning,
            CheckStatus::Critical | CheckStatus::Other(_) => Self::Critical,
        }
    }
}

impl Api {
    pub(super) fn agent_services(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let filter = options::filter(request).map_err(|error| options::bad_filter(&error))?;
        let view = self.node.view();
        let mut json = Json::default();
        json.object(|json| {
            for (id, service) in &view.local.services {
                if is_wanted(filter.as_ref(), &**service, request) {
                    json.key(id.as_str());
                    render::agent_service(json, service, "");
                }
            }
        });
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) fn agent_checks(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let filter = options::filter(request).map_err(|error| match &error {
            // What does not fit the rows is told here without a head, as in Consul.
            FilterError::Selector(_)
            | FilterError::Operator { .. }
            | FilterError::Value { .. }
            | FilterError::Expression { .. } => Reply::text(500, error.to_string()),
            FilterError::TooLong
            | FilterError::TooDeep
            | FilterError::TooManyExpressions
            | FilterError::Syntax(_) => options::bad_filter(&error),
        })?;
        let view = self.node.view();
        let mut json = Json::default();
        json.object(|json| {
            for (id, check) in &view.local.checks {
                if is_wanted(filter.as_ref(), &**check, request) {
                    json.key(id.as_str());
                    render::health_check(json, check);
                }
            }
        });
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn agent_service(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let (_, wait) = options::waiting(request, request.rules.wait_default)?;
        let known = request.params.get("hash");
        if known.is_empty() {
            return self.hashed_service(request).map(|(_, reply)| reply);
        }
        // As with an index, not all who wait are answered at the same moment.
        let now = self.node.clock().now().as_nanos();
        let spread = u64::try_from(wait.as_nanos() / 16).unwrap_or(u64::MAX).max(1);
        let mut late = Timer::after(wait + Duration::from_nanos(now % spread));
        loop {
            // Before the look, so that no change falls between the two.
            let changed = self.node.registered().listen();
            let (hash, reply) = self.hashed_service(request)?;
            if hash != known {
                return Ok(reply);
            }
            if before(&mut late, changed.wait()).await.is_none() {
                return self.hashed_service(request).map(|(_, reply)| reply);
            }
        }
    }

    /// The definition of a service, and its hash.
    fn hashed_service(&self, request: &ApiRequest<'_>) -> Result<(String, Reply), Reply> {
        let view = self.node.view();
        let Some(service) = find_service(&view.local, request.argument) else {
            let text = format!("unknown service ID: {}", request.argument);
            return Err(Reply::text(404, text));
        };
        let hash = content_hash(service);
        let mut json = Json::default();
        render::agent_service(&mut json, service, &hash);
        let reply = Reply::json(json.into_bytes()).with_header("X-Consul-Contenthash", &hash);
        Ok((hash, reply))
    }

    pub(super) fn agent_health_by_id(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let id = request.argument;
        if id.is_empty() {
            return Err(Reply::text(500, "Bad request: Missing serviceID"));
        }
        let view = self.node.view();
        let Some(service) = find_service(&view.local, id) else {
            let reason = format!("ServiceId {id} not found");
            let mut json = Json::default();
            if wants_text(request) {
                json.string(&reason);
            } else {
                json.raw(r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#);
            }
            let mut reply = Reply::json(json.into_bytes());
            reply.status = 404;
            return Err(reply.with_header("X-Consul-Reason", &reason));
        };
        let health = health_of(&view.local, service);
        let mut json = Json::default();
        render_health(&mut json, &view.local, service, health);
        Ok(health_reply(request, health, json))
    }

    pub(super) fn agent_health_by_name(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let name = request.argument;
        if name.is_empty() {
            return Err(Reply::text(500, "Bad request: Missing service Name"));
        }
        let view = self.node.view();
        let named = |service: &&Arc<Service>| service.name.as_str() == name;
        let services: Vec<_> = view.local.services.values().filter(named).collect();
        let worst = services.iter().map(|service| health_of(&view.local, service)).max();
        let Some(worst) = worst else {
            let reason = format!("ServiceName {name} Not Found");
            let mut reply = Reply::json(b"[]".to_vec());
            if wants_text(request) {
                reply = Reply::text(404, reason.clone());
                reply.content = Content::PlainText;
            }
            reply.status = 404;
            return Err(reply.with_header("X-Consul-Reason", &reason));
        };
        let mut json = Json::default();
        json.array(services, |json, service| {
            let health = health_of(&view.local, service);
            render_health(json, &view.local, service, health);
        });
        Ok(health_reply(request, worst, json))
    }
}

fn is_wanted<R>(filter: Option<&Filter<R>>, row: &R, request: &ApiRequest<'_>) -> bool {
    filter.is_none_or(|filter| filter.wants(row, request.datacenter.as_str()))
}

/// Local ids are case-sensitive (http-api.md §1.14).
fn find_service<'a>(local: &'a LocalView, id: &str) -> Option<&'a Service> {
    let id = terraform_core::id::ServiceId::parse(id).ok()?;
    local.services.get(&id).map(|service| &**service)
}

/// The checks that decide a service's health: the node's and its own.
fn checks_of<'a>(local: &'a LocalView, service: &'a Service) -> impl Iterator<Item = &'a Check> {
    let counts = |check: &&Check| check.service_id.as_ref().is_none_or(|id| *id == service.id);
    local.checks.values().map(|check| &**check).filter(counts)
}

fn health_of(local: &LocalView, service: &Service) -> LocalHealth {
    checks_of(local, service).map(LocalHealth::of).max().unwrap_or(LocalHealth::Passing)
}

fn render_health(json: &mut Json, local: &LocalView, service: &Service, health: LocalHealth) {
    json.object(|json| {
        json.field("AggregatedStatus", health.as_str());
        json.key("Service");
        render::agent_service(json, service, "");
        json.key("Checks");
        json.array(checks_of(local, service), render::local_health_check);
    });
}

fn wants_text(request: &ApiRequest<'_>) -> bool {
    match request.params.get("format") {
        "text" => true,
        "" => request.field(Field::Accept).is_some_and(|accept| accept.starts_with("text/plain")),
        _ => false,
    }
}

fn health_reply(request: &ApiRequest<'_>, health: LocalHealth, json: Json) -> Reply {
    let mut reply = Reply::json(json.into_bytes());
    if wants_text(request) {
        reply = Reply::text(200, health.as_str());
        reply.content = Content::PlainText;
    }
    reply.status = health.status();
    reply.with_header("X-Consul-Reason", health.as_str())
}

/// A digest of the definition, in hexadecimal: FNV-1a of its rendered form.
fn content_hash(service: &Service) -> String {
    let mut json = Json::default();
    render::agent_service(&mut json, service, "");
    let digest = json.into_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{digest:016x}")
}
