//! How fast the shipped binary is, beside other programs in one run:
//! `cargo run --release -p e2e --bin bench -- kv [--seconds N] [--peers DIR]`, `failover`, and
//! `large [--keys N]`.
//!
//! It measures `$TERRAFORM_BIN`, or what `cargo build --release -p agent` made. `--peers` names a
//! folder with a `consul`; `etcd` is looked for there and among the installed programs. Servers
//! and load share the machine, so only ratios within one run count.

#![expect(clippy::indexing_slicing, reason = "a panic is how a measurement fails")]

mod contender;
mod disk;
mod failover;
mod kv;
mod large;
mod load;

use contender::{Contender, Kind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: bench kv [--seconds N] [--peers DIR]
       bench failover [--peers DIR]
       bench large [--keys N] [--peers DIR]";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), String> {
    let flags = e2e::Flags::parse(std::env::args().skip(1), &["seconds", "peers", "keys"])?;
    let [what] = flags.words.as_slice() else { return Err(USAGE.to_owned()) };
    let mut contenders = vec![Contender { kind: Kind::Terraform, program: shipped()? }];
    if let Some(folder) = flags.text("peers") {
        for (kind, name) in [(Kind::Consul, "consul"), (Kind::Etcd, "etcd")] {
            match find(Path::new(folder), name) {
                Some(program) => contenders.push(Contender { kind, program }),
                None => println!("{name} is not there and left out"),
            }
        }
    }
    match what.as_str() {
        "kv" => kv::run(&contenders, Duration::from_secs(flags.number("seconds", 3)?)),
        "failover" => failover::run(&contenders),
        "large" => {
            let keys = flags.number("keys", 1_000_000)?;
            large::run(&contenders, usize::try_from(keys).map_err(|_| USAGE.to_owned())?);
        }
        _ => return Err(USAGE.to_owned()),
    }
    Ok(())
}

fn shipped() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace");
    let usual = || root.join("target/release/terraform");
    let program = std::env::var_os("TERRAFORM_BIN").map_or_else(usual, PathBuf::from);
    if program.exists() {
        return Ok(program);
    }
    let program = program.display();
    Err(format!("{program} is not there: run `cargo build --release -p agent` first"))
}

/// A program in `folder`, or an installed one.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
