//! Backups as files: what `GET /v1/snapshot` gives and `PUT /v1/snapshot` takes (http-api.md §17).
//!
//! An archive is a gzip of a tar of three files of mode 0600:
//!
//! | file | content |
//! |---|---|
//! | `meta.json` | [`Meta`] |
//! | `state.bin` | the state, below |
//! | `SHA256SUMS` | `<hex sha256>  <name>` for each of the other two |
//!
//! `state.bin` is [`MAGIC`] followed by blocks of an image of the catalog, each with its length in
//! front of it as a big-endian u32.
//!
//! Whatever is larger than a block stays in files: a tar needs the size of `state.bin` before its
//! bytes, so that is collected in a file without a name first. All calls here block.
//!
//! Differs: the reference's `state.bin` is its own serialisation, so archives of the one are no
//! archives of the other; a foreign one is refused by its first bytes.

mod bundle;
mod meta;
mod read;
mod scratch;
mod write;

pub use bundle::bundle;
pub use meta::Meta;
pub use read::{ArchiveError, FileError, read, verify};
pub use scratch::{FOLDER, clear, scratch};
pub use write::{Spool, write};

/// What `state.bin` begins with; the last byte is the version.
pub const MAGIC: [u8; 8] = *b"TFSTATE\x01";

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";

/// Bytes of `meta.json` and of `SHA256SUMS`.
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// A digest as it stands in `SHA256SUMS`.
fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
