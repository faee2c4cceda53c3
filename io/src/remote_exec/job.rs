//! What is announced and what is to be run, as Consul's `exec` writes them.

use crate::program::command;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use terraform_core::id::SessionId;
use terraform_core::wire::base64;

/// Bytes that a prefix may have.
const PREFIX_BYTES_MAX: usize = 256;
/// Silence after which the agent says that the job still runs, unless the job names another.
const WAIT: Duration = Duration::from_secs(2);
/// The shortest such silence.
const WAIT_MIN: Duration = Duration::from_millis(200);

/// Where a job is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) prefix: String,
    pub(super) session: SessionId,
}

impl Call {
    /// Reads the payload of an event.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("the event's payload is no JSON: {error}"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let prefix = text("Prefix").filter(|prefix| {
            !prefix.is_empty() && prefix.len() <= PREFIX_BYTES_MAX && !prefix.starts_with('/')
        });
        let prefix = prefix.ok_or("the event's Prefix is no key")?.to_owned();
        let session = text("Session").and_then(|text| SessionId::parse(text).ok());
        Ok(Self { prefix, session: session.ok_or("the event's Session is no UUID")? })
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A line for the shell.
    Line(String),
    /// A program and its arguments.
    Words(Vec<String>),
    /// The content of an executable file.
    Script(Vec<u8>),
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) work: Work,
    /// Silence after which the agent says that it still runs.
    pub(super) wait: Duration,
}

impl Job {
    /// Reads the entry of a job.
    pub(super) fn decode(entry: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(entry)
            .map_err(|error| format!("the job is no JSON: {error}"))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let words = value.get("Args").and_then(Value::as_array).into_iter().flatten();
        let words: Vec<String> =
            words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
        let script = base64::decode(text("Script").as_bytes())
            .map_err(|error| format!("the job's Script: {error}"))?;
        let work = if !script.is_empty() {
            Work::Script(script)
        } else if !words.is_empty() {
            Work::Words(words)
        } else if !text("Command").is_empty() {
            Work::Line(text("Command").to_owned())
        } else {
            return Err("the job has neither Command nor Args nor Script".to_owned());
        };
        let wait = value.get("Wait").and_then(Value::as_u64).map_or(WAIT, Duration::from_nanos);
        Ok(Self { work, wait: wait.max(WAIT_MIN) })
    }
}

/// The file of a script; it is removed with this.
pub(super) struct ScriptFile(PathBuf);

impl Drop for ScriptFile {
    fn drop(&mut self) {
        // Somebody may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The command of a job, and the file of a script, under a name of `session`.
pub(super) fn prepare(
    work: &Work,
    session: SessionId,
) -> io::Result<(Command, Option<ScriptFile>)> {
    let script = match work {
        Work::Line(line) => return Ok((command(std::slice::from_ref(line), true), None)),
        Work::Words(words) => return Ok((command(words, false), None)),
        Work::Script(script) => script,
    };
    let path = std::env::temp_dir().join(format!("terraform-exec-{session}"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o700).open(&path)?;
    let (command, made) = (Command::new(&path), ScriptFile(path));
    file.write_all(script)?;
    Ok((command, Some(made)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_consul_writes_is_read() {
        let session = "11111111-2222-3333-4444-555555555555";
        let payload = format!(r#"{{"Prefix":"_rexec","Session":"{session}"}}"#);
        let call = Call::decode(payload.as_bytes()).unwrap();
        assert_eq!((call.prefix.as_str(), call.session.to_string().as_str()), ("_rexec", session));
        for bad in ["x", "{}", r#"{"Prefix":"/x"}"#, r#"{"Prefix":"x","Session":"y"}"#] {
            assert!(Call::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let job = |text: &str| Job::decode(text.as_bytes());
        let line = job(r#"{"Command":"echo hi","Wait":5000000000}"#).unwrap();
        assert_eq!(
            (line.work, line.wait),
            (Work::Line("echo hi".to_owned()), Duration::from_secs(5))
        );
        let words = job(r#"{"Args":["a","b"],"Wait":1}"#).unwrap();
        assert_eq!(words.work, Work::Words(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(words.wait, WAIT_MIN);
        assert_eq!(job(r#"{"Script":"aGk="}"#).unwrap().work, Work::Script(b"hi".to_vec()));
        assert!(job("{}").is_err() && job("x").is_err() && job(r#"{"Script":"*"}"#).is_err());
    }
}
