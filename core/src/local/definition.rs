//! What an operator or a program registers on this agent: services and runnable checks.
//!
//! Values of these types are already validated and defaulted (http-api.md §5.1, §6.1); the border
//! (HTTP, configuration files) turns text into them with [`CheckSource::kind`].

use crate::catalog::model::{CheckStatus, Service};
use crate::id::{CheckId, ServiceId};
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
}
pack_enum!(CheckKind {
    1 => Ttl(Duration),
    2 => Http(HttpCheck),
    3 => Tcp(TcpCheck),
    4 => Script(ScriptCheck),
    5 => Maintenance,
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
        }
    }

    /// Time between runs and time allowed for one; `None` for a check that does not run.
    pub const fn pace(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::Http(http) => Some((http.interval, http.timeout)),
            Self::Tcp(tcp) => Some((tcp.interval, tcp.timeout)),
            Self::Script(script) => Some((script.interval, script.timeout)),
            Self::Ttl(_) | Self::Maintenance => None,
        }
    }

    /// The time to live of a check that is reported.
    pub const fn ttl(&self) -> Option<Duration> {
        match self {
            Self::Ttl(ttl) => Some(*ttl),
            Self::Http(_) | Self::Tcp(_) | Self::Script(_) | Self::Maintenance => None,
        }
    }
}

/// A check that fetches a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The URL; `http` only until TLS is built.
    pub url: String,
    /// The method; `GET` by default.
    pub method: String,
    /// Headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: String,
    /// Time between runs, at least 1 s.
    pub interval: Duration,
    /// Time allowed for a run; 10 s by default.
    pub timeout: Duration,
}
pack_struct!(HttpCheck { url, method, header, body, interval, timeout });

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
    /// Bytes of output kept, at most 4096.
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

/// Bytes of check output kept by default, and at most.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// The shortest interval between runs; shorter ones are raised to it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Why a check definition was refused; texts as clients know them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// Nothing says how the check finds out.
    #[error("TTL must be > 0 for TTL checks")]
    NoKind,
    /// A running check needs an interval.
    #[error("Interval must be > 0 for Script, HTTP, or TCP checks")]
    NoInterval,
    /// A check either runs or is reported.
    #[error("Interval and TTL cannot both be specified")]
    IntervalAndTtl,
    /// The limit of kept output was negative.
    #[error("MaxOutputMaxSize must be positive")]
    OutputLimit,
    /// A kind of check that is not built yet.
    #[error("{0} checks are not built yet")]
    NotBuilt(&'static str),
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
    /// gRPC target.
    pub grpc: String,
    /// Whether certificates go unchecked.
    pub tls_skip_verify: bool,
    /// Node or service whose health is mirrored.
    pub alias: bool,
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
        let runs = !(self.args.is_empty() && self.http.is_empty() && self.tcp.is_empty());
        if !self.grpc.is_empty() {
            return Err(CheckError::NotBuilt("gRPC"));
        }
        if self.alias {
            return Err(CheckError::NotBuilt("alias"));
        }
        if !self.docker_container_id.is_empty() {
            return Err(CheckError::NotBuilt("Docker"));
        }
        if !self.interval.is_zero() && !self.ttl.is_zero() {
            return Err(CheckError::IntervalAndTtl);
        }
        if runs && self.interval.is_zero() && self.ttl.is_zero() {
            return Err(CheckError::NoInterval);
        }
        let interval = self.interval.max(INTERVAL_MIN);
        let timeout = |default| if self.timeout.is_zero() { default } else { self.timeout };
        if !self.http.is_empty() {
            if self.http.starts_with("https:") || self.tls_skip_verify {
                return Err(CheckError::NotBuilt("HTTPS"));
            }
            let method = if self.method.is_empty() { "GET".to_owned() } else { self.method };
            let timeout = timeout(Duration::from_secs(10));
            let (url, header, body) = (self.http, self.header, self.body);
            return Ok(CheckKind::Http(HttpCheck { url, method, header, body, interval, timeout }));
        }
        if !self.ttl.is_zero() {
            return Ok(CheckKind::Ttl(self.ttl));
        }
        if !self.tcp.is_empty() {
            let timeout = timeout(Duration::from_secs(10));
            return Ok(CheckKind::Tcp(TcpCheck { target: self.tcp, interval, timeout }));
        }
        if !self.args.is_empty() {
            let timeout = timeout(Duration::from_secs(30));
            return Ok(CheckKind::Script(ScriptCheck { args: self.args, interval, timeout }));
        }
        Err(CheckError::NoKind)
    }
}
