//! Reading a snapshot, part by part, and judging it.
//!
//! Source: raft.md §9, §11.5 step 2. A snapshot is read in parts of the file that begin where a
//! record does, so no more of it is held than one part and the blocks. It is judged as a whole:
//! nothing of it counts before its end was read and everything is as the writer left it.

use super::{BLOCK_BYTES_MAX, EPOCH, PART_BYTES, SnapshotId, VERSION, kind};
use crate::catalog::Tables;
use crate::catalog::image::ImageDecoder;
use crate::id::{LogIndex, StoreId};
use crate::raft::SnapshotMeta;
use crate::storage::StorageDamage;
use crate::storage::record::{self, Binding, Record};
use crate::storage::recovery::Step;
use crate::wire::pack;

/// What the blocks of a snapshot make.
pub(in crate::storage) trait Content: Default {
    /// What they make.
    type Whole;

    /// Takes the next block; an error names the rule that it breaks.
    fn block(&mut self, block: &[u8]) -> Result<(), &'static str>;

    /// What they made, once all of them were taken.
    fn finish(self) -> Result<Self::Whole, &'static str>;
}

impl Content for ImageDecoder {
    type Whole = Tables;

    fn block(&mut self, block: &[u8]) -> Result<(), &'static str> {
        self.block(block).map_err(|_| "a block is no part of a catalog")
    }

    fn finish(self) -> Result<Tables, &'static str> {
        self.finish().map_err(|_| "the catalog in it is not whole")
    }
}

/// A snapshot that was found to be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Snapshot<T> {
    pub(in crate::storage) meta: SnapshotMeta,
    /// The state.
    pub(in crate::storage) content: T,
}

/// Why a snapshot's file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) enum SnapshotFault {
    /// It is not as it was written.
    Damage(StorageDamage),
    /// A later release wrote it.
    Version(u32),
}

/// A rule that is broken, or a later version.
enum Fault {
    Rule(&'static str),
    Version(u32),
}

impl From<&'static str> for Fault {
    fn from(rule: &'static str) -> Self {
        Self::Rule(rule)
    }
}

/// A reader of one snapshot.
#[derive(Clone, Debug)]
pub(in crate::storage) struct SnapshotReader<C> {
    id: SnapshotId,
    binding: Binding,
    /// Where the next record begins.
    offset: u64,
    /// Records so far.
    records: u64,
    meta: Option<SnapshotMeta>,
    content: C,
    /// Over all blocks.
    crc: crc32fast::Hasher,
    ended: bool,
}

impl<C: Content> SnapshotReader<C> {
    pub(in crate::storage) fn new(store: StoreId, id: SnapshotId) -> Self {
        Self {
            id,
            binding: id.binding(store),
            offset: 0,
            records: 0,
            meta: None,
            content: C::default(),
            crc: crc32fast::Hasher::new(),
            ended: false,
        }
    }

    pub(in crate::storage) const fn id(&self) -> SnapshotId {
        self.id
    }

    /// What it stands for, once that was read; not after its end.
    pub(in crate::storage) const fn meta(&self) -> Option<&SnapshotMeta> {
        self.meta.as_ref()
    }

    /// The part to read next.
    pub(in crate::storage) fn wanted(&self) -> Step {
        let limit = PART_BYTES as u64;
        Step::ReadPart { file: self.id.file(), offset: self.offset, limit }
    }

    /// Takes the part that was wanted; the snapshot once it is whole.
    pub(in crate::storage) fn part(
        &mut self,
        part: &[u8],
    ) -> Result<Option<Snapshot<C::Whole>>, SnapshotFault> {
        let whole = self.take(part).and_then(|ended| {
            let meta = self.meta.take_if(|_| ended);
            let finish = |meta| {
                let content = std::mem::take(&mut self.content).finish()?;
                Ok(Snapshot { meta, content })
            };
            meta.map(finish).transpose()
        });
        match whole {
            Ok(snapshot) => Ok(snapshot),
            Err(Fault::Version(version)) => Err(SnapshotFault::Version(version)),
            Err(Fault::Rule(rule)) => Err(SnapshotFault::Damage(StorageDamage {
                file: self.id.file(),
                offset: self.offset,
                rule,
            })),
        }
    }

    /// Takes the whole records of a part; says whether the file ends with it.
    fn take(&mut self, part: &[u8]) -> Result<bool, Fault> {
        let last = part.len() < PART_BYTES;
        let mut rest = part;
        while !rest.is_empty() {
            let cut = record::wanted(rest, self.offset, self.binding)? > rest.len();
            if cut && !last {
                if rest.len() == part.len() {
                    return Err("a record is longer than any that is written".into());
                }
                break;
            }
            let record = record::read_first(rest, self.offset, self.binding)?;
            self.accept(&record)?;
            rest = rest.get(record.end..).unwrap_or_default();
            self.offset += record.end as u64;
            self.records += 1;
        }
        if last && !self.ended {
            return Err("the end of the snapshot is missing".into());
        }
        Ok(last)
    }

    fn accept(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        let head = record.head;
        if self.ended {
            return Err("something follows the end of the snapshot".into());
        }
        let of_this = head.term == self.id.term.get() && head.epoch == EPOCH;
        if head.index != self.records || !of_this {
            return Err("a record is not the one that comes next".into());
        }
        match (head.kind, self.meta.is_some()) {
            (kind::META, false) => self.meta = Some(self.read_meta(record.payload)?),
            (kind::BLOCK, true) => {
                self.crc.update(record.payload);
                if record.payload.is_empty() || record.payload.len() > BLOCK_BYTES_MAX {
                    return Err("a block has an illegal size".into());
                }
                self.content.block(record.payload)?;
            }
            (kind::END, true) => {
                let blocks = (self.records - 1).to_be_bytes();
                let crc = self.crc.clone().finalize().to_be_bytes();
                if record.payload != [&blocks[..], &crc].concat() {
                    return Err("the blocks are not those that the end tells of".into());
                }
                self.ended = true;
            }
            _ => return Err("a record is of a kind that does not belong here".into()),
        }
        Ok(())
    }

    fn read_meta(&self, payload: &[u8]) -> Result<SnapshotMeta, Fault> {
        let illegal = "the meta record is not legal";
        let (version, rest) = payload.split_first_chunk().ok_or(illegal)?;
        let version = u32::from_be_bytes(*version);
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let meta: SnapshotMeta = pack::from_bytes(rest).map_err(|_| illegal)?;
        if SnapshotId::of(&meta) != self.id || meta.index == LogIndex::ZERO {
            return Err("the meta record is another snapshot's".into());
        }
        if meta.configuration_index > meta.index {
            return Err("the configuration is newer than the snapshot".into());
        }
        Ok(meta)
    }
}
