//! The key-value table, judged by the committed log (simulation.md §8.1, checker A).
//!
//! What is committed is replayed in a [`Model`], and every answer must be the model's at a position
//! that the operation may have been done at. Positions are a total order, so operations that are
//! over before others begin must have the lower ones; each operation is taken to be at the lowest
//! position that explains its answer, which leaves the most room to those after it.
//!
//! - I11: an acknowledged write is committed, once, and its outcome is the model's. So no two
//!   conditional writes at one index are both done.
//! - I12: a default or consistent read is the model's at a position between the highest one known
//!   before it began and the highest one committed when it was answered.
//! - C6: a stale read is the model's at a position not below what its server had applied.
//! - C7: answers carry the model's indexes, and deletions are forgotten in their time.
//! - C11: what was answered as not done is never committed.
//!
//! A deletion carries nothing that tells whose it is, so those with the same text are counted: at
//! the end there are at least as many as were acknowledged, and no more than may have been done.

use super::forsaken::ForsakenChecker;
use super::health::{HealthChecker, Place, Wanted};
use super::session::SessionChecker;
use super::tombstones::TombstoneChecker;
use super::{Violation, broken};
use crate::kv::backup::{Backup, Saved};
use crate::kv::history::{Call, History, OpId, Outcome, Record, origin_of};
use crate::kv::model::{Model, Told, same_result, same_rows};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use terraform_core::catalog::command::{Applied, Command, SERF_HEALTH};
use terraform_core::catalog::kv::{KvDelete, KvWrite};
use terraform_core::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use terraform_core::catalog::transaction::TransactionResult;
use terraform_core::id::{ModifyIndex, RestoreId, SessionId};
use terraform_core::node::request::Response;
use terraform_core::raft::{Entry, EntryKind};
use terraform_core::time::Instant;

/// The text of a deletion: whether of a tree, of what, and on which condition.
type Deletion = (bool, String, Option<ModifyIndex>);

/// What the committed log says about keys.
#[derive(Debug)]
pub struct KvChecker {
    /// The model after each position that changed it, oldest first; the first is before all.
    states: Vec<(u64, Model)>,
    /// During which event each position was first seen committed.
    committed_in: Vec<u64>,
    /// Where each operation is, and what became of it.
    found: BTreeMap<OpId, (u64, Told)>,
    sessions: SessionChecker,
    health: HealthChecker,
    forsaken: ForsakenChecker,
    tombstones: TombstoneChecker,
    /// Operations whose clients were told that they are refused.
    refused: BTreeSet<OpId>,
    /// Where deletions are, and whether their condition was met.
    deletions: BTreeMap<Deletion, Vec<(u64, bool)>>,
    /// Backups that clients restore, or try to.
    backups: BTreeMap<RestoreId, Backup>,
    /// The restore that is under way, and how many of its blocks are there.
    staged: Option<(RestoreId, u64)>,
    /// Operations whose clients were told that nothing happened.
    not_done: BTreeSet<OpId>,
    /// The lowest position that whatever begins now may be done at.
    floor: u64,
}

impl Default for KvChecker {
    fn default() -> Self {
        Self {
            states: vec![(0, Model::default())],
            committed_in: Vec::new(),
            found: BTreeMap::new(),
            sessions: SessionChecker::default(),
            health: HealthChecker::default(),
            forsaken: ForsakenChecker::default(),
            tombstones: TombstoneChecker::default(),
            refused: BTreeSet::new(),
            deletions: BTreeMap::new(),
            backups: BTreeMap::new(),
            staged: None,
            not_done: BTreeSet::new(),
            floor: 0,
        }
    }
}

impl KvChecker {
    /// The table after everything that is committed.
    pub fn newest(&self) -> &Model {
        &self.states[self.states.len() - 1].1
    }

    /// The table after everything that was committed up to a position.
    fn model_at(&self, position: u64) -> &Model {
        let known = self.states.partition_point(|(at, _)| *at <= position);
        &self.states[known.saturating_sub(1)].1
    }

    /// C10: a backup that was saved, read when nothing below `floor` would do, is what the log
    /// makes of the position it stands for.
    pub fn saved(&mut self, saved: &Saved, floor: u64, event: u64) -> Result<(), Violation> {
        let (position, top) = (saved.position, self.committed_by(event));
        if position < floor || position > top {
            let facts = format!("the backup of index {position} was read from {floor} to {top}");
            return broken("C10", facts);
        }
        for prefix in ["", "list/", "reg/"] {
            let query = Query::KeyTree(prefix.to_owned());
            let told = saved.ask(&query);
            let known = self.model_at(position).answer(&query);
            if known != Some((told.rows.clone(), told.index)) {
                let facts = format!("the backup of index {position} holds {told:?}, not {known:?}");
                return broken("C10", facts);
            }
        }
        self.floor = self.floor.max(position);
        self.health.is_saved(saved)
    }

    /// The lowest position that a read which begins now may be answered at.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// The next entry is seen committed, after the event of this number.
    pub fn commit(&mut self, entry: &Entry, event: u64, now: Instant) -> Result<(), Violation> {
        self.committed_in.push(event);
        if entry.kind != EntryKind::Command {
            return Ok(());
        }
        let Ok(command) = Command::decode(&entry.payload) else { return Ok(()) };
        leaves_the_leaders_alone(&command)?;
        let at = entry.index.get();
        let Some((next, told)) = self.after(at, &command, now)? else { return Ok(()) };
        if next != *self.newest() {
            self.states.push((at, next));
        }
        if let Some(deletion) = deletion_of(&command) {
            let done = told == Some(Applied::Done);
            self.deletions.entry(deletion).or_default().push((at, done));
        }
        let Some(id) = origin_of(&command) else { return Ok(()) };
        if self.not_done.contains(&id) {
            return broken("C11", format!("operation {id}, told not done, is at index {at}"));
        }
        if told.is_some() && self.refused.contains(&id) {
            return broken("C11", format!("operation {id}, told refused, is done at index {at}"));
        }
        match self.found.insert(id, (at, told)) {
            Some((first, _)) => broken("I11", format!("operation {id} is at {first} and {at}")),
            None => Ok(()),
        }
    }

    /// The table after this command, seen committed at `now`, and what became of it; `None` if it
    /// is not about keys.
    fn after(
        &mut self,
        at: u64,
        command: &Command,
        now: Instant,
    ) -> Result<Option<(Model, Told)>, Violation> {
        let effects = self.sessions.commit(at, command);
        if let Command::ReapTombstones(up_to) = command {
            let before = (now, &self.states[self.states.len() - 1].1);
            self.tombstones.forget(at, *up_to, before)?;
        }
        self.tombstones.commit(self.newest().index_of(at), now);
        let restored = if let Command::RestoreCommit(commit) = command {
            self.backups.get(&commit.restore)
        } else {
            None
        };
        let refused = matches!(
            effects.result,
            Err(_) | Ok(Applied::Transaction(TransactionResult::Failed(_)))
        );
        self.health.commit(at, command, refused, restored);
        self.forsaken.commit(now, command, refused)?;
        let mut next = self.newest().clone();
        self.sessions.judge(now, command, (&effects, &next))?;
        let told = match command {
            Command::RestoreBlock(block) => {
                if block.number == 0 {
                    self.staged = Some((block.restore, 0));
                }
                if let Some(staged) = &mut self.staged
                    && *staged == (block.restore, block.number)
                {
                    staged.1 += 1;
                }
                None
            }
            Command::RestoreCommit(commit) => {
                let whole = (commit.restore, commit.blocks);
                let staged = self.staged.take_if(|staged| *staged == whole);
                let backup = staged.and_then(|(restore, _)| self.backups.get(&restore));
                let restored = backup.map(|backup| match backup {
                    Backup::Foreign(foreign) => next.restored(at, foreign),
                    Backup::Own(_, saved) => next.put_back(at, self.model_at(saved.position)),
                });
                return Ok(restored.map(|model| (model, Some(Applied::Done))));
            }
            Command::CreateSession(_) => Some(effects.result.clone().ok()),
            Command::Kv(_)
            | Command::Transaction(_)
            | Command::ReapTombstones(_)
            | Command::EndLockDelays(_) => next.apply(at, command),
            Command::Register(_)
            | Command::Deregister(_)
            | Command::Coordinates(_)
            | Command::Autopilot(_)
            | Command::EndSessions(_)
            | Command::Prepared(_)
            | Command::RestoreAbort(_) => None,
        };
        effects.begun.iter().for_each(|session| next.begin(*session));
        effects.ended.iter().for_each(|session| next.end(at, session));
        let about_keys = told.is_some() || !effects.ended.is_empty();
        Ok(about_keys.then(|| (next, told.unwrap_or(Some(Applied::Done)))))
    }

    /// In this world each deletion is remembered for so long at least.
    pub const fn deletions_last(&mut self, time: Duration) {
        self.tombstones.last(time);
    }

    /// C7: whether the index of this may be below one that it had, by what was forgotten until the
    /// event of this number.
    pub fn may_go_back(&self, query: &Query, index: ModifyIndex, event: u64) -> bool {
        self.tombstones.may_go_back(query, index, self.committed_by(event))
    }

    /// Somebody asks to end a session.
    pub fn closing(&mut self, session: SessionId) {
        self.sessions.closing(session);
    }

    /// A server begins to lead.
    pub const fn new_leader(&mut self, now: Instant) {
        self.sessions.new_leader(now);
    }

    /// A session is to be renewed.
    pub fn renewing(&mut self, session: SessionId, now: Instant) {
        self.sessions.renewing(session, now);
    }

    /// Whoever wanted to renew a session has an answer.
    pub fn renewed(&mut self, session: SessionId, now: Instant) {
        self.sessions.renewed(session, now);
    }

    /// C8: no session is there whose time is over twice, under a leader that is well.
    pub fn none_outlives_its_time(&self, now: Instant) -> Result<(), Violation> {
        self.sessions.none_outlives_its_time(now)
    }

    /// Somebody is about to restore this.
    pub fn offer(&mut self, backup: &Backup) {
        self.backups.insert(backup.restore(), backup.clone());
    }

    /// An operation was answered, during the event of this number.
    pub fn answered(&mut self, id: OpId, record: &Record, event: u64) -> Result<(), Violation> {
        let response = match &record.outcome {
            Outcome::Open => return Ok(()),
            Outcome::NotDone => {
                self.not_done.insert(id);
                return match self.found.get(&id) {
                    None => Ok(()),
                    Some((at, _)) => broken("C11", format!("{id} is at {at}: {record:?}")),
                };
            }
            Outcome::Refused | Outcome::NoSession => {
                self.refused.insert(id);
                return match self.found.get(&id) {
                    None | Some((_, None)) => Ok(()),
                    Some((at, _)) => broken("C11", format!("{id} is at {at}: {record:?}")),
                };
            }
            Outcome::Answered(response) => response,
        };
        let top = self.committed_by(event);
        let at = match (&record.call, response) {
            (Call::Read(query, consistency), Response::Answer(answer)) => {
                return self.read((query, *consistency), record.floor, answer, event);
            }
            (Call::Save, Response::Done) => return Ok(()),
            (Call::Renew(session), Response::Answer(answer)) => {
                let Rows::Sessions(rows) = &answer.rows else {
                    return broken("C8", format!("{record:?}"));
                };
                return match rows.first() {
                    Some(row) => {
                        self.sessions.promise(*session, record.asked, row.ttl);
                        Ok(())
                    }
                    None => self.sessions.told_gone(*session, top),
                };
            }
            (Call::Close(session), Response::Done) => {
                return self.sessions.told_gone(*session, top);
            }
            _ => self.find(id, record, response, top)?,
        };
        if let Call::Open(session) = &record.call {
            self.sessions.promise(session.id, record.asked, session.ttl);
        }
        self.floor = self.floor.max(at);
        Ok(())
    }

    /// A question about keys, asked when nothing below `floor` would do, was answered during the
    /// event of this number.
    pub fn read(
        &mut self,
        (query, consistency): (&Query, Consistency),
        floor: u64,
        answer: &QueryAnswer,
        event: u64,
    ) -> Result<(), Violation> {
        let top = self.committed_by(event);
        let at = self.explain(query, answer, floor, top);
        let at = at.ok_or_else(|| self.inexplicable(query, answer, floor, top))?;
        if consistency != Consistency::Stale {
            self.floor = self.floor.max(at);
        }
        Ok(())
    }

    /// What was wanted when nothing below `floor` would do was found, or nobody knows what that is;
    /// answered during the event of this number.
    pub fn found(
        &mut self,
        wanted: (&Wanted, Consistency),
        found: Option<&BTreeSet<Place>>,
        floor: u64,
        event: u64,
    ) -> Result<(), Violation> {
        let top = self.committed_by(event);
        let at = self.health.explain(wanted, found, (floor, top))?;
        if wanted.1 != Consistency::Stale {
            self.floor = self.floor.max(at);
        }
        Ok(())
    }

    /// Whoever wrote a prepared query was told so, during the event of this number.
    pub fn query_written(&mut self, writer: &str, event: u64) -> Result<(), Violation> {
        let at = self.health.is_written(writer, self.committed_by(event))?;
        self.floor = self.floor.max(at);
        Ok(())
    }

    /// The newest position that was committed when the event of this number was over.
    fn committed_by(&self, event: u64) -> u64 {
        self.committed_in.partition_point(|of| *of <= event) as u64
    }

    /// The lowest position from `floor` to `top` at which the model gives this answer.
    fn explain(&self, query: &Query, answer: &QueryAnswer, floor: u64, top: u64) -> Option<u64> {
        let from = self.states.partition_point(|(at, _)| *at <= floor).saturating_sub(1);
        let window = self.states.iter().skip(from).take_while(|(at, _)| *at <= top);
        let mut fits = window.filter(|(_, model)| {
            model.answer(query).is_some_and(|(rows, index)| {
                index == answer.index && same_rows(&answer.rows, &rows)
            })
        });
        fits.next().map(|(at, _)| floor.max(*at))
    }

    /// What is broken when no position explains an answer: its index, if its rows are not wrong at
    /// all, or the freshness that was asked for.
    fn inexplicable(&self, query: &Query, answer: &QueryAnswer, floor: u64, top: u64) -> Violation {
        let window = self.states.iter().take_while(|(at, _)| *at <= top);
        let known = window.filter_map(|(_, model)| model.answer(query));
        let mut known = known.filter(|(rows, _)| same_rows(&answer.rows, rows)).peekable();
        let wrong_index = known.peek().is_some() && known.all(|(_, index)| index != answer.index);
        let rule = match answer.consistency {
            _ if wrong_index => "C7",
            Consistency::Stale => "C6",
            Consistency::Leader | Consistency::Consistent => "I12",
        };
        let facts = format!("nothing from index {floor} to {top} answers {query:?}: {answer:?}");
        Violation { rule, facts }
    }

    /// The position of an acknowledged write, whose outcome must be the model's.
    fn find(
        &self,
        id: OpId,
        record: &Record,
        response: &Response,
        top: u64,
    ) -> Result<u64, Violation> {
        let may_be = |at: u64| at > record.floor && at <= top;
        let command = match &record.call {
            Call::Write(write) => Command::Kv(write.clone()),
            Call::Transaction(operations) => Command::Transaction(operations.clone()),
            Call::Restore(backup) => backup.commit(),
            Call::Open(session) => Command::CreateSession(session.clone()),
            Call::Read(..) | Call::Renew(_) | Call::Close(_) | Call::Save => {
                return broken("C11", format!("{record:?}"));
            }
        };
        if let Some(deletion) = deletion_of(&command) {
            let done = *response == Response::Done;
            let same = self.deletions.get(&deletion).map_or(&[][..], Vec::as_slice);
            let mut fits = same.iter().filter(|(at, met)| may_be(*at) && *met == done);
            return match fits.next() {
                Some((at, _)) => Ok(*at),
                None => broken("I11", format!("not committed by index {top}: {record:?}")),
            };
        }
        let Some((at, known)) = self.found.get(&id).filter(|(at, _)| may_be(*at)) else {
            return broken("I11", format!("not committed by index {top}: {record:?}"));
        };
        let same = match (known, response) {
            (Some(Applied::Done), Response::Done) | (Some(Applied::Unmet), Response::Unmet) => true,
            (Some(Applied::Transaction(model)), Response::Transaction(told)) => {
                same_result(told, model)
            }
            _ => false,
        };
        if same {
            return Ok(*at);
        }
        broken("I11", format!("at index {at} it is {known:?}: {record:?}"))
    }

    /// Counts the deletions, once nothing is on its way any more.
    pub fn at_end(&self, history: &History) -> Result<(), Violation> {
        let mut told: BTreeMap<Deletion, (usize, usize)> = BTreeMap::new();
        for record in history.records() {
            let Call::Write(write) = &record.call else { continue };
            let Some(deletion) = deletion_of(&Command::Kv(write.clone())) else { continue };
            let (acknowledged, open) = told.entry(deletion).or_default();
            match record.outcome {
                Outcome::Open => *open += 1,
                Outcome::NotDone | Outcome::Refused | Outcome::NoSession => {}
                Outcome::Answered(_) => *acknowledged += 1,
            }
        }
        for deletion in told.keys().chain(self.deletions.keys()) {
            let (acknowledged, open) = told.get(deletion).copied().unwrap_or_default();
            let committed = self.deletions.get(deletion).map_or(0, Vec::len);
            if committed < acknowledged {
                let facts = format!("{acknowledged} of {deletion:?} told, {committed} committed");
                return broken("I11", facts);
            }
            if committed > acknowledged + open {
                let facts = format!("{committed} of {deletion:?} committed, {acknowledged} told");
                return broken("C11", format!("{facts}, {open} open"));
            }
        }
        Ok(())
    }
}

/// C4: what the leader keeps on a node goes with the node alone; no agent takes it away.
fn leaves_the_leaders_alone(command: &Command) -> Result<(), Violation> {
    let Command::Deregister(target) = command else { return Ok(()) };
    let service = target.service.as_ref().is_some_and(|id| id.as_str() == "terraform");
    let check = target.check.as_ref().is_some_and(|id| id.as_str() == SERF_HEALTH);
    if service || (check && target.service.is_none()) {
        return broken("C4", format!("{target:?} takes away what is the leader's"));
    }
    Ok(())
}

fn deletion_of(command: &Command) -> Option<Deletion> {
    match command {
        Command::Kv(KvWrite::Delete(KvDelete { key, only_at })) => {
            Some((false, key.clone(), *only_at))
        }
        Command::Kv(KvWrite::DeleteTree(prefix)) => Some((true, prefix.clone(), None)),
        Command::Kv(KvWrite::Put(_) | KvWrite::Acquire(_) | KvWrite::Release(_))
        | Command::CreateSession(_)
        | Command::EndSessions(_)
        | Command::EndLockDelays(_)
        | Command::Prepared(_)
        | Command::Transaction(_)
        | Command::Register(_)
        | Command::Deregister(_)
        | Command::Coordinates(_)
        | Command::Autopilot(_)
        | Command::ReapTombstones(_)
        | Command::RestoreBlock(_)
        | Command::RestoreCommit(_)
        | Command::RestoreAbort(_) => None,
    }
}

#[cfg(test)]
mod tests;
