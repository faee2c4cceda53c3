//! Following a leader, and losing patience with it (Raft thesis §3.5; raft.md §4.2, §6.2).
//!
//! Invariants: an entry is acknowledged once it and every truncation before it are durable
//! (INV-RAFT-13); entries are dropped only where they conflict, never because a message is short
//! or late; commit never passes what the leader's message vouches for (INV-RAFT-5).

use super::shared::{Destination, Shared};
use super::{
    Append, AppendReject, Body, Configuration, EntryKind, Header, Raft, RaftOutput, RaftTrace, Role,
};
use crate::id::LogIndex;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::pack;
use crate::{mark, mutant, trace};
use std::time::Duration;

/// A server that follows, or waits for a leader.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    wait_from: Instant,
    patience: Duration,
    told: Option<&'static str>,
}

impl Follower {
    /// Begins to wait.
    pub(super) fn new(now: Instant, shared: &mut Shared) -> Self {
        let patience = draw_patience(shared);
        Self { wait_from: now, patience, told: None }
    }

    /// Waits from `now` on with a new patience.
    pub(super) fn wait_again(&mut self, now: Instant, shared: &mut Shared) {
        self.wait_from = now;
        self.patience = draw_patience(shared);
    }

    /// Campaigns as soon as possible: nobody else can lead.
    pub(super) const fn wait_no_longer(&mut self, now: Instant) {
        self.wait_from = now;
        self.patience = Duration::ZERO;
    }

    /// When its patience ends; `None` if there is nothing to wait for.
    pub(super) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let waits = shared.leader.is_some() || shared.may_lead();
        let heard = shared.leader.and(shared.leader_contact_at);
        waits.then(|| heard.map_or(self.wait_from, |at| at.max(self.wait_from)) + self.patience)
    }
}

fn draw_patience(shared: &mut Shared) -> Duration {
    let timeout = shared.settings.timing.heartbeat_timeout;
    shared.rng.between(timeout, timeout * 2)
}

impl Raft {
    /// The follower's patience ended.
    pub(super) fn on_leader_silent(&mut self, now: Instant, out: &mut Outbox<RaftOutput>) {
        let Role::Follower(follower) = &mut self.role else { return };
        let shared = &mut self.shared;
        shared.leader = None;
        let Some(reason) = shared.unpromotable(now) else {
            trace!(out, Level::Warn, RaftTrace::HeartbeatTimeout);
            return self.campaign(now, out);
        };
        follower.wait_again(now, shared);
        if follower.told != Some(reason) {
            follower.told = Some(reason);
            trace!(out, Level::Warn, RaftTrace::NotPromotable { reason });
        }
    }

    /// A leader spoke: follows it if its term is not over. Whether it is this server's leader.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        header: &Header,
        out: &mut Outbox<RaftOutput>,
    ) -> bool {
        if header.term < self.shared.hard.term {
            return false;
        }
        if header.term > self.shared.hard.term {
            self.adopt_term(now, header.term, "another leader has a higher term", out);
        }
        let other = self.shared.leader.is_some_and(|(leader, _)| leader != header.from);
        if other || matches!(self.role, Role::Leader(_)) {
            let rule = format!("INV-RAFT-1: two leaders in term {}", header.term);
            self.shared.fatal(rule, out);
            return false;
        }
        if matches!(self.role, Role::Candidate(_)) {
            mark!("raft.candidate.beaten");
            self.become_follower(now, "", out);
        }
        self.shared.leader = Some((header.from, header.address));
        self.shared.leader_contact_at = Some(now);
        self.shared.lonely_campaigns = 0;
        true
    }

    /// The leader is alive, and says what is committed of what this server holds.
    pub(super) fn on_heartbeat(
        &mut self,
        now: Instant,
        header: &Header,
        (commit, round): (LogIndex, u64),
        out: &mut Outbox<RaftOutput>,
    ) {
        if !self.follow(now, header, out) {
            return self.answer_old_leader(header, LogIndex::ZERO, out);
        }
        let shared = &mut self.shared;
        if commit <= shared.log.last_index() {
            shared.advance_commit(commit, out);
        } else {
            shared.stats.malformed += 1;
        }
        let body = Body::HeartbeatAnswer { round, condition: shared.condition(now) };
        shared.send(Destination::answer(header), body, out);
    }

    /// Tells a leader of an older term that the term is over (raft.md §4.1).
    pub(super) fn answer_old_leader(
        &mut self,
        header: &Header,
        prev_index: LogIndex,
        out: &mut Outbox<RaftOutput>,
    ) {
        if self.shared.stopped {
            return;
        }
        let (hint_index, hint_term) = (self.shared.log.last_index(), self.shared.log.last_term());
        let body = Body::AppendReject(AppendReject { prev_index, hint_index, hint_term });
        self.shared.send(Destination::answer(header), body, out);
    }

    /// Takes a leader's entries (raft.md §6.2; the steps in its order).
    pub(super) fn on_append(
        &mut self,
        now: Instant,
        header: &Header,
        append: Append,
        out: &mut Outbox<RaftOutput>,
    ) {
        if !well_formed(header, &append) {
            self.shared.stats.malformed += 1;
            return;
        }
        if !self.follow(now, header, out) {
            return self.answer_old_leader(header, append.prev_index, out);
        }
        let shared = &mut self.shared;
        let append = match above_base(shared, append) {
            Ok(append) => append,
            Err(Covered::Whole(end)) => return acknowledge(shared, now, (header, end), out),
            Err(Covered::Otherwise(index)) => {
                let rule = format!("INV-RAFT-4: entry {index} is committed and replaced");
                return shared.fatal(rule, out);
            }
        };
        if shared.log.term(append.prev_index) != Some(append.prev_term) {
            if append.prev_index <= shared.commit {
                let rule =
                    format!("INV-RAFT-4: entry {} is committed and refused", append.prev_index);
                return shared.fatal(rule, out);
            }
            return reject(shared, header, &append, out);
        }
        let own = shared.log.position(append.prev_index);
        if own.is_none_or(|own| own.chain != append.prev_chain) {
            let rule = format!("INV-RAFT-3: histories differ up to entry {}", append.prev_index);
            return shared.fatal(rule, out);
        }
        let message_end = append.entries.last().map_or(append.prev_index, |entry| entry.index);
        if mutant!(M07) && message_end < shared.log.last_index() && message_end >= shared.commit {
            shared.truncate(message_end.next(), out);
        }
        let Some(end) = store_entries(shared, append.prev_index, append.entries, out) else {
            return;
        };
        let vouched = if mutant!(M06) { shared.log.last_index() } else { end };
        shared.advance_commit(append.commit.min(vouched), out);
        acknowledge(shared, now, (header, end), out);
    }
}

/// Says that everything up to `end` is held, once it is durable.
fn acknowledge(
    shared: &mut Shared,
    now: Instant,
    (header, end): (&Header, LogIndex),
    out: &mut Outbox<RaftOutput>,
) {
    let durable = end <= shared.persist.durable() || mutant!(M03);
    let needs = if durable { None } else { shared.persist.newest() };
    let body = Body::AppendOk { match_index: end, condition: shared.condition(now) };
    shared.send_after(Destination::answer(header), body, needs, out);
}

/// What a message about entries below the log's base is.
enum Covered {
    /// All of it is covered by a snapshot, up to this entry.
    Whole(LogIndex),
    /// It has another history up to this entry, which is the base.
    Otherwise(LogIndex),
}

/// The part of a message above the log's base. What is below is committed and the same everywhere;
/// a late message may still bring it.
fn above_base(shared: &Shared, mut append: Append) -> Result<Append, Covered> {
    let base = shared.log.base();
    if append.prev_index >= base.index {
        return Ok(append);
    }
    mark!("raft.append.below_the_log");
    let end = append.entries.last().map_or(append.prev_index, |entry| entry.index);
    if end < base.index {
        return Err(Covered::Whole(end));
    }
    let rest = append
        .entries
        .split_off(usize::try_from(base.index.above(append.prev_index)).unwrap_or(usize::MAX));
    if append.entries.last().map(super::Entry::position) != Some(base) {
        return Err(Covered::Otherwise(base.index));
    }
    append.entries = rest;
    (append.prev_index, append.prev_term, append.prev_chain) = (base.index, base.term, base.chain);
    Ok(append)
}

/// Whether entries follow each other, are not of a later term than their leader's, and hold what
/// their kind says.
fn well_formed(header: &Header, append: &Append) -> bool {
    let (mut index, mut term) = (append.prev_index, append.prev_term);
    append.entries.iter().all(|entry| {
        let follows = entry.index == index.next() && entry.term >= term;
        (index, term) = (entry.index, entry.term);
        let readable = entry.kind != EntryKind::Config
            || pack::from_bytes::<Configuration>(&entry.payload)
                .is_ok_and(|configuration| configuration.is_sound());
        follows && entry.term <= header.term && readable
    })
}

/// Says where this log may agree with the leader's: at the newest entry whose term is not above
/// the refused one's, so that each refusal skips a whole term (raft.md §6.2 step 4).
fn reject(shared: &mut Shared, header: &Header, append: &Append, out: &mut Outbox<RaftOutput>) {
    let prev_index = append.prev_index;
    let limit = prev_index.min(shared.log.last_index());
    let newest = shared.log.newest_at_most(limit, append.prev_term);
    let hint_index = newest.unwrap_or_else(|| shared.log.base().index);
    let hint_term = shared.log.term(hint_index).expect("the hint is within the log");
    let body = Body::AppendReject(AppendReject { prev_index, hint_index, hint_term });
    shared.send(Destination::answer(header), body, out);
}

/// Appends what is missing behind `held`; drops own entries from the first conflict on. Returns how
/// much of the leader's log is held then: with a full disk not all that came. `None` if a rule is
/// broken.
fn store_entries(
    shared: &mut Shared,
    mut held: LogIndex,
    entries: Vec<super::Entry>,
    out: &mut Outbox<RaftOutput>,
) -> Option<LogIndex> {
    for entry in entries {
        let index = entry.index;
        match shared.log.get(entry.index) {
            Some(own) if own.term == entry.term => {
                if own.chain != entry.chain {
                    let rule = format!("INV-RAFT-3: two entries at {} {}", entry.index, entry.term);
                    shared.fatal(rule, out);
                    return None;
                }
                mark!("raft.append.already_held");
                held = index;
                continue;
            }
            Some(_) if entry.index <= shared.commit => {
                let rule = format!("INV-RAFT-4: entry {} is committed and replaced", entry.index);
                shared.fatal(rule, out);
                return None;
            }
            _ if shared.log_full => {
                mark!("raft.append.disk_full");
                break;
            }
            Some(_) => shared.truncate(entry.index, out),
            None => {}
        }
        shared.append_received(entry, out);
        held = index;
    }
    Some(held)
}
