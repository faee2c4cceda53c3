//! `terraform reload`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, http, target};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes an agent read its configuration files and apply what may change while it runs.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
    /// the HTTP address of the agent, to be used instead
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("reload", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let done = match target(arguments.rpc_addr, arguments.http_addr) {
        Target::Rpc(address) => {
            Rpc::connect(&address).and_then(|mut rpc| rpc.call(Command::Reload).map(drop))
        }
        Target::Http(base) => http(&base, "PUT", "/v1/agent/reload").map(drop),
    };
    match done {
        Ok(()) => Exit::success("Configuration reload triggered\n"),
        Err(error) => Exit::failure(format!("Error reloading: {error}\n")),
    }
}
