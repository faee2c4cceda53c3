//! What a recovery tells of what it found.

use super::{Loss, peers_file};
use crate::id::{LogIndex, NodeId};
use crate::storage::StorageDamage;
use crate::storage::registrations::registrations_file;
use crate::storage::scan::TornTail;
use std::fmt;

/// Something unusual that recovery dealt with; its `Display` is a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryNote {
    /// The newest batch of the log was never durable and is forgotten.
    TornTail(TornTail),
    /// The newest change of the registrations was never durable and is forgotten.
    TornRegistrations,
    /// A snapshot is not as it was written; an older one and the log stand for it.
    UnusableSnapshot(StorageDamage),
    /// The log did not connect to the snapshot and was forgotten in favour of it.
    LogReset {
        /// Where it ended.
        last: LogIndex,
        /// Where it goes on.
        position: LogIndex,
    },
    /// A new cluster begins with what this server holds.
    Peers {
        /// Who takes part, the voters first.
        servers: Vec<NodeId>,
        /// The newest entry, which counts as committed like all before it.
        last: LogIndex,
        /// Whether the log has been damaged, and what is lost of it is given up.
        lost: Option<Loss>,
    },
    /// A part of what this server acknowledged is lost here: it recovers that from the others.
    Lost {
        /// What was found.
        loss: Loss,
        /// The newest entry that is still held.
        kept: LogIndex,
        /// The newest entry that is known to have been there.
        known: Option<LogIndex>,
    },
}

impl fmt::Display for RecoveryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail(torn) => {
                let TornTail { file, offset, rule } = torn;
                write!(f, "unfinished write cut: file={file} offset={offset} reason={rule:?}")
            }
            Self::TornRegistrations => {
                write!(f, "unfinished write cut: file={}", registrations_file())
            }
            Self::UnusableSnapshot(damage) => {
                let StorageDamage { file, offset, rule } = damage;
                write!(f, "snapshot not usable: file={file} offset={offset} reason={rule:?}")
            }
            Self::LogReset { last, position } => {
                write!(f, "log replaced by a snapshot: last={last} snapshot={position}")
            }
            Self::Peers { servers, last, lost } => {
                let ids: Vec<String> = servers.iter().map(NodeId::to_string).collect();
                let ids = ids.join(",");
                write!(
                    f,
                    "a new cluster begins as {} says: servers={ids} last={last}",
                    peers_file()
                )?;
                lost.as_ref()
                    .map_or(Ok(()), |loss| write!(f, "; given up is what was lost: {loss}"))
            }
            Self::Lost { loss, kept, known } => {
                write!(f, "{loss}; lost here and wanted from the other servers: entries after ")?;
                match known.filter(|known| known > kept) {
                    Some(known) => write!(f, "{kept}, up to {known} at least"),
                    None => write!(f, "{kept}"),
                }
            }
        }
    }
}
