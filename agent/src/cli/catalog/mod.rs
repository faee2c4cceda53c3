//! `terraform catalog`: what the servers know (cli.md §6).

mod datacenters;
mod nodes;
mod services;

use super::client;
use super::transport::escaped;
use super::{Command, Exit, group};
use serde_json::Value;

const COMMANDS: &[Command] = &[
    Command { name: "datacenters", summary: "Lists the datacenters", run: datacenters::run },
    Command { name: "nodes", summary: "Lists the nodes of a datacenter", run: nodes::run },
    Command { name: "services", summary: "Lists the services", run: services::run },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("catalog", COMMANDS, words)
}

/// Refuses words that are no flags.
fn no_arguments(words: &[String]) -> Result<(), Exit> {
    if words.is_empty() {
        return Ok(());
    }
    let rule = format!("Too many arguments (expected 0, got {})\n", words.len());
    Err(Exit::failure(rule))
}

/// The parameters that choose nodes by their metadata.
fn node_meta(pairs: &[(String, String)]) -> Vec<String> {
    let parameter =
        |(key, value): &(String, String)| format!("node-meta={}:{}", escaped(key), escaped(value));
    pairs.iter().map(parameter).collect()
}

/// An answer in which nothing was found is no failure; the hint goes where errors go.
fn nothing(what: &str) -> Exit {
    let stderr = format!("No {what} match the given query - try expanding your search.\n");
    Exit { stderr, ..Exit::default() }
}

/// The text of a field, empty if there is none.
fn text(row: &Value, key: &str) -> String {
    row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for words in [&["nodes", "a"][..], &["services", "a"], &["datacenters", "a"]] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            let expected = "Too many arguments (expected 0, got 1)\n";
            assert_eq!((exit.code, exit.stderr.as_str()), (1, expected));
        }
        let exit = run(&["nodes", "-node-meta=a"].map(str::to_owned));
        let rule = "invalid value \"a\" for flag -node-meta: Missing \"=\" value in argument: a\n";
        assert!(exit.stderr.starts_with(rule), "{}", exit.stderr);
    }
}
