//! What the process takes, as the kernel tells it (proc(5)); nothing on systems without `/proc`.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

/// What the process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// Bytes of memory that are resident.
    pub(super) resident_bytes: u64,
    /// Bytes of memory that are mapped.
    pub(super) virtual_bytes: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Descriptors that are open: files and sockets.
    pub(super) open_fds: u64,
    /// Descriptors that may be open; `None` without a limit.
    pub(super) max_fds: Option<u64>,
    /// Time that its threads ran.
    pub(super) cpu: Duration,
}

/// Bytes read of a file of numbers.
const LINE_BYTES_MAX: usize = 4096;

impl Process {
    /// The values of this moment. It reads files, and one directory as long as the list of open
    /// descriptors.
    pub(super) fn read() -> Option<Self> {
        let own = Path::new("/proc/self");
        let statm = line(&own.join("statm")).ok()?;
        let stat = line(&own.join("stat")).ok()?;
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        let mut pages = statm.split_ascii_whitespace().map(str::parse::<u64>);
        let (size, resident) = (pages.next()?.ok()?, pages.next()?.ok()?);
        let (cpu_ticks, threads) = times(&stat)?;
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let cpu = Duration::from_millis(cpu_ticks.saturating_mul(1000) / ticks);
        // The directory itself is open while it is read.
        let open_fds = (fs::read_dir(own.join("fd")).ok()?.count() as u64).saturating_sub(1);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Self {
            resident_bytes: resident.saturating_mul(page),
            virtual_bytes: size.saturating_mul(page),
            threads,
            open_fds,
            max_fds: limit.current,
            cpu,
        })
    }
}

fn line(path: &Path) -> io::Result<String> {
    let mut line = String::new();
    let file = BufReader::with_capacity(LINE_BYTES_MAX, fs::File::open(path)?);
    io::Read::take(file, LINE_BYTES_MAX as u64).read_line(&mut line)?;
    Ok(line)
}

/// Of the text of `stat`, the ticks spent for user and system, and the number of threads. The name
/// in parentheses may hold anything, so fields are counted from its end (proc_pid_stat(5)).
fn times(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // Behind the name comes field 3.
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let threads = fields.nth(20 - 16)?.parse().ok()?;
    Some((user.saturating_add(system), threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let stat = "77 (a) b) S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0 9 0 4711 1 2\n";
        assert_eq!(times(stat), Some((1300, 9)));
        assert_eq!(times("77 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_something() {
        let held = fs::File::open("/proc/self/stat").unwrap();
        let process = Process::read().unwrap();
        drop(held);
        assert!(process.resident_bytes > 4096 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads > 0 && process.open_fds >= 4, "{process:?}");
    }
}
