//! The server side of one HTTP/1.x connection as a machine: bytes in, requests out.
//!
//! - Source: RFC 9112 (keep-alive §9.3, pipelining §9.3.2), RFC 9110 §10.1.1 (`Expect`).
//! - Requests come out one by one; while the host answers one it reads nothing, so what is kept is
//!   bounded by the head and body limits plus one read.
//! - After a refusal the connection only closes: where the next request starts is not known.
//! - Time is the host's: [`Connection::phase`] says what is being waited for.

use super::chunked::{ChunkError, ChunkedDecoder};
use super::file::FileBody;
use super::parse::{BodyFraming, Head, HeadError, Method, parse_head};
use super::target;
use bytes::Bytes;
use terraform_core::raft::ENTRY_BYTES_MAX;
use thiserror::Error;

/// What one request may cost in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Bytes of the request line.
    pub line_bytes_max: usize,
    /// Bytes of the whole head.
    pub head_bytes_max: usize,
    /// Bytes of a decoded body that none of the following limits.
    pub body_bytes_max: usize,
    /// Bytes of one value of the key-value store (`limits.kv_max_value_size`).
    pub value_bytes_max: usize,
    /// Bytes of a transaction, unless one value may be longer (`limits.txn_max_req_len`).
    pub transaction_bytes_max: usize,
    /// Bytes of a decoded body that goes to a file.
    pub file_bytes_max: u64,
}

impl Default for ConnectionLimits {
    /// 16 KiB of line, 64 KiB of head, 512 KiB of body, 4 GiB of a body in a file.
    fn default() -> Self {
        let (line_bytes_max, head_bytes_max) = (16 * 1024, 64 * 1024);
        let (body_bytes_max, file_bytes_max) = (512 * 1024, 4 << 30);
        Self {
            line_bytes_max,
            head_bytes_max,
            body_bytes_max,
            value_bytes_max: body_bytes_max,
            transaction_bytes_max: body_bytes_max,
            file_bytes_max,
        }
    }
}

/// The largest values and transactions that may be allowed: each is one entry of the log, which
/// holds the key, at most a line long, and the rest of the command besides.
pub const ENTRY_BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX - 32 * 1024;

/// What limits the body of one request.
#[derive(Clone, Copy, Debug)]
struct BodyLimit {
    bytes: u64,
    /// The setting of this limit.
    setting: Option<&'static str>,
    /// Whether the body is too large for memory by its nature (http-api.md §17).
    to_file: bool,
}

impl ConnectionLimits {
    /// The limit of a request's body (http-api.md §9, §12, §17).
    fn of_body(&self, head: &Head) -> BodyLimit {
        let path = target::split(&head.target).map(|(path, _)| path).unwrap_or_default();
        if head.method == Method::Put && path == "/v1/snapshot" {
            return BodyLimit { bytes: self.file_bytes_max, setting: None, to_file: true };
        }
        let (bytes, setting) = if path.starts_with("/v1/kv/") {
            (self.value_bytes_max, Some("kv_max_value_size"))
        } else if path == "/v1/txn" {
            (self.transaction_bytes_max.max(self.value_bytes_max), Some("txn_max_req_len"))
        } else {
            (self.body_bytes_max, None)
        };
        BodyLimit { bytes: bytes as u64, setting, to_file: false }
    }
}

impl BodyLimit {
    const fn refusal(self, length: Option<u64>) -> Refusal {
        Refusal::BodyTooLarge { length, limit: self.bytes, setting: self.setting }
    }
}

/// One complete request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Its head.
    pub head: Head,
    /// Its decoded body.
    pub body: Bytes,
    /// Its decoded body if that went to a file; the host fills it in.
    pub file: Option<FileBody>,
}

/// Why a request was refused before it was complete; its `Display` is the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The head is not acceptable.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The chunked body is broken.
    #[error("400 Bad Request: {0}")]
    Chunks(#[from] ChunkError),
    /// The body is larger than the limit.
    #[error("Request body{} too large, max size: {limit} bytes.{}", said(*length), see(*setting))]
    BodyTooLarge {
        /// Bytes announced; `None` for a body in chunks.
        length: Option<u64>,
        /// Bytes allowed.
        limit: u64,
        /// The setting of this limit.
        setting: Option<&'static str>,
    },
}

fn said(length: Option<u64>) -> String {
    length.map_or_else(String::new, |length| format!("({length} bytes)"))
}

fn see(setting: Option<&str>) -> String {
    let page = "https://www.consul.io/docs/agent/options.html";
    setting.map_or_else(String::new, |setting| format!(" See {page}#{setting}."))
}

impl Refusal {
    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Chunks(_) => 400,
            Self::BodyTooLarge { .. } => 413,
        }
    }

    /// Whether it is an endpoint's own, and not that of any server (http-api.md §1.2).
    pub const fn is_routed(self) -> bool {
        match self {
            Self::BodyTooLarge { .. } => true,
            Self::Head(_) | Self::Chunks(_) => false,
        }
    }
}

/// What the host is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Read more bytes and feed them.
    Read,
    /// Send `100 Continue`, then ask again.
    Continue,
    /// Append these bytes to the file of the request's body, then ask again.
    Piece(Bytes),
    /// Answer this request, then ask again if its `keep_alive` says so, else close.
    Request(Box<HttpRequest>),
    /// Send this refusal and close.
    Refuse(Refusal),
    /// Close; the connection was refused before.
    Close,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first byte of a request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
}

#[derive(Debug)]
enum State {
    Head,
    Body(Box<Body>),
    Refused,
}

#[derive(Debug)]
struct Body {
    head: Head,
    data: Vec<u8>,
    limit: BodyLimit,
    /// How much of it has gone to a file.
    gone: u64,
    decoder: Decoder,
    continue_due: bool,
}

#[derive(Debug)]
enum Decoder {
    Length(u64),
    Chunked(ChunkedDecoder),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    limits: ConnectionLimits,
    input: Vec<u8>,
    /// How much of `input` was already looked at without finding the end of a line.
    seen: usize,
    state: State,
}

impl Connection {
    /// A fresh connection.
    pub const fn new(limits: ConnectionLimits) -> Self {
        Self { limits, input: Vec::new(), seen: 0, state: State::Head }
    }

    /// What is being waited for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head | State::Refused if self.input.is_empty() => Phase::Idle,
            State::Head | State::Refused => Phase::Head,
            State::Body(_) => Phase::Body,
        }
    }

    /// Takes bytes that arrived. Call [`poll`](Self::poll) until it says `Read` before the next.
    pub fn feed(&mut self, data: &[u8]) {
        if !matches!(self.state, State::Refused) {
            self.input.extend_from_slice(data);
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Event {
        let result = match &mut self.state {
            State::Refused => return Event::Close,
            State::Head => self.poll_head(),
            State::Body(_) => self.poll_body(),
        };
        result.unwrap_or_else(|refusal| {
            self.state = State::Refused;
            self.input = Vec::new();
            Event::Refuse(refusal)
        })
    }

    fn poll_head(&mut self) -> Result<Event, Refusal> {
        // Empty lines before a request are to be ignored (RFC 9112 §2.2).
        if self.input.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
            let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let blank = self.input.iter().take_while(|byte| is_blank(byte)).count();
            self.input.drain(..blank);
            self.seen = 0;
        }
        // A head is only parsed when a line was completed, so slow bytes cost little.
        let fresh = self.input.get(self.seen..).unwrap_or_default();
        let line_is_complete = fresh.contains(&b'\n');
        let parsed = if line_is_complete { parse_head(&self.input)? } else { None };
        let line = self.input.iter().position(|byte| *byte == b'\n').unwrap_or(self.input.len());
        if line > self.limits.line_bytes_max {
            return Err(HeadError::LineTooLong.into());
        }
        let Some((head, used)) = parsed else {
            if self.input.len() > self.limits.head_bytes_max {
                return Err(HeadError::TooLarge.into());
            }
            self.seen = self.input.len();
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            return Ok(Event::Read);
        };
        if used > self.limits.head_bytes_max {
            return Err(HeadError::TooLarge.into());
        }
        self.input.drain(..used);
        self.seen = 0;
        self.begin_body(head)?;
        self.poll_body()
    }

    fn begin_body(&mut self, head: Head) -> Result<(), Refusal> {
        let limit = self.limits.of_body(&head);
        let decoder = match head.framing {
            BodyFraming::Length(length) if length > limit.bytes => {
                return Err(limit.refusal(Some(length)));
            }
            BodyFraming::Length(length) => Decoder::Length(length),
            BodyFraming::Chunked => Decoder::Chunked(ChunkedDecoder::default()),
        };
        let continue_due = head.expects_continue && !matches!(decoder, Decoder::Length(0));
        let (data, gone) = (Vec::new(), 0);
        let body = Body { head, data, limit, gone, decoder, continue_due };
        self.state = State::Body(Box::new(body));
        Ok(())
    }

    fn poll_body(&mut self) -> Result<Event, Refusal> {
        let State::Body(body) = &mut self.state else { return Ok(Event::Read) };
        if std::mem::take(&mut body.continue_due) && self.input.is_empty() {
            return Ok(Event::Continue);
        }
        let complete = match &mut body.decoder {
            Decoder::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                body.data.extend(self.input.drain(..count));
                *left = left.saturating_sub(count as u64);
                *left == 0
            }
            Decoder::Chunked(decoder) => {
                let used = decoder.decode(&self.input, &mut body.data)?;
                self.input.drain(..used);
                decoder.is_done()
            }
        };
        if body.gone + body.data.len() as u64 > body.limit.bytes {
            return Err(body.limit.refusal(None));
        }
        if body.limit.to_file && !body.data.is_empty() {
            body.gone += body.data.len() as u64;
            return Ok(Event::Piece(std::mem::take(&mut body.data).into()));
        }
        if !complete {
            return Ok(Event::Read);
        }
        let State::Body(body) = std::mem::replace(&mut self.state, State::Head) else {
            return Ok(Event::Read);
        };
        if self.input.is_empty() {
            // An idle connection keeps no buffer (performance-notes.md §7).
            self.input = Vec::new();
        }
        let (head, data) = (body.head, body.data);
        Ok(Event::Request(Box::new(HttpRequest { head, body: data.into(), file: None })))
    }
}

#[cfg(test)]
mod tests;
