//! What this server is asked to do itself, by ticket: proposals, reads, and what Serf does.
//!
//! A write is proposed and answered once it is applied here. A default read is answered at once
//! while the lease holds; without a lease, and for `consistent`, a quorum confirms first that this
//! server leads (raft.md §7), so that the state read holds every write acknowledged before the read
//! came; what becomes of reads is in `reads`.

use super::Node;
use super::request::{BackupRequest, Request, RequestBody, RequestError, Response};
use super::serf_requests::Asker;
use super::status::{WriteKind, WriteTimes};
use crate::catalog::command::Applied;
use crate::event::FireEvent;
use crate::id::{LogIndex, NodeId};
use crate::machine::Machine as _;
use crate::raft::{Change, ProposalError, ProposalId, RaftInput, ReadId, TransferId};
use crate::reconcile::{ReconcileInput, ReconcileTicket, StepError};
use crate::rpc::{RpcInput, Ticket};
use crate::time::Instant;
use crate::watch::Parked;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who waits for a proposal.
#[derive(Clone, Debug)]
enum Proposer {
    /// A write.
    Write(Ticket, WriteKind),
    /// Leader duties.
    Reconcile(ReconcileTicket),
    /// An operator.
    Operator(Ticket),
    /// The leave of this server.
    Leave,
}

/// Proposals and reads on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    issued: u64,
    /// By whom each was made, and when.
    waiting: BTreeMap<ProposalId, (Proposer, Instant)>,
    times: WriteTimes,
    transfers_issued: u64,
    /// Operators who wait for a transfer of leadership.
    transfers: BTreeMap<TransferId, Ticket>,
    reads_issued: u64,
    /// Reads that a quorum is to confirm.
    reads: BTreeMap<ReadId, Parked>,
}

impl Serving {
    fn issue(&mut self, now: Instant, proposer: Proposer) -> ProposalId {
        self.issued += 1;
        let id = ProposalId(self.issued);
        self.waiting.insert(id, (proposer, now));
        id
    }

    /// How many proposals there were.
    pub(super) const fn proposals(&self) -> u64 {
        self.issued
    }

    /// How long those took that were applied.
    pub(super) const fn times(&self) -> &WriteTimes {
        &self.times
    }

    /// Takes a proposal that was applied, and notes how long that took.
    fn take_applied(&mut self, now: Instant, id: ProposalId) -> Option<Proposer> {
        let (proposer, since) = self.waiting.remove(&id)?;
        let took = now.since(since);
        self.times.all.record(took);
        if let Proposer::Write(_, kind) = proposer {
            self.times.record(kind, took);
        }
        Some(proposer)
    }

    /// Notes an operator who waits for a change of the configuration.
    pub(super) fn issue_change(&mut self, now: Instant, ticket: Ticket) -> ProposalId {
        self.issue(now, Proposer::Operator(ticket))
    }

    /// Notes an operator who waits for another leader.
    pub(super) fn issue_transfer(&mut self, ticket: Ticket) -> TransferId {
        self.transfers_issued += 1;
        let id = TransferId(self.transfers_issued);
        self.transfers.insert(id, ticket);
        id
    }

    /// The operator who waits for this transfer.
    pub(super) fn take_transfer(&mut self, id: TransferId) -> Option<Ticket> {
        self.transfers.remove(&id)
    }

    /// Notes a read that is to be confirmed.
    pub(super) fn issue_read(&mut self, read: Parked) -> ReadId {
        self.reads_issued += 1;
        let id = ReadId(self.reads_issued);
        self.reads.insert(id, read);
        id
    }

    /// The read that was to be confirmed.
    pub(super) fn take_read(&mut self, id: ReadId) -> Option<Parked> {
        self.reads.remove(&id)
    }
}

impl Node {
    /// Executes a request on this server; the outcome goes back to the rpc machine.
    pub(super) fn execute(&mut self, now: Instant, ticket: Ticket, request: Arc<Request>) {
        let Some(server) = self.server.as_deref_mut() else {
            self.executed(now, ticket, Err(RequestError::NoLeader));
            return;
        };
        let input = match &request.body {
            RequestBody::Write(command) => {
                let proposer = Proposer::Write(ticket, WriteKind::of(command));
                let id = server.serving.issue(now, proposer);
                RaftInput::Propose { id, payload: command.encode() }
            }
            RequestBody::Query(_)
            | RequestBody::ExecutePrepared(_)
            | RequestBody::Backup(BackupRequest::Open) => {
                return self.read(now, ticket, request);
            }
            RequestBody::RenewSession(id) => {
                let (id, context) = (*id, request.context.clone());
                return self.renew_session(now, ticket, (id, context));
            }
            RequestBody::Backup(BackupRequest::Read(read)) => {
                let read = *read;
                return self.read_backup(now, ticket, read);
            }
            RequestBody::Backup(BackupRequest::Close(backup)) => {
                let backup = *backup;
                return self.close_backup(now, ticket, backup);
            }
            RequestBody::FireEvent(fire) => {
                let fire = FireEvent::clone(fire);
                self.fire_event(now, Asker::Execution(ticket), fire);
                return;
            }
            RequestBody::Operator(wanted) => {
                let wanted = wanted.clone();
                return self.operate(now, ticket, wanted);
            }
            RequestBody::Keys(keys) => {
                self.ask_for_keys(now, Asker::Execution(ticket), keys.clone());
                return;
            }
            RequestBody::Join { .. }
            | RequestBody::Serf(_)
            | RequestBody::Coordinates
            | RequestBody::ForceLeave { .. }
            | RequestBody::Leave { .. }
            | RequestBody::RegisterService { .. }
            | RequestBody::DeregisterService(_)
            | RequestBody::RegisterCheck(_)
            | RequestBody::DeregisterCheck(_)
            | RequestBody::UpdateTtl { .. }
            | RequestBody::Reload(_)
            | RequestBody::Maintenance(_)
            | RequestBody::Info
            | RequestBody::Status
            | RequestBody::Monitor(_) => {
                let text = "this is not answered for other agents".to_owned();
                self.executed(now, ticket, Err(RequestError::Refused(text)));
                return;
            }
        };
        server.raft.handle(now, input, &mut self.boxes.raft);
    }

    /// Proposes on behalf of leader duties.
    pub(super) fn propose_for_reconcile(
        &mut self,
        now: Instant,
        ticket: ReconcileTicket,
        input: impl FnOnce(ProposalId) -> RaftInput,
    ) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let id = server.serving.issue(now, Proposer::Reconcile(ticket));
        server.raft.handle(now, input(id), &mut self.boxes.raft);
    }

    /// Proposes that this server leaves the configuration.
    pub(super) fn propose_own_removal(&mut self, now: Instant, id: NodeId, force: bool) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let proposal = server.serving.issue(now, Proposer::Leave);
        let change = Change::Remove { server: id, force };
        let input = RaftInput::Change { id: proposal, change };
        server.raft.handle(now, input, &mut self.boxes.raft);
    }

    /// Asks consensus to hand leadership over for the leave of this server.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let input = RaftInput::Transfer { id: TransferId::OF_LEAVE, to: None };
        server.raft.handle(now, input, &mut self.boxes.raft);
    }

    /// A proposal is committed and applied here.
    pub(super) fn proposal_applied(&mut self, now: Instant, id: ProposalId, index: LogIndex) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let Some(proposer) = server.serving.take_applied(now, id) else { return };
        let outcome = server.take_outcome(index);
        match proposer {
            Proposer::Write(ticket, _) => {
                let result = match outcome {
                    Ok(Applied::Done) => Ok(Response::Done),
                    Ok(Applied::Unmet) => Ok(Response::Unmet),
                    Ok(Applied::Transaction(result)) => Ok(Response::Transaction(result)),
                    Err(error) => Err(RequestError::Refused(error.to_string())),
                };
                self.executed(now, ticket, result);
            }
            Proposer::Reconcile(ticket) => {
                let result = outcome.map(|_| ()).map_err(StepError::Refused);
                self.tell_reconcile(now, ReconcileInput::Done { ticket, result });
            }
            Proposer::Operator(ticket) => self.change_ended(now, ticket, Ok(())),
            Proposer::Leave => self.own_removal_settled(now),
        }
    }

    /// A proposal was not done, or its outcome is unknown.
    pub(super) fn proposal_failed(&mut self, now: Instant, id: ProposalId, error: ProposalError) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let Some((proposer, _)) = server.serving.waiting.remove(&id) else { return };
        match proposer {
            Proposer::Write(ticket, _) => self.executed(now, ticket, Err(write_error(error))),
            Proposer::Reconcile(ticket) => {
                let result = Err(StepError::Failed(error));
                self.tell_reconcile(now, ReconcileInput::Done { ticket, result });
            }
            Proposer::Operator(ticket) => self.change_ended(now, ticket, Err(error)),
            Proposer::Leave => self.own_removal_settled(now),
        }
    }

    pub(super) fn executed(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Response, RequestError>,
    ) {
        self.rpc.handle(now, RpcInput::Executed { ticket, result }, &mut self.boxes.rpc);
    }
}

/// What a write's failure means to whoever asked for it.
pub(super) fn write_error(error: ProposalError) -> RequestError {
    match error {
        ProposalError::NotLeader | ProposalError::HandingOver | ProposalError::Unreachable => {
            RequestError::NoLeader
        }
        ProposalError::LeadershipLost => RequestError::Unknown(error.to_string()),
        ProposalError::Overloaded => RequestError::Overloaded(error.to_string()),
        ProposalError::DiskFull | ProposalError::TooLarge { .. } | ProposalError::Refused(_) => {
            RequestError::Refused(error.to_string())
        }
    }
}
