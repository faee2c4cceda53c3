//! The world's event queue: total order over time, class and arrival (simulation.md D9).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use terraform_core::time::Instant;

/// What kind of event comes first among those of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The fault script.
    Fault,
    /// A disk operation is complete.
    Disk,
    /// Bytes arrive.
    Network,
    /// A client acts.
    Client,
    /// A host's timer.
    Timer,
}

/// How events of one instant and class are ordered; drawn for each seed, to find order races.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieOrder {
    /// In the order they were queued.
    Fifo,
    /// The other way round.
    Reverse,
}

#[derive(Clone, Debug)]
struct Entry<E> {
    key: (Instant, Class, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// Events by due time.
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    pushed: u64,
    order: TieOrder,
}

impl<E> EventQueue<E> {
    /// An empty queue.
    pub fn new(order: TieOrder) -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0, order }
    }

    /// Queues `event` for `at`.
    pub fn push(&mut self, at: Instant, class: Class, event: E) {
        self.pushed += 1;
        let sequence = match self.order {
            TieOrder::Fifo => self.pushed,
            TieOrder::Reverse => u64::MAX - self.pushed,
        };
        self.heap.push(Reverse(Entry { key: (at, class, sequence), event }));
    }

    /// Takes the earliest event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.key.0, entry.event))
    }

    /// When the earliest event is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_class_then_arrival() {
        let at = Instant::from_nanos;
        let mut queue = EventQueue::new(TieOrder::Fifo);
        queue.push(at(2), Class::Fault, 'd');
        queue.push(at(1), Class::Timer, 'c');
        queue.push(at(1), Class::Disk, 'a');
        queue.push(at(1), Class::Disk, 'b');
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
