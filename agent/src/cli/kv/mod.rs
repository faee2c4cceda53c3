//! `terraform kv`: keys and values (cli.md §5).

mod data;
mod delete;
mod export;
mod get;
mod import;
mod put;

use super::client::{Client, TIME, json};
use super::transport::{escaped, key_path, unexpected};
use super::{Command, Exit, group};
use serde_json::Value;
use terraform_core::wire::base64;

const COMMANDS: &[Command] = &[
    Command { name: "delete", summary: "Removes a key, or all under a prefix", run: delete::run },
    Command { name: "export", summary: "Prints all under a prefix as JSON", run: export::run },
    Command { name: "get", summary: "Shows a value, or all under a prefix", run: get::run },
    Command { name: "import", summary: "Stores what export has printed", run: import::run },
    Command { name: "put", summary: "Stores a value", run: put::run },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("kv", COMMANDS, words)
}

/// One entry, as the HTTP interface shows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) flags: u64,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
    pub(super) lock_index: u64,
    pub(super) session: String,
}

impl Entry {
    /// Reads a row of an answer; `None` if it is none.
    pub(super) fn read(row: &Value) -> Option<Self> {
        let number = |name: &str| row.get(name).and_then(Value::as_u64);
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        Some(Self {
            key: text("Key")?.to_owned(),
            value: base64::decode(text("Value").unwrap_or_default().as_bytes()).ok()?,
            flags: number("Flags")?,
            create_index: number("CreateIndex")?,
            modify_index: number("ModifyIndex")?,
            lock_index: number("LockIndex")?,
            session: text("Session").unwrap_or_default().to_owned(),
        })
    }
}

/// Reads JSON; `None` if there is nothing.
fn read(client: &Client, key: &str, query: &[String]) -> Result<Option<Value>, String> {
    let failed = |error: String| format!("Error querying Consul agent: {error}");
    let path = key_path(key);
    let asked = client.ask(("GET", &path), query, Vec::new(), TIME);
    let response = smol::block_on(asked).map_err(failed)?;
    match response.status {
        200 => json(&response).map(Some).map_err(failed),
        404 => Ok(None),
        _ => Err(failed(unexpected(&response))),
    }
}

/// Reads entries; none if there are none.
fn entries(client: &Client, key: &str, query: &[String]) -> Result<Vec<Entry>, String> {
    let rows = read(client, key, query)?.unwrap_or(Value::Array(Vec::new()));
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = rows.iter().map(Entry::read).collect::<Option<Vec<_>>>();
    read.ok_or_else(|| "Error querying Consul agent: unreadable answer".to_owned())
}

/// Writes; whether it was done.
fn write(
    client: &Client,
    (method, key): (&str, &str),
    query: &[String],
    body: Vec<u8>,
) -> Result<bool, String> {
    let response = smol::block_on(client.call((method, &key_path(key)), query, body))?;
    Ok(response.body.trim_ascii() == b"true")
}

/// A key without the slash that people put before it; no key begins with one.
fn bare(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(words: &[&str]) -> (u8, String) {
        let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        (exit.code, exit.stderr.lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn what_cannot_be_done_is_refused_before_the_agent_is_asked() {
        let slash = "Error! Failed writing data: Invalid key. Key must not begin with a '/': /a";
        for (words, line) in [
            (&["get"][..], "Error! Missing KEY argument"),
            (&["get", "a", "b"], "Too many arguments (expected 1, got 2)"),
            (&["put"], "Error! Missing KEY argument"),
            (&["put", "a", "b", "c"], "Too many arguments (expected 1 or 2, got 3)"),
            (&["put", "/a", "b"], slash),
            (&["put", "-cas", "a", "b"], "Must specify -modify-index with -cas!"),
            (
                &["put", "-acquire", "a"],
                "Error! Missing -session (required with -acquire and -release)",
            ),
            (
                &["put", "-base64", "a", "*"],
                "Error! Cannot base64 decode data: illegal base64 data at input byte 0",
            ),
            (
                &["put", "a", "@/nope"],
                "Error! Failed to read file: open /nope: no such file or directory",
            ),
            (&["delete"], "Error! Missing KEY argument"),
            (&["delete", "-cas", "a"], "Must specify -modify-index with -cas!"),
            (&["delete", "-cas", "-recurse", "a"], "Cannot specify both -cas and -recurse!"),
            (&["import"], "Error! Missing DATA argument"),
            (
                &["import", "{"],
                "Cannot unmarshal data: EOF while parsing an object at line 1 column 1",
            ),
            (
                &["import", "[{\"key\":\"a\",\"value\":\"*\"}]"],
                "Error! Failed to decode value of key a: illegal base64 data at input byte 0",
            ),
        ] {
            assert_eq!(exit(words), (1, line.to_owned()), "{words:?}");
        }
    }

    #[test]
    fn an_unknown_member_of_the_group_gets_the_list() {
        let (code, line) = exit(&["nosuch"]);
        assert_eq!((code, line.as_str()), (1, "Usage: terraform kv <subcommand> [options] [args]"));
        let exit = run(&["-h".to_owned()]);
        assert_eq!(exit.code, 0);
        assert!(exit.stdout.contains("import"));
    }

    #[test]
    fn a_key_keeps_its_slashes_on_the_way() {
        assert_eq!(key_path("a/b c%"), "/v1/kv/a/b%20c%25");
    }
}
