//! A thread that writes lines to one place, with a queue in front.
//!
//! Nobody waits for it: lines that find the queue full, or cannot be written, are lost. How many
//! were lost is written as soon as something can be written again.

use super::Form;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;
use terraform_core::trace::Level;
use terraform_io::log::Record;

/// Lines that may wait.
const QUEUE_LINES: usize = 4096;
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A place that lines are written to.
pub(super) trait Place: Send + 'static {
    /// Writes one line, without its end.
    fn write(&mut self, level: Level, line: &str) -> io::Result<()>;
}

/// The way to a place. Dropping it waits for the lines on their way, but not for ever.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Option<SyncSender<(Level, String)>>,
    lost: Arc<AtomicU64>,
    ended: Receiver<()>,
}

/// Starts the thread `name`, which writes to `place`.
pub(super) fn start(name: &str, form: Form, place: impl Place) -> io::Result<Lane> {
    let (queue, lines) = sync_channel(QUEUE_LINES);
    let (end, ended) = channel();
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        run(&lines, place, (form, &count));
        drop(end);
    })?;
    Ok(Lane { queue: Some(queue), lost, ended })
}

impl Lane {
    /// Hands a line over.
    pub(super) fn send(&self, level: Level, line: &str) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send((level, line.to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue = None;
        // The thread's end closes the channel; nothing is ever sent.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

fn run(lines: &Receiver<(Level, String)>, mut place: impl Place, (form, lost): (Form, &AtomicU64)) {
    for (level, line) in lines {
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let text = format!("{missing} lines of the log were lost here");
            let note = Record { level: Level::Warn, subsystem: "agent", text: &text };
            if place.write(note.level, &form.kept(&note)).is_err() {
                lost.fetch_add(missing, Ordering::Relaxed);
            }
        }
        if place.write(level, &line).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use terraform_io::clock::Clock;

    /// A place that fails where it is told to.
    struct Fragile {
        results: Vec<bool>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Place for Fragile {
        fn write(&mut self, _: Level, line: &str) -> io::Result<()> {
            if self.results.pop().unwrap_or(true) {
                self.lines.lock().unwrap().push(line.to_owned());
                return Ok(());
            }
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_where_writing_goes_on() {
        let lines = Arc::default();
        // The second line fails, then the note of it together with the third.
        let results = vec![true, true, false, false, false, true];
        let place = Fragile { results, lines: Arc::clone(&lines) };
        let form = Form { json: false, clock: Clock::start() };
        let lane = start("fragile", form, place).unwrap();
        for line in ["1", "2", "3", "4"] {
            lane.send(Level::Info, line);
        }
        drop(lane);
        let lines = lines.lock().unwrap();
        let [first, note, last] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((first.as_str(), last.as_str()), ("1", "4"));
        assert!(note.ends_with("[WARN] agent: 2 lines of the log were lost here"), "{note}");
    }
}
