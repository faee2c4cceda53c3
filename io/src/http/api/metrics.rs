//! `/v1/agent/metrics`: what the agent counted and measured.
//!
//! - Source: http-api.md §4.3.

use super::*;
use crate::http::respond::Content;
use crate::telemetry;

impl Api {
    pub(super) async fn agent_metrics(&self, request: &ApiRequest<'_>) -> Handled {
        let metrics = self.node.metrics();
        if !wants_prometheus(request) {
            let last = metrics.last();
            return Ok(Reply::json(telemetry::display(&last, &metrics.config())));
        }
        if !metrics.config().serves_prometheus() {
            let rule = "Prometheus is not enabled since its retention time is not positive";
            return Err(Reply::text(415, rule));
        }
        let (metrics, clock) = (Arc::clone(metrics), self.node.clock());
        // What the kernel knows of the process is read from files.
        let text =
            smol::unblock(move || telemetry::exposition(&metrics, clock.now(), clock.wall()));
        let mut reply = Reply::text(200, text.await);
        reply.content = Content::Prometheus;
        Ok(reply)
    }
}

/// Whether Prometheus' text is asked for: by `format`, or by a type of `Accept` that only it asks
/// for.
fn wants_prometheus(request: &ApiRequest<'_>) -> bool {
    let is_its_own = |accepted: &str| {
        let mut parts = accepted.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let version = parts.next();
        kind == "application/openmetrics-text"
            || (kind == "text/plain" && version == Some("version=0.4.0"))
    };
    request.params.get("format") == "prometheus"
        || request.field(Field::Accept).is_some_and(|accept| accept.split(',').any(is_its_own))
}
