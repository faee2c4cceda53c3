//! Keys that sessions hold (http-api.md §9 and §10).
//!
//! A key is held by one session at most. What a session held when it ended cannot be acquired for
//! a while: a lock delay. It is a row of the replicated state, so it outlives the leader that
//! began to wait for it, and the acquisition is refused where it is applied and not before.
//!
//! - INV-LOCK-1: a session that holds a key exists, and a key is held exactly if its entry says so.
//!
//! Differs: Consul 1.8.7 keeps lock delays in the memory of each server and looks at them before
//! an acquisition is proposed; a leader that has just started knows of none.

use super::kv::{KvEntry, KvTable};
use crate::id::{ModifyIndex, SessionId};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// What an entry remembers of locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLock {
    /// How often the key was acquired; a plain write sets it to zero.
    pub index: u64,
    /// Who holds it.
    pub session: Option<SessionId>,
}
pack_struct!(KeyLock { index, session });

/// An entry to be stored by a session that holds its key then, or lets go of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvLock {
    /// The key; not empty.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The flags.
    pub flags: u64,
    /// The session.
    pub session: SessionId,
}
pack_struct!(KvLock { key, value, flags, session });

/// What becomes of the keys that a session holds when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behavior {
    /// They stay, and nobody holds them.
    #[default]
    Release,
    /// They are deleted.
    Delete,
}
pack_enum!(Behavior { 1 => Release, 2 => Delete });

/// Why a key cannot be acquired although nobody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockDelay {
    /// When the session that held it ended.
    pub since: ModifyIndex,
    /// For how long.
    pub delay: Duration,
}
pack_struct!(LockDelay { since, delay });

/// A lock delay that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockDelayEnd {
    /// The key.
    pub key: Arc<str>,
    /// When it began: a later one of the same key goes on.
    pub since: ModifyIndex,
}
pack_struct!(LockDelayEnd { key, since });

/// Why a write of a key was not done. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyRefusal {
    /// The entry has another index than the write demands.
    #[error("index is stale")]
    Stale,
    /// Another session holds it.
    #[error("lock is already held")]
    Held,
    /// A session that held it ended not long enough ago.
    #[error("due to lock delay")]
    Delayed,
    /// This session does not hold it.
    #[error("lock isn't held, or is held by another session")]
    NotHeld,
    /// There is no such session.
    #[error("invalid session \"{0}\"")]
    NoSession(SessionId),
}

/// The longest lock delay (http-api.md §10).
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);

impl KvTable {
    /// Stores an entry that this session, which exists, holds then.
    pub(super) fn acquire(
        &mut self,
        index: ModifyIndex,
        wanted: &KvLock,
    ) -> Result<(), KeyRefusal> {
        let old = self.entries.get(&*wanted.key);
        let acquired = old.map_or(0, |old| old.lock().0);
        let lock = match old.and_then(|old| old.lock().1) {
            Some(holder) if holder != wanted.session => return Err(KeyRefusal::Held),
            Some(_) => acquired,
            None if self.delays.contains_key(&*wanted.key) => {
                return Err(KeyRefusal::Delayed);
            }
            None => acquired.saturating_add(1),
        };
        let lock = KeyLock { index: lock, session: Some(wanted.session) };
        self.store(index, &wanted.key, (&wanted.value, wanted.flags), lock);
        Ok(())
    }

    /// Stores an entry that this session held until then.
    pub(super) fn release(
        &mut self,
        index: ModifyIndex,
        wanted: &KvLock,
    ) -> Result<(), KeyRefusal> {
        let old = self.entries.get(&*wanted.key);
        let Some((acquired, Some(holder))) = old.map(|old| old.lock()) else {
            return Err(KeyRefusal::NotHeld);
        };
        if holder != wanted.session {
            return Err(KeyRefusal::NotHeld);
        }
        let lock = KeyLock { index: acquired, session: None };
        self.store(index, &wanted.key, (&wanted.value, wanted.flags), lock);
        Ok(())
    }

    /// Lets go of all that a session holds, since it ends.
    pub(super) fn let_go(
        &mut self,
        index: ModifyIndex,
        session: SessionId,
        (behavior, delay): (Behavior, Duration),
    ) {
        for entry in self.held_by(session) {
            match behavior {
                Behavior::Release => {
                    let lock = KeyLock { index: entry.lock().0, session: None };
                    self.store(index, &entry.key, (&entry.value, entry.flags), lock);
                }
                Behavior::Delete => self.remove(index, &entry.key),
            }
            if !delay.is_zero() {
                let delay = LockDelay { since: index, delay: delay.min(LOCK_DELAY_MAX) };
                self.delays.insert(Arc::clone(&entry.key), delay);
            }
        }
    }

    /// Ends lock delays; those that began later go on.
    pub(super) fn end_delays(&mut self, ended: &[LockDelayEnd]) {
        for LockDelayEnd { key, since } in ended {
            if self.delays.get(key).is_some_and(|delay| delay.since == *since) {
                self.delays.remove(key);
            }
        }
    }

    /// All that a session holds, by key.
    fn held_by(&self, session: SessionId) -> Vec<Arc<KvEntry>> {
        let from = Bound::Included((session, Arc::from("")));
        let all = self.held.range((from, Bound::Unbounded));
        let own = all.take_while(|(holder, _)| *holder == session);
        own.filter_map(|(_, key)| self.entries.get(key).cloned()).collect()
    }
}
