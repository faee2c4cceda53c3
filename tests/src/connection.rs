//! An HTTP connection that is kept: what load is made with.
//!
//! Differs from [`crate::get`] and its like in that it tells failures apart from answers, keeps the
//! connection for the next request, and reads no more of an answer than it must.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to one agent. After a failure it is of no use any more.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
    /// What is sent, and lines that are read.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects; `patience` bounds this and each wait for more of an answer.
    pub fn open(host: SocketAddr, patience: Duration) -> Result<Self> {
        Self::over(TcpStream::connect_timeout(&host, patience)?, host, patience)
    }

    /// The same over a connection that was made.
    pub fn over(stream: TcpStream, host: SocketAddr, patience: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream), host, buffer: Vec::new() })
    }

    /// Sends a request and reads its answer. Whether a request that failed took effect is unknown.
    pub fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let (host, length) = (self.host, body.len());
        self.buffer.clear();
        write!(
            self.buffer,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        self.stream.get_mut().write_all(&self.buffer)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        let status = self.line()?.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| malformed("status"))?;
        let (mut length, mut is_chunked) = (0, false);
        while let Some((name, value)) = self.line()?.split_once(':') {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(|_| malformed("length"))?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                is_chunked = value.eq_ignore_ascii_case("chunked");
            }
        }
        let mut body = Vec::new();
        if !is_chunked {
            self.read(length, &mut body)?;
            return Ok(Answer { status, body });
        }
        loop {
            let size = usize::from_str_radix(self.line()?, 16).map_err(|_| malformed("chunk"))?;
            self.read(size, &mut body)?;
            self.line()?;
            if size == 0 {
                return Ok(Answer { status, body });
            }
        }
    }

    fn read(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let start = body.len();
        body.resize(start + length, 0);
        self.stream.read_exact(body.get_mut(start..).unwrap_or_default())
    }

    /// The next line without its end.
    fn line(&mut self) -> Result<&str> {
        self.buffer.clear();
        if self.stream.read_until(b'\n', &mut self.buffer)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| malformed("line"))?;
        Ok(text.trim_ascii_end())
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not an HTTP {what}"))
}
