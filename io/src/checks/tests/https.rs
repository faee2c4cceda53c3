//! Fetches over TLS, from a server with a certificate that no authority signed.

use super::*;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Signed by itself, of no authority, for `localhost` and 127.0.0.1, good for a hundred years. Made
/// with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500`.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUAURCRH/bxqmIvefZkLwQNqO6ILIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTAxMzUwM1oYDzIxMjYxMTA1
MDEzNTAzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATNL7XBWntkumi+gbMoY/EhbA0YsDo9YHw+rjn55qGij7j5epH8bCyL
mRQDTdWqALklvhsII4rd4NVduKJDLVNro0swSTAMBgNVHRMBAf8EAjAAMBoGA1Ud
EQQTMBGCCWxvY2FsaG9zdIcEfwAAATAdBgNVHQ4EFgQUOD+Pe61NCYvb/KwPJicz
g4e1Xx8wCgYIKoZIzj0EAwIDSAAwRQIhAMgCJWeB3B/9zEssCKTUhsId9lntHIxm
TMOsYW8Cb4EFAiBRRdEBog94x5rGtZIpcqdPW5q4bAgmKtuFnFF6qTd6QA==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOJbcnQxxRkKFNBF1
fmedIDxUwylAonRCpDU651QEezihRANCAATNL7XBWntkumi+gbMoY/EhbA0YsDo9
YHw+rjn55qGij7j5epH8bCyLmRQDTdWqALklvhsII4rd4NVduKJDLVNr
-----END PRIVATE KEY-----
";

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// Fetches once from a server that answers in two pieces; `farewell` is how it leaves.
fn fetched(tls_skip_verify: bool, farewell: bool) -> (String, CheckResult) {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/health", listener.local_addr().unwrap());
        smol::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor().accept(stream).await else { return };
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
