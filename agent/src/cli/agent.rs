//! `terraform agent`: flags over files over defaults, then the agent until it stops.

use super::Exit;
use super::flags::{self, span};
use crate::config::{self, Format, Machine, Resolved, Settings, fragment, load, overlay, resolve};
use crate::{running, signals};
use argh::{ArgsInfo, FromArgs};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;
use terraform_io::interfaces::interface_addresses;
use terraform_io::process_one;

/// Runs an agent until it is told to stop: SIGINT leaves the cluster first, SIGTERM does so on
/// clients, SIGHUP reads the configuration files again.
#[derive(Clone, Debug, FromArgs, ArgsInfo)]
struct Arguments {
    /// a second name of the DNS zone
    #[argh(option, arg_name = "name")]
    alt_domain: Option<String>,
    /// the address other agents reach this one at
    #[argh(option, arg_name = "address")]
    advertise: Option<String>,
    /// the address other datacenters reach this agent at (that of -advertise)
    #[argh(option, arg_name = "address")]
    advertise_wan: Option<String>,
    /// a network, address/bits, from where changes come over HTTP (everywhere); may be repeated
    #[argh(option, arg_name = "network")]
    allow_write_http_from: Vec<String>,
    /// the address to listen on for other agents (0.0.0.0)
    #[argh(option, arg_name = "address")]
    bind: Option<String>,
    /// become the only server of a new cluster
    #[argh(option, arg_name = "bool")]
    bootstrap: Option<bool>,
    /// wait until this many servers form a new cluster
    #[argh(option, arg_name = "count")]
    bootstrap_expect: Option<i64>,
    /// how many bytes of what a check says are kept at most (4096)
    #[argh(option, arg_name = "bytes")]
    check_output_max_size: Option<i64>,
    /// the addresses to listen on for programs, with spaces between them (127.0.0.1)
    #[argh(option, arg_name = "addresses")]
    client: Option<String>,
    /// a folder of configuration files, *.json and *.hcl; may be repeated
    #[argh(option, arg_name = "folder")]
    config_dir: Vec<PathBuf>,
    /// a configuration file; may be repeated
    #[argh(option, arg_name = "file")]
    config_file: Vec<PathBuf>,
    /// the format of all configuration files, whatever they are called
    #[argh(option, arg_name = "hcl|json", from_str_fn(format))]
    config_format: Option<Format>,
    /// the folder that keeps the agent's state
    #[argh(option, arg_name = "folder")]
    data_dir: Option<String>,
    /// the datacenter this agent is in (dc1)
    #[argh(option, arg_name = "name")]
    datacenter: Option<String>,
    /// how long a read waits for a change if it does not say (300s)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    default_query_time: Option<Duration>,
    /// development mode: a server by itself, in a temporary folder, with all logs
    #[argh(option, arg_name = "bool")]
    dev: Option<bool>,
    /// keep no keys of gossip in the data directory: they come from -encrypt alone
    #[argh(option, arg_name = "bool")]
    disable_keyring_file: Option<bool>,
    /// draw a node ID, not the one that this host would give again and again (true)
    #[argh(option, arg_name = "bool")]
    disable_host_node_id: Option<bool>,
    /// the DNS port, -1 for none (8600)
    #[argh(option, arg_name = "port")]
    dns_port: Option<i64>,
    /// the DNS zone (terraform)
    #[argh(option, arg_name = "name")]
    domain: Option<String>,
    /// run the scripts of checks that are in files, not of those that come over HTTP
    #[argh(option, arg_name = "bool")]
    enable_local_script_checks: Option<bool>,
    /// run the scripts of all checks: whoever may write over HTTP runs programs on this host
    #[argh(option, arg_name = "bool")]
    enable_script_checks: Option<bool>,
    /// the key that encrypts gossip, as the command keygen makes one; once keys are stored in the
    /// data directory, those are used
    #[argh(option, arg_name = "key")]
    encrypt: Option<String>,
    /// the gRPC port; not built yet, only -1 has an effect (-1)
    #[argh(option, arg_name = "port")]
    grpc_port: Option<i64>,
    /// a piece of configuration, which wins over files and flags; may be repeated
    #[argh(option, arg_name = "text")]
    hcl: Vec<String>,
    /// the HTTP port, -1 for none (8500)
    #[argh(option, arg_name = "port")]
    http_port: Option<i64>,
    /// the HTTPS port; not built yet, only -1 is taken (-1)
    #[argh(option, arg_name = "port")]
    https_port: Option<i64>,
    /// an agent to join at the start, which fails without any; may be repeated
    #[argh(option, arg_name = "address")]
    join: Vec<String>,
    /// a server of another datacenter to join at the start, which fails without any; may be
    /// repeated
    #[argh(option, arg_name = "address")]
    join_wan: Vec<String>,
    /// a file for the log, whose name gets the time; a folder if it ends with a slash
    #[argh(option, arg_name = "file")]
    log_file: Option<String>,
    /// write the log as JSON, an object for each line
    #[argh(option, arg_name = "bool")]
    log_json: Option<bool>,
    /// the least severe level to log: TRACE, DEBUG, INFO, WARN or ERR (INFO)
    #[argh(option, arg_name = "level")]
    log_level: Option<String>,
    /// begin another -log-file after so many bytes, 0 for no limit (0)
    #[argh(option, arg_name = "bytes")]
    log_rotate_bytes: Option<i64>,
    /// begin another -log-file after this time (24h)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    log_rotate_duration: Option<Duration>,
    /// how many earlier files to keep beside -log-file, 0 for all, -1 for none (0)
    #[argh(option, arg_name = "count")]
    log_rotate_max_files: Option<i64>,
    /// how long a read waits for a change at most (600s)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    max_query_time: Option<Duration>,
    /// the name of this node (the host name)
    #[argh(option, arg_name = "name")]
    node: Option<String>,
    /// the ID of this node, a UUID (drawn at the first start, and kept)
    #[argh(option, arg_name = "uuid")]
    node_id: Option<String>,
    /// what else is known of this node, key:value; may be repeated
    #[argh(option, arg_name = "key:value")]
    node_meta: Vec<String>,
    /// be a server that has everything and does not vote
    #[argh(option, arg_name = "bool")]
    non_voting_server: Option<bool>,
    /// a file for the number of the agent's process, removed at its end
    #[argh(option, arg_name = "file")]
    pid_file: Option<String>,
    /// a mesh gateway of the primary datacenter; not built yet, has no effect; may be repeated
    #[argh(option, arg_name = "address")]
    primary_gateway: Vec<String>,
    /// the version of the agents' protocol; there is one, so this has no effect
    #[argh(option, arg_name = "version")]
    protocol: Option<i64>,
    /// the version of the servers' protocol; there is one, so this has no effect
    #[argh(option, arg_name = "version")]
    raft_protocol: Option<i64>,
    /// record everything this agent is told in a new file, which the simulator replays; it holds
    /// keys and tokens, so only its owner may read it
    #[argh(option, arg_name = "file")]
    record: Option<PathBuf>,
    /// a DNS server to ask about names that are not the agent's own; may be repeated
    #[argh(option, arg_name = "address")]
    recursor: Vec<String>,
    /// join the known members again at the start, also after a leave
    #[argh(option, arg_name = "bool")]
    rejoin: Option<bool>,
    /// the time between two tries of -retry-join (30s)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    retry_interval: Option<Duration>,
    /// the time between two tries of -retry-join-wan (30s)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    retry_interval_wan: Option<Duration>,
    /// an agent to join, tried again until one is reached, and whenever no server is left or no
    /// leader known; may be repeated
    #[argh(option, arg_name = "address")]
    retry_join: Vec<String>,
    /// a server of another datacenter to join, tried again until one is reached, and whenever none
    /// is left; may be repeated
    #[argh(option, arg_name = "address")]
    retry_join_wan: Vec<String>,
    /// how often -retry-join is tried before the agent gives up and ends, 0 for no limit (0)
    #[argh(option, arg_name = "count")]
    retry_max: Option<i64>,
    /// how often -retry-join-wan is tried before the agent gives up and ends, 0 for no limit (0)
    #[argh(option, arg_name = "count")]
    retry_max_wan: Option<i64>,
    /// the port of this program's commands (8400)
    #[argh(option, arg_name = "port")]
    rpc_port: Option<i64>,
    /// the network segment to join; not built yet, has no effect
    #[argh(option, arg_name = "name")]
    segment: Option<String>,
    /// a network, address/bits, where agents of this datacenter are (anywhere); may be repeated
    #[argh(option, arg_name = "network")]
    serf_lan_allowed_cidrs: Vec<String>,
    /// the address to listen on for gossip of this datacenter (that of -bind)
    #[argh(option, arg_name = "address")]
    serf_lan_bind: Option<String>,
    /// the gossip port (8301)
    #[argh(option, arg_name = "port")]
    serf_lan_port: Option<i64>,
    /// a network, address/bits, where servers of all datacenters are (anywhere); may be repeated
    #[argh(option, arg_name = "network")]
    serf_wan_allowed_cidrs: Vec<String>,
    /// the address to listen on for servers of other datacenters (that of -bind)
    #[argh(option, arg_name = "address")]
    serf_wan_bind: Option<String>,
    /// the gossip port between datacenters, -1 for none (8302)
    #[argh(option, arg_name = "port")]
    serf_wan_port: Option<i64>,
    /// run as a server
    #[argh(option, arg_name = "bool")]
    server: Option<bool>,
    /// the port between servers (8300)
    #[argh(option, arg_name = "port")]
    server_port: Option<i64>,
    /// send the log to syslog, as the facility LOCAL0 unless syslog_facility names another
    #[argh(option, arg_name = "bool")]
    syslog: Option<bool>,
    /// serve a web interface; not built yet, has no effect
    #[argh(option, arg_name = "bool")]
    ui: Option<bool>,
    /// where the web interface is; not built yet, has no effect
    #[argh(option, arg_name = "path")]
    ui_content_path: Option<String>,
    /// the folder of a web interface; not built yet, has no effect
    #[argh(option, arg_name = "folder")]
    ui_dir: Option<String>,
    /// nothing else is taken
    #[argh(positional, hidden_help)]
    rest: Vec<String>,
}

/// Where an agent's configuration comes from; read again at each reload.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    files: Vec<PathBuf>,
    format: Option<Format>,
    lists: Settings,
    scalars: Settings,
    fragments: Vec<String>,
    dev: bool,
}

impl Sources {
    /// Files and folders alone.
    pub(super) fn of_files(files: Vec<PathBuf>, format: Option<Format>) -> Self {
        let (lists, scalars, fragments) = Default::default();
        Self { files, format, lists, scalars, fragments, dev: false }
    }

    /// Reads the files again and settles everything.
    ///
    /// - Errors: one text for the operator, naming file, key and rule.
    pub(crate) fn resolve(&self) -> Result<Resolved, String> {
        let mut settings = self.lists.clone();
        let loaded = load(&self.files, self.format).map_err(|error| error.to_string())?;
        overlay(&mut settings, loaded.settings);
        overlay(&mut settings, self.scalars.clone());
        for text in &self.fragments {
            overlay(&mut settings, fragment(text).map_err(|error| error.to_string())?);
        }
        let machine = Machine {
            host_name: terraform_io::system::host_name(),
            route_source: terraform_io::system::route_source(),
            interfaces: interface_addresses()
                .map_err(|error| format!("cannot list network interfaces: {error}")),
            processors: terraform_io::system::processors(),
            temporary: std::env::temp_dir().join(format!("terraform-dev-{}", std::process::id())),
        };
        let mut resolved =
            resolve(settings, self.dev, &machine).map_err(|error| error.to_string())?;
        resolved.warnings.extend(loaded.warnings);
        Ok(resolved)
    }
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("agent", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    if !arguments.rest.is_empty() {
        let rest = arguments.rest.join(" ");
        return Exit::failure(format!("==> Unexpected extra arguments: [{rest}]\n"));
    }
    if process_one::is_this() {
        return match signals::guard() {
            Ok(code) => Exit { code, ..Exit::default() },
            Err(error) => Exit::failure(format!("==> The agent cannot be started: {error}\n")),
        };
    }
    let record = arguments.record.clone();
    let settled = sources(arguments, words).and_then(|sources| Ok((sources.resolve()?, sources)));
    match settled {
        Ok((resolved, sources)) => running::run(resolved, sources, record),
        Err(error) => Exit::failure(format!("==> {error}\n")),
    }
}

/// Where the configuration comes from as the command line says it.
///
/// - Errors: what a flag says is refused where a file would be for it.
fn sources(arguments: Arguments, words: &[String]) -> Result<Sources, String> {
    let read = |flags: &Value| config::flags(flags).map_err(|error| error.to_string());
    let (lists, scalars) = (read(&lists(&arguments))?, read(&scalars(&arguments))?);
    let files = in_given_order(words, arguments.config_file, arguments.config_dir);
    let (format, fragments) = (arguments.config_format, arguments.hcl);
    Ok(Sources { files, format, lists, scalars, fragments, dev: arguments.dev.unwrap_or(false) })
}

/// The flags that may be repeated, as a file would have them: files add to them.
fn lists(arguments: &Arguments) -> Value {
    json!({
        "http_config": { "allow_write_http_from": arguments.allow_write_http_from },
        "primary_gateways": arguments.primary_gateway,
        "recursors": arguments.recursor,
        "retry_join": arguments.retry_join,
        "retry_join_wan": arguments.retry_join_wan,
        "serf_lan_allowed_cidrs": arguments.serf_lan_allowed_cidrs,
        "serf_wan_allowed_cidrs": arguments.serf_wan_allowed_cidrs,
        "start_join": arguments.join,
        "start_join_wan": arguments.join_wan,
    })
}

/// The other flags, as a file would have them (agent-config.md §4); null where one is not given.
fn scalars(arguments: &Arguments) -> Value {
    let span = |span: Option<Duration>| span.map(|span| format!("{}ns", span.as_nanos()));
    let meta = |pair: &String| {
        let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
        (key.to_owned(), Value::from(value))
    };
    let meta: Map<String, Value> = arguments.node_meta.iter().map(meta).collect();
    let ports = json!({
        "dns": arguments.dns_port,
        "grpc": arguments.grpc_port,
        "http": arguments.http_port,
        "https": arguments.https_port,
        "rpc": arguments.rpc_port,
        "serf_lan": arguments.serf_lan_port,
        "serf_wan": arguments.serf_wan_port,
        "server": arguments.server_port,
    });
    [
        ("advertise_addr", json!(arguments.advertise)),
        ("advertise_addr_wan", json!(arguments.advertise_wan)),
        ("alt_domain", json!(arguments.alt_domain)),
        ("bind_addr", json!(arguments.bind)),
        ("bootstrap", json!(arguments.bootstrap)),
        ("bootstrap_expect", json!(arguments.bootstrap_expect)),
        ("check_output_max_size", json!(arguments.check_output_max_size)),
        ("client_addr", json!(arguments.client)),
        ("data_dir", json!(arguments.data_dir)),
        ("datacenter", json!(arguments.datacenter)),
        ("default_query_time", json!(span(arguments.default_query_time))),
        ("disable_host_node_id", json!(arguments.disable_host_node_id)),
        ("disable_keyring_file", json!(arguments.disable_keyring_file)),
        ("domain", json!(arguments.domain)),
        ("enable_local_script_checks", json!(arguments.enable_local_script_checks)),
        ("enable_script_checks", json!(arguments.enable_script_checks)),
        ("enable_syslog", json!(arguments.syslog)),
        ("encrypt", json!(arguments.encrypt)),
        ("log_file", json!(arguments.log_file)),
        ("log_json", json!(arguments.log_json)),
        ("log_level", json!(arguments.log_level)),
        ("log_rotate_bytes", json!(arguments.log_rotate_bytes)),
        ("log_rotate_duration", json!(span(arguments.log_rotate_duration))),
        ("log_rotate_max_files", json!(arguments.log_rotate_max_files)),
        ("max_query_time", json!(span(arguments.max_query_time))),
        ("node_id", json!(arguments.node_id)),
        ("node_meta", json!(meta)),
        ("node_name", json!(arguments.node)),
        ("non_voting_server", json!(arguments.non_voting_server)),
        ("pid_file", json!(arguments.pid_file)),
        ("ports", ports),
        ("protocol", json!(arguments.protocol)),
        ("raft_protocol", json!(arguments.raft_protocol)),
        ("rejoin_after_leave", json!(arguments.rejoin)),
        ("retry_interval", json!(span(arguments.retry_interval))),
        ("retry_interval_wan", json!(span(arguments.retry_interval_wan))),
        ("retry_max", json!(arguments.retry_max)),
        ("retry_max_wan", json!(arguments.retry_max_wan)),
        ("segment", json!(arguments.segment)),
        ("serf_lan", json!(arguments.serf_lan_bind)),
        ("serf_wan", json!(arguments.serf_wan_bind)),
        ("server", json!(arguments.server)),
        ("ui", json!(arguments.ui)),
        ("ui_content_path", json!(arguments.ui_content_path)),
        ("ui_dir", json!(arguments.ui_dir)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// A format by its name.
pub(super) fn format(name: &str) -> Result<Format, String> {
    let rule = "-config-format must be either 'hcl' or 'json'";
    Format::parse(name).ok_or_else(|| rule.to_owned())
}

/// Files and folders share one order, that of the command line (agent-config.md §2).
fn in_given_order(words: &[String], files: Vec<PathBuf>, dirs: Vec<PathBuf>) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (files.into_iter(), dirs.into_iter());
    let flag = |word: &String| {
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        Some(name.split('=').next().unwrap_or(name).to_owned())
    };
    let mut ordered = Vec::new();
    for name in words.iter().filter_map(flag) {
        match name.as_str() {
            "config-file" => ordered.extend(files.next()),
            "config-dir" => ordered.extend(dirs.next()),
            _ => {}
        }
    }
    ordered.extend(files.chain(dirs));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_keep_the_order_of_the_command_line() {
        let words: Vec<String> =
            ["-config-dir", "d", "-config-file=f", "--config-dir", "e"].map(str::to_owned).to_vec();
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let ordered = in_given_order(&words, paths(&["f"]), paths(&["d", "e"]));
        assert_eq!(ordered, paths(&["d", "f", "e"]));
    }

    #[test]
    fn a_flag_may_be_spelled_with_underscores() {
        let words = ["-check_output_max_size=7".to_owned()];
        let Sources { scalars, .. } =
            sources(flags::parse("agent", &words).unwrap(), &words).unwrap();
        assert_eq!(scalars.tuning.numbers.get("check_output_max_size"), Some(&7));
    }

    #[test]
    fn flags_say_what_keys_of_a_file_would() {
        let words = [
            "-enable-local-script-checks",
            "-rejoin",
            "-node-meta=rack:a:1",
            "-node-meta=spare",
            "-disable-host-node-id=false",
            "-ui",
            "-grpc-port=8502",
        ]
        .map(str::to_owned);
        let Sources { scalars, .. } =
            sources(flags::parse("agent", &words).unwrap(), &words).unwrap();
        let file = r#"{"enable_local_script_checks": true, "rejoin_after_leave": true,
            "node_meta": {"rack": "a:1", "spare": ""}, "disable_host_node_id": false,
            "ports": {"grpc": 8502}, "ui": true}"#;
        assert_eq!(scalars, config::parse(file).unwrap());
    }

    #[test]
    fn a_retried_join_of_either_pool_is_paced_and_limited_by_flags() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let given = words(&[
            "-retry-interval=2s",
            "-retry-max=3",
            "-retry-interval-wan=1m",
            "-retry-max-wan=4",
        ]);
        let Sources { scalars, .. } =
            sources(flags::parse("agent", &given).unwrap(), &given).unwrap();
        let lan = (scalars.retry_interval, scalars.retry_max);
        assert_eq!(lan, (Some(Duration::from_secs(2)), Some(3)));
        let wan = (scalars.retry_interval_wan, scalars.retry_max_wan);
        assert_eq!(wan, (Some(Duration::from_secs(60)), Some(4)));
        let refused = run(&words(&["-retry-interval-wan=2"])).stderr;
        let rule = "invalid value \"2\" for flag -retry-interval-wan: \
                    time: missing unit in duration \"2\"";
        assert!(refused.starts_with(rule), "{refused}");
    }
}
