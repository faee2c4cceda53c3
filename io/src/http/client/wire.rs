//! What a request travels on: a connection, plain or with TLS, or one that the caller brings.

use super::{ClientError, ClientRequest, system_text};
use crate::tls;
use async_net::TcpStream;
use async_net::unix::UnixStream;
use smol::io::{AsyncRead, AsyncWrite};
use std::io;

/// A connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl ClientRequest {
    /// A connection to where the request goes.
    pub(super) async fn connect(&self) -> Result<Box<dyn Wire>, ClientError> {
        if let Some(path) = &self.socket {
            let stream = UnixStream::connect(path).await;
            return stream.map(|stream| Box::new(stream) as Box<dyn Wire>).map_err(|error| {
                let (path, reason) = (path.display().to_string(), system_text(&error));
                ClientError::ConnectSocket { path, reason }
            });
        }
        let host = self.url.host.as_str();
        let stream = dial(host, self.url.port).await?;
        if !self.url.secure {
            return Ok(Box::new(stream));
        }
        let shaken = tls::connect(stream, host, &self.trust).await;
        let stream = shaken.map_err(|error| ClientError::Tls(system_text(&error)))?;
        Ok(Box::new(stream))
    }
}

/// Whether a connection ended without the farewell that TLS has. Many servers leave like that; what
/// of a response has its length is found to be cut all the same.
pub(super) fn ended_abruptly(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// Connects to the first address of `host` that accepts.
async fn dial(host: &str, port: u16) -> Result<TcpStream, ClientError> {
    let lookup = |reason: String| ClientError::Lookup { host: host.to_owned(), reason };
    let addresses =
        async_net::resolve((host, port)).await.map_err(|_| lookup("no such host".to_owned()))?;
    let mut last = lookup("no such host".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ClientError::Connect { address, reason: system_text(&error) },
        }
    }
    Err(last)
}
