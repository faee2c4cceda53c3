//! `terraform snapshot save`.
//!
//! What comes is written beside the file that is asked for and verified there; only then it gets
//! its name.

use super::super::Exit;
use super::super::client::{self, Client};
use super::super::transport::unexpected;
use super::{bar, failed, file_argument, open, verify};
use argh::{ArgsInfo, FromArgs};
use std::fs::{self, File};
use std::io::{self, Write as _};
use terraform_io::http::client::{ClientLimits, system_text};

/// Saves everything that the servers hold in FILE.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
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
    let (arguments, client) = client::parse::<Arguments>("snapshot save", words)?;
    let path = file_argument(&arguments.file)?;
    let unverified = format!("{path}.unverified");
    let saved = save(&client, path, &unverified);
    if saved.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&unverified);
    }
    let index = saved?;
    Ok(format!("Saved and verified snapshot to index {index}\n"))
}

/// The index of what was saved.
fn save(client: &Client, path: &str, unverified: &str) -> Result<u64, Exit> {
    let of_file = |error: io::Error| {
        failed(&format!("Error writing snapshot file: {path}: {}", system_text(&error)))
    };
    let file = File::create(unverified).map_err(of_file)?;
    download(client, &file).map_err(|error| failed(&format!("Error saving snapshot: {error}")))?;
    file.sync_all().map_err(of_file)?;
    let (file, bytes) = open(unverified)?;
    let meta = verify(&file, bytes)?;
    fs::rename(unverified, path).map_err(of_file)?;
    Ok(meta.index)
}

fn download(client: &Client, mut file: &File) -> Result<(), String> {
    let request = client.request(("GET", "/v1/snapshot"), &[])?;
    let bar = bar("Saving", None);
    let received = smol::block_on(request.download(&ClientLimits::default(), |piece| {
        bar.inc(piece.len() as u64);
        file.write_all(piece)
    }));
    bar.finish_and_clear();
    let response = received.map_err(|error| request.error_text(&error))?;
    if response.status == 200 { Ok(()) } else { Err(unexpected(&response)) }
}
