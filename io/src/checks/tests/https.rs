//! Fetches over TLS, from a server with a certificate that no authority signed.

use super::*;
use crate::tls::tests::acceptor;

/// Fetches once from a server that answers in two pieces; `farewell` is how it leaves.
fn fetched(tls_skip_verify: bool, farewell: bool) -> (String, CheckResult) {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/health", listener.local_addr().unwrap());
        smol::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor(false).accept(stream).await else { return };
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi ").await.unwrap();
            stream.write_all(b"there").await.unwrap();
            stream.flush().await.unwrap();
            if farewell {
                stream.close().await.unwrap();
            }
        })
        .detach();
        let check = HttpCheck { tls_skip_verify, ..http(&url) };
        (url, Runner::default().run(CheckKind::Http(check), LIMIT).await)
    })
}

#[test]
fn a_certificate_of_nobody_is_accepted_on_request_only() {
    let (url, result) = fetched(false, true);
    assert_eq!(result.status, CheckStatus::Critical);
    let expected = format!("Get \"{url}\": tls: invalid peer certificate: UnknownIssuer");
    assert_eq!(result.output, expected);
    for farewell in [true, false] {
        let (url, result) = fetched(true, farewell);
        let expected = format!("HTTP GET {url}: 200 OK Output: hi there");
        assert_eq!((result.status, result.output), (CheckStatus::Passing, expected));
    }
}

#[test]
fn a_server_without_tls_is_critical() {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        smol::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        })
        .detach();
        let result = Runner::default().run(CheckKind::Http(http(&url)), LIMIT).await;
        assert_eq!(result.status, CheckStatus::Critical);
        let expected = format!("Get \"{url}\": tls: received corrupt message of type");
        assert!(result.output.starts_with(&expected), "{}", result.output);
    });
}
