//! Addresses as settings give them.

use super::{Checked, Machine, ResolveError, refuse};
use crate::config::template::expand;
use std::net::IpAddr;
use terraform_io::interfaces::InterfaceAddress;

/// Addresses that a refusal lists at most; hosts of many containers have thousands.
const LISTED_MAX: usize = 16;

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

/// The one address that a setting stands for. Who gave a template that stands for none or several
/// is told which ones there are.
pub(super) fn single(key: &str, text: &str, machine: &Machine) -> Checked<IpAddr> {
    let expanded = expanded(key, text, machine)?;
    let mut words = expanded.split_whitespace();
    let rule = match (words.next(), words.next()) {
        (None, _) => format!("{key} cannot be empty"),
        (Some(word), None) => return ip(key, word),
        (Some(_), Some(_)) => format!(
            "{key} cannot contain multiple addresses. Use 'addresses.{{dns,http,https}}' instead."
        ),
    };
    if !text.contains("{{") {
        return refuse(rule);
    }
    refuse(format!("{}. {}", rule.trim_end_matches('.'), candidates(machine)))
}

/// The addresses that an operator may choose among, with their interfaces: those that other
/// machines may reach without naming an interface (RFC 4007 §6), as a sentence.
pub(super) fn candidates(machine: &Machine) -> String {
    let all = match &machine.interfaces {
        Ok(all) => all,
        Err(error) => return format!("The addresses of this machine are not known: {error}"),
    };
    let is_scoped = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let reachable =
        |one: &&InterfaceAddress| one.is_up && !one.is_loopback && !is_scoped(one.address);
    let found = all.iter().filter(reachable);
    let listed: Vec<String> = found
        .clone()
        .take(LISTED_MAX)
        .map(|one| format!("{} ({})", one.address, one.name))
        .collect();
    let more = found.count() - listed.len();
    match (listed.is_empty(), more) {
        (true, _) => "This machine has no address that others could reach".to_owned(),
        (false, 0) => format!("This machine has {}", listed.join(", ")),
        (false, more) => format!("This machine has {} and {more} more", listed.join(", ")),
    }
}
