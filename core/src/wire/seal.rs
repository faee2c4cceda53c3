//! Encryption of gossip: AES-GCM under a key of 16, 24 or 32 bytes (gossip-wire.md §8).
//!
//! ```text
//! datagram: version u8 | nonce 12 | ciphertext | tag 16
//! stream:   0a | length u32 of the rest | version u8 | nonce 12 | ciphertext | tag 16
//! ```
//!
//! Version 0 pads the plaintext to 16 bytes (PKCS#7), version 1 takes it as it is. Authenticated
//! besides: a datagram's label; a stream's first five bytes and its label. A nonce is drawn afresh
//! for every message by whoever seals. Keys never reach a log: their `Debug` and `Display` show
//! four bytes of a keyed checksum.

use super::DecodeError;
use super::base64::{self, Base64Error};
use super::gossip::kind;
use super::pack::{Pack, Reader, put_blob};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aes::Aes192;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, AesGcm, KeyInit};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
/// Bytes before the ciphertext.
const HEAD_BYTES: usize = 1 + NONCE_BYTES;
/// Bytes that sealing under version 1 adds.
pub const SEAL_OVERHEAD: usize = HEAD_BYTES + TAG_BYTES;

/// Bytes before a sealed stream message.
pub const FRAME_HEAD_BYTES: usize = 5;
/// Bytes a sealed stream message may have (gossip-wire.md §4).
pub const FRAME_BYTES_MAX: usize = 20 << 20;

/// How the plaintext is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealVersion {
    /// Padded to a multiple of 16 bytes; only old peers send it.
    Padded,
    /// As it is.
    Plain,
}

/// Why a key is none. The operator, or the peer that sent it, is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Its length is no AES key's.
    #[error("key size must be 16, 24 or 32 bytes")]
    Length,
    /// It is not base64.
    #[error(transparent)]
    Base64(#[from] Base64Error),
}

#[derive(Clone)]
enum Cipher {
    Aes128(Aes128Gcm),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(Aes256Gcm),
}

/// A secret key of gossip, ready for use.
#[derive(Clone)]
pub struct Key {
    /// The key's bytes; the first `len` count.
    bytes: [u8; 32],
    len: usize,
    id: KeyId,
    cipher: Arc<Cipher>,
}

/// Names a key without telling it: four bytes of its checksum over nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl Pack for Key {
    /// Its bytes: a secret.
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, self.as_bytes());
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(input.blob()?).map_err(|_| input.invalid("a key has 16, 24 or 32 bytes"))
    }
}

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let invalid = |_| KeyError::Length;
        let cipher = match bytes.len() {
            16 => Cipher::Aes128(Aes128Gcm::new_from_slice(bytes).map_err(invalid)?),
            24 => Cipher::Aes192(AesGcm::new_from_slice(bytes).map_err(invalid)?),
            32 => Cipher::Aes256(Aes256Gcm::new_from_slice(bytes).map_err(invalid)?),
            _ => return Err(KeyError::Length),
        };
        let mut whole = [0; 32];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        // A nonce that no message uses but by a chance of 2^-96.
        let [a, b, c, d, ..] = cipher.seal([0xff; NONCE_BYTES], &[], &mut []);
        let id = KeyId([a, b, c, d]);
        Ok(Self { bytes: whole, len: bytes.len(), id, cipher: Arc::new(cipher) })
    }

    /// The key with this base64 text, as settings, files and key queries hold it.
    pub fn from_base64(text: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        Self::new(&base64::decode(text.as_ref())?)
    }

    /// The key as base64 text: a secret.
    pub fn to_base64(&self) -> String {
        base64::encode(self.as_bytes())
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).expect("`len` counts bytes that are there")
    }

    /// What names it in logs.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Appends `plain` as a sealed stream message to `out`.
    ///
    /// - Errors: `plain` is too long for a frame; nothing is appended.
    pub fn seal_stream(
        &self,
        nonce: [u8; NONCE_BYTES],
        label: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let head = frame_head(SEAL_OVERHEAD + plain.len())?;
        out.extend_from_slice(&head);
        self.seal(SealVersion::Plain, nonce, &[&head, label].concat(), &[plain], out);
        Ok(())
    }

    /// Appends the plaintext whose pieces are `plain`, sealed under `nonce`, which no other message
    /// under this key may use.
    pub fn seal(
        &self,
        version: SealVersion,
        nonce: [u8; NONCE_BYTES],
        authenticated: &[u8],
        plain: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        out.push(match version {
            SealVersion::Padded => 0,
            SealVersion::Plain => 1,
        });
        out.extend_from_slice(&nonce);
        let start = out.len();
        plain.iter().for_each(|piece| out.extend_from_slice(piece));
        if version == SealVersion::Padded {
            let padding = BLOCK_BYTES - (out.len() - start) % BLOCK_BYTES;
            let byte = u8::try_from(padding).expect("padding is at most 16 bytes");
            out.resize(out.len() + padding, byte);
        }
        let body = out.get_mut(start..).expect("the plaintext was appended");
        let tag = self.cipher.seal(nonce, authenticated, body);
        out.extend_from_slice(&tag);
    }
}

impl Cipher {
    /// Encrypts `body` in place; gives its tag.
    fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        authenticated: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let (nonce, body) = (nonce.into(), InOutBuf::from(body));
        let tag = match self {
            Self::Aes128(aes) => aes.encrypt_inout_detached(&nonce, authenticated, body),
            Self::Aes192(aes) => aes.encrypt_inout_detached(&nonce, authenticated, body),
            Self::Aes256(aes) => aes.encrypt_inout_detached(&nonce, authenticated, body),
        };
        tag.expect("a message is far below the 64 GiB of AES-GCM").into()
    }

    /// Decrypts `body` in place if `tag` is right, else leaves it alone.
    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        authenticated: &[u8],
        body: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> bool {
        let (nonce, tag, body) = (nonce.into(), tag.into(), InOutBuf::from(body));
        let opened = match self {
            Self::Aes128(aes) => aes.decrypt_inout_detached(&nonce, authenticated, body, &tag),
            Self::Aes192(aes) => aes.decrypt_inout_detached(&nonce, authenticated, body, &tag),
            Self::Aes256(aes) => aes.decrypt_inout_detached(&nonce, authenticated, body, &tag),
        };
        opened.is_ok()
    }
}

/// Refuses what is not sealed where it has to be.
pub const NOT_SEALED: DecodeError = DecodeError::Layer {
    layer: "encryption",
    rule: "gossip is encrypted here, but the message is not",
};

/// What the sealed message `sealed` holds, and which key it was; they are tried in their order.
///
/// - Errors: `Sealed` if no key fits, every other one if no key could.
/// - Cost: linear in the bytes for each key tried.
pub fn open(
    keys: &[Key],
    authenticated: &[u8],
    sealed: &[u8],
) -> Result<(Bytes, KeyId), DecodeError> {
    let field = "encryption";
    let version = match sealed.first() {
        Some(0) => SealVersion::Padded,
        Some(1) => SealVersion::Plain,
        Some(_) => return Err(NOT_SEALED),
        None => return Err(DecodeError::Truncated { field }),
    };
    let rest = sealed.get(1..).and_then(<[u8]>::split_first_chunk::<NONCE_BYTES>);
    let parts = rest.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk()?)));
    let (nonce, (ciphertext, tag)) = parts.ok_or(DecodeError::Truncated { field })?;
    let mut body = ciphertext.to_vec();
    let fits = |key: &&Key| key.cipher.open(*nonce, authenticated, &mut body, *tag);
    let Some(key) = keys.iter().find(fits).map(Key::id) else {
        return Err(DecodeError::Sealed { tried: keys.iter().map(Key::id).collect() });
    };
    if version == SealVersion::Padded {
        let padding = body.last().map_or(0, |byte| usize::from(*byte));
        let end = body.len().checked_sub(padding);
        let end = end.filter(|_| (1..=BLOCK_BYTES).contains(&padding));
        body.truncate(end.ok_or(DecodeError::Invalid { field, rule: "its padding is wrong" })?);
    }
    Ok((body.into(), key))
}

/// The length in a frame's head, once the head is there.
///
/// - Errors: the frame is longer than [`FRAME_BYTES_MAX`].
pub fn frame_length(head: [u8; FRAME_HEAD_BYTES]) -> Result<usize, DecodeError> {
    let [_, length @ ..] = head;
    check_frame(u32::from_be_bytes(length).into())?;
    usize::try_from(u32::from_be_bytes(length)).map_err(|_| frame_limit(u64::MAX))
}

fn frame_head(length: usize) -> Result<[u8; FRAME_HEAD_BYTES], DecodeError> {
    check_frame(length as u64)?;
    let length = u32::try_from(length).expect("20 MiB are less than 4 GiB");
    let [a, b, c, d] = length.to_be_bytes();
    Ok([kind::ENCRYPT, a, b, c, d])
}

const fn check_frame(length: u64) -> Result<(), DecodeError> {
    if length > FRAME_BYTES_MAX as u64 { Err(frame_limit(length)) } else { Ok(()) }
}

const fn frame_limit(value: u64) -> DecodeError {
    DecodeError::Limit { field: "encryption", value, limit: FRAME_BYTES_MAX as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; NONCE_BYTES] = *b"nonce twelve";

    fn key(len: usize, first: u8) -> Key {
        Key::new(&(first..).take(len).collect::<Vec<u8>>()).unwrap()
    }

    fn sealed(key: &Key, version: SealVersion, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        key.seal(version, NONCE, b"label", &[plain], &mut out);
        out
    }

    #[test]
    fn a_message_opens_with_the_key_that_sealed_it_wherever_it_stands() {
        let keys = [key(16, 1), key(24, 2), key(32, 3), key(32, 4)];
        for version in [SealVersion::Padded, SealVersion::Plain] {
            for (at, key) in keys.iter().enumerate() {
                let sealed = sealed(key, version, b"attack at dawn");
                let expected = Ok(("attack at dawn".into(), key.id()));
                assert_eq!(open(&keys, b"label", &sealed), expected);
                let others: Vec<Key> = keys.iter().filter(|other| *other != key).cloned().collect();
                let tried = others.iter().map(Key::id).collect();
                let refused = Err(DecodeError::Sealed { tried });
                assert_eq!(open(&others, b"label", &sealed), refused, "without key {at}");
                assert!(open(&keys, b"other label", &sealed).is_err());
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = key(16, 1);
        let good = sealed(&key, SealVersion::Plain, b"attack at dawn");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The version byte is not authenticated; version 0 finds no padding in this text.
            assert!(open(std::slice::from_ref(&key), b"label", &bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(open(std::slice::from_ref(&key), b"label", &good[..len]).is_err());
        }
    }

    #[test]
    fn version_0_pads_to_whole_blocks() {
        for len in [0, 1, 15, 16, 17] {
            let (key, plain) = (key(16, 1), vec![7; len]);
            let sealed = sealed(&key, SealVersion::Padded, &plain);
            assert_eq!((sealed.len() - SEAL_OVERHEAD) % BLOCK_BYTES, 0);
            assert!(sealed.len() > SEAL_OVERHEAD + len);
            assert_eq!(open(&[key], b"label", &sealed).unwrap().0, plain);
        }
    }

    #[test]
    fn a_stream_message_is_bound_to_its_length_and_label() {
        let key = key(32, 1);
        let mut out = Vec::new();
        key.seal_stream(NONCE, b"label", b"state", &mut out).unwrap();
        let (head, body) = out.split_first_chunk().unwrap();
        assert_eq!(frame_length(*head), Ok(body.len()));
        let opened = open(&[key], &[head, b"label".as_slice()].concat(), body);
        assert_eq!(opened.unwrap().0, "state");
        let long = [kind::ENCRYPT, 0xff, 0, 0, 0];
        assert!(matches!(frame_length(long), Err(DecodeError::Limit { .. })));
    }

    #[test]
    fn keys_have_16_24_or_32_bytes_and_do_not_show_them() {
        for len in (0..40).filter(|len| ![16, 24, 32].contains(len)) {
            assert_eq!(Key::new(&vec![0; len]), Err(KeyError::Length));
        }
        let key = key(16, b'a');
        assert_eq!(Key::from_base64(key.to_base64()), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
        assert!(!format!("{key:?}").contains("abc"));
        assert!(matches!(Key::from_base64("!"), Err(KeyError::Base64(_))));
        assert_eq!(Key::from_base64("YWJj"), Err(KeyError::Length));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(open(&[key(16, 1), key(24, 1)], b"", &bytes).is_err());
        }
    }
}
