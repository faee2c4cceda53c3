//! The key-value table (http-api.md §9).
//!
//! Keys are texts, ordered by their bytes; a prefix is a plain prefix of the text and no folder.
//! What was deleted is remembered as a tombstone for a while, so that whoever watches a prefix
//! sees the deletion: the index of a prefix counts entries and tombstones under it.
//!
//! - INV-KV-1: a write that changes nothing raises no index.
//! - INV-KV-2: no index of an entry or a tombstone is above the index of the table.

use super::lock::{KeyLock, KeyRefusal, KvLock, LockDelay};
use super::topic::key_of;
use crate::id::{ModifyIndex, SessionId};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: Arc<str>,
    /// Any bytes.
    pub value: Bytes,
    /// Whatever the writer wants it to mean.
    pub flags: u64,
    /// What there is to know of locks; `None` if it never was held, and in most entries.
    pub lock: Option<Box<KeyLock>>,
    /// When it was first stored.
    pub create_index: ModifyIndex,
    /// When it last changed.
    pub modify_index: ModifyIndex,
}
pack_struct!(KvEntry { key, value, flags, lock, create_index, modify_index });

impl KvEntry {
    /// How often it was acquired since the last plain write, and who holds it.
    pub fn lock(&self) -> (u64, Option<SessionId>) {
        self.lock.as_deref().map_or((0, None), |lock| (lock.index, lock.session))
    }
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvWrite {
    /// Stores one entry.
    Put(KvPut),
    /// Removes one entry; one that is not there is no failure.
    Delete(KvDelete),
    /// Removes every entry whose key begins with this.
    DeleteTree(String),
    /// Stores one entry for a session that holds it then.
    Acquire(KvLock),
    /// Stores one entry for a session that held it until then.
    Release(KvLock),
}
pack_enum!(KvWrite {
    1 => Put(KvPut), 2 => Delete(KvDelete), 3 => DeleteTree(String), 4 => Acquire(KvLock),
    5 => Release(KvLock),
});

/// An entry to be stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvPut {
    /// The key; not empty.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The flags; those of an older entry do not stay.
    pub flags: u64,
    /// The write is done only if the entry has exactly this index; zero if there must be none.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(KvPut { key, value, flags, only_at });

/// An entry to be removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvDelete {
    /// The key.
    pub key: String,
    /// An existing entry is removed only if it has exactly this index.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(KvDelete { key, only_at });

/// Which keys are wanted, without their values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyList {
    /// What they begin with.
    pub prefix: String,
    /// Where they are cut: behind the first of these after the prefix. Empty for whole keys.
    pub separator: String,
}
pack_struct!(KeyList { prefix, separator });

/// The table as persistent maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KvTable {
    pub(super) entries: OrdMap<Arc<str>, Arc<KvEntry>>,
    /// Deleted keys and prefixes, and when.
    pub(super) tombstones: OrdMap<Arc<str>, ModifyIndex>,
    /// The same by age.
    pub(super) deletions: OrdSet<(ModifyIndex, Arc<str>)>,
    /// Those of the entries that know of locks.
    pub(super) locked: OrdMap<Arc<str>, Arc<KvEntry>>,
    /// Who holds what.
    pub(super) held: OrdSet<(SessionId, Arc<str>)>,
    /// Keys that cannot be acquired for a while.
    pub(super) delays: OrdMap<Arc<str>, LockDelay>,
    /// When something last changed, deletions included; zero if never.
    pub(super) changed: ModifyIndex,
}

impl KvTable {
    /// Does a write, whose session exists if it acquires something.
    pub(super) fn write(&mut self, index: ModifyIndex, write: &KvWrite) -> Result<(), KeyRefusal> {
        match write {
            KvWrite::Put(put) => self.put(index, put),
            KvWrite::Delete(delete) => self.delete(index, delete),
            KvWrite::DeleteTree(prefix) => {
                self.delete_tree(index, prefix);
                Ok(())
            }
            KvWrite::Acquire(lock) => self.acquire(index, lock),
            KvWrite::Release(lock) => self.release(index, lock),
        }
    }

    fn put(&mut self, index: ModifyIndex, put: &KvPut) -> Result<(), KeyRefusal> {
        let old = self.entries.get(&*put.key);
        let at = old.map_or(ModifyIndex::ZERO, |old| old.modify_index);
        if put.only_at.is_some_and(|wanted| wanted != at) && !crate::mutant!(M55) {
            return Err(KeyRefusal::Stale);
        }
        // Locks are advice: whoever holds the key keeps it.
        let lock = KeyLock { index: 0, session: old.and_then(|old| old.lock().1) };
        self.store(index, &put.key, (&put.value, put.flags), lock);
        Ok(())
    }

    fn delete(&mut self, index: ModifyIndex, delete: &KvDelete) -> Result<(), KeyRefusal> {
        let Some(entry) = self.entries.get(&*delete.key) else { return Ok(()) };
        if delete.only_at.is_some_and(|wanted| wanted != entry.modify_index) {
            return Err(KeyRefusal::Stale);
        }
        self.remove(index, &delete.key);
        Ok(())
    }

    /// Stores an entry, unless it is there already.
    pub(super) fn store(
        &mut self,
        index: ModifyIndex,
        key: &str,
        (value, flags): (&Bytes, u64),
        lock: KeyLock,
    ) {
        let old = self.entries.get(key);
        let lock = (lock != KeyLock::default()).then(|| Box::new(lock));
        if old.is_some_and(|old| old.value == value && old.flags == flags && old.lock == lock) {
            return;
        }
        let create_index = old.map_or(index, |old| old.create_index);
        let key: Arc<str> = old.map_or_else(|| key.into(), |old| Arc::clone(&old.key));
        if let Some(old) = old.filter(|old| old.lock.is_some()).cloned() {
            self.forget_lock(&old);
        }
        let value = value.clone();
        self.insert(KvEntry { key, value, flags, lock, create_index, modify_index: index });
        self.changed = index;
    }

    /// Puts an entry in its place; nothing is known of locks of an older one.
    pub(super) fn insert(&mut self, entry: KvEntry) {
        let entry = Arc::new(entry);
        if entry.lock.is_some() {
            self.locked.insert(Arc::clone(&entry.key), Arc::clone(&entry));
        }
        if let (_, Some(session)) = entry.lock() {
            self.held.insert((session, Arc::clone(&entry.key)));
        }
        self.entries.insert(Arc::clone(&entry.key), entry);
    }

    fn forget_lock(&mut self, entry: &KvEntry) {
        self.locked.remove(&entry.key);
        if let (_, Some(session)) = entry.lock() {
            self.held.remove(&(session, Arc::clone(&entry.key)));
        }
    }

    /// Takes an entry out, if there is one.
    fn take(&mut self, key: &str) -> Option<Arc<KvEntry>> {
        let entry = self.entries.remove(key)?;
        if entry.lock.is_some() {
            self.forget_lock(&entry);
        }
        Some(entry)
    }

    /// Removes an entry and remembers its deletion.
    pub(super) fn remove(&mut self, index: ModifyIndex, key: &str) {
        if let Some(entry) = self.take(key) {
            self.bury(index, Arc::clone(&entry.key));
        }
    }

    pub(super) fn delete_tree(&mut self, index: ModifyIndex, prefix: &str) {
        let doomed: Vec<_> = self.under(prefix).map(|entry| Arc::clone(&entry.key)).collect();
        if doomed.is_empty() {
            return;
        }
        for key in doomed {
            self.take(&key);
        }
        // One tombstone stands for all of them: whoever watches a longer prefix finds nothing under
        // it and sees the table's index. A tombstone left there would take its index back to a
        // deletion that was seen long ago, and nobody would learn of this one.
        let earlier: Vec<_> = starting_with(&self.tombstones, prefix)
            .map(|(key, at)| (*at, Arc::clone(key)))
            .collect();
        for deletion in earlier {
            self.tombstones.remove(&*deletion.1);
            self.deletions.remove(&deletion);
        }
        self.bury(index, prefix.into());
    }

    fn bury(&mut self, index: ModifyIndex, key: Arc<str>) {
        self.changed = index;
        if crate::mutant!(M41) {
            return;
        }
        if let Some(earlier) = self.tombstones.insert(Arc::clone(&key), index) {
            self.deletions.remove(&(earlier, Arc::clone(&key)));
        }
        self.deletions.insert((index, key));
    }

    /// Forgets what was deleted up to `index`.
    pub(super) fn reap(&mut self, index: ModifyIndex) {
        while let Some(oldest) = self.deletions.get_min().filter(|(at, _)| *at <= index).cloned() {
            self.deletions.remove(&oldest);
            self.tombstones.remove(&*oldest.1);
        }
    }

    /// When the newest deletion that is still remembered was; `None` if none is.
    pub(super) fn newest_deletion(&self) -> Option<ModifyIndex> {
        self.deletions.get_max().map(|(at, _)| *at)
    }

    /// The entry of a key, with its index; of a missing one, the table's.
    pub(super) fn one(&self, key: &str) -> (Option<&Arc<KvEntry>>, ModifyIndex) {
        let entry = self.entries.get(key);
        (entry, entry.map_or(self.changed, |entry| entry.modify_index))
    }

    /// All entries under a prefix by key, with the prefix's index.
    pub(super) fn tree(&self, prefix: &str) -> (Vec<Arc<KvEntry>>, ModifyIndex) {
        let entries: Vec<_> = self.under(prefix).cloned().collect();
        let newest = entries.iter().map(|entry| entry.modify_index).max();
        (entries, self.prefix_index(prefix, newest))
    }

    /// The keys under a prefix, cut and in order, each once, with the prefix's index.
    pub(super) fn keys(&self, wanted: &KeyList) -> (Vec<String>, ModifyIndex) {
        let KeyList { prefix, separator } = wanted;
        let mut keys: Vec<String> = Vec::new();
        let mut newest = None;
        for entry in self.under(prefix) {
            newest = newest.max(Some(entry.modify_index));
            let key = cut(&entry.key, prefix.len(), separator);
            if keys.last().is_none_or(|last| last != key) {
                keys.push(key.to_owned());
            }
        }
        (keys, self.prefix_index(prefix, newest))
    }

    /// When something last changed; zero if never.
    pub(super) const fn changed_at(&self) -> ModifyIndex {
        self.changed
    }

    /// Whether a prefix has an index of its own: an entry or a tombstone is under it.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        self.under(prefix).next().is_some()
            || starting_with(&self.tombstones, prefix).next().is_some()
    }

    /// Adds the keys that were stored, changed or deleted since `old`, and the prefixes that were
    /// deleted or whose deletion was forgotten.
    pub(super) fn keys_changed_since(&self, old: &Self, keys: &mut BTreeSet<Arc<str>>) {
        keys.extend(old.entries.diff(&self.entries).map(|item| Arc::clone(key_of(&item))));
        // What was stored and deleted in between differs in nothing but its tombstone.
        keys.extend(old.tombstones.diff(&self.tombstones).map(|item| Arc::clone(key_of(&item))));
    }

    /// The index of a prefix whose newest entry has the index `newest`.
    fn prefix_index(&self, prefix: &str, newest: Option<ModifyIndex>) -> ModifyIndex {
        if prefix.is_empty() {
            return self.changed;
        }
        let deleted = starting_with(&self.tombstones, prefix).map(|(_, at)| *at).max();
        newest.max(deleted).unwrap_or(self.changed)
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<KvEntry>> {
        starting_with(&self.entries, prefix).map(|(_, entry)| entry)
    }
}

/// What is stored under keys that begin with `prefix`, by key.
fn starting_with<'a, V>(
    map: &'a OrdMap<Arc<str>, V>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let all = map.range::<_, str>(from);
    all.take_while(move |(key, _)| key.starts_with(prefix))
}

/// `key` up to and with the first `separator` at or behind `from`.
fn cut<'a>(key: &'a str, from: usize, separator: &str) -> &'a str {
    let rest = key.get(from..).unwrap_or_default();
    match rest.find(separator).filter(|_| !separator.is_empty()) {
        Some(at) => key.get(..from + at + separator.len()).unwrap_or(key),
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn put(key: &str, value: &str, only_at: Option<u64>) -> KvWrite {
        let (key, value) = (key.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
        KvWrite::Put(KvPut { key, value, flags: 0, only_at: only_at.map(ModifyIndex::new) })
    }

    fn delete(key: &str, only_at: Option<u64>) -> KvWrite {
        let only_at = only_at.map(ModifyIndex::new);
        KvWrite::Delete(KvDelete { key: key.to_owned(), only_at })
    }

    fn table(writes: &[KvWrite]) -> KvTable {
        let mut table = KvTable::default();
        for (index, write) in (1..).zip(writes) {
            assert!(table.write(ModifyIndex::new(index), write).is_ok());
        }
        table
    }

    fn keys(table: &KvTable, prefix: &str, separator: &str) -> (Vec<String>, u64) {
        let (prefix, separator) = (prefix.to_owned(), separator.to_owned());
        let (keys, index) = table.keys(&KeyList { prefix, separator });
        (keys, index.get())
    }

    #[test]
    fn a_conditional_put_needs_exactly_the_index_of_the_entry() {
        let mut table = table(&[put("a", "1", Some(0))]);
        let at = ModifyIndex::new(2);
        let stale = Err(KeyRefusal::Stale);
        assert_eq!(table.write(at, &put("a", "2", Some(0))), stale, "it exists");
        assert_eq!(table.write(at, &put("a", "2", Some(7))), stale);
        assert_eq!(table.write(at, &put("b", "2", Some(1))), stale, "it does not exist");
        assert_eq!(table.one("a").1, ModifyIndex::new(1));
        assert_eq!(table.write(at, &put("a", "2", Some(1))), Ok(()));
        let (entry, index) = table.one("a");
        assert_eq!((entry.unwrap().create_index.get(), index.get()), (1, 2));
    }

    #[test]
    fn a_conditional_delete_of_what_is_not_there_is_done() {
        let mut table = table(&[put("a", "1", None)]);
        let at = ModifyIndex::new(2);
        for wrong in [0, 9] {
            assert_eq!(table.write(at, &delete("a", Some(wrong))), Err(KeyRefusal::Stale));
        }
        assert_eq!(table.write(at, &delete("b", Some(9))), Ok(()));
        assert_eq!(table.changed, ModifyIndex::new(1));
        assert_eq!(table.write(at, &delete("a", Some(1))), Ok(()));
        assert_eq!(table.one("a"), (None, ModifyIndex::new(2)));
    }

    #[test]
    fn an_identical_put_changes_nothing() {
        let mut written = table(&[put("a", "1", None)]);
        let before = written.clone();
        assert_eq!(written.write(ModifyIndex::new(5), &put("a", "1", None)), Ok(()));
        assert_eq!(written, before);
    }

    #[test]
    fn a_deletion_under_a_prefix_raises_its_index_until_it_is_reaped() {
        let mut table = table(&[put("a/b", "", None), put("a/c", "", None), put("x", "", None)]);
        assert_eq!(keys(&table, "a/", "").1, 2);
        table.write(ModifyIndex::new(4), &delete("a/b", None)).unwrap();
        table.write(ModifyIndex::new(5), &put("y", "", None)).unwrap();
        assert_eq!(keys(&table, "a/", "").1, 4);
        assert_eq!(keys(&table, "q", "").1, 5, "nothing there: the table's");
        assert_eq!(table.newest_deletion(), Some(ModifyIndex::new(4)));
        table.reap(ModifyIndex::new(3));
        assert_eq!(keys(&table, "a/", "").1, 4);
        table.reap(ModifyIndex::new(4));
        assert_eq!((keys(&table, "a/", "").1, table.newest_deletion()), (2, None));
    }

    #[test]
    fn a_deleted_tree_takes_no_index_under_it_back() {
        let mut table = table(&[put("a/b", "", None), delete("a/b", None), put("a/b", "", None)]);
        assert_eq!(keys(&table, "a/b", "").1, 3);
        table.write(ModifyIndex::new(4), &KvWrite::DeleteTree("a/".to_owned())).unwrap();
        assert_eq!(keys(&table, "a/b", ""), (Vec::new(), 4));
    }

    #[test]
    fn a_tree_is_a_plain_prefix_and_keys_are_cut_behind_the_separator() {
        let table = table(&[
            put("a", "", None),
            put("a/b", "", None),
            put("a/c/d", "", None),
            put("a/c/e", "", None),
            put("ab", "", None),
        ]);
        assert_eq!(keys(&table, "a/", "/").0, ["a/b", "a/c/"]);
        assert_eq!(keys(&table, "a", "/").0, ["a", "a/", "ab"]);
        assert_eq!(keys(&table, "a/c", "").0, ["a/c/d", "a/c/e"]);
        assert_eq!(table.tree("a/c/").0.len(), 2);
    }

    #[derive(Default)]
    struct Naive {
        entries: BTreeMap<String, (String, u64)>,
        deleted: BTreeMap<String, u64>,
        changed: u64,
    }

    impl Naive {
        fn prefix_index(&self, prefix: &str) -> u64 {
            let entries = self.entries.iter().map(|(key, (_, at))| (key, at));
            let all = entries.chain(&self.deleted).filter(|(key, _)| key.starts_with(prefix));
            let newest = all.map(|(_, at)| *at).max();
            newest.filter(|_| !prefix.is_empty()).unwrap_or(self.changed)
        }

        fn apply(&mut self, index: u64, write: &KvWrite) -> bool {
            match write {
                KvWrite::Put(put) => {
                    let at = self.entries.get(&put.key).map_or(0, |(_, at)| *at);
                    if put.only_at.is_some_and(|wanted| wanted.get() != at) {
                        return false;
                    }
                    let value = String::from_utf8(put.value.to_vec()).unwrap();
                    if self.entries.get(&put.key).is_some_and(|(old, _)| *old == value) {
                        return true;
                    }
                    self.entries.insert(put.key.clone(), (value, index));
                    self.changed = index;
                }
                KvWrite::Delete(delete) => {
                    let Some((_, at)) = self.entries.get(&delete.key) else { return true };
                    if delete.only_at.is_some_and(|wanted| wanted.get() != *at) {
                        return false;
                    }
                    self.entries.remove(&delete.key);
                    self.deleted.insert(delete.key.clone(), index);
                    self.changed = index;
                }
                KvWrite::DeleteTree(prefix) => {
                    let before = self.entries.len();
                    self.entries.retain(|key, _| !key.starts_with(prefix));
                    if self.entries.len() < before {
                        self.deleted.retain(|key, _| !key.starts_with(prefix.as_str()));
                        self.deleted.insert(prefix.clone(), index);
                        self.changed = index;
                    }
                }
                KvWrite::Acquire(_) | KvWrite::Release(_) => panic!("no session here"),
            }
            true
        }
    }

    fn any_write() -> impl Strategy<Value = KvWrite> {
        let key = "[ab]{1,2}(/[ab]){0,2}";
        prop_oneof![
            4 => (key, "[xy]", proptest::option::of(0..12_u64))
                .prop_map(|(key, value, at)| put(&key, &value, at)),
            2 => (key, proptest::option::of(0..12_u64)).prop_map(|(key, at)| delete(&key, at)),
            1 => "[ab]{0,2}/?".prop_map(KvWrite::DeleteTree),
        ]
    }

    proptest! {
        #[test]
        fn the_table_is_a_map_with_indexes(
            writes in proptest::collection::vec(any_write(), 1..24),
            prefix in "[ab]{0,2}/?",
        ) {
            let (mut table, mut naive) = (KvTable::default(), Naive::default());
            for (index, write) in (1..).zip(&writes) {
                let done = table.write(ModifyIndex::new(index), write).is_ok();
                prop_assert_eq!(done, naive.apply(index, write));
                let (entries, at) = table.tree(&prefix);
                prop_assert_eq!(at.get(), naive.prefix_index(&prefix));
                let shown: Vec<_> = entries.iter().map(|it| it.key.to_string()).collect();
                let kept = naive.entries.keys().filter(|key| key.starts_with(&prefix)).cloned();
                prop_assert_eq!(shown, kept.collect::<Vec<_>>());
                for (key, (value, at)) in &naive.entries {
                    let (entry, index) = table.one(key);
                    prop_assert_eq!((&*entry.unwrap().value, index.get()), (value.as_bytes(), *at));
                }
            }
        }
    }
}
