//! Keys: durable puts and reads, one server and three.

use crate::contender::{Contender, Job, Mode, Servers};
use crate::load::{Sample, run as load};
use std::time::Duration;

/// What is measured, and with how many clients.
const CASES: [(Job, usize); 7] = [
    (Job::Put, 1),
    (Job::Put, 16),
    (Job::Put, 64),
    (Job::Put, 256),
    (Job::Get(Mode::Default), 64),
    (Job::Get(Mode::Stale), 64),
    (Job::Get(Mode::Consistent), 64),
];

/// Measures all contenders, two samples of `length` for each case, in the order A B B A.
pub(crate) fn run(contenders: &[Contender], length: Duration) {
    println!("{:<38}{:>10}{:>10}{:>10}{:>9}", "", "per s", "p50 ms", "p99 ms", "ratio");
    for count in [1, 3] {
        let servers: Vec<Servers> =
            contenders.iter().map(|contender| contender.start(count)).collect();
        for (job, clients) in CASES {
            let disk = crate::disk::syncs_per_second(Duration::from_millis(500));
            let samples = sampled(&servers, job, clients, length);
            let own = samples[0].as_ref().map_or(f64::NAN, Sample::rate);
            for (servers, sample) in servers.iter().zip(&samples) {
                let Some(sample) = sample else { continue };
                let case = format!("{job:?}, clients: {clients}, servers: {count}");
                print!("{case:<38}{:>10.0}", sample.rate());
                print!("{:>10.2}{:>10.2}", sample.percentile(50), sample.percentile(99));
                print!("{:>9.2}  {:?}", own / sample.rate(), servers.kind);
                println!("{}", failures(sample));
            }
            if job == Job::Put {
                println!("{:<38}{disk:>10.0}{:>29.2}  pwrite and fdatasync", "", own / disk);
            }
        }
    }
}

/// A sample of each contender that can do the job, forth and back.
fn sampled(servers: &[Servers], job: Job, clients: usize, length: Duration) -> Vec<Option<Sample>> {
    let mut samples: Vec<Option<Sample>> = servers.iter().map(|_| None).collect();
    let all = 0..servers.len();
    for at in all.clone().chain(all.rev()) {
        if servers[at].can(job) {
            let sample = load(&servers[at], job, clients, length);
            samples[at].get_or_insert_default().add(sample);
        }
    }
    samples
}

fn failures(sample: &Sample) -> String {
    if sample.failed == 0 { String::new() } else { format!(", {} failed", sample.failed) }
}
