//! The body of a transaction (http-api.md §12).

use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use bytes::Bytes;
use serde_json::Value;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::transaction::{IndexCheck, Operation};
use terraform_core::id::ModifyIndex;
use terraform_core::wire::base64;

/// What an element of the list asks for.
enum Element {
    Kv(Operation),
    /// Something that is not built, by name.
    NotBuilt(String),
}

/// The operations of a body; an element that asks for nothing is left out.
pub(in crate::http::api) fn operations(body: &[u8]) -> Result<Vec<Operation>, Reply> {
    let unreadable = |error| Reply::text(400, format!("Failed to parse body: {error}"));
    let value = decode::parse(body).map_err(unreadable)?;
    let elements = decode::list(&value, "TxnOps", |value, _| element(value));
    let mut operations = Vec::new();
    for element in elements.map_err(unreadable)?.into_iter().flatten() {
        match element {
            Element::Kv(operation) => operations.push(operation),
            Element::NotBuilt(what) => return Err(Reply::not_built(&what)),
        }
    }
    Ok(operations)
}

fn element(value: &Value) -> Result<Option<Element>, DecodeError> {
    let (mut kv, mut other) = (None, None);
    decode::each(value, "TxnOp", |key, value| {
        match key {
            "kv" if value.is_null() => {}
            "kv" => kv = Some(kv_operation(value)?),
            "node" | "service" | "check" => {
                let named = format!("a transaction's \"{key}\" operation");
                other = other.take().or((!value.is_null()).then_some(Element::NotBuilt(named)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(kv.or(other))
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
        "lock" | "unlock" | "check-session" => {
            return Ok(Element::NotBuilt(format!("the KV verb {verb:?}")));
        }
        _ => Operation::Unknown(verb),
    };
    Ok(Element::Kv(operation))
}
