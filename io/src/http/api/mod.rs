//! The endpoints: one request in, one answer out, over a [`NodeHandle`].
//!
//! - Source: http-api.md §1 for what all endpoints share; one file for each group.
//! - Nothing here knows a socket; tests call [`Api::answer`] with plain values.

mod agent;
mod autopilot;
mod bodies;
mod catalog;
mod coordinate;
mod event;
mod health;
mod host;
mod internal_ui;
mod kv;
mod local;
mod metrics;
mod monitor;
mod operator;
mod options;
mod query;
mod raft;
mod register;
mod session;
mod snapshot;
mod status;
mod txn;

use super::cache::{Cache, Cached};
use super::connection::HttpRequest;
use super::executions::Executions;
use super::file::{FileBodies, FileBody};
use super::parse::{Field, Head, Method};
use super::rendered::{Owner, Rendered, State, shared};
use super::respond::{Form, Meta, Reply};
use super::router::{self, Endpoint, Found, InsightEndpoint, Route, UiEndpoint};
use super::settings::{HttpRules, HttpSettings};
use super::target::{self, Params};
use crate::handle::{NodeHandle, read_answer};
use crate::telemetry::{Counted, Sought, Timed};
use bytes::Bytes;
use options::{ReadOptions, Reads};
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use terraform_core::id::{Datacenter, ModifyIndex, NodeName};
use terraform_core::node::request::{Request, RequestBody, RequestContext, RequestError, Response};
use terraform_core::time::Instant;
use terraform_core::view::answer_now;

/// The endpoints with what they answer from.
#[derive(Debug)]
pub struct Api {
    node: NodeHandle,
    settings: HttpSettings,
    datacenter: Datacenter,
    owner: Owner,
    files: FileBodies,
    cache: Arc<Cache>,
    executions: Executions,
}

/// One routed request.
#[derive(Debug)]
struct ApiRequest<'a> {
    params: &'a Params<'a>,
    /// Its time, with its head and the pattern of its path.
    timed: Stopwatch<'a>,
    /// What stands behind the endpoint's path.
    argument: &'a str,
    body: &'a Bytes,
    /// The body, if it went to a file.
    file: Option<&'a FileBody>,
    source: Option<&'a SocketAddr>,
    /// How the client wants the body.
    form: Form,
    /// The agent's own.
    datacenter: &'a Datacenter,
    rules: &'a HttpRules,
}

impl ApiRequest<'_> {
    fn field(&self, field: Field) -> Option<&str> {
        self.timed.head.field(field)
    }

    /// Who asks: what a proxy says, else the other end of the connection.
    fn client_address(&self) -> Option<IpAddr> {
        let first = self.field(Field::ForwardedFor).and_then(|list| list.split(',').next());
        let told = first.and_then(|text| text.trim().parse().ok());
        told.or_else(|| self.source.map(|source| source.ip()))
    }
}

/// Times a request until its answer is there, or its client is gone.
#[derive(Debug)]
struct Stopwatch<'a> {
    node: &'a NodeHandle,
    head: &'a Head,
    /// One that takes an argument ends in a slash.
    pattern: &'static str,
    began: Instant,
}

impl<'a> Stopwatch<'a> {
    fn start(node: &'a NodeHandle, head: &'a Head, pattern: &'static str) -> Self {
        Self { node, head, pattern, began: node.clock().now() }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        if let Some(method) = self.head.method.known() {
            let took = self.node.clock().now().since(self.began);
            self.node.metrics().time(Timed::Http(method, self.pattern), took);
        }
    }
}

/// What a handler makes: an answer, or the answer that ends it early.
type Handled = Result<Reply, Reply>;

/// A handler at work.
type Handling<'a> = Pin<Box<dyn Future<Output = Handled> + Send + 'a>>;

/// What a handler makes that leaves the rest to another one: that, or the answer that ends it.
type Begun<'a> = Result<Handling<'a>, Reply>;

impl Api {
    /// The endpoints of this node.
    pub fn new(node: NodeHandle, settings: HttpSettings) -> Self {
        let datacenter = node.view().datacenter.clone();
        let files = FileBodies::new(&settings.scratch);
        let cache = Cache::new(node.clone());
        let executions = Executions::default();
        Self { node, settings, datacenter, owner: Owner::unique(), files, cache, executions }
    }

    /// The node they answer from.
    pub const fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Where bodies in files are made.
    pub const fn files(&self) -> &FileBodies {
        &self.files
    }

    /// What they were told.
    pub const fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    /// Answers one request.
    pub async fn answer(&self, request: &HttpRequest, source: Option<&SocketAddr>) -> Reply {
        let head = &request.head;
        if head.target == "*" {
            return Reply::status(if head.method == Method::Options { 200 } else { 400 });
        }
        let Ok((path, query)) = target::split(&head.target) else {
            return Reply::text(400, "400 Bad Request");
        };
        let rules = &self.settings.rules;
        let is_odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
        if !rules.takes_unprintable && path.chars().any(is_odd) {
            return Reply::status(400);
        }
        if let Some(clean) = target::cleaned(&path) {
            return redirect(head, &clean, query);
        }
        let Found { endpoint, pattern, methods, argument } = match router::route(&path) {
            Route::Unknown => return Reply::status(404),
            Route::Index => return Reply::text(200, "Consul Agent"),
            Route::AddSlash => return redirect(head, &format!("{path}/"), query),
            Route::Endpoint(found) => found,
        };
        // The paths of one query go by their own book (http-api.md §1.1).
        let is_query = endpoint == Endpoint::PreparedQuery;
        let methods = if is_query { query::methods(argument) } else { methods };
        let timed = Stopwatch::start(&self.node, head, pattern);
        let vary = |reply: Reply| {
            let reply = Reply { varies: true, ..reply };
            if rules.translates_wan_addresses {
                return reply.with_header("X-Consul-Translate-Addresses", "true");
            }
            reply
        };
        if rules.blocks(&path) {
            return vary(Reply::text(403, "Endpoint is blocked by agent configuration"));
        }
        let Ok(params) = Params::parse(query) else { return vary(Reply::status(500)) };
        let allow = || format!("OPTIONS,{methods}");
        if head.method == Method::Options {
            let reply = if is_query { Reply::json(b"{}".to_vec()) } else { Reply::empty() };
            return vary(reply.with_header("Allow", &allow()));
        }
        if !router::allows(methods, &head.method) {
            let refused = Reply::text(405, format!("method {} not allowed", head.method));
            let allow = if is_query { methods.to_owned() } else { allow() };
            return vary(refused.with_header("Allow", &allow));
        }
        if head.method != Method::Get && !rules.takes_writes_of(source.map(|source| source.ip())) {
            return vary(Reply::text(403, "Access is restricted"));
        }
        let gzip = head.field(Field::AcceptEncoding).is_some_and(accepts_gzip);
        let form = Form { pretty: params.has("pretty"), gzip };
        let (body, file) = (&request.body, request.file.as_ref());
        let (datacenter, params) = (&self.datacenter, &params);
        let routed =
            ApiRequest { params, timed, argument, body, file, source, form, datacenter, rules };
        let handled = self.dispatch(endpoint, &routed).await;
        self.count(endpoint, routed.argument, &handled);
        vary(handled.unwrap_or_else(|early| early).into_form(form))
    }

    /// Counts what was asked of the catalog, and about which services (agent-config.md §7).
    fn count(&self, endpoint: Endpoint, argument: &str, handled: &Handled) {
        let metrics = self.node.metrics();
        if let Some(call) = endpoint.catalog_call() {
            let done = handled.is_ok();
            metrics.count(Counted::Call(call));
            metrics.count(if done { Counted::CallDone(call) } else { Counted::CallFailed(call) });
        }
        let (asked, missed) = if endpoint == Endpoint::CatalogService {
            (Sought::Catalog, Sought::CatalogMissed)
        } else if endpoint == Endpoint::HealthService {
            (Sought::Health, Sought::HealthMissed)
        } else {
            return;
        };
        let Ok(reply) = handled else { return };
        metrics.seek(asked, argument);
        if reply.lists_nothing() {
            metrics.seek(missed, argument);
        }
    }

    /// Runs a handler. Each is boxed by itself, so that a request which waits takes the memory of
    /// its own handler and not of the largest.
    fn dispatch<'a>(&'a self, endpoint: Endpoint, request: &'a ApiRequest<'a>) -> Handling<'a> {
        match endpoint {
            Endpoint::AgentSelf => Box::pin(self.agent_self(request)),
            Endpoint::AgentMembers => Box::pin(ready(self.agent_members(request))),
            Endpoint::AgentInsight(what) => Box::pin(self.agent_insight(what, request)),
            Endpoint::AgentJoin => Box::pin(self.agent_join(request)),
            Endpoint::AgentLeave => Box::pin(self.agent_leave(request)),
            Endpoint::AgentForceLeave => Box::pin(self.agent_force_leave(request)),
            Endpoint::AgentReload => Box::pin(self.agent_reload()),
            Endpoint::AgentServices => Box::pin(ready(self.agent_services(request))),
            Endpoint::AgentService => Box::pin(self.agent_service(request)),
            Endpoint::AgentChecks => Box::pin(ready(self.agent_checks(request))),
            Endpoint::AgentHealthById => Box::pin(ready(self.agent_health_by_id(request))),
            Endpoint::AgentHealthByName => Box::pin(ready(self.agent_health_by_name(request))),
            Endpoint::AgentServiceRegister => Box::pin(self.agent_service_register(request)),
            Endpoint::AgentServiceDeregister => Box::pin(self.agent_service_deregister(request)),
            Endpoint::AgentMaintenance => Box::pin(self.agent_maintenance(request)),
            Endpoint::AgentServiceMaintenance => Box::pin(self.agent_service_maintenance(request)),
            Endpoint::AgentCheckRegister => Box::pin(self.agent_check_register(request)),
            Endpoint::AgentCheckDeregister => Box::pin(self.agent_check_deregister(request)),
            Endpoint::AgentCheckPass | Endpoint::AgentCheckWarn | Endpoint::AgentCheckFail => {
                Box::pin(self.agent_check_turn(endpoint, request))
            }
            Endpoint::AgentCheckUpdate => Box::pin(self.agent_check_update(request)),
            Endpoint::CatalogRegister => Box::pin(self.catalog_register(request)),
            Endpoint::CatalogDeregister => Box::pin(self.catalog_deregister(request)),
            Endpoint::CatalogDatacenters => Box::pin(self.catalog_datacenters(request)),
            Endpoint::CatalogNodes => begun(self.catalog_nodes(request)),
            Endpoint::CatalogServices => begun(self.catalog_services(request)),
            Endpoint::CatalogService => begun(self.catalog_service(request)),
            Endpoint::CatalogNode => Box::pin(self.catalog_node(request)),
            Endpoint::CatalogNodeServices => Box::pin(self.catalog_node_services(request)),
            Endpoint::CoordinateDatacenters => Box::pin(self.coordinate_datacenters(request)),
            Endpoint::CoordinateNode => Box::pin(self.coordinate_node(request)),
            Endpoint::CoordinateNodes => Box::pin(self.coordinate_nodes(request)),
            Endpoint::CoordinateUpdate => Box::pin(self.coordinate_update(request)),
            Endpoint::EventFire => Box::pin(self.event_fire(request)),
            Endpoint::EventList => Box::pin(self.event_list(request)),
            Endpoint::HealthNode => begun(self.health_node(request)),
            Endpoint::HealthChecks => begun(self.health_checks(request)),
            Endpoint::HealthState => begun(self.health_state(request)),
            Endpoint::HealthService => begun(self.health_service(request)),
            Endpoint::Ui(what) => Box::pin(self.internal_ui(what, request)),
            Endpoint::Kv => Box::pin(self.kv(request)),
            Endpoint::OperatorKeyring => Box::pin(self.operator_keyring(request)),
            Endpoint::AutopilotConfiguration => Box::pin(self.autopilot_configuration(request)),
            Endpoint::AutopilotHealth => Box::pin(self.autopilot_health(request)),
            Endpoint::RaftConfiguration => Box::pin(self.raft_configuration(request)),
            Endpoint::RaftPeer => Box::pin(self.raft_peer(request)),
            Endpoint::RaftTransfer => Box::pin(self.raft_transfer(request)),
            Endpoint::PreparedQueries => Box::pin(self.query_collection(request)),
            Endpoint::PreparedQuery => Box::pin(self.query_one(request)),
            Endpoint::SessionCreate => Box::pin(self.session_create(request)),
            Endpoint::SessionDestroy => Box::pin(self.session_destroy(request)),
            Endpoint::SessionInfo => Box::pin(self.session_info(request)),
            Endpoint::SessionList => Box::pin(self.session_list(request)),
            Endpoint::SessionNode => Box::pin(self.session_node(request)),
            Endpoint::SessionRenew => Box::pin(self.session_renew(request)),
            Endpoint::Snapshot => Box::pin(self.snapshot(request)),
            Endpoint::StatusLeader => Box::pin(self.status_leader(request)),
            Endpoint::StatusPeers => Box::pin(self.status_peers(request)),
            Endpoint::Txn => Box::pin(self.txn(request)),
            Endpoint::Acl => Box::pin(ready(Err(Reply::text(401, "ACL support disabled")))),
            Endpoint::NotBuilt => {
                let path = request.timed.pattern.trim_end_matches('/');
                Box::pin(ready(Err(Reply::not_built(path))))
            }
        }
    }

    async fn agent_insight(&self, what: InsightEndpoint, request: &ApiRequest<'_>) -> Handled {
        match what {
            InsightEndpoint::Host => self.agent_host().await,
            InsightEndpoint::Metrics => self.agent_metrics(request).await,
            InsightEndpoint::MetricsStream => self.agent_metrics_stream(),
            InsightEndpoint::Monitor => self.agent_monitor(request),
            InsightEndpoint::Version => self.agent_version(),
        }
    }

    async fn internal_ui(&self, what: UiEndpoint, request: &ApiRequest<'_>) -> Handled {
        match what {
            UiEndpoint::Node => self.ui_node(request).await,
            UiEndpoint::Nodes => self.ui_nodes(request).await,
            UiEndpoint::Services => self.ui_services(request).await,
        }
    }

    /// The node from which `near` wants the nearest rows first; `_agent` is this one. A name that
    /// no node can have sorts nothing, and no datacenter knows where the nodes of another one are.
    fn near(&self, request: &ApiRequest<'_>, options: &ReadOptions) -> Option<NodeName> {
        match request.params.get("near") {
            _ if options.context.datacenter.is_some() => None,
            "_agent" => Some(self.node.view().name.clone()),
            name => NodeName::parse(name).ok(),
        }
    }

    /// Reads the catalog; a stale answer that is too old is asked for again from the leader.
    fn query(
        &self,
        ReadOptions { context, max_stale, .. }: ReadOptions,
        query: Query,
    ) -> impl Future<Output = Result<QueryAnswer, RequestError>> {
        let asked = match max_stale {
            None => Ok(self.node.query(context, query)),
            Some(limit) => Err(Box::pin(self.query_not_older(limit, context, query))),
        };
        async {
            match asked {
                Ok(asked) => asked.await,
                Err(asked) => asked.await,
            }
        }
    }

    async fn query_not_older(
        &self,
        limit: Duration,
        mut context: RequestContext,
        query: Query,
    ) -> Result<QueryAnswer, RequestError> {
        let answer = self.node.query(context.clone(), query.clone()).await?;
        if answer.last_contact <= limit {
            return Ok(answer);
        }
        context.consistency = Consistency::Leader;
        self.node.query(context, query).await
    }

    /// Reads the catalog for an endpoint with meta headers and renders the answer.
    async fn read(
        &self,
        options: ReadOptions,
        query: Query,
        render: impl FnOnce(&Rows) -> Option<Vec<u8>>,
    ) -> Handled {
        rendered(self.query(options, query).await.as_ref(), render)
    }

    /// The same, with a body that is rendered once for each state of the catalog if the published
    /// view answers. `query` alone must decide how `render` writes its rows.
    ///
    /// What the read needs from here on is boxed by itself: thousands of them wait at a time.
    fn read_shared<'a>(
        &'a self,
        form: Form,
        options: ReadOptions,
        query: Query,
        render: impl Fn(&Rows) -> Option<Vec<u8>> + Send + 'a,
    ) -> Handling<'a> {
        if options.cached && self.settings.use_cache {
            return Box::pin(self.read_cached(options, query, render));
        }
        let ReadOptions { context, max_stale, .. } = &options;
        if let Some(reply) = self.shared_answer(form, (context, *max_stale), &query, &render) {
            return Box::pin(ready(Ok(reply)));
        }
        if context.waits().is_none() || max_stale.is_some() {
            return Box::pin(self.read(options, query, render));
        }
        let body = RequestBody::Query(query);
        let request = Arc::new(Request { context: options.context, body });
        let asked = match self.node.submit(Arc::clone(&request)) {
            Ok(asked) => asked,
            Err(error) => return Box::pin(ready(rendered(Err(&error), render))),
        };
        Box::pin(async move {
            let answer = asked.wait().await.and_then(read_answer);
            // All whom a change woke see it in the view: one of them renders it.
            if let (Ok(_), RequestBody::Query(query)) = (&answer, &request.body) {
                let context = (&request.context, None);
                if let Some(reply) = self.shared_answer(form, context, query, &render) {
                    return Ok(reply);
                }
            }
            rendered(answer.as_deref(), render)
        })
    }

    /// The same from an answer that is kept and refreshed.
    async fn read_cached(
        &self,
        options: ReadOptions,
        query: Query,
        render: impl Fn(&Rows) -> Option<Vec<u8>>,
    ) -> Handled {
        match self.cache.refreshed(options.context, query).await {
            Ok(Cached { answer, age }) => {
                let body = render(&answer.rows).ok_or_else(|| unexpected(&answer))?;
                Ok(with_age(Reply::json(body).with_meta(Meta::of(&answer)), age))
            }
            Err(error) => Err(Reply::error(&error).with_meta(Meta::zero())),
        }
    }

    /// The answer of the published view; `None` if it may not answer, or the read has to wait.
    fn shared_answer(
        &self,
        form: Form,
        (context, max_stale): (&RequestContext, Option<Duration>),
        query: &Query,
        render: impl Fn(&Rows) -> Option<Vec<u8>>,
    ) -> Option<Reply> {
        let view = self.node.view();
        let now = self.node.clock().now();
        let state = view.readable(context, query, now)?;
        let last_contact = state.last_contact(now);
        if max_stale.is_some_and(|limit| last_contact > limit) {
            return None;
        }
        let consistency = context.consistency;
        let fresh = || {
            let answer = answer_now(state, query, consistency, now);
            let reply = Reply::json(render(&answer.rows)?).into_form(form);
            Some(Rendered { index: answer.index, form: reply.form, body: reply.body })
        };
        let of = State { owner: self.owner, applied: state.consensus.applied };
        let Rendered { index, form, body } = shared(of, query, form, fresh)?;
        if context.waits().is_some() && index <= context.min_index {
            return None;
        }
        Some(Reply::json_in(form, body).with_meta(Meta {
            index: index.get().max(1),
            known_leader: state.consensus.leader.is_some(),
            last_contact,
            consistency: Some(consistency),
        }))
    }

    /// Asks the node to do something that ends in `Done`.
    async fn done(&self, context: RequestContext, body: RequestBody) -> Result<(), RequestError> {
        match self.node.request(Request { context, body }).await? {
            Response::Done => Ok(()),
            Response::Answer(_)
            | Response::Joined(_)
            | Response::Info(_)
            | Response::Serf(_)
            | Response::Event(_)
            | Response::Coordinates(_)
            | Response::Unmet
            | Response::Transaction(_)
            | Response::Backup(_)
            | Response::Health(_)
            | Response::Executed(_)
            | Response::Status(_) => Err(other_answer()),
        }
    }
}

/// What a read that was answered or failed says.
fn rendered(
    answer: Result<&QueryAnswer, &RequestError>,
    render: impl FnOnce(&Rows) -> Option<Vec<u8>>,
) -> Handled {
    match answer {
        Ok(answer) => {
            let body = render(&answer.rows).ok_or_else(|| unexpected(answer))?;
            Ok(Reply::json(body).with_meta(Meta::of(answer)))
        }
        Err(error) => Err(Reply::error(error).with_meta(Meta::zero())),
    }
}

/// The reply with what it says about where it comes from (http-api.md §1.8).
fn with_age(reply: Reply, age: Option<Duration>) -> Reply {
    match age {
        None => reply.with_header("X-Cache", "MISS"),
        Some(age) => {
            let reply = reply.with_header("Age", &age.as_secs().to_string());
            reply.with_header("X-Cache", "HIT")
        }
    }
}

fn begun(begun: Begun<'_>) -> Handling<'_> {
    begun.unwrap_or_else(|early| Box::pin(ready(Err(early))))
}

/// Whether a request may wait for a change, of what it reads or of what the agent has received.
pub(super) fn may_wait(request: &HttpRequest) -> bool {
    let (_, query) = request.head.target.split_once('?').unwrap_or_default();
    request.head.method == Method::Get
        && Params::parse(query)
            .is_ok_and(|params| !params.get("index").is_empty() || !params.get("hash").is_empty())
}

/// The node answered with what belongs to another request: it broke its contract.
fn other_answer() -> RequestError {
    RequestError::Unknown("the node answered something else".to_owned())
}

/// The answer of another question than the one asked: the node broke its contract.
fn unexpected(answer: &QueryAnswer) -> Reply {
    Reply::text(500, format!("a query was answered with other rows: {:?}", answer.rows))
}

/// A permanent redirect with the page that Go's servers send.
fn redirect(head: &Head, path: &str, query: &str) -> Reply {
    let mut location = target::encode_path(path);
    if !query.is_empty() {
        location.push('?');
        location.push_str(query);
    }
    let reply = match head.method {
        Method::Get | Method::Head => {
            let escaped = location.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
            Reply::html(301, format!("<a href=\"{escaped}\">Moved Permanently</a>.\n\n"))
        }
        Method::Put | Method::Post | Method::Delete | Method::Options | Method::Other(_) => {
            Reply::status(301)
        }
    };
    reply.with_header("Location", &location)
}

/// Whether `Accept-Encoding` allows gzip (RFC 9110 §12.5.3).
fn accepts_gzip(value: &str) -> bool {
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
pub(crate) mod tests;
