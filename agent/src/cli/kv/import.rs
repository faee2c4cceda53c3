//! `terraform kv import`.

use super::super::client;
use super::{Exit, data, write};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use terraform_core::wire::base64;

/// Stores what export has printed, in its order. DATA is the JSON itself, @FILE for the content of
/// a file, or - for standard input.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the data
    #[argh(positional)]
    data: Vec<String>,
}

/// One entry to store.
struct Row {
    key: String,
    flags: u64,
    value: Vec<u8>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) => exit,
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("kv import", words)?;
    let refuse = |rule: String| Exit::failure(format!("{rule}\n"));
    let word = match arguments.data.as_slice() {
        [] => return Err(refuse("Error! Missing DATA argument".to_owned())),
        [word] => word,
        more => {
            return Err(refuse(format!("Too many arguments (expected 1, got {})", more.len())));
        }
    };
    let data = data::read(word).map_err(refuse)?;
    let unreadable = |error| refuse(format!("Cannot unmarshal data: {error}"));
    let value: Value = serde_json::from_slice(&data).map_err(unreadable)?;
    let rows = value.as_array().map(Vec::as_slice);
    let rows = rows.ok_or_else(|| refuse("Cannot unmarshal data: it is no list".to_owned()))?;
    // All of it is read before anything is stored.
    let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    let mut exit = Exit::default();
    for Row { key, flags, value } in rows {
        let query = [format!("flags={flags}")];
        if let Err(error) = write(&client, ("PUT", &key), &query, value) {
            exit.stderr = format!("Error! Failed writing data for key {key}: {error}\n");
            exit.code = 1;
            break;
        }
        exit.stdout.push_str(&format!("Imported: {key}\n"));
    }
    Ok(exit)
}

fn row(row: &Value) -> Result<Row, String> {
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let Some(key) = text("key").filter(|key| !key.is_empty()) else {
        return Err("Cannot unmarshal data: an entry has no \"key\"".to_owned());
    };
    let flags = match row.get("flags") {
        None | Some(Value::Null) => Some(0),
        Some(flags) => flags.as_u64(),
    };
    let flags = flags
        .ok_or_else(|| format!("Cannot unmarshal data: \"flags\" of key {key} are no number"))?;
    let value = base64::decode(text("value").unwrap_or_default().as_bytes())
        .map_err(|error| format!("Error! Failed to decode value of key {key}: {error}"))?;
    Ok(Row { key: key.to_owned(), flags, value })
}
