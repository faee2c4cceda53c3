//! Asks a server how it is, by the health protocol of gRPC.
//!
//! - Source: gRPC Health Checking Protocol v1, over HTTP/2 (RFC 9113); http-api.md §5.2.
//! - One call, one connection: [`Exchange`] is the machine, this file its socket.

mod frames;

use super::critical;
use crate::http::client::{Trust, Wire, system_text};
use crate::runtime::within;
use crate::tls;
pub use frames::{Exchange, GrpcError};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::TcpStream;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::local::definition::GrpcCheck;
use terraform_core::node::input::CheckResult;

/// The status of a server that serves.
const SERVING: u64 = 1;

/// Asks once.
pub(super) async fn run(check: &GrpcCheck) -> CheckResult {
    match within(check.timeout, ask(check)).await {
        Some(Ok(SERVING)) => {
            let output = format!("gRPC check {}: success", check.target);
            CheckResult { status: CheckStatus::Passing, output }
        }
        Some(Ok(_)) => critical("gRPC application didn't report service healthy".to_owned()),
        Some(Err(reason)) => critical(reason),
        None => {
            let text = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
            critical(text.to_owned())
        }
    }
}

/// The status that the server tells.
async fn ask(check: &GrpcCheck) -> Result<u64, String> {
    let target = check.target.as_str();
    let failed = |error: std::io::Error| {
        let text = system_text(&error);
        format!("rpc error: code = Unavailable desc = connection to {target}: {text}")
    };
    let stream = TcpStream::connect(target).await.map_err(failed)?;
    let mut stream: Box<dyn Wire> = if check.tls {
        let trust = if check.tls_skip_verify { Trust::Anybody } else { Trust::System };
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Box::new(tls::connect_http2(stream, host, &trust).await.map_err(failed)?)
    } else {
        Box::new(stream)
    };
    let mut exchange = Exchange::new(target, &check.service, check.tls);
    let mut buffer = [0; 4096];
    loop {
        let out = exchange.take_output();
        stream.write_all(&out).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let read = stream.read(&mut buffer).await.map_err(failed)?;
        let data = buffer.get(..read).unwrap_or_default();
        if let Some(status) = exchange.feed(data).map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if read == 0 {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
