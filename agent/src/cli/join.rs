//! `terraform join`.

use super::Exit;
use super::client::{self, Client, Way};
use super::transport::{Rpc, escaped};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::{Body, Command, Join};

/// Tells an agent to join a cluster by contacting at least one of its members.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// join the WAN pool, which connects the servers of all datacenters
    #[argh(option, arg_name = "bool")]
    wan: Option<bool>,
    /// addresses of members, host or host:port
    #[argh(positional)]
    address: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let (arguments, agent) = match client::parse_either::<Arguments>("join", words) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    if arguments.address.is_empty() {
        let help = client::help_either::<Arguments>("join");
        let rule = "At least one address to join must be specified.";
        return Exit::failure(format!("{rule}\n\n{help}"));
    }
    let wan = arguments.wan.unwrap_or(false);
    let joined = agent.way().and_then(|way| match way {
        Way::Rpc(address) => over_rpc(&address, arguments.address, wan),
        Way::Http(client) => Ok(over_http(&client, &arguments.address, wan)),
    });
    match joined {
        Err(error) => Exit::failure(format!("{error}\n")),
        Ok((0, errors)) => Exit::failure(format!("{errors}Failed to join any nodes.\n")),
        Ok((count, errors)) => Exit {
            stdout: format!("Successfully joined cluster by contacting {count} nodes.\n"),
            stderr: errors,
            code: 0,
            ..Exit::default()
        },
    }
}

fn over_rpc(agent: &str, addresses: Vec<String>, wan: bool) -> Result<(u64, String), String> {
    let mut rpc = Rpc::connect(agent)?;
    let command = Command::Join(Join { addresses, replay: false, wan });
    match rpc.call(command) {
        Ok(response) => match response.body {
            Some(Body::Join { reached }) => Ok((reached, String::new())),
            _ => Err("Error joining the cluster: the agent answered without a count".to_owned()),
        },
        Err(error) => Ok((0, format!("Error joining the cluster: {}\n", error.trim_end()))),
    }
}

/// Each address is a request of its own.
fn over_http(client: &Client, addresses: &[String], wan: bool) -> (u64, String) {
    let mut joined = 0;
    let mut errors = String::new();
    for address in addresses {
        let query = if wan { "?wan=1" } else { "" };
        let path = format!("/v1/agent/join/{}{query}", escaped(address));
        match client.order(&path) {
            Ok(()) => joined += 1,
            Err(error) => {
                errors.push_str(&format!("Error joining address '{address}': {error}\n"));
            }
        }
    }
    (joined, errors)
}
