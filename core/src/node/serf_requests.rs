//! What this agent's Serf layers are asked to do, by a request of this agent or for another one.

use super::Node;
use super::events::fired;
use super::request::{KeyringRequest, RequestError, Response};
use crate::id::{PoolName, RequestId};
use crate::rpc::Ticket;
use crate::serf::{SerfInput, SerfRefusal, SerfReply, SerfRequest};
use crate::time::Instant;

/// Who waits for what Serf is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A request of this agent.
    Request(RequestId),
    /// A request of another agent.
    Execution(Ticket),
}

impl Asker {
    /// Set in the numbers of what Serf does for other agents; a host counts its requests up from
    /// the lowest.
    const EXECUTION: u64 = 1 << 63;

    /// The number under which Serf is asked.
    pub(super) const fn number(self) -> RequestId {
        match self {
            Self::Request(id) => id,
            Self::Execution(ticket) => RequestId::new(Self::EXECUTION | ticket.0),
        }
    }

    /// Who asked under this number.
    const fn of(number: RequestId) -> Self {
        match number.get() & Self::EXECUTION {
            0 => Self::Request(number),
            _ => Self::Execution(Ticket(number.get() & !Self::EXECUTION)),
        }
    }
}

impl Node {
    /// Asks all members of a pool to do something with their keyrings.
    pub(super) fn ask_for_keys(&mut self, now: Instant, asker: Asker, keys: KeyringRequest) {
        let KeyringRequest { pool, operation, relay_factor } = keys;
        self.ask_serf(now, asker, pool, SerfRequest::Keys { operation, relay_factor });
    }

    /// Asks the Serf layer of a pool.
    pub(super) fn ask_serf(
        &mut self,
        now: Instant,
        asker: Asker,
        pool: PoolName,
        request: SerfRequest,
    ) {
        if self.lifecycle.is_leaving() {
            self.asked(now, asker, Err(RequestError::Stopping));
            return;
        }
        if let SerfRequest::EditTags { delete, set } = &request
            && let Some(tag) = self.own_tag_among(delete.iter().chain(set.keys()))
        {
            let rule = format!("tag {tag:?} is the agent's own and cannot be changed");
            self.asked(now, asker, Err(RequestError::Refused(rule)));
            return;
        }
        let id = asker.number();
        match self.pool(pool) {
            Some(pool) => pool.tell_serf(now, SerfInput::Request { id, request }),
            None => {
                let rule = format!("this agent is not in a {pool} pool");
                self.asked(now, asker, Err(RequestError::Refused(rule)));
            }
        }
    }

    /// The first of `tags` that other agents rely on.
    fn own_tag_among<'a>(&self, mut tags: impl Iterator<Item = &'a String>) -> Option<&'a String> {
        let own = super::server::own_tags(&self.config, self.id, PoolName::Lan);
        tags.find(|tag| own.contains_key(*tag))
    }

    /// Serf has answered.
    pub(super) fn serf_replied(
        &mut self,
        now: Instant,
        id: RequestId,
        result: Result<SerfReply, SerfRefusal>,
    ) {
        let result = match self.waiting.fired.remove(&id) {
            Some(event) => fired(event, result),
            None => result.map(Response::Serf).map_err(Into::into),
        };
        self.asked(now, Asker::of(id), result);
    }

    /// Tells who asked what it came to.
    pub(super) fn asked(
        &mut self,
        now: Instant,
        asker: Asker,
        result: Result<Response, RequestError>,
    ) {
        match asker {
            Asker::Request(id) => self.answer(id, result),
            Asker::Execution(ticket) => self.executed(now, ticket, result),
        }
    }
}
