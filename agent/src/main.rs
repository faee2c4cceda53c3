//! The `terraform` binary: arguments in, text and exit code out.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let exit = agent::cli::run(&words);
    // A closed pipe is the reader's choice; there is nobody left to tell.
    let _ = std::io::stdout().write_all(&exit.raw);
    let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
    let _ = std::io::stderr().write_all(exit.stderr.as_bytes());
    ExitCode::from(exit.code)
}
