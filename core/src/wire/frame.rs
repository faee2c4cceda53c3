//! Frames on the server port 8300: a length and so many bytes.
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | length of the body, big-endian, 1 to the limit |
//! | n | the body, one msgpack value ([`super::rpc`]) |
//!
//! The limit is [`HELLO_BYTES_MAX`] until the hello was accepted and [`FRAME_BYTES_MAX`] after it.
//! A decoder holds no more than the bytes that arrived, so a claimed length costs nothing.

use super::DecodeError;
use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of a frame's body.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a hello, and of any frame before the hello was accepted.
pub const HELLO_BYTES_MAX: usize = 4096;

const LENGTH_BYTES: usize = 4;

/// Puts the length in front of what `write` appends. Refused if the body is above the limit.
pub fn encode(write: impl FnOnce(&mut Vec<u8>)) -> Result<Bytes, DecodeError> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    write(&mut out);
    let body = out.len().saturating_sub(LENGTH_BYTES);
    let length = check_length(body as u64, FRAME_BYTES_MAX)?;
    if let Some(head) = out.first_chunk_mut::<LENGTH_BYTES>() {
        *head = length.to_be_bytes();
    }
    Ok(out.into())
}

fn check_length(length: u64, limit: usize) -> Result<u32, DecodeError> {
    let refused = DecodeError::Limit { field: "frame length", value: length, limit: limit as u64 };
    if length == 0 || length > limit as u64 {
        return Err(refused);
    }
    u32::try_from(length).map_err(|_| refused)
}

/// Cuts a stream of bytes into frames, whatever pieces it arrives in.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
}

impl Default for FrameDecoder {
    /// A decoder at the start of a stream, where only a hello may come.
    fn default() -> Self {
        Self { buffer: BytesMut::new(), limit: HELLO_BYTES_MAX }
    }
}

impl FrameDecoder {
    /// Allows frames of full size: the hello was accepted.
    pub const fn accept_hello(&mut self) {
        self.limit = FRAME_BYTES_MAX;
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Takes the body of the next whole frame; `None` if more bytes are needed. After an error the
    /// stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let claimed = u32::from_be_bytes(*head);
        check_length(u64::from(claimed), self.limit)?;
        let length = claimed as usize;
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let body = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            chunk in 1usize..40,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.extend_from_slice(&encode(|out| out.extend_from_slice(body)).unwrap());
            }
            let mut decoder = FrameDecoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(chunk) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_its_bytes_arrive() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&4097u32.to_be_bytes());
        assert!(matches!(decoder.next_frame(), Err(DecodeError::Limit { value: 4097, .. })));

        let mut decoder = FrameDecoder::default();
        decoder.accept_hello();
        decoder.push(&4097u32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        let too_long = encode(|out| out.resize(FRAME_BYTES_MAX + 5, 0));
        assert!(matches!(too_long, Err(DecodeError::Limit { .. })));
    }

    #[test]
    fn an_empty_frame_is_refused() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&[0; 4]);
        assert!(matches!(decoder.next_frame(), Err(DecodeError::Limit { value: 0, .. })));
    }
}
