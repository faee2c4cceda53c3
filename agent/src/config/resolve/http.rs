//! What is set of the HTTP interface: who may ask for what, how long reads wait, what every answer
//! carries (agent-config.md §5).

use super::super::Settings;
use super::{Checked, refuse};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use terraform_core::node::request::WAIT_MAX;
use terraform_io::http::connection::{ConnectionLimits, ENTRY_BODY_BYTES_MAX};
use terraform_io::http::settings::{CONNECTIONS_PER_CLIENT, HttpRules};

/// The rules of the interface, how many connections one address may have, and what a request may
/// cost.
pub(super) fn settle(settings: &Settings) -> Checked<(HttpRules, usize, ConnectionLimits)> {
    Ok((rules(settings)?, connections(settings)?, bytes(settings)?))
}

/// What a request may cost: values and transactions must fit into the log.
fn bytes(settings: &Settings) -> Checked<ConnectionLimits> {
    let default = ConnectionLimits::default();
    let number = |key: &str, default: usize| {
        let Some(given) = settings.tuning.numbers.get(key) else { return Ok(default) };
        let most = ENTRY_BODY_BYTES_MAX;
        match usize::try_from(*given).ok().filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(number),
            None => refuse(format!("{key} cannot be {given}. Must be between 1 and {most}")),
        }
    };
    Ok(ConnectionLimits {
        value_bytes_max: number("limits.kv_max_value_size", default.value_bytes_max)?,
        transaction_bytes_max: number("limits.txn_max_req_len", default.transaction_bytes_max)?,
        ..default
    })
}

/// The rules of the interface.
fn rules(settings: &Settings) -> Checked<HttpRules> {
    let default = HttpRules::default();
    let wait_max = settings.max_query_time.unwrap_or(WAIT_MAX);
    if wait_max > WAIT_MAX {
        return refuse(format!("max_query_time cannot be above {} s", WAIT_MAX.as_secs()));
    }
    let writers = settings.http_allow_write_from.iter().map(|text| network(text));
    Ok(HttpRules {
        blocked: settings.http_block_endpoints.clone(),
        writers: writers.collect::<Checked<_>>()?,
        headers: headers(&settings.http_response_headers)?,
        wait_default: settings.default_query_time.unwrap_or(default.wait_default).min(wait_max),
        wait_max,
        discovery_max_stale: settings.discovery_max_stale.filter(|limit| !limit.is_zero()),
        translates_wan_addresses: settings.translate_wan_addrs.unwrap_or(false),
        takes_unprintable: settings.disable_http_unprintable_char_filter.unwrap_or(false),
    })
}

/// Connections of one address; 0 is no limit of its own.
fn connections(settings: &Settings) -> Checked<usize> {
    match settings.http_max_conns_per_client.map(usize::try_from) {
        None => Ok(CONNECTIONS_PER_CLIENT),
        Some(Ok(0)) => Ok(usize::MAX),
        Some(Ok(count)) => Ok(count),
        Some(Err(_)) => {
            refuse("limits.http_max_conns_per_client must be greater than or equal to zero")
        }
    }
}

/// A network as `address/bits`; an address alone is one of its own.
fn network(text: &str) -> Checked<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    let key = "http_config.allow_write_http_from";
    network.map_or_else(|| refuse(format!("{key}: {text:?} is no network: address/bits")), Ok)
}

/// The fields of a head, each with its line end (RFC 9110 §5.1, §5.5).
fn headers(fields: &BTreeMap<String, String>) -> Checked<String> {
    let mut out = String::new();
    for (name, value) in fields {
        let is_sign = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_sign) {
            return refuse(format!("http_config.response_headers: {name:?} is no header name"));
        }
        if value.chars().any(char::is_control) {
            let key = format!("http_config.response_headers.{name}");
            return refuse(format!("{key}: a value has no control characters"));
        }
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value.trim());
        out.push_str("\r\n");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::time::Duration;

    fn resolved(text: &str) -> Result<HttpRules, String> {
        rules(&parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn translate_wan_addrs_is_off_unless_it_is_said() {
        assert!(!resolved("{}").unwrap().translates_wan_addresses);
        let on = resolved(r#"{"translate_wan_addrs": true}"#).unwrap();
        assert!(on.translates_wan_addresses);
    }

    #[test]
    fn rules_are_read_and_bad_ones_named_by_their_key() {
        assert_eq!(resolved("{}"), Ok(HttpRules::default()));
        let text = r#"{"max_query_time": "20s", "discovery_max_stale": "0s", "http_config": {
            "allow_write_http_from": ["10.0.0.0/8", "::1"], "response_headers": {"A-b": " c "}}}"#;
        let rules = resolved(text).unwrap();
        assert_eq!(rules.wait_default, Duration::from_secs(20), "it cannot be above the maximum");
        assert_eq!((rules.headers.as_str(), rules.discovery_max_stale), ("A-b: c\r\n", None));
        let takes = |address: &str| rules.takes_writes_of(address.parse().ok());
        assert!(takes("10.9.9.9") && takes("::1") && takes("::ffff:10.0.0.1"));
        assert!(!takes("127.0.0.1") && !takes("::2"));
        assert!(!rules.takes_writes_of(None), "a unix socket is in no network");
        assert!(HttpRules::default().takes_writes_of(None));
        for (text, told) in [
            (r#"{"max_query_time": "11m"}"#, "max_query_time"),
            (
                r#"{"http_config": {"allow_write_http_from": ["x"]}}"#,
                "allow_write_http_from: \"x\"",
            ),
            (r#"{"http_config": {"response_headers": {"a b": "c"}}}"#, "\"a b\" is no header name"),
            (r#"{"http_config": {"response_headers": {"a": "c\nd"}}}"#, "response_headers.a: "),
        ] {
            let error = resolved(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let many = |text: &str| connections(&parse(text).unwrap()).ok();
        assert_eq!(many("{}"), Some(200));
        assert_eq!(many(r#"{"limits": {"http_max_conns_per_client": 0}}"#), Some(usize::MAX));
        assert_eq!(many(r#"{"limits": {"http_max_conns_per_client": -1}}"#), None);
    }

    #[test]
    fn values_and_transactions_are_as_long_as_is_set_and_fit_into_the_log() {
        let of = |text: &str| {
            let limits = bytes(&parse(text).unwrap()).map_err(|error| error.to_string())?;
            Ok((limits.value_bytes_max, limits.transaction_bytes_max))
        };
        assert_eq!(of("{}"), Ok((524_288, 524_288)));
        let given = r#"{"limits": {"kv_max_value_size": 1015808, "txn_max_req_len": 1}}"#;
        assert_eq!(of(given), Ok((1_015_808, 1)));
        for (key, number) in
            [("kv_max_value_size", "1015809"), ("txn_max_req_len", "0"), ("txn_max_req_len", "-1")]
        {
            let rule = format!("limits.{key} cannot be {number}. Must be between 1 and 1015808");
            assert_eq!(of(&format!(r#"{{"limits": {{"{key}": {number}}}}}"#)), Err(rule));
        }
    }
}
