//! `terraform snapshot`: everything that the servers hold, as a file and back (cli.md §8).

mod inspect;
mod restore;
mod save;

use super::{Command, Exit, group};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use terraform_io::archive::Meta;
use terraform_io::http::client::system_text;

const COMMANDS: &[Command] = &[
    Command { name: "inspect", summary: "Shows what a snapshot file is", run: inspect::run },
    Command {
        name: "restore",
        summary: "Puts a snapshot in everything's place",
        run: restore::run,
    },
    Command { name: "save", summary: "Saves everything in a file", run: save::run },
];

pub(super) fn run(words: &[String]) -> Exit {
    group("snapshot", COMMANDS, words)
}

/// The one file that a command is about.
fn file_argument(words: &[String]) -> Result<&str, Exit> {
    match words {
        [] => Err(failed("Missing FILE argument")),
        [file] => Ok(file),
        more => Err(failed(&format!("Too many arguments (expected 1, got {})", more.len()))),
    }
}

fn failed(text: &str) -> Exit {
    Exit::failure(format!("{text}\n"))
}

/// Opens a snapshot file; its size comes with it.
fn open(path: &str) -> Result<(File, u64), Exit> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|known| (file, known.len())));
    opened.map_err(|error| {
        let text = system_text(&error);
        failed(&format!("Error opening snapshot file: open {path}: {text}"))
    })
}

/// Reads and checks a whole snapshot file, with a bar on a terminal.
fn verify(file: &File, bytes: u64) -> Result<Meta, Exit> {
    let bar = bar("Verifying", Some(bytes));
    let verified = terraform_io::archive::verify(bar.wrap_read(file));
    bar.finish_and_clear();
    verified.map_err(|error| failed(&format!("Error verifying snapshot: {error}")))
}

/// A bar of bytes, which a terminal alone shows; without a length, only how many there were.
fn bar(doing: &'static str, length: Option<u64>) -> ProgressBar {
    let (bar, form) = match length {
        Some(length) => (ProgressBar::new(length), "{msg} {wide_bar} {bytes}/{total_bytes}"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {bytes}"),
    };
    let style = ProgressStyle::with_template(form);
    bar.with_style(style.expect("the template is one of two")).with_message(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!((exit.code, exit.stdout.as_str()), (1, ""));
        exit.stderr
    }

    #[test]
    fn every_command_is_about_one_file() {
        for command in ["inspect", "restore", "save"] {
            assert_eq!(refused(&[command]), "Missing FILE argument\n");
            let many = "Too many arguments (expected 1, got 2)\n";
            assert_eq!(refused(&[command, "a", "b"]), many);
        }
    }

    #[test]
    fn a_file_that_is_missing_or_no_snapshot_is_named_with_the_reason() {
        let path = std::env::temp_dir().join(format!("terraform-garbage-{}", std::process::id()));
        let name = path.to_str().unwrap();
        for command in ["inspect", "restore"] {
            let expected =
                format!("Error opening snapshot file: open {name}: no such file or directory\n");
            assert_eq!(refused(&[command, name]), expected);
        }
        std::fs::write(&path, b"garbage").unwrap();
        let expected = "Error verifying snapshot: failed to decompress snapshot: unexpected EOF\n";
        assert_eq!(refused(&["inspect", name]), expected);
        std::fs::remove_file(path).unwrap();
    }
}
