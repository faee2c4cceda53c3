//! The write-ahead log: how batches of the Raft log become file operations.
//!
//! Source: raft.md §11.2, §11.3. [`super::scan`] reads what is written here.
//!
//! A segment is `raft/wal/N.seg`, numbered from 1: a header, then batches, then zeros. The oldest
//! ones go away once snapshots cover them ([`Wal::compact`]); the others' numbers have no gap.
//! Each batch is one group commit: a `BatchHead` record, then its records, all of the batch's
//! epoch; epochs count up by one. One batch is one write and one sync, never spans segments, and a
//! batch is written only after the sync of the one before it returned (lanes work in order, and
//! stop at a failure). Nothing is overwritten: a truncation is a record.
//!
//! | offset | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | magic `TFWALSEG` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | zeros |
//! | 16 | 16 | store |
//! | 32 | 8 | number of the segment |
//! | 40 | 8 | where the segment before ends, in bytes |
//! | 48 | 8 | epoch of that segment's last batch |
//! | 56 | 4 | zeros |
//! | 60 | 4 | CRC-32 of the 60 bytes before |
//!
//! | kind | record | index, term | payload |
//! |---|---|---|---|
//! | 1 | `BatchHead` | 0 | bytes of the batch's other records, u64 |
//! | 2 | `Entry` | the entry's | chain u64, entry kind u8, the entry's payload |
//! | 3 | `Truncate` | first index forgotten, 0 | none |
//! | 4 | `Seal` | 0 | none |
//! | 5 | `Reset` | first index after it, 0 | none |
//!
//! A reset forgets the whole log, which goes on at the record's index: everything in front of it is
//! in a snapshot that is durable before the record is written (raft.md §9).
//!
//! Differs: no `PadToEnd` and no hard state in headers or records. A segment's end stands in its
//! successor's header, which is written with the successor's first batch, so a segment that has a
//! successor is sealed. A clean stop and every recovery end with a batch of one `Seal`: it proves
//! the batch before it durable and may itself be lost.
//!
//! Segments are filled with zeros ahead of the writer, so that a commit need not change the file's
//! metadata and finds room on the disk: the current one in steps, the next one as a whole once the
//! current is half full. A segment grows past its size while its successor is not ready. What is
//! prepared may fail for want of space and is tried again; a batch waits for it
//! ([`Wal::has_room`]), so that a full disk never stops a batch halfway.

use super::hard::HardSlots;
use super::identity::Identity;
use super::op::{FileOp, FilePath, Lane, StorageOp};
use super::record::{self, Binding, Head};
use crate::id::{LogIndex, StoreId};
use crate::pack_struct;
use crate::raft::{Entry, EntryKind, IdentityChange, PersistBatch};
use crate::{mark, mutant};
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEAD_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"TFWALSEG";
const VERSION: u32 = 1;

/// The kinds of records.
pub(super) mod kind {
    pub(in crate::storage) const BATCH_HEAD: u8 = 1;
    pub(in crate::storage) const ENTRY: u8 = 2;
    pub(in crate::storage) const TRUNCATE: u8 = 3;
    pub(in crate::storage) const SEAL: u8 = 4;
    pub(in crate::storage) const RESET: u8 = 5;
}

/// Sizes of the log's files; any values give a correct log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Bytes after which a segment is succeeded by the next.
    pub segment_bytes: u64,
    /// Bytes zeroed at a time.
    pub step_bytes: u64,
}
pack_struct!(WalConfig { segment_bytes, step_bytes });

impl Default for WalConfig {
    /// 64 MiB in steps of 4 MiB (raft.md §1.2).
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, step_bytes: 4 << 20 }
    }
}

/// The folder of the segments.
pub(super) fn wal_dir() -> FilePath {
    FilePath::new("raft/wal")
}

/// The file of segment `number`.
pub(super) fn segment_file(number: u64) -> FilePath {
    FilePath::new(&format!("raft/wal/{number:016}.seg"))
}

/// The number of the segment with this file name; `None` if it is no segment's name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) binding: Binding,
    /// Where the segment before ends; 0 for the first.
    pub(super) previous_end: u64,
    /// The epoch of the last batch before this segment; 0 for the first.
    pub(super) previous_epoch: u64,
}

/// Why a segment's header is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// It is torn, damaged, absent or another store's.
    Unreadable(&'static str),
    /// A later release wrote it.
    Version(u32),
}

impl SegmentHead {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.binding.store.as_bytes());
        out.extend_from_slice(&self.binding.file.to_be_bytes());
        out.extend_from_slice(&self.previous_end.to_be_bytes());
        out.extend_from_slice(&self.previous_epoch.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// Reads the header of the segment bound to `binding`.
    pub(super) fn read(bytes: &[u8], binding: Binding) -> Result<Self, HeadFault> {
        let unreadable = HeadFault::Unreadable("the segment header is unreadable");
        let raw: &[u8; SEGMENT_HEAD_BYTES] = bytes.first_chunk().ok_or(unreadable)?;
        let (fields, crc) = raw.split_at(SEGMENT_HEAD_BYTES - 4);
        let (magic, rest) = fields.split_first_chunk::<8>().ok_or(unreadable)?;
        if crc != crc32fast::hash(fields).to_be_bytes() || *magic != MAGIC {
            return Err(unreadable);
        }
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(unreadable)?;
        if u32::from_be_bytes(*version) != VERSION {
            return Err(HeadFault::Version(u32::from_be_bytes(*version)));
        }
        let number_at = |at: usize| rest.get(at..).and_then(record::number).ok_or(unreadable);
        let store = rest.get(4..).and_then(<[u8]>::first_chunk).ok_or(unreadable)?;
        if store != binding.store.as_bytes() {
            return Err(HeadFault::Unreadable("the segment belongs to another data directory"));
        }
        if number_at(20)? != binding.file {
            return Err(HeadFault::Unreadable("the segment has the number of another one"));
        }
        Ok(Self { binding, previous_end: number_at(28)?, previous_epoch: number_at(36)? })
    }
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
enum Item<'a> {
    Reset(LogIndex),
    Truncate(LogIndex),
    Entry(&'a Entry),
    Seal,
}

impl Item<'_> {
    /// The newest position of the log that it tells of.
    const fn position(&self) -> Option<LogIndex> {
        match self {
            Self::Reset(first) | Self::Truncate(first) => Some(first.previous()),
            Self::Entry(entry) => Some(entry.index),
            Self::Seal => None,
        }
    }

    const fn payload_bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => 9 + entry.payload.len(),
            Self::Reset(_) | Self::Truncate(_) | Self::Seal => 0,
        }
    }

    fn put(&self, out: &mut Vec<u8>, binding: Binding, offset: u64, epoch: u64) {
        let head = |kind, index, term| Head { kind, index, term, epoch };
        match self {
            Self::Reset(first) => {
                record::put(out, binding, offset, head(kind::RESET, first.get(), 0), &[]);
            }
            Self::Truncate(from) => {
                record::put(out, binding, offset, head(kind::TRUNCATE, from.get(), 0), &[]);
            }
            Self::Seal => record::put(out, binding, offset, head(kind::SEAL, 0, 0), &[]),
            Self::Entry(entry) => {
                let head = head(kind::ENTRY, entry.index.get(), entry.term.get());
                let chain = entry.chain.to_be_bytes();
                let parts: [&[u8]; 3] = [&chain, &[entry_code(&entry.kind)], &entry.payload];
                record::put(out, binding, offset, head, &parts);
            }
        }
    }
}

const fn entry_code(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Command => 1,
        EntryKind::Noop => 2,
        EntryKind::Config => 3,
    }
}

/// The entry kind with this code.
pub(super) const fn entry_kind(code: u8) -> Option<EntryKind> {
    match code {
        1 => Some(EntryKind::Command),
        2 => Some(EntryKind::Noop),
        3 => Some(EntryKind::Config),
        _ => None,
    }
}

/// Bytes of a batch of `items`.
fn batch_bytes(items: &[Item<'_>]) -> usize {
    let records: usize = items.iter().map(|item| record::size(item.payload_bytes())).sum();
    record::size(8) + records
}

/// Bytes of the batch that [`Wal::append`] makes of `batch`; 0 if it needs none.
fn log_bytes(batch: &PersistBatch) -> u64 {
    let marks = usize::from(batch.reset.is_some()) + usize::from(batch.truncate_from.is_some());
    if marks == 0 && batch.entries.is_empty() {
        return 0;
    }
    let entries =
        batch.entries.iter().map(|entry| record::size(Item::Entry(entry).payload_bytes()));
    (record::size(8) + marks * record::size(0) + entries.sum::<usize>()) as u64
}

/// Appends a batch to `out`, whose first byte stands at `base` of the bound file.
fn put_batch(out: &mut Vec<u8>, base: u64, binding: Binding, epoch: u64, items: &[Item<'_>]) {
    let records = batch_bytes(items) - record::size(8);
    let head = Head { kind: kind::BATCH_HEAD, index: 0, term: 0, epoch };
    let length = (records as u64).to_be_bytes();
    record::put(out, binding, base + out.len() as u64, head, &[&length]);
    let start = out.len();
    for item in items {
        item.put(out, binding, base + out.len() as u64, epoch);
    }
    assert!(out.len() - start == records, "a batch has the length its head announces");
}

/// The segment after the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    /// Zeroed and durable up to this many bytes.
    Filling(u64),
    /// Zeroed as a whole, its name durable.
    Ready,
}

/// A step of preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Space for the next identity.
    Identity,
    /// Zeros in a segment, which then reach to here.
    Zeros { segment: u64, zeroed: u64 },
}

/// The writer of identity, hard state and log. A plain value: it knows what is written, the node
/// knows what is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal {
    config: WalConfig,
    identity: Identity,
    hard: HardSlots,
    /// The current segment.
    segment: u64,
    /// Where its next batch goes.
    offset: u64,
    /// Its zeros reach to here; at least `offset`.
    zeroed: u64,
    /// The epoch of the next batch.
    epoch: u64,
    /// The newest entry written.
    last: LogIndex,
    /// The largest position in the current segment; `None` while it holds seals only.
    largest: Option<LogIndex>,
    /// Those before it that are still there, oldest first.
    closed: VecDeque<Closed>,
    spare: Spare,
    /// Whether space is set aside for the next identity.
    identity_room: bool,
    /// In lane `Log`: of the next identity and of the current segment.
    preparing: Option<Step>,
    /// In lane `State`: of the next segment. A snapshot may keep that lane busy for long.
    preparing_spare: Option<Step>,
    /// Bytes of the batch that waits for room; 0 if none does.
    wanted: u64,
}

/// The part of the current segment that a writer continues after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The segment.
    pub(super) segment: u64,
    /// Its header and its valid batches, without seals at the end.
    pub(super) content: Bytes,
    /// The epoch of the last of these batches.
    pub(super) epoch: u64,
    /// The newest entry of the log.
    pub(super) last: LogIndex,
    /// The largest position that the segment ever held; `None` if it holds seals only.
    pub(super) largest: Option<LogIndex>,
    /// The segments that are there before it, oldest first.
    pub(super) closed: Vec<Closed>,
}

/// A segment that has a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// The largest position that it ever held.
    pub(super) largest: LogIndex,
    /// Bytes of its file.
    pub(super) bytes: u64,
}

impl Tail {
    /// The tail of an empty log.
    pub(super) fn empty(store: StoreId) -> Self {
        let binding = Binding { store, file: 1 };
        let mut content = Vec::new();
        SegmentHead { binding, previous_end: 0, previous_epoch: 0 }.put(&mut content);
        Self {
            segment: 1,
            content: content.into(),
            epoch: 0,
            last: LogIndex::ZERO,
            largest: None,
            closed: Vec::new(),
        }
    }
}

impl Wal {
    /// A writer after `tail`, and the operations that make the tail durable and sealed.
    ///
    /// The tail's segment is replaced by a copy of its valid part, whatever it held behind it: what
    /// was read may have been in the page cache only (raft.md §11.5 step 5). With a `reset` the
    /// whole log is forgotten in the same step and goes on after that position.
    pub(super) fn resume(
        config: WalConfig,
        identity: Identity,
        hard: HardSlots,
        tail: Tail,
        reset: Option<LogIndex>,
    ) -> (Self, Vec<FileOp>) {
        let binding = Binding { store: identity.store, file: tail.segment };
        let base = tail.content.len() as u64;
        let mut added = Vec::new();
        let mut epoch = tail.epoch;
        let reset_item = reset.map(|position| Item::Reset(position.next()));
        for item in reset_item.into_iter().chain([Item::Seal]) {
            epoch += 1;
            put_batch(&mut added, base, binding, epoch, &[item]);
        }
        let end = base + added.len() as u64;
        let zeroed = (end + config.step_bytes).min(config.segment_bytes).max(end);
        let copy = FilePath::new("raft/wal/tail.tmp");
        let file = |file: &FilePath| file.clone();
        let ops = vec![
            FileOp::Write { file: file(&copy), offset: 0, data: tail.content },
            FileOp::Write { file: file(&copy), offset: base, data: added.into() },
            FileOp::SetLen { file: file(&copy), len: end },
            FileOp::WriteZeros { file: file(&copy), offset: end, len: zeroed - end },
            FileOp::Sync(file(&copy)),
            FileOp::Rename { from: copy, to: segment_file(tail.segment) },
            FileOp::SyncDir(Some(wal_dir())),
        ];
        let ops = if mutant!(M31) { Vec::new() } else { ops };
        let wal = Self {
            config,
            identity,
            hard,
            segment: tail.segment,
            offset: end,
            zeroed,
            epoch: epoch + 1,
            last: reset.unwrap_or(tail.last),
            largest: tail.largest.max(reset),
            closed: tail.closed.into(),
            spare: Spare::Filling(0),
            identity_room: false,
            preparing: None,
            preparing_spare: None,
            wanted: 0,
        };
        (wal, ops)
    }

    /// The operations that make `batch` durable, in lane `Log`.
    ///
    /// The log's format takes a batch as proof that the one before it is durable. Lanes give that:
    /// they perform operations in order, and nothing after one that failed. An empty batch needs
    /// nothing. Only a recovery, which may fail, writes where no room is prepared.
    ///
    /// - Source: raft.md §11.3, §11.4.
    /// - Cost: copies the batch once.
    /// - Panics: if the entries do not follow the log's end, or a truncation lies beyond it.
    ///   That a durable snapshot reaches to a reset is the caller's duty.
    pub fn append(&mut self, batch: &PersistBatch) -> Vec<FileOp> {
        let mut ops = Vec::with_capacity(6);
        let changed = self.identity.change(&batch.identity);
        self.identity_room &= !changed;
        // Who joins a cluster holds nothing of it before it says so; who founds one does not say so
        // before it holds the first entry: nobody else could give it that one.
        let founds = batch.identity.cluster == Some(self.identity.store.own_cluster());
        if changed && !founds {
            ops.extend(self.identity.write());
        }
        if let Some(hard) = batch.hard {
            self.hard.put(hard, &mut ops);
        }
        let mut items = Vec::with_capacity(batch.entries.len() + 2);
        if let Some(position) = batch.reset {
            assert!(position > LogIndex::ZERO, "a snapshot covers at least one entry");
            self.last = position;
            items.push(Item::Reset(position.next()));
        }
        if let Some(from) = batch.truncate_from {
            assert!(from > LogIndex::ZERO, "the log begins at index 1");
            assert!(from <= self.last.next(), "a truncation lies within the log");
            self.last = from.previous();
            items.push(Item::Truncate(from));
        }
        for entry in &batch.entries {
            assert!(entry.index == self.last.next(), "entries follow the end of the log");
            self.last = entry.index;
            items.push(Item::Entry(entry));
        }
        if !items.is_empty() {
            self.write(&items, &mut ops);
        }
        if changed && founds {
            ops.extend(self.identity.write());
        }
        ops
    }

    /// Whether [`Wal::append`] finds room for `batch`; if not, the next step of [`Wal::prepare`]
    /// makes it.
    pub fn has_room(&mut self, batch: &PersistBatch) -> bool {
        let identity = batch.identity == IdentityChange::default() || self.identity_room;
        let bytes = log_bytes(batch);
        if bytes == 0 {
            return identity;
        }
        let room = self.switches(bytes) || self.offset + bytes <= self.zeroed;
        self.wanted = if room { 0 } else { bytes };
        room && identity
    }

    /// The operations of a clean stop: they prove the last batch durable. Nothing follows them.
    /// Where there is no room for them they may fail, and the next start finds what it finds after
    /// a crash.
    pub fn seal(&mut self) -> Vec<FileOp> {
        let mut ops = Vec::new();
        self.write(&[Item::Seal], &mut ops);
        ops
    }

    /// Whether a batch of so many bytes begins the next segment.
    fn switches(&self, bytes: u64) -> bool {
        let size = self.config.segment_bytes;
        self.offset + bytes > size
            && SEGMENT_HEAD_BYTES as u64 + bytes <= size
            && self.spare == Spare::Ready
            && self.largest.is_some()
    }

    fn write(&mut self, items: &[Item<'_>], ops: &mut Vec<FileOp>) {
        let bytes = batch_bytes(items) as u64;
        let mut data = Vec::new();
        let mut base = self.offset;
        if self.switches(bytes)
            && let Some(largest) = self.largest.take()
        {
            mark!("storage.segment_switch");
            self.closed.push_back(Closed { largest, bytes: self.zeroed });
            self.segment += 1;
            let head = SegmentHead {
                binding: self.binding(),
                previous_end: self.offset,
                previous_epoch: self.epoch - 1,
            };
            head.put(&mut data);
            base = 0;
            self.zeroed = self.config.segment_bytes;
            self.spare = Spare::Filling(0);
        }
        self.largest = items.iter().filter_map(Item::position).max().max(self.largest);
        put_batch(&mut data, base, self.binding(), self.epoch, items);
        self.offset = base + data.len() as u64;
        self.zeroed = self.zeroed.max(self.offset);
        self.epoch += 1;
        let file = segment_file(self.segment);
        ops.push(FileOp::Write { file: file.clone(), offset: base, data: data.into() });
        ops.push(FileOp::Sync(file));
    }

    /// Fills a part of a segment with zeros, durably.
    fn zeros(segment: u64, from: u64, to: u64) -> Vec<FileOp> {
        let file = segment_file(segment);
        let zeros = FileOp::WriteZeros { file: file.clone(), offset: from, len: to - from };
        vec![zeros, FileOp::Sync(file)]
    }

    const fn binding(&self) -> Binding {
        Binding { store: self.identity.store, file: self.segment }
    }

    /// This data directory.
    pub const fn store(&self) -> StoreId {
        self.identity.store
    }

    /// The operations that remove the oldest segments, as far as all they ever held is at or before
    /// `to`; for any lane.
    ///
    /// Whatever a removed segment says, also of entries that a truncation forgot later, is covered
    /// by every snapshot at or after `to`, of which one must be durable. The oldest goes first, and
    /// its name is gone for good before the next one goes: a gap in the numbers is damage.
    ///
    /// The current segment and the one before it stay, also if they are covered: the header of the
    /// current one may still be on its way to the disk, and the oldest segment must be readable.
    /// With one batch on its way at a time, as raft persists, the header before it is durable.
    ///
    /// - Source: raft.md §9, §11.4. Segments are removed, not used again under a new number: the
    ///   next one is zeroed ahead of the writer anyway, and a file has one history.
    pub fn compact(&mut self, to: LogIndex) -> Vec<FileOp> {
        let mut ops = Vec::new();
        while self.closed.len() > 1
            && self.closed.front().is_some_and(|oldest| oldest.largest <= to)
        {
            mark!("storage.segment_removed");
            ops.push(FileOp::Remove(segment_file(self.segment - self.closed.len() as u64)));
            ops.push(FileOp::SyncDir(Some(wal_dir())));
            self.closed.pop_front();
        }
        ops
    }

    /// The next step of preparing room ahead of the writer, if one is due and none is on its way in
    /// its lane.
    ///
    /// To be asked until it has none: after every append, after every [`Wal::prepared`], and from
    /// time to time after a [`Wal::unprepared`]. Steps of the current segment go through lane
    /// `Log`; the next segment is prepared through lane `State`, where no append waits for it.
    pub fn prepare(&mut self) -> Option<StorageOp> {
        let (lane, step, ops) = self.step_of_log().or_else(|| self.step_of_spare())?;
        *self.preparation(lane) = Some(step);
        Some(StorageOp { lane, ops, deferrable: true })
    }

    fn step_of_log(&self) -> Option<(Lane, Step, Vec<FileOp>)> {
        if self.preparing.is_some() {
            return None;
        }
        if !self.identity_room {
            return Some((Lane::Log, Step::Identity, vec![Identity::set_space_aside()]));
        }
        let WalConfig { segment_bytes, step_bytes } = self.config;
        let ahead = self.zeroed < segment_bytes && self.zeroed - self.offset < step_bytes;
        if !ahead && self.offset + self.wanted <= self.zeroed {
            return None;
        }
        let ahead = (self.zeroed + step_bytes).min(segment_bytes);
        let (segment, zeroed) = (self.segment, ahead.max(self.offset + self.wanted));
        let ops = Self::zeros(segment, self.zeroed, zeroed);
        Some((Lane::Log, Step::Zeros { segment, zeroed }, ops))
    }

    fn step_of_spare(&self) -> Option<(Lane, Step, Vec<FileOp>)> {
        let WalConfig { segment_bytes, step_bytes } = self.config;
        let Spare::Filling(offset) = self.spare else { return None };
        if self.preparing_spare.is_some() || self.offset < segment_bytes / 2 {
            return None;
        }
        let (segment, zeroed) = (self.segment + 1, (offset + step_bytes).min(segment_bytes));
        let mut ops = Self::zeros(segment, offset, zeroed);
        if zeroed == segment_bytes {
            ops.push(FileOp::SyncDir(Some(wal_dir())));
        }
        Some((Lane::State, Step::Zeros { segment, zeroed }, ops))
    }

    const fn preparation(&mut self, lane: Lane) -> &mut Option<Step> {
        match lane {
            Lane::Log => &mut self.preparing,
            Lane::State => &mut self.preparing_spare,
        }
    }

    /// The step of this lane that [`Wal::prepare`] asked for is done.
    pub fn prepared(&mut self, lane: Lane) {
        let done = self.preparation(lane).take();
        match done.expect("a step was on its way") {
            Step::Identity => self.identity_room = true,
            Step::Zeros { segment, zeroed } if segment > self.segment => {
                let whole = zeroed == self.config.segment_bytes;
                self.spare = if whole { Spare::Ready } else { Spare::Filling(zeroed) };
            }
            Step::Zeros { segment, zeroed } if segment == self.segment => {
                self.zeroed = self.zeroed.max(zeroed);
            }
            // The segment is full by now.
            Step::Zeros { .. } => {}
        }
    }

    /// There is no space for the step of this lane that [`Wal::prepare`] asked for.
    pub const fn unprepared(&mut self, lane: Lane) {
        *self.preparation(lane) = None;
    }

    /// Whether everything that is due is prepared: no step is on its way, and none is wanted. One
    /// that found no space may be wanted no longer: a batch began the next segment.
    pub fn is_prepared(&self) -> bool {
        let under_way = self.preparing.is_some() || self.preparing_spare.is_some();
        !under_way && self.step_of_log().is_none() && self.step_of_spare().is_none()
    }

    /// Bytes of all segments, with what is prepared and not written yet.
    pub fn bytes(&self) -> u64 {
        let spare = match self.spare {
            Spare::Filling(bytes) => bytes,
            Spare::Ready => self.config.segment_bytes,
        };
        self.closed.iter().map(|closed| closed.bytes).sum::<u64>() + self.zeroed + spare
    }

    /// Bytes that a start needs on the disk before it gives any back: those of a copy of the last
    /// segment ([`Wal::resume`]), rarely more.
    pub const fn restart_bytes(&self) -> u64 {
        self.config.segment_bytes + self.config.step_bytes
    }
}

#[cfg(test)]
mod compaction;
#[cfg(test)]
mod tests;
