//! Where an agent's log goes besides the console.

use e2e::{Folder, Options};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The files of a folder whose names begin with `stem` and a dash, oldest first.
fn files(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('-'))
        })
        .collect();
    files.sort();
    files
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the log is readable")
}

#[test]
fn a_log_file_holds_the_whole_run_and_each_run_has_its_own() {
    let folder = Folder::new("log-file");
    let into = format!("-log-file={}/", folder.display());
    let mut agent = Options::new("logged", &["-server", "-bootstrap", &into]).start();
    agent.wait_for_leader();
    assert!(agent.interrupt().success());
    let found = files(&folder, "terraform");
    let [first] = found.as_slice() else { panic!("{found:?}") };
    let mode = first.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
    let log = text(first);
    let lines: Vec<&str> = log.lines().collect();
    let is_dated = |line: &&str| line.get(23..26) == Some("Z [");
    assert!(lines.iter().all(is_dated), "{log}");
    assert!(log.contains("[INFO] serf: EventMemberJoin: logged"), "{log}");
    let last = "[INFO] agent: Gracefully shutting down agent...";
    assert!(lines.iter().any(|line| line.ends_with(last)), "{log}");

    let mut again = agent.options.clone().start();
    assert!(again.interrupt().success());
    let found = files(&folder, "terraform");
    assert_eq!((found.len(), &found[0], text(first)), (2, first, log));
}

#[test]
fn log_files_rotate_and_lines_are_objects_where_that_is_wanted() {
    let folder = Folder::new("log-rotate");
    let path = format!("-log-file={}/agent.json", folder.display());
    let arguments = ["-server", "-bootstrap", "-log-json", &path];
    let limits = ["-log-rotate-bytes=1", "-log-rotate-max-files=2"];
    let mut agent = Options::new("rotated", &arguments).with(&limits).start();
    agent.wait_for_leader();
    assert!(agent.interrupt().success());
    let found = files(&folder, "agent");
    let kept: Vec<String> = found.iter().map(|path| text(path)).collect();
    // A file is full with its first line; a start alone says more than three.
    assert!(kept.iter().all(|text| text.lines().count() == 1), "{kept:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    let shown = agent.lines().into_iter().filter(|line| line.starts_with('{'));
    let shown: Vec<String> = shown.collect();
    assert!(shown.len() > 3, "{shown:?}");
    for line in kept.iter().chain(&shown) {
        let line: Value = serde_json::from_str(line).expect("an object");
        assert!(line["@message"].is_string() && line["@module"].is_string(), "{line}");
    }
}

#[test]
fn a_log_file_that_cannot_be_begun_refuses_the_start() {
    let refused = Options::new("unlogged", &["-log-file=/nope/agent"]);
    let output = refused.command().output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let beginning = "==> Failed to setup logging: open /nope/agent-";
    assert!(error.starts_with(beginning), "{error}");
    assert!(error.ends_with(".log: no such file or directory\n"), "{error}");
}
