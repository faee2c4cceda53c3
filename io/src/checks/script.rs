//! Runs a command without a shell and makes a result of how it exits.

use super::critical;
use crate::capture::{self, Pipe, Tail, follow};
use crate::duration;
use crate::http::client::system_text;
use crate::runtime::within;
use rustix::process::{Pid, Signal, kill_process_group};
use smol::process::{Child, Stdio};
use std::io;
use std::os::unix::process::CommandExt;
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::local::definition::ScriptCheck;
use terraform_core::node::input::CheckResult;

/// What is kept of a command that was not done in time.
pub(super) fn after_timeout(tail: &mut Tail, timeout: Duration) -> String {
    let mut output = format!("Timed out ({}) running check", duration::text(timeout));
    let said = tail.text();
    if !said.is_empty() {
        output.push_str("\n\n");
        output.push_str(&said);
    }
    output
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
    match within(check.timeout, follow(&mut child, &pipe, &mut tail)).await {
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
            critical(after_timeout(&mut tail, check.timeout))
        }
    }
}

fn start(check: &ScriptCheck) -> io::Result<(Child, Pipe)> {
    let (program, args) = check.args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = std::process::Command::new(program);
    command.args(args).process_group(0);
    capture::start(command, Stdio::null())
}
