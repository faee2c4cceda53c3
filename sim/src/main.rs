//! The simulator's command line: one seed, a swarm of seeds, determinism, planted bugs.

use mimalloc::MiMalloc;
use sim::cli;
use std::process::ExitCode;

/// Packets and names of a thousand members live side by side here; what is allocated together stays
/// together, which a large world feels in every event.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    cli::command(&words)
}
