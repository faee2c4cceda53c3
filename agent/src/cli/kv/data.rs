//! Where the data of a command comes from: the word itself, `@file`, or `-` for standard input.

use std::io::Read as _;
use terraform_io::http::client::system_text;

/// The bytes that a word stands for.
pub(super) fn read(word: &str) -> Result<Vec<u8>, String> {
    if word == "-" {
        let mut data = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut data);
        let failed = |error| format!("Error! Failed to read stdin: {}", system_text(&error));
        return read.map(|_| data).map_err(failed);
    }
    let Some(file) = word.strip_prefix('@') else { return Ok(word.as_bytes().to_vec()) };
    let failed =
        |error| format!("Error! Failed to read file: open {file}: {}", system_text(&error));
    std::fs::read(file).map_err(failed)
}
