//! `terraform services`: what is registered on an agent (cli.md §6).

mod body;
mod deregister;
mod register;

use super::client;
use super::transport::escaped;
use super::{Command, Exit, group};
use crate::config;
use std::path::PathBuf;
use terraform_core::local::definition::ServiceDefinition;

const COMMANDS: &[Command] = &[
    Command { name: "deregister", summary: "Removes services", run: deregister::run },
    Command { name: "register", summary: "Registers services", run: register::run },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("services", COMMANDS, words)
}

/// The services that files, or the files of folders, define as an agent's configuration does, and
/// a line for each file that was passed over.
fn from_files(paths: &[String]) -> Result<(Vec<ServiceDefinition>, String), Exit> {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let loaded = config::load(&paths, None);
    let loaded = loaded.map_err(|error| Exit::failure(format!("Error: {error}\n")))?;
    let warnings = loaded.warnings.iter().fold(String::new(), |text, line| text + line + "\n");
    Ok((loaded.settings.services, warnings))
}

/// Does `one` for each of `items` until one fails; what was said before stays.
fn each<T>(
    items: impl IntoIterator<Item = T>,
    warnings: String,
    one: impl Fn(T) -> Result<String, String>,
) -> Exit {
    let mut exit = Exit { stderr: warnings, ..Exit::default() };
    for item in items {
        match one(item) {
            Ok(line) => exit.stdout.push_str(&format!("{line}\n")),
            Err(error) => {
                exit.stderr.push_str(&format!("{error}\n"));
                exit.code = 1;
                break;
            }
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_files_or_flags_say_which_service_is_meant() {
        for (words, rule) in [
            (&["register"][..], "Service registration requires at least one argument or flags.\n"),
            (
                &["register", "-name=a", "f"],
                "Service registration requires arguments or -id, not both.\n",
            ),
            (&["deregister"], "Service deregistration requires at least one argument or -id.\n"),
            (
                &["deregister", "-id=a", "f"],
                "Service deregistration requires arguments or -id, not both.\n",
            ),
            (
                &["register", "/nope.json"],
                "Error: config: Open failed on /nope.json. open /nope.json: no such file or \
                 directory\n",
            ),
            (
                &["register", "-name=a", "-tagged-address", "lan=h:x"],
                "Invalid Tagged Address: \"h:x\" is not HOST or HOST:PORT\n",
            ),
        ] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!((exit.code, exit.stderr.as_str()), (1, rule), "{words:?}");
        }
    }
}
