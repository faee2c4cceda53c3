//! What the core asks of the disk: plain file operations that the host performs in order.
//!
//! The host (io, or the simulated disk) decides nothing. It performs the operations of one
//! [`StorageOp`] one after the other, stops at the first that fails, and reports the whole as done
//! or failed. Paths are relative to the data directory.

use crate::pack_enum;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A path below the data directory: segments of `[A-Za-z0-9._-]` joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Arc<str>);

impl FilePath {
    /// The path with this text.
    ///
    /// Panics if a segment is empty, `.` or `..`, or holds another character: paths are made by
    /// the core, so that is a bug.
    pub fn new(text: &str) -> Self {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        for segment in text.split('/') {
            let plain = !segment.is_empty() && segment != "." && segment != "..";
            assert!(plain && segment.chars().all(legal), "illegal storage path {text:?}");
        }
        Self(Arc::from(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that holds this path; `None` for an entry of the data directory itself.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(Arc::from(parent)))
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One operation on one file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Creates the folder if it is missing, with its parents.
    CreateDir(FilePath),
    /// Writes `data` at `offset`; creates the file if it is missing, extends it if needed.
    Write {
        /// The file.
        file: FilePath,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// Writes zeros over `[offset, offset + len)`; creates and extends as `Write` does.
    WriteZeros {
        /// The file.
        file: FilePath,
        /// Where, in bytes.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Cuts or extends the file to `len` bytes.
    SetLen {
        /// The file.
        file: FilePath,
        /// Bytes.
        len: u64,
    },
    /// Sets space aside, so that the file can grow to `len` bytes on a full disk; creates it if it
    /// is missing, and leaves its content and length as they are. Done without effect where the
    /// filesystem cannot. `SetLen` and `Remove` give the space back.
    Allocate {
        /// The file.
        file: FilePath,
        /// Bytes.
        len: u64,
    },
    /// Makes the file's content and length durable (`fdatasync`).
    Sync(FilePath),
    /// Makes the entries of a folder durable; `None` is the data directory itself.
    SyncDir(Option<FilePath>),
    /// Replaces `to` with `from`, atomically.
    Rename {
        /// The old path.
        from: FilePath,
        /// The new path.
        to: FilePath,
    },
    /// Removes the file; a missing one is no error.
    Remove(FilePath),
}

/// Which queue of the disk an operation takes; the lanes do not wait for each other. A lane that
/// failed once performs nothing more and fails everything after it, unless what failed was
/// deferrable and the disk was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The write-ahead log and the hard state.
    Log,
    /// Everything else: registrations, the Serf snapshot.
    State,
}

/// Operations to perform in order; done when the last one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOp {
    /// Which queue.
    pub lane: Lane,
    /// What to do.
    pub ops: Vec<FileOp>,
    /// Whether nothing behind it in the lane relies on it: if there is no space for it, the lane
    /// goes on. What it did until then stays, and is nothing that a reader takes for whole.
    pub deferrable: bool,
}

impl StorageOp {
    /// Whether its lane goes on after this failure of it.
    pub fn may_fail_with(&self, fault: StorageFault) -> bool {
        self.deferrable && fault == StorageFault::Full
    }
}

/// Why the disk failed. What reached it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StorageFault {
    /// No space is left.
    #[error("no space left on the device")]
    Full,
    /// Writing, syncing or renaming failed.
    #[error("input/output error")]
    Io,
    /// Permission was denied.
    #[error("permission denied")]
    Denied,
}
pack_enum!(StorageFault { 1 => Full, 2 => Io, 3 => Denied });
