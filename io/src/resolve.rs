//! From what people write to addresses: `HOST`, `HOST:PORT`, `IP`, `[IP6]:PORT`.

use crate::runtime::within;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use thiserror::Error;

/// How long one name may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a text gave no address. The giver of the text, or the name service, is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// It is no host with or without a port.
    #[error("{0:?} is not an address: use HOST, HOST:PORT or [IP]:PORT")]
    Malformed(String),
    /// The name is not known, or nobody knows it in time.
    #[error("no such host: {0}")]
    Unknown(String),
}

/// What a text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// This address.
    Address(SocketAddr),
    /// A port of the host of this name.
    Host(&'a str, u16),
}

/// Reads `text` without asking anybody, with `port` where it names none.
pub fn parse(text: &str, port: u16) -> Result<Named<'_>, ResolveError> {
    let malformed = || ResolveError::Malformed(text.to_owned());
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Named::Address(address));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Named::Address(SocketAddr::new(ip, port)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| malformed())?),
        None => (text, port),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
        return Err(malformed());
    }
    Ok(Named::Host(host, port))
}

/// The addresses that `text` stands for, with `port` where it names none; at least one.
pub async fn addresses(text: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let (host, port) = match parse(text, port)? {
        Named::Address(address) => return Ok(vec![address]),
        Named::Host(host, port) => (host, port),
    };
    let found = within(TIMEOUT, smol::net::resolve((host, port))).await;
    match found {
        Some(Ok(found)) if !found.is_empty() => Ok(found),
        Some(Ok(_) | Err(_)) | None => Err(ResolveError::Unknown(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        smol::block_on(addresses(text, 8301))
    }

    #[test]
    fn addresses_need_no_name_service() {
        let v4 = |port| Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]);
        assert_eq!(resolve("10.0.0.1"), v4(8301));
        assert_eq!(resolve("10.0.0.1:9"), v4(9));
        let v6 = resolve("[::1]:9");
        assert_eq!(v6, Ok(vec![SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9))]));
        assert_eq!(resolve("::1").map(|found| found.len()), Ok(1));
    }

    #[test]
    fn text_that_is_no_address_is_refused_without_asking() {
        for text in ["", ":1", "host:port", "a b", "host:99999", "a/b"] {
            assert_eq!(resolve(text), Err(ResolveError::Malformed(text.to_owned())));
        }
    }
}
