//! Asks Consul 1.8.7 the tables of `tests/compat`, or the agent those of endpoints in the making.
//!
//! ```sh
//! cargo run -p e2e --bin replay -- /path/to/consul kv txn   # all of them without names
//! cargo run -p e2e --bin replay -- terraform query
//! ```
//!
//! Ends with 0 if every answer is the one that the tables have for that program, with 1 if not.

use e2e::compat::{Program, Table, run};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let program = match words.next().as_deref() {
        Some("terraform") => Program::Terraform,
        Some(path) => Program::Consul(PathBuf::from(path)),
        None => {
            eprintln!("usage: replay CONSUL|terraform [TABLE...]");
            return ExitCode::from(2);
        }
    };
    let mut names: Vec<String> = words.collect();
    if names.is_empty() {
        names = all();
    }
    let mut failures = 0;
    for name in names {
        let found = replay(&name, &program);
        println!("{name}: {} differ", found.len());
        for failure in &found {
            println!("\n{failure}");
        }
        failures += found.len();
    }
    ExitCode::from(u8::from(failures > 0))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("compat")
}

fn all() -> Vec<String> {
    let files = std::fs::read_dir(folder()).into_iter().flatten().filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".table")?.to_owned())).collect();
    names.sort();
    names
}

fn replay(name: &str, program: &Program) -> Vec<String> {
    let read = std::fs::read_to_string(folder().join(format!("{name}.table")));
    let table = read.map_err(|error| format!("{name}: {error}"));
    match table.and_then(|text| Table::parse(name, &text)) {
        Ok(table) => run(&table, program),
        Err(why) => vec![why],
    }
}
