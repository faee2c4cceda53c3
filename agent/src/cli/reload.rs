//! `terraform reload`.

use super::Exit;
use super::client::{self, Way};
use super::transport::Rpc;
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes an agent read its configuration files and apply what may change while it runs.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {}

pub(super) fn run(words: &[String]) -> Exit {
    let agent = match client::parse_either::<Arguments>("reload", words) {
        Ok((Arguments {}, agent)) => agent,
        Err(exit) => return exit,
    };
    let done = agent.way().and_then(|way| match way {
        Way::Rpc(address) => Rpc::connect(&address)?.call(Command::Reload).map(drop),
        Way::Http(client) => client.order("/v1/agent/reload"),
    });
    match done {
        Ok(()) => Exit::success("Configuration reload triggered\n"),
        Err(error) => Exit::failure(format!("Error reloading: {error}\n")),
    }
}
