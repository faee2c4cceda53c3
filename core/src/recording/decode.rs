//! Reading a recording, as its bytes come.

use super::{HEAD_BYTES, MAGIC, PAYLOAD_BYTES_MAX, Record, START_BYTES, VERSION};
use crate::wire::DecodeError;
use crate::wire::pack;
use thiserror::Error;

/// Why bytes are no recording, or not as they were written. Whoever brought the file is at fault,
/// or the disk it was on; what was read before stands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordingError {
    /// It begins with something else.
    #[error("this is not a recording: it does not begin with `tFRECORD`")]
    Foreign,
    /// It was written by a later release, or an earlier one.
    #[error("the recording has the format version {version}, and only {VERSION} is read")]
    Version {
        /// What it says.
        version: u32,
    },
    /// The head of a record is not as it was written.
    #[error("the recording is damaged at byte {offset}: the checksum of the length does not match")]
    Head {
        /// Where the record begins.
        offset: u64,
    },
    /// A record says that it is longer than any is made.
    #[error(
        "the recording is damaged at byte {offset}: a record of {bytes} bytes, at most \
         {PAYLOAD_BYTES_MAX} are read"
    )]
    TooLarge {
        /// Where the record begins.
        offset: u64,
        /// What it says.
        bytes: u64,
    },
    /// The payload of a record is not as it was written.
    #[error("the recording is damaged at byte {offset}: the checksum of the record does not match")]
    Payload {
        /// Where the record begins.
        offset: u64,
    },
    /// A record has no legal content, although its checksums match: another program made it.
    #[error("the recording is not legal at byte {offset}: {source}")]
    Content {
        /// Where the record begins.
        offset: u64,
        /// The rule it breaks.
        source: DecodeError,
    },
}

/// Gives the records of a recording back, in order. It holds the bytes of one record and those fed
/// behind it.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of them are read.
    read: usize,
    /// How many were forgotten before them.
    forgotten: u64,
}

impl Decoder {
    /// Takes the next bytes of the recording.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.forgotten += self.read as u64;
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Where the next record begins, in bytes from the beginning of the recording.
    pub const fn offset(&self) -> u64 {
        self.forgotten + self.read as u64
    }

    /// Bytes fed behind the last record that was given back. If no more come, the recording ends
    /// within a record unless this is zero.
    pub const fn rest(&self) -> usize {
        self.bytes.len() - self.read
    }

    /// The next record; `None` while more bytes must come. After an error it gives that again.
    pub fn next_record(&mut self) -> Result<Option<Record>, RecordingError> {
        if self.offset() == 0 {
            let Some(start) = self.bytes.first_chunk::<START_BYTES>() else { return Ok(None) };
            check_start(start)?;
            self.read = START_BYTES;
        }
        let offset = self.offset();
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (length, checksum) = read_head(head, offset)?;
        let Some(payload) = behind.get(..length) else { return Ok(None) };
        if crc32fast::hash(payload) != checksum {
            return Err(RecordingError::Payload { offset });
        }
        let content = |source| RecordingError::Content { offset, source };
        let record = pack::from_bytes(payload).map_err(content)?;
        self.read += HEAD_BYTES + length;
        Ok(Some(record))
    }
}

fn check_start(start: &[u8; START_BYTES]) -> Result<(), RecordingError> {
    let Some(version) = start.strip_prefix(&MAGIC) else { return Err(RecordingError::Foreign) };
    let version = version.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte));
    if version == VERSION { Ok(()) } else { Err(RecordingError::Version { version }) }
}

/// The length of the payload and its checksum.
fn read_head(head: &[u8; HEAD_BYTES], offset: u64) -> Result<(usize, u32), RecordingError> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    let length = [a, b, c, d];
    if u32::from_be_bytes([e, f, g, h]) != crc32fast::hash(&length) {
        return Err(RecordingError::Head { offset });
    }
    let bytes = u32::from_be_bytes(length);
    match usize::try_from(bytes) {
        Ok(length) if length <= PAYLOAD_BYTES_MAX => Ok((length, u32::from_be_bytes([i, j, k, l]))),
        Ok(_) | Err(_) => Err(RecordingError::TooLarge { offset, bytes: u64::from(bytes) }),
    }
}
