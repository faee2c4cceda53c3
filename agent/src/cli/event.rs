//! `terraform event`.

use super::Exit;
use super::client;
use super::transport::escaped;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use terraform_core::expression::compile;

/// Fires an event. Every agent whose node matches the filters lists it, for programs that wait for
/// it at /v1/event/list. Name and payload together are short: some hundred bytes.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the event's name
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// only nodes whose name matches
    #[argh(option, arg_name = "regexp")]
    node: Option<String>,
    /// only nodes with a service that matches
    #[argh(option, arg_name = "regexp")]
    service: Option<String>,
    /// only nodes where such a service has a tag that matches
    #[argh(option, arg_name = "regexp")]
    tag: Option<String>,
    /// what is told
    #[argh(positional)]
    payload: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("event", words)?;
    let Arguments { name, node, service, tag, payload } = arguments;
    let refuse = |rule: &str| {
        let help = client::help::<Arguments>("event");
        Err(Exit::failure(format!("{rule}\n\n{help}")))
    };
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return refuse("Event name must be specified");
    };
    let payload = match payload.as_slice() {
        [] => String::new(),
        [payload] => payload.clone(),
        _ => return refuse("Too many command line arguments."),
    };
    let query = filters(node, service, tag).map_err(Exit::failure)?;
    let path = format!("/v1/event/fire/{}", escaped(&name));
    let response = smol::block_on(client.call(("PUT", &path), &query, payload.into_bytes()));
    let failed = |error: String| Exit::failure(format!("Error firing event: {error}\n"));
    let response = response.map_err(failed)?;
    let event = client::json(&response).unwrap_or_default();
    match event.get("ID").and_then(Value::as_str) {
        Some(id) => Ok(Exit::success(format!("Event ID: {id}\n"))),
        None => Err(failed("the agent answered without an event".to_owned())),
    }
}

/// The parameters that say which nodes an event is for.
///
/// - Errors: the rule that they break, as a line.
pub(super) fn filters(
    node: Option<String>,
    service: Option<String>,
    tag: Option<String>,
) -> Result<Vec<String>, String> {
    if tag.is_some() && service.is_none() {
        return Err("Cannot provide tag filter without service filter.\n".to_owned());
    }
    let mut query = Vec::new();
    for (key, filter) in [("node", node), ("service", service), ("tag", tag)] {
        let Some(filter) = filter else { continue };
        if let Err(error) = compile(&filter) {
            return Err(format!("Failed to compile {key} filter regexp: {error}\n"));
        }
        query.push(format!("{key}={}", escaped(&filter)));
    }
    Ok(query)
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
    fn what_cannot_be_an_event_is_refused_before_the_agent_is_asked() {
        assert!(refused(&["payload"]).starts_with("Event name must be specified\n"));
        assert!(refused(&["-name=a", "b", "c"]).starts_with("Too many command line arguments."));
        let rule = "Cannot provide tag filter without service filter.\n";
        assert_eq!(refused(&["-name=a", "-tag=v1"]), rule);
        let rule = "Failed to compile service filter regexp: unclosed group: \"(\"\n";
        assert_eq!(refused(&["-name=a", "-service=("]), rule);
    }
}
