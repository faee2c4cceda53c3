//! What must hold of such a cluster at any time (raft.md §12).

use super::super::{Body, Entry, Message, ReadId, RoleKind, quorum};
use super::disk::disk_last;
use super::{Cluster, node};
use crate::id::{LogIndex, NodeId, Term};
use crate::time::Instant;

impl Cluster {
    /// Election Safety and Leader Completeness (Raft paper §5.2, §5.4).
    pub(super) fn check_leader(&mut self, n: u8, term: Term) {
        let first = *self.leaders.entry(term).or_insert(n);
        assert_eq!(first, n, "INV-RAFT-1: two leaders in term {term}");
        let raft = self.hosts[&n].raft.as_ref().unwrap();
        let base = usize::try_from(raft.log_base().index.get()).unwrap();
        for (entry, held) in self.committed.iter().skip(base).zip(raft.entries()) {
            assert_eq!(entry, held, "INV-RAFT-4: leader {n} of term {term} lacks an entry");
        }
        let last = raft.last_index().get();
        assert!(last >= self.committed.len() as u64, "INV-RAFT-4: leader {n} has a short log");
        for (other, host) in self.hosts.iter().filter(|(other, _)| **other != n) {
            let lease = host.raft.as_ref().and_then(|raft| raft.lease_until(self.now));
            let over = lease.is_none_or(|until| until <= self.now);
            assert!(over, "INV-RAFT-10: {n} leads term {term} while {other} has a lease");
        }
    }

    /// A read is answered from a state that holds whatever was acknowledged before it came, and a
    /// quorum has followed this leader since (raft.md I12; Raft thesis §6.4).
    pub(super) fn check_read(&self, n: u8, id: ReadId) {
        let (came, floor) = self.asked[&id];
        let applied = LogIndex::new(self.hosts[&n].applied.len() as u64);
        assert!(applied >= floor, "INV-RAFT-12: {n} answers a read too early");
        let Some(raft) = &self.hosts[&n].raft else { return };
        let voters = &raft.configuration().voters;
        let followed = |voter: &NodeId| {
            let answer = self.answered.get(&(voter.as_bytes()[0], n));
            let since = answer.is_some_and(|(term, at)| *term == raft.term() && *at >= came);
            since || *voter == node(n)
        };
        assert!(quorum::reached(voters, followed), "INV-RAFT-12: {n} is not sure that it leads");
    }

    /// State Machine Safety (Raft paper §5.4), and no gap or repetition.
    pub(super) fn check_apply(&mut self, n: u8, entries: &[Entry]) {
        let disk = &self.hosts[&n].disk;
        for entry in entries {
            let position = usize::try_from(entry.index.get()).unwrap() - 1;
            assert_eq!(self.hosts[&n].applied.len() + 1, {
                let before = entries.iter().filter(|e| e.index < entry.index).count();
                position + 1 - before
            });
            assert!(entry.index <= disk_last(disk), "INV-RAFT-8: applied what is not durable");
            match self.committed.get(position) {
                Some(other) => assert_eq!(other, entry, "INV-RAFT-5: {n} applies another entry"),
                None => self.committed.push(entry.clone()),
            }
        }
    }

    /// A leader whose lease has not run out goes on in its term, unless its removal is committed
    /// (raft.md I15): `before` is its term and its lease before what it has just handled.
    pub(super) fn check_constancy(&self, n: u8, before: (Term, Option<Instant>)) {
        let (term, lease) = before;
        let Some(raft) = &self.hosts[&n].raft else { return };
        let relied = lease.is_some_and(|until| until > self.now) && raft.term() == term;
        if relied && raft.role() != RoleKind::Leader {
            let removed = !raft.configuration().is_voter(node(n));
            assert!(removed && raft.configuration_is_committed(), "INV-RAFT-15: {n} steps down");
        }
    }

    /// Nothing is said before what it rests on is durable (raft.md §11.4).
    pub(super) fn check_send(&self, n: u8, message: &Message) {
        let disk = &self.hosts[&n].disk;
        let term = message.header.term;
        assert!(disk.hard.term >= term, "INV-RAFT-13: {n} speaks in term {term}: {message:?}");
        assert_eq!(disk.cluster, Some(message.header.cluster));
        match &message.body {
            Body::AppendOk { match_index, .. } => {
                let durable = disk_last(disk);
                assert!(durable >= *match_index, "INV-RAFT-13: {n} acknowledges too early");
                // What is there must be what is meant, and not what it is about to replace.
                let held = disk.entries.iter().find(|entry| entry.index == *match_index);
                let raft = self.hosts[&n].raft.as_ref();
                let meant = raft.and_then(|raft| raft.shared.log.get(*match_index));
                let same = held.zip(meant).is_none_or(|(held, meant)| held.term == meant.term);
                assert!(same, "INV-RAFT-13: {n} acknowledges what its disk does not hold");
            }
            Body::RequestVote(_) => {
                assert_eq!(disk.hard.voted_for, Some(node(n)), "INV-RAFT-13: own vote");
            }
            Body::VoteAnswer { refusal: None } => {
                let voted = disk.hard.voted_for;
                assert_eq!(voted, Some(message.header.to), "INV-RAFT-13: vote before durable");
            }
            Body::PreVoteAnswer { campaign_term, refusal: None } => {
                // Where nobody may answer a read any more, only this keeps a server from raising
                // the term again and again that cannot win (Raft thesis §9.6).
                let asked = (n, message.header.to, *campaign_term);
                assert!(self.deserved.contains(&asked), "INV-RAFT-16: {n} misleads a server");
            }
            Body::PreVote(_)
            | Body::PreVoteAnswer { refusal: Some(_), .. }
            | Body::VoteAnswer { refusal: Some(_) }
            | Body::Append(_)
            | Body::AppendReject(_)
            | Body::SnapshotBlock(_)
            | Body::SnapshotAnswer { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatAnswer { .. }
            | Body::TimeoutNow { .. }
            | Body::TransferReject { .. } => {}
        }
    }

    /// Every acknowledged proposal is committed, and all running servers hold the same log up to
    /// the commit index.
    pub(in super::super) fn check_agreement(&self) {
        for (n, host) in &self.hosts {
            let Some(raft) = &host.raft else { continue };
            assert_eq!(raft.applied(), raft.commit(), "server {n} applied all that is committed");
            let commit = usize::try_from(raft.commit().get()).unwrap();
            assert_eq!(host.applied, self.committed[..commit]);
            let base = raft.log_base().index;
            let held = raft.entries().take_while(|entry| entry.index <= raft.commit());
            let known = self.committed.iter().take(commit).skip_while(|e| e.index <= base);
            assert_eq!(held.collect::<Vec<_>>(), known.collect::<Vec<_>>());
        }
        for (id, index) in &self.done {
            assert!(self.committed.iter().any(|entry| entry.index == *index), "lost {id:?}");
        }
    }
}
