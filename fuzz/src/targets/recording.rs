//! Recordings: the input is what stands behind the beginning of one, or a whole one.

use terraform_core::recording::{Decoder, Record, beginning};

/// What decodes survives its encoding, whatever pieces it comes in.
pub fn recording(data: &[u8]) {
    read(data, data.len());
    let whole = [beginning().as_slice(), data].concat();
    let records = read(&whole, whole.len());
    let piece = usize::from(data.last().copied().unwrap_or(0)) + 1;
    assert_eq!(read(&whole, piece), records, "pieces make no difference");
    let mut again = beginning();
    records.iter().for_each(|record| record.put(&mut again));
    assert_eq!(read(&again, again.len()), records, "a record survives its encoding");
}

/// The records before the end or the first damage.
fn read(bytes: &[u8], piece: usize) -> Vec<Record> {
    let mut decoder = Decoder::default();
    let mut records = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.feed(piece);
        while let Ok(Some(record)) = decoder.next_record() {
            records.push(record);
        }
    }
    records
}
