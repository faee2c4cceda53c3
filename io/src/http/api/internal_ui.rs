//! `/v1/internal/ui`: everything at a glance, for pages that show it.
//!
//! - Source: http-api.md §18. Without a leader any server answers.

use super::*;
use crate::http::json::Json;
use crate::http::render;
use std::collections::BTreeMap;
use std::sync::Arc;
use terraform_core::catalog::model::{Check, CheckStatus, Service};
use terraform_core::catalog::overview::{NodeOverview, Overview};
use terraform_core::catalog::query::Instance;

/// What the reads of this group act on.
const UI: Reads = Reads { blocks: true, caches: false, refuses_namespace: true };
/// The metadata that names the program which registered a service.
const SOURCE: &str = "external-source";

impl Api {
    pub(super) async fn ui_nodes(&self, request: &ApiRequest<'_>) -> Handled {
        let overview = Overview::Nodes(options::read_filter(request)?);
        let render = |rows: &Rows| {
            let Rows::NodeOverviews(rows) = rows else { return None };
            let mut json = Json::with_capacity(rows.len() * 1024 + 2);
            json.array(rows, node);
            Some(json.into_bytes())
        };
        self.ui_read(request, overview, render).await
    }

    pub(super) async fn ui_node(&self, request: &ApiRequest<'_>) -> Handled {
        if request.argument.is_empty() {
            return Err(Reply::text(400, "Missing node name"));
        }
        let overview = Overview::Node(request.argument.to_owned());
        let render = |rows: &Rows| {
            let Rows::NodeOverviews(rows) = rows else { return None };
            let mut json = Json::default();
            rows.first().into_iter().for_each(|row| node(&mut json, row));
            Some(json.into_bytes())
        };
        let mut reply = self.ui_read(request, overview, render).await?;
        if reply.body.is_empty() {
            reply.status = 404;
        }
        Ok(reply)
    }

    pub(super) async fn ui_services(&self, request: &ApiRequest<'_>) -> Handled {
        let overview = Overview::Instances(options::read_filter(request)?);
        let render = |rows: &Rows| {
            let Rows::Instances(rows) = rows else { return None };
            let mut json = Json::default();
            json.array(summaries(rows), summary);
            Some(json.into_bytes())
        };
        self.ui_read(request, overview, render).await
    }

    async fn ui_read(
        &self,
        request: &ApiRequest<'_>,
        overview: Overview,
        render: impl Fn(&Rows) -> Option<Vec<u8>> + Sync,
    ) -> Handled {
        let mut options = options::read(request, UI)?;
        let query = Query::Overview(overview);
        let (form, first) = (request.form, options.clone());
        let mut reply = self.read_shared(form, first, query.clone(), &render).await;
        let no_leader = RequestError::NoLeader.to_string();
        if reply.as_ref().is_err_and(|early| *early.body == *no_leader.as_bytes()) {
            options.context.consistency = Consistency::Stale;
            reply = self.read_shared(form, options, query, &render).await;
        }
        reply.map(|reply| {
            let meta = reply.meta.map(|meta| Meta { consistency: None, ..meta });
            Reply { meta, ..reply }
        })
    }
}

fn node(json: &mut Json, NodeOverview { node, services, checks }: &NodeOverview) {
    json.object(|json| {
        json.field("ID", &node.id.map(|id| id.to_string()).unwrap_or_default());
        json.field("Node", node.name.as_str());
        json.field("Address", &node.address);
        json.key("TaggedAddresses");
        render::texts_or_null(json, &node.tagged_addresses);
        json.key("Meta");
        render::texts_or_null(json, &node.meta);
        json.key("Services");
        json.array(services, |json, service: &Arc<Service>| render::bare_service(json, service));
        json.key("Checks");
        json.array(checks, |json, check: &Arc<Check>| render::bare_check(json, check));
    });
}

/// A service in short.
#[derive(Default)]
struct Summary<'a> {
    tags: Vec<&'a str>,
    nodes: Vec<&'a str>,
    passing: u64,
    warning: u64,
    critical: u64,
    sources: Vec<&'a str>,
}

/// All services, by name.
fn summaries(instances: &[Arc<Instance>]) -> BTreeMap<&str, Summary<'_>> {
    let mut summaries: BTreeMap<&str, Summary<'_>> = BTreeMap::new();
    for instance in instances {
        let service = &instance.service;
        let summary = summaries.entry(service.name.as_str()).or_default();
        summary.nodes.push(instance.node.name.as_str());
        for check in &instance.checks {
            match check.status {
                CheckStatus::Passing => summary.passing += 1,
                CheckStatus::Warning => summary.warning += 1,
                CheckStatus::Critical => summary.critical += 1,
                CheckStatus::Other(_) => {}
            }
        }
        let tags = service.tags.iter().map(String::as_str);
        add_new(&mut summary.tags, tags);
        add_new(&mut summary.sources, service.meta.get(SOURCE).map(String::as_str));
    }
    summaries
}

/// Adds the texts that are not in the list yet.
fn add_new<'a>(list: &mut Vec<&'a str>, texts: impl IntoIterator<Item = &'a str>) {
    for text in texts {
        if !text.is_empty() && !list.contains(&text) {
            list.push(text);
        }
    }
}

fn summary(json: &mut Json, (name, summary): (&str, Summary<'_>)) {
    let texts = |json: &mut Json, texts: &[&str]| match texts {
        [] => json.null(),
        [..] => json.array(texts, |json, text: &&str| json.string(text)),
    };
    json.object(|json| {
        json.field("Name", name);
        json.key("Tags");
        texts(json, &summary.tags);
        json.key("Nodes");
        texts(json, &summary.nodes);
        json.field("InstanceCount", summary.nodes.len() as u64);
        json.field("ChecksPassing", summary.passing);
        json.field("ChecksWarning", summary.warning);
        json.field("ChecksCritical", summary.critical);
        json.key("ExternalSources");
        texts(json, &summary.sources);
        json.key("GatewayConfig");
        json.raw("{}");
    });
}
