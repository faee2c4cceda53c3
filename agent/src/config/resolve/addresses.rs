//! Addresses as settings give them.

use super::{Checked, Machine, ResolveError, refuse};
use crate::config::template::expand;
use std::net::IpAddr;

/// A text whose templates are replaced by what they stand for.
pub(super) fn expanded(key: &str, text: &str, machine: &Machine) -> Checked<String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let all = machine.interfaces.as_ref();
    let expanded = all.map_err(Clone::clone).and_then(|all| expand(text, all));
    expanded.map_err(|error| ResolveError(format!("{key}: {error}")))
}

/// One address.
pub(super) fn ip(key: &str, text: &str) -> Checked<IpAddr> {
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    bare.parse().or_else(|_| refuse(format!("{key}: invalid ip address: {text}")))
}

/// The one address that a setting stands for.
pub(super) fn single(key: &str, text: &str, machine: &Machine) -> Checked<IpAddr> {
    let text = expanded(key, text, machine)?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (None, _) => refuse(format!("{key} cannot be empty")),
        (Some(word), None) => ip(key, word),
        (Some(_), Some(_)) => refuse(format!(
            "{key} cannot contain multiple addresses. Use 'addresses.{{dns,http,https}}' instead."
        )),
    }
}
