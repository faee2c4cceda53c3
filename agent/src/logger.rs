//! Log lines on the console: no time stamps there, as the founding page has them.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use terraform_core::trace::Level;

/// Lines that may wait for the banner.
const HELD_MAX: usize = 4096;

/// Writes lines of a level and more severe ones to standard output.
///
/// Lines are held back until [`Console::open`], so that none comes before the banner.
#[derive(Debug)]
pub(crate) struct Console(Mutex<State>);

#[derive(Debug)]
struct State {
    level: Level,
    /// Lines that wait, until the console is open.
    held: Option<Vec<String>>,
}

impl Console {
    /// A console that will show `level` and more severe lines.
    pub(crate) fn new(level: Level) -> Self {
        Self(Mutex::new(State { level, held: Some(Vec::new()) }))
    }

    /// Changes the level.
    pub(crate) fn set_level(&self, level: Level) {
        self.lock().level = level;
    }

    /// Shows what was held back and everything to come.
    pub(crate) fn open(&self) {
        let held = self.lock().held.take();
        held.into_iter().flatten().for_each(|line| write(&line));
    }

    /// Waits until everything said is written.
    pub(crate) fn close(&self) {
        let _state = self.lock();
        // A console that went away must not stop the agent.
        let _ = std::io::stdout().flush();
    }

    /// Shows a log line, if its level is wanted.
    pub(crate) fn show(&self, level: Level, line: &str) {
        let mut state = self.lock();
        if level < state.level {
            return;
        }
        match &mut state.held {
            Some(held) if held.len() < HELD_MAX => held.push(line.to_owned()),
            Some(_) => {}
            None => write(line),
        }
    }

    /// Shows a line of the program's own.
    pub(crate) fn line(&self, text: &str) {
        self.show(Level::Error, text);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(line: &str) {
    // A console that went away must not stop the agent.
    let _ = writeln!(std::io::stdout(), "{line}");
}
