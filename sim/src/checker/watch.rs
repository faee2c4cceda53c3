//! Reads that wait for a change (simulation.md §9.3, C7; http-api.md §1.6).

use super::{Violation, ask, broken, shown};
use crate::net::HostId;
use crate::streams::Process;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer};
use terraform_core::id::{LogIndex, ModifyIndex};
use terraform_core::node::request::RequestBody;
use terraform_core::time::Instant;
use terraform_core::watch::Parked;

/// What an agent may take beyond the wait: to find a leader (7 s), and for the answer (10 s), with
/// a little for clocks that drift.
const SLACK: Duration = Duration::from_secs(18);

/// A read as its client asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingRead {
    /// What.
    pub query: Query,
    /// How fresh.
    pub consistency: Consistency,
    /// The index of the last answer to the same question in the same mode; zero if there was none.
    pub min_index: ModifyIndex,
    /// How long to wait for a greater one.
    pub wait: Duration,
    /// When.
    pub asked_at: Instant,
    /// The position in the log that the answer must not be below.
    pub floor: u64,
}

/// C7: an answer has an index that is greater than that of the last one, or the wait is over.
///
/// An index goes back only between servers, so only for stale reads, or where a deletion was
/// forgotten that counted for it, which the caller knows.
pub fn answered_rightly(
    read: &BlockingRead,
    answer: &QueryAnswer,
    at: Instant,
    may_go_back: bool,
) -> Result<(), Violation> {
    let index = answer.index;
    if index == ModifyIndex::ZERO {
        return broken("C7", format!("an index of zero answers {read:?}"));
    }
    if index > read.min_index {
        return Ok(());
    }
    if index < read.min_index && read.consistency != Consistency::Stale && !may_go_back {
        return broken("C7", format!("index {index} answers {read:?}"));
    }
    // Clocks that measure the wait drift by less than a thousandth.
    let waited = at.since(read.asked_at);
    if waited + waited / 1000 < read.wait {
        return broken("C7", format!("index {index} answers, after {waited:?}, {read:?}"));
    }
    Ok(())
}

/// C7: a read that is still not answered `now` has not waited too long.
pub fn not_overdue(read: &BlockingRead, now: Instant) -> Result<(), Violation> {
    let waited = now.since(read.asked_at);
    if waited > read.wait + read.wait / 16 + SLACK {
        return broken("C7", format!("no answer, after {waited:?}, to {read:?}"));
    }
    Ok(())
}

/// Looks for reads that wait although what they wait for has happened.
#[derive(Debug, Default)]
pub(super) struct WatchChecker {
    /// What each server had applied, and how many reads waited there, at the last look.
    seen: BTreeMap<Process, (LogIndex, usize)>,
}

impl WatchChecker {
    /// C7: after an event of a server, no read waits there whose index is below that of the tables.
    pub(super) fn look(&mut self, world: &World, host: HostId) -> Result<(), Violation> {
        let process = world.hosts[host].process();
        // One that has stopped answered whoever waited when it did.
        let running = world.hosts[host].running.as_ref();
        let Some(running) = running.filter(|running| running.stopped.is_none()) else {
            return Ok(());
        };
        let Some((raft, watches)) = running.node.raft().zip(running.node.watches()) else {
            return Ok(());
        };
        let now = (raft.applied(), watches.len());
        if self.seen.insert(process, now) == Some(now) {
            return Ok(());
        }
        for parked in watches.parked() {
            let RequestBody::Query(query) = &parked.request.body else { continue };
            let has = parked.request.context.min_index;
            let Some(answer) = ask(world, host, query).filter(|answer| answer.index > has) else {
                continue;
            };
            let (who, index) = (shown(process), answer.index);
            return broken("C7", format!("on {who}, whose index is {index}, waits {parked:?}"));
        }
        Ok(())
    }
}

/// R20: once nobody waits for a read, no server keeps one, but those of agents that are gone
/// without a word, until their time is over.
pub fn none_waits(world: &World, gone: &[BlockingRead]) -> Result<(), Violation> {
    let is_gone = |parked: &Parked| {
        let context = &parked.request.context;
        let asks =
            |read: &BlockingRead| parked.request.body == RequestBody::Query(read.query.clone());
        gone.iter().any(|read| read.min_index == context.min_index && asks(read))
    };
    for host in &world.hosts {
        let watches = host.running.as_ref().and_then(|running| running.node.watches());
        let kept = watches.and_then(|watches| watches.parked().find(|parked| !is_gone(parked)));
        if let Some(parked) = kept {
            let who = shown(host.process());
            return broken("R20", format!("{who} keeps what nobody waits for: {parked:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::catalog::query::{NodesQuery, Rows};

    fn read(consistency: Consistency, min_index: u64) -> BlockingRead {
        BlockingRead {
            query: Query::Nodes(NodesQuery::default()),
            consistency,
            min_index: ModifyIndex::new(min_index),
            wait: Duration::from_secs(10),
            asked_at: Instant::from_nanos(5_000_000_000),
            floor: 0,
        }
    }

    fn answer(read: &BlockingRead, index: u64) -> QueryAnswer {
        QueryAnswer {
            rows: Rows::Nodes(Vec::new()),
            index: ModifyIndex::new(index),
            known_leader: true,
            last_contact: Duration::ZERO,
            consistency: read.consistency,
        }
    }

    /// What is broken if `read` is answered with `index` after so many seconds.
    fn rule(read: &BlockingRead, index: u64, after: f64) -> Option<&'static str> {
        let answer = answer(read, index);
        let at = read.asked_at + Duration::from_secs_f64(after);
        answered_rightly(read, &answer, at, false).err().map(|violation| violation.rule)
    }

    #[test]
    fn an_answer_has_a_greater_index_or_the_wait_is_over() {
        let waits = read(Consistency::Leader, 7);
        assert_eq!(rule(&waits, 8, 0.1), None);
        assert_eq!(rule(&waits, 7, 0.1), Some("C7"), "nothing changed");
        assert_eq!(rule(&waits, 7, 9.9), Some("C7"), "and it waits for longer");
        assert_eq!(rule(&waits, 7, 9.998), None, "its server's clock is fast");
        assert_eq!(rule(&waits, 7, 10.7), None);
    }

    #[test]
    fn no_index_goes_back_by_itself_but_in_stale_reads() {
        assert_eq!(rule(&read(Consistency::Leader, 7), 6, 10.7), Some("C7"));
        assert_eq!(rule(&read(Consistency::Consistent, 7), 6, 10.7), Some("C7"));
        assert_eq!(rule(&read(Consistency::Stale, 7), 6, 10.7), None);
        assert_eq!(rule(&read(Consistency::Stale, 7), 6, 0.1), Some("C7"));
        assert_eq!(rule(&read(Consistency::Stale, 0), 0, 0.1), Some("C7"), "never zero");
    }

    #[test]
    fn an_index_goes_back_after_a_deletion_was_forgotten_once_the_wait_is_over() {
        let waits = read(Consistency::Leader, 7);
        let after = |seconds| {
            let at = waits.asked_at + Duration::from_secs_f64(seconds);
            let broken = answered_rightly(&waits, &answer(&waits, 6), at, true).err();
            broken.map(|violation| violation.rule)
        };
        assert_eq!((after(0.1), after(10.7)), (Some("C7"), None));
    }

    #[test]
    fn a_read_is_answered_some_time_after_its_wait() {
        let waits = read(Consistency::Leader, 7);
        let after = |seconds| not_overdue(&waits, waits.asked_at + Duration::from_secs(seconds));
        assert_eq!(after(28), Ok(()));
        assert_eq!(after(29).err().map(|violation| violation.rule), Some("C7"));
    }
}
