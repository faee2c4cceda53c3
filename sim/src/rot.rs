//! Rot: what was durable on the disk of a server that is down is not as it was written
//! (simulation.md §5.1, "Bit rot").
//!
//! Only what is provably durable rots, by the rules of raft.md §11.5: the newest batches of a log
//! may be taken for torn ones. Like [`durable`](crate::durable), this reads the log by itself.
//!
//! At most one server of three or more is damaged at a time: consensus promises no more (K12).

use crate::disk::{SECTOR_BYTES, SimDisk};
use terraform_core::storage::op::FilePath;

/// What rots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A bit of the log.
    Bit,
    /// A sector of the log.
    Sector,
    /// A bit of the newest snapshot.
    Snapshot,
    /// A bit of each snapshot.
    Snapshots,
    /// Everything that makes the server what it is: it comes back with another store.
    Store,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Bit, Self::Sector, Self::Snapshot, Self::Snapshots, Self::Store];
    /// Those that leave the server what it is.
    pub const DAMAGED: [Self; 4] = [Self::Bit, Self::Sector, Self::Snapshot, Self::Snapshots];

    /// How scripts spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::Sector => "sector",
            Self::Snapshot => "snapshot",
            Self::Snapshots => "snapshots",
            Self::Store => "store",
        }
    }
}

/// Lets a part rot at a place that counts from its beginning, modulo its size; whether anything is
/// different from before.
pub fn rot(disk: &mut SimDisk, part: Part, place: u64) -> bool {
    match part {
        Part::Store => disk.wipe(&FilePath::new("raft")),
        Part::Bit | Part::Sector => {
            let proven = proven(disk);
            let bytes: usize = proven.iter().map(|(_, bytes)| bytes).sum();
            let Some(place) = place.checked_rem(bytes as u64 * 8) else { return false };
            let (mut at, bit) = (usize::try_from(place / 8).unwrap_or(0), place % 8);
            for (file, bytes) in proven {
                if at < bytes {
                    if part == Part::Bit {
                        return disk.rot(&file, at as u64 * 8 + bit);
                    }
                    let start = at / SECTOR_BYTES * SECTOR_BYTES;
                    return disk.lose(&file, start..bytes.min(start + SECTOR_BYTES));
                }
                at -= bytes;
            }
            false
        }
        Part::Snapshot | Part::Snapshots => {
            let count = if part == Part::Snapshot { 1 } else { usize::MAX };
            let files = files(disk, "raft/snap", ".snap").into_iter().rev().take(count);
            files.filter(|file| disk.rot(file, place)).count() > 0
        }
    }
}

fn files(disk: &SimDisk, folder: &str, ending: &str) -> Vec<FilePath> {
    let names = disk.list(Some(&FilePath::new(folder))).into_iter();
    let names = names.filter(|name| name.ends_with(ending));
    names.map(|name| FilePath::new(&format!("{folder}/{name}"))).collect()
}

/// How many bytes from the beginning of each segment are durable by what stands behind them.
fn proven(disk: &SimDisk) -> Vec<(FilePath, usize)> {
    let read = |file: FilePath| {
        let content = disk.read(&file)?;
        content.starts_with(b"TFWALSEG").then(|| (file, batches(content)))
    };
    let segments: Vec<_> = files(disk, "raft/wal", ".seg").into_iter().map_while(read).collect();
    let count = segments.len();
    let proven = segments.into_iter().enumerate().map(|(number, (file, (heads, end)))| {
        // The newest segment, and the newest batch of the one before, may be torn; and a batch is
        // proven by the head of the next one but that of the newest.
        let whole = number + 2 < count;
        let next = heads.len().checked_sub(2).filter(|next| *next > 0);
        let bytes = if whole { end } else { next.map_or(0, |next| heads[next]) };
        (file, bytes)
    });
    proven.collect()
}

/// Where the batches of a segment begin, and where the last one ends.
fn batches(content: &[u8]) -> (Vec<usize>, usize) {
    let (mut heads, mut at) = (Vec::new(), 64);
    while let Some([b't', b'F', b'R', kind, length @ ..]) =
        content.get(at..).and_then(<[u8]>::first_chunk::<8>)
    {
        if *kind == 1 {
            heads.push(at);
        }
        let length = u32::from_be_bytes(*length);
        at += 40 + usize::try_from(length).unwrap_or(0).next_multiple_of(8);
    }
    (heads, at.min(content.len()))
}
