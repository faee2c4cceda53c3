//! The file `serf/local.snapshot`, in the WAN pool `serf/remote.snapshot`: who was there, so that a
//! restarted member finds the others.
//!
//! Implements gossip-wire.md §11.10, Serf's own text format: lines `alive: NAME ADDR:PORT`,
//! `not-alive: NAME`, `clock: N`, `event-clock: N`, `query-clock: N`, `leave`. Lines are appended
//! at most every 500 ms; when the file is much longer than what it says, or when a write failed, it
//! is written anew beside itself and renamed. A reader ignores every line it does not understand
//! and a last line without an end, so a torn write costs at most what it would have added.
//!
//! Differs: this member's incarnation is in the file, as `# incarnation: N`, which is a comment for
//! Serf: a pool that restarts as a whole would otherwise begin at incarnations that everybody
//! remembers as outdated (gossip-protocol.md §28, mass restart). It outlives a leave, since others
//! remember that too. The file is written anew at every start, which drops whatever was damaged;
//! and failed members stay in it, since a restart is no reason to give up on them.

use super::{Serf, SerfOutput, Timer};
use crate::id::{Incarnation, LamportTime, NodeName, PoolName};
use crate::machine::Outbox;
use crate::storage::op::{FileOp, FilePath};
use crate::time::Instant;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// The longest time a line waits before it is written.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// The time between attempts to write the file anew after a failure.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Members the file names at most.
const MEMBERS_MAX: usize = 65_536;
/// A file below this size is never written anew.
const COMPACT_BYTES_MIN: u64 = 128 << 10;
/// Above this many bytes for each member it names, the file is written anew.
const COMPACT_BYTES_PER_MEMBER: u64 = 2 * 128;

const FOLDER: &str = "serf";

/// The path of the file of a pool.
pub fn snapshot_file(pool: PoolName) -> FilePath {
    FilePath::new(match pool {
        PoolName::Lan => "serf/local.snapshot",
        PoolName::Wan => "serf/remote.snapshot",
    })
}

/// Where the file of a pool is written anew before it takes its place.
fn new_file(pool: PoolName) -> FilePath {
    FilePath::new(match pool {
        PoolName::Lan => "serf/local.snapshot.compact",
        PoolName::Wan => "serf/remote.snapshot.compact",
    })
}

/// The newest times seen on the three clocks: members, events, queries.
pub(super) type SeenTimes = [LamportTime; 3];

/// What comes before this member's incarnation.
const INCARNATION_KEY: &str = "# incarnation: ";

const CLOCK_KEYS: [&str; 3] = ["clock: ", "event-clock: ", "query-clock: "];

/// What the file says, and what is to be added to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    alive: BTreeMap<NodeName, SocketAddr>,
    /// The times in the file.
    times: SeenTimes,
    /// This member's newest incarnation.
    incarnation: Option<Incarnation>,
    /// Lines not written yet.
    pending: String,
    /// Bytes written.
    offset: u64,
    /// Whether the file has to be written anew: at the start and after a failure.
    renew: bool,
    /// Whether this member leaves: nothing is recorded after that.
    leaving: bool,
}

impl Snapshot {
    /// What the text of an earlier run says.
    pub(super) fn restore(text: &str, rejoin_after_leave: bool) -> Self {
        let mut restored = Self { renew: true, ..Self::default() };
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            restored.replay(line, rejoin_after_leave);
        }
        restored
    }

    fn replay(&mut self, line: &str, rejoin_after_leave: bool) {
        if let Some(member) = line.strip_prefix("alive: ") {
            let Some((name, address)) = member.rsplit_once(' ') else { return };
            let (Ok(name), Ok(address)) = (NodeName::parse(name), address.parse()) else { return };
            if self.alive.len() < MEMBERS_MAX || self.alive.contains_key(&name) {
                self.alive.insert(name, address);
            }
        } else if let Some(name) = line.strip_prefix("not-alive: ") {
            if let Ok(name) = NodeName::parse(name) {
                self.alive.remove(&name);
            }
        } else if line == "leave" && !rejoin_after_leave {
            let incarnation = self.incarnation;
            *self = Self { renew: true, incarnation, ..Self::default() };
        } else if let Some(incarnation) = line.strip_prefix(INCARNATION_KEY) {
            self.incarnation = incarnation.parse().ok().map(Incarnation::new).or(self.incarnation);
        } else {
            for (key, seen) in CLOCK_KEYS.iter().zip(&mut self.times) {
                if let Some(Ok(time)) = line.strip_prefix(key).map(str::parse) {
                    *seen = LamportTime::new(time);
                }
            }
        }
    }

    /// The newest times seen when the file was written.
    pub(super) const fn times(&self) -> SeenTimes {
        self.times
    }

    /// This member's incarnation when the file was written.
    pub(super) const fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// This member is known under `incarnation` from now on.
    pub(super) fn rose(&mut self, incarnation: Incarnation) {
        if !self.leaving && self.incarnation != Some(incarnation) {
            self.incarnation = Some(incarnation);
            self.append(format_args!("{INCARNATION_KEY}{incarnation}\n"));
        }
    }

    /// The members to try after a restart, without `local`, by name.
    pub(super) fn remembered(&self, local: &NodeName) -> Vec<(NodeName, SocketAddr)> {
        let others = self.alive.iter().filter(|(name, _)| *name != local);
        others.map(|(name, address)| (name.clone(), *address)).collect()
    }

    /// A member is there.
    pub(super) fn joined(&mut self, name: &NodeName, address: SocketAddr) {
        let full = self.alive.len() >= MEMBERS_MAX && !self.alive.contains_key(name);
        if self.leaving || full || self.alive.get(name) == Some(&address) {
            return;
        }
        self.alive.insert(name.clone(), address);
        self.append(format_args!("alive: {name} {address}\n"));
    }

    /// A member left, or is forgotten.
    pub(super) fn gone(&mut self, name: &NodeName) {
        if !self.leaving && self.alive.remove(name).is_some() {
            self.append(format_args!("not-alive: {name}\n"));
        }
    }

    /// Forgets the members for which `unknown` holds.
    pub(super) fn forget(&mut self, unknown: impl Fn(&NodeName) -> bool) {
        let gone: Vec<NodeName> = self.alive.keys().filter(|name| unknown(name)).cloned().collect();
        gone.iter().for_each(|name| self.gone(name));
    }

    /// This member leaves on purpose.
    pub(super) fn leave(&mut self, rejoin_after_leave: bool) {
        self.append(format_args!("leave\n"));
        self.leaving = true;
        if !rejoin_after_leave {
            self.alive.clear();
        }
    }

    /// A write failed: what is in the file is not known any more.
    pub(super) const fn failed(&mut self) {
        self.renew = true;
    }

    /// Whether something is to be written.
    pub(super) fn is_dirty(&self, times: SeenTimes) -> bool {
        self.renew || !self.pending.is_empty() || (!self.leaving && times != self.times)
    }

    fn append(&mut self, line: std::fmt::Arguments<'_>) {
        self.pending.write_fmt(line).expect("writing to a string cannot fail");
    }

    /// The operations that bring the file up to date; none if it is.
    pub(super) fn flush(&mut self, pool: PoolName, times: SeenTimes) -> Vec<FileOp> {
        if !self.is_dirty(times) {
            return Vec::new();
        }
        if !self.leaving {
            for (index, key) in CLOCK_KEYS.iter().enumerate() {
                if times.get(index) != self.times.get(index)
                    && let Some(time) = times.get(index)
                {
                    self.append(format_args!("{key}{time}\n"));
                }
            }
            self.times = times;
        }
        let limit = (COMPACT_BYTES_PER_MEMBER * self.alive.len() as u64).max(COMPACT_BYTES_MIN);
        if self.renew || self.offset + self.pending.len() as u64 > limit {
            return self.write_anew(pool);
        }
        let data = Bytes::from(std::mem::take(&mut self.pending));
        let file = snapshot_file(pool);
        let offset = self.offset;
        self.offset += data.len() as u64;
        let mut ops = vec![FileOp::Write { file: file.clone(), offset, data }];
        if self.leaving {
            // Losing this line would bring the member back uninvited.
            ops.push(FileOp::Sync(file));
        }
        ops
    }

    fn write_anew(&mut self, pool: PoolName) -> Vec<FileOp> {
        crate::mark!("serf.snapshot_compacted");
        self.pending.clear();
        for (name, address) in std::mem::take(&mut self.alive) {
            self.append(format_args!("alive: {name} {address}\n"));
            self.alive.insert(name, address);
        }
        for (key, time) in CLOCK_KEYS.iter().zip(self.times) {
            self.append(format_args!("{key}{time}\n"));
        }
        if let Some(incarnation) = self.incarnation {
            self.append(format_args!("{INCARNATION_KEY}{incarnation}\n"));
        }
        if self.leaving {
            self.append(format_args!("leave\n"));
        }
        self.renew = false;
        let data = Bytes::from(std::mem::take(&mut self.pending));
        self.offset = data.len() as u64;
        let (folder, new) = (FilePath::new(FOLDER), new_file(pool));
        vec![
            FileOp::CreateDir(folder.clone()),
            FileOp::Remove(new.clone()),
            FileOp::Write { file: new.clone(), offset: 0, data },
            FileOp::Sync(new.clone()),
            FileOp::Rename { from: new, to: snapshot_file(pool) },
            FileOp::SyncDir(Some(folder)),
        ]
    }
}

impl Serf {
    /// Writes what waits, and looks again later.
    pub(super) fn flush(&mut self, out: &mut Outbox<SerfOutput>) {
        let ops = self.snapshot.flush(self.config.pool, self.seen_times());
        if !ops.is_empty() {
            out.push(SerfOutput::Persist(ops));
        }
    }

    /// Plans to write if something waits.
    pub(super) fn plan_flush(&mut self, now: Instant) {
        if self.timers.deadline(&Timer::Flush).is_none()
            && self.snapshot.is_dirty(self.seen_times())
        {
            self.timers.set(Timer::Flush, now + FLUSH_INTERVAL);
        }
    }

    const fn seen_times(&self) -> SeenTimes {
        [self.clock.seen(), self.event_clock.seen(), self.query_clock.seen()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::tests::name;
    use proptest::prelude::*;

    /// The file after `ops`, as the disk would hold it.
    fn perform(mut text: String, ops: Vec<FileOp>) -> String {
        let mut new = String::new();
        for op in ops {
            match op {
                FileOp::Write { file, offset, data } => {
                    let target =
                        if file == snapshot_file(PoolName::Lan) { &mut text } else { &mut new };
                    assert_eq!(target.len() as u64, offset, "writes append");
                    target.push_str(std::str::from_utf8(&data).unwrap());
                }
                FileOp::Rename { .. } => text = std::mem::take(&mut new),
                FileOp::CreateDir(_) | FileOp::Remove(_) | FileOp::Sync(_) | FileOp::SyncDir(_) => {
                }
                FileOp::WriteZeros { .. } | FileOp::SetLen { .. } | FileOp::Allocate { .. } => {
                    panic!("unexpected {op:?}")
                }
            }
        }
        text
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn times(member: u64) -> SeenTimes {
        [LamportTime::new(member), LamportTime::ZERO, LamportTime::ZERO]
    }

    #[test]
    fn a_snapshot_survives_a_restart() {
        let mut snapshot = Snapshot::restore("", false);
        let mut text = perform(String::new(), snapshot.flush(PoolName::Lan, times(0)));
        snapshot.joined(&name("a b"), address(1));
        snapshot.joined(&name("c"), address(2));
        text = perform(text, snapshot.flush(PoolName::Lan, times(7)));
        snapshot.gone(&name("c"));
        text = perform(text, snapshot.flush(PoolName::Lan, times(7)));
        assert!(
            text.ends_with("alive: a b 10.0.0.1:1\nalive: c 10.0.0.1:2\nclock: 7\nnot-alive: c\n")
        );
        let restored = Snapshot::restore(&text, false);
        assert_eq!(restored.remembered(&name("x")), [(name("a b"), address(1))]);
        assert_eq!(restored.times(), times(7));
        assert!(snapshot.flush(PoolName::Lan, times(7)).is_empty());
    }

    #[test]
    fn a_leave_forgets_everything_unless_asked_to_rejoin() {
        let text = "alive: a 10.0.0.1:1\nclock: 9\nleave\n";
        let restored = Snapshot::restore(text, false);
        assert!(restored.remembered(&name("x")).is_empty());
        assert_eq!(restored.times(), times(0));
        let restored = Snapshot::restore(text, true);
        assert_eq!(restored.remembered(&name("x")).len(), 1);
        assert_eq!(restored.times(), times(9));
    }

    #[test]
    fn the_incarnation_is_a_comment_and_outlives_damage_compaction_and_a_leave() {
        let mut snapshot = Snapshot::restore("# incarnation: 4\n# incarnation: x\nleave\n", false);
        assert_eq!(snapshot.incarnation(), Some(Incarnation::new(4)));
        let mut text = perform(String::new(), snapshot.flush(PoolName::Lan, times(0)));
        snapshot.rose(Incarnation::new(5));
        snapshot.rose(Incarnation::new(5));
        text = perform(text, snapshot.flush(PoolName::Lan, times(0)));
        assert!(text.ends_with("# incarnation: 4\n# incarnation: 5\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.contains("clock: ")));
        let restored = Snapshot::restore(&text, false);
        assert_eq!(restored.incarnation(), Some(Incarnation::new(5)));
    }

    #[test]
    fn nothing_is_recorded_after_a_leave() {
        let mut snapshot = Snapshot::restore("alive: a 10.0.0.1:1\n", false);
        let mut text = perform(String::new(), snapshot.flush(PoolName::Lan, times(1)));
        snapshot.leave(false);
        text = perform(text, snapshot.flush(PoolName::Lan, times(2)));
        snapshot.joined(&name("b"), address(2));
        assert!(snapshot.flush(PoolName::Lan, times(3)).is_empty());
        assert!(text.ends_with("leave\n"));
    }

    #[test]
    fn damaged_lines_are_ignored() {
        let text = "alive: a 10.0.0.1:1\nalive: nowhere\nalive:  10.0.0.1:1\nclock: x\nclock: 5\n\
                    \u{fffd}garbage\n# comment\ncoordinate: {}\nnot-alive: \nalive: torn 10.0.0.1";
        let restored = Snapshot::restore(text, false);
        assert_eq!(restored.remembered(&name("x")), [(name("a"), address(1))]);
        assert_eq!(restored.times(), times(5));
    }

    #[test]
    fn a_long_file_is_written_anew() {
        let mut snapshot = Snapshot::restore("", false);
        let mut text = perform(String::new(), snapshot.flush(PoolName::Lan, times(0)));
        for round in 1..20_000 {
            snapshot.joined(&name("a"), address(1));
            snapshot.gone(&name("a"));
            text = perform(text, snapshot.flush(PoolName::Lan, times(round)));
            assert!(text.len() as u64 <= COMPACT_BYTES_MIN);
        }
    }

    #[test]
    fn a_failed_write_has_the_file_written_anew() {
        let mut snapshot = Snapshot::restore("", false);
        snapshot.flush(PoolName::Lan, times(0));
        snapshot.joined(&name("a"), address(1));
        snapshot.flush(PoolName::Lan, times(0));
        snapshot.failed();
        let text = perform("whatever".to_owned(), snapshot.flush(PoolName::Lan, times(0)));
        assert!(text.starts_with("alive: a 10.0.0.1:1\n"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "(alive: |not-alive: |clock: |leave|.|\n| |1){0,40}",
        ) {
            let restored = Snapshot::restore(&text, false);
            prop_assert!(restored.remembered(&name("x")).len() <= text.len());
        }
    }
}
