//! A large catalog: how long it takes to register, to read, to save and to start with.

use crate::contender::{Ask, Contender, Kind, Servers};
use e2e::{Connection, LONG};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Services of each node.
const SERVICES: usize = 5;
/// Who registers them.
const CLIENTS: usize = 32;
/// How long the catalog rests when it is full.
const REST: Duration = Duration::from_secs(5);
/// A large answer may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures all contenders that have a catalog, one after the other.
pub(crate) fn run(contenders: &[Contender], nodes: usize) {
    println!("{nodes} nodes with {SERVICES} services each, one server");
    println!(
        "{:<12}{:>12}{:>12}{:>12}{:>10}{:>11}",
        "", "register s", "grows MiB", "health ms", "save s", "restart s"
    );
    for contender in contenders.iter().filter(|contender| contender.kind != Kind::Etcd) {
        let mut servers = contender.start(1);
        let before = servers.resident(0);
        let begin = Instant::now();
        register(&servers, nodes);
        let registered = begin.elapsed();
        thread::sleep(REST);
        let grown = servers.resident(0) - before;
        let health = timed(&servers, "/v1/health/service/service-0?passing");
        let save = timed(&servers, "/v1/snapshot");
        servers.kill(0);
        let begin = Instant::now();
        servers.restart(0);
        servers.wait_for_writes(0);
        let restart = begin.elapsed();
        println!(
            "{:<12}{:>12.1}{grown:>12.0}{:>12.1}{:>10.2}{:>11.2}",
            format!("{:?}", contender.kind),
            registered.as_secs_f64(),
            health.as_secs_f64() * 1000.0,
            save.as_secs_f64(),
            restart.as_secs_f64()
        );
    }
}

/// Registers one service after the other by each client.
fn register(servers: &Servers, nodes: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let open = Connection::open(servers.hosts[0], LONG);
                let mut connection = open.expect("the server takes connections");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (node, service) = (number / SERVICES, number % SERVICES);
                    if node >= nodes {
                        return;
                    }
                    let body = json!({
                        "Node": format!("node-{node}"),
                        "Address": format!("10.{}.{}.1", node / 256, node % 256),
                        "Service": {"ID": format!("service-{service}-1"),
                                    "Service": format!("service-{service}"),
                                    "Port": 8000 + service, "Tags": ["v1"]},
                    });
                    let path = "/v1/catalog/register";
                    let answer = connection.exchange("PUT", path, &body.to_string());
                    let answer = answer.expect("the server answers");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
}

/// The shortest of three reads.
fn timed(servers: &Servers, path: &str) -> Duration {
    let read = || {
        let begin = Instant::now();
        let answer = servers.once(0, &Ask::get(path), PATIENCE).expect("the server answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        begin.elapsed()
    };
    (0..3).map(|_| read()).min().expect("three are some")
}
