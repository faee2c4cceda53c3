//! Log lines on the console: no time stamps there, as the founding page has them.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
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

/// `line` with the time of day in front, UTC, as monitors show it.
pub(crate) fn stamped(line: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z {line}")
}

/// Year, month and day of the day `days` after 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years whose years begin on 1 March, so that leap days come last.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }
}
