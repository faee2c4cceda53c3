//! The members known, the order in which they are probed, and random choices among them.
//!
//! Implements gossip-protocol.md §2 (a new member enters the probe list at a random position), §3
//! (one pass in random order, shuffled at each wrap; SWIM §4.3), §10 (random choice) and §13
//! (dead and left members are forgotten at a wrap). Every record is in the list exactly once.
//!
//! Differs: a member that is forgotten leaves a tombstone for a day, so that members who did not
//! hear of its end cannot bring it back (gossip-protocol.md §28). It counts in no formula and is
//! never spread.

use super::Peer;
use super::state::is_gone;
use super::suspicion::Suspicion;
use crate::id::{Incarnation, NodeName};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::gossip::PeerState;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Members known at most, gone ones included; alive claims of further names are refused.
pub(super) const MEMBERS_MAX: usize = 65_536;

/// What is known of one member.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Who it is.
    pub(super) peer: Peer,
    /// What is believed of it.
    pub(super) state: PeerState,
    /// When that last changed.
    pub(super) changed_at: Instant,
    /// The running suspicion; set exactly while the state is suspect.
    pub(super) suspicion: Option<Suspicion>,
    /// When it was last told that it is believed gone.
    pub(super) told_at: Option<Instant>,
}

/// How long a forgotten member's end is remembered.
const TOMBSTONE_TIME: Duration = Duration::from_secs(24 * 3600);
/// Tombstones kept at most; the oldest make room.
const TOMBSTONES_MAX: usize = MEMBERS_MAX;

/// What is left of a member that was forgotten.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    /// Dead or left.
    pub(super) state: PeerState,
    /// The incarnation it ended with.
    pub(super) incarnation: Incarnation,
    /// Where it was.
    pub(super) address: SocketAddr,
    /// When it ended.
    pub(super) changed_at: Instant,
    /// When its address was last told.
    pub(super) told_at: Option<Instant>,
}

/// Where a record is kept, as long as its member is known.
type Slot = u32;

/// The slot of this member's own record.
const OWN: Slot = 0;

/// All members known, this one included.
///
/// Records keep their place, so that probes and random choices, which happen all the time, find
/// theirs without comparing names.
#[derive(Clone, Debug)]
pub(super) struct Table {
    slots: Vec<Option<Record>>,
    free: Vec<Slot>,
    by_name: BTreeMap<NodeName, Slot>,
    by_address: BTreeMap<SocketAddr, Slot>,
    /// The probe list.
    order: Vec<Slot>,
    cursor: usize,
    tombstones: BTreeMap<NodeName, Tombstone>,
    version: u64,
}

impl Table {
    /// A table that knows only this member.
    pub(super) fn new(own: Record) -> Self {
        Self {
            by_name: BTreeMap::from([(own.peer.name.clone(), OWN)]),
            by_address: BTreeMap::from([(own.peer.address, OWN)]),
            slots: vec![Some(own)],
            free: Vec::new(),
            order: vec![OWN],
            cursor: 0,
            tombstones: BTreeMap::new(),
            version: 0,
        }
    }

    /// This member's own record.
    pub(super) fn own(&self) -> &Record {
        self.record(OWN).expect("INV-GOSSIP-1: a member always knows itself")
    }

    /// This member's own record, to be changed; its address never does.
    pub(super) fn own_mut(&mut self) -> &mut Record {
        self.version += 1;
        let own = self.slots.first_mut().and_then(Option::as_mut);
        own.expect("INV-GOSSIP-1: a member always knows itself")
    }

    fn record(&self, slot: Slot) -> Option<&Record> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn record_mut(&mut self, slot: Slot) -> Option<&mut Record> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Members known: the `n` of every formula.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// What is known of `name`.
    pub(super) fn get(&self, name: &NodeName) -> Option<&Record> {
        self.record(*self.by_name.get(name)?)
    }

    /// Counts the occasions on which a record may have changed: as long as it stays, so do they.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// What is known of `name`, to be changed; the address changes only through `set_address`.
    pub(super) fn get_mut(&mut self, name: &NodeName) -> Option<&mut Record> {
        self.version += 1;
        let slot = *self.by_name.get(name)?;
        self.record_mut(slot)
    }

    /// The member last accepted at `address`.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<&Record> {
        self.record(*self.by_address.get(address)?)
    }

    /// All members, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.by_name.values().filter_map(|slot| self.record(*slot))
    }

    /// All members but this one, by name, from `start` on and then those before it.
    pub(super) fn others_from<'a>(
        &'a self,
        start: &'a NodeName,
    ) -> impl Iterator<Item = &'a Record> {
        let (before, after) = (..start, start..);
        let slots = self.by_name.range(after).chain(self.by_name.range(before));
        slots.filter(|(_, slot)| **slot != OWN).filter_map(|(_, slot)| self.record(*slot))
    }

    /// How the forgotten member `name` ended.
    pub(super) fn tombstone(&self, name: &NodeName) -> Option<&Tombstone> {
        self.tombstones.get(name)
    }

    /// When the gone member `name` was last told so, to be noted anew, and its incarnation; also of
    /// a member that is forgotten.
    pub(super) fn told_mut(
        &mut self,
        name: &NodeName,
    ) -> Option<(Incarnation, &mut Option<Instant>)> {
        if let Some(slot) = self.by_name.get(name) {
            let record = self.slots.get_mut(*slot as usize)?.as_mut()?;
            return is_gone(record.state).then_some((record.peer.incarnation, &mut record.told_at));
        }
        let stone = self.tombstones.get_mut(name)?;
        Some((stone.incarnation, &mut stone.told_at))
    }

    /// Adds a member at a random position of the probe list.
    pub(super) fn insert(&mut self, record: Record, rng: &mut Rng) {
        self.version += 1;
        let (name, address) = (record.peer.name.clone(), record.peer.address);
        self.tombstones.remove(&name);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot::try_from(self.slots.len() - 1).expect("members are bounded")
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(record);
        }
        self.by_address.insert(address, slot);
        let known = self.by_name.insert(name, slot);
        assert!(known.is_none(), "INV-GOSSIP-2: a member is in the probe list exactly once");
        self.order.push(slot);
        let last = self.order.len() - 1;
        let position = rng.index(self.order.len());
        self.order.swap(position, last);
    }

    /// Moves a member to another address.
    pub(super) fn set_address(&mut self, name: &NodeName, address: SocketAddr) {
        self.version += 1;
        let Some(&slot) = self.by_name.get(name) else { return };
        let Some(record) = self.record_mut(slot) else { return };
        let old = std::mem::replace(&mut record.peer.address, address);
        if self.by_address.get(&old) == Some(&slot) {
            self.by_address.remove(&old);
        }
        self.by_address.insert(address, slot);
    }

    /// The next member to probe, neither this one nor gone, if there is any. At the end of the
    /// list, members gone for longer than `forget_after` are forgotten and the rest is shuffled.
    pub(super) fn next_target(
        &mut self,
        now: Instant,
        forget_after: Duration,
        rng: &mut Rng,
    ) -> Option<&Record> {
        // The rest of this pass, the wrap, and all of the next one.
        for _ in 0..=2 * self.order.len() {
            let Some(&slot) = self.order.get(self.cursor) else {
                self.wrap(now, forget_after, rng);
                continue;
            };
            self.cursor += 1;
            if slot != OWN && self.record(slot).is_some_and(|record| !is_gone(record.state)) {
                return self.record(slot);
            }
        }
        None
    }

    fn wrap(&mut self, now: Instant, forget_after: Duration, rng: &mut Rng) {
        self.cursor = 0;
        self.tombstones.retain(|_, stone| now.since(stone.changed_at) <= TOMBSTONE_TIME);
        let mut order = std::mem::take(&mut self.order);
        order.retain(|slot| {
            let is_expired = |record: &Record| {
                is_gone(record.state) && now.since(record.changed_at) > forget_after
            };
            let keeps = *slot == OWN || !self.record(*slot).is_some_and(is_expired);
            if !keeps {
                self.forget(*slot);
            }
            keeps
        });
        rng.shuffle(&mut order);
        self.order = order;
    }

    /// Replaces a record by its tombstone.
    fn forget(&mut self, slot: Slot) {
        let Some(record) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        crate::mark!("gossip.reap");
        self.version += 1;
        self.free.push(slot);
        bury(&mut self.tombstones, &record);
        self.by_name.remove(&record.peer.name);
        if self.by_address.get(&record.peer.address) == Some(&slot) {
            self.by_address.remove(&record.peer.address);
        }
    }

    /// Up to `count` different members for which `eligible` holds, this one never, in random order.
    ///
    /// Small tables are searched exhaustively; in large ones up to `3 n` random draws are made, so
    /// that a round costs no pass over the table when most members are eligible.
    pub(super) fn random(
        &self,
        count: usize,
        rng: &mut Rng,
        eligible: impl Fn(&Record) -> bool,
    ) -> Vec<&Record> {
        let n = self.order.len();
        let mut chosen: Vec<(Slot, &Record)> = Vec::with_capacity(count.min(n));
        let mut consider = |slot: Slot| {
            if slot != OWN
                && !chosen.iter().any(|(other, _)| *other == slot)
                && let Some(record) = self.record(slot)
                && eligible(record)
            {
                chosen.push((slot, record));
            }
            chosen.len() >= count
        };
        if count == 0 {
            return Vec::new();
        }
        if n < 3 * count {
            let mut shuffled = self.order.clone();
            rng.shuffle(&mut shuffled);
            let _enough = shuffled.into_iter().any(&mut consider);
        } else {
            for _ in 0..3 * n {
                if self.order.get(rng.index(n)).copied().is_some_and(&mut consider) {
                    break;
                }
            }
        }
        chosen.into_iter().map(|(_, record)| record).collect()
    }
}

fn bury(tombstones: &mut BTreeMap<NodeName, Tombstone>, record: &Record) {
    if tombstones.len() >= TOMBSTONES_MAX {
        let oldest = tombstones.iter().min_by_key(|(_, stone)| stone.changed_at);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            tombstones.remove(&name);
        }
    }
    let stone = Tombstone {
        state: record.state,
        incarnation: record.peer.incarnation,
        address: record.peer.address,
        changed_at: record.changed_at,
        told_at: record.told_at,
    };
    tombstones.insert(record.peer.name.clone(), stone);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{name, peer};
    use super::*;
    use crate::rng::{Seed, Stream};

    fn rng() -> Rng {
        Rng::for_stream(Seed::from_number(3), Stream::Gossip)
    }

    fn table(names: &[&str], rng: &mut Rng) -> Table {
        let mut records = names.iter().zip(1..).map(|(text, port)| Record {
            peer: peer(text, port),
            state: PeerState::Alive,
            changed_at: Instant::ZERO,
            suspicion: None,
            told_at: None,
        });
        let mut table = Table::new(records.next().unwrap());
        records.for_each(|record| table.insert(record, rng));
        table
    }

    const FORGET: Duration = Duration::from_secs(30);

    #[test]
    fn one_pass_probes_every_other_member_exactly_once() {
        let mut rng = rng();
        let mut table = table(&["a", "b", "c", "d", "e"], &mut rng);
        for _ in 0..4 {
            let mut seen: Vec<String> = (0..4)
                .map(|_| {
                    let target = table.next_target(Instant::ZERO, FORGET, &mut rng);
                    target.unwrap().peer.name.to_string()
                })
                .collect();
            seen.sort();
            assert_eq!(seen, ["b", "c", "d", "e"]);
        }
    }

    #[test]
    fn members_gone_for_long_are_forgotten_at_a_wrap() {
        let mut rng = rng();
        let mut table = table(&["a", "b", "c"], &mut rng);
        table.get_mut(&name("b")).unwrap().state = PeerState::Left;
        let soon = Instant::ZERO + FORGET;
        for _ in 0..6 {
            let target = table.next_target(soon, FORGET, &mut rng).unwrap();
            assert_eq!(target.peer.name, name("c"));
        }
        assert_eq!(table.len(), 3);
        let later = soon + Duration::from_secs(1);
        for _ in 0..6 {
            table.next_target(later, FORGET, &mut rng);
        }
        assert_eq!(table.len(), 2);
        assert_eq!(table.tombstone(&name("b")).unwrap().state, PeerState::Left);
        for at in [later + TOMBSTONE_TIME, later + TOMBSTONE_TIME * 2] {
            for _ in 0..6 {
                table.next_target(at, FORGET, &mut rng);
            }
        }
        assert!(table.tombstone(&name("b")).is_none());
        assert!(table.at(&peer("b", 2).address).is_none());
    }

    #[test]
    fn a_lonely_member_probes_nobody() {
        let mut rng = rng();
        let mut table = table(&["a"], &mut rng);
        assert!(table.next_target(Instant::ZERO, FORGET, &mut rng).is_none());
    }

    #[test]
    fn a_random_choice_takes_each_member_at_most_once_and_only_eligible_ones() {
        let mut rng = rng();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        for members in [&names[..4], &names[..]] {
            let table = table(members, &mut rng);
            for _ in 0..50 {
                let chosen = table.random(3, &mut rng, |_| true);
                let mut got: Vec<&NodeName> =
                    chosen.iter().map(|record| &record.peer.name).collect();
                got.sort();
                got.dedup();
                assert_eq!(got.len(), 3);
                assert!(!got.contains(&&name("a")));
            }
        }
    }
}
