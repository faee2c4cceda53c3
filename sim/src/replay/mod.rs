//! Runs a recorded agent again: the same node, told the same at the same times, must want the same.
//!
//! A recording (`terraform agent -record FILE`) has what the node was made of, what its disk
//! answered to recovery, every input with its time, and a digest of every output. The replay makes
//! the node anew and compares drain by drain. Nothing is buggified here and no planted bug is on,
//! so the core decides as the shipped one does.

pub mod command;
mod compare;

pub use compare::Difference;
use compare::{compare, cut};

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;
use terraform_core::node::Node;
use terraform_core::node::input::Input;
use terraform_core::node::output::{Output, StopReason};
use terraform_core::recording::{Decoder, Drain, Origin, Record, RecordingError, step_digest};
use terraform_core::rng::{Rng, Stream};
use terraform_core::storage::recovery::{Answer, Recovery, Restored, Step};
use terraform_core::time::Instant;

/// Bytes of the file read at a time.
const READ_BYTES: usize = 256 << 10;

/// Why a recording could not be replayed to its end. The file is at fault, or the disk it is on.
#[derive(Debug)]
pub enum ReplayError {
    /// It could not be read.
    Read(io::Error),
    /// It is no recording, or damaged.
    Recording(RecordingError),
    /// Its records do not follow each other as those of a run do.
    Order {
        /// Where the record begins that does not belong there, in bytes.
        offset: u64,
        /// What belongs there.
        rule: &'static str,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the recording cannot be read: {error}"),
            Self::Recording(error) => error.fmt(f),
            Self::Order { offset, rule } => {
                write!(f, "the recording is not legal at byte {offset}: {rule}")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// What is wanted of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Stop after this input.
    pub until: Option<u64>,
    /// Print the log as it is told.
    pub trace: bool,
}

/// How far a replay has come; it stands after a panic too.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Inputs told.
    pub inputs: u64,
    /// What the last one was.
    pub told: String,
    /// When the node was made.
    pub started: Option<Instant>,
    /// When it was told something last.
    pub now: Option<Instant>,
}

impl Progress {
    /// The time that the replayed part of the run took.
    pub fn simulated(&self) -> Duration {
        let span = self.started.zip(self.now).map(|(started, now)| now.since(started));
        span.unwrap_or_default()
    }
}

/// How a replay ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All recorded outputs are wanted again.
    Same {
        /// Where the recording breaks off within a record, in bytes, if it does.
        torn: Option<u64>,
        /// Why the node stopped, if it did.
        stopped: Option<StopReason>,
        /// Why recovery refused the disk, if it did.
        refused: Option<String>,
        /// The node's state in one line, if there is a node.
        state: Option<String>,
    },
    /// Something else is wanted.
    Differs(Box<Difference>),
}

/// The records of a file, with the place of each.
struct Tape<R> {
    source: R,
    decoder: Decoder,
}

impl<R: Read> Tape<R> {
    /// The next record and its place; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Record)>, ReplayError> {
        loop {
            let offset = self.decoder.offset();
            if let Some(record) = self.decoder.next_record().map_err(ReplayError::Recording)? {
                return Ok(Some((offset, record)));
            }
            let mut piece = vec![0; READ_BYTES];
            match self.source.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.feed(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReplayError::Read(error)),
            }
        }
    }

    fn torn(&self) -> Option<u64> {
        (self.decoder.rest() > 0).then(|| self.decoder.offset())
    }
}

/// The origin of the run that `source` records.
pub fn origin(source: impl Read) -> Result<Origin, ReplayError> {
    read_origin(&mut Tape { source, decoder: Decoder::default() })
}

fn read_origin<R: Read>(tape: &mut Tape<R>) -> Result<Origin, ReplayError> {
    match tape.next()? {
        Some((_, Record::Origin(origin))) => Ok(*origin),
        Some(_) | None => Err(out_of_order(0, "it does not say what the agent was made of")),
    }
}

const fn out_of_order(offset: u64, rule: &'static str) -> ReplayError {
    ReplayError::Order { offset, rule }
}

/// Replays the run that `source` records. What it prints is the log, if that is wanted.
///
/// Panics as the agent did, if it did.
pub fn replay(
    source: impl Read,
    options: &Options,
    progress: &mut Progress,
) -> Result<End, ReplayError> {
    let mut tape = Tape { source, decoder: Decoder::default() };
    let origin = read_origin(&mut tape)?;
    let restored = match recover(&mut tape, &origin)? {
        Recovered::Restored(restored) => *restored,
        Recovered::Ended(end) => return Ok(end),
    };
    let (wall, now) = match tape.next()? {
        Some((_, Record::Start { wall, now })) => (wall, now),
        Some((_, Record::Answer { .. })) => {
            let wanted = "a start, since recovery is done".to_owned();
            return Ok(Difference::recovery(wanted));
        }
        Some((offset, Record::Origin(_) | Record::Input { .. } | Record::Drain(_))) => {
            return Err(out_of_order(offset, "a start belongs here"));
        }
        None => return Ok(unfinished(&tape)),
    };
    (progress.started, progress.now) = (Some(now), Some(now));
    let node = match Node::new(origin.config, restored, origin.seed, wall, now) {
        Ok(node) => node,
        Err(error) => return Ok(Difference::recovery(format!("refusing the settings: {error}"))),
    };
    let turn = Drain::default();
    let mut run =
        Run { node, turn, told: Vec::new(), before: None, stopped: None, options, progress, now };
    run.replay(&mut tape)
}

fn unfinished<R: Read>(tape: &Tape<R>) -> End {
    End::Same { torn: tape.torn(), stopped: None, refused: None, state: None }
}

enum Recovered {
    Restored(Box<Restored>),
    Ended(End),
}

/// Lets recovery ask for what it asked for, and answers as the disk did.
fn recover<R: Read>(tape: &mut Tape<R>, origin: &Origin) -> Result<Recovered, ReplayError> {
    let rng = Rng::for_stream(origin.seed, Stream::Identity);
    let mut recovery = Recovery::new(origin.recovery.clone(), rng);
    let mut answer = None;
    loop {
        let step = match recovery.step(answer.take()) {
            Step::Done(restored) => return Ok(Recovered::Restored(restored)),
            Step::Refused(error) => {
                let refused = Some(error.to_string());
                let end = match tape.next()? {
                    None => End::Same { torn: tape.torn(), stopped: None, refused, state: None },
                    Some(_) => Difference::recovery(format!("refusing the disk: {error}")),
                };
                return Ok(Recovered::Ended(end));
            }
            step @ (Step::List(_)
            | Step::Read { .. }
            | Step::ReadPart { .. }
            | Step::Perform(_)) => step,
        };
        match tape.next()? {
            Some((offset, Record::Answer { step: recorded, answer: found })) => {
                if recorded != step_digest(&step) {
                    let end = Difference::recovery(format!("{step:?}"));
                    return Ok(Recovered::Ended(end));
                }
                if !fits(&step, &found) {
                    return Err(out_of_order(offset, "the answer does not belong to the step"));
                }
                answer = Some(found);
            }
            Some((_, Record::Start { .. })) => {
                return Ok(Recovered::Ended(Difference::recovery(format!("{step:?}"))));
            }
            Some((offset, Record::Origin(_) | Record::Input { .. } | Record::Drain(_))) => {
                return Err(out_of_order(offset, "an answer to recovery belongs here"));
            }
            None => return Ok(Recovered::Ended(unfinished(tape))),
        }
    }
}

fn fits(step: &Step, answer: &Answer) -> bool {
    match answer {
        Answer::Names(_) => matches!(step, Step::List(_)),
        Answer::Content(_) => matches!(step, Step::Read { .. } | Step::ReadPart { .. }),
        Answer::TooLarge(_) => matches!(step, Step::Read { .. }),
        Answer::Performed => matches!(step, Step::Perform(_)),
        Answer::Failed(_) => true,
    }
}

/// An input of the current turn, for the report.
struct Told {
    number: u64,
    at: Instant,
    what: String,
}

/// A node that runs again.
struct Run<'a> {
    node: Node,
    /// What the node wants since the last drain.
    turn: Drain,
    /// The inputs since then.
    told: Vec<Told>,
    /// The last one before them.
    before: Option<Told>,
    stopped: Option<StopReason>,
    options: &'a Options,
    progress: &'a mut Progress,
    now: Instant,
}

impl Run<'_> {
    fn replay<R: Read>(&mut self, tape: &mut Tape<R>) -> Result<End, ReplayError> {
        let mut is_read = true;
        while let Some((offset, record)) = tape.next()? {
            match record {
                Record::Input { now, input } => {
                    if now < self.now {
                        return Err(out_of_order(offset, "time goes back"));
                    }
                    self.tell(now, input);
                    if self.options.until == Some(self.progress.inputs) {
                        is_read = false;
                        break;
                    }
                }
                Record::Drain(recorded) => {
                    let outputs = self.drain();
                    let turn = (&std::mem::take(&mut self.turn), outputs.as_slice());
                    let before = self.before.as_ref();
                    if let Some(difference) = compare(&recorded, turn, &self.told, before) {
                        return Ok(End::Differs(Box::new(difference)));
                    }
                    if let Some(last) = self.told.pop() {
                        self.before = Some(last);
                    }
                    self.told.clear();
                }
                Record::Origin(_) | Record::Answer { .. } | Record::Start { .. } => {
                    return Err(out_of_order(offset, "an input or a drain belongs here"));
                }
            }
        }
        // What a killed agent was told last is in no drain of its recording.
        self.drain();
        let (stopped, refused) = (self.stopped.take(), None);
        let state = Some(crate::trace::node_line(&self.node));
        let torn = tape.torn().filter(|_| is_read);
        Ok(End::Same { torn, stopped, refused, state })
    }

    fn tell(&mut self, now: Instant, input: Input) {
        self.progress.inputs += 1;
        self.progress.now = Some(now);
        self.now = now;
        let what = cut(format!("{input:?}"));
        self.progress.told.clone_from(&what);
        self.told.push(Told { number: self.progress.inputs, at: now, what });
        self.node.handle(now, input);
        self.turn.waiting.push(self.node.outputs_waiting());
    }

    /// Takes everything that the node wants.
    fn drain(&mut self) -> Vec<Output> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.node.poll_output()).collect();
        for output in &outputs {
            self.turn.outputs.push(terraform_core::recording::OutputDigest::of(output));
            if let Output::Trace(event) = output
                && self.options.trace
            {
                println!("{:?} {event}", self.now);
            }
            if let Output::Stopped(reason) = output {
                self.stopped = Some(reason.clone());
            }
        }
        outputs
    }
}

#[cfg(test)]
mod tests;
