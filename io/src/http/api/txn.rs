//! `/v1/txn`: several operations as one.
//!
//! - Source: http-api.md §12.

use super::bodies::txn::TransactionBody;
use super::*;
use crate::http::json::Json;
use crate::http::render::{self, Place};
use terraform_core::catalog::address::Seen;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::KvWrite;
use terraform_core::catalog::transaction::{Operation, TransactionResult, TransactionRow};

impl Api {
    pub(super) async fn txn(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, Reads::default())?;
        let TransactionBody { operations, writes } = self.operations(request)?;
        // What was read or written is shown as it is, as in Consul.
        let place = Place { seen: Seen::Inside, ..options::answering(request) };
        if !writes {
            return self.read_together(options, operations, &place).await;
        }
        let context = options::write(request)?;
        let body = RequestBody::Write(Command::Transaction(operations));
        match self.node.request(Request { context, body }).await {
            Ok(Response::Transaction(result)) => Ok(render(&result, &place, None)),
            Ok(other) => Err(Reply::text(500, format!("a write was answered with {other:?}"))),
            Err(error) => Err(Reply::error(&error)),
        }
    }

    /// What is asked for, with no value that is too large for the store.
    fn operations(&self, request: &ApiRequest<'_>) -> Result<TransactionBody, Reply> {
        let body = bodies::txn::operations(request.body)?;
        let limit = self.settings.limits.bytes.value_bytes_max;
        let mut values = body.operations.iter().filter_map(stored);
        match values.find(|(_, bytes)| *bytes > limit) {
            None => Ok(body),
            Some((key, bytes)) => {
                let rule = format!("is too large ({bytes} > {limit} bytes)");
                Err(Reply::text(413, format!("Value for key {key:?} {rule}")))
            }
        }
    }

    /// A transaction that only reads does not go through the log.
    async fn read_together(
        &self,
        options: ReadOptions,
        operations: Vec<Operation>,
        place: &Place,
    ) -> Handled {
        let answer = self.query(options, Query::Transaction(operations)).await;
        let answer = answer.map_err(|error| Reply::error(&error))?;
        let Rows::Transaction(result) = &answer.rows else { return Err(unexpected(&answer)) };
        let (known, age) = (answer.known_leader, answer.last_contact.as_millis());
        Ok(render(result, place, Some(&answer))
            .with_header("X-Consul-Knownleader", if known { "true" } else { "false" })
            .with_header("X-Consul-Lastcontact", &age.to_string()))
    }
}

/// The key that an operation stores a value under, and the bytes of that.
fn stored(operation: &Operation) -> Option<(&str, usize)> {
    let Operation::Write(write) = operation else { return None };
    match write {
        KvWrite::Put(put) => Some((&put.key, put.value.len())),
        KvWrite::Acquire(lock) | KvWrite::Release(lock) => Some((&lock.key, lock.value.len())),
        KvWrite::Delete(_) | KvWrite::DeleteTree(_) => None,
    }
}

fn render_row(json: &mut Json, row: &TransactionRow, place: &Place) {
    match row {
        TransactionRow::Entry(entry) => {
            json.key("KV");
            render::kv_entry(json, entry);
        }
        TransactionRow::Node(node) => {
            json.key("Node");
            render::node(json, node, place);
        }
        TransactionRow::Service(service) => {
            json.key("Service");
            render::bare_service(json, service);
        }
        TransactionRow::Check(check) => {
            json.key("Check");
            render::bare_check(json, check);
        }
    }
}

fn render(result: &TransactionResult, place: &Place, read: Option<&QueryAnswer>) -> Reply {
    let mut json = Json::default();
    json.object(|json| {
        json.key("Results");
        match result {
            TransactionResult::Failed(_) => json.null(),
            TransactionResult::Done(rows) => {
                json.array(rows, |json, row| json.object(|json| render_row(json, row, place)));
            }
        }
        json.key("Errors");
        match result {
            TransactionResult::Done(_) => json.null(),
            TransactionResult::Failed(errors) => json.array(errors, |json, error| {
                json.object(|json| {
                    json.field("OpIndex", error.operation);
                    json.field("What", &error.what);
                });
            }),
        }
        if let Some(answer) = read {
            json.field("Index", 0_u64);
            let nanos = u64::try_from(answer.last_contact.as_nanos()).unwrap_or(u64::MAX);
            json.field("LastContact", nanos);
            json.field("KnownLeader", answer.known_leader);
            json.field("ConsistencyLevel", "");
        }
    });
    let mut reply = Reply::json(json.into_bytes());
    if matches!(result, TransactionResult::Failed(_)) {
        reply.status = 409;
    }
    reply
}
