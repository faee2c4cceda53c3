//! Several operations on the tables as one (http-api.md §12).
//!
//! The operations are done in order on a copy of the tables, so that each sees what those before
//! it wrote; the copy takes the tables' place only if none failed. All are tried, so that every
//! failure is told.

mod rows;

pub use rows::{
    CheckWrite, NodeDelete, NodeKey, NodeWrite, RowDelete, RowKey, RowOperation, ServiceWrite,
};

use super::Tables;
use super::kv::{KvDelete, KvEntry, KvPut, KvWrite};
use super::lock::{KeyRefusal, KvLock};
use super::model::{Check, Node, Service};
use crate::id::ModifyIndex;
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::sync::Arc;

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Changes the table; a condition that is not met fails the transaction.
    Write(KvWrite),
    /// Gives an entry that must exist.
    Get(String),
    /// Gives all entries under a prefix.
    GetTree(String),
    /// Fails unless the entry has exactly this index.
    CheckIndex(IndexCheck),
    /// Fails if there is such an entry.
    CheckNotExists(String),
    /// Fails with this text: what was asked for breaks a rule.
    Refused(String),
    /// Something about a node, service or check.
    Row(RowOperation),
    /// Fails unless exactly this session, or none, holds the key of an entry.
    CheckSession(SessionCheck),
}
pack_enum!(Operation {
    1 => Write(KvWrite), 2 => Get(String), 3 => GetTree(String), 4 => CheckIndex(IndexCheck),
    5 => CheckNotExists(String), 6 => Refused(String), 7 => Row(RowOperation),
    8 => CheckSession(SessionCheck),
});

impl Operation {
    /// Whether it changes nothing.
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Write(_) => false,
            Self::Row(row) => row.is_read(),
            Self::Get(_)
            | Self::GetTree(_)
            | Self::CheckIndex(_)
            | Self::CheckNotExists(_)
            | Self::CheckSession(_)
            | Self::Refused(_) => true,
        }
    }
}

/// An entry and the index it must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexCheck {
    /// The entry's key.
    pub key: String,
    /// The index.
    pub index: ModifyIndex,
}
pack_struct!(IndexCheck { key, index });

/// An entry and the session that must hold its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionCheck {
    /// The entry's key.
    pub key: String,
    /// The session as text; empty for none.
    pub session: String,
}
pack_struct!(SessionCheck { key, session });

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionResult {
    /// It is done. Holds what was read, stored or checked, in the order of the operations; entries
    /// that were not read are without their values.
    Done(Vec<TransactionRow>),
    /// It changed nothing: these operations failed.
    Failed(Vec<OperationError>),
}
pack_enum!(TransactionResult { 1 => Done(Vec<TransactionRow>), 2 => Failed(Vec<OperationError>) });

/// What an operation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRow {
    /// An entry of the key-value table.
    Entry(Arc<KvEntry>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A check.
    Check(Arc<Check>),
}
pack_enum!(TransactionRow {
    1 => Entry(Arc<KvEntry>), 2 => Node(Arc<Node>), 3 => Service(Arc<Service>),
    4 => Check(Arc<Check>),
});

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationError {
    /// Its place among the operations, from 0.
    pub operation: u64,
    /// The text that clients see.
    pub what: String,
}
pack_struct!(OperationError { operation, what });

impl Tables {
    /// Does all operations, or none.
    pub(super) fn transact(
        &mut self,
        index: ModifyIndex,
        operations: &[Operation],
    ) -> TransactionResult {
        let mut next = self.clone();
        let result = next.try_all(index, operations);
        if matches!(result, TransactionResult::Done(_)) {
            *self = next;
        }
        result
    }

    /// What a transaction that only reads gives.
    pub(crate) fn read_together(&self, operations: &[Operation]) -> TransactionResult {
        let reads = operations.iter().all(Operation::is_read);
        assert!(reads, "a transaction that writes goes through the log");
        self.clone().try_all(ModifyIndex::ZERO, operations)
    }

    fn try_all(&mut self, index: ModifyIndex, operations: &[Operation]) -> TransactionResult {
        let (mut rows, mut errors) = (Vec::new(), Vec::new());
        for (operation, wanted) in (0..).zip(operations) {
            match self.try_one(index, wanted) {
                Ok(found) => rows.extend(found),
                Err(what) => errors.push(OperationError { operation, what }),
            }
        }
        if errors.is_empty() {
            TransactionResult::Done(rows)
        } else {
            TransactionResult::Failed(errors)
        }
    }

    fn try_one(
        &mut self,
        index: ModifyIndex,
        operation: &Operation,
    ) -> Result<Vec<TransactionRow>, String> {
        let named = |key: &str| match key {
            "" => Err("Must provide key".to_owned()),
            _ => Ok(()),
        };
        match operation {
            Operation::Write(write) => self.try_write(index, write),
            Operation::Get(key) => {
                named(key)?;
                let (entry, _) = self.kv.one(key);
                let entry = entry.ok_or_else(|| format!("key {key:?} doesn't exist"))?;
                Ok(vec![TransactionRow::Entry(Arc::clone(entry))])
            }
            Operation::GetTree(prefix) => {
                Ok(self.kv.tree(prefix).0.into_iter().map(TransactionRow::Entry).collect())
            }
            Operation::CheckIndex(IndexCheck { key, index }) => {
                named(key)?;
                let (entry, _) = self.kv.one(key);
                let missing = || format!("failed to check index, key {key:?} doesn't exist");
                let entry = entry.ok_or_else(missing)?;
                let at = entry.modify_index;
                if at != *index {
                    let what = format!("failed index check for key {key:?}");
                    return Err(format!("{what}, current modify index {at} != {index}"));
                }
                Ok(vec![without_value(entry)])
            }
            Operation::CheckSession(SessionCheck { key, session }) => {
                named(key)?;
                let (entry, _) = self.kv.one(key);
                let missing = || format!("failed to check session, key {key:?} doesn't exist");
                let entry = entry.ok_or_else(missing)?;
                let holder = entry.lock().1.map_or_else(String::new, |holder| holder.to_string());
                if holder != *session {
                    let what = format!("failed session check for key {key:?}");
                    return Err(format!("{what}, current session {holder:?} != {session:?}"));
                }
                Ok(vec![without_value(entry)])
            }
            Operation::Refused(rule) => Err(rule.clone()),
            Operation::Row(row) => Ok(self.try_row(index, row)?.into_iter().collect()),
            Operation::CheckNotExists(key) => {
                named(key)?;
                match self.kv.one(key).0 {
                    Some(_) => Err(format!("key {key:?} exists")),
                    None => Ok(Vec::new()),
                }
            }
        }
    }

    fn try_write(
        &mut self,
        index: ModifyIndex,
        write: &KvWrite,
    ) -> Result<Vec<TransactionRow>, String> {
        let (verb, key) = match write {
            KvWrite::Put(KvPut { key, .. }) => ("set", key),
            KvWrite::Delete(KvDelete { key, .. }) => ("delete", key),
            KvWrite::Acquire(KvLock { key, .. }) => ("lock", key),
            KvWrite::Release(KvLock { key, .. }) => ("unlock", key),
            KvWrite::DeleteTree(prefix) => {
                self.kv.delete_tree(index, prefix);
                return Ok(Vec::new());
            }
        };
        if key.is_empty() {
            return Err("Must provide key".to_owned());
        }
        self.write_key(index, write).map_err(|refusal| match refusal {
            KeyRefusal::NoSession(_) => refusal.to_string(),
            KeyRefusal::Delayed => format!("failed to {verb} key {key:?} {refusal}"),
            KeyRefusal::Stale | KeyRefusal::Held | KeyRefusal::NotHeld => {
                format!("failed to {verb} key {key:?}, {refusal}")
            }
        })?;
        Ok(self.kv.one(key).0.map(without_value).into_iter().collect())
    }
}

fn without_value(entry: &Arc<KvEntry>) -> TransactionRow {
    TransactionRow::Entry(Arc::new(KvEntry { value: Bytes::new(), ..KvEntry::clone(entry) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, only_at: Option<u64>) -> Operation {
        let only_at = only_at.map(ModifyIndex::new);
        let (key, value) = (key.to_owned(), Bytes::from_static(b"v"));
        Operation::Write(KvWrite::Put(KvPut { key, value, flags: 0, only_at }))
    }

    fn transact(tables: &mut Tables, index: u64, operations: &[Operation]) -> TransactionResult {
        tables.transact(ModifyIndex::new(index), operations)
    }

    #[test]
    fn operations_see_what_those_before_them_wrote() {
        let mut tables = Tables::default();
        let delete = KvDelete { key: "a".to_owned(), only_at: None };
        let all = [
            put("a", Some(0)),
            Operation::Get("a".to_owned()),
            Operation::Write(KvWrite::Delete(delete)),
            Operation::CheckNotExists("a".to_owned()),
            put("b", None),
            Operation::GetTree(String::new()),
        ];
        let TransactionResult::Done(rows) = transact(&mut tables, 7, &all) else { panic!() };
        let entry = |row: &TransactionRow| match row {
            TransactionRow::Entry(entry) => (entry.key.to_string(), entry.value.len()),
            TransactionRow::Node(_) | TransactionRow::Service(_) | TransactionRow::Check(_) => {
                panic!("{row:?}")
            }
        };
        let shown: Vec<_> = rows.iter().map(entry).collect();
        let shown: Vec<_> = shown.iter().map(|(key, length)| (key.as_str(), *length)).collect();
        assert_eq!(shown, [("a", 0), ("a", 1), ("b", 0), ("b", 1)]);
        assert_eq!(tables.kv.one("b").1, ModifyIndex::new(7));
    }

    #[test]
    fn one_failure_undoes_everything_and_all_failures_are_told() {
        let mut tables = Tables::default();
        transact(&mut tables, 1, &[put("a", None)]);
        let before = tables.clone();
        let index = ModifyIndex::new(9);
        let all = [
            put("b", None),
            put("a", Some(0)),
            Operation::Get("nope".to_owned()),
            Operation::CheckIndex(IndexCheck { key: "a".to_owned(), index }),
            Operation::CheckIndex(IndexCheck { key: "nope".to_owned(), index }),
            Operation::CheckNotExists("a".to_owned()),
            put("", None),
            Operation::Refused("unknown KV verb \"zz\"".to_owned()),
        ];
        let TransactionResult::Failed(errors) = transact(&mut tables, 2, &all) else { panic!() };
        let shown: Vec<_> = errors.iter().map(|it| (it.operation, it.what.as_str())).collect();
        let expected = [
            (1, "failed to set key \"a\", index is stale"),
            (2, "key \"nope\" doesn't exist"),
            (3, "failed index check for key \"a\", current modify index 1 != 9"),
            (4, "failed to check index, key \"nope\" doesn't exist"),
            (5, "key \"a\" exists"),
            (6, "Must provide key"),
            (7, "unknown KV verb \"zz\""),
        ];
        assert_eq!(shown, expected);
        assert_eq!(tables, before);
    }
}
