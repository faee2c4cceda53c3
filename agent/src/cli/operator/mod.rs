//! `terraform operator`: what concerns the servers themselves (cli.md §8).

mod autopilot;
mod raft;

use super::{Command, Exit, group};

const COMMANDS: &[Command] = &[
    Command {
        name: "autopilot",
        summary: "Shows and changes who is cared for how",
        run: autopilot::run,
    },
    Command { name: "raft", summary: "Shows and changes who takes part", run: raft::run },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("operator", COMMANDS, words)
}
