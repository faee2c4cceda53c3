//! The data directory and its lock: one agent at a time.
//!
//! The lock is `flock` on the file `lock`, which holds the owner's process number for messages. It
//! goes away with the process, however that ends, and is not handed to programs that checks run.

use crate::archive;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a data directory could not be taken. The operator is at fault.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It could not be created or is not usable.
    #[error("the data directory {path:?} is not usable: {source}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("the data directory {path:?} is in use by another agent{owner}")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (process N)`, or nothing if the owner has not said.
        owner: String,
    },
}

/// A data directory that belongs to this process as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing (mode 0700, parents too) and locks it. Never waits.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = std::path::absolute(path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join("lock")).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse { owner: owner(&mut lock), path });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        name_owner(&mut lock).map_err(unusable)?;
        archive::clear(&path.join(archive::FOLDER)).map_err(unusable)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn name_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

/// The process that the lock file names, as it stands in the message.
fn owner(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(20).read_to_string(&mut text);
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(process) => format!(" (process {process})"),
        None => String::new(),
    }
}
