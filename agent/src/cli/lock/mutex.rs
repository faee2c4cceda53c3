//! A lock with one holder: a key that is acquired with a session, as Consul's client library does.

use super::super::keys::{Failure, Keys, Waiting};
use super::super::kv::Entry;
use super::{Cleanup, Patience};
use smol::Timer;
use std::time::Duration;

/// Marks an entry as a lock.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// How long a lock delay is waited for before it is tried again.
const DELAY_RETRY: Duration = Duration::from_secs(5);

/// A lock.
#[derive(Debug)]
pub(super) struct Mutex {
    pub(super) key: String,
}

/// Who has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Taken,
    Held,
}

fn state(entry: Option<&Entry>, session: &str) -> Result<State, String> {
    match entry {
        Some(entry) if entry.flags != FLAGS => {
            Err("Existing key does not match lock use".to_owned())
        }
        Some(entry) if entry.session == session => Ok(State::Held),
        Some(entry) if !entry.session.is_empty() => Ok(State::Taken),
        Some(_) | None => Ok(State::Free),
    }
}

impl Mutex {
    /// Waits until the session holds the key; `false` if that took too long.
    pub(super) async fn acquire(
        &self,
        keys: Keys<'_>,
        session: &str,
        patience: &Patience,
    ) -> Result<bool, String> {
        let read = |failure: Failure| failure.of("read lock");
        let mut seen = None;
        while let Some(wait) = patience.left() {
            let waiting = seen.map(|index| (index, wait));
            let (entry, index) = keys.get(&self.key, waiting).await.map_err(read)?;
            match state(entry.as_ref(), session)? {
                State::Held => return Ok(true),
                State::Taken => {
                    seen = Some(index);
                    continue;
                }
                State::Free => {}
            }
            let query = [format!("flags={FLAGS}"), format!("acquire={session}")];
            let taken = keys.put(&self.key, &query, Vec::new()).await;
            if taken.map_err(|failure| failure.of("acquire lock"))? {
                return Ok(true);
            }
            // Somebody was faster, or the key is kept free for a while after its last holder.
            let (entry, index) = keys.get(&self.key, None).await.map_err(read)?;
            seen = match state(entry.as_ref(), session)? {
                State::Held => return Ok(true),
                State::Taken => Some(index),
                State::Free => {
                    let Some(left) = patience.left() else { return Ok(false) };
                    Timer::after(left.min(DELAY_RETRY)).await;
                    None
                }
            };
        }
        Ok(false)
    }

    /// Looks whether the session holds the key, and the index of that look.
    pub(super) async fn is_held(
        &self,
        keys: Keys<'_>,
        session: &str,
        waiting: Waiting,
    ) -> Result<(bool, u64), Failure> {
        let (entry, index) = keys.get(&self.key, waiting).await?;
        Ok((entry.is_some_and(|entry| entry.session == session), index))
    }

    /// Gives the key back.
    pub(super) async fn release(&self, keys: Keys<'_>, session: &str) -> Result<(), String> {
        let query = [format!("flags={FLAGS}"), format!("release={session}")];
        let released = keys.put(&self.key, &query, Vec::new()).await;
        released.map(drop).map_err(|failure| failure.of("release lock"))
    }

    /// Removes the key unless somebody else has it by now.
    pub(super) async fn cleanup(&self, keys: Keys<'_>) -> Result<Cleanup, String> {
        let (entry, _) =
            keys.get(&self.key, None).await.map_err(|failure| failure.of("read lock"))?;
        let Some(entry) = entry else { return Ok(Cleanup::Done) };
        if state(Some(&entry), "")? == State::Taken {
            return Ok(Cleanup::InUse);
        }
        let removed = keys.delete(&self.key, Some(entry.modify_index)).await;
        match removed.map_err(|failure| failure.of("remove lock"))? {
            true => Ok(Cleanup::Done),
            false => Ok(Cleanup::InUse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_free_without_a_session_and_no_lock_without_the_flags() {
        let entry = |flags: u64, session: &str| Entry {
            key: "p/.lock".to_owned(),
            value: Vec::new(),
            flags,
            create_index: 1,
            modify_index: 1,
            lock_index: 0,
            session: session.to_owned(),
        };
        assert_eq!(state(None, "s"), Ok(State::Free));
        assert_eq!(state(Some(&entry(FLAGS, "")), "s"), Ok(State::Free));
        assert_eq!(state(Some(&entry(FLAGS, "s")), "s"), Ok(State::Held));
        assert_eq!(state(Some(&entry(FLAGS, "t")), "s"), Ok(State::Taken));
        let conflict = Err("Existing key does not match lock use".to_owned());
        assert_eq!(state(Some(&entry(0, "s")), "s"), conflict);
    }
}
