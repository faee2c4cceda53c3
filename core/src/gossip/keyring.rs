//! The keys of gossip: one that seals, and those that open besides it (gossip-wire.md §8.4).
//!
//! [`Keyring`] holds the rules and its file, `serf/local.keyring` or `serf/remote.keyring`: a JSON
//! list of base64 strings, the primary key first. The machine's part applies operations, and
//! answers a change only once the file holds it, so that a key which others were told of survives a
//! restart.
//!
//! Differs: a key from the settings is stored once it has opened a datagram of another member, not
//! before; else a mistyped key would win over its correction at the next start (gossip-protocol.md
//! §28). A key that is removed goes on opening messages for a while ([`super::retired`]). Traces
//! name keys by [`KeyId`](crate::wire::seal::KeyId).

use super::retired::{RETIRED_FOR, Removal, retired_file};
use super::{Gossip, GossipOutput, GossipTrace, KeyTrace};
use crate::config::GossipConfig;
use crate::id::PoolName;
use crate::machine::Outbox;
use crate::rng::Rng;
use crate::storage::op::{FileOp, FilePath, StorageFault};
use crate::storage::replace_file;
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use crate::wire::packet::{Layers, Opener};
use crate::wire::seal::{Key, KeyError};
use bytes::Bytes;
use std::collections::VecDeque;
use thiserror::Error;

/// Keys in a keyring: a rotation needs two or three, and each one costs time for every message
/// that none opens.
pub const KEYS_MAX: usize = 32;

/// Bytes the file may have; far above what the keys need.
pub const KEYRING_BYTES_MAX: u64 = 64 << 10;

/// Operations that may wait for the file at once.
const OPERATIONS_MAX: usize = 64;

/// The path of the file of a pool.
pub fn keyring_file(pool: PoolName) -> FilePath {
    FilePath::new(match pool {
        PoolName::Lan => "serf/local.keyring",
        PoolName::Wan => "serf/remote.keyring",
    })
}

/// The keys of one pool, the primary first; none if its gossip is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// The keys that are installed, the primary first, and behind them those that are retired.
    pub(super) opening: Vec<Key>,
    /// Until when each of the retired ones opens messages; the one that retired first is the first.
    pub(super) retired: Vec<WallClock>,
}

/// Why a key operation had no effect. The operator is at fault, unless a variant says otherwise;
/// the texts are those that peers send.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// A change was asked of a member whose gossip is not encrypted.
    #[error("No keyring to modify (encryption not enabled)")]
    NotEnabled,
    /// The keys were asked for of a member whose gossip is not encrypted.
    #[error("Keyring is empty (encryption not enabled)")]
    Empty,
    /// The primary key cannot be removed.
    #[error("Removing the primary key is not allowed")]
    Primary,
    /// A key cannot become the primary one before it is installed.
    #[error("Requested key is not in the keyring")]
    Missing,
    /// The keyring is full.
    #[error("the keyring already holds {KEYS_MAX} keys")]
    Full,
    /// Too many operations wait for the file. Nobody is at fault; try again.
    #[error("too many key operations are running")]
    Busy,
    /// The change is in force until the next start, but not stored. The disk is at fault.
    #[error("the change is in force, but the keyring could not be stored: {0}")]
    NotStored(#[source] StorageFault),
}

/// Why the content of the file is no keyring. Nothing changed; whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyringFileError {
    /// It is not a JSON list of strings.
    #[error("it is not a JSON list of base64 strings: byte {at}")]
    Syntax {
        /// The first byte that cannot stand where it does.
        at: usize,
    },
    /// One of its strings is no key.
    #[error("its string number {number} is no key: {error}")]
    Key {
        /// Which, from 1.
        number: usize,
        /// Why.
        error: KeyError,
    },
    /// It names no key at all.
    #[error("it holds no key")]
    NoKey,
    /// It names too many keys.
    #[error("it holds more than {KEYS_MAX} keys")]
    TooMany,
    /// One of its strings, in a file of retired keys, has no time behind the key.
    #[error("its string number {number} has no time in milliseconds behind the key")]
    Time {
        /// Which, from 1.
        number: usize,
    },
}

impl Keyring {
    /// A keyring with one key.
    pub fn new(primary: Key) -> Self {
        Self { opening: vec![primary], retired: Vec::new() }
    }

    /// All keys that are installed, the primary first.
    pub fn keys(&self) -> &[Key] {
        let installed = self.opening.len() - self.retired.len();
        self.opening.get(..installed).expect("every time of retirement is that of a key")
    }

    /// The key that seals.
    pub fn primary(&self) -> Option<&Key> {
        self.keys().first()
    }

    /// Adds `key` behind the others; one that is there already stays where it is.
    pub fn install(&mut self, key: Key) -> Result<(), KeyringError> {
        let installed = self.keys();
        if installed.is_empty() {
            return Err(KeyringError::NotEnabled);
        }
        if installed.contains(&key) {
            return Ok(());
        }
        if installed.len() >= KEYS_MAX {
            return Err(KeyringError::Full);
        }
        let place = installed.len();
        self.forget(&key);
        self.opening.insert(place, key);
        Ok(())
    }

    /// Makes an installed key the primary one.
    pub fn use_key(&mut self, key: &Key) -> Result<(), KeyringError> {
        if self.keys().is_empty() {
            return Err(KeyringError::NotEnabled);
        }
        let place = self.keys().iter().position(|installed| installed == key);
        let front = self.opening.get_mut(..=place.ok_or(KeyringError::Missing)?);
        front.expect("the place was just found").rotate_right(1);
        Ok(())
    }

    /// Retires a key, which opens messages until `until`; one that is retired is gone then, and one
    /// that is not there is removed already.
    pub fn remove(&mut self, key: &Key, until: WallClock) -> Result<Removal, KeyringError> {
        match self.primary() {
            None => Err(KeyringError::NotEnabled),
            Some(primary) if primary == key => Err(KeyringError::Primary),
            Some(_) => match self.keys().iter().position(|installed| installed == key) {
                Some(place) => {
                    let key = self.opening.remove(place);
                    self.retire(key, until);
                    Ok(Removal::Retired)
                }
                None if self.forget(key) => Ok(Removal::Gone),
                None => Ok(Removal::Unknown),
            },
        }
    }

    /// The content of the file.
    pub fn to_file(&self) -> Bytes {
        let keys: Vec<String> =
            self.keys().iter().map(|key| format!("{:?}", key.to_base64())).collect();
        format!("[{}]", keys.join(",")).into()
    }

    /// Reads the content of the file; a key that stands twice counts once.
    pub fn from_file(content: &[u8]) -> Result<Self, KeyringFileError> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, text) in strings(content)?.into_iter().enumerate() {
            let number = index + 1;
            let key = Key::from_base64(text);
            let key = key.map_err(|error| KeyringFileError::Key { number, error })?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(KeyringFileError::NoKey);
        }
        Ok(Self { opening: keys, retired: Vec::new() })
    }
}

/// The strings of a JSON list; base64 needs no escapes, so there are none.
pub(super) fn strings(content: &[u8]) -> Result<Vec<&[u8]>, KeyringFileError> {
    let mut text = Text { content, at: 0 };
    let mut found = Vec::new();
    text.take(b'[')?;
    if text.next() != Some(b']') {
        loop {
            found.push(text.string()?);
            if found.len() > KEYS_MAX {
                return Err(KeyringFileError::TooMany);
            }
            if text.next() != Some(b',') {
                break;
            }
            text.take(b',')?;
        }
    }
    text.take(b']')?;
    if text.next().is_some() { Err(text.error()) } else { Ok(found) }
}

/// JSON and how far it is read.
struct Text<'a> {
    content: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    const fn error(&self) -> KeyringFileError {
        KeyringFileError::Syntax { at: self.at }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.content.iter().skip(self.at);
        self.at += rest.take_while(|byte| b" \t\n\r".contains(byte)).count();
        self.content.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Result<(), KeyringFileError> {
        if self.next() != Some(wanted) {
            return Err(self.error());
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<&'a [u8], KeyringFileError> {
        self.take(b'"')?;
        let rest = self.content.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let string = end.and_then(|end| rest.get(..end)).ok_or_else(|| self.error())?;
        self.at += string.len();
        self.take(b'"')?;
        Ok(string)
    }
}

/// What may be done with the keys of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    /// Accept messages under this key.
    Install(Key),
    /// Send under this key, which is installed.
    Use(Key),
    /// Retire this key, or if it is retired, accept messages under it no more.
    Remove(Key),
    /// Only tell the keys.
    List,
}

/// One operation that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyTicket(pub u64);

/// A keyring and what of it is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) ring: Keyring,
    /// The civil time at an instant.
    clock: (Instant, WallClock),
    /// Whether the ring has a file.
    pub(super) has_file: bool,
    /// Whether the file holds a ring, or is being written.
    is_stored: bool,
    /// For each write on its way, oldest first, who waits for it.
    writes: VecDeque<Option<KeyTicket>>,
}

impl Keys {
    pub(super) fn new(key: Option<Key>, has_file: bool) -> Self {
        let ring = key.map(Keyring::new).unwrap_or_default();
        let clock = (Instant::ZERO, WallClock::from_millis(0));
        Self { ring, clock, has_file, is_stored: false, writes: VecDeque::new() }
    }

    /// The civil time at `now`, as it goes on since it was set.
    pub(super) fn civil(&self, now: Instant) -> WallClock {
        let (since, wall) = self.clock;
        wall.after(now.since(since))
    }

    /// Whether what is sent is sealed.
    pub(super) fn seals(&self, config: &GossipConfig) -> bool {
        config.verify_outgoing && self.ring.primary().is_some()
    }

    /// What takes the outer layers off messages that arrive.
    pub(super) fn opener<'a>(&'a self, config: &'a GossipConfig) -> Opener<'a> {
        let label = config.label.as_bytes();
        Opener { label, keys: &self.ring.opening, verify: config.verify_incoming }
    }

    /// The layers of one message that is sent, with a nonce of its own.
    pub(super) fn layers<'a>(&'a self, config: &'a GossipConfig, rng: &mut Rng) -> Layers<'a> {
        let key = self.ring.primary().filter(|_| config.verify_outgoing);
        Layers {
            label: config.label.as_bytes(),
            key: key.map(|key| (key, rng.nonce())),
            compress: config.compression,
        }
    }
}

impl Gossip {
    /// The keys of this member.
    pub const fn keyring(&self) -> &Keyring {
        &self.keys.ring
    }

    /// Says what the civil time is, which bounds how long retired keys are kept across restarts.
    /// Counted from 1970 at the epoch of `Instant` if it is never called.
    pub const fn set_clock(&mut self, now: Instant, wall: WallClock) {
        self.keys.clock = (now, wall);
    }

    /// Takes over the keyring of an earlier run, which wins over the key of the settings.
    pub fn restore_keyring(&mut self, now: Instant, ring: Keyring, out: &mut Outbox<GossipOutput>) {
        if let (Some(given), Some(primary)) = (self.keys.ring.primary(), ring.primary())
            && !ring.keys().contains(given)
        {
            let (pool, given, primary) = (self.config.pool, given.id(), primary.id());
            let trace = KeyTrace::RingWins { pool, given, primary };
            crate::trace!(out, Level::Warn, GossipTrace::Keys(trace));
        }
        self.keys.ring = ring;
        self.keys.is_stored = true;
        self.plan_expiry(now);
    }

    /// The keys are right: stores them if they are not stored yet.
    pub fn keys_proven(&mut self, out: &mut Outbox<GossipOutput>) {
        if self.keys.has_file && !self.keys.is_stored && self.keys.ring.primary().is_some() {
            crate::mark!("gossip.keyring_proven");
            self.store_keyring(None, out);
        }
    }

    /// Writes both files, the retired keys first: a crash in between leaves a key in both, which
    /// is installed then, but in none of them only if its installation was not answered.
    pub(super) fn store_keyring(
        &mut self,
        ticket: Option<KeyTicket>,
        out: &mut Outbox<GossipOutput>,
    ) {
        self.keys.is_stored = true;
        self.keys.writes.push_back(ticket);
        let (pool, ring) = (self.config.pool, &self.keys.ring);
        let mut ops = vec![FileOp::CreateDir(FilePath::new("serf")), FileOp::SyncDir(None)];
        match ring.retired_to_file() {
            Some(content) => ops.extend(replace_file(&retired_file(pool), content)),
            None => ops.push(FileOp::Remove(retired_file(pool))),
        }
        ops.extend(replace_file(&keyring_file(pool), ring.to_file()));
        out.push(GossipOutput::PersistKeyring(ops));
    }

    /// Does what is asked with the keys; answered by `KeyFinished`.
    pub(super) fn key_operation(
        &mut self,
        now: Instant,
        ticket: KeyTicket,
        operation: KeyOperation,
        out: &mut Outbox<GossipOutput>,
    ) {
        let until = self.keys.civil(now).after(RETIRED_FOR);
        let ring = &mut self.keys.ring;
        let (verb, key, done) = match operation {
            KeyOperation::List => {
                let listed = ring.primary().map(|_| ()).ok_or(KeyringError::Empty);
                self.key_finished(ticket, listed, out);
                return;
            }
            _ if self.keys.writes.len() >= OPERATIONS_MAX => {
                self.key_finished(ticket, Err(KeyringError::Busy), out);
                return;
            }
            KeyOperation::Install(key) => ("install", key.id(), ring.install(key)),
            KeyOperation::Use(key) => ("use", key.id(), ring.use_key(&key)),
            KeyOperation::Remove(key) => {
                let done = ring.remove(&key, until);
                (done.as_ref().map_or("remove", Removal::verb), key.id(), done.map(|_| ()))
            }
        };
        self.plan_expiry(now);
        let level = if done.is_ok() { Level::Info } else { Level::Warn };
        let error = done.as_ref().err().cloned();
        let trace = KeyTrace::Operation { verb, key, error };
        crate::trace!(out, level, GossipTrace::Keys(trace));
        if done.is_ok() && self.keys.has_file && !crate::mutant!(M62) {
            self.store_keyring(Some(ticket), out);
        } else {
            self.key_finished(ticket, done, out);
        }
    }

    fn key_finished(
        &self,
        ticket: KeyTicket,
        done: Result<(), KeyringError>,
        out: &mut Outbox<GossipOutput>,
    ) {
        let result = done.map(|()| self.keys.ring.clone());
        out.push(GossipOutput::KeyFinished { ticket, result });
    }

    /// The oldest write of the keyring is over.
    pub(super) fn keyring_persisted(
        &mut self,
        result: Result<(), StorageFault>,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(waiting) = self.keys.writes.pop_front() else { return };
        if let Some(ticket) = waiting {
            self.key_finished(ticket, result.map_err(KeyringError::NotStored), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::GossipInput;
    use crate::gossip::tests::peer;
    use crate::machine::Machine as _;
    use crate::rng::Seed;
    use crate::time::Instant;
    use proptest::prelude::*;

    fn key(first: u8) -> Key {
        Key::new(&[first; 16]).unwrap()
    }

    fn ring(keys: &[u8]) -> Keyring {
        Keyring { opening: keys.iter().map(|first| key(*first)).collect(), retired: Vec::new() }
    }

    #[test]
    fn the_primary_key_comes_first_and_stays() {
        let mut keys = ring(&[1]);
        assert_eq!(keys.install(key(2)), Ok(()));
        assert_eq!(keys.install(key(3)), Ok(()));
        assert_eq!(keys.install(key(2)), Ok(()), "one that is there already");
        assert_eq!(keys, ring(&[1, 2, 3]));
        assert_eq!(keys.use_key(&key(3)), Ok(()));
        assert_eq!(keys, ring(&[3, 1, 2]));
        assert_eq!(keys.use_key(&key(9)), Err(KeyringError::Missing));
        let until = WallClock::from_millis(5);
        assert_eq!(keys.remove(&key(3), until), Err(KeyringError::Primary));
        assert_eq!(keys.remove(&key(1), until), Ok(Removal::Retired));
        assert_eq!(keys.keys(), ring(&[3, 2]).keys());
        assert_eq!(keys.remove(&key(1), until), Ok(Removal::Gone));
        assert_eq!(keys.remove(&key(1), until), Ok(Removal::Unknown));
        assert_eq!(keys, ring(&[3, 2]));
    }

    #[test]
    fn without_encryption_there_is_nothing_to_change() {
        let mut keys = Keyring::default();
        assert_eq!(keys.install(key(1)), Err(KeyringError::NotEnabled));
        assert_eq!(keys.use_key(&key(1)), Err(KeyringError::NotEnabled));
        assert_eq!(keys.remove(&key(1), WallClock::from_millis(5)), Err(KeyringError::NotEnabled));
        assert_eq!(keys.primary(), None);
    }

    #[test]
    fn a_keyring_is_bounded() {
        let mut keys = ring(&[0]);
        for first in 1..32 {
            assert_eq!(keys.install(key(first)), Ok(()));
        }
        assert_eq!(keys.install(key(32)), Err(KeyringError::Full));
        assert_eq!(keys.install(key(31)), Ok(()));
        assert_eq!(Keyring::from_file(&keys.to_file()), Ok(keys.clone()));
        keys.opening.push(key(32));
        assert_eq!(Keyring::from_file(&keys.to_file()), Err(KeyringFileError::TooMany));
    }

    #[test]
    fn the_file_is_a_list_of_strings() {
        let text = "\t[ \"AQEBAQEBAQEBAQEBAQEBAQ==\" ,\n\"AgICAgICAgICAgICAgICAg==\"]\n";
        assert_eq!(Keyring::from_file(text.as_bytes()), Ok(ring(&[1, 2])));
        let written = ring(&[1, 2]).to_file();
        assert_eq!(written, r#"["AQEBAQEBAQEBAQEBAQEBAQ==","AgICAgICAgICAgICAgICAg=="]"#);
        let twice = r#"["AQEBAQEBAQEBAQEBAQEBAQ==","AQEBAQEBAQEBAQEBAQEBAQ=="]"#;
        assert_eq!(Keyring::from_file(twice.as_bytes()), Ok(ring(&[1])));
        let syntax = |at| Err(KeyringFileError::Syntax { at });
        for (text, at) in [
            ("", 0),
            ("{}", 0),
            ("[\"a\"", 4),
            ("[\"a\",]", 5),
            ("[\"a\"] x", 6),
            ("[1]", 1),
            ("[\"a", 2),
            ("[\"a\\\"\"]", 3),
        ] {
            let read = Keyring::from_file(text.as_bytes());
            assert!(read == syntax(at) || read == syntax(2), "{text}: {read:?}");
        }
        assert_eq!(Keyring::from_file(b"[]"), Err(KeyringFileError::NoKey));
        let short = KeyringFileError::Key { number: 1, error: KeyError::Length };
        assert_eq!(Keyring::from_file(b"[\"YWJj\"]"), Err(short));
    }

    #[test]
    fn a_change_is_answered_only_when_it_is_stored_or_cannot_be() {
        let (own, now) = (peer("me", 1), Instant::ZERO);
        let config = GossipConfig { encrypt: Some(key(1)), ..GossipConfig::lan() };
        let mut out = Outbox::new(Level::Error);
        let seed = Seed::from_number(1);
        let mut gossip = Gossip::new(own.name, own.address, own.meta, &config, seed, now, &mut out);
        let tell = |gossip: &mut Gossip, input| {
            let mut out = Outbox::new(Level::Error);
            gossip.handle(now, input, &mut out);
            out.drain().collect::<Vec<GossipOutput>>()
        };
        let ticket = KeyTicket(7);
        let install =
            |first| GossipInput::Key { ticket, operation: KeyOperation::Install(key(first)) };
        for first in 2..4 {
            let outputs = tell(&mut gossip, install(first));
            assert!(matches!(&outputs[..], [GossipOutput::PersistKeyring(_)]), "{outputs:?}");
        }
        let finished = |result| vec![GossipOutput::KeyFinished { ticket, result }];
        let stored = tell(&mut gossip, GossipInput::KeyringPersisted(Ok(())));
        assert_eq!(stored, finished(Ok(ring(&[1, 2, 3]))));
        let fault = StorageFault::Full;
        let failed = tell(&mut gossip, GossipInput::KeyringPersisted(Err(fault)));
        assert_eq!(failed, finished(Err(KeyringError::NotStored(fault))));
    }

    #[test]
    fn operations_that_wait_are_bounded() {
        let mut keys = Keys::new(Some(key(1)), true);
        keys.writes = (0..OPERATIONS_MAX).map(|_| None).collect();
        let (own, now) = (peer("me", 1), Instant::ZERO);
        let mut out = Outbox::new(Level::Error);
        let (config, seed) = (GossipConfig::lan(), Seed::from_number(1));
        let mut gossip = Gossip::new(own.name, own.address, own.meta, &config, seed, now, &mut out);
        gossip.keys = keys;
        out.drain().for_each(drop);
        gossip.key_operation(now, KeyTicket(7), KeyOperation::Install(key(2)), &mut out);
        let result = Err(KeyringError::Busy);
        assert_eq!(out.pop(), Some(GossipOutput::KeyFinished { ticket: KeyTicket(7), result }));
        assert_eq!(gossip.keyring(), &ring(&[1]));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in r#"([\[\]", ]|\\|AQEBAQEBAQEBAQEBAQEBAQ==|.){0,12}"#) {
            let _ = Keyring::from_file(text.as_bytes());
        }
    }
}
