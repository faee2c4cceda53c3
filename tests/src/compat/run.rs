//! Sends a table's requests and questions and compares the answers.

use super::dns;
use super::pattern::Values;
use super::server::Program;
use super::table::{Expected, Step, Table, When};
use crate::{LONG, Response, http, wait_until};
use std::fmt::Write as _;
use std::io::Read as _;
use std::thread::JoinHandle;
use std::time::Instant;

/// Asks a fresh server everything that a table has; what is wrong with each answer that is not the
/// expected one.
pub fn run(table: &Table, program: &Program) -> Vec<String> {
    let server = program.start(&table.config);
    let mut values = server.values(program);
    let (mut failures, mut waiting) =
        (Vec::new(), None::<(&Step, &Expected, JoinHandle<Response>)>);
    for step in &table.steps {
        let Some(expected) = answer_of(step, program) else { continue };
        let send = sender(step, &server.address, &values);
        let result = match step.when {
            When::Now => compare(&send(), expected, &mut values),
            When::Eventually => eventually(send, expected, &mut values),
            When::Later => {
                waiting = Some((step, expected, std::thread::spawn(send)));
                continue;
            }
        };
        failures.extend(result.err().map(|why| failure(table, step, expected, &values, &why)));
        if let Some((step, expected, thread)) = waiting.take() {
            let response = thread.join().unwrap_or_default();
            let result = compare(&response, expected, &mut values);
            failures.extend(result.err().map(|why| failure(table, step, expected, &values, &why)));
        }
    }
    failures
}

/// What a program answers; `None` if it is not asked.
fn answer_of<'a>(step: &'a Step, program: &Program) -> Option<&'a Expected> {
    match (program, &step.consul) {
        (Program::Consul(_), Some((_, answer))) => answer.as_ref(),
        _ => Some(&step.expected),
    }
}

fn eventually(
    send: impl Fn() -> Response,
    expected: &Expected,
    values: &mut Values,
) -> Result<(), String> {
    let begin = Instant::now();
    wait_until("an answer", LONG * 2, || {
        let result = compare(&send(), expected, values);
        (result.is_ok() || begin.elapsed() > LONG / 3).then_some(result)
    })
}

/// What sends a step to a server.
fn sender(step: &Step, address: &str, values: &Values) -> Box<dyn Fn() -> Response + Send> {
    let address = address.to_owned();
    if let Some(words) = step.question() {
        let words = String::from_utf8_lossy(&words.fill(values)).into_owned();
        return Box::new(move || dns::ask(&address, &words));
    }
    let request = request(step, &format!("{address}:8500"), values);
    Box::new(move || http::raw(&address, 8500, &request))
}

/// The bytes of a request.
fn request(step: &Step, host: &str, values: &Values) -> Vec<u8> {
    let mut bytes = step.request.fill(values);
    bytes.extend_from_slice(format!(" HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    bytes.extend_from_slice(b"Connection: close\r\n");
    let body = step.body.fill(values);
    let has = |name: &str| {
        let name = format!("{name}:");
        step.headers.iter().any(|header| header.0.to_ascii_lowercase().starts_with(&name))
    };
    for header in &step.headers {
        bytes.extend_from_slice(&header.fill(values));
        bytes.extend_from_slice(b"\r\n");
    }
    let is_chunked = has("transfer-encoding");
    if !is_chunked && !has("content-length") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if is_chunked {
        bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(&body);
    if is_chunked {
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    bytes
}

/// Whether an answer is the expected one; keeps the values that it names.
fn compare(response: &Response, expected: &Expected, values: &mut Values) -> Result<(), String> {
    let got = |why: String| format!("{why}; got:\n{}", shown(response));
    if response.status != expected.status {
        return Err(got("another status".to_owned()));
    }
    for (name, pattern) in &expected.headers {
        let is_same = match (response.header(name), pattern) {
            (None, None) => true,
            (Some(value), Some(pattern)) => pattern.take(value.as_bytes(), values).is_ok(),
            _ => false,
        };
        if !is_same {
            return Err(got(format!("another {name}")));
        }
    }
    let body = unpacked(response);
    expected.body.take(&body, values).map_err(|at| {
        let rest = String::from_utf8_lossy(body.get(at..).unwrap_or_default()).into_owned();
        let rest: String = rest.chars().take(40).collect();
        got(format!("another body from byte {at} on, {rest:?}"))
    })
}

fn unpacked(response: &Response) -> Vec<u8> {
    if response.header("content-encoding") != Some("gzip") {
        return response.bytes.clone();
    }
    let mut body = Vec::new();
    // What cannot be unpacked is another body than the expected one.
    let _ = flate2::read::GzDecoder::new(response.bytes.as_slice()).read_to_end(&mut body);
    body
}

/// An answer as text: what matters of it.
fn shown(response: &Response) -> String {
    let mut text = format!("{}\n", response.status);
    for (name, value) in &response.headers {
        if !["connection", "content-length", "date"].contains(&name.as_str()) {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    text + &String::from_utf8_lossy(&unpacked(response))
}

fn failure(table: &Table, step: &Step, expected: &Expected, values: &Values, why: &str) -> String {
    let Step { line, request, .. } = step;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut wanted = format!("{}\n", expected.status);
    for (name, pattern) in &expected.headers {
        if let Some(pattern) = pattern {
            let _ = writeln!(wanted, "{name}: {}", pattern.0);
        }
    }
    wanted.push_str(&text(expected.body.fill(values)));
    let (name, request) = (&table.name, text(request.fill(values)));
    format!("tests/compat/{name}.table:{line}: {request}: {why}\nexpected:\n{wanted}\n")
}
