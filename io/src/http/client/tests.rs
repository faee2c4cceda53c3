//! The client against canned servers on loopback.

use super::*;
use smol::net::TcpListener;

/// Answers each connection with one of `replies`, once the head has arrived; returns the port.
async fn server(replies: Vec<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    smol::spawn(async move {
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() == 1 {
                seen.push(byte[0]);
            }
            let reply = reply.replace("{request}", &String::from_utf8_lossy(&seen));
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    })
    .detach();
    port
}

fn send(replies: Vec<&'static str>, limits: ClientLimits) -> Result<ClientResponse, ClientError> {
    smol::block_on(async {
        let port = server(replies).await;
        let mut request = ClientRequest::new("GET", &format!("http://127.0.0.1:{port}/a"))?;
        request.headers = vec![("Accept".to_owned(), "text/plain".to_owned())];
        request.send(&limits).await
    })
}

fn body(replies: Vec<&'static str>) -> String {
    let response = send(replies, ClientLimits::default()).unwrap();
    String::from_utf8_lossy(&response.body).into_owned()
}

#[test]
fn the_request_line_and_headers_are_sent_as_given() {
    let seen = body(vec!["HTTP/1.1 200 OK\r\n\r\n{request}"]);
    assert!(seen.starts_with("GET /a HTTP/1.1\r\nHost: 127.0.0.1:"), "{seen}");
    assert!(seen.ends_with("\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"), "{seen}");
}

#[test]
fn every_framing_of_a_body_is_read() {
    assert_eq!(body(vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more"]), "hi");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(body(vec![chunked]), "hi");
    assert_eq!(body(vec!["HTTP/1.0 200 OK\r\n\r\nhi"]), "hi");
    assert_eq!(body(vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\nhi"]), "");
}

#[test]
fn a_redirect_is_followed_and_a_circle_is_not() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
    assert!(body(vec![moved, "HTTP/1.1 200 OK\r\n\r\n{request}"]).starts_with("GET /b HTTP"));
    let limits = ClientLimits { redirects_max: 1, ..ClientLimits::default() };
    assert_eq!(send(vec![moved, moved], limits), Err(ClientError::Redirects(1)));
}

#[test]
fn limits_are_kept() {
    let limits = ClientLimits { body_bytes_max: 3, head_bytes_max: 64, ..ClientLimits::default() };
    let response = send(vec!["HTTP/1.1 200 OK\r\n\r\n12345"], limits).unwrap();
    assert_eq!((&*response.body, response.cut), (&b"123"[..], true));
    let long =
        "HTTP/1.1 200 OK\r\nX: 0123456789012345678901234567890123456789012345678901234567890";
    assert_eq!(send(vec![long], limits), Err(ClientError::HeadTooLarge(64)));
    let limits = ClientLimits { time: Duration::ZERO, ..limits };
    assert_eq!(send(vec!["HTTP/1.1 200 OK\r\n\r\n"], limits), Err(ClientError::TimedOut));
}

#[test]
fn a_broken_response_is_refused() {
    let refused = |reply| send(vec![reply], ClientLimits::default()).unwrap_err();
    assert!(matches!(refused("SSH-2.0\r\n\r\n"), ClientError::Malformed(_)));
    assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"), ClientError::Closed);
    let lengths = "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhi";
    assert!(matches!(refused(lengths), ClientError::Malformed(_)));
}

#[test]
fn a_refused_connection_is_worded_as_scripts_know_it() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}/v1/agent/self");
    let request = ClientRequest::new("GET", &url).unwrap();
    let error = smol::block_on(request.send(&ClientLimits::default())).unwrap_err();
    assert_eq!(
        request.error_text(&error),
        format!("Get \"{url}\": dial tcp 127.0.0.1:{port}: connect: connection refused")
    );
}

#[test]
fn a_header_cannot_smuggle_a_line() {
    let mut request = ClientRequest::new("GET", "http://127.0.0.1/").unwrap();
    request.headers = vec![("X".to_owned(), "a\r\nY: b".to_owned())];
    assert!(matches!(request.head(0), Err(ClientError::Invalid { .. })));
}
