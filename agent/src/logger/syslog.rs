//! The system's log daemon, on its datagram socket.
//!
//! - Source: RFC 3164 §4.1 in the form that daemons take from programs of their own machine, which
//!   has no host name; time is in UTC. Priorities are those of Consul: INFO is a notice.

use super::lane::Place;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use terraform_core::trace::Level;
use terraform_io::civil::syslog_date;
use terraform_io::clock::Clock;
use terraform_io::http::client::system_text;

/// Where daemons listen.
pub(super) const SOCKET: &str = "/dev/log";
/// What messages are sent under.
const TAG: &str = "terraform";
/// Bytes of a message; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 8192;
/// How long a daemon may take to make room for a message.
const SEND_TIME: Duration = Duration::from_secs(1);
/// How often the daemon is looked for at a start, and how long between two tries: it may be
/// starting, too.
const TRIES: u32 = 13;
const PAUSE: Duration = Duration::from_secs(5);

/// A way to the daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
    facility: u8,
    clock: Clock,
}

impl Syslog {
    /// Waits for the daemon, a minute at most; `told` is what the operator is shown.
    pub(super) fn wait(facility: u8, mut told: impl FnMut(String)) -> Result<Self, String> {
        for attempt in 1..=TRIES {
            match Self::connect(Path::new(SOCKET), facility) {
                Ok(syslog) => return Ok(syslog),
                Err(error) => told(format!("Syslog setup error: {error}")),
            }
            if attempt < TRIES {
                told(format!("Retrying syslog setup in {}s", PAUSE.as_secs()));
                smol::block_on(smol::Timer::after(PAUSE));
            }
        }
        Err("Syslog setup did not succeed within timeout (1m0s).".to_owned())
    }

    /// Connects to the daemon that listens on `path`.
    fn connect(path: &Path, facility: u8) -> io::Result<Self> {
        let socket = connected(path).map_err(|error| {
            let text = format!("dial unixgram {}: {}", path.display(), system_text(&error));
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { path: path.to_path_buf(), socket, facility, clock: Clock::start() })
    }

    fn message(&self, level: Level, line: &str) -> String {
        let severity = match level {
            Level::Trace => 7,
            Level::Debug => 6,
            Level::Info => 5,
            Level::Warn => 4,
            Level::Error => 3,
        };
        let priority = u32::from(self.facility) * 8 + severity;
        let (date, number) = (syslog_date(self.clock.wall()), std::process::id());
        let mut message = format!("<{priority}>{date} {TAG}[{number}]: {line}");
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message
    }
}

impl Place for Syslog {
    fn write(&mut self, level: Level, line: &str) -> io::Result<()> {
        let message = self.message(level, line);
        if self.socket.send(message.as_bytes()).is_ok() {
            return Ok(());
        }
        // A daemon that was started again listens on another socket of the same name.
        self.socket = connected(&self.path)?;
        self.socket.send(message.as_bytes()).map(drop)
    }
}

fn connected(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(SEND_TIME))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(daemon: &UnixDatagram) -> String {
        let mut buffer = [0; 2 * MESSAGE_BYTES_MAX];
        let count = daemon.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn lines_arrive_with_their_priority_and_find_a_daemon_that_was_started_again() {
        let path = std::env::temp_dir().join(format!("agent-syslog-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let missing = Syslog::connect(&path, 16).unwrap_err().to_string();
        let rule = format!("dial unixgram {}: no such file or directory", path.display());
        assert_eq!(missing, rule);

        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::connect(&path, 16).unwrap();
        syslog.write(Level::Info, "hello").unwrap();
        let message = received(&daemon);
        let end = format!(" terraform[{}]: hello", std::process::id());
        assert!(message.starts_with("<133>") && message.ends_with(&end), "{message}");
        syslog.write(Level::Error, &"ü".repeat(MESSAGE_BYTES_MAX)).unwrap();
        let long = received(&daemon);
        assert!(long.starts_with("<131>") && long.ends_with('ü'), "{long}");
        assert!(long.len() > MESSAGE_BYTES_MAX - 2, "{}", long.len());

        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        assert!(syslog.write(Level::Info, "nobody").is_err());
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.write(Level::Warn, "again").unwrap();
        assert!(received(&daemon).ends_with("again"));
        std::fs::remove_file(&path).unwrap();
    }
}
