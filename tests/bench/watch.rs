//! Blocking queries: what many of them cost, whom one change wakes, and how soon.

use crate::contender::{Ask, Contender, Kind, Servers};
use async_net::TcpStream;
use e2e::LONG;
use serde_json::json;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{LocalExecutor, Timer, future};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the server rests once all wait.
const REST: Duration = Duration::from_secs(3);
/// How long those are watched who have nothing to hear.
const QUIET: Duration = Duration::from_secs(2);
/// Connections that are opened at a time.
const BATCH: usize = 100;

/// Measures all contenders that have a catalog: `watchers` wait for one service, as many for
/// another one, and the first changes.
pub(crate) fn run(contenders: &[Contender], watchers: usize) {
    println!("{watchers} blocking queries of a service that changes, as many of another one");
    println!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>12}{:>14}",
        "", "first ms", "p50 ms", "p99 ms", "last ms", "KiB each", "others woken"
    );
    for contender in contenders.iter().filter(|contender| contender.kind != Kind::Etcd) {
        let servers = contender.start(1);
        let indexes = ["changes", "stays"].map(|service| register(&servers, service, "v1"));
        let before = servers.resident(0);
        let local = LocalExecutor::new();
        let measured = smol::block_on(local.run(measure(&local, &servers, (indexes, watchers))));
        let Measured { mut times, others, resident } = measured;
        times.sort_unstable();
        let of = |percent: usize| {
            let at = (times.len() - 1) * percent / 100;
            times[at].as_secs_f64() * 1000.0
        };
        let each = (resident - before) * 1024.0 / (2 * watchers) as f64;
        print!("{:<12}{:>10.1}{:>10.1}", format!("{:?}", contender.kind), of(0), of(50));
        println!("{:>10.1}{:>10.1}{each:>12.2}{others:>14}", of(99), of(100));
    }
}

struct Measured {
    /// From the change to each answer.
    times: Vec<Duration>,
    /// How many were answered whom it did not concern.
    others: usize,
    /// MiB of the server while all waited.
    resident: f64,
}

/// Stores an instance of a service; its index.
fn register(servers: &Servers, service: &str, tag: &str) -> u64 {
    let body = json!({
        "Node": format!("node-of-{service}"), "Address": "10.0.0.1",
        "Service": {"Service": service, "Port": 80, "Tags": [tag]},
    });
    let put = Ask::put("/v1/catalog/register", body.to_string());
    let answer = servers.once(0, &put, LONG).expect("the server answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let get = Ask::get(&format!("/v1/catalog/service/{service}"));
    let answer = servers.once(0, &get, LONG).expect("the server answers");
    let rows: serde_json::Value = serde_json::from_slice(&answer.body).expect("it is JSON");
    rows[0]["ModifyIndex"].as_u64().expect("an instance has an index")
}

async fn measure<'a>(
    local: &LocalExecutor<'a>,
    servers: &Servers,
    ([changes, stays], watchers): ([u64; 2], usize),
) -> Measured {
    let host = servers.hosts[0];
    let answered = Rc::new(RefCell::new([Vec::new(), Vec::new()]));
    let waiting = [("changes", changes), ("stays", stays)];
    for number in 0..2 * watchers {
        let (service, index) = waiting[number % 2];
        let stream = TcpStream::connect(host).await.expect("the server takes connections");
        let answered = Rc::clone(&answered);
        let path = format!("/v1/health/service/{service}?index={index}&wait=10m");
        let watch = async move {
            let at = watch(stream, (host, &path)).await;
            answered.borrow_mut()[number % 2].push(at);
        };
        local.spawn(watch).detach();
        if number % BATCH == 0 {
            future::yield_now().await;
        }
    }
    Timer::after(REST).await;
    let resident = servers.resident(0);
    let early = answered.borrow().iter().map(Vec::len).sum::<usize>();
    assert_eq!(early, 0, "nothing has changed yet");
    let begin = Instant::now();
    register(servers, "changes", "v2");
    while answered.borrow()[0].len() < watchers {
        assert!(begin.elapsed() < LONG, "only {} were answered", answered.borrow()[0].len());
        Timer::after(Duration::from_millis(1)).await;
    }
    Timer::after(QUIET).await;
    let answered = answered.borrow();
    let times = answered[0].iter().map(|at: &Instant| at.saturating_duration_since(begin));
    Measured { times: times.collect(), others: answered[1].len(), resident }
}

/// Asks, and tells when the answer came.
async fn watch(mut stream: TcpStream, (host, path): (SocketAddr, &str)) -> Instant {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("the server answers");
    assert_eq!(&start, b"HTTP/1.1 200");
    Instant::now()
}
