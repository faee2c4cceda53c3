//! What the agent says about itself, on its way to logs and monitors.
//!
//! The driver hands every trace of the node and every event of the host to one [`Sink`], which
//! the program provides. [`LogRing`] keeps the last lines for monitors (gossip-wire.md §12.2).

use smol::channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terraform_core::trace::Level;

/// One thing said.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// How severe it is.
    pub level: Level,
    /// Which part of the agent says it.
    pub subsystem: &'a str,
    /// What it says, one line.
    pub text: &'a dyn fmt::Display,
}

impl fmt::Display for Record<'_> {
    /// `[INFO] serf: text`, as on the console.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}: {}", self.level.name(), self.subsystem, self.text)
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes everything said; called on the driver's task, so it must not block for long.
pub type Sink = Arc<dyn Fn(&Record<'_>) + Send + Sync>;

/// Lines kept, and lines that may wait for one monitor.
pub const RING_LINES: usize = 512;

/// One kept line.
pub type Line = Arc<str>;

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<(Level, Line)>,
    monitors: Vec<(Level, Sender<Line>)>,
}

/// The last lines of the log, and those who watch it grow.
#[derive(Debug, Default)]
pub struct LogRing(Mutex<Lines>);

impl LogRing {
    /// Adds a line, complete as monitors show it. A monitor whose buffer is full misses it.
    pub fn push(&self, level: Level, line: &str) {
        let line: Line = Arc::from(line);
        let mut lines = self.lock();
        if lines.kept.len() >= RING_LINES {
            lines.kept.pop_front();
        }
        lines.kept.push_back((level, Arc::clone(&line)));
        lines.monitors.retain(|(wanted, monitor)| {
            if level >= *wanted {
                let _ = monitor.try_send(Arc::clone(&line));
            }
            !monitor.is_closed()
        });
    }

    /// The kept lines of `level` and above, oldest first, and those to come. Dropping the
    /// receiver ends the subscription.
    pub fn subscribe(&self, level: Level) -> (Vec<Line>, Receiver<Line>) {
        let (sender, receiver) = bounded(RING_LINES);
        let mut lines = self.lock();
        let wanted = lines.kept.iter().filter(|(at, _)| *at >= level);
        let kept = wanted.map(|(_, line)| Arc::clone(line)).collect();
        lines.monitors.push((level, sender));
        (kept, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Lines are whole whenever the lock is free, so a panic elsewhere leaves them usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_sees_the_last_lines_of_its_level_and_then_the_next_ones() {
        let ring = LogRing::default();
        for number in 0..600 {
            ring.push(Level::Info, &number.to_string());
        }
        ring.push(Level::Debug, "fine");
        let (kept, coming) = ring.subscribe(Level::Info);
        assert_eq!(kept.len(), RING_LINES - 1);
        assert_eq!(kept.first().map(|line| &**line), Some("89"));
        ring.push(Level::Debug, "finer");
        ring.push(Level::Error, "bad");
        assert_eq!(coming.try_recv().as_deref(), Ok("bad"));
        assert!(coming.is_empty());
    }

    #[test]
    fn a_slow_monitor_misses_lines_and_a_gone_one_is_forgotten() {
        let ring = LogRing::default();
        let (_, coming) = ring.subscribe(Level::Trace);
        for _ in 0..RING_LINES + 9 {
            ring.push(Level::Info, "x");
        }
        assert_eq!(coming.len(), RING_LINES);
        drop(coming);
        ring.push(Level::Info, "y");
        assert!(ring.lock().monitors.is_empty());
    }
}
