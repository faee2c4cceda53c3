//! What becomes of a server that finds a part of its log, or its snapshots, lost.
//!
//! Source: raft.md K12, §11.5. If others may hold what is lost, the server goes on as *recovering*
//! (`raft::recovering`): it keeps what is whole before the loss, forgets the rest, and may not vote
//! until it holds everything again. In the recovery's list of operations
//!
//! 1. the identity says so, with the term in which the loss was found;
//! 2. the hard state goes on to the next term, in which this server has said nothing yet;
//! 3. what cannot be used is removed, the newest segment first, so that no number is missing below
//!    another; then the log's tail is written anew.
//!
//! A crash after the first step leaves a server that is recovering, whatever is found then. A loss
//! that is found while it recovers begins all of it again: what it acknowledged meanwhile may be
//! lost too.
//!
//! A server that knows of nobody else refuses the start. If no configuration can be read at all,
//! others may exist; should there be none, the server waits in vain, but it never leads an empty
//! cluster, since it does not campaign, and knows its cluster, so that it does not bootstrap.

use super::RecoveryError;
use super::snapshots::Search;
use crate::catalog::Tables;
use crate::id::LogIndex;
use crate::mark;
use crate::raft::{Configuration, EntryKind, HardState};
use crate::storage::StorageDamage;
use crate::storage::hard::Chosen;
use crate::storage::identity::Identity;
use crate::storage::op::FileOp;
use crate::storage::scan::Scanned;
use crate::storage::snapshot::Snapshot;
use crate::wire::pack;
use thiserror::Error;

/// What was durable and is not readable any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// The log from some position on.
    #[error(transparent)]
    Log(StorageDamage),
    /// What stands for the log's beginning.
    #[error("the log begins behind entry {base}, and no usable snapshot reaches to it{}",
            list(.unusable))]
    Snapshots {
        /// The position behind which the log begins.
        base: LogIndex,
        /// The snapshots that are there, newest first, and why they do not serve.
        unusable: Vec<StorageDamage>,
    },
}

/// The files that cannot be used, as they stand at the end of a message.
fn list(unusable: &[StorageDamage]) -> String {
    let reason = |StorageDamage { file, offset, rule }: &StorageDamage| {
        format!("; {file} at byte {offset}: {rule}")
    };
    unusable.iter().map(reason).collect()
}

/// The newest configuration that can be read anywhere; `None` if there is none.
pub(super) fn newest_configuration(
    scanned: &Scanned,
    chosen: Option<&Snapshot<Tables>>,
    search: &Search,
) -> Option<Configuration> {
    let configs = scanned.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Config);
    let mut readable =
        configs.filter_map(|entry| Some((entry.index, pack::from_bytes(&entry.payload).ok()?)));
    let behind = scanned.lost.as_ref().and_then(|lost| lost.configuration.clone());
    let metas = chosen.map(|snapshot| &snapshot.meta).into_iter().chain(search.damaged_metas());
    let covered = metas.map(|meta| (meta.configuration_index, meta.configuration.clone()));
    let all = readable.next().into_iter().chain(behind).chain(covered);
    all.max_by_key(|(index, _)| *index).map(|(_, configuration)| configuration)
}

/// Makes the server a recovering one: returns the operations that come before all others, or
/// refuses if nobody else is known to hold what is lost.
pub(super) fn begin(
    loss: Loss,
    known: Option<&Configuration>,
    identity: &mut Identity,
    Chosen { hard, slots, ops }: &mut Chosen,
) -> Result<Vec<FileOp>, RecoveryError> {
    let alone = known.is_some_and(|known| known.is_sole_voter(identity.node));
    if alone || identity.cluster.is_none() {
        return Err(RecoveryError::Alone(loss));
    }
    match loss {
        Loss::Log(_) => {
            mark!("storage.log_lost");
        }
        Loss::Snapshots { .. } => {
            mark!("storage.snapshots_lost");
        }
    }
    identity.recovering = Some(hard.term);
    *hard = HardState { term: hard.term.next(), voted_for: None };
    slots.put(*hard, ops);
    Ok(identity.write())
}

#[cfg(test)]
mod tests;
