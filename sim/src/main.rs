//! The simulator's command line: one seed, a swarm of seeds, determinism, planted bugs.

use sim::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    cli::command(&words)
}
