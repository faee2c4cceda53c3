//! `terraform force-leave`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, escaped, http, target};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes a failed member enter the left state; one that is alive refutes it.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// forget the member at once
    #[argh(option, arg_name = "bool")]
    prune: Option<bool>,
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
    /// the HTTP address of the agent, to be used instead
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
    /// the member's name
    #[argh(positional)]
    node: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("force-leave", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let [node] = arguments.node.as_slice() else {
        let help = flags::help("force-leave", &Arguments::get_args_info());
        let rule = "A single node name must be specified to force leave.";
        return Exit::failure(format!("{rule}\n\n{help}"));
    };
    let prune = arguments.prune.unwrap_or(false);
    let done = match target(arguments.rpc_addr, arguments.http_addr) {
        Target::Rpc(address) => Rpc::connect(&address).and_then(|mut rpc| {
            rpc.call(Command::ForceLeave { node: node.clone(), prune }).map(drop)
        }),
        Target::Http(base) => {
            let query = if prune { "?prune" } else { "" };
            let path = format!("/v1/agent/force-leave/{}{query}", escaped(node));
            http(&base, "PUT", &path).map(drop)
        }
    };
    match done {
        Ok(()) => Exit::default(),
        Err(error) => Exit::failure(format!("Error force leaving: {error}\n")),
    }
}
