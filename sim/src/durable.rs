//! A second reader of what a server wrote: what its disk holds for certain at every moment.
//!
//! It decodes each operation of the log's lane by itself, when the operation is handed to the disk,
//! and believes it when the disk says that it is done; only what the operation itself synced
//! counts. Rule R17 measures every message against it (simulation.md §9.1, raft.md §11.4). The
//! formats are those of raft.md §11.2 as `storage` documents them; none of its code is used.

use crate::host::Host;
use crate::recover::inspect;
use std::collections::VecDeque;
use terraform_core::id::{LogIndex, NodeId, Term};
use terraform_core::raft::RestoredRaft;
use terraform_core::storage::op::FileOp;
use terraform_core::storage::recovery::Restored;

/// After this many operations the whole disk is read again, through core's recovery.
const REREAD_EVERY: u64 = 512;

/// What is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The term.
    pub term: Term,
    /// The vote in it.
    pub vote: Option<NodeId>,
    /// Index of the last entry.
    pub last: u64,
}

/// What one operation makes durable.
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    hard: Option<(Term, Option<NodeId>)>,
    last: Option<u64>,
}

/// The second reader of one process's log.
#[derive(Clone, Debug, Default)]
pub struct Synced {
    /// What is durable; unknown until the first look after a start.
    durable: Option<Durable>,
    /// Effects of operations under way, oldest first.
    under_way: VecDeque<Effect>,
    /// Effects of operations that failed, which may have come about nevertheless.
    doubtful: Vec<Effect>,
    completed: u64,
}

impl Synced {
    /// R18: whatever was durable when the process ended is there again, unless the server knows
    /// that a part of it is lost.
    pub fn is_held_by(&self, restored: &Restored) -> Result<(), String> {
        let (Some(durable), Some(server)) = (self.durable, &restored.server) else { return Ok(()) };
        let (raft, last) = (&server.raft, last_of(&server.raft));
        // What was under way may have been done, and so may what failed.
        let maybe = self.under_way.iter().chain(&self.doubtful).filter_map(|effect| effect.last);
        let least = maybe.chain([durable.last]).min();
        let forgets = raft.recovering.is_none() && Some(last) < least;
        if forgets || raft.hard.term < durable.term {
            let hard = raft.hard;
            return Err(format!("recovery finds {hard:?} and entry {last}, not {durable:?}"));
        }
        Ok(())
    }

    /// Takes in an operation that is handed to the disk.
    pub fn began(&mut self, ops: &[FileOp]) {
        self.under_way.push_back(effect_of(ops));
    }

    /// The oldest operation is complete.
    pub fn completed(&mut self, well: bool) {
        let Some(effect) = self.under_way.pop_front() else { return };
        if !well {
            return self.doubtful.push(effect);
        }
        let Some(durable) = &mut self.durable else { return };
        if let Some((term, vote)) = effect.hard {
            (durable.term, durable.vote) = (term, vote);
        }
        durable.last = effect.last.unwrap_or(durable.last);
        self.completed += 1;
    }
}

/// What the host's disk would give back if the power failed now; an error says what is wrong with
/// it.
pub fn durable_now(host: &mut Host) -> Result<Durable, String> {
    let known = host.synced.durable;
    if let Some(known) = known.filter(|_| host.synced.completed < REREAD_EVERY) {
        return Ok(known);
    }
    let server = inspect(host)?.server;
    let read = found_in(server.as_ref().map(|server| &server.raft));
    host.synced.completed = 0;
    // A snapshot that was received may be durable before the log is reset for it.
    let bare = server.is_some_and(|server| server.raft.entries.is_empty());
    if let Some(known) =
        known.filter(|known| bare && Durable { last: known.last, ..read } == *known)
    {
        return Ok(known);
    }
    host.synced.durable = Some(read);
    match known {
        Some(known) if known != read => {
            Err(format!("recovery finds {read:?}, what was written is {known:?}"))
        }
        Some(_) | None => Ok(read),
    }
}

/// What the disk would give back, read anew: with the snapshots, which go another way to the disk
/// than the log and may be durable before the log is reset for them.
pub fn with_snapshots(host: &Host) -> Result<Durable, String> {
    Ok(found_in(inspect(host)?.server.as_ref().map(|server| &server.raft)))
}

fn found_in(raft: Option<&RestoredRaft>) -> Durable {
    raft.map_or_else(Durable::default, |raft| Durable {
        term: raft.hard.term,
        vote: raft.hard.voted_for,
        last: last_of(raft),
    })
}

/// Where a recovered log ends.
fn last_of(raft: &RestoredRaft) -> u64 {
    let covered = raft.snapshot.as_ref().map_or(LogIndex::ZERO, |snapshot| snapshot.index);
    raft.entries.last().map_or(covered, |entry| entry.index).get()
}

fn effect_of(ops: &[FileOp]) -> Effect {
    let mut effect = Effect::default();
    for (at, op) in ops.iter().enumerate() {
        let FileOp::Write { file, data, .. } = op else { continue };
        let rest = ops.get(at..).unwrap_or_default();
        if !rest.iter().any(|later| matches!(later, FileOp::Sync(synced) if synced == file)) {
            continue;
        }
        if file.as_str().starts_with("raft/hard.") {
            effect.hard = hard_state(data);
        } else if file.as_str().ends_with(".seg") {
            effect.last = last_index(data).or(effect.last);
        }
    }
    effect
}

fn number<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk::<N>().copied()
}

/// Term and vote of a slot.
fn hard_state(data: &[u8]) -> Option<(Term, Option<NodeId>)> {
    let term = Term::new(u64::from_be_bytes(number(data, 32)?));
    let voted = u64::from_be_bytes(number(data, 40)?) == 1;
    let vote = NodeId::from_bytes(number::<16>(data, 48)?);
    Some((term, voted.then_some(vote)))
}

/// Where the log ends after the records in `data`; `None` if they do not move its end.
fn last_index(data: &[u8]) -> Option<u64> {
    let mut at = if data.starts_with(b"TFWALSEG") { 64 } else { 0 };
    let mut last = None;
    while data.get(at..).is_some_and(|rest| rest.starts_with(b"tFR")) {
        let [kind] = number(data, at + 3)?;
        let length = usize::try_from(u32::from_be_bytes(number(data, at + 4)?)).ok()?;
        let index = u64::from_be_bytes(number(data, at + 8)?);
        match kind {
            2 => last = Some(index),
            3 | 5 => last = Some(index - 1),
            _ => {}
        }
        at += 40 + length.next_multiple_of(8);
    }
    last
}
