//! TLS towards other people's servers: for health checks and for the command line.
//!
//! - Source: RFC 8446 and RFC 5246, by rustls with ring; all TLS of this program is in this file.
//! - A server's certificate is checked against the authorities that the system trusts, which are
//!   read once, or on request not at all.

use futures_rustls::client::TlsStream;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use futures_rustls::{TlsConnector, rustls};
use smol::net::TcpStream;
use std::io;
use std::sync::{Arc, OnceLock};

/// Where systems keep the authorities they trust, as Go looks for them; the first file counts.
const AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whose certificates are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the name that was asked for, signed by an authority of the system.
    #[default]
    System,
    /// All of them: what is sent may be read and changed on the way.
    Anybody,
}

/// Shakes hands on a connection with the server `host`.
///
/// - Errors: the server speaks no TLS, or its certificate is not accepted.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    trust: Trust,
) -> io::Result<TlsStream<TcpStream>> {
    shake(stream, host, trusting(trust).await?).await
}

/// The same with a server that is to speak HTTP/2 then (RFC 9113 §3.2).
pub(crate) async fn connect_http2(
    stream: TcpStream,
    host: &str,
    trust: Trust,
) -> io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::clone(&*trusting(trust).await?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    shake(stream, host, Arc::new(config)).await
}

async fn trusting(trust: Trust) -> io::Result<Arc<ClientConfig>> {
    match trust {
        Trust::System => smol::unblock(trusting_system).await,
        Trust::Anybody => trusting_anybody(),
    }
}

async fn shake(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn trusting_system() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    let found = AUTHORITIES.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
    // A system may trust what this library cannot read; the others count all the same.
    roots.add_parsable_certificates(found.into_iter().flatten().flatten());
    if roots.is_empty() {
        return Err(io::Error::other("x509: this system trusts no certificate authority"));
    }
    let config = builder()?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

fn trusting_anybody() -> io::Result<Arc<ClientConfig>> {
    let verifier = Arc::new(Anybody(ring::default_provider()));
    let trusting = builder()?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(trusting.with_no_client_auth()))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> io::Result<Builder> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
}

/// Accepts every certificate; the server still has to prove that it has the key of its own.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
