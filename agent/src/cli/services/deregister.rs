//! `terraform services deregister`.

use super::{Exit, client, each, escaped, from_files};
use argh::{ArgsInfo, FromArgs};

/// Removes services from the agent they were registered on: one by its id, or those that files
/// define.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the id of the service
    #[argh(option, arg_name = "id")]
    id: Option<String>,
    /// files that define services
    #[argh(positional)]
    file: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("services deregister", words)?;
    let refuse = |rule: &str| Err(Exit::failure(format!("{rule}\n")));
    let given = arguments.id.filter(|id| !id.is_empty());
    let (ids, warnings) = match (given, arguments.file.as_slice()) {
        (None, []) => {
            return refuse("Service deregistration requires at least one argument or -id.");
        }
        (Some(_), [_, ..]) => {
            return refuse("Service deregistration requires arguments or -id, not both.");
        }
        (Some(id), []) => (vec![id], String::new()),
        (None, files) => {
            let (services, warnings) = from_files(files)?;
            let ids = services.iter().map(|definition| definition.service.id.to_string());
            (ids.collect(), warnings)
        }
    };
    Ok(each(ids, warnings, |id| {
        client
            .put(&format!("/v1/agent/service/deregister/{}", escaped(&id)), Vec::new())
            .map(|_| format!("Deregistered service: {id}"))
            .map_err(|error| format!("Error deregistering service \"{id}\": {error}"))
    }))
}
