//! Files of the log. Each has the time of its beginning in its name; a full or old one is closed,
//! the next one begun and the oldest removed.
//!
//! A file that cannot be written to costs lines, never the agent.

use super::lane::Place;
use crate::config::LogFileConfig;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use terraform_core::trace::Level;
use terraform_io::http::client::system_text;

/// Who may read and write a file of the log (agent-config.md §4).
const MODE: u32 = 0o640;

/// The file that is written to.
#[derive(Debug)]
pub(super) struct LogFile {
    config: LogFileConfig,
    file: File,
    begun: SystemTime,
    written: u64,
    /// Whether the last line is there in part only.
    torn: bool,
}

impl LogFile {
    /// Begins the first file.
    ///
    /// - Errors: its path, and what the system says.
    pub(super) fn create(config: &LogFileConfig, now: SystemTime) -> io::Result<Self> {
        let file = open(config, now)?;
        Ok(Self { config: config.clone(), file, begun: now, written: 0, torn: false })
    }

    fn append(&mut self, line: &str, now: SystemTime) -> io::Result<()> {
        let full = self.config.bytes_max.is_some_and(|max| self.written >= max);
        let age = now.duration_since(self.begun).unwrap_or_default();
        if full || age >= self.config.time_max {
            self.rotate(now);
        }
        let end = if self.torn { "\n" } else { "" };
        let text = format!("{end}{line}\n");
        // Not `write_all`: how much of a line is on a full disk must be known.
        let count = self.file.write(text.as_bytes())?;
        self.written += count as u64;
        if count > 0 {
            self.torn = count < text.len();
        }
        if self.torn { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Begins the next file. Where that is refused the old one goes on, for as long again.
    fn rotate(&mut self, now: SystemTime) {
        self.remove_oldest();
        (self.begun, self.written) = (now, 0);
        if let Ok(file) = open(&self.config, now) {
            (self.file, self.torn) = (file, false);
        }
    }

    /// Removes what is more than may be kept. A file that stays in the way of that only costs room.
    fn remove_oldest(&self) {
        let Some(kept) = self.config.kept_max else { return };
        let Ok(entries) = std::fs::read_dir(&self.config.folder) else { return };
        let mut files: Vec<(u128, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let begun = begun(&self.config, entry.file_name().to_str()?)?;
                Some((begun, entry.path()))
            })
            .collect();
        files.sort();
        for (_, path) in files.iter().take(files.len().saturating_sub(kept)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Place for LogFile {
    fn write(&mut self, _: Level, line: &str) -> io::Result<()> {
        self.append(line, SystemTime::now())
    }
}

fn open(config: &LogFileConfig, now: SystemTime) -> io::Result<File> {
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    let path = config.folder.join(format!("{}-{nanos}{}", config.stem, config.ending));
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&path);
    file.map_err(|error| {
        io::Error::new(error.kind(), format!("open {}: {}", path.display(), system_text(&error)))
    })
}

/// When the file of this name was begun, in nanoseconds; `None` if it is none of this log.
fn begun(config: &LogFileConfig, name: &str) -> Option<u128> {
    let rest = name.strip_prefix(config.stem.as_str())?.strip_prefix('-')?;
    let digits = rest.strip_suffix(config.ending.as_str())?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("agent-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn config(folder: &Path, kept_max: Option<usize>) -> LogFileConfig {
        LogFileConfig {
            folder: folder.to_path_buf(),
            stem: "a".to_owned(),
            ending: ".log".to_owned(),
            bytes_max: Some(4),
            time_max: Duration::from_secs(60),
            kept_max,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn written(name: &str, kept_max: Option<usize>) -> Vec<(String, String)> {
        let folder = folder(name);
        std::fs::write(folder.join("a-b.log"), "of somebody else").unwrap();
        let mut file = LogFile::create(&config(&folder, kept_max), at(1)).unwrap();
        for (line, second) in [("one", 1), ("two", 2), ("3", 3), ("4", 3), ("five", 70)] {
            file.append(line, at(second)).unwrap();
        }
        let mode = file.file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !MODE, 0, "{mode:o}");
        let files = contents(&folder);
        std::fs::remove_dir_all(folder).unwrap();
        let of_others = files.iter().filter(|(name, _)| name == "a-b.log").count();
        assert_eq!(of_others, 1, "{files:?}");
        files.into_iter().filter(|(name, _)| name != "a-b.log").collect()
    }

    #[test]
    fn a_full_or_old_file_is_followed_by_another() {
        let expected = [
            ("a-1000000000.log", "one\n"),
            ("a-2000000000.log", "two\n"),
            ("a-3000000000.log", "3\n4\n"),
            ("a-70000000000.log", "five\n"),
        ];
        let files = written("all", None);
        let files: Vec<_> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(files, expected);
    }

    #[test]
    fn only_as_many_files_are_kept_as_may_be() {
        let names = |files: Vec<(String, String)>| -> Vec<String> {
            files.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(written("one", Some(1))), ["a-3000000000.log", "a-70000000000.log"]);
        assert_eq!(names(written("none", Some(0))), ["a-70000000000.log"]);
    }

    #[test]
    fn a_folder_that_is_gone_does_not_end_the_log() {
        let folder = folder("gone");
        let mut file = LogFile::create(&config(&folder, Some(1)), at(1)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        for second in 1..9 {
            file.append("four", at(second)).unwrap();
        }
        let refused = LogFile::create(&config(&folder, None), at(1)).unwrap_err().to_string();
        let path = folder.join("a-1000000000.log");
        assert_eq!(refused, format!("open {}: no such file or directory", path.display()));
    }
}
