//! `/v1/agent/monitor` and `/v1/agent/metrics/stream`: what comes while the client listens.
//!
//! - Source: http-api.md §4.4 and §19.

use super::*;
use crate::civil;
use crate::http::json::Json;
use crate::http::respond::Content;
use crate::http::stream::StreamBody;
use crate::log::{Line, Monitor};
use crate::telemetry;
use smol::stream::{StreamExt as _, unfold};
use std::sync::Arc;
use terraform_core::trace::Level;

impl Api {
    pub(super) fn agent_monitor(&self, request: &ApiRequest<'_>) -> Handled {
        let level = match request.params.get("loglevel") {
            "" => Level::Info,
            text => Level::parse(text).ok_or_else(|| {
                Reply::text(400, format!("Bad request: Unknown log level: {text}"))
            })?,
        };
        let render = if request.params.has("logjson") { json_line } else { text_line };
        // Unlike the control protocol, this shows nothing of what was said before.
        let (_, monitor) = Monitor::begin(&self.node, &self.settings.logs, level);
        let lines = unfold(monitor, move |monitor| async move {
            let line = monitor.next().await?;
            Some((Bytes::from(render(&line)), monitor))
        });
        Ok(Reply::stream(Content::Untyped, StreamBody::new(lines)))
    }

    pub(super) fn agent_metrics_stream(&self) -> Handled {
        let metrics = Arc::clone(self.node.metrics());
        let objects = metrics.watch().map(move |interval| {
            let mut object = telemetry::display(&interval, &metrics.config());
            object.push(b'\n');
            Bytes::from(object)
        });
        Ok(Reply::stream(Content::Json, StreamBody::new(objects)))
    }
}

/// The name of a level in the lines of this endpoint.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Trace | Level::Debug | Level::Info | Level::Warn => level.name(),
    }
}

/// `2026-11-22T14:04:51.501Z [WARN]  agent: text`
fn text_line(line: &Line) -> Vec<u8> {
    let level = format!("[{}]", level_name(line.level));
    let at = civil::exact_timestamp(line.at);
    format!("{at} {level:<7} {}: {}\n", line.subsystem, line.text).into_bytes()
}

fn json_line(line: &Line) -> Vec<u8> {
    let mut json = Json::default();
    json.object(|json| {
        json.field("@level", level_name(line.level).to_ascii_lowercase().as_str());
        json.field("@message", &*line.text);
        json.field("@module", &*line.subsystem);
        json.field("@timestamp", &civil::exact_timestamp(line.at));
    });
    let mut bytes = json.into_bytes();
    bytes.push(b'\n');
    bytes
}
