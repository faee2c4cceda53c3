//! CRC-32 of IEEE 802.3, the one checksum of gossip datagrams, the WAL and files.
//!
//! Gossip layer (gossip-wire.md §6.1): `0c`, the checksum big-endian, then the covered bytes.

use super::DecodeError;
use bytes::Bytes;

/// The type byte of the checksum layer.
pub const HAS_CRC: u8 = 12;

/// Bytes the layer adds to a datagram.
pub const CRC_BYTES: usize = 5;

/// The checksum of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of what has the checksum `before`, followed by `bytes`.
pub fn crc32_after(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

/// Puts `packet` under a checksum.
pub fn with_crc(packet: &[u8]) -> Bytes {
    [&crc_head(packet), packet].concat().into()
}

/// What stands before `packet` under a checksum.
pub fn crc_head(packet: &[u8]) -> [u8; CRC_BYTES] {
    let [a, b, c, d] = crc32(packet).to_be_bytes();
    [HAS_CRC, a, b, c, d]
}

/// What a datagram's checksum covers, or the datagram itself if it carries none.
pub fn without_crc(datagram: &Bytes) -> Result<Bytes, DecodeError> {
    let Some((&HAS_CRC, rest)) = datagram.split_first() else {
        return Ok(datagram.clone());
    };
    let field = "crc";
    let (sum, covered) = rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
    if u32::from_be_bytes(*sum) != crc32(covered) {
        return Err(DecodeError::Checksum { field });
    }
    Ok(datagram.slice_ref(covered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let mut bytes = with_crc(b"hello").to_vec();
        assert_eq!(without_crc(&bytes.clone().into()), Ok(Bytes::from_static(b"hello")));
        bytes[7] ^= 1;
        assert_eq!(without_crc(&bytes.into()), Err(DecodeError::Checksum { field: "crc" }));
    }

    #[test]
    fn the_check_value_of_the_standard_holds() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32_after(crc32(b"1234"), b"56789"), 0xcbf4_3926);
    }

    #[test]
    fn a_datagram_without_checksum_is_left_alone() {
        assert_eq!(without_crc(&Bytes::new()), Ok(Bytes::new()));
        let cut = Bytes::from_static(&[HAS_CRC, 1, 2, 3]);
        assert_eq!(without_crc(&cut), Err(DecodeError::Truncated { field: "crc" }));
    }
}
