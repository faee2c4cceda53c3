//! One record of a log file: a header with a checksum of its own, a payload, padding.
//!
//! Shared by the write-ahead log, snapshots and the registrations (raft.md §11.2).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 3 | magic `tFR` |
//! | 3 | 1 | kind |
//! | 4 | 4 | payload bytes |
//! | 8 | 8 | index |
//! | 16 | 8 | term |
//! | 24 | 8 | epoch |
//! | 32 | 4 | CRC-32 of the payload |
//! | 36 | 4 | CRC-32 of the 36 bytes before, then store, file number and file offset |
//! | 40 | – | payload, then zeros up to a multiple of 8 |
//!
//! The header's checksum binds a record to its place, so stale blocks and misdirected writes never
//! validate, and a search at 8-byte steps finds records beyond a damaged one. Records of one epoch
//! were written together; a record of epoch e+1 is only ever written after the sync of epoch e
//! returned, so its presence proves that epoch e was durable.

use crate::id::StoreId;

/// Bytes of a record's header.
pub(super) const HEAD_BYTES: usize = 40;
const MAGIC: [u8; 3] = *b"tFR";
const ALIGN: usize = 8;

/// What a file's records are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// The data directory.
    pub(super) store: StoreId,
    /// The file's number within it.
    pub(super) file: u64,
}

/// The header of a record without its derived fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) epoch: u64,
}

/// One valid record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
    /// Where the next record begins.
    pub(super) end: usize,
}

/// Bytes that a record with a payload of `payload` bytes takes.
pub(super) const fn size(payload: usize) -> usize {
    HEAD_BYTES + payload.next_multiple_of(ALIGN)
}

/// Appends a record that will stand at `offset` of the bound file; the payload comes in parts.
pub(super) fn put(out: &mut Vec<u8>, binding: Binding, offset: u64, head: Head, parts: &[&[u8]]) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(bytes).expect("batches are limited to a few MiB by their maker");
    let mut payload_crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| payload_crc.update(part));
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.push(head.kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&head.index.to_be_bytes());
    out.extend_from_slice(&head.term.to_be_bytes());
    out.extend_from_slice(&head.epoch.to_be_bytes());
    out.extend_from_slice(&payload_crc.finalize().to_be_bytes());
    let fields = out.get(start..).unwrap_or_default();
    let crc = head_crc(fields, binding, offset);
    out.extend_from_slice(&crc.to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(start + size(bytes), 0);
}

fn head_crc(fields: &[u8], binding: Binding, offset: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(fields);
    crc.update(binding.store.as_bytes());
    crc.update(&binding.file.to_be_bytes());
    crc.update(&offset.to_be_bytes());
    crc.finalize()
}

/// The big-endian number in the first eight bytes.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Header fields, payload length and payload checksum of the record that `bytes` begin with, which
/// stand at `offset` of the file; an error names the broken rule.
fn read_head(
    bytes: &[u8],
    offset: u64,
    binding: Binding,
) -> Result<(Head, usize, u32), &'static str> {
    let cut = "the file ends inside a record header";
    let raw: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(cut)?;
    let (fields, crc) = raw.split_at(HEAD_BYTES - 4);
    let (magic, rest) = fields.split_first_chunk::<3>().ok_or(cut)?;
    if *magic != MAGIC {
        return Err("there is no record header");
    }
    if crc != head_crc(fields, binding, offset).to_be_bytes() {
        return Err("the checksum of the record header does not match");
    }
    let (kind, rest) = rest.split_first().ok_or(cut)?;
    let (length, rest) = rest.split_first_chunk().ok_or(cut)?;
    let (index, rest) = rest.split_first_chunk().ok_or(cut)?;
    let (term, rest) = rest.split_first_chunk().ok_or(cut)?;
    let (epoch, rest) = rest.split_first_chunk().ok_or(cut)?;
    let payload_crc = rest.first_chunk().ok_or(cut)?;
    let head = Head {
        kind: *kind,
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(*term),
        epoch: u64::from_be_bytes(*epoch),
    };
    let length = usize::try_from(u32::from_be_bytes(*length));
    let length = length.map_err(|_| "the payload is too large for this machine")?;
    Ok((head, length, u32::from_be_bytes(*payload_crc)))
}

/// Bytes of the record that `bytes` begin with, which stand at `offset` of a longer file; those of
/// a header if not even that is there. An error names the broken rule.
pub(super) fn wanted(bytes: &[u8], offset: u64, binding: Binding) -> Result<usize, &'static str> {
    if bytes.len() < HEAD_BYTES {
        return Ok(HEAD_BYTES);
    }
    let (_, length, _) = read_head(bytes, offset, binding)?;
    length.checked_add(HEAD_BYTES + ALIGN).ok_or("the payload is too large for this machine")?;
    Ok(size(length))
}

/// Reads the record that begins at byte `at` of a whole file; an error names the broken rule.
pub(super) fn read(bytes: &[u8], at: usize, binding: Binding) -> Result<Record<'_>, &'static str> {
    let rest = bytes.get(at..).unwrap_or_default();
    let record = read_first(rest, at as u64, binding)?;
    Ok(Record { end: at + record.end, ..record })
}

/// Reads the record that `bytes` begin with, which stand at `offset` of the file; its `end` counts
/// from there. An error names the broken rule.
pub(super) fn read_first(
    bytes: &[u8],
    offset: u64,
    binding: Binding,
) -> Result<Record<'_>, &'static str> {
    let (head, length, payload_crc) = read_head(bytes, offset, binding)?;
    length.checked_add(HEAD_BYTES + ALIGN).ok_or("the payload is too large for this machine")?;
    let end = size(length);
    let body = bytes.get(HEAD_BYTES..end).ok_or("the file ends inside a record")?;
    let (payload, padding) =
        body.split_at_checked(length).ok_or("the file ends inside a record")?;
    if crc32fast::hash(payload) != payload_crc {
        return Err("the checksum of the record's payload does not match");
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err("the padding after the record is not zero");
    }
    Ok(Record { head, payload, end })
}

/// The valid record headers at or after `from`, and where they stand, whatever is between them.
///
/// Looks at every multiple of 8 bytes, so `from` must be one.
pub(super) fn heads(
    bytes: &[u8],
    from: usize,
    binding: Binding,
) -> impl Iterator<Item = (usize, Head)> {
    assert!(from.is_multiple_of(ALIGN), "records begin at multiples of {ALIGN} bytes");
    let rest = bytes.get(from..).unwrap_or_default();
    rest.chunks(ALIGN).enumerate().filter_map(move |(step, chunk)| {
        let at = from + step * ALIGN;
        let head = || read_head(bytes.get(at..).unwrap_or_default(), at as u64, binding).ok();
        let (head, _, _) = chunk.starts_with(&MAGIC).then(head)??;
        Some((at, head))
    })
}

/// Whether any valid record header of an epoch above `epoch` stands at or after `from`.
pub(super) fn later_epoch(bytes: &[u8], from: usize, binding: Binding, epoch: u64) -> bool {
    heads(bytes, from, binding).any(|(_, head)| head.epoch > epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BINDING: Binding = Binding { store: StoreId::from_bytes([3; 16]), file: 2 };
    const HEAD: Head = Head { kind: 4, index: 5, term: 6, epoch: 7 };

    #[test]
    fn a_record_is_valid_only_where_it_was_written() {
        let mut bytes = vec![0; 8];
        put(&mut bytes, BINDING, 8, HEAD, &[b"ab", b"c"]);
        let record = read(&bytes, 8, BINDING).unwrap();
        assert_eq!((record.head, record.payload, record.end), (HEAD, &b"abc"[..], 56));
        assert!(read(&bytes[8..], 0, BINDING).is_err());
        assert!(read(&bytes, 8, Binding { file: 3, ..BINDING }).is_err());
        let other = StoreId::from_bytes([4; 16]);
        assert!(read(&bytes, 8, Binding { store: other, ..BINDING }).is_err());
    }

    #[test]
    fn a_later_epoch_is_found_beyond_garbage() {
        let mut bytes = vec![0xff; 32];
        put(&mut bytes, BINDING, 32, HEAD, &[b"abc"]);
        assert!(later_epoch(&bytes, 0, BINDING, 6));
        assert!(!later_epoch(&bytes, 0, BINDING, 7));
        assert!(!later_epoch(&bytes, 40, BINDING, 6));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_a_record_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 0..40),
            place: prop::sample::Index,
            bit in 0..8u32,
        ) {
            let mut bytes = Vec::new();
            put(&mut bytes, BINDING, 0, HEAD, &[&payload]);
            let at = place.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(read(&bytes, 0, BINDING).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_record(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0usize..300,
        ) {
            prop_assert!(read(&bytes, at, BINDING).is_err());
        }
    }
}
