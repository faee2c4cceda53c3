//! Consensus, with the world's knowledge of all servers at once (raft.md §12).

use super::{Violation, broken, shown};
use crate::durable::{Durable, durable_now, with_snapshots};
use crate::host::Host;
use crate::net::HostId;
use crate::streams::Process;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use terraform_core::id::{LogIndex, NodeId, StoreId, Term};
use terraform_core::raft::{Body, Entry, EntryKind, Message, Raft, RoleKind};
use terraform_core::wire::pack;
use terraform_core::wire::rpc::Frame;

/// What one process showed when it was last looked at.
#[derive(Clone, Debug, Default)]
struct Seen {
    term: Term,
    commit: LogIndex,
    applied: LogIndex,
    leads: bool,
    /// Chain value and term of each entry, by position less one.
    log: Vec<(Term, u64)>,
}

/// The rules R1 to R7, R9, R11, R16, R17, R19, R21.
#[derive(Debug, Default)]
pub(super) struct RaftChecker {
    /// Who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// The chain value of every entry ever seen.
    chains: BTreeMap<(LogIndex, Term), u64>,
    /// The committed history: term and chain of each entry, by position less one.
    committed: Vec<(Term, u64)>,
    /// In which term each was committed; an entry may be older than that.
    committed_in: Vec<Term>,
    /// Committed entries that nobody has taken yet, in order.
    fresh: Vec<Entry>,
    seen: BTreeMap<Process, Seen>,
    /// To whom each store gave its vote.
    votes: BTreeMap<(StoreId, Term), NodeId>,
    /// Whom the leader of each term permitted to campaign.
    permitted: BTreeSet<(Term, NodeId)>,
}

impl RaftChecker {
    pub(super) fn committed(&self) -> usize {
        self.committed.len()
    }

    /// Whether this is the committed history up to a position; `None` if none is known to be.
    pub(super) fn is_committed(&self, index: LogIndex, chain: u64) -> Option<bool> {
        let at = usize::try_from(index.get()).ok()?.checked_sub(1)?;
        self.committed.get(at).map(|(_, known)| *known == chain)
    }

    /// The entries that were seen committed since the last call, in order.
    pub(super) fn take_fresh(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.fresh)
    }

    /// Looks at one server after an event. Whether it began to lead.
    pub(super) fn look(
        &mut self,
        process: Process,
        id: NodeId,
        raft: &Raft,
    ) -> Result<bool, Violation> {
        let mut seen = self.seen.remove(&process).unwrap_or_default();
        self.monotone(process, raft, &seen)?;
        self.log_matches(process, raft, &mut seen)?;
        let fresh = self.leads_rightly(process, id, raft, &mut seen)?;
        self.commits_rightly(process, raft, &seen)?;
        seen.term = raft.term();
        seen.commit = raft.commit();
        seen.applied = raft.applied();
        self.seen.insert(process, seen);
        Ok(fresh)
    }

    /// R6: within one run nothing that was known is unknown again.
    fn monotone(&self, process: Process, raft: &Raft, seen: &Seen) -> Result<(), Violation> {
        let now = (raft.term(), raft.commit(), raft.applied());
        let then = (seen.term, seen.commit, seen.applied);
        if now.0 < then.0 || now.1 < then.1 || now.2 < then.2 {
            let who = shown(process);
            return broken("R6", format!("{who}: (term, commit, applied) {then:?} -> {now:?}"));
        }
        if raft.applied() > raft.commit() || raft.commit() > raft.last_index() {
            let (applied, commit, last) = (raft.applied(), raft.commit(), raft.last_index());
            let who = shown(process);
            return broken("R8", format!("{who}: applied {applied} commit {commit} last {last}"));
        }
        Ok(())
    }

    /// R3: equal position and term mean equal history, everywhere and at all times.
    fn log_matches(
        &mut self,
        process: Process,
        raft: &Raft,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        let last = usize::try_from(raft.last_index().get()).unwrap_or(usize::MAX);
        if seen.leads && raft.role() == RoleKind::Leader && seen.term == raft.term() {
            let shrank = last < seen.log.len();
            if shrank {
                let (who, was) = (shown(process), seen.log.len());
                return broken(
                    "R2",
                    format!("{who} leads and its log shrank from {was} to {last}"),
                );
            }
        }
        self.forgets(process, raft.term(), seen, last)?;
        self.begins_rightly(process, raft, seen)?;
        let mut fresh = Vec::new();
        for entry in raft.entries().rev() {
            let at = usize::try_from(entry.index.get()).unwrap_or(usize::MAX) - 1;
            if seen.log.get(at).is_some_and(|(_, chain)| *chain == entry.chain) {
                break;
            }
            // Nobody leads in term 1: what is there is known to its writer alone, who decides anew
            // if it loses it.
            if raft.term() <= Term::new(1) {
                break;
            }
            fresh.push((at, entry.term, entry.chain));
        }
        for (at, term, chain) in fresh.into_iter().rev() {
            self.forgets(process, raft.term(), seen, at)?;
            seen.log.push((term, chain));
            let index = LogIndex::new(at as u64 + 1);
            let known = *self.chains.entry((index, term)).or_insert(chain);
            if known != chain {
                let who = shown(process);
                return broken(
                    "R3",
                    format!("{who} holds {chain:x} at index {index} term {term}, others {known:x}"),
                );
            }
        }
        Ok(())
    }

    /// R3, R18: a log that begins after a snapshot begins with what is committed.
    fn begins_rightly(
        &self,
        process: Process,
        raft: &Raft,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        let base = raft.log_base();
        let covered = usize::try_from(base.index.get()).unwrap_or(usize::MAX);
        let end = (base.term, base.chain);
        if covered == 0 || seen.log.get(covered - 1) == Some(&end) {
            return Ok(());
        }
        let Some(committed) = self.committed.get(..covered).filter(|c| c.last() == Some(&end))
        else {
            let (who, index) = (shown(process), base.index);
            return broken(
                "R3",
                format!("{who} has a snapshot up to {index} that nobody committed"),
            );
        };
        let same = seen.log.iter().zip(committed).take_while(|(a, b)| a == b).count();
        self.forgets(process, raft.term(), seen, same)?;
        seen.log.extend(committed.iter().skip(same));
        Ok(())
    }

    /// R11: what is committed anywhere leaves no log that was counted for it. Whoever is still in
    /// an earlier term was not: its copy may yield to an earlier leader, which never commits what
    /// it puts there.
    fn forgets(
        &self,
        process: Process,
        term: Term,
        seen: &mut Seen,
        keep: usize,
    ) -> Result<(), Violation> {
        let committed = self.committed.iter().zip(&self.committed_in);
        let mut dropped = seen.log.iter().zip(committed).skip(keep);
        if dropped.any(|(held, (committed, of))| held == committed && term >= *of) {
            let (who, index) = (shown(process), keep + 1);
            return broken("R11", format!("{who} drops its log from committed index {index} on"));
        }
        seen.log.truncate(keep);
        Ok(())
    }

    /// R1, R4, R9: one leader for each term, with all that was committed before it, and at most one
    /// configuration on its way. Whether it leads since this event.
    fn leads_rightly(
        &mut self,
        process: Process,
        id: NodeId,
        raft: &Raft,
        seen: &mut Seen,
    ) -> Result<bool, Violation> {
        let leads = raft.role() == RoleKind::Leader;
        let fresh = leads && !(seen.leads && seen.term == raft.term());
        seen.leads = leads;
        if !leads {
            return Ok(false);
        }
        let term = raft.term();
        let leader = *self.leaders.entry(term).or_insert(id);
        if leader != id {
            return broken("R1", format!("term {term} has the leaders {leader} and {id}"));
        }
        // What the world saw committed counts as committed, even if this leader does not know it.
        let known = self.committed.len() as u64;
        let uncommitted = raft
            .entries()
            .rev()
            .take_while(|entry| entry.index > raft.commit() && entry.index.get() > known)
            .filter(|entry| entry.kind == EntryKind::Config)
            .count();
        if uncommitted > 1 {
            let who = shown(process);
            return broken("R9", format!("{who} has {uncommitted} uncommitted configurations"));
        }
        if !fresh {
            return Ok(false);
        }
        let before = self.committed_in.iter().rposition(|of| *of < term);
        let Some(at) = before else { return Ok(true) };
        if seen.log.get(at) != self.committed.get(at) {
            let who = shown(process);
            let index = at + 1;
            return broken(
                "R4",
                format!("{who} leads term {term} without committed index {index}"),
            );
        }
        Ok(true)
    }

    /// R5: what one server commits, every server commits.
    fn commits_rightly(
        &mut self,
        process: Process,
        raft: &Raft,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let from = usize::try_from(seen.commit.get()).unwrap_or(usize::MAX);
        let to = usize::try_from(raft.commit().get()).unwrap_or(usize::MAX);
        let known = self.committed.len();
        if to > known {
            let newest = raft.entries().rev().take_while(|entry| entry.index.get() > known as u64);
            let fresh = newest.filter(|entry| entry.index <= raft.commit()).cloned();
            self.fresh.extend(fresh);
            self.fresh.sort_by_key(|entry| entry.index);
        }
        for at in from..to {
            let Some(mine) = seen.log.get(at).copied() else {
                return broken("R8", format!("{} commits beyond its log", shown(process)));
            };
            match self.committed.get(at) {
                None => {
                    self.committed.push(mine);
                    self.committed_in.push(raft.term());
                }
                Some(known) if *known == mine => {}
                Some(known) => {
                    let (who, index) = (shown(process), at + 1);
                    return broken(
                        "R5",
                        format!("{who} commits {mine:x?} at index {index}, others {known:x?}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// R16: whoever claims the permission of a leader has it; anybody else could break a lease and
    /// depose a leader that all hear.
    fn is_permitted(&mut self, process: Process, message: &Message) -> Result<(), Violation> {
        let header = message.header;
        if let Body::TimeoutNow { .. } = message.body {
            self.permitted.insert((header.term, header.to));
        }
        let Body::RequestVote(campaign) = message.body else { return Ok(()) };
        let Some(from) = campaign.transfer_from else { return Ok(()) };
        if self.permitted.contains(&(from, header.from)) {
            return Ok(());
        }
        let (who, term) = (shown(process), header.term);
        broken(
            "R16",
            format!("{who} campaigns in term {term}: the leader of {from} did not ask it to"),
        )
    }

    /// R7, R17: what a server says is on its disk, and it votes once in a term, across restarts.
    pub(super) fn sent(
        &mut self,
        world: &mut World,
        process: Process,
        data: &[u8],
    ) -> Result<(), Violation> {
        for message in raft_messages(data) {
            let header = message.header;
            Self::is_durable(world, process, &message)?;
            self.is_permitted(process, &message)?;
            let candidate = match message.body {
                Body::VoteAnswer { refusal: None } => header.to,
                Body::RequestVote(_) => header.from,
                Body::VoteAnswer { refusal: Some(_) }
                | Body::PreVote(_)
                | Body::PreVoteAnswer { .. }
                | Body::Append(_)
                | Body::AppendOk { .. }
                | Body::AppendReject(_)
                | Body::SnapshotBlock(_)
                | Body::SnapshotAnswer { .. }
                | Body::Heartbeat { .. }
                | Body::HeartbeatAnswer { .. }
                | Body::TimeoutNow { .. }
                | Body::TransferReject { .. } => continue,
            };
            let (store, term) = (header.from_store, header.term);
            let known = *self.votes.entry((store, term)).or_insert(candidate);
            if known != candidate {
                let who = shown(process);
                return broken(
                    "R7",
                    format!("{who} votes in term {term} for {known} and for {candidate}"),
                );
            }
        }
        Ok(())
    }

    fn is_durable(world: &mut World, process: Process, message: &Message) -> Result<(), Violation> {
        let header = message.header;
        let supports = |durable: &Durable| {
            header.term <= durable.term
                && match &message.body {
                    Body::AppendOk { match_index, .. } => match_index.get() <= durable.last,
                    Body::VoteAnswer { refusal: None } => {
                        durable.term > header.term || durable.vote == Some(header.to)
                    }
                    Body::RequestVote(_) => {
                        durable.term > header.term || durable.vote == Some(header.from)
                    }
                    Body::VoteAnswer { refusal: Some(_) }
                    | Body::PreVote(_)
                    | Body::PreVoteAnswer { .. }
                    | Body::Append(_)
                    | Body::AppendReject(_)
                    | Body::SnapshotBlock(_)
                    | Body::SnapshotAnswer { .. }
                    | Body::Heartbeat { .. }
                    | Body::HeartbeatAnswer { .. }
                    | Body::TimeoutNow { .. }
                    | Body::TransferReject { .. } => true,
                }
        };
        if !world.hosts[process.host].is_up() {
            return Ok(());
        }
        let host = &mut world.hosts[process.host];
        let read = match durable_now(host) {
            Ok(durable) if supports(&durable) => return Ok(()),
            Ok(_) => with_snapshots(host),
            Err(error) => Err(error),
        };
        match read {
            Ok(durable) if supports(&durable) => Ok(()),
            Ok(_) => not_durable(process, message),
            Err(error) => broken("R18", format!("{}: a power loss now: {error}", shown(process))),
        }
    }
}

/// R19: when a server begins to lead, no leader of an earlier term of its cluster may answer reads,
/// by its own clock. One that learns late that it won a term which is over commits nothing.
pub(super) fn no_other_lease(world: &World, host: HostId) -> Result<(), Violation> {
    let Some(new) = raft(&world.hosts[host]) else { return Ok(()) };
    let is_earlier = |raft: &&Raft| raft.cluster() == new.cluster() && raft.term() < new.term();
    for other in world.hosts.iter().filter(|other| other.id != host) {
        let Some(raft) = raft(other).filter(is_earlier) else { continue };
        let now = other.local_time(world.now);
        if let Some(until) = raft.lease_until(now).filter(|end| *end > now) {
            let who = shown(other.process());
            let facts = format!("host {host} leads now, {who} has a lease: {until:?} > {now:?}");
            return broken("R19", facts);
        }
    }
    Ok(())
}

/// How long a leader may lead with a disk that does not answer: it notices after a heartbeat
/// timeout, and hands over, perhaps twice, for an election timeout; a patient one takes longer.
const DISK_LIMIT: Duration = Duration::from_secs(4);

/// R21: a leader of others whose disk does not answer makes room for another one (raft.md §5.2).
/// It cannot while its process gets no time.
pub(super) fn disk_answers(world: &World, host: HostId) -> Result<(), Violation> {
    let host = &world.hosts[host];
    let Some(raft) = raft(host).filter(|raft| raft.role() == RoleKind::Leader) else {
        return Ok(());
    };
    let patience = host.config.server.as_ref().map_or(1, |server| server.raft_multiplier);
    let limit = DISK_LIMIT * patience;
    let since = raft.persisting_since().map(|at| host.world_time(at).max(host.awake_at));
    let stalled = since.map(|since| world.now.since(since)).filter(|time| *time > limit);
    match stalled.filter(|_| raft.configuration().voters.len() > 1) {
        None => Ok(()),
        Some(time) => {
            let who = shown(host.process());
            broken("R21", format!("{who} leads, its disk has not answered for {time:?}"))
        }
    }
}

fn raft(host: &Host) -> Option<&Raft> {
    host.running.as_ref()?.node.raft()
}

fn not_durable(process: Process, message: &Message) -> Result<(), Violation> {
    let who = shown(process);
    broken("R17", format!("{who} says what its disk does not hold: {message:?}"))
}

/// The consensus messages among whole frames.
fn raft_messages(mut data: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = data.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        data = rest;
        if let Ok(Frame::Raft(payload)) = Frame::decode(body) {
            messages.extend(pack::from_bytes::<Message>(&payload).ok());
        }
    }
    messages
}
