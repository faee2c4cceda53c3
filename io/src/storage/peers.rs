//! `raft/peers.json`: the servers that an operator begins a new cluster with.
//!
//! - Source: raft.md §10.6, cluster-behaviour.md §9. A JSON array of objects with `id`, `address`
//!   and perhaps `non_voter`, or in Consul's older form of addresses alone.

use super::DataDir;
use super::file::{DiskFailure, Files};
use serde_json::Value;
use std::net::SocketAddr;
use terraform_core::id::NodeId;
use terraform_core::storage::recovery::{Answer, Peer, peers_file};
use thiserror::Error;

/// Bytes of the file that are read at most; a server takes about a hundred.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why the file cannot be read. Nothing was changed; the operator is at fault.
#[derive(Debug, Error)]
pub enum PeersFileError {
    /// The system refuses.
    #[error(transparent)]
    Unreadable(#[from] DiskFailure),
    /// The content is something else.
    #[error("raft/peers.json: {0}")]
    Content(String),
}

/// The servers that the file names; `None` if there is no such file.
pub fn read_peers(dir: &DataDir) -> Result<Option<Vec<Peer>>, PeersFileError> {
    match Files::new(dir.path()).read(&peers_file(), FILE_BYTES_MAX)? {
        Answer::Content(None) => Ok(None),
        Answer::Content(Some(text)) => parse(&text).map(Some).map_err(PeersFileError::Content),
        Answer::TooLarge(bytes) => {
            let rule = format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are read");
            Err(PeersFileError::Content(rule))
        }
        other @ (Answer::Names(_) | Answer::Performed | Answer::Failed(_)) => {
            panic!("a file's content is no {other:?}")
        }
    }
}

/// Reads the file's text; the error names the rule that it breaks.
pub fn parse(text: &[u8]) -> Result<Vec<Peer>, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let Value::Array(servers) = value else { return Err("it is no JSON array".to_owned()) };
    servers.iter().map(peer).collect()
}

fn peer(value: &Value) -> Result<Peer, String> {
    let address = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        text.parse::<SocketAddr>().map_err(|_| format!("address: {value} is not IP:PORT"))
    };
    let object = match value {
        Value::String(_) => {
            return Ok(Peer { id: None, address: address(value)?, votes: true });
        }
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            return Err(format!("{value} is no server: name its \"id\" and its \"address\""));
        }
    };
    if let Some(key) = object.keys().find(|key| !["id", "address", "non_voter"].contains(&&***key))
    {
        return Err(format!("unknown key {key:?}"));
    }
    let id = object.get("id").and_then(Value::as_str).unwrap_or_default();
    let id = NodeId::parse(id).map_err(|error| format!("id: {error}"))?;
    let votes = match object.get("non_voter") {
        None => true,
        Some(Value::Bool(non_voter)) => !non_voter,
        Some(other) => return Err(format!("non_voter: {other} is neither true nor false")),
    };
    let address = address(object.get("address").unwrap_or(&Value::Null))?;
    Ok(Peer { id: Some(id), address, votes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let text = br#"[{"id": "01010101-0101-0101-0101-010101010101", "address": "10.0.0.1:8300"},
                        {"id": "02020202-0202-0202-0202-020202020202", "address": "[::1]:8300",
                         "non_voter": true}]"#;
        let peer = |byte, address: &str, votes| Peer {
            id: Some(NodeId::from_bytes([byte; 16])),
            address: address.parse().unwrap(),
            votes,
        };
        let expected = [peer(1, "10.0.0.1:8300", true), peer(2, "[::1]:8300", false)];
        assert_eq!(parse(text).unwrap(), expected);
        let old = parse(br#"["10.0.0.1:8300"]"#).unwrap();
        assert_eq!(old, [Peer { id: None, ..peer(1, "10.0.0.1:8300", true) }]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", "EOF"),
            ("{}", "no JSON array"),
            ("[1]", "1 is no server"),
            (r#"[{"id": "x", "address": "10.0.0.1:8300"}]"#, "id: "),
            (
                r#"[{"id": "01010101-0101-0101-0101-010101010101", "address": "here"}]"#,
                "address: \"here\" is not IP:PORT",
            ),
            (r#"["10.0.0.1"]"#, "address: \"10.0.0.1\" is not IP:PORT"),
            (r#"[{"ID": "x"}]"#, "unknown key \"ID\""),
            (
                r#"[{"id": "01010101-0101-0101-0101-010101010101", "address": "10.0.0.1:1",
                     "non_voter": "no"}]"#,
                "non_voter: \"no\" is neither",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
