//! TLS towards other people's servers: for health checks and for the command line.
//!
//! - Source: RFC 8446 and RFC 5246, by rustls with ring; all TLS of this program is in this file.
//! - A server's certificate is checked against the authorities that the system trusts, which are
//!   read once, against others that a client is given, or on request not at all.

use crate::http::client::system_text;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use futures_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use futures_rustls::{TlsConnector, rustls};
use smol::net::TcpStream;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use thiserror::Error;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the name that was asked for, signed by an authority of the system.
    #[default]
    System,
    /// All of them: what is sent may be read and changed on the way.
    Anybody,
    /// As a client was told.
    Given(Given),
}

/// What a client was told of TLS, read and understood.
#[derive(Clone, Debug)]
pub struct Given {
    config: Arc<ClientConfig>,
    /// The name that the certificate must have, if not that of the address.
    name: Option<String>,
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Given {}

/// What a client is told of TLS (cli.md §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// A file with the authorities that count, in PEM form.
    pub ca_file: Option<PathBuf>,
    /// A folder of such files, where no file is given.
    pub ca_path: Option<PathBuf>,
    /// A file with the client's own certificate.
    pub cert: Option<PathBuf>,
    /// A file with the key of that.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have, if not that of its address.
    pub server_name: Option<String>,
    /// Whether certificates are not looked at.
    pub skip_verify: bool,
}

/// Why that cannot be done. Whoever wrote the settings is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// A file or folder cannot be read.
    #[error("open {}: {reason}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why, as the system words it.
        reason: String,
    },
    /// A file does not hold what it should.
    #[error("no {what} in PEM form in {}", path.display())]
    Content {
        /// What is missing.
        what: &'static str,
        /// In which file.
        path: PathBuf,
    },
    /// A certificate without key, or a key without certificate.
    #[error("both client cert and client key must be provided")]
    HalfIdentity,
    /// The library has no use for what was read.
    #[error("tls: {0}")]
    Unusable(String),
}

impl Trust {
    /// That of a client which is told so.
    pub fn of(tls: &ClientTls) -> Result<Self, TlsError> {
        if *tls == ClientTls::default() {
            return Ok(Self::System);
        }
        let unusable = |error: Error| TlsError::Unusable(error.to_string());
        let builder = builder().map_err(|error| TlsError::Unusable(error.to_string()))?;
        let builder = if tls.skip_verify {
            let verifier = Arc::new(Anybody(ring::default_provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(authorities(tls)?)
        };
        let config = match (&tls.cert, &tls.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let (chain, key) = (certificates(cert)?, private_key(key)?);
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::HalfIdentity),
        };
        Ok(Self::Given(Given { config: Arc::new(config), name: tls.server_name.clone() }))
    }
}

/// The authorities that count: given ones, or those of the system.
fn authorities(tls: &ClientTls) -> Result<RootCertStore, TlsError> {
    let unusable = |error: Error| TlsError::Unusable(error.to_string());
    let files = match (&tls.ca_file, &tls.ca_path) {
        (Some(file), _) => vec![file.clone()],
        (None, Some(folder)) => files_in(folder)?,
        (None, None) => return Ok(of_system()),
    };
    let mut roots = RootCertStore::empty();
    for file in files {
        for certificate in certificates(&file)? {
            roots.add(certificate).map_err(unusable)?;
        }
    }
    Ok(roots)
}

fn opened<T>(path: &Path, result: io::Result<T>) -> Result<T, TlsError> {
    result.map_err(|error| TlsError::Open { path: path.to_owned(), reason: system_text(&error) })
}

/// The plain files of a folder, in the order of their names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let entries = opened(folder, std::fs::read_dir(folder).and_then(Iterator::collect))?;
    let entries: Vec<std::fs::DirEntry> = entries;
    let mut files: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = opened(path, std::fs::read(path))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let missing = || TlsError::Content { what: "certificate", path: path.to_owned() };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(missing)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = opened(path, std::fs::read(path))?;
    let missing = |_| TlsError::Content { what: "private key", path: path.to_owned() };
    PrivateKeyDer::from_pem_slice(&text).map_err(missing)
}

/// Shakes hands on a connection with the server `host`.
///
/// - Errors: the server speaks no TLS, or its certificate is not accepted.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    trust: &Trust,
) -> io::Result<TlsStream<TcpStream>> {
    let host = match trust {
        Trust::Given(Given { name: Some(name), .. }) => name,
        Trust::Given(_) | Trust::System | Trust::Anybody => host,
    };
    shake(stream, host, trusting(trust).await?).await
}

/// The same with a server that is to speak HTTP/2 then (RFC 9113 §3.2).
pub(crate) async fn connect_http2(
    stream: TcpStream,
    host: &str,
    trust: &Trust,
) -> io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::clone(&*trusting(trust).await?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    shake(stream, host, Arc::new(config)).await
}

async fn trusting(trust: &Trust) -> io::Result<Arc<ClientConfig>> {
    match trust {
        Trust::System => smol::unblock(trusting_system).await,
        Trust::Anybody => trusting_anybody(),
        Trust::Given(given) => Ok(Arc::clone(&given.config)),
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
    let roots = of_system();
    if roots.is_empty() {
        return Err(io::Error::other("x509: this system trusts no certificate authority"));
    }
    let config = builder()?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = AUTHORITIES.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
    // A system may trust what this library cannot read; the others count all the same.
    roots.add_parsable_certificates(found.into_iter().flatten().flatten());
    roots
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

#[cfg(test)]
pub(crate) mod tests;
