//! An archive to blocks. Nothing of an archive is trusted: what is unpacked is bounded, and names
//! lead nowhere.

use super::{MAGIC, META, Meta, SMALL_BYTES_MAX, STATE, SUMS, hex};
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use tar::{Archive, Entry, EntryType};
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{ApplyError, Command};
use terraform_core::catalog::restore::{
    RESTORE_BYTES_MAX, RestoreBlock, RestoreCommit, RestoreError,
};
use terraform_core::id::{LogIndex, RestoreId};
use terraform_core::raft::ENTRY_BYTES_MAX;
use thiserror::Error;

/// Bytes of a block: what an entry of the log takes, but for what stands around the block in it.
const BLOCK_BYTES_MAX: usize = ENTRY_BYTES_MAX - 1024;

/// Bytes of zeros that may follow the files; packers fill up to a multiple of some KiB.
const PADDING_BYTES_MAX: usize = 1 << 20;

/// Why an archive was refused. Whoever made or carried it is at fault, if it is not the disk.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// It is no gzip, or ends within its head.
    #[error("failed to decompress snapshot: {0}")]
    Compression(String),
    /// What is in it is damaged, or is no backup.
    #[error("failed to read snapshot file: {0}")]
    File(#[from] FileError),
}

/// What is wrong with the files in an archive.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be unpacked.
    #[error("failed reading snapshot: {}", text(.0))]
    Unreadable(#[from] io::Error),
    /// A file that does not belong there, or is there twice.
    #[error("unexpected file {0:?} in snapshot")]
    Unexpected(String),
    /// `meta.json` or `SHA256SUMS` is too large.
    #[error("{0:?} is larger than {SMALL_BYTES_MAX} bytes")]
    TooLarge(&'static str),
    /// `state.bin` is larger than any that a restore takes.
    #[error("\"state.bin\" has {0} bytes, at most {RESTORE_BYTES_MAX} are allowed")]
    StateTooLarge(u64),
    /// A digest is not that of its file, or missing, or a file is.
    #[error("failed checking integrity of snapshot: {0}")]
    Integrity(String),
    /// `meta.json` breaks the named rule.
    #[error("failed to decode snapshot metadata: {0}")]
    Meta(String),
    /// `state.bin` is not one of this program, or of a later release.
    #[error("\"state.bin\" is not in the form of this program")]
    Foreign,
    /// `state.bin` has a block that no server could take.
    #[error("\"state.bin\" has a block of {0} bytes")]
    Block(u64),
    /// What follows the archive does not belong to it.
    #[error("data follows the end of the archive")]
    Trailing,
    /// The image breaks a rule.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// Whoever took the blocks wants no more.
    #[error("nobody takes the rest")]
    Abandoned,
}

/// A system's or library's error, in the words that Go has for the most frequent one.
fn text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "unexpected EOF".to_owned();
    }
    crate::http::client::system_text(error)
}

/// Reads a whole archive and does with its backup, on an empty catalog, what the servers would do.
pub fn verify(source: impl Read) -> Result<Meta, ArchiveError> {
    let restore = RestoreId::from_bytes([0; 16]);
    let mut trial = Trial::default();
    let mut blocks = 0;
    let meta = read(source, |block| {
        let block = Bytes::copy_from_slice(block);
        trial.apply(Command::RestoreBlock(RestoreBlock { restore, number: blocks, block }));
        blocks += 1;
        Ok(())
    })?;
    trial.apply(Command::RestoreCommit(RestoreCommit { restore, blocks }));
    match trial.refused {
        None => Ok(meta),
        Some(error) => Err(FileError::State(error).into()),
    }
}

/// A restore into nothing. What it refuses first is told last: a digest that does not match says
/// more.
#[derive(Default)]
struct Trial {
    tables: Tables,
    position: u64,
    refused: Option<RestoreError>,
}

impl Trial {
    fn apply(&mut self, command: Command) {
        if self.refused.is_some() {
            return;
        }
        self.position += 1;
        let applied = self.tables.apply(LogIndex::new(self.position), command);
        if let Err(ApplyError::Restore(error)) = applied {
            self.refused = Some(error);
        }
    }
}

/// Reads a whole archive and hands out the blocks of its backup in order, before the digests are
/// compared: only what was [verified](verify) once may be trusted on the way.
pub fn read(
    source: impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), FileError>,
) -> Result<Meta, ArchiveError> {
    let mut source = BufReader::with_capacity(64 * 1024, source);
    check_start(&mut source)?;
    let mut unpacked = GzDecoder::new(source);
    let contents = contents(&mut unpacked, &mut take)?;
    // Padding is all that may follow; reading it also compares the checksum of the packing.
    let (mut rest, mut padding) = ([0; 4096], 0);
    loop {
        let count = unpacked.read(&mut rest).map_err(FileError::Unreadable)?;
        padding += count;
        if padding > PADDING_BYTES_MAX || rest.iter().take(count).any(|byte| *byte != 0) {
            return Err(FileError::Trailing.into());
        }
        if count == 0 {
            break;
        }
    }
    let mut source = unpacked.into_inner();
    if !source.fill_buf().map_err(FileError::Unreadable)?.is_empty() {
        return Err(FileError::Trailing.into());
    }
    Ok(contents.check()?)
}

/// Words the refusal of what is no gzip at all as Go does.
fn check_start(source: &mut BufReader<impl Read>) -> Result<(), ArchiveError> {
    let start = source.fill_buf().map_err(FileError::Unreadable)?;
    let rule = match start {
        [] => "EOF",
        short if short.len() < 10 => "unexpected EOF",
        [0x1f, 0x8b, 8, ..] => return Ok(()),
        _ => "gzip: invalid header",
    };
    Err(ArchiveError::Compression(rule.to_owned()))
}

/// The files of an archive.
#[derive(Default)]
struct Contents {
    meta: Option<Vec<u8>>,
    state: Option<State>,
    sums: Option<Vec<u8>>,
}

/// What is known of `state.bin` once it was read.
struct State {
    bytes: u64,
    digest: String,
    /// The rule it breaks, if its bytes are those that were written.
    broken: Option<FileError>,
}

fn contents(
    unpacked: impl Read,
    take: &mut impl FnMut(&[u8]) -> Result<(), FileError>,
) -> Result<Contents, FileError> {
    let mut contents = Contents::default();
    let mut archive = Archive::new(unpacked);
    // Raw: long names and other extensions would be read into memory, and none belongs here.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let unexpected = || FileError::Unexpected(name.clone());
        if entry.header().entry_type() != EntryType::Regular {
            return Err(unexpected());
        }
        match name.as_str() {
            META if contents.meta.is_none() => contents.meta = Some(small(&mut entry, META)?),
            SUMS if contents.sums.is_none() => contents.sums = Some(small(&mut entry, SUMS)?),
            STATE if contents.state.is_none() => contents.state = Some(state(&mut entry, take)?),
            _ => return Err(unexpected()),
        }
    }
    Ok(contents)
}

fn small(entry: &mut Entry<'_, impl Read>, name: &'static str) -> Result<Vec<u8>, FileError> {
    if entry.size() > SMALL_BYTES_MAX {
        return Err(FileError::TooLarge(name));
    }
    let mut bytes = Vec::new();
    let size = entry.size();
    entry.read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(cut()) }
}

fn cut() -> FileError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

/// Reads `state.bin` to its end and hands out its blocks, as long as there are any.
fn state(
    entry: &mut Entry<'_, impl Read>,
    take: &mut impl FnMut(&[u8]) -> Result<(), FileError>,
) -> Result<State, FileError> {
    let bytes = entry.size();
    if bytes > RESTORE_BYTES_MAX {
        return Err(FileError::StateTooLarge(bytes));
    }
    let mut source = Digesting { source: entry, left: bytes, digest: Sha256::new() };
    let broken = match blocks(&mut source, take) {
        Ok(()) => None,
        Err(error @ (FileError::Unreadable(_) | FileError::Abandoned)) => return Err(error),
        Err(error) => Some(error),
    };
    io::copy(&mut source, &mut io::sink())?;
    if source.left > 0 {
        return Err(cut());
    }
    Ok(State { bytes, digest: hex(&source.digest.finalize()), broken })
}

fn blocks(
    source: &mut Digesting<impl Read>,
    take: &mut impl FnMut(&[u8]) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let mut magic = [0; MAGIC.len()];
    if source.left < MAGIC.len() as u64 {
        return Err(FileError::Foreign);
    }
    source.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(FileError::Foreign);
    }
    let mut block = Vec::new();
    while source.left > 0 {
        let mut length = [0; 4];
        if source.left < 4 {
            return Err(FileError::Block(0));
        }
        source.read_exact(&mut length)?;
        let length = u64::from(u32::from_be_bytes(length));
        let fits = length > 0 && length <= BLOCK_BYTES_MAX as u64 && length <= source.left;
        let bytes = usize::try_from(length).ok().filter(|_| fits);
        block.resize(bytes.ok_or(FileError::Block(length))?, 0);
        source.read_exact(&mut block)?;
        take(&block)?;
    }
    Ok(())
}

/// Counts and digests what is read.
struct Digesting<R> {
    source: R,
    left: u64,
    digest: Sha256,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or_default());
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

impl Contents {
    /// Compares every digest, then reads the metadata.
    fn check(self) -> Result<Meta, FileError> {
        let rule = |rule: &str, name: &str| FileError::Integrity(format!("{rule} {name:?}"));
        let missing = |name| move || rule("file missing for", name);
        let meta = self.meta.ok_or_else(missing(META))?;
        let State { bytes, digest, broken } = self.state.ok_or_else(missing(STATE))?;
        let sums = self.sums.ok_or_else(missing(SUMS))?;
        let mut found = BTreeMap::from([(META, hex(&Sha256::digest(&meta))), (STATE, digest)]);
        for line in String::from_utf8_lossy(&sums).lines() {
            let (sum, name) = line.split_once("  ").unwrap_or((line, ""));
            let digest = found.remove(name).ok_or_else(|| rule("list has a hash for", name))?;
            if digest != sum {
                return Err(rule("hash check failed for", name));
            }
        }
        if let Some(name) = found.keys().next() {
            return Err(rule("list missing hash for", name));
        }
        let meta = Meta::decode(&meta).map_err(FileError::Meta)?;
        if meta.size != bytes {
            let text = format!("\"Size\" is {}, \"state.bin\" has {bytes} bytes", meta.size);
            return Err(FileError::Meta(text));
        }
        broken.map_or(Ok(meta), Err)
    }
}
