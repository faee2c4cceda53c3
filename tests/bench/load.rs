//! Clients that ask one thing after the other, each over a connection that is kept.

use crate::contender::{Job, Servers};
use e2e::{Connection, LONG};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What some seconds of load showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// How long each request took that was answered with 200, in microseconds.
    latencies: Vec<u32>,
    /// Requests that were not.
    pub(crate) failed: usize,
    /// How long it lasted.
    length: Duration,
}

impl Sample {
    /// Takes in another one of the same load.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.latencies.sort_unstable();
        self.failed += other.failed;
        self.length += other.length;
    }

    /// Answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.length.as_secs_f64()
    }

    /// What this many of a hundred requests do not take longer than, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = self.latencies.len() * percent / 100;
        self.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// `clients` do `job` for `length`, spread over all servers.
pub(crate) fn run(servers: &Servers, job: Job, clients: usize, length: Duration) -> Sample {
    let barrier = Barrier::new(clients);
    let mut sample = Sample { length, ..Sample::default() };
    thread::scope(|scope| {
        let barrier = &barrier;
        let run = |client| scope.spawn(move || one(servers, job, client, (barrier, length)));
        let running: Vec<_> = (0..clients).map(run).collect();
        for client in running {
            let (latencies, failed) = client.join().expect("clients do not panic");
            sample.latencies.extend(latencies);
            sample.failed += failed;
        }
    });
    sample
}

fn one(
    servers: &Servers,
    job: Job,
    client: usize,
    (barrier, length): (&Barrier, Duration),
) -> (Vec<u32>, usize) {
    let host = servers.hosts[client % servers.hosts.len()];
    let mut connection = Connection::open(host, LONG).expect("servers take connections");
    let (mut latencies, mut failed) = (Vec::new(), 0);
    barrier.wait();
    let start = Instant::now();
    for number in 1.. {
        let ask = servers.ask(job, client, number);
        let begin = Instant::now();
        if begin - start >= length {
            break;
        }
        match connection.exchange(ask.method, &ask.path, &ask.body) {
            Ok(answer) if answer.status == 200 => {
                latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(_) => failed += 1,
            Err(_) => {
                failed += 1;
                connection = Connection::open(host, LONG).expect("servers take connections");
            }
        }
    }
    (latencies, failed)
}
