//! Deletions that are forgotten (http-api.md §1.6).
//!
//! - C7: none is forgotten before its time, by the true time. The index of a prefix goes back only
//!   where the deletion that gave it was forgotten, and another entry is under the prefix: the
//!   model says which index it has then, this says whether it may be lower than one before.

use super::{Violation, broken};
use crate::kv::model::Model;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::kv::KeyList;
use terraform_core::catalog::query::Query;
use terraform_core::config::TOMBSTONE_TIME;
use terraform_core::id::ModifyIndex;
use terraform_core::time::Instant;

/// What clocks may be slow by: part of a span that may be missing.
const DRIFT: u32 = 1000;

/// What is known of deletions.
#[derive(Debug)]
pub(super) struct TombstoneChecker {
    /// How long each is remembered at least.
    time: Duration,
    /// When what has each index was seen committed.
    seen: BTreeMap<ModifyIndex, Instant>,
    /// What was forgotten: where in the log, what, and the index of its deletion.
    forgotten: Vec<(u64, Arc<str>, ModifyIndex)>,
}

impl Default for TombstoneChecker {
    fn default() -> Self {
        Self { time: TOMBSTONE_TIME, seen: BTreeMap::new(), forgotten: Vec::new() }
    }
}

impl TombstoneChecker {
    /// Each deletion is remembered for so long at least.
    pub(super) const fn last(&mut self, time: Duration) {
        self.time = time;
    }

    /// Something that was seen committed at `now` has this index.
    pub(super) fn commit(&mut self, index: ModifyIndex, now: Instant) {
        self.seen.insert(index, now);
    }

    /// All deletions up to an index are forgotten, at this position, seen committed at `now`, of
    /// those that the model knows before.
    pub(super) fn forget(
        &mut self,
        position: u64,
        up_to: ModifyIndex,
        (now, before): (Instant, &Model),
    ) -> Result<(), Violation> {
        for (key, index) in before.graves().filter(|(_, index)| *index <= up_to) {
            self.forgotten.push((position, Arc::clone(key), index));
            let Some(age) = self.seen.get(&index).map(|seen| now.since(*seen)) else {
                return broken("C7", format!("nothing was deleted at {index}, yet {key} was"));
            };
            if age + age / DRIFT < self.time {
                let time = self.time;
                let facts = format!("the deletion of {key} at {index} is forgotten after {age:?}");
                return broken("C7", format!("{facts}, at index {position}, not {time:?}"));
            }
        }
        Ok(())
    }

    /// Whether the index of this may be below one that it had, with all up to `top` committed.
    pub(super) fn may_go_back(&self, query: &Query, index: ModifyIndex, top: u64) -> bool {
        let (Query::KeyTree(prefix) | Query::Keys(KeyList { prefix, .. })) = query else {
            return false;
        };
        // The index of everything counts no deletions by themselves.
        !prefix.is_empty()
            && self.forgotten.iter().any(|(at, key, deleted)| {
                *at <= top && *deleted >= index && key.starts_with(prefix.as_str())
            })
    }
}
