//! The command line: one file for each command, Go-style flags, exit codes of cli.md §2.

mod agent;
mod catalog;
mod client;
mod debug;
mod event;
mod exec;
mod flags;
mod force_leave;
mod info;
mod join;
mod keygen;
mod keyring;
mod keys;
mod kv;
mod leave;
mod lock;
mod maint;
mod members;
mod monitor;
mod operator;
mod reload;
mod rtt;
mod services;
mod session;
mod snapshot;
mod tags;
mod transport;
mod validate;
mod version;
mod watch;

pub(crate) use agent::Sources;
pub use flags::Exit;
pub(crate) use transport::{escaped, key_path};

/// One command: its name, what it does in a line, and what runs it.
struct Command {
    name: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Exit,
}

const COMMANDS: &[Command] = &[
    Command { name: "agent", summary: "Runs a Terraform agent", run: agent::run },
    Command { name: "catalog", summary: "Lists what the servers know", run: catalog::run },
    Command {
        name: "debug",
        summary: "Collects what an agent tells of itself in an archive",
        run: debug::run,
    },
    Command { name: "event", summary: "Fires an event that nodes can see", run: event::run },
    Command { name: "exec", summary: "Runs a command on nodes that allow it", run: exec::run },
    Command {
        name: "force-leave",
        summary: "Forces a failed member to enter the left state",
        run: force_leave::run,
    },
    Command { name: "info", summary: "Shows numbers and states of an agent", run: info::run },
    Command { name: "join", summary: "Tells an agent to join a cluster", run: join::run },
    Command { name: "keygen", summary: "Makes a key that encrypts gossip", run: keygen::run },
    Command {
        name: "keyring",
        summary: "Changes or lists the keys that encrypt gossip",
        run: keyring::run,
    },
    Command { name: "kv", summary: "Reads and writes keys and values", run: kv::run },
    Command {
        name: "leave",
        summary: "Makes an agent leave its cluster and stop",
        run: leave::run,
    },
    Command { name: "lock", summary: "Runs a program while a lock is held", run: lock::run },
    Command {
        name: "maint",
        summary: "Takes a node or a service out of all answers, and back",
        run: maint::run,
    },
    Command { name: "members", summary: "Lists the members of a cluster", run: members::run },
    Command { name: "monitor", summary: "Streams the logs of an agent", run: monitor::run },
    Command { name: "operator", summary: "Looks after the servers", run: operator::run },
    Command { name: "reload", summary: "Makes an agent read its configuration", run: reload::run },
    Command { name: "rtt", summary: "Estimates the round trip of two members", run: rtt::run },
    Command {
        name: "services",
        summary: "Registers and removes services of an agent",
        run: services::run,
    },
    Command {
        name: "snapshot",
        summary: "Saves, restores and shows what the servers hold",
        run: snapshot::run,
    },
    Command { name: "tags", summary: "Changes the tags of an agent", run: tags::run },
    Command {
        name: "validate",
        summary: "Checks the configuration of an agent",
        run: validate::run,
    },
    Command { name: "version", summary: "Prints the version", run: version::run },
    Command {
        name: "watch",
        summary: "Runs a program when something has changed",
        run: watch::run,
    },
];

/// Runs the command that `words`, without the program's name, ask for.
pub fn run(words: &[String]) -> Exit {
    let Some((name, rest)) = words.split_first() else {
        return Exit { stderr: usage(), code: 127, ..Exit::default() };
    };
    match name.as_str() {
        "-v" | "-version" | "--version" => return version::run(&[]),
        "-h" | "-help" | "--help" => return Exit::success(usage()),
        _ => {}
    }
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(rest),
        None => Exit { stderr: usage(), code: 127, ..Exit::default() },
    }
}

/// Runs the command of a group that `words` ask for.
fn group(name: &str, commands: &[Command], words: &[String]) -> Exit {
    let usage = || {
        let list = listed(commands);
        format!("Usage: terraform {name} <subcommand> [options] [args]\n\nSubcommands:\n{list}")
    };
    match words.split_first() {
        Some((word, _)) if matches!(word.as_str(), "-h" | "-help" | "--help") => {
            Exit::success(usage())
        }
        Some((word, rest)) => match commands.iter().find(|command| command.name == word) {
            Some(command) => (command.run)(rest),
            None => Exit::failure(usage()),
        },
        None => Exit::failure(usage()),
    }
}

fn usage() -> String {
    let usage = "Usage: terraform [--version] [--help] <command> [<args>]";
    format!("{usage}\n\nAvailable commands are:\n{}", listed(COMMANDS))
}

fn listed(commands: &[Command]) -> String {
    let width = commands.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let line = |command: &Command| format!("    {:width$}    {}\n", command.name, command.summary);
    commands.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_gets_the_list_and_exit_code_127() {
        let exit = run(&["frobnicate".to_owned()]);
        assert_eq!(exit.code, 127);
        assert!(exit.stderr.contains("members"));
        assert_eq!(run(&[]).code, 127);
    }
}
