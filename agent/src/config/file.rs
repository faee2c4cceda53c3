//! One configuration file: its text to the settings it gives, every key checked.
//!
//! Keys are matched without regard to case. Unknown keys are refused with their dotted path, all of
//! them at once; wrong types name the key and the type (agent-config.md §3). A known key whose
//! feature is not built is reported as [`Unbuilt`], for the caller to warn of or to refuse
//! (DESIGN.md §8).

mod host;
mod network;
mod tuning;

pub use network::NetworkSettings;
pub use tuning::TuningSettings;

use super::definition;
use super::hcl;
use super::host::HostSettings;
use super::keys::{self, Safety};
use super::telemetry::TelemetrySettings;
use super::watches;
use crate::watch::WatchDefinition;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::local::definition::{CheckDefinition, ServiceDefinition};
use thiserror::Error;

/// Bytes a configuration file may have.
pub(super) const FILE_BYTES_MAX: usize = 4 << 20;

/// What one source of configuration says; what it does not mention is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `server`
    pub server: Option<bool>,
    /// `bootstrap`
    pub bootstrap: Option<bool>,
    /// `bootstrap_expect`
    pub bootstrap_expect: Option<i64>,
    /// `non_voting_server`
    pub non_voting_server: Option<bool>,
    /// `autopilot.cleanup_dead_servers`
    pub autopilot_cleanup_dead_servers: Option<bool>,
    /// `autopilot.last_contact_threshold`
    pub autopilot_last_contact_threshold: Option<Duration>,
    /// `autopilot.max_trailing_logs`
    pub autopilot_max_trailing_logs: Option<i64>,
    /// `autopilot.min_quorum`
    pub autopilot_min_quorum: Option<i64>,
    /// `autopilot.server_stabilization_time`
    pub autopilot_server_stabilization_time: Option<Duration>,
    /// `autopilot.dead_server_grace`
    pub autopilot_dead_server_grace: Option<Duration>,
    /// `data_dir`
    pub data_dir: Option<String>,
    /// `node_name`
    pub node_name: Option<String>,
    /// `node_id`
    pub node_id: Option<String>,
    /// `bind_addr`
    pub bind_addr: Option<String>,
    /// `advertise_addr`
    pub advertise_addr: Option<String>,
    /// `advertise_addr_wan`
    pub advertise_addr_wan: Option<String>,
    /// `serf_wan`
    pub serf_wan: Option<String>,
    /// `client_addr`
    pub client_addr: Option<String>,
    /// `addresses.*`, by listener
    pub addresses: BTreeMap<String, String>,
    /// `ports.*`, by listener
    pub ports: BTreeMap<String, i64>,
    /// `datacenter`
    pub datacenter: Option<String>,
    /// `domain`
    pub domain: Option<String>,
    /// `alt_domain`
    pub alt_domain: Option<String>,
    /// `recursors`
    pub recursors: Vec<String>,
    /// `translate_wan_addrs`
    pub translate_wan_addrs: Option<bool>,
    /// `log_level`
    pub log_level: Option<String>,
    /// `start_join`
    pub start_join: Vec<String>,
    /// `retry_join`
    pub retry_join: Vec<String>,
    /// `retry_interval`
    pub retry_interval: Option<Duration>,
    /// `retry_max`
    pub retry_max: Option<i64>,
    /// `start_join_wan`
    pub start_join_wan: Vec<String>,
    /// `retry_join_wan`
    pub retry_join_wan: Vec<String>,
    /// `retry_interval_wan`
    pub retry_interval_wan: Option<Duration>,
    /// `retry_max_wan`
    pub retry_max_wan: Option<i64>,
    /// `encrypt`
    pub encrypt: Option<String>,
    /// `encrypt_verify_incoming`
    pub encrypt_verify_incoming: Option<bool>,
    /// `encrypt_verify_outgoing`
    pub encrypt_verify_outgoing: Option<bool>,
    /// `disable_keyring_file`
    pub disable_keyring_file: Option<bool>,
    /// `disable_coordinates`
    pub disable_coordinates: Option<bool>,
    /// `disable_remote_exec`
    pub disable_remote_exec: Option<bool>,
    /// `rejoin_after_leave`
    pub rejoin_after_leave: Option<bool>,
    /// `skip_leave_on_interrupt`
    pub skip_leave_on_interrupt: Option<bool>,
    /// `leave_on_terminate`
    pub leave_on_terminate: Option<bool>,
    /// `enable_script_checks`
    pub enable_script_checks: Option<bool>,
    /// `enable_local_script_checks`
    pub enable_local_script_checks: Option<bool>,
    /// `check_update_interval`
    pub check_update_interval: Option<Duration>,
    /// `reconnect_timeout`
    pub reconnect_timeout: Option<Duration>,
    /// `reconnect_timeout_wan`
    pub reconnect_timeout_wan: Option<Duration>,
    /// `node_meta`
    pub node_meta: BTreeMap<String, String>,
    /// `performance.raft_multiplier`
    pub raft_multiplier: Option<i64>,
    /// `session_ttl_min`
    pub session_ttl_min: Option<Duration>,
    /// `default_query_time`
    pub default_query_time: Option<Duration>,
    /// `max_query_time`
    pub max_query_time: Option<Duration>,
    /// `discovery_max_stale`
    pub discovery_max_stale: Option<Duration>,
    /// `disable_http_unprintable_char_filter`
    pub disable_http_unprintable_char_filter: Option<bool>,
    /// `http_config.block_endpoints`
    pub http_block_endpoints: Vec<String>,
    /// `http_config.allow_write_http_from`
    pub http_allow_write_from: Vec<String>,
    /// `http_config.response_headers`
    pub http_response_headers: BTreeMap<String, String>,
    /// `limits.http_max_conns_per_client`
    pub http_max_conns_per_client: Option<i64>,
    /// `performance.rpc_hold_timeout`
    pub rpc_hold_timeout: Option<Duration>,
    /// `gossip_lan.*` and `gossip_wan.*` durations, by path
    pub gossip_durations: BTreeMap<String, Duration>,
    /// `gossip_lan.*` and `gossip_wan.*` numbers, by path
    pub gossip_numbers: BTreeMap<String, i64>,
    /// `dns_config.*` switches, by key
    pub dns_switches: BTreeMap<String, bool>,
    /// `dns_config.*` numbers, by key
    pub dns_numbers: BTreeMap<String, i64>,
    /// `dns_config.*` durations, by key
    pub dns_durations: BTreeMap<String, Duration>,
    /// `dns_config.soa.*`, by key
    pub dns_soa: BTreeMap<String, i64>,
    /// `dns_config.service_ttl`, by service
    pub dns_service_ttl: BTreeMap<String, Duration>,
    /// `http_config.use_cache`
    pub use_cache: Option<bool>,
    /// The log's files, syslog and the like.
    pub host: HostSettings,
    /// `telemetry.*`
    pub telemetry: TelemetrySettings,
    /// `service` and `services`
    pub services: Vec<ServiceDefinition>,
    /// `check` and `checks`
    pub checks: Vec<CheckDefinition>,
    /// Addresses besides the main ones, by key
    pub network: NetworkSettings,
    /// Sizes, paces and times, by key
    pub tuning: TuningSettings,
    /// `watches`
    pub watches: Vec<WatchDefinition>,
    /// Known settings that are given but not built.
    pub unbuilt: Vec<Unbuilt>,
}

/// A known setting whose feature is not built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbuilt {
    /// Its dotted key.
    pub key: String,
    /// What leaving it out means.
    pub safety: Safety,
}

/// Why a file was refused. The operator is at fault; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// The file is too long.
    #[error("the file is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// The text is not of its language.
    #[error("{0}")]
    Syntax(String),
    /// The text is JSON but not an object.
    #[error("a configuration must be one JSON object")]
    NotAnObject,
    /// Keys nobody knows.
    #[error("{} error(s) occurred:{}", .0.len(), bullets(.0))]
    UnknownKeys(Vec<String>),
    /// Values of the wrong type.
    #[error("{} error(s) decoding:{}", .0.len(), bullets(.0))]
    Types(Vec<String>),
    /// Values that break a rule.
    #[error("{} error occurred:{}", .0.len(), bullets(.0))]
    Values(Vec<String>),
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n * {line}")).collect()
}

/// The language of a source of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, RFC 8259.
    Json,
    /// HCL, or JSON that begins with `{`.
    Hcl,
}

impl Format {
    /// The format that `-config-format` or the ending of a file's name says.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "hcl" => Some(Self::Hcl),
            _ => None,
        }
    }
}

/// Reads the JSON text of one configuration file; an empty one says nothing.
pub fn parse(text: &str) -> Result<Settings, FileError> {
    parse_as(Format::Json, text)
}

/// Reads the text of one configuration file; an empty one says nothing.
pub fn parse_as(format: Format, text: &str) -> Result<Settings, FileError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLong);
    }
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    let is_json = format == Format::Json || text.trim_start().starts_with('{');
    let object = if is_json {
        let value = serde_json::from_str(text);
        let value = value.map_err(|error: serde_json::Error| FileError::Syntax(error.to_string()));
        let Value::Object(object) = value? else { return Err(FileError::NotAnObject) };
        object
    } else {
        hcl::parse(text).map_err(|error| FileError::Syntax(error.to_string()))?
    };
    let mut reader = FileReader::default();
    for (key, value) in object {
        let key = key.to_ascii_lowercase();
        let value = unwrapped(value, LISTS.contains(&key.as_str()), is_json);
        reader.top(&key, &value);
    }
    reader.finish()
}

/// Keys whose values are lists of objects, at the top and in services.
const LISTS: [&str; 4] = ["checks", "segments", "services", "watches"];

/// Takes an object out of the list around it if it is alone there and no list is wanted: in HCL
/// both are the same, and so it is for Consul in JSON. A block that is wanted as a list becomes
/// one.
fn unwrapped(value: Value, is_list: bool, is_json: bool) -> Value {
    let inside = |value| unwrapped(value, false, is_json);
    match value {
        Value::Array(mut items) => match items.as_mut_slice() {
            [only @ Value::Object(_)] if !is_list => inside(only.take()),
            _ => items.into_iter().map(inside).collect(),
        },
        Value::Object(object) => {
            let entry = |(key, value): (String, Value)| {
                let is_list = LISTS.contains(&key.to_ascii_lowercase().as_str());
                (key, unwrapped(value, is_list, is_json))
            };
            let object = Value::Object(object.into_iter().map(entry).collect());
            if is_list && !is_json { Value::Array(vec![object]) } else { object }
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Collects settings and everything wrong with a file.
#[derive(Default)]
struct FileReader {
    settings: Settings,
    unknown: Vec<String>,
    types: Vec<String>,
    values: Vec<String>,
}

impl FileReader {
    fn finish(self) -> Result<Settings, FileError> {
        if !self.unknown.is_empty() {
            let keys = self.unknown.iter().map(|key| format!("invalid config key {key}"));
            return Err(FileError::UnknownKeys(keys.collect()));
        }
        if !self.types.is_empty() {
            return Err(FileError::Types(self.types));
        }
        if !self.values.is_empty() {
            return Err(FileError::Values(self.values));
        }
        Ok(self.settings)
    }

    fn top(&mut self, key: &str, value: &Value) {
        let is_plain = |reader: &mut Self| {
            reader.scalar(key, value)
                || reader.host(key, value)
                || reader.network(key, value)
                || reader.tuning(key, value)
        };
        if value.is_null() || is_plain(self) || self.collection(key, value) {
            return;
        }
        match key {
            "ports" | "addresses" | "performance" | "gossip_lan" | "gossip_wan" | "dns_config"
            | "autopilot" | "telemetry" | "http_config" | "limits" | "unix_sockets" => {
                self.section(key, value)
            }
            _ => self.unbuilt(key, value),
        }
    }

    /// The plain keys; `true` if `key` is one of them.
    fn scalar(&mut self, key: &str, value: &Value) -> bool {
        match key {
            "server" => self.settings.server = self.boolean(key, value),
            "bootstrap" => self.settings.bootstrap = self.boolean(key, value),
            "bootstrap_expect" => self.settings.bootstrap_expect = self.integer(key, value),
            "non_voting_server" => self.settings.non_voting_server = self.boolean(key, value),
            "data_dir" => self.settings.data_dir = self.text(key, value),
            "node_name" => self.settings.node_name = self.text(key, value),
            "node_id" => self.settings.node_id = self.text(key, value),
            "bind_addr" => self.settings.bind_addr = self.text(key, value),
            "advertise_addr" => self.settings.advertise_addr = self.text(key, value),
            "advertise_addr_wan" => self.settings.advertise_addr_wan = self.text(key, value),
            "serf_wan" => self.settings.serf_wan = self.text(key, value),
            "client_addr" => self.settings.client_addr = self.text(key, value),
            "datacenter" => self.settings.datacenter = self.text(key, value),
            "domain" => self.settings.domain = self.text(key, value),
            "alt_domain" => self.settings.alt_domain = self.text(key, value),
            "translate_wan_addrs" => self.settings.translate_wan_addrs = self.boolean(key, value),
            "log_level" => self.settings.log_level = self.text(key, value),
            "retry_interval" => self.settings.retry_interval = self.duration(key, value),
            "retry_max" => self.settings.retry_max = self.integer(key, value),
            "retry_interval_wan" => self.settings.retry_interval_wan = self.duration(key, value),
            "retry_max_wan" => self.settings.retry_max_wan = self.integer(key, value),
            "encrypt" => self.settings.encrypt = self.text(key, value),
            "encrypt_verify_incoming" => {
                self.settings.encrypt_verify_incoming = self.boolean(key, value);
            }
            "encrypt_verify_outgoing" => {
                self.settings.encrypt_verify_outgoing = self.boolean(key, value);
            }
            "disable_keyring_file" => {
                self.settings.disable_keyring_file = self.boolean(key, value);
            }
            "disable_coordinates" => self.settings.disable_coordinates = self.boolean(key, value),
            "disable_remote_exec" => self.settings.disable_remote_exec = self.boolean(key, value),
            "rejoin_after_leave" => self.settings.rejoin_after_leave = self.boolean(key, value),
            "skip_leave_on_interrupt" => {
                self.settings.skip_leave_on_interrupt = self.boolean(key, value);
            }
            "leave_on_terminate" => self.settings.leave_on_terminate = self.boolean(key, value),
            "enable_script_checks" => {
                self.settings.enable_script_checks = self.boolean(key, value);
            }
            "enable_local_script_checks" => {
                self.settings.enable_local_script_checks = self.boolean(key, value);
            }
            "default_query_time" => self.settings.default_query_time = self.duration(key, value),
            "max_query_time" => self.settings.max_query_time = self.duration(key, value),
            "discovery_max_stale" => self.settings.discovery_max_stale = self.duration(key, value),
            "disable_http_unprintable_char_filter" => {
                self.settings.disable_http_unprintable_char_filter = self.boolean(key, value);
            }
            "session_ttl_min" => self.settings.session_ttl_min = self.duration(key, value),
            "check_update_interval" => {
                self.settings.check_update_interval = self.duration(key, value);
            }
            "reconnect_timeout" => self.settings.reconnect_timeout = self.duration(key, value),
            "reconnect_timeout_wan" => {
                self.settings.reconnect_timeout_wan = self.duration(key, value);
            }
            _ => return false,
        }
        true
    }

    /// The keys that hold lists, maps and definitions; `true` if `key` is one of them.
    fn collection(&mut self, key: &str, value: &Value) -> bool {
        match key {
            "start_join" => self.settings.start_join = self.texts(key, value),
            "retry_join" => self.settings.retry_join = self.texts(key, value),
            "start_join_wan" => self.settings.start_join_wan = self.texts(key, value),
            "retry_join_wan" => self.settings.retry_join_wan = self.texts(key, value),
            "recursors" => self.settings.recursors = self.texts(key, value),
            "node_meta" => self.settings.node_meta = self.text_map(key, value),
            "service" => self.services(key, std::slice::from_ref(value)),
            "check" => self.checks(key, std::slice::from_ref(value)),
            "services" => match value.as_array() {
                Some(values) => self.services(key, values),
                None => self.mistyped(key, "list", value),
            },
            "watches" => match value.as_array() {
                Some(values) => self.watches(key, values),
                None => self.mistyped(key, "list", value),
            },
            "checks" => match value.as_array() {
                Some(values) => self.checks(key, values),
                None => self.mistyped(key, "list", value),
            },
            _ => return false,
        }
        true
    }

    fn section(&mut self, name: &str, value: &Value) {
        let Value::Object(object) = value else {
            self.mistyped(name, "map", value);
            return;
        };
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let key = key.to_ascii_lowercase();
            let path = format!("{name}.{key}");
            if !self.section_key(name, &key, &path, value) {
                self.unbuilt(&path, value);
            }
        }
    }

    /// A key of a section; `false` if it is none that is built.
    fn section_key(&mut self, name: &str, key: &str, path: &str, value: &Value) -> bool {
        match (name, key) {
            ("ports", "http" | "dns" | "rpc" | "serf_lan" | "serf_wan" | "server") => {
                if let Some(port) = self.integer(path, value) {
                    self.settings.ports.insert(key.to_owned(), port);
                }
            }
            ("addresses", "http" | "dns" | "rpc") => {
                if let Some(address) = self.text(path, value) {
                    self.settings.addresses.insert(key.to_owned(), address);
                }
            }
            ("performance", "raft_multiplier") => {
                self.settings.raft_multiplier = self.integer(path, value);
            }
            ("performance", "rpc_hold_timeout") => {
                self.settings.rpc_hold_timeout = self.duration(path, value);
            }
            (
                "gossip_lan" | "gossip_wan",
                "gossip_interval" | "probe_interval" | "probe_timeout",
            ) => {
                if let Some(duration) = self.duration(path, value) {
                    self.settings.gossip_durations.insert(path.to_owned(), duration);
                }
            }
            (
                "gossip_lan" | "gossip_wan",
                "gossip_nodes" | "retransmit_mult" | "suspicion_mult",
            ) => {
                if let Some(number) = self.integer(path, value) {
                    self.settings.gossip_numbers.insert(path.to_owned(), number);
                }
            }
            ("dns_config", _) => return self.dns(key, path, value),
            ("http_config", "block_endpoints") => {
                self.settings.http_block_endpoints = self.texts(path, value);
            }
            ("http_config", "allow_write_http_from") => {
                self.settings.http_allow_write_from = self.texts(path, value);
            }
            ("http_config", "response_headers") => {
                self.settings.http_response_headers = self.text_map(path, value);
            }
            ("limits", "http_max_conns_per_client") => {
                self.settings.http_max_conns_per_client = self.integer(path, value);
            }
            ("autopilot", _) => return self.autopilot(key, path, value),
            ("http_config", "use_cache") => self.settings.use_cache = self.boolean(path, value),
            ("telemetry", _) => return self.telemetry(key, path, value),
            ("unix_sockets", _) => return self.host(path, value),
            _ => return self.tuning(path, value),
        }
        true
    }

    fn autopilot(&mut self, key: &str, path: &str, value: &Value) -> bool {
        match key {
            "cleanup_dead_servers" => {
                self.settings.autopilot_cleanup_dead_servers = self.boolean(path, value);
            }
            "last_contact_threshold" => {
                self.settings.autopilot_last_contact_threshold = self.duration(path, value);
            }
            "max_trailing_logs" => {
                self.settings.autopilot_max_trailing_logs = self.integer(path, value);
            }
            "min_quorum" => self.settings.autopilot_min_quorum = self.integer(path, value),
            "server_stabilization_time" => {
                self.settings.autopilot_server_stabilization_time = self.duration(path, value);
            }
            "dead_server_grace" => {
                self.settings.autopilot_dead_server_grace = self.duration(path, value);
            }
            _ => return false,
        }
        true
    }

    fn dns(&mut self, key: &str, path: &str, value: &Value) -> bool {
        match key {
            "only_passing"
            | "enable_truncate"
            | "allow_stale"
            | "enable_additional_node_meta_txt"
            | "disable_compression"
            | "weighted_order"
            | "use_cache" => {
                let switch = self.boolean(path, value).map(|switch| (key.to_owned(), switch));
                self.settings.dns_switches.extend(switch);
            }
            "udp_answer_limit" | "a_record_limit" => {
                let number = self.integer(path, value).map(|number| (key.to_owned(), number));
                self.settings.dns_numbers.extend(number);
            }
            "node_ttl" | "max_stale" | "recursor_timeout" | "cache_max_age" => {
                let duration = self.duration(path, value).map(|time| (key.to_owned(), time));
                self.settings.dns_durations.extend(duration);
            }
            "service_ttl" => {
                self.each(path, value, |reader, service, path, value| {
                    let ttl = reader.duration(path, value).map(|ttl| (service.to_owned(), ttl));
                    reader.settings.dns_service_ttl.extend(ttl);
                });
            }
            "soa" => self.each(path, value, |reader, key, path, value| {
                let key = key.to_ascii_lowercase();
                if matches!(key.as_str(), "refresh" | "retry" | "expire" | "min_ttl") {
                    let number = reader.integer(path, value).map(|number| (key, number));
                    reader.settings.dns_soa.extend(number);
                } else {
                    reader.unknown.push(path.to_ascii_lowercase());
                }
            }),
            _ => return false,
        }
        true
    }

    fn telemetry(&mut self, key: &str, path: &str, value: &Value) -> bool {
        match key {
            "metrics_prefix" | "statsd_address" | "statsite_address" | "dogstatsd_addr" => {
                if let Some(text) = self.text(path, value) {
                    self.settings.telemetry.texts.insert(key.to_owned(), text);
                }
            }
            "disable_hostname" | "filter_default" => {
                if let Some(switch) = self.boolean(path, value) {
                    self.settings.telemetry.switches.insert(key.to_owned(), switch);
                }
            }
            "prometheus_retention_time" => {
                self.settings.telemetry.prometheus_retention = self.duration(path, value);
            }
            "prefix_filter" => self.settings.telemetry.prefix_filter = self.texts(path, value),
            "dogstatsd_tags" => self.settings.telemetry.dogstatsd_tags = self.texts(path, value),
            _ => return false,
        }
        true
    }

    /// Hands every entry of a map to `take`, with its key and its path.
    fn each(&mut self, path: &str, value: &Value, take: impl Fn(&mut Self, &str, &str, &Value)) {
        let Value::Object(object) = value else {
            self.mistyped(path, "map", value);
            return;
        };
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            take(self, key, &format!("{path}.{key}"), value);
        }
    }

    /// A known key that is not built, or one that nobody knows.
    fn unbuilt(&mut self, path: &str, value: &Value) {
        match keys::safety(path) {
            Some(_) if keys::is_off(value) => {}
            Some(safety) => {
                self.settings.unbuilt.push(Unbuilt { key: path.to_owned(), safety });
            }
            None => match value {
                Value::Object(object) if keys::is_section(path) => {
                    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
                        self.unbuilt(&format!("{path}.{}", key.to_ascii_lowercase()), value);
                    }
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => self.unknown.push(path.to_owned()),
            },
        }
    }

    fn services(&mut self, key: &str, values: &[Value]) {
        for value in values {
            match definition::service(value) {
                Ok(service) => self.settings.services.push(service),
                Err(problem) => self.definition_problem(key, problem),
            }
        }
    }

    fn checks(&mut self, key: &str, values: &[Value]) {
        for value in values {
            match definition::node_check(value) {
                Ok(check) => self.settings.checks.push(check),
                Err(problem) => self.definition_problem(key, problem),
            }
        }
    }

    fn watches(&mut self, key: &str, values: &[Value]) {
        for value in values {
            match watches::watch(value) {
                Ok(watch) => self.settings.watches.push(watch),
                Err(problem) => self.definition_problem(key, problem),
            }
        }
    }

    fn definition_problem(&mut self, key: &str, problem: definition::Problem) {
        match problem {
            definition::Problem::UnknownKey(name) => {
                self.unknown.push(definition::path(key, &name));
            }
            definition::Problem::Type { key: name, text } => {
                self.types.push(format!("'{}' {text}", definition::path(key, &name)));
            }
            definition::Problem::Rule(rule) => self.values.push(format!("{key}: {rule}")),
        }
    }

    fn mistyped(&mut self, key: &str, expected: &str, value: &Value) {
        self.types.push(format!("'{key}' {}", keys::mismatch(expected, value)));
    }

    fn boolean(&mut self, key: &str, value: &Value) -> Option<bool> {
        let boolean = value.as_bool();
        if boolean.is_none() {
            self.mistyped(key, "bool", value);
        }
        boolean
    }

    fn integer(&mut self, key: &str, value: &Value) -> Option<i64> {
        let integer = value.as_i64();
        if integer.is_none() {
            self.mistyped(key, "int", value);
        }
        integer
    }

    fn fraction(&mut self, key: &str, value: &Value) -> Option<f64> {
        let fraction = value.as_f64();
        if fraction.is_none() {
            self.mistyped(key, "float64", value);
        }
        fraction
    }

    fn text(&mut self, key: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.mistyped(key, "string", value);
        }
        text
    }

    fn texts(&mut self, key: &str, value: &Value) -> Vec<String> {
        let Value::Array(values) = value else {
            self.mistyped(key, "list", value);
            return Vec::new();
        };
        values.iter().filter_map(|value| self.text(key, value)).collect()
    }

    fn text_map(&mut self, key: &str, value: &Value) -> BTreeMap<String, String> {
        let Value::Object(object) = value else {
            self.mistyped(key, "map", value);
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, value) in object {
            if let Some(text) = self.text(&format!("{key}.{name}"), value) {
                map.insert(name.clone(), text);
            }
        }
        map
    }

    fn duration(&mut self, key: &str, value: &Value) -> Option<Duration> {
        match definition::duration(value) {
            Ok(duration) => Some(duration),
            Err(definition::DurationProblem::Type) => {
                self.mistyped(key, "string", value);
                None
            }
            Err(definition::DurationProblem::Text(error)) => {
                let text = value.as_str().unwrap_or_default();
                self.values.push(format!("{key}: invalid duration: \"{text}\": {error}"));
                None
            }
        }
    }
}

/// An object's entries by lower-cased key.
pub(super) fn folded(object: &Map<String, Value>) -> BTreeMap<String, &Value> {
    object.iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect()
}

#[cfg(test)]
mod tests;
