//! `terraform snapshot save`.
//!
//! What comes is written beside the file that is asked for and verified there; only then it gets
//! its name.

use super::super::transport::{escaped, http_base, request, unexpected};
use super::super::{Exit, flags};
use super::{bar, failed, file_argument, open, verify};
use argh::{ArgsInfo, FromArgs};
use std::fs::{self, File};
use std::io::{self, Write as _};
use terraform_io::http::client::{ClientLimits, system_text};

/// Saves everything that the servers hold in FILE.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// let any server answer, also without a leader
    #[argh(option, arg_name = "bool")]
    stale: Option<bool>,
    /// the datacenter to save (the agent's own)
    #[argh(option, arg_name = "name")]
    datacenter: Option<String>,
    /// the HTTP address of the agent (127.0.0.1:8500)
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
    /// the file
    #[argh(positional)]
    file: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(text) => Exit::success(text),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<String, Exit> {
    let arguments: Arguments = flags::parse("snapshot save", words)?;
    let path = file_argument(&arguments.file)?;
    let datacenter = arguments.datacenter.map(|name| format!("dc={}", escaped(&name)));
    let stale = arguments.stale.unwrap_or(false).then(|| "stale".to_owned());
    let query: Vec<String> = datacenter.into_iter().chain(stale).collect();
    let url = format!("{}/v1/snapshot?{}", http_base(arguments.http_addr), query.join("&"));
    let unverified = format!("{path}.unverified");
    let saved = save(&url, path, &unverified);
    if saved.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&unverified);
    }
    let index = saved?;
    Ok(format!("Saved and verified snapshot to index {index}\n"))
}

/// The index of what was saved.
fn save(url: &str, path: &str, unverified: &str) -> Result<u64, Exit> {
    let of_file = |error: io::Error| {
        failed(&format!("Error writing snapshot file: {path}: {}", system_text(&error)))
    };
    let file = File::create(unverified).map_err(of_file)?;
    download(url, &file).map_err(|error| failed(&format!("Error saving snapshot: {error}")))?;
    file.sync_all().map_err(of_file)?;
    let (file, bytes) = open(unverified)?;
    let meta = verify(&file, bytes)?;
    fs::rename(unverified, path).map_err(of_file)?;
    Ok(meta.index)
}

fn download(url: &str, mut file: &File) -> Result<(), String> {
    let request = request("GET", url)?;
    let bar = bar("Saving", None);
    let received = smol::block_on(request.download(&ClientLimits::default(), |piece| {
        bar.inc(piece.len() as u64);
        file.write_all(piece)
    }));
    bar.finish_and_clear();
    let response = received.map_err(|error| request.error_text(&error))?;
    if response.status == 200 { Ok(()) } else { Err(unexpected(&response)) }
}
