//! `terraform kv delete`.

use super::super::client;
use super::{Exit, bare, write};
use argh::{ArgsInfo, FromArgs};

/// Removes a key, or every key that begins with KEY; with -recurse and no key, all of them.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// remove it only if the entry has the index of -modify-index
    #[argh(option, arg_name = "bool")]
    cas: Option<bool>,
    /// the index that the entry must have
    #[argh(option, arg_name = "index")]
    modify_index: Option<u64>,
    /// remove every key that begins with KEY
    #[argh(option, arg_name = "bool")]
    recurse: Option<bool>,
    /// the key
    #[argh(positional)]
    key: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(text) => Exit::success(text),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<String, Exit> {
    let (arguments, client) = client::parse::<Arguments>("kv delete", words)?;
    let refuse = |rule: String| Exit::failure(format!("{rule}\n"));
    let (cas, recurse) = (arguments.cas.unwrap_or(false), arguments.recurse.unwrap_or(false));
    let key = match arguments.key.as_slice() {
        [] if recurse => "",
        [] => return Err(refuse("Error! Missing KEY argument".to_owned())),
        [key] => bare(key),
        more => {
            return Err(refuse(format!("Too many arguments (expected 1, got {})", more.len())));
        }
    };
    if cas && recurse {
        return Err(refuse("Cannot specify both -cas and -recurse!".to_owned()));
    }
    let index = arguments.modify_index.unwrap_or(0);
    if cas && index == 0 {
        return Err(refuse("Must specify -modify-index with -cas!".to_owned()));
    }
    let mut query: Vec<String> = cas.then(|| format!("cas={index}")).into_iter().collect();
    query.extend(recurse.then(|| "recurse".to_owned()));
    let what = if recurse { "prefix" } else { "key" };
    let done = write(&client, ("DELETE", key), &query, Vec::new());
    let failed = |error: String| refuse(format!("Error deleting {what} {key}: {error}"));
    match (done.map_err(failed)?, recurse) {
        (true, true) => Ok(format!("Success! Deleted keys with prefix: {key}\n")),
        (true, false) => Ok(format!("Success! Deleted key: {key}\n")),
        (false, _) => Err(refuse(format!("Error! Did not delete key {key}: CAS failed"))),
    }
}
