//! The driver behind `cargo fuzz`: builds one target with coverage on the pinned compiler, runs it.
//!
//! ```text
//! cargo fuzz list
//! cargo fuzz run TARGET [FILE...] [-- LIBFUZZER-OPTIONS]
//! ```
//!
//! The instrumented build has its own folder, `target-fuzz`, and so have the inputs a run finds,
//! `target-fuzz/corpus/TARGET`; the reviewed seeds of `fuzz/corpus/TARGET` are only read. An input
//! that fails is kept in `fuzz/artifacts/TARGET`; giving it as FILE runs it alone.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Coverage for libFuzzer by the compiler's own passes (style.md §3.10).
///
/// Lints are capped because the entry point that libFuzzer's macro makes is unsafe, which this
/// workspace forbids; ordinary builds keep the rule.
const RUSTFLAGS: &str = "--cfg fuzzing --cap-lints=warn -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 -Cdebug-assertions";

/// Seconds and MiB one input may take; the caller's options come later and win.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

const USAGE: &str = "\
usage: cargo fuzz list
       cargo fuzz run TARGET [FILE...] [-- LIBFUZZER-OPTIONS]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.split_first() {
        Some((&"list", [])) => {
            fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}"));
            Ok(ExitCode::SUCCESS)
        }
        Some((&"run", [target, rest @ ..])) => run(target, rest),
        _ => Err(USAGE.to_owned()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

fn run(target: &str, rest: &[&str]) -> Result<ExitCode, String> {
    if !fuzz::TARGETS.iter().any(|(name, _)| *name == target) {
        return Err(format!("no target is called {target:?}; `cargo fuzz list` names them"));
    }
    let end = rest.iter().position(|word| *word == "--").unwrap_or(rest.len());
    let (files, options) = rest.split_at(end);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let build = package.join("../target-fuzz");
    let host = host()?;
    build_target(target, &host, &build)?;

    let artifacts = package.join("artifacts").join(target);
    let mut command = Command::new(build.join(&host).join("debug").join(target));
    command.args(LIMITS).arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(options.iter().skip(1));
    let mut folders = vec![artifacts];
    if files.is_empty() {
        let found = build.join("corpus").join(target);
        command.arg(&found).arg(package.join("corpus").join(target));
        folders.push(found);
    }
    for folder in folders {
        let failed = |error| format!("cannot make {}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
    }
    let status = command.args(files).status();
    let status = status.map_err(|error| format!("cannot run the target: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds in the profile of tests: lightly optimised, so that a changed core is soon instrumented.
fn build_target(target: &str, host: &str, folder: &Path) -> Result<(), String> {
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let status = Command::new(cargo)
        .args(["build", "--locked", "-p", "fuzz", "--features", "fuzzer", "--profile", "test"])
        .args(["--bin", target, "--target", host, "--target-dir"])
        .arg(folder)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("building {target} failed")) }
}

/// The host's triple. Naming it as the target keeps build scripts and macros uninstrumented.
fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "rustc does not name its host".to_owned())
}
