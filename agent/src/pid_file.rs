//! The file with the number of the agent's process, for those who send it signals.

use std::path::{Path, PathBuf};
use terraform_io::http::client::system_text;

/// A file that holds this process's number; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, in the place of what an agent that was killed left there.
    ///
    /// - Errors: the text for the operator, naming the file.
    pub(crate) fn write(path: &Path) -> Result<Self, String> {
        std::fs::write(path, own_number()).map_err(|error| {
            let (path, reason) = (path.display(), system_text(&error));
            format!("Could not open pid file: open {path}: {reason}")
        })?;
        Ok(Self(path.to_path_buf()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // One that somebody else has taken over, or that is no file at all, is not this agent's.
        if std::fs::read_to_string(&self.0).is_ok_and(|text| text == own_number()) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

fn own_number() -> String {
    std::process::id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_else_took_over_stays() {
        let path = std::env::temp_dir().join(format!("agent-pid-file-{}", std::process::id()));
        std::fs::write(&path, "1234567890 of a longer name").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own_number());
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1");
        std::fs::remove_file(&path).unwrap();
    }
}
