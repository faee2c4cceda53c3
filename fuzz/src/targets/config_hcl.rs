//! Configuration in HCL: the input is the text of one file.

use agent::config::{FileError, Format, parse_as};

/// Any text becomes settings or a refusal; what is no HCL is refused with a place in the text.
pub fn config_hcl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Err(FileError::Syntax(error)) = parse_as(Format::Hcl, text) else { return };
    if text.trim_start().starts_with('{') {
        return;
    }
    let place = error.strip_prefix("At ").and_then(|rest| rest.split_once(": "));
    let place = place.and_then(|(place, _)| place.split_once(':'));
    let line = place.and_then(|(line, _)| line.parse::<usize>().ok());
    let lines = text.split('\n').count();
    assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{error}");
}
