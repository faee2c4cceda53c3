//! A user's backup, restored through the log (raft.md §9).
//!
//! A backup is an image of the tables. It comes as [`RestoreBlock`]s, each an entry of the log, and
//! each decoded as it is applied, into tables beside those that are read; [`RestoreCommit`] puts
//! them in their place in one step. The servers need no files and no word from the leader for it,
//! and they agree on what is refused, since the image proves itself.
//!
//! At most one restore is under way. Nothing ends one that nobody goes on with: there is no clock
//! here, and another restore replaces it, or an abort discards it.
//!
//! A command at position i of the log has the catalog index i + `index_base`. A commit raises the
//! base so far that its own index is above every index in the backup, and since the base never
//! falls it is above every index that was given out before. Rows keep the indexes they have in the
//! backup; what readers are told is at least the index of the commit.
//!
//! - INV-RESTORE-1: no reader is told a lower index than before.
//!
//! Differs: raft.md stages the bytes in files, sends a digest along and stops a server whose bytes
//! do not match it. What is staged here is replicated state, a part of every snapshot of the log,
//! and as equal on all servers as the rest of it.

use super::Tables;
use super::image::{ImageDecoder, ImageError};
use crate::id::{LogIndex, ModifyIndex, RestoreId};
use crate::{mutant, pack_struct};
use bytes::Bytes;
use thiserror::Error;

/// Bytes of all blocks of one restore: what is decoded of them is held in memory, beside the tables
/// that it is to replace.
pub const RESTORE_BYTES_MAX: u64 = 2 << 30;

/// The largest index that a backup may hold: far above whatever a log comes to, and no index that
/// is given out after it is near the end of its range.
const INDEX_MAX: ModifyIndex = ModifyIndex::new(1 << 62);

/// One block of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreBlock {
    /// Which restore it belongs to.
    pub restore: RestoreId,
    /// Its place, from 0. Block 0 begins the restore and discards any other.
    pub number: u64,
    /// The block.
    pub block: Bytes,
}
pack_struct!(RestoreBlock { restore, number, block });

/// The end of a restore: the backup takes the place of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreCommit {
    /// The restore.
    pub restore: RestoreId,
    /// How many blocks it has.
    pub blocks: u64,
}
pack_struct!(RestoreCommit { restore, blocks });

/// A restore that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Restoring {
    pub(super) id: RestoreId,
    /// The number of the next block.
    pub(super) next: u64,
    /// Bytes of the blocks so far.
    pub(super) bytes: u64,
    pub(super) decoder: ImageDecoder,
}

/// Why a step of a restore was refused. The tables that are read did not change; the restore under
/// way is discarded by what says so, and else did not change either.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// This restore is not under way: it never began, or is over, or was replaced by another.
    #[error("restore {restore} is not under way")]
    NotUnderWay {
        /// The restore.
        restore: RestoreId,
    },
    /// Another block is the next one.
    #[error("block {number} of the restore came where block {next} belongs")]
    OutOfOrder {
        /// The block.
        number: u64,
        /// The next one.
        next: u64,
    },
    /// The commit counts other blocks than there are.
    #[error("the restore has {next} blocks, not {blocks}")]
    OtherCount {
        /// What the commit says.
        blocks: u64,
        /// How many there are.
        next: u64,
    },
    /// The backup is too large; the restore is discarded.
    #[error("the backup is larger than {RESTORE_BYTES_MAX} bytes")]
    TooLarge,
    /// The backup is damaged or incomplete; if a block is at fault, the restore is discarded.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image is one of a server's own, made in the middle of a restore, and no backup; the
    /// restore is discarded.
    #[error("the image holds a restore that was under way")]
    Nested,
    /// The backup holds an index that no log comes to.
    #[error("the backup holds the index {index}, at most {INDEX_MAX} is allowed")]
    IndexTooLarge {
        /// Its largest index.
        index: ModifyIndex,
    },
}

impl Restoring {
    fn new(id: RestoreId) -> Self {
        Self { id, next: 0, bytes: 0, decoder: ImageDecoder::default() }
    }

    fn take(&mut self, block: &[u8]) -> Result<(), RestoreError> {
        self.bytes = self.bytes.saturating_add(block.len() as u64);
        if self.bytes > RESTORE_BYTES_MAX {
            return Err(RestoreError::TooLarge);
        }
        self.decoder.block(block)?;
        if self.decoder.holds_a_restore() {
            return Err(RestoreError::Nested);
        }
        self.next += 1;
        Ok(())
    }
}

impl Tables {
    /// The catalog index of what the command at this position of the log changes.
    pub(crate) const fn index_at(&self, position: LogIndex) -> ModifyIndex {
        ModifyIndex::new(position.get().saturating_add(self.index_base))
    }

    /// When a backup was restored last; zero if never. No read may tell less.
    pub(crate) const fn restored_at(&self) -> ModifyIndex {
        self.restored_at
    }

    pub(super) fn restore_block(&mut self, block: &RestoreBlock) -> Result<(), RestoreError> {
        let RestoreBlock { restore, number, block } = block;
        if *number == 0 {
            self.restoring = Some(Box::new(Restoring::new(*restore)));
        }
        let restoring = self.under_way(*restore)?;
        if *number != restoring.next {
            return Err(RestoreError::OutOfOrder { number: *number, next: restoring.next });
        }
        let taken = restoring.take(block);
        if taken.is_err() {
            self.restoring = None;
        }
        taken
    }

    pub(super) fn restore_commit(
        &mut self,
        position: LogIndex,
        commit: &RestoreCommit,
    ) -> Result<(), RestoreError> {
        let RestoreCommit { restore, blocks } = *commit;
        let restoring = self.under_way(restore)?;
        if blocks != restoring.next {
            return Err(RestoreError::OtherCount { blocks, next: restoring.next });
        }
        let restored = restoring.decoder.clone().finish()?;
        let index = restored.newest_index();
        if index > INDEX_MAX {
            return Err(RestoreError::IndexTooLarge { index });
        }
        let needed = index.next().get().saturating_sub(position.get());
        let index_base = self.index_base.max(if mutant!(M51) { 0 } else { needed });
        *self = Self { index_base, restoring: None, ..restored };
        self.restored_at = self.index_at(position);
        let newer = self.restored_at > index || mutant!(M51);
        assert!(newer, "INV-RESTORE-1: a restore is newer than its backup");
        Ok(())
    }

    pub(super) fn restore_abort(&mut self, restore: RestoreId) {
        self.restoring.take_if(|restoring| restoring.id == restore);
    }

    fn under_way(&mut self, restore: RestoreId) -> Result<&mut Restoring, RestoreError> {
        let restoring = self.restoring.as_deref_mut().filter(|it| it.id == restore);
        restoring.ok_or(RestoreError::NotUnderWay { restore })
    }

    /// The largest index that anything has or that a reader may have been told (INV-CATALOG-4,
    /// INV-KV-2).
    fn newest_index(&self) -> ModifyIndex {
        let tables = &self.changed;
        let of_nodes = [tables.nodes, tables.services, tables.checks, tables.coordinates];
        let autopilot = self.autopilot.as_ref().map_or(ModifyIndex::ZERO, |it| it.modify_index);
        let of_keys = [self.kv.changed, tables.sessions, self.prepared.changed];
        let others = [tables.service_lost, self.restored_at, autopilot];
        of_nodes.into_iter().chain(of_keys).chain(others).max().unwrap_or_default()
    }
}
