//! Base64 with padding (RFC 4648 §4): how people and files hold the keys of gossip.

use thiserror::Error;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Why text is not base64. Whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("illegal base64 data at input byte {at}")]
pub struct Base64Error {
    /// The first byte that cannot stand where it does.
    pub at: usize,
}

/// The text of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = (0..3)
            .fold(0_u32, |word, at| word << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ALPHABET.get((word >> (18 - 6 * at)) as usize & 63);
            let digit = digit.expect("six bits number 64 digits");
            text.push(if at <= group.len() { char::from(*digit) } else { '=' });
        }
    }
    text
}

/// The bytes that `text` stands for.
///
/// - Errors: a byte outside the alphabet, text that ends within four digits, padding elsewhere
///   than at the end, or bits in the last digit that no byte needs.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    let digits = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let padding = text.len() - digits;
    let mut bytes = Vec::with_capacity(digits / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0);
    for (at, byte) in text.iter().take(digits).enumerate() {
        word = word << 6 | digit(*byte).ok_or(Base64Error { at })?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            let [.., byte] = (word >> bits).to_be_bytes();
            bytes.push(byte);
            word &= (1 << bits) - 1;
        }
    }
    let whole = digits % 4 != 1 && padding == (4 - digits % 4) % 4;
    if !whole || word != 0 {
        return Err(Base64Error { at: digits - digits % 4 });
    }
    Ok(bytes)
}

fn digit(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_standard_hold() {
        let examples =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in examples {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Ok(bytes.as_bytes()));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_where_it_begins() {
        let examples = [
            ("!AAA", 0),
            ("AA=A", 2),
            ("AAAA A==", 4),
            ("AAAAA", 4),
            ("AAAAAA", 4),
            ("AA===", 0),
            ("=", 0),
            ("AB==", 0),
        ];
        for (text, at) in examples {
            assert_eq!(decode(text.as_bytes()), Err(Base64Error { at }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive_their_text(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn text_that_is_read_is_written_the_same(text in "[A-Za-z0-9+/]{0,12}={0,3}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
