//! Operations of a transaction on nodes, services and checks (http-api.md §12).

use super::super::model::{Check, Node, Service};
use super::super::{Tables, keys};
use super::TransactionRow;
use crate::id::{ModifyIndex, NodeId};
use crate::{pack_enum, pack_struct};
use std::fmt;
use std::sync::Arc;

/// One operation on one row. Conditions are as those on keys: the row must have changed last at
/// this index, or at zero must not exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowOperation {
    /// Gives a node that must exist.
    GetNode(NodeKey),
    /// Stores a node.
    SetNode(Box<NodeWrite>),
    /// Removes a node with everything on it; one that does not exist is no failure.
    DeleteNode(NodeDelete),
    /// Gives a service that must exist.
    GetService(RowKey),
    /// Stores a service on a node that exists.
    SetService(Box<ServiceWrite>),
    /// Removes a service with its checks; as for nodes.
    DeleteService(RowDelete),
    /// Gives a check that must exist.
    GetCheck(RowKey),
    /// Stores a check on a node, and of a service if it has one, that exist.
    SetCheck(Box<CheckWrite>),
    /// Removes a check; as for nodes.
    DeleteCheck(RowDelete),
}
pack_enum!(RowOperation {
    1 => GetNode(NodeKey), 2 => SetNode(Box<NodeWrite>), 3 => DeleteNode(NodeDelete),
    4 => GetService(RowKey), 5 => SetService(Box<ServiceWrite>), 6 => DeleteService(RowDelete),
    7 => GetCheck(RowKey), 8 => SetCheck(Box<CheckWrite>), 9 => DeleteCheck(RowDelete),
});

/// A node: by its identity if that is given, else by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// Its identity.
    pub id: Option<NodeId>,
    /// Its name, in any case.
    pub name: String,
}
pack_struct!(NodeKey { id, name });

/// A service or check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The name of its node, in any case.
    pub node: String,
    /// Its id.
    pub id: String,
}
pack_struct!(RowKey { node, id });

/// A node to store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeWrite {
    /// The node; its indexes are ignored.
    pub node: Node,
    /// The condition, if there is one.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(NodeWrite { node, only_at });

/// A node to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeDelete {
    /// Its name, in any case.
    pub name: String,
    /// The condition, if there is one.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(NodeDelete { name, only_at });

/// A service to store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceWrite {
    /// The name of its node, in any case.
    pub node: String,
    /// The service; its indexes are ignored.
    pub service: Service,
    /// The condition, if there is one.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(ServiceWrite { node, service, only_at });

/// A check to store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckWrite {
    /// The check; its indexes, and what follows from its service, are ignored.
    pub check: Check,
    /// The condition, if there is one.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(CheckWrite { check, only_at });

/// A service or check to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowDelete {
    /// Which.
    pub key: RowKey,
    /// The condition, if there is one.
    pub only_at: Option<ModifyIndex>,
}
pack_struct!(RowDelete { key, only_at });

impl RowOperation {
    /// Whether it changes nothing.
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::GetNode(_) | Self::GetService(_) | Self::GetCheck(_))
    }
}

type Done = Result<Option<TransactionRow>, String>;

impl Tables {
    /// Does one operation: the row that it gives, or why it failed.
    pub(super) fn try_row(&mut self, index: ModifyIndex, operation: &RowOperation) -> Done {
        match operation {
            RowOperation::GetNode(key) => self.get_node(key),
            RowOperation::SetNode(write) => self.set_node(index, write),
            RowOperation::DeleteNode(delete) => {
                let key = delete.name.to_lowercase();
                let found = self.nodes.get(&*key).map(|row| row.node.modify_index);
                permit(Verb::Delete, found, delete.only_at, || format!("node {:?}", delete.name))?;
                self.remove_node(index, &key);
                Ok(None)
            }
            RowOperation::GetService(key) => {
                let service = self.services.get(&*row_key(key)).cloned();
                let missing =
                    || format!("service {:?} on node {:?} doesn't exist", key.id, key.node);
                Ok(Some(TransactionRow::Service(service.ok_or_else(missing)?)))
            }
            RowOperation::SetService(write) => self.set_service(index, write),
            RowOperation::DeleteService(RowDelete { key, only_at }) => {
                let found = self.services.get(&*row_key(key)).cloned();
                permit(Verb::Delete, found.as_ref().map(|it| it.modify_index), *only_at, || {
                    format!("service {:?} on node {:?}", key.id, key.node)
                })?;
                if let Some(service) = found {
                    self.remove_service(index, &key.node.to_lowercase(), &service.id);
                }
                Ok(None)
            }
            RowOperation::GetCheck(key) => {
                let check = self.checks.get(&*row_key(key)).cloned();
                let missing = || format!("check {:?} on node {:?} doesn't exist", key.id, key.node);
                Ok(Some(TransactionRow::Check(check.ok_or_else(missing)?)))
            }
            RowOperation::SetCheck(write) => self.set_check(index, write),
            RowOperation::DeleteCheck(RowDelete { key, only_at }) => {
                let found = self.checks.get(&*row_key(key)).cloned();
                permit(Verb::Delete, found.as_ref().map(|it| it.modify_index), *only_at, || {
                    format!("check {:?} on node {:?}", key.id, key.node)
                })?;
                if let Some(check) = found {
                    self.remove_check(index, &key.node.to_lowercase(), &check.id);
                }
                Ok(None)
            }
        }
    }

    fn get_node(&self, key: &NodeKey) -> Done {
        let by_id = key.id.map(|id| self.node_ids.get(&id).cloned());
        let name = by_id.unwrap_or_else(|| Some(key.name.to_lowercase().into()));
        let row = name.and_then(|name| self.nodes.get(&*name));
        let row = row.ok_or_else(|| format!("node {:?} doesn't exist", key.name))?;
        Ok(Some(TransactionRow::Node(Arc::clone(&row.node))))
    }

    fn set_node(&mut self, index: ModifyIndex, write: &NodeWrite) -> Done {
        let NodeWrite { node, only_at } = write;
        let key = keys::node(&node.name);
        let found = self.nodes.get(&*key).map(|row| row.node.modify_index);
        permit(Verb::Set, found, *only_at, || format!("node {:?}", node.name))?;
        self.check_name_is_free(&key, node).map_err(|error| error.to_string())?;
        self.put_node(index, &key, node.clone());
        Ok(self.nodes.get(&*key).map(|row| TransactionRow::Node(Arc::clone(&row.node))))
    }

    fn set_service(&mut self, index: ModifyIndex, write: &ServiceWrite) -> Done {
        let ServiceWrite { node, service, only_at } = write;
        let (key, owner) = self.owner(node)?;
        let place = keys::on_node(&key, service.id.as_str());
        let found = self.services.get(&*place).map(|it| it.modify_index);
        permit(Verb::Set, found, *only_at, || {
            format!("service {:?} on node {owner:?}", service.id)
        })?;
        self.put_service(index, &key, service.clone());
        Ok(self.services.get(&*place).cloned().map(TransactionRow::Service))
    }

    fn set_check(&mut self, index: ModifyIndex, write: &CheckWrite) -> Done {
        let CheckWrite { check, only_at } = write;
        let (key, owner) = self.owner(check.node.as_str())?;
        let place = keys::on_node(&key, check.id.as_str());
        let found = self.checks.get(&*place).map(|it| it.modify_index);
        permit(Verb::Set, found, *only_at, || format!("check {:?} on node {owner:?}", check.id))?;
        let service = check.service_id.as_ref().map(|id| keys::on_node(&key, id.as_str()));
        if service.is_some_and(|service| !self.services.contains_key(&*service)) {
            return Err("Missing service registration".to_owned());
        }
        self.put_check(index, &key, check.clone());
        Ok(self.checks.get(&*place).cloned().map(TransactionRow::Check))
    }

    /// The key and the name of a node that something is to be stored on.
    fn owner(&self, node: &str) -> Result<(String, String), String> {
        let key = node.to_lowercase();
        let row = self.nodes.get(&*key).ok_or_else(|| "Missing node registration".to_owned())?;
        let name = row.node.name.to_string();
        Ok((key, name))
    }
}

fn row_key(key: &RowKey) -> Arc<str> {
    keys::on_node(&key.node.to_lowercase(), &key.id)
}

/// What an operation with a condition does to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Set,
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "set",
            Self::Delete => "delete",
        })
    }
}

/// Whether a row, which changed last at `found` if it exists, is as the condition wants it.
fn permit(
    verb: Verb,
    found: Option<ModifyIndex>,
    only_at: Option<ModifyIndex>,
    what: impl FnOnce() -> String,
) -> Result<(), String> {
    let stale = match only_at {
        None => false,
        // What is not there cannot be removed at an index.
        Some(_) if verb == Verb::Delete && found.is_none() => true,
        Some(at) => at != found.unwrap_or(ModifyIndex::ZERO),
    };
    if stale { Err(format!("failed to {verb} {}, index is stale", what())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::super::model::CheckStatus;
    use super::super::super::tests::{check, node, register, registration, service};
    use super::super::{Operation, TransactionResult};
    use super::*;
    use crate::id::NodeName;

    fn transact(tables: &mut Tables, index: u64, rows: &[RowOperation]) -> TransactionResult {
        let operations: Vec<Operation> = rows.iter().cloned().map(Operation::Row).collect();
        tables.transact(ModifyIndex::new(index), &operations)
    }

    fn at(index: u64) -> Option<ModifyIndex> {
        Some(ModifyIndex::new(index))
    }

    fn set_node(name: &str, only_at: Option<ModifyIndex>) -> RowOperation {
        RowOperation::SetNode(Box::new(NodeWrite { node: node(name, Some(1)), only_at }))
    }

    fn set_service(on: &str, id: &str, only_at: Option<ModifyIndex>) -> RowOperation {
        let (node, service) = (on.to_owned(), service(id, "web"));
        RowOperation::SetService(Box::new(ServiceWrite { node, service, only_at }))
    }

    fn set_check(on: &str, id: &str, of: Option<&str>, at: Option<ModifyIndex>) -> RowOperation {
        let check = check(on, id, of, CheckStatus::Passing);
        RowOperation::SetCheck(Box::new(CheckWrite { check, only_at: at }))
    }

    fn key(node: &str, id: &str) -> RowKey {
        RowKey { node: node.to_owned(), id: id.to_owned() }
    }

    fn failures(result: TransactionResult) -> Vec<String> {
        let TransactionResult::Failed(errors) = result else { panic!("{result:?}") };
        errors.into_iter().map(|error| error.what).collect()
    }

    #[test]
    fn rows_are_stored_together_and_given_back() {
        let mut tables = Tables::default();
        let all = [
            set_node("n1", at(0)),
            set_service("N1", "s1", at(0)),
            set_check("n1", "c1", Some("s1"), at(0)),
            RowOperation::GetNode(NodeKey { id: node("n1", Some(1)).id, name: String::new() }),
            RowOperation::GetService(key("n1", "s1")),
            RowOperation::GetCheck(key("n1", "c1")),
        ];
        let TransactionResult::Done(rows) = transact(&mut tables, 7, &all) else { panic!() };
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[0], rows[3]);
        assert_eq!(rows[1], rows[4]);
        assert_eq!(rows[2], rows[5]);
        let TransactionRow::Check(check) = &rows[2] else { panic!() };
        assert_eq!((check.service_name.as_str(), check.modify_index.get()), ("web", 7));
        // The same as what a registration stores.
        let mut registered = Tables::default();
        let mut wanted = registration(node("n1", Some(1)));
        wanted.service = Some(service("s1", "web"));
        wanted.checks =
            vec![super::super::super::tests::check("n1", "c1", Some("s1"), CheckStatus::Passing)];
        register(&mut registered, 7, wanted).unwrap();
        assert_eq!(tables, registered);
    }

    #[test]
    fn conditions_compare_the_index_of_the_last_change() {
        let mut tables = Tables::default();
        let all = [
            set_node("n1", None),
            set_service("n1", "s1", None),
            set_check("n1", "c1", None, None),
        ];
        transact(&mut tables, 7, &all);
        let before = tables.clone();
        let delete = |key: RowKey, only_at| RowDelete { key, only_at };
        let stale = [
            set_node("n1", at(0)),
            set_service("n1", "s1", at(6)),
            set_check("n1", "c1", None, at(8)),
            RowOperation::DeleteNode(NodeDelete { name: "n1".to_owned(), only_at: at(6) }),
            RowOperation::DeleteService(delete(key("n1", "s1"), at(6))),
            RowOperation::DeleteCheck(delete(key("n1", "c1"), at(6))),
            RowOperation::DeleteCheck(delete(key("n1", "nope"), at(0))),
        ];
        let expected = [
            "failed to set node \"n1\", index is stale",
            "failed to set service \"s1\" on node \"n1\", index is stale",
            "failed to set check \"c1\" on node \"n1\", index is stale",
            "failed to delete node \"n1\", index is stale",
            "failed to delete service \"s1\" on node \"n1\", index is stale",
            "failed to delete check \"c1\" on node \"n1\", index is stale",
            "failed to delete check \"nope\" on node \"n1\", index is stale",
        ];
        assert_eq!(failures(transact(&mut tables, 9, &stale)), expected);
        assert_eq!(tables, before);
        let fitting = [
            RowOperation::DeleteCheck(delete(key("n1", "c1"), at(7))),
            RowOperation::DeleteService(delete(key("n1", "s1"), at(7))),
            RowOperation::DeleteNode(NodeDelete { name: "N1".to_owned(), only_at: at(7) }),
            RowOperation::DeleteNode(NodeDelete { name: "n1".to_owned(), only_at: None }),
        ];
        assert_eq!(transact(&mut tables, 9, &fitting), TransactionResult::Done(Vec::new()));
        assert!(tables.nodes.is_empty() && tables.services.is_empty() && tables.checks.is_empty());
    }

    #[test]
    fn what_a_row_stands_on_must_exist() {
        let mut tables = Tables::default();
        let all = [
            RowOperation::GetNode(NodeKey { id: None, name: "n1".to_owned() }),
            set_service("n1", "s1", None),
            set_check("n1", "c1", None, None),
            RowOperation::GetService(key("n1", "s1")),
            RowOperation::GetCheck(key("n1", "c1")),
            set_node("n2", None),
            set_check("n2", "c1", Some("s1"), None),
        ];
        let expected = [
            "node \"n1\" doesn't exist",
            "Missing node registration",
            "Missing node registration",
            "service \"s1\" on node \"n1\" doesn't exist",
            "check \"c1\" on node \"n1\" doesn't exist",
            "Missing service registration",
        ];
        assert_eq!(failures(transact(&mut tables, 3, &all)), expected);
        assert_eq!(tables, Tables::default());
        let name = NodeName::parse("n1").unwrap();
        assert!(tables.node_with_services(name.as_str()).1 == ModifyIndex::ZERO);
    }
}
