//! File operations on a real disk, performed one after the other.
//!
//! Files stay open between operations, since a commit is a write and a sync on the same file. A
//! rename or removal closes what it touches; after a failure everything is closed.

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use terraform_core::storage::op::{FileOp, FilePath, StorageFault};
use terraform_core::storage::recovery::Answer;
use thiserror::Error;

/// Files kept open: the log's segment, both hard state slots and a few more.
const OPEN_FILES_MAX: usize = 8;
/// Names of a folder that are listed at most; a data directory has some ten.
const NAMES_MAX: usize = 100_000;
/// What zeros are written from.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// An operation that failed. What reached the disk is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct DiskFailure {
    /// What the node is told.
    pub fault: StorageFault,
    /// What was done, on which file, and what the system says.
    pub text: String,
}

pub(super) fn failure(during: &str, path: &Path, error: &io::Error) -> DiskFailure {
    let text = format!("{during} {}: {error}", path.display());
    let kind = error.kind();
    let fault = if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        StorageFault::Full
    } else if matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        StorageFault::Denied
    } else {
        StorageFault::Io
    };
    DiskFailure { fault, text }
}

/// The files of a data directory, with those used last kept open.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// The one used last is at the back.
    open: VecDeque<(FilePath, File)>,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: VecDeque::new() }
    }

    fn path(&self, path: Option<&FilePath>) -> PathBuf {
        path.map_or_else(|| self.root.clone(), |path| self.root.join(path.as_str()))
    }

    /// Performs the operations in order and stops at the first that fails.
    pub(super) fn perform(&mut self, ops: &[FileOp]) -> Result<(), DiskFailure> {
        for op in ops {
            if let Err(failure) = self.perform_one(op) {
                self.open.clear();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn perform_one(&mut self, op: &FileOp) -> Result<(), DiskFailure> {
        match op {
            FileOp::CreateDir(folder) => {
                let path = self.path(Some(folder));
                let created = DirBuilder::new().recursive(true).mode(0o700).create(&path);
                created.map_err(|error| failure("creating", &path, &error))
            }
            FileOp::Write { file, offset, data } => {
                self.with("writing", file, true, |file| file.write_all_at(data, *offset))
            }
            FileOp::WriteZeros { file, offset, len } => {
                self.with("zeroing", file, true, |file| write_zeros(file, *offset, *len))
            }
            FileOp::SetLen { file, len } => {
                self.with("resizing", file, true, |file| file.set_len(*len))
            }
            FileOp::Allocate { file, len } => {
                self.with("setting space aside in", file, true, |file| allocate(file, *len))
            }
            FileOp::Sync(file) => self.with("syncing", file, false, File::sync_data),
            FileOp::SyncDir(folder) => {
                let path = self.path(folder.as_ref());
                let synced = File::open(&path).and_then(|folder| folder.sync_all());
                synced.map_err(|error| failure("syncing", &path, &error))
            }
            FileOp::Rename { from, to } => {
                self.close(from);
                self.close(to);
                let (old, new) = (self.path(Some(from)), self.path(Some(to)));
                fs::rename(&old, &new).map_err(|error| failure("renaming", &old, &error))
            }
            FileOp::Remove(file) => {
                self.close(file);
                let path = self.path(Some(file));
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(failure("removing", &path, &error))
                    }
                    Ok(()) | Err(_) => Ok(()),
                }
            }
        }
    }

    fn close(&mut self, file: &FilePath) {
        self.open.retain(|(path, _)| path != file);
    }

    /// Uses an open file, opening it first if need be.
    fn with(
        &mut self,
        during: &str,
        file: &FilePath,
        create: bool,
        act: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), DiskFailure> {
        let found = self.open.iter().position(|(open, _)| open == file);
        let handle = match found.and_then(|place| self.open.remove(place)) {
            Some((_, handle)) => handle,
            None => {
                let mut options = OpenOptions::new();
                options.write(true).create(create).truncate(false).mode(0o600);
                let path = self.path(Some(file));
                options.open(&path).map_err(|error| failure("opening", &path, &error))?
            }
        };
        act(&handle).map_err(|error| failure(during, &self.path(Some(file)), &error))?;
        self.open.push_back((file.clone(), handle));
        if self.open.len() > OPEN_FILES_MAX {
            self.open.pop_front();
        }
        Ok(())
    }

    /// The names in a folder; none if it is missing.
    pub(super) fn list(&self, folder: Option<&FilePath>) -> Result<Vec<String>, DiskFailure> {
        let path = self.path(folder);
        let listing = |error: io::Error| failure("listing", &path, &error);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(listing)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            if names.len() == NAMES_MAX {
                let rule = format!("it holds more than {NAMES_MAX} names");
                return Err(listing(io::Error::other(rule)));
            }
            names.push(entry.map_err(listing)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// The content of a file of at most `limit` bytes.
    pub(super) fn read(&self, file: &FilePath, limit: u64) -> Result<Answer, DiskFailure> {
        let path = self.path(Some(file));
        let read = || {
            let Some((opened, bytes)) = open_regular(&path)? else {
                return Ok(Answer::Content(None));
            };
            if bytes > limit {
                return Ok(Answer::TooLarge(bytes));
            }
            read_at_most(opened, limit)
        };
        read().map_err(|error: io::Error| failure("reading", &path, &error))
    }

    /// `limit` bytes of a file from `offset` on, or fewer if it ends before.
    pub(super) fn read_part(
        &self,
        file: &FilePath,
        offset: u64,
        limit: u64,
    ) -> Result<Answer, DiskFailure> {
        let path = self.path(Some(file));
        let read = || {
            let Some((mut opened, _)) = open_regular(&path)? else {
                return Ok(Answer::Content(None));
            };
            opened.seek(SeekFrom::Start(offset))?;
            read_at_most(opened, limit)
        };
        read().map_err(|error: io::Error| failure("reading", &path, &error))
    }
}

/// The file and its size; `None` if it is missing.
fn open_regular(path: &Path) -> io::Result<Option<(File, u64)>> {
    // A pipe or a device would be waited for, or never end.
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(Some((File::open(path)?, metadata.len())))
}

fn read_at_most(file: File, limit: u64) -> io::Result<Answer> {
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(Answer::Content(Some(Bytes::from(content))))
}

/// Sets space aside behind the end of a file, up to `len` bytes in all.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    let (metadata, filesystem) = (file.metadata()?, fstatvfs(file)?);
    // An attempt that cannot succeed would take what space there is from others.
    let free = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
    if free.saturating_add(metadata.blocks() * 512) < len {
        return Err(ErrorKind::StorageFull.into());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => {
            // What was set aside of it.
            file.set_len(metadata.len())?;
            Err(error.into())
        }
    }
}

fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let step = ZEROS.len() as u64;
    let mut at = offset;
    while at < offset + len {
        let bytes = step.min(offset + len - at);
        let zeros = usize::try_from(bytes).ok().and_then(|bytes| ZEROS.get(..bytes));
        file.write_all_at(zeros.unwrap_or(&ZEROS), at)?;
        at += bytes;
    }
    Ok(())
}
