//! `/v1/query`: prepared queries.
//!
//! - Source: http-api.md §14.

use super::*;
use crate::entropy;
use crate::http::json::Json;
use crate::http::render::Place;
use crate::http::{executions, render, respond};
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::prepared::{
    Executed, Execution, PreparedQuery, PreparedQueryRule, PreparedWrite,
};
use terraform_core::id::PreparedQueryId;

/// What the reads of this group act on.
const QUERY: Reads = Reads { blocks: true, caches: false, refuses_namespace: false };
/// What an identity is refused with that is none.
const NOT_UUID: &str = "failed prepared query lookup: index error: UUID must be 36 characters";
/// The body and status of what is not there.
const NOT_FOUND: &str = "Query not found";

impl Api {
    pub(super) async fn query_collection(&self, request: &ApiRequest<'_>) -> Handled {
        if request.timed.head.method == Method::Post {
            return self.query_create(request).await;
        }
        let options = options::read(request, QUERY)?;
        self.read(options, Query::PreparedQueries, render_queries).await
    }

    /// One query, by its identity; with a last word behind it, by a name too.
    pub(super) async fn query_one(&self, request: &ApiRequest<'_>) -> Handled {
        let asked = request.argument;
        if let Some(asked) = asked.strip_suffix("/execute") {
            return self.query_execute(request, asked).await;
        }
        if let Some(asked) = asked.strip_suffix("/explain") {
            return self.query_explain(request, asked).await;
        }
        if request.timed.head.method == Method::Get {
            let options = options::read(request, QUERY)?;
            let id = PreparedQueryId::parse(asked);
            let id = id.map_err(|_| Reply::text(500, NOT_UUID).with_meta(Meta::zero()))?;
            let reply = self.read(options, Query::PreparedQuery(id), render_queries).await?;
            return if reply.body == "[]" { Err(Reply::text(404, NOT_FOUND)) } else { Ok(reply) };
        }
        let context = options::write(request)?;
        let is_put = request.timed.head.method == Method::Put;
        let refused = |_| Reply::text(500, format!("Prepared Query lookup failed: {NOT_UUID}"));
        let write = match PreparedQueryId::parse(asked).map_err(refused) {
            Ok(id) if is_put => {
                let query = bodies::query::prepared(request.body, id, false)?;
                PreparedWrite::Update(Box::new(query))
            }
            Ok(id) => PreparedWrite::Delete(id),
            Err(refused) => return Err(refused),
        };
        let body = RequestBody::Write(Command::Prepared(write));
        let done = self.done(context, body).await;
        done.map(|()| Reply::empty()).map_err(|error| Reply::error(&error))
    }

    async fn query_create(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        let unreadable = |error: std::io::Error| Reply::text(500, error.to_string());
        let id = PreparedQueryId::from_random(entropy::identity().map_err(unreadable)?);
        let query = bodies::query::prepared(request.body, id, true)?;
        let create = Command::Prepared(PreparedWrite::Create(Box::new(query)));
        let done = self.done(context, RequestBody::Write(create)).await;
        done.map_err(|error| Reply::error(&error))?;
        let mut json = Json::default();
        json.object(|json| json.field("ID", &id.to_string()));
        Ok(Reply::json(json.into_bytes()))
    }

    async fn query_execute(&self, request: &ApiRequest<'_>, asked: &str) -> Handled {
        let options = options::read(request, Reads { caches: true, ..QUERY })?;
        let limit = limit(request.params.get("limit"))?;
        if connect(request.params.get("connect"))? {
            return Err(Reply::parameter_not_built("connect"));
        }
        let near = Some(request.params.get("near")).filter(|near| !near.is_empty());
        let (agent, agent_datacenter) = {
            let view = self.node.view();
            (view.name.clone(), view.datacenter.clone())
        };
        let execution = Execution {
            query: asked.to_owned(),
            near: near.map(str::to_owned),
            limit,
            agent,
            agent_datacenter,
            address: request.client_address(),
        };
        if options.cached && self.settings.use_cache {
            return self.execute_cached(request, options, execution).await;
        }
        let executed = self.execute(options, execution).await;
        executed.map(|executed| shown(request, &executed)).map_err(failed)
    }

    /// Executes a prepared query, or answers what it found last if that is new enough, or if
    /// nobody can execute it now and the client says how old it may be then.
    async fn execute_cached(
        &self,
        request: &ApiRequest<'_>,
        options: ReadOptions,
        execution: Execution,
    ) -> Handled {
        let (age_max, if_error) = (options::age_max(request)?, options::stale_if_error(request));
        let key = executions::Key::new(&options.context, &execution);
        let now = self.node.clock().now();
        let kept = self.executions.find(&key, now);
        let is_new = |age: Duration| age_max.is_none_or(|max| !max.is_zero() && age <= max);
        if let Some((executed, age)) = kept.as_ref().filter(|(_, age)| is_new(*age)) {
            return Ok(with_age(shown(request, executed), Some(*age)));
        }
        match (self.execute(options, execution).await, kept) {
            (Ok(executed), _) => {
                let executed = Arc::new(executed);
                self.executions.keep(key, Arc::clone(&executed), self.node.clock().now());
                Ok(with_age(shown(request, &executed), None))
            }
            (Err(error @ RequestError::NotFound(_)), _) => Err(failed(error)),
            (Err(_), Some((executed, age))) if age <= if_error => {
                Ok(with_age(shown(request, &executed), Some(age)))
            }
            (Err(error), _) => Err(failed(error)),
        }
    }

    /// Has a prepared query executed, and once more by the leader if a stale answer is too old.
    async fn execute(
        &self,
        options: ReadOptions,
        execution: Execution,
    ) -> Result<Executed, RequestError> {
        // It does not wait: what it finds has no index.
        let mut context = RequestContext { min_index: ModifyIndex::ZERO, ..options.context };
        let ask = |context: RequestContext| {
            let body = RequestBody::ExecutePrepared(Box::new(execution.clone()));
            let began = self.node.clock().now();
            let asked = self.node.request(Request { context, body });
            async move {
                let response = asked.await?;
                let took = self.node.clock().now().since(began);
                self.node.metrics().time(Timed::Execution, took);
                let Response::Executed(executed) = response else { return Err(other_answer()) };
                Ok(*executed)
            }
        };
        let executed = ask(context.clone()).await?;
        if options.max_stale.is_none_or(|limit| executed.last_contact <= limit) {
            return Ok(executed);
        }
        context.consistency = Consistency::Leader;
        ask(context).await
    }

    async fn query_explain(&self, request: &ApiRequest<'_>, asked: &str) -> Handled {
        let mut options = options::read(request, QUERY)?;
        options.context.min_index = ModifyIndex::ZERO;
        let answer = self.query(options, Query::ExplainPrepared(asked.to_owned())).await;
        let answer = answer.map_err(|error| Reply::error(&error).with_meta(Meta::zero()))?;
        let Rows::PreparedQueries(rows) = &answer.rows else { return Err(unexpected(&answer)) };
        let query = rows.first().ok_or_else(|| Reply::text(404, NOT_FOUND))?;
        if query.is_template_asked_by_id(asked) {
            let rule = PreparedQueryRule::TemplateById.to_string();
            return Err(Reply::text(500, rule).with_meta(Meta::zero()));
        }
        let mut json = Json::default();
        json.object(|json| {
            json.key("Query");
            render::prepared_query(json, query);
            let Meta { known_leader, last_contact, .. } = Meta::of(&answer);
            read_end(json, (known_leader, last_contact, answer.consistency));
        });
        let meta = Meta { index: 1, ..Meta::of(&answer) };
        Ok(Reply::json(json.into_bytes()).with_meta(meta))
    }
}

fn shown(request: &ApiRequest<'_>, executed: &Executed) -> Reply {
    let place = options::place(request, &executed.datacenter);
    Reply::json(render_executed(executed, &place)).with_meta(Meta {
        index: 1,
        known_leader: executed.known_leader,
        last_contact: executed.last_contact,
        consistency: Some(executed.consistency),
    })
}

fn failed(error: RequestError) -> Reply {
    if let RequestError::NotFound(text) = error {
        return Reply::text(404, text);
    }
    Reply::error(&error).with_meta(Meta::zero())
}

/// The methods of a path under `/v1/query/`.
pub(super) fn methods(argument: &str) -> &'static str {
    let asks = argument.ends_with("/execute") || argument.ends_with("/explain");
    if asks { "GET" } else { "GET,PUT,DELETE" }
}

/// How many instances are wanted; 0 for all.
fn limit(text: &str) -> Result<u64, Reply> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(limit) = text.parse::<i64>() {
        return Ok(u64::try_from(limit).unwrap_or(0));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let rule = if is_number { "value out of range" } else { "invalid syntax" };
    Err(Reply::text(500, format!("Bad limit: strconv.Atoi: parsing {text:?}: {rule}")))
}

/// Whether instances with a sidecar are wanted.
fn connect(text: &str) -> Result<bool, Reply> {
    if text.is_empty() {
        return Ok(false);
    }
    target::truth(text).ok_or_else(|| {
        let rule = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
        Reply::text(500, format!("Error parsing 'connect' value: {rule}"))
    })
}

fn render_queries(rows: &Rows) -> Option<Vec<u8>> {
    let Rows::PreparedQueries(queries) = rows else { return None };
    let mut json = Json::with_capacity(queries.len() * 512 + 2);
    json.array(queries, |json, query: &Arc<PreparedQuery>| {
        render::prepared_query(json, query);
    });
    Some(json.into_bytes())
}

fn render_executed(executed: &Executed, place: &Place) -> Vec<u8> {
    let mut json = Json::with_capacity(executed.instances.len() * 1024 + 256);
    json.object(|json| {
        json.field("Service", &executed.service);
        json.key("Nodes");
        json.array(&executed.instances, |json, instance| {
            render::bare_instance(json, instance, place);
        });
        json.key("DNS");
        json.object(|json| json.field("TTL", &executed.ttl_text));
        json.field("Datacenter", executed.datacenter.as_str());
        json.field("Failovers", executed.failovers);
        read_end(json, (executed.known_leader, executed.last_contact, executed.consistency));
    });
    json.into_bytes()
}

/// How it was read, as members of the body.
fn read_end(json: &mut Json, (known, contact, how): (bool, Duration, Consistency)) {
    json.field("Index", 0_u64);
    json.field("LastContact", u64::try_from(contact.as_nanos()).unwrap_or(u64::MAX));
    json.field("KnownLeader", known);
    json.field("ConsistencyLevel", respond::consistency_text(how));
}
