//! A small HTTP/1.1 client: one request on one connection, for checks and the command line.
//!
//! - Source: RFC 9112; error texts follow Go's, since scripts know them (cli.md §3).
//! - Head, body, redirects and total time are bounded; nothing is reused or cached.
//! - `https` is spoken through [`crate::tls`].

mod response;
mod transfer;
mod url;
mod wire;

pub use crate::tls::{ClientTls, TlsError, Trust};
pub use response::ClientResponse;
pub use url::Url;
pub use wire::Wire;

use crate::runtime::within;
use bytes::Bytes;
use response::{Progress, ResponseReader};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use wire::ended_abruptly;

/// Why there is no response. The `Display` texts are what Go's client would say after the URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The URL is not usable. The caller is at fault.
    #[error("parse {url:?}: {rule}")]
    Url {
        /// The URL.
        url: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A method or header cannot be sent. The caller is at fault.
    #[error("net/http: invalid {what} {text:?}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// The refused text.
        text: String,
    },
    /// The host's name has no address.
    #[error("dial tcp: lookup {host}: {reason}")]
    Lookup {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// No connection: refused, unreachable. The last address tried is named.
    #[error("dial tcp {address}: connect: {reason}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// Why, as the system words it.
        reason: String,
    },
    /// No connection to a socket in the file system.
    #[error("dial unix {path}: connect: {reason}")]
    ConnectSocket {
        /// Its path.
        path: String,
        /// Why, as the system words it.
        reason: String,
    },
    /// The server speaks no TLS, or its certificate is not accepted.
    #[error("tls: {0}")]
    Tls(String),
    /// The time allowed for everything ran out.
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    TimedOut,
    /// The connection ended before the response did.
    #[error("unexpected EOF")]
    Closed,
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// The response is not HTTP/1.x. The server is at fault.
    #[error("malformed HTTP response: {0}")]
    Malformed(&'static str),
    /// The response's head is larger than allowed.
    #[error("server response headers exceeded {0} bytes; aborted")]
    HeadTooLarge(usize),
    /// The server redirects in circles.
    #[error("stopped after {0} redirects")]
    Redirects(u8),
}

/// What one exchange may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of the response's head.
    pub head_bytes_max: usize,
    /// Bytes of the response's body that are kept; a longer one is cut, and the response says so.
    pub body_bytes_max: usize,
    /// Time for everything, from the look-up of the name to the last byte.
    pub time: Duration,
    /// Redirects followed; Go follows 10.
    pub redirects_max: u8,
}

impl Default for ClientLimits {
    /// 64 KiB of head, 64 MiB of body, 60 s, 10 redirects.
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            body_bytes_max: 64 * 1024 * 1024,
            time: Duration::from_secs(60),
            redirects_max: 10,
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The method, as sent.
    pub method: String,
    /// Where to.
    pub url: Url,
    /// Headers, in order. A `Host` here replaces the URL's; `Content-Length` and `Connection` are
    /// the client's own and are dropped.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// The socket in the file system that the server listens on, in the place of the URL's host.
    pub socket: Option<PathBuf>,
}

impl ClientRequest {
    /// A request without headers and body.
    pub fn new(method: &str, url: &str) -> Result<Self, ClientError> {
        let url = Url::parse(url)?;
        let (method, headers, body) = (method.to_owned(), Vec::new(), Bytes::new());
        Ok(Self { method, url, headers, body, trust: Trust::default(), socket: None })
    }

    /// Whether it can be sent.
    ///
    /// - Errors: what of the method or the headers no head can hold.
    pub fn check(&self) -> Result<(), ClientError> {
        self.head(0).map(drop)
    }

    /// `error` as Go's client words it for this request: `Get "URL": …`.
    pub fn error_text(&self, error: &ClientError) -> String {
        let mut method = self.method.to_ascii_lowercase();
        if let Some(first) = method.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        format!("{method} \"{}\": {error}", self.url)
    }

    /// Sends the request and waits for the whole response.
    pub async fn send(&self, limits: &ClientLimits) -> Result<ClientResponse, ClientError> {
        within(limits.time, self.follow(limits)).await.unwrap_or(Err(ClientError::TimedOut))
    }

    async fn follow(&self, limits: &ClientLimits) -> Result<ClientResponse, ClientError> {
        let mut response = self.exchange(limits).await?;
        let mut step = self.clone();
        for _ in 0..limits.redirects_max {
            let Some(location) = redirect(&response) else { return Ok(response) };
            step.url = step.url.join(location)?;
            if matches!(response.status, 301..=303) && step.method != "HEAD" {
                step.method = "GET".to_owned();
                step.body = Bytes::new();
            }
            response = step.exchange(limits).await?;
        }
        match redirect(&response) {
            Some(_) if limits.redirects_max > 0 => {
                Err(ClientError::Redirects(limits.redirects_max))
            }
            Some(_) | None => Ok(response),
        }
    }

    async fn exchange(&self, limits: &ClientLimits) -> Result<ClientResponse, ClientError> {
        self.exchange_on(self.connect().await?, limits).await
    }

    /// Sends the request on a connection of the caller's and waits for the whole response, without
    /// redirects and without a limit of time.
    pub async fn exchange_on(
        &self,
        mut stream: impl Wire,
        limits: &ClientLimits,
    ) -> Result<ClientResponse, ClientError> {
        let head = self.head(self.body.len() as u64)?;
        let broken = |error: io::Error| ClientError::Broken(system_text(&error));
        let mut message = head.into_bytes();
        message.extend_from_slice(&self.body);
        // A server may answer and close before it has read everything; its answer counts.
        let sent = stream.write_all(&message).await;
        let mut reader = ResponseReader::new(&self.method, limits);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = match stream.read(&mut buffer).await {
                Ok(count) => count,
                Err(error) if ended_abruptly(&error) => 0,
                Err(error) => return Err(sent.err().map_or_else(|| broken(error), broken)),
            };
            let data = buffer.get(..count).unwrap_or_default();
            let progress = if count == 0 { reader.finish()? } else { reader.feed(data)? };
            match progress {
                Progress::More => {}
                Progress::Done(response) => return Ok(response),
            }
        }
    }

    /// The head of a request whose body has `length` bytes.
    fn head(&self, length: u64) -> Result<String, ClientError> {
        let is_token = |text: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            !text.is_empty() && text.bytes().all(legal)
        };
        let invalid = |what, text: &str| ClientError::Invalid { what, text: text.to_owned() };
        if !is_token(&self.method) {
            return Err(invalid("method", &self.method));
        }
        let mut host = self.url.host_header();
        let mut fields = String::new();
        for (name, value) in &self.headers {
            if !is_token(name) {
                return Err(invalid("header field name", name));
            }
            if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
                return Err(invalid("header field value for", name));
            }
            match name.to_ascii_lowercase().as_str() {
                "host" => host.clone_from(value),
                "content-length" | "connection" | "transfer-encoding" => {}
                _ => fields.push_str(&format!("{name}: {value}\r\n")),
            }
        }
        if length > 0 || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            // Writing to a string cannot fail.
            let _ = write!(fields, "Content-Length: {length}\r\n");
        }
        let (method, path) = (&self.method, &self.url.path);
        Ok(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n"))
    }
}

/// Where the response sends the client, if it does.
fn redirect(response: &ClientResponse) -> Option<&str> {
    match response.status {
        301 | 302 | 303 | 307 | 308 => response.header("location"),
        _ => None,
    }
}

/// A system error as Go prints it: the message without number, in lower case.
pub fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
