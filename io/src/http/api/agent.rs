//! `/v1/agent`: the agent itself and its membership.
//!
//! - Source: http-api.md §4.

use super::*;
use crate::http::json::Json;
use crate::http::render;
use crate::runtime::within;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use terraform_core::anti_entropy::own_meta;
use terraform_core::coordinate::Coordinate;
use terraform_core::id::{NodeName, PoolName};
use terraform_core::node::request::InfoSections;
use terraform_core::serf::Member;
use terraform_core::view::View;

/// How long the look-up of a host name may take.
const LOOKUP_TIME: Duration = Duration::from_secs(10);

/// The port of a join in the WAN pool where the agent's own is switched off.
const SERF_WAN_DEFAULT: u16 = 8302;

/// Addresses of one host name that are tried.
const JOIN_ADDRESSES_MAX: usize = 16;

impl Api {
    pub(super) async fn agent_self(&self, request: &ApiRequest<'_>) -> Handled {
        let ask = Request { context: options::local(request), body: RequestBody::Info };
        let response = self.node.request(ask).await.map_err(|error| Reply::error(&error))?;
        let Response::Info(mut stats) = response else {
            return Err(Reply::text(500, "the node answered something else"));
        };
        stats.insert("runtime".to_owned(), runtime_section());
        let own = if self.settings.facts.coordinates { self.own_coordinate().await? } else { None };
        let view = self.node.view();
        Ok(Reply::json(self.render_self(&view, &stats, own.as_ref())))
    }

    async fn own_coordinate(&self) -> Result<Option<Coordinate>, Reply> {
        let ask = Request::new(RequestBody::Coordinates);
        let response = self.node.request(ask).await.map_err(|error| Reply::error(&error))?;
        let Response::Coordinates(mut known) = response else {
            return Err(Reply::text(500, "the node answered something else"));
        };
        Ok(known.remove(&self.node.view().name))
    }

    fn render_self(&self, view: &View, stats: &InfoSections, own: Option<&Coordinate>) -> Vec<u8> {
        let facts = &self.settings.facts;
        let mut json = Json::with_capacity(4096);
        json.object(|json| {
            json.key("Config");
            json.object(|json| {
                json.field("Datacenter", view.datacenter.as_str());
                json.field("NodeName", view.name.as_str());
                json.field("NodeID", &view.id.to_string());
                json.field("Revision", "");
                json.field("Server", facts.server);
                json.field("Version", facts.version);
            });
            json.key("DebugConfig");
            self.render_debug_config(json, view);
            json.key("Coord");
            match own {
                Some(own) => render::coordinate(json, own),
                None => json.null(),
            }
            json.key("Member");
            match view.members.get(&view.name) {
                Some(own) => render::member(json, own, None),
                None => json.null(),
            }
            json.key("Stats");
            render::map(json, stats, render::texts);
            json.key("Meta");
            render::texts(json, &own_meta(BTreeMap::clone(&facts.node_meta.load())));
        });
        json.into_bytes()
    }

    /// The part of Consul's runtime configuration that exists here, with its names.
    fn render_debug_config(&self, json: &mut Json, view: &View) {
        let facts = &self.settings.facts;
        let port = |port: Option<u16>| port.map_or(-1, i64::from);
        let socket = |ip: IpAddr, port: u16| format!("tcp://{}", SocketAddr::new(ip, port));
        json.object(|json| {
            json.field("ACLsEnabled", false);
            json.field("AdvertiseAddrLAN", &facts.advertise.to_string());
            json.field("AdvertiseAddrWAN", &facts.advertise_wan.to_string());
            json.field("BindAddr", &facts.bind.to_string());
            json.field("Bootstrap", facts.bootstrap);
            json.field("BootstrapExpect", u64::from(facts.bootstrap_expect));
            json.key("ClientAddrs");
            json.array(&facts.client_addresses, |json, ip| json.string(&ip.to_string()));
            json.field("DNSDomain", &facts.domain);
            json.field("DNSPort", port(facts.ports.dns));
            json.field("DataDir", &facts.data_dir);
            json.field("Datacenter", view.datacenter.as_str());
            json.field("EnableRemoteScriptChecks", self.settings.remote_script_checks);
            json.field("GRPCPort", -1_i64);
            json.field("HTTPPort", port(facts.ports.http));
            json.field("HTTPSPort", -1_i64);
            json.field("NodeID", &view.id.to_string());
            json.key("NodeMeta");
            render::texts(json, &facts.node_meta.load());
            json.field("NodeName", view.name.as_str());
            json.field("SerfAdvertiseAddrLAN", &socket(facts.advertise, facts.ports.serf_lan));
            json.field("SerfBindAddrLAN", &socket(facts.bind_lan, facts.ports.serf_lan));
            json.field("SerfPortLAN", i64::from(facts.ports.serf_lan));
            json.field("SerfPortWAN", port(facts.ports.serf_wan));
            json.field("ServerMode", facts.server);
            json.field("ServerPort", i64::from(facts.ports.server));
            json.key("TaggedAddresses");
            render::texts(json, &facts.tagged_addresses);
            json.field("Version", facts.version);
        });
    }

    pub(super) fn agent_members(&self, request: &ApiRequest<'_>) -> Handled {
        let segment = request.params.get("segment");
        let wan = !request.params.get("wan").is_empty();
        if wan && !segment.is_empty() {
            return Err(Reply::text(400, "Cannot provide a segment with wan=true"));
        }
        if !matches!(segment, "" | "_all") {
            let text = "Network segments are not supported in this version of Consul";
            return Err(Reply::text(500, text));
        }
        let view = self.node.view();
        let members = match &view.wan_members {
            _ if !wan => &view.members,
            Some(members) => members,
            None => return Ok(Reply::json(b"null".to_vec())),
        };
        let now = self.node.clock().now();
        let mut json = Json::with_capacity(members.len() * 512 + 2);
        json.array(members.iter(), |json, member: &Member| {
            render::member(json, member, members.gone_for(&member.name, now));
        });
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn agent_join(&self, request: &ApiRequest<'_>) -> Handled {
        let ports = &self.settings.facts.ports;
        let (pool, port) = match request.params.get("wan") {
            "" => (PoolName::Lan, ports.serf_lan),
            _ => (PoolName::Wan, ports.serf_wan.unwrap_or(SERF_WAN_DEFAULT)),
        };
        let addresses = resolve(request.argument, port).await?;
        let body = RequestBody::Join { pool, addresses, replay: false };
        let ask = Request { context: options::local(request), body };
        match self.node.request(ask).await {
            Ok(Response::Joined(_)) => Ok(Reply::empty()),
            Ok(other) => Err(Reply::text(500, format!("a join was answered with {other:?}"))),
            Err(error) => Err(Reply::error(&error)),
        }
    }

    pub(super) async fn agent_leave(&self, request: &ApiRequest<'_>) -> Handled {
        let force = request.params.has("force");
        self.agent_done(options::local(request), RequestBody::Leave { force }).await
    }

    pub(super) async fn agent_force_leave(&self, request: &ApiRequest<'_>) -> Handled {
        let unknown = |_| {
            let text = format!("agent: No node found with name '{}'", request.argument);
            Reply::text(500, text)
        };
        let node = NodeName::parse(request.argument).map_err(unknown)?;
        let prune = request.params.has("prune");
        self.agent_done(options::local(request), RequestBody::ForceLeave { node, prune }).await
    }

    pub(super) async fn agent_reload(&self) -> Handled {
        let Some(reload) = &self.settings.reload else {
            return Err(Reply::not_built("/v1/agent/reload"));
        };
        reload.run().await.map_err(|error| Reply::text(500, error))?;
        Ok(Reply::empty())
    }

    /// Asks the node for something whose success has no body.
    pub(super) async fn agent_done(&self, context: RequestContext, body: RequestBody) -> Handled {
        match self.done(context, body).await {
            Ok(()) => Ok(Reply::empty()),
            Err(error) => Err(Reply::error(&error)),
        }
    }
}

/// What the process runs on, under Consul's names (http-api.md §4.1).
fn runtime_section() -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    // What is a goroutine there is part of a thread here.
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count).to_string();
    let compiler = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
    [
        ("arch", arch),
        ("cpu_count", &processors),
        ("goroutines", &threads),
        ("max_procs", &processors),
        ("os", std::env::consts::OS),
        ("version", compiler),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The socket addresses of `address`, `host[:port]`; `port` is the default.
async fn resolve(address: &str, port: u16) -> Result<Vec<SocketAddr>, Reply> {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return Ok(vec![socket]);
    }
    let unbracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = unbracketed.unwrap_or(address).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, text)) => match text.parse() {
            Ok(port) => (host, port),
            Err(_) => return Err(join_failed(address, &format!("invalid port {text:?}"))),
        },
        None => (address, port),
    };
    let failed = || join_failed(address, &format!("lookup {host}: no such host"));
    if host.is_empty() {
        return Err(failed());
    }
    let found = within(LOOKUP_TIME, async_net::resolve((host, port))).await;
    let late = || join_failed(address, &format!("lookup {host}: i/o timeout"));
    let mut found = found.ok_or_else(late)?.map_err(|_| failed())?;
    found.truncate(JOIN_ADDRESSES_MAX);
    if found.is_empty() { Err(failed()) } else { Ok(found) }
}

/// A join that ended before the node was asked, in the form of the others (http-api.md §4.5).
fn join_failed(address: &str, reason: &str) -> Reply {
    let text = format!("1 error occurred:\n\t* Failed to resolve {address}: {reason}\n\n");
    Reply::text(500, text)
}
