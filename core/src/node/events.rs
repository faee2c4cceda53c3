//! Events of the HTTP interface: fired through Serf, kept on receipt.

use super::Node;
use super::request::{RequestError, Response, multi_error};
use crate::event::FireEvent;
use crate::id::RequestId;
use crate::rpc::Ticket;
use crate::serf::{SerfInput, SerfRefusal, SerfReply, SerfRequest};
use crate::time::Instant;
use crate::wire::serf::UserEvent;

/// Who waits for an event that is being fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firing {
    /// A request of this agent.
    Request(RequestId),
    /// A request of another agent.
    Execution(Ticket),
}

impl Firing {
    /// Set in the numbers of what Serf does for other agents; a host counts its requests up from
    /// the lowest.
    const EXECUTION: u64 = 1 << 63;

    /// The number under which Serf is asked.
    const fn number(self) -> RequestId {
        match self {
            Self::Request(id) => id,
            Self::Execution(ticket) => RequestId::new(Self::EXECUTION | ticket.0),
        }
    }
}

impl Node {
    /// Fires an event; the answer waits for Serf's.
    pub(super) fn fire_event(&mut self, now: Instant, firing: Firing, fire: FireEvent) {
        if self.lifecycle.is_leaving() {
            self.fired(now, firing, Err(RequestError::Stopping));
            return;
        }
        let event = match self.events.fire(fire) {
            Ok(event) => event,
            Err(refused) => {
                self.fired(now, firing, Err(RequestError::Refused(refused.to_string())));
                return;
            }
        };
        let (name, payload) = (event.serf_name(), event.encode());
        let request = SerfRequest::FireEvent { name, payload, coalesce: false };
        let id = firing.number();
        self.waiting.fired.insert(id, (firing, Box::new(event)));
        self.lan.tell_serf(now, SerfInput::Request { id, request });
    }

    fn fired(&mut self, now: Instant, by: Firing, result: Result<Response, RequestError>) {
        match by {
            Firing::Request(id) => self.answer(id, result),
            Firing::Execution(ticket) => self.executed(now, ticket, result),
        }
    }

    /// Serf has answered a request: one of its own, or an event that was fired through it.
    pub(super) fn serf_replied(
        &mut self,
        now: Instant,
        id: RequestId,
        result: Result<SerfReply, SerfRefusal>,
    ) {
        let Some((firing, event)) = self.waiting.fired.remove(&id) else {
            self.answer(id, result.map(Response::Serf).map_err(Into::into));
            return;
        };
        let result = match result {
            Ok(_) => Ok(Response::Event(event)),
            Err(SerfRefusal::EventTooLarge { .. }) => {
                Err(RequestError::Refused(multi_error(&[TOO_LARGE.to_owned()])))
            }
            Err(refused) => Err(refused.into()),
        };
        self.fired(now, firing, result);
    }

    /// A user event was delivered here.
    pub(super) fn event_received(&mut self, event: &UserEvent) {
        let services = self.local.view().services.values().map(|service| &**service);
        if let Err(unusable) = self.events.receive(event, &self.config.name, services) {
            self.bad_message("gossip", unusable.to_string());
        }
    }
}

/// The text that clients know (http-api.md §11).
const TOO_LARGE: &str = "error broadcasting event to segment \"\": \
                         user event exceeds configured limit of 512 bytes before encoding";
