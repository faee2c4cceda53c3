//! `/v1/session`: what programs hold keys with.
//!
//! - Source: http-api.md §10.

use super::health::argument;
use super::*;
use crate::entropy;
use crate::http::json::Json;
use crate::http::render;
use terraform_core::catalog::command::Command;
use terraform_core::id::{NodeName, SessionId};

/// What the reads of this group act on.
const SESSION: Reads = Reads { blocks: true, caches: false, refuses_namespace: true };

impl Api {
    pub(super) async fn session_create(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        options::refuse_namespace(request)?;
        let unreadable = |error: std::io::Error| Reply::text(500, error.to_string());
        let id = SessionId::from_random(entropy::identity().map_err(unreadable)?);
        let view = self.node.view();
        let defaults = (id, &view.name, self.settings.session_ttl_min);
        let session = bodies::session::creation(request.body, defaults)?;
        let create = Command::CreateSession(Box::new(session));
        let done = self.done(context, RequestBody::Write(create)).await;
        done.map_err(|error| Reply::error(&error))?;
        let mut json = Json::default();
        json.object(|json| json.field("ID", &id.to_string()));
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn session_destroy(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        options::refuse_namespace(request)?;
        let end = Command::EndSessions(vec![session_id(request)?]);
        let done = self.done(context, RequestBody::Write(end)).await;
        done.map_err(|error| Reply::error(&error))?;
        Ok(Reply::json(b"true".to_vec()))
    }

    pub(super) async fn session_renew(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, Reads { blocks: false, ..SESSION })?;
        let id = session_id(request)?;
        let context = RequestContext { consistency: Consistency::Leader, ..options.context };
        let body = RequestBody::RenewSession(id);
        let unknown = || Reply::text(404, format!("Session id '{id}' not found"));
        let began = self.node.clock().now();
        let response = self.node.request(Request { context, body }).await;
        self.node.metrics().time(Timed::Renewal, self.node.clock().now().since(began));
        let response = response.map_err(|error| {
            if matches!(error, RequestError::NotFound(_)) {
                unknown()
            } else {
                Reply::error(&error)
            }
        })?;
        let Response::Answer(answer) = response else { return Err(Reply::error(&other_answer())) };
        if matches!(&answer.rows, Rows::Sessions(rows) if rows.is_empty()) {
            return Err(unknown());
        }
        render_sessions(&answer.rows).map(Reply::json).ok_or_else(|| unexpected(&answer))
    }

    pub(super) async fn session_info(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, SESSION)?;
        // What is no identity is found out where the others are read.
        let late = |reply: Reply| match reply.status {
            400 => reply,
            _ => reply.with_meta(Meta::zero()),
        };
        let query = Query::Session(session_id(request).map_err(late)?);
        self.read_sessions(options, query).await
    }

    pub(super) async fn session_node(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, SESSION)?;
        let node = argument(request, "Missing node name", NodeName::parse)?;
        self.read_sessions(options, Query::Sessions(Some(node))).await
    }

    pub(super) async fn session_list(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, SESSION)?;
        self.read_sessions(options, Query::Sessions(None)).await
    }

    async fn read_sessions(&self, options: ReadOptions, query: Query) -> Handled {
        let read = self.read(options, query, render_sessions).await;
        let without_consistency = |mut reply: Reply| {
            reply.meta = reply.meta.map(|meta| Meta { consistency: None, ..meta });
            reply
        };
        read.map(without_consistency)
    }
}

fn render_sessions(rows: &Rows) -> Option<Vec<u8>> {
    let Rows::Sessions(sessions) = rows else { return None };
    let mut json = Json::with_capacity(sessions.len() * 320 + 2);
    json.array(sessions, |json, session| render::session(json, session));
    Some(json.into_bytes())
}

/// The session that the path names.
fn session_id(request: &ApiRequest<'_>) -> Result<SessionId, Reply> {
    if request.argument.is_empty() {
        return Err(Reply::text(400, "Missing session"));
    }
    bodies::session::id(request.argument)
}
