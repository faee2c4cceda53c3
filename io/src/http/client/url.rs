//! The parts of an `http` or `https` URL that a request needs.
//!
//! - Source: RFC 3986 §3, restricted to what an agent fetches: scheme, host, port, path and query.

use super::ClientError;
use std::fmt;

/// Bytes a URL may have.
const URL_BYTES_MAX: usize = 8 * 1024;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether over TLS, which is `https`.
    pub secure: bool,
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port; 80 if the URL names none, over TLS 443.
    pub port: u16,
    /// Path and query, starting with `/`, ready for the request line.
    pub path: String,
}

impl Url {
    /// Reads `http[s]://host[:port][/path][?query]`; a fragment is dropped.
    ///
    /// - Errors: `Url` with the broken rule.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = |rule| ClientError::Url { url: text.to_owned(), rule };
        if text.len() > URL_BYTES_MAX {
            return Err(ClientError::Url { url: String::new(), rule: "longer than 8192 bytes" });
        }
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| bad("unsupported protocol scheme"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(bad("unsupported protocol scheme")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(bad("user information is not supported"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| bad("invalid host or port"))?;
        let port = port.unwrap_or_else(|| default_port(secure));
        let host_is_clean = |c: char| c.is_ascii_graphic() && !"<>\"\\^`{|}".contains(c);
        if host.is_empty() || !host.chars().all(host_is_clean) {
            return Err(bad("no host in request URL"));
        }
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self { secure, host: host.to_owned(), port, path: clean_path(path) })
    }

    /// The URL that `location`, absolute or relative, means in a reply to this one.
    pub fn join(&self, location: &str) -> Result<Self, ClientError> {
        if location.contains("://") {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let location = location.split('#').next().unwrap_or_default();
        let own = self.path.split('?').next().unwrap_or_default();
        let path = match location.bytes().next() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{own}{location}"),
            Some(_) | None => {
                let folder = own.rfind('/').and_then(|end| own.get(..=end)).unwrap_or("/");
                format!("{folder}{location}")
            }
        };
        Ok(Self { path: clean_path(&path), ..self.clone() })
    }

    const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The value of the `Host` header: the port is left out if it is the scheme's own.
    pub fn host_header(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.host_header(), self.path)
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// `host[:port]` or `[v6][:port]` as host and port, if there is one.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
            (host, port)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    match port {
        "" => Some((host, None)),
        port => Some((host, Some(port.parse().ok()?))),
    }
}

/// The path with a leading slash, everything that may not stand in a request line escaped.
fn clean_path(path: &str) -> String {
    let mut clean = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        clean.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' => clean.push(char::from(byte)),
            _ => clean.push_str(&format!("%{byte:02X}")),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_what_a_request_needs() {
        let url = Url::parse("http://127.0.0.1:8500/v1/agent/self?a=b c#x").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("127.0.0.1", 8500));
        assert_eq!(url.path, "/v1/agent/self?a=b%20c");
        assert_eq!(url.to_string(), "http://127.0.0.1:8500/v1/agent/self?a=b%20c");
        assert_eq!(Url::parse("HTTP://[::1]?x").unwrap().to_string(), "http://[::1]/?x");
        let url = Url::parse("https://h").unwrap();
        assert_eq!((url.secure, url.port, url.to_string().as_str()), (true, 443, "https://h/"));
        assert_eq!(Url::parse("https://h:80/").unwrap().host_header(), "h:80");
        assert_eq!(url.join("//g/x").unwrap().to_string(), "https://g/x");
    }

    #[test]
    fn a_bad_url_is_refused_with_the_rule() {
        let text = |url: &str| Url::parse(url).unwrap_err().to_string();
        assert_eq!(text("ftp://a"), "parse \"ftp://a\": unsupported protocol scheme");
        assert_eq!(text("http://:80/"), "parse \"http://:80/\": no host in request URL");
        assert_eq!(text("http://a:99999/"), "parse \"http://a:99999/\": invalid host or port");
        assert!(text("http://u:p@a/").ends_with("user information is not supported"));
    }

    #[test]
    fn a_location_is_resolved_against_the_url() {
        let url = Url::parse("http://a:1/b/c?d").unwrap();
        let joined = |location| url.join(location).unwrap().to_string();
        assert_eq!(joined("/x"), "http://a:1/x");
        assert_eq!(joined("x"), "http://a:1/b/x");
        assert_eq!(joined("?e"), "http://a:1/b/c?e");
        assert_eq!(joined("//z/y"), "http://z/y");
        assert_eq!(joined("http://q"), "http://q/");
    }
}
