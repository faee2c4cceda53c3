//! `terraform catalog datacenters`.

use super::{Exit, client, no_arguments};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

/// Lists the datacenters that the agent's servers know, the nearest first.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
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
    let (arguments, client) = client::parse::<Arguments>("catalog datacenters", words)?;
    no_arguments(&arguments.rest)?;
    let known = client
        .get("/v1/catalog/datacenters", &[])
        .map_err(|error| Exit::failure(format!("Error listing datacenters: {error}\n")))?;
    let names = known.as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Exit::success(names.fold(String::new(), |text, name| text + name + "\n")))
}
