//! The disk's threads: one for each lane, so that no commit waits for agent state.
//!
//! A lane performs its operations in the order they were given and reports each. A lane that failed
//! once performs nothing more and fails whatever follows: later operations may rely on earlier
//! ones, and a sync that failed must not be tried again (raft.md §11.3). What an operation may fail
//! with and leave its lane going, it says itself.
//!
//! The queues have no bound of their own: the core has one log write on its way and answers no
//! registration before it is durable, so they hold no more than the core's own limits allow.

use super::dir::DataDir;
use super::file::{DiskFailure, Files};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use terraform_core::id::WriteId;
use terraform_core::storage::op::{Lane, StorageFault, StorageOp};

/// A storage operation that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub write: WriteId,
    /// How it ended.
    pub result: Result<(), DiskFailure>,
}

type Job = (WriteId, StorageOp);

/// Both lanes of a data directory.
#[derive(Debug)]
pub struct Disk {
    log: Sender<Job>,
    state: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the lanes; `report` is called on their threads with every completion.
    pub fn start<F>(dir: DataDir, report: F) -> io::Result<Self>
    where
        F: Fn(Completion) + Clone + Send + 'static,
    {
        let dir = Arc::new(dir);
        let (log, log_jobs) = channel();
        let (state, state_jobs) = channel();
        let mut threads = Vec::with_capacity(2);
        for (name, jobs) in [("disk-log", log_jobs), ("disk-state", state_jobs)] {
            let (dir, report) = (Arc::clone(&dir), report.clone());
            let run = move || run(&dir, &jobs, report);
            threads.push(Builder::new().name(name.to_owned()).spawn(run)?);
        }
        Ok(Self { log, state, threads })
    }

    /// Queues an operation; its completion is reported.
    pub fn submit(&self, write: WriteId, op: StorageOp) {
        let lane = match op.lane {
            Lane::Log => &self.log,
            Lane::State => &self.state,
        };
        lane.send((write, op)).expect("a lane's thread ends only after its queue is closed");
    }

    /// Performs what is queued, stops the threads and gives up the data directory's lock.
    pub fn stop(self) {
        drop((self.log, self.state));
        for thread in self.threads {
            // A lane that panicked has reported nothing more, which its node noticed.
            drop(thread.join());
        }
    }
}

fn run(dir: &DataDir, jobs: &Receiver<Job>, report: impl Fn(Completion)) {
    let mut files = Files::new(dir.path());
    let mut failed: Option<StorageFault> = None;
    for (write, op) in jobs {
        let result = match failed {
            None => files.perform(&op.ops),
            Some(fault) => {
                let text = "an earlier operation of this lane failed".to_owned();
                Err(DiskFailure { fault, text })
            }
        };
        if failed.is_none() {
            let fault = result.as_ref().err().map(|failure| failure.fault);
            failed = fault.filter(|fault| !op.may_fail_with(*fault));
        }
        report(Completion { write, result });
    }
}
