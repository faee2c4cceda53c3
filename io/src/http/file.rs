//! Bodies too large for memory: files without a name, of requests and of answers.
//!
//! What blocks is done on other threads than the executor's.

use crate::archive;
use bytes::Bytes;
use smol::lock::{Semaphore, SemaphoreGuardArc};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bodies in files at one time: each may take space on the disk until its client has it.
const FILES_MAX: usize = 4;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Where bodies in files are made.
#[derive(Clone, Debug)]
pub struct FileBodies {
    folder: PathBuf,
    free: Arc<Semaphore>,
}

impl FileBodies {
    /// Bodies in this folder, which is made when it is needed.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), free: Arc::new(Semaphore::new(FILES_MAX)) }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new, empty body; `ResourceBusy` if there are too many.
    pub async fn begin(&self) -> io::Result<FileBody> {
        let Some(permit) = self.free.try_acquire_arc() else {
            let text = "too many snapshots are on their way, please try again later";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        };
        let folder = self.folder.clone();
        let file = smol::unblock(move || archive::scratch(&folder)).await?;
        Ok(FileBody { file: Arc::new(file), permit: Arc::new(permit) })
    }
}

/// One body. Dropping the last clone frees its space.
#[derive(Clone, Debug)]
pub struct FileBody {
    file: Arc<File>,
    #[expect(dead_code, reason = "held, so that the next one may begin when this one is dropped")]
    permit: Arc<SemaphoreGuardArc>,
}

impl PartialEq for FileBody {
    /// Whether it is the same file.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl Eq for FileBody {}

impl FileBody {
    /// Appends to it.
    pub async fn append(&self, piece: Bytes) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        smol::unblock(move || (&*file).write_all(&piece)).await
    }

    /// The file, positioned at the end of what was appended.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What stands at `offset`; empty at the end.
    pub async fn piece(&self, offset: u64) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.file);
        smol::unblock(move || {
            let mut piece = vec![0; READ_BYTES];
            let count = file.read_at(&mut piece, offset)?;
            piece.truncate(count);
            Ok(piece)
        })
        .await
    }

    /// Its bytes from the start, for another thread.
    pub fn reader(&self) -> FileReader {
        FileReader { file: Arc::clone(&self.file), offset: 0 }
    }
}

/// Reads a body from its start. It blocks.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<File>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
