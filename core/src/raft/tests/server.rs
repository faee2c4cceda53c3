//! One server with the others played by the test.

use super::*;
use crate::log::Log;
use crate::machine::{Machine, Outbox};
use crate::rng::{Rng, Seed, Stream};
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::pack;

/// One server of five with the others played by the test; its disk is instant.
pub(super) struct Server1 {
    pub(super) raft: Raft,
    pub(super) now: Instant,
    pub(super) sent: Vec<Message>,
    pub(super) applied: Vec<Entry>,
    /// Reads that were answered, and those that were not, in order.
    pub(super) ready: Vec<ReadId>,
    pub(super) refused: Vec<(ReadId, ReadError)>,
    /// How transfers and proposals ended, in order.
    pub(super) transfers: Vec<(TransferId, Result<(), TransferError>)>,
    pub(super) failed: Vec<(ProposalId, ProposalError)>,
    /// What it wants done about snapshots.
    pub(super) snapshots: Vec<SnapshotOutput>,
    /// What its disk holds beside the log.
    pub(super) identity: IdentityChange,
}

pub(super) fn log_of(terms: &[u64]) -> Log {
    let mut log = Log::default();
    let first = pack::to_bytes(&configuration(&[1, 2, 3, 4, 5]));
    log.append_new(Term::new(1), EntryKind::Config, first);
    for term in terms {
        let payload = Bytes::from(format!("of term {term}"));
        log.append_new(Term::new(*term), EntryKind::Command, payload);
    }
    log
}

impl Server1 {
    /// Server 1 in `term` with a log of a first configuration and entries of `terms`, long after
    /// its start.
    pub(super) fn new(term: u64, terms: &[u64]) -> Self {
        Self::with(settings(1), term, terms)
    }

    pub(super) fn with(settings: RaftSettings, term: u64, terms: &[u64]) -> Self {
        let entries = log_of(terms).iter().cloned().collect();
        let hard = HardState { term: Term::new(term), voted_for: None };
        let restored = RestoredRaft { cluster: Some(cluster_id()), hard, entries, ..blank(1) };
        Self::started(settings, restored)
    }

    /// One that begins with this, long after its start.
    pub(super) fn started(settings: RaftSettings, restored: RestoredRaft) -> Self {
        let mut out = Outbox::new(Level::Error);
        let rng = Rng::for_stream(Seed::from_number(1), Stream::Raft);
        let raft = Raft::new(settings, restored, rng, Instant::ZERO, &mut out);
        let now = Instant::ZERO + Duration::from_millis(1001);
        let mut server = Self {
            raft,
            now,
            sent: Vec::new(),
            applied: Vec::new(),
            ready: Vec::new(),
            refused: Vec::new(),
            transfers: Vec::new(),
            failed: Vec::new(),
            snapshots: Vec::new(),
            identity: IdentityChange::default(),
        };
        server.perform(out);
        server
    }

    pub(super) fn perform(&mut self, mut out: Outbox<RaftOutput>) {
        while let Some(output) = out.pop() {
            match output {
                RaftOutput::Persist { seq, batch } => {
                    self.identity.recovered |= batch.identity.recovered;
                    self.raft.handle(self.now, RaftInput::PersistDone { seq }, &mut out);
                }
                RaftOutput::Send { message, .. } => self.sent.push(message),
                RaftOutput::Apply { entries } => {
                    let index = entries.last().unwrap().index;
                    self.applied.extend(entries);
                    self.raft.handle(self.now, RaftInput::Applied { index }, &mut out);
                }
                RaftOutput::Fatal(rule) => panic!("{rule}"),
                RaftOutput::ReadReady { id } => self.ready.push(id),
                RaftOutput::ReadFailed { id, error } => self.refused.push((id, error)),
                RaftOutput::TransferEnded { id, result } => self.transfers.push((id, result)),
                RaftOutput::ProposalFailed { id, error } => self.failed.push((id, error)),
                RaftOutput::Snapshot(output) => self.snapshots.push(output),
                RaftOutput::ProposalApplied { .. }
                | RaftOutput::RoleChanged { .. }
                | RaftOutput::LeaderReady { .. }
                | RaftOutput::LeadershipLost { .. }
                | RaftOutput::ConfigurationChanged { .. }
                | RaftOutput::ClusterKnown { .. }
                | RaftOutput::Removed
                | RaftOutput::Trace(..) => {}
            }
        }
    }

    /// A message of server `from` in `term`, sent now; returns what is sent because of it.
    pub(super) fn receive(&mut self, from: u8, term: u64, body: Body) -> Vec<Body> {
        self.receive_sent_at(self.now, from, term, body)
    }

    /// The same, sent some time ago.
    pub(super) fn receive_sent_at(
        &mut self,
        sent_at: Instant,
        from: u8,
        term: u64,
        body: Body,
    ) -> Vec<Body> {
        let header = Header {
            cluster: cluster_id(),
            from: node(from),
            address: address(from),
            from_store: store(from),
            to: node(1),
            term: Term::new(term),
            sent_at: sent_at.as_nanos(),
        };
        self.input(RaftInput::Receive(Message { header, body }))
    }

    /// What was sent because of the last input.
    pub(super) fn sent_bodies(&self) -> Vec<Body> {
        self.sent.iter().map(|message| message.body.clone()).collect()
    }

    /// Returns what is sent because of an input.
    pub(super) fn input(&mut self, input: RaftInput) -> Vec<Body> {
        let mut out = Outbox::new(Level::Error);
        self.sent.clear();
        self.raft.handle(self.now, input, &mut out);
        self.perform(out);
        self.sent_bodies()
    }

    /// Lets its next timer fire; returns what is sent because of it.
    pub(super) fn time_out(&mut self) -> Vec<Body> {
        self.now = self.raft.next_timeout().unwrap();
        let mut out = Outbox::new(Level::Error);
        self.sent.clear();
        self.raft.handle_timeout(self.now, &mut out);
        self.perform(out);
        self.sent_bodies()
    }

    pub(super) fn ask_vote(&mut self, from: u8, term: u64, last: (u64, u64)) -> Option<Refusal> {
        let (last_index, last_term) = (LogIndex::new(last.0), Term::new(last.1));
        let transfer_from = None;
        let campaign = Campaign { term: Term::new(term), last_index, last_term, transfer_from };
        self.ask_vote_for(from, campaign)
    }

    pub(super) fn ask_vote_for(&mut self, from: u8, campaign: Campaign) -> Option<Refusal> {
        match self.receive(from, campaign.term.get(), Body::RequestVote(campaign)).as_slice() {
            [Body::VoteAnswer { refusal }] => *refusal,
            other => panic!("{other:?}"),
        }
    }

    /// Sends entries of `log` in `(prev, last]`.
    pub(super) fn append(
        &mut self,
        term: u64,
        log: &Log,
        range: (u64, u64),
        commit: u64,
    ) -> Vec<Body> {
        let (prev, last) = (LogIndex::new(range.0), LogIndex::new(range.1));
        let append = Append {
            prev_index: prev,
            prev_term: log.term(prev).unwrap(),
            prev_chain: log.position(prev).unwrap().chain,
            commit: LogIndex::new(commit),
            entries: log.range(prev, last).to_vec(),
        };
        self.receive(2, term, Body::Append(append))
    }

    /// Makes it the leader of the next term by the votes of servers 2 and 3.
    pub(super) fn elect(&mut self) -> u64 {
        self.time_out();
        let campaign_term = self.raft.term().next();
        for from in [2, 3] {
            let term = self.raft.term().get();
            self.receive(from, term, Body::PreVoteAnswer { campaign_term, refusal: None });
        }
        let term = self.raft.term().get();
        for from in [2, 3] {
            self.receive(from, term, Body::VoteAnswer { refusal: None });
        }
        assert_eq!(self.raft.role(), RoleKind::Leader);
        term
    }

    pub(super) fn acknowledge(&mut self, from: u8, term: u64, index: u64) {
        let match_index = LogIndex::new(index);
        self.receive(from, term, Body::AppendOk { match_index, condition: well() });
    }
}

/// A server that has applied nothing and does well.
pub(super) fn well() -> Condition {
    let patience = Duration::from_secs(1);
    Condition { applied: LogIndex::ZERO, patience, unfit: None }
}

pub(super) fn is_ok_at(answers: &[Body], index: u64) -> bool {
    matches!(answers, [Body::AppendOk { match_index, .. }] if match_index.get() == index)
}
