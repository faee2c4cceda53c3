//! Decodes the chunked transfer coding, fed with any split of the bytes.
//!
//! - Source: RFC 9112 §7.1.
//! - Every line is bounded, so a peer cannot make the decoder keep or read without end; the caller
//!   bounds the decoded body by looking at `out` after each call.
//! - Trailer fields are read and dropped, as RFC 9112 §7.1.2 allows.

use thiserror::Error;

/// Bytes a chunk-size line may have, extensions included.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Bytes all trailer fields may have together.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Why a chunked body was refused. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// A chunk-size line does not start with a hexadecimal number of at most 16 digits.
    #[error("invalid chunk size")]
    Size,
    /// A chunk's data is not followed by CR LF, or a line ends without LF after CR.
    #[error("malformed chunked encoding")]
    Delimiter,
    /// A chunk-size line or the trailer is longer than allowed.
    #[error("chunk line or trailer too long")]
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the hexadecimal digits.
    Size { value: u64, digits: u8, line: usize },
    /// Behind the digits, up to LF.
    Extension { value: u64, line: usize },
    /// In the data.
    Data { left: u64 },
    /// Behind the data: CR, then LF.
    DataEnd { saw_cr: bool },
    /// In the trailer; `line` counts the bytes of the current line without CR.
    Trailer { line: usize, total: usize },
    /// Behind the last line.
    Done,
}

/// The decoder of one body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0, line: 0 } }
    }
}

impl ChunkedDecoder {
    /// Whether the whole body was decoded.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends decoded data to `out` and returns how many bytes of `input` were used.
    ///
    /// Uses all of `input` unless the body ends in it. At most `input.len()` bytes are appended.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        let mut rest = input;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    let (data, tail) = rest.split_at(wanted.min(rest.len()));
                    out.extend_from_slice(data);
                    let left = left.saturating_sub(data.len() as u64);
                    self.state = match left {
                        0 => State::DataEnd { saw_cr: false },
                        left => State::Data { left },
                    };
                    rest = tail;
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::DataEnd { .. }
                | State::Trailer { .. } => {
                    self.state = self.state.step(byte)?;
                    rest = tail;
                }
            }
        }
        Ok(input.len() - rest.len())
    }
}

impl State {
    /// The state after a byte that is not data.
    fn step(self, byte: u8) -> Result<Self, ChunkError> {
        match self {
            Self::Size { value, digits, line } => match char::from(byte).to_digit(16) {
                Some(digit) if digits < 16 => {
                    let value = value << 4 | u64::from(digit);
                    Ok(Self::Size { value, digits: digits + 1, line: line + 1 })
                }
                Some(_) => Err(ChunkError::Size),
                None if digits == 0 => Err(ChunkError::Size),
                None => Self::Extension { value, line }.step(byte),
            },
            Self::Extension { value: 0, line: _ } if byte == b'\n' => {
                Ok(Self::Trailer { line: 0, total: 0 })
            }
            Self::Extension { value, line: _ } if byte == b'\n' => Ok(Self::Data { left: value }),
            Self::Extension { line, .. } if line >= SIZE_LINE_BYTES_MAX => Err(ChunkError::TooLong),
            Self::Extension { value, line } => match byte {
                b'\r' | b'\t' | b' '..=b'~' | 0x80.. => {
                    Ok(Self::Extension { value, line: line + 1 })
                }
                _ => Err(ChunkError::Size),
            },
            Self::DataEnd { saw_cr: false } if byte == b'\r' => Ok(Self::DataEnd { saw_cr: true }),
            Self::DataEnd { .. } if byte == b'\n' => {
                Ok(Self::Size { value: 0, digits: 0, line: 0 })
            }
            Self::DataEnd { .. } => Err(ChunkError::Delimiter),
            Self::Trailer { line: 0, .. } if byte == b'\n' => Ok(Self::Done),
            Self::Trailer { total, .. } if total >= TRAILER_BYTES_MAX => Err(ChunkError::TooLong),
            Self::Trailer { line, total } => {
                let line = match byte {
                    b'\n' => 0,
                    b'\r' => line,
                    _ => line + 1,
                };
                Ok(Self::Trailer { line, total: total + 1 })
            }
            Self::Data { .. } | Self::Done => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] = b"4\r\nWiki\r\n6;name=\"v\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-T: 1\r\n\r\nnext";

    #[test]
    fn a_body_is_decoded_up_to_its_end() {
        let (mut decoder, mut out) = (ChunkedDecoder::default(), Vec::new());
        let used = decoder.decode(BODY, &mut out).unwrap();
        assert_eq!(out, b"Wikipedia in \r\n\r\nchunks.");
        assert_eq!(&BODY[used..], b"next");
        assert!(decoder.is_done());
    }

    #[test]
    fn a_bad_line_is_refused_with_its_rule() {
        let refuse = |input: &[u8]| ChunkedDecoder::default().decode(input, &mut Vec::new());
        assert_eq!(refuse(b"x\r\n"), Err(ChunkError::Size));
        assert_eq!(refuse(b"-1\r\n"), Err(ChunkError::Size));
        assert_eq!(refuse(b"11111111111111111\r\n"), Err(ChunkError::Size));
        assert_eq!(refuse(b"1\r\nab"), Err(ChunkError::Delimiter));
        assert_eq!(refuse(format!("1;{}", "x".repeat(300)).as_bytes()), Err(ChunkError::TooLong));
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(2000));
        assert_eq!(refuse(trailer.as_bytes()), Err(ChunkError::TooLong));
    }

    proptest! {
        #[test]
        fn any_split_decodes_to_the_same(cuts in proptest::collection::vec(0..BODY.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.push(BODY.len());
            cuts.sort_unstable();
            let (mut decoder, mut out, mut start) = (ChunkedDecoder::default(), Vec::new(), 0);
            for cut in cuts {
                decoder.decode(&BODY[start..cut], &mut out).unwrap();
                start = cut;
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(out, b"Wikipedia in \r\n\r\nchunks.".to_vec());
        }
    }
}
