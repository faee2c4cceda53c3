//! `terraform maint`.

use super::Exit;
use super::client::{self, Client};
use super::transport::escaped;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use terraform_core::local::{NODE_MAINTENANCE, SERVICE_MAINTENANCE};

/// Puts a node or one of its services into maintenance, or takes it out; without flags it shows
/// what is in maintenance. Meanwhile a critical check keeps it out of what DNS and HTTP answer,
/// also after a restart of the agent.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// begin maintenance
    #[argh(option, arg_name = "bool")]
    enable: Option<bool>,
    /// end maintenance
    #[argh(option, arg_name = "bool")]
    disable: Option<bool>,
    /// the id of a service (the whole node)
    #[argh(option, arg_name = "id")]
    service: Option<String>,
    /// why, for people who see the check
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match client::parse_local("maint", words).and_then(perform) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn perform((arguments, client): (Arguments, Client)) -> Result<Exit, Exit> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (service, reason) = (given(arguments.service), given(arguments.reason));
    let refuse = |rule: &str| Err(Exit::failure(format!("{rule}\n")));
    let wants = |flag: Option<bool>| flag.unwrap_or(false);
    let enable = match (wants(arguments.enable), wants(arguments.disable)) {
        (true, true) => return refuse("Only one of -enable or -disable may be provided"),
        (false, _) if reason.is_some() => {
            return refuse("Reason may only be provided with -enable");
        }
        (false, false) if service.is_some() => {
            return refuse("Service requires either -enable or -disable");
        }
        (false, false) => return show(&client),
        (enable, _) => enable,
    };
    let path = match &service {
        None => "/v1/agent/maintenance".to_owned(),
        Some(id) => format!("/v1/agent/service/maintenance/{}", escaped(id)),
    };
    let reason = escaped(&reason.unwrap_or_default());
    let query = [format!("enable={enable}"), format!("reason={reason}")];
    let what = if service.is_some() { "service" } else { "node" };
    smol::block_on(client.call(("PUT", &path), &query, Vec::new())).map_err(|error| {
        let turning = if enable { "enabling" } else { "disabling" };
        Exit::failure(format!("Error {turning} {what} maintenance: {error}\n"))
    })?;
    let turned = if enable { "enabled" } else { "disabled" };
    Ok(Exit::success(match service {
        None => format!("Node maintenance is now {turned}\n"),
        Some(id) => format!("Service maintenance is now {turned} for \"{id}\"\n"),
    }))
}

fn show(client: &Client) -> Result<Exit, Exit> {
    let failed = |error: String| Exit::failure(format!("Error querying Consul agent: {error}\n"));
    let checks = client.get("/v1/agent/checks", &[]).map_err(failed)?;
    Ok(Exit::success(listed(&checks)))
}

fn listed(checks: &Value) -> String {
    let mut blocks = String::new();
    for (id, check) in checks.as_object().into_iter().flatten() {
        let text = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
        let (node, service, reason) = (text("Node"), text("ServiceID"), text("Notes"));
        if id == NODE_MAINTENANCE {
            blocks += &format!("Node:\n  Name:   {node}\n  Reason: {reason}\n\n");
        } else if id.starts_with(SERVICE_MAINTENANCE) {
            blocks += &format!("Service:\n  ID:     {service}\n  Reason: {reason}\n\n");
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict_are_refused_before_the_agent_is_asked() {
        for (words, rule) in [
            (&["-enable", "-disable"][..], "Only one of -enable or -disable may be provided\n"),
            (&["-service=a"], "Service requires either -enable or -disable\n"),
            (&["-reason=a"], "Reason may only be provided with -enable\n"),
            (&["-disable", "-reason=a"], "Reason may only be provided with -enable\n"),
        ] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!((exit.code, exit.stderr.as_str()), (1, rule));
        }
    }

    #[test]
    fn what_is_in_maintenance_is_listed_in_blocks() {
        let checks = serde_json::json!({
            "_node_maintenance": { "Node": "c1", "Notes": "because reasons", "ServiceID": "" },
            "_service_maintenance:foo": { "Node": "c1", "Notes": "r2", "ServiceID": "foo" },
            "mem": { "Node": "c1", "Notes": "n", "ServiceID": "" },
        });
        let expected = "Node:\n  Name:   c1\n  Reason: because reasons\n\n\
                        Service:\n  ID:     foo\n  Reason: r2\n\n";
        assert_eq!(listed(&checks), expected);
        assert_eq!(listed(&serde_json::json!({})), "");
    }
}
