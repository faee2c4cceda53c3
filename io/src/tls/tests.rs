//! TLS as a client is told to speak it, with a certificate that no authority signed.

use super::*;
use crate::http::client::{ClientLimits, ClientRequest};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::server::WebPkiClientVerifier;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::TcpListener;
use std::path::Path;

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

/// What accepts connections with that certificate, from those alone who have it too if wanted.
pub(crate) fn acceptor(mutual: bool) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
}

/// A folder with the certificate and its key in files of its own.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = format!("terraform-tls-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(folder.join("authorities")).unwrap();
        std::fs::write(folder.join("authorities/own.pem"), CERTIFICATE).unwrap();
        std::fs::write(folder.join("key.pem"), KEY).unwrap();
        std::fs::write(folder.join("garbage.pem"), "nothing").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.join(name))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The status that a server tells, or why there is none.
fn asked(tls: &ClientTls, host: &str, mutual: bool) -> Result<u16, String> {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{host}:{}/", listener.local_addr().unwrap().port());
        smol::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor(mutual).accept(stream).await else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = stream.close().await;
        })
        .detach();
        let mut request = ClientRequest::new("GET", &url).unwrap();
        request.trust = Trust::of(tls).map_err(|error| error.to_string())?;
        let response = request.send(&ClientLimits::default()).await;
        response.map(|response| response.status).map_err(|error| error.to_string())
    })
}

#[test]
fn authorities_are_those_of_the_given_file_or_folder() {
    let files = Files::new("authorities");
    let unknown = "tls: invalid peer certificate: UnknownIssuer".to_owned();
    assert_eq!(asked(&ClientTls::default(), "127.0.0.1", false), Err(unknown));
    let ca_file = ClientTls { ca_file: files.path("authorities/own.pem"), ..ClientTls::default() };
    assert_eq!(asked(&ca_file, "127.0.0.1", false), Ok(204));
    let ca_path = ClientTls { ca_path: files.path("authorities"), ..ClientTls::default() };
    assert_eq!(asked(&ca_path, "127.0.0.1", false), Ok(204));
    let skipping = ClientTls { skip_verify: true, ..ClientTls::default() };
    assert_eq!(asked(&skipping, "127.0.0.1", false), Ok(204));
}

#[test]
fn a_name_that_is_given_is_what_the_certificate_must_have() {
    let files = Files::new("name");
    let named = |name: &str| ClientTls {
        ca_file: files.path("authorities/own.pem"),
        server_name: Some(name.to_owned()),
        ..ClientTls::default()
    };
    assert_eq!(asked(&named("localhost"), "127.0.0.1", false), Ok(204));
    let other = asked(&named("other.example"), "127.0.0.1", false).unwrap_err();
    assert!(other.starts_with("tls: invalid peer certificate: certificate not valid"), "{other}");
}

#[test]
fn a_server_that_wants_a_certificate_is_shown_the_given_one() {
    let files = Files::new("mutual");
    let ca_file = files.path("authorities/own.pem");
    let without = ClientTls { ca_file: ca_file.clone(), ..ClientTls::default() };
    assert!(asked(&without, "127.0.0.1", true).is_err());
    let with = ClientTls { cert: ca_file, key: files.path("key.pem"), ..without };
    assert_eq!(asked(&with, "127.0.0.1", true), Ok(204));
}

#[test]
fn what_cannot_be_read_is_refused_by_its_name() {
    let files = Files::new("refused");
    let text = |tls: ClientTls| Trust::of(&tls).unwrap_err().to_string();
    let shown = |name: &str| Path::display(&files.0.join(name)).to_string();
    let ca_file = |name: &str| ClientTls { ca_file: files.path(name), ..ClientTls::default() };
    let missing = format!("open {}: no such file or directory", shown("missing"));
    assert_eq!(text(ca_file("missing")), missing);
    let garbage = format!("no certificate in PEM form in {}", shown("garbage.pem"));
    assert_eq!(text(ca_file("garbage.pem")), garbage);
    let folder = ClientTls { ca_path: files.path("missing"), ..ClientTls::default() };
    assert_eq!(text(folder), missing);
    let both = "both client cert and client key must be provided";
    let alone = ClientTls { key: files.path("key.pem"), ..ClientTls::default() };
    assert_eq!(text(alone), both);
    let swapped = ClientTls {
        cert: files.path("authorities/own.pem"),
        key: files.path("garbage.pem"),
        ..ClientTls::default()
    };
    assert_eq!(text(swapped), format!("no private key in PEM form in {}", shown("garbage.pem")));
}
