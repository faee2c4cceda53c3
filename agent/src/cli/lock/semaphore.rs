//! A lock with several holders, as Consul's client library keeps it.
//!
//! Each contender has an entry of its own under the prefix, acquired with its session. Who holds is
//! a list in the entry `.lock`, changed by check-and-set; whoever has no contender entry with a
//! session any more holds nothing, whatever the list says.

use super::super::keys::{Failure, Keys, Waiting};
use super::super::kv::Entry;
use super::{Cleanup, Patience};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Marks entries as those of a semaphore.
const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// A semaphore.
#[derive(Debug)]
pub(super) struct Semaphore {
    /// Where its entries are, with a slash at the end.
    pub(super) folder: String,
    /// The entry that lists the holders.
    pub(super) key: String,
    pub(super) limit: u32,
}

/// The content of the entry that lists the holders.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holders {
    limit: u32,
    sessions: BTreeSet<String>,
}

impl Holders {
    /// Reads the entry; one that is not there or empty has no holders.
    fn decode(entry: Option<&Entry>, limit: u32) -> Result<Self, String> {
        let none = Self { limit, sessions: BTreeSet::new() };
        let Some(entry) = entry else { return Ok(none) };
        if entry.flags != FLAGS {
            return Err("Existing key does not match semaphore use".to_owned());
        }
        if entry.value.is_empty() {
            return Ok(none);
        }
        let bad = || "lock decoding failed: it is no semaphore".to_owned();
        let value: Value = serde_json::from_slice(&entry.value).map_err(|_| bad())?;
        let limit = value.get("Limit").and_then(Value::as_u64).ok_or_else(bad)?;
        let holders = value.get("Holders").and_then(Value::as_object);
        let sessions = holders.into_iter().flatten().map(|(session, _)| session.clone()).collect();
        Ok(Self { limit: u32::try_from(limit).map_err(|_| bad())?, sessions })
    }

    fn encode(&self) -> Vec<u8> {
        let holders = self.sessions.iter().map(|session| (session.clone(), Value::Bool(true)));
        let holders: Map<String, Value> = holders.collect();
        json!({ "Limit": self.limit, "Holders": holders }).to_string().into_bytes()
    }

    /// Leaves those that have a contender entry.
    fn prune(&mut self, entries: &[Entry]) {
        self.sessions.retain(|session| entries.iter().any(|entry| entry.session == *session));
    }
}

impl Semaphore {
    /// Waits until the session is among the holders; `false` if that took too long.
    pub(super) async fn acquire(
        &self,
        keys: Keys<'_>,
        session: &str,
        patience: &Patience,
    ) -> Result<bool, String> {
        let contend = |error: &str| format!("failed to make contender entry: {error}");
        let query = [format!("flags={FLAGS}"), format!("acquire={session}")];
        let made = keys.put(&self.contender(session), &query, Vec::new()).await;
        if !made.map_err(|failure| contend(&failure.text))? {
            return Err(contend("it was not acquired"));
        }
        let mut seen = None;
        while let Some(wait) = patience.left() {
            let waiting = seen.map(|index| (index, wait));
            let read = keys.list(&self.folder, waiting).await;
            let (entries, index) = read.map_err(|failure| failure.of("read prefix"))?;
            let (at, mut holders) = self.holders(&entries)?;
            if holders.limit != self.limit {
                let (lock, local) = (holders.limit, self.limit);
                return Err(format!("semaphore limit conflict (lock: {lock}, local: {local})"));
            }
            if holders.sessions.len() >= usize::try_from(holders.limit).unwrap_or(usize::MAX) {
                seen = Some(index);
                continue;
            }
            holders.sessions.insert(session.to_owned());
            if self.update(keys, &holders, at).await? {
                return Ok(true);
            }
            // Somebody else was faster.
            seen = None;
        }
        Ok(false)
    }

    /// Looks whether the session is among the holders, and the index of that look.
    pub(super) async fn is_held(
        &self,
        keys: Keys<'_>,
        session: &str,
        waiting: Waiting,
    ) -> Result<(bool, u64), Failure> {
        let (entries, index) = keys.list(&self.folder, waiting).await?;
        let held =
            self.holders(&entries).is_ok_and(|(_, holders)| holders.sessions.contains(session));
        Ok((held, index))
    }

    /// Takes the session out of the holders, and its contender entry away.
    pub(super) async fn release(&self, keys: Keys<'_>, session: &str) -> Result<(), String> {
        loop {
            let read = keys.get(&self.key, None).await;
            let (entry, _) = read.map_err(|failure| failure.of("read lock"))?;
            let at = entry.as_ref().map_or(0, |entry| entry.modify_index);
            let mut holders = Holders::decode(entry.as_ref(), self.limit)?;
            let held = holders.sessions.remove(session);
            if !held || self.update(keys, &holders, at).await? {
                break;
            }
        }
        let removed = keys.delete(&self.contender(session), None).await;
        removed.map(drop).map_err(|failure| failure.text)
    }

    /// Removes the list of holders unless there are some by now.
    pub(super) async fn cleanup(&self, keys: Keys<'_>) -> Result<Cleanup, String> {
        let read = keys.list(&self.folder, None).await;
        let (entries, _) = read.map_err(|failure| failure.of("read prefix"))?;
        let (at, holders) = self.holders(&entries)?;
        if at == 0 {
            return Ok(Cleanup::Done);
        }
        if !holders.sessions.is_empty() {
            return Ok(Cleanup::InUse);
        }
        let removed = keys.delete(&self.key, Some(at)).await;
        match removed.map_err(|failure| failure.of("remove semaphore"))? {
            true => Ok(Cleanup::Done),
            false => Ok(Cleanup::InUse),
        }
    }

    fn contender(&self, session: &str) -> String {
        format!("{}{session}", self.folder)
    }

    /// The index of the list of holders, 0 if there is none, and those of them that contend.
    fn holders(&self, entries: &[Entry]) -> Result<(u64, Holders), String> {
        let list = entries.iter().find(|entry| entry.key == self.key);
        let mut holders = Holders::decode(list, self.limit)?;
        holders.prune(entries);
        Ok((list.map_or(0, |entry| entry.modify_index), holders))
    }

    /// Replaces the list of holders if it is still the one with this index.
    async fn update(&self, keys: Keys<'_>, holders: &Holders, at: u64) -> Result<bool, String> {
        let query = [format!("flags={FLAGS}"), format!("cas={at}")];
        let set = keys.put(&self.key, &query, holders.encode()).await;
        set.map_err(|failure| failure.of("update lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, session: &str) -> Entry {
        let (key, value) = (key.to_owned(), value.as_bytes().to_vec());
        let session = session.to_owned();
        Entry { key, value, flags: FLAGS, create_index: 1, modify_index: 7, lock_index: 0, session }
    }

    #[test]
    fn the_list_of_holders_is_read_and_written_as_consul_does() {
        let text = r#"{"Limit":2,"Holders":{"a":true,"b":true}}"#;
        let holders = Holders::decode(Some(&entry("p/.lock", text, "")), 5).unwrap();
        assert_eq!((holders.limit, holders.sessions.len()), (2, 2));
        assert_eq!(holders.encode(), text.as_bytes());
        assert_eq!(Holders::decode(None, 5).unwrap().limit, 5);
        for bad in ["x", "{}", r#"{"Limit":-1}"#] {
            let refused = Holders::decode(Some(&entry("p/.lock", bad, "")), 5);
            assert_eq!(refused, Err("lock decoding failed: it is no semaphore".to_owned()));
        }
        let mutex = Entry { flags: 1, ..entry("p/.lock", "", "") };
        let conflict = Err("Existing key does not match semaphore use".to_owned());
        assert_eq!(Holders::decode(Some(&mutex), 5), conflict);
    }

    #[test]
    fn whoever_does_not_contend_any_more_holds_nothing() {
        let semaphore = Semaphore { folder: "p/".to_owned(), key: "p/.lock".to_owned(), limit: 2 };
        let list = r#"{"Limit":2,"Holders":{"dead":true,"alive":true,"released":true}}"#;
        let entries = [
            entry("p/.lock", list, ""),
            entry("p/alive", "", "alive"),
            entry("p/released", "", ""),
        ];
        let (at, holders) = semaphore.holders(&entries).unwrap();
        assert_eq!((at, holders.sessions), (7, BTreeSet::from(["alive".to_owned()])));
        assert_eq!(semaphore.holders(&[]).unwrap().0, 0);
    }
}
