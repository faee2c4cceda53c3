//! `terraform services register`.

use super::{Exit, body, client, each, from_files};
use argh::{ArgsInfo, FromArgs};
use serde_json::{Map, Value, json};

/// Registers services on the agent: one that flags describe, or those that files define as an
/// agent's configuration does. They stay registered until they are deregistered.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the address of the service (the node's)
    #[argh(option, arg_name = "address")]
    address: Option<String>,
    /// the id of the service (its name)
    #[argh(option, arg_name = "id")]
    id: Option<String>,
    /// the kind of the service; kinds of a service mesh are refused by the agent
    #[argh(option, arg_name = "kind")]
    kind: Option<String>,
    /// metadata of the service; may be repeated
    #[argh(option, arg_name = "key=value", from_str_fn(client::pair))]
    meta: Vec<(String, String)>,
    /// the name of the service
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// the port of the service
    #[argh(option, arg_name = "port")]
    port: Option<u16>,
    /// a tag of the service; may be repeated
    #[argh(option, arg_name = "tag")]
    tag: Vec<String>,
    /// an address of the service for some of its clients, as in wan=192.0.2.1:80; may be repeated
    #[argh(option, arg_name = "tag=address", from_str_fn(client::pair))]
    tagged_address: Vec<(String, String)>,
    /// files that define services
    #[argh(positional)]
    file: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("services register", words)?;
    let refuse = |rule: &str| Err(Exit::failure(format!("{rule}\n")));
    let named = arguments.name.as_ref().is_some_and(|name| !name.is_empty());
    let (bodies, warnings) = match (named, arguments.file.as_slice()) {
        (false, []) => {
            return refuse("Service registration requires at least one argument or flags.");
        }
        (true, [_, ..]) => {
            return refuse("Service registration requires arguments or -id, not both.");
        }
        (true, []) => {
            let body = described(&arguments)
                .map_err(|error| Exit::failure(format!("Invalid Tagged Address: {error}\n")))?;
            (vec![body], String::new())
        }
        (false, files) => {
            let (services, warnings) = from_files(files)?;
            (services.iter().map(body::service).collect(), warnings)
        }
    };
    Ok(each(bodies, warnings, |body| {
        let name = body.get("Name").and_then(Value::as_str).unwrap_or_default();
        client
            .put("/v1/agent/service/register", body.to_string().into_bytes())
            .map(|_| format!("Registered service: {name}"))
            .map_err(|error| format!("Error registering service \"{name}\": {error}"))
    }))
}

/// The service that flags describe.
fn described(arguments: &Arguments) -> Result<Value, String> {
    let mut tagged = Map::new();
    for (tag, address) in &arguments.tagged_address {
        tagged.insert(tag.clone(), tagged_address(address)?);
    }
    let meta = arguments.meta.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    Ok(json!({
        "Kind": arguments.kind,
        "ID": arguments.id,
        "Name": arguments.name,
        "Tags": arguments.tag,
        "Port": arguments.port,
        "Address": arguments.address,
        "TaggedAddresses": tagged,
        "Meta": meta.collect::<Map<_, _>>(),
    }))
}

/// `HOST`, `HOST:PORT`, `[IP]` or `[IP]:PORT`; without a port it is that of the service.
fn tagged_address(text: &str) -> Result<Value, String> {
    let bad = || format!("\"{text}\" is not HOST or HOST:PORT");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port: u16 = port.map_or(Ok(0), |port| port.parse().map_err(|_| bad()))?;
    if host.is_empty() {
        return Err(bad());
    }
    Ok(json!({ "Address": host, "Port": port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_address_has_a_port_or_has_none() {
        let read = |text| tagged_address(text).map(|read| read.to_string());
        assert_eq!(read("h:80").as_deref(), Ok(r#"{"Address":"h","Port":80}"#));
        assert_eq!(read("h").as_deref(), Ok(r#"{"Address":"h","Port":0}"#));
        assert_eq!(read("[::1]:80").as_deref(), Ok(r#"{"Address":"::1","Port":80}"#));
        assert_eq!(read("::1").as_deref(), Ok(r#"{"Address":"::1","Port":0}"#));
        for bad in ["", ":80", "h:", "h:70000", "[::1]80"] {
            assert_eq!(read(bad), Err(format!("\"{bad}\" is not HOST or HOST:PORT")));
        }
    }
}
