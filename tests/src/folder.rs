//! Folders of tests.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// A folder below the system's temporary one. It is removed with its last clone, except by a test
/// that failed: what servers kept is then there to be looked at.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Removed>);

#[derive(Debug)]
struct Removed(PathBuf);

impl Folder {
    /// An empty one that no other run uses.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("terraform-e2e-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(Arc::new(Removed(path)))
    }

    /// Leaves it for somebody to look at.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // The test may have removed it.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
