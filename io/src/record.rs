//! Recordings: everything the node is told, on its way to a file (`terraform agent -record`).
//!
//! The format is the core's ([`terraform_core::recording`]). What recovery reads is written as it
//! is read, before anything runs; from then on a thread writes, and the driver waits for nothing.
//! A recording is complete or it ends: if the disk fails, or is so much slower than the agent that
//! too much waits for it, one line says so and the agent goes on without. The file can be replayed
//! up to there. Nothing is synced: the recording outlives the process, not the machine.

use crate::driver::Core;
use crate::log::{Record, Sink};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use terraform_core::node::Node;
use terraform_core::node::input::Input;
use terraform_core::node::output::Output;
use terraform_core::recording::{Origin, Recorder};
use terraform_core::storage::recovery::{Answer, Step};
use terraform_core::time::{Instant, WallClock};
use terraform_core::trace::Level;
use thiserror::Error;

/// Bytes that may wait for the disk: some seconds of what a busy server is told.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Bytes of a buffer that is kept for the next ones.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Why nothing can be recorded. The operator is at fault, or the machine.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file is there; it may be a recording that somebody wants to keep.
    #[error("the recording {path:?} exists already: name a new file with -record")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It could not be created.
    #[error("cannot create the recording {path:?} (-record): {source}")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

type File = Box<dyn Write + Send>;

/// Says how a recording ends that does not last as long as the agent.
#[derive(Clone)]
struct Notice {
    path: PathBuf,
    sink: Sink,
}

impl Notice {
    fn say(&self, level: Level, text: fmt::Arguments<'_>) {
        (self.sink)(&Record { level, subsystem: "agent", text: &text });
    }

    fn ended(&self, inputs: u64, why: impl fmt::Display) {
        let path = self.path.display();
        let text = format_args!(
            "recording to {path} ended: {why}; it can be replayed up to input {inputs}"
        );
        self.say(Level::Warn, text);
    }
}

/// A recording of an agent that is being started.
pub struct Recording {
    /// Until the disk fails.
    recorder: Option<Recorder>,
    file: File,
    notice: Notice,
}

impl Recording {
    /// Creates the file, which must not be there, for its owner's eyes only.
    pub fn create(path: &Path, origin: Origin, sink: Sink) -> Result<Self, RecordError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let path = path.to_owned();
        match file {
            Ok(file) => {
                let notice = Notice { path, sink };
                let shown = notice.path.display();
                let text = format_args!("recording to {shown}, which holds keys and tokens");
                notice.say(Level::Info, text);
                Ok(Self::new(Box::new(file), origin, notice))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(RecordError::Exists { path })
            }
            Err(source) => Err(RecordError::Create { path, source }),
        }
    }

    fn new(file: File, origin: Origin, notice: Notice) -> Self {
        let mut recording = Self { recorder: Some(Recorder::new(origin)), file, notice };
        recording.write();
        recording
    }

    /// Records what the disk answers to a step of recovery, and hands it back. Waits for the disk.
    pub fn answer(&mut self, step: &Step, answer: Answer) -> Answer {
        let Some(recorder) = &mut self.recorder else { return answer };
        let answer = recorder.answer(step, answer);
        self.write();
        answer
    }

    /// Records when the node is made.
    pub fn start(&mut self, wall: WallClock, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.start(wall, now);
            self.write();
        }
    }

    fn write(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        match self.file.write_all(recorder.bytes()) {
            Ok(()) => recorder.forget(),
            Err(error) => {
                self.recorder = None;
                self.notice.ended(0, error);
            }
        }
    }

    /// Goes on recording what `node`, which was made at the recorded start, is told.
    ///
    /// - Errors: the thread could not be started.
    pub fn of(self, node: Node) -> io::Result<Recorded> {
        let tape = Tape::start(self.file, self.notice)?;
        Ok(Recorded { node, recorder: self.recorder, tape })
    }
}

/// A node that is recorded.
pub struct Recorded {
    node: Node,
    /// Until the recording ends.
    recorder: Option<Recorder>,
    tape: Tape,
}

impl Recorded {
    fn carry(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            if self.tape.push(recorder.bytes(), recorder.inputs()) {
                recorder.forget();
            } else {
                self.recorder = None;
            }
        }
    }
}

impl Core for Recorded {
    fn handle(&mut self, now: Instant, mut input: Input) {
        if let Some(recorder) = &mut self.recorder {
            input = recorder.input(now, input);
        }
        self.node.handle(now, input);
        if let Some(recorder) = &mut self.recorder {
            recorder.handled(self.node.outputs_waiting());
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.node.poll_output();
        let Some(recorder) = &mut self.recorder else { return output };
        if let Some(output) = &output {
            recorder.output(output);
        }
        // A node that stopped is not asked again.
        if matches!(output, None | Some(Output::Stopped(_))) {
            recorder.drained();
            self.carry();
        }
        output
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.node.next_timeout().map(|(at, _)| at)
    }

    fn entries_applied(&self) -> u64 {
        self.node.stats().entries_applied
    }
}

impl Drop for Recorded {
    /// An input that made the node panic is to be in the file.
    fn drop(&mut self) {
        self.carry();
    }
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Inputs recorded up to the end of `bytes`.
    inputs: u64,
    /// Nothing more comes.
    closed: bool,
    /// The disk failed: nothing more is wanted.
    failed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What waits is whole whenever the lock is free.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for bytes, puts them into the empty `bytes`, and says how many inputs are recorded
    /// with them; `None` once nothing more comes.
    fn take(&self, bytes: &mut Vec<u8>) -> Option<u64> {
        let mut waiting = self.lock();
        while waiting.bytes.is_empty() && !waiting.closed {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut waiting.bytes, bytes);
        (!bytes.is_empty()).then_some(waiting.inputs)
    }
}

/// Writes on a thread of its own. Dropping it waits until everything is written.
struct Tape {
    queue: Arc<Queue>,
    notice: Notice,
    thread: Option<JoinHandle<()>>,
}

impl Tape {
    fn start(file: File, notice: Notice) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (theirs, said) = (Arc::clone(&queue), notice.clone());
        let thread = Builder::new()
            .name("recording".to_owned())
            .spawn(move || write(&theirs, file, &said))?;
        Ok(Self { queue, notice, thread: Some(thread) })
    }

    /// Queues what records all up to input number `inputs`; never waits. `false` if the recording
    /// has ended, or ends here for want of room.
    fn push(&self, bytes: &[u8], inputs: u64) -> bool {
        let mut waiting = self.queue.lock();
        if waiting.failed {
            return false;
        }
        if waiting.bytes.len() + bytes.len() > WAITING_BYTES_MAX {
            let recorded = waiting.inputs;
            drop(waiting);
            self.notice.ended(recorded, "the disk is slower than the agent");
            return false;
        }
        waiting.bytes.extend_from_slice(bytes);
        waiting.inputs = inputs;
        drop(waiting);
        self.queue.changed.notify_one();
        true
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to write.
            drop(thread.join());
        }
    }
}

fn write(queue: &Queue, mut file: File, notice: &Notice) {
    let (mut bytes, mut written) = (Vec::new(), 0);
    while let Some(inputs) = queue.take(&mut bytes) {
        if let Err(error) = file.write_all(&bytes) {
            let mut waiting = queue.lock();
            waiting.failed = true;
            waiting.bytes = Vec::new();
            drop(waiting);
            return notice.ended(written, error);
        }
        written = inputs;
        bytes.clear();
        bytes.shrink_to(BUFFER_BYTES_KEPT);
    }
}

#[cfg(test)]
mod tests;
