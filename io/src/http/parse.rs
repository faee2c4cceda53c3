//! Reads the head of one HTTP/1.x request.
//!
//! - Source: RFC 9112 §3, §6 and §9.3. What could be read in two ways is refused (both
//!   `Content-Length` and `Transfer-Encoding`, differing lengths, a missing or second `Host`).
//! - Only the header fields that the API reads are kept.

use std::fmt;
use thiserror::Error;

/// Header fields a request may have.
const FIELDS_MAX: usize = 100;

/// A request method (RFC 9110 §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `PUT`.
    Put,
    /// `POST`.
    Post,
    /// `DELETE`.
    Delete,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// Anything else.
    Other(String),
}

impl Method {
    fn parse(text: &str) -> Self {
        match text {
            "GET" => Self::Get,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The text on the wire, of methods that are known beforehand.
    pub const fn known(&self) -> Option<&'static str> {
        match self {
            Self::Get => Some("GET"),
            Self::Put => Some("PUT"),
            Self::Post => Some("POST"),
            Self::Delete => Some("DELETE"),
            Self::Head => Some("HEAD"),
            Self::Options => Some("OPTIONS"),
            Self::Other(_) => None,
        }
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(text) => text,
            Self::Get | Self::Put | Self::Post | Self::Delete | Self::Head | Self::Options => {
                self.known().unwrap_or_default()
            }
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The header fields that the API reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Accept`.
    Accept,
    /// `Accept-Encoding`.
    AcceptEncoding,
    /// `Authorization`.
    Authorization,
    /// `Cache-Control`.
    CacheControl,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Consul-Namespace`.
    Namespace,
    /// `X-Consul-Token`.
    Token,
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        let known = [
            ("accept", Self::Accept),
            ("accept-encoding", Self::AcceptEncoding),
            ("authorization", Self::Authorization),
            ("cache-control", Self::CacheControl),
            ("x-consul-namespace", Self::Namespace),
            ("x-consul-token", Self::Token),
            ("x-forwarded-for", Self::ForwardedFor),
        ];
        let found = known.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
        Some(found.1)
    }
}

/// How the request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// After this many bytes; 0 without a body.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// The head of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path and query as sent, starting with `/`; `*` for `OPTIONS *`.
    pub target: String,
    /// Whether the client speaks HTTP/1.1 rather than 1.0.
    pub is_http11: bool,
    /// Known header fields in order.
    pub fields: Vec<(Field, String)>,
    /// How the body ends.
    pub framing: BodyFraming,
    /// Whether the client wants to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl Head {
    /// The first field of this name.
    pub fn field(&self, field: Field) -> Option<&str> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str())
    }
}

/// Why a head was refused; the status and words of the answer. The client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// Not HTTP, or broken HTTP.
    #[error("400 Bad Request")]
    Malformed,
    /// HTTP/1.1 wants exactly one `Host`.
    #[error("400 Bad Request: missing required Host header")]
    Host,
    /// The body's length is given twice, or not as a number.
    #[error("400 Bad Request: invalid Content-Length or Transfer-Encoding")]
    Framing,
    /// The request line is too long.
    #[error("414 URI Too Long")]
    LineTooLong,
    /// The head has too many bytes or fields.
    #[error("431 Request Header Fields Too Large")]
    TooLarge,
    /// Another expectation than `100-continue`.
    #[error("417 Expectation Failed")]
    Expectation,
    /// A transfer coding other than `chunked`.
    #[error("501 Not Implemented: unsupported transfer encoding")]
    Coding,
    /// Not HTTP/1.x.
    #[error("505 HTTP Version Not Supported")]
    Version,
}

impl HeadError {
    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Host | Self::Framing => 400,
            Self::LineTooLong => 414,
            Self::Expectation => 417,
            Self::TooLarge => 431,
            Self::Coding => 501,
            Self::Version => 505,
        }
    }
}

/// Reads a head from the start of `input`; `None` if it is not complete yet.
///
/// Returns the head and its length in bytes.
pub fn parse_head(input: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let used = match parsed.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Malformed),
    };
    let is_http11 = parsed.version == Some(1);
    let mut builder = Builder::default();
    for field in parsed.headers.iter() {
        builder.add(field.name, field.value)?;
    }
    if is_http11 && builder.hosts != 1 || builder.hosts > 1 {
        return Err(HeadError::Host);
    }
    let framing = builder.framing(is_http11)?;
    let keep_alive = !builder.close && (is_http11 || builder.keep_alive);
    let head = Head {
        method: Method::parse(parsed.method.unwrap_or_default()),
        target: target(parsed.path.unwrap_or_default())?,
        is_http11,
        fields: builder.fields,
        framing,
        keep_alive,
        expects_continue: builder.expects_continue && is_http11,
    };
    Ok(Some((head, used)))
}

/// The path and query of a target in origin, absolute or asterisk form (RFC 9112 §3.2).
fn target(text: &str) -> Result<String, HeadError> {
    if text.starts_with('/') || text == "*" {
        return Ok(text.to_owned());
    }
    let rest = text.split_once("://").map(|(_, rest)| rest).ok_or(HeadError::Malformed)?;
    match rest.find(['/', '?']).and_then(|start| rest.get(start..)) {
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(query) => Ok(format!("/{query}")),
        None => Ok("/".to_owned()),
    }
}

/// What the header fields say.
#[derive(Debug, Default)]
struct Builder {
    fields: Vec<(Field, String)>,
    hosts: usize,
    length: Option<u64>,
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Builder {
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        let text = || String::from_utf8_lossy(value);
        if name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case("content-length") {
            let digits = text();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let length = digits.parse().ok().filter(|_| is_number).ok_or(HeadError::Framing)?;
            if self.length.replace(length).is_some_and(|earlier| earlier != length) {
                return Err(HeadError::Framing);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.codings += 1;
            self.chunked = text().trim().eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            for option in text().split(',') {
                self.close |= option.trim().eq_ignore_ascii_case("close");
                self.keep_alive |= option.trim().eq_ignore_ascii_case("keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") {
            if !text().trim().eq_ignore_ascii_case("100-continue") {
                return Err(HeadError::Expectation);
            }
            self.expects_continue = true;
        } else if let Some(field) = Field::parse(name) {
            self.fields.push((field, text().into_owned()));
        }
        Ok(())
    }

    fn framing(&self, is_http11: bool) -> Result<BodyFraming, HeadError> {
        match (self.codings, self.length) {
            (0, length) => Ok(BodyFraming::Length(length.unwrap_or(0))),
            (_, Some(_)) => Err(HeadError::Framing),
            (1, None) if self.chunked && is_http11 => Ok(BodyFraming::Chunked),
            (_, None) if !is_http11 => Err(HeadError::Framing),
            (_, None) => Err(HeadError::Coding),
        }
    }
}
