//! Reads the configuration files and folders that the command line names, in its order.

use super::{FileError, Format, Settings, overlay, parse, parse_as};
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What the files say together, and what was passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The merged settings.
    pub settings: Settings,
    /// One line for each file that was passed over.
    pub warnings: Vec<String>,
}

/// Why configuration files were refused. The operator is at fault; nothing was started.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A path could not be read.
    #[error("config: Open failed on {path}. {source}")]
    Open {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content was refused.
    #[error("failed to parse {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Why.
        source: FileError,
    },
}

/// Reads `paths`, each a file or a folder, and lays later ones over earlier ones.
///
/// In a folder only `*.json` and `*.hcl` files count, in name order, not those of folders below it;
/// a file that the command line names must have such an ending, too. With `format` all files are
/// read, and are of that format (agent-config.md §2).
pub fn load(paths: &[PathBuf], format: Option<Format>) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    for path in paths {
        let meta = std::fs::metadata(path).map_err(|source| open_error(path, source))?;
        if !meta.is_dir() {
            load_file(path, format, &mut loaded)?;
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|source| open_error(path, source))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| open_error(path, source))?.path();
            if entry.is_file() {
                files.push(entry);
            }
        }
        files.sort();
        for file in &files {
            load_file(file, format, &mut loaded)?;
        }
    }
    Ok(loaded)
}

/// Reads a fragment of the command line; `-hcl` takes both languages.
pub fn fragment(text: &str) -> Result<Settings, LoadError> {
    let failed = |source| LoadError::Parse { path: "-hcl".to_owned(), source };
    parse_as(Format::Hcl, text).map_err(failed)
}

/// Reads what flags say, which is given as a JSON file would have it, with null for a flag that is
/// not given.
pub fn flags(said: &Value) -> Result<Settings, LoadError> {
    let failed = |source| LoadError::Parse { path: "flags".to_owned(), source };
    parse(&given(said).to_string()).map_err(failed)
}

/// An object without its nulls, at all depths.
fn given(value: &Value) -> Value {
    let Value::Object(object) = value else { return value.clone() };
    let entries = object.iter().filter(|(_, value)| !value.is_null());
    Value::Object(entries.map(|(key, value)| (key.clone(), given(value))).collect())
}

fn load_file(path: &Path, format: Option<Format>, loaded: &mut Loaded) -> Result<(), LoadError> {
    let shown = path.display().to_string();
    let ending = path.extension().and_then(|extension| extension.to_str());
    let Some(format) = format.or_else(|| Format::parse(ending?)) else {
        let rule = "extension must be .hcl or .json, or config format must be set";
        loaded.warnings.push(format!("skipping file {shown}, {rule}"));
        return Ok(());
    };
    let file = std::fs::File::open(path).map_err(|source| open_error(path, source))?;
    let mut text = String::new();
    let limit = u64::try_from(super::file::FILE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    file.take(limit).read_to_string(&mut text).map_err(|source| open_error(path, source))?;
    let settings =
        parse_as(format, &text).map_err(|source| LoadError::Parse { path: shown, source })?;
    overlay(&mut loaded.settings, settings);
    Ok(())
}

fn open_error(path: &Path, source: std::io::Error) -> LoadError {
    let shown = path.display().to_string();
    if source.kind() == std::io::ErrorKind::NotFound {
        let source = std::io::Error::other(format!("open {shown}: no such file or directory"));
        return LoadError::Open { path: shown, source };
    }
    LoadError::Open { path: shown, source }
}
