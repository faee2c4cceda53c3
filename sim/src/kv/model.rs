//! What the key-value table must be: a plain map, written apart from the table that ships.
//!
//! Source: http-api.md §9 and §12, simulation.md §8.1.

use super::backup::Foreign;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use terraform_core::catalog::command::{Applied, Command};
use terraform_core::catalog::kv::{KeyList, KvDelete, KvEntry, KvPut, KvWrite};
use terraform_core::catalog::lock::{Behavior, KeyLock, KvLock};
use terraform_core::catalog::query::{Query, Rows};
use terraform_core::catalog::session::Session;
use terraform_core::catalog::transaction::{
    Operation, OperationError, TransactionResult, TransactionRow,
};
use terraform_core::id::{ModifyIndex, SessionId};

/// The table after some committed commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    entries: BTreeMap<Arc<str>, Arc<KvEntry>>,
    /// Deleted keys and trees, and when.
    graves: BTreeMap<Arc<str>, ModifyIndex>,
    /// When something last changed.
    changed: ModifyIndex,
    /// What is added to a position in the log to get the index of what is done there.
    base: u64,
    /// When a backup took the place of everything.
    restored_at: ModifyIndex,
    /// Sessions there are.
    sessions: BTreeSet<SessionId>,
    /// Keys that cannot be acquired, and since when.
    delays: BTreeMap<Arc<str>, ModifyIndex>,
}

/// What became of a command: `None` if it was refused.
pub type Told = Option<Applied>;

impl Model {
    /// Does what the command committed at this position says; the outer `None` if it is not about
    /// keys.
    pub fn apply(&mut self, position: u64, command: &Command) -> Option<Told> {
        let index = self.index_of(position);
        let met = match command {
            Command::Kv(KvWrite::Acquire(lock)) if !self.sessions.contains(&lock.session) => {
                return Some(None);
            }
            Command::Kv(write) => self.write(index, write),
            Command::EndLockDelays(ended) => {
                for end in ended {
                    if self.delays.get(&end.key) == Some(&end.since) {
                        self.delays.remove(&end.key);
                    }
                }
                true
            }
            Command::Transaction(operations) => {
                let mut next = self.clone();
                let result = next.run(index, operations);
                if matches!(result, TransactionResult::Done(_)) {
                    *self = next;
                }
                return Some(Some(Applied::Transaction(result)));
            }
            Command::ReapTombstones(up_to) => {
                self.graves.retain(|_, at| *at > *up_to);
                true
            }
            // What a backup holds is known to whoever restores it.
            Command::Register(_)
            | Command::Deregister(_)
            | Command::Coordinates(_)
            | Command::Autopilot(_)
            | Command::CreateSession(_)
            | Command::EndSessions(_)
            | Command::Prepared(_)
            | Command::RestoreBlock(_)
            | Command::RestoreCommit(_)
            | Command::RestoreAbort(_) => return None,
        };
        Some(Some(if met { Applied::Done } else { Applied::Unmet }))
    }

    /// A session begins.
    pub fn begin(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    /// A session ends at this position: it lets go of what it holds.
    pub fn end(&mut self, position: u64, session: &Session) {
        let index = self.index_of(position);
        self.sessions.remove(&session.id);
        for key in self.held_by(session.id) {
            let old = KvEntry::clone(&self.entries[&key]);
            self.changed = index;
            if session.behavior == Behavior::Delete {
                self.entries.remove(&key);
                self.graves.insert(Arc::clone(&key), index);
            } else {
                let count = old.lock().0;
                let lock = (count > 0).then(|| Box::new(KeyLock { index: count, session: None }));
                let entry = KvEntry { lock, modify_index: index, ..old };
                self.entries.insert(Arc::clone(&key), Arc::new(entry));
            }
            if !session.lock_delay.is_zero() {
                self.delays.insert(key, index);
            }
        }
    }

    /// The index of what is done at a position.
    pub const fn index_of(&self, position: u64) -> ModifyIndex {
        ModifyIndex::new(position + self.base)
    }

    /// Deleted keys and trees that are remembered, and when they were deleted.
    pub fn graves(&self) -> impl Iterator<Item = (&Arc<str>, ModifyIndex)> {
        self.graves.iter().map(|(key, at)| (key, *at))
    }

    /// What a session holds.
    pub fn held_by(&self, session: SessionId) -> Vec<Arc<str>> {
        let held = self.entries.values().filter(|entry| entry.lock().1 == Some(session));
        held.map(|entry| Arc::clone(&entry.key)).collect()
    }

    /// What is left once this backup is restored at this position: nothing of what was, and no
    /// index as low as any before, here or in the backup.
    pub fn restored(&self, position: u64, backup: &Foreign) -> Self {
        let entries: BTreeMap<_, _> =
            backup.entries().map(|entry| (Arc::clone(&entry.key), Arc::new(entry))).collect();
        let newest = entries.values().map(|entry| entry.modify_index.get()).max().unwrap_or(0);
        let base = self.base.max((newest + 1).saturating_sub(position));
        let restored_at = ModifyIndex::new(position + base);
        let changed = ModifyIndex::new(newest);
        Self { entries, changed, base, restored_at, ..Self::default() }
    }

    /// What is left once what this cluster saved is restored at this position: all of it, but no
    /// index is as low as any before.
    pub fn put_back(&self, position: u64, saved: &Self) -> Self {
        let restored_at = ModifyIndex::new(position + self.base);
        Self { base: self.base, restored_at, ..saved.clone() }
    }

    /// The answer to a question about keys, and its index; `None` if it is about something else.
    pub fn answer(&self, query: &Query) -> Option<(Rows, ModifyIndex)> {
        let (rows, index) = match query {
            Query::Key(key) => {
                let entry = self.entries.get(key.as_str());
                let index = entry.map_or(self.changed, |entry| entry.modify_index);
                (Rows::Entries(entry.cloned().into_iter().collect()), index)
            }
            Query::KeyTree(prefix) => {
                (Rows::Entries(self.under(prefix).cloned().collect()), self.tree_index(prefix))
            }
            Query::Keys(KeyList { prefix, separator }) => {
                let mut keys: Vec<_> =
                    self.under(prefix).map(|e| cut(e, prefix, separator)).collect();
                keys.dedup();
                (Rows::Names(keys), self.tree_index(prefix))
            }
            Query::Transaction(operations) => {
                let result = self.clone().run(ModifyIndex::ZERO, operations);
                (Rows::Transaction(result), ModifyIndex::ZERO)
            }
            Query::Nodes(_)
            | Query::Services(_)
            | Query::ServiceNodes(_)
            | Query::Node(_)
            | Query::NodeChecks(_)
            | Query::ServiceChecks(_)
            | Query::ChecksInState(_)
            | Query::ServiceHealth(_)
            | Query::Datacenters
            | Query::Leader
            | Query::Peers
            | Query::RaftConfiguration
            | Query::Autopilot
            | Query::Session(_)
            | Query::Sessions(_)
            | Query::PreparedQueries
            | Query::PreparedQuery(_)
            | Query::ExplainPrepared(_)
            | Query::Chosen(_)
            | Query::Overview(_)
            | Query::AddressOwner(_)
            | Query::NodeNamed(_)
            | Query::Coordinates(_)
            | Query::DatacenterCoordinates => return None,
        };
        // An index of zero would let a blocking query return at once for ever.
        Some((rows, index.max(self.restored_at).max(ModifyIndex::new(1))))
    }

    fn write(&mut self, index: ModifyIndex, write: &KvWrite) -> bool {
        match write {
            KvWrite::Put(KvPut { key, value, flags, only_at }) => {
                let old = self.entries.get(key.as_str()).cloned();
                let (created, modified) = old
                    .as_ref()
                    .map_or((index, ModifyIndex::ZERO), |old| (old.create_index, old.modify_index));
                if only_at.is_some_and(|only_at| only_at != modified) {
                    return false;
                }
                let holder = old.and_then(|old| old.lock().1);
                self.store(index, created, (key, value, *flags), (0, holder));
                true
            }
            KvWrite::Acquire(KvLock { session, .. }) if !self.sessions.contains(session) => false,
            KvWrite::Acquire(KvLock { key, value, flags, session }) => {
                let old = self.entries.get(key.as_str()).cloned();
                let created = old.as_ref().map_or(index, |old| old.create_index);
                let (count, holder) = old.map_or((0, None), |old| old.lock());
                let count = match holder {
                    Some(holder) if holder == *session => count,
                    None if !self.delays.contains_key(key.as_str()) => count + 1,
                    Some(_) | None => return false,
                };
                self.store(index, created, (key, value, *flags), (count, Some(*session)));
                true
            }
            KvWrite::Release(KvLock { key, value, flags, session }) => {
                let old = self.entries.get(key.as_str()).cloned();
                let Some(old) = old.filter(|old| old.lock().1 == Some(*session)) else {
                    return false;
                };
                let lock = (old.lock().0, None);
                self.store(index, old.create_index, (key, value, *flags), lock);
                true
            }
            KvWrite::Delete(KvDelete { key, only_at }) => {
                let Some(old) = self.entries.get(key.as_str()) else { return true };
                if only_at.is_some_and(|only_at| only_at != old.modify_index) {
                    return false;
                }
                self.entries.remove(key.as_str());
                self.graves.insert(key.as_str().into(), index);
                self.changed = index;
                true
            }
            KvWrite::DeleteTree(prefix) => {
                let before = self.entries.len();
                self.entries.retain(|key, _| !key.starts_with(prefix.as_str()));
                if self.entries.len() < before {
                    self.graves.retain(|key, _| !key.starts_with(prefix.as_str()));
                    self.graves.insert(prefix.as_str().into(), index);
                    self.changed = index;
                }
                true
            }
        }
    }

    /// Stores an entry, unless the same one is there.
    fn store(
        &mut self,
        index: ModifyIndex,
        create_index: ModifyIndex,
        (key, value, flags): (&str, &bytes::Bytes, u64),
        (count, session): (u64, Option<SessionId>),
    ) {
        let is_known = count > 0 || session.is_some();
        let lock = is_known.then(|| Box::new(KeyLock { index: count, session }));
        let (key, value) = (Arc::from(key), value.clone());
        let entry = KvEntry { key, value, flags, lock, create_index, modify_index: index };
        let same = |old: &Arc<KvEntry>| {
            old.value == entry.value && old.flags == flags && old.lock == entry.lock
        };
        if !self.entries.get(&entry.key).is_some_and(same) {
            self.entries.insert(Arc::clone(&entry.key), Arc::new(entry));
            self.changed = index;
        }
    }

    fn run(&mut self, index: ModifyIndex, operations: &[Operation]) -> TransactionResult {
        let (mut entries, mut failed) = (Vec::new(), Vec::new());
        for (number, operation) in (0..).zip(operations) {
            match self.run_one(index, operation) {
                Some(found) => entries.extend(found),
                None => failed.push(OperationError { operation: number, what: String::new() }),
            }
        }
        if failed.is_empty() {
            TransactionResult::Done(entries)
        } else {
            TransactionResult::Failed(failed)
        }
    }

    /// What one operation of a transaction gives; `None` if it fails.
    fn run_one(
        &mut self,
        index: ModifyIndex,
        operation: &Operation,
    ) -> Option<Vec<TransactionRow>> {
        let bare = |entry: &Arc<KvEntry>| {
            let value = bytes::Bytes::new();
            TransactionRow::Entry(Arc::new(KvEntry { value, ..(**entry).clone() }))
        };
        let whole = |entry: &Arc<KvEntry>| TransactionRow::Entry(Arc::clone(entry));
        match operation {
            Operation::Write(write) => {
                if !self.write(index, write) {
                    return None;
                }
                let stored = match write {
                    KvWrite::Put(put) => self.entries.get(put.key.as_str()),
                    KvWrite::Acquire(lock) | KvWrite::Release(lock) => {
                        self.entries.get(lock.key.as_str())
                    }
                    KvWrite::Delete(_) | KvWrite::DeleteTree(_) => None,
                };
                Some(stored.map(bare).into_iter().collect())
            }
            Operation::Get(key) => self.entries.get(key.as_str()).map(|entry| vec![whole(entry)]),
            Operation::GetTree(prefix) => Some(self.under(prefix).map(whole).collect()),
            Operation::CheckIndex(check) => {
                let entry = self.entries.get(check.key.as_str());
                let entry = entry.filter(|entry| entry.modify_index == check.index)?;
                Some(vec![bare(entry)])
            }
            Operation::CheckNotExists(key) => {
                (!self.entries.contains_key(key.as_str())).then(Vec::new)
            }
            // No client of the simulator asks for other rows in a transaction.
            Operation::Refused(_) | Operation::Row(_) | Operation::CheckSession(_) => None,
        }
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<KvEntry>> {
        self.entries.values().filter(move |entry| entry.key.starts_with(prefix))
    }

    fn tree_index(&self, prefix: &str) -> ModifyIndex {
        let entries = self.under(prefix).map(|entry| entry.modify_index);
        let graves = self.graves.iter().filter(|(key, _)| key.starts_with(prefix));
        let newest = entries.chain(graves.map(|(_, at)| *at)).max();
        newest.filter(|_| !prefix.is_empty()).unwrap_or(self.changed)
    }
}

/// The entry's key up to and with the first `separator` behind `prefix`.
fn cut(entry: &Arc<KvEntry>, prefix: &str, separator: &str) -> String {
    let key = &*entry.key;
    if separator.is_empty() {
        return key.to_owned();
    }
    match key[prefix.len()..].split_once(separator) {
        Some((first, _)) => format!("{prefix}{first}{separator}"),
        None => key.to_owned(),
    }
}

/// Whether the told result is the model's; texts of errors are for people and not compared.
pub fn same_result(told: &TransactionResult, model: &TransactionResult) -> bool {
    let numbers = |errors: &[OperationError]| -> Vec<u64> {
        errors.iter().map(|error| error.operation).collect()
    };
    match (told, model) {
        (TransactionResult::Done(told), TransactionResult::Done(model)) => told == model,
        (TransactionResult::Failed(told), TransactionResult::Failed(model)) => {
            numbers(told) == numbers(model)
        }
        (TransactionResult::Done(_), TransactionResult::Failed(_))
        | (TransactionResult::Failed(_), TransactionResult::Done(_)) => false,
    }
}

/// Whether the told rows are the model's.
pub fn same_rows(told: &Rows, model: &Rows) -> bool {
    match (told, model) {
        (Rows::Transaction(told), Rows::Transaction(model)) => same_result(told, model),
        _ => told == model,
    }
}

#[cfg(test)]
mod tests;
