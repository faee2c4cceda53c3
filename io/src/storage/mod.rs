//! Executes the core's storage operations on a real disk; decides nothing.
//!
//! [`DataDir`] holds the directory's lock, [`recover`] drives the core's recovery before a node
//! exists, and [`Disk`] performs its operations afterwards, each lane on a thread of its own. Paths
//! come only from [`terraform_core::storage::op::FilePath`], so none leaves the directory.

mod dir;
mod file;
mod lane;
mod machine;
mod peers;

pub use dir::{DataDir, OpenError};
pub use file::DiskFailure;
pub use lane::{Completion, Disk};
pub use machine::machine_identities;
pub use peers::{PeersFileError, parse as parse_peers, read_peers};

use file::Files;
use terraform_core::storage::recovery::{Answer, Recovery, RecoveryError, Restored, Step};
use thiserror::Error;

/// Why an agent cannot start on its data directory.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// What is in the directory cannot be used.
    #[error(transparent)]
    Refused(#[from] RecoveryError),
    /// The disk failed meanwhile.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
}

/// Drives `recovery` on the files of `dir` to its end. Each answer goes through `heard` on its way.
pub fn recover(
    dir: &DataDir,
    mut recovery: Recovery,
    mut heard: impl FnMut(&Step, Answer) -> Answer,
) -> Result<Restored, RecoverError> {
    let mut files = Files::new(dir.path());
    let mut answer = None;
    loop {
        let step = recovery.step(answer.take());
        let found = match &step {
            Step::List(folder) => Some(Answer::Names(files.list(folder.as_ref())?)),
            Step::Read { file, limit } => Some(files.read(file, *limit)?),
            Step::ReadPart { file, offset, limit } => Some(files.read_part(file, *offset, *limit)?),
            Step::Perform(ops) => {
                files.perform(ops)?;
                Some(Answer::Performed)
            }
            Step::Done(_) | Step::Refused(_) => None,
        };
        answer = found.map(|found| heard(&step, found));
        match step {
            Step::Done(restored) => return Ok(*restored),
            Step::Refused(error) => return Err(error.into()),
            Step::List(_) | Step::Read { .. } | Step::ReadPart { .. } | Step::Perform(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
