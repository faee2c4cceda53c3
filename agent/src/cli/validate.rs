//! `terraform validate`.

use super::agent::{Sources, format};
use super::{Exit, flags};
use crate::config::Format;
use argh::{ArgsInfo, FromArgs};
use std::path::PathBuf;

/// Checks whether an agent would start with these configuration files and folders, and nothing
/// else. Whatever it would warn of is told, too.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the format of all files, whatever they are called
    #[argh(option, arg_name = "hcl|json", from_str_fn(format))]
    config_format: Option<Format>,
    /// say nothing of a configuration that is valid
    #[argh(option, arg_name = "bool")]
    quiet: Option<bool>,
    /// files and folders
    #[argh(positional)]
    path: Vec<PathBuf>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("validate", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    if arguments.path.is_empty() {
        return Exit::failure("Must specify at least one config file or directory\n");
    }
    match Sources::of_files(arguments.path, arguments.config_format).resolve() {
        Ok(_) if arguments.quiet.unwrap_or(false) => Exit::default(),
        Ok(resolved) => {
            let line = |text: String, warning: &String| text + warning + "\n";
            let stderr = resolved.warnings.iter().fold(String::new(), line);
            Exit { stderr, ..Exit::success("Configuration is valid!\n") }
        }
        Err(error) => Exit::failure(format!("Config validation failed: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_to_be_validated() {
        let exit = run(&[]);
        let rule = "Must specify at least one config file or directory\n";
        assert_eq!((exit.code, exit.stderr.as_str()), (1, rule));
        let exit = run(&["-config-format=x", "a"].map(str::to_owned));
        let rule = "invalid value \"x\" for flag -config-format: -config-format must be either";
        assert!(exit.stderr.starts_with(rule), "{}", exit.stderr);
    }
}
