//! Reads one HTTP/1.x response from any split of its bytes, without a socket.
//!
//! - Source: RFC 9112 §4 and §6.3 (which of length, chunks or end of stream ends the body).

use super::{ClientError, ClientLimits};
use crate::http::chunked::ChunkedDecoder;
use bytes::Bytes;

/// Header fields a response may have.
const FIELDS_MAX: usize = 128;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientResponse {
    /// The status code.
    pub status: u16,
    /// The words behind it; may be empty.
    pub reason: String,
    /// Header fields in order; values that are not UTF-8 are shown with replacement characters.
    pub headers: Vec<(String, String)>,
    /// The body, decoded if it was chunked.
    pub body: Bytes,
    /// Whether the body was longer than the limit and only its beginning is here.
    pub cut: bool,
}

impl ClientResponse {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&field.1)
    }
}

/// Whether the response is complete.
#[derive(Debug)]
pub(super) enum Progress {
    /// More bytes are needed.
    More,
    /// It is; the connection is of no further use.
    Done(ClientResponse),
}

/// How the body ends.
#[derive(Debug)]
enum Framing {
    Head,
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

/// Collects one response.
#[derive(Debug)]
pub(super) struct ResponseReader {
    limits: ClientLimits,
    head_only: bool,
    head: Vec<u8>,
    response: ClientResponse,
    body: Vec<u8>,
    framing: Framing,
}

impl ResponseReader {
    /// A reader of the response to a request with this method.
    pub(super) fn new(method: &str, limits: &ClientLimits) -> Self {
        let (reason, headers, body) = (String::new(), Vec::new(), Bytes::new());
        Self {
            limits: *limits,
            head_only: method == "HEAD",
            head: Vec::new(),
            response: ClientResponse { status: 0, reason, headers, body, cut: false },
            body: Vec::new(),
            framing: Framing::Head,
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<Progress, ClientError> {
        if !matches!(self.framing, Framing::Head) {
            return self.feed_body(data);
        }
        self.head.extend_from_slice(data);
        loop {
            let Some(used) = self.parse_head()? else {
                if self.head.len() > self.limits.head_bytes_max {
                    return Err(ClientError::HeadTooLarge(self.limits.head_bytes_max));
                }
                return Ok(Progress::More);
            };
            let rest = self.head.split_off(used.min(self.head.len()));
            self.head = rest;
            // Interim responses (1xx) precede the real one.
            if self.response.status >= 200 {
                break;
            }
        }
        self.framing = self.body_framing()?;
        let rest = std::mem::take(&mut self.head);
        self.feed_body(&rest)
    }

    /// The part of a body that has arrived, if its status is 200; it is no part of the response
    /// then, and of no limit.
    pub(super) fn take_body(&mut self) -> Option<Vec<u8>> {
        let taken = self.response.status == 200 && !self.body.is_empty();
        taken.then(|| std::mem::take(&mut self.body))
    }

    /// The connection ended in order.
    pub(super) fn finish(&mut self) -> Result<Progress, ClientError> {
        match self.framing {
            Framing::UntilClose => Ok(self.done(false)),
            Framing::Head if self.head.is_empty() => Err(ClientError::Broken("EOF".to_owned())),
            Framing::Head | Framing::Length(_) | Framing::Chunked(_) => Err(ClientError::Closed),
        }
    }

    /// The length of the head, once it is complete; fills in the response.
    fn parse_head(&mut self) -> Result<Option<usize>, ClientError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let used = match parsed.parse(&self.head) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(ClientError::Malformed("too many headers"));
            }
            Err(_) => return Err(ClientError::Malformed("not an HTTP/1.x head")),
        };
        self.response.status = parsed.code.unwrap_or_default();
        self.response.reason = parsed.reason.unwrap_or_default().to_owned();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let owned = parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value)));
        self.response.headers = owned.collect();
        Ok(Some(used))
    }

    fn body_framing(&self) -> Result<Framing, ClientError> {
        if self.head_only || matches!(self.response.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if let Some(coding) = self.response.header("transfer-encoding") {
            return match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunked(ChunkedDecoder::default())),
                false => Err(ClientError::Malformed("unsupported transfer encoding")),
            };
        }
        match self.response.header("content-length") {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let bad = ClientError::Malformed("bad Content-Length");
                length.parse().map(Framing::Length).map_err(|_| bad)
            }
            Some(_) => Err(ClientError::Malformed("bad Content-Length")),
            None => Ok(Framing::UntilClose),
        }
    }

    fn feed_body(&mut self, data: &[u8]) -> Result<Progress, ClientError> {
        let complete = match &mut self.framing {
            Framing::Head => false,
            Framing::UntilClose => {
                self.body.extend_from_slice(data);
                false
            }
            Framing::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                self.body.extend_from_slice(data.get(..wanted).unwrap_or_default());
                *left = left.saturating_sub(wanted as u64);
                *left == 0
            }
            Framing::Chunked(decoder) => {
                let bad = |_| ClientError::Malformed("bad chunked body");
                decoder.decode(data, &mut self.body).map_err(bad)?;
                decoder.is_done()
            }
        };
        if self.body.len() > self.limits.body_bytes_max {
            self.body.truncate(self.limits.body_bytes_max);
            return Ok(self.done(true));
        }
        Ok(if complete { self.done(false) } else { Progress::More })
    }

    fn done(&mut self, cut: bool) -> Progress {
        let mut response = self.response.clone();
        response.body = std::mem::take(&mut self.body).into();
        response.cut = cut;
        Progress::Done(response)
    }
}
