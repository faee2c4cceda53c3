//! How long nothing can be written: the leader of three servers is killed, or leaves.

use crate::contender::{Ask, Contender, Job, Kind, Servers};
use e2e::{Connection, LONG};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often each is done; what is printed is the middle one, and the longest.
const TRIALS: usize = 3;
/// Between two writes, and after one that failed.
const PAUSE: Duration = Duration::from_millis(5);
/// For how long writes go on before the leader ends, and after: some elect late, and leave late.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(25);

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Leaves,
}

/// Measures all contenders, one after the other in each trial.
pub(crate) fn run(contenders: &[Contender]) {
    println!("{:<38}{:>10}{:>10}{:>9}", "writes out for", "middle s", "longest s", "ratio");
    for end in [End::Killed, End::Leaves] {
        let mut spans = vec![Vec::new(); contenders.len()];
        for _ in 0..TRIALS {
            for (contender, spans) in contenders.iter().zip(&mut spans) {
                spans.push(trial(contender, end));
            }
        }
        spans.iter_mut().for_each(|spans| spans.sort_unstable());
        let own = spans[0][TRIALS / 2].as_secs_f64();
        for (contender, spans) in contenders.iter().zip(&spans) {
            let [middle, longest] = [TRIALS / 2, TRIALS - 1].map(|at| spans[at].as_secs_f64());
            print!("{:<38}{middle:>10.3}{longest:>10.3}", format!("leader {end:?}, servers: 3"));
            println!("{:>9.2}  {:?}", middle / own, contender.kind);
        }
    }
}

/// The longest time between two writes that were done, by somebody who asks the servers that stay.
fn trial(contender: &Contender, end: End) -> Duration {
    let mut servers = contender.start(3);
    let leader = servers.leader();
    let stay: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    // Some servers are ready for writes before the others know them.
    thread::sleep(settling(&servers));
    let over = AtomicBool::new(false);
    let hosts: Vec<_> = stay.iter().map(|at| servers.hosts[*at]).collect();
    let ask = |client, number| servers.ask(Job::Put, client, number);
    let asks: Vec<Vec<_>> = (0..hosts.len())
        .map(|client| (0..100).map(|number| ask(client, number)).collect())
        .collect();
    let mut done = thread::scope(|scope| {
        let writers: Vec<_> = hosts
            .iter()
            .zip(&asks)
            .map(|(host, asks)| scope.spawn(|| write(*host, asks, &over)))
            .collect();
        thread::sleep(BEFORE);
        match end {
            End::Killed => servers.kill(leader),
            End::Leaves => servers.tell_to_leave(leader),
        }
        thread::sleep(AFTER);
        over.store(true, Ordering::Relaxed);
        let join = |writer: thread::ScopedJoinHandle<'_, Vec<Instant>>| {
            writer.join().expect("writers do not panic")
        };
        let end = [Instant::now()];
        writers.into_iter().flat_map(join).chain(end).collect::<Vec<_>>()
    });
    done.sort_unstable();
    done.windows(2).map(|pair| pair[1] - pair[0]).max().expect("something was written")
}

/// Consul's autopilot adds servers seconds after they take writes.
fn settling(servers: &Servers) -> Duration {
    Duration::from_secs(if servers.kind == Kind::Etcd { 1 } else { 12 })
}

/// Writes until it is over; when each write was done.
fn write(host: SocketAddr, asks: &[Ask], over: &AtomicBool) -> Vec<Instant> {
    let mut done = Vec::new();
    let mut connection = None;
    for ask in asks.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        connection = connection.or_else(|| Connection::open(host, LONG).ok());
        let answer =
            connection.as_mut().map(|open| open.exchange(ask.method, &ask.path, &ask.body));
        match answer {
            Some(Ok(answer)) if answer.status == 200 => done.push(Instant::now()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => connection = None,
        }
        thread::sleep(PAUSE);
    }
    done
}
