//! Programs whose output is kept: the newest bytes of standard output and standard error, which
//! share one pipe, so that what a program says stays in order. A process that it leaves behind with
//! the pipe open delays the end by [`AFTER_EXIT`] at most.

use crate::runtime::within;
use smol::process::{Child, Stdio};
use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long the pipe is read after the program's own exit.
const AFTER_EXIT: Duration = Duration::from_millis(200);

/// The newest bytes of a stream.
#[derive(Debug)]
pub struct Tail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    total: u64,
}

impl Tail {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), bytes_max, total: 0 }
    }

    /// Takes what comes next.
    pub fn take(&mut self, data: &[u8]) {
        self.total += data.len() as u64;
        let newest = data.len().saturating_sub(self.bytes_max);
        self.bytes.extend(data.get(newest..).unwrap_or_default());
        let surplus = self.bytes.len().saturating_sub(self.bytes_max);
        self.bytes.drain(..surplus);
    }

    /// What is kept, after a line that says what is not.
    pub fn text(&mut self) -> String {
        let kept = self.bytes.len();
        let text = String::from_utf8_lossy(self.bytes.make_contiguous());
        if self.total > kept as u64 {
            return format!("Captured {kept} of {} bytes\n...\n{text}", self.total);
        }
        text.into_owned()
    }
}

/// Where what a program says comes out.
#[derive(Debug)]
pub struct Pipe(smol::Async<PipeReader>);

/// Starts `command` with its output going into a pipe.
pub(crate) fn start(command: Command, stdin: Stdio) -> io::Result<(Child, Pipe)> {
    let (reader, writer) = io::pipe()?;
    // What is set of these before does not outlive the conversion.
    let mut command = smol::process::Command::from(command);
    command.stdin(stdin).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The writing ends that the command holds must close here, or the pipe never ends.
    drop(command);
    Ok((child, Pipe(smol::Async::new(reader)?)))
}

/// Reads the pipe until its end, or until shortly after the program's exit.
pub(crate) async fn follow(
    child: &mut Child,
    Pipe(pipe): &Pipe,
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
