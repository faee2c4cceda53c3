//! An answer as a value, and its bytes on the wire.
//!
//! - Source: http-api.md §1.2–§1.4. Bodies are [`Bytes`], so a rendered one can be shared.
//! - Every answer has a `Content-Length`, but for files and streams, which are sent in chunks.

use super::file::FileBody;
use super::json;
use super::stream::StreamBody;
use crate::civil::http_date;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::cell::RefCell;
use std::io::Write as _;
use std::time::Duration;
use terraform_core::catalog::query::{Consistency, QueryAnswer};
use terraform_core::node::request::RequestError;
use terraform_core::time::WallClock;

thread_local! {
    /// The last date written by this thread, by its second.
    static DATE: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing; an empty body has no `Content-Type`.
    Empty,
    /// Something that no `Content-Type` is told of.
    Untyped,
    /// `application/json`.
    Json,
    /// `text/plain; charset=utf-8`.
    Text,
    /// `text/plain`, as local health and raw values are answered, empty ones too.
    PlainText,
    /// `text/plain; version=0.0.4; charset=utf-8`, as Prometheus wants it.
    Prometheus,
    /// `application/x-gzip`.
    Gzip,
    /// `text/html; charset=utf-8`, of redirects.
    Html,
}

impl Content {
    const fn header(self) -> &'static str {
        match self {
            Self::Empty | Self::Untyped => "",
            Self::Json => "Content-Type: application/json\r\n",
            Self::Text => "Content-Type: text/plain; charset=utf-8\r\n",
            Self::PlainText => "Content-Type: text/plain\r\n",
            Self::Prometheus => "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
            Self::Gzip => "Content-Type: application/x-gzip\r\n",
            Self::Html => "Content-Type: text/html; charset=utf-8\r\n",
        }
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Whether JSON is indented.
    pub pretty: bool,
    /// Whether it is compressed.
    pub gzip: bool,
}

/// The meta headers of a read (http-api.md §1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `X-Consul-Index`; never 0.
    pub index: u64,
    /// `X-Consul-Knownleader`.
    pub known_leader: bool,
    /// `X-Consul-Lastcontact`.
    pub last_contact: Duration,
    /// `X-Consul-Effective-Consistency`.
    pub consistency: Option<Consistency>,
}

impl Meta {
    /// What an answered read says.
    pub fn of(answer: &QueryAnswer) -> Self {
        Self {
            index: answer.index.get().max(1),
            known_leader: answer.known_leader,
            last_contact: answer.last_contact,
            consistency: Some(answer.consistency),
        }
    }

    /// What a failed read says.
    pub const fn zero() -> Self {
        Self { index: 1, known_leader: false, last_contact: Duration::ZERO, consistency: None }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// What the body is.
    pub content: Content,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Whether another `Accept-Encoding` may get another answer.
    pub varies: bool,
    /// The meta headers, on reads that have them.
    pub meta: Option<Meta>,
    /// How `body` is written.
    pub form: Form,
    /// The body.
    pub body: Bytes,
    /// A file that is the body instead.
    pub file: Option<FileBody>,
    /// What comes and is the body instead.
    pub stream: Option<StreamBody>,
}

impl Reply {
    fn new(status: u16, content: Content, body: Bytes) -> Self {
        let (headers, form) = (Vec::new(), Form::default());
        let (varies, meta, file, stream) = (false, None, None, None);
        Self { status, content, headers, varies, meta, form, body, file, stream }
    }

    /// 200 with a JSON body.
    pub fn json(body: Vec<u8>) -> Self {
        Self::new(200, Content::Json, body.into())
    }

    /// 200 with a JSON body that was written in `form` before.
    pub fn json_in(form: Form, body: Bytes) -> Self {
        Self { form, ..Self::new(200, Content::Json, body) }
    }

    /// 200 with nothing.
    pub fn empty() -> Self {
        Self::status(200)
    }

    /// `status` with nothing.
    pub fn status(status: u16) -> Self {
        Self::new(status, Content::Empty, Bytes::new())
    }

    /// `status` with a line of text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, Content::Text, Bytes::from(text.into()))
    }

    /// `status` with a page.
    pub fn html(status: u16, page: String) -> Self {
        Self::new(status, Content::Html, Bytes::from(page))
    }

    /// 200 with bytes that nobody may take for a page (http-api.md §9).
    pub fn raw(body: Bytes) -> Self {
        Self::new(200, Content::PlainText, body)
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Content-Security-Policy", "sandbox")
    }

    /// 200 with an archive in a file.
    pub fn file(file: FileBody) -> Self {
        Self { file: Some(file), ..Self::new(200, Content::Gzip, Bytes::new()) }
    }

    /// 200 with a body that goes on.
    pub fn stream(content: Content, stream: StreamBody) -> Self {
        Self { stream: Some(stream), ..Self::new(200, content, Bytes::new()) }
    }

    /// Whether its length is not known before it is sent.
    pub const fn is_open(&self) -> bool {
        self.file.is_some() || self.stream.is_some()
    }

    /// `X-Consul-Index`, of a read that has one.
    pub fn index(&self) -> Option<String> {
        let told = self.headers.iter().find(|(name, _)| *name == "X-Consul-Index");
        told.map(|(_, index)| index.clone()).or_else(|| Some(self.meta?.index.to_string()))
    }

    /// 501 that names what is not built.
    pub fn not_built(what: &str) -> Self {
        Self::text(501, format!("{what} is not built yet"))
    }

    /// 501 for a query parameter that is not built.
    pub fn parameter_not_built(name: &str) -> Self {
        Self::not_built(&format!("the parameter \"{name}\""))
    }

    /// What a request that the node did not fulfil is answered with.
    pub fn error(error: &RequestError) -> Self {
        let status = match error {
            RequestError::NoLeader
            | RequestError::NoServers
            | RequestError::NoPath
            | RequestError::NoServerReachable
            | RequestError::Unknown(_)
            | RequestError::Refused(_)
            | RequestError::NotFound(_) => 500,
            RequestError::NotBuilt(_) => 501,
            RequestError::RateExceeded => 429,
            RequestError::Overloaded(_) | RequestError::Stopping => 503,
        };
        Self::text(status, error.to_string())
    }

    /// The same with meta headers.
    #[must_use]
    pub fn with_meta(mut self, meta: Meta) -> Self {
        self.meta = Some(meta);
        self
    }

    /// The same with a further header; `value` must not hold line breaks, so they are dropped.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        let clean = value.chars().filter(|c| !c.is_control()).collect();
        self.headers.push((name, clean));
        self
    }

    /// Whether the body is an empty list, in whatever form.
    pub fn lists_nothing(&self) -> bool {
        // No list of something is as short as that in any form.
        let may_be = self.body.len() < 64;
        may_be && self.body == Self::json(b"[]".to_vec()).into_form(self.form).body
    }

    /// The body in the form `wanted`, as far as it is not yet.
    #[must_use]
    pub fn into_form(mut self, wanted: Form) -> Self {
        let is_plain = self.form == Form::default();
        if wanted.pretty && is_plain && self.content == Content::Json {
            self.body = json::pretty(&self.body).into();
            self.form.pretty = true;
        }
        if wanted.gzip && !self.form.gzip && !self.body.is_empty() {
            let out = Vec::with_capacity(self.body.len() / 4 + 64);
            let mut encoder = GzEncoder::new(out, Compression::fast());
            let packed = encoder.write_all(&self.body).and_then(|()| encoder.finish());
            if let Ok(packed) = packed {
                self.body = packed.into();
                self.form.gzip = true;
            }
        }
        self
    }
}

/// What the head of an answer depends on beside the answer.
#[derive(Clone, Copy, Debug)]
pub struct HeadContext<'a> {
    /// Whether the client speaks HTTP/1.1.
    pub is_http11: bool,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Civil time, for `Date`.
    pub wall: WallClock,
    /// Header fields that every answer carries, each with its line end.
    pub fields: &'a str,
}

/// Appends the head of `reply` to `out`.
pub fn write_head(reply: &Reply, context: HeadContext<'_>, out: &mut Vec<u8>) {
    put(out, if context.is_http11 { "HTTP/1.1 " } else { "HTTP/1.0 " });
    put_number(out, reply.status.into());
    put(out, " ");
    put(out, reason(reply.status));
    put(out, "\r\n");
    let is_value = reply.content == Content::PlainText;
    if !reply.body.is_empty() || reply.is_open() || is_value {
        put(out, reply.content.header());
        if reply.form.gzip {
            put(out, "Content-Encoding: gzip\r\n");
        }
    }
    put(out, context.fields);
    for (name, value) in &reply.headers {
        put(out, name);
        put(out, ": ");
        put(out, value);
        put(out, "\r\n");
    }
    if reply.varies {
        put(out, "Vary: Accept-Encoding\r\n");
    }
    if let Some(meta) = &reply.meta {
        if let Some(consistency) = meta.consistency {
            put(out, "X-Consul-Effective-Consistency: ");
            put(out, consistency_text(consistency));
            put(out, "\r\n");
        }
        put(out, "X-Consul-Index: ");
        put_number(out, meta.index);
        put(out, "\r\nX-Consul-Knownleader: ");
        put(out, if meta.known_leader { "true" } else { "false" });
        put(out, "\r\nX-Consul-Lastcontact: ");
        let millis = u64::try_from(meta.last_contact.as_millis()).unwrap_or(u64::MAX);
        put_number(out, millis);
        put(out, "\r\n");
    }
    put(out, "Date: ");
    DATE.with_borrow_mut(|(second, text)| {
        let wanted = context.wall.as_millis().div_euclid(1000);
        if *second != wanted {
            (*second, *text) = (wanted, http_date(context.wall));
        }
        put(out, text);
    });
    put(out, "\r\n");
    match reply.is_open() {
        false => {
            put(out, "Content-Length: ");
            put_number(out, reply.body.len() as u64);
            put(out, "\r\n");
        }
        true if context.is_http11 => put(out, "Transfer-Encoding: chunked\r\n"),
        // The end of the connection ends it.
        true => {}
    }
    match (context.is_http11, context.keep_alive) {
        (true, false) => put(out, "Connection: close\r\n"),
        (false, true) => put(out, "Connection: keep-alive\r\n"),
        (true, true) | (false, false) => {}
    }
    put(out, "\r\n");
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    write!(out, "{number}").expect("writing to a Vec cannot fail");
}

/// How a read was done, as clients see it.
pub const fn consistency_text(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Leader => "leader",
        Consistency::Stale => "stale",
        Consistency::Consistent => "consistent",
    }
}

/// The words of the status codes in use (RFC 9110 §15).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(reply: &Reply, is_http11: bool, keep_alive: bool) -> String {
        let wall = WallClock::from_millis(1_795_356_593_374);
        let mut out = Vec::new();
        write_head(reply, HeadContext { is_http11, keep_alive, wall, fields: "" }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_names_type_length_and_meta() {
        let reply = Reply::json(b"[]".to_vec()).with_meta(Meta::zero());
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 1\r\n\
            X-Consul-Knownleader: false\r\nX-Consul-Lastcontact: 0\r\n\
            Date: Sun, 22 Nov 2026 14:09:53 GMT\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(head(&reply, true, true), expected);
    }

    #[test]
    fn an_empty_body_has_no_type() {
        let text = head(&Reply::empty(), false, true);
        assert!(text.starts_with("HTTP/1.0 200 OK\r\nDate: "), "{text}");
        assert!(text.ends_with("Content-Length: 0\r\nConnection: keep-alive\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_header_cannot_hold_a_line_break() {
        let reply = Reply::empty().with_header("X-Consul-Reason", "a\r\nb");
        assert!(head(&reply, true, true).contains("X-Consul-Reason: ab\r\n"));
    }

    #[test]
    fn a_compressed_body_is_the_same_text() {
        let gzip = Form { pretty: false, gzip: true };
        let reply = Reply::text(200, "hello").into_form(gzip);
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&*reply.body);
        std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(!Reply::empty().into_form(gzip).form.gzip);
        assert_eq!(reply.clone().into_form(gzip), reply);
    }
}
