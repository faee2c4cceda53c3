//! `terraform snapshot inspect`.

use super::super::{Exit, flags};
use super::{file_argument, open, verify};
use argh::{ArgsInfo, FromArgs};
use terraform_io::archive::Meta;

/// Checks a snapshot file and shows what it is.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the file
    #[argh(positional)]
    file: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(meta) => Exit::success(table(&meta)),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Meta, Exit> {
    let arguments: Arguments = flags::parse("snapshot inspect", words)?;
    let (file, bytes) = open(file_argument(&arguments.file)?)?;
    verify(&file, bytes)
}

fn table(meta: &Meta) -> String {
    let Meta { id, size, index, term, version, .. } = meta;
    let numbers = [("Size", size), ("Index", index), ("Term", term), ("Version", version)];
    let mut text = format!("{:<13}{id}\n", "ID");
    for (name, number) in numbers {
        text.push_str(&format!("{name:<13}{number}\n"));
    }
    text
}
