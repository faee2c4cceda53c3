//! What the catalog holds: nodes, services, checks and coordinates, as plain values.
//!
//! Shapes follow http-api.md §2. Indexes are zero until the catalog stores the value.

use crate::coordinate::Coordinate;
use crate::id::{CheckId, ModifyIndex, NodeId, NodeName, ServiceId, ServiceName};
use crate::{pack_enum, pack_struct};
use std::collections::BTreeMap;
use std::time::Duration;

/// A machine in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its identity; `None` for nodes registered without one.
    pub id: Option<NodeId>,
    /// Its name.
    pub name: NodeName,
    /// An IP address or a host name, as registered.
    pub address: String,
    /// Further addresses by tag: `lan`, `wan`, `lan_ipv4`, …
    pub tagged_addresses: BTreeMap<String, String>,
    /// Free metadata.
    pub meta: BTreeMap<String, String>,
    /// When it was first stored.
    pub create_index: ModifyIndex,
    /// When it last changed.
    pub modify_index: ModifyIndex,
}
pack_struct!(Node { id, name, address, tagged_addresses, meta, create_index, modify_index });

/// One tagged address of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// An IP address or a host name.
    pub address: String,
    /// A port; not range-checked, as Consul's is not.
    pub port: i64,
}
pack_struct!(ServiceAddress { address, port });

/// DNS weights of a service instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weights {
    /// Weight while passing.
    pub passing: i64,
    /// Weight while in warning.
    pub warning: i64,
}
pack_struct!(Weights { passing, warning });

impl Weights {
    /// Whether both are within the range of a DNS weight and a passing instance has some.
    pub fn is_legal(self) -> bool {
        (1..=65_535).contains(&self.passing) && (0..=65_535).contains(&self.warning)
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// Where a node is in one pool of gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCoordinate {
    /// The node.
    pub node: NodeName,
    /// The segment of the network that the pool covers; empty, since segments are not built.
    pub segment: String,
    /// Where it is.
    pub coordinate: Coordinate,
}
pack_struct!(NodeCoordinate { node, segment, coordinate });

/// One service instance on one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Unique on its node.
    pub id: ServiceId,
    /// The service it is an instance of.
    pub name: ServiceName,
    /// Tags, in the order given.
    pub tags: Vec<String>,
    /// Its own address, or empty for the node's.
    pub address: String,
    /// Further addresses by tag.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Free metadata.
    pub meta: BTreeMap<String, String>,
    /// Its port; 0 for none. Not range-checked, as Consul's is not.
    pub port: i64,
    /// DNS weights.
    pub weights: Weights,
    /// Whether tags edited in the catalog win over the agent's.
    pub enable_tag_override: bool,
    /// When it was first stored.
    pub create_index: ModifyIndex,
    /// When it last changed.
    pub modify_index: ModifyIndex,
}
pack_struct!(Service {
    id,
    name,
    tags,
    address,
    tagged_addresses,
    meta,
    port,
    weights,
    enable_tag_override,
    create_index,
    modify_index,
});

/// The state of a check. The catalog stores any text; agents use three.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckStatus {
    /// Healthy.
    Passing,
    /// Degraded.
    Warning,
    /// Unhealthy.
    Critical,
    /// Any other text a catalog registration gave.
    Other(String),
}
pack_enum!(CheckStatus { 0 => Passing, 1 => Warning, 2 => Critical, 3 => Other(String) });

impl CheckStatus {
    /// The status with this text.
    pub fn from_text(text: &str) -> Self {
        match text {
            "passing" => Self::Passing,
            "warning" => Self::Warning,
            "critical" => Self::Critical,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The text clients see.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Other(text) => text,
        }
    }
}

/// The definition that a catalog registration may attach to a check; agents tell of theirs only
/// after how long a service goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckRecipe {
    /// Time between runs.
    pub interval: Duration,
    /// Bytes of output kept.
    pub output_max_size: u64,
    /// Time allowed for a run.
    pub timeout: Duration,
    /// How long critical until its service is removed.
    pub deregister_critical_service_after: Duration,
    /// URL to fetch.
    pub http: String,
    /// Whether certificates go unchecked.
    pub tls_skip_verify: bool,
    /// Request headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// Request method.
    pub method: String,
    /// Request body.
    pub body: String,
    /// `host:port` to connect to.
    pub tcp: String,
    /// Command and arguments.
    pub script_args: Vec<String>,
    /// Container to run in.
    pub docker_container_id: String,
    /// Shell to run with.
    pub shell: String,
    /// gRPC target.
    pub grpc: String,
    /// Whether gRPC uses TLS.
    pub grpc_use_tls: bool,
    /// Node whose health is mirrored.
    pub alias_node: String,
    /// Service whose health is mirrored.
    pub alias_service: String,
    /// Time to live.
    pub ttl: Duration,
}
pack_struct!(CheckRecipe {
    interval,
    output_max_size,
    timeout,
    deregister_critical_service_after,
    http,
    tls_skip_verify,
    header,
    method,
    body,
    tcp,
    script_args,
    docker_container_id,
    shell,
    grpc,
    grpc_use_tls,
    alias_node,
    alias_service,
    ttl,
});

impl CheckRecipe {
    /// The `Type` that clients see, derived from what is set; empty if nothing that can run is.
    pub fn kind(&self) -> &'static str {
        let periodic = !self.interval.is_zero();
        if periodic && !self.grpc.is_empty() {
            "grpc"
        } else if periodic && !self.http.is_empty() {
            "http"
        } else if !self.ttl.is_zero() {
            "ttl"
        } else if periodic && !self.tcp.is_empty() {
            "tcp"
        } else if !self.alias_node.is_empty() || !self.alias_service.is_empty() {
            "alias"
        } else if periodic && !self.docker_container_id.is_empty() {
            "docker"
        } else if periodic && !self.script_args.is_empty() {
            "script"
        } else {
            ""
        }
    }
}

/// One health check on one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The node it belongs to.
    pub node: NodeName,
    /// Unique on its node.
    pub id: CheckId,
    /// For people.
    pub name: String,
    /// Its state.
    pub status: CheckStatus,
    /// For people.
    pub notes: String,
    /// What the last run said.
    pub output: String,
    /// The instance it belongs to; `None` for a check of the whole node.
    pub service_id: Option<ServiceId>,
    /// That instance's service name, filled in by the catalog; empty for a node check.
    pub service_name: String,
    /// That instance's tags, filled in by the catalog.
    pub service_tags: Vec<String>,
    /// `ttl`, `http`, `tcp`, `script`, or empty.
    pub kind: String,
    /// What a catalog registration attached.
    pub recipe: CheckRecipe,
    /// When it was first stored.
    pub create_index: ModifyIndex,
    /// When it last changed.
    pub modify_index: ModifyIndex,
}
pack_struct!(Check {
    node,
    id,
    name,
    status,
    notes,
    output,
    service_id,
    service_name,
    service_tags,
    kind,
    recipe,
    create_index,
    modify_index,
});
