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

/// All members known, this one included.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    records: BTreeMap<NodeName, Record>,
    order: Vec<NodeName>,
    cursor: usize,
    by_address: BTreeMap<SocketAddr, NodeName>,
    tombstones: BTreeMap<NodeName, Tombstone>,
    version: u64,
}

impl Table {
    /// Members known: the `n` of every formula.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What is known of `name`.
    pub(super) fn get(&self, name: &NodeName) -> Option<&Record> {
        self.records.get(name)
    }

    /// Counts the occasions on which a record may have changed: as long as it stays, so do they.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// What is known of `name`, to be changed; the address changes only through `set_address`.
    pub(super) fn get_mut(&mut self, name: &NodeName) -> Option<&mut Record> {
        self.version += 1;
        self.records.get_mut(name)
    }

    /// The member last accepted at `address`.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<&Record> {
        self.records.get(self.by_address.get(address)?)
    }

    /// All members, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// How the forgotten member `name` ended.
    pub(super) fn tombstone(&self, name: &NodeName) -> Option<&Tombstone> {
        self.tombstones.get(name)
    }

    /// How the forgotten member `name` ended, to note that it was told.
    pub(super) fn tombstone_mut(&mut self, name: &NodeName) -> Option<&mut Tombstone> {
        self.tombstones.get_mut(name)
    }

    /// Adds a member at a random position of the probe list.
    pub(super) fn insert(&mut self, record: Record, rng: &mut Rng) {
        self.version += 1;
        let name = record.peer.name.clone();
        self.tombstones.remove(&name);
        self.by_address.insert(record.peer.address, name.clone());
        let known = self.records.insert(name.clone(), record);
        assert!(known.is_none(), "a member is in the probe list exactly once");
        self.order.push(name);
        let last = self.order.len() - 1;
        let position = rng.index(self.order.len());
        self.order.swap(position, last);
    }

    /// Moves a member to another address.
    pub(super) fn set_address(&mut self, name: &NodeName, address: SocketAddr) {
        self.version += 1;
        let Some(record) = self.records.get_mut(name) else { return };
        let old = std::mem::replace(&mut record.peer.address, address);
        if self.by_address.get(&old) == Some(name) {
            self.by_address.remove(&old);
        }
        self.by_address.insert(address, name.clone());
    }

    /// The next member to probe, neither `local` nor gone, if there is any. At the end
    /// of the list, members gone for longer than `forget_after` are forgotten and the rest is
    /// shuffled.
    pub(super) fn next_target(
        &mut self,
        local: &NodeName,
        now: Instant,
        forget_after: Duration,
        rng: &mut Rng,
    ) -> Option<Peer> {
        // The rest of this pass, the wrap, and all of the next one.
        for _ in 0..=2 * self.order.len() {
            let Some(name) = self.order.get(self.cursor) else {
                self.wrap(now, forget_after, rng);
                continue;
            };
            self.cursor += 1;
            if name == local {
                continue;
            }
            match self.records.get(name) {
                Some(record) if !is_gone(record.state) => return Some(record.peer.clone()),
                Some(_) | None => {}
            }
        }
        None
    }

    fn wrap(&mut self, now: Instant, forget_after: Duration, rng: &mut Rng) {
        self.cursor = 0;
        self.version += 1;
        let (records, by_address) = (&mut self.records, &mut self.by_address);
        let tombstones = &mut self.tombstones;
        tombstones.retain(|_, stone| now.since(stone.changed_at) <= TOMBSTONE_TIME);
        self.order.retain(|name| {
            let expired = records.get(name).is_none_or(|record| {
                is_gone(record.state) && now.since(record.changed_at) > forget_after
            });
            if expired && let Some(record) = records.remove(name) {
                crate::mark!("gossip.reap");
                bury(tombstones, &record);
                if by_address.get(&record.peer.address) == Some(name) {
                    by_address.remove(&record.peer.address);
                }
            }
            !expired
        });
        rng.shuffle(&mut self.order);
    }

    /// Up to `count` different members for which `eligible` holds, in random order.
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
        let mut chosen: Vec<&Record> = Vec::with_capacity(count.min(n));
        let mut consider = |name: &NodeName| {
            if let Some(record) = self.records.get(name)
                && eligible(record)
                && !chosen.iter().any(|other| other.peer.name == *name)
            {
                chosen.push(record);
            }
            chosen.len() >= count
        };
        if count == 0 {
            return chosen;
        }
        if n < 3 * count {
            let mut shuffled: Vec<&NodeName> = self.order.iter().collect();
            rng.shuffle(&mut shuffled);
            let _enough = shuffled.into_iter().any(&mut consider);
        } else {
            for _ in 0..3 * n {
                if self.order.get(rng.index(n)).is_some_and(&mut consider) {
                    break;
                }
            }
        }
        chosen
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
        let mut table = Table::default();
        for (port, text) in names.iter().enumerate() {
            let peer = peer(text, u16::try_from(port + 1).unwrap());
            let record = Record {
                peer,
                state: PeerState::Alive,
                changed_at: Instant::ZERO,
                suspicion: None,
                told_at: None,
            };
            table.insert(record, rng);
        }
        table
    }

    const FORGET: Duration = Duration::from_secs(30);

    #[test]
    fn one_pass_probes_every_other_member_exactly_once() {
        let mut rng = rng();
        let mut table = table(&["a", "b", "c", "d", "e"], &mut rng);
        for _ in 0..4 {
            let mut seen: Vec<String> = (0..4)
                .map(|_| table.next_target(&name("a"), Instant::ZERO, FORGET, &mut rng))
                .map(|target| target.unwrap().name.to_string())
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
            let target = table.next_target(&name("a"), soon, FORGET, &mut rng).unwrap();
            assert_eq!(target.name, name("c"));
        }
        assert_eq!(table.len(), 3);
        let later = soon + Duration::from_secs(1);
        for _ in 0..6 {
            table.next_target(&name("a"), later, FORGET, &mut rng);
        }
        assert_eq!(table.len(), 2);
        assert_eq!(table.tombstone(&name("b")).unwrap().state, PeerState::Left);
        for at in [later + TOMBSTONE_TIME, later + TOMBSTONE_TIME * 2] {
            (0..6).for_each(|_| drop(table.next_target(&name("a"), at, FORGET, &mut rng)));
        }
        assert!(table.tombstone(&name("b")).is_none());
        assert!(table.at(&peer("b", 2).address).is_none());
    }

    #[test]
    fn a_lonely_member_probes_nobody() {
        let mut rng = rng();
        let mut table = table(&["a"], &mut rng);
        assert!(table.next_target(&name("a"), Instant::ZERO, FORGET, &mut rng).is_none());
    }

    #[test]
    fn a_random_choice_takes_each_member_at_most_once_and_only_eligible_ones() {
        let mut rng = rng();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        for members in [&names[..4], &names[..]] {
            let table = table(members, &mut rng);
            for _ in 0..50 {
                let chosen = table.random(3, &mut rng, |record| record.peer.name != name("a"));
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
