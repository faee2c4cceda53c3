//! The connection machine without sockets, fed with whole and split bytes.

use super::*;
use crate::http::parse::{Field, Method};
use proptest::prelude::*;

/// Feeds `input` in pieces that end at `cuts`; collects everything but `Read`.
fn run(input: &[u8], cuts: &[usize]) -> Vec<Event> {
    let mut connection = Connection::new(ConnectionLimits::default());
    let mut events = Vec::new();
    let mut start = 0;
    for cut in cuts.iter().copied().chain([input.len()]) {
        connection.feed(&input[start..cut]);
        start = cut;
        loop {
            match connection.poll() {
                Event::Read => break,
                Event::Close => return events,
                event @ (Event::Continue
                | Event::Piece(_)
                | Event::Request(_)
                | Event::Refuse(_)) => {
                    events.push(event);
                }
            }
        }
    }
    events
}

fn requests(input: &[u8]) -> Vec<HttpRequest> {
    let request = |event: Event| {
        let Event::Request(request) = event else { panic!("{event:?}") };
        *request
    };
    run(input, &[]).into_iter().map(request).collect()
}

fn refusal(input: &[u8]) -> (u16, String) {
    match run(input, &[]).as_slice() {
        [Event::Refuse(refusal)] => (refusal.status(), refusal.to_string()),
        other => panic!("{other:?}"),
    }
}

const PIPELINED: &[u8] =
    b"PUT /v1/a?x=1 HTTP/1.1\r\nHost: h\r\nX-Consul-Token: t\r\nContent-Length: 3\r\n\r\nabc\
    \r\nPOST /b HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
    GET http://h:1/c?d HTTP/1.0\r\n\r\n";

#[test]
fn pipelined_requests_come_out_in_order() {
    let all = requests(PIPELINED);
    let seen: Vec<_> =
        all.iter().map(|r| (r.head.method.as_str(), r.head.target.as_str(), &*r.body)).collect();
    let (abc, hi): (&[u8], &[u8]) = (b"abc", b"hi");
    assert_eq!(seen, [("PUT", "/v1/a?x=1", abc), ("POST", "/b", hi), ("GET", "/c?d", b"")]);
    assert_eq!(all[0].head.field(Field::Token), Some("t"));
    assert!(all[0].head.keep_alive && !all[2].head.keep_alive);
}

#[test]
fn persistence_follows_version_and_connection_field() {
    let keeps = |input: &[u8]| requests(input)[0].head.keep_alive;
    assert!(!keeps(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n"));
    assert!(keeps(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let head = b"PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let mut connection = Connection::new(ConnectionLimits::default());
    connection.feed(head);
    assert_eq!(connection.poll(), Event::Continue);
    assert_eq!(connection.poll(), Event::Read);
    assert_eq!(connection.phase(), Phase::Body);
    connection.feed(b"x");
    assert!(matches!(connection.poll(), Event::Request(request) if &*request.body == b"x"));
    assert_eq!(connection.phase(), Phase::Idle);
}

#[test]
fn a_large_body_is_refused_before_it_is_read() {
    let head =
        "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 524289\r\n\r\n";
    let text = "Request body(524289 bytes) too large, max size: 524288 bytes.".to_owned();
    assert_eq!(refusal(head.as_bytes()), (413, text.clone()));
    let see = " See https://www.consul.io/docs/agent/options.html#kv_max_value_size.";
    let value = head.replace("/a", "/v1/kv/a");
    assert_eq!(refusal(value.as_bytes()), (413, format!("{text}{see}")));
    let chunk = format!("100000\r\n{}", "x".repeat(0x10_0000));
    let head = "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = "Request body too large, max size: 524288 bytes.".to_owned();
    assert_eq!(refusal(format!("{head}{chunk}").as_bytes()), (413, text));
}

#[test]
fn values_and_transactions_have_their_own_limits() {
    let limits = ConnectionLimits {
        body_bytes_max: 9,
        value_bytes_max: 3,
        transaction_bytes_max: 5,
        ..ConnectionLimits::default()
    };
    let said = |limits: ConnectionLimits, path: &str, length: usize, framing: &str| {
        let mut connection = Connection::new(limits);
        let head = format!("PUT {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
        connection.feed(head.as_bytes());
        let body = "x".repeat(length);
        let in_chunks = framing.starts_with("Transfer");
        let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        connection.feed(if in_chunks { &chunks } else { &body }.as_bytes());
        match connection.poll() {
            Event::Request(request) => Ok(request.body.len()),
            Event::Refuse(refusal) => Err(refusal.to_string()),
            event @ (Event::Read | Event::Continue | Event::Piece(_) | Event::Close) => {
                panic!("{event:?}")
            }
        }
    };
    let larger = ConnectionLimits { value_bytes_max: 7, ..limits };
    for (limits, path, most, setting) in [
        (limits, "/v1/kv/a?cas=1", 3, Some("kv_max_value_size")),
        (limits, "/v1/%6bv/a", 3, Some("kv_max_value_size")),
        (limits, "http://h/v1/kv/a", 3, Some("kv_max_value_size")),
        (limits, "/v1/txn?dc=a", 5, Some("txn_max_req_len")),
        (larger, "/v1/txn", 7, Some("txn_max_req_len")),
        (limits, "/v1/session/create", 9, None),
    ] {
        let see = setting.map_or_else(String::new, |setting| {
            format!(" See https://www.consul.io/docs/agent/options.html#{setting}.")
        });
        let over = most + 1;
        for (framing, told) in [
            (format!("Content-Length: {over}"), format!("({over} bytes)")),
            ("Transfer-Encoding: chunked".to_owned(), String::new()),
        ] {
            let rule = format!("Request body{told} too large, max size: {most} bytes.{see}");
            assert_eq!(said(limits, path, over, &framing), Err(rule), "{path}");
        }
        let fits = [format!("Content-Length: {most}"), "Transfer-Encoding: chunked".to_owned()];
        for framing in fits {
            assert_eq!(said(limits, path, most, &framing), Ok(most), "{path}");
        }
    }
}

#[test]
fn what_is_ambiguous_or_broken_is_refused() {
    let status = |text: &str| refusal(text.as_bytes()).0;
    assert_eq!(status("SSH-2.0-x\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    assert_eq!(status("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"), 400);
    let twice = "Content-Length: 1\r\nContent-Length: 2";
    assert_eq!(status(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{twice}\r\n\r\n")), 400);
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked";
    assert_eq!(status(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{both}\r\n\r\n")), 400);
    assert_eq!(status("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"), 501);
    assert_eq!(status("PUT / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"), 417);
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17_000))), 414);
    assert_eq!(status(&"x".repeat(17_000)), 414);
    let fields = "X: y\r\n".repeat(101);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), 431);
    let long = "x".repeat(70_000);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")), 431);
}

#[test]
fn nothing_follows_a_refusal() {
    let input = b"bad\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(run(input, &[]).len(), 1);
    assert_eq!(run(input, &[3, 4, 5, 20]).len(), 1);
}

#[test]
fn every_method_keeps_its_name() {
    let method = |name: &str| {
        let input = format!("{name} / HTTP/1.1\r\nHost: h\r\n\r\n");
        requests(input.as_bytes())[0].head.method.clone()
    };
    for name in ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"] {
        assert!(!matches!(method(name), Method::Other(_)));
        assert_eq!(method(name).as_str(), name);
    }
    assert_eq!(method("PATCH"), Method::Other("PATCH".to_owned()));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_requests(
        cuts in proptest::collection::btree_set(0..PIPELINED.len(), 0..8)
    ) {
        let cuts: Vec<_> = cuts.into_iter().collect();
        prop_assert_eq!(run(PIPELINED, &cuts), run(PIPELINED, &[]));
    }

    #[test]
    fn no_bytes_panic_or_grow_without_bound(
        input in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let _ = run(&input, &[]);
    }
}

#[test]
fn the_body_of_a_restore_comes_out_in_pieces() {
    let head = b"PUT /v1/snapshot?dc=a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let limits = ConnectionLimits { file_bytes_max: 8, ..ConnectionLimits::default() };
    let mut connection = Connection::new(ConnectionLimits { body_bytes_max: 2, ..limits });
    connection.feed(head);
    connection.feed(b"3\r\nabc\r\n3\r\nd");
    assert_eq!(connection.poll(), Event::Piece(Bytes::from_static(b"abcd")));
    assert_eq!(connection.poll(), Event::Read);
    assert_eq!(connection.phase(), Phase::Body);
    connection.feed(b"ef\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(connection.poll(), Event::Piece(Bytes::from_static(b"ef")));
    assert!(matches!(connection.poll(), Event::Request(request) if request.body.is_empty()));
    assert!(matches!(connection.poll(), Event::Request(request) if request.head.target == "/"));

    let mut connection = Connection::new(limits);
    connection.feed(head);
    connection.feed(b"8\r\nabcdefgh\r\n");
    assert!(matches!(connection.poll(), Event::Piece(_)));
    connection.feed(b"1\r\ni\r\n");
    assert!(matches!(connection.poll(), Event::Refuse(Refusal::BodyTooLarge { limit: 8, .. })));
    let mut connection = Connection::new(limits);
    connection.feed(b"PUT /v1/snapshot HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n");
    assert!(matches!(connection.poll(), Event::Refuse(Refusal::BodyTooLarge { limit: 8, .. })));
}
