//! `terraform operator`: what concerns the servers themselves (cli.md §8).

mod raft;

use super::{Command, Exit, group};

const COMMANDS: &[Command] =
    &[Command { name: "raft", summary: "Shows and changes who takes part", run: raft::run }];

pub(super) fn run(words: &[String]) -> Exit {
    group("operator", COMMANDS, words)
}
