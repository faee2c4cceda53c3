//! `terraform operator raft`.

use super::super::transport::escaped;
use super::super::{Command, Exit, client, group};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::fmt::Write as _;

const COMMANDS: &[Command] = &[
    Command { name: "list-peers", summary: "Lists the servers that take part", run: list_peers },
    Command { name: "remove-peer", summary: "Takes a server out", run: remove_peer },
    Command { name: "transfer-leader", summary: "Lets another server lead", run: transfer_leader },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("operator raft", COMMANDS, words)
}

/// Lists the servers that take part in consensus.
#[derive(FromArgs, ArgsInfo)]
struct ListPeers {}

fn list_peers(words: &[String]) -> Exit {
    let client = match client::parse::<ListPeers>("operator raft list-peers", words) {
        Ok((_, client)) => client,
        Err(exit) => return exit,
    };
    match client.get("/v1/operator/raft/configuration", &[]) {
        Ok(configuration) => Exit::success(table(&configuration)),
        Err(error) => {
            let failed = "Error getting peers: Failed to retrieve raft configuration";
            Exit::failure(format!("{failed}: {error}\n"))
        }
    }
}

/// The servers of a configuration in columns.
fn table(configuration: &Value) -> String {
    let header = ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"].map(str::to_owned);
    let row = |server: &Value| {
        let text = |key: &str| server.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let flag = |key: &str| server.get(key).and_then(Value::as_bool).unwrap_or(false);
        let state = if flag("Leader") { "leader" } else { "follower" };
        let voter = flag("Voter").to_string();
        let protocol = text("ProtocolVersion");
        [text("Node"), text("ID"), text("Address"), state.to_owned(), voter, protocol]
    };
    let servers = configuration.get("Servers").and_then(Value::as_array);
    let rows = servers.into_iter().flatten().map(row);
    let rows: Vec<[String; 6]> = [header].into_iter().chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Takes a server out of consensus: one that is gone and will not come back. One that gossip still
/// sees alive is added again.
#[derive(FromArgs, ArgsInfo)]
struct RemovePeer {
    /// the server's port, ip:port
    #[argh(option, arg_name = "address")]
    address: Option<String>,
    /// the server's identity
    #[argh(option, arg_name = "id")]
    id: Option<String>,
}

fn remove_peer(words: &[String]) -> Exit {
    let (arguments, client) = match client::parse::<RemovePeer>("operator raft remove-peer", words)
    {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    let failed = |error: &str| Exit::failure(format!("Error removing peer: {error}\n"));
    let (query, done) = match (arguments.id, arguments.address) {
        (None, None) => return failed("an address or id is required for the peer to remove"),
        (Some(_), Some(_)) => return failed("cannot give both an address and id"),
        (Some(id), None) => {
            (format!("id={}", escaped(&id)), format!("Removed peer with id \"{id}\"\n"))
        }
        (None, Some(address)) => {
            let done = format!("Removed peer with address \"{address}\"\n");
            (format!("address={}", escaped(&address)), done)
        }
    };
    let asked = ("DELETE", "/v1/operator/raft/peer");
    match smol::block_on(client.call(asked, &[query], Vec::new())) {
        Ok(_) => Exit::success(done),
        Err(error) => failed(&error),
    }
}

/// Lets another server lead: the one that is named, or the one that is fit for it best.
#[derive(FromArgs, ArgsInfo)]
struct TransferLeader {
    /// the identity of the server that is to lead
    #[argh(option, arg_name = "id")]
    id: Option<String>,
}

fn transfer_leader(words: &[String]) -> Exit {
    let (arguments, client) =
        match client::parse::<TransferLeader>("operator raft transfer-leader", words) {
            Ok(both) => both,
            Err(exit) => return exit,
        };
    let query: Vec<String> = arguments.id.iter().map(|id| format!("id={}", escaped(id))).collect();
    let asked = ("PUT", "/v1/operator/raft/transfer-leader");
    match smol::block_on(client.call(asked, &query, Vec::new())) {
        Ok(_) => Exit::success("Success\n"),
        Err(error) => Exit::failure(format!("Error transferring leadership: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(exit.code, 1);
        exit.stderr
    }

    #[test]
    fn a_peer_is_named_in_exactly_one_way() {
        let none = "Error removing peer: an address or id is required for the peer to remove\n";
        assert_eq!(refused(&["remove-peer"]), none);
        let both = "Error removing peer: cannot give both an address and id\n";
        assert_eq!(refused(&["remove-peer", "-id=a", "-address=b"]), both);
        assert!(refused(&["nosuch"]).contains("list-peers"));
    }

    #[test]
    fn peers_stand_in_columns() {
        let shown = table(&serde_json::json!({"Servers": [
            {"ID": "i1", "Node": "server-1", "Address": "10.0.0.1:8300", "Leader": true,
             "ProtocolVersion": "3", "Voter": true},
            {"ID": "i2", "Node": "(unknown)", "Address": "10.0.0.2:8300", "Leader": false,
             "ProtocolVersion": "3", "Voter": true}]}));
        let expected = "Node       ID  Address        State     Voter  RaftProtocol\n\
                        server-1   i1  10.0.0.1:8300  leader    true   3\n\
                        (unknown)  i2  10.0.0.2:8300  follower  true   3\n";
        assert_eq!(shown, expected);
    }
}
