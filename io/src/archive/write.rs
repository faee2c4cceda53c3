//! Blocks to an archive.

use super::{MAGIC, META, Meta, STATE, SUMS, hex};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use tar::{Builder, EntryType, Header};
use terraform_core::time::WallClock;

/// `state.bin`, as it grows.
#[derive(Debug)]
pub struct Spool {
    file: File,
    bytes: u64,
    digest: Sha256,
}

impl Spool {
    /// Begins it in an empty file.
    pub fn new(file: File) -> io::Result<Self> {
        let mut spool = Self { file, bytes: 0, digest: Sha256::new() };
        spool.put(&MAGIC)?;
        Ok(spool)
    }

    /// Appends a block of the image.
    pub fn block(&mut self, block: &[u8]) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.put(&length.to_be_bytes())?;
        self.put(block)
    }

    /// Its size.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }
}

/// Writes the archive of a complete `state.bin` to `out`.
pub fn write<W: Write>(out: W, meta: &Meta, state: Spool, wall: WallClock) -> io::Result<W> {
    let Spool { mut file, bytes, digest } = state;
    let meta = meta.encode();
    let digests = [(META, Sha256::digest(&meta)), (STATE, digest.finalize())];
    let sums: String =
        digests.iter().map(|(name, digest)| format!("{}  {name}\n", hex(digest))).collect();
    file.rewind()?;
    let state = BufReader::new(file);
    // The packer hands out few bytes at a time.
    let out = BufWriter::with_capacity(64 * 1024, out);
    let mut archive = Builder::new(GzEncoder::new(out, Compression::fast()));
    append(&mut archive, META, meta.len() as u64, wall, &*meta)?;
    append(&mut archive, STATE, bytes, wall, state)?;
    append(&mut archive, SUMS, sums.len() as u64, wall, sums.as_bytes())?;
    let out = archive.into_inner()?.finish()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

fn append(
    archive: &mut Builder<impl Write>,
    name: &str,
    size: u64,
    wall: WallClock,
    data: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(wall.as_millis().max(0).unsigned_abs() / 1000);
    header.set_cksum();
    archive.append(&header, data)
}
