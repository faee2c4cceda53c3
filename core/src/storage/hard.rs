//! Term and vote on disk: two slots, both written and synced before a new state is used.
//!
//! Source: raft.md §11.2, §11.4; Differs: no third copy in the log (DESIGN.md §8, "Cut for now").
//!
//! A change writes `raft/hard.a`, syncs it, writes `raft/hard.b`, syncs it; raft acts on the new
//! state only then. Never are both slots in flight, so at any time at least one slot on disk holds
//! the last state that was acted on, or a newer one: a torn or rotten slot is survived by taking
//! the other, and nothing is ever silently forgotten. Both unreadable is refused.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TFHARD01` |
//! | 8 | 16 | store |
//! | 24 | 8 | number of the change, from 0 |
//! | 32 | 8 | term |
//! | 40 | 8 | 1 if there is a vote, else 0 |
//! | 48 | 16 | the vote, else zeros |
//! | 64 | 444 | zeros |
//! | 508 | 4 | CRC-32 of the 508 bytes before |

use super::op::{FileOp, FilePath};
use super::record::number;
use crate::id::{NodeId, StoreId, Term};
use crate::mark;
use crate::raft::HardState;
use bytes::Bytes;

/// Bytes of a slot: one sector.
const SLOT_BYTES: usize = 512;
const MAGIC: [u8; 8] = *b"TFHARD01";
const FIELD_BYTES: usize = 64;

/// The two slots' files, in the order in which they are written.
pub(super) fn files() -> [FilePath; 2] {
    [FilePath::new("raft/hard.a"), FilePath::new("raft/hard.b")]
}

/// The writer of both slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HardSlots {
    store: StoreId,
    change: u64,
}

impl HardSlots {
    /// The slots of a store that has no state yet, and the operations that create them.
    pub(super) fn create(store: StoreId) -> (Self, Vec<FileOp>) {
        let slots = Self { store, change: 0 };
        let ops = slots.write(HardState::default());
        (slots, ops)
    }

    /// Appends the operations that make `hard` durable.
    pub(super) fn put(&mut self, hard: HardState, ops: &mut Vec<FileOp>) {
        self.change += 1;
        ops.extend(self.write(hard));
    }

    fn write(&self, hard: HardState) -> Vec<FileOp> {
        let data = encode(self.store, self.change, hard);
        let slot = |file: FilePath| {
            let data = data.clone();
            [FileOp::Write { file: file.clone(), offset: 0, data }, FileOp::Sync(file)]
        };
        files().into_iter().flat_map(slot).collect()
    }
}

/// What the two slots of a store say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The newest state that a slot holds.
    pub(super) hard: HardState,
    /// The writer that continues.
    pub(super) slots: HardSlots,
    /// Makes both slots hold that state durably; to be done before it is used.
    pub(super) ops: Vec<FileOp>,
}

/// Takes the newest valid slot; `None` if neither is valid, or both claim to be the newest.
///
/// The slot taken is synced before the other is overwritten: it may come from the page cache of a
/// crashed run and be the only copy.
pub(super) fn choose(store: StoreId, slots: &[Option<Bytes>; 2]) -> Option<Chosen> {
    let [a, b] = slots;
    let decode = |bytes: &Option<Bytes>| decode(bytes.as_deref()?, store);
    let (first, (change, hard)) = match (decode(a), decode(b)) {
        (Some(a), Some(b)) if a.0 == b.0 && a.1 != b.1 => return None,
        (Some(a), Some(b)) if b.0 > a.0 => (false, b),
        (Some(a), Some(_)) => (true, a),
        (Some(a), None) => {
            mark!("storage.hard_slot_b_unreadable");
            (true, a)
        }
        (None, Some(b)) => {
            mark!("storage.hard_slot_a_unreadable");
            (false, b)
        }
        (None, None) => return None,
    };
    let [a, b] = files();
    let (taken, other) = if first { (a, b) } else { (b, a) };
    let data = encode(store, change, hard);
    let ops = vec![
        FileOp::Sync(taken),
        FileOp::Write { file: other.clone(), offset: 0, data },
        FileOp::Sync(other),
        FileOp::SyncDir(Some(FilePath::new("raft"))),
    ];
    Some(Chosen { hard, slots: HardSlots { store, change }, ops })
}

/// Whether the slot holds a state that some run acted on, whatever its store.
pub(super) fn holds_state(bytes: &[u8]) -> bool {
    let store = bytes.get(8..).and_then(<[u8]>::first_chunk).copied().map(StoreId::from_bytes);
    let change = store.and_then(|store| decode(bytes, store));
    change.is_some_and(|(change, _)| change > 0)
}

fn encode(store: StoreId, change: u64, hard: HardState) -> Bytes {
    let mut out = Vec::with_capacity(SLOT_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(store.as_bytes());
    out.extend_from_slice(&change.to_be_bytes());
    out.extend_from_slice(&hard.term.get().to_be_bytes());
    out.extend_from_slice(&u64::from(hard.voted_for.is_some()).to_be_bytes());
    out.extend_from_slice(hard.voted_for.map(|id| *id.as_bytes()).unwrap_or_default().as_slice());
    out.resize(SLOT_BYTES - 4, 0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out.into()
}

fn decode(bytes: &[u8], store: StoreId) -> Option<(u64, HardState)> {
    let slot: &[u8; SLOT_BYTES] = bytes.try_into().ok()?;
    let (body, crc) = slot.split_last_chunk::<4>()?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let (fields, zeros) = body.split_first_chunk::<FIELD_BYTES>()?;
    let (magic, rest) = fields.split_first_chunk::<8>()?;
    let (owner, rest) = rest.split_first_chunk::<16>()?;
    if *magic != MAGIC || owner != store.as_bytes() || zeros.iter().any(|byte| *byte != 0) {
        return None;
    }
    let term = Term::new(number(rest.get(8..)?)?);
    let vote = rest.get(24..).and_then(<[u8]>::first_chunk::<16>)?;
    let voted_for = match number(rest.get(16..)?)? {
        0 => None,
        1 => Some(NodeId::from_bytes(*vote)),
        _ => return None,
    };
    Some((number(rest)?, HardState { term, voted_for }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId::from_bytes([9; 16]);

    fn state(term: u64) -> HardState {
        HardState { term: Term::new(term), voted_for: Some(NodeId::from_bytes([7; 16])) }
    }

    fn slot(change: u64, term: u64) -> Option<Bytes> {
        Some(encode(STORE, change, state(term)))
    }

    fn chosen(a: Option<Bytes>, b: Option<Bytes>) -> Option<HardState> {
        choose(STORE, &[a, b]).map(|chosen| chosen.hard)
    }

    #[test]
    fn the_newer_slot_wins_and_one_unreadable_slot_is_survived() {
        assert_eq!(chosen(slot(4, 8), slot(3, 7)), Some(state(8)));
        assert_eq!(chosen(slot(3, 7), slot(4, 8)), Some(state(8)));
        assert_eq!(chosen(None, slot(3, 7)), Some(state(7)));
        assert_eq!(chosen(slot(3, 7), Some(Bytes::from_static(&[1; 512]))), Some(state(7)));
    }

    #[test]
    fn two_unreadable_or_contradicting_slots_are_refused() {
        assert_eq!(chosen(None, None), None);
        assert_eq!(chosen(slot(3, 7), slot(3, 8)), None);
        let foreign = encode(StoreId::from_bytes([1; 16]), 3, state(7));
        assert_eq!(chosen(Some(foreign), None), None);
    }

    #[test]
    fn every_flipped_bit_makes_a_slot_unreadable() {
        let good = slot(3, 7).unwrap();
        for bit in 0..SLOT_BYTES * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad, STORE), None, "bit {bit}");
        }
    }

    #[test]
    fn a_change_syncs_the_first_slot_before_it_touches_the_second() {
        let (mut slots, _) = HardSlots::create(STORE);
        let mut ops = Vec::new();
        slots.put(state(1), &mut ops);
        let [a, b] = files();
        assert!(matches!(&ops[0], FileOp::Write { file, .. } if *file == a));
        assert_eq!(ops[1], FileOp::Sync(a));
        assert!(matches!(&ops[2], FileOp::Write { file, .. } if *file == b));
        assert_eq!(ops[3], FileOp::Sync(b));
    }
}
