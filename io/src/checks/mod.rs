//! Runs one check once: a command, a fetch, a connection; nothing is decided here but how it ended.
//!
//! - Source: http-api.md §5.2 for what each exit, status and error means and how it is worded.
//! - Every run is bounded in time, output and number: at most [`RUNS_MAX`] run at once, further
//!   ones wait for their turn, and the core gives up on one that waits for too long.
//! - A script runs in a process group of its own, which is killed as a whole when its time is over
//!   or when nobody waits for it any more.

mod docker;
pub mod grpc;
mod script;
#[cfg(test)]
mod tests;

use crate::http::client::{ClientLimits, ClientRequest, Trust, system_text};
use crate::runtime::{before, within};
use smol::Timer;
use smol::lock::Semaphore;
use smol::net::{TcpStream, UdpSocket};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::local::definition::{CheckKind, HttpCheck, TcpCheck, UdpCheck};
use terraform_core::node::input::CheckResult;

/// Checks that run at the same time at most: enough for hundreds of services on one machine, few
/// enough not to run out of processes and descriptors.
pub const RUNS_MAX: usize = 128;
/// What a check sends in a datagram: an empty one looks like an end to some programs.
const UDP_PAYLOAD: &[u8] = b"\n";
/// Redirects a check follows, as Go's client does.
const REDIRECTS_MAX: u8 = 10;

/// Runs checks; clones share one bound.
#[derive(Clone, Debug)]
pub struct Runner {
    turns: Arc<Semaphore>,
}

impl Default for Runner {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(RUNS_MAX)) }
    }
}

impl Runner {
    /// Runs a check once and keeps at most `output_max_size` bytes of what it says.
    ///
    /// Never fails: whatever goes wrong is the check's result. Dropping the future ends the run.
    pub fn run(
        &self,
        kind: CheckKind,
        output_max_size: usize,
    ) -> impl Future<Output = CheckResult> + Send + 'static {
        let turns = Arc::clone(&self.turns);
        async move {
            let _turn = turns.acquire().await;
            match kind {
                CheckKind::Script(script) => script::run(&script, output_max_size).await,
                CheckKind::Docker(docker) => {
                    docker::run(&docker, docker::ENGINE.as_ref(), output_max_size).await
                }
                CheckKind::Http(http) => fetch(&http, output_max_size).await,
                CheckKind::Tcp(tcp) => connect(&tcp).await,
                CheckKind::Udp(udp) => knock(&udp).await,
                CheckKind::Grpc(grpc) => grpc::run(&grpc).await,
                CheckKind::Ttl(_) | CheckKind::Maintenance | CheckKind::Alias(_) => {
                    critical("a check without an interval is not run".to_owned())
                }
            }
        }
    }
}

fn critical(output: String) -> CheckResult {
    CheckResult { status: CheckStatus::Critical, output }
}

async fn fetch(check: &HttpCheck, output_max_size: usize) -> CheckResult {
    let mut request = match ClientRequest::new(&check.method, &check.url) {
        Ok(request) => request,
        Err(error) => return critical(error.to_string()),
    };
    let given = |name: &str| check.header.keys().any(|key| key.eq_ignore_ascii_case(name));
    let defaults = [("User-Agent", "Consul Health Check"), ("Accept", "text/plain, text/*, */*")];
    for (name, value) in defaults.into_iter().filter(|(name, _)| !given(name)) {
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    for (name, values) in &check.header {
        request.headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
    }
    request.body = check.body.clone().into();
    if check.tls_skip_verify {
        request.trust = Trust::Anybody;
    }
    let limits = ClientLimits {
        body_bytes_max: output_max_size,
        time: check.timeout,
        redirects_max: REDIRECTS_MAX,
        ..ClientLimits::default()
    };
    let response = match request.send(&limits).await {
        Ok(response) => response,
        Err(error) => return critical(request.error_text(&error)),
    };
    let status = match response.status {
        200..=299 => CheckStatus::Passing,
        429 => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    };
    let body = String::from_utf8_lossy(&response.body);
    let (method, url, code) = (&check.method, &check.url, response.status);
    let output = format!("HTTP {method} {url}: {code} {} Output: {body}", response.reason);
    CheckResult { status, output }
}

async fn connect(check: &TcpCheck) -> CheckResult {
    let target = check.target.as_str();
    match within(check.timeout, TcpStream::connect(target)).await {
        Some(Ok(_)) => {
            let output = format!("TCP connect {target}: Success");
            CheckResult { status: CheckStatus::Passing, output }
        }
        Some(Err(error)) => critical(format!("dial tcp {target}: {}", system_text(&error))),
        None => critical(format!("dial tcp {target}: i/o timeout")),
    }
}

/// Sends a datagram. Only what the other machine says of a closed port is known to be bad: a
/// program that ignores what it does not understand is as silent as one that is stuck.
async fn knock(check: &UdpCheck) -> CheckResult {
    let target = check.target.as_str();
    let said = |error: io::Error| format!("udp {target}: {}", system_text(&error));
    let send = async {
        let address = async_net::resolve(target).await.map_err(said)?.into_iter().next();
        let address = address.ok_or_else(|| format!("udp {target}: no such host"))?;
        let own: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((own, 0)).await.map_err(said)?;
        socket.connect(address).await.map_err(said)?;
        socket.send(UDP_PAYLOAD).await.map_err(said)?;
        Ok(socket)
    };
    let mut late = Timer::after(check.timeout);
    let socket = match before(&mut late, send).await {
        Some(Ok(socket)) => socket,
        Some(Err(reason)) => return critical(reason),
        None => return critical(format!("udp {target}: i/o timeout")),
    };
    // The system cuts a longer answer; what it says does not matter, and silence is no fault.
    match before(&mut late, socket.recv(&mut [0; 1])).await {
        Some(Ok(_)) | None => {
            let output = format!("UDP connect {target}: Success");
            CheckResult { status: CheckStatus::Passing, output }
        }
        Some(Err(error)) => critical(said(error)),
    }
}
