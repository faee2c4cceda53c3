//! Gossip: the input is a whole datagram and, once more, a whole stream, for receivers with and
//! without keys and label; then something to compress, and the two
//! files of keys.

use bytes::Bytes;
use terraform_core::gossip::keyring::Keyring;
use terraform_core::wire::compress::{Compressor, DATAGRAM_BYTES_MAX, decompress};
use terraform_core::wire::gossip::{Message, PeerStates, StreamMessage};
use terraform_core::wire::packet::{Layers, Opener, Wrapper, decode_packet};
use terraform_core::wire::seal::Key;
use terraform_core::wire::stream::{StreamDecoder, StreamError};

/// What decodes survives its encoding; how a stream is cut changes nothing.
pub fn gossip_wire(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let keys = keys();
    let sealing = Opener { label: &[], keys: &keys, verify: true };
    let label = b"prod1".as_slice();
    let receivers = [
        Opener::PLAIN,
        sealing,
        Opener { verify: false, ..sealing },
        Opener { label, ..sealing },
        Opener { label, keys: &[], verify: true },
    ];
    for receiver in &receivers {
        datagram(&data, receiver);
        stream(&data, receiver);
    }
    compression(&data);
    if let Ok(ring) = Keyring::from_file(&data) {
        assert_eq!(Keyring::from_file(&ring.to_file()), Ok(ring), "a keyring survives its file");
    }
    let mut ring = Keyring::new(keys[0].clone());
    if ring.retire_from_file(&data).is_ok() {
        let mut again = Keyring::new(keys[0].clone());
        let read = ring.retired_to_file().map_or(Ok(()), |file| again.retire_from_file(&file));
        assert_eq!((read, again), (Ok(()), ring), "retired keys survive their file");
    }
}

/// The keys of the recorded and the computed seeds.
fn keys() -> [Key; 3] {
    let key = |from: u8, len: usize| {
        let bytes: Vec<u8> = (from..).take(len).collect();
        Key::new(&bytes).expect("16 and 32 bytes are keys")
    };
    [key(0x64, 16), key(0, 32), key(0, 16)]
}

/// The layers that `receiver` takes off.
const fn layers<'a>(receiver: &Opener<'a>) -> Layers<'a> {
    let key = match receiver.keys.first() {
        Some(key) => Some((key, [7; 12])),
        None => None,
    };
    Layers { label: receiver.label, key, compress: true }
}

fn datagram(data: &Bytes, receiver: &Opener<'_>) {
    let Ok(opened) = receiver.open(data) else { return };
    for message in decode_packet(&opened.packet).into_iter().flatten() {
        let again = Message::decode(&message.encode());
        assert_eq!(again, Ok(message), "a message survives its encoding");
    }
    let wrapped = Wrapper::default().datagram(&opened.packet, false, &layers(receiver));
    let again = receiver.open(&wrapped).map(|opened| opened.key);
    let key = receiver.keys.first().map(Key::id);
    assert_eq!(again, Ok(key), "what was sealed opens");
}

fn stream(data: &Bytes, receiver: &Opener<'_>) {
    let whole = StreamDecoder::accepted().feed(data, receiver);
    if let Ok(Some(message)) = &whole {
        let wrapped = Wrapper::default().stream(&message.encode(), true, &layers(receiver));
        let wrapped = wrapped.expect("a small message fits into a frame");
        let again = StreamDecoder::accepted().feed(&wrapped, receiver);
        assert_eq!(again.as_ref(), Ok(&Some(message.clone())), "a message survives its layers");
        if let StreamMessage::PushPull(exchange) = message
            && let Ok(states) = exchange.states.decode()
        {
            let again = PeerStates::encode(states.clone()).decode();
            assert_eq!(again, Ok(states), "members survive their encoding");
        }
    }
    let mut decoder = StreamDecoder::accepted();
    let mut cut: Result<_, StreamError> = Ok(None);
    for piece in data.chunks(usize::from(data.first().copied().unwrap_or(0)) % 7 + 1) {
        cut = decoder.feed(piece, receiver);
        if cut != Ok(None) {
            break;
        }
    }
    assert_eq!(cut, whole, "a stream may arrive in any pieces");
}

fn compression(data: &Bytes) {
    let mut layer = Vec::new();
    Compressor::default().compress(data, &mut layer);
    let body = layer.get(1..).unwrap_or_default();
    assert_eq!(decompress(body, data.len()).as_ref(), Ok(data), "bytes survive their compression");
    if let Ok(plain) = decompress(data, DATAGRAM_BYTES_MAX) {
        assert!(plain.len() <= DATAGRAM_BYTES_MAX, "nothing is made beyond the limit");
    }
}
