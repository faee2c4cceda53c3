//! `/v1/event`: events fired through Serf, and those that this agent received.
//!
//! - Source: http-api.md §11.
//! - A list with `index` waits until another event is the newest of it. The fan tells of an event
//!   after the view that shows it is there, so nothing is missed and nothing is polled.

use super::*;
use crate::http::json::Json;
use crate::runtime::before;
use smol::Timer;
use terraform_core::event::{Event, Filters, FireEvent, is_event};
use terraform_core::node::request::WAIT_MAX;
use terraform_core::serf::SerfEvent;
use terraform_core::wire::base64;

impl Api {
    pub(super) async fn event_fire(&self, request: &ApiRequest<'_>) -> Handled {
        let context = options::write(request)?;
        if request.argument.is_empty() {
            return Err(Reply::text(400, "Missing name"));
        }
        let text = |name| request.params.get(name).to_owned();
        let fire = FireEvent {
            name: request.argument.to_owned(),
            payload: request.body.clone(),
            filters: Filters { node: text("node"), service: text("service"), tag: text("tag") },
        };
        let body = RequestBody::FireEvent(Box::new(fire));
        match self.node.request(Request { context, body }).await {
            Ok(Response::Event(event)) => {
                let mut json = Json::default();
                render(&mut json, &event);
                Ok(Reply::json(json.into_bytes()))
            }
            Ok(other) => Err(Reply::text(500, format!("an event was answered with {other:?}"))),
            Err(error) => Err(Reply::error(&error)),
        }
    }

    pub(super) async fn event_list(&self, request: &ApiRequest<'_>) -> Handled {
        let (index, wait) = options::waiting(request, WAIT_MAX)?;
        let name = request.params.get("name");
        if index == 0 {
            return Ok(self.listed(name).1);
        }
        let wanted = |event: &SerfEvent| matches!(event, SerfEvent::User(user) if is_event(user));
        // Before the first look, so that no event falls between the two.
        let coming = self.node.fan().subscribe(Box::new(wanted));
        let mut late = Timer::after(wait);
        loop {
            let (newest, reply) = self.listed(name);
            if newest != index {
                return Ok(reply);
            }
            // It also ends if events came faster than this looked.
            let Some(Ok(_)) = before(&mut late, coming.recv()).await else {
                return Ok(self.listed(name).1);
            };
        }
    }

    /// The events of this name, or all, and the index of the newest.
    fn listed(&self, name: &str) -> (u64, Reply) {
        let view = self.node.view();
        let wanted =
            |event: &&Event| !event.is_remote_exec() && (name.is_empty() || event.name == name);
        let events = || view.events.iter().map(|event| &**event).filter(wanted);
        let mut json = Json::default();
        json.array(events(), render);
        // An index is never 0 (http-api.md §1.3).
        let newest = events().last().map_or(1, Event::index).max(1);
        let reply = Reply::json(json.into_bytes());
        (newest, reply.with_header("X-Consul-Index", &newest.to_string()))
    }
}

fn render(json: &mut Json, event: &Event) {
    json.object(|json| {
        json.field("ID", &event.id.to_string());
        json.field("Name", &event.name);
        json.key("Payload");
        match &event.payload {
            Some(payload) => json.string(&base64::encode(payload)),
            None => json.null(),
        }
        json.field("NodeFilter", &event.filters.node);
        json.field("ServiceFilter", &event.filters.service);
        json.field("TagFilter", &event.filters.tag);
        json.field("Version", event.version);
        json.field("LTime", event.time.get());
    });
}
