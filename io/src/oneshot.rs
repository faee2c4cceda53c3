//! A channel for one value: the way back for the answer of a request.
//!
//! A channel for many costs six allocations where this one costs one, for every request that
//! passes the driver.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
enum Slot<T> {
    /// Nothing is sent yet.
    Empty,
    /// Nothing is sent yet, and somebody waits.
    Awaited(Waker),
    /// The value waits.
    Full(T),
    /// The value was taken, or one end is gone.
    Over,
}

#[derive(Debug)]
struct Shared<T>(Mutex<Slot<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // The slot is replaced as a whole, so it is good whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that sends. Dropping it without a value ends the wait of the other.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that waits: a future of the value, or of `None` if there will be none.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// Both ends.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared(Mutex::new(Slot::Empty)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Sends the value; it is dropped if nobody waits for it any more.
    pub fn send(self, value: T) {
        self.fill(Slot::Full(value));
    }

    /// Whether nobody waits for the value any more.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.lock(), Slot::Over)
    }

    fn fill(&self, with: Slot<T>) {
        let mut slot = self.0.lock();
        if let Slot::Full(_) | Slot::Over = *slot {
            return;
        }
        let before = std::mem::replace(&mut *slot, with);
        drop(slot);
        if let Slot::Awaited(waker) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.fill(Slot::Over);
    }
}

impl<T> Receiver<T> {
    /// Whether there is nothing to wait for: the value is there, or there will be none.
    pub fn is_there(&self) -> bool {
        matches!(*self.0.lock(), Slot::Full(_) | Slot::Over)
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock();
        match &mut *slot {
            Slot::Empty => *slot = Slot::Awaited(context.waker().clone()),
            Slot::Awaited(waker) => waker.clone_from(context.waker()),
            Slot::Full(_) | Slot::Over => {
                let Slot::Full(value) = std::mem::replace(&mut *slot, Slot::Over) else {
                    return Poll::Ready(None);
                };
                return Poll::Ready(Some(value));
            }
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // A value or a waker is dropped without the lock: it may do anything.
        let left = std::mem::replace(&mut *self.0.lock(), Slot::Over);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};

    #[test]
    fn a_value_arrives_whoever_comes_first() {
        let (sender, receiver) = oneshot();
        assert!(!receiver.is_there() && !sender.is_closed());
        sender.send(7);
        assert!(receiver.is_there());
        assert_eq!(block_on(receiver), Some(7));

        let (sender, mut receiver) = oneshot();
        assert_eq!(block_on(poll_once(&mut receiver)), None);
        let waiting = std::thread::spawn(move || block_on(receiver));
        sender.send(8);
        assert_eq!(waiting.join().unwrap(), Some(8));
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (sender, mut receiver) = oneshot::<u8>();
        assert_eq!(block_on(poll_once(&mut receiver)), None);
        drop(sender);
        assert!(receiver.is_there());
        assert_eq!(block_on(receiver), None);

        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        sender.send(9);
    }
}
