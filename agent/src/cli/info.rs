//! `terraform info`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, http, target};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::collections::BTreeMap;
use terraform_core::wire::ipc::{Body, Command};

/// Shows numbers and states of an agent, for people.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
    /// the HTTP address of the agent, to be used instead
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("info", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let sections = match target(arguments.rpc_addr, arguments.http_addr) {
        Target::Rpc(address) => over_rpc(&address),
        Target::Http(base) => over_http(&base),
    };
    match sections {
        Ok(sections) => Exit::success(shown(&sections)),
        Err(error) => Exit::failure(format!("Error querying agent: {error}\n")),
    }
}

fn over_rpc(address: &str) -> Result<Sections, String> {
    match Rpc::connect(address)?.call(Command::Stats)?.body {
        Some(Body::Stats(sections)) => Ok(sections),
        _ => Err("the agent answered without figures".to_owned()),
    }
}

fn over_http(base: &str) -> Result<Sections, String> {
    let response = http(base, "GET", "/v1/agent/self")?;
    let value: Value = serde_json::from_slice(&response.body)
        .map_err(|error| format!("unreadable answer: {error}"))?;
    let mut sections = Sections::new();
    for (name, section) in value.get("Stats").and_then(Value::as_object).into_iter().flatten() {
        let entries = section.as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = entries.map(|(key, value)| (key.clone(), text(value))).collect();
        sections.insert(name.clone(), entries);
    }
    Ok(sections)
}

fn shown(sections: &Sections) -> String {
    let mut text = String::new();
    for (name, entries) in sections {
        text.push_str(&format!("{name}:\n"));
        for (key, value) in entries {
            text.push_str(&format!("\t{key} = {value}\n"));
        }
    }
    text
}
