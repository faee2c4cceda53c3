//! Backups that clients restore now and then: those of other clusters, and those that they saved of
//! this one (http-api.md §17).

use super::history::{OpId, value_of, writer_of};
use bytes::Bytes;
use std::sync::Arc;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::image::{BLOCK_BYTES, ImageDecoder, ImageEncoder};
use terraform_core::catalog::kv::{KvEntry, KvPut, KvWrite};
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use terraform_core::catalog::restore::{RestoreBlock, RestoreCommit};
use terraform_core::id::{LogIndex, ModifyIndex, RestoreId, Term};
use terraform_core::time::Instant;
use terraform_core::view::{ConsensusView, ServerState, answer_now};

/// Indexes of one backup lie so far above those of the one before it, and of this cluster.
const APART: u64 = 1_000_000;
/// What blocks of a backup of this cluster are cut to.
const SMALL_BYTES: usize = 2048;

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

    /// Whether it holds a key.
    fn holds(&self, key: &str) -> bool {
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

    /// All of it, as one block.
    fn block(&self) -> Bytes {
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
        block
    }
}

/// What a client saved of this cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The position of the log that it stands for.
    pub position: u64,
    tables: Tables,
    /// The same in blocks as small as they may be, so that a restore takes many steps.
    blocks: Vec<Bytes>,
}

// Tables hold measured times, but none that is not a number.
impl Eq for Saved {}

impl Saved {
    /// What these blocks say; an error tells why they are no backup.
    pub fn of_blocks(position: u64, blocks: &[Bytes]) -> Result<Self, String> {
        let mut decoder = ImageDecoder::default();
        for block in blocks {
            decoder.block(block).map_err(|error| error.to_string())?;
        }
        let tables = decoder.finish().map_err(|error| error.to_string())?;
        let mut encoder = ImageEncoder::of_backup(tables.clone());
        let blocks = std::iter::from_fn(|| encoder.next_block(SMALL_BYTES)).collect();
        Ok(Self { position, tables, blocks })
    }

    /// What it says to a question.
    pub fn ask(&self, query: &Query) -> QueryAnswer {
        let consensus = &ConsensusView::of_new_leader(Term::ZERO);
        let state = ServerState { tables: &self.tables, consensus, datacenters: &[] };
        answer_now(state, query, Consistency::Leader, Instant::ZERO)
    }

    fn writer_at(&self, key: &str) -> Option<OpId> {
        let rows = self.ask(&Query::Key(key.to_owned())).rows;
        let Rows::Entries(entries) = rows else { return None };
        writer_of(&entries.first()?.value)
    }
}

/// What an operation restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backup {
    /// What another cluster stored.
    Foreign(Foreign),
    /// What this one did.
    Own(OpId, Arc<Saved>),
}

impl Backup {
    /// Its name.
    pub fn restore(&self) -> RestoreId {
        let (Self::Foreign(Foreign { id, .. }) | Self::Own(id, _)) = self;
        RestoreId::from_bytes(u128::from(*id).to_be_bytes())
    }

    /// The operation that a restore belongs to.
    pub fn operation_of(restore: RestoreId) -> Option<OpId> {
        OpId::try_from(u128::from_be_bytes(*restore.as_bytes())).ok()
    }

    /// Who wrote what it holds at a key.
    pub fn writer_at(&self, key: &str) -> Option<OpId> {
        match self {
            Self::Foreign(foreign) => foreign.holds(key).then_some(foreign.id),
            Self::Own(_, saved) => saved.writer_at(key),
        }
    }

    /// The command for one step: it brings the block of this number, or puts the backup in the
    /// place of everything once all are there.
    pub fn step(&self, number: u64) -> Command {
        let restore = self.restore();
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let block = match self {
            Self::Foreign(foreign) => (at == 0).then(|| foreign.block()),
            Self::Own(_, saved) => saved.blocks.get(at).cloned(),
        };
        match block {
            Some(block) => Command::RestoreBlock(RestoreBlock { restore, number, block }),
            None => Command::RestoreCommit(RestoreCommit { restore, blocks: self.blocks() }),
        }
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        match self {
            Self::Foreign(_) => 1,
            Self::Own(_, saved) => saved.blocks.len() as u64,
        }
    }

    /// The command that puts it in the place of everything.
    pub fn commit(&self) -> Command {
        self.step(self.blocks())
    }
}
