//! Events of the HTTP interface: fired through Serf, kept on receipt.

use super::Node;
use super::request::{RequestError, Response, multi_error};
use super::serf_requests::Asker;
use crate::event::{Event, FireEvent};
use crate::id::PoolName;
use crate::serf::{SerfRefusal, SerfReply, SerfRequest};
use crate::time::Instant;
use crate::wire::serf::UserEvent;

/// The text that clients know (http-api.md §11).
const TOO_LARGE: &str = "error broadcasting event to segment \"\": \
                         user event exceeds configured limit of 512 bytes before encoding";

/// What firing an event came to, as Serf says.
pub(super) fn fired(
    event: Box<Event>,
    result: Result<SerfReply, SerfRefusal>,
) -> Result<Response, RequestError> {
    match result {
        Ok(_) => Ok(Response::Event(event)),
        Err(SerfRefusal::EventTooLarge { .. }) => {
            Err(RequestError::Refused(multi_error(&[TOO_LARGE.to_owned()])))
        }
        Err(refused) => Err(refused.into()),
    }
}

impl Node {
    /// Fires an event; the answer waits for Serf's.
    pub(super) fn fire_event(&mut self, now: Instant, asker: Asker, fire: FireEvent) {
        if self.lifecycle.is_leaving() {
            self.asked(now, asker, Err(RequestError::Stopping));
            return;
        }
        let event = match self.events.fire(fire) {
            Ok(event) => event,
            Err(refused) => {
                self.asked(now, asker, Err(RequestError::Refused(refused.to_string())));
                return;
            }
        };
        let (name, payload) = (event.serf_name(), event.encode());
        let request = SerfRequest::FireEvent { name, payload, coalesce: false };
        self.waiting.fired.insert(asker.number(), Box::new(event));
        self.ask_serf(now, asker, PoolName::Lan, request);
    }

    /// A user event was delivered here.
    pub(super) fn event_received(&mut self, event: &UserEvent) {
        let services = self.local.view().services.values().map(|service| &**service);
        if let Err(unusable) = self.events.receive(event, &self.config.name, services) {
            self.bad_message("gossip", unusable.to_string());
        }
    }
}
