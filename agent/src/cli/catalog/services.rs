//! `terraform catalog services`.

use super::{Exit, client, escaped, no_arguments, node_meta, nothing};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Lists the services of a datacenter by name, or those of one node.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// only services on this node, by name or identity
    #[argh(option, arg_name = "node")]
    node: Option<String>,
    /// only services on nodes with this metadata; may be repeated
    #[argh(option, arg_name = "key=value", from_str_fn(client::pair))]
    node_meta: Vec<(String, String)>,
    /// show the tags of each service, too
    #[argh(option, arg_name = "bool")]
    tags: Option<bool>,
    /// nothing else is taken
    #[argh(positional, hidden_help)]
    rest: Vec<String>,
}

/// Tags by service.
type Services = BTreeMap<String, BTreeSet<String>>;

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("catalog services", words)?;
    no_arguments(&arguments.rest)?;
    let query = node_meta(&arguments.node_meta);
    let services = match arguments.node.as_deref() {
        None | Some("") => client
            .get("/v1/catalog/services", &query)
            .map(|found| of_datacenter(&found))
            .map_err(|error| format!("Error listing services: {error}\n")),
        Some(node) => client
            .get(&format!("/v1/catalog/node/{}", escaped(node)), &query)
            .map(|found| of_node(&found))
            .map_err(|error| format!("Error listing services for node: {error}\n")),
    };
    let services = services.map_err(Exit::failure)?;
    if services.is_empty() {
        return Ok(nothing("services"));
    }
    Ok(Exit::success(shown(&services, arguments.tags.unwrap_or(false))))
}

fn tags(value: Option<&Value>) -> impl Iterator<Item = String> {
    let tags = value.and_then(Value::as_array).into_iter().flatten();
    tags.filter_map(|tag| tag.as_str().map(str::to_owned))
}

fn of_datacenter(found: &Value) -> Services {
    let services = found.as_object().into_iter().flatten();
    services.map(|(name, found)| (name.clone(), tags(Some(found)).collect())).collect()
}

/// Several instances of a service are one.
fn of_node(found: &Value) -> Services {
    let mut services = Services::new();
    let instances = found.get("Services").and_then(Value::as_object).into_iter().flatten();
    for (_, instance) in instances {
        if let Some(name) = instance.get("Service").and_then(Value::as_str) {
            services.entry(name.to_owned()).or_default().extend(tags(instance.get("Tags")));
        }
    }
    services
}

/// One line each; tags stand in a column of their own, six spaces from the longest name.
fn shown(services: &Services, with_tags: bool) -> String {
    let width = services.keys().map(|name| name.chars().count()).max().unwrap_or(0) + 6;
    let line = |(name, tags): (&String, &BTreeSet<String>)| {
        if !with_tags {
            return format!("{name}\n");
        }
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        format!("{name:width$}{}\n", tags.join(","))
    };
    services.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_in_a_column_of_their_own() {
        let found = serde_json::json!({ "web": ["b", "a"], "database1": ["primary"], "x": [] });
        let services = of_datacenter(&found);
        assert_eq!(shown(&services, false), "database1\nweb\nx\n");
        let expected = "database1      primary\nweb            a,b\nx              \n";
        assert_eq!(shown(&services, true), expected);
    }

    #[test]
    fn the_instances_of_a_node_are_one_service() {
        let found = serde_json::json!({ "Node": {}, "Services": {
            "web-1": { "Service": "web", "Tags": ["b"] },
            "web-2": { "Service": "web", "Tags": ["a", "b"] },
        }});
        assert_eq!(shown(&of_node(&found), true), "web      a,b\n");
        assert!(of_node(&Value::Null).is_empty());
    }
}
