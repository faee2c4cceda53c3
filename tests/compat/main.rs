//! What Consul's clients are answered: every table of this folder, asked of the built binary.
//!
//! How tables are read stands in `e2e::compat`, where and why the answers differ from Consul's in
//! `DIFFERENCES.md`.

use e2e::compat::{Program, Table, run};
use std::collections::BTreeSet;
use std::path::PathBuf;

macro_rules! tables {
    ($($name:ident)*) => {
        const ASKED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            assert_answers(stringify!($name));
        })*
    };
}

tables! {
    agent catalog checks configured coordinate dns_codes dns_limits dns_names dns_order dns_sections
    dns_sizes dns_whole_names event general health keyring kv operator query services session
    snapshot status telemetry txn ui
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("compat")
}

fn table(name: &str) -> Table {
    let text = std::fs::read_to_string(folder().join(format!("{name}.table")));
    Table::parse(name, &text.expect("the table is there")).unwrap_or_else(|why| panic!("{why}"))
}

fn assert_answers(name: &str) {
    let failures = run(&table(name), &Program::Terraform);
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_table_is_asked_and_every_difference_is_explained() {
    let files = std::fs::read_dir(folder()).expect("the folder is there");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let found: BTreeSet<String> =
        names.filter_map(|name| Some(name.strip_suffix(".table")?.to_owned())).collect();
    let known = ASKED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, known, "tables of the folder and of this file");

    let steps = found.iter().flat_map(|name| table(name).steps);
    let used: BTreeSet<String> = steps.filter_map(|step| Some(step.consul?.0)).collect();
    let text = std::fs::read_to_string(folder().join("DIFFERENCES.md"));
    let text = text.expect("the explanations are there");
    let explained =
        text.lines().filter_map(|line| line.strip_prefix("## ").map(str::to_owned)).collect();
    assert_eq!(used, explained, "reasons in tables and sections of DIFFERENCES.md");
}
