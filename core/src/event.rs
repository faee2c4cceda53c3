//! Events of the HTTP interface: user events of Serf that name the nodes they are for.
//!
//! An event is fired as a user event `consul:event:NAME` whose payload carries its identity and
//! filters, so every member hears of it and each decides for itself whether it is meant. The last
//! 256 that were meant for this node are kept, oldest first, in memory alone.
//!
//! - Source: http-api.md §11, DESIGN.md §8 (events); wire format in [`crate::wire::event`].
//! - Differs: a service filter may match the service's name or its id, since people know it by
//!   either; an event is fired by the agent that is asked, or by any server of the other datacenter
//!   that it is for, so it needs no leader.

use crate::catalog::model::Service;
use crate::expression::{ExpressionError, compile};
use crate::id::{EventId, LamportTime, NodeName};
use crate::pack_struct;
use crate::rng::Rng;
use crate::wire::DecodeError;
use crate::wire::event::EventPayload;
use crate::wire::serf::UserEvent;
use bytes::Bytes;
use imbl::Vector;
use regex::Regex;
use std::sync::Arc;
use thiserror::Error;

/// Events kept.
const KEPT_MAX: usize = 256;
/// What sets the name of such an event apart from plain user events.
const NAME_PREFIX: &str = "consul:event:";
/// The version of the payload.
pub const VERSION: u64 = 1;

/// An event to be fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FireEvent {
    /// Its name.
    pub name: String,
    /// What is told.
    pub payload: Bytes,
    /// Which nodes and services it is for.
    pub filters: Filters,
}
pack_struct!(FireEvent { name, payload, filters });

/// Which nodes an event is for; each is a regular expression, and an empty one matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Over the node's name.
    pub node: String,
    /// Over the names and ids of the services registered there, of which one must match.
    pub service: String,
    /// Over the tags of such a service, of which one must match.
    pub tag: String,
}
pack_struct!(Filters { node, service, tag });

/// An event as it was fired or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its identity.
    pub id: EventId,
    /// Its name.
    pub name: String,
    /// What is told, if anything.
    pub payload: Option<Bytes>,
    /// Which nodes and services it is for.
    pub filters: Filters,
    /// The version of its payload.
    pub version: u64,
    /// Event clock; zero for one that is only fired.
    pub time: LamportTime,
}
pack_struct!(Event { id, name, payload, filters, version, time });

/// The name of events that announce a job to be run, which nobody lists (cli.md §7).
const REMOTE_EXEC: &str = "_rexec";

impl Event {
    /// Whether it announces a job.
    pub fn is_remote_exec(&self) -> bool {
        self.name == REMOTE_EXEC
    }

    /// The name of the user event that carries it.
    pub fn serf_name(&self) -> String {
        format!("{NAME_PREFIX}{}", self.name)
    }

    /// What the user event carries.
    pub fn encode(&self) -> Bytes {
        let Self { id, name, payload, filters: Filters { node, service, tag }, version, .. } = self;
        let payload = EventPayload {
            id: id.to_string(),
            name: name.clone(),
            node_filter: node.clone(),
            payload: payload.clone(),
            service_filter: service.clone(),
            tag_filter: tag.clone(),
            version: *version,
        };
        payload.encode()
    }

    /// The number that stands for this event in `X-Consul-Index`: its identity, folded.
    pub fn index(&self) -> u64 {
        let number = |half: &[u8]| half.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte));
        let (high, low) = self.id.as_bytes().split_at(8);
        number(high) ^ number(low)
    }
}

/// Why an event was refused. Nothing was told; whoever fires it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// A tag says nothing without a service.
    #[error("Cannot provide tag filter without service filter")]
    TagWithoutService,
    /// A filter is no usable expression.
    #[error("Invalid {which} filter: error parsing regexp: {error}")]
    Filter {
        /// `node`, `service` or `tag`.
        which: &'static str,
        /// What is wrong with it.
        error: ExpressionError,
    },
}

/// Why a received event is of no use here. Whoever fired it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// Its payload is not what such an event carries.
    #[error("event {name:?}: {error}")]
    Payload {
        /// The user event's name.
        name: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// Its identity is no UUID.
    #[error("event {name:?}: {id:?} is not a UUID")]
    Id {
        /// The user event's name.
        name: String,
        /// The identity.
        id: String,
    },
    /// Its filters are against the rules.
    #[error("event {name:?}: {error}")]
    Filters {
        /// The user event's name.
        name: String,
        /// The rule.
        error: EventError,
    },
}

/// Filters ready for use; `None` matches all.
struct Compiled {
    node: Option<Regex>,
    service: Option<Regex>,
    tag: Option<Regex>,
}

impl Compiled {
    fn new(filters: &Filters) -> Result<Self, EventError> {
        let Filters { node, service, tag } = filters;
        if !tag.is_empty() && service.is_empty() {
            return Err(EventError::TagWithoutService);
        }
        let one = |which, text: &str| {
            let wanted = (!text.is_empty()).then(|| compile(text)).transpose();
            wanted.map_err(|error| EventError::Filter { which, error })
        };
        Ok(Self {
            node: one("node", node)?,
            service: one("service", service)?,
            tag: one("tag", tag)?,
        })
    }

    fn matches<'a>(
        &self,
        node: &NodeName,
        mut services: impl Iterator<Item = &'a Service>,
    ) -> bool {
        let fits = |wanted: &Option<Regex>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.is_match(text))
        };
        let serves = |service: &Service| {
            let named = [service.name.as_str(), service.id.as_str()];
            let tagged = self.tag.is_none() || service.tags.iter().any(|tag| fits(&self.tag, tag));
            tagged && named.iter().any(|name| fits(&self.service, name))
        };
        fits(&self.node, node.as_str()) && (self.service.is_none() || services.any(serves))
    }
}

/// Events, oldest first; copies share what they have in common.
pub type KeptEvents = Vector<Arc<Event>>;

/// The events of one agent.
#[derive(Clone, Debug)]
pub struct Events {
    rng: Rng,
    kept: KeptEvents,
    version: u64,
}

impl Events {
    /// None yet; `rng` makes the identities of those that are fired here.
    pub fn new(rng: Rng) -> Self {
        Self { rng, kept: KeptEvents::new(), version: 0 }
    }

    /// Those kept, oldest first.
    pub const fn kept(&self) -> &KeptEvents {
        &self.kept
    }

    /// Counts the changes of [`kept`](Self::kept).
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Gives an event its identity.
    pub fn fire(&mut self, fire: FireEvent) -> Result<Event, EventError> {
        let FireEvent { name, payload, filters } = fire;
        Compiled::new(&filters)?;
        let payload = (!payload.is_empty()).then_some(payload);
        let id = EventId::from_random(self.rng.bytes16());
        Ok(Event { id, name, payload, filters, version: VERSION, time: LamportTime::ZERO })
    }

    /// Takes a user event that arrived; keeps it if it is one of these and meant for `node`, where
    /// `services` are registered.
    pub fn receive<'a>(
        &mut self,
        user: &UserEvent,
        node: &NodeName,
        services: impl Iterator<Item = &'a Service>,
    ) -> Result<(), Unusable> {
        if !is_event(user) {
            return Ok(());
        }
        let event = decode(user)?;
        let name = || user.name.clone();
        let filters = Compiled::new(&event.filters)
            .map_err(|error| Unusable::Filters { name: name(), error })?;
        if filters.matches(node, services) {
            if self.kept.len() == KEPT_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(Arc::new(event));
            self.version += 1;
        }
        Ok(())
    }
}

/// Whether a user event is one of these.
pub fn is_event(user: &UserEvent) -> bool {
    user.name.starts_with(NAME_PREFIX)
}

fn decode(user: &UserEvent) -> Result<Event, Unusable> {
    let name = || user.name.clone();
    let bytes = user.payload.as_deref().unwrap_or_default();
    let payload =
        EventPayload::decode(bytes).map_err(|error| Unusable::Payload { name: name(), error })?;
    let EventPayload { id, payload, node_filter, service_filter, tag_filter, version, .. } =
        payload;
    let id = EventId::parse(&id).map_err(|_| Unusable::Id { name: name(), id })?;
    // The name that everybody saw counts, whatever the payload says.
    let name = user.name.strip_prefix(NAME_PREFIX).unwrap_or_default().to_owned();
    let payload = payload.filter(|payload| !payload.is_empty());
    let filters = Filters { node: node_filter, service: service_filter, tag: tag_filter };
    Ok(Event { id, name, payload, filters, version, time: user.time })
}

#[cfg(test)]
mod tests;
