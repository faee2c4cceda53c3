//! `terraform snapshot restore`. The agent verifies the file before anything changes.

use super::super::transport::{escaped, http_base, request, unexpected};
use super::super::{Exit, flags};
use super::{bar, failed, file_argument, open};
use argh::{ArgsInfo, FromArgs};
use std::fs::File;
use terraform_io::http::client::ClientLimits;

/// Puts what FILE holds in the place of everything that the servers hold. It works on a running
/// cluster; who the servers are stays as it is.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the datacenter to restore (the agent's own)
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
        Ok(()) => Exit::success("Restored snapshot\n"),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<(), Exit> {
    let arguments: Arguments = flags::parse("snapshot restore", words)?;
    let (file, bytes) = open(file_argument(&arguments.file)?)?;
    let datacenter = arguments.datacenter.map(|name| format!("?dc={}", escaped(&name)));
    let base = http_base(arguments.http_addr);
    let url = format!("{base}/v1/snapshot{}", datacenter.unwrap_or_default());
    upload(&url, (&file, bytes))
        .map_err(|error| failed(&format!("Error restoring snapshot: {error}")))
}

fn upload(url: &str, body: (&File, u64)) -> Result<(), String> {
    let request = request("PUT", url)?;
    let bar = bar("Restoring", Some(body.1));
    let limits = ClientLimits::default();
    let answered = smol::block_on(request.upload(&limits, body, |sent| bar.set_position(sent)));
    bar.finish_and_clear();
    let response = answered.map_err(|error| request.error_text(&error))?;
    if response.status == 200 { Ok(()) } else { Err(unexpected(&response)) }
}
