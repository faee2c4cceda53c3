//! Style as a test: sizes, columns, module docs, words, and the map's truth (style.md §3.7, §3.9).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a file may have.
const LINES_MAX: usize = 800;
/// Columns a line may have.
const COLUMNS_MAX: usize = 100;
/// The folders at the top, and no others but dot folders.
const FOLDERS: [&str; 6] = ["agent", "core", "fuzz", "io", "sim", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

/// The files git knows, by their paths below the root; all files where there is no repository.
fn files(ending: &str) -> Vec<(String, String)> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .expect("git lists the files");
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let wanted = names.lines().filter(|name| name.ends_with(ending));
    let read = |name: &str| {
        let text = std::fs::read_to_string(root.join(name)).ok()?;
        Some((name.to_owned(), text))
    };
    wanted.filter_map(read).collect()
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn files_and_lines_keep_their_size() {
    let mut offenders = Vec::new();
    for (name, text) in files(".rs") {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            offenders.push(format!("{name}: {lines} lines"));
        }
        for (number, line) in text.lines().enumerate() {
            // A string that cannot be broken may stand alone on its line.
            if line.chars().count() > COLUMNS_MAX && !line.contains('"') {
                offenders.push(format!("{name}:{}: {} columns", number + 1, line.chars().count()));
            }
        }
    }
    assert_none("files have at most 800 lines of 100 columns", &offenders);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |(name, text): (String, String)| (!text.starts_with("//!")).then_some(name);
    let offenders: Vec<_> = files(".rs").into_iter().filter_map(silent).collect();
    assert_none("a file begins with its module docs", &offenders);
}

#[test]
fn nothing_is_left_unfinished_or_ignored() {
    // Spelled in halves, so that this file does not find itself.
    let banned = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
        concat!("dbg", "!("),
    ];
    let mut offenders = Vec::new();
    for (name, text) in files(".rs").into_iter().chain(files(".md")).chain(files(".toml")) {
        for (number, line) in text.lines().enumerate() {
            // Lint tables name the macro they ban.
            let lints = name.ends_with("toml");
            for word in banned.iter().filter(|word| !lints && line.contains(**word)) {
                offenders.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    assert_none("nothing unfinished is in the tree", &offenders);
}

#[test]
fn tests_outside_the_end_to_end_ones_do_not_sleep() {
    let sleeps = concat!("thread::", "sleep");
    let offenders: Vec<_> = files(".rs")
        .into_iter()
        .filter(|(name, text)| !name.starts_with("tests/") && text.contains(sleeps))
        .map(|(name, _)| name)
        .collect();
    assert_none("only the end-to-end tests wait on real time", &offenders);
}

#[test]
fn the_top_holds_only_the_named_folders() {
    let mut folders: Vec<String> = files("")
        .into_iter()
        .filter_map(|(name, _)| Some(name.split_once('/')?.0.to_owned()))
        .filter(|folder| !folder.starts_with('.'))
        .collect();
    folders.sort();
    folders.dedup();
    assert_eq!(folders, FOLDERS);
}

#[test]
fn whatever_is_said_to_spring_a_trap_is_there() {
    let table = std::fs::read_to_string(root().join("sim/scenarios/README.md"));
    let table = table.expect("the table is there");
    let mutants = std::fs::read_to_string(root().join("sim/src/cli.rs")).expect("it is there");
    let core = files(".rs").into_iter().filter(|(name, _)| name.starts_with("core/src/raft/"));
    let tests: String = core.map(|(_, text)| text).collect();
    let is_there = |name: &str| {
        root().join(format!("sim/scenarios/{name}.txt")).exists()
            || root().join(format!("sim/scripts/{name}.script")).exists()
            || mutants.contains(&format!("(\"{name}\", "))
            || tests.contains(&format!("fn {name}()"))
    };
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let names = rows.filter_map(|line| line.rsplit('|').nth(1)).flat_map(|cell| cell.split(','));
    let names: Vec<&str> = names.map(|name| name.trim().trim_matches('`')).collect();
    assert!(names.len() > 30, "{names:?}");
    let offenders: Vec<String> =
        names.into_iter().filter(|name| !is_there(name)).map(str::to_owned).collect();
    assert_none("every name in the table of traps exists", &offenders);
}

#[test]
fn the_map_names_every_module_of_the_core() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the map is there");
    let lib = std::fs::read_to_string(root().join("core/src/lib.rs")).expect("the core is there");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let offenders: Vec<String> =
        modules.filter(|module| !map.contains(&format!("`{module}`"))).map(str::to_owned).collect();
    assert_none("ARCHITECTURE.md names every module of core", &offenders);
    assert!(map.lines().count() <= 300, "ARCHITECTURE.md has at most 300 lines");
}
