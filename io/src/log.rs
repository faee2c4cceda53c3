//! What the agent says about itself, on its way to logs and monitors.
//!
//! The driver hands every trace of the node and every event of the host to one [`Sink`], which
//! the program provides. [`LogRing`] keeps the last lines for monitors (gossip-wire.md §12.2).

use crate::civil::exact_timestamp;
use crate::handle::NodeHandle;
use smol::channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::time::WallClock;
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

/// One thing said, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: WallClock,
    /// How severe it is.
    pub level: Level,
    /// Which part of the agent says it.
    pub subsystem: Box<str>,
    /// What it says.
    pub text: Box<str>,
}

impl fmt::Display for Line {
    /// As on the console, with the time in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, level, subsystem, text } = self;
        write!(f, "{} [{}] {subsystem}: {text}", exact_timestamp(*at), level.name())
    }
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Arc<Line>>,
    monitors: Vec<(Level, Sender<Arc<Line>>)>,
}

/// The last lines of the log, and those who watch it grow.
#[derive(Debug, Default)]
pub struct LogRing(Mutex<Lines>);

impl LogRing {
    /// Adds what was said at `at`. A monitor whose buffer is full misses it.
    pub fn push(&self, at: WallClock, record: &Record<'_>) {
        let (level, subsystem) = (record.level, Box::from(record.subsystem));
        let text = record.text.to_string().into_boxed_str();
        let line = Arc::new(Line { at, level, subsystem, text });
        let mut lines = self.lock();
        if lines.kept.len() >= RING_LINES {
            lines.kept.pop_front();
        }
        lines.kept.push_back(Arc::clone(&line));
        lines.monitors.retain(|(wanted, monitor)| {
            if level >= *wanted {
                let _ = monitor.try_send(Arc::clone(&line));
            }
            !monitor.is_closed()
        });
    }

    /// The kept lines of `level` and above, oldest first, and those to come. Dropping the
    /// receiver ends the subscription.
    pub fn subscribe(&self, level: Level) -> (Vec<Arc<Line>>, Receiver<Arc<Line>>) {
        let (sender, receiver) = bounded(RING_LINES);
        let mut lines = self.lock();
        let wanted = lines.kept.iter().filter(|line| line.level >= level);
        let kept = wanted.cloned().collect();
        lines.monitors.push((level, sender));
        (kept, receiver)
    }

    /// The least severe level that a monitor wants.
    fn wanted(&self) -> Option<Level> {
        let lines = self.lock();
        let open = lines.monitors.iter().filter(|(_, monitor)| !monitor.is_closed());
        open.map(|(level, _)| *level).min()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Lines are whole whenever the lock is free, so a panic elsewhere leaves them usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who watches the log, down to a level that the agent may not say otherwise.
#[derive(Debug)]
pub struct Monitor {
    lines: Receiver<Arc<Line>>,
    ring: Arc<LogRing>,
    node: NodeHandle,
}

impl Monitor {
    /// Watches the lines of `level` and above: those that are kept, and this for those to come.
    pub fn begin(node: &NodeHandle, ring: &Arc<LogRing>, level: Level) -> (Vec<Arc<Line>>, Self) {
        let (kept, lines) = ring.subscribe(level);
        let monitor = Self { lines, ring: Arc::clone(ring), node: node.clone() };
        monitor.tell();
        (kept, monitor)
    }

    /// The next line; `None` once the log has ended.
    pub async fn next(&self) -> Option<Arc<Line>> {
        self.lines.recv().await.ok()
    }

    /// Tells the node what is watched. An overloaded one is told with the next change.
    fn tell(&self) {
        let body = RequestBody::Monitor(self.ring.wanted());
        let _ = self.node.submit(Request::new(body));
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.lines.close();
        self.tell();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::http::api::tests::view;
    use arc_swap::ArcSwap;
    use terraform_core::local::LocalView;

    pub(crate) fn say(ring: &LogRing, level: Level, text: &str) {
        let record = Record { level, subsystem: "agent", text: &text };
        ring.push(WallClock::from_millis(1_795_356_593_374), &record);
    }

    /// The level that the node is told of.
    pub(crate) fn watched(request: &Request) -> Option<Level> {
        let RequestBody::Monitor(level) = request.body else { panic!("{request:?}") };
        level
    }

    #[test]
    fn a_monitor_sees_the_last_lines_of_its_level_and_then_the_next_ones() {
        let ring = LogRing::default();
        for number in 0..600 {
            say(&ring, Level::Info, &number.to_string());
        }
        say(&ring, Level::Debug, "fine");
        let (kept, coming) = ring.subscribe(Level::Info);
        assert_eq!(kept.len(), RING_LINES - 1);
        assert_eq!(kept.first().map(|line| &*line.text), Some("89"));
        say(&ring, Level::Debug, "finer");
        say(&ring, Level::Error, "bad");
        let line = coming.try_recv().unwrap();
        assert_eq!(line.to_string(), "2026-11-22T14:09:53.374Z [ERR] agent: bad");
        assert!(coming.is_empty());
    }

    #[test]
    fn a_slow_monitor_misses_lines_and_a_gone_one_is_forgotten() {
        let ring = LogRing::default();
        let (_, coming) = ring.subscribe(Level::Trace);
        for _ in 0..RING_LINES + 9 {
            say(&ring, Level::Info, "x");
        }
        assert_eq!(coming.len(), RING_LINES);
        drop(coming);
        say(&ring, Level::Info, "y");
        assert!(ring.lock().monitors.is_empty());
    }

    #[test]
    fn the_node_is_told_the_least_severe_level_that_is_watched() {
        let (sender, calls) = bounded(8);
        let view = Arc::new(ArcSwap::from_pointee(view(LocalView::default())));
        let (node, ring) = (NodeHandle::new(view, sender, Clock::start()), Arc::default());
        let told = || watched(&calls.try_recv().unwrap().request);
        let (_, warn) = Monitor::begin(&node, &ring, Level::Warn);
        assert_eq!(told(), Some(Level::Warn));
        let (_, debug) = Monitor::begin(&node, &ring, Level::Debug);
        assert_eq!(told(), Some(Level::Debug));
        drop(debug);
        assert_eq!(told(), Some(Level::Warn));
        drop(warn);
        assert_eq!(told(), None);
    }
}
