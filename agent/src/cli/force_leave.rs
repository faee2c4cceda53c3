//! `terraform force-leave`.

use super::Exit;
use super::client::{self, Way};
use super::transport::{Rpc, escaped};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::Command;

/// Makes a failed member enter the left state; one that is alive refutes it.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// forget the member at once
    #[argh(option, arg_name = "bool")]
    prune: Option<bool>,
    /// the member's name
    #[argh(positional)]
    node: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let (arguments, agent) = match client::parse_either::<Arguments>("force-leave", words) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let [node] = arguments.node.as_slice() else {
        let help = client::help_either::<Arguments>("force-leave");
        let rule = "A single node name must be specified to force leave.";
        return Exit::failure(format!("{rule}\n\n{help}"));
    };
    let prune = arguments.prune.unwrap_or(false);
    let done = agent.way().and_then(|way| match way {
        Way::Rpc(address) => {
            let command = Command::ForceLeave { node: node.clone(), prune };
            Rpc::connect(&address)?.call(command).map(drop)
        }
        Way::Http(client) => {
            let query = if prune { "?prune" } else { "" };
            client.order(&format!("/v1/agent/force-leave/{}{query}", escaped(node)))
        }
    });
    match done {
        Ok(()) => Exit::default(),
        Err(error) => Exit::failure(format!("Error force leaving: {error}\n")),
    }
}
