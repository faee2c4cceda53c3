//! Serf events on their way from the node to those who subscribed (gossip-wire.md §12.2).
//!
//! A subscription has a bounded buffer. One whose buffer is full when an event comes ends: its
//! client reads too slowly, and is to know that it missed something.

use smol::channel::{Receiver, Sender, bounded};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terraform_core::serf::SerfEvent;

/// Events that wait for one subscriber.
pub const EVENTS_MAX: usize = 512;

/// Whether a subscriber wants an event.
pub type Wants = Box<dyn Fn(&SerfEvent) -> bool + Send>;

struct Subscription {
    wants: Wants,
    events: Sender<Arc<SerfEvent>>,
}

/// Everyone who is told of Serf events.
#[derive(Default)]
pub struct EventFan(Mutex<Vec<Subscription>>);

impl fmt::Debug for EventFan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventFan").field(&self.lock().len()).finish()
    }
}

impl EventFan {
    /// Hands an event to all who want it. Returns how many subscriptions that ended, because their
    /// buffers are full.
    pub fn push(&self, event: SerfEvent) -> usize {
        let (event, mut ended) = (Arc::new(event), 0);
        self.lock().retain(|Subscription { wants, events }| {
            if events.is_closed() {
                return false;
            }
            if !wants(&event) {
                return true;
            }
            // It is not closed, so only want of room is left.
            let taken = events.try_send(Arc::clone(&event)).is_ok();
            ended += usize::from(!taken);
            taken
        });
        ended
    }

    /// The wanted events from now on. Dropping the receiver ends the subscription.
    pub fn subscribe(&self, wants: Wants) -> Receiver<Arc<SerfEvent>> {
        let (events, receiver) = bounded(EVENTS_MAX);
        let mut subscriptions = self.lock();
        // Without this, they would pile up while nothing happens.
        subscriptions.retain(|subscription| !subscription.events.is_closed());
        subscriptions.push(Subscription { wants, events });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscription>> {
        // Subscriptions are whole whenever the lock is free, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use terraform_core::id::LamportTime;
    use terraform_core::wire::serf::UserEvent;

    pub(crate) fn user(name: &str) -> SerfEvent {
        let (name, time) = (name.to_owned(), LamportTime::ZERO);
        SerfEvent::User(UserEvent { coalesce: false, time, name, payload: None })
    }

    #[test]
    fn a_subscriber_gets_what_it_wants_in_order() {
        let fan = EventFan::default();
        let events = fan.subscribe(Box::new(|event| *event != user("b")));
        for name in ["a", "b", "c"] {
            assert_eq!(fan.push(user(name)), 0);
        }
        assert_eq!(events.try_recv().as_deref(), Ok(&user("a")));
        assert_eq!(events.try_recv().as_deref(), Ok(&user("c")));
        assert!(events.is_empty());
    }

    #[test]
    fn a_full_subscription_ends_after_what_it_has_and_a_dropped_one_is_forgotten() {
        let fan = EventFan::default();
        let (slow, gone) = (fan.subscribe(Box::new(|_| true)), fan.subscribe(Box::new(|_| true)));
        drop(gone);
        for _ in 0..EVENTS_MAX {
            assert_eq!(fan.push(user("a")), 0);
        }
        assert_eq!(fan.push(user("a")), 1);
        assert_eq!(fan.push(user("a")), 0, "it has ended");
        assert!(slow.is_closed());
        assert_eq!(slow.len(), EVENTS_MAX);
        assert!(fan.lock().is_empty());
        drop(fan.subscribe(Box::new(|_| true)));
        drop(fan.subscribe(Box::new(|_| true)));
        assert_eq!(fan.lock().len(), 1);
    }
}
