//! What an agent does on its machine beside its work: the files of its log, syslog and the file
//! with its process number (agent-config.md §4).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What one source of configuration says of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Texts, by key.
    pub texts: BTreeMap<&'static str, String>,
    /// Switches, by key.
    pub switches: BTreeMap<&'static str, bool>,
    /// Numbers, by key.
    pub numbers: BTreeMap<&'static str, i64>,
    /// `log_rotate_duration`
    pub log_rotate_duration: Option<Duration>,
}

impl HostSettings {
    /// Lays those of a later source over these.
    pub(super) fn extend(&mut self, above: Self) {
        let Self { texts, switches, numbers, log_rotate_duration } = above;
        self.texts.extend(texts);
        self.switches.extend(switches);
        self.numbers.extend(numbers);
        self.log_rotate_duration = log_rotate_duration.or(self.log_rotate_duration);
    }

    /// A text that is not empty.
    fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// What the agent starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Where its log goes besides the console.
    pub log: LogConfig,
    /// The file with its process number.
    pub pid_file: Option<PathBuf>,
}

/// Where the log goes besides the console, and in which form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Whether lines are JSON objects, on the console, too.
    pub json: bool,
    /// The files.
    pub file: Option<LogFileConfig>,
    /// The facility of messages to syslog, as RFC 3164 numbers it.
    pub syslog: Option<u8>,
}

/// Files of the log: a new one at each start and whenever one is full or old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFileConfig {
    /// The folder, which must be there.
    pub folder: PathBuf,
    /// What names begin with; a dash and the time of creation in nanoseconds follow.
    pub stem: String,
    /// What names end with, with its dot.
    pub ending: String,
    /// Bytes after which a new file begins.
    pub bytes_max: Option<u64>,
    /// How long a file is written to.
    pub time_max: Duration,
    /// How many full files are kept besides the one that is written to.
    pub kept_max: Option<usize>,
}

/// How long a file of the log is written to unless it is said.
const LOG_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The name of a log whose folder alone is given.
const LOG_NAME: &str = "terraform";

/// The facilities of syslog by their numbers (RFC 3164 §4.1.1).
const FACILITIES: [&str; 24] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV",
    "FTP", "", "", "", "", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6",
    "LOCAL7",
];

/// Settles what is said.
///
/// - Errors: the text for the operator, naming key and rule.
pub(super) fn host(settings: &HostSettings) -> Result<HostConfig, String> {
    let json = settings.switches.get("log_json").copied().unwrap_or(false);
    let syslog = settings.switches.get("enable_syslog").copied().unwrap_or(false);
    let facility = facility(settings.text("syslog_facility").unwrap_or("LOCAL0"))?;
    let syslog = syslog.then_some(facility);
    Ok(HostConfig {
        log: LogConfig { json, file: log_file(settings), syslog },
        pid_file: settings.text("pid_file").map(PathBuf::from),
    })
}

fn facility(name: &str) -> Result<u8, String> {
    let upper = name.to_ascii_uppercase();
    let number = FACILITIES.iter().position(|known| *known == upper);
    let number = number.and_then(|number| u8::try_from(number).ok());
    number.ok_or_else(|| format!("syslog_facility: invalid syslog facility: {name}"))
}

/// A path that ends with a slash is a folder; a name without an ending gets `.log`.
fn log_file(settings: &HostSettings) -> Option<LogFileConfig> {
    let path = settings.text("log_file")?;
    let (folder, name) = match path.rfind('/') {
        Some(slash) => path.split_at(slash + 1),
        None => ("", path),
    };
    let (stem, ending) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ".log"),
    };
    let number = |key: &str| settings.numbers.get(key).copied().unwrap_or(0);
    let time_max = settings.log_rotate_duration.filter(|time| !time.is_zero());
    Some(LogFileConfig {
        folder: PathBuf::from(if folder.is_empty() { "." } else { folder }),
        stem: if stem.is_empty() { LOG_NAME.to_owned() } else { stem.to_owned() },
        ending: ending.to_owned(),
        bytes_max: u64::try_from(number("log_rotate_bytes")).ok().filter(|bytes| *bytes > 0),
        time_max: time_max.unwrap_or(LOG_TIME_MAX),
        kept_max: match number("log_rotate_max_files") {
            0 => None,
            kept => Some(usize::try_from(kept).unwrap_or(0)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn settled(text: &str) -> HostConfig {
        host(&parse(text).unwrap().host).unwrap()
    }

    fn name(path: &str) -> [String; 3] {
        let file = settled(&format!(r#"{{"log_file": "{path}"}}"#)).log.file.unwrap();
        [file.folder.display().to_string(), file.stem, file.ending]
    }

    #[test]
    fn a_log_file_is_named_after_its_path() {
        assert_eq!(name("/var/log/"), ["/var/log/", "terraform", ".log"]);
        assert_eq!(name("/var/log/agent"), ["/var/log/", "agent", ".log"]);
        assert_eq!(name("/var/log/agent.d/a.b.txt"), ["/var/log/agent.d/", "a.b", ".txt"]);
        assert_eq!(name(".agent"), [".", ".agent", ".log"]);
        assert_eq!(settled(r#"{"log_file": "", "log_json": true}"#).log.file, None);
    }

    #[test]
    fn syslog_has_a_facility_that_it_knows() {
        let syslog = |text: &str| host(&parse(text).unwrap().host).map(|host| host.log.syslog);
        assert_eq!(syslog("{}"), Ok(None));
        assert_eq!(syslog(r#"{"syslog_facility": "LOCAL7"}"#), Ok(None));
        assert_eq!(syslog(r#"{"enable_syslog": true}"#), Ok(Some(16)));
        let given = r#"{"enable_syslog": true, "syslog_facility": "mail"}"#;
        assert_eq!(syslog(given), Ok(Some(2)));
        for name in ["local8", " "] {
            let given = format!(r#"{{"syslog_facility": "{name}"}}"#);
            let rule = format!("syslog_facility: invalid syslog facility: {name}");
            assert_eq!(syslog(&given), Err(rule));
        }
    }

    #[test]
    fn a_process_number_is_written_where_that_is_wanted() {
        let path = |text: &str| settled(text).pid_file;
        assert_eq!(path(r#"{"pid_file": "/run/a"}"#), Some(PathBuf::from("/run/a")));
        assert_eq!(path(r#"{"pid_file": ""}"#), None);
    }

    #[test]
    fn a_log_file_has_the_limits_that_are_given() {
        let file = |more: &str| settled(&format!(r#"{{"log_file": "x"{more}}}"#)).log.file.unwrap();
        let default = file("");
        assert_eq!((default.bytes_max, default.kept_max), (None, None));
        assert_eq!(default.time_max, Duration::from_secs(86_400));
        let given = file(
            r#", "log_rotate_bytes": 9, "log_rotate_duration": "1h", "log_rotate_max_files": 3"#,
        );
        assert_eq!((given.bytes_max, given.kept_max), (Some(9), Some(3)));
        assert_eq!(given.time_max, Duration::from_secs(3600));
        let odd = file(
            r#", "log_rotate_bytes": -1, "log_rotate_duration": "0s", "log_rotate_max_files": -1"#,
        );
        assert_eq!((odd.bytes_max, odd.kept_max, odd.time_max), (None, Some(0), LOG_TIME_MAX));
    }
}
