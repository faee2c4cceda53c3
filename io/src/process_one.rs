//! What the first process of a container owes the others: to take the end of every orphan.
//!
//! - Source: cluster-behaviour.md §16, row 24; wait(2), credentials(7). A process whose parent is
//!   gone becomes a child of process 1 and stays a zombie until that one waits for it.
//! - Who waits for whichever child ends takes the ends away from those who wait for one of theirs,
//!   as checks do for their programs. So the work is done one process below.

use crate::program::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, kill_process, wait};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Whether this process is the first one of its container or machine.
pub fn is_this() -> bool {
    std::process::id() == 1
}

/// This program once more, below this process.
#[derive(Debug)]
pub struct Worker(Pid);

impl Worker {
    /// Starts this program again with the same arguments. Its process group is its own: the signals
    /// of a terminal reach it through [`signal`](Self::signal) alone, and once.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).process_group(0);
        Ok(Self(Pid::from_child(&command.spawn()?)))
    }

    /// Passes a signal on; a worker that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.0, signal.into());
    }

    /// Takes the end of every child that has ended, and tells the exit code if the worker is among
    /// them: 128 and the signal's number if it was killed, as shells have it.
    pub fn reap(&self) -> io::Result<Option<u8>> {
        let mut code = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.0 => code = Some(exit_code(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(Errno::CHILD) => return Ok(code),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let killed = status.terminating_signal().map(|signal| signal.saturating_add(128));
    status.exit_status().or(killed).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
