//! What the agent does with a result: it runs a program, or tells a URL (cli.md §7).
//!
//! A program finds the result on its standard input and its index in CONSUL_INDEX; a URL gets the
//! result as the body of a request and its index in X-Consul-Index. What they answer is logged.

use super::{Stop, Voice};
use serde_json::Value;
use smol::future::FutureExt as _;
use smol::io::AsyncWriteExt as _;
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;
use terraform_core::trace::Level;
use terraform_io::capture::Tail;
use terraform_io::http::client::{ClientError, ClientLimits, ClientRequest, Trust, system_text};
use terraform_io::program::{Input, Program, Signal, exit_text};
use terraform_io::runtime::within;

/// Bytes of what a handler says that are kept for the log, the newest ones.
const OUTPUT_BYTES_MAX: usize = 4096;
/// How long a handler may take to end when its watch does, before it is killed.
const END_TIME: Duration = Duration::from_secs(1);
/// Redirects that are followed, as Go's client does.
const REDIRECTS_MAX: u8 = 10;

/// What is done with a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A line for the user's SHELL, or else /bin/sh.
    Line(String),
    /// A program and its arguments; never empty.
    Program(Vec<String>),
    /// A URL.
    Http(HttpHandler),
}

/// A URL that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHandler {
    /// The URL, `http` or `https`.
    pub url: String,
    /// The method; `POST` by default.
    pub method: String,
    /// Headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// Time allowed for all of it; 10 s by default.
    pub timeout: Duration,
    /// Whether any certificate will do.
    pub tls_skip_verify: bool,
}

impl HttpHandler {
    /// The request that tells of a result.
    ///
    /// - Errors: what of it cannot be sent.
    pub(crate) fn request(&self, index: u64, result: &Value) -> Result<ClientRequest, ClientError> {
        let mut request = ClientRequest::new(&self.method, &self.url)?;
        let given = |name: &str| self.header.keys().any(|key| key.eq_ignore_ascii_case(name));
        if !given("Content-Type") {
            request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        for (name, values) in &self.header {
            request.headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
        }
        request.headers.push(("X-Consul-Index".to_owned(), index.to_string()));
        request.body = result.to_string().into();
        if self.tls_skip_verify {
            request.trust = Trust::Anybody;
        }
        request.check()?;
        Ok(request)
    }
}

/// Handles a result, until that is done or the watch ends.
pub(super) async fn handle(
    handler: &Handler,
    (index, result): (u64, &Value),
    voice: &Voice,
    stop: &Stop,
) {
    match handler {
        Handler::Line(line) => {
            run((std::slice::from_ref(line), true), (index, result), voice, stop).await;
        }
        Handler::Program(words) => run((words, false), (index, result), voice, stop).await,
        Handler::Http(http) => {
            let ended = async { Some(tell(http, index, result).await) }.or(async {
                stop.wait().await;
                None
            });
            match ended.await {
                Some(Ok(output)) => say_output(voice, &http.url, &output),
                Some(Err(error)) => failed(voice, &http.url, &error, ""),
                None => {}
            }
        }
    }
}

/// Runs a program; one that is not done when the watch ends is told to end, and then killed.
async fn run(
    (words, shell): (&[String], bool),
    (index, result): (u64, &Value),
    voice: &Voice,
    stop: &Stop,
) {
    let name = words.join(" ");
    let variables = [("CONSUL_INDEX", index.to_string())];
    let started = Program::start_captured(words, shell, &variables, Input::Fed);
    let (mut program, pipe) = match started {
        Ok(started) => started,
        Err(error) => return failed(voice, &name, &system_text(&error), ""),
    };
    let input = program.take_input();
    let feed = async {
        if let Some(mut input) = input {
            // A handler need not read what it is told.
            let _ = input.write_all(format!("{result}\n").as_bytes()).await;
        }
        std::future::pending().await
    };
    let mut tail = Tail::new(OUTPUT_BYTES_MAX);
    let ended = async { Some(program.follow(&pipe, &mut tail).await) }.or(feed).or(async {
        stop.wait().await;
        None
    });
    match ended.await {
        Some(Ok(status)) if status.success() => say_output(voice, &name, &tail.text()),
        Some(Ok(status)) => failed(voice, &name, &exit_text(status), &tail.text()),
        Some(Err(error)) => failed(voice, &name, &system_text(&error), &tail.text()),
        // Nobody waits for how it ends. Its pipe stays open meanwhile, lest that ends it first.
        None => drop(end(&mut program).await),
    }
}

/// Ends a program and what it started.
async fn end(program: &mut Program) -> std::io::Result<ExitStatus> {
    // The only failure is that nobody is left to be told.
    let _ = program.signal(Signal::Terminate);
    if let Some(ended) = within(END_TIME, program.wait()).await {
        return ended;
    }
    let _ = program.signal(Signal::Kill);
    program.wait().await
}

/// Tells a URL; gives back what it answers.
async fn tell(handler: &HttpHandler, index: u64, result: &Value) -> Result<String, String> {
    let request = handler.request(index, result).map_err(|error| error.to_string())?;
    let limits = ClientLimits {
        body_bytes_max: OUTPUT_BYTES_MAX,
        time: handler.timeout,
        redirects_max: REDIRECTS_MAX,
        ..ClientLimits::default()
    };
    let response = request.send(&limits).await.map_err(|error| request.error_text(&error))?;
    let output = String::from_utf8_lossy(&response.body).into_owned();
    match response.status {
        200..=299 => Ok(output),
        status => Err(format!("{status} {}: {output}", response.reason)),
    }
}

fn say_output(voice: &Voice, handler: &str, output: &str) {
    if !output.is_empty() {
        voice.say(Level::Debug, &format!("Watch handler output: handler={handler:?} {output:?}"));
    }
}

fn failed(voice: &Voice, handler: &str, error: &str, output: &str) {
    let text = format!("Failed to run watch handler: handler={handler:?} error={error:?}");
    match output {
        "" => voice.say(Level::Error, &text),
        _ => voice.say(Level::Error, &format!("{text} output={output:?}")),
    }
}
