//! `terraform leave`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, http, target};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes an agent leave its cluster gracefully and stop.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// leave even if the remaining servers would have no quorum
    #[argh(option, arg_name = "bool")]
    force: Option<bool>,
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
    /// the HTTP address of the agent, to be used instead
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("leave", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let force = arguments.force.unwrap_or(false);
    let left = match target(arguments.rpc_addr, arguments.http_addr) {
        Target::Rpc(address) => {
            Rpc::connect(&address).and_then(|mut rpc| rpc.call(Command::Leave { force }).map(drop))
        }
        Target::Http(base) => {
            let path = if force { "/v1/agent/leave?force" } else { "/v1/agent/leave" };
            http(&base, "PUT", path).map(drop)
        }
    };
    match left {
        Ok(()) => Exit::success("Graceful leave complete\n"),
        Err(error) => Exit::failure(format!("Error leaving: {error}\n")),
    }
}
