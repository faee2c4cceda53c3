//! `terraform kv get`.

use super::super::client;
use super::{Entry, Exit, bare, entries, escaped, read};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::fmt::Write as _;
use terraform_core::wire::base64;

/// Shows the value of a key, all entries under a prefix, or the keys under it.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// show values in base64
    #[argh(option, arg_name = "bool")]
    base64: Option<bool>,
    /// show flags and indexes, too
    #[argh(option, arg_name = "bool")]
    detailed: Option<bool>,
    /// list the keys that begin with KEY, cut behind the separator
    #[argh(option, arg_name = "bool")]
    keys: Option<bool>,
    /// show all entries whose keys begin with KEY
    #[argh(option, arg_name = "bool")]
    recurse: Option<bool>,
    /// where listed keys are cut; empty for whole keys (/)
    #[argh(option, arg_name = "text")]
    separator: Option<String>,
    /// the key
    #[argh(positional)]
    key: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) => exit,
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("kv get", words)?;
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let (keys, recurse) = (on(arguments.keys), on(arguments.recurse));
    let (detailed, in_base64) = (on(arguments.detailed), on(arguments.base64));
    let key = match arguments.key.as_slice() {
        [] if keys || recurse => "",
        [] => return Err(Exit::failure("Error! Missing KEY argument\n")),
        [key] => bare(key),
        more => {
            let rule = format!("Too many arguments (expected 1, got {})\n", more.len());
            return Err(Exit::failure(rule));
        }
    };
    let failed = |error: String| Exit::failure(format!("{error}\n"));
    if keys {
        let separator = arguments.separator.unwrap_or_else(|| "/".to_owned());
        let query = ["keys".to_owned(), format!("separator={}", escaped(&separator))];
        let listed = read(&client, key, &query).map_err(failed)?.unwrap_or_default();
        let names = listed.as_array().into_iter().flatten().filter_map(Value::as_str);
        return Ok(Exit::success(names.fold(String::new(), |text, name| text + name + "\n")));
    }
    let query: Vec<String> = recurse.then(|| "recurse".to_owned()).into_iter().collect();
    let found = entries(&client, key, &query).map_err(failed)?;
    if !recurse && found.is_empty() {
        return Err(Exit::failure(format!("Error! No key exists at: {key}\n")));
    }
    Ok(shown(&found, (recurse, detailed, in_base64)))
}

/// Entries as they are printed; values are whatever bytes they are.
fn shown(entries: &[Entry], (recurse, detailed, in_base64): (bool, bool, bool)) -> Exit {
    let mut out = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if detailed {
            if at > 0 {
                out.push(b'\n');
            }
            out.extend_from_slice(details(entry).as_bytes());
        } else if recurse {
            out.extend_from_slice(entry.key.as_bytes());
            out.push(b':');
        }
        if in_base64 {
            out.extend_from_slice(base64::encode(&entry.value).as_bytes());
        } else {
            out.extend_from_slice(&entry.value);
        }
        out.push(b'\n');
    }
    Exit { raw: out, ..Exit::default() }
}

/// The lines of an entry up to its value.
fn details(entry: &Entry) -> String {
    let session = if entry.session.is_empty() { "-" } else { &entry.session };
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:17}{value}");
    };
    line("CreateIndex", &entry.create_index.to_string());
    line("Flags", &entry.flags.to_string());
    line("Key", &entry.key);
    line("LockIndex", &entry.lock_index.to_string());
    line("ModifyIndex", &entry.modify_index.to_string());
    line("Session", session);
    let _ = write!(text, "{:17}", "Value");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &[u8]) -> Entry {
        let (key, value, session) = (key.to_owned(), value.to_vec(), String::new());
        Entry { key, value, flags: 7, create_index: 5, modify_index: 9, lock_index: 0, session }
    }

    #[test]
    fn values_are_printed_as_the_bytes_they_are() {
        let entries = [entry("a", b"\xff\x00"), entry("b", b"x")];
        let raw = |entries: &[Entry], how| shown(entries, how).raw;
        assert_eq!(raw(&entries[..1], (false, false, false)), b"\xff\x00\n");
        assert_eq!(raw(&entries, (true, false, false)), b"a:\xff\x00\nb:x\n");
        assert_eq!(raw(&entries, (true, false, true)), b"a:/wA=\nb:eA==\n");
    }

    #[test]
    fn details_stand_in_one_column_with_a_blank_line_between_entries() {
        let entries = [entry("a", b"x"), entry("b", b"")];
        let text = String::from_utf8(shown(&entries, (true, true, false)).raw).unwrap();
        let first = "CreateIndex      5\nFlags            7\nKey              a\n\
                     LockIndex        0\nModifyIndex      9\nSession          -\n\
                     Value            x\n\nCreateIndex      5\n";
        assert!(text.starts_with(first), "{text}");
    }
}
