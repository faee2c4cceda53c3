//! The bytes of everything on disk, and what damaged bytes mean.
//!
//! Formats, scans and every decision about torn or damaged bytes are pure functions and machines
//! here (raft.md §11, DESIGN.md §3); hosts execute [`op::FileOp`]s and answer [`recovery::Step`]s.
//! All numbers on disk are big-endian.
//!
//! | file | content | module |
//! |---|---|---|
//! | `node-id` | this agent's identity as UUID text | [`identity`] |
//! | `raft/identity` | store, cluster, promise, heartbeat timeout, recovery | [`identity`] |
//! | `raft/hard.a`, `raft/hard.b` | term and vote, twice | [`hard`] |
//! | `raft/peers.json` | whom a new cluster begins with, by the operator | [`recovery`] |
//! | `raft/wal/N.seg` | the Raft log | [`wal`], [`scan`] |
//! | `raft/snap/INDEX-TERM.snap` | the applied state at a position of the log | [`snapshot`] |
//! | `raft/snap/{own,received}.tmp` | a snapshot that is being written | [`snapshot`] |
//! | `raft/snap/INDEX-TERM.bad` | a snapshot found damaged, for the operator | [`recovery`] |
//! | `local/registrations.log` | services, checks, TTL states registered here | [`registrations`] |
//! | `serf/{local,remote}.snapshot` | members known in the LAN and WAN pool, written by Serf | – |
//! | `serf/{local,remote}.keyring` | keys of gossip | [`crate::gossip::keyring`] |
//! | `serf/{local,remote}.retired` | keys removed of late | [`crate::gossip::retired`] |

pub mod hard;
pub mod identity;
pub mod op;
mod record;
pub mod recovery;
pub mod registrations;
pub mod scan;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
pub mod wal;

use bytes::Bytes;
use op::{FileOp, FilePath};
use thiserror::Error;

/// Bytes that were durable once and cannot be read back. Nothing was changed; the disk is at
/// fault, and going on could forget a vote or an acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file} is damaged at byte {offset}: {rule}")]
pub struct StorageDamage {
    /// The file.
    pub file: FilePath,
    /// Where the first unreadable value begins, in bytes.
    pub offset: u64,
    /// The rule that the bytes break.
    pub rule: &'static str,
}

/// Where the new content of `file` is written before it takes the old one's place.
pub(crate) fn temporary(file: &FilePath) -> FilePath {
    FilePath::new(&format!("{file}.tmp"))
}

/// Replaces the content of `file` in one atomic step that is durable when the last operation is.
pub(crate) fn replace_file(file: &FilePath, data: Bytes) -> Vec<FileOp> {
    let temporary = temporary(file);
    let len = data.len() as u64;
    vec![
        FileOp::Write { file: temporary.clone(), offset: 0, data },
        FileOp::SetLen { file: temporary.clone(), len },
        FileOp::Sync(temporary.clone()),
        FileOp::Rename { from: temporary, to: file.clone() },
        FileOp::SyncDir(file.parent()),
    ]
}
