//! `terraform monitor`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, target};
use argh::{ArgsInfo, FromArgs};
use std::io::Write as _;
use terraform_core::trace::Level;
use terraform_core::wire::ipc::{Body, Command};

/// Streams the logs of an agent, the last 512 lines first, until interrupted.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the least severe level to show (INFO)
    #[argh(option, arg_name = "level", default = "\"INFO\".to_owned()")]
    log_level: String,
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("monitor", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    if Level::parse(&arguments.log_level).is_none() {
        let level = &arguments.log_level;
        return Exit::failure(format!("Error starting monitor: Unknown log level: {level}\n"));
    }
    // HTTP has no log stream yet, so its variables do not apply here.
    let address = match target(arguments.rpc_addr, None) {
        Target::Rpc(address) => address,
        Target::Http(_) => "127.0.0.1:8400".to_owned(),
    };
    match stream(&address, arguments.log_level) {
        Ok(()) => Exit::default(),
        Err(error) => Exit::failure(format!("Error starting monitor: {error}\n")),
    }
}

fn stream(address: &str, level: String) -> Result<(), String> {
    let mut rpc = Rpc::connect(address)?;
    rpc.call(Command::Monitor { level })?;
    let mut out = std::io::stdout();
    while let Some(record) = rpc.next()? {
        let Some(Body::Log(line)) = record.body else { continue };
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            // Whoever read the stream is gone.
            return Ok(());
        }
    }
    Ok(())
}
