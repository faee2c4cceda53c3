//! The shape of every inner machine: input in, outputs into a queue, timers by deadline.
//!
//! The trait exists so that scripts and fuzzers can drive any machine alone. It is never boxed.

use crate::time::Instant;
use crate::trace::Level;
use std::collections::VecDeque;

/// A pure state machine. A transition is a function of (state, now, input).
pub trait Machine {
    /// What the machine is told.
    type Input;
    /// What the machine wants done.
    type Output;

    /// Takes one input to completion.
    fn handle(&mut self, now: Instant, input: Self::Input, out: &mut Outbox<Self::Output>);
    /// Fires every timer that is due at `now`, then returns.
    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox<Self::Output>);
    /// When `handle_timeout` is wanted next.
    fn next_timeout(&self) -> Option<Instant>;
}

/// The queue a machine writes its outputs to, oldest first.
#[derive(Clone, Debug)]
pub struct Outbox<T> {
    queue: VecDeque<T>,
    level: Level,
}

impl<T> Outbox<T> {
    /// An empty queue that wants traces of `level` and more severe ones.
    pub fn new(level: Level) -> Self {
        Self { queue: VecDeque::new(), level }
    }

    /// Whether a trace of `level` is wanted; ask before building one.
    pub fn wants(&self, level: Level) -> bool {
        level >= self.level
    }

    /// Changes which traces are wanted.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Appends one output.
    pub fn push(&mut self, output: T) {
        self.queue.push_back(output);
    }

    /// Takes the oldest output. What many of them took is given back with the last.
    pub fn pop(&mut self) -> Option<T> {
        let output = self.queue.pop_front();
        give_back(&mut self.queue);
        output
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes everything that waits, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.queue.drain(..)
    }
}

/// Outputs an empty queue keeps room for.
const ROOM_KEPT: usize = 256;

/// Frees a queue that was long and is empty: learning of a large pool fills queues once that are
/// hardly used after it.
pub(crate) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > ROOM_KEPT {
        *queue = VecDeque::new();
    }
}

/// Pushes a trace if its level is wanted; the event is built only then.
///
/// `trace!(out, Level::Debug, GossipTrace::Suspect { .. })` needs
/// `From<(Level, GossipTrace)>` for the outbox's item type.
#[macro_export]
macro_rules! trace {
    ($out:expr, $level:expr, $event:expr $(,)?) => {
        if $out.wants($level) {
            $out.push(($level, $event).into());
        }
    };
}
