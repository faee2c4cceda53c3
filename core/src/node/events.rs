//! Events of the HTTP interface: fired through Serf, kept on receipt.

use super::Node;
use super::request::{RequestError, Response, multi_error};
use crate::event::FireEvent;
use crate::id::RequestId;
use crate::serf::{SerfInput, SerfRefusal, SerfReply, SerfRequest};
use crate::time::Instant;
use crate::wire::serf::UserEvent;

impl Node {
    /// Fires an event; the answer waits for Serf's.
    pub(super) fn fire_event(&mut self, now: Instant, id: RequestId, fire: FireEvent) {
        if self.lifecycle.is_leaving() {
            self.answer(id, Err(RequestError::Stopping));
            return;
        }
        let event = match self.events.fire(fire) {
            Ok(event) => event,
            Err(refused) => {
                self.answer(id, Err(RequestError::Refused(refused.to_string())));
                return;
            }
        };
        let (name, payload) = (event.serf_name(), event.encode());
        let request = SerfRequest::FireEvent { name, payload, coalesce: false };
        self.waiting.fired.insert(id, Box::new(event));
        self.lan.tell_serf(now, SerfInput::Request { id, request });
    }

    /// Serf has answered a request: one of its own, or an event that was fired through it.
    pub(super) fn serf_replied(&mut self, id: RequestId, result: Result<SerfReply, SerfRefusal>) {
        let result = match (self.waiting.fired.remove(&id), result) {
            (None, result) => result.map(Response::Serf).map_err(Into::into),
            (Some(event), Ok(_)) => Ok(Response::Event(event)),
            (Some(_), Err(SerfRefusal::EventTooLarge { .. })) => {
                Err(RequestError::Refused(multi_error(&[TOO_LARGE.to_owned()])))
            }
            (Some(_), Err(refused)) => Err(refused.into()),
        };
        self.answer(id, result);
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
