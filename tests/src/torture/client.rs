//! A client: one request after the other, through one server until it fails.

use super::history::{Operation, Outcome};
use super::{DRAWS_PER_KEY, SLOTS, Shared};
use crate::{Answer, Connection, LONG, Random, wait_until};
use serde_json::Value as Json;
use sim::checker::linear::{Deed, Told, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// The folder of all keys.
const FOLDER: &str = "torture/";
/// How long a client waits for an answer: some get impatient during an election, others learn that
/// nothing happened.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(10)];
/// How long a client rests after a failure.
const REST: Duration = Duration::from_millis(20);
/// One request in this many goes to another server than the one before. So some wait at a stopped
/// leader that were made after the next one was elected, and show whether it still answers reads.
const WANDERS: u64 = 50;

/// Errors with the status 500 that say that nothing happened (`RequestError`).
const NOTHING_HAPPENED: [&str; 4] = [
    "No cluster leader",
    "No known Consul servers",
    "No path to datacenter",
    "Remote DC has no server currently reachable",
];

/// What a read showed: the value and its index, of a missing key 0.
type Seen = (Value, u64);

pub(super) struct Client<'a> {
    number: usize,
    random: Random,
    servers: Vec<SocketAddr>,
    /// The server it talks to now.
    at: usize,
    connection: Option<Connection>,
    shared: &'a Shared,
    operations: Vec<Operation>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        number: usize,
        seed: u64,
        servers: Vec<SocketAddr>,
        shared: &'a Shared,
    ) -> Self {
        let (random, at) = (Random::new(seed), number % servers.len());
        Self { number, random, servers, at, connection: None, shared, operations: Vec::new() }
    }

    /// Makes requests until all is over.
    pub(super) fn run(mut self) -> Vec<Operation> {
        while !self.shared.is_over.load(Ordering::SeqCst) {
            if self.random.below(WANDERS) == 0 {
                self.turn();
            }
            self.step();
        }
        self.operations
    }

    /// Reads everything at once, when all is healed: what the last operation on each key left.
    pub(super) fn last_reads(self, operations: &[Operation]) -> Vec<Operation> {
        let (client, server, shared) = (self.number, self.at, self.shared);
        let path = format!("/v1/kv/{FOLDER}?recurse&consistent");
        let (invoked, answer) = wait_until("a read of everything", LONG, || {
            let invoked = shared.ticks.next();
            let mut connection = Connection::open(self.servers[server], LONG).ok()?;
            let answer = connection.exchange("GET", &path, "").ok()?;
            (answer.status == 200).then_some((invoked, answer))
        });
        let (returned, at) = (shared.ticks.next(), shared.started.elapsed());
        let entries = entries(&answer);
        let found: BTreeMap<&str, Seen> = entries
            .iter()
            .map(|entry| (entry["Key"].as_str().unwrap_or(""), seen_in(entry)))
            .collect();
        let keys: BTreeSet<&str> = operations.iter().map(|operation| &*operation.key).collect();
        let read = |key: &str| {
            let (value, index) = found.get(key).copied().unwrap_or((None, 0));
            let outcome = Outcome::Told(returned, Told::Saw(value));
            let (key, deed, index) = (key.to_owned(), Deed::Get, Some(index));
            Operation { client, server, key, deed, invoked, outcome, index, at }
        };
        keys.into_iter().map(read).collect()
    }

    /// One request, or a read and a write that depends on it.
    fn step(&mut self) {
        let key = self.draw_key();
        match self.random.below(100) {
            0..30 => drop(self.get(&key)),
            30..55 => self.put(key),
            55..60 => self.write("DELETE", key, None, |_| Deed::Delete),
            60..70 => {
                let own = format!("{FOLDER}own/{}-{}", self.number, self.operations.len());
                self.put(own);
            }
            70..92 => {
                let Some((value, index)) = self.get(&key) else { return };
                self.write("PUT", key, Some(index), |id| Deed::Cas(value, id));
            }
            _ => {
                // Without an entry there is no index to name.
                let Some((Some(value), index)) = self.get(&key) else { return };
                self.write("DELETE", key, Some(index), |_| Deed::DeleteCas(Some(value)));
            }
        }
    }

    fn draw_key(&mut self) -> String {
        let slot = usize::try_from(self.random.below(SLOTS as u64)).unwrap_or(0);
        let draws = &self.shared.draws[slot];
        let generation = draws.fetch_add(1, Ordering::Relaxed) / DRAWS_PER_KEY;
        format!("{FOLDER}{slot}/{generation}")
    }

    fn get(&mut self, key: &str) -> Option<Seen> {
        let mode = if self.random.below(2) == 0 { "" } else { "?consistent" };
        let path = format!("/v1/kv/{key}{mode}");
        let invoked = self.shared.ticks.next();
        let answer = self.exchange("GET", &path, "");
        let seen = match &answer {
            Sent::Answered(answer) if answer.status == 404 => Some((None, 0)),
            Sent::Answered(answer) if answer.status == 200 => Some(seen_in(&entries(answer)[0])),
            Sent::Answered(_) | Sent::Broken | Sent::Never => None,
        };
        let told = seen.map(|(value, _)| Told::Saw(value));
        let index = seen.map(|(_, index)| index);
        self.record(key.to_owned(), Deed::Get, invoked, (told, &answer), index);
        seen
    }

    fn put(&mut self, key: String) {
        self.write("PUT", key, None, Deed::Put);
    }

    fn write(&mut self, method: &str, key: String, index: Option<u64>, deed: impl Fn(u64) -> Deed) {
        let invoked = self.shared.ticks.next();
        let mut path = format!("/v1/kv/{key}?flags={invoked}");
        if let Some(index) = index {
            path += &format!("&cas={index}");
        }
        let answer = self.exchange(method, &path, &invoked.to_string());
        let told = match &answer {
            Sent::Answered(answer) if answer.status == 200 && answer.body == b"true" => {
                Some(Told::Done)
            }
            Sent::Answered(answer) if answer.status == 200 && answer.body == b"false" => {
                Some(Told::Unmet)
            }
            Sent::Answered(_) | Sent::Broken | Sent::Never => None,
        };
        self.record(key, deed(invoked), invoked, (told, &answer), index);
    }

    fn record(
        &mut self,
        key: String,
        deed: Deed,
        invoked: u64,
        (told, answer): (Option<Told>, &Sent),
        index: Option<u64>,
    ) {
        let outcome = match (told, answer) {
            (Some(told), _) => Outcome::Told(self.shared.ticks.next(), told),
            (None, Sent::Answered(answer)) => refusal(answer),
            (None, Sent::Never) => Outcome::NotDone,
            (None, Sent::Broken) => Outcome::Open,
        };
        let (client, server, at) = (self.number, self.at, self.shared.started.elapsed());
        self.operations.push(Operation { client, server, key, deed, invoked, outcome, index, at });
        if told.is_none() {
            self.turn();
            thread::sleep(REST);
        }
    }

    /// Goes to the next server.
    fn turn(&mut self) {
        self.connection = None;
        self.at = (self.at + 1) % self.servers.len();
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Sent {
        let patience = PATIENCE[self.number % PATIENCE.len()];
        if self.connection.is_none() {
            self.connection = Connection::open(self.servers[self.at], patience).ok();
        }
        let Some(connection) = &mut self.connection else { return Sent::Never };
        connection.exchange(method, path, body).map_or(Sent::Broken, Sent::Answered)
    }
}

/// What became of a request.
enum Sent {
    /// It was not sent: nobody was there.
    Never,
    /// It was sent, and then the connection failed or took too long.
    Broken,
    Answered(Answer),
}

/// What an answer means that is not the one asked for.
fn refusal(answer: &Answer) -> Outcome {
    let text = answer.text();
    match answer.status {
        500 if NOTHING_HAPPENED.contains(&text.as_str()) => Outcome::NotDone,
        429 | 503 => Outcome::NotDone,
        500 => Outcome::Open,
        status => panic!("a request that is legal was answered with {status} {text}"),
    }
}

fn entries(answer: &Answer) -> Vec<Json> {
    let parsed: Json = serde_json::from_slice(&answer.body).expect("the body is JSON");
    parsed.as_array().expect("entries are a list").clone()
}

/// The flags of an entry are its value, so that nothing must be decoded.
fn seen_in(entry: &Json) -> Seen {
    let number = |name: &str| entry[name].as_u64().expect("an entry has its numbers");
    (Some(number("Flags")), number("ModifyIndex"))
}
