//! Wakes all who wait for something to change.

use smol::channel::{Receiver, Sender, bounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bell. Whoever listens is woken once, by the next ring.
#[derive(Debug, Default)]
pub struct Bell(Mutex<Vec<Sender<()>>>);

/// One who listens; dropping it ends that.
#[derive(Debug)]
pub struct Listener(Receiver<()>);

impl Bell {
    /// Wakes all who listen now.
    pub fn ring(&self) {
        // Their receivers end with the senders.
        self.lock().clear();
    }

    /// Listens from now on. Look at what may change after this and not before, so that no change
    /// is missed.
    pub fn listen(&self) -> Listener {
        let (sender, receiver) = bounded(1);
        let mut listeners = self.lock();
        // Without this, they would pile up while nothing rings.
        listeners.retain(|listener| !listener.is_closed());
        listeners.push(sender);
        Listener(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sender<()>>> {
        // Listeners are whole whenever the lock is free, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many listen.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.lock().iter().filter(|listener| !listener.is_closed()).count()
    }
}

impl Listener {
    /// Ends when the bell rings.
    pub async fn wait(&self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::FutureExt as _;

    #[test]
    fn a_ring_wakes_all_who_listen_and_nobody_else() {
        let bell = Bell::default();
        let (first, second) = (bell.listen(), bell.listen());
        drop(bell.listen());
        assert_eq!(bell.listeners(), 2);
        bell.ring();
        smol::block_on(async {
            first.wait().await;
            second.wait().await;
            let third = bell.listen();
            let woken = async {
                third.wait().await;
                true
            };
            assert!(!woken.or(async { false }).await);
        });
    }
}
