//! A simulated disk: the core's file operations on files in memory, with what a crash does to them.
//!
//! Source: simulation.md §5.1. A file is a durable image and the ordered writes since its last
//! sync, cut into sectors of 512 bytes; a folder's entries are durable only after the folder was
//! synced. A crash of the process loses nothing that reached the disk's cache; a loss of power
//! keeps what a [`Loss`] decides, tears a sector, and undoes the newest folder changes. An
//! operation that is on its way when either happens is interrupted at a random point.
//!
//! The disk knows no time: the world decides when an operation is complete. All randomness comes
//! from the generator each call is given, so a run is a function of its seed.
//!
//! Assumed: renames are atomic, folder changes reach the disk in the order they were made, and a
//! write damages no sector outside its range (raft.md §11.1).

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use terraform_core::id::WriteId;
use terraform_core::marks;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::op::{FileOp, FilePath, Lane, StorageFault, StorageOp};
use terraform_core::storage::recovery::{Answer, Step};

/// Bytes that a disk writes as one, or tears.
pub const SECTOR_BYTES: usize = 512;

/// What a crash spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; the machine goes on, with everything that is in its cache.
    Process,
    /// The machine loses power.
    Power(Loss),
}

/// What a loss of power keeps of a file's writes since its last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// None of them.
    All,
    /// All of them.
    Nothing,
    /// The first so many sectors, in the order they were written.
    Suffix,
    /// A random choice of sectors, one of which may be torn.
    Subset,
    /// For each file one of the four, in the proportion 10:10:30:50.
    Mixed,
}

/// How a sync fails (simulation.md §5.1, "fsync error").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// The content stays readable, is not durable, and no later sync makes it so (ext4, XFS).
    Forget,
    /// The content is what it was at the last sync (Btrfs).
    Revert,
}

/// Which file a name leads to.
type FileId = u64;

/// What the folders hold.
#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<FilePath, FileId>,
    folders: BTreeSet<FilePath>,
}

impl Names {
    fn has_folder(&self, folder: Option<&FilePath>) -> bool {
        folder.is_none_or(|folder| self.folders.contains(folder))
    }

    /// Drops what stands in folders that are not there.
    fn drop_unreachable(&mut self) {
        let Self { files, folders } = self;
        // A parent sorts before what it holds, so one pass from the front finds all.
        let mut reachable = BTreeSet::new();
        for folder in std::mem::take(folders) {
            if folder.parent().is_none_or(|parent| reachable.contains(&parent)) {
                reachable.insert(folder);
            }
        }
        *folders = reachable;
        files.retain(|path, _| path.parent().is_none_or(|parent| folders.contains(&parent)));
    }
}

/// A part of a write within one sector, or a change of the length.
#[derive(Clone, Debug)]
enum Piece {
    Bytes { offset: usize, data: Bytes },
    Length(usize),
}

impl Piece {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(len) => image.resize(*len, 0),
            Self::Bytes { offset, data } => {
                let end = offset + data.len();
                image.resize(image.len().max(end), 0);
                let place = image.get_mut(*offset..end).expect("the image reaches to here");
                place.copy_from_slice(data);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What reads return.
    content: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// What makes the one the other, in order.
    pending: Vec<Piece>,
    /// Bytes that are set aside for it.
    allocated: u64,
}

impl File {
    /// Bytes of the quota that it takes.
    fn bytes(&self) -> u64 {
        self.allocated.max(self.content.len() as u64)
    }

    fn write(&mut self, offset: usize, data: &Bytes) {
        let mut start = 0;
        while start < data.len() {
            let room = SECTOR_BYTES - (offset + start) % SECTOR_BYTES;
            let end = data.len().min(start + room);
            self.push(Piece::Bytes { offset: offset + start, data: data.slice(start..end) });
            start = end;
        }
    }

    fn push(&mut self, piece: Piece) {
        piece.apply(&mut self.content);
        self.pending.push(piece);
    }

    fn sync(&mut self) {
        self.pending.drain(..).for_each(|piece| piece.apply(&mut self.durable));
    }

    fn lose(&mut self, loss: Loss, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        let kept = |keep: usize| pending.iter().take(keep);
        match loss {
            Loss::All => {}
            Loss::Nothing => pending.iter().for_each(|piece| piece.apply(&mut self.durable)),
            Loss::Suffix => {
                let keep = rng.index(pending.len() + 1);
                kept(keep).for_each(|piece| piece.apply(&mut self.durable));
            }
            Loss::Subset => {
                let torn = rng.index(pending.len().max(1) * 2);
                for (number, piece) in pending.iter().enumerate() {
                    if number == torn {
                        tear(piece, &mut self.durable, rng);
                    } else if rng.chance(1, 2) {
                        piece.apply(&mut self.durable);
                    }
                }
            }
            Loss::Mixed => {
                self.pending = pending;
                let loss = match rng.below(10) {
                    0 => Loss::All,
                    1 => Loss::Nothing,
                    2..=4 => Loss::Suffix,
                    _ => Loss::Subset,
                };
                return self.lose(loss, rng);
            }
        }
        self.content.clone_from(&self.durable);
    }
}

/// Writes a part of a piece, zeros or garbage in its place.
fn tear(piece: &Piece, image: &mut Vec<u8>, rng: &mut Rng) {
    let Piece::Bytes { offset, data } = piece else { return };
    let data = match rng.below(3) {
        0 => data.slice(..rng.index(data.len())),
        1 => Bytes::from(vec![0; data.len()]),
        _ => data.iter().map(|byte| byte ^ u8::try_from(rng.below(256)).unwrap_or(0)).collect(),
    };
    Piece::Bytes { offset: *offset, data }.apply(image);
}

/// A change of a folder's entries.
#[derive(Clone, Debug)]
enum Entry {
    Folder(FilePath),
    Create(FilePath, FileId),
    Rename(FilePath, FilePath),
    Remove(FilePath),
}

impl Entry {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Folder(path) => {
                names.folders.insert(path.clone());
            }
            Self::Create(path, file) => {
                names.files.insert(path.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.files.remove(from) {
                    names.files.insert(to.clone(), file);
                }
            }
            Self::Remove(path) => {
                names.files.remove(path);
            }
        }
    }

    /// Whether it is an entry of this folder; a rename belongs to the folder it leads to.
    fn is_in(&self, folder: Option<&FilePath>) -> bool {
        let (Self::Folder(path)
        | Self::Create(path, _)
        | Self::Rename(_, path)
        | Self::Remove(path)) = self;
        path.parent().as_ref() == folder
    }
}

/// One server's disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    files: BTreeMap<FileId, File>,
    next_file: FileId,
    names: Names,
    durable_names: Names,
    /// Changes of folders since they were synced, in order.
    entries: Vec<Entry>,
    /// Operations on their way, oldest first.
    log: VecDeque<(WriteId, StorageOp)>,
    state: VecDeque<(WriteId, StorageOp)>,
    /// Lanes that failed, and how.
    failed: BTreeMap<Lane, StorageFault>,
    /// What befalls the next syncs of the log.
    sync_faults: VecDeque<SyncFault>,
    /// Whether the operation under way is of the log.
    log_works: bool,
    quota_bytes: Option<u64>,
}

impl SimDisk {
    /// An empty disk without a quota.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes of all files together; `None` lifts the limit.
    pub fn set_quota(&mut self, bytes: Option<u64>) {
        self.quota_bytes = bytes;
    }

    /// Whether there is a limit.
    pub const fn is_limited(&self) -> bool {
        self.quota_bytes.is_some()
    }

    /// Leaves no more than `room` bytes of space.
    pub fn fill(&mut self, room: u64) {
        self.quota_bytes = Some(self.used() + room);
    }

    fn used(&self) -> u64 {
        let bytes = |file: &FileId| self.files.get(file).map_or(0, File::bytes);
        self.names.files.values().map(bytes).sum()
    }

    /// Makes the next sync of the log's lane fail that has none planned yet.
    pub fn fail_sync(&mut self, fault: SyncFault) {
        self.sync_faults.push_back(fault);
    }

    /// No sync fails any more that has not failed yet.
    pub fn heal_syncs(&mut self) {
        self.sync_faults.clear();
    }

    /// Takes an operation; nothing of it happens before it completes or a crash interrupts it.
    pub fn start(&mut self, write: WriteId, op: StorageOp) {
        self.lane(op.lane).push_back((write, op));
    }

    /// Completes the oldest operation of a lane, if there is one.
    pub fn complete(&mut self, lane: Lane) -> Option<(WriteId, Result<(), StorageFault>)> {
        let (write, op) = self.lane(lane).pop_front()?;
        if let Some(fault) = self.failed.get(&lane) {
            return Some((write, Err(*fault)));
        }
        self.log_works = lane == Lane::Log;
        let result = self.perform(&op.ops);
        self.log_works = false;
        if let Err(fault) = result
            && !op.may_fail_with(fault)
        {
            self.failed.insert(lane, fault);
        }
        Some((write, result))
    }

    const fn lane(&mut self, lane: Lane) -> &mut VecDeque<(WriteId, StorageOp)> {
        match lane {
            Lane::Log => &mut self.log,
            Lane::State => &mut self.state,
        }
    }

    /// Performs operations in order and stops at the first that fails.
    pub fn perform(&mut self, ops: &[FileOp]) -> Result<(), StorageFault> {
        ops.iter().try_for_each(|op| match self.perform_one(op) {
            // A host that tries a failed sync again (PostgreSQL's bug of 2018).
            Err(StorageFault::Io) if marks::mutant_on("M30") => self.perform_one(op),
            result => result,
        })
    }

    fn perform_one(&mut self, op: &FileOp) -> Result<(), StorageFault> {
        match op {
            FileOp::CreateDir(folder) => self.create_folder(folder),
            FileOp::Write { file, offset, data } => self.write(file, *offset, data)?,
            FileOp::WriteZeros { file, offset, len } => {
                self.write(file, *offset, &Bytes::from(vec![0; size(*len)]))?;
            }
            FileOp::SetLen { file, len } => {
                self.reserve(file, *len)?;
                let file = self.open(file)?;
                file.allocated = 0;
                file.push(Piece::Length(size(*len)));
            }
            FileOp::Allocate { file, len } => {
                self.reserve(file, *len)?;
                let file = self.open(file)?;
                file.allocated = file.allocated.max(*len);
            }
            FileOp::Sync(file) => self.sync(file)?,
            FileOp::SyncDir(folder) => self.sync_folder(folder.as_ref())?,
            FileOp::Rename { from, to } => {
                let possible = self.names.files.contains_key(from)
                    && self.names.has_folder(to.parent().as_ref());
                if !possible {
                    return Err(StorageFault::Io);
                }
                self.change(Entry::Rename(from.clone(), to.clone()));
                self.forget_unnamed();
            }
            FileOp::Remove(file) => {
                if self.names.files.contains_key(file) {
                    self.change(Entry::Remove(file.clone()));
                    self.forget_unnamed();
                }
            }
        }
        Ok(())
    }

    fn create_folder(&mut self, folder: &FilePath) {
        if let Some(parent) = folder.parent() {
            self.create_folder(&parent);
        }
        if !self.names.folders.contains(folder) {
            self.change(Entry::Folder(folder.clone()));
        }
    }

    fn sync_folder(&mut self, folder: Option<&FilePath>) -> Result<(), StorageFault> {
        if !self.names.has_folder(folder) {
            return Err(StorageFault::Io);
        }
        let entries = std::mem::take(&mut self.entries).into_iter();
        let (synced, rest): (Vec<Entry>, _) = entries.partition(|entry| entry.is_in(folder));
        synced.iter().for_each(|entry| entry.apply(&mut self.durable_names));
        self.entries = rest;
        self.forget_unnamed();
        Ok(())
    }

    fn change(&mut self, entry: Entry) {
        entry.apply(&mut self.names);
        self.entries.push(entry);
    }

    /// Drops files that no name leads to any more, whatever a crash does.
    fn forget_unnamed(&mut self) {
        let created = self.entries.iter().filter_map(|entry| match entry {
            Entry::Create(_, file) => Some(file),
            Entry::Folder(_) | Entry::Rename(..) | Entry::Remove(_) => None,
        });
        let named = self.names.files.values().chain(self.durable_names.files.values());
        let named: BTreeSet<FileId> = named.chain(created).copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }

    /// The file with this name, created if its folder is there.
    fn open(&mut self, path: &FilePath) -> Result<&mut File, StorageFault> {
        let file = if let Some(file) = self.names.files.get(path) {
            *file
        } else {
            if !self.names.has_folder(path.parent().as_ref()) {
                return Err(StorageFault::Io);
            }
            let file = self.next_file;
            self.next_file += 1;
            self.change(Entry::Create(path.clone(), file));
            file
        };
        Ok(self.files.entry(file).or_default())
    }

    fn write(&mut self, path: &FilePath, offset: u64, data: &Bytes) -> Result<(), StorageFault> {
        self.reserve(path, offset + data.len() as u64)?;
        self.open(path)?.write(size(offset), data);
        Ok(())
    }

    /// Refuses to let a file grow to `len` bytes if the quota does not allow it.
    fn reserve(&self, path: &FilePath, len: u64) -> Result<(), StorageFault> {
        let Some(quota) = self.quota_bytes else { return Ok(()) };
        let used = self.used();
        let old = self.names.files.get(path).and_then(|file| self.files.get(file));
        let old = old.map_or(0, File::bytes);
        if used + len.saturating_sub(old) > quota { Err(StorageFault::Full) } else { Ok(()) }
    }

    fn sync(&mut self, path: &FilePath) -> Result<(), StorageFault> {
        let file = self.names.files.get(path).and_then(|file| self.files.get_mut(file));
        let file = file.ok_or(StorageFault::Io)?;
        let planned = if self.log_works { self.sync_faults.pop_front() } else { None };
        match planned {
            None => {
                file.sync();
                return Ok(());
            }
            Some(SyncFault::Forget) => file.pending.clear(),
            Some(SyncFault::Revert) => {
                file.pending.clear();
                file.content.clone_from(&file.durable);
            }
        }
        Err(StorageFault::Io)
    }

    /// Ends the run of the process, and of the machine if the power is lost.
    ///
    /// The operation at the head of each lane is done up to a random point; those behind it have
    /// not begun. Planned faults stay planned.
    pub fn crash(&mut self, crash: Crash, rng: &mut Rng) {
        for lane in [Lane::Log, Lane::State] {
            let first = self.lane(lane).pop_front().filter(|_| !self.failed.contains_key(&lane));
            self.lane(lane).clear();
            if let Some((_, op)) = first {
                let done = rng.index(op.ops.len() + 1);
                // A failure is no news to a process that is gone.
                let _: Result<(), StorageFault> =
                    op.ops.iter().take(done).try_for_each(|op| self.perform_one(op));
            }
        }
        self.failed.clear();
        let Crash::Power(loss) = crash else { return };
        let kept = match loss {
            Loss::All => 0,
            Loss::Nothing => self.entries.len(),
            Loss::Suffix | Loss::Subset | Loss::Mixed => rng.index(self.entries.len() + 1),
        };
        for entry in std::mem::take(&mut self.entries).iter().take(kept) {
            entry.apply(&mut self.durable_names);
        }
        self.durable_names.drop_unreachable();
        self.names = self.durable_names.clone();
        self.files.values_mut().for_each(|file| file.lose(loss, rng));
        self.forget_unnamed();
    }

    /// What would be there if the machine lost power at this moment and kept nothing unsynced:
    /// operations under way are not done.
    #[must_use]
    pub fn durable(&self) -> Self {
        let mut disk = self.clone();
        disk.lane(Lane::Log).clear();
        disk.lane(Lane::State).clear();
        // With nothing under way and nothing spared, no draw decides anything.
        let mut rng = Rng::for_stream(Seed::from_number(0), Stream::Node);
        disk.crash(Crash::Power(Loss::All), &mut rng);
        disk.quota_bytes = None;
        disk
    }

    /// Does what a recovery asks for; `None` if the step is its end.
    pub fn answer(&mut self, step: &Step) -> Option<Answer> {
        Some(match step {
            Step::List(folder) => Answer::Names(self.list(folder.as_ref())),
            Step::Read { file, limit } => match self.read(file) {
                Some(content) if content.len() as u64 > *limit => {
                    Answer::TooLarge(content.len() as u64)
                }
                content => Answer::Content(content.map(Bytes::copy_from_slice)),
            },
            Step::ReadPart { file, offset, limit } => {
                let part = |content: &[u8]| {
                    let rest = content.get(size(*offset)..).unwrap_or_default();
                    Bytes::copy_from_slice(rest.get(..size(*limit)).unwrap_or(rest))
                };
                Answer::Content(self.read(file).map(part))
            }
            Step::Perform(ops) => match self.perform(ops) {
                Ok(()) => Answer::Performed,
                Err(fault) => Answer::Failed(fault),
            },
            Step::Done(_) | Step::Refused(_) => return None,
        })
    }

    /// The content of a file, durable or not.
    pub fn read(&self, file: &FilePath) -> Option<&[u8]> {
        self.files.get(self.names.files.get(file)?).map(|file| file.content.as_slice())
    }

    /// The names in a folder, in order.
    pub fn list(&self, folder: Option<&FilePath>) -> Vec<String> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let all = self.names.files.keys().chain(&self.names.folders);
        let below = all.filter_map(|path| path.as_str().strip_prefix(&prefix));
        let names: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Flips one bit of a file at rest, counted from its start modulo its length; whether the file
    /// is there and has any.
    pub fn rot(&mut self, file: &FilePath, bit: u64) -> bool {
        let Some(file) = self.names.files.get(file).and_then(|file| self.files.get_mut(file))
        else {
            return false;
        };
        let Some(bit) = bit.checked_rem(file.content.len() as u64 * 8) else { return false };
        let place = size(bit / 8);
        for image in [&mut file.content, &mut file.durable] {
            if let Some(byte) = image.get_mut(place) {
                *byte ^= 1 << (bit % 8);
            }
        }
        true
    }

    /// Forgets every file below a folder; whether there was any.
    pub fn wipe(&mut self, folder: &FilePath) -> bool {
        let below = format!("{folder}/");
        let mut wiped = false;
        let pending = std::mem::take(&mut self.entries);
        pending.iter().for_each(|entry| entry.apply(&mut self.durable_names));
        for names in [&mut self.names, &mut self.durable_names] {
            let before = names.files.len();
            names.files.retain(|path, _| !path.as_str().starts_with(&below));
            names.folders.retain(|path| !path.as_str().starts_with(&below));
            wiped |= names.files.len() != before;
        }
        self.forget_unnamed();
        wiped
    }

    /// Puts zeros in the place of some bytes of a file at rest; whether there was anything else.
    pub fn lose(&mut self, file: &FilePath, place: std::ops::Range<usize>) -> bool {
        let Some(file) = self.names.files.get(file).and_then(|file| self.files.get_mut(file))
        else {
            return false;
        };
        let mut lost = false;
        for image in [&mut file.content, &mut file.durable] {
            let bytes = image.get_mut(place.clone()).unwrap_or_default();
            lost |= bytes.iter().any(|byte| *byte != 0);
            bytes.fill(0);
        }
        lost
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the simulator's files are small")
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
