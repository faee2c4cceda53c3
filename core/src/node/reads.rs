//! Reads that this server answers: at once, once its leadership is confirmed, or once what they
//! read has changed (raft.md §7; http-api.md §1.5, §1.6).
//!
//! A read that has waited is answered as freshly as its mode asks: a default read by the lease or
//! a confirmation at that moment, a consistent one by a confirmation. One that waits on a leader
//! goes to the next leader when that one steps down.

use super::Node;
use super::request::{BackupRequest, Request, RequestBody, RequestContext, RequestError, Response};
use crate::catalog::query::{Consistency, Query, QueryAnswer};
use crate::id::{ModifyIndex, SessionId};
use crate::machine::Machine as _;
use crate::raft::{RaftInput, ReadError, ReadId};
use crate::rpc::Ticket;
use crate::time::Instant;
use crate::view::{ServerState, answer_now};
use crate::watch::Parked;
use std::sync::Arc;

impl Node {
    /// Takes a read that came just now.
    pub(super) fn read(&mut self, now: Instant, ticket: Ticket, request: Arc<Request>) {
        self.stats.reads += 1;
        let Some(server) = self.server.as_deref_mut() else { return };
        let wait = request.context.waits();
        let until = wait.map_or(now, |wait| now + wait + server.rng.jitter(wait / 16));
        self.read_until(now, Parked { ticket, request, until });
    }

    /// Gives a session its full time again. It is told so as a default read of it is, so that no
    /// server tells it that has been deposed; one that is about to end is told to be gone.
    pub(super) fn renew_session(
        &mut self,
        now: Instant,
        ticket: Ticket,
        (id, context): (SessionId, RequestContext),
    ) {
        let Some(server) = self.server.as_deref_mut() else { return };
        if !server.reconcile.leads() {
            return self.executed(now, ticket, Err(RequestError::NoLeader));
        }
        if !server.reconcile.renew(now, id, &server.tables) && server.tables.session(id).is_some() {
            let text = format!("Session id '{id}' not found");
            return self.executed(now, ticket, Err(RequestError::NotFound(text)));
        }
        let context = RequestContext {
            consistency: Consistency::Leader,
            min_index: ModifyIndex::ZERO,
            ..context
        };
        let body = RequestBody::Query(Query::Session(id));
        self.read(now, ticket, Arc::new(Request { context, body }));
    }

    /// Answers a read, or lets it wait, or confirms first that this server leads.
    fn read_until(&mut self, now: Instant, read: Parked) {
        let has_lease = self.has_lease(now);
        if is_fresh(read.request.context.consistency, has_lease) {
            self.read_now(now, read);
        } else {
            self.confirm(now, read);
        }
    }

    /// Whether this server may answer default reads without asking anybody.
    fn has_lease(&self, now: Instant) -> bool {
        let raft = self.server.as_deref().map(|server| &server.raft);
        raft.and_then(|raft| raft.lease_until(now)).is_some_and(|until| until > now)
    }

    /// Answers a read once a quorum has confirmed that this server leads.
    fn confirm(&mut self, now: Instant, read: Parked) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let id = server.serving.issue_read(read);
        server.raft.handle(now, RaftInput::Read { id }, &mut self.boxes.raft);
    }

    /// A read may be answered from what is applied here.
    pub(super) fn read_ready(&mut self, now: Instant, id: ReadId) {
        let read = self.server.as_deref_mut().and_then(|server| server.serving.take_read(id));
        let Some(read) = read else { return };
        if self.rpc.awaits(read.ticket) {
            self.read_now(now, read);
        } else {
            // Whoever gave up while a quorum was asked would be left waiting here.
            crate::mark!("watch.given_up");
        }
    }

    /// A read was not confirmed; it changed nothing, so another server is tried.
    pub(super) fn read_failed(&mut self, now: Instant, id: ReadId, error: ReadError) {
        let read = self.server.as_deref_mut().and_then(|server| server.serving.take_read(id));
        let Some(Parked { ticket, .. }) = read else { return };
        let error = match error {
            ReadError::NotLeader => RequestError::NoLeader,
            ReadError::Overloaded => RequestError::Overloaded(error.to_string()),
        };
        self.executed(now, ticket, Err(error));
    }

    /// Answers a read from the state of this moment, or lets it wait for another one.
    fn read_now(&mut self, now: Instant, read: Parked) {
        let request = Arc::clone(&read.request);
        if request.body == RequestBody::Backup(BackupRequest::Open) {
            return self.open_backup(now, &read);
        }
        if let RequestBody::ExecutePrepared(execution) = &request.body {
            return self.execute_prepared(now, &read, execution);
        }
        let RequestBody::Query(query) = &request.body else { return };
        let Some(answer) = self.answer_from_here(now, query, request.context.consistency) else {
            return;
        };
        if read.until > now && answer.index <= request.context.min_index {
            crate::mark!("watch.parked");
            let Some(server) = self.server.as_deref_mut() else { return };
            server.watches.park(read, query, &server.tables);
            return;
        }
        self.executed(now, read.ticket, Ok(Response::Answer(Arc::new(answer))));
    }

    pub(super) fn answer_from_here(
        &self,
        now: Instant,
        query: &Query,
        consistency: Consistency,
    ) -> Option<QueryAnswer> {
        let server = self.server.as_deref()?;
        let state = ServerState {
            tables: &server.tables,
            consensus: &server.raft.view(now),
            datacenters: &self.wan_state.datacenters,
        };
        Some(answer_now(state, query, consistency, now))
    }

    /// Looks who waits for what has been applied; called when nothing is left to route. Whether
    /// that gave something to route.
    pub(super) fn wake_reads(&mut self, now: Instant) -> bool {
        let Some(server) = self.server.as_deref_mut() else { return false };
        if !std::mem::take(&mut server.changed) || server.watches.is_empty() {
            return false;
        }
        let mut woken = false;
        for query in server.watches.look(&server.tables) {
            woken |= self.wake_group(now, &query);
        }
        woken
    }

    /// Answers all that ask `query` and have less than it gives now.
    fn wake_group(&mut self, now: Instant, query: &Arc<Query>) -> bool {
        let Some(answer) = self.answer_from_here(now, query, Consistency::Leader) else {
            return false;
        };
        let has_lease = self.has_lease(now);
        let Some(server) = self.server.as_deref_mut() else { return false };
        let index = if crate::mutant!(M40) { ModifyIndex::ZERO } else { answer.index };
        let taken = server.watches.take_older(query, index, &server.tables);
        let woken = !taken.is_empty();
        let stale = QueryAnswer { consistency: Consistency::Stale, ..answer.clone() };
        let (stale, of_leader) = (Arc::new(stale), Arc::new(answer));
        for read in taken {
            crate::mark!("watch.woken");
            let consistency = read.request.context.consistency;
            if is_fresh(consistency, has_lease) {
                // All of them share the rows.
                let shared = if consistency == Consistency::Stale { &stale } else { &of_leader };
                self.executed(now, read.ticket, Ok(Response::Answer(Arc::clone(shared))));
            } else {
                self.confirm(now, read);
            }
        }
        woken
    }

    /// Answers the reads that have waited long enough.
    pub(super) fn reads_due(&mut self, now: Instant) {
        let Some(server) = self.server.as_deref_mut() else { return };
        for read in server.watches.take_due(now) {
            crate::mark!("watch.over");
            self.read_until(now, read);
        }
    }

    /// Nobody waits for this read any more.
    pub(super) fn forget_read(&mut self, ticket: Ticket) {
        if let Some(server) = self.server.as_deref_mut() {
            server.watches.remove(ticket);
            server.executions.forget(ticket);
        }
    }

    /// This server leads no longer: what waits for a leader's word waits elsewhere.
    pub(super) fn end_leader_reads(&mut self, now: Instant) {
        let Some(server) = self.server.as_deref_mut() else { return };
        server.backups.end_of_leader();
        let of_leader = |request: &Request| request.context.consistency != Consistency::Stale;
        for read in server.watches.take_if(of_leader) {
            crate::mark!("watch.leader_gone");
            self.executed(now, read.ticket, Err(RequestError::NoLeader));
        }
    }
}

/// Whether the applied state of a server is as fresh as a read wants it.
const fn is_fresh(consistency: Consistency, has_lease: bool) -> bool {
    match consistency {
        Consistency::Stale => true,
        Consistency::Leader => has_lease,
        Consistency::Consistent => false,
    }
}
