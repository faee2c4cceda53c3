//! Joining: one state exchange with each address given, several at a time.
//!
//! Implements gossip-protocol.md §14. A join succeeds if one address answers; what went wrong with
//! the others is reported line by line.
//!
//! Differs: addresses are tried side by side instead of one after the other, so that dead ones do
//! not hold up the living.

use super::push_pull::Purpose;
use super::{Gossip, GossipOutput, JoinId};
use crate::machine::Outbox;
use crate::time::Instant;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Joins that may run at once.
const JOINS_MAX: usize = 64;
/// Addresses one join may name.
const JOIN_ADDRESSES_MAX: usize = 256;
/// Exchanges one join runs at once.
const JOIN_EXCHANGES_MAX: usize = 8;

/// A join that is running.
#[derive(Clone, Debug, Default)]
pub(super) struct Join {
    waiting: VecDeque<SocketAddr>,
    running: usize,
    contacted: usize,
    errors: Vec<String>,
}

impl Gossip {
    /// Begins to exchange state with each of `addresses`.
    pub(super) fn join(
        &mut self,
        now: Instant,
        id: JoinId,
        addresses: Vec<SocketAddr>,
        out: &mut Outbox<GossipOutput>,
    ) {
        let refusal = if !self.is_active() {
            Some("the agent is leaving".to_owned())
        } else if addresses.len() > JOIN_ADDRESSES_MAX {
            Some(format!("at most {JOIN_ADDRESSES_MAX} addresses are allowed"))
        } else if self.joins.len() >= JOINS_MAX || self.joins.contains_key(&id) {
            Some("too many joins are running".to_owned())
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let errors = vec![refusal];
            out.push(GossipOutput::JoinFinished { join: id, contacted: 0, errors });
            return;
        }
        self.joins.insert(id, Join { waiting: addresses.into(), ..Join::default() });
        self.join_more(now, id, out);
    }

    /// One address of a join answered, or did not.
    pub(super) fn joined_one(
        &mut self,
        now: Instant,
        id: JoinId,
        peer: SocketAddr,
        result: Result<(), String>,
        out: &mut Outbox<GossipOutput>,
    ) {
        let Some(join) = self.joins.get_mut(&id) else { return };
        join.running -= 1;
        match result {
            Ok(()) => join.contacted += 1,
            Err(reason) => join.errors.push(format!("{peer}: {reason}")),
        }
        self.join_more(now, id, out);
    }

    fn join_more(&mut self, now: Instant, id: JoinId, out: &mut Outbox<GossipOutput>) {
        let deadline = now + self.config.stream_timeout;
        loop {
            let Some(join) = self.joins.get_mut(&id) else { return };
            if join.running >= JOIN_EXCHANGES_MAX {
                return;
            }
            let Some(address) = join.waiting.pop_front() else { break };
            join.running += 1;
            let purpose = Purpose::PushPull { join: Some(id) };
            self.open_exchange(now, address, purpose, deadline, out);
        }
        if self.joins.get(&id).is_some_and(|join| join.running == 0)
            && let Some(join) = self.joins.remove(&id)
        {
            let Join { contacted, errors, .. } = join;
            out.push(GossipOutput::JoinFinished { join: id, contacted, errors });
        }
    }
}
