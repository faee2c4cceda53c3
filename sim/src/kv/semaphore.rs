//! A semaphore of the clients, kept as `terraform lock -n` keeps it (simulation.md §8, workload
//! semaphore; cli.md §7).
//!
//! Each contender holds a key of its own with its session. Who has a place is a list in one key,
//! changed by check-and-set; whoever does not hold its own key any more has none, whatever the list
//! says. A client goes one step at a time: it contends, looks, takes a place if one is free, and
//! gives it back after another look.

use super::history::{Call, OpId, value_of};
use std::collections::BTreeSet;
use terraform_core::catalog::kv::{KvEntry, KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::query::{Consistency, Query, Rows};
use terraform_core::id::{ModifyIndex, SessionId};

/// Places there are.
pub const LIMIT: usize = 2;
/// Where its keys are.
pub const FOLDER: &str = "sem/";
/// The list of those that have a place.
pub const LIST: &str = "sem/.lock";

/// What a client saw of the semaphore when it looked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The index of the list; zero if there was none.
    at: ModifyIndex,
    /// Who had a place.
    holders: BTreeSet<SessionId>,
    /// Who contended.
    contenders: BTreeSet<SessionId>,
}

/// The list in an entry's value: what is written there is the operation, who takes a place or gives
/// it back, and those that have one then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose place it is about.
    pub session: SessionId,
    /// Whether it is taken.
    pub takes: bool,
    /// Who has a place then.
    pub holders: BTreeSet<SessionId>,
}

impl Change {
    /// The value that operation `id` stores.
    pub(super) fn value(&self, id: OpId) -> bytes::Bytes {
        let sign = if self.takes { '+' } else { '-' };
        let holders: Vec<String> = self.holders.iter().map(ToString::to_string).collect();
        format!("{id} {sign}{} {}", self.session, holders.join(",")).into()
    }

    /// What a value of the list says.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ').skip(1);
        let (who, listed) = (words.next()?, words.next()?);
        let takes = who.starts_with('+');
        let session = SessionId::parse(who.strip_prefix(['+', '-'])?).ok()?;
        let listed = listed.split(',').filter(|text| !text.is_empty());
        let holders = listed.map(|text| SessionId::parse(text).ok()).collect::<Option<_>>()?;
        Some(Self { session, takes, holders })
    }
}

impl Look {
    /// What the entries of the semaphore say; `None` if these rows are none.
    pub(super) fn of_rows(rows: &Rows) -> Option<Self> {
        let Rows::Entries(entries) = rows else { return None };
        let contends = |entry: &KvEntry| {
            let session = SessionId::parse(entry.key.strip_prefix(FOLDER)?).ok()?;
            (entry.lock().1 == Some(session)).then_some(session)
        };
        let contenders: BTreeSet<SessionId> =
            entries.iter().filter_map(|entry| contends(entry)).collect();
        let list = entries.iter().find(|entry| &*entry.key == LIST);
        let listed = list.and_then(|entry| Change::of_value(&entry.value));
        let mut holders = listed.map(|change| change.holders).unwrap_or_default();
        holders.retain(|session| contenders.contains(session));
        let at = list.map_or(ModifyIndex::ZERO, |entry| entry.modify_index);
        Some(Self { at, holders, contenders })
    }

    /// Those that have a place.
    pub(super) fn into_holders(self) -> BTreeSet<SessionId> {
        self.holders
    }

    /// Whether a session holds its own key.
    pub(super) fn contends(&self, session: SessionId) -> bool {
        self.contenders.contains(&session)
    }
}

/// Whether a read looks at the semaphore.
pub fn looks(query: &Query) -> bool {
    matches!(query, Query::KeyTree(prefix) if prefix == FOLDER)
}

/// The next step of a client that wants a place, or wants to give its place back.
pub(super) fn step(id: OpId, session: SessionId, wants: bool, seen: Option<&Look>) -> Call {
    let look = Call::Read(Query::KeyTree(FOLDER.to_owned()), Consistency::Leader);
    let Some(seen) = seen else { return look };
    if wants && !seen.contends(session) {
        let (key, value) = (format!("{FOLDER}{session}"), value_of(id));
        return Call::Write(KvWrite::Acquire(KvLock { key, value, flags: 0, session }));
    }
    let has_place = seen.holders.contains(&session);
    let full = wants && seen.holders.len() >= LIMIT;
    if has_place == wants || full {
        return look;
    }
    let mut holders = seen.holders.clone();
    let _ = if wants { holders.insert(session) } else { holders.remove(&session) };
    let change = Change { session, takes: wants, holders };
    let (key, value) = (LIST.to_owned(), change.value(id));
    Call::Write(KvWrite::Put(KvPut { key, value, flags: 0, only_at: Some(seen.at) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::history::writer_of;
    use crate::kv::session::session_of;
    use std::sync::Arc;
    use terraform_core::catalog::lock::KeyLock;

    fn entry(key: &str, value: bytes::Bytes, session: Option<SessionId>) -> Arc<KvEntry> {
        let index = ModifyIndex::new(7);
        let lock = session.map(|_| Box::new(KeyLock { index: 1, session }));
        let key = Arc::from(key);
        Arc::new(KvEntry { key, value, flags: 0, lock, create_index: index, modify_index: index })
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let sessions = [session_of(3), session_of(4)];
        let change = Change { session: sessions[1], takes: true, holders: sessions.into() };
        let value = change.value(12);
        assert_eq!(writer_of(&value), Some(12));
        assert_eq!(Change::of_value(&value), Some(change));
        assert_eq!(Change::of_value(b"12"), None);
        let empty = Change { session: sessions[0], takes: false, holders: BTreeSet::new() };
        assert_eq!(Change::of_value(&empty.value(1)), Some(empty));
    }

    #[test]
    fn whoever_lost_its_own_key_has_no_place() {
        let [mine, theirs, dead] = [1, 2, 3].map(session_of);
        let own =
            |session: SessionId, holder| entry(&format!("{FOLDER}{session}"), value_of(0), holder);
        let listed = Change { session: dead, takes: true, holders: [theirs, dead].into() };
        let list = entry(LIST, listed.value(5), None);
        let mut rows = vec![list, own(theirs, Some(theirs)), own(dead, None)];
        let look = Look::of_rows(&Rows::Entries(rows.clone())).unwrap();
        assert_eq!(look.holders, [theirs].into());
        // One that does not contend yet begins with that, and then takes the place that is free.
        let contends = step(9, mine, true, Some(&look));
        assert!(matches!(contends, Call::Write(KvWrite::Acquire(_))), "{contends:?}");
        rows.push(own(mine, Some(mine)));
        let look = Look::of_rows(&Rows::Entries(rows.clone())).unwrap();
        let Call::Write(KvWrite::Put(taken)) = step(9, mine, true, Some(&look)) else {
            panic!("it takes a place");
        };
        let change = Change::of_value(&taken.value).unwrap();
        assert_eq!((change.holders, taken.only_at), ([mine, theirs].into(), Some(look.at)));
        // With all places taken it looks again.
        rows.push(own(dead, Some(dead)));
        let look = Look::of_rows(&Rows::Entries(rows)).unwrap();
        assert!(matches!(step(9, mine, true, Some(&look)), Call::Read(..)));
    }
}
