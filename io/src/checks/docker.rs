//! Runs a command in a container, through the socket of the docker engine.
//!
//! - Source: Docker Engine API v1.24, `exec` of containers. A command is made, started, whose
//!   answer is what it says until it ends, and then asked for its exit code.
//! - The engine cannot end a command: one that is late goes on in its container.

use super::critical;
use super::script::after_timeout;
use crate::capture::Tail;
use crate::http::client::{ClientError, ClientLimits, ClientRequest, ClientResponse};
use crate::runtime::within;
use serde_json::{Value, json};
use smol::net::unix::UnixStream;
use std::path::Path;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::local::definition::DockerCheck;
use terraform_core::node::input::CheckResult;

/// Where the engine listens.
pub(super) const ENGINE: &str = "/var/run/docker.sock";
/// Bytes of an answer of the engine, without what a command says.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Runs the command once.
pub(super) async fn run(check: &DockerCheck, engine: &Path, output_max_size: usize) -> CheckResult {
    let mut tail = Tail::new(output_max_size);
    let code = match within(check.timeout, execute(check, engine, &mut tail)).await {
        Some(Ok(code)) => code,
        Some(Err(error)) => return critical(error),
        None => return critical(after_timeout(&mut tail, check.timeout)),
    };
    let status = match code {
        0 => CheckStatus::Passing,
        1 => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    };
    CheckResult { status, output: tail.text() }
}

/// The exit code of the command; what it says goes into `tail`.
async fn execute(check: &DockerCheck, engine: &Path, tail: &mut Tail) -> Result<i64, String> {
    let container = escaped(&check.container);
    let command = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": check.args });
    let path = format!("/containers/{container}/exec");
    let created = ask(engine, "POST", &path, command).await?;
    let id = created.get("Id").and_then(Value::as_str);
    let id = escaped(id.ok_or_else(|| "the docker engine named no command".to_owned())?);

    let start = request("POST", &format!("/exec/{id}/start"), json!({}))?;
    let mut output = Demultiplexer::default();
    let stream = dial(engine).await?;
    let limits = limits();
    let take = |data: &[u8]| {
        output.take(data, |said| tail.take(said));
        Ok(())
    };
    let response = start.download_on(stream, &limits, take).await.map_err(failed)?;
    accepted(&response)?;

    let ended = ask(engine, "GET", &format!("/exec/{id}/json"), Value::Null).await?;
    let code = ended.get("ExitCode").and_then(Value::as_i64);
    code.ok_or_else(|| "the docker engine told no exit code".to_owned())
}

async fn ask(engine: &Path, method: &str, path: &str, body: Value) -> Result<Value, String> {
    let request = request(method, path, body)?;
    let stream = dial(engine).await?;
    let response = request.exchange_on(stream, &limits()).await.map_err(failed)?;
    accepted(&response)?;
    serde_json::from_slice(&response.body)
        .map_err(|error| format!("the docker engine answered no JSON: {error}"))
}

async fn dial(engine: &Path) -> Result<UnixStream, String> {
    let failed = |error| {
        let text = crate::http::client::system_text(&error);
        format!("the docker engine is not reached: dial unix {}: {text}", engine.display())
    };
    UnixStream::connect(engine).await.map_err(failed)
}

fn request(method: &str, path: &str, body: Value) -> Result<ClientRequest, String> {
    let url = format!("http://docker/v1.24{path}");
    let mut request = ClientRequest::new(method, &url).map_err(failed)?;
    if !body.is_null() {
        request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        request.body = body.to_string().into();
    }
    Ok(request)
}

fn limits() -> ClientLimits {
    ClientLimits { body_bytes_max: ANSWER_BYTES_MAX, ..ClientLimits::default() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn failed(error: ClientError) -> String {
    format!("the docker engine does not answer: {error}")
}

fn accepted(response: &ClientResponse) -> Result<(), String> {
    if matches!(response.status, 200..=299) {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&response.body);
    Err(format!("the docker engine refused with {}: {}", response.status, body.trim()))
}

/// `text` as one segment of a path.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Takes the two streams of a command out of one: before each piece stand which it belongs to,
/// three zeros, and its length in four bytes, the largest first.
#[derive(Debug, Default)]
struct Demultiplexer {
    head: Vec<u8>,
    left: usize,
}

impl Demultiplexer {
    fn take(&mut self, mut data: &[u8], mut said: impl FnMut(&[u8])) {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let (piece, rest) = data.split_at(self.left.min(data.len()));
                said(piece);
                self.left -= piece.len();
                data = rest;
                continue;
            }
            self.head.push(*first);
            data = rest;
            if let [_, _, _, _, length @ ..] = &*self.head
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
    }
}
