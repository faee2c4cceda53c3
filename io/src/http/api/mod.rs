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
use super::rendered::{self, Owner, Rendered, State};
use super::respond::{Form, Meta, Reply};
use super::router::{self, Endpoint, Found, InsightEndpoint, Route, UiEndpoint};
use super::settings::{HttpRules, HttpSettings};
use super::target::{self, Params};
use crate::handle::NodeHandle;
use crate::telemetry::Timed;
use bytes::Bytes;
use options::{ReadOptions, Reads};
use std::net::{IpAddr, SocketAddr};
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
    params: &'a Params,
    /// Its time, with its head and the pattern of its path.
    timed: Stopwatch<'a>,
    /// What stands behind the endpoint's path.
    argument: &'a str,
    body: &'a Bytes,
    /// The body, if it went to a file.
    file: Option<&'a FileBody>,
    source: Option<SocketAddr>,
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
    pub async fn answer(&self, request: &HttpRequest, source: Option<SocketAddr>) -> Reply {
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
        let vary = |reply: Reply| Reply { varies: true, ..reply };
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
        vary(handled.unwrap_or_else(|early| early).into_form(form))
    }

    /// Runs a handler. Those that are large and rare are boxed, so that no other request takes
    /// memory for them.
    async fn dispatch(&self, endpoint: Endpoint, request: &ApiRequest<'_>) -> Handled {
        match endpoint {
            Endpoint::AgentSelf => self.agent_self(request).await,
            Endpoint::AgentMembers => self.agent_members(request),
            Endpoint::AgentInsight(what) => Box::pin(self.agent_insight(what, request)).await,
            Endpoint::AgentJoin => self.agent_join(request).await,
            Endpoint::AgentLeave => self.agent_leave(request).await,
            Endpoint::AgentForceLeave => self.agent_force_leave(request).await,
            Endpoint::AgentReload => self.agent_reload().await,
            Endpoint::AgentServices => self.agent_services(request),
            Endpoint::AgentService => Box::pin(self.agent_service(request)).await,
            Endpoint::AgentChecks => self.agent_checks(request),
            Endpoint::AgentHealthById => self.agent_health_by_id(request),
            Endpoint::AgentHealthByName => self.agent_health_by_name(request),
            Endpoint::AgentServiceRegister => Box::pin(self.agent_service_register(request)).await,
            Endpoint::AgentServiceDeregister => self.agent_service_deregister(request).await,
            Endpoint::AgentMaintenance => self.agent_maintenance(request).await,
            Endpoint::AgentServiceMaintenance => self.agent_service_maintenance(request).await,
            Endpoint::AgentCheckRegister => Box::pin(self.agent_check_register(request)).await,
            Endpoint::AgentCheckDeregister => self.agent_check_deregister(request).await,
            Endpoint::AgentCheckPass | Endpoint::AgentCheckWarn | Endpoint::AgentCheckFail => {
                self.agent_check_turn(endpoint, request).await
            }
            Endpoint::AgentCheckUpdate => self.agent_check_update(request).await,
            Endpoint::CatalogRegister => self.catalog_register(request).await,
            Endpoint::CatalogDeregister => self.catalog_deregister(request).await,
            Endpoint::CatalogDatacenters => Box::pin(self.catalog_datacenters(request)).await,
            Endpoint::CatalogNodes => self.catalog_nodes(request).await,
            Endpoint::CatalogServices => self.catalog_services(request).await,
            Endpoint::CatalogService => self.catalog_service(request).await,
            Endpoint::CatalogNode => self.catalog_node(request).await,
            Endpoint::CatalogNodeServices => self.catalog_node_services(request).await,
            Endpoint::CoordinateDatacenters => self.coordinate_datacenters(request).await,
            Endpoint::CoordinateNode => self.coordinate_node(request).await,
            Endpoint::CoordinateNodes => self.coordinate_nodes(request).await,
            Endpoint::CoordinateUpdate => self.coordinate_update(request).await,
            Endpoint::EventFire => self.event_fire(request).await,
            Endpoint::EventList => self.event_list(request).await,
            Endpoint::HealthNode => self.health_node(request).await,
            Endpoint::HealthChecks => self.health_checks(request).await,
            Endpoint::HealthState => self.health_state(request).await,
            Endpoint::HealthService => self.health_service(request).await,
            Endpoint::Ui(what) => Box::pin(self.internal_ui(what, request)).await,
            Endpoint::Kv => self.kv(request).await,
            Endpoint::OperatorKeyring => self.operator_keyring(request).await,
            Endpoint::AutopilotConfiguration => self.autopilot_configuration(request).await,
            Endpoint::AutopilotHealth => self.autopilot_health(request).await,
            Endpoint::RaftConfiguration => self.raft_configuration(request).await,
            Endpoint::RaftPeer => self.raft_peer(request).await,
            Endpoint::RaftTransfer => self.raft_transfer(request).await,
            Endpoint::PreparedQueries => Box::pin(self.query_collection(request)).await,
            Endpoint::PreparedQuery => Box::pin(self.query_one(request)).await,
            Endpoint::SessionCreate => Box::pin(self.session_create(request)).await,
            Endpoint::SessionDestroy => Box::pin(self.session_destroy(request)).await,
            Endpoint::SessionInfo => Box::pin(self.session_info(request)).await,
            Endpoint::SessionList => Box::pin(self.session_list(request)).await,
            Endpoint::SessionNode => Box::pin(self.session_node(request)).await,
            Endpoint::SessionRenew => Box::pin(self.session_renew(request)).await,
            Endpoint::Snapshot => Box::pin(self.snapshot(request)).await,
            Endpoint::StatusLeader => self.status_leader(request).await,
            Endpoint::StatusPeers => self.status_peers(request).await,
            Endpoint::Txn => self.txn(request).await,
            Endpoint::Acl => Err(Reply::text(401, "ACL support disabled")),
            Endpoint::NotBuilt => {
                Err(Reply::not_built(request.timed.pattern.trim_end_matches('/')))
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
        match self.query(options, query).await {
            Ok(answer) => {
                let body = render(&answer.rows).ok_or_else(|| unexpected(&answer))?;
                Ok(Reply::json(body).with_meta(Meta::of(&answer)))
            }
            Err(error) => Err(Reply::error(&error).with_meta(Meta::zero())),
        }
    }

    /// The same, with a body that is rendered once for each state of the catalog if the published
    /// view answers. `query` alone must decide how `render` writes its rows.
    async fn read_shared(
        &self,
        form: Form,
        options: ReadOptions,
        query: Query,
        render: impl Fn(&Rows) -> Option<Vec<u8>>,
    ) -> Handled {
        if options.cached && self.settings.use_cache {
            return Box::pin(self.read_cached(options, query, render)).await;
        }
        if let Some(reply) = self.shared_answer(form, &options, &query, &render) {
            return Ok(reply);
        }
        if options.context.waits().is_none() {
            return Box::pin(self.read(options, query, render)).await;
        }
        let reply = Box::pin(self.read(options.clone(), query.clone(), &render)).await?;
        // All whom a change woke see it in the view: one of them renders it.
        Ok(self.shared_answer(form, &options, &query, &render).unwrap_or(reply))
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
        options: &ReadOptions,
        query: &Query,
        render: impl Fn(&Rows) -> Option<Vec<u8>>,
    ) -> Option<Reply> {
        let view = self.node.view();
        let now = self.node.clock().now();
        let state = view.readable(&options.context, query, now)?;
        let last_contact = state.last_contact(now);
        if options.max_stale.is_some_and(|limit| last_contact > limit) {
            return None;
        }
        let consistency = options.context.consistency;
        let fresh = || {
            let answer = answer_now(state, query, consistency, now);
            let reply = Reply::json(render(&answer.rows)?).into_form(form);
            Some(Rendered { index: answer.index, form: reply.form, body: reply.body })
        };
        let of = State { owner: self.owner, applied: state.consensus.applied };
        let Rendered { index, form, body } = rendered::shared(of, query, form, fresh)?;
        if options.context.waits().is_some() && index <= options.context.min_index {
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
