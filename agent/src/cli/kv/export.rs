//! `terraform kv export`.

use super::super::client;
use super::{Entry, Exit, bare, entries};
use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};
use terraform_core::wire::base64;

/// Prints all entries whose keys begin with PREFIX as JSON that import reads.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// what keys begin with; without it all are printed
    #[argh(positional)]
    prefix: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(text) => Exit::success(text),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<String, Exit> {
    let (arguments, client) = client::parse::<Arguments>("kv export", words)?;
    let prefix = match arguments.prefix.as_slice() {
        [] => "",
        [prefix] => bare(prefix),
        more => {
            let rule = format!("Too many arguments (expected 1, got {})\n", more.len());
            return Err(Exit::failure(rule));
        }
    };
    let found = entries(&client, prefix, &["recurse".to_owned()]);
    let found = found.map_err(|error| Exit::failure(format!("{error}\n")))?;
    Ok(exported(&found))
}

/// The entries as tab-indented JSON, members in the order that Consul prints them in.
fn exported(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "[]\n".to_owned();
    }
    let row = |entry: &Entry| {
        let member = |name: &str, value: Value| format!("\t\t\"{name}\": {value}");
        let members = [
            member("key", json!(entry.key)),
            member("flags", json!(entry.flags)),
            member("value", json!(base64::encode(&entry.value))),
        ];
        format!("\t{{\n{}\n\t}}", members.join(",\n"))
    };
    let rows: Vec<String> = entries.iter().map(row).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_indented_json_with_values_in_base64() {
        let entry = Entry {
            key: "a\"b".to_owned(),
            value: b"hello".to_vec(),
            flags: u64::MAX,
            create_index: 1,
            modify_index: 1,
            lock_index: 0,
            session: String::new(),
        };
        let expected = "[\n\t{\n\t\t\"key\": \"a\\\"b\",\n\t\t\"flags\": 18446744073709551615,\n\
                        \t\t\"value\": \"aGVsbG8=\"\n\t}\n]\n";
        assert_eq!(exported(&[entry]), expected);
        assert_eq!(exported(&[]), "[]\n");
    }
}
