//! How fast the shipped binary is, beside other programs in one run:
//! `cargo run --release -p e2e --bin bench -- kv [--seconds N] [--peers DIR]`, `dns`,
//! `failover`, `large [--keys N]`, `http [--seconds N]`, `catalog [--nodes N]` and
//! `watch [--watchers N]`.
//!
//! It measures `$TERRAFORM_BIN`, or what `cargo build --release -p agent` made. `--peers` names a
//! folder with a `consul`; `etcd` is looked for there and among the installed programs, and
//! `--other` names another build of ours. Servers and load share the machine, so only ratios within
//! one run count.

#![expect(clippy::indexing_slicing, reason = "a panic is how a measurement fails")]

mod catalog;
mod contender;
mod disk;
mod dns;
mod failover;
mod http;
mod kv;
mod large;
mod load;
mod watch;

use contender::{Contender, Kind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: bench kv [--seconds N] [--peers DIR] [--other FILE]
       bench dns [--seconds N] [--peers DIR] [--other FILE]
       bench failover [--peers DIR]
       bench large [--keys N] [--peers DIR]
       bench http [--seconds N] [--peers DIR]
       bench catalog [--nodes N] [--peers DIR]
       bench watch [--watchers N] [--peers DIR]";

/// The flags.
const KNOWN: &[&str] = &["seconds", "peers", "other", "keys", "nodes", "watchers"];

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
    let flags = e2e::Flags::parse(std::env::args().skip(1), KNOWN)?;
    let [what] = flags.words.as_slice() else { return Err(USAGE.to_owned()) };
    let mut contenders = vec![Contender { kind: Kind::Terraform, program: shipped()? }];
    if let Some(other) = flags.text("other") {
        contenders.push(Contender { kind: Kind::Terraform, program: other.into() });
    }
    if let Some(folder) = flags.text("peers") {
        for (kind, name) in [(Kind::Consul, "consul"), (Kind::Etcd, "etcd")] {
            match find(Path::new(folder), name) {
                Some(program) => contenders.push(Contender { kind, program }),
                None => println!("{name} is not there and left out"),
            }
        }
    }
    let count = |name: &str, default| {
        usize::try_from(flags.number(name, default)?).map_err(|_| USAGE.to_owned())
    };
    match what.as_str() {
        "kv" => kv::run(&contenders, Duration::from_secs(flags.number("seconds", 3)?)),
        "dns" => {
            contenders.retain(|contender| contender.kind != Kind::Etcd);
            dns::run(&contenders, Duration::from_secs(flags.number("seconds", 2)?))?;
        }
        "failover" => failover::run(&contenders),
        "large" => large::run(&contenders, count("keys", 1_000_000)?),
        "http" => http::run(&contenders, Duration::from_secs(flags.number("seconds", 3)?)),
        "catalog" => catalog::run(&contenders, count("nodes", 10_000)?),
        "watch" => watch::run(&contenders, count("watchers", 5_000)?),
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
