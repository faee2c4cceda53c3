//! What an operator or a program registers on this agent: services and runnable checks.
//!
//! Values of these types are already validated and defaulted (http-api.md §5.1, §6.1); the border
//! (HTTP, configuration files) turns text into them with [`CheckSource::kind`].

use crate::catalog::model::{CheckStatus, Service};
use crate::id::{CheckId, NameError, NodeName, ServiceId};
use crate::{pack_enum, pack_struct};
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// Where a registration came from; file definitions are not persisted and win over others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The HTTP interface.
    Api,
    /// A configuration file.
    File,
}
pack_enum!(Origin { 0 => Api, 1 => File });

/// A service with its checks, as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDefinition {
    /// The instance.
    pub service: Service,
    /// Its checks; `service_id` names the instance.
    pub checks: Vec<CheckDefinition>,
    /// The token to register it with; kept, not yet used.
    pub token: String,
    /// Where it came from.
    pub origin: Origin,
}
pack_struct!(ServiceDefinition { service, checks, token, origin });

/// How a check finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A program reports in time.
    Ttl(Duration),
    /// The agent fetches a URL.
    Http(HttpCheck),
    /// The agent connects.
    Tcp(TcpCheck),
    /// The agent runs a command.
    Script(ScriptCheck),
    /// It is there, and so critical, for as long as somebody wants no traffic here.
    Maintenance,
    /// It mirrors the health of something else.
    Alias(AliasCheck),
    /// The agent sends a datagram.
    Udp(UdpCheck),
    /// The agent has a command run in a container.
    Docker(DockerCheck),
    /// The agent asks by the health protocol of gRPC.
    Grpc(GrpcCheck),
}
pack_enum!(CheckKind {
    1 => Ttl(Duration),
    2 => Http(HttpCheck),
    3 => Tcp(TcpCheck),
    4 => Script(ScriptCheck),
    5 => Maintenance,
    6 => Alias(AliasCheck),
    7 => Udp(UdpCheck),
    8 => Docker(DockerCheck),
    9 => Grpc(GrpcCheck),
});

impl CheckKind {
    /// The `Type` that clients see.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ttl(_) => "ttl",
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Script(_) => "script",
            Self::Maintenance => "maintenance",
            Self::Alias(_) => "alias",
            Self::Udp(_) => "udp",
            Self::Docker(_) => "docker",
            Self::Grpc(_) => "grpc",
        }
    }

    /// Whether a run starts a program, here or in a container.
    pub const fn starts_programs(&self) -> bool {
        matches!(self, Self::Script(_) | Self::Docker(_))
    }

    /// Time between runs and time allowed for one; `None` for a check that does not run.
    pub const fn pace(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::Http(http) => Some((http.interval, http.timeout)),
            Self::Tcp(tcp) => Some((tcp.interval, tcp.timeout)),
            Self::Udp(udp) => Some((udp.interval, udp.timeout)),
            Self::Grpc(grpc) => Some((grpc.interval, grpc.timeout)),
            Self::Script(script) => Some((script.interval, script.timeout)),
            Self::Docker(docker) => Some((docker.interval, docker.timeout)),
            Self::Ttl(_) | Self::Maintenance | Self::Alias(_) => None,
        }
    }

    /// The time to live of a check that is reported.
    pub const fn ttl(&self) -> Option<Duration> {
        match self {
            Self::Ttl(ttl) => Some(*ttl),
            Self::Http(_)
            | Self::Tcp(_)
            | Self::Udp(_)
            | Self::Grpc(_)
            | Self::Script(_)
            | Self::Docker(_)
            | Self::Maintenance
            | Self::Alias(_) => None,
        }
    }
}

/// A check that fetches a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The URL, `http` or `https`.
    pub url: String,
    /// The method; `GET` by default.
    pub method: String,
    /// Headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: String,
    /// Whether any certificate will do.
    pub tls_skip_verify: bool,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 10 s by default.
    pub timeout: Duration,
}
pack_struct!(HttpCheck { url, method, header, body, tls_skip_verify, interval, timeout });

/// A check that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCheck {
    /// `host:port`.
    pub target: String,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 10 s by default.
    pub timeout: Duration,
}
pack_struct!(TcpCheck { target, interval, timeout });

/// A check that sends a datagram: passing unless the other machine says that nobody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpCheck {
    /// `host:port`.
    pub target: String,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// How long silence is waited for; 10 s by default.
    pub timeout: Duration,
}
pack_struct!(UdpCheck { target, interval, timeout });

/// A check that asks a server by the health protocol of gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// `host:port`.
    pub target: String,
    /// The service asked about; empty for the server itself.
    pub service: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Whether any certificate will do then.
    pub tls_skip_verify: bool,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 10 s by default.
    pub timeout: Duration,
}
pack_struct!(GrpcCheck { target, service, tls, tls_skip_verify, interval, timeout });

/// A check that is as bad as the checks of a node and of a service on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasCheck {
    /// The node; `None` for this one.
    pub node: Option<NodeName>,
    /// The instance on it; `None` for the node alone.
    pub service: Option<ServiceId>,
}
pack_struct!(AliasCheck { node, service });

/// What an alias says if nothing is wrong.
pub(crate) const ALL_PASSING: &str = "All checks passing.";

/// What an alias says of the check that is wrong.
pub(crate) fn failing_text(name: &str, output: &str, limit: usize) -> String {
    cut_note(&format!("Aliased check {name:?} failing: {output}"), limit)
}

/// Cuts a note to `limit` bytes and says so (http-api.md §5.2).
pub(crate) fn cut_note(note: &str, limit: usize) -> String {
    if note.len() <= limit {
        return note.to_owned();
    }
    let head = note.get(..note.floor_char_boundary(limit)).unwrap_or_default();
    format!("{head} ... (captured {limit} of {} bytes)", note.len())
}

/// A check that runs a command, without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptCheck {
    /// The executable and its arguments; never empty.
    pub args: Vec<String>,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 30 s by default.
    pub timeout: Duration,
}
pack_struct!(ScriptCheck { args, interval, timeout });

/// A check that has the docker engine run a command in a container, without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerCheck {
    /// The container's name or id.
    pub container: String,
    /// The executable and its arguments; never empty.
    pub args: Vec<String>,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 30 s by default.
    pub timeout: Duration,
}
pack_struct!(DockerCheck { container, args, interval, timeout });

/// A check as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckDefinition {
    /// Unique on this agent.
    pub id: CheckId,
    /// For people.
    pub name: String,
    /// For people.
    pub notes: String,
    /// The local service it belongs to; `None` for the node.
    pub service_id: Option<ServiceId>,
    /// Its state before the first result; critical by default.
    pub status: CheckStatus,
    /// How it finds out.
    pub kind: CheckKind,
    /// Bytes of output kept, 0 for as many as the agent keeps at most ([`OutputRules`]).
    pub output_max_size: usize,
    /// Equal results needed before it turns passing.
    pub success_before_passing: u32,
    /// Equal results needed before it turns critical.
    pub failures_before_critical: u32,
    /// How long critical until its service is removed, at least 1 min.
    pub deregister_critical_service_after: Option<Duration>,
    /// The token to register it with; kept, not yet used.
    pub token: String,
    /// Where it came from.
    pub origin: Origin,
}
pack_struct!(CheckDefinition {
    id,
    name,
    notes,
    service_id,
    status,
    kind,
    output_max_size,
    success_before_passing,
    failures_before_critical,
    deregister_critical_service_after,
    token,
    origin,
});

/// What is kept of what checks say (`check_output_max_size`, `discard_check_output`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRules {
    /// Bytes of the output of each check at most.
    pub bytes_max: usize,
    /// Whether nothing is kept.
    pub discard: bool,
}
pack_struct!(OutputRules { bytes_max, discard });

impl Default for OutputRules {
    fn default() -> Self {
        Self { bytes_max: OUTPUT_BYTES_MAX, discard: false }
    }
}

impl OutputRules {
    /// Bytes of output that are kept of a check.
    pub fn limit(self, definition: &CheckDefinition) -> usize {
        match definition.output_max_size {
            0 => self.bytes_max,
            own => own.min(self.bytes_max),
        }
    }
}

/// Bytes of check output kept by default.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// The shortest interval between runs; shorter ones are raised to it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The shortest time for which a check is critical before its service goes; shorter ones are raised
/// to it.
pub const DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);

/// Why a check definition was refused; texts as clients know them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// Nothing says how the check finds out.
    #[error("TTL must be > 0 for TTL checks")]
    NoKind,
    /// A running check needs an interval.
    #[error("Interval must be > 0 for Script, HTTP, or TCP checks")]
    NoInterval,
    /// An alias looks by itself.
    #[error("Interval cannot be set for Alias checks")]
    AliasRuns,
    /// An alias is not reported.
    #[error("TTL must be not be set for Alias checks")]
    AliasTtl,
    /// What an alias is to watch has an impossible name.
    #[error("Alias: {0}")]
    AliasName(#[from] NameError),
    /// A check either runs or is reported.
    #[error("Interval and TTL cannot both be specified")]
    IntervalAndTtl,
    /// The limit of kept output was negative.
    #[error("MaxOutputMaxSize must be positive")]
    OutputLimit,
}

/// The parts of a check's definition that say how it finds out, before validation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSource {
    /// URL to fetch.
    pub http: String,
    /// Method.
    pub method: String,
    /// Headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// Body.
    pub body: String,
    /// `host:port`.
    pub tcp: String,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Container to run in.
    pub docker_container_id: String,
    /// gRPC target: `host:port`, perhaps with `/service` behind it.
    pub grpc: String,
    /// Whether gRPC is encrypted.
    pub grpc_use_tls: bool,
    /// Whether certificates go unchecked.
    pub tls_skip_verify: bool,
    /// `host:port` for a datagram.
    pub udp: String,
    /// Node whose health is mirrored.
    pub alias_node: String,
    /// Instance whose health is mirrored.
    pub alias_service: String,
    /// Time to live.
    pub ttl: Duration,
    /// Time between runs.
    pub interval: Duration,
    /// Time allowed for a run; zero for the default.
    pub timeout: Duration,
}

impl CheckSource {
    /// Decides what kind of check this is; several kinds at once follow Consul's precedence.
    ///
    /// - Source: http-api.md §5.1.
    /// - Errors: the first broken rule.
    pub fn kind(self) -> Result<CheckKind, CheckError> {
        let targets = [&self.http, &self.tcp, &self.udp, &self.grpc];
        let runs = !self.args.is_empty() || targets.iter().any(|target| !target.is_empty());
        let alias = !(self.alias_node.is_empty() && self.alias_service.is_empty());
        let (interval, ttl) = (!self.interval.is_zero(), !self.ttl.is_zero());
        match (runs, alias) {
            (_, _) if interval && ttl => Err(CheckError::IntervalAndTtl),
            (true, _) if !interval => Err(CheckError::NoInterval),
            (true, true) => Err(CheckError::AliasRuns),
            (false, true) if ttl => Err(CheckError::AliasTtl),
            (false, false) if !ttl => Err(CheckError::NoKind),
            (true, false) => self.running(),
            (false, true) => self.alias(),
            (false, false) => Ok(CheckKind::Ttl(self.ttl)),
        }
    }

    fn alias(self) -> Result<CheckKind, CheckError> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let node = given(self.alias_node).map(|name| NodeName::parse(&name)).transpose()?;
        let service = given(self.alias_service).map(|id| ServiceId::parse(&id)).transpose()?;
        Ok(CheckKind::Alias(AliasCheck { node, service }))
    }

    fn running(self) -> Result<CheckKind, CheckError> {
        let interval = self.interval.max(INTERVAL_MIN);
        let timeout = |default| if self.timeout.is_zero() { default } else { self.timeout };
        if !self.grpc.is_empty() {
            let (target, service) = self.grpc.split_once('/').unwrap_or((&self.grpc, ""));
            return Ok(CheckKind::Grpc(GrpcCheck {
                target: target.to_owned(),
                service: service.to_owned(),
                tls: self.grpc_use_tls,
                tls_skip_verify: self.tls_skip_verify,
                interval,
                timeout: timeout(Duration::from_secs(10)),
            }));
        }
        if !self.http.is_empty() {
            let method = if self.method.is_empty() { "GET".to_owned() } else { self.method };
            let timeout = timeout(Duration::from_secs(10));
            return Ok(CheckKind::Http(HttpCheck {
                url: self.http,
                method,
                header: self.header,
                body: self.body,
                tls_skip_verify: self.tls_skip_verify,
                interval,
                timeout,
            }));
        }
        if !self.tcp.is_empty() {
            let timeout = timeout(Duration::from_secs(10));
            return Ok(CheckKind::Tcp(TcpCheck { target: self.tcp, interval, timeout }));
        }
        if !self.udp.is_empty() {
            let timeout = timeout(Duration::from_secs(10));
            return Ok(CheckKind::Udp(UdpCheck { target: self.udp, interval, timeout }));
        }
        if !self.docker_container_id.is_empty() {
            let (container, args) = (self.docker_container_id, self.args);
            let timeout = timeout(Duration::from_secs(30));
            return Ok(CheckKind::Docker(DockerCheck { container, args, interval, timeout }));
        }
        let timeout = timeout(Duration::from_secs(30));
        Ok(CheckKind::Script(ScriptCheck { args: self.args, interval, timeout }))
    }
}
