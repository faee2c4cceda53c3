//! `terraform info`.

use super::Exit;
use super::client::{self, Client, Way};
use super::transport::Rpc;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::collections::BTreeMap;
use terraform_core::wire::ipc::{Body, Command};

/// Shows numbers and states of an agent, for people.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn run(words: &[String]) -> Exit {
    let agent = match client::parse_either::<Arguments>("info", words) {
        Ok((Arguments {}, agent)) => agent,
        Err(exit) => return exit,
    };
    let sections = agent.way().and_then(|way| match way {
        Way::Rpc(address) => over_rpc(&address),
        Way::Http(client) => over_http(&client),
    });
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

fn over_http(client: &Client) -> Result<Sections, String> {
    let value = client.get("/v1/agent/self", &[])?;
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
