//! One call of the health protocol as a machine: bytes in, bytes out, a status in the end.
//!
//! - Source: RFC 9113 §3.4, §4.1 and §6; RFC 7541 §6.2.2 for header fields without compression.
//! - What headers of the answer say is not read, since that would take tables of compression: a
//!   server that answers without a message does not know the service, or has no health protocol.
//! - Bytes are bounded: a frame by the default of the protocol, a message and all frames by what a
//!   status can need.

use thiserror::Error;

/// What every connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The stream of the only call.
const STREAM: u32 = 1;
/// Bytes of a frame's payload, as long as nothing else was agreed on.
const FRAME_BYTES_MAX: usize = 16_384;
/// Bytes of the answer's message: a status is two.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes that a server may send until it has answered.
const BYTES_MAX: usize = 64 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Of `DATA` and `HEADERS`.
const END_STREAM: u8 = 0x1;
/// Of `SETTINGS` and `PING`.
const ACK: u8 = 0x1;
/// Of `HEADERS`.
const END_HEADERS: u8 = 0x4;
/// Of `DATA`.
const PADDED: u8 = 0x8;

/// Why a call failed. The server is at fault, or none of what it was taken for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrpcError {
    /// It answered without a message.
    #[error(
        "rpc error: code = Unknown desc = the server has no status of this service: it does not \
         know it, or has no health protocol"
    )]
    NoMessage,
    /// It ended the call.
    #[error("rpc error: code = Unavailable desc = the server ended the call: HTTP/2 error {0}")]
    Reset(u32),
    /// It ends the connection.
    #[error("rpc error: code = Unavailable desc = the server goes away: HTTP/2 error {0}")]
    GoAway(u32),
    /// It breaks a rule.
    #[error("rpc error: code = Internal desc = {0}")]
    Protocol(&'static str),
}

type Checked<T> = Result<T, GrpcError>;

/// The call.
#[derive(Debug)]
pub struct Exchange {
    output: Vec<u8>,
    /// Bytes of the frame that is not complete yet.
    input: Vec<u8>,
    /// Bytes taken so far.
    taken: usize,
    message: Vec<u8>,
}

impl Exchange {
    /// A call for the status of `service`, empty for the server itself.
    pub fn new(authority: &str, service: &str, tls: bool) -> Self {
        let mut exchange =
            Self { output: PREFACE.to_vec(), input: Vec::new(), taken: 0, message: Vec::new() };
        exchange.send(SETTINGS, 0, 0, &[]);
        let mut fields = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", if tls { "https" } else { "http" }),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "Consul Health Check"),
        ] {
            fields.push(0);
            put_text(name, &mut fields);
            put_text(value, &mut fields);
        }
        exchange.send(HEADERS, END_HEADERS, STREAM, &fields);
        let mut request = Vec::new();
        if !service.is_empty() {
            // Field 1, a text.
            request.push(0x0a);
            put_varint(service.len(), &mut request);
            request.extend_from_slice(service.as_bytes());
        }
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let framed = [&[0][..], &length.to_be_bytes(), &request].concat();
        exchange.send(DATA, END_STREAM, STREAM, &framed);
        exchange
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes what the server sent; the status once it is there.
    pub fn feed(&mut self, data: &[u8]) -> Checked<Option<u64>> {
        self.taken += data.len();
        if self.taken > BYTES_MAX {
            return Err(GrpcError::Protocol("the answer is too long"));
        }
        self.input.extend_from_slice(data);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(GrpcError::Protocol("a frame is longer than agreed"));
            }
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            rest = behind;
            if self.frame((kind, flags, stream), payload)? {
                return status(&self.message).map(Some);
            }
        }
        self.input = rest.to_vec();
        Ok(None)
    }

    /// Takes one frame; whether it ends the answer.
    fn frame(&mut self, (kind, flags, stream): (u8, u8, u32), payload: &[u8]) -> Checked<bool> {
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 && payload.len() == 8 => self.send(PING, ACK, 0, payload),
            GOAWAY => return Err(GrpcError::GoAway(code(payload.get(4..)))),
            RST_STREAM if stream == STREAM => {
                return Err(GrpcError::Reset(code(Some(payload))));
            }
            DATA if stream == STREAM => {
                self.message.extend_from_slice(unpadded(flags, payload)?);
                if self.message.len() > MESSAGE_BYTES_MAX {
                    return Err(GrpcError::Protocol("the message is too long"));
                }
                return Ok(flags & END_STREAM != 0);
            }
            HEADERS if stream == STREAM => return Ok(flags & END_STREAM != 0),
            // Everything else is for calls that go on (RFC 9113 §5.5).
            _ => {}
        }
        Ok(false)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.output.extend_from_slice(length.get(1..).unwrap_or_default());
        self.output.extend_from_slice(&[kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
        self.output.extend_from_slice(payload);
    }
}

/// The error code at the start of a payload.
fn code(payload: Option<&[u8]>) -> u32 {
    let bytes = payload.and_then(|payload| payload.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn unpadded(flags: u8, payload: &[u8]) -> Checked<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let inner = payload
        .split_first()
        .and_then(|(padding, rest)| rest.get(..rest.len().checked_sub(usize::from(*padding))?));
    inner.ok_or(GrpcError::Protocol("a frame is padded with more than it has"))
}

/// The status in a message: its length in front, then the fields of a protocol buffer, of which
/// number 1 is the status and 0 if it is not there.
fn status(message: &[u8]) -> Checked<u64> {
    let Some((head, fields)) = message.split_first_chunk::<5>() else {
        return Err(GrpcError::NoMessage);
    };
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(GrpcError::Protocol("the message is compressed, which was not asked for"));
    }
    if fields.len() != u32::from_be_bytes(length) as usize {
        return Err(GrpcError::Protocol("the message has another length than it says"));
    }
    let (mut rest, mut found) = (fields, 0);
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => found = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => skip(&mut rest, 8)?,
            (_, 2) => {
                let length = varint(&mut rest)?;
                skip(&mut rest, usize::try_from(length).unwrap_or(usize::MAX))?;
            }
            (_, 5) => skip(&mut rest, 4)?,
            _ => return Err(GrpcError::Protocol("the message is no protocol buffer")),
        }
    }
    Ok(found)
}

fn skip(rest: &mut &[u8], count: usize) -> Checked<()> {
    let cut = GrpcError::Protocol("the message is cut");
    *rest = rest.get(count..).ok_or(cut)?;
    Ok(())
}

/// A number in groups of seven bits, the lowest first.
fn varint(rest: &mut &[u8]) -> Checked<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, behind) =
            rest.split_first().ok_or(GrpcError::Protocol("the message is cut"))?;
        *rest = behind;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(GrpcError::Protocol("a number is too long"))
}

fn put_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

/// A text of a header field, as it is (RFC 7541 §5.2): its length in a prefix of seven bits.
fn put_text(text: &str, out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 0x7f => out.push(length),
        _ => {
            out.push(0x7f);
            put_varint(text.len().saturating_sub(0x7f), out);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// What a server sends that answers with this message.
    fn answer(message: &[u8]) -> Vec<u8> {
        let length = u8::try_from(message.len()).unwrap();
        [
            frame(SETTINGS, 0, 0, &[]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(8, 0, 0, &[0, 1, 0, 0]),
            frame(HEADERS, END_HEADERS, 1, &[0x88]),
            frame(DATA, 0, 1, &[&[0, 0, 0, 0, length][..], message].concat()),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]),
        ]
        .concat()
    }

    fn exchange() -> Exchange {
        let mut exchange = Exchange::new("h:1", "web", false);
        exchange.take_output();
        exchange
    }

    #[test]
    fn a_call_begins_with_the_preface_and_names_the_service() {
        let mut exchange = Exchange::new("h:1", "web", true);
        let sent = exchange.take_output();
        assert!(sent.starts_with(PREFACE));
        assert!(sent.ends_with(&[0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']));
        let has = |text: &[u8]| sent.windows(text.len()).any(|window| window == text);
        assert!(has(b"\x00\x07:scheme\x05https\x00\x05:path\x1c/grpc.health.v1.Health/Check"));
        let long = "x".repeat(300);
        let sent = Exchange::new(&long, "", false).take_output();
        let length = [0x7f, 0xad, 0x01, b'x'];
        assert!(sent.windows(4).any(|window| window == length), "300 = 127 + 173");
    }

    #[test]
    fn a_status_is_found_however_the_bytes_are_cut() {
        for (message, status) in [(&[8, 1][..], 1), (&[8, 2], 2), (&[], 0), (&[18, 1, 0, 8, 1], 1)]
        {
            let sent = answer(message);
            assert_eq!(exchange().feed(&sent), Ok(Some(status)));
            let mut cut = exchange();
            let told: Vec<_> = sent.iter().map(|byte| cut.feed(&[*byte])).collect();
            assert_eq!(told.last(), Some(&Ok(Some(status))));
            let mut acks = vec![frame(SETTINGS, ACK, 0, &[])];
            assert_eq!(cut.take_output(), acks.remove(0));
        }
        let mut padded = exchange();
        let payload = [2, 0, 0, 0, 0, 2, 8, 1, 0, 0];
        assert_eq!(padded.feed(&frame(DATA, PADDED | END_STREAM, 1, &payload)), Ok(Some(1)));
        let ping = frame(PING, 0, 0, b"12345678");
        assert_eq!(padded.feed(&ping), Ok(None));
        assert!(padded.take_output().ends_with(b"12345678"));
    }

    #[test]
    fn what_is_no_answer_is_told_with_its_rule() {
        let told = |bytes: &[u8]| exchange().feed(bytes).unwrap_err();
        assert_eq!(told(&frame(HEADERS, END_STREAM, 1, &[])), GrpcError::NoMessage);
        assert_eq!(told(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 7])), GrpcError::Reset(7));
        let away = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]);
        assert_eq!(told(&away), GrpcError::GoAway(11));
        for bad in [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            frame(DATA, PADDED, 1, &[9, 0]),
            frame(DATA, END_STREAM, 1, &[1, 0, 0, 0, 0]),
            frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 9]),
            frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 2, 8, 0x80]),
            frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 1, 0x0f]),
            vec![0; BYTES_MAX + 1],
        ] {
            assert!(matches!(told(&bad), GrpcError::Protocol(_)), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut exchange = exchange();
            for piece in pieces {
                let _ = exchange.feed(&piece);
                prop_assert!(exchange.input.len() <= FRAME_BYTES_MAX + 9);
            }
        }
    }
}
