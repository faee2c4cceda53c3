//! Keys that were removed: they open messages for a while, seal none and are listed nowhere.
//!
//! Differs: Serf forgets a removed key at once, and whoever was away during the rotation is not
//! understood any more (gossip-protocol.md §22 and §28). Here it is heard for [`RETIRED_FOR`]:
//!
//! - whoever was away when the new key was used, but has it, is in touch again by itself, and is
//!   named in the log until somebody has it use the new key;
//! - whoever does not even have the new key is named, but understands nobody. It is never
//!   answered under the retired key, and never told the new one under it: a key is often rotated
//!   because somebody else may know it. Its operator installs the new key there.
//!
//! A key that leaked is removed twice: it is gone at the second time, also where that repeats a
//! removal which did not reach everybody.
//!
//! The file, `serf/local.retired` or `serf/remote.retired`, is a JSON list of strings: a key in
//! base64 and, behind a space, the civil time in milliseconds since 1970 until which it opens
//! messages. It stands beside the keyring, so that this stays the list which Serf reads.

use super::keyring::{Keyring, KeyringFileError, strings};
use super::{Gossip, GossipOutput, GossipTrace, KeyTrace, Timer};
use crate::id::PoolName;
use crate::machine::Outbox;
use crate::storage::op::FilePath;
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use crate::wire::seal::{Key, KeyId};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a removed key opens messages: as long as a failed member is tried again, since whoever
/// was away for longer is no member any more.
pub const RETIRED_FOR: Duration = Duration::from_secs(72 * 3600);

/// Retired keys kept at once, the newest ones: each costs time for every message that none opens.
pub const RETIRED_MAX: usize = 4;

/// The path of the file of a pool.
pub fn retired_file(pool: PoolName) -> FilePath {
    FilePath::new(match pool {
        PoolName::Lan => "serf/local.retired",
        PoolName::Wan => "serf/remote.retired",
    })
}

/// What the removal of a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is retired now.
    Retired,
    /// It was retired, and is gone now.
    Gone,
    /// It was not there.
    Unknown,
}

impl Removal {
    /// What was done with the key, for logs.
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Retired => "retire",
            Self::Gone => "forget",
            Self::Unknown => "remove",
        }
    }
}

impl Keyring {
    /// The keys that are retired, and until when each opens messages, the oldest first.
    pub fn retired(&self) -> impl Iterator<Item = (&Key, WallClock)> {
        self.opening.iter().skip(self.keys().len()).zip(self.retired.iter().copied())
    }

    /// Adds a key to the retired ones; the oldest of them goes if there are too many.
    pub(super) fn retire(&mut self, key: Key, until: WallClock) {
        self.opening.push(key);
        self.retired.push(until);
        while self.retired.len() > RETIRED_MAX {
            let oldest = self.keys().len();
            self.opening.remove(oldest);
            self.retired.remove(0);
        }
    }

    /// Drops a retired key; returns whether there was one.
    pub(super) fn forget(&mut self, key: &Key) -> bool {
        let installed = self.keys().len();
        let Some(place) = self.retired().position(|(retired, _)| retired == key) else {
            return false;
        };
        self.opening.remove(installed + place);
        self.retired.remove(place);
        true
    }

    /// The content of the file of retired keys; `None` if there are none.
    pub fn retired_to_file(&self) -> Option<Bytes> {
        let line = |(key, until): (&Key, WallClock)| {
            format!("\"{} {}\"", key.to_base64(), until.as_millis())
        };
        let lines: Vec<String> = self.retired().map(line).collect();
        (!lines.is_empty()).then(|| format!("[{}]", lines.join(",")).into())
    }

    /// Takes over the keys in the content of the file of retired keys, the newest ones if there are
    /// too many; those that are installed stay so.
    pub fn retire_from_file(&mut self, content: &[u8]) -> Result<(), KeyringFileError> {
        for (index, text) in strings(content)?.into_iter().enumerate() {
            let number = index + 1;
            let mut words = text.splitn(2, |byte| *byte == b' ');
            let key = Key::from_base64(words.next().unwrap_or_default());
            let key = key.map_err(|error| KeyringFileError::Key { number, error })?;
            let time = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let time = time.and_then(|word| word.parse().ok());
            let until = WallClock::from_millis(time.ok_or(KeyringFileError::Time { number })?);
            if !self.opening.contains(&key) {
                self.retire(key, until);
            }
        }
        Ok(())
    }
}

impl Gossip {
    /// Plans when the next retired key goes. A civil clock that was set back since the file was
    /// written must not keep it for longer than [`RETIRED_FOR`].
    pub(super) fn plan_expiry(&mut self, now: Instant) {
        let wall = self.keys.civil(now);
        let latest = wall.after(RETIRED_FOR);
        let ends = &mut self.keys.ring.retired;
        ends.iter_mut().for_each(|end| *end = latest.min(*end));
        match ends.iter().min() {
            Some(end) => self.timers.set(Timer::KeyExpiry, now + end.since(wall)),
            None => drop(self.timers.cancel(&Timer::KeyExpiry)),
        }
    }

    /// Drops the retired keys whose time is over, here and in the file.
    pub(super) fn expire_keys(&mut self, now: Instant, out: &mut Outbox<GossipOutput>) {
        let wall = self.keys.civil(now);
        let over = |(key, end): (&Key, WallClock)| (end <= wall).then(|| key.clone());
        let over: Vec<Key> = self.keys.ring.retired().filter_map(over).collect();
        for key in &over {
            crate::mark!("gossip.key_expired");
            self.keys.ring.forget(key);
            let trace = KeyTrace::Expired { key: key.id() };
            crate::trace!(out, Level::Info, GossipTrace::Keys(trace));
        }
        if !over.is_empty() && self.keys.has_file {
            self.store_keyring(None, out);
        }
        self.plan_expiry(now);
    }

    /// Whether the key that opened a message of `from` is retired, which is told once then.
    pub(super) fn opened_by_retired(
        &mut self,
        now: Instant,
        from: SocketAddr,
        key: KeyId,
        out: &mut Outbox<GossipOutput>,
    ) -> bool {
        let ring = &self.keys.ring;
        let Some(primary) = ring.primary().map(Key::id) else { return false };
        let Some((_, end)) = ring.retired().find(|(retired, _)| retired.id() == key) else {
            return false;
        };
        crate::mark!("gossip.retired_key");
        if self.drops.is_news(now, from, "retired key") {
            let left = end.since(self.keys.civil(now));
            let trace = KeyTrace::Retired { from, key, primary, left };
            crate::trace!(out, Level::Warn, GossipTrace::Keys(trace));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GossipConfig;
    use crate::gossip::keyring::{KeyOperation, KeyTicket};
    use crate::gossip::tests::peer;
    use crate::gossip::{GossipInput, GossipOutput};
    use crate::machine::Machine as _;
    use crate::rng::Seed;

    const WALL: WallClock = WallClock::from_millis(1_700_000_000_000);

    fn key(first: u8) -> Key {
        Key::new(&[first; 16]).unwrap()
    }

    fn ids(ring: &Keyring) -> Vec<KeyId> {
        ring.retired().map(|(key, _)| key.id()).collect()
    }

    /// A member with the keyring of an earlier run.
    fn member(ring: Keyring) -> Gossip {
        let (own, now) = (peer("me", 1), Instant::ZERO);
        let config = GossipConfig { encrypt: Some(key(1)), ..GossipConfig::lan() };
        let (mut out, seed) = (Outbox::new(Level::Error), Seed::from_number(1));
        let mut gossip = Gossip::new(own.name, own.address, own.meta, &config, seed, now, &mut out);
        gossip.set_clock(now, WALL);
        gossip.restore_keyring(now, ring, &mut out);
        gossip
    }

    fn remove(gossip: &mut Gossip, now: Instant, first: u8) {
        for operation in [KeyOperation::Install(key(first)), KeyOperation::Remove(key(first))] {
            let input = GossipInput::Key { ticket: KeyTicket(1), operation };
            gossip.handle(now, input, &mut Outbox::new(Level::Error));
        }
    }

    /// What `gossip` stores when its timers fire at `at`.
    fn stores(gossip: &mut Gossip, at: Instant) -> bool {
        let mut out = Outbox::new(Level::Error);
        gossip.handle_timeout(at, &mut out);
        out.drain().any(|output| matches!(output, GossipOutput::PersistKeyring(_)))
    }

    #[test]
    fn a_retired_key_goes_when_its_time_is_over() {
        let mut gossip = member(Keyring::new(key(1)));
        let start = Instant::ZERO + Duration::from_secs(60);
        remove(&mut gossip, start, 2);
        remove(&mut gossip, start + Duration::from_secs(1), 3);
        assert_eq!(gossip.keyring().keys(), [key(1)]);
        let end = start + RETIRED_FOR;
        assert!(!stores(&mut gossip, end.before(Duration::from_millis(1))));
        assert_eq!(ids(gossip.keyring()), [key(2).id(), key(3).id()]);
        assert!(stores(&mut gossip, end));
        assert_eq!(ids(gossip.keyring()), [key(3).id()]);
        assert!(stores(&mut gossip, end + Duration::from_secs(1)));
        assert_eq!(*gossip.keyring(), Keyring::new(key(1)));
    }

    #[test]
    fn a_restart_prolongs_nothing_whatever_the_civil_clock_says() {
        let stored = |left: Duration| {
            let mut ring = Keyring::new(key(1));
            ring.retire(key(2), WALL.after(left));
            let mut again = Keyring::new(key(1));
            again.retire_from_file(&ring.retired_to_file().unwrap()).unwrap();
            assert_eq!(again, ring);
            again
        };
        let hour = Duration::from_secs(3600);
        let mut gossip = member(stored(hour));
        assert!(!stores(&mut gossip, Instant::ZERO + hour / 2));
        assert!(stores(&mut gossip, Instant::ZERO + hour));
        // The clock was set back by more than the key had left.
        let mut gossip = member(stored(RETIRED_FOR * 10));
        assert!(stores(&mut gossip, Instant::ZERO + RETIRED_FOR));
        // The time was over when the agent was started.
        let mut over = Keyring::new(key(1));
        over.retire(key(2), WALL);
        assert!(stores(&mut member(over), Instant::ZERO));
    }

    #[test]
    fn the_newest_few_are_kept_and_one_that_is_installed_again_is_none() {
        let mut gossip = member(Keyring::new(key(1)));
        (2..9).for_each(|first| remove(&mut gossip, Instant::ZERO, first));
        let newest = [5, 6, 7, 8].map(|first| key(first).id());
        assert_eq!(ids(gossip.keyring()), newest);
        let mut ring = gossip.keyring().clone();
        assert_eq!(ring.install(key(6)), Ok(()));
        assert_eq!(ring.keys(), [key(1), key(6)]);
        assert_eq!(ids(&ring), [5, 7, 8].map(|first| key(first).id()));
        assert_eq!(ring.use_key(&key(6)), Ok(()));
        assert_eq!(ring.keys(), [key(6), key(1)]);
        assert_eq!(ids(&ring), [5, 7, 8].map(|first| key(first).id()));
        // A crash between the writes of both files leaves a key in both: it is installed.
        let mut both = Keyring::new(key(8));
        both.retire_from_file(&gossip.keyring().retired_to_file().unwrap()).unwrap();
        assert_eq!(both.keys(), [key(8)]);
        assert_eq!(ids(&both), [5, 6, 7].map(|first| key(first).id()));
    }

    #[test]
    fn a_file_names_the_string_that_is_wrong() {
        let read = |text: &str| Keyring::new(key(1)).retire_from_file(text.as_bytes());
        let good = format!("{} 5", key(2).to_base64());
        assert_eq!(read("[]"), Ok(()));
        assert_eq!(read(&format!("[\"{good}\"]")), Ok(()));
        for bad in [key(3).to_base64(), format!("{} x", key(3).to_base64()), format!("{good} ")] {
            let text = format!("[\"{good}\",\"{bad}\"]");
            assert_eq!(read(&text), Err(KeyringFileError::Time { number: 2 }), "{bad}");
        }
        assert!(matches!(read("[\"YWJj 5\"]"), Err(KeyringFileError::Key { number: 1, .. })));
        assert!(matches!(read("{}"), Err(KeyringFileError::Syntax { at: 0 })));
    }
}
