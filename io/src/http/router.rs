//! Finds the endpoint of a path and the methods it knows.
//!
//! - Source: http-api.md §1.1 and §20. The longest registered pattern wins; one that ends in `/`
//!   takes the rest of the path as its argument.
//! - Endpoints that are not built are routed too, so that they answer 501 by name and not 404. ACLs
//!   are off, since no agent starts that is told to have some, and so their endpoints say.

use super::parse::Method;

/// Calls of the catalog, by the names under which Consul counts them.
const CATALOG_CALLS: &[(Endpoint, &str)] = &[
    (Endpoint::CatalogRegister, "catalog_register"),
    (Endpoint::CatalogDeregister, "catalog_deregister"),
    (Endpoint::CatalogDatacenters, "catalog_datacenters"),
    (Endpoint::CatalogNodes, "catalog_nodes"),
    (Endpoint::CatalogServices, "catalog_services"),
    (Endpoint::CatalogService, "catalog_service_nodes"),
    (Endpoint::CatalogNode, "catalog_node_services"),
    (Endpoint::CatalogNodeServices, "catalog_node_service_list"),
];

impl Endpoint {
    /// The name under which calls of it are counted, if it is one of the catalog.
    pub fn catalog_call(self) -> Option<&'static str> {
        let found = CATALOG_CALLS.iter().find(|(endpoint, _)| *endpoint == self);
        found.map(|(_, name)| *name)
    }
}

/// What a path and method ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the paths in the table below")]
pub enum Endpoint {
    AgentSelf,
    AgentMembers,
    AgentJoin,
    AgentInsight(InsightEndpoint),
    AgentLeave,
    AgentForceLeave,
    AgentReload,
    AgentMaintenance,
    AgentServices,
    AgentService,
    AgentServiceRegister,
    AgentServiceDeregister,
    AgentServiceMaintenance,
    AgentHealthById,
    AgentHealthByName,
    AgentChecks,
    AgentCheckRegister,
    AgentCheckDeregister,
    AgentCheckPass,
    AgentCheckWarn,
    AgentCheckFail,
    AgentCheckUpdate,
    CatalogRegister,
    CatalogDeregister,
    CatalogDatacenters,
    CatalogNodes,
    CatalogServices,
    CatalogService,
    CatalogNode,
    CatalogNodeServices,
    CoordinateDatacenters,
    CoordinateNode,
    CoordinateNodes,
    CoordinateUpdate,
    EventFire,
    EventList,
    HealthNode,
    HealthChecks,
    HealthState,
    HealthService,
    Kv,
    AutopilotConfiguration,
    AutopilotHealth,
    OperatorKeyring,
    RaftConfiguration,
    RaftPeer,
    RaftTransfer,
    PreparedQueries,
    PreparedQuery,
    SessionCreate,
    SessionDestroy,
    SessionInfo,
    SessionList,
    SessionNode,
    SessionRenew,
    Snapshot,
    StatusLeader,
    StatusPeers,
    Txn,
    /// Anything that needs ACLs, which are off.
    Acl,
    Ui(UiEndpoint),
    /// Known by name only.
    NotBuilt,
}

/// How an agent does, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the paths in the table below")]
pub enum InsightEndpoint {
    Host,
    Metrics,
    MetricsStream,
    Monitor,
    Version,
}

/// Everything at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the paths in the table below")]
pub enum UiEndpoint {
    Node,
    Nodes,
    Services,
}

/// One registered pattern.
#[derive(Debug)]
struct Pattern {
    path: &'static str,
    methods: &'static str,
    endpoint: Endpoint,
}

const fn get(path: &'static str, endpoint: Endpoint) -> Pattern {
    Pattern { path, methods: "GET", endpoint }
}

const fn put(path: &'static str, endpoint: Endpoint) -> Pattern {
    Pattern { path, methods: "PUT", endpoint }
}

const fn later(path: &'static str, methods: &'static str) -> Pattern {
    Pattern { path, methods, endpoint: Endpoint::NotBuilt }
}

const fn acl(path: &'static str, methods: &'static str) -> Pattern {
    Pattern { path, methods, endpoint: Endpoint::Acl }
}

/// All patterns, sorted by path.
static PATTERNS: &[Pattern] = &[
    acl("/v1/acl/", "GET,PUT,POST,DELETE"),
    acl("/v1/acl/auth-method", "PUT"),
    acl("/v1/acl/auth-method/", "GET,PUT,DELETE"),
    acl("/v1/acl/auth-methods", "GET"),
    acl("/v1/acl/binding-rule", "PUT"),
    acl("/v1/acl/binding-rule/", "GET,PUT,DELETE"),
    acl("/v1/acl/binding-rules", "GET"),
    acl("/v1/acl/bootstrap", "PUT"),
    acl("/v1/acl/login", "POST"),
    acl("/v1/acl/logout", "POST"),
    acl("/v1/acl/policies", "GET"),
    acl("/v1/acl/policy", "PUT"),
    acl("/v1/acl/policy/", "GET,PUT,DELETE"),
    acl("/v1/acl/replication", "GET"),
    acl("/v1/acl/role", "PUT"),
    acl("/v1/acl/role/", "GET,PUT,DELETE"),
    acl("/v1/acl/roles", "GET"),
    acl("/v1/acl/rules/translate", "POST"),
    acl("/v1/acl/rules/translate/", "GET"),
    acl("/v1/acl/token", "PUT"),
    acl("/v1/acl/token/", "GET,PUT,DELETE"),
    acl("/v1/acl/tokens", "GET"),
    put("/v1/agent/check/deregister/", Endpoint::AgentCheckDeregister),
    put("/v1/agent/check/fail/", Endpoint::AgentCheckFail),
    put("/v1/agent/check/pass/", Endpoint::AgentCheckPass),
    put("/v1/agent/check/register", Endpoint::AgentCheckRegister),
    put("/v1/agent/check/update/", Endpoint::AgentCheckUpdate),
    put("/v1/agent/check/warn/", Endpoint::AgentCheckWarn),
    get("/v1/agent/checks", Endpoint::AgentChecks),
    later("/v1/agent/connect/", "GET,POST"),
    put("/v1/agent/force-leave/", Endpoint::AgentForceLeave),
    get("/v1/agent/health/service/id/", Endpoint::AgentHealthById),
    get("/v1/agent/health/service/name/", Endpoint::AgentHealthByName),
    get("/v1/agent/host", Endpoint::AgentInsight(InsightEndpoint::Host)),
    put("/v1/agent/join/", Endpoint::AgentJoin),
    put("/v1/agent/leave", Endpoint::AgentLeave),
    put("/v1/agent/maintenance", Endpoint::AgentMaintenance),
    get("/v1/agent/members", Endpoint::AgentMembers),
    get("/v1/agent/metrics", Endpoint::AgentInsight(InsightEndpoint::Metrics)),
    get("/v1/agent/metrics/stream", Endpoint::AgentInsight(InsightEndpoint::MetricsStream)),
    get("/v1/agent/monitor", Endpoint::AgentInsight(InsightEndpoint::Monitor)),
    put("/v1/agent/reload", Endpoint::AgentReload),
    get("/v1/agent/self", Endpoint::AgentSelf),
    get("/v1/agent/service/", Endpoint::AgentService),
    put("/v1/agent/service/deregister/", Endpoint::AgentServiceDeregister),
    put("/v1/agent/service/maintenance/", Endpoint::AgentServiceMaintenance),
    put("/v1/agent/service/register", Endpoint::AgentServiceRegister),
    get("/v1/agent/services", Endpoint::AgentServices),
    acl("/v1/agent/token/", "PUT"),
    get("/v1/agent/version", Endpoint::AgentInsight(InsightEndpoint::Version)),
    later("/v1/catalog/connect/", "GET"),
    get("/v1/catalog/datacenters", Endpoint::CatalogDatacenters),
    put("/v1/catalog/deregister", Endpoint::CatalogDeregister),
    later("/v1/catalog/gateway-services/", "GET"),
    get("/v1/catalog/node-services/", Endpoint::CatalogNodeServices),
    get("/v1/catalog/node/", Endpoint::CatalogNode),
    get("/v1/catalog/nodes", Endpoint::CatalogNodes),
    put("/v1/catalog/register", Endpoint::CatalogRegister),
    get("/v1/catalog/service/", Endpoint::CatalogService),
    get("/v1/catalog/services", Endpoint::CatalogServices),
    later("/v1/config", "PUT"),
    later("/v1/config/", "GET,DELETE"),
    later("/v1/connect/", "GET,PUT,POST,DELETE"),
    get("/v1/coordinate/datacenters", Endpoint::CoordinateDatacenters),
    get("/v1/coordinate/node/", Endpoint::CoordinateNode),
    get("/v1/coordinate/nodes", Endpoint::CoordinateNodes),
    put("/v1/coordinate/update", Endpoint::CoordinateUpdate),
    later("/v1/discovery-chain/", "GET,POST"),
    put("/v1/event/fire/", Endpoint::EventFire),
    get("/v1/event/list", Endpoint::EventList),
    get("/v1/health/checks/", Endpoint::HealthChecks),
    later("/v1/health/connect/", "GET"),
    get("/v1/health/node/", Endpoint::HealthNode),
    get("/v1/health/service/", Endpoint::HealthService),
    get("/v1/health/state/", Endpoint::HealthState),
    acl("/v1/internal/acl/authorize", "POST"),
    later("/v1/internal/ui/", "GET"),
    get("/v1/internal/ui/node/", Endpoint::Ui(UiEndpoint::Node)),
    get("/v1/internal/ui/nodes", Endpoint::Ui(UiEndpoint::Nodes)),
    get("/v1/internal/ui/services", Endpoint::Ui(UiEndpoint::Services)),
    Pattern { path: "/v1/kv/", methods: "GET,PUT,DELETE", endpoint: Endpoint::Kv },
    Pattern {
        path: "/v1/operator/autopilot/configuration",
        methods: "GET,PUT",
        endpoint: Endpoint::AutopilotConfiguration,
    },
    get("/v1/operator/autopilot/health", Endpoint::AutopilotHealth),
    Pattern {
        path: "/v1/operator/keyring",
        methods: "GET,POST,PUT,DELETE",
        endpoint: Endpoint::OperatorKeyring,
    },
    get("/v1/operator/raft/configuration", Endpoint::RaftConfiguration),
    Pattern { path: "/v1/operator/raft/peer", methods: "DELETE", endpoint: Endpoint::RaftPeer },
    Pattern {
        path: "/v1/operator/raft/transfer-leader",
        methods: "PUT,POST",
        endpoint: Endpoint::RaftTransfer,
    },
    Pattern { path: "/v1/query", methods: "GET,POST", endpoint: Endpoint::PreparedQueries },
    Pattern { path: "/v1/query/", methods: "GET,PUT,DELETE", endpoint: Endpoint::PreparedQuery },
    put("/v1/session/create", Endpoint::SessionCreate),
    put("/v1/session/destroy/", Endpoint::SessionDestroy),
    get("/v1/session/info/", Endpoint::SessionInfo),
    get("/v1/session/list", Endpoint::SessionList),
    get("/v1/session/node/", Endpoint::SessionNode),
    put("/v1/session/renew/", Endpoint::SessionRenew),
    Pattern { path: "/v1/snapshot", methods: "GET,PUT", endpoint: Endpoint::Snapshot },
    get("/v1/status/leader", Endpoint::StatusLeader),
    get("/v1/status/peers", Endpoint::StatusPeers),
    put("/v1/txn", Endpoint::Txn),
];

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To nothing.
    Unknown,
    /// To the index page.
    Index,
    /// To the same path with a slash behind it.
    AddSlash,
    /// To an endpoint.
    Endpoint(Found<'a>),
}

/// An endpoint that a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Which.
    pub endpoint: Endpoint,
    /// Its pattern; one that takes an argument ends in a slash.
    pub pattern: &'static str,
    /// The methods it knows, separated by commas.
    pub methods: &'static str,
    /// What stands behind the pattern.
    pub argument: &'a str,
}

/// Slashes of the longest pattern; deeper prefixes of a path need not be looked up.
const DEPTH_MAX: usize = 6;

/// Finds the endpoint of a decoded, clean path.
pub fn route(path: &str) -> Route<'_> {
    if path == "/" {
        return Route::Index;
    }
    if let Some(pattern) = find(path) {
        return Route::of(pattern, "");
    }
    let slashes = path.match_indices('/').take(DEPTH_MAX).map(|(at, _)| at + 1);
    let mut longest = None;
    for end in slashes {
        let (prefix, argument) = path.split_at(end);
        longest = find(prefix).map(|pattern| Route::of(pattern, argument)).or(longest);
    }
    if let Some(route) = longest {
        return route;
    }
    if find(&format!("{path}/")).is_some() { Route::AddSlash } else { Route::Unknown }
}

fn find(path: &str) -> Option<&'static Pattern> {
    let at = PATTERNS.binary_search_by(|pattern| pattern.path.cmp(path)).ok()?;
    PATTERNS.get(at)
}

impl<'a> Route<'a> {
    fn of(pattern: &'static Pattern, argument: &'a str) -> Self {
        Self::Endpoint(Found {
            endpoint: pattern.endpoint,
            pattern: pattern.path,
            methods: pattern.methods,
            argument,
        })
    }
}

/// Whether `methods` lists `method`.
pub fn allows(methods: &str, method: &Method) -> bool {
    methods.split(',').any(|allowed| allowed == method.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &str) -> (Endpoint, &str) {
        match route(path) {
            Route::Endpoint(Found { endpoint, argument, .. }) => (endpoint, argument),
            other @ (Route::Unknown | Route::Index | Route::AddSlash) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_patterns_are_sorted_and_not_too_deep() {
        assert!(PATTERNS.windows(2).all(|pair| pair[0].path < pair[1].path));
        assert!(PATTERNS.iter().all(|p| p.path.matches('/').count() <= DEPTH_MAX));
    }

    #[test]
    fn the_longest_pattern_wins() {
        assert_eq!(endpoint("/v1/agent/service/web/1"), (Endpoint::AgentService, "web/1"));
        assert_eq!(endpoint("/v1/agent/service/register"), (Endpoint::AgentServiceRegister, ""));
        assert_eq!(endpoint("/v1/agent/service/registerx"), (Endpoint::AgentService, "registerx"));
        let deep = "/v1/agent/service/deregister/a/b/c/d/e";
        assert_eq!(endpoint(deep), (Endpoint::AgentServiceDeregister, "a/b/c/d/e"));
        assert_eq!(endpoint("/v1/health/service/"), (Endpoint::HealthService, ""));
        assert_eq!(endpoint("/v1/kv/a/b"), (Endpoint::Kv, "a/b"));
    }

    #[test]
    fn a_prefix_without_its_slash_is_redirected() {
        assert_eq!(route("/v1/kv"), Route::AddSlash);
        assert_eq!(route("/v1/agent/service"), Route::AddSlash);
        assert_eq!(route("/v1/nope"), Route::Unknown);
        assert_eq!(route("/ui/"), Route::Unknown);
        assert_eq!(route("/"), Route::Index);
    }
}
