//! The body of a transaction (http-api.md §12).

use super::catalog::{
    CheckBody, Refusal, ServiceBody, decode_check, decode_service, node_id, node_name,
};
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::model::Node;
use terraform_core::catalog::transaction::{
    CheckWrite, IndexCheck, NodeDelete, NodeKey, NodeWrite, Operation, RowDelete, RowKey,
    RowOperation, ServiceWrite, SessionCheck,
};
use terraform_core::id::{ModifyIndex, SessionId};
use terraform_core::wire::base64;

/// Elements of the list in one transaction.
const OPERATIONS_MAX: usize = 64;

/// What an element of the list asks for.
struct Element {
    /// What is done, or by name what is not built.
    asked: Result<Operation, String>,
    /// Whether its verb is one that writes.
    writes: bool,
}

/// A transaction as given.
pub(in crate::http::api) struct TransactionBody {
    /// What is done; an element that asks for nothing is left out.
    pub(in crate::http::api) operations: Vec<Operation>,
    /// Whether one of them has a verb that writes. A verb that nobody knows writes, except on keys.
    pub(in crate::http::api) writes: bool,
}

/// The operations of a body.
pub(in crate::http::api) fn operations(body: &[u8]) -> Result<TransactionBody, Reply> {
    let unreadable = |error: String| Reply::text(400, format!("Failed to parse body: {error}"));
    let value = decode::parse(body).map_err(|error| unreadable(error.to_string()))?;
    if value.is_object() {
        let rule = "json: cannot unmarshal object into Go value of type api.TxnOps";
        return Err(unreadable(rule.to_owned()));
    }
    let elements = decode::list(&value, "TxnOps", |value, _| element(value));
    let elements = elements.map_err(|error| unreadable(error.to_string()))?;
    let count = elements.len();
    if count > OPERATIONS_MAX {
        let rule = format!("({count} > {OPERATIONS_MAX})");
        return Err(Reply::text(413, format!("Transaction contains too many operations {rule}")));
    }
    let (mut operations, mut any_writes) = (Vec::new(), false);
    for Element { asked, writes } in elements.into_iter().flatten() {
        operations.push(asked.map_err(|what| Reply::not_built(&what))?);
        any_writes |= writes;
    }
    Ok(TransactionBody { operations, writes: any_writes })
}

/// One element; of several operations in it the first in this order counts.
fn element(value: &Value) -> Result<Option<Element>, DecodeError> {
    let [mut kv, mut node, mut service, mut check] = [const { None }; 4];
    decode::each(value, "TxnOp", |key, value| {
        match key {
            "kv" | "node" | "service" | "check" if value.is_null() => {}
            "kv" => kv = Some(kv_operation(value)?),
            "node" => node = Some(node_operation(value)?),
            "service" => service = Some(service_operation(value)?),
            "check" => check = Some(check_operation(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(kv.or(node).or(service).or(check))
}

/// What is asked for of a row, or that nobody knows the verb.
fn of_verb(
    kind: &str,
    verb: &str,
    index: ModifyIndex,
    act: impl FnOnce(Act) -> Result<RowOperation, Refusal>,
) -> Element {
    let act = match verb {
        "get" => act(Act::Get),
        "set" => act(Act::Set(None)),
        "cas" => act(Act::Set(Some(index))),
        "delete" => act(Act::Delete(None)),
        "delete-cas" => act(Act::Delete(Some(index))),
        _ => Err(Refusal::Rule(format!("unknown {kind} verb {verb:?}"))),
    };
    let asked = match act {
        Ok(row) => Ok(Operation::Row(row)),
        Err(Refusal::Rule(rule)) => Ok(Operation::Refused(rule)),
        Err(Refusal::NotBuilt(field)) => Err(format!("the field {field:?}")),
    };
    Element { asked, writes: verb != "get" }
}

/// What is done with a row, with the condition.
enum Act {
    Get,
    Set(Option<ModifyIndex>),
    Delete(Option<ModifyIndex>),
}

fn node_operation(value: &Value) -> Result<Element, DecodeError> {
    let mut verb = String::new();
    let [mut id, mut name, mut address] = [const { String::new() }; 3];
    let [mut tagged_addresses, mut meta] = [const { BTreeMap::new() }; 2];
    let mut index = 0;
    let mut row = |value: &Value| {
        decode::each(value, "Node", |field, value| {
            match field {
                "id" => id = decode::string(value, "ID")?,
                "node" => name = decode::string(value, "Node")?,
                "address" => address = decode::string(value, "Address")?,
                // The request says in which datacenter it is done.
                "datacenter" => drop(decode::string(value, "Datacenter")?),
                "taggedaddresses" => {
                    tagged_addresses = decode::map(value, "TaggedAddresses", decode::string)?;
                }
                "meta" => meta = decode::map(value, "Meta", decode::string)?,
                "createindex" => drop(decode::unsigned(value, "CreateIndex")?),
                "modifyindex" => index = decode::unsigned(value, "ModifyIndex")?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    };
    decode::each(value, "Node", |field, value| {
        match field {
            "verb" => verb = decode::string(value, "Verb")?,
            "node" => row(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (create_index, modify_index) = (ModifyIndex::ZERO, ModifyIndex::ZERO);
    Ok(of_verb("Node", &verb, ModifyIndex::new(index), |act| {
        let id = node_id(&id)?;
        Ok(match act {
            Act::Get => RowOperation::GetNode(NodeKey { id, name }),
            Act::Set(only_at) => {
                let name = node_name(&name)?;
                let node =
                    Node { id, name, address, tagged_addresses, meta, create_index, modify_index };
                RowOperation::SetNode(Box::new(NodeWrite { node, only_at }))
            }
            Act::Delete(only_at) => {
                let name = node_name(&name)?.to_string();
                RowOperation::DeleteNode(NodeDelete { name, only_at })
            }
        })
    }))
}

fn service_operation(value: &Value) -> Result<Element, DecodeError> {
    let [mut verb, mut node] = [const { String::new() }; 2];
    let mut service = ServiceBody::default();
    decode::each(value, "Service", |field, value| {
        match field {
            "verb" => verb = decode::string(value, "Verb")?,
            "node" => node = decode::string(value, "Node")?,
            "service" => service = decode_service(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (id, index) = service.key();
    let (id, index) = (id.to_owned(), index);
    Ok(of_verb("Service", &verb, index, |act| {
        Ok(match act {
            Act::Get => RowOperation::GetService(RowKey { node, id }),
            Act::Set(only_at) => {
                let service = service.define()?;
                RowOperation::SetService(Box::new(ServiceWrite { node, service, only_at }))
            }
            Act::Delete(only_at) => {
                let id = service.define()?.id.to_string();
                RowOperation::DeleteService(RowDelete { key: RowKey { node, id }, only_at })
            }
        })
    }))
}

fn check_operation(value: &Value) -> Result<Element, DecodeError> {
    let mut verb = String::new();
    let mut check = CheckBody::default();
    decode::each(value, "Check", |field, value| {
        match field {
            "verb" => verb = decode::string(value, "Verb")?,
            "check" => check = decode_check(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (node, id, index) = check.key();
    let (key, index) = (RowKey { node: node.to_owned(), id: id.to_owned() }, index);
    Ok(of_verb("Check", &verb, index, |act| {
        Ok(match act {
            Act::Get => RowOperation::GetCheck(key),
            Act::Set(only_at) => {
                let check = check.define(None)?;
                RowOperation::SetCheck(Box::new(CheckWrite { check, only_at }))
            }
            Act::Delete(only_at) => RowOperation::DeleteCheck(RowDelete { key, only_at }),
        })
    }))
}

fn kv_operation(value: &Value) -> Result<Element, DecodeError> {
    let [mut verb, mut key, mut text, mut session] = [const { String::new() }; 4];
    let (mut flags, mut index) = (0, 0);
    decode::each(value, "KV", |field, value| {
        match field {
            "verb" => verb = decode::string(value, "Verb")?,
            "key" => key = decode::string(value, "Key")?,
            "value" => text = decode::string(value, "Value")?,
            "flags" => flags = decode::unsigned(value, "Flags")?,
            "index" => index = decode::unsigned(value, "Index")?,
            "session" => session = decode::string(value, "Session")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let value = Bytes::from(base64::decode(text.as_bytes())?);
    let index = ModifyIndex::new(index);
    let operation = match verb.as_str() {
        "set" => Operation::Write(KvWrite::Put(KvPut { key, value, flags, only_at: None })),
        "cas" => {
            let only_at = Some(index);
            Operation::Write(KvWrite::Put(KvPut { key, value, flags, only_at }))
        }
        "delete" => Operation::Write(KvWrite::Delete(KvDelete { key, only_at: None })),
        "delete-cas" => Operation::Write(KvWrite::Delete(KvDelete { key, only_at: Some(index) })),
        "delete-tree" => Operation::Write(KvWrite::DeleteTree(key)),
        "get" => Operation::Get(key),
        "get-tree" => Operation::GetTree(key),
        "check-index" => Operation::CheckIndex(IndexCheck { key, index }),
        "check-not-exists" => Operation::CheckNotExists(key),
        "check-session" => Operation::CheckSession(SessionCheck { key, session }),
        "lock" | "unlock" => match SessionId::parse(&session) {
            Ok(session) if verb == "lock" => {
                Operation::Write(KvWrite::Acquire(KvLock { key, value, flags, session }))
            }
            Ok(session) => {
                Operation::Write(KvWrite::Release(KvLock { key, value, flags, session }))
            }
            Err(_) if session.is_empty() => Operation::Refused("missing session".to_owned()),
            Err(_) => Operation::Refused(super::session::NOT_UUID.to_owned()),
        },
        _ => Operation::Refused(format!("unknown KV verb {verb:?}")),
    };
    let writes =
        ["set", "cas", "delete", "delete-cas", "delete-tree", "lock", "unlock"].contains(&&*verb);
    Ok(Element { asked: Ok(operation), writes })
}
