//! `/v1/kv`: keys and values.
//!
//! - Source: http-api.md §9.

use super::*;
use crate::http::json::Json;
use crate::http::render;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KeyList, KvDelete, KvEntry, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;

/// What the reads of this group act on.
const KV: Reads = Reads { blocks: true, caches: false, refuses_namespace: true };

impl Api {
    pub(super) async fn kv(&self, request: &ApiRequest<'_>) -> Handled {
        match request.timed.head.method {
            Method::Get => self.kv_get(request).await,
            Method::Put => self.kv_put(request).await,
            Method::Delete => self.kv_delete(request).await,
            Method::Head | Method::Post | Method::Options | Method::Other(_) => {
                Err(Reply::status(405))
            }
        }
    }

    async fn kv_get(&self, request: &ApiRequest<'_>) -> Handled {
        let params = request.params;
        let options = options::read(request, KV)?;
        let key = request.argument.to_owned();
        let query = if params.has("keys") {
            let separator = match params.get("separator") {
                "" => params.get("seperator"),
                separator => separator,
            };
            Query::Keys(KeyList { prefix: key, separator: separator.to_owned() })
        } else if params.has("recurse") {
            Query::KeyTree(key)
        } else if key.is_empty() {
            return Err(missing_key());
        } else {
            Query::Key(key)
        };
        let raw = params.has("raw") && matches!(query, Query::Key(_));
        let lists_all = matches!(&query, Query::Keys(list) if list.prefix.is_empty());
        let answer = self.query(options, query).await.map_err(|error| Reply::error(&error))?;
        let meta = Meta { consistency: None, ..Meta::of(&answer) };
        let reply = if let Rows::Names(keys) = &answer.rows {
            shown_keys(keys, lists_all)
        } else {
            let Rows::Entries(entries) = &answer.rows else { return Err(unexpected(&answer)) };
            shown_entries(entries, raw)
        };
        Ok(reply.with_meta(meta))
    }

    async fn kv_put(&self, request: &ApiRequest<'_>) -> Handled {
        let params = request.params;
        let context = options::write(request)?;
        options::refuse_namespace(request)?;
        if request.argument.is_empty() {
            return Err(missing_key());
        }
        refuse_conflict(params, &["cas", "acquire", "release"])?;
        let flags = if params.has("flags") { unsigned(params.get("flags"))? } else { 0 };
        let only_at = only_at(params)?;
        let (key, value) = (request.argument.to_owned(), request.body.clone());
        let lock = |name: &str| match params.get(name) {
            "" => Err(Reply::text(500, "missing session")),
            text => bodies::session::id(text),
        };
        let write = if params.has("acquire") {
            KvWrite::Acquire(KvLock { key, value, flags, session: lock("acquire")? })
        } else if params.has("release") {
            KvWrite::Release(KvLock { key, value, flags, session: lock("release")? })
        } else {
            KvWrite::Put(KvPut { key, value, flags, only_at })
        };
        self.kv_write(context, write).await
    }

    async fn kv_delete(&self, request: &ApiRequest<'_>) -> Handled {
        let params = request.params;
        let context = options::write(request)?;
        options::refuse_namespace(request)?;
        refuse_conflict(params, &["recurse", "cas"])?;
        let key = request.argument.to_owned();
        let write = if params.has("recurse") {
            KvWrite::DeleteTree(key)
        } else if key.is_empty() {
            return Err(missing_key());
        } else {
            KvWrite::Delete(KvDelete { key, only_at: only_at(params)? })
        };
        self.kv_write(context, write).await
    }

    async fn kv_write(&self, context: RequestContext, write: KvWrite) -> Handled {
        let body = RequestBody::Write(Command::Kv(write));
        match self.node.request(Request { context, body }).await {
            Ok(Response::Done) => Ok(Reply::json(b"true".to_vec())),
            Ok(Response::Unmet) => Ok(Reply::json(b"false".to_vec())),
            Ok(other) => Err(Reply::text(500, format!("a write was answered with {other:?}"))),
            Err(error) => Err(Reply::error(&error)),
        }
    }
}

/// Keys; none are 404, unless all there are were asked for.
fn shown_keys(keys: &[String], lists_all: bool) -> Reply {
    if keys.is_empty() && !lists_all {
        return Reply::status(404);
    }
    let mut json = Json::default();
    render::strings(&mut json, keys);
    Reply::json(json.into_bytes())
}

/// Entries, or the value of one; none are 404.
fn shown_entries(entries: &[Arc<KvEntry>], raw: bool) -> Reply {
    match entries {
        [] => Reply::status(404),
        [entry] if raw => Reply::raw(entry.value.clone()),
        entries => {
            let values: usize = entries.iter().map(|it| it.value.len() * 4 / 3).sum();
            let mut json = Json::with_capacity(values + entries.len() * 160 + 2);
            json.array(entries, |json, entry| render::kv_entry(json, entry));
            Reply::json(json.into_bytes())
        }
    }
}

fn missing_key() -> Reply {
    Reply::text(400, "Missing key name")
}

/// The index that `cas` demands.
fn only_at(params: &Params<'_>) -> Result<Option<ModifyIndex>, Reply> {
    let given = params.has("cas").then(|| unsigned(params.get("cas")));
    Ok(given.transpose()?.map(ModifyIndex::new))
}

/// Refuses two of `flags` in one request.
fn refuse_conflict(params: &Params<'_>, flags: &[&str]) -> Result<(), Reply> {
    if flags.iter().filter(|flag| params.has(flag)).count() < 2 {
        return Ok(());
    }
    Err(Reply::text(400, format!("Conflicting flags: {}", params.encode())))
}

/// A number, or the 500 that Consul's servers answer with.
fn unsigned(text: &str) -> Result<u64, Reply> {
    options::unsigned(text).map_err(|error| Reply::text(500, error))
}
