//! `terraform catalog nodes`.

use super::{Exit, client, escaped, no_arguments, node_meta, nothing, text};
use crate::output::table;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

/// Lists the nodes of a datacenter by name, or those that provide a service.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// show whole identities, all addresses and metadata, too
    #[argh(option, arg_name = "bool")]
    detailed: Option<bool>,
    /// only nodes for which this expression holds
    #[argh(option, arg_name = "expression")]
    filter: Option<String>,
    /// the nearest to this node first; _agent stands for the agent's own
    #[argh(option, arg_name = "node")]
    near: Option<String>,
    /// only nodes with this metadata; may be repeated
    #[argh(option, arg_name = "key=value", from_str_fn(client::pair))]
    node_meta: Vec<(String, String)>,
    /// only nodes that provide this service
    #[argh(option, arg_name = "name")]
    service: Option<String>,
    /// nothing else is taken
    #[argh(positional, hidden_help)]
    rest: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("catalog nodes", words)?;
    no_arguments(&arguments.rest)?;
    let mut query = node_meta(&arguments.node_meta);
    for (key, value) in [("near", &arguments.near), ("filter", &arguments.filter)] {
        query.extend(value.as_ref().map(|value| format!("{key}={}", escaped(value))));
    }
    let (path, what) = match arguments.service.as_deref() {
        None | Some("") => ("/v1/catalog/nodes".to_owned(), "nodes"),
        Some(name) => (format!("/v1/catalog/service/{}", escaped(name)), "nodes for service"),
    };
    let rows = client.get(&path, &query);
    let rows = rows.map_err(|error| Exit::failure(format!("Error listing {what}: {error}\n")))?;
    let mut rows: Vec<&Value> = rows.as_array().into_iter().flatten().collect();
    if rows.is_empty() {
        return Ok(nothing("nodes"));
    }
    if arguments.near.is_none() {
        rows.sort_by_key(|row| text(row, "Node"));
    }
    Ok(Exit::success(shown(&rows, arguments.detailed.unwrap_or(false))))
}

fn shown(rows: &[&Value], detailed: bool) -> String {
    let header = ["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"];
    let columns = if detailed { header.len() } else { 4 };
    let cells = |row: &&Value| {
        let id = text(row, "ID");
        let id = if detailed { id } else { id.chars().take(8).collect() };
        // A row of a service has the node's metadata under another name.
        let meta = row.get("NodeMeta").or_else(|| row.get("Meta"));
        let tagged = row.get("TaggedAddresses");
        let (node, address, datacenter) =
            (text(row, "Node"), text(row, "Address"), text(row, "Datacenter"));
        [node, id, address, datacenter, pairs(tagged), pairs(meta)]
    };
    let rows = std::iter::once(header.map(str::to_owned)).chain(rows.iter().map(cells));
    table(rows.map(|row| row.into_iter().take(columns).collect()))
}

/// A map as `key=value, key=value`, by key.
fn pairs(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    let pair =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    let mut pairs: Vec<String> = map.into_iter().flatten().map(pair).collect();
    pairs.sort();
    pairs.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_in_columns_with_short_identities() {
        let rows = serde_json::json!([
            { "ID": "fc50bf06-1fff-091c-3e92-2ceabf99c6dc", "Node": "ref", "Address": "127.0.0.1",
              "Datacenter": "dc1", "TaggedAddresses": { "wan": "127.0.0.1", "lan": "127.0.0.1" },
              "Meta": { "b": "", "a": "1" } },
            { "ID": "", "Node": "external", "Address": "192.0.2.1", "Datacenter": "dc1",
              "TaggedAddresses": null, "NodeMeta": { "c": "d" }, "ServiceMeta": { "e": "f" } },
        ]);
        let rows: Vec<&Value> = rows.as_array().unwrap().iter().collect();
        let short = "Node      ID        Address    DC\n\
                     ref       fc50bf06  127.0.0.1  dc1\n\
                     external            192.0.2.1  dc1\n";
        assert_eq!(shown(&rows, false), short);
        let detailed = shown(&rows, true);
        let first = "127.0.0.1  dc1  lan=127.0.0.1, wan=127.0.0.1  a=1, b=\n";
        assert!(detailed.contains(first), "{detailed}");
        assert!(detailed.ends_with("c=d\n"), "{detailed}");
    }
}
