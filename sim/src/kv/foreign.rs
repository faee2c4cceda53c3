//! Backups of other clusters, which clients restore now and then (http-api.md §17).

use super::history::{OpId, value_of};
use std::sync::Arc;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::image::{BLOCK_BYTES, ImageEncoder};
use terraform_core::catalog::kv::{KvEntry, KvPut, KvWrite};
use terraform_core::catalog::restore::{RestoreBlock, RestoreCommit};
use terraform_core::id::{LogIndex, ModifyIndex, RestoreId};

/// Indexes of one backup lie so far above those of the one before it, and of this cluster.
const APART: u64 = 1_000_000;

/// What another cluster stored, which lived for much longer than this one: its indexes are far
/// above those of this cluster, and no two backups share one. It holds keys and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    id: OpId,
    keys: Vec<String>,
}

impl Foreign {
    /// The backup that operation `id` restores: these keys, each with the operation as its writer.
    pub fn new(id: OpId, mut keys: Vec<String>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self { id, keys }
    }

    /// Its name.
    pub const fn restore(&self) -> RestoreId {
        RestoreId::from_bytes((self.id as u128).to_be_bytes())
    }

    /// The operation that a restore belongs to.
    pub fn operation_of(restore: RestoreId) -> Option<OpId> {
        OpId::try_from(u128::from_be_bytes(*restore.as_bytes())).ok()
    }

    /// Whether it holds a key.
    pub fn holds(&self, key: &str) -> bool {
        self.keys.iter().any(|held| held == key)
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = KvEntry> {
        let first = (self.id + 1) * APART;
        (first..).zip(&self.keys).map(|(at, key)| KvEntry {
            lock: None,
            key: Arc::from(key.as_str()),
            value: value_of(self.id),
            flags: self.id % 3,
            create_index: ModifyIndex::new(at),
            modify_index: ModifyIndex::new(at),
        })
    }

    /// The command that brings it.
    pub fn block(&self) -> Command {
        let mut tables = Tables::default();
        for KvEntry { key, value, flags, modify_index, .. } in self.entries() {
            let key = key.as_ref().to_owned();
            let put = KvWrite::Put(KvPut { key, value, flags, only_at: None });
            let applied = tables.apply(LogIndex::new(modify_index.get()), Command::Kv(put));
            applied.expect("a put without a condition is done");
        }
        let mut encoder = ImageEncoder::of_backup(tables);
        let block = encoder.next_block(BLOCK_BYTES).unwrap_or_default();
        assert!(encoder.is_finished(), "a few keys are one block");
        Command::RestoreBlock(RestoreBlock { restore: self.restore(), number: 0, block })
    }

    /// The command that puts it in the place of everything.
    pub const fn commit(&self) -> Command {
        Command::RestoreCommit(RestoreCommit { restore: self.restore(), blocks: 1 })
    }
}
