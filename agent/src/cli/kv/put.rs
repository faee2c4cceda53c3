//! `terraform kv put`.

use super::super::client;
use super::{Exit, data, escaped, write};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::base64;

/// Stores a value under a key. DATA is the value itself, @FILE for the content of a file, or - for
/// standard input; without it the value is empty.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// take the lock of the key for a session
    #[argh(option, arg_name = "bool")]
    acquire: Option<bool>,
    /// the data is base64 of the value
    #[argh(option, arg_name = "bool")]
    base64: Option<bool>,
    /// store it only if the entry has the index of -modify-index
    #[argh(option, arg_name = "bool")]
    cas: Option<bool>,
    /// a number to be stored beside the value (0)
    #[argh(option, arg_name = "number")]
    flags: Option<u64>,
    /// the index that the entry must have
    #[argh(option, arg_name = "index")]
    modify_index: Option<u64>,
    /// give the lock of the key back
    #[argh(option, arg_name = "bool")]
    release: Option<bool>,
    /// the session that takes or gives back the lock
    #[argh(option, arg_name = "id")]
    session: Option<String>,
    /// the key, and the data
    #[argh(positional)]
    data: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(text) => Exit::success(text),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<String, Exit> {
    let (arguments, client) = client::parse::<Arguments>("kv put", words)?;
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let (acquire, release) = (on(arguments.acquire), on(arguments.release));
    let refuse = |rule: String| Err(Exit::failure(format!("{rule}\n")));
    let (key, word) = match arguments.data.as_slice() {
        [] => return refuse("Error! Missing KEY argument".to_owned()),
        [key] => (key, ""),
        [key, word] => (key, word.as_str()),
        more => {
            return refuse(format!("Too many arguments (expected 1 or 2, got {})", more.len()));
        }
    };
    let index = arguments.modify_index.unwrap_or(0);
    let session = arguments.session.unwrap_or_default();
    if on(arguments.cas) && index == 0 {
        return refuse("Must specify -modify-index with -cas!".to_owned());
    }
    if (acquire || release) && session.is_empty() {
        let rule = "Error! Missing -session (required with -acquire and -release)";
        return refuse(rule.to_owned());
    }
    if key.starts_with('/') {
        let rule = "Invalid key. Key must not begin with a '/'";
        return refuse(format!("Error! Failed writing data: {rule}: {key}"));
    }
    let mut value = data::read(word).or_else(refuse_with)?;
    if on(arguments.base64) {
        let decoded = base64::decode(value.trim_ascii());
        let failed = |error| format!("Error! Cannot base64 decode data: {error}");
        value = decoded.map_err(failed).or_else(refuse_with)?;
    }
    let mut query = Vec::new();
    query.extend(arguments.flags.map(|flags| format!("flags={flags}")));
    query.extend(on(arguments.cas).then(|| format!("cas={index}")));
    query.extend(acquire.then(|| format!("acquire={}", escaped(&session))));
    query.extend(release.then(|| format!("release={}", escaped(&session))));
    let done = write(&client, ("PUT", key), &query, value);
    let failed = |error: String| format!("Error! Failed writing data: {error}");
    let done = done.map_err(failed).or_else(refuse_with)?;
    match (done, acquire, release) {
        (true, true, _) => Ok(format!("Success! Lock acquired on: {key}\n")),
        (true, false, true) => Ok(format!("Success! Lock released on: {key}\n")),
        (true, false, false) => Ok(format!("Success! Data written to: {key}\n")),
        (false, true, _) => refuse("Error! Did not acquire lock".to_owned()),
        (false, false, true) => refuse("Error! Did not release lock".to_owned()),
        (false, false, false) => refuse(format!("Error! Did not write to {key}: CAS failed")),
    }
}

fn refuse_with<T>(rule: String) -> Result<T, Exit> {
    Err(Exit::failure(format!("{rule}\n")))
}
