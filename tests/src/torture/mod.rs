//! Real servers under load and faults, judged by what their clients were told.
//!
//! Three servers run as processes. Clients read and write a few keys through all of them while a
//! nemesis kills, stops and restarts servers. When all is healed every key is read once more; then
//! the operations on each key must fit into one order ([`sim::checker::linear`]), which no
//! acknowledged write may be missing from. The seed decides on faults and requests, but processes
//! take their own time: a seed does not replay a run.

mod client;
mod history;
mod nemesis;
mod report;

pub use history::{Judgement, Operation, Outcome};
pub use nemesis::{Fault, Injected};
pub use report::Report;

use crate::Random;
use client::Client;
use history::Ticks;
use nemesis::Nemesis;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Keys that clients contend for at a time.
const SLOTS: usize = 4;
/// Draws of a slot after which it stands for a new key: the search for an order has its limits.
const DRAWS_PER_KEY: u64 = 400;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides on faults and requests.
    pub seed: u64,
    /// How many clients.
    pub clients: usize,
    /// Rounds of all `faults` begin until this has passed; one is made in any case.
    pub length: Duration,
    /// The faults of a round.
    pub faults: Vec<Fault>,
}

/// What the clients share.
#[derive(Debug)]
struct Shared {
    ticks: Ticks,
    started: Instant,
    /// How often each slot was drawn.
    draws: [AtomicU64; SLOTS],
    is_over: AtomicBool,
}

/// Ends the clients even if the nemesis panics, since they are waited for.
struct EndOnDrop<'a>(&'a Shared);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Starts the servers, lets clients and faults loose on them, and judges.
///
/// Panics if a server ends by itself, or is not well long after a fault.
pub fn run(settings: &Settings) -> Report {
    let mut random = Random::new(settings.seed);
    let mut nemesis = Nemesis::start(random.next());
    let shared = Shared {
        ticks: Ticks::default(),
        started: Instant::now(),
        draws: Default::default(),
        is_over: AtomicBool::new(false),
    };
    let clients: Vec<Client<'_>> = (0..settings.clients)
        .map(|number| Client::new(number, random.next(), nemesis.addresses(), &shared))
        .collect();
    let mut operations: Vec<Operation> = thread::scope(|scope| {
        let running: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || client.run())).collect();
        let end = EndOnDrop(&shared);
        nemesis.rage(&settings.faults, settings.length, shared.started);
        drop(end);
        running
            .into_iter()
            .flat_map(|client| client.join().expect("clients do not panic"))
            .collect()
    });
    let last = Client::new(settings.clients, random.next(), nemesis.addresses(), &shared);
    operations.extend(last.last_reads(&operations));
    operations.sort_by_key(|operation| operation.invoked);
    let judgement = history::judge(&operations);
    let (injected, logs) = nemesis.end(!judgement.broken.is_empty());
    Report { operations, injected, judgement, logs }
}
