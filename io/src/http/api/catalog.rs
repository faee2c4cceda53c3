//! `/v1/catalog`: what the servers know, and writes that go straight to them.
//!
//! - Source: http-api.md §7.

use super::health::argument;
use super::*;
use crate::http::json::Json;
use crate::http::render;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::model::{Node, Service};
use terraform_core::catalog::query::{
    NodeQuery, NodeServices, NodesQuery, Rows, ServiceNode, ServiceQuery,
};
use terraform_core::id::{NodeName, ServiceName};
use terraform_core::serf::MemberStatus;

/// Tells of a write that an agent will undo (cluster-behaviour.md §16, rows 2 and 3). The body is
/// Consul's.
const WARNING: &str = "X-Terraform-Warning";
/// What the reads of this group act on.
const CATALOG: Reads = Reads { blocks: true, caches: false, refuses_namespace: true };

impl Api {
    pub(super) async fn catalog_datacenters(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::local(request);
        let failed = |error: RequestError| Reply::error(&error);
        let is_cached = request.params.has("cached") && self.settings.use_cache;
        let (answer, age) = if is_cached {
            let age_max = options::age_max(request)?;
            let cached = self.cache.simple(context, Query::Datacenters, age_max).await;
            let Cached { answer, age } = cached.map_err(failed)?;
            (answer, Some(age))
        } else {
            (self.node.query(context, Query::Datacenters).await.map_err(failed)?, None)
        };
        let Rows::Names(names) = &answer.rows else { return Err(unexpected(&answer)) };
        let mut json = Json::default();
        render::strings(&mut json, names);
        let reply = Reply::json(json.into_bytes());
        Ok(match age {
            Some(age) => with_age(reply, age),
            None => reply,
        })
    }

    pub(super) fn catalog_nodes<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, Reads { refuses_namespace: false, ..CATALOG })?;
        let query = Query::Nodes(NodesQuery {
            meta: options::node_meta(request),
            filter: options::read_filter(request)?,
            near: self.near(request, &options),
        });
        let place = options::answering(request);
        let render = move |rows: &Rows| {
            let Rows::Nodes(nodes) = rows else { return None };
            let mut json = Json::with_capacity(nodes.len() * 384 + 2);
            let each = |json: &mut Json, node: &Arc<Node>| {
                render::node(json, node, &place);
            };
            json.array(nodes, each);
            Some(json.into_bytes())
        };
        Ok(self.read_shared(request.form, options, query, render))
    }

    pub(super) fn catalog_services<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, Reads { caches: true, ..CATALOG })?;
        let query = Query::Services(options::node_meta(request));
        let render = move |rows: &Rows| {
            let Rows::Services(services) = rows else { return None };
            let mut json = Json::with_capacity(services.len() * 48 + 2);
            render::map(&mut json, services, |json, tags| render::strings(json, tags));
            Some(json.into_bytes())
        };
        Ok(self.read_shared(request.form, options, query, render))
    }

    pub(super) fn catalog_service<'a>(&'a self, request: &'a ApiRequest<'a>) -> Begun<'a> {
        let options = options::read(request, Reads { caches: true, ..CATALOG })?;
        let name = argument(request, "Missing service name", ServiceName::parse)?;
        let query = Query::ServiceNodes(ServiceQuery {
            name,
            tags: request.params.all("tag").map(str::to_owned).collect(),
            meta: options::node_meta(request),
            passing: false,
            filter: options::read_filter(request)?,
            near: self.near(request, &options),
        });
        let place = options::answering(request);
        let render = move |rows: &Rows| {
            let Rows::ServiceNodes(rows) = rows else { return None };
            let mut json = Json::with_capacity(rows.len() * 640 + 2);
            let each = |json: &mut Json, row: &ServiceNode| {
                render::service_node(json, &row.node, &row.service, &place);
            };
            json.array(rows, each);
            Some(json.into_bytes())
        };
        Ok(self.read_shared(request.form, options, query, render))
    }

    pub(super) async fn catalog_node(&self, request: &ApiRequest<'_>) -> Handled {
        let place = options::answering(request);
        let render = |json: &mut Json, found: &NodeServices| {
            json.object(|json| {
                json.key("Node");
                render::node(json, &found.node, &place);
                json.key("Services");
                json.object(|json| {
                    for service in &found.services {
                        json.key(service.id.as_str());
                        render::node_service(json, service, place.seen);
                    }
                });
            });
        };
        self.one_node(request, "null", render).await
    }

    pub(super) async fn catalog_node_services(&self, request: &ApiRequest<'_>) -> Handled {
        let place = options::answering(request);
        let render = |json: &mut Json, found: &NodeServices| {
            json.object(|json| {
                json.key("Node");
                render::node(json, &found.node, &place);
                json.key("Services");
                let each = |json: &mut Json, service: &Arc<Service>| {
                    render::node_service(json, service, place.seen);
                };
                json.array(&found.services, each);
            });
        };
        self.one_node(request, r#"{"Node":null,"Services":null}"#, render).await
    }

    async fn one_node(
        &self,
        request: &ApiRequest<'_>,
        unknown: &'static str,
        render: impl FnOnce(&mut Json, &NodeServices),
    ) -> Handled {
        let options = options::read(request, CATALOG)?;
        if request.argument.is_empty() {
            return Err(Reply::text(400, "Missing node name"));
        }
        let (node, filter) = (request.argument.to_owned(), options::read_filter(request)?);
        let query = Query::Node(NodeQuery { node, filter });
        let body = |rows: &Rows| {
            let Rows::Node(found) = rows else { return None };
            let mut json = Json::default();
            match found {
                Some(found) => render(&mut json, found),
                None => json.raw(unknown),
            }
            Some(json.into_bytes())
        };
        Box::pin(self.read(options, query, body)).await
    }

    pub(super) async fn catalog_register(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let (datacenter, wanted) = bodies::catalog::registration(request.body, request.datacenter)?;
        let context = RequestContext { datacenter, ..options::local(request) };
        let more = wanted.service.is_some() || !wanted.checks.is_empty();
        let keeper = self.keeper(&context, &wanted.node.name).filter(|_| more);
        let reply = self.catalog_write(context, Command::Register(Box::new(wanted))).await?;
        Ok(match keeper {
            None => reply,
            Some(agent) => reply.with_header(
                WARNING,
                &format!("{agent} takes out what it does not know itself: register it there"),
            ),
        })
    }

    /// The agent that keeps what the catalog has on a node, as far as this one knows.
    fn keeper(&self, context: &RequestContext, node: &NodeName) -> Option<String> {
        let view = self.node.view();
        let member = view.members.get(node).filter(|_| context.datacenter.is_none())?;
        let is_alive = member.status == MemberStatus::Alive;
        is_alive.then(|| format!("the agent of node {node} at {}", member.address.ip()))
    }

    pub(super) async fn catalog_deregister(&self, request: &ApiRequest<'_>) -> Handled {
        options::refuse_namespace(request)?;
        let (datacenter, target) =
            bodies::catalog::deregistration(request.body, request.datacenter)?;
        let context = RequestContext { datacenter, ..options::local(request) };
        let keeper = self.keeper(&context, &target.node);
        let reply = self.catalog_write(context, Command::Deregister(target)).await?;
        Ok(match keeper {
            None => reply,
            Some(agent) => reply.with_header(
                WARNING,
                &format!("{agent} brings back what it still has: deregister it there"),
            ),
        })
    }

    async fn catalog_write(&self, context: RequestContext, command: Command) -> Handled {
        let done = self.done(context, RequestBody::Write(command)).await;
        done.map_err(|error| Reply::error(&error))?;
        Ok(Reply::json(b"true".to_vec()))
    }
}
