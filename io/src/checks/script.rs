//! Runs a command without a shell and makes a result of how it exits.
//!
//! Standard output and standard error share one pipe, so that what a script says stays in order.
//! Only the newest bytes are kept. A process that the script leaves behind with the pipe open
//! delays the result by [`AFTER_EXIT`] at most.

use super::critical;
use crate::duration;
use crate::http::client::system_text;
use crate::runtime::within;
use rustix::process::{Pid, Signal, kill_process_group};
use smol::process::{Child, Stdio};
use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::ExitStatus;
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::local::definition::ScriptCheck;
use terraform_core::node::input::CheckResult;

/// How long the pipe is read after the script's own exit.
const AFTER_EXIT: Duration = Duration::from_millis(200);

/// The newest bytes of a stream.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    total: u64,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), bytes_max, total: 0 }
    }

    pub(super) fn take(&mut self, data: &[u8]) {
        self.total += data.len() as u64;
        let newest = data.len().saturating_sub(self.bytes_max);
        self.bytes.extend(data.get(newest..).unwrap_or_default());
        let surplus = self.bytes.len().saturating_sub(self.bytes_max);
        self.bytes.drain(..surplus);
    }

    /// What is kept, after a line that says what is not.
    pub(super) fn text(&mut self) -> String {
        let kept = self.bytes.len();
        let text = String::from_utf8_lossy(self.bytes.make_contiguous());
        if self.total > kept as u64 {
            return format!("Captured {kept} of {} bytes\n...\n{text}", self.total);
        }
        text.into_owned()
    }

    /// The same of a command that was not done in time.
    pub(super) fn after_timeout(&mut self, timeout: Duration) -> String {
        let mut output = format!("Timed out ({}) running check", duration::text(timeout));
        let said = self.text();
        if !said.is_empty() {
            output.push_str("\n\n");
            output.push_str(&said);
        }
        output
    }
}

/// Kills the whole process group when it goes, unless the script ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The only failure is that nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the script once.
pub(super) async fn run(check: &ScriptCheck, output_max_size: usize) -> CheckResult {
    let program = check.args.first().map(String::as_str).unwrap_or_default();
    let (mut child, pipe) = match start(check) {
        Ok(started) => started,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !program.contains('/') => {
            return critical(format!("exec: {program:?}: executable file not found in $PATH"));
        }
        Err(error) => return critical(format!("fork/exec {program}: {}", system_text(&error))),
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let mut group = Group(pid);
    let mut tail = Tail::new(output_max_size);
    match within(check.timeout, follow(&mut child, pipe, &mut tail)).await {
        Some(Ok(status)) => {
            group.0 = None;
            let status = match status.code() {
                Some(0) => CheckStatus::Passing,
                Some(1) => CheckStatus::Warning,
                Some(_) | None => CheckStatus::Critical,
            };
            CheckResult { status, output: tail.text() }
        }
        Some(Err(error)) => critical(system_text(&error)),
        None => {
            drop(group);
            // Collects the killed script, so that no zombie stays behind. Nothing survives the
            // signal, so this ends.
            let _ = child.status().await;
            critical(tail.after_timeout(check.timeout))
        }
    }
}

fn start(check: &ScriptCheck) -> io::Result<(Child, smol::Async<PipeReader>)> {
    let (program, args) = check.args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = io::pipe()?;
    let mut command = std::process::Command::new(program);
    command.args(args).process_group(0);
    let mut command = smol::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The writing ends that the command holds must close here, or the pipe never ends.
    drop(command);
    Ok((child, smol::Async::new(reader)?))
}

/// Reads the pipe until its end, or until shortly after the script's exit.
async fn follow(
    child: &mut Child,
    pipe: smol::Async<PipeReader>,
    tail: &mut Tail,
) -> io::Result<ExitStatus> {
    let mut buffer = vec![0; 8192];
    let read = async {
        loop {
            match pipe.read_with(|mut pipe| pipe.read(&mut buffer)).await {
                Ok(0) => break,
                Ok(count) => tail.take(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    };
    let exit = child.status();
    let mut read = std::pin::pin!(read);
    let mut exit = std::pin::pin!(exit);
    let first = smol::future::or(
        async {
            read.as_mut().await;
            None
        },
        async { Some(exit.as_mut().await) },
    )
    .await;
    match first {
        // Every writer is gone; the exit follows.
        None => exit.await,
        Some(status) => {
            let _ = within(AFTER_EXIT, read).await;
            status
        }
    }
}
