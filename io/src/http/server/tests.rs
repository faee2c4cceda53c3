//! The socket loop on loopback: persistence, limits, slow clients.

use super::*;
use crate::handle::Call;
use crate::http::api::tests::{settings, view};
use crate::http::settings::HttpRules;
use crate::log::tests::{say, watched};
use arc_swap::ArcSwap;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::future::Future;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use terraform_core::local::LocalView;
use terraform_core::node::request::Response;
use terraform_core::trace::Level;

/// Runs `test` against a server with these limits.
fn with_server<F: Future<Output = ()>>(limits: ServerLimits, test: impl FnOnce(SocketAddr) -> F) {
    with_settings(HttpSettings { limits, ..settings() }, test);
}

/// The same with all settings given.
fn with_settings<F: Future<Output = ()>>(
    settings: HttpSettings,
    test: impl FnOnce(SocketAddr) -> F,
) {
    let (sender, _calls) = smol::channel::bounded(1);
    let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
    let node = NodeHandle::new(view, sender, Clock::start());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = serve(&[any.into()], node, settings).unwrap();
    smol::block_on(test(server.addresses()[0]));
}

async fn connect(address: SocketAddr) -> async_net::TcpStream {
    async_net::TcpStream::connect(address).await.unwrap()
}

/// Sends `text` and reads to the end of the stream.
async fn send(address: SocketAddr, text: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    all
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    with_server(ServerLimits::default(), |address| async move {
        let all = send(
            address,
            "GET /v1/agent/services HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\
             HEAD /v1/agent/services HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        )
        .await;
        let services = all.find("\r\n\r\n{}HTTP/1.1 200").unwrap();
        let index = all.find("\r\n\r\nConsul AgentHTTP/1.1 405 Method Not Allowed\r\n").unwrap();
        assert!(services < index, "{all}");
        assert!(all.ends_with("Content-Length: 23\r\nConnection: close\r\n\r\n"), "{all}");
    });
}

#[test]
fn a_malformed_request_is_answered_and_closed() {
    with_server(ServerLimits::default(), |address| async move {
        let all = send(address, "nonsense\r\n\r\n").await;
        assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{all}");
        assert!(all.ends_with("Connection: close\r\n\r\n400 Bad Request"), "{all}");
    });
}

#[test]
fn a_body_too_large_is_refused_with_413() {
    with_server(ServerLimits::default(), |address| async move {
        let body = "x".repeat(600_000);
        let length = body.len();
        let head = "PUT /v1/agent/service/register HTTP/1.1\r\nHost: h";
        let all = send(address, &format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        assert!(all.starts_with("HTTP/1.1 413 "), "{all}");
    });
}

#[test]
fn the_connection_one_too_many_is_told_so() {
    let own = Arc::new(AtomicUsize::new(1));
    let one = HttpSettings { connections_per_client_max: Arc::clone(&own), ..settings() };
    with_settings(one, |address| async move {
        let mut first = connect(address).await;
        first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).await.unwrap();
        let all = send(address, "").await;
        assert!(all.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{all}");
        assert!(all.contains("Your IP is issuing too many concurrent connections"), "{all}");
        own.store(2, Ordering::Relaxed);
        assert!(send(address, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
        own.store(1, Ordering::Relaxed);
        drop(first);
        // The place becomes free once the server has seen the end of the first.
        while send(address, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 429") {}
    });
    let limits = ServerLimits { connections_max: 0, ..ServerLimits::default() };
    with_server(limits, |address| async move {
        assert!(send(address, "").await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    });
}

#[test]
fn a_slow_client_is_closed_in_every_phase() {
    let (idle_time, head_time) = (Duration::from_millis(80), Duration::from_millis(20));
    let limits =
        ServerLimits { idle_time, head_time, body_time: head_time, ..ServerLimits::default() };
    with_server(limits, |address| async move {
        assert_eq!(send(address, "").await, "");
        let late = "HTTP/1.1 408 Request Timeout\r\n";
        assert!(send(address, "GET / HT").await.starts_with(late));
        let head = "PUT /v1/agent/leave HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab";
        assert!(send(address, head).await.starts_with(late));
    });
}

#[test]
fn dripping_bytes_do_not_extend_the_time_of_a_head() {
    let limits = ServerLimits { head_time: Duration::from_millis(50), ..ServerLimits::default() };
    with_server(limits, |address| async move {
        let mut stream = connect(address).await;
        let mut reader = stream.clone();
        let drip = async {
            loop {
                if stream.write_all(b"GET / HTTP/1.1\r\nX: y").await.is_err() {
                    smol::future::pending::<()>().await;
                }
                Timer::after(Duration::from_millis(5)).await;
            }
        };
        let mut all = Vec::new();
        let end = async {
            let _ = reader.read_to_end(&mut all).await;
        };
        smol::future::or(end, drip).await;
        assert!(all.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&all));
    });
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    with_server(ServerLimits::default(), |address| async move {
        let mut stream = connect(address).await;
        let head = "PUT /v1/agent/check/register HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                    Expect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"{}").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("Missing check name"), "{rest}");
    });
}

#[test]
fn a_port_in_use_is_refused_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (sender, _calls) = smol::channel::bounded(1);
    let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
    let node = NodeHandle::new(view, sender, Clock::start());
    let error = serve(&[address.into()], node, settings()).unwrap_err();
    let text = format!("failed to start HTTP listener: listen tcp {address}: bind: ");
    assert_eq!(error.to_string(), text + "address already in use");
}

#[test]
fn a_socket_in_the_file_system_is_served_and_removed() {
    use crate::http::client::{ClientLimits, ClientRequest};
    use crate::http::listen::UnixAddress;
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("io-http-{}.sock", std::process::id()));
    let unix = |user: Option<&str>| {
        let (path, user) = (path.clone(), user.map(str::to_owned));
        HttpAddress::Unix(UnixAddress { path, user, group: None, mode: Some(0o601) })
    };
    let start = |address| {
        let (sender, _calls) = smol::channel::bounded(1);
        let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
        serve(&[address], NodeHandle::new(view, sender, Clock::start()), settings())
    };
    // What is no socket stays where it is.
    std::fs::write(&path, "precious").unwrap();
    let bound = |result: Result<HttpServer, BindError>| result.unwrap_err().to_string();
    let refused = format!("failed to start HTTP listener: listen unix unix://{}: ", path.display());
    assert_eq!(bound(start(unix(None))), format!("{refused}bind: address already in use"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let unknown = "failed to look up user no such user: unknown user no such user";
    assert_eq!(bound(start(unix(Some("no such user")))), format!("{refused}{unknown}"));

    // What a killed agent left is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = start(unix(None)).unwrap();
    assert!(server.addresses().is_empty());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o601);
    assert!(bound(start(unix(None))).ends_with("bind: address already in use"));
    let mut request = ClientRequest::new("GET", "http://h/v1/agent/services").unwrap();
    request.socket = Some(path.clone());
    let response = smol::block_on(request.send(&ClientLimits::default())).unwrap();
    assert_eq!((response.status, &*response.body), (200, &b"{}"[..]));
    drop(server);
    assert!(!path.exists());
    let gone = smol::block_on(request.send(&ClientLimits::default())).unwrap_err().to_string();
    let text = format!("dial unix {}: connect: no such file or directory", path.display());
    assert_eq!(gone, text);
}

/// Runs `test` against a server whose node is the other end of a channel.
fn with_node<F>(test: impl FnOnce(SocketAddr, smol::channel::Receiver<Call>) -> F)
where
    F: Future<Output = ()>,
{
    let (sender, calls) = smol::channel::bounded(4);
    let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
    let node = NodeHandle::new(view, sender, Clock::start());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = serve(&[any.into()], node, settings()).unwrap();
    smol::block_on(test(server.addresses()[0], calls));
}

#[test]
fn a_read_that_waits_ends_with_its_client() {
    with_node(|address, calls| async move {
        let mut client = connect(address).await;
        client.write_all(b"GET /v1/kv/a?index=5 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let call = calls.recv().await.unwrap();
        assert!(!call.reply.is_closed());
        drop(client);
        while !call.reply.is_closed() {
            Timer::after(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_client_that_has_said_everything_is_still_answered() {
    with_node(|address, calls| async move {
        let mut client = connect(address).await;
        let request = b"PUT /v1/kv/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nv";
        client.write_all(request).await.unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let call = calls.recv().await.unwrap();
        Timer::after(Duration::from_millis(20)).await;
        call.reply.send(Ok(Response::Done));
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert!(all.ends_with("\r\n\r\ntrue"), "{all}");
    });
}

/// An answer from a file of 200 000 bytes, as the server sends it.
fn file_sent(chunked: bool) -> Vec<u8> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, _calls) = smol::channel::bounded(1);
    let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
    let api = Api::new(NodeHandle::new(view, sender, Clock::start()), settings());
    let shared = Arc::new(Shared { api, clients: Mutex::new(Clients::default()) });
    smol::block_on(async {
        let file = shared.api.files().begin().await.unwrap();
        file.append(Bytes::from(vec![b'x'; 200_000])).await.unwrap();
        let reading = smol::spawn(async move {
            let mut all = Vec::new();
            connect(address).await.read_to_end(&mut all).await.unwrap();
            all
        });
        let (stream, peer) = listener.accept().unwrap();
        let stream = Async::new(Stream::Tcp(stream)).unwrap();
        let admission = Admission::new(&shared, Some(peer.ip())).unwrap();
        let socket = Socket { stream, peer: Some(peer), admission };
        socket.send_file(&file, chunked).await.unwrap();
        drop(socket);
        reading.await
    })
}

#[test]
fn a_file_is_sent_in_chunks_or_to_the_end_of_the_stream() {
    assert_eq!(file_sent(false), vec![b'x'; 200_000]);
    let mut decoder = crate::http::chunked::ChunkedDecoder::default();
    let (sent, mut out) = (file_sent(true), Vec::new());
    assert_eq!(decoder.decode(&sent, &mut out), Ok(sent.len()));
    assert!(decoder.is_done());
    assert_eq!(out, vec![b'x'; 200_000]);
}

#[test]
fn a_large_body_for_a_restore_is_taken_into_a_file() {
    with_server(ServerLimits::default(), |address| async move {
        let garbage = "x".repeat(3 * 1024 * 1024);
        let head = format!("Host: h\r\nConnection: close\r\nContent-Length: {}", garbage.len());
        let put = |path: &str| format!("PUT {path} HTTP/1.1\r\n{head}\r\n\r\n{garbage}");
        let all = send(address, &put("/v1/snapshot")).await;
        assert!(all.starts_with("HTTP/1.1 500 "), "{all}");
        assert!(all.ends_with("failed to decompress snapshot: gzip: invalid header"), "{all}");
    });
}

#[test]
fn every_answer_carries_the_fields_of_the_settings() {
    let headers = "X-One: 1\r\nX-Two: 2\r\n".to_owned();
    let rules = HttpRules { headers, ..HttpRules::default() };
    with_settings(HttpSettings { rules, ..settings() }, |address| async move {
        for target in ["/v1/agent/services", "/nope"] {
            let all = send(address, &format!("GET {target} HTTP/1.0\r\n\r\n")).await;
            assert!(all.contains("\r\nX-One: 1\r\nX-Two: 2\r\n"), "{all}");
        }
    });
}

#[test]
fn a_stream_is_sent_in_chunks_as_it_comes_and_ends_with_its_client() {
    let (sender, calls) = smol::channel::bounded(8);
    let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
    let node = NodeHandle::new(view, sender, Clock::start());
    let settings = settings();
    let logs = Arc::clone(&settings.logs);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = serve(&[any.into()], node, settings).unwrap();
    smol::block_on(async {
        let mut stream = connect(server.addresses()[0]).await;
        let head = b"GET /v1/agent/monitor HTTP/1.1\r\nHost: h\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut seen = String::new();
        let mut read_until = async |end: &str| {
            while !seen.ends_with(end) {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                seen.push(char::from(byte[0]));
            }
            std::mem::take(&mut seen)
        };
        // The head comes before there is anything to tell.
        let head = read_until("\r\n\r\n").await;
        assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
        assert!(!head.contains("Content-Type"), "{head}");
        say(&logs, Level::Info, "one");
        let line = "2026-11-22T14:09:53.374Z [INFO]  agent: one\n";
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        assert_eq!(read_until("\n\r\n").await, chunk);
        drop(stream);
        let level = async || watched(&calls.recv().await.unwrap().request);
        assert_eq!(level().await, Some(Level::Info));
        assert_eq!(level().await, None, "the subscription ends though nothing is said");
    });
}
