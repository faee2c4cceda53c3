//! A folder as one file, for people to pass on.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use tar::Builder;

/// Writes a gzip of a tar of `folder` and all in it, under the folder's own name, into `file`.
pub fn bundle(folder: &Path, file: &File) -> io::Result<()> {
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut builder = Builder::new(GzEncoder::new(BufWriter::new(file), Compression::default()));
    builder.append_dir_all(name, folder)?;
    let written = builder.into_inner()?.finish()?;
    written.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
