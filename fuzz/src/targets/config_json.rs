//! Configuration: the input is the text of one file with settings, services and checks.

use agent::config::{FileError, Machine, Resolved, Settings, overlay, parse, resolve};
use serde_json::Value;
use std::path::PathBuf;
use terraform_core::id::NAME_BYTES_MAX;

/// Keys that a refusal calls by the words its readers know, instead of by the key.
const WORDS: [(&str, &str); 9] = [
    ("addresses", "already configured"),
    ("addresses", "cannot be a unix socket"),
    ("advertise_addr", "Advertise address"),
    ("client_addr", "already configured"),
    ("log_level", "log level"),
    ("node_id", "node ID"),
    ("node_meta", "Node metadata"),
    ("ports", "already configured"),
    ("service", "Scripts are disabled"),
];

/// A machine on which nothing but the file can be wrong.
fn machine() -> Machine {
    Machine {
        host_name: "host-1".to_owned(),
        route_source: Some([10, 1, 10, 38].into()),
        interfaces: Ok(Vec::new()),
        processors: 2,
        temporary: PathBuf::from("/nonexistent"),
    }
}

/// The keys at the top of a file, as they are matched.
fn keys(text: &str) -> Vec<String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object.keys().map(|key| key.to_ascii_lowercase()).collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Whether each complaint begins with a path whose head stands in the file.
fn names_its_keys(error: &FileError, keys: &[String]) -> bool {
    let begins = |lines: &[String], before: &str| {
        let named = |line: &String| {
            let path = line.strip_prefix(before).unwrap_or_default();
            keys.iter().any(|key| path.starts_with(key.as_str()))
        };
        !lines.is_empty() && lines.iter().all(named)
    };
    match error {
        FileError::UnknownKeys(lines) => begins(lines, "invalid config key "),
        FileError::Types(lines) => begins(lines, "'"),
        FileError::Values(lines) => begins(lines, ""),
        // No key can be named where none was found.
        FileError::TooLong | FileError::Syntax(_) | FileError::NotAnObject => keys.is_empty(),
    }
}

/// Whether `refusal` calls a key of the file by its name or by its words, or the one that no file
/// may lack.
fn names_a_key(refusal: &str, keys: &[String]) -> bool {
    let called = |key: &String| {
        let words = WORDS.iter().filter(|(of, _)| key.starts_with(of));
        refusal.contains(key.as_str())
            || words.into_iter().any(|(_, words)| refusal.contains(words))
    };
    refusal.contains("data_dir") || keys.iter().any(called)
}

fn check_settled(resolved: &Resolved) {
    assert!(resolved.data_dir.is_absolute() || !resolved.temporary, "data has a place");
    let name = resolved.node.name.as_str();
    assert!(
        !name.is_empty() && name.len() <= NAME_BYTES_MAX,
        "a node has a name of bounded length"
    );
    let gossip = &resolved.node.gossip;
    assert!(gossip.probe_timeout < gossip.probe_interval, "a probe ends before the next begins");
    let listeners = &resolved.listeners;
    let network = listeners.dns.iter().chain(&listeners.rpc).map(ToString::to_string);
    let mut ports: Vec<_> = listeners.http.iter().map(ToString::to_string).chain(network).collect();
    let count = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), count, "listeners have addresses of their own");
    let node_ports = [resolved.node.serf_lan_port, resolved.node.server_port];
    assert!(!node_ports.contains(&0), "agents find each other at known ports");
}

/// Any text becomes settings or a refusal that names its keys; so does settling them.
pub fn config_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys = keys(text);
    let settings = match parse(text) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(names_its_keys(&error, &keys), "a refusal names its keys: {error}");
            return;
        }
    };
    let mut laid = Settings::default();
    overlay(&mut laid, settings.clone());
    assert_eq!(laid, settings, "a file laid over nothing is what it says");
    for dev in [false, true] {
        match resolve(settings.clone(), dev, &machine()) {
            Ok(resolved) => check_settled(&resolved),
            Err(error) => {
                let text = error.to_string();
                assert!(names_a_key(&text, &keys), "a refusal names its key: {text}");
            }
        }
    }
}
