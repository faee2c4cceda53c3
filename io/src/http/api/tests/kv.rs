//! Keys and values over HTTP.

use super::*;
use crate::http::respond::Content;
use bytes::Bytes;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KeyList, KvDelete, KvEntry, KvPut, KvWrite};
use terraform_core::catalog::lock::{KeyLock, KvLock};
use terraform_core::id::SessionId;

pub(super) fn entry(key: &str, value: &'static str) -> Arc<KvEntry> {
    let (create_index, modify_index) = (ModifyIndex::new(5), ModifyIndex::new(9));
    let value = Bytes::from_static(value.as_bytes());
    Arc::new(KvEntry { key: key.into(), value, flags: 7, lock: None, create_index, modify_index })
}

const NOT_UUID: &str = "failed session lookup: index error: UUID must be 36 characters";
const SESSION: &str = "01010101-0101-0101-0101-010101010101";
const HELLO: &str =
    r#"{"LockIndex":0,"Key":"a/b","Flags":7,"Value":"aGVsbG8=","CreateIndex":5,"ModifyIndex":9}"#;

#[test]
fn an_entry_is_shown_as_json_or_raw() {
    let world = server();
    let rows = || Rows::Entries(vec![entry("a/b", "hello")]);
    let (reply, asked) = world.read("GET /v1/kv/a%2Fb", rows());
    assert_eq!((reply.status, body(&reply)), (200, format!("[{HELLO}]")));
    let meta = reply.meta.unwrap();
    assert_eq!((meta.index, meta.consistency), (42, None), "no effective consistency here");
    assert_eq!(asked.body, RequestBody::Query(Query::Key("a/b".to_owned())));
    let (reply, _) = world.read("GET /v1/kv/a/b?raw", rows());
    assert_eq!((reply.content, body(&reply).as_str()), (Content::PlainText, "hello"));
    assert_eq!(header(&reply, "X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(header(&reply, "Content-Security-Policy"), Some("sandbox"));
    let (reply, _) = world.read("GET /v1/kv/e", Rows::Entries(vec![entry("e", "")]));
    assert!(body(&reply).contains(r#""Value":null"#));
}

#[test]
fn what_is_missing_is_404_with_its_index() {
    let world = server();
    for (text, rows) in [
        ("GET /v1/kv/nope", Rows::Entries(vec![])),
        ("GET /v1/kv/nope?raw", Rows::Entries(vec![])),
        ("GET /v1/kv/nope?recurse", Rows::Entries(vec![])),
        ("GET /v1/kv/?recurse", Rows::Entries(vec![])),
        ("GET /v1/kv/nope?keys", Rows::Names(vec![])),
    ] {
        let (reply, _) = world.read(text, rows);
        let meta = reply.meta.map(|meta| meta.index);
        assert_eq!((reply.status, reply.body.len(), meta), (404, 0, Some(42)), "{text}");
    }
    let (reply, _) = world.read("GET /v1/kv/?keys", Rows::Names(vec![]));
    assert_eq!((reply.status, body(&reply).as_str()), (200, "[]"));
    assert_eq!(world.say("GET /v1/kv/"), (400, "Missing key name".to_owned()));
    let (reply, _) = world.exchange("GET /v1/kv/a", vec![Err(RequestError::NoLeader)]);
    assert_eq!((reply.status, reply.meta), (500, None));
}

#[test]
fn lists_ask_for_a_prefix() {
    let world = server();
    let names = || Rows::Names(vec!["a/b".to_owned(), "a/c/".to_owned()]);
    let (reply, asked) = world.read("GET /v1/kv/a/?keys&separator=/&recurse", names());
    assert_eq!(body(&reply), r#"["a/b","a/c/"]"#);
    let list = KeyList { prefix: "a/".to_owned(), separator: "/".to_owned() };
    assert_eq!(asked.body, RequestBody::Query(Query::Keys(list.clone())));
    let (_, asked) = world.read("GET /v1/kv/a/?keys&seperator=%2F", names());
    assert_eq!(asked.body, RequestBody::Query(Query::Keys(list)));
    let rows = Rows::Entries(vec![entry("a/b", "hello"), entry("a/c", "")]);
    let (reply, asked) = world.read("GET /v1/kv/a/?recurse&raw&stale", rows);
    assert!(body(&reply).starts_with(&format!("[{HELLO},{{")), "raw is ignored");
    assert_eq!(asked.body, RequestBody::Query(Query::KeyTree("a/".to_owned())));
    assert_eq!(asked.context.consistency, Consistency::Stale);
}

#[test]
fn a_put_carries_value_flags_and_condition() {
    let world = server();
    let put = |flags, only_at: Option<u64>| {
        let (key, value) = ("a/ b".to_owned(), Bytes::from_static(b"v"));
        let only_at = only_at.map(ModifyIndex::new);
        RequestBody::Write(Command::Kv(KvWrite::Put(KvPut { key, value, flags, only_at })))
    };
    let (status, shown, asked) = world.write("PUT /v1/kv/a/%20b\n\nv");
    assert_eq!((status, shown.as_str(), asked), (200, "true", put(0, None)));
    let text = "PUT /v1/kv/a/%20b?cas=12&flags=18446744073709551615&dc=dc2\n\nv";
    let (reply, asked) = world.exchange(text, vec![Ok(Response::Unmet)]);
    assert_eq!((reply.status, body(&reply).as_str()), (200, "false"));
    assert_eq!(asked[0].body, put(u64::MAX, Some(12)));
    assert_eq!(asked[0].context.datacenter, Datacenter::parse("dc2").ok());
}

#[test]
fn a_session_acquires_and_releases() {
    let world = server();
    let session = SessionId::from_bytes([1; 16]);
    let (key, value) = ("a".to_owned(), Bytes::from_static(b"v"));
    let lock = KvLock { key, value, flags: 3, session };
    for (verb, write) in
        [("acquire", KvWrite::Acquire(lock.clone())), ("release", KvWrite::Release(lock))]
    {
        let text = format!("PUT /v1/kv/a?{verb}={SESSION}&flags=3\n\nv");
        let (status, shown, asked) = world.write(&text);
        assert_eq!((status, shown.as_str()), (200, "true"));
        assert_eq!(asked, RequestBody::Write(Command::Kv(write)));
    }
    let mut held = (*entry("a/b", "hello")).clone();
    held.lock = Some(Box::new(KeyLock { index: 4, session: Some(session) }));
    let (reply, _) = world.read("GET /v1/kv/a/b", Rows::Entries(vec![Arc::new(held)]));
    let shown = HELLO.replace(r#""LockIndex":0"#, r#""LockIndex":4"#);
    let value = r#""Value":"aGVsbG8=","#;
    let shown = shown.replace(value, &format!(r#"{value}"Session":"{SESSION}","#));
    assert_eq!(body(&reply), format!("[{shown}]"));
}

#[test]
fn a_delete_is_of_one_key_or_of_all_under_a_prefix() {
    let world = server();
    let write = |text: &str| {
        let (status, shown, asked) = world.write(text);
        assert_eq!((status, shown.as_str()), (200, "true"));
        let RequestBody::Write(Command::Kv(write)) = asked else { panic!("{asked:?}") };
        write
    };
    let delete = |only_at: Option<u64>| {
        let only_at = only_at.map(ModifyIndex::new);
        KvWrite::Delete(KvDelete { key: "a".to_owned(), only_at })
    };
    assert_eq!(write("DELETE /v1/kv/a"), delete(None));
    assert_eq!(write("DELETE /v1/kv/a?cas=0"), delete(Some(0)));
    assert_eq!(write("DELETE /v1/kv/a?recurse"), KvWrite::DeleteTree("a".to_owned()));
    assert_eq!(write("DELETE /v1/kv/?recurse"), KvWrite::DeleteTree(String::new()));
}

#[test]
fn bad_parameters_are_named() {
    let world = server();
    let syntax = r#"strconv.ParseUint: parsing "x": invalid syntax"#;
    let range = r#"strconv.ParseUint: parsing "18446744073709551616": value out of range"#;
    for (text, status, shown) in [
        ("PUT /v1/kv/", 400, "Missing key name"),
        ("DELETE /v1/kv/", 400, "Missing key name"),
        ("PUT /v1/kv/a?cas=x", 500, syntax),
        ("PUT /v1/kv/a?flags=x", 500, syntax),
        ("PUT /v1/kv/a?flags=18446744073709551616", 500, range),
        ("DELETE /v1/kv/a?cas=x", 500, syntax),
        ("PUT /v1/kv/a?cas=1&acquire=x", 400, "Conflicting flags: acquire=x&cas=1"),
        ("DELETE /v1/kv/a?recurse&cas=1", 400, "Conflicting flags: cas=1&recurse="),
        ("PUT /v1/kv/a?acquire=", 500, "missing session"),
        ("PUT /v1/kv/a?release=x", 500, NOT_UUID),
        ("POST /v1/kv/a", 405, "method POST not allowed"),
    ] {
        assert_eq!(world.say(text), (status, shown.to_owned()), "{text}");
    }
}
