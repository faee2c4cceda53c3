//! `terraform leave`.

use super::Exit;
use super::client::{self, Client, Way};
use super::transport::{Rpc, unexpected};
use argh::{ArgsInfo, FromArgs};
use std::time::Duration;
use terraform_core::wire::ipc::Command;

/// Makes an agent leave its cluster gracefully and stop.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// leave even if the remaining servers would have no quorum
    #[argh(option, arg_name = "bool")]
    force: Option<bool>,
}

/// Longer than any leave takes: `performance.leave_drain_time` is at most an hour.
const TIME: Duration = Duration::from_secs(2 * 3600);

fn over_http(client: &Client, path: &str) -> Result<(), String> {
    let response = smol::block_on(client.ask(("PUT", path), &[], Vec::new(), TIME))?;
    if response.status == 200 { Ok(()) } else { Err(unexpected(&response)) }
}

pub(super) fn run(words: &[String]) -> Exit {
    let (arguments, agent) = match client::parse_either::<Arguments>("leave", words) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let force = arguments.force.unwrap_or(false);
    let left = agent.way().and_then(|way| match way {
        Way::Rpc(address) => Rpc::connect(&address)?.call(Command::Leave { force }).map(drop),
        Way::Http(client) => {
            over_http(&client, if force { "/v1/agent/leave?force" } else { "/v1/agent/leave" })
        }
    });
    match left {
        Ok(()) => Exit::success("Graceful leave complete\n"),
        Err(error) => Exit::failure(format!("Error leaving: {error}\n")),
    }
}
