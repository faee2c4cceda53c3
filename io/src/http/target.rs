//! The path and the query parameters of a request target.
//!
//! - Source: http-api.md §1.1; RFC 3986 §2.1 for percent-encoding, `+` is a space in queries.
//! - Parameter names are case-sensitive; of a repeated one the first counts, unless all are wanted.

use std::borrow::Cow;
use thiserror::Error;

/// Why a target is not usable. The client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// A `%` is not followed by two hexadecimal digits, or the text is not UTF-8.
    #[error("invalid URL escape")]
    Escape,
}

/// The decoded path and the raw query behind it.
pub fn split(target: &str) -> Result<(Cow<'_, str>, &str), TargetError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok((decode(path, false)?, query))
}

/// Replaces `%xx`, and `+` by a space if `plus` is set; most texts have neither.
fn decode(text: &str, plus: bool) -> Result<Cow<'_, str>, TargetError> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || {
                    let digit = rest.next().and_then(|byte| char::from(byte).to_digit(16));
                    digit.and_then(|digit| u8::try_from(digit).ok()).ok_or(TargetError::Escape)
                };
                let (high, low) = (digit()?, digit()?);
                bytes.push(high << 4 | low);
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| TargetError::Escape)
}

/// `path` encoded so that it may stand in a `Location` header.
pub fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A name or value of a parameter, encoded; a space is `+`.
fn encode_parameter(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The cleaned form of `path` if it has empty, `.` or `..` segments; `None` if it is clean.
pub fn cleaned(path: &str) -> Option<String> {
    let is_unclean = path.contains("//") || path.split('/').any(|part| part == "." || part == "..");
    if !is_unclean {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = String::from("/");
    clean.push_str(&parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    Some(clean)
}

/// The query parameters in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads `a=b&c;d=` in the form that Go reads: `&` and `;` separate.
    pub fn parse(query: &'a str) -> Result<Self, TargetError> {
        let parts = || query.split(['&', ';']).filter(|part| !part.is_empty());
        // Exactly as large as they are, for they are there as long as a request waits.
        let mut params = Vec::with_capacity(parts().count());
        for part in parts() {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            params.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Self(params))
    }

    /// Whether the parameter is present, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// The first value; empty if absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The parameters as a query, sorted by name.
    pub fn encode(&self) -> String {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let pair = |(name, value): &&(Cow<'_, str>, Cow<'_, str>)| {
            format!("{}={}", encode_parameter(name), encode_parameter(value))
        };
        sorted.iter().map(pair).collect::<Vec<_>>().join("&")
    }

    /// All values in order.
    pub fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// A truth value as Go's clients write it.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_and_the_query_is_left() {
        assert_eq!(split("/v1/kv/a%2Fb%20c+d?x=%zz"), Ok(("/v1/kv/a/b c+d".into(), "x=%zz")));
        assert_eq!(split("/%z"), Err(TargetError::Escape));
        assert_eq!(split("/%ff"), Err(TargetError::Escape));
    }

    #[test]
    fn parameters_keep_order_and_repetition() {
        let params = Params::parse("a=1&a=2;b&c=x+y%26&=z").unwrap();
        assert_eq!(params.get("a"), "1");
        assert_eq!(params.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert!(params.has("b") && !params.has("B"));
        assert_eq!(params.get("c"), "x y&");
        assert_eq!(Params::parse("a=%zz"), Err(TargetError::Escape));
        let params = Params::parse("cas=1&acquire=x+y%2F&recurse").unwrap();
        assert_eq!(params.encode(), "acquire=x+y%2F&cas=1&recurse=");
    }

    #[test]
    fn only_unclean_paths_are_cleaned() {
        assert_eq!(cleaned("/v1/kv/a"), None);
        assert_eq!(cleaned("/v1/kv/"), None);
        assert_eq!(cleaned("//v1/./kv/../kv/a//"), Some("/v1/kv/a/".to_owned()));
        assert_eq!(cleaned("/.."), Some("/".to_owned()));
        assert_eq!(encode_path("/a b/ü?"), "/a%20b/%C3%BC%3F");
    }
}
