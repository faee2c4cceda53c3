//! `/v1/health`: checks, and instances with their checks.
//!
//! - Source: http-api.md §8.

use super::*;
use crate::http::json::Json;
use crate::http::render::{self, Place};
use std::sync::Arc;
use terraform_core::catalog::model::Check;
use terraform_core::catalog::query::{Instance, NodeChecksQuery, Rows, ServiceQuery, StateQuery};
use terraform_core::id::{NodeName, ServiceName};

/// Bytes an instance takes about, to size a body before it is written.
const INSTANCE_BYTES: usize = 1024;

impl Api {
    pub(super) fn health_node<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, HEALTH)?;
        let node = argument(request, "Missing node name", NodeName::parse)?;
        let filter = options::read_filter(request)?;
        let query = Query::NodeChecks(NodeChecksQuery { node, filter });
        Ok(self.read_shared(request.form, options, query, render_checks))
    }

    pub(super) fn health_checks<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, HEALTH)?;
        let name = argument(request, "Missing service name", ServiceName::parse)?;
        let wanted = ServiceQuery {
            meta: options::node_meta(request),
            filter: options::read_filter(request)?,
            near: self.near(request, &options),
            ..ServiceQuery::all(name)
        };
        Ok(self.read_shared(request.form, options, Query::ServiceChecks(wanted), render_checks))
    }

    pub(super) fn health_state<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, HEALTH)?;
        if request.argument.is_empty() {
            return Err(Reply::text(400, "Missing check state"));
        }
        let query = Query::ChecksInState(StateQuery {
            state: request.argument.to_owned(),
            meta: options::node_meta(request),
            filter: options::read_filter(request)?,
            near: self.near(request, &options),
        });
        Ok(self.read_shared(request.form, options, query, render_checks))
    }

    pub(super) fn health_service<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, Reads { caches: true, ..HEALTH })?;
        let name = argument(request, "Missing service name", ServiceName::parse)?;
        let wanted = ServiceQuery {
            name,
            tags: request.params.all("tag").map(str::to_owned).collect(),
            meta: options::node_meta(request),
            passing: passing(request)?,
            filter: options::read_filter(request)?,
            near: self.near(request, &options),
        };
        let place = options::answering(request);
        let render = move |rows: &Rows| {
            let Rows::Instances(instances) = rows else { return None };
            Some(render_instances(instances, &place))
        };
        Ok(self.read_shared(request.form, options, Query::ServiceHealth(wanted), render))
    }
}

/// What all health endpoints act on.
const HEALTH: Reads = Reads { blocks: true, caches: false, refuses_namespace: true };

/// The argument as a name; 400 with `missing` if there is none, or with the rule it breaks.
pub(super) fn argument<T, E: ToString>(
    request: &ApiRequest<'_>,
    missing: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Reply> {
    if request.argument.is_empty() {
        return Err(Reply::text(400, missing));
    }
    parse(request.argument).map_err(|error| Reply::text(400, error.to_string()))
}

/// Whether only passing instances are wanted: `passing` alone, or with a true value.
fn passing(request: &ApiRequest<'_>) -> Result<bool, Reply> {
    match request.params.get("passing") {
        "" => Ok(request.params.has("passing")),
        text => target::truth(text).ok_or_else(|| Reply::text(400, "Invalid value for ?passing")),
    }
}

fn render_checks(rows: &Rows) -> Option<Vec<u8>> {
    let Rows::Checks(checks) = rows else { return None };
    let mut json = Json::with_capacity(checks.len() * 256 + 2);
    json.array(checks, |json, check: &Arc<Check>| render::health_check(json, check));
    Some(json.into_bytes())
}

fn render_instances(instances: &[Arc<Instance>], place: &Place) -> Vec<u8> {
    let mut json = Json::with_capacity(instances.len() * INSTANCE_BYTES + 2);
    json.array(instances, |json, instance| {
        json.object(|json| {
            json.key("Node");
            render::node(json, &instance.node, place);
            json.key("Service");
            render::node_service(json, &instance.service, place.seen);
            json.key("Checks");
            json.array(&instance.checks, |json, check| render::health_check(json, check));
        });
    });
    json.into_bytes()
}
