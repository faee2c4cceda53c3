//! HTTP: the input is what a client sends on one connection, and the text of a URL.

use terraform_io::http::client::Url;
use terraform_io::http::connection::{Connection, ConnectionLimits, Event, HttpRequest};

/// Small limits, so that short inputs reach them.
const LIMITS: ConnectionLimits = ConnectionLimits {
    line_bytes_max: 256,
    head_bytes_max: 1024,
    body_bytes_max: 512,
    value_bytes_max: 256,
    transaction_bytes_max: 384,
    file_bytes_max: 2048,
};

fn requests(data: &[u8], piece: usize) -> Vec<HttpRequest> {
    let mut connection = Connection::new(LIMITS);
    let mut requests = Vec::new();
    let mut pieces = Vec::new();
    for piece in data.chunks(piece) {
        connection.feed(piece);
        loop {
            match connection.poll() {
                Event::Read => break,
                Event::Continue => {}
                Event::Piece(piece) => {
                    pieces.extend_from_slice(&piece);
                    let limit = LIMITS.file_bytes_max;
                    assert!(pieces.len() as u64 <= limit, "a body in a file has a limit");
                }
                Event::Request(mut request) => {
                    if !pieces.is_empty() {
                        request.body = std::mem::take(&mut pieces).into();
                        requests.push(*request);
                        continue;
                    }
                    assert!(request.body.len() <= LIMITS.body_bytes_max, "a body has a limit");
                    requests.push(*request);
                }
                Event::Refuse(refusal) => {
                    assert!((400..600).contains(&refusal.status()), "a refusal is an error");
                    assert_eq!(connection.poll(), Event::Close, "a refused connection closes");
                    return requests;
                }
                Event::Close => return requests,
            }
        }
    }
    requests
}

/// How a connection is cut changes no request; a URL survives its own parts.
pub fn http(data: &[u8]) {
    let piece = usize::from(data.last().copied().unwrap_or(0)) % 7 + 1;
    let whole = requests(data, data.len().max(1));
    assert_eq!(requests(data, piece), whole, "requests may arrive in any pieces");
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(url) = Url::parse(text)
    {
        assert!(!url.host_header().is_empty(), "a URL names a host");
        let _ = url.join(text);
    }
}
