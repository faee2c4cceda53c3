//! `terraform leave`.

use super::Exit;
use super::client::{self, Way};
use super::transport::Rpc;
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes an agent leave its cluster gracefully and stop.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// leave even if the remaining servers would have no quorum
    #[argh(option, arg_name = "bool")]
    force: Option<bool>,
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
            client.order(if force { "/v1/agent/leave?force" } else { "/v1/agent/leave" })
        }
    });
    match left {
        Ok(()) => Exit::success("Graceful leave complete\n"),
        Err(error) => Exit::failure(format!("Error leaving: {error}\n")),
    }
}
