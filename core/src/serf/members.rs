//! All members known, in a map whose copies share what did not change.

use super::member::{Member, MemberStatus};
use crate::id::NodeName;
use crate::time::Instant;
use imbl::OrdMap;
use std::sync::Arc;
use std::time::Duration;

/// One member, and since when it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) member: Arc<Member>,
    /// When it failed, left, or began to leave; of no meaning while it is alive.
    pub(super) since: Instant,
    /// Whether it is to be forgotten as soon as it is gone.
    pub(super) prune: bool,
}

impl Entry {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.member.status, MemberStatus::Left | MemberStatus::Failed)
    }

    /// The member, to be changed; readers keep what they have.
    pub(super) fn member_mut(&mut self) -> &mut Member {
        Arc::make_mut(&mut self.member)
    }
}

/// All members at one moment, by name.
///
/// - Cost: taking it is O(1), each change after that O(log n), so that publishing the members after
///   every change does not cost a pass over a large pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub(super) OrdMap<NodeName, Entry>);

impl Members {
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values().map(|entry| &*entry.member)
    }

    /// The member called `name`.
    pub fn get(&self, name: &NodeName) -> Option<&Member> {
        self.0.get(name).map(|entry| &*entry.member)
    }

    /// How long ago the member called `name` failed, left or began to leave, as this agent saw it
    /// or was told; `None` for one that is alive or unknown.
    pub fn gone_for(&self, name: &NodeName, now: Instant) -> Option<Duration> {
        let entry = self.0.get(name)?;
        (entry.member.status != MemberStatus::Alive).then(|| now.since(entry.since))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<T: IntoIterator<Item = Member>>(members: T) -> Self {
        let entry = |member: Member| {
            let (name, since) = (member.name.clone(), Instant::ZERO);
            (name, Entry { member: Arc::new(member), since, prune: false })
        };
        Self(members.into_iter().map(entry).collect())
    }
}
