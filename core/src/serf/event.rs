//! User events: small messages that every member hears once.
//!
//! Implements gossip-protocol.md §20 and the event steps of §18. An event is spread on as it came;
//! recent ones are part of every state exchange, so that a member that was away hears them too. A
//! restarted member takes none that its snapshot says it knows, a joining one none from before it.

use super::request::SerfRefusal;
use super::{Serf, SerfEvent, SerfOutput, SerfTrace};
use crate::gossip::BroadcastClass;
use crate::id::LamportTime;
use crate::machine::Outbox;
use crate::trace::Level;
use crate::wire::serf::{EventSlot, RecentEvent, SerfMessage, UserEvent};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Bytes an event fired here may have: name and content before, everything after encoding.
pub const EVENT_BYTES_MAX: usize = 512;

/// Bytes an event of another member may have.
const FOREIGN_BYTES_MAX: usize = 9 << 10;

/// Bytes of events remembered: 512 times with events of the usual size several times over.
pub(super) const RECENT_BYTES_MAX: usize = 1 << 20;

/// What a remembered event takes besides its texts.
const RECENT_OVERHEAD: usize = 64;

impl Serf {
    /// Fires an event; it is delivered here too.
    pub(super) fn fire_event(
        &mut self,
        name: String,
        payload: Bytes,
        coalesce: bool,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<LamportTime, SerfRefusal> {
        let plain = name.len() + payload.len();
        if let Some(over) = plain.checked_sub(EVENT_BYTES_MAX).filter(|over| *over > 0) {
            return Err(SerfRefusal::EventTooLarge { over });
        }
        let time = self.event_clock.now();
        let payload = (!payload.is_empty()).then_some(payload);
        let event = UserEvent { coalesce, time, name, payload };
        let bytes = SerfMessage::UserEvent(event.clone()).encode();
        if let Some(over) = bytes.len().checked_sub(EVENT_BYTES_MAX).filter(|over| *over > 0) {
            return Err(SerfRefusal::EncodedEventTooLarge { over });
        }
        self.take_event(event, out);
        self.spread_event(bytes, out);
        Ok(time)
    }

    /// An event arrived in a message of its own.
    pub(super) fn event_arrived(
        &mut self,
        event: UserEvent,
        bytes: Bytes,
        out: &mut Outbox<SerfOutput>,
    ) {
        if self.take_event(event, out) {
            self.spread_event(bytes, out);
        }
    }

    fn spread_event(&self, payload: Bytes, out: &mut Outbox<SerfOutput>) {
        self.broadcast(BroadcastClass::Event, payload, out);
    }

    /// Takes an event; `true` if it is new here.
    fn take_event(&mut self, event: UserEvent, out: &mut Outbox<SerfOutput>) -> bool {
        let payload = event.payload.clone().unwrap_or_default();
        let bytes = event.name.len() + payload.len();
        if bytes > FOREIGN_BYTES_MAX {
            crate::trace!(out, Level::Debug, SerfTrace::EventTooLarge { bytes });
            return false;
        }
        if !self.event_clock.witness(event.time) {
            let (about, time) = (event.name, event.time);
            crate::trace!(out, Level::Warn, SerfTrace::TimeTooFar { about, time });
            return false;
        }
        let (now, item) = (self.event_clock.now(), (event.name.clone(), payload));
        if !self.events.admit(now, event.time, item, bytes + RECENT_OVERHEAD) {
            return false;
        }
        crate::mark!("serf.event");
        let (name, time) = (event.name.clone(), event.time);
        crate::trace!(out, Level::Debug, SerfTrace::UserEvent { name, time });
        out.push(SerfOutput::Event(SerfEvent::User(event)));
        true
    }

    /// The recent events for a state exchange; only times that have some.
    pub(super) fn recent_events(&self) -> Option<Vec<Option<EventSlot>>> {
        let slot = |(time, events): (LamportTime, &BTreeSet<(String, Bytes)>)| {
            let event = |(name, payload): &(String, Bytes)| {
                let payload = (!payload.is_empty()).then(|| payload.clone());
                RecentEvent { name: name.clone(), payload }
            };
            Some(EventSlot { events: events.iter().map(event).collect(), time })
        };
        let slots: Vec<_> = self.events.iter().map(slot).collect();
        (!slots.is_empty()).then_some(slots)
    }

    /// Takes the events of a state exchange, which are not spread on: everybody exchanges state.
    pub(super) fn take_recent_events(
        &mut self,
        slots: Vec<Option<EventSlot>>,
        out: &mut Outbox<SerfOutput>,
    ) {
        for EventSlot { events, time } in slots.into_iter().flatten() {
            for RecentEvent { name, payload } in events {
                let event = UserEvent { coalesce: false, time, name, payload };
                self.take_event(event, out);
            }
        }
    }
}
