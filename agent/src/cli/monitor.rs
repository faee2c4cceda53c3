//! `terraform monitor`.

use super::Exit;
use super::client::{self, Client, Way};
use super::transport::{Rpc, unexpected};
use argh::{ArgsInfo, FromArgs};
use std::io::{self, Write as _};
use terraform_core::trace::Level;
use terraform_core::wire::ipc::{Body, Command};
use terraform_io::http::client::ClientLimits;

/// Streams the logs of an agent until interrupted; over the RPC port the last 512 lines come first.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// an object of JSON for each line; over HTTP only
    #[argh(option, arg_name = "bool")]
    log_json: Option<bool>,
    /// the least severe level to show (INFO)
    #[argh(option, arg_name = "level", default = "\"INFO\".to_owned()")]
    log_level: String,
}

pub(super) fn run(words: &[String]) -> Exit {
    let (arguments, agent) = match client::parse_either::<Arguments>("monitor", words) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let Arguments { log_json, log_level: level } = arguments;
    let json = log_json.unwrap_or(false);
    if Level::parse(&level).is_none() {
        return Exit::failure(format!("Error starting monitor: Unknown log level: {level}\n"));
    }
    let streamed = agent.way().and_then(|way| match way {
        Way::Rpc(_) if json => {
            Err("-log-json needs the HTTP interface: give -http-addr".to_owned())
        }
        Way::Rpc(address) => over_rpc(&address, level),
        Way::Http(client) => smol::block_on(over_http(&client, &level, json)),
    });
    match streamed {
        Ok(()) => Exit::default(),
        Err(error) => Exit::failure(format!("Error starting monitor: {error}\n")),
    }
}

/// Prints and flushes; an error tells that whoever read the stream is gone.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(bytes)?;
    out.flush()
}

fn over_rpc(address: &str, level: String) -> Result<(), String> {
    let mut rpc = Rpc::connect(address)?;
    rpc.call(Command::Monitor { level })?;
    while let Some(record) = rpc.next()? {
        let Some(Body::Log(line)) = record.body else { continue };
        if print(format!("{line}\n").as_bytes()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn over_http(client: &Client, level: &str, json: bool) -> Result<(), String> {
    let level = format!("loglevel={level}");
    let query: Vec<String> =
        [level].into_iter().chain(json.then(|| "logjson".to_owned())).collect();
    let request = client.request(("GET", "/v1/agent/monitor"), &query)?;
    let mut gone = false;
    let take = |piece: &[u8]| print(piece).inspect_err(|_| gone = true);
    match request.download(&ClientLimits::default(), take).await {
        Ok(response) if response.status == 200 => Ok(()),
        Ok(response) => Err(unexpected(&response)),
        Err(_) if gone => Ok(()),
        Err(error) => Err(request.error_text(&error)),
    }
}
