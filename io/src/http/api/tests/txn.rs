//! Transactions over HTTP.

use super::kv::entry;
use super::*;
use bytes::Bytes;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KvDelete, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::model::{Check, CheckRecipe, CheckStatus, Node, Service, Weights};
use terraform_core::catalog::transaction::{
    CheckWrite, IndexCheck, NodeDelete, NodeKey, NodeWrite, Operation, OperationError, RowDelete,
    RowKey, RowOperation, ServiceWrite, SessionCheck, TransactionResult, TransactionRow,
};
use terraform_core::id::SessionId;
use terraform_core::id::{CheckId, ServiceId, ServiceName};

#[test]
fn a_value_that_is_too_large_for_the_store_is_refused_by_its_key() {
    let mut settings = settings();
    settings.limits.bytes.value_bytes_max = 3;
    let world = World::new(settings, LocalView::default());
    let of = |verb: &str, value: &str| {
        let session = SessionId::from_bytes([1; 16]);
        format!(
            "PUT /v1/txn\n\n[{{\"KV\":{{\"Verb\":\"get\",\"Key\":\"b\"}}}},\
             {{\"KV\":{{\"Verb\":\"{verb}\",\"Key\":\"a\",\"Value\":\"{value}\",\
             \"Session\":\"{session}\"}}}}]"
        )
    };
    let refused = (413, "Value for key \"a\" is too large (4 > 3 bytes)".to_owned());
    for verb in ["set", "cas", "lock", "unlock"] {
        assert_eq!(world.say(&of(verb, "dmFsdQ==")), refused, "{verb}");
    }
    let done = || Ok(Response::Transaction(TransactionResult::Done(Vec::new())));
    assert_eq!(world.exchange(&of("set", "dmFs"), vec![done()]).0.status, 200);
}

#[test]
fn a_transaction_is_written_through_the_log_and_shows_what_it_touched() {
    let world = server();
    let text = r#"PUT /v1/txn

[{"KV":{"Verb":"set","Key":"a","Value":"dg==","Flags":7}},{},{"kv":{"verb":"CAS"}},
 {"KV":{"Verb":"cas","Key":"a","Index":3}},{"KV":{"Verb":"delete-cas","Key":"a","Index":4}},
 {"KV":{"Verb":"check-index","Key":"a","Index":5}},{"KV":{"Verb":"delete-tree","Key":"t/"}},
 {"KV":{"Verb":"lock","Key":"a","Session":"01010101-0101-0101-0101-010101010101"}},
 {"KV":{"Verb":"unlock","Key":"a","Session":"01010101-0101-0101-0101-010101010101"}},
 {"KV":{"Verb":"lock","Key":"a","Session":"x"}},{"KV":{"Verb":"lock","Key":"a"}},
 {"KV":{"Verb":"check-session","Key":"a","Session":"s"}}]"#;
    let done = TransactionResult::Done(vec![TransactionRow::Entry(entry("a", ""))]);
    let (reply, asked) = world.exchange(text, vec![Ok(Response::Transaction(done))]);
    let shown = r#"{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":7,"Value":null,"CreateIndex":5,"ModifyIndex":9}}],"Errors":null}"#;
    assert_eq!((reply.status, body(&reply).as_str()), (200, shown));
    let key = || "a".to_owned();
    let at = |index| Some(ModifyIndex::new(index));
    let put = |value, flags, only_at| {
        let value = Bytes::from_static(value);
        Operation::Write(KvWrite::Put(KvPut { key: key(), value, flags, only_at }))
    };
    let lock = || {
        let session = SessionId::from_bytes([1; 16]);
        KvLock { key: key(), value: Bytes::new(), flags: 0, session }
    };
    let not_uuid = "failed session lookup: index error: UUID must be 36 characters";
    let operations = vec![
        put(b"v", 7, None),
        Operation::Refused("unknown KV verb \"CAS\"".to_owned()),
        put(b"", 0, at(3)),
        Operation::Write(KvWrite::Delete(KvDelete { key: key(), only_at: at(4) })),
        Operation::CheckIndex(IndexCheck { key: key(), index: ModifyIndex::new(5) }),
        Operation::Write(KvWrite::DeleteTree("t/".to_owned())),
        Operation::Write(KvWrite::Acquire(lock())),
        Operation::Write(KvWrite::Release(lock())),
        Operation::Refused(not_uuid.to_owned()),
        Operation::Refused("missing session".to_owned()),
        Operation::CheckSession(SessionCheck { key: key(), session: "s".to_owned() }),
    ];
    assert_eq!(asked[0].body, RequestBody::Write(Command::Transaction(operations)));
}

#[test]
fn a_failed_transaction_is_409_and_one_that_reads_is_a_query() {
    let world = server();
    let what = "key \"a\" doesn't exist".to_owned();
    let failed = TransactionResult::Failed(vec![OperationError { operation: 0, what }]);
    let text = "PUT /v1/txn?stale\n\n[{\"KV\":{\"Verb\":\"get\",\"Key\":\"a\"}}]";
    let (reply, asked) = world.read(text, Rows::Transaction(failed));
    let shown = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" doesn't exist"}],"Index":0,"LastContact":3000000,"KnownLeader":true,"ConsistencyLevel":""}"#;
    assert_eq!((reply.status, body(&reply).as_str()), (409, shown));
    assert_eq!(header(&reply, "X-Consul-Knownleader"), Some("true"));
    assert_eq!(header(&reply, "X-Consul-Lastcontact"), Some("3"));
    let operations = vec![Operation::Get("a".to_owned())];
    assert_eq!(asked.body, RequestBody::Query(Query::Transaction(operations)));
    assert_eq!(asked.context.consistency, Consistency::Stale);
}

#[test]
fn bad_transactions_are_refused_whole() {
    let world = server();
    let say = |body: &str| world.say(&format!("PUT /v1/txn\n\n{body}"));
    let get = r#"{"KV":{"Verb":"get","Key":"a"}}"#;
    let many = format!("[{}]", vec![get; 65].join(","));
    for (body, status, shown) in [
        ("", 400, "Failed to parse body: EOF"),
        ("[", 400, "Failed to parse body: unexpected EOF"),
        (r#"[{"Foo":1}]"#, 400, r#"Failed to parse body: json: unknown field "Foo""#),
        (
            r#"[{"KV":{"Verb":"set","Key":"a","Value":"*"}}]"#,
            400,
            "Failed to parse body: illegal base64 data at input byte 0",
        ),
        (&many, 413, "Transaction contains too many operations (65 > 64)"),
        (
            r#"[{"Service":{"Verb":"set","Service":{"Service":"a","Kind":"connect-proxy"}}}]"#,
            501,
            "the field \"Kind\" is not built yet",
        ),
        (r#"[{"Intention":{}}]"#, 400, r#"Failed to parse body: json: unknown field "Intention""#),
    ] {
        assert_eq!(say(body), (status, shown.to_owned()), "{body}");
    }
    assert_eq!(say("{}").0, 400);
}

fn node() -> Node {
    Node {
        id: None,
        name: NodeName::parse("n").unwrap(),
        address: "10.0.0.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn service() -> Service {
    Service {
        id: ServiceId::parse("s1").unwrap(),
        name: ServiceName::parse("s").unwrap(),
        tags: Vec::new(),
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: 80,
        weights: Weights::default(),
        enable_tag_override: false,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn check() -> Check {
    Check {
        node: NodeName::parse("n").unwrap(),
        id: CheckId::parse("c").unwrap(),
        name: "c".to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: None,
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: String::new(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

#[test]
fn rows_of_the_catalog_are_read_stored_and_removed() {
    let text = r#"PUT /v1/txn

[{"Node":{"Verb":"set","Node":{"Node":"n","Address":"10.0.0.1","Datacenter":"dc1"}}},
 {"Service":{"Verb":"cas","Node":"n","Service":{"ID":"s1","Service":"s","Port":80,"ModifyIndex":7}}},
 {"Check":{"Verb":"set","Check":{"Node":"n","Name":"c","Status":"passing"}}},
 {"Node":{"Verb":"get","Node":{"Node":"n"}}},
 {"Service":{"Verb":"get","Node":"n","Service":{"ID":"s1"}}},
 {"Check":{"Verb":"delete-cas","Check":{"Node":"n","CheckID":"c","ModifyIndex":8}}},
 {"Service":{"Verb":"delete","Node":"n","Service":{"ID":"s1","Service":"s"}}},
 {"Node":{"Verb":"delete","Node":{"Node":"n"}}}]"#;
    let at = |index| Some(ModifyIndex::new(index));
    let key = |id: &str| RowKey { node: "n".to_owned(), id: id.to_owned() };
    let name = || "n".to_owned();
    let rows = [
        RowOperation::SetNode(Box::new(NodeWrite { node: node(), only_at: None })),
        RowOperation::SetService(Box::new(ServiceWrite {
            node: name(),
            service: service(),
            only_at: at(7),
        })),
        RowOperation::SetCheck(Box::new(CheckWrite { check: check(), only_at: None })),
        RowOperation::GetNode(NodeKey { id: None, name: name() }),
        RowOperation::GetService(key("s1")),
        RowOperation::DeleteCheck(RowDelete { key: key("c"), only_at: at(8) }),
        RowOperation::DeleteService(RowDelete { key: key("s1"), only_at: None }),
        RowOperation::DeleteNode(NodeDelete { name: name(), only_at: None }),
    ];
    let done = vec![
        TransactionRow::Node(Arc::new(node())),
        TransactionRow::Service(Arc::new(service())),
        TransactionRow::Check(Arc::new(check())),
    ];
    let answer = Ok(Response::Transaction(TransactionResult::Done(done)));
    let (reply, asked) = server().exchange(text, vec![answer]);
    let operations = rows.into_iter().map(Operation::Row).collect();
    assert_eq!(asked[0].body, RequestBody::Write(Command::Transaction(operations)));
    let shown = concat!(
        r#"{"Results":[{"Node":{"ID":"","Node":"n","Address":"10.0.0.1","Datacenter":"dc1","#,
        r#""TaggedAddresses":null,"Meta":null,"CreateIndex":0,"ModifyIndex":0}},"#,
        r#"{"Service":{"ID":"s1","Service":"s","Tags":null,"Address":"","Meta":null,"Port":80,"#,
        r#""Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"#,
        r#""Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":0,"ModifyIndex":0}},"#,
        r#"{"Check":{"Node":"n","CheckID":"c","Name":"c","Status":"passing","Notes":"","#,
        r#""Output":"","ServiceID":"","ServiceName":"","ServiceTags":null,"Type":"","#,
        r#""Definition":{},"CreateIndex":0,"ModifyIndex":0}}],"Errors":null}"#,
    );
    assert_eq!((reply.status, body(&reply).as_str()), (200, shown));
}

#[test]
fn an_operation_that_breaks_a_rule_fails_with_the_others() {
    let text = r#"PUT /v1/txn

[{"Node":{"Verb":"zz"}},{"Node":{"Verb":"set","Node":{}}},
 {"Service":{"Verb":"delete","Node":"n","Service":{"ID":"s1"}}},
 {"Node":{"Verb":"set","Node":{"Node":"n"}}}]"#;
    let answer = Ok(Response::Transaction(TransactionResult::Failed(Vec::new())));
    let (reply, asked) = server().exchange(text, vec![answer]);
    assert_eq!(reply.status, 409);
    let RequestBody::Write(Command::Transaction(operations)) = &asked[0].body else {
        panic!("{:?}", asked[0].body)
    };
    let refused = |rule: &str| Operation::Refused(rule.to_owned());
    let expected = [
        refused("unknown Node verb \"zz\""),
        refused("Must provide node"),
        refused("Must provide service name with ID"),
    ];
    assert_eq!(operations[..3], expected);
}
