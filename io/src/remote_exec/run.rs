//! Runs one job and passes on what it says, while it says it.

use super::Reporter;
use super::job::{Job, prepare};
use crate::http::client::system_text;
use crate::runtime::within;
use rustix::process::{Pid, Signal, kill_process_group};
use smol::process::{Child, Stdio};
use std::io::{self, PipeReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of one piece of output.
const PIECE_BYTES: usize = 4096;
/// How long output may wait for more.
const FLUSH: Duration = Duration::from_millis(200);
/// The exit code of what could not be started or was killed.
const NO_CODE: i32 = 255;

/// Kills the whole process group when it goes, unless the job ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The only failure is that nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The exit code of the job.
///
/// - Errors: nobody takes its output any more; it was killed.
pub(super) async fn run(job: &Job, reporter: &mut Reporter) -> Result<i32, String> {
    let prepared = prepare(&job.work, reporter.session);
    let started = prepared.and_then(|(command, script)| Ok((start(command)?, script)));
    // A script's file stays until the job has ended.
    let ((mut child, pipe), _script) = match started {
        Ok(started) => started,
        Err(error) => {
            reporter.output(format!("{}\n", system_text(&error)).into()).await?;
            return Ok(NO_CODE);
        }
    };
    let mut group = Group(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
    let passed = pass_on(&pipe, job.wait, reporter).await;
    if passed.is_err() {
        drop(group);
        // Nothing survives the signal, so this ends.
        let _ = child.status().await;
        return passed.map(|()| NO_CODE);
    }
    let status = child.status().await.map_err(|error| system_text(&error))?;
    group.0 = None;
    Ok(status.code().unwrap_or(NO_CODE))
}

fn start(mut command: Command) -> io::Result<(Child, smol::Async<PipeReader>)> {
    let (reader, writer) = io::pipe()?;
    command.process_group(0);
    let mut command = smol::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The writing ends that the command holds must close here, or the pipe never ends.
    drop(command);
    Ok((child, smol::Async::new(reader)?))
}

/// Passes on what comes out of the pipe until its end.
async fn pass_on(
    pipe: &smol::Async<PipeReader>,
    silence: Duration,
    reporter: &mut Reporter,
) -> Result<(), String> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut first = Instant::now();
    let mut buffer = [0; PIECE_BYTES];
    loop {
        let limit = if piece.is_empty() { silence } else { FLUSH.saturating_sub(first.elapsed()) };
        let room = buffer.get_mut(piece.len()..).unwrap_or_default();
        let read = within(limit, pipe.read_with(|mut pipe| pipe.read(room))).await;
        let count = match read {
            Some(Ok(0) | Err(_)) => break,
            Some(Ok(count)) => count,
            None => {
                reporter.output(std::mem::take(&mut piece).into()).await?;
                continue;
            }
        };
        if piece.is_empty() {
            first = Instant::now();
        }
        let begun = piece.len();
        piece.extend_from_slice(buffer.get(begun..begun + count).unwrap_or_default());
        if piece.len() == PIECE_BYTES {
            reporter.output(std::mem::take(&mut piece).into()).await?;
        }
    }
    if piece.is_empty() { Ok(()) } else { reporter.output(piece.into()).await }
}
