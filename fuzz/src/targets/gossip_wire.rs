//! Gossip: the input is a whole datagram and, once more, a whole stream.

use bytes::Bytes;
use terraform_core::wire::gossip::{Message, StreamMessage};
use terraform_core::wire::packet::decode_datagram;
use terraform_core::wire::stream::StreamDecoder;

/// What decodes survives its encoding; how a stream is cut changes nothing.
pub fn gossip_wire(data: &[u8]) {
    for message in decode_datagram(&Bytes::copy_from_slice(data)).into_iter().flatten() {
        let again = Message::decode(&message.encode());
        assert_eq!(again, Ok(message), "a message survives its encoding");
    }
    let whole = StreamDecoder::new().feed(data);
    if let Ok(Some(message)) = &whole {
        let again = StreamDecoder::new().feed(&message.encode());
        assert_eq!(again.as_ref(), Ok(&Some(message.clone())), "a message survives its encoding");
    }
    let mut decoder = StreamDecoder::new();
    let mut cut: Result<Option<StreamMessage>, _> = Ok(None);
    for piece in data.chunks(usize::from(data.first().copied().unwrap_or(0)) % 7 + 1) {
        cut = decoder.feed(piece);
        if cut != Ok(None) {
            break;
        }
    }
    assert_eq!(cut, whole, "a stream may arrive in any pieces");
}
