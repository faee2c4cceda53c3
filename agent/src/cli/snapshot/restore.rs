//! `terraform snapshot restore`. The agent verifies the file before anything changes.

use super::super::Exit;
use super::super::client::{self, Client};
use super::super::transport::unexpected;
use super::{bar, failed, file_argument, open};
use argh::{ArgsInfo, FromArgs};
use std::fs::File;
use terraform_io::http::client::ClientLimits;

/// Puts what FILE holds in the place of everything that the servers hold. It works on a running
/// cluster; who the servers are stays as it is.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
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
    let (arguments, client) = client::parse::<Arguments>("snapshot restore", words)?;
    let (file, bytes) = open(file_argument(&arguments.file)?)?;
    upload(&client.fresh(), (&file, bytes))
        .map_err(|error| failed(&format!("Error restoring snapshot: {error}")))
}

fn upload(client: &Client, body: (&File, u64)) -> Result<(), String> {
    let request = client.request(("PUT", "/v1/snapshot"), &[])?;
    let bar = bar("Restoring", Some(body.1));
    let limits = ClientLimits::default();
    let answered = smol::block_on(request.upload(&limits, body, |sent| bar.set_position(sent)));
    bar.finish_and_clear();
    let response = answered.map_err(|error| request.error_text(&error))?;
    if response.status == 200 { Ok(()) } else { Err(unexpected(&response)) }
}
