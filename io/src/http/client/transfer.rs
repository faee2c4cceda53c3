//! Bodies that do not fit into memory: sent from a file, taken piece by piece.

use super::response::{Progress, ResponseReader};
use super::wire::{Wire, ended_abruptly};
use super::{ClientError, ClientLimits, ClientRequest, ClientResponse, system_text};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::io::{self, Read};

/// Bytes moved at once.
const PIECE_BYTES: usize = 64 * 1024;

fn broken(error: &io::Error) -> ClientError {
    ClientError::Broken(system_text(error))
}

impl ClientRequest {
    /// Sends the request and hands the body of an answer with status 200 to `take`, piece by
    /// piece; that of any other answer is in the response. Redirects are not followed, and there
    /// is no limit of time.
    pub async fn download(
        &self,
        limits: &ClientLimits,
        take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<ClientResponse, ClientError> {
        self.download_on(self.connect().await?, limits, take).await
    }

    /// The same on a connection of the caller's.
    pub async fn download_on(
        &self,
        mut stream: impl Wire,
        limits: &ClientLimits,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<ClientResponse, ClientError> {
        let mut message = self.head(self.body.len() as u64)?.into_bytes();
        message.extend_from_slice(&self.body);
        stream.write_all(&message).await.map_err(|error| broken(&error))?;
        read_response(&mut stream, &self.method, limits, &mut take).await
    }

    /// Sends the request with `length` bytes of `source` as its body; `sent` is told how many of
    /// them went. Likewise without redirects and without a limit of time.
    pub async fn upload(
        &self,
        limits: &ClientLimits,
        (mut source, length): (impl Read, u64),
        mut sent: impl FnMut(u64),
    ) -> Result<ClientResponse, ClientError> {
        let mut stream = self.connect().await?;
        let head = self.head(length)?;
        stream.write_all(head.as_bytes()).await.map_err(|error| broken(&error))?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = length;
        let mut failed = None;
        while left > 0 && failed.is_none() {
            let wanted = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let room = piece.get_mut(..wanted).unwrap_or_default();
            source.read_exact(room).map_err(|error| broken(&error))?;
            // A server may answer and close before it has read everything; its answer counts.
            failed = stream.write_all(room).await.err();
            left -= wanted as u64;
            sent(length - left);
        }
        let mut ignore = |_: &[u8]| Ok(());
        let answer = read_response(&mut stream, &self.method, limits, &mut ignore).await;
        match (answer, failed) {
            (Ok(response), _) => Ok(response),
            (Err(_), Some(error)) => Err(broken(&error)),
            (Err(error), None) => Err(error),
        }
    }
}

async fn read_response(
    stream: &mut impl Wire,
    method: &str,
    limits: &ClientLimits,
    take: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<ClientResponse, ClientError> {
    let mut reader = ResponseReader::new(method, limits);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = match stream.read(&mut buffer).await {
            Err(error) if ended_abruptly(&error) => 0,
            read => read.map_err(|error| broken(&error))?,
        };
        let data = buffer.get(..count).unwrap_or_default();
        let progress = if count == 0 { reader.finish()? } else { reader.feed(data)? };
        match progress {
            Progress::More => {
                if let Some(piece) = reader.take_body() {
                    take(&piece).map_err(|error| broken(&error))?;
                }
            }
            Progress::Done(mut response) => {
                if response.status == 200 {
                    take(&std::mem::take(&mut response.body)).map_err(|error| broken(&error))?;
                }
                return Ok(response);
            }
        }
    }
}
