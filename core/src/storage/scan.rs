//! Reading the log back: entries, or a verdict on the first byte that is not what it should be.
//!
//! Source: raft.md §11.5 step 4. A batch that cannot be read is
//!
//! - *damage* if anything proves that it was durable: a valid record of a later epoch anywhere
//!   behind it, or a following segment whose header says that it reached further. The log ends
//!   before it, and what can be read behind tells how much is lost ([`Lost`]).
//! - *torn* otherwise: the newest batch, whose sync never returned. It is cut as a whole, and
//!   nobody was told of it.
//!
//! The oldest segments are removed once snapshots cover them (`Wal::compact`), so the first one
//! present may have any number, and what it begins with need not begin the log. What came before is
//! the *base*: the position behind which the log's entries begin. Recovery decides whether a
//! snapshot reaches to it.
//!
//! - The first entry found sets the base to the position before it.
//! - A truncation at or below the base lowers it. What was removed held entries that a snapshot
//!   covers; those the truncation forgets were then replaced, by entries that follow here. Entries
//!   that a snapshot covers are committed, so no truncation that came after the snapshot reaches
//!   below it.
//! - A reset sets the base, and nothing lowers it from there on.
//!
//! Bytes are hostile: a scan never panics and keeps no more than the bytes it was given.

use super::StorageDamage;
use super::op::FilePath;
use super::record::{self, Binding, Record};
use super::wal::{
    Closed, HeadFault, SEGMENT_HEAD_BYTES, SegmentHead, Tail, entry_kind, kind, segment_file,
};
use crate::id::{LogIndex, StoreId, Term};
use crate::mark;
use crate::raft::{Configuration, Entry, EntryKind};
use crate::wire::pack;
use bytes::Bytes;
use thiserror::Error;

/// Positions and epochs beyond this are not counted to in any server's life.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a log cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// Something that was durable is not readable; or it is, and contradicts what stands before
    /// it, which no disk does.
    #[error(transparent)]
    Damage(#[from] StorageDamage),
    /// A later release wrote the file.
    #[error("{file} has the unknown format version {version}")]
    Version {
        /// The file.
        file: FilePath,
        /// What it says.
        version: u32,
    },
}

/// A newest batch that was never durable and is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: FilePath,
    /// Where the batch begins, in bytes.
    pub offset: u64,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Something that was durable and is not readable any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where the log ends for that reason.
    pub damage: StorageDamage,
    /// The newest entry that is told of behind it.
    pub last: Option<LogIndex>,
    /// The newest configuration that can be read behind it, and its entry.
    pub configuration: Option<(LogIndex, Configuration)>,
}

/// What is readable of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The position after which the entries begin; zero for a whole log.
    pub base: LogIndex,
    /// Whether the tail tells that position; otherwise there are no entries.
    pub anchored: bool,
    /// All entries, without a gap.
    pub entries: Vec<Entry>,
    /// What the writer continues after.
    pub tail: Tail,
    /// Set if a torn batch was cut.
    pub torn: Option<TornTail>,
    /// Segments behind the tail, to be removed: without content, or behind what is lost.
    pub unused: Vec<FilePath>,
    /// Set if something that was durable is not readable.
    pub lost: Option<Lost>,
}

/// Scans the segments of a log, given in the order of their numbers; one that lost something is an
/// error.
pub fn scan(
    store: StoreId,
    segments: impl IntoIterator<Item = (u64, Bytes)>,
) -> Result<Scanned, ScanError> {
    let mut scanner = Scanner::new(store);
    for (number, bytes) in segments {
        scanner.segment(number, bytes)?;
    }
    let scanned = scanner.finish();
    match scanned.lost {
        Some(lost) => Err(lost.damage.into()),
        None => Ok(scanned),
    }
}

/// The newest segment with a valid header.
#[derive(Clone, Debug)]
struct Current {
    number: u64,
    bytes: Bytes,
    /// Where its valid batches end.
    end: usize,
    /// Where those end that are more than a seal.
    content_end: usize,
    /// The rule that what stands at `end` breaks; `None` if there are zeros only.
    broken: Option<&'static str>,
}

/// A scan that takes one segment at a time and keeps the bytes of the newest only.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    store: StoreId,
    /// The position after which the entries begin; `None` as long as nothing tells it.
    base: Option<LogIndex>,
    /// Whether entries at or below the base may have been in segments that were removed.
    open: bool,
    entries: Vec<Entry>,
    /// The largest position that the current segment ever held, and each before it.
    largest: Option<LogIndex>,
    closed: Vec<Closed>,
    /// The epoch of the last valid batch.
    epoch: u64,
    /// The epoch of the last valid batch that is more than a seal.
    content_epoch: u64,
    current: Option<Current>,
    /// Segments behind it that hold no valid batch, at most a torn one and its spare in practice;
    /// or all of them, if something is lost.
    unused: Vec<u64>,
    torn: Option<TornTail>,
    lost: Option<Lost>,
}

/// What is wrong with a segment.
enum Fault {
    /// It lacks something that was durable.
    Lost(StorageDamage),
    /// It cannot be used at all.
    Unusable(ScanError),
}

impl From<StorageDamage> for Fault {
    fn from(damage: StorageDamage) -> Self {
        Self::Lost(damage)
    }
}

fn damage(number: u64, offset: usize, rule: &'static str) -> StorageDamage {
    StorageDamage { file: segment_file(number), offset: offset as u64, rule }
}

impl Scanner {
    pub(super) const fn new(store: StoreId) -> Self {
        Self {
            store,
            base: Some(LogIndex::ZERO),
            open: false,
            entries: Vec::new(),
            largest: None,
            closed: Vec::new(),
            epoch: 0,
            content_epoch: 0,
            current: None,
            unused: Vec::new(),
            torn: None,
            lost: None,
        }
    }

    /// Takes the next segment.
    pub(super) fn segment(&mut self, number: u64, bytes: Bytes) -> Result<(), ScanError> {
        if self.lost.is_some() {
            return self.behind(number, &bytes);
        }
        match self.next(number, bytes.clone()) {
            Ok(()) => Ok(()),
            Err(Fault::Unusable(error)) => Err(error),
            Err(Fault::Lost(damage)) => {
                self.lost = Some(Lost { damage, last: None, configuration: None });
                match self.current.as_ref().map(|it| (it.number, it.bytes.clone(), it.end)) {
                    Some((current, rest, end)) => {
                        self.search(current, &rest, end);
                        if current == number { Ok(()) } else { self.behind(number, &bytes) }
                    }
                    None => self.behind(number, &bytes),
                }
            }
        }
    }

    /// A segment behind what is lost: only looked through, since what it follows is not known.
    fn behind(&mut self, number: u64, bytes: &[u8]) -> Result<(), ScanError> {
        let binding = Binding { store: self.store, file: number };
        if let Err(HeadFault::Version(version)) = SegmentHead::read(bytes, binding) {
            return Err(ScanError::Version { file: segment_file(number), version });
        }
        self.search(number, bytes, SEGMENT_HEAD_BYTES);
        // Those that hold no valid batch are named already.
        if self.unused.last().is_none_or(|last| *last < number) {
            self.unused.push(number);
        }
        Ok(())
    }

    /// Looks for entries behind what is lost.
    fn search(&mut self, number: u64, bytes: &[u8], from: usize) {
        let binding = Binding { store: self.store, file: number };
        let Some(lost) = &mut self.lost else { return };
        for (at, head) in record::heads(bytes, from, binding) {
            if head.kind != kind::ENTRY || head.index > NUMBER_MAX {
                continue;
            }
            lost.last = lost.last.max(Some(LogIndex::new(head.index)));
            let entry = record::read(bytes, at, binding).ok().and_then(|it| read_entry(&it));
            let config = entry.filter(|entry| entry.kind == EntryKind::Config);
            let read = |entry: Entry| Some((entry.index, pack::from_bytes(&entry.payload).ok()?));
            lost.configuration = config.and_then(read).or_else(|| lost.configuration.take());
        }
    }

    fn next(&mut self, number: u64, bytes: Bytes) -> Result<(), Fault> {
        let expected = match &self.current {
            None => number.max(1),
            Some(current) => current.number + self.unused.len() as u64 + 1,
        };
        if number != expected {
            return Err(damage(expected, 0, "the segment is missing").into());
        }
        let binding = Binding { store: self.store, file: number };
        match SegmentHead::read(&bytes, binding) {
            Ok(head) => {
                if let Some(unreadable) = self.unused.first() {
                    let rule = "the segment header is unreadable, and a later segment is in use";
                    return Err(damage(*unreadable, 0, rule).into());
                }
                if self.current.is_none() && number > 1 {
                    self.begin_after_removed(head)?;
                } else {
                    self.check_end_of_previous(head)?;
                }
                self.replay(number, bytes)
            }
            Err(HeadFault::Version(version)) => {
                let file = segment_file(number);
                Err(Fault::Unusable(ScanError::Version { file, version }))
            }
            Err(HeadFault::Unreadable(rule)) => Ok(self.without_header(binding, &bytes, rule)?),
        }
    }

    /// Those before the first segment were removed, so what its header says of them is taken over.
    fn begin_after_removed(&mut self, head: SegmentHead) -> Result<(), StorageDamage> {
        if head.previous_epoch > NUMBER_MAX {
            return Err(damage(head.binding.file, 0, "the segment header has an impossible epoch"));
        }
        self.epoch = head.previous_epoch;
        (self.base, self.open) = (None, true);
        Ok(())
    }

    /// The header of a segment tells where the one before it ended.
    fn check_end_of_previous(&self, head: SegmentHead) -> Result<(), StorageDamage> {
        let (end, number, broken) = match &self.current {
            None => (0, head.binding.file, None),
            Some(current) => (current.end, current.number, current.broken),
        };
        if head.previous_end == end as u64 && head.previous_epoch == self.epoch {
            return Ok(());
        }
        let rule = broken.unwrap_or("the segment does not end where its successor says");
        Err(damage(number, end, rule))
    }

    /// A segment whose header is not valid: unused yet, torn in its first batch, or damaged.
    fn without_header(
        &mut self,
        binding: Binding,
        bytes: &[u8],
        rule: &'static str,
    ) -> Result<(), StorageDamage> {
        // The header is written with the first batch, which has the next epoch. The first segment
        // gets its name with its header.
        let first = self.current.is_none();
        let head_bytes = SEGMENT_HEAD_BYTES.min(bytes.len()).next_multiple_of(8);
        if first || record::later_epoch(bytes, head_bytes, binding, self.epoch + 1) {
            return Err(damage(binding.file, 0, rule));
        }
        let file = || segment_file(binding.file);
        let written = bytes.iter().any(|byte| *byte != 0);
        let torn = written.then(|| TornTail { file: file(), offset: 0, rule });
        self.torn = self.torn.take().or(torn);
        self.unused.push(binding.file);
        Ok(())
    }

    fn replay(&mut self, number: u64, bytes: Bytes) -> Result<(), Fault> {
        let binding = Binding { store: self.store, file: number };
        let mut end = SEGMENT_HEAD_BYTES;
        let mut content_end = end;
        self.content_epoch = self.epoch;
        if let Some(current) = &self.current {
            let largest = self.largest.take().unwrap_or(LogIndex::ZERO);
            self.closed.push(Closed { largest, bytes: current.bytes.len() as u64 });
        }
        let broken = loop {
            match read_batch(&bytes, end, binding, self.epoch + 1) {
                Ok(batch) => {
                    for record in &batch.records {
                        let contradicts = |rule| Fault::Unusable(damage(number, end, rule).into());
                        self.apply(record).map_err(contradicts)?;
                    }
                    self.epoch += 1;
                    end = batch.end;
                    if !batch.is_seal() {
                        content_end = end;
                        self.content_epoch = self.epoch;
                    }
                }
                Err(rule) => break rule,
            }
        };
        let proven = record::later_epoch(&bytes, end, binding, self.epoch + 1);
        let clean = bytes.iter().skip(end).all(|byte| *byte == 0);
        let rule = broken;
        let broken = (!clean).then_some(broken);
        self.current = Some(Current { number, bytes, end, content_end, broken });
        if proven { Err(damage(number, end, rule).into()) } else { Ok(()) }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), &'static str> {
        let head = record.head;
        if head.kind == kind::SEAL {
            return Ok(());
        }
        let before = head.index.checked_sub(1).filter(|before| *before < NUMBER_MAX);
        let before = LogIndex::new(before.ok_or("a record has an impossible position")?);
        let position = match head.kind {
            kind::RESET => {
                self.entries.clear();
                (self.base, self.open) = (Some(before), false);
                before
            }
            kind::TRUNCATE => {
                self.truncate_after(before)?;
                before
            }
            kind::ENTRY => {
                let last = self.entries.last();
                let base = *self.base.get_or_insert(before);
                let follows = base.get() + self.entries.len() as u64 == before.get();
                if !follows || last.is_some_and(|last| head.term < last.term.get()) {
                    return Err("an entry does not follow the one before it");
                }
                self.entries.push(read_entry(record).ok_or("an entry's payload is not legal")?);
                before.next()
            }
            _ => return Err("a record is of unknown kind"),
        };
        self.largest = self.largest.max(Some(position));
        Ok(())
    }

    fn truncate_after(&mut self, kept: LogIndex) -> Result<(), &'static str> {
        let base = *self.base.get_or_insert(kept);
        if kept < base {
            if !self.open {
                return Err("a truncation lies before the beginning of the log");
            }
            mark!("storage.base_lowered");
            self.base = Some(kept);
        }
        let count = usize::try_from(kept.above(base)).ok();
        let count = count.filter(|count| *count <= self.entries.len());
        self.entries.truncate(count.ok_or("a truncation lies beyond the end of the log")?);
        Ok(())
    }

    /// The verdict on the whole log.
    pub(super) fn finish(mut self) -> Scanned {
        if self.lost.is_none() {
            let unknown = "the oldest segment does not tell where the log begins";
            let damage = match &self.current {
                None => Some(damage(1, 0, "the segment is missing")),
                Some(current) if self.base.is_none() => {
                    Some(damage(current.number, current.end, unknown))
                }
                Some(_) => None,
            };
            let lost = |damage| Lost { damage, last: None, configuration: None };
            self.lost = damage.map(lost);
        }
        let torn = if self.lost.is_some() { None } else { self.torn_tail() };
        if torn.is_some() {
            mark!("storage.torn_tail_cut");
        }
        let anchored = self.current.is_none() || self.base.is_some();
        let base = self.base.unwrap_or_default();
        let last = self.entries.last().map_or(base, |entry| entry.index);
        let tail = match self.current {
            None => Tail::empty(self.store),
            Some(current) => Tail {
                segment: current.number,
                content: current.bytes.slice(..current.content_end),
                epoch: self.content_epoch,
                last,
                largest: self.largest,
                closed: self.closed,
            },
        };
        let unused = self.unused.into_iter().map(segment_file).collect();
        Scanned { base, anchored, entries: self.entries, tail, torn, unused, lost: self.lost }
    }

    fn torn_tail(&mut self) -> Option<TornTail> {
        let torn_here = self.current.as_ref().and_then(|current| {
            let (file, offset) = (segment_file(current.number), current.end as u64);
            current.broken.map(|rule| TornTail { file, offset, rule })
        });
        torn_here.or_else(|| self.torn.take())
    }
}

fn read_entry(record: &Record<'_>) -> Option<Entry> {
    let (chain, rest) = record.payload.split_first_chunk::<8>()?;
    let (code, payload) = rest.split_first()?;
    Some(Entry {
        index: LogIndex::new(record.head.index),
        term: Term::new(record.head.term),
        kind: entry_kind(*code)?,
        // A copy: a slice would keep the whole segment in memory, zeros included.
        payload: Bytes::copy_from_slice(payload),
        chain: u64::from_be_bytes(*chain),
    })
}

/// One whole batch.
struct Batch<'a> {
    records: Vec<Record<'a>>,
    end: usize,
}

impl Batch<'_> {
    fn is_seal(&self) -> bool {
        self.records.iter().all(|record| record.head.kind == kind::SEAL)
    }
}

/// Reads the batch of `epoch` at byte `at`; an error names the first broken rule.
fn read_batch(
    bytes: &[u8],
    at: usize,
    binding: Binding,
    epoch: u64,
) -> Result<Batch<'_>, &'static str> {
    let head = record::read(bytes, at, binding)?;
    if head.head.kind != kind::BATCH_HEAD {
        return Err("a batch begins with another record than its head");
    }
    if head.head.epoch != epoch {
        return Err("a batch is not of the epoch that comes next");
    }
    let too_long = "a batch is longer than its file";
    let length = record::number(head.payload).and_then(|length| usize::try_from(length).ok());
    let end = length.and_then(|length| head.end.checked_add(length)).ok_or(too_long)?;
    let within = bytes.get(..end).ok_or(too_long)?;
    let mut records = Vec::new();
    let mut next = head.end;
    while next < end {
        let record = record::read(within, next, binding)?;
        if record.head.epoch != epoch || record.head.kind == kind::BATCH_HEAD {
            return Err("a batch holds a record of another one");
        }
        next = record.end;
        records.push(record);
    }
    Ok(Batch { records, end })
}
