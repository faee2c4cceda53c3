//! `terraform operator autopilot`: how the leader cares for the servers (cli.md §8).

use super::super::client::Client;
use super::super::{Command, Exit, client, group};
use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use terraform_io::duration;
use terraform_io::http::render::go_duration;

const COMMANDS: &[Command] = &[
    Command { name: "get-config", summary: "Shows the settings", run: get_config },
    Command { name: "set-config", summary: "Changes the settings", run: set_config },
];

const PATH: &str = "/v1/operator/autopilot/configuration";

pub(super) fn run(words: &[String]) -> Exit {
    group("operator autopilot", COMMANDS, words)
}

/// Shows how the leader cares for the servers.
#[derive(FromArgs, ArgsInfo)]
struct GetConfig {}

fn get_config(words: &[String]) -> Exit {
    let client = match client::parse::<GetConfig>("operator autopilot get-config", words) {
        Ok((_, client)) => client,
        Err(exit) => return exit,
    };
    match stored(&client) {
        Ok(config) => Exit::success(lines(&config)),
        Err(exit) => exit,
    }
}

/// Changes the settings that are given and leaves the others alone.
#[derive(FromArgs, ArgsInfo)]
struct SetConfig {
    /// whether servers that failed are taken out once they are replaced
    #[argh(option, arg_name = "bool")]
    cleanup_dead_servers: Option<bool>,
    /// how long a healthy server may not be heard of
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    last_contact_threshold: Option<Duration>,
    /// how many entries of the log a healthy server may lack
    #[argh(option, arg_name = "count")]
    max_trailing_logs: Option<u64>,
    /// how many voters the cleanup leaves at least
    #[argh(option, arg_name = "count")]
    min_quorum: Option<u64>,
    /// how long a new server must be healthy before it votes
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    server_stabilization_time: Option<Duration>,
}

fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

fn set_config(words: &[String]) -> Exit {
    match client::parse::<SetConfig>("operator autopilot set-config", words) {
        // What is changed and stored again must not be stale.
        Ok((arguments, client)) => set(&arguments, &client.fresh()).unwrap_or_else(|exit| exit),
        Err(exit) => exit,
    }
}

fn set(arguments: &SetConfig, client: &Client) -> Result<Exit, Exit> {
    let mut config = stored(client)?;
    let index = config.get("ModifyIndex").and_then(Value::as_u64).unwrap_or(0);
    change(&mut config, arguments);
    let body = config.to_string().into_bytes();
    Ok(match smol::block_on(client.call(("PUT", PATH), &[format!("cas={index}")], body)) {
        Ok(response) if response.body.starts_with(b"true") => {
            Exit::success("Configuration updated!\n")
        }
        Ok(_) => {
            let text = "Configuration could not be atomically updated, please try again\n";
            Exit::failure(text)
        }
        Err(error) => Exit::failure(format!("Error setting Autopilot configuration: {error}\n")),
    })
}

/// Lays what is given over the stored settings.
fn change(config: &mut Value, given: &SetConfig) {
    let texts = |span: Option<Duration>| span.map(|span| json!(go_duration(span)));
    let members = [
        ("CleanupDeadServers", given.cleanup_dead_servers.map(|it| json!(it))),
        ("LastContactThreshold", texts(given.last_contact_threshold)),
        ("MaxTrailingLogs", given.max_trailing_logs.map(|it| json!(it))),
        ("MinQuorum", given.min_quorum.map(|it| json!(it))),
        ("ServerStabilizationTime", texts(given.server_stabilization_time)),
    ];
    let Value::Object(config) = config else { return };
    for (name, value) in members {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
        }
    }
}

fn stored(client: &Client) -> Result<Value, Exit> {
    let failed =
        |error| Exit::failure(format!("Error querying Autopilot configuration: {error}\n"));
    client.get(PATH, &[]).map_err(failed)
}

/// The settings as `Name = value`.
fn lines(config: &Value) -> String {
    let mut text = String::new();
    for name in [
        "CleanupDeadServers",
        "LastContactThreshold",
        "MaxTrailingLogs",
        "MinQuorum",
        "ServerStabilizationTime",
    ] {
        let value = config.get(name).map_or_else(String::new, |value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        });
        let _ = writeln!(text, "{name} = {value}");
    }
    for name in ["RedundancyZoneTag", "DisableUpgradeMigration", "UpgradeVersionTag"] {
        let value = config.get(name).map_or_else(String::new, Value::to_string);
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({"CleanupDeadServers": true, "LastContactThreshold": "200ms",
               "MaxTrailingLogs": 250, "MinQuorum": 0, "ServerStabilizationTime": "10s",
               "RedundancyZoneTag": "", "DisableUpgradeMigration": false,
               "UpgradeVersionTag": "", "CreateIndex": 4, "ModifyIndex": 4})
    }

    #[test]
    fn settings_are_shown_one_on_a_line() {
        let expected = "CleanupDeadServers = true\nLastContactThreshold = 200ms\n\
                        MaxTrailingLogs = 250\nMinQuorum = 0\nServerStabilizationTime = 10s\n\
                        RedundancyZoneTag = \"\"\nDisableUpgradeMigration = false\n\
                        UpgradeVersionTag = \"\"\n";
        assert_eq!(lines(&config()), expected);
    }

    #[test]
    fn only_what_is_given_changes() {
        let words = ["-min-quorum=3", "-last-contact-threshold=1s"].map(str::to_owned);
        let (given, _) =
            client::parse::<SetConfig>("operator autopilot set-config", &words).unwrap();
        let mut changed = config();
        change(&mut changed, &given);
        let mut expected = config();
        expected["MinQuorum"] = json!(3);
        expected["LastContactThreshold"] = json!("1s");
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_setting_that_is_no_duration_is_refused() {
        let words = ["set-config", "-server-stabilization-time=soon"].map(str::to_owned);
        let exit = run(&words);
        assert_eq!(exit.code, 1);
        assert!(exit.stderr.contains("server-stabilization-time"), "{}", exit.stderr);
    }
}
