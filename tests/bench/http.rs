//! Reads over HTTP, by `wrk`, beside a program that does nothing but answer.

use crate::contender::{Ask, Contender, Kind, Servers};
use e2e::{LONG, loopback};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Nodes beside the server's own.
const NODES: usize = 100;
/// Connections that are kept busy.
const CONNECTIONS: usize = 32;
/// What is read.
const CASES: [(&str, &str); 6] = [
    ("catalog/nodes of 101", "/v1/catalog/nodes"),
    ("health of 10 instances", "/v1/health/service/web-10?passing"),
    ("health of 100 instances", "/v1/health/service/web-100?passing"),
    ("kv, default", "/v1/kv/bench"),
    ("kv, stale", "/v1/kv/bench?stale"),
    ("kv, consistent", "/v1/kv/bench?consistent"),
];

/// Measures what is asked of all contenders that have a catalog, in the order A B B A, and the
/// limit between: a responder with the same bytes.
pub(crate) fn run(contenders: &[Contender], length: Duration) {
    let mut servers = Vec::new();
    for contender in contenders.iter().filter(|contender| contender.kind != Kind::Etcd) {
        let started = contender.start(1);
        fill(&started);
        servers.push(started);
    }
    println!("{:<28}{:<11}{:>10}{:>10}{:>9}", "", "", "per s", "p99 ms", "ratio");
    for (name, path) in CASES {
        let answer = servers[0].once(0, &Ask::get(path), LONG).expect("the server answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let limit = responder(answer.body);
        let hosts: Vec<SocketAddr> = servers.iter().map(|it| it.hosts[0]).chain([limit]).collect();
        let mut rates = vec![(0.0, 0.0_f64); hosts.len()];
        let all = 0..hosts.len();
        for at in all.clone().chain(all.rev()) {
            let (rate, p99) = wrk(hosts[at], path, length);
            rates[at] = (rates[at].0 + rate / 2.0, rates[at].1.max(p99));
        }
        let own = rates[0].0;
        for (at, (rate, p99)) in rates.iter().enumerate() {
            let who =
                servers.get(at).map_or_else(|| "limit".to_owned(), |it| format!("{:?}", it.kind));
            println!("{name:<28}{who:<11}{rate:>10.0}{p99:>10.2}{:>9.2}", own / rate);
        }
    }
}

/// A service of 10 instances, one of 100, and a key.
fn fill(servers: &Servers) {
    for at in 0..NODES {
        for service in [Some("web-100"), (at < 10).then_some("web-10")].into_iter().flatten() {
            let body = json!({
                "Node": format!("node-{at}"), "Address": format!("10.0.0.{at}"),
                "NodeMeta": {"rack": "r1"},
                "Service": {"Service": service, "Port": 8080, "Tags": ["v1", "primary"]},
                "Check": {"CheckID": format!("service:{service}"), "Name": "web",
                          "Status": "passing", "ServiceID": service},
            });
            ask(servers, &Ask::put("/v1/catalog/register", body.to_string()));
        }
    }
    ask(servers, &Ask::put("/v1/kv/bench", "x".repeat(128)));
}

fn ask(servers: &Servers, ask: &Ask) {
    let answer = servers.once(0, ask, LONG).expect("the server answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A listener that answers everything with this body; it ends with the process.
fn responder(body: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((loopback(), 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.into_bytes(), body].concat();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || respond(stream, &answer));
        }
    });
    address
}

/// Answers each request of a client that waits for the answer before it asks again.
fn respond(mut stream: TcpStream, answer: &[u8]) {
    let mut request = [0; 4096];
    let _ = stream.set_nodelay(true);
    while stream.read(&mut request).is_ok_and(|read| read > 0) {
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// Requests in a second, and the time in milliseconds that 99 of 100 do not exceed.
fn wrk(host: SocketAddr, path: &str, length: Duration) -> (f64, f64) {
    let seconds = format!("{}s", length.as_secs().max(1));
    let connections = CONNECTIONS.to_string();
    let mut command = Command::new("wrk");
    command.args(["--latency", "-t", "2", "-c", &connections, "-d", &seconds]);
    let output = command.arg(format!("http://{host}{path}")).output();
    let output = output.expect("wrk runs: it is among the packages");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("Non-2xx"), "{text}");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    let rate = value("Requests/sec:").parse().expect("a rate is a number");
    (rate, milliseconds(&value("99%")))
}

/// A time as `wrk` writes it.
fn milliseconds(text: &str) -> f64 {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let read = |(unit, factor): &(&str, f64)| {
        text.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * factor)
    };
    units.iter().find_map(read).unwrap_or(f64::NAN)
}
