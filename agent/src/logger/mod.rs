//! Where the agent's log goes: the console, files, syslog (agent-config.md §4).
//!
//! Lines of the console have no time stamps, as the founding page has them; all others do. What is
//! not the console is written by a thread of its own, so that a slow disk never holds up the agent.

mod file;
mod lane;
mod syslog;

use crate::config::LogConfig;
use file::LogFile;
use lane::Lane;
use serde_json::json;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use syslog::Syslog;
use terraform_core::trace::Level;
use terraform_io::civil::exact_timestamp;
use terraform_io::clock::Clock;
use terraform_io::log::Record;

/// Lines that may wait for the banner.
const HELD_MAX: usize = 4096;

/// Writes lines of a level and more severe ones to standard output and wherever else they are
/// wanted.
///
/// Standard output gets none until [`Console::open`], so that none comes before the banner.
#[derive(Debug)]
pub(crate) struct Console {
    form: Form,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    level: Level,
    /// Lines that wait, until the console is open.
    held: Option<Vec<String>>,
    lanes: Vec<Lane>,
}

impl Console {
    /// A console that will show `level` and more severe lines.
    ///
    /// It waits for syslog, a minute at most, since both may be starting.
    ///
    /// - Errors: the text for the operator, naming the file.
    pub(crate) fn new(level: Level, config: &LogConfig) -> Result<Self, String> {
        let form = Form { json: config.json, clock: Clock::start() };
        let mut lanes = Vec::new();
        if let Some(config) = &config.file {
            let file = LogFile::create(config, SystemTime::now());
            let lane = file.and_then(|file| lane::start("log-file", form, file));
            lanes.push(lane.map_err(|error| format!("Failed to setup logging: {error}"))?);
        }
        if let Some(facility) = config.syslog {
            let syslog = Syslog::wait(facility, |text| write(&format!("==> {text}")))?;
            let lane = lane::start("syslog", form, syslog);
            lanes.push(lane.map_err(|error| format!("Failed to setup logging: {error}"))?);
        }
        Ok(Self { form, state: Mutex::new(State { level, held: Some(Vec::new()), lanes }) })
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

    /// Waits until everything said is written, but not for what takes too long.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.lanes.clear();
        // A console that went away must not stop the agent.
        let _ = std::io::stdout().flush();
    }

    /// Logs, if the level is wanted.
    pub(crate) fn say(&self, record: &Record<'_>) {
        let mut state = self.lock();
        if record.level < state.level {
            return;
        }
        state.keep(&self.form, record);
        state.show(self.form.shown(record));
    }

    /// Logs something of the program's own that standard error shows.
    pub(crate) fn keep(&self, level: Level, text: &str) {
        let state = self.lock();
        if level >= state.level {
            state.keep(&self.form, &Record { level, subsystem: "agent", text: &text });
        }
    }

    /// Shows a line of the program's own whatever the level is, and logs it.
    pub(crate) fn line(&self, text: &str) {
        self.keep(Level::Info, text);
        self.lock().show(format!("==> {text}"));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&self, form: &Form, record: &Record<'_>) {
        if !self.lanes.is_empty() {
            let line = form.kept(record);
            self.lanes.iter().for_each(|lane| lane.send(record.level, &line));
        }
    }

    fn show(&mut self, line: String) {
        match &mut self.held {
            Some(held) if held.len() < HELD_MAX => held.push(line),
            Some(_) => {}
            None => write(&line),
        }
    }
}

fn write(line: &str) {
    // A console that went away must not stop the agent.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
struct Form {
    json: bool,
    clock: Clock,
}

impl Form {
    /// On the console.
    fn shown(&self, record: &Record<'_>) -> String {
        if self.json { self.kept(record) } else { record.to_string() }
    }

    /// Everywhere else.
    fn kept(&self, record: &Record<'_>) -> String {
        let time = exact_timestamp(self.clock.wall());
        if !self.json {
            return format!("{time} {record}");
        }
        let level = match record.level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let text = record.text.to_string();
        let (module, time) = (record.subsystem, time);
        json!({"@level": level, "@message": text, "@module": module, "@timestamp": time})
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_line_is_an_object_where_that_is_wanted() {
        let record = Record { level: Level::Error, subsystem: "serf", text: &"a \"b\"\nc" };
        let form = |json| Form { json, clock: Clock::start() };
        assert_eq!(form(false).shown(&record), record.to_string());
        let kept = form(false).kept(&record);
        assert!(kept.starts_with("20") && kept.ends_with(&format!("Z {record}")), "{kept}");
        let shown = form(true).shown(&record);
        let object: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(object["@level"], "error");
        assert_eq!(object["@message"], "a \"b\"\nc");
        assert_eq!(object["@module"], "serf");
        assert!(object["@timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
        assert!(!shown.contains('\n'), "{shown}");
    }
}
