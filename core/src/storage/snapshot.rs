//! Snapshots: the applied state up to a position of the log, one file each.
//!
//! Source: raft.md §9, §11.2. The content is a sequence of blocks; what they mean is the catalog's.
//!
//! A snapshot is `raft/snap/INDEX-TERM.snap`, both numbers with 20 digits, so that names sort by
//! position. It is written under another name, one for own snapshots and one for those that a
//! leader sends, and gets its own once its content is durable: a file with such a name is whole, or
//! the disk has lost what was durable. It is a sequence of records (`record.rs`) to its last byte:
//!
//! | kind | record | payload |
//! |---|---|---|
//! | 1 | `Meta`, the first | version u32, then [`SnapshotMeta`] as msgpack |
//! | 2 | `Block`, any number of them | the block |
//! | 3 | `End`, the last | number of blocks u64, CRC-32 over all blocks u32 |
//!
//! A record's index counts the records before it, its term is the snapshot's, its epoch is 1. The
//! records are bound to the snapshot's position with the highest bit set, which the number of no
//! segment has.
//!
//! Differs: no compression and no identity in the name; a server has one snapshot at a position.

mod files;
mod read;

pub use files::{Retention, SnapshotFiles};
pub(super) use read::{Snapshot, SnapshotFault, SnapshotReader};

use super::op::{FileOp, FilePath};
use super::record::{self, Binding, Head};
use crate::id::{LogIndex, StoreId, Term};
use crate::raft::SnapshotMeta;
use crate::wire::pack;

/// Bytes of a block at most: any record is read as one part of a file.
pub const BLOCK_BYTES_MAX: usize = PART_BYTES - record::HEAD_BYTES;

/// Bytes of a file that are read at a time.
const PART_BYTES: usize = 4 << 20;
const VERSION: u32 = 1;
const EPOCH: u64 = 1;

/// The kinds of records.
mod kind {
    pub(super) const META: u8 = 1;
    pub(super) const BLOCK: u8 = 2;
    pub(super) const END: u8 = 3;
}

/// The folder of the snapshots.
pub(super) fn snap_dir() -> FilePath {
    FilePath::new("raft/snap")
}

/// Which snapshot; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The newest entry it covers.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
}

impl SnapshotId {
    /// The one that `meta` describes.
    pub const fn of(meta: &SnapshotMeta) -> Self {
        Self { index: meta.index, term: meta.term }
    }

    /// Its file.
    pub fn file(self) -> FilePath {
        self.named("snap")
    }

    /// Its file once it was found damaged.
    pub(super) fn bad_file(self) -> FilePath {
        self.named("bad")
    }

    fn named(self, ending: &str) -> FilePath {
        let (index, term) = (self.index.get(), self.term.get());
        FilePath::new(&format!("raft/snap/{index:020}-{term:020}.{ending}"))
    }

    /// The snapshot whose file has this name with this ending; `None` if it is no such name.
    pub(super) fn from_name(name: &str, ending: &str) -> Option<Self> {
        let (index, term) = name.strip_suffix(ending)?.strip_suffix('.')?.split_once('-')?;
        let number = |digits: &str| {
            let legal = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            legal.then(|| digits.parse().ok())?
        };
        Some(Self { index: LogIndex::new(number(index)?), term: Term::new(number(term)?) })
    }

    pub(super) const fn binding(self, store: StoreId) -> Binding {
        Binding { store, file: self.index.get() | 1 << 63 }
    }
}

/// Whose snapshot is being written; one of each may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// This server's own state.
    Own,
    /// What a leader sends.
    Received,
}

impl Purpose {
    /// The file that is written.
    pub(super) fn file(self) -> FilePath {
        match self {
            Self::Own => FilePath::new("raft/snap/own.tmp"),
            Self::Received => FilePath::new("raft/snap/received.tmp"),
        }
    }

    /// The operation that gives the file up, and the space that it holds.
    pub fn discard(self) -> FileOp {
        FileOp::Remove(self.file())
    }
}

/// The writer of one snapshot. A plain value: its operations are to be performed in the order it
/// gave them, in one lane, and the snapshot exists once those of [`SnapshotWriter::finish`] are.
#[derive(Clone, Debug)]
pub struct SnapshotWriter {
    id: SnapshotId,
    store: StoreId,
    file: FilePath,
    /// Where the next record goes.
    offset: u64,
    /// Records so far.
    records: u64,
    /// Over all blocks.
    crc: crc32fast::Hasher,
}

impl SnapshotWriter {
    /// A writer, and the operations that begin the file, whatever stands there: space that was set
    /// aside ([`reserve`]), or what an earlier one left.
    ///
    /// Panics if `meta` covers no entry: there is nothing to stand for.
    pub fn begin(store: StoreId, purpose: Purpose, meta: &SnapshotMeta) -> (Self, Vec<FileOp>) {
        assert!(meta.index > LogIndex::ZERO, "a snapshot covers at least one entry");
        assert!(meta.configuration_index <= meta.index, "a snapshot covers its configuration");
        let file = purpose.file();
        let crc = crc32fast::Hasher::new();
        let id = SnapshotId::of(meta);
        let mut writer = Self { id, store, file, offset: 0, records: 0, crc };
        let version = VERSION.to_be_bytes();
        let head = writer.put(kind::META, &[&version, &pack::to_bytes(meta)]);
        (writer, vec![head])
    }

    /// The operations that append a block.
    ///
    /// Panics if it is empty or has more than [`BLOCK_BYTES_MAX`] bytes: nothing makes such blocks.
    pub fn block(&mut self, block: &[u8]) -> Vec<FileOp> {
        assert!(!block.is_empty() && block.len() <= BLOCK_BYTES_MAX, "a block has a legal size");
        self.crc.update(block);
        vec![self.put(kind::BLOCK, &[block])]
    }

    /// The operations that end the file, make it durable and give it its name.
    ///
    /// - Source: raft.md §9, §11.4: nothing may rely on the snapshot before all are done.
    pub fn finish(mut self) -> Vec<FileOp> {
        let blocks = (self.records - 1).to_be_bytes();
        let crc = self.crc.clone().finalize().to_be_bytes();
        let end = self.put(kind::END, &[&blocks, &crc]);
        vec![
            end,
            FileOp::SetLen { file: self.file.clone(), len: self.offset },
            FileOp::Sync(self.file.clone()),
            FileOp::Rename { from: self.file, to: self.id.file() },
            FileOp::SyncDir(Some(snap_dir())),
        ]
    }

    /// The operations that give the file up.
    pub fn discard(self) -> Vec<FileOp> {
        vec![FileOp::Remove(self.file)]
    }

    /// Bytes of the file so far.
    pub const fn bytes(&self) -> u64 {
        self.offset
    }

    /// Which snapshot is written.
    pub const fn id(&self) -> SnapshotId {
        self.id
    }

    fn put(&mut self, kind: u8, parts: &[&[u8]]) -> FileOp {
        let head = Head { kind, index: self.records, term: self.id.term.get(), epoch: EPOCH };
        let (offset, mut data) = (self.offset, Vec::new());
        record::put(&mut data, self.id.binding(self.store), offset, head, parts);
        self.records += 1;
        self.offset += data.len() as u64;
        FileOp::Write { file: self.file.clone(), offset, data: data.into() }
    }
}

/// The operation that sets space aside for the next snapshot of this server's own, so that it can
/// be stored, and the log cut behind it, on a disk that others have filled. A start gives the space
/// back before it writes anything (raft.md §11.3 rule 6).
pub fn reserve(bytes: u64) -> FileOp {
    FileOp::Allocate { file: Purpose::Own.file(), len: bytes }
}

#[cfg(test)]
mod tests;
